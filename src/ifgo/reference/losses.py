"""Losses in float64, each with its gradient: where backward starts.

Every one sums over what counts and, unless told "sum", divides by how much that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo import states
from ifgo.errors import UsageError

F64 = NDArray[np.float64]
Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class Loss:
    """value, and gradient: its derivative by what the model put out, in that shape."""

    value: float
    gradient: F64


def mse(
    y: ArrayLike, target: ArrayLike, *, mask: ArrayLike | None = None, reduction: Reduction = "mean"
) -> Loss:
    """(y - target)², over every value. y and target (..., O); mask (...), False: left out.

    Raises UsageError on shapes that differ, on values that are not finite and on a mean of nothing.
    """
    values, wanted = _reals(y, "y"), _reals(target, "target")
    _same_shape(values, wanted)
    weight = _weight(values.shape, mask, reduction)
    difference = values - wanted
    return Loss(float((weight * difference**2).sum()), 2 * weight * difference)


def bce_with_logits(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> Loss:
    """-t·ln σ(z) - (1 - t)·ln(1 - σ(z)), over every value. logits, target (..., O), target in
    [0, 1]; mask (...), False: left out.

    Raises UsageError as `mse`, and on a target outside [0, 1].
    """
    z, t = _reals(logits, "logits"), _reals(target, "target")
    _same_shape(z, t)
    if (t < 0).any() or (t > 1).any():
        raise UsageError(
            f"target reaches from {t.min():g} to {t.max():g}", expected="probabilities, 0 to 1"
        )
    weight = _weight(z.shape, mask, reduction)
    e = np.exp(-np.abs(z))
    value = np.maximum(z, 0) - z * t + np.log1p(e)
    sigmoid = np.where(z >= 0, 1 / (1 + e), e / (1 + e))
    return Loss(float((weight * value).sum()), weight * (sigmoid - t))


def softmax_cross_entropy(
    logits: ArrayLike,
    classes: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> Loss:
    """-ln softmax(logits)[class], over every row. logits (..., K), classes (...) whole numbers in
    [0, K); mask (...), False: left out, whatever its class.

    Softmax and logarithm are one function: no probability is rounded to 0 on the way.
    Raises UsageError as `mse`, and on classes of another shape or outside [0, K).
    """
    z, wanted = _reals(logits, "logits"), states.as_array(classes, "classes")
    if not z.ndim or wanted.shape != z.shape[:-1] or wanted.dtype.kind not in "iu":
        raise UsageError(
            f"classes have shape {wanted.shape} and dtype {wanted.dtype}",
            expected=f"{z.shape[:-1]} whole numbers, one class per row of the logits",
        )
    weight = _weight((*wanted.shape, 1), mask, reduction)
    chosen = np.where(weight[..., 0] > 0, wanted, 0).astype(np.intp)[..., None]
    if chosen.size and (chosen.min() < 0 or chosen.max() >= z.shape[-1]):
        raise UsageError(
            f"classes reach from {chosen.min()} to {chosen.max()}",
            expected=f"0 to {z.shape[-1] - 1}",
        )
    shifted = z - z.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True)
    value = np.log(total) - np.take_along_axis(shifted, chosen, axis=-1)
    gradient = np.exp(shifted) / total
    taken = np.take_along_axis(gradient, chosen, axis=-1)
    np.put_along_axis(gradient, chosen, taken - 1, axis=-1)
    return Loss(float((weight * value).sum()), weight * gradient)


def _reals(given: ArrayLike, what: str) -> F64:
    array = states.as_array(given, what)
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise UsageError(
            f"{what} of dtype {array.dtype} holds values that are not finite"
            if array.dtype.kind in "fiu"
            else f"{what} has dtype {array.dtype}",
            expected="finite real numbers",
        )
    return array.astype(np.float64)


def _same_shape(y: F64, target: F64) -> None:
    if y.shape != target.shape or not y.ndim:
        raise UsageError(
            f"target has shape {target.shape}", expected=f"{y.shape}, as what the model put out"
        )


def _weight(shape: tuple[int, ...], mask: ArrayLike | None, reduction: Reduction) -> F64:
    """(shape): what each value counts."""
    if reduction not in get_args(Reduction):
        raise UsageError(f"unknown reduction {reduction!r}", expected="'mean' or 'sum'")
    weight = np.ones(shape)
    if mask is not None:
        counted = states.as_array(mask, "mask")
        if counted.shape != shape[:-1] or counted.dtype.kind != "b":
            raise UsageError(
                f"mask has shape {counted.shape} and dtype {counted.dtype}",
                expected=f"{shape[:-1]} booleans",
            )
        weight = weight * counted[..., None]
    if reduction == "sum":
        return weight
    total = weight.sum()
    if not total:
        raise UsageError("the mean of nothing", expected="at least one value that counts")
    return weight / total
