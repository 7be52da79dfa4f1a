"""Datatypes, dataspaces and filters of HDF5, as far as Keras uses them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from ifgo.errors import FormatError, UnsupportedError

_FLOATS: Final[dict[tuple[int, ...], str]] = {
    (2, 0, 16, 10, 5, 0, 10, 15): "f2",
    (4, 0, 32, 23, 8, 0, 23, 127): "f4",
    (8, 0, 64, 52, 11, 0, 52, 1023): "f8",
}
"""Bytes, bit offset, precision, exponent at, exponent bits, mantissa at, mantissa bits, bias."""

_WORDS: Final = {
    2: "times",
    4: "bit fields",
    5: "opaque bytes",
    6: "compound values",
    7: "references to other objects",
    8: "enumerated values",
    10: "arrays in an array",
}
_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3


@dataclass(frozen=True)
class Type:
    """kind: "real", "whole" numbers, "text" of `size` bytes, "texts" of any length in the heap."""

    kind: Literal["real", "whole", "text", "texts", "other"]
    size: int
    dtype: np.dtype[Any] | None
    words: str


def parse_type(body: bytes, where: str) -> Type:
    """A datatype message. Raises FormatError where it is cut short."""
    if len(body) < 8:
        raise FormatError("is damaged: a datatype is cut short", where=where)
    kind, size, bits = body[0] & 15, int.from_bytes(body[4:8], "little"), body[1]
    if kind == 1 and len(body) >= 20:
        pairs = (body[8:10], body[10:12])
        facts = (size, *(int.from_bytes(p, "little") for p in pairs), *body[12:16])
        spelled = _FLOATS.get((*facts, int.from_bytes(body[16:20], "little")))
        if spelled and not bits & 0x40:
            return Type(
                "real", size, np.dtype((">" if bits & 1 else "<") + spelled), "real numbers"
            )
        return Type("other", size, None, f"numbers of {size} bytes that are no IEEE floats")
    if kind == 0:
        return Type("whole", size, None, "whole numbers")
    if kind == 3 and size:
        return Type("text", size, None, "text")
    if kind == 9 and size == 16 and bits & 15 == 1:
        return Type("texts", size, None, "text")
    return Type("other", size, None, _WORDS.get(kind, f"datatype {kind}"))


def parse_space(body: bytes, where: str) -> tuple[int, ...]:
    """A dataspace message: the shape, (0,) of a null space."""
    if len(body) < 4:
        raise FormatError("is damaged: a shape is cut short", where=where)
    version, rank = body[0], body[1]
    start = {1: 8, 2: 4}.get(version)
    if start is None or rank > 8 or start + 8 * rank > len(body):
        raise FormatError("is damaged: a shape contradicts itself", where=where)
    if version == 2 and body[3] == 2:
        return (0,)
    ends = range(start, start + 8 * rank, 8)
    return tuple(int.from_bytes(body[k : k + 8], "little") for k in ends)


def unfiltered(
    stored: bytes, pipeline: bytes | None, mask: int, size: int, dtype: np.dtype[Any], where: str
) -> bytes:
    """One chunk of `size` bytes as it was before its filters. mask: bit k leaves out filter k."""
    data = stored
    for k, (number, _) in reversed(list(enumerate(_filters(pipeline, where)))):
        if mask >> k & 1:
            continue
        if number == _DEFLATE:
            unpack = zlib.decompressobj()
            try:
                data = unpack.decompress(data, size + 4)
            except zlib.error:
                raise FormatError("is damaged: a chunk does not unpack", where=where) from None
        elif number == _SHUFFLE:
            width = dtype.itemsize
            if len(data) % width:
                break
            data = np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()
        else:
            data = data[:-4]
    if len(data) != size:
        raise FormatError(f"has a chunk of {len(data)} bytes", where=where, expected=str(size))
    return data


def _filters(pipeline: bytes | None, where: str) -> list[tuple[int, int]]:
    """(filter, flags) in the order in which they were applied."""
    if pipeline is None:
        return []
    version, count = (pipeline[0], pipeline[1]) if len(pipeline) > 1 else (0, 0)
    at, found = 8 if version == 1 else 2, list[tuple[int, int]]()
    for _ in range(count):
        if at + 8 > len(pipeline) + 2 * (version == 2) or version not in (1, 2):
            raise FormatError("is damaged: its filters are cut short", where=where)
        number = int.from_bytes(pipeline[at : at + 2], "little")
        if number not in (_DEFLATE, _SHUFFLE, _FLETCHER):
            raise UnsupportedError(
                f"is packed by HDF5 filter {number}",
                where=where,
                expected="deflate (1) and shuffle (2)",
                hint="Save it again without compression",
            )
        named = version == 1
        length = int.from_bytes(pipeline[at + 2 : at + 4], "little") if named else 0
        at += 4 if named else 2
        flags, values = (int.from_bytes(pipeline[at + k : at + k + 2], "little") for k in (0, 2))
        at += 4 + (length + 7) // 8 * 8 + 4 * (values + (values % 2 if named else 0))
        found.append((number, flags))
    return found
