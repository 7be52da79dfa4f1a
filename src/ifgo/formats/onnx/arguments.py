"""What a node is given: its inputs as values, its attributes, and shapes that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.attributes import Attributes
from ifgo.formats.onnx.file import MAX_RANK, Node, printable
from ifgo.formats.onnx.value import Length, Size, Value, constant


class Budget:
    """Bytes that the walk may still allocate; every constant that is read adds to them."""

    PER_CONSTANT = 4
    """Copies of a constant: a concatenation or two, a cast, the layer's own."""

    OPEN_BYTES = 1024
    """What an entry that holds an open length may take."""

    def __init__(self) -> None:
        self._left = limits.current().folded_bytes

    def grow(self, data: NDArray[Any]) -> None:
        """A constant of the file was read."""
        self._left += self.PER_CONSTANT * data.nbytes

    def spend(self, count: int, dtype: np.dtype[Any]) -> None:
        """Called before `count` elements are made. Raises FormatError where nothing is left."""
        self._left -= count * (self.OPEN_BYTES if dtype.kind == "O" else dtype.itemsize)
        if self._left < 0:
            raise FormatError(
                "folds more constants than the file could need",
                **limits.at_most(
                    "folded_bytes",
                    form=f"at most {{}} bytes, and {self.PER_CONSTANT} times those of its weights",
                ),
            )


class Arguments:
    """A node with its inputs and attributes, read where its operator set puts them."""

    def __init__(
        self, node: Node, inputs: Sequence[Value | None], opset: int, budget: Budget
    ) -> None:
        self.node = node
        self.budget = budget
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
        """Refuse inputs and attributes that nobody asked for; consumed_inputs, a hint about memory
        that the first operator sets had, means nothing."""
        if self.opset < 6:
            self.attributes.integers("consumed_inputs")
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

    def integers(self, position: int, name: str, *, since: int) -> list[int] | None:
        """Ints from attribute `name`, or from an input as of operator set `since`; None if there
        are none."""
        if self.opset < since:
            return self.attributes.integers(name)
        if self.optional(position) is None:
            return None
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
    if value.data.size > limits.current().input_size:
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
    if count > limits.current().folded_elements or len(shape) > MAX_RANK:
        raise FormatError(
            f"folds to {count} elements in {len(shape)} axes",
            **limits.at_most("folded_elements", form=f"at most {{}} in {MAX_RANK}"),
        )
    return shape
