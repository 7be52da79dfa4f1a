"""Forward and backward of every layer of a chain in float64: what gradient.py goes along.

Each layer leaves a function that takes the gradient of its output to that of its input. d before a
name is the gradient of the loss by it. Letters: B batch, T time, F features, D directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo import states
from ifgo.errors import UnsupportedError, UsageError
from ifgo.model import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    Masking,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
)
from ifgo.reference import _gradient_cell as cells
from ifgo.reference._derivatives import (
    F64,
    Variance,
    activation_backward,
    float64,
    normalise,
    normalise_backward,
)
from ifgo.reference.truth import activate

Bools = NDArray[np.bool_]
Pull = Callable[["Back", F64], F64]
"""Gradient of a layer's output → gradient of its input; adds what else it finds to the first."""


@dataclass
class Back:
    """What is collected on the way back. last: gradient of the final state of the layer before."""

    arrays: dict[str, F64]
    state: states.State
    last: F64 | None = None


@dataclass
class Flow:
    """What travels down the chain: values, which steps count, and the training's arguments."""

    value: F64
    lengths: NDArray[np.intp] | None
    mask: Bools | None
    start: states.State
    factors: dict[str, NDArray[Any]]
    variances: Mapping[str, Variance]
    positions: dict[str, int]
    pulls: list[Pull] = field(default_factory=list[Pull])
    final: states.State = field(default_factory=dict[str, Any])
    last: F64 | None = None
    statistics: dict[str, tuple[F64, F64]] = field(default_factory=dict[str, Any])

    def factor(self, name: str, shape: tuple[int, ...]) -> F64 | None:
        """Dropout factors as `shape`, or None. Raises UsageError where they do not spread to it."""
        given = self.factors.get(name)
        if given is None:
            return None
        try:
            return np.broadcast_to(given, shape).astype(np.float64)
        except ValueError:
            raise UsageError(
                f"the dropout factors {name} have shape {given.shape}",
                expected=f"{shape}, or 1 along an axis that shares them",
            ) from None

    def variance(self, name: str) -> Variance | None:
        """How the norm takes the statistics of the batch, or None where it uses the stored ones."""
        if name in self.variances and (self.lengths is not None or self.mask is not None):
            raise UnsupportedError(
                "takes the statistics of a batch with lengths or a mask",
                where=name,
                expected="sequences that count whole, or the stored statistics",
            )
        return self.variances.get(name)


def chain(layers: tuple[Layer, ...], prefix: str, flow: Flow) -> None:
    """Runs the layers, named after `prefix`, and leaves their ways back in flow.pulls."""
    for layer in layers:
        path = prefix + layer.name
        if isinstance(layer, Recurrent):
            _recurrent(layer, path, flow)
        elif isinstance(layer, Residual):
            _residual(layer, path, flow)
        else:
            flow.value, pull = _simple(layer, path, flow)
            flow.pulls.append(pull)


def _residual(layer: Residual, path: str, flow: Flow) -> None:
    outer, flow.pulls, skipped, channels = flow.pulls, [], flow.value, layer.channels
    chain(layer.layers, f"{path}.", flow)
    inner, flow.pulls = flow.pulls, outer
    flow.value = flow.value.copy()
    flow.value[..., :channels] += skipped[..., :channels]

    def pull(back: Back, dy: F64) -> F64:
        d = dy
        for one in reversed(inner):
            d = one(back, d)
        d = d.copy()
        d[..., :channels] += dy[..., :channels]
        return d

    flow.pulls.append(pull)


def _simple(layer: Layer, path: str, flow: Flow) -> tuple[F64, Pull]:
    """What a layer without inner layers or state puts out, and its way back."""
    x = flow.value
    match layer:
        case Dense():
            return _dense(layer, path, x)
        case ActivationLayer(activation=activation):
            y = activate(activation, x)
            return y, lambda back, dy: activation_backward(activation, x, y, dy)
        case Dropout():
            kept = flow.factor(path, x.shape)
            return (x, _same) if kept is None else (x * kept, lambda back, dy: dy * kept)
        case Scale():
            return _scale(layer, path, x)
        case BatchNorm():
            return _batch_norm(layer, path, flow)
        case Embedding():
            return _embedding(layer, path, flow)
        case Masking():
            kept = (x != float(np.float32(layer.value))).any(axis=-1)
            flow.mask = kept if flow.mask is None else flow.mask & kept
            return np.where(kept[..., None], x, 0.0), lambda back, dy: dy * kept[..., None]
        case LastStep():
            return _last_step(layer, flow)
        case HiddenAsSequence():
            return x[..., None], lambda back, dy: dy[..., 0]
        case RepeatVector():
            y = np.repeat(x[:, None, :], layer.steps, axis=1)
            return y, lambda back, dy: dy.sum(axis=1)
        case Flatten():
            if x.shape[1] != layer.steps:
                raise UnsupportedError(
                    f"gets {x.shape[1]} steps",
                    where=f"layer {layer.name}",
                    expected=f"exactly {layer.steps}",
                )
            flow.lengths = flow.mask = None
            return x.reshape(len(x), -1), lambda back, dy: dy.reshape(x.shape)
        case _:
            raise UnsupportedError(
                f"layers of kind {layer.kind!r} have no gradient", where=f"layer {layer.name}"
            )


def _same(back: Back, dy: F64) -> F64:
    return dy


def _flat(values: F64) -> F64:
    """(..., F) → (N, F)."""
    return values.reshape(-1, values.shape[-1])


def _dense(layer: Dense, path: str, x: F64) -> tuple[F64, Pull]:
    z = x @ float64(layer.weight).T
    if layer.bias is not None:
        z = z + float64(layer.bias)
    y = activate(layer.activation, z)

    def pull(back: Back, dy: F64) -> F64:
        dz = activation_backward(layer.activation, z, y, dy)
        back.arrays[f"{path}.weight"] += _flat(dz).T @ _flat(x)
        if layer.bias is not None:
            back.arrays[f"{path}.bias"] += _flat(dz).sum(axis=0)
        return dz @ float64(layer.weight)

    return y, pull


def _scale(layer: Scale, path: str, x: F64) -> tuple[F64, Pull]:
    def pull(back: Back, dy: F64) -> F64:
        back.arrays[f"{path}.factor"] += _flat(dy * x).sum(axis=0)
        back.arrays[f"{path}.offset"] += _flat(dy).sum(axis=0)
        return dy * float64(layer.factor)

    return x * float64(layer.factor) + float64(layer.offset), pull


def _batch_norm(layer: BatchNorm, path: str, flow: Flow) -> tuple[F64, Pull]:
    shape, how = flow.value.shape, flow.variance(path)
    done = normalise(_flat(flow.value), layer, how, f"layer {layer.name}")
    if how is not None:
        flow.statistics[path] = done.mean, done.variance
    y = done.value if layer.weight is None else done.value * float64(layer.weight)
    y = y if layer.bias is None else y + float64(layer.bias)

    def pull(back: Back, dy: F64) -> F64:
        dvalue = _flat(dy)
        if layer.bias is not None:
            back.arrays[f"{path}.bias"] += dvalue.sum(axis=0)
        if layer.weight is not None:
            back.arrays[f"{path}.weight"] += (dvalue * done.value).sum(axis=0)
            dvalue = dvalue * float64(layer.weight)
        dx, dmean, dvariance = normalise_backward(done, dvalue)
        back.arrays[f"{path}.mean"] += dmean
        back.arrays[f"{path}.variance"] += dvariance
        return dx.reshape(shape)

    return y.reshape(shape), pull


def _embedding(layer: Embedding, path: str, flow: Flow) -> tuple[F64, Pull]:
    tokens = flow.value.astype(np.intp)
    if layer.mask_zero:
        flow.mask = tokens != 0 if flow.mask is None else flow.mask & (tokens != 0)

    def pull(back: Back, dy: F64) -> F64:
        np.add.at(back.arrays[f"{path}.weight"], tokens, dy)
        return np.zeros(tokens.shape)

    return float64(layer.weight)[tokens], pull


def _last_step(layer: LastStep, flow: Flow) -> tuple[F64, Pull]:
    shape, lengths, final = flow.value.shape, flow.lengths, flow.last
    flow.lengths = flow.mask = None
    if layer.of == "state":
        assert final is not None  # the model checks that a recurrent layer stands right before

        def pull_state(back: Back, dy: F64) -> F64:
            back.last = dy
            return np.zeros(shape)

        return final, pull_state
    rows = np.arange(shape[0], dtype=np.intp)
    at = np.full(shape[0], shape[1], dtype=np.intp) if lengths is None else lengths
    some = (at > 0)[:, None]
    at = np.maximum(at - 1, 0)

    def pull(back: Back, dy: F64) -> F64:
        d = np.zeros(shape)
        d[rows, at] = np.where(some, dy, 0.0)
        return d

    return np.where(some, flow.value[rows, at], 0.0), pull


def _recurrent(layer: Recurrent, path: str, flow: Flow) -> None:
    x, k = flow.value, flow.positions[layer.name]
    batch, steps = x.shape[:2]
    times = np.arange(steps, dtype=np.intp)[None, :]
    lengths = np.full(batch, steps, dtype=np.intp) if flow.lengths is None else flow.lengths
    inside, nonempty = times < lengths[:, None], (lengths > 0)[:, None]
    counts = inside if flow.mask is None else flow.mask
    turned = np.where(inside, lengths[:, None] - 1 - times, times)
    if layer.go_backwards:
        x = np.take_along_axis(x, turned[:, :, None], axis=1)
        counts = np.take_along_axis(counts, turned, axis=1)
    inputs = flow.factor(f"{path}.input", (layer.directions, *x.shape))
    width = (layer.directions, batch, steps, layer.cell.output_size)
    hidden = flow.factor(f"{path}.recurrent", width)
    plans: list[cells.Plan] = []
    for d, (direction, cell) in enumerate(layer.cells.items()):
        variances: dict[str, Variance] = {}
        for norm in ("input_norm", "hidden_norm"):
            if how := flow.variance(f"{path}.{direction}.{norm}"):
                variances[norm] = how
        plans.append(
            cells.Plan(
                cell,
                f"{path}.{direction}",
                x,
                np.where(nonempty, flow.start[f"h{k}"][d], 0.0),
                np.where(nonempty, flow.start[f"c{k}"][d], 0.0),
                range(steps - 1, -1, -1) if direction == "backward" else range(steps),
                counts & inside,
                inside,
                layer.zero_masked,
                None if inputs is None else inputs[d],
                None if hidden is None else hidden[d],
                variances,
            )
        )
    swept = [cells.sweep_forward(plan) for plan in plans]
    for plan, run in zip(plans, swept, strict=True):
        for norm in plan.variances:
            every = [run.steps[t].products[norm] for t in range(steps)]
            flow.statistics[f"{plan.where}.{norm}"] = (
                np.stack([one.mean for one in every]),
                np.stack([one.variance for one in every]),
            )
    flow.final[f"h{k}"] = np.stack([run.h for run in swept])
    flow.final[f"c{k}"] = np.stack([run.c for run in swept])
    flow.last = _merged(layer, [run.h for run in swept])
    merged = _merged(layer, [run.y for run in swept])
    kept = flow.factor(f"{path}.output", merged.shape)
    flow.value = merged if kept is None else merged * kept

    def pull(back: Back, dy: F64) -> F64:
        dmerged = dy if kept is None else dy * kept
        dys = _merged_backward(layer, [run.y for run in swept], dmerged)
        dlast = [np.zeros_like(run.h) for run in swept]
        if back.last is not None:
            dlast = _merged_backward(layer, [run.h for run in swept], back.last)
            back.last = None
        dx = np.zeros(x.shape)
        for d, (plan, run) in enumerate(zip(plans, swept, strict=True)):
            dh, dc = back.state[f"h{k}"][d] + dlast[d], back.state[f"c{k}"][d]
            dx_one, dh, dc, arrays = cells.sweep_backward(plan, run, dys[d], dh, dc)
            dx += dx_one
            back.state[f"h{k}"][d] = np.where(nonempty, dh, 0.0)
            back.state[f"c{k}"][d] = np.where(nonempty, dc, 0.0)
            for name, array in arrays.items():
                back.arrays[f"{plan.where}.{name}"] += array
        return np.take_along_axis(dx, turned[:, :, None], axis=1) if layer.go_backwards else dx

    flow.pulls.append(pull)


def _merged(layer: Recurrent, parts: list[F64]) -> F64:
    if len(parts) == 1:
        return parts[0]
    match layer.merge:
        case "sum":
            return parts[0] + parts[1]
        case "mul":
            return parts[0] * parts[1]
        case "ave":
            return (parts[0] + parts[1]) / 2
        case "concat":
            return np.concatenate(parts, axis=-1)


def _merged_backward(layer: Recurrent, parts: list[F64], d: F64) -> list[F64]:
    if len(parts) == 1:
        return [d]
    match layer.merge:
        case "sum":
            return [d, d]
        case "mul":
            return [d * parts[1], d * parts[0]]
        case "ave":
            return [d / 2, d / 2]
        case "concat":
            return np.split(d, 2, axis=-1)
