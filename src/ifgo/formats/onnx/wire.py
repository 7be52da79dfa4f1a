"""How much protobuf would make of the bytes of an ONNX file, counted before it is asked to.

An empty message takes two bytes in a file and hundreds in memory. The walk steps from field to
field, takes the kinds of fields from ONNX's own schema, and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

import numpy as np
import onnx

from ifgo import limits
from ifgo.errors import FormatError

_VARINT, _WIDE, _BYTES, _NARROW = 0, 1, 2, 5
"""Wire types; ONNX has no groups."""

_PACKED_TYPES: Final = {3: 8, 4: 8, 18: 8, 5: 4, 13: 4, 14: 4, 17: 4, 8: 1}
"""Field types that are written as varints → bytes that each takes in memory, one in the file."""

_Fields = dict[int, Any]
"""Field number → fields of the message there, or the bytes of each of its packed varints."""


@cache
def _schema(top: Any) -> _Fields:
    """The fields of the message `top`, and those of every message within."""
    tables: dict[str, _Fields] = {}

    def table(message: Any) -> _Fields:
        if message.full_name not in tables:
            found = tables[message.full_name] = {}
            for field in message.fields:
                if field.message_type is not None:
                    found[field.number] = table(field.message_type)
                elif field.type in _PACKED_TYPES:
                    found[field.number] = _PACKED_TYPES[field.type]
        return tables[message.full_name]

    return table(top)


@dataclass
class Spent:
    """What was counted in parts of one file."""

    fields: int = 0
    messages: int = 0
    packed: int = 0


def is_affordable(
    data: bytes, message: Any = onnx.ModelProto.DESCRIPTOR, spent: Spent | None = None
) -> bool:
    """Whether the wire format of `data` is whole, as far as sizes say it.

    message: the descriptor of what they are. spent: what came before, to which these are added.
    Raises FormatError where there is more in all of it than limits allow.
    """
    before = spent or Spent()
    stack: list[tuple[int, Mapping[int, Any]]] = [(len(data), _schema(message))]
    bounds = limits.current()
    position, fields, messages, packed = 0, before.fields, before.messages, before.packed
    try:
        while stack:
            end, known = stack[-1]
            if position >= end:
                if position > end:
                    return False
                stack.pop()
                continue
            fields += 1
            key, position = _varint(data, position)
            wire, number = key & 7, key >> 3
            if wire == _VARINT:
                position = _varint(data, position)[1]
            elif wire == _BYTES:
                size, position = _varint(data, position)
                if position + size > end:
                    return False
                content = known.get(number)
                if isinstance(content, dict):
                    messages += 1
                    stack.append((position + size, cast(_Fields, content)))
                else:
                    packed += _count(data, position, size) * content if content else 0
                    position += size
            elif wire in (_WIDE, _NARROW):
                position += 8 if wire == _WIDE else 4
            else:
                return False
            if fields > bounds.fields or messages > bounds.messages:
                raise FormatError(
                    f"has more than {bounds.fields} fields or {bounds.messages} parts",
                    **limits.at_most(
                        "fields", "messages", form="an LSTM chain, which has a few thousand"
                    ),
                )
            if packed > bounds.packed_bytes + 2 * len(data):
                raise FormatError(
                    f"holds packed integers that unpack to more than {packed} bytes",
                    **limits.at_most(
                        "packed_bytes",
                        form="tensors as raw data",
                        hint="Write them with onnx.numpy_helper.from_array",
                    ),
                )
    except IndexError:
        return False
    before.fields, before.messages, before.packed = fields, messages, packed
    return True


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The varint at `position` and where it ends. Raises IndexError where it does not."""
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = byte & 0x7F, 7
    while True:
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position + 1
        if shift > 63:
            raise IndexError


def _count(data: bytes, position: int, size: int) -> int:
    """How many varints end in `size` bytes."""
    part = np.frombuffer(data, np.int8, size, position)
    return int(np.count_nonzero(part >= 0))
