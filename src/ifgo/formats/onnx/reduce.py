"""More operators on constants: bounds, extremes and reductions, as exporters use them on shapes.

Lengths that the file leaves open are summed and multiplied as the rest; they have no order, so what
compares them is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.arguments import Arguments, numbers
from ifgo.formats.onnx.fold import one_type
from ifgo.formats.onnx.value import Value, constant


def clip_bounds(a: Arguments) -> tuple[float | None, float | None]:
    """min and max of a Clip: attributes before operator set 11, then inputs; None where off."""
    if a.opset < 11:
        return a.attributes.number("min"), a.attributes.number("max")
    found: list[float | None] = []
    for position, name in ((1, "min"), (2, "max")):
        value = a.optional(position)
        if value is not None and (value.data.size != 1 or value.signal):
            raise UnsupportedError(f"takes an open {name}", expected="one number known in the file")
        found.append(None if value is None else float(value.data.reshape(())))
    return found[0], found[1]


def _clip(a: Arguments) -> list[Value]:
    data = _ordered(numbers(a.value(0)))
    low, high = clip_bounds(a)
    a.budget.spend(data.size, data.dtype)
    bounds = (None if b is None else np.asarray(b).astype(data.dtype) for b in (low, high))
    least, most = bounds
    data = data if least is None else np.maximum(data, least)
    return [Value(data if most is None else np.minimum(data, most), a.value(0).axes)]


def _extreme(function: Callable[..., NDArray[Any]]) -> Callable[[Arguments], list[Value]]:
    def fold(a: Arguments) -> list[Value]:
        values = a.every()
        one_type(values)
        arrays = [_ordered(numbers(value)) for value in values]
        if not arrays or any(any(value.axes) for value in values):
            raise UnsupportedError("compares open constants", expected="numbers known in the file")
        try:
            shape = np.broadcast_shapes(*(array.shape for array in arrays))
        except ValueError:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise FormatError(
                f"computes with shapes {shapes}", expected="shapes that broadcast"
            ) from None
        a.budget.spend(math.prod(shape), arrays[0].dtype)
        return [constant(reduce(function, arrays))]

    return fold


def _ordered(data: NDArray[Any]) -> NDArray[Any]:
    if data.dtype.kind == "O":
        raise UnsupportedError(
            "compares lengths that the file leaves open", expected="known lengths"
        )
    return data


def _reduction(
    function: Callable[..., Any], since: int, *, ordered: bool
) -> Callable[[Arguments], list[Value]]:
    """axes: an attribute before operator set `since`, then an input."""

    def fold(a: Arguments) -> list[Value]:
        value = a.value(0)
        data = numbers(value)
        if any(value.axes):
            raise UnsupportedError("reduces an open axis", expected="a constant of known shape")
        data = _ordered(data) if ordered else data
        axes = a.integers(1, "axes", since=since)
        keep = a.attributes.flag("keepdims", default=True)
        if not axes:
            idle = a.opset >= since and a.attributes.flag("noop_with_empty_axes")
            if idle:
                return [value]
            axes = list(range(data.ndim))
        places = tuple({value.position(axis) for axis in axes})
        if data.size == 0:
            raise FormatError("reduces an empty constant", expected="at least one number")
        with np.errstate(all="ignore"):
            found = np.asarray(function(data, axis=places, keepdims=keep))
        return [constant(found.astype(data.dtype))]

    return fold


def _over(function: Callable[[Sequence[Any]], Any]) -> Callable[..., Any]:
    """A function of a sequence as a reduction of an array, also of one with open lengths."""

    def reduction(data: NDArray[Any], axis: tuple[int, ...], *, keepdims: bool) -> Any:
        moved = np.moveaxis(data, axis, range(len(axis)))
        rest = moved.shape[len(axis) :]
        columns = moved.reshape(math.prod(moved.shape[: len(axis)]), -1).T
        found = np.empty(columns.shape[0], data.dtype)
        found[:] = [function(list(column)) for column in columns]
        shape = [1 if k in axis else n for k, n in enumerate(data.shape)] if keepdims else rest
        return found.reshape(shape)

    return reduction


def _product(column: Sequence[Any]) -> Any:
    total: Any = 1
    for entry in column:
        total = total * entry
    return total


def _tile(a: Arguments) -> list[Value]:
    value = a.value(0)
    data, repeats = numbers(value), [s for s in a.sizes(1) if isinstance(s, int)]
    if any(value.axes) or len(repeats) != data.ndim or any(count < 0 for count in repeats):
        raise UnsupportedError(
            "copies a constant", expected="known repeats of 0 or more, one for each axis"
        )
    a.budget.spend(data.size * math.prod(repeats), data.dtype)
    return [constant(np.tile(data, repeats))]


REDUCTIONS: Final[dict[str, Callable[[Arguments], list[Value]]]] = {
    "Clip": _clip,
    "Max": _extreme(np.maximum),
    "Min": _extreme(np.minimum),
    "Tile": _tile,
    "ReduceSum": _reduction(np.sum, 13, ordered=False),
    "ReduceProd": _reduction(_over(_product), 18, ordered=False),
    "ReduceMax": _reduction(np.max, 18, ordered=True),
    "ReduceMin": _reduction(np.min, 18, ordered=True),
}
"""Operator → fold of constants."""
