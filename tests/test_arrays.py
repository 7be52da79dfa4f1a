"""Arrays in .npy and .npz: what is refused before it is unpacked."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import within_bounds
from core_cases import refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raising import raising

from ifgo import arrays, limits
from ifgo.errors import FormatError, IfgoError, UsageError

WRITE = "Write it with numpy.savez"


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def every(_: Mapping[str, arrays.Header]) -> None:
    """Takes what there is."""


def read(path: Path) -> dict[str, Any]:
    return arrays.read_npz(path, every)


def zipped(path: Path, compression: int = zipfile.ZIP_DEFLATED, **contents: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_every_kind(tmp_path: Path, save: Any) -> None:
    values: dict[str, Any] = {
        "a": np.arange(6, dtype=">f8").reshape(2, 3),
        "b": np.asfortranarray(np.arange(6, dtype="<f2").reshape(2, 3)),
        "c": np.int64(3),
        "d": np.zeros((0, 4), bool),
        "e": np.arange(3_000_000, dtype=np.uint8),
    }
    save(tmp_path / "w.npz", **values)
    seen: dict[str, arrays.Header] = {}
    found = arrays.read_npz(tmp_path / "w.npz", seen.update)
    assert list(found) == list(values)
    for name, value in values.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert (seen[name].dtype, seen[name].shape) == (value.dtype, value.shape)
        assert found[name].tobytes() == np.ascontiguousarray(value).tobytes()


def test_the_check_comes_before_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_: Mapping[str, arrays.Header]) -> None:
        raise UsageError("no")

    monkeypatch.setattr(arrays, "_unpack", None)
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with refused(UsageError, "no"):
        arrays.read_npz(tmp_path / "w.npz", check)


def test_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    for content in (b"", b"PK", npy(np.zeros(3))):
        path.write_bytes(content)
        with refused(FormatError, f"{path}: is no .npz. {WRITE}"):
            read(path)


def test_no_array_inside(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.npz", a=b"hello")
    with refused(FormatError, f"{path}: a: is no .npy array. Write it with numpy.save"):
        read(path)


def test_encrypted(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.npz", a=npy(np.zeros(3)))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with refused(FormatError, f"{path}: a: is encrypted. Write the file with numpy.savez"):
        read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(tmp_path: Path, method: int) -> None:
    """Its decompressors give out more than is asked for."""
    path = zipped(tmp_path / "w.npz", method, a=npy(np.zeros(3)))
    with refused(
        FormatError,
        f"{path}: a: is compressed by method {method}, expected deflate (8) or none (0). "
        "Write the file with numpy.savez",
    ):
        read(path)


def test_too_many_arrays(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    many = {f"a{k}": b"" for k in range(limits.DEFAULTS.arrays + 1)}
    with refused(
        FormatError,
        f"{zipped(path, **many)}: holds more than 1024 arrays, expected at most 1024. "
        "Split the file" + raising("arrays"),
    ):
        read(path)


def test_a_directory_of_nothing_but_entries(tmp_path: Path) -> None:
    """zipfile would make an object of each 46 bytes."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", *[0] * 18)
    count = 400_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, count * len(entry), 0, 0)
    path = tmp_path / "w.npz"
    path.write_bytes(entry * count + end)
    within_bounds(lambda: read(path), path.stat().st_size)
    with pytest.raises(FormatError, match="holds more than 1024 arrays"):
        read(path)


def test_one_place_for_many_arrays(tmp_path: Path) -> None:
    """Two entries of the directory that point at the same bytes."""
    path = zipped(tmp_path / "w.npz", zipfile.ZIP_STORED, a=npy(np.zeros(1000)))
    content = path.read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry = content[start:end]
    both = entry + entry.replace(b"a.npy", b"b.npy")
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(both), start, 0)
    path.write_bytes(content[:start] + both + tail)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert str(caught.value) in (
        f"{path}: holds arrays that lie over each other. {WRITE}",
        f"{path}: b: is damaged. Write the file again",  # newer Pythons see it first
        f"{path}: a: is damaged. Write the file again",
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_directory_that_lies_about_sizes(tmp_path: Path, method: int) -> None:
    header = npy(np.zeros(0, np.uint8))[:128].replace(b"(0,), }    ", b"(2000000,),")
    header = header.replace(b"(2000000,),", b"(2000000,)}")
    path = zipped(tmp_path / "w.npz", method, a=header + bytes(100))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<L", 128 + 2_000_000)
    path.write_bytes(content)
    with refused(FormatError, f"{path}: a: is damaged. Write the file again"):
        read(path)


def test_a_header_longer_than_any(tmp_path: Path) -> None:
    """Version 2 may announce 4 GiB of header; it is not read."""
    long = b"\x93NUMPY\x02\x00" + struct.pack("<L", 2**27) + bytes(2**27)
    path = zipped(tmp_path / "w.npz", a=long)
    size = path.stat().st_size
    del long
    within_bounds(lambda: read(path), size)
    with refused(FormatError, f"{path}: a: is no .npy array. Write it with numpy.save"):
        read(path)


def test_too_little_memory_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    monkeypatch.setattr(zipfile.ZipFile, "open", exhausted)
    with pytest.raises(MemoryError):
        read(tmp_path / "w.npz")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_raises_only_our_errors(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "w.npz"
    np.savez_compressed(path, a=np.arange(50.0), b=np.zeros((2, 3), np.int8))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(IfgoError):
        read(path)
