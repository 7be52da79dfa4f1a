"""Arrays in NumPy's files, .npy and .npz, from anywhere: no pickles, weighed before unpacked."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import files, limits
from ifgo.errors import FormatError
from ifgo.text import cut

Array = NDArray[Any]

_HEADER_BYTES: Final = 1024
"""An array of plain numbers has a header of some 100 bytes."""

_CHUNK_BYTES: Final = 2**20
_ENTRY: Final = b"PK\x01\x02"
"""Every entry of a zip's directory starts with it, so there are no more entries than of these."""

_READERS: Final[dict[tuple[int, int], Callable[..., Any]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class Header:
    """What an .npy says of itself before its numbers; start: where they begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    @property
    def elements(self) -> int:
        """How many numbers follow."""
        return math.prod(self.shape)


Check = Callable[[Mapping[str, Header]], None]


def read_npy(path: Path) -> Array:
    """The array in an .npy: numbers only, exactly as many as its header says. Raises FormatError,
    UsageError where it cannot be read."""
    data = files.read_bytes(path)
    header = _header(data[: 2 * _HEADER_BYTES], len(data), str(path))
    return _shaped(memoryview(data)[header.start :], header)


def read_npz(path: Path, check: Check) -> dict[str, Array]:
    """The arrays in an .npz by name. `check` is given all headers before anything is unpacked, and
    may raise.

    Raises FormatError naming the array that is damaged, lies about its size, or unpacks to more
    than the limit expansion_bytes beyond the size of its file; UsageError where it cannot be read.
    """
    data = files.read_bytes(path)
    entries = _entries(data, path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            headers = {name: _peek(archive, entry, path) for name, entry in entries.items()}
            check(headers)
            _weigh(entries, headers, len(data), path)
            return {n: _unpack(archive, e, headers[n], path) for n, e in entries.items()}
    except (zipfile.BadZipFile, OSError):
        raise _no_npz(path) from None


def _no_npz(path: Path) -> FormatError:
    return FormatError("is no .npz", where=str(path), hint="Write it with numpy.savez")


def _entries(data: bytes, path: Path) -> dict[str, zipfile.ZipInfo]:
    if data.count(_ENTRY) > limits.current().arrays:
        raise FormatError(
            f"holds more than {limits.current().arrays} arrays",
            where=str(path),
            **limits.at_most("arrays", hint="Split the file"),
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except MemoryError:
        raise
    # zipfile passes on what each part of a damaged directory provokes.
    except Exception:
        raise _no_npz(path) from None
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name in found:
            raise FormatError("holds an array twice", where=str(path), expected="each name once")
        where = _where(path, name)
        if entry.flag_bits & 1:
            raise FormatError("is encrypted", where=where, hint="Write the file with numpy.savez")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(
                f"is compressed by method {entry.compress_type}",
                where=where,
                expected="deflate (8) or none (0)",
                hint="Write the file with numpy.savez",
            )
        found[name] = entry
    return found


def _where(path: Path, name: str) -> str:
    return f"{path}: {cut(name)}"


def _damaged(where: str) -> FormatError:
    return FormatError("is damaged", where=where, hint="Write the file again")


def _peek(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Header:
    where = _where(path, entry.filename.removesuffix(".npy"))
    try:
        with archive.open(entry) as stream:
            start = stream.read(2 * _HEADER_BYTES)
    except MemoryError:
        raise
    # zipfile passes on what its decompressor raises.
    except Exception:
        raise _damaged(where) from None
    return _header(start, entry.file_size, where)


def _header(start: bytes, size: int, where: str) -> Header:
    """The header at the start of an .npy of `size` bytes, which its shape and dtype must give."""
    stream = io.BytesIO(start)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read = _READERS[np.lib.format.read_magic(stream)]
            shape, fortran, dtype = read(stream, max_header_size=_HEADER_BYTES)
    except MemoryError:
        raise
    # The parser of the header raises whatever the text in it provokes.
    except Exception:
        raise FormatError(
            "is no .npy array", where=where, hint="Write it with numpy.save"
        ) from None
    if dtype.kind not in "biuf":
        raise FormatError(
            "holds Python objects (a pickle), which could run code"
            if dtype.hasobject
            else f"holds {cut(dtype)}",
            where=where,
            expected="real numbers",
            hint="Convert it with numpy.asarray(x, dtype=float) and save that",
        )
    wanted, have = math.prod(shape) * dtype.itemsize, size - stream.tell()
    possible = all(0 <= size <= limits.current().file_bytes for size in shape) and len(shape) <= 8
    if not possible or wanted != have:
        raise FormatError(
            f"has {have} bytes of data for shape {cut(shape)} of {dtype}",
            where=where,
            expected=cut(max(wanted, 0)),
            hint="The file is cut short, or its header is wrong",
        )
    return Header(shape, dtype, fortran, stream.tell())


def _weigh(
    entries: Mapping[str, zipfile.ZipInfo], headers: Mapping[str, Header], size: int, path: Path
) -> None:
    """Holds what unpacking makes, as it is or in float32, against the size of the file."""
    if sum(entry.compress_size for entry in entries.values()) > size:
        raise FormatError(
            "holds arrays that lie over each other",
            where=str(path),
            hint="Write it with numpy.savez",
        )
    packed = {n: e for n, e in entries.items() if e.compress_type != zipfile.ZIP_STORED}
    total = sum(max(e.file_size, 4 * headers[name].elements) for name, e in packed.items())
    if total > size + limits.current().expansion_bytes:
        raise FormatError(
            f"has {size} bytes and unpacks to {total}",
            where=str(path),
            **limits.at_most(
                "expansion_bytes",
                form="at most {} more than it has",
                hint="Write it with numpy.savez, which does not compress",
            ),
        )
    for name, entry in entries.items():
        if name not in packed and entry.file_size != entry.compress_size:
            raise _damaged(_where(path, name))


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, header: Header, path: Path) -> Array:
    content = memoryview(bytearray(entry.file_size - header.start))
    at, where = 0, _where(path, entry.filename.removesuffix(".npy"))
    try:
        with archive.open(entry) as stream:
            stream.read(header.start)
            while chunk := stream.read(_CHUNK_BYTES):
                content[at : at + len(chunk)] = chunk
                at += len(chunk)
    except MemoryError:
        raise
    # zipfile passes on what its decompressor raises.
    except Exception:
        raise _damaged(where) from None
    if at != len(content):
        raise _damaged(where)
    return _shaped(content, header)


def _shaped(content: memoryview, header: Header) -> Array:
    values = np.frombuffer(content, header.dtype)
    return values.reshape(header.shape, order="F" if header.fortran else "C")
