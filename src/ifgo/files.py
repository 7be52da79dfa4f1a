"""Reading within bounds and writing whole: a file is either the old one or the new one."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ifgo import limits
from ifgo.errors import FormatError, UsageError

_WRITABLE: Final = "Check that the folder exists and is writable"
_TEMPORARY: Final = ".ifgo-"
"""Prefix of temporary names; never the name itself, which may be as long as a name can be."""


def as_path(path: str | Path, what: str) -> Path:
    """`path` as a Path. Raises UsageError naming `what` where it is empty or no path at all."""
    if not isinstance(path, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(
            f"{what} is a {type(path).__name__}", expected="a path, as str or pathlib.Path"
        )
    if not str(path) or "\0" in str(path):
        raise UsageError(
            f"{what} is an empty path" if not str(path) else f"{what} holds a zero character",
            expected="the name of a file or folder",
        )
    return Path(path)


def read_bytes(path: Path, *, limit: str = "file_bytes") -> bytes:
    """The bytes of `path`; UsageError where there is no such file, FormatError past the limit
    of that name.

    Only a regular file is opened: a pipe or a device may never end.
    """
    try:
        _require_regular(path, path.stat().st_mode)
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            _require_regular(path, found.st_mode)
            if found.st_size > limits.value(limit):
                raise FormatError(
                    f"has {found.st_size} bytes",
                    where=str(path),
                    **limits.at_most(limit, form="at most {} bytes"),
                )
            data = stream.read(found.st_size + 1)
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path), hint="Check the path") from None
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror})",
            where=str(path),
            hint="Check the path and its permissions",
        ) from None
    if len(data) != found.st_size:
        raise UsageError("changed while it was read", where=str(path), hint="Try again")
    return data


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UsageError("is a folder", where=str(path), expected="a file")
    if not stat.S_ISREG(mode):
        raise UsageError(
            "is no regular file",
            where=str(path),
            expected="a file, no pipe, socket or device",
            hint="Save it to a file first",
        )


def refuse_own_source(source: Path, target: Path) -> None:
    """Raises UsageError where writing `target` would overwrite the model that lies in `source`."""
    try:
        same = source.samefile(target)
    except OSError:
        return
    if same:
        raise UsageError(
            "is the model that is read, and would be overwritten",
            where=str(target),
            expected="another name",
            hint="Write it elsewhere first, then move it",
        )


@contextmanager
def _writing(path: Path) -> Generator[None, None, None]:
    """Turns what the system refuses into a UsageError about `path`."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot be written ({error.strerror})", where=str(path), hint=_WRITABLE
        ) from None


def _target(path: Path) -> tuple[Path, int]:
    """The file that `path` names, links followed, and the mode it is to have: its own, or that of
    a plain open(). Raises UsageError where something lies there that is no regular file."""
    real = Path(os.path.realpath(path))
    try:
        mode = real.stat().st_mode
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return real, 0o666 & ~umask
    if not stat.S_ISREG(mode):
        raise UsageError(
            "is a folder" if stat.S_ISDIR(mode) else "is no regular file",
            where=str(path),
            expected="a file or a new name",
            hint="Write to another name",
        )
    return real, stat.S_IMODE(mode)


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`: temporary name beside it, flushed, then renamed over it.

    A link stays, and the file it names is written. An old file keeps its mode, a new one gets that
    of a plain open(). Raises UsageError where it cannot be written, or is no regular file.
    """
    with _writing(path):
        real, mode = _target(path)
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=real.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, real)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def atomic_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a temporary folder, then move its files into `path` (made if absent).

    All files arrive or none: where `fill` raises, where one of the names is taken by something
    other than a file, and where moving fails, `path` stays as it was. Folders that `fill` makes are
    made in `path` too. Files of other names that lie in `path` stay; links are followed.
    """
    with _writing(path):
        made = _make_folder(path)
        try:
            temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path))
            try:
                new, old = temporary / "new", temporary / "old"
                new.mkdir()
                old.mkdir()
                fill(new)
                _move_in(new, old, path, made)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except BaseException:
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()
            raise


def _make_folder(path: Path) -> list[Path]:
    """Makes `path` and its parents; those that were not there, outermost first."""
    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return absent[::-1]


def _second_name(path: Path, name: Path) -> Path:
    """Gives what lies at `path` the second name `name`, as a copy where there are no hard links."""
    try:
        os.link(path, name)
    except OSError:
        shutil.copy2(path, name)
    return name


def _move_in(new: Path, old: Path, path: Path, made: list[Path]) -> None:
    """Every file under `new` to its place under `path`; what it replaces stays in `old`."""
    names = sorted(entry.relative_to(new) for entry in new.rglob("*") if not entry.is_dir())
    targets = {name: _target(path / name) for name in names}
    done: list[tuple[Path, Path | None]] = []
    try:
        for number, (name, (target, mode)) in enumerate(targets.items()):
            made += _make_folder(target.parent)
            kept = None
            if target.exists():
                kept = _second_name(target, old / str(number))
                os.chmod(new / name, mode)
            done.append((target, kept))
            os.replace(new / name, target)
    except BaseException:
        for target, kept in reversed(done):
            with suppress(OSError):
                if kept is None:
                    target.unlink()
                else:
                    os.replace(kept, target)
        raise
