"""How far a float32 runtime may be from float64: derived, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx_cases import assert_same, run_onnx

from ifgo.cell import LSTMCell
from ifgo.formats import onnx as room
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Embedding,
    Layer,
    Recurrent,
    Residual,
    Scale,
)
from ifgo.model import Activation, Model
from ifgo.reference import truth

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


def float32_bound(model: Model, result: truth.Result, x: Any, start: float = 1.0) -> float:
    """How far the main output of any float32 runtime may be from `result`: the local errors
    (K+3)·2⁻²⁴·Σ|w||v| through the activations' slopes, carried over every step and layer.
    start: the largest entry of any initial state."""
    return _chain(model.layers, result, np.asarray(x), 0.0, [], start)[1] * SECOND_ORDER


def cell_bound(model: Model, result: truth.Result, x: Any, start: float = 1.0) -> float:
    """The same for every final cell state."""
    found: list[float] = []
    _chain(model.layers, result, np.asarray(x), 0.0, found, start)
    return max(found) * SECOND_ORDER


def _chain(
    layers: tuple[Layer, ...],
    result: truth.Result,
    value: Any,
    error: float,
    cells: list[float],
    start: float,
) -> tuple[Any, float]:
    for layer in layers:
        size = _top(value)
        match layer:
            case Recurrent():
                traces = result.traces[layer.name]
                ends = [
                    _cell_errors(
                        cell, traces[direction], value, error, direction == "backward", start
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
                inner = _chain(layer.layers, result, value, error, cells, start)[1]
                error = inner + error + UNIT * (_top(result.outputs[layer.name]))
            case Embedding():
                error = 0.0
            case _:
                pass
        assert error < 1e-3, f"a bound of {error:.2g} says nothing: draw a more contractive net"
        value = result.outputs[layer.name]
    return value, error


def _cell_errors(
    cell: LSTMCell, trace: truth.Trace, x: Any, error: float, backward: bool, start: float
) -> tuple[float, float]:
    """The largest error of h and of c over all steps, from where the gates really are."""
    f_act, g_act, h_act = cell.activations
    w, r, p = _rows(cell.weight_ih), _rows(cell.weight_hh), _top(cell.peephole)
    terms = sum(cell.weight_ih.shape[1:] + cell.weight_hh.shape[1:]) + 3
    biases = _top(cell.bias_ih) + _top(cell.bias_hh)
    e_h = e_c = worst_h = worst_c = 0.0
    before = np.full_like(trace["c"][:, 0], start)
    h_before = start
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


def compare(path: Path, model: Model, x: Any, ours: Any = None, shape: Any = None) -> None:
    """The first output against truth, the original and what we write of it."""
    order = {"BT": (0, 1, 2), "TB": (1, 0, 2), "T": (0, 1)}[model.input.axes]
    if ours is None:
        ours = x.transpose(order[: x.ndim]) if model.input.axes != "T" else x[None]
    result = truth.forward(model, ours)
    bound = float32_bound(model, result, ours)
    want = result.y
    if model.outputs[0].role == "sequence" and model.outputs[0].axes == "TB":
        want = want.swapaxes(0, 1)
    name = onnx.load(path).graph.input[0].name
    have = run_onnx(path, **{name: x})[0]
    if shape is not None:
        assert have.shape == shape
    assert np.abs(have.reshape(want.shape) - want).max() <= bound
    written = path.parent / "written.onnx"
    room.write(model, written)
    assert_same(room.read(written), model)
    again = run_onnx(written, **{onnx.load(written).graph.input[0].name: np.ascontiguousarray(x)})
    assert np.abs(again[0].reshape(want.shape) - want).max() <= bound
