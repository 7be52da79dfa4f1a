"""Every outside ONNX case there is: read, computed on truth, exact and C, none left out.

Truth is held to the stored numbers; C to the interpreter, bit for bit, states included.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_bounds import cell_bound, float32_bound
from onnx_cases import INT32, assert_same, graph, node, refuse_file, save

from ifgo import states
from ifgo.errors import UnsupportedError
from ifgo.formats import onnx as room
from ifgo.model import LengthsInput, Model, StateInput
from ifgo.reference import truth

PRINTED = 5e-5
"""ONNX Runtime's tests print five significant digits or more: half a unit of the fifth."""

OFF = {"ShorterSeqInMiddle": 1e-4, "ZeroSeqInMiddle": 1e-4}
"""One printed value is itself off by 6e-5 (README of the vectors)."""


@dataclass
class Case:
    """A file, what its graph inputs get, and what its outputs are. printed: relative error of the
    stored numbers; off: absolute."""

    file: onnx.ModelProto | Path
    feeds: dict[str, Any]
    outputs: dict[str, Any]
    printed: float = 0.0
    off: float = 0.0
    bind: dict[str, Any] = field(default_factory=dict[str, Any])


def backend(name: str, folder: Path) -> Case:
    """A node test of the ONNX project, as onnx itself makes it; the stored numbers are the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_node_model_tests

        (case,) = (c for c in load_node_model_tests() if c.name == name)
    inputs, outputs = case.data_sets[0]
    stored = np.load(folder / "vectors" / f"{name}.npz")
    have = {key for key in stored.files if key != "attrs"}
    feeds = named(case.model.graph.input, inputs)
    wanted = named(case.model.graph.output, outputs)
    assert {f"in_{n}" for n in feeds} | {f"out_{n}" for n in wanted} == have
    for key, array in (*feeds.items(), *wanted.items()):
        np.testing.assert_array_equal(stored[f"{'in' if key in feeds else 'out'}_{key}"], array)
    attributes = {
        a.name: onnx.helper.get_attribute_value(a) for a in case.model.graph.node[0].attribute
    }
    assert {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()} == (
        ast.literal_eval(str(stored["attrs"]))
    )
    bind = {k: v for k, v in feeds.items() if k in ("W", "R", "B", "P")}
    return Case(case.model, feeds, wanted, bind=bind)


def named(entries: Any, arrays: Any) -> dict[str, Any]:
    return dict(zip([entry.name for entry in entries], arrays, strict=True))


def onnx2c(name: str, folder: Path) -> Case:
    """One LSTM node; every weight is a graph input, with its array beside the model."""
    place = folder / "models" / "onnx2c_ops" / name
    made = onnx.load(place / "model.onnx")
    arrays: dict[str, list[Any]] = {"input": [], "output": []}
    for kind, found in arrays.items():
        for path in sorted((place / "test_data_set_0").glob(f"{kind}_*.pb")):
            found.append(numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())))
    feeds = named(made.graph.input, arrays["input"])
    weights = {n for k in (1, 2, 3) for n in made.graph.node[0].input[k : k + 1]}
    bind = {key: array for key, array in feeds.items() if key in weights}
    return Case(place / "model.onnx", feeds, named(made.graph.output, arrays["output"]), bind=bind)


def runtime(name: str, folder: Path) -> Case:
    """A case of ONNX Runtime's own operator tests: weights in the file, states as inputs."""
    stored = json.loads((folder / "vectors" / "ort_lstm_golden.json").read_text())
    case = next(case for case in stored["cases"] if case["name"] == name)
    d = 2 if case.get("dir") == "bidirectional" else 1
    steps, batch = case["T"], case["B"]
    constants: dict[str, Any] = {}
    for key, rows in (("W", (8, 2)), ("R", (8, 2)), ("B", (16,)), ("P", (6,))):
        array = np.array(stored["CTX"][key], np.float32).reshape(1, *rows)
        constants[key] = np.repeat(array, d, 0)
    feeds: dict[str, Any] = {"x": np.array(case["X"], np.float32).reshape(steps, batch, 2)}
    for key in ("h0", "c0"):
        if key in case:
            feeds[key] = np.array(case[key], np.float32).reshape(d, batch, 2)
    if "seq" in case:
        feeds["n"] = np.array(case["seq"], np.int32)
    attributes: dict[str, Any] = {"hidden_size": 2}
    for key, attribute in (("dir", "direction"), ("clip", "clip"), ("input_forget",) * 2):
        if key in case:
            attributes[attribute] = case[key]
    if "act" in case:
        attributes["activations"] = [word.capitalize() for word in case["act"] * d]
    slots = {"B": case.get("bias", 1), "n": "seq" in case, "h0": "h0" in case, "c0": "c0" in case}
    slots["P"] = case.get("peep", 1)
    inputs = ["x", "W", "R", *(key if present else "-" for key, present in slots.items())]
    shapes = {"Y": [steps, d, batch, 2], "Yh": [d, batch, 2], "Yc": [d, batch, 2]}
    made = graph(
        [node("LSTM", " ".join(inputs), "Y Yh Yc", **attributes)],
        {key: list(array.shape) for key, array in feeds.items()},
        shapes,
        {key: constants[key] for key in inputs if key in constants},
        types={"n": INT32},
    )
    wanted = {k: np.array(case[k]).reshape(shape) for k, shape in shapes.items() if k in case}
    assert wanted
    return Case(made, feeds, wanted, PRINTED, OFF.get(name, 0.0))


def simple(name: str, folder: Path) -> Case:
    """The runtime's case of two rows, one feature and three units, in one direction."""
    stored = json.loads((folder / "vectors" / "ort_lstm_golden.json").read_text())["simple"]
    weights = {
        "W": np.array(stored["W"], np.float32).reshape(1, 12, 1),
        "R": np.full((1, 12, 3), stored["Rval"], np.float32),
    }
    shapes = {"Y": [2, 1, 2, 3], "Yc": [1, 2, 3]}
    made = graph(
        [node("LSTM", "x W R", "Y - Yc", hidden_size=3, direction=name)],
        {"x": [2, 2, 1]},
        shapes,
        weights,
    )
    x = np.array(stored["X"], np.float32).reshape(2, 2, 1)
    wanted = {key: np.array(stored[name][key]).reshape(shape) for key, shape in shapes.items()}
    return Case(made, {"x": x}, wanted, PRINTED)


BACKEND = [f"test_lstm_{name}" for name in (
    "batchwise", "bidirectional", "defaults", "reverse", "with_initial_bias", "with_peepholes",
)]  # fmt: skip
ONNX2C = [f"test_lstm_{name}" for name in (
    "activations", "all_outputs", "bidirectional", "clip", "intermediate_h", "missing_inputs",
    "reverse", "seq_length", "simple", "with_initial_state", "y_c",
)]  # fmt: skip
RUNTIME = [
    "ForwardPeepHole",
    "BidirectionalBasic",
    "ForwardNoBiasUsePeepholes",
    "ForwardInputForget",
    "ForwardClip",
    "Backward",
    "Backward_gpu",
    "ForwardHiddenState",
    "ForwardCellState",
    "Activation",
    "BatchReallocation",
    "SequenceLengthShorterThanInputSequenceLength",
    "ShorterSeqInMiddle",
    "ZeroSeqInMiddle",
]
TABLE: list[tuple[Callable[[str, Path], Case], str]] = [
    *((backend, name) for name in BACKEND),
    *((onnx2c, name) for name in ONNX2C),
    *((runtime, name) for name in RUNTIME),
    *((simple, name) for name in ("forward", "reverse")),
]
every = pytest.mark.parametrize(
    ("make", "name"), TABLE, ids=[f"{make.__name__}-{name}" for make, name in TABLE]
)


def test_nothing_is_left_out(shared: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_node_model_tests

        cases = [c.name for c in load_node_model_tests() if "LSTM" in {
            n.op_type for n in c.model.graph.node
        }]  # fmt: skip
    assert sorted(cases) == BACKEND
    vectors = shared / "vectors"
    assert sorted(path.stem for path in vectors.glob("test_lstm_*.npz")) == BACKEND
    folders = (shared / "models" / "onnx2c_ops").iterdir()
    assert sorted(path.name for path in folders if path.is_dir()) == ONNX2C
    stored = json.loads((vectors / "ort_lstm_golden.json").read_text())
    assert set(stored) == {"CTX", "cases", "simple"}
    assert [case["name"] for case in stored["cases"]] == RUNTIME
    assert set(stored["simple"]) == {"X", "W", "Rval", "forward", "reverse"}
    graphs = {p.relative_to(shared / "models").parts[0] for p in shared.rglob("*.onnx")}
    assert graphs == {"dtln", "onnx2c_ops", "tract_byte_bidi"}


@dataclass
class Ready:
    """A model and what it is run on: x (B, T, I), the whole start, lengths."""

    model: Model
    x: Any
    start: states.State
    lengths: Any


def ready(case: Case, folder: Path) -> Ready:
    path = case.file if isinstance(case.file, Path) else save(case.file, folder)
    if case.bind:
        with pytest.raises(UnsupportedError, match=r"takes weights from the inputs .*--bind"):
            room.read(path)
    model = room.read(path, bind=case.bind)
    if case.bind:
        np.savez(folder / "bound.npz", **case.bind)
        assert_same(room.read(path, bind=folder / "bound.npz"), model)
    x = case.feeds[model.input.name]
    x = x.swapaxes(0, 1) if model.input.axes == "TB" else x
    given = {e.name: case.feeds[e.name] for e in model.inputs if isinstance(e, StateInput)}
    lengths = [case.feeds[e.name] for e in model.inputs if isinstance(e, LengthsInput)]
    start = states.from_inputs(model, given)
    used = {model.input.name, *given, *case.bind}
    used |= {e.name for e in model.inputs if isinstance(e, LengthsInput)}
    assert used == set(case.feeds)
    return Ready(model, x, start, lengths[0] if lengths else None)


@every
def test_stored_numbers(
    make: Callable[[str, Path], Case], name: str, shared: Path, tmp_path: Path
) -> None:
    case = make(name, shared)
    r = ready(case, tmp_path)
    result = truth.forward(r.model, r.x, r.start, r.lengths)
    top = max([1.0, *(float(np.abs(array).max()) for array in r.start.values())])
    bounds = [limit(r.model, result, r.x, top) for limit in (float32_bound, cell_bound)]
    packed = states.to_outputs(r.model, result.state)
    checked = 0
    for output in r.model.outputs:
        if output.name not in case.outputs:
            continue
        want = case.outputs[output.name]
        if output.states:
            have = packed[output.name]
        else:
            batch, steps = r.x.shape[:2]
            have = result.y.reshape(batch, steps, r.model.recurrent[0].directions, -1)
            have = have if output.axes == "BT" else have.transpose(1, 2, 0, 3)
        assert have.shape == want.shape
        tolerance = max(bounds) + case.printed * np.abs(want) + case.off
        assert (np.abs(have - want) <= tolerance).all(), output.name
        checked += 1
    assert checked == len(case.outputs)


@every
@pytest.mark.usefixtures("cc")
def test_c_computes_the_bits_of_the_interpreter(
    make: Callable[[str, Path], Case], name: str, shared: Path, tmp_path: Path
) -> None:
    check_c(ready(make(name, shared), tmp_path))


def check_c(r: Ready) -> None:
    want, ends = r.model.run(r.x, r.start, lengths=r.lengths, on="exact")
    have, finals = r.model.run(r.x, r.start, lengths=r.lengths, on="c99")
    assert have.tobytes() == want.tobytes()
    assert {k: a.tobytes() for k, a in finals.items()} == {k: a.tobytes() for k, a in ends.items()}


def test_half_a_state(shared: Path) -> None:
    """initial_h is an input, initial_c is missing: it starts at zero and nobody has to give it."""
    case = onnx2c("test_lstm_missing_inputs", shared)
    model = room.read(case.file, bind=case.bind)  # type: ignore[arg-type]
    assert [entry.name for entry in model.inputs] == ["x", "i_h"]
    x, h = case.feeds["x"], case.feeds["i_h"]
    y, _ = model.run(x, {"h0": h}, on="exact")
    both, _ = model.run(x, {"h0": h, "c0": np.zeros((1, 1, 1), np.float32)}, on="exact")
    assert y.tobytes() == both.tobytes()
    whole = room.read(case.file, bind=case.bind | {"i_h": h})  # type: ignore[arg-type]
    assert whole.recurrent[0].initial.kind == "constant"
    assert whole.run(x, on="exact")[0].tobytes() == y.tobytes()


def test_a_state_for_each_sequence_is_no_constant(shared: Path) -> None:
    case = onnx2c("test_lstm_with_initial_state", shared)
    refuse_file(
        case.file,  # type: ignore[arg-type]
        UnsupportedError,
        "node 'sclbl-onnx-node1': initial_h ('i_h') differs between the rows of its batch, "
        "expected one initial state for all sequences, or an input",
        bind=case.bind | {"i_h": case.feeds["i_h"]},
    )


@pytest.mark.usefixtures("cc")
def test_tract_bytes(shared: Path) -> None:
    """Embedding, two bidirectional LSTMs and a Dense, with the authors' inputs and outputs."""
    folder = shared / "models" / "tract_byte_bidi"
    model = room.read(folder / "model.onnx")
    assert [layer.kind for layer in model.layers] == ["embedding", "lstm", "lstm", "dense"]
    assert model.sizes() == [32, 256, 128, 2]
    assert model.provenance.names["lstm0.forward.weight_ih"] == "190"
    assert model.provenance.version == "pytorch 1.5"
    stored = np.load(folder / "io.npz")
    x, y = stored["input"], stored["Add_26"]
    result = truth.forward(model, x)
    # The authors' runtime is unknown, so is its error: README measures 2.9e-6 between it and
    # ONNX Runtime; twice that separates both from float64.
    assert np.abs(result.y - y).max() <= 2 * 2.9e-6
    check_c(Ready(model, x, {}, None))
