"""The attributes of a node, each of the type that is asked for."""

from __future__ import annotations

import math
from typing import Any, cast

from numpy.typing import NDArray
from onnx import AttributeProto, helper

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.file import Node, printable, quoted, text, to_array


class Attributes:
    """The attributes of one node; `finish` refuses those that nobody asked for."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._asked: set[str] = set()

    def _take(self, name: str, kind: int, default: Any) -> Any:
        self._asked.add(name)
        attribute = self._node.attributes.get(name)
        if attribute is None:
            return default
        if attribute.ref_attr_name:
            raise FormatError(
                f"attribute {name} refers to {quoted(text(attribute.ref_attr_name))} of a function",
                where=self._node.where,
                expected="a value",
                hint="Export it without functions",
            )
        if attribute.type != kind:
            names = {number: word for word, number in AttributeProto.AttributeType.items()}
            raise FormatError(
                f"attribute {name} is of type {names.get(attribute.type, attribute.type)}",
                where=self._node.where,
                expected=names[kind],
            )
        count = max(len(attribute.ints), len(attribute.floats), len(attribute.strings))
        if count > limits.current().folded_elements:
            raise FormatError(
                f"attribute {name} lists {count} values",
                where=self._node.where,
                **limits.at_most("folded_elements", hint="Keep numbers in a tensor"),
            )
        return helper.get_attribute_value(attribute)

    def integer(self, name: str, default: int | None = None) -> int | None:
        """An INT attribute."""
        return cast("int | None", self._take(name, AttributeProto.INT, default))

    def flag(self, name: str, *, default: bool = False) -> bool:
        """An INT attribute that is 0 or 1. Raises FormatError on others, where runtimes differ."""
        value = self.integer(name, int(default))
        if value not in (0, 1):
            raise FormatError(
                f"attribute {name} is {value}", where=self._node.where, expected="0 or 1"
            )
        return bool(value)

    def number(self, name: str, default: float | None = None) -> float | None:
        """A FLOAT attribute, as the float32 the file holds. Raises FormatError on NaN, infinity."""
        value = cast("float | None", self._take(name, AttributeProto.FLOAT, default))
        return None if value is None else self._finite(name, [value])[0]

    def text(self, name: str, default: str) -> str:
        """A STRING attribute."""
        return _decode(self._take(name, AttributeProto.STRING, default))

    def integers(self, name: str) -> list[int] | None:
        """An INTS attribute."""
        found = self._take(name, AttributeProto.INTS, None)
        return None if found is None else [int(value) for value in found]

    def numbers(self, name: str) -> list[float]:
        """A FLOATS attribute, empty where it is left out."""
        values = [float(v) for v in self._take(name, AttributeProto.FLOATS, ())]
        return self._finite(name, values)

    def texts(self, name: str) -> list[str] | None:
        """A STRINGS attribute."""
        found = self._take(name, AttributeProto.STRINGS, None)
        return None if found is None else [_decode(value) for value in found]

    def tensor(self, name: str) -> NDArray[Any] | None:
        """A TENSOR attribute."""
        found = self._take(name, AttributeProto.TENSOR, None)
        what = f"attribute {name} of {self._node.where}"
        return None if found is None else to_array(found, what, None)

    def _finite(self, name: str, values: list[float]) -> list[float]:
        for value in values:
            if not math.isfinite(value):
                raise FormatError(
                    f"attribute {name} is {value}",
                    where=self._node.where,
                    expected="finite numbers",
                )
        return values

    def finish(self) -> None:
        """Raises UnsupportedError naming the attributes that were not asked for."""
        left = sorted(set(self._node.attributes) - self._asked)
        if left:
            names = ", ".join(quoted(name) for name in left[:8])
            raise UnsupportedError(
                f"{printable(self._node.op, 40)} has the attribute {names}",
                where=self._node.where,
                expected="only attributes that ifgo knows in this operator set",
            )


def _decode(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
