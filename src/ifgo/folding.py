"""Weights as the exact arithmetic takes them: float32, biases and norms folded (SPEC.md 3.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import UnsupportedError
from ifgo.model import BatchNorm, LSTMCell, MatrixNorm

F32 = NDArray[np.float32]


def exact_float32(array: NDArray[Any], where: str) -> F32:
    """`array` as float32, refused where a value would change."""
    narrow = array.astype(np.float32)
    changed = int((narrow.astype(np.float64) != array.astype(np.float64)).sum())
    if changed:
        raise UnsupportedError(
            f"{changed} of {array.size} {array.dtype} weights are no float32 values",
            where=where,
            hint="Round them once and knowingly: ifgo convert SRC DST --to-dtype float32 "
            "--allow-lossy dtype (model.astype('float32') in Python)",
        )
    return narrow


def narrowed(array: NDArray[np.float64], where: str) -> F32:
    """`array` rounded once to float32; see `finite`."""
    with np.errstate(over="ignore"):
        return finite(array.astype(np.float32), where)


def finite(array: F32, where: str) -> F32:
    """`array`, refused with UnsupportedError where a folded value left float32."""
    if not np.isfinite(array).all():
        raise UnsupportedError(
            "a folded weight or bias is too large for float32",
            where=where,
            expected="sums and quotients of weights below 3.4e38",
        )
    return array


def folded_cell(cell: LSTMCell, where: str) -> tuple[F32, F32, F32 | None]:
    """weight_ih, weight_hh and the one starting bias ((bias_ih + bias_hh) + forget_bias).

    Batch norms are folded in float64 and rounded once (SPEC.md 3.3). None where there is no bias.
    """
    weights: list[F32] = []
    biases: list[F32 | None] = []
    for side, norm in (("ih", cell.input_norm), ("hh", cell.hidden_norm)):
        weight = getattr(cell, f"weight_{side}")
        bias = getattr(cell, f"bias_{side}")
        if norm is not None:
            weight, bias = folded_norm(weight, bias, norm, f"{where}, batch norm of {side}")
        weights.append(exact_float32(weight, f"{where}, weight_{side}"))
        biases.append(None if bias is None else exact_float32(bias, f"{where}, bias_{side}"))
    present = [bias for bias in biases if bias is not None]
    total = present[0] if present else None
    with np.errstate(over="ignore"):
        if len(present) == 2:
            total = present[0] + present[1]
        if cell.forget_bias:
            size = cell.hidden_size
            total = np.zeros(4 * size, dtype=np.float32) if total is None else total.copy()
            total[size : 2 * size] += np.float32(cell.forget_bias)
    return weights[0], weights[1], None if total is None else finite(total, f"{where}, bias")


def folded_norm(
    weight: NDArray[Any], bias: NDArray[Any] | None, norm: MatrixNorm, where: str
) -> tuple[F32, F32]:
    """A matrix and bias with its batch norm folded in: float64, rounded once."""
    gain = norm_gain(norm)
    shift = -norm.mean.astype(np.float64) * gain
    if bias is not None:
        shift = shift + bias.astype(np.float64)
    scaled = weight.astype(np.float64) * gain[:, None]
    return narrowed(scaled, where), narrowed(shift, where)


def norm_gain(norm: MatrixNorm) -> NDArray[np.float64]:
    """What each row is multiplied by, in float64."""
    return norm.scale.astype(np.float64) / _divisor(norm)


def _divisor(norm: MatrixNorm | BatchNorm) -> NDArray[np.float64]:
    """What a batch norm divides by, in float64."""
    variance = norm.variance.astype(np.float64)
    if norm.epsilon_outside:
        return np.sqrt(variance) + norm.epsilon
    return np.sqrt(variance + norm.epsilon)


def folded_batch_norm(layer: BatchNorm) -> tuple[F32, F32]:
    """factor and offset of a BatchNorm layer: float64, rounded once."""
    gain = 1 / _divisor(layer)
    if layer.weight is not None:
        gain = gain * layer.weight.astype(np.float64)
    shift = -layer.mean.astype(np.float64) * gain
    if layer.bias is not None:
        shift = shift + layer.bias.astype(np.float64)
    where = f"layer {layer.name}"
    return narrowed(gain, where), narrowed(shift, where)
