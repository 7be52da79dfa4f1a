"""Protobuf by hand: appended to a whole ONNX file, or before it, what no exporter writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator


def varint(value: int, pad: int = 0) -> bytes:
    """`value`, with `pad` bytes more than it needs."""
    out = b""
    while value > 0x7F or pad > 0:
        pad -= value <= 0x7F
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def number(field_number: int, value: int) -> bytes:
    return varint(field_number << 3) + varint(value & (2**64 - 1))


def renamed(data: bytes, old: bytes, new: bytes) -> bytes:
    """A message with `new` for `old` in every text, and lengths that fit."""
    out, place = bytearray(), 0
    while place < len(data):
        start = place
        tag, place = _read(data, place)
        if tag & 7 != 2:
            place = _read(data, place)[1] if tag & 7 == 0 else place + (8 if tag & 7 == 1 else 4)
            out += data[start:place]
            continue
        size, place = _read(data, place)
        content, place = data[place : place + size], place + size
        if old in content:
            text = all(byte >= 32 for byte in content)
            content = content.replace(old, new) if text else renamed(content, old, new)
        out += field(tag >> 3, content)
    return bytes(out)


def _read(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if data[place - 1] < 0x80:
            return value, place


def nested(numbers: list[int], depth: int) -> bytes:
    """`depth` messages, one in the other, through the fields `numbers` in turn."""
    content = b""
    for level in reversed(range(depth)):
        content = field(numbers[level % len(numbers)], content)
    return content


GRAPH, NODE, INITIALIZER, ATTRIBUTE = 7, 1, 5, 5
MANY = 2**21


def cases(whole: bytes) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Appended to a whole file, whose graph protobuf merges with a second one."""
    inside = {
        "nodes": field(NODE, b"") * MANY,
        "nodes of an operator": field(NODE, field(4, b"LSTM")) * (MANY // 8),
        "initializers": field(INITIALIZER, b"") * MANY,
        "inputs": field(11, b"") * MANY,
        "outputs": field(12, b"") * MANY,
        "value infos": field(13, b"") * MANY,
        "sparse initializers": field(15, b"") * MANY,
        "annotations": field(14, b"") * MANY,
        "attributes": field(NODE, field(ATTRIBUTE, b"") * MANY),
        "node inputs": field(NODE, field(1, b"") * MANY),
        "node outputs": field(NODE, field(2, b"") * MANY),
        "dims one by one": field(INITIALIZER, number(1, 1) * MANY),
        "packed dims": field(INITIALIZER, field(1, b"\x01" * MANY)),
        "packed integers": field(INITIALIZER, field(7, bytes(2**23))),
        "packed integers of 10 bytes": field(INITIALIZER, field(7, (b"\xff" * 9 + b"\1") * 2**17)),
        "strings": field(INITIALIZER, field(6, b"") * MANY),
        "external data": field(INITIALIZER, field(13, b"") * MANY),
        "shape of an input": field(11, field(2, field(1, field(2, field(1, b"") * MANY)))),
        "floats of an attribute": field(NODE, field(ATTRIBUTE, field(7, bytes(4 * 2**20)))),
        "ints of an attribute": field(NODE, field(ATTRIBUTE, field(8, bytes(2**21)))),
        "tensors of an attribute": field(NODE, field(ATTRIBUTE, field(10, b"") * MANY)),
        "graphs in attributes": field(NODE, nested([ATTRIBUTE, 6, NODE], 90)),
        "graphs beyond any stack": field(NODE, nested([ATTRIBUTE, 6, NODE], 3000)),
    }
    for name, content in inside.items():
        yield name, lambda content=content: whole + field(GRAPH, content)
    beside = {
        "operator sets": field(8, b"") * MANY,
        "functions": field(25, b"") * MANY,
        "metadata": field(14, b"") * MANY,
        "training": field(20, b"") * MANY,
        "graphs": field(GRAPH, b"") * MANY,
        "unknown messages": field(999, b"") * MANY,
        "unknown numbers": number(999, 1) * MANY,
        "unknown megabytes": field(999, bytes(2**23)),
        "types in types": field(GRAPH, field(11, field(2, nested([4, 1], 95)))),
        "a length of 2**63": varint(GRAPH << 3 | 2) + varint(2**63 - 1),
        "a length of 2**32": varint(GRAPH << 3 | 2) + varint(2**32),
        "a varint without end": varint(1 << 3) + b"\xff" * 100,
        "varints longer than needed": (varint(1 << 3, 4) + varint(8, 4)) * 10,
        "groups": b"\x0b" * 5000 + b"\x0c" * 5000,
        "a group of groups": b"\x3b" * 60 + b"\x3c" * 60,
        "wire type 6": b"\x0e\x00",
        "wire type 7": b"\x0f\x00",
        "field 0": b"\x02\x00",
        "many megabytes of a name": field(2, b"a" * 2**23),
        "a long documentation": field(6, b"\xff" * 2**22),
    }
    for name, content in beside.items():
        yield name, lambda content=content: whole + content
        yield f"{name} before it", lambda content=content: content + whole
