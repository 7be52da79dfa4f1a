"""HDF5 as Keras and h5py write it, read within bounds from bytes that nobody vouches for.

The HDF5 library crashes the process on damaged metadata, so files are not given to it. This reader
knows what h5py writes: superblocks 0 to 3, groups as symbol tables or compact links, attributes of
numbers and strings, real arrays that are compact, contiguous, or chunked with deflate and shuffle.
Everything else (links that leave the file, virtual and external storage, references, other filters)
is refused by name. Numbers are the HDF5 File Format Specification's, version 3.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.keras._hdf5_types import Type, parse_space, parse_type, unfiltered
from ifgo.text import cut

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"

_NOWHERE: Final = 2**64 - 1
_AGAIN: Final = "Save it again with Keras, or with h5py and its default options"
"""Messages, links and tree nodes looked at; 64 layers with their optimizer take 5,000."""

_SPACE, _LINK_INFO, _TYPE, _LINK, _EXTERNAL, _LAYOUT = 0x1, 0x2, 0x3, 0x6, 0x7, 0x8
_FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOLS, _ATTRIBUTE_INFO = 0xB, 0xC, 0x10, 0x11, 0x15


class Hdf5:
    """One file in memory. Raises FormatError where it is damaged, UnsupportedError where it holds
    what Keras never writes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.steps = limits.current().hdf5_steps
        self.unread = len(data) + limits.current().expansion_bytes
        if data[:8] != SIGNATURE:
            raise FormatError("is no HDF5 file", hint=_AGAIN)
        version = self.number(8, 1)
        if version in (0, 1):
            start = 24 + 4 * version
            self._expect_sizes(13, start)
            root = self.number(start + 40, 8)
        elif version in (2, 3):
            self._expect_sizes(9, 12)
            root = self.number(36, 8)
        else:
            raise UnsupportedError(
                f"is HDF5 with superblock {version}", expected="0 to 3", hint=_AGAIN
            )
        self.root = Object(self, root, "")

    def _expect_sizes(self, at: int, base: int) -> None:
        if self.slice(at, 2) != b"\x08\x08" or self.number(base, 8):
            raise UnsupportedError(
                "is HDF5 with other addresses than 8 bytes from its start", hint=_AGAIN
            )

    def slice(self, at: int, count: int) -> bytes:
        """Bytes that are there, or FormatError."""
        if at < 0 or count < 0 or at + count > len(self.data):
            raise FormatError(
                f"is damaged: {cut(count)} bytes at {cut(at)} lie beyond its end", hint=_AGAIN
            )
        return self.data[at : at + count]

    def number(self, at: int, count: int) -> int:
        """A little-endian integer of `count` bytes."""
        return int.from_bytes(self.slice(at, count), "little")

    def magic(self, at: int, wanted: bytes) -> None:
        """Raises FormatError where another structure than `wanted` lies at `at`."""
        if self.slice(at, len(wanted)) != wanted:
            raise FormatError(f"is damaged: no {wanted.decode()} at {at}", hint=_AGAIN)

    def step(self) -> None:
        """Counts work; FormatError where a file makes more of it than any model."""
        self.steps -= 1
        if self.steps < 0:
            raise FormatError(
                "is damaged, or holds more objects than any model",
                **limits.at_most("hdf5_steps", hint=_AGAIN),
            )

    def pay(self, count: int) -> None:
        """Counts bytes taken out; FormatError past the file's own size and the limit
        expansion_bytes."""
        self.unread -= count
        if self.unread < 0:
            raise FormatError(
                f"unpacks to more than {limits.current().expansion_bytes} bytes beyond its size",
                **limits.at_most("expansion_bytes", form="at most that many", hint=_AGAIN),
            )

    def heap(self, at: int, index: int, count: int) -> bytes:
        """`count` bytes of object `index` in the global heap at `at`."""
        self.magic(at, b"GCOL")
        end = at + self.number(at + 8, 8)
        at += 16
        while at + 16 <= end:
            self.step()
            size = self.number(at + 8, 8)
            if self.number(at, 2) == index and index:
                if count > size:
                    break
                self.pay(count)
                return self.slice(at + 16, count)
            at += 16 + (size + 7) // 8 * 8
        raise FormatError("is damaged: a text is missing from its heap", hint=_AGAIN)


@dataclass(frozen=True)
class _Message:
    kind: int
    body: bytes
    shared: bool


class Object:
    """A group or an array of the file; name: its path."""

    def __init__(self, file: Hdf5, address: int, name: str) -> None:
        self.file = file
        self.name = name
        self.address = address
        self._messages: list[_Message] | None = None
        self._children: dict[str, Object] | None = None

    @property
    def where(self) -> str:
        """How errors name it."""
        return cut(self.name, 120) or "the root group"

    # -- header -----------------------------------------------------------------------------

    @property
    def messages(self) -> list[_Message]:
        """The header, continuations included."""
        if self._messages is None:
            self._messages = list(self._read_messages())
        return self._messages

    def _read_messages(self) -> Iterator[_Message]:
        file, at = self.file, self.address
        modern = file.slice(at, 4) == b"OHDR"
        if modern:
            flags = file.number(at + 5, 1)
            start = at + 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
            width = 1 << (flags & 3)
            blocks = [(start + width, file.number(start, width))]
            head, kind_bytes = 4 + 2 * bool(flags & 4), 1
        else:
            if file.number(at, 1) != 1:
                raise FormatError(f"is damaged: no object at {cut(at)}", hint=_AGAIN)
            blocks = [(at + 16, file.number(at + 8, 4))]
            head, kind_bytes = 8, 2
        for start, size in blocks:
            at, end = start, start + size
            file.slice(at, size)
            while at + head <= end:
                file.step()
                kind = file.number(at, kind_bytes)
                length = file.number(at + kind_bytes, 2)
                flags = file.number(at + kind_bytes + 2, 1)
                body = file.slice(at + head, length)
                at += head + length
                if kind == _CONTINUATION and len(body) >= 16:
                    place, count = (int.from_bytes(body[k : k + 8], "little") for k in (0, 8))
                    if modern:
                        file.magic(place, b"OCHK")
                        place, count = place + 4, count - 8
                    blocks.append((place, count))
                elif kind:
                    yield _Message(kind, body, bool(flags & 2))

    def _message(self, kind: int) -> bytes | None:
        found = next((m for m in self.messages if m.kind == kind), None)
        if found is not None and found.shared:
            raise UnsupportedError("shares a header with another object", where=self.where)
        return None if found is None else found.body

    # -- groups -----------------------------------------------------------------------------

    @property
    def is_array(self) -> bool:
        """Whether it is an array, no group."""
        return any(m.kind == _LAYOUT for m in self.messages)

    @property
    def children(self) -> dict[str, Object]:
        """What a group holds by name; links that leave the file are refused."""
        if self._children is None:
            found: dict[str, Object] = {}
            for name, address in self._links():
                if name in found:
                    raise FormatError(f"holds {cut(repr(name))} twice", where=self.where)
                path = f"{self.name}/{name}" if self.name else name
                found[name] = Object(self.file, address, path)
            self._children = found
        return self._children

    def at(self, path: str) -> Object | None:
        """What lies under `path`, parts between slashes; None where there is nothing."""
        found: Object | None = self
        for part in path.split("/"):
            found = None if found is None else found.children.get(part)
        return found

    def _links(self) -> Iterator[tuple[str, int]]:
        body = self._message(_SYMBOLS)
        if body is not None:
            tree, heap = (int.from_bytes(body[k : k + 8], "little") for k in (0, 8))
            yield from self._symbols(tree, heap)
        info = self._message(_LINK_INFO)
        if info is not None:
            dense = 2 + 8 * (info[1] & 1) if len(info) > 1 else 0
            if info[dense : dense + 8] != b"\xff" * 8:
                raise UnsupportedError("is a group with dense links", where=self.where, hint=_AGAIN)
        for message in self.messages:
            if message.kind == _LINK:
                yield self._link(message.body)

    def _link(self, body: bytes) -> tuple[str, int]:
        flags = body[1] if len(body) > 2 else 0
        at = 2
        kind = 0
        if flags & 8:
            kind, at = body[at], at + 1
        at += 8 * bool(flags & 4) + bool(flags & 16)
        width = 1 << (flags & 3)
        size = int.from_bytes(body[at : at + width], "little")
        at += width
        name = body[at : at + size].decode("utf-8", "replace")
        if kind:
            raise self._outward(name, {1: "soft", 64: "external"}.get(kind, "strange"))
        address = body[at + size : at + size + 8]
        if len(address) != 8:
            raise FormatError("is damaged: a link is cut short", where=self.where, hint=_AGAIN)
        return name, int.from_bytes(address, "little")

    def _outward(self, name: str, kind: str) -> UnsupportedError:
        return UnsupportedError(
            f"{cut(repr(name))} is a link ({kind})",
            where=self.where,
            expected="the group or array itself",
            hint=_AGAIN,
        )

    def _symbols(self, tree: int, heap: int) -> Iterator[tuple[str, int]]:
        file = self.file
        file.magic(heap, b"HEAP")
        names = file.slice(file.number(heap + 24, 8), file.number(heap + 8, 8))
        for leaf in self._leaves(tree, 0, 8):
            node = leaf[1]
            file.magic(node, b"SNOD")
            for k in range(file.number(node + 6, 2)):
                file.step()
                entry = node + 8 + 40 * k
                offset = file.number(entry, 8)
                end = names.find(b"\0", offset)
                if end < 0:
                    raise FormatError("is damaged: a name has no end", where=self.where)
                name = names[offset:end].decode("utf-8", "replace")
                if file.number(entry + 16, 4) == 2:
                    raise self._outward(name, "soft")
                yield name, file.number(entry + 8, 8)

    def _leaves(self, tree: int, kind: int, key: int) -> Iterator[tuple[bytes, int]]:
        """(key, child) of the leaves of a B-tree of version 1."""
        file = self.file
        waiting = [(tree, -1)]
        while waiting:
            node, above = waiting.pop()
            file.magic(node, b"TREE")
            level = file.number(node + 5, 1)
            if file.number(node + 4, 1) != kind or (above >= 0 and level != above - 1):
                raise FormatError("is damaged: a tree contradicts itself", where=self.where)
            inner: list[tuple[int, int]] = []
            for k in range(file.number(node + 6, 2)):
                file.step()
                at = node + 24 + k * (key + 8)
                child = file.number(at + key, 8)
                if level:
                    inner.append((child, level))
                else:
                    yield file.slice(at, key), child
            waiting += reversed(inner)

    # -- attributes -------------------------------------------------------------------------

    def texts(self, name: str) -> list[str] | None:
        """The strings of attribute `name`, None where there is no such attribute. Keras splits
        long lists into name0, name1, ..."""
        whole = self._attribute(name)
        if whole is not None:
            return whole
        parts: list[str] = []
        k = 0
        while (part := self._attribute(f"{name}{k}")) is not None:
            parts, k = parts + part, k + 1
        return parts if k else None

    def text(self, name: str) -> str | None:
        """The one string of attribute `name`, None where there is no such attribute."""
        found = self._attribute(name)
        if found is not None and len(found) != 1:
            raise FormatError(
                f"attribute {name} holds {len(found)} texts", where=self.where, expected="one"
            )
        return None if found is None else found[0]

    def _attribute(self, name: str) -> list[str] | None:
        info = self._message(_ATTRIBUTE_INFO)
        if info is not None and len(info) > 1:
            dense = 2 + 2 * (info[1] & 1)
            if info[dense : dense + 8] != b"\xff" * 8:
                raise UnsupportedError(
                    "keeps its attributes in dense storage", where=self.where, hint=_AGAIN
                )
        wanted = name.encode()
        for message in self.messages:
            if message.kind != _ATTRIBUTE or len(message.body) < 9:
                continue
            body, version = message.body, message.body[0]
            sizes = [int.from_bytes(body[k : k + 2], "little") for k in (2, 4, 6)]
            start = 9 if version == 3 else 8
            if body[start : start + sizes[0]].rstrip(b"\0") != wanted:
                continue
            if message.shared or version not in (1, 2, 3) or (version > 1 and body[1]):
                raise UnsupportedError(f"attribute {name} is shared", where=self.where)
            ends: list[int] = []
            for size in sizes:
                start += (size + 7) // 8 * 8 if version == 1 else size
                ends.append(start)
            kind = parse_type(body[ends[0] : ends[0] + sizes[1]], self.where)
            shape = parse_space(body[ends[1] : ends[1] + sizes[2]], self.where)
            return self._strings(name, kind, shape, body[ends[2] :])
        return None

    def _strings(self, name: str, kind: Type, shape: tuple[int, ...], body: bytes) -> list[str]:
        count = int(np.prod(shape, dtype=object))
        if kind.kind not in ("text", "texts"):
            if count == 0:  # an empty list of names has the type of an empty array
                return []
            raise FormatError(
                f"attribute {name} holds {kind.words}", where=self.where, expected="text"
            )
        if count * kind.size > len(body):
            raise FormatError(f"attribute {name} is cut short", where=self.where, hint=_AGAIN)
        found: list[str] = []
        for k in range(count):
            part = body[k * kind.size : (k + 1) * kind.size]
            if kind.kind == "texts":
                length, place = (int.from_bytes(part[a:b], "little") for a, b in ((0, 4), (4, 12)))
                index = int.from_bytes(part[12:16], "little")
                part = self.file.heap(place, index, length) if length else b""
            try:
                found.append(part.rstrip(b"\0").decode("utf-8"))
            except UnicodeDecodeError:
                raise FormatError(f"attribute {name} is no UTF-8", where=self.where) from None
        return found

    # -- arrays -----------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an array; refused where no model holds one of that size."""
        body = self._message(_SPACE)
        if not self.is_array or body is None:
            raise FormatError("is a group", where=self.where, expected="an array", hint=_AGAIN)
        shape = parse_space(body, self.where)
        if int(np.prod(shape, dtype=object)) > limits.current().elements:
            raise FormatError(
                f"has shape {cut(shape)}",
                where=self.where,
                **limits.at_most("elements", form="at most {} elements"),
            )
        return shape

    def array(self) -> NDArray[Any]:
        """The numbers in the machine's byte order. Raises FormatError where some are missing."""
        shape = self.shape
        kind = parse_type(self._message(_TYPE) or b"", self.where)
        if kind.dtype is None:
            raise FormatError(
                f"holds {kind.words}", where=self.where, expected="real numbers", hint=_AGAIN
            )
        if self._message(_EXTERNAL) is not None:
            raise UnsupportedError("keeps its numbers in another file", where=self.where)
        layout = self._message(_LAYOUT) or b""
        wanted = int(np.prod(shape, dtype=object)) * kind.dtype.itemsize
        version, form = (layout[0], layout[1]) if len(layout) > 3 else (0, 0)
        if version not in (3, 4) or (version == 4 and form > 1):
            raise UnsupportedError(
                "is virtual" if form == 3 else f"has layout {version}, {form}",
                where=self.where,
                hint=_AGAIN,
            )
        self.file.pay(wanted)
        if form == 2:
            return self._chunked(layout, shape, kind.dtype)
        if self._message(_FILTERS) is not None:
            raise UnsupportedError("is filtered without chunks", where=self.where, hint=_AGAIN)
        if form == 0:
            payload = layout[4 : 4 + int.from_bytes(layout[2:4], "little")]
        else:
            place, size = (int.from_bytes(layout[k : k + 8], "little") for k in (2, 10))
            payload = b"" if place == _NOWHERE else self.file.slice(place, size)
        if len(payload) != wanted:
            raise FormatError(
                f"has {len(payload)} bytes for shape {cut(shape)} of {kind.dtype}",
                where=self.where,
                expected=str(wanted),
                hint=_AGAIN,
            )
        return (
            np.frombuffer(payload, kind.dtype).reshape(shape).astype(kind.dtype.newbyteorder("="))
        )

    def _chunked(self, layout: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        rank = layout[2] - 1
        tree = int.from_bytes(layout[3:11], "little")
        sides = tuple(
            int.from_bytes(layout[k : k + 4], "little") for k in range(11, 11 + 4 * rank, 4)
        )
        size = int(np.prod(sides, dtype=object)) * dtype.itemsize
        if rank != len(shape) or rank < 1 or not size or size > 2 * self.file.unread:
            raise FormatError(f"has chunks of {cut(sides)}", where=self.where, hint=_AGAIN)
        filters = self._message(_FILTERS)
        found = np.zeros(shape, dtype)
        filled = 0
        for key, place in self._leaves(tree, 1, 8 + 8 * (rank + 1)):
            start = [int.from_bytes(key[k : k + 8], "little") for k in range(8, 8 + 8 * rank, 8)]
            stored, mask = (int.from_bytes(key[k : k + 4], "little") for k in (0, 4))
            self.file.pay(size)
            raw = unfiltered(self.file.slice(place, stored), filters, mask, size, dtype, self.where)
            if any(s % side or s >= n for s, side, n in zip(start, sides, shape, strict=True)):
                raise FormatError("has a chunk beside its shape", where=self.where, hint=_AGAIN)
            block = np.frombuffer(raw, dtype).reshape(sides)
            into = tuple(slice(s, s + side) for s, side in zip(start, sides, strict=True))
            target = found[into]
            target[...] = block[tuple(slice(0, n) for n in target.shape)]
            filled += target.size
        if filled != found.size:
            raise FormatError("lacks some of its chunks", where=self.where, hint=_AGAIN)
        return found.astype(dtype.newbyteorder("="))
