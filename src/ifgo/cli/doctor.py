"""`ifgo doctor`: what this machine has, what is missing, and how to get it.

Imports nothing heavy at the top: it has to run where a dependency is broken.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

import click

from ifgo import __version__
from ifgo.cli import terminal
from ifgo.cli.terminal import escape, json_option
from ifgo.errors import IfgoError, ToolError

State = Literal["ok", "missing", "broken"]

REQUIRED: Final = ("numpy", "onnx", "h5py", "safetensors", "click", "rich", "jinja2")
OPTIONAL: Final = {
    "onnxruntime": ("ifgo verify --against onnxruntime", "pip install onnxruntime"),
    "plotly": ("the page of ifgo demo", "pip install plotly"),
    "torch": ("ifgo verify --against torch and writing .pt", "pip install torch"),
    "tflite": ("TFLite files", "pip install tflite flatbuffers"),
}
"""Package → what needs it, and how to install it."""

BOARDS: Final = "Cortex-M boards: deploy --report, run and verify on qemu:BOARD"
"""What needs the cross tools."""

REINSTALL: Final = "install ifgo anew, from its source: pip install --force-reinstall ."

COLOURS: Final = {"ok": "green", "missing": "yellow", "broken": "red"}


@dataclass(frozen=True)
class Check:
    """One line: broken is what ifgo cannot do without, missing what it can; both have a fix."""

    name: str
    state: State
    detail: str
    fix: str = ""


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """Check what this machine has; exit code 1 where something that ifgo needs is broken."""
    found = list(checks())
    ok = all(check.state != "broken" for check in found)
    if as_json:
        terminal.emit({"ok": ok, "checks": [asdict(check) for check in found]})
        return 0 if ok else 1
    width = max(len(check.name) for check in found)
    for check in found:
        state = terminal.paint(f"{check.state:<8}", COLOURS[check.state])
        terminal.say(f"{state} {check.name:<{width}}  {escape(check.detail)}")
        if check.fix:
            terminal.say(f"{'':<8} {'':<{width}}  fix: {escape(check.fix)}")
    return 0 if ok else 1


def checks() -> Iterator[Check]:
    """Every check, in the order shown."""
    yield Check("Python", "ok", f"{platform.python_version()}, {sys.executable}")
    yield Check("ifgo", "ok", f"{__version__}, {Path(__file__).parents[1]}")
    for name in REQUIRED:
        yield _package(name, "and ifgo needs it", f"pip install {name}", needed=True)
    for name, (purpose, fix) in OPTIONAL.items():
        yield _package(name, f"only for {purpose}", fix, needed=False)
    yield _arithmetic()
    yield _engine()
    yield from _compiler()
    yield from _cross_tools()


def _package(name: str, purpose: str, fix: str, *, needed: bool) -> Check:
    try:
        return Check(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        state: State = "broken" if needed else "missing"
        return Check(name, state, f"not installed, {purpose}", fix)


def _arithmetic() -> Check:
    name = "float32"
    try:
        from ifgo.reference.interpret import require_denormals

        require_denormals()
    except ToolError as error:
        return Check(name, "broken", error.what, error.hint or "")
    # Whatever keeps the reference from being imported is the finding.
    except Exception as error:
        detail = f"the reference cannot be imported: {type(error).__name__}: {error}"
        return Check(name, "broken", detail, REINSTALL)
    return Check(name, "ok", "this process keeps denormals")


def _engine() -> Check:
    name = "engine"
    try:
        from ifgo.engine.loading import native

        module = native()
    except IfgoError as error:
        return Check(name, "missing", str(error).removesuffix(f". {error.hint}"), error.hint or "")
    except Exception as error:
        return Check(name, "broken", f"{type(error).__name__}: {error}", REINSTALL)
    runs = ", ".join(module.isas())
    return Check(name, "ok", f"computes with {module.isa()}; this CPU runs {runs}")


def _compiler() -> Iterator[Check]:
    """The compiler, and whether what it makes of the emitted C computes the right bits."""
    try:
        from ifgo.targets.c99 import find_compiler

        words = find_compiler()
    except ToolError as error:
        yield Check("C compiler", "missing", error.what, error.hint or "")
        return
    except Exception as error:
        yield Check("C compiler", "broken", f"{type(error).__name__}: {error}", REINSTALL)
        return
    yield Check("C compiler", "ok", _versioned(*words))
    yield _emitted()


def _cross_tools() -> Iterator[Check]:
    """What target cortex_m compiles with and runs in: only needed to build, run and measure it."""
    try:
        from ifgo.targets.cortex_m import toolchain
    except Exception as error:
        yield Check("cross compiler", "broken", f"{type(error).__name__}: {error}", REINSTALL)
        return
    compiler, emulator = toolchain.PREFIX + "gcc", toolchain.EMULATOR
    for name, find in (
        ("cross compiler", lambda: _versioned(toolchain.find_tool(compiler))),
        ("newlib nano", lambda: f"{toolchain.find_newlib()}, newlib {toolchain.newlib_version()}"),
        ("emulator", lambda: _versioned(toolchain.find_tool(emulator))),
    ):
        try:
            yield Check(name, "ok", find())
        except ToolError as error:
            yield Check(name, "missing", f"{error.what}, only for {BOARDS}", error.hint or "")


def _versioned(*words: str) -> str:
    return f"{' '.join(words)}, {_version(*words)}"


def _version(*words: str) -> str:
    try:
        done = subprocess.run(
            [*words, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its version cannot be asked: {error}"
    return (done.stdout.splitlines() or ["no version"])[0]


def _emitted() -> Check:
    name = "emitted C"
    try:
        from ifgo.cli.compiling import compile_main, run_main
        from ifgo.cli.new import random_model
        from ifgo.deployment import deploy

        with tempfile.TemporaryDirectory(prefix="ifgo-") as place:
            folder = Path(place)
            deploy(random_model([5, 3], 2, 1, seed=1), folder, main=True)
            run_main(compile_main(folder, "-DIFGO_SELFTEST"), "0 0")
    except ToolError as error:
        return Check(name, "broken", str(error), "choose another compiler: CC=/path/to/cc")
    except Exception as error:
        return Check(name, "broken", f"{type(error).__name__}: {error}", REINSTALL)
    return Check(name, "ok", "compiles, and its self-test finds the bits of the reference")
