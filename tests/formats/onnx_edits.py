"""A protobuf message with one field changed at a time: every field that is set, and some that are
not. Knows the schema by reflection alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

Path = tuple[Any, ...]

NUMBERS = (0, 1, 2, 3, 7, 10, -1, 100)
WORDS = ("", "x", "reverse", "bidirectional", "Relu", "Sigmoid", "ai.onnx", "com.microsoft")


@dataclass(frozen=True)
class Edit:
    """A message with one field changed. name: the path of fields, entries without number."""

    name: str
    value: str
    message: Any


def edits(message: Any, names: list[str]) -> Iterator[Edit]:
    """Each field that is set: absent, twice, in another order, and other values of its type.

    names: strings to try where the message has one, such as the tensors of a graph.
    """
    for path in list(_paths(message, ())):
        label = _label(message, path)
        for value, change in _changes(_at(message, path), (*WORDS, *names)):
            made = type(message)()
            made.CopyFrom(message)
            owner, key = _at(made, path[:-1]), path[-1]
            try:
                _set(owner, key, change)
            except (ValueError, TypeError, struct.error):
                continue  # no value of the field's type
            yield Edit(label, value, made)


def names(message: Any) -> set[str]:
    """The names that `edits` gives."""
    return {_label(message, path) for path in _paths(message, ())}


def _paths(message: Any, at: Path) -> Iterator[Path]:
    for field, value in message.ListFields():
        here = (*at, field.name)
        yield here
        if isinstance(value, Message):
            yield from _paths(value, here)
        elif field.message_type is not None:
            for k, entry in enumerate(value):
                yield (*here, k)
                yield from _paths(entry, (*here, k))


def _at(message: Any, path: Path) -> Any:
    for key in path:
        message = message[key] if isinstance(key, int) else getattr(message, key)
    return message


def _label(message: Any, path: Path) -> str:
    """Nodes by operator, attributes by name; other entries by nothing."""
    said = ""
    for key in path:
        message = message[key] if isinstance(key, int) else getattr(message, key)
        if not isinstance(key, int):
            said += f".{key}"
        elif "op_type" in message.DESCRIPTOR.fields_by_name:
            said += f"[{message.op_type}]"
        elif "ref_attr_name" in message.DESCRIPTOR.fields_by_name:
            said += f"[{message.name}]"
        else:
            said += "[]"
    return said.lstrip(".")


ABSENT = object()
TWICE = object()


def _changes(value: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(as a message shows it, new value) of what a field holds."""
    yield "absent", ABSENT
    match value:
        case bool():
            yield str(not value), not value
        case int():
            for number in dict.fromkeys((value + 1, value - 1, 2 * value, -value, *NUMBERS)):
                if number != value:
                    yield str(number), number
        case float():
            for number in (value + 0.25, value / 2, -value, 0.0, 1.0, 2.0, float("nan")):
                if number != value:
                    yield str(number), number
        case str():
            for word in dict.fromkeys((f"{value}x", value.upper(), *words)):
                if word != value:
                    yield repr(word), word
        case bytes():
            yield from _other_bytes(value, words)
        case Message():
            yield "empty", type(value)()
            yield "twice", TWICE
        case _:  # repeated
            held = list(value)
            yield "reversed", held[::-1]
            yield "all but the last", held[:-1]
            yield "the last twice", held + held[-1:]
            if held and isinstance(held[0], int | float | str | bytes):
                for k, entry in enumerate(held):
                    for shown, other in _changes(entry, words):
                        if other is not ABSENT:
                            yield f"{k}: {shown}", [*held[:k], other, *held[k + 1 :]]


def _other_bytes(value: bytes, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if value.isascii() and value.isalpha():
        for word in dict.fromkeys((value.decode().upper(), value.decode().lower(), *words)):
            if word.encode() != value:
                yield repr(word), word.encode()
    if len(value) % 4 == 0 and value:
        (first,) = struct.unpack("<f", value[:4])
        (last,) = struct.unpack("<i", value[-4:])
        yield "first moved", struct.pack("<f", first + 0.25) + value[4:]
        yield "last one more", value[:-4] + struct.pack("<i", last + 1)
        yield "first nan", struct.pack("<f", float("nan")) + value[4:]
        yield "turned", value[4:] + value[:4]
    yield "one byte more", value + b"\0"
    yield "one byte less", value[:-1]
    yield "twice", value + value


def _set(owner: Any, key: Any, value: Any) -> None:
    if isinstance(key, int):  # an entry of repeated messages
        if value is ABSENT:
            del owner[key]
        elif value is TWICE:
            owner.add().CopyFrom(owner[key])
        else:
            owner[key].CopyFrom(value)
    elif value is ABSENT or value is TWICE:
        owner.ClearField(key)
    elif isinstance(value, list):
        copies = [_copy(entry) for entry in value]
        owner.ClearField(key)
        getattr(owner, key).extend(copies)
    elif isinstance(value, Message):
        getattr(owner, key).CopyFrom(value)
        getattr(owner, key).SetInParent()
    else:
        setattr(owner, key, value)


def _copy(entry: Any) -> Any:
    if not isinstance(entry, Message):
        return entry
    made = type(entry)()
    made.CopyFrom(entry)
    return made
