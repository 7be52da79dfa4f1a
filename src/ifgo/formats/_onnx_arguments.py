"""What a node is given: its inputs as values, its attributes, and shapes that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats._onnx_file import MAX_RANK, Attributes, Node, printable
from ifgo.formats._onnx_value import Length, Size, Value, constant


class Arguments:
    """A node with its inputs and attributes, read where its operator set puts them."""

    def __init__(self, node: Node, inputs: Sequence[Value | None], opset: int) -> None:
        self.node = node
        self.inputs = inputs
        self.attributes = Attributes(node)
        self.opset = opset
        self._asked: set[int] = set()

    def value(self, position: int) -> Value:
        """A required input."""
        found = self.optional(position)
        if found is None:
            raise FormatError(f"has no input {position}", expected="one")
        return found

    def optional(self, position: int) -> Value | None:
        """An input that may be left out."""
        self._asked.add(position)
        return self.inputs[position] if position < len(self.inputs) else None

    def every(self) -> list[Value]:
        """All inputs, none of them left out."""
        return [self.value(position) for position in range(len(self.inputs))]

    def finish(self) -> None:
        """Refuse inputs and attributes that nobody asked for."""
        self.attributes.finish()
        unread = [k for k, v in enumerate(self.inputs) if v is not None and k not in self._asked]
        if unread:
            raise FormatError(
                f"has {len(self.inputs)} inputs",
                expected=f"{printable(self.node.op, 40)} with fewer",
            )

    def sizes(self, position: int) -> list[Size]:
        """A 1-D input of ints or lengths."""
        return sizes(self.value(position))

    def integers(self, position: int, name: str) -> list[int] | None:
        """Ints from attribute `name` (older operator sets) or from an input, None if neither."""
        given = self.attributes.integers(name)
        if given is not None or self.optional(position) is None:
            return given
        found = self.sizes(position)
        ints = [size for size in found if isinstance(size, int)]
        if len(ints) != len(found):
            raise UnsupportedError(f"takes open {name}", expected="integers known in the file")
        return ints


def sizes(value: Value) -> list[Size]:
    """A constant scalar or vector as Python ints and Lengths."""
    if value.signal or any(value.axes) or value.data.ndim > 1 or value.data.dtype.kind not in "iuO":
        raise UnsupportedError(
            "takes a shape that is computed from the data", expected="a shape known in the file"
        )
    if value.data.size > limits.MAX_INPUT_SIZE:
        raise FormatError(
            f"takes a shape of {value.data.size} numbers", expected=f"at most {MAX_RANK}"
        )
    return [s if isinstance(s, Length) else int(s) for s in value.data.reshape(-1)]


def vector(found: Sequence[Size]) -> Value:
    """A shape as a constant."""
    exact = all(isinstance(size, int) for size in found)
    data = np.empty(len(found), dtype=np.int64 if exact else object)
    data[:] = found
    return constant(data)


def numbers(value: Value) -> NDArray[Any]:
    """The array of a constant. Raises UnsupportedError on a signal."""
    if value.signal:
        raise UnsupportedError(
            "computes with the values of the sequence", expected="constants here"
        )
    return value.data


def bounded(shape: Sequence[int]) -> Sequence[int]:
    """`shape`, refused where folding would create more than limits allow."""
    count = 1
    for size in shape:
        count *= max(int(size), 0)
    if count > limits.MAX_FOLDED_ELEMENTS or len(shape) > MAX_RANK:
        raise FormatError(
            f"folds to {count} elements in {len(shape)} axes",
            expected=f"at most {limits.MAX_FOLDED_ELEMENTS} in {MAX_RANK}",
        )
    return shape


def affordable(count: int) -> None:
    """Raises FormatError where moving constants would create more than one tensor may hold."""
    if count > limits.MAX_ELEMENTS:
        raise FormatError(f"folds to {count} elements", expected=f"at most {limits.MAX_ELEMENTS}")
