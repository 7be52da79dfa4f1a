"""Operators that ifgo carries out while it reads: moving elements, and arithmetic on constants.

Exporters write gate reordering, shape arithmetic and zero states as graph operators; this module
folds them. Moving works on constants and signals alike (see value), arithmetic on constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.arguments import Arguments, bounded, numbers, vector
from ifgo.formats.onnx.file import printable
from ifgo.formats.onnx.value import (
    MAX_INTEGER,
    MAX_TERMS,
    Length,
    Size,
    Value,
    concat,
    constant,
    cut,
    expand,
    is_real,
    quotient,
    reshape,
    squeeze,
    take,
    transpose,
    unsqueeze,
    words,
)

# -- moving -----------------------------------------------------------------------------------


def _unsqueeze(a: Arguments) -> list[Value]:
    axes = a.integers(1, "axes", since=13)
    if axes is None:
        raise FormatError("has no axes", expected="where to put new ones")
    bounded([1] * (a.value(0).rank + len(axes)))
    return [unsqueeze(a.value(0), axes)]


def _reshape(a: Arguments) -> list[Value]:
    zero = a.attributes.flag("allowzero")
    return [_reshaped(a, reshape_target(a), allow_zero=zero)]


def _reshaped(a: Arguments, target: Sequence[Size], *, allow_zero: bool) -> Value:
    data = a.value(0).data
    if not data.flags.c_contiguous:  # else it is a view
        a.budget.spend(data.size, data.dtype)
    return reshape(a.value(0), target, allow_zero=allow_zero)


def reshape_target(a: Arguments) -> list[Size]:
    """The shape that a Reshape asks for."""
    given = a.attributes.integers("shape") if a.opset < 5 else None
    target = list[Size](given) if given is not None else a.sizes(1)
    bounded([1] * len(target))
    if any(isinstance(size, int) and size < -1 for size in target) or target.count(-1) > 1:
        raise FormatError("takes an impossible shape", expected="sizes of 0 or more and one -1")
    return target


def _flatten(a: Arguments) -> list[Value]:
    return [_reshaped(a, flatten_target(a), allow_zero=True)]


def flatten_target(a: Arguments) -> list[Size]:
    """The two sizes a Flatten produces."""
    value = a.value(0)
    axis = a.attributes.integer("axis", 1) or 0
    axis = axis + value.rank if axis < 0 else axis
    if not 0 <= axis <= value.rank:
        raise FormatError(f"flattens at axis {axis}", expected=f"0 to {value.rank}")
    front: Size = 1
    for size in value.shape[:axis]:
        front = front * size
    return [front, -1]


def _gather(a: Arguments) -> list[Value]:
    axis = a.attributes.integer("axis", 0) or 0
    index = numbers(a.value(1))
    if index.dtype.kind not in "iu" or any(a.value(1).axes):
        raise UnsupportedError("picks open entries", expected="integers known in the file")
    source = a.value(0)
    rest = source.data.size // max(source.data.shape[source.position(axis)], 1)
    a.budget.spend(rest * index.size, source.data.dtype)
    bounded([1] * (source.rank + index.ndim))
    return [take(source, index, axis)]


def _slice(a: Arguments) -> list[Value]:
    value, cuts = a.value(0), slices(a)
    for axis, start, stop, step in cuts:
        value = cut(value, axis, start, stop, step)
    return [value]


def slices(a: Arguments) -> list[tuple[int, Size, Size, int]]:
    """(axis, start, stop, step) of each axis that a Slice cuts, axes counted from the front."""
    if a.opset < 10:
        starts: list[Size] = list(a.attributes.integers("starts") or [])
        stops: list[Size] = list(a.attributes.integers("ends") or [])
    else:
        starts, stops = a.sizes(1), a.sizes(2)
    axes = a.integers(3, "axes", since=10)
    axes = list(range(len(starts))) if axes is None else axes
    steps = (a.integers(4, "steps", since=10) if a.opset >= 10 else None) or [1] * len(starts)
    if not len(starts) == len(stops) == len(axes) == len(steps):
        raise FormatError("has starts, ends, axes and steps of different lengths")
    value = a.value(0)
    places = [value.position(axis) for axis in axes]
    if len(set(places)) != len(places):
        raise FormatError("cuts an axis twice", expected="each axis once")
    return list(zip(places, starts, stops, steps, strict=True))


def _split(a: Arguments) -> list[Value]:
    value = a.value(0)
    axis = value.position(a.attributes.integer("axis", 0) or 0)
    parts = a.attributes.integers("split") if a.opset < 13 else None
    if parts is None and (a.opset >= 13 or a.opset == 1):
        parts = a.integers(1, "split", since=1)
    count = len(a.node.outputs)
    if a.opset >= 18:
        count = a.attributes.integer("num_outputs", count)
    extent = value.shape[axis]
    if not isinstance(extent, int):
        raise UnsupportedError("splits an axis of open length", expected="features or states")
    if parts is None:
        count = count or 1
        size = -(-extent // max(count, 1))
        parts = [min(size, extent - k * size) for k in range(count)]
    if sum(parts) != extent or any(part < 0 for part in parts):
        raise FormatError(f"splits into {parts[:16]}", expected=f"parts of {extent} entries")
    if len(parts) > len(a.node.outputs):
        raise FormatError(
            f"splits into {len(parts)} parts",
            expected=f"{len(a.node.outputs)}, one for each output",
        )
    found: list[Value] = []
    start = 0
    for part in parts:
        found.append(cut(value, axis, start, start + part, 1))
        start += part
    return found


def _concat(a: Arguments) -> list[Value]:
    values = a.every()
    axis = a.attributes.integer("axis", 1 if a.opset < 4 else None)
    if axis is None or not values:
        raise FormatError("has no axis or no input", expected="both")
    if len({value.signal for value in values}) != 1:
        raise UnsupportedError("joins constants to the sequence", expected="one of both")
    if not values[0].signal:
        one_type(values)
    a.budget.spend(sum(value.data.size for value in values), values[0].data.dtype)
    return [concat(values, axis)]


def one_type(values: Sequence[Value]) -> None:
    """Raises FormatError on constants of different types (open lengths are int64)."""
    kinds = {"int64" if v.data.dtype.kind == "O" else v.data.dtype.name for v in values}
    if len(kinds) > 1:
        raise FormatError(f"takes {' and '.join(sorted(kinds))}", expected="one type")


def _expand(a: Arguments) -> list[Value]:
    target = a.sizes(1)
    bounded([size for size in target if isinstance(size, int)])
    return [expand(a.value(0), target)]


MOVES: dict[str, Callable[[Arguments], list[Value]]] = {
    "Transpose": lambda a: [transpose(a.value(0), a.attributes.integers("perm"))],
    "Unsqueeze": _unsqueeze,
    "Squeeze": lambda a: [squeeze(a.value(0), a.integers(1, "axes", since=13))],
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Expand": _expand,
    "Identity": lambda a: [a.value(0)],
}
"""Operators that move elements of constants and of signals."""

# -- arithmetic on constants ------------------------------------------------------------------


def _shape(a: Arguments) -> list[Value]:
    shape = list(a.value(0).shape)
    start = a.attributes.integer("start", 0)
    end = a.attributes.integer("end")
    return [vector(shape[slice(start, end)])]


def _size(a: Arguments) -> list[Value]:
    total: Size = 1
    for size in a.value(0).shape:
        total = total * size
    return [reshape(vector([total]), [])]


def _constant(a: Arguments) -> list[Value]:
    found = a.attributes.tensor("value")
    for name, read in (("value_int", a.attributes.integer), ("value_float", a.attributes.number)):
        if found is None and (single := read(name)) is not None:
            found = np.array(single, dtype=np.int64 if name == "value_int" else np.float32)
    if found is None and (ints := a.attributes.integers("value_ints")) is not None:
        found = np.array(ints, dtype=np.int64)
    if found is None and (floats := a.attributes.numbers("value_floats")):
        found = np.array(floats, dtype=np.float32)
    if found is None:
        raise UnsupportedError("holds no dense numbers", expected="value, value_int(s), ...")
    a.budget.grow(found)
    return [constant(found)]


def _constant_of_shape(a: Arguments) -> list[Value]:
    fill = a.attributes.tensor("value")
    fill = np.zeros(1, dtype=np.float32) if fill is None else fill
    if fill.size != 1:
        raise FormatError(f"fills with {fill.size} values", expected="1")
    target = a.sizes(0)
    if any(isinstance(size, int) and size < 0 for size in target):
        raise FormatError("has a negative size", expected="sizes of 0 or more")
    shape = bounded([size if isinstance(size, int) else 1 for size in target])
    whole = constant(np.broadcast_to(fill.reshape(()), shape))
    return [expand(whole, target)]


def _range(a: Arguments) -> list[Value]:
    start, stop, step = (numbers(a.value(k)).reshape(-1) for k in range(3))
    if start.dtype.kind not in "iu" or start.size * stop.size * step.size != 1 or not step[0]:
        raise UnsupportedError("counts over an open range", expected="integers known in the file")
    found = range(int(start[0]), int(stop[0]), int(step[0]))
    a.budget.spend(bounded([len(found)])[0], start.dtype)
    return [constant(np.array(found, dtype=start.dtype))]


def cast_type(a: Arguments) -> np.dtype[Any]:
    """The type a Cast gives."""
    if a.opset < 6:
        word = a.attributes.text("to", "")
        to = dict(TensorProto.DataType.items()).get(word, 0)
    else:
        to = a.attributes.integer("to") or 0
        a.attributes.integer("saturate", 1)
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
    except KeyError:
        raise UnsupportedError(
            f"casts to element type {to}", expected="a float, integer or boolean type"
        ) from None
    if dtype.kind not in "iub" and not is_real(dtype):
        raise UnsupportedError(
            f"casts to {printable(dtype.name, 20)}", expected="a float, integer or boolean type"
        )
    return dtype


def _cast(a: Arguments) -> list[Value]:
    data, dtype = numbers(a.value(0)), cast_type(a)
    if data.dtype.kind == "O":
        if dtype.kind != "i":
            raise UnsupportedError(
                f"casts an open length to {dtype.name}", expected="an integer type"
            )
        return [a.value(0)]
    a.budget.spend(data.size, dtype)
    with np.errstate(all="ignore"):
        return [Value(data.astype(dtype), a.value(0).axes)]


def legacy_operand(a: Arguments, x: Value, y: Value) -> Value:
    """`y` of x + y and its like as NumPy broadcasts it: before operator set 7 `broadcast` allows
    that, and `axis` says where in `x` the axes of `y` start."""
    if a.opset >= 7:
        return y
    spread, axis = a.attributes.integer("broadcast", 0), a.attributes.integer("axis")
    if not spread and y.rank != x.rank:
        raise FormatError(
            f"has tensors of {x.rank} and {y.rank} axes without broadcast", expected="equal shapes"
        )
    if not spread or axis is None:
        return y
    after = x.rank - x.position(axis) - y.rank
    if after < 0:
        raise FormatError(f"broadcasts from axis {axis}", expected=f"room for {y.rank} axes")
    return unsqueeze(y, range(y.rank, y.rank + after))


def _elementwise(
    function: Callable[..., NDArray[Any]],
) -> Callable[[Arguments], list[Value]]:
    def fold(a: Arguments) -> list[Value]:
        values = a.every()
        if a.opset < 7 and len(values) == 2 and a.node.op != "Equal":
            values[1] = legacy_operand(a, values[0], values[1])
        arrays = [numbers(value) for value in values]
        one_type(values[1:] if a.node.op == "Where" else values)
        if a.node.op == "Where" and arrays[0].dtype.kind not in "bO":
            raise FormatError(
                f"chooses by {arrays[0].dtype.name}", expected="a condition of type bool"
            )
        if any(any(value.axes) for value in values):
            raise UnsupportedError(
                "computes with a constant of open length", expected="a shape known in the file"
            )
        try:
            shape = np.broadcast_shapes(*(array.shape for array in arrays))
            a.budget.spend(math.prod(shape), max((x.dtype for x in arrays), key=_itemsize))
            with np.errstate(all="ignore"):
                return [constant(_tidy(np.asarray(function(*arrays))))]
        except (ValueError, TypeError, IndexError):
            shapes = ", ".join(str(array.shape) for array in arrays[:4])
            raise FormatError(
                f"computes with shapes {shapes}", expected="shapes that broadcast"
            ) from None

    return fold


def _itemsize(dtype: np.dtype[Any]) -> int:
    return 2**10 if dtype.kind == "O" else dtype.itemsize


def _tidy(data: NDArray[Any]) -> NDArray[Any]:
    """Plain int64 where no open length is left; Python's integers must not grow past that."""
    if data.dtype.kind != "O":
        return data
    known = [int(size) for size in data.reshape(-1) if not isinstance(size, Length)]
    if any(abs(size) >= MAX_INTEGER for size in known):
        raise UnsupportedError(
            "computes a length beyond 64-bit integers or of too many terms",
            expected=f"at most {MAX_TERMS} terms",
        )
    return data.astype(np.int64) if len(known) == data.size else data


def _divide(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    if "O" in (left.dtype.kind, right.dtype.kind):
        return np.asarray(np.frompyfunc(_exact, 2, 1)(left, right))
    if left.dtype.kind in "iu":
        if not right.all():
            raise FormatError("divides by 0", expected="another divisor")
        signs = np.sign(left) * np.sign(right)
        return (signs * (np.abs(left) // np.abs(right))).astype(left.dtype)
    return np.divide(left, right).astype(left.dtype)


def _exact(left: Size, right: Size) -> Size:
    found = quotient(left, right)
    if found is None:
        raise UnsupportedError(
            f"divides an open length by {words(right)}", expected="a division without a rest"
        )
    return found


def _equal(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(left == right, dtype=bool)


FOLDS: dict[str, Callable[[Arguments], list[Value]]] = {
    "Shape": _shape,
    "Size": _size,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Cast": _cast,
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divide),
    "Neg": _elementwise(np.negative),
    "Equal": _elementwise(_equal),
    "Where": _elementwise(np.where),
}
"""Operators carried out on constants only; Shape and Size of a signal are constants too."""
