"""What the ONNX tests share: small graphs by hand, random models, running files, error bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ifgo.cell import LSTMCell
from ifgo.errors import IfgoError
from ifgo.formats import onnx as room
from ifgo.layers import (
    InitialState,
    Layer,
)
from ifgo.model import Model

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64

# -- graphs -----------------------------------------------------------------------------------


def random(*shape: int, seed: int = 0, scale: float = 0.5, dtype: Any = np.float32) -> Any:
    """Uniform numbers in [-scale, scale]."""
    return np.random.default_rng([seed, *shape]).uniform(-scale, scale, shape).astype(dtype)


def lstm_weights(i: int = 3, h: int = 4, d: int = 1, seed: int = 0) -> dict[str, Any]:
    """W, R and B of one node."""
    return {
        "W": random(d, 4 * h, i, seed=seed),
        "R": random(d, 4 * h, h, seed=seed + 1),
        "B": random(d, 8 * h, seed=seed + 2),
    }


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node; names in a string, "-" for one that is left out. Its name is the first output's."""
    names = ["" if n == "-" else n for n in inputs.split()]
    results = ["" if n == "-" else n for n in outputs.split()]
    name = next(n for n in results if n)
    return helper.make_node(op, names, results, name=f"n_{name}", **attributes)


def graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    constants: dict[str, Any] | None = None,
    *,
    types: dict[str, int] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model; inputs and outputs name → shape, float unless `types` says otherwise."""
    kinds = types or {}

    def info(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kinds.get(name, FLOAT), shape)

    made = helper.make_graph(
        nodes,
        "test",
        [info(*pair) for pair in inputs.items()],
        [info(*pair) for pair in outputs.items()],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="test"
    )


def one_lstm(
    attributes: dict[str, Any] | None = None,
    *,
    d: int = 1,
    h: int = 4,
    i: int = 3,
    inputs: str = "x W R B",
    extra: dict[str, Any] | None = None,
    free: dict[str, list[Any]] | None = None,
    types: dict[str, int] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """One LSTM node over x (T, B, I) with all of its outputs as outputs of the model."""
    constants = lstm_weights(i, h, d) | (extra or {})
    names = [n for n in inputs.split() if n != "-" and n in constants]
    attributes = {"hidden_size": h} | (attributes or {})
    return graph(
        [node("LSTM", inputs, "Y Y_h Y_c", **attributes)],
        {"x": ["T", "B", i]} | (free or {}),
        {"Y": ["T", d, "B", h], "Y_h": [d, "B", h], "Y_c": [d, "B", h]},
        {n: constants[n] for n in names},
        types=types,
        opset=opset,
    )


SIZE, UNITS = 3, 4
"""Features and units of the LSTM in `chain`."""


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


AXES = {"k1": ints(1), "k0": ints(0), "k2": ints(2)}
"""Constants that hand-made graphs name as axes."""


def chain(
    before: list[onnx.NodeProto],
    after: list[onnx.NodeProto],
    constants: dict[str, Any],
    outputs: dict[str, list[Any]],
    *,
    inputs: dict[str, list[Any]] | None = None,
    lstm: str = "x W R B",
    result: str = "Y Y_h Y_c",
    types: dict[str, int] | None = None,
    opset: int = 17,
    **attributes: Any,
) -> onnx.ModelProto:
    """Nodes before and after one LSTM over x (T, B, SIZE)."""
    d = 2 if attributes.get("direction") == "bidirectional" else 1
    weights = {k: v * np.float32(0.5) for k, v in lstm_weights(SIZE, UNITS, d).items()}
    return graph(
        [*before, node("LSTM", lstm, result, hidden_size=UNITS, **attributes), *after],
        inputs or {"x": ["T", "B", SIZE]},
        outputs,
        weights | constants,
        types=types,
        opset=opset,
    )


def save(model: onnx.ModelProto, folder: Path, name: str = "m.onnx") -> Path:
    """The model as a file."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def run_onnx(path: Path, **feeds: Any) -> list[Any]:
    """The outputs ONNX Runtime computes. Reference optimisations off: what the file says."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


# -- comparing --------------------------------------------------------------------------------


def structure(model: Model) -> list[Any]:
    """Everything of a model but its arrays and its provenance."""

    def of(layer: Layer) -> Any:
        found: dict[str, Any] = {}
        for name, value in vars(layer).items():
            if isinstance(value, LSTMCell):
                found[name] = {k: v for k, v in vars(value).items() if not is_array(v)}
            elif isinstance(value, InitialState):
                found[name] = value.kind
            elif isinstance(value, tuple) and value and isinstance(value[0], Layer):
                found[name] = [of(inner) for inner in value]
            elif not is_array(value):
                found[name] = value
        return type(layer).__name__, found

    return [model.inputs, [of(layer) for layer in model.layers], model.outputs]


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def assert_same(have: Model, want: Model) -> None:
    """The same structure and the same bits."""
    assert structure(have) == structure(want)
    assert_same_arrays(have, want)


def assert_same_arrays(have: Model, want: Model) -> None:
    assert list(have.arrays) == list(want.arrays)
    for name, array in want.arrays.items():
        assert have.arrays[name].dtype == array.dtype, name
        assert have.arrays[name].tobytes() == array.tobytes(), name


def assert_same_arrays_by_order(have: Model, want: Model) -> None:
    pairs = zip(have.arrays.values(), want.arrays.values(), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def refuse_file(path: Path, kind: type[IfgoError], text: str, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        room.read(path, **options)
    assert str(caught.value) == f"{path}: {text}"
