"""The judge: every Model in float64, written from the equations of SPEC.md section 1.

Knows nothing of programs or targets. Clear before fast: one loop over time, every intermediate
kept. Letters: B batch, T time, I input, H hidden, P output, D directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo import states
from ifgo.errors import UnsupportedError
from ifgo.model import (
    Activation,
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    LSTMCell,
    Masking,
    MatrixNorm,
    Model,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
)

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


def _sigmoid(x: F64) -> F64:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


ACTIVATIONS: dict[str, Callable[[F64, float, float], F64]] = {
    "sigmoid": lambda x, a, b: _sigmoid(x),
    "tanh": lambda x, a, b: np.tanh(x),
    "relu": lambda x, a, b: np.maximum(x, 0),
    "linear": lambda x, a, b: x,
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "leaky_relu": lambda x, a, b: np.where(x < 0, a * x, x),
    "thresholded_relu": lambda x, a, b: np.where(x > a, x, 0),
    "elu": lambda x, a, b: np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x),
    "scaled_tanh": lambda x, a, b: a * np.tanh(b * x),
    "affine": lambda x, a, b: a * x + b,
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}


def activate(activation: Activation, x: F64) -> F64:
    """One activation in float64; softmax over the last axis, all others element by element."""
    if activation.name == "softmax":
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    return ACTIVATIONS[activation.name](x, activation.alpha or 0.0, activation.beta or 0.0)


@dataclass(frozen=True)
class Step:
    """One step of one cell: pre-activations z (before their clip), gates, cell and output.

    All (N, H) but h, which is (N, P); m is the output before projection.
    """

    z_i: F64
    z_f: F64
    z_g: F64
    z_o: F64
    i: F64
    f: F64
    g: F64
    o: F64
    c: F64
    m: F64
    h: F64


def step(cell: LSTMCell, x: F64, h: F64, c: F64) -> Step:
    """(N, I), (N, P), (N, H) → one step. SPEC.md 1.1."""
    hidden = cell.hidden_size
    z_x = _normalised(x @ cell.weight_ih.T.astype(np.float64), cell.input_norm)
    z_h = _normalised(h @ cell.weight_hh.T.astype(np.float64), cell.hidden_norm)
    bias = np.zeros(4 * hidden)
    for part in (cell.bias_ih, cell.bias_hh):
        if part is not None:
            bias = bias + part.astype(np.float64)
    bias[hidden : 2 * hidden] += cell.forget_bias
    sums, biases = np.split(z_x + z_h, 4, axis=-1), np.split(bias, 4)
    peep = np.zeros((3, hidden)) if cell.peephole is None else cell.peephole.astype(np.float64)
    f_act, g_act, h_act = cell.activations

    def pre_activation(row: int, peephole: F64) -> F64:
        total = sums[row] + peephole
        if cell.layer_norm is None:
            return total + biases[row]
        mean = total.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(total.var(axis=-1, keepdims=True) + cell.layer_norm.epsilon)
        weight = cell.layer_norm.weight[row].astype(np.float64)
        return (total - mean) / deviation * weight + biases[row]

    z_i = pre_activation(0, peep[0] * c)
    z_f = pre_activation(1, peep[1] * c)
    z_g = pre_activation(2, np.zeros_like(c))
    i = activate(f_act, _clipped(z_i, cell.clip_z))
    f = activate(f_act, _clipped(z_f, cell.clip_z))
    if cell.coupling == "f=1-i":
        f = 1 - i
    elif cell.coupling == "i=1-f":
        i = 1 - f
    g = activate(g_act, _clipped(z_g, cell.clip_z))
    c_new = _clipped(f * c + i * g, cell.clip_cell)
    z_o = pre_activation(3, peep[2] * c_new)
    o = activate(f_act, _clipped(z_o, cell.clip_z))
    m = o * activate(h_act, c_new)
    h_new = m
    if cell.weight_hr is not None:
        h_new = m @ cell.weight_hr.T.astype(np.float64)
        if cell.bias_hr is not None:
            h_new = h_new + cell.bias_hr.astype(np.float64)
        h_new = _clipped(h_new, cell.clip_projection)
    return Step(z_i, z_f, z_g, z_o, i, f, g, o, c_new, m, h_new)


def _clipped(x: F64, bound: float | None) -> F64:
    return x if bound is None else np.clip(x, -bound, bound)


def _normalised(product: F64, norm: MatrixNorm | None) -> F64:
    if norm is None:
        return product
    variance = norm.variance.astype(np.float64)
    divisor = (
        np.sqrt(variance) + norm.epsilon
        if norm.epsilon_outside
        else np.sqrt(variance + norm.epsilon)
    )
    return (product - norm.mean.astype(np.float64)) / divisor * norm.scale.astype(np.float64)


TRACED = ("z_i", "z_f", "z_g", "z_o", "i", "f", "g", "o", "c", "m", "h")
"""What a trace holds, each (B, T, H) but h, (B, T, P), indexed by time of the input; under
go_backwards by the order of processing, in which the layer's output stands too."""

Trace = dict[str, F64]


@dataclass
class Result:
    """What a float64 run gives.

    y: (B, T, ·) or (B, ·); state: final states (see ifgo.states); traces: layer name → direction →
    Trace; outputs: layer name → its output.
    """

    y: F64
    state: states.State
    traces: dict[str, dict[str, Trace]] = field(default_factory=dict[str, dict[str, Trace]])
    outputs: dict[str, F64] = field(default_factory=dict[str, F64])


@dataclass
class _Flow:
    """What travels down the chain: values, and which steps count."""

    value: F64
    lengths: NDArray[np.intp] | None
    mask: Bools | None
    last_state: F64 | None = None


def forward(
    model: Model,
    x: ArrayLike,
    state: Mapping[str, ArrayLike] | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Result:
    """Run `model` in float64. x: (B, T, I), or tokens (B, T).

    lengths (B,): steps from there on put out zeros and leave the state alone; a backward
    direction starts at each sequence's own last step; length 0 ends in a zero state. mask (B, T),
    False: the step is skipped (SPEC.md 1.5). Everything in Result is float64.
    """
    values = np.asarray(x)
    start = states.complete(model, values.shape[0], state, np.float64)
    result = Result(np.zeros(0), {})
    flow = _Flow(
        values.astype(np.float64) if values.dtype.kind == "f" else values,
        None if lengths is None else np.asarray(lengths, dtype=np.intp),
        None if mask is None else np.asarray(mask, dtype=bool),
    )
    positions = {layer.name: k for k, layer in enumerate(model.recurrent)}
    _chain(model.layers, flow, start, positions, result)
    result.y = flow.value
    result.state = {key: result.state[key] for key in states.shapes(model, values.shape[0])}
    return result


def _chain(
    layers: tuple[Layer, ...],
    flow: _Flow,
    start: states.State,
    positions: dict[str, int],
    result: Result,
) -> None:
    for layer in layers:
        if isinstance(layer, Recurrent):
            _recurrent(layer, positions[layer.name], flow, start, result)
        elif isinstance(layer, Residual):
            skipped = flow.value
            _chain(layer.layers, flow, start, positions, result)
            total = flow.value.copy()
            total[..., : layer.channels] += skipped[..., : layer.channels]
            flow.value = total
        else:
            _simple(layer, flow)
        result.outputs[layer.name] = flow.value


def _simple(layer: Layer, flow: _Flow) -> None:
    x = flow.value
    match layer:
        case Dense():
            flow.value = x @ layer.weight.T.astype(np.float64)
            if layer.bias is not None:
                flow.value = flow.value + layer.bias.astype(np.float64)
            flow.value = activate(layer.activation, flow.value)
        case ActivationLayer():
            flow.value = activate(layer.activation, x)
        case Dropout():
            pass
        case Scale():
            flow.value = x * layer.factor.astype(np.float64) + layer.offset.astype(np.float64)
        case BatchNorm():
            variance = layer.variance.astype(np.float64)
            deviation = (
                np.sqrt(variance) + layer.epsilon
                if layer.epsilon_outside
                else np.sqrt(variance + layer.epsilon)
            )
            flow.value = (x - layer.mean.astype(np.float64)) / deviation
            if layer.weight is not None:
                flow.value = flow.value * layer.weight.astype(np.float64)
            if layer.bias is not None:
                flow.value = flow.value + layer.bias.astype(np.float64)
        case Embedding():
            tokens = x.astype(np.intp)
            flow.value = layer.weight[tokens].astype(np.float64)
            if layer.mask_zero:
                flow.mask = tokens != 0 if flow.mask is None else flow.mask & (tokens != 0)
        case Masking():
            kept = (x != float(np.float32(layer.value))).any(axis=-1)
            flow.mask = kept if flow.mask is None else flow.mask & kept
            flow.value = np.where(kept[..., None], x, 0.0)
        case LastStep():
            flow.value = _last(layer, flow)
            flow.lengths = flow.mask = None
        case HiddenAsSequence():
            flow.value = x[..., None]
        case RepeatVector():
            flow.value = np.repeat(x[:, None, :], layer.steps, axis=1)
        case Flatten():
            if x.shape[1] != layer.steps:
                raise UnsupportedError(
                    f"gets {x.shape[1]} steps",
                    where=f"layer {layer.name}",
                    expected=f"exactly {layer.steps}",
                )
            flow.value = x.reshape(x.shape[0], -1)
            flow.lengths = flow.mask = None
        case _:
            raise UnsupportedError(
                f"layers of kind {layer.kind!r} have no float64 meaning",
                where=f"layer {layer.name}",
            )


def _last(layer: LastStep, flow: _Flow) -> F64:
    if layer.of == "state" and flow.last_state is not None:
        return flow.last_state
    if flow.lengths is None:
        return flow.value[:, -1]
    rows = np.arange(flow.value.shape[0], dtype=np.intp)
    found = flow.value[rows, np.maximum(flow.lengths - 1, 0)]
    return np.where((flow.lengths > 0)[:, None], found, 0.0)


def _reversed_steps(flow: _Flow) -> NDArray[np.intp]:
    """(B, T): the steps of each sequence from its own last to its first, padding in its place."""
    batch, steps = flow.value.shape[:2]
    t = np.arange(steps, dtype=np.intp)[None, :]
    length = np.full(batch, steps) if flow.lengths is None else flow.lengths
    return np.where(t < length[:, None], length[:, None] - 1 - t, t)


def _recurrent(layer: Recurrent, k: int, flow: _Flow, start: states.State, result: Result) -> None:
    x, steps = flow.value, flow.value.shape[1]
    valid = np.ones(x.shape[:2], dtype=bool) if flow.mask is None else flow.mask
    inside = np.ones(x.shape[:2], dtype=bool)
    if flow.lengths is not None:
        inside = np.arange(steps, dtype=np.intp)[None, :] < flow.lengths[:, None]
    if layer.go_backwards:
        order = _reversed_steps(flow)
        x = np.take_along_axis(x, order[:, :, None], axis=1)
        valid = np.take_along_axis(valid, order, axis=1)
    outputs: list[F64] = []
    finals: list[F64] = []
    result.traces[layer.name] = {}
    for d, (direction, cell) in enumerate(layer.cells.items()):
        h, c = start[f"h{k}"][d], start[f"c{k}"][d]
        if flow.lengths is not None:
            nonempty = (flow.lengths > 0)[:, None]
            h, c = np.where(nonempty, h, 0.0), np.where(nonempty, c, 0.0)
        order = range(steps - 1, -1, -1) if direction == "backward" else range(steps)
        kept: list[tuple[int, Step]] = []
        y = np.zeros((*x.shape[:2], cell.output_size))
        repeated = np.zeros((x.shape[0], cell.output_size))
        for t in order:
            now = step(cell, x[:, t], h, c)
            counts = (valid[:, t] & inside[:, t])[:, None]
            h, c = np.where(counts, now.h, h), np.where(counts, now.c, c)
            idle = np.zeros_like(repeated) if layer.zero_masked else repeated
            y[:, t] = np.where(inside[:, t][:, None], np.where(counts, now.h, idle), 0.0)
            repeated = np.where(counts, now.h, repeated)
            kept.append((t, now))
        kept.sort(key=lambda pair: pair[0])
        trace = {name: np.stack([getattr(s, name) for _, s in kept], axis=1) for name in TRACED}
        result.traces[layer.name][direction] = trace
        for part, value in (("h", h), ("c", c)):
            earlier = result.state.get(f"{part}{k}")
            stacked = value[None] if earlier is None else np.concatenate([earlier, value[None]])
            result.state[f"{part}{k}"] = stacked
        outputs.append(y)
        finals.append(h)
    flow.value, flow.last_state = _merged(layer, outputs), _merged(layer, finals)


def _merged(layer: Recurrent, parts: list[Any]) -> F64:
    if len(parts) == 1:
        return parts[0]
    match layer.merge:
        case "sum":
            return parts[0] + parts[1]
        case "mul":
            return parts[0] * parts[1]
        case "ave":
            return (parts[0] + parts[1]) / 2
        case _:
            return np.concatenate(parts, axis=-1)
