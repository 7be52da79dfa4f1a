"""Loads one hostile model after another, each in a child of its own, and says what that cost.

Run as a program: cases come as lines of JSON, findings go back as lines of JSON. A child starts
with every module imported, so what it allocates and opens is the load's own doing:

- memory: the highest resident set of the child (VmHWM, reset at the start) less that at the start;
- time: CPU seconds of the child, which a busy machine does not change;
- harm: audited events of the interpreter (files opened, code run, programs started, pickles).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import mmap
import os
import pkgutil
import resource
import select
import signal
import sys
import sysconfig
import tempfile
import typing
from pathlib import Path
from typing import Any

import ifgo
from ifgo import formats
from ifgo.errors import IfgoError

HANG_SECONDS = 60.0
"""Wall clock after which a child that used little CPU waits for something that never comes."""

CPU_SECONDS = 10
"""Where a child is stopped; far above the budget, so that what it took is still told."""

SPARE_BYTES = 2 * 1024**3
"""Address space that a child may add, so that a bomb cannot take the machine down."""

_HARMFUL = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork")
_HARMFUL += ("pickle.find_class", "ctypes.dlopen", "socket.", "os.kill", "os.remove", "os.rename")
_HARMFUL += ("os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate", "shutil.")

_OWN = tuple(
    {
        str(Path(place).resolve()) + os.sep
        for place in (
            Path(ifgo.__file__).parent,
            *(sysconfig.get_path(key) for key in ("stdlib", "purelib", "platlib")),
        )
    }
)
"""Where Python and its packages lie, which any import may read."""


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(key)


class Guard:
    """Notes what a load does beside reading the files in `room`."""

    def __init__(self, room: str) -> None:
        self.room = str(Path(room).resolve()) + os.sep
        self.watching = False
        self.noted: list[str] = []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        self.watching = False  # what the guard does itself is no finding
        try:
            if event == "open":
                self._opened(*args)
            elif event == "exec":
                self._ran(str(args[0].co_filename), sys._getframe(1).f_code.co_filename)
            elif event.startswith(_HARMFUL):
                self.noted.append(f"{event} {args!r}"[:200])
        finally:
            self.watching = True

    def _ran(self, source: str, caller: str) -> None:
        """Modules are imported, and typing evaluates annotations; nothing else runs text."""
        if not source.startswith((*_OWN, "<frozen")) and caller != typing.__file__:
            self.noted.append(f"ran code of {source} in {caller}")

    def _opened(self, path: Any, mode: Any, flags: int) -> None:
        if isinstance(path, int):
            return
        place = os.path.realpath(os.fsdecode(path))
        if (flags & (os.O_WRONLY | os.O_RDWR)) != 0:
            self.noted.append(f"wrote {place}")
        elif not place.startswith((self.room, *_OWN)):
            self.noted.append(f"read {place}")


def _loaded(path: str, options: dict[str, Any]) -> Any:
    if path.startswith("offender:"):  # the self-test's own, see test_hostile_budget.py
        return _offend(*path.split(":")[1:])
    if options.pop("list", False):
        listing = formats.list_layers(path)
        return ifgo.load(path, select=listing.names[:1], **options)
    return ifgo.load(path, **options)


def _offend(what: str, amount: str = "0") -> Any:
    match what:
        case "memory":
            kept = b"x" * int(amount)
            del kept
        case "pages":
            mmap.mmap(-1, int(amount)).close()
        case "cpu":
            start = os.times()
            while os.times().user - start.user < float(amount):
                sum(range(1000))
        case "read":
            Path(amount).read_bytes()
        case "write":
            Path(amount).write_bytes(b"")
        case "run":
            exec("1 + 1", {})
        case "start":
            os.system("true")
        case "hang":
            select.select([], [], [], float(amount))
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case _:
            raise ValueError(what)
    raise IfgoError(what)


def attempt(case: dict[str, Any]) -> dict[str, Any]:
    """What loading case["path"] does; then what deploying it and the intact model does."""
    guard = Guard(case["room"])
    size = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (size + SPARE_BYTES, size + SPARE_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    found: dict[str, Any] = {"result": "model", "code": 0, "message": ""}
    model = None
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, used = _status("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
    guard.watching = True
    try:
        model = _loaded(case["path"], case["options"])
    except BaseException as error:
        known = isinstance(error, IfgoError)
        found = {
            "result": type(error).__name__ if known else f"{type(error).__name__}, none of ours",
            "code": error.exit_code if known else None,
            "message": str(error)[:4000],
        }
    guard.watching = False
    after = resource.getrusage(resource.RUSAGE_SELF)
    found["peak"] = _status("VmHWM") - before
    found["cpu"] = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    found["harm"] = guard.noted
    found["deployed"] = _deployed(model if model is not None else case["path"], case)
    intact = ifgo.load(case["intact"])
    found["intact"] = _deployed(intact, case)
    return found


def _deployed(model: Any, case: dict[str, Any]) -> str:
    """What deploying does: "whole" or "refused", and what it leaves behind if that is wrong."""
    refused = isinstance(model, str)
    if refused and (model.startswith("offender:") or case["options"] or not case["again"]):
        return "refused"
    room = Path(tempfile.mkdtemp(dir=case["scratch"]))
    try:
        done = ifgo.deploy(model, room / "out")
    except IfgoError as error:
        left = [entry.name for entry in room.iterdir()]
        return f"refused, but left {left}" if left else f"refused ({error})"[:7]
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    have = {str(f.relative_to(done.folder)) for f in done.folder.rglob("*") if f.is_file()}
    others = [entry.name for entry in room.iterdir() if entry.name != "out"]
    empty = [name for name in have if not (done.folder / name).stat().st_size]
    return "whole" if have == set(done.files) and not others and not empty else f"partly: {have}"


def _fork(case: dict[str, Any]) -> dict[str, Any]:
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        try:
            with os.fdopen(send, "w") as stream:
                json.dump(attempt(case), stream)
        except BaseException as error:
            sys.stderr.write(f"{case['path']}: {error!r}\n")
            os._exit(1)
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as stream:
        ready = select.select([stream], [], [], case.get("patience", HANG_SECONDS))[0]
        if not ready:
            os.kill(child, signal.SIGKILL)
        text = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not ready:
        return {"result": "waited for ever"}
    if status or not text:
        end = signal.Signals(-status).name if status < 0 else f"exit {status}"
        return {"result": f"ended by {end}"}
    return json.loads(text)


def main() -> None:
    for module in pkgutil.walk_packages(ifgo.__path__, "ifgo."):
        if module.name != "ifgo.__main__":
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    for line in sys.stdin:
        case = json.loads(line)
        if "warm" in case:
            for path in case["warm"]:
                ifgo.load(path)
                ifgo.deploy(path, tempfile.mkdtemp(dir=case["scratch"]) + "/out")
            gc.collect()
            gc.freeze()
            with contextlib.suppress(AttributeError, OSError):
                ctypes.CDLL(None).malloc_trim(0)  # free pages would hide what children allocate
            found: dict[str, Any] = {}
        else:
            found = _fork(case)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
