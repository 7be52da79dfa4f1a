"""What the ONNX tests share: small graphs by hand, random models, running files, error bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ifgo.cell import LSTMCell
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Embedding,
    InitialState,
    Layer,
    Recurrent,
    Residual,
    Scale,
)
from ifgo.model import Activation, Model, TokenInput
from ifgo.reference import truth

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


# -- how far a float32 runtime may be from float64 ----------------------------------------------

UNIT = 2.0**-24
"""Rounding error of one float32 operation, relative."""

ACTIVATION = 8 * 2.0**-24
"""What sigmoid, tanh, exp of a float32 library may be off: 4 units in the last place at 1.
test_activation_error in test_onnx_write.py holds ONNX Runtime to it."""

SECOND_ORDER = 1.001
"""Products of two errors, each below 1e-3 (asserted by `float32_bound`)."""

_SLOPES = {"sigmoid": 0.25, "tanh": 1.0, "relu": 1.0, "linear": 1.0, "softsign": 1.0}


def _slope(activation: Activation) -> float:
    known = {
        "softplus": 1.0,
        "softmax": 0.5,
        "hard_sigmoid": abs(activation.alpha or 0),
        "leaky_relu": max(1.0, abs(activation.alpha or 0)),
        "elu": max(1.0, abs(activation.alpha or 0)),
        "affine": abs(activation.alpha or 0),
        "scaled_tanh": abs((activation.alpha or 0) * (activation.beta or 0)),
    } | _SLOPES
    return known[activation.name]


def _rows(matrix: Any) -> float:
    return float(np.abs(np.asarray(matrix, np.float64)).sum(axis=-1).max())


def _top(*arrays: Any) -> float:
    return max(
        (float(np.abs(np.asarray(a, np.float64)).max()) for a in arrays if a is not None),
        default=0.0,
    )


def float32_bound(model: Model, result: truth.Result, x: Any) -> float:
    """How far the main output of any float32 runtime may be from `result`: the local errors
    (K+3)·2⁻²⁴·Σ|w||v| through the activations' slopes, carried over every step and layer."""
    return _chain(model.layers, result, np.asarray(x), 0.0, [])[1] * SECOND_ORDER


def cell_bound(model: Model, result: truth.Result, x: Any) -> float:
    """The same for every final cell state."""
    found: list[float] = []
    _chain(model.layers, result, np.asarray(x), 0.0, found)
    return max(found) * SECOND_ORDER


def _chain(
    layers: tuple[Layer, ...], result: truth.Result, value: Any, error: float, cells: list[float]
) -> tuple[Any, float]:
    for layer in layers:
        size = _top(value)
        match layer:
            case Recurrent():
                traces = result.traces[layer.name]
                ends = [
                    _cell_errors(
                        cell, traces[direction], value, error, backward=direction == "backward"
                    )
                    for direction, cell in layer.cells.items()
                ]
                error = max(of_h for of_h, _ in ends)
                cells.extend(of_c for _, of_c in ends)
            case Dense():
                width = layer.weight.shape[1]
                total = _rows(layer.weight) * size + _top(layer.bias)
                error = _rows(layer.weight) * error + (width + 3) * UNIT * total
                error = _slope(layer.activation) * error + ACTIVATION * (1 + total)
            case ActivationLayer():
                error = _slope(layer.activation) * error + ACTIVATION * (1 + size)
            case Scale():
                total = _top(layer.factor) * size + _top(layer.offset)
                error = _top(layer.factor) * error + 3 * UNIT * total
            case BatchNorm():
                factor = _top(1 / np.sqrt(layer.variance.astype(float) + layer.epsilon))
                factor *= 1.0 if layer.weight is None else _top(layer.weight)
                total = factor * (size + _top(layer.mean)) + _top(layer.bias)
                error = factor * error + 8 * UNIT * total
            case Residual():
                inner = _chain(layer.layers, result, value, error, cells)[1]
                error = inner + error + UNIT * (_top(result.outputs[layer.name]))
            case Embedding():
                error = 0.0
            case _:
                pass
        assert error < 1e-3, f"a bound of {error:.2g} says nothing: draw a more contractive net"
        value = result.outputs[layer.name]
    return value, error


def _cell_errors(
    cell: LSTMCell, trace: truth.Trace, x: Any, error: float, *, backward: bool
) -> tuple[float, float]:
    """The largest error of h and of c over all steps, from where the gates really are."""
    f_act, g_act, h_act = cell.activations
    w, r, p = _rows(cell.weight_ih), _rows(cell.weight_hh), _top(cell.peephole)
    terms = sum(cell.weight_ih.shape[1:] + cell.weight_hh.shape[1:]) + 3
    biases = _top(cell.bias_ih) + _top(cell.bias_hh)
    e_h = e_c = worst_h = worst_c = 0.0
    before = np.ones_like(trace["c"][:, 0])  # initial states of the tests are at most 1
    h_before = 1.0
    steps = range(trace["h"].shape[1])
    for t in reversed(steps) if backward else steps:
        i, f, g, o, c = (trace[name][:, t] for name in "ifgoc")
        total = (
            w * _top(np.asarray(x)[:, t]) + r * h_before + biases + p * max(_top(before), _top(c))
        )
        library = ACTIVATION * (1 + total)
        e_z = terms * UNIT * total + w * error + r * e_h + p * e_c
        e_i, e_f = (_slope_at(f_act, gate, e_z) * e_z + library for gate in (i, f))
        e_g = _slope_at(g_act, g, e_z) * e_z + library
        rounding = 3 * UNIT * (_top(f) * _top(before) + _top(i) * _top(g) + _top(c))
        e_c = _top(f) * e_c + _top(before) * e_f + _top(i) * e_g + _top(g) * e_i + rounding
        e_o = _slope_at(f_act, o, e_z) * (e_z + p * e_c) + library
        m = trace["m"][:, t] / np.where(o == 0, 1, o)
        e_m = _slope_at(h_act, m, e_c) * e_c + ACTIVATION * (1 + _top(c))
        e_h = _top(o) * e_m + _top(m) * e_o + UNIT * _top(trace["h"][:, t])
        worst_h, worst_c = max(worst_h, e_h), max(worst_c, e_c)
        before, h_before = c, _top(trace["h"][:, t])
    return worst_h, worst_c


def _slope_at(activation: Activation, result: Any, error: float) -> float:
    """The slope where the function gives `result`; both second derivatives are below 1."""
    if activation.name == "sigmoid":
        return float((result * (1 - result)).max()) + error
    if activation.name == "tanh":
        return float((1 - result**2).max()) + error
    return _slope(activation)


# -- random models ----------------------------------------------------------------------------


def random_cell(rng: np.random.Generator, i: int, h: int, **rules: Any) -> LSTMCell:
    """A contractive cell: weights shrink with the number of their terms."""

    def draw(*shape: int) -> Any:
        return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(shape[-1] + 1)

    return LSTMCell(
        draw(4 * h, i), draw(4 * h, h), *(rules.pop("biases", (draw(4 * h), draw(4 * h)))), **rules
    )


def random_recurrent(rng: np.random.Generator, name: str, i: int, h: int) -> Recurrent:
    """A layer with any of what ONNX can hold."""
    rules: dict[str, Any] = {}
    if rng.random() < 0.3:
        rules["biases"] = (None, None)
    if rng.random() < 0.3:
        rules["clip_z"] = 0.5
    if rng.random() < 0.3:
        rules["coupling"] = "f=1-i"
    if rng.random() < 0.3:
        choices = [
            Activation("sigmoid"),
            Activation("tanh"),
            Activation("hard_sigmoid", 0.25, 0.5),
            Activation("softsign"),
            Activation("linear"),
            Activation("leaky_relu", 0.125),
            Activation("scaled_tanh", 0.5, 0.75),
            Activation("affine", 0.5, 0.125),
            Activation("elu", 0.5),
        ]
        picked = [choices[int(k)] for k in rng.integers(0, len(choices), 3)]
        rules["activations"] = tuple(picked)
    peep = rng.random() < 0.3

    def cell() -> LSTMCell:
        made = random_cell(rng, i, h, **rules)
        if peep:
            made = replace(made, peephole=rng.uniform(-0.2, 0.2, (3, h)).astype(np.float32))
        return made

    which = int(rng.integers(0, 4))
    forward = cell() if which != 1 else None
    backward = cell() if which in (1, 2) else None
    d = 2 if which == 2 else 1
    initial = InitialState()
    if rng.random() < 0.3:
        draws = (rng.uniform(-0.5, 0.5, (d, h)).astype(np.float32) for _ in range(2))
        initial = InitialState("constant", *draws)
    return Recurrent(name, forward, backward, initial=initial)


def tokens_or_features(model: Model, rng: np.random.Generator, b: int, t: int) -> Any:
    """Input (B, T, I) or tokens (B, T)."""
    if isinstance(model.input, TokenInput):
        return rng.integers(0, model.input.vocabulary, (b, t))
    return rng.uniform(-1, 1, (b, t, model.input_size)).astype(np.float32)
