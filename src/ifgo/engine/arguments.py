"""Arguments of the layers that train, checked: each refusal names the argument."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo import states
from ifgo.engine.cells import F32
from ifgo.errors import UsageError


def is_whole(value: Any) -> bool:
    """Whether `value` is an integer, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def real(given: Any, what: str, shape: tuple[int, ...] | None) -> F32:
    """`given` as finite float32, of that shape; UsageError naming what does not fit."""
    array = states.as_array(given, what)
    if array.dtype.kind not in "fiu":
        raise UsageError(f"{what} has dtype {array.dtype}", expected="real numbers")
    if shape is not None and array.shape != shape:
        raise UsageError(f"{what} has shape {array.shape}", expected=str(shape))
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32, order="C", copy=False)
    if not np.isfinite(narrow).all():
        raise UsageError(f"{what} holds values that are not finite", expected="finite float32")
    return narrow


def row_lengths(given: ArrayLike, batch: int, steps: int) -> NDArray[np.int64]:
    """lengths (B,), each 1 to T. Raises UsageError."""
    array = states.as_array(given, "lengths")
    if array.shape != (batch,) or array.dtype.kind not in "iu":
        raise UsageError(
            f"lengths has shape {array.shape} and dtype {array.dtype}",
            expected=f"({batch},) integers, one length per sequence",
        )
    if array.min() < 1 or array.max() > steps:
        raise UsageError(
            f"lengths reach from {array.min()} to {array.max()}", expected=f"1 to {steps}"
        )
    return array.astype(np.int64)
