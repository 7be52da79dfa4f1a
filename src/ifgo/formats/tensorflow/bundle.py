"""The variables of a SavedModel: a "tensor bundle", read without TensorFlow.

NAME.index is a LevelDB table (blocks of sorted keys with shared prefixes, each with a checksum):
"" → BundleHeaderProto, variable → BundleEntryProto. NAME.data-00000-of-00001 holds the numbers as
they are. Every block and every tensor that is read is checked against its CRC-32C.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import files, limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.tensorflow.crc import crc32c, masked
from ifgo.formats.tensorflow.file import TYPES, decoded, shape_of
from ifgo.text import quote

_FOOTER: Final = 48
_MAGIC: Final = 0xDB4775248B80FB57
_TRAILER: Final = 5
"""Bytes after a block: its compression and its checksum."""

_DAMAGED: Final = "The checkpoint is damaged: copy or save the SavedModel again"


class Bundle:
    """The checkpoint called `prefix` (variables/variables of a SavedModel).

    entries: variable → its BundleEntryProto. Raises FormatError where the index is damaged.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.index = prefix.with_name(prefix.name + ".index")
        self._where = self.index.name
        self._shards: dict[int, memoryview] = {}
        self.entries = dict(self._table(self._read(self.index)))
        header = self._proto("BundleHeader", self.entries.pop(b"", b""))
        self._count = int(header.num_shards)
        if header.endianness != 0:
            raise UnsupportedError(
                "holds big-endian numbers", where=self._where, expected="little-endian ones"
            )
        if not 1 <= self._count <= limits.current().arrays:
            raise self._damaged(f"has {self._count} parts", f"1 to {limits.current().arrays}")

    def __contains__(self, key: str) -> bool:
        return key.encode() in self.entries

    def tensor(self, key: str) -> NDArray[Any]:
        """The variable `key`. Raises FormatError where its bytes are not what they were."""
        entry = self._proto("BundleEntry", self.entries[key.encode()])
        what = f"variable {quote(key)}"
        known = TYPES.get(entry.dtype)
        if known is None or entry.slices:
            raise UnsupportedError(
                f"{what} is in slices" if known else f"{what} is of data type {entry.dtype}",
                where=self._where,
                expected="whole tensors of a float, integer or boolean type",
            )
        dtype, shape = np.dtype(known[0]).newbyteorder("<"), shape_of(entry.shape)
        count = -1 if shape is None or min(shape, default=0) < 0 else math.prod(shape)
        if shape is None or not 0 <= count <= limits.current().elements:
            raise self._damaged(f"{what} declares shape {shape}", "a possible one")
        if entry.size != count * dtype.itemsize:
            raise self._damaged(
                f"{what} has {entry.size} bytes for shape {list(shape)}",
                str(count * dtype.itemsize),
            )
        data = self._shard(entry.shard_id, what)
        if not 0 <= entry.offset <= len(data) - entry.size:
            raise self._damaged(
                f"{what} lies at byte {entry.offset}, {entry.size} long, of {len(data)}",
                "a place in its file",
            )
        content = data[entry.offset : entry.offset + entry.size]
        if masked(crc32c(content)) != entry.crc32c:
            raise self._damaged(f"{what} is not what its checksum says", "the bytes as saved")
        return np.frombuffer(content, dtype).reshape(shape)

    def _shard(self, number: int, what: str) -> memoryview:
        """The file of one part. Its name is made of numbers alone, so it lies beside the index."""
        if not 0 <= number < self._count:
            raise self._damaged(f"{what} lies in part {number}", f"0 to {self._count - 1}")
        if number not in self._shards:
            name = f"{self.prefix.name}.data-{number:05d}-of-{self._count:05d}"
            self._shards[number] = memoryview(self._read(self.prefix.with_name(name)))
        return self._shards[number]

    def _read(self, path: Path) -> bytes:
        """The bytes of a file of the folder, no link out of it."""
        folder = os.path.realpath(self.prefix.parents[1])
        if not Path(os.path.realpath(path)).is_relative_to(folder):
            raise FormatError(
                "is a link out of the folder",
                where=path.name,
                expected="a file of the SavedModel",
                hint="Copy the folder with what its links name: cp -rL",
            )
        return files.read_bytes(path)

    def _proto(self, name: str, data: bytes) -> Any:
        found = decoded(data, name)
        if found is None:
            raise self._damaged("holds an entry that does not decode", "a tensor bundle")
        return found

    def _damaged(self, what: str, expected: str) -> FormatError:
        return FormatError(what, where=self._where, expected=expected, hint=_DAMAGED)

    # -- the table ----------------------------------------------------------------------------

    def _table(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value."""
        if len(data) < _FOOTER or struct.unpack_from("<Q", data, len(data) - 8)[0] != _MAGIC:
            raise self._damaged("is no index of a checkpoint", "a LevelDB table")
        try:
            _, _, place = self._handle(data, len(data) - _FOOTER)  # of the meta index, unused
            start, size, _ = self._handle(data, place)
            seen: set[int] = set()
            for _, handle in self._block(data, start, size):
                first, length, _ = self._handle(handle, 0)
                if first in seen:
                    raise self._damaged(f"lists block {first} twice", "each block once")
                seen.add(first)
                yield from self._block(data, first, length)
        except (IndexError, struct.error):
            raise self._damaged("ends within an entry", "a whole index") from None

    def _handle(self, data: bytes, place: int) -> tuple[int, int, int]:
        start, place = _varint(data, place)
        size, place = _varint(data, place)
        return start, size, place

    def _block(self, data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        end = start + size
        if end + _TRAILER > len(data) - _FOOTER or size < 4:
            raise self._damaged(f"names a block at {start}, {size} long", "one within the file")
        kind, checksum = struct.unpack_from("<BI", data, end)
        if kind != 0:
            raise UnsupportedError(
                f"is compressed (kind {kind}{', snappy' if kind == 1 else ''})",
                where=self._where,
                expected="blocks as they are, which TensorFlow writes",
            )
        if masked(crc32c(data[start : end + 1])) != checksum:
            raise self._damaged(f"has a block at {start} that its checksum does not fit", "it to")
        (restarts,) = struct.unpack_from("<I", data, end - 4)
        end -= 4 * (restarts + 1)
        key, place = b"", start
        while place < end:
            shared, place = _varint(data, place)
            own, place = _varint(data, place)
            length, place = _varint(data, place)
            if shared > len(key) or place + own + length > end:
                raise self._damaged("has an entry longer than its block", "a whole index")
            if shared + own > 16 * limits.current().name_chars:
                raise self._damaged(f"has a key of {shared + own} bytes", "a variable's name")
            key = key[:shared] + data[place : place + own]
            place += own
            yield key, data[place : place + length]
            place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number and where it ends. Raises IndexError where it does not."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise IndexError
