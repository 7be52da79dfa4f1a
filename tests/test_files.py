"""Files: read within bounds, written whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from core_cases import refused

from ifgo import files, limits
from ifgo.errors import FormatError, UsageError

WRITABLE = "Check that the folder exists and is writable"


@pytest.fixture
def umask() -> Iterator[int]:
    """A umask that is nobody's default, for the time of a test."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


# -- reading --------------------------------------------------------------------------------------


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"\0\xff")
    assert files.read_bytes(path) == b"\0\xff"
    assert files.read_bytes(path, limit=2) == b"\0\xff"


def test_read_past_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by its size: nothing is read."""
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with refused(FormatError, f"{path}: has 3 bytes, expected at most 2 bytes"):
        files.read_bytes(path, limit=2)
    with path.open("wb") as stream:
        stream.truncate(limits.MAX_FILE_BYTES + 1)
    with refused(FormatError, f"{path}: has 2147483649 bytes, expected at most 2147483648 bytes"):
        files.read_bytes(path)


def test_read_of_nothing(tmp_path: Path) -> None:
    with refused(UsageError, f"{tmp_path / 'gone'}: no such file. Check the path"):
        files.read_bytes(tmp_path / "gone")
    with refused(UsageError, f"{tmp_path}: is a folder, expected a file"):
        files.read_bytes(tmp_path)


def test_read_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    with refused(UsageError, f"{path / 'below'}: cannot be read (Not a directory)"):
        files.read_bytes(path / "below")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with refused(UsageError, f"{path}: cannot be read (No space left on device)"):
        files.read_bytes(path)


# -- one file -------------------------------------------------------------------------------------


def test_write(tmp_path: Path) -> None:
    path = tmp_path / "data"
    files.atomic_write(path, b"one")
    files.atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_write_gives_the_mode_of_a_plain_open(tmp_path: Path, umask: int) -> None:
    files.atomic_write(tmp_path / "data", b"one")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o666 & ~umask
    assert os.umask(umask) == umask


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    with refused(UsageError, f"{path}: cannot be written (No space left on device). {WRITABLE}"):
        files.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_that_is_interrupted_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "data"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b))[1])
    files.atomic_write(tmp_path / "data", b"one")
    assert done == ["fsync", "replace"]


def test_write_where_there_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "no" / "data"
    with refused(UsageError, f"{path}: cannot be written (No such file or directory). {WRITABLE}"):
        files.atomic_write(path, b"one")


def test_write_over_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with refused(UsageError, f"{path}: cannot be written (Is a directory). {WRITABLE}"):
        files.atomic_write(path, b"one")
    assert list(tmp_path.iterdir()) == [path]


# -- a folder -------------------------------------------------------------------------------------


def two(folder: Path) -> None:
    (folder / "a").write_text("new a")
    (folder / "b").write_text("new b")


def contents(folder: Path) -> dict[str, str]:
    return {entry.name: entry.read_text() for entry in sorted(folder.iterdir())}


def test_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "folder"
    files.atomic_folder(path, two)
    assert contents(path) == {"a": "new a", "b": "new b"}
    assert list(path.parent.iterdir()) == [path]


def test_folder_keeps_files_of_other_names(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_text("old a")
    (path / "mine").write_text("mine")
    files.atomic_folder(path, two)
    assert contents(path) == {"a": "new a", "b": "new b", "mine": "mine"}
    assert list(tmp_path.iterdir()) == [path]


def test_folder_whose_filling_fails_stays_as_it_was(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "a").write_text("new a")
        raise UsageError("no")

    path = tmp_path / "folder"
    with refused(UsageError, "no"):
        files.atomic_folder(path, half)
    assert list(tmp_path.iterdir()) == []
    path.mkdir()
    (path / "a").write_text("old a")
    with refused(UsageError, "no"):
        files.atomic_folder(path, half)
    assert contents(path) == {"a": "old a"}
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a file")
    with refused(UsageError, f"{path}: cannot be written (File exists). {WRITABLE}"):
        files.atomic_folder(path, two)
    below = path / "folder"
    with refused(UsageError, f"{below}: cannot be written (File exists). {WRITABLE}"):
        files.atomic_folder(below, two)
    assert path.read_text() == "a file"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_filled(tmp_path: Path) -> None:
    with refused(
        UsageError, f"{tmp_path / 'f'}: cannot be written (No space left on device). {WRITABLE}"
    ):
        files.atomic_folder(tmp_path / "f", lambda _: fail())
    assert list(tmp_path.iterdir()) == []
