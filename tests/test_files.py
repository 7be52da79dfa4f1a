"""Files: read within bounds, written whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core_cases import refused
from raising import raising

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
    assert files.read_bytes(path, limit="name_chars") == b"\0\xff"


def test_read_past_the_limit(tmp_path: Path) -> None:
    """Refused by its size: nothing is read."""
    path = tmp_path / "data"
    path.write_bytes(b"a" * 257)
    what = f"{path}: has 257 bytes, expected at most 256 bytes"
    with refused(FormatError, what + raising("name_chars")):
        files.read_bytes(path, limit="name_chars")
    with path.open("wb") as stream:
        stream.truncate(limits.DEFAULTS.file_bytes + 1)
    what = f"{path}: has 2147483649 bytes, expected at most 2147483648 bytes"
    with refused(FormatError, what + raising("file_bytes")):
        files.read_bytes(path)


def test_read_of_nothing(tmp_path: Path) -> None:
    with refused(UsageError, f"{tmp_path / 'gone'}: no such file. Check the path"):
        files.read_bytes(tmp_path / "gone")
    with refused(UsageError, f"{tmp_path}: is a folder, expected a file"):
        files.read_bytes(tmp_path)


def test_read_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    readable = "Check the path and its permissions"
    with refused(UsageError, f"{path / 'below'}: cannot be read (Not a directory). {readable}"):
        files.read_bytes(path / "below")
    monkeypatch.setattr(Path, "open", fail)
    with refused(UsageError, f"{path}: cannot be read (No space left on device). {readable}"):
        files.read_bytes(path)


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    """They would be waited for, or read for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with refused(
            UsageError,
            f"{path}: is no regular file, expected a file, no pipe, socket or device. "
            "Save it to a file first",
        ):
            files.read_bytes(path)


def test_a_file_that_grows_is_not_read_past_its_size() -> None:
    """Files of /proc say that they are empty."""
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("no /proc: only Linux has it")
    with refused(UsageError, f"{path}: changed while it was read. Try again"):
        files.read_bytes(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "model is a NoneType, expected a path, as str or pathlib.Path"),
        (3, "model is a int, expected a path, as str or pathlib.Path"),
        ("", "model is an empty path, expected the name of a file or folder"),
        ("a\0b", "model holds a zero character, expected the name of a file or folder"),
    ],
)
def test_what_is_no_path(path: Any, message: str) -> None:
    with refused(UsageError, message):
        files.as_path(path, "model")
    assert files.as_path("a", "model") == files.as_path(Path("a"), "model") == Path("a")


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
    message = "is a folder, expected a file or a new name. Write to another name"
    with refused(UsageError, f"{path}: {message}"):
        files.atomic_write(path, b"one")
    assert list(tmp_path.iterdir()) == [path]


def test_write_leaves_pipes_and_devices_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    message = "is no regular file, expected a file or a new name. Write to another name"
    for name in ("pipe", "null"):
        with refused(UsageError, f"{tmp_path / name}: {message}"):
            files.atomic_write(tmp_path / name, b"one")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_write_keeps_the_mode_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    files.atomic_write(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)


def test_write_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, real = tmp_path / "link", tmp_path / "there" / "data"
    link.symlink_to(real)
    files.atomic_write(link, b"new")
    files.atomic_write(link, b"newer")
    assert link.is_symlink()
    assert real.read_bytes() == b"newer"


def test_write_to_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    files.atomic_write(path, b"one")
    assert path.read_bytes() == b"one"
    files.atomic_folder(tmp_path / ("f" * 255), two)


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
    with refused(UsageError, f"{below}: cannot be written (Not a directory). {WRITABLE}"):
        files.atomic_folder(below, two)
    assert path.read_text() == "a file"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("taken", ["folder", "pipe"])
def test_folder_with_a_name_taken(tmp_path: Path, taken: str) -> None:
    """Seen before the first file is moved."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_text("old a")
    if taken == "folder":
        (path / "b").mkdir()
    else:
        os.mkfifo(path / "b")
    what = "is a folder" if taken == "folder" else "is no regular file"
    with refused(
        UsageError, f"{path / 'b'}: {what}, expected a file or a new name. Write to another name"
    ):
        files.atomic_folder(path, two)
    assert (path / "a").read_text() == "old a"
    assert sorted(entry.name for entry in path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("links", [True, False])
def test_folder_whose_moving_fails_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def fails_at_c(source: Path, target: Path) -> None:
        if Path(target).name == "c":
            fail()
        replace(source, target)

    def four(folder: Path) -> None:
        two(folder)
        (folder / "c").write_text("new c")
        (folder / "aa" / "bb").mkdir(parents=True)
        (folder / "aa" / "bb" / "d").write_text("new d")

    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_text("old a")
    (path / "c").write_text("old c")
    replace = os.replace
    monkeypatch.setattr(os, "replace", fails_at_c)
    if not links:
        monkeypatch.setattr(os, "link", fail)
    with refused(UsageError, f"{path}: cannot be written (No space left on device). {WRITABLE}"):
        files.atomic_folder(path, four)
    assert contents(path) == {"a": "old a", "c": "old c"}
    with refused(
        UsageError,
        f"{tmp_path / 'x' / 'y'}: cannot be written (No space left on device). {WRITABLE}",
    ):
        files.atomic_folder(tmp_path / "x" / "y", four)
    assert list(tmp_path.iterdir()) == [path]


def test_folder_keeps_modes_and_links(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_text("old a")
    (path / "a").chmod(0o600)
    (path / "b").symlink_to(tmp_path / "real")
    files.atomic_folder(path, two)
    assert stat.S_IMODE((path / "a").stat().st_mode) == 0o600
    assert (path / "b").is_symlink()
    assert (tmp_path / "real").read_text() == "new b"


def test_folder_with_folders_inside(tmp_path: Path) -> None:
    def nested(folder: Path) -> None:
        (folder / "weights").mkdir()
        (folder / "weights" / "w").write_text("w")

    files.atomic_folder(tmp_path / "f", nested)
    assert (tmp_path / "f" / "weights" / "w").read_text() == "w"


def test_folder_that_cannot_be_filled(tmp_path: Path) -> None:
    with refused(
        UsageError, f"{tmp_path / 'f'}: cannot be written (No space left on device). {WRITABLE}"
    ):
        files.atomic_folder(tmp_path / "f", lambda _: fail())
    assert list(tmp_path.iterdir()) == []
