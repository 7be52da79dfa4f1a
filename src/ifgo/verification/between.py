"""What stands between the recurrent layers, in float64 and with its bound.

Fed with what a runtime's own recurrent layers put out, it says what each of them must have been
given and what the end must be: nothing here remembers, so bounds stay local (SPEC.md 6.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import UnsupportedError
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
    Model,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
)
from ifgo.reference import truth
from ifgo.verification import bounds
from ifgo.verification.bounds import ETA, ActivationErrors, U
from ifgo.verification.foreign import Whole

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Near:
    """A value and how far a runtime's may lie from it, alike in shape: (B, T, ·) or (B, ·)."""

    value: F64
    off: F64


def exactly(value: NDArray[np.generic]) -> Near:
    """A value the runtime has itself put out, or was given."""
    return Near(value.astype(np.float64), np.zeros(value.shape))


def arrivals(
    model: Model, x: NDArray[np.generic], made: Mapping[str, Whole], errors: ActivationErrors
) -> tuple[dict[str, Near], Near]:
    """(recurrent layer → what it is given, the end of the chain), where the recurrent layers put
    out `made`. x: (B, T, I), or tokens (B, T).

    Raises UnsupportedError naming a layer that has no bound here.
    """
    chain = _Chain(made, errors, {})
    end = chain.walk(model.layers, exactly(x))
    return chain.given, end


@dataclass
class _Chain:
    made: Mapping[str, Whole]
    errors: ActivationErrors
    given: dict[str, Near]
    finals: Near | None = None

    def walk(self, layers: tuple[Layer, ...], now: Near) -> Near:
        with np.errstate(over="ignore", invalid="ignore"):
            for layer in layers:
                now = self.layer(layer, now)
        return now

    def layer(self, layer: Layer, now: Near) -> Near:
        match layer:
            case Recurrent():
                self.given[layer.name] = now
                whole = self.made[layer.name]
                parts = [whole.y[:, :, d] for d in range(layer.directions)]
                self.finals = _merged(layer, [exactly(final) for final in whole.h_n])
                return _merged(layer, [exactly(part) for part in parts])
            case Residual():
                inner = self.walk(layer.layers, now)
                value, off = inner.value.copy(), inner.off.copy()
                first = np.s_[..., : layer.channels]
                value[first] += now.value[first]
                off[first] += now.off[first] + U * np.abs(value[first])
                return Near(value, off)
            case Dense():
                return self.dense(layer, now)
            case ActivationLayer():
                y = truth.activate(layer.activation, now.value)
                if layer.activation.name == "softmax":
                    return Near(y, bounds.softmax_bound(y, now.off))
                off = bounds.activation_bound(layer.activation, now.value, y, now.off, self.errors)
                return Near(y, off)
            case BatchNorm() | Scale():
                return _scaled(layer, now)
            case Embedding():
                return exactly(layer.weight[now.value.astype(np.intp)])
            case LastStep():
                if layer.of == "state" and self.finals is not None:
                    return self.finals
                return Near(now.value[:, -1], now.off[:, -1])
            case Dropout():
                return now
            case HiddenAsSequence():
                return Near(now.value[..., None], now.off[..., None])
            case RepeatVector():
                again = (np.repeat(a[:, None], layer.steps, axis=1) for a in (now.value, now.off))
                return Near(*again)
            case Flatten():
                return Near(*(a.reshape(a.shape[0], -1) for a in (now.value, now.off)))
            case _:
                raise UnsupportedError(
                    f"{layer.kind} has no local bound", where=f"layer {layer.name}"
                )

    def dense(self, layer: Dense, now: Near) -> Near:
        x, off = (a.reshape(-1, a.shape[-1]) for a in (now.value, now.off))
        y = x @ layer.weight.T.astype(np.float64)
        if layer.bias is not None:
            y = y + layer.bias.astype(np.float64)
        y = truth.activate(layer.activation, y)
        allowed = bounds.dense_bound(layer, x, y, self.errors, off)
        shape = (*now.value.shape[:-1], y.shape[-1])
        return Near(y.reshape(shape), allowed.reshape(shape))


def _merged(layer: Recurrent, parts: list[Near]) -> Near:
    if len(parts) == 1:
        return parts[0]
    a, b = (part.value for part in parts)
    match layer.merge:
        case "sum":
            value = a + b
        case "mul":
            value = a * b
        case "ave":
            value = (a + b) / 2
        case _:
            return exactly(np.concatenate([a, b], axis=-1))
    return Near(value, 2 * U * np.abs(value) + ETA)


def _scaled(layer: BatchNorm | Scale, now: Near) -> Near:
    """x·factor + offset. A runtime may fold a batch norm or not: its terms count one by one."""
    if isinstance(layer, Scale):
        factor, offset = layer.factor.astype(np.float64), layer.offset.astype(np.float64)
        terms = np.abs(offset)
    else:
        factor = 1 / np.sqrt(layer.variance.astype(np.float64) + layer.epsilon)
        factor = factor * (1.0 if layer.weight is None else layer.weight.astype(np.float64))
        moved = layer.mean.astype(np.float64) * factor
        bias = np.zeros_like(moved) if layer.bias is None else layer.bias.astype(np.float64)
        offset, terms = bias - moved, np.abs(bias) + np.abs(moved)
    scaled = now.value * factor
    off = np.abs(factor) * now.off + 8 * U * (np.abs(scaled) + np.abs(factor) * now.off + terms)
    return Near(scaled + offset, off + (3 + np.abs(now.value)) * ETA)
