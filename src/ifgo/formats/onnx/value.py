"""Values of the symbolic walk over an ONNX graph, and the operators that only move elements.

A Value is an array plus a label for every axis whose length the file leaves open or whose meaning
matters (batch, time); along a labelled axis the array has extent 1. The array of a constant holds
its numbers (shape arithmetic: ints and Lengths, dtype object); the array of a signal holds element
ids, one per feature of one step, so the same NumPy code moves both and an id array says exactly
which element of which layer's output stands where.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import FormatError, UnsupportedError


@dataclass(frozen=True)
class Length:
    """A length the file leaves open: a polynomial with integer coefficients in named lengths.

    terms: (sorted names, coefficient) in order, no coefficient 0, at least one name somewhere.
    """

    terms: tuple[tuple[tuple[str, ...], int], ...]

    @staticmethod
    def named(name: str) -> Length:
        """The unknown `name`."""
        return Length((((name,), 1),))

    def __add__(self, other: Size) -> Size:
        return _sum([*self.terms, *_terms(other)])

    __radd__ = __add__

    def __mul__(self, other: Size) -> Size:
        return _sum(
            [(tuple(sorted(a + b)), m * n) for a, m in self.terms for b, n in _terms(other)]
        )

    __rmul__ = __mul__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + other * -1

    def __rsub__(self, other: Size) -> Size:
        return self * -1 + other


Size = int | Length

MAX_TERMS = 8
"""Longest polynomial; real exporters stay below 4 terms."""

MAX_INTEGER = 2**63
"""Bound of shape arithmetic, ONNX's own; Python's integers would grow without end."""


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether weights and features may have this type."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _terms(size: Size) -> tuple[tuple[tuple[str, ...], int], ...]:
    return size.terms if isinstance(size, Length) else (((), size),)


def _sum(terms: Sequence[tuple[tuple[str, ...], int]]) -> Size:
    total: dict[tuple[str, ...], int] = {}
    for names, count in terms:
        total[names] = total.get(names, 0) + count
    kept = tuple(sorted((names, count) for names, count in total.items() if count))
    wide = any(len(names) > MAX_TERMS or abs(count) >= MAX_INTEGER for names, count in kept)
    if wide or len(kept) > MAX_TERMS:
        raise UnsupportedError(
            "computes a length beyond 64-bit integers or of too many terms",
            expected=f"at most {MAX_TERMS} terms",
        )
    if not any(names for names, _ in kept):
        return kept[0][1] if kept else 0
    return Length(kept)


def quotient(size: Size, divisor: Size) -> Size | None:
    """size / divisor where that is exact and divisor is a single term, else None."""
    parts = _terms(divisor)
    if len(parts) != 1 or parts[0][1] == 0:
        return None
    names, count = parts[0]
    found: list[tuple[tuple[str, ...], int]] = []
    for have, number in _terms(size):
        left = list(have)
        for name in names:
            if name not in left:
                return None
            left.remove(name)
        if number % count:
            return None
        found.append((tuple(left), number // count))
    return _sum(found)


@dataclass(eq=False)
class Axis:
    """A labelled axis. role is found out once, by the first operator that fixes it.

    backwards: its entries stand from the last to the first. opposite: the same axis the other way.
    """

    size: Size
    role: Literal["batch", "time", "features"] | None = None
    backwards: bool = False
    opposite: Axis | None = None

    def reversed(self) -> Axis:
        """The axis read from its other end; twice is the axis itself."""
        if self.opposite is None:
            self.opposite = Axis(self.size, self.role, not self.backwards, self)
        return self.opposite

    def fix(self, role: Literal["batch", "time", "features"]) -> None:
        """Say what it means, in both orders."""
        self.role = self.reversed().role = role

    @property
    def words(self) -> str:
        """How messages name the axis."""
        return f"the {self.role or 'open'} axis"


Labels = tuple[Axis, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """An array and its axis labels; () where `data` has the axis in full. See the module."""

    data: NDArray[Any]
    axes: tuple[Labels, ...]
    signal: bool = False
    name: str = ""

    @property
    def shape(self) -> tuple[Size, ...]:
        """The sizes that the ONNX tensor has."""
        return tuple(
            product([axis.size for axis in labels]) if labels else extent
            for labels, extent in zip(self.axes, self.data.shape, strict=True)
        )

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.axes)

    def position(self, axis: int) -> int:
        """`axis` counted from the front. Raises FormatError where there is no such axis."""
        if not -self.rank <= axis < self.rank:
            raise FormatError(f"names axis {axis}", expected=f"an axis of {self.rank}")
        return axis % self.rank


def constant(data: NDArray[Any], name: str = "") -> Value:
    """A constant with every axis in full."""
    return Value(data, ((),) * data.ndim, name=name)


def product(sizes: Sequence[Size]) -> Size:
    """The product of sizes."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


def transpose(value: Value, order: Sequence[int] | None) -> Value:
    """Axes in `order`, reversed where it is None."""
    order = list(order) if order is not None else list(range(value.rank))[::-1]
    if sorted(order) != list(range(value.rank)):
        raise FormatError(f"perm is {order[:16]}", expected=f"each of 0 to {value.rank - 1} once")
    axes = tuple(value.axes[k] for k in order)
    return replace(value, data=value.data.transpose(order), axes=axes)


def unsqueeze(value: Value, positions: Sequence[int]) -> Value:
    """New axes of length 1 at `positions` of the result."""
    rank = value.rank + len(positions)
    places = {p + rank if p < 0 else p for p in positions}
    if len(places) != len(positions) or not all(0 <= p < rank for p in places):
        raise FormatError(f"axes are {list(positions)[:16]}", expected=f"distinct axes of {rank}")
    old = iter(range(value.rank))
    order = [None if k in places else next(old) for k in range(rank)]
    shape = [1 if k is None else value.data.shape[k] for k in order]
    axes = tuple(() if k is None else value.axes[k] for k in order)
    return replace(value, data=value.data.reshape(shape), axes=axes)


def squeeze(value: Value, positions: Sequence[int] | None) -> Value:
    """Without the given axes of length 1, or without all of them where None."""
    if positions is None:
        gone = {k for k, size in enumerate(value.shape) if size == 1}
    else:
        gone = {value.position(p) for p in positions}
    for k in gone:
        if value.axes[k]:
            raise UnsupportedError(
                f"drops {value.axes[k][0].words}",
                expected="batch and time kept apart",
                hint="Export the model without squeezing it away",
            )
        if value.data.shape[k] != 1:
            raise FormatError(f"squeezes axis {k} of length {value.data.shape[k]}", expected="1")
    kept = [k for k in range(value.rank) if k not in gone]
    shape = [value.data.shape[k] for k in kept]
    axes = tuple(value.axes[k] for k in kept)
    return replace(value, data=value.data.reshape(shape), axes=axes)


def take(value: Value, index: NDArray[Any], axis: int) -> Value:
    """Entries `index` (any shape, integers) along an axis that is there in full."""
    axis = value.position(axis)
    if value.axes[axis]:
        raise UnsupportedError(
            f"picks entries of {value.axes[axis][0].words}", expected="the last step, at most"
        )
    extent = value.data.shape[axis]
    if index.size and not (-extent <= int(index.min()) and int(index.max()) < extent):
        raise FormatError(
            f"picks entries {int(index.min())} to {int(index.max())}",
            expected=f"entries of an axis of length {extent}",
        )
    axes = (*value.axes[:axis], *((),) * index.ndim, *value.axes[axis + 1 :])
    data = np.asarray(np.take(value.data, index, axis=axis), dtype=value.data.dtype)
    return replace(value, data=data, axes=axes)


def cut(value: Value, axis: int, start: Size, stop: Size, step: int) -> Value:
    """Entries start:stop:step along one axis, clamped as ONNX Slice does."""
    axis = value.position(axis)
    size = value.shape[axis]
    if start == 0 and step == 1 and covers(stop, size):
        return value
    if value.axes[axis]:
        raise UnsupportedError(
            f"cuts {value.axes[axis][0].words} to {words(start)}:{words(stop)}:{step}",
            expected="the whole axis, or the last step of time",
        )
    if not isinstance(start, int) or not isinstance(stop, int):
        raise UnsupportedError("cuts an axis at an open place", expected="known starts and ends")
    if step == 0:
        raise FormatError("cuts in steps of 0", expected="steps other than 0")
    end = None if step < 0 and stop < -value.data.shape[axis] else stop
    index = (slice(None),) * axis + (slice(start, end, step),)
    return replace(value, data=value.data[index])


def covers(stop: Size, size: Size) -> bool:
    """Whether a slice that stops at `stop` reaches the end of an axis of `size`."""
    if stop == size:
        return True
    return isinstance(stop, int) and stop >= (size if isinstance(size, int) else 2**31 - 1)


def words(size: Size) -> str:
    """A size for a message."""
    return str(size) if isinstance(size, int) else "?"


def concat(values: Sequence[Value], axis: int) -> Value:
    """Joined along one axis that all of them have in full."""
    first = values[0]
    axis = first.position(axis)
    for value in values:
        if value.rank != first.rank:
            raise FormatError(f"joins tensors of {first.rank} and {value.rank} axes")
        if value.axes[axis]:
            raise UnsupportedError(
                f"joins along {value.axes[axis][0].words}", expected="features or states"
            )
        for k in set(range(first.rank)) - {axis}:
            same = value.axes[k] == first.axes[k] if first.signal else True
            if bool(value.axes[k]) != bool(first.axes[k]) or value.shape[k] != first.shape[k]:
                same = False
            if not same:
                raise FormatError(
                    f"joins tensors of sizes {words(first.shape[k])} and "
                    f"{words(value.shape[k])} along axis {k}",
                    expected=_ORDER if _opposite(value.axes[k], first.axes[k]) else None,
                )
    data = np.concatenate([value.data for value in values], axis=axis)
    return replace(first, data=data, name="")


_ORDER = "both in the order of time"


def _opposite(one: Labels, two: Labels) -> bool:
    return any(a.opposite is b for a in one for b in two)


def expand(value: Value, target: Sequence[Size]) -> Value:
    """Broadcast to `target`; an axis that grows to an open length gets a label."""
    rank = max(value.rank, len(target))
    value = unsqueeze(value, range(rank - value.rank))
    wanted: list[Size] = [1] * (rank - len(target)) + list(target)
    shape, axes = list(value.data.shape), list(value.axes)
    for k, (size, want) in enumerate(zip(value.shape, wanted, strict=True)):
        if want in (1, size):
            continue
        if size != 1 or axes[k] or (isinstance(want, int) and want < 0):
            raise FormatError(f"expands axis {k} of length {words(size)} to {words(want)}")
        if isinstance(want, int):
            shape[k] = want
        else:
            axes[k] = (Axis(want),)
    return replace(value, data=np.broadcast_to(value.data, shape), axes=tuple(axes))


Factor = tuple[Axis | None, Size]
"""A label, or None and the extent of a part that is there in full."""


def regroup(value: Value, target: Sequence[Size], *, allow_zero: bool) -> list[list[Factor]]:
    """Which parts of `value` each axis of the reshaped tensor holds, in order.

    target: as ONNX Reshape takes it (0 copies, one -1 takes the rest).
    """
    factors: deque[Factor] = deque()
    for labels, extent in zip(value.axes, value.data.shape, strict=True):
        factors.extend((axis, axis.size) for axis in labels)
        if not labels and extent != 1:
            factors.append((None, extent))
    wanted: list[Size] = []
    for k, size in enumerate(target):
        if size == 0 and not allow_zero:
            if k >= value.rank:
                raise FormatError(f"copies axis {k} of a tensor with {value.rank} axes")
            size = value.shape[k]
        wanted.append(size)
    open_at = wanted.index(-1) if -1 in wanted else len(wanted)
    front = [_next(factors, size) for size in wanted[:open_at]]
    factors.reverse()
    back = [_next(factors, size)[::-1] for size in wanted[:open_at:-1]][::-1]
    factors.reverse()
    rest = [list(factors)] if open_at < len(wanted) else []
    if not rest and factors:
        raise FormatError(f"reshapes {_shape(value)} to {_words(target)}: the sizes differ")
    return _spread([*front, *rest, *back])


def _spread(groups: list[list[Factor]]) -> list[list[Factor]]:
    """Labels of length 1 on axes of their own, where the target has axes of length 1 for them: a
    batch of 1 changes places with time by a reshape."""
    empty = [group for group in groups if not group]
    for group in groups:
        for factor in [f for f in group if f[0] is not None and f[1] == 1]:
            if empty and len(group) > 1:
                group.remove(factor)
                empty.pop(0).append(factor)
    return groups


def _next(factors: deque[Factor], want: Size) -> list[Factor]:
    taken: list[Factor] = []
    while want != 1 or (not taken and factors and factors[0][0] and factors[0][1] == 1):
        if not factors:
            raise FormatError("reshapes to more elements than there are")
        label, size = factors.popleft()
        left = quotient(want, size)
        rest = quotient(size, want) if left is None and label is None else None
        if rest is not None:
            factors.appendleft((None, rest))
            size, left = want, 1
        if left is None:
            raise UnsupportedError(
                f"splits an axis of length {words(size)} into parts of {words(want)}",
                expected="axes that stay whole",
                hint="A length that the exporter froze in one place and left open in another "
                "cannot be followed",
            )
        taken.append((label, size))
        want = left
    return taken


def reshape(value: Value, target: Sequence[Size], *, allow_zero: bool = False) -> Value:
    """As ONNX Reshape, with labels carried along."""
    sizes = [size for size in target if isinstance(size, int)]
    if not any(value.axes) and len(sizes) == len(target):
        shape = [
            value.data.shape[k] if s == 0 and not allow_zero and k < value.rank else s
            for k, s in enumerate(sizes)
        ]
        try:
            return replace(value, data=value.data.reshape(shape), axes=((),) * len(shape))
        except ValueError:
            raise FormatError(f"reshapes {_shape(value)} to {_words(target)}") from None
    groups = regroup(value, target, allow_zero=allow_zero)
    extents: list[int] = []
    axes: list[Labels] = []
    for group in groups:
        labels = tuple(axis for axis, _ in group if axis is not None)
        extent = math.prod(size for axis, size in group if axis is None and isinstance(size, int))
        if labels and extent != 1:
            raise UnsupportedError(
                f"merges {labels[0].words} with {extent} features",
                expected="batch and time kept apart from features",
            )
        extents.append(extent)
        axes.append(labels)
    return replace(value, data=value.data.reshape(extents), axes=tuple(axes))


def _shape(value: Value) -> str:
    return _words(value.shape)


def _words(sizes: Sequence[Size]) -> str:
    return "(" + ", ".join(map(words, sizes)) + ")"
