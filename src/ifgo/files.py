"""Reading within bounds and writing whole: a file is either the old one or the new one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ifgo import limits
from ifgo.errors import FormatError, UsageError


def read_bytes(path: Path, *, limit: int = limits.MAX_FILE_BYTES) -> bytes:
    """The bytes of `path`; UsageError where there is no such file, FormatError past `limit`."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise UsageError("is a folder", where=str(path), expected="a file")
        if size > limit:
            raise FormatError(
                f"has {size} bytes", where=str(path), expected=f"at most {limit} bytes"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path), hint="Check the path") from None
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`: temporary name beside it, flushed, then renamed over it.

    The file gets the mode a plain open() would give. Raises UsageError where it cannot be written.
    """
    try:
        umask = os.umask(0)
        os.umask(umask)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"cannot be written ({error.strerror})",
            where=str(path),
            hint="Check that the folder exists and is writable",
        ) from None


def atomic_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a temporary folder, then move its files into `path` (made if absent).

    Nothing reaches `path` where `fill` raises. Files of other names that lie in `path` stay.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            fill(temporary)
            path.mkdir(exist_ok=True)
            for entry in sorted(temporary.iterdir()):
                os.replace(entry, path / entry.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UsageError(
            f"cannot be written ({error.strerror})",
            where=str(path),
            hint="Check that the folder exists and is writable",
        ) from None
