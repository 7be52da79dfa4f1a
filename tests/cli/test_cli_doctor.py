"""`ifgo doctor`: what it says of a machine that has everything, and of one that does not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from presence import missing

import ifgo as package
from ifgo.cli import doctor
from ifgo.engine import loading
from ifgo.errors import ToolError
from ifgo.targets.cortex_m import toolchain


def line(done, name):
    """State, detail and fix of one line of the text."""
    lines = done.out.splitlines()
    (at,) = [k for k, text in enumerate(lines) if text[9:].split("  ")[0].strip() == name]
    fix = lines[at + 1].strip() if at + 1 < len(lines) else ""
    detail = lines[at][9:].removeprefix(name).strip()
    return lines[at].split()[0], detail, fix if fix.startswith("fix: ") else ""


@pytest.fixture
def installed(monkeypatch):
    """Which packages are installed: all that are asked for, except those put in here."""
    absent = set()

    def version(name):
        if name in absent:
            raise metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(metadata, "version", version)
    return absent


@pytest.fixture
def cross_tools():
    """The cross compiler and the emulator."""
    for name in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(name) is None:
            missing(name, f"apt install {toolchain.PACKAGES}")


def test_a_machine_that_has_everything(ifgo, cc, cross_tools, native, installed):
    done = ifgo("doctor")
    assert (done.code, done.err) == (0, "")
    assert {text.split()[0] for text in done.out.splitlines()} == {"ok"}
    assert line(done, "Python")[1].startswith(sys.version.split()[0])
    assert line(done, "ifgo")[1].startswith(package.__version__)
    assert line(done, "torch") == ("ok", "1.2.3", "")
    assert line(done, "float32") == ("ok", "this process keeps denormals", "")
    runs = ", ".join(native.isas())
    assert line(done, "engine") == (
        "ok",
        f"computes with {native.isa()}; this CPU runs {runs}",
        "",
    )
    assert line(done, "emitted C") == (
        "ok",
        "compiles, and its self-test finds the bits of the reference",
        "",
    )
    version = subprocess.run([cc, "--version"], capture_output=True, text=True, check=True)
    assert line(done, "C compiler")[1].endswith(f", {version.stdout.splitlines()[0]}")
    for name, tool in (("cross compiler", "arm-none-eabi-gcc"), ("emulator", "qemu-system-arm")):
        path = shutil.which(tool)
        version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
        assert line(done, name)[1] == f"{path}, {version.stdout.splitlines()[0]}"
    assert re.search(r"/nano\.specs, newlib \d+\.\d+\.\d+$", line(done, "newlib nano")[1])


def test_json(ifgo, cc, cross_tools, installed):
    installed.add("torch")
    done = ifgo("doctor", "--json")
    assert done.json["ok"] is True
    names = [check["name"] for check in done.json["checks"]]
    assert names == [
        "Python",
        "ifgo",
        *doctor.REQUIRED,
        *doctor.OPTIONAL,
        "float32",
        "engine",
        "C compiler",
        "emitted C",
        "cross compiler",
        "newlib nano",
        "emulator",
    ]
    assert done.json["checks"][names.index("torch")] == {
        "name": "torch",
        "state": "missing",
        "detail": "not installed, only for ifgo verify --against torch and writing .pt",
        "fix": "pip install torch",
    }


def test_an_optional_package_is_missing(ifgo, installed):
    installed |= {"onnxruntime", "plotly"}
    done = ifgo("doctor")
    assert done.code == 0
    assert line(done, "onnxruntime") == (
        "missing",
        "not installed, only for ifgo verify --against onnxruntime",
        "fix: pip install onnxruntime",
    )
    assert line(done, "plotly") == (
        "missing",
        "not installed, only for the page of ifgo demo",
        "fix: pip install plotly",
    )


def test_a_required_package_is_missing(ifgo, installed):
    installed.add("h5py")
    done = ifgo("doctor")
    assert done.code == 1
    assert line(done, "h5py") == (
        "broken",
        "not installed, and ifgo needs it",
        "fix: pip install h5py",
    )
    assert ifgo("doctor", "--json").json["ok"] is False


CROSS_FIX = (
    "fix: Install the cross compiler and the emulator: apt install gcc-arm-none-eabi "
    "libnewlib-arm-none-eabi qemu-system-arm"
)


def test_no_cross_tools(ifgo, cc, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", cc)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = ifgo("doctor")
    purpose = "only for Cortex-M boards: deploy --report, run and verify on qemu:BOARD"
    for name, tool in (
        ("cross compiler", "arm-none-eabi-gcc"),
        ("newlib nano", "arm-none-eabi-gcc"),
        ("emulator", "qemu-system-arm"),
    ):
        detail = f"{tool} is not installed, {purpose}"
        assert line(done, name) == ("missing", detail, CROSS_FIX)


@pytest.mark.parametrize("says", ["echo nano.specs", "exit 1"])
def test_a_cross_compiler_without_newlib(says, ifgo, cc, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", cc)
    path = tmp_path / "arm-none-eabi-gcc"
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    state, detail, fix = line(ifgo("doctor"), "newlib nano")
    assert (state, fix) == ("missing", CROSS_FIX)
    assert detail.startswith("the library newlib is not installed, only for Cortex-M boards: ")


def test_no_compiler(ifgo, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    done = ifgo("doctor")
    assert done.code == 0
    state, detail, fix = line(done, "C compiler")
    assert (state, detail) == ("missing", "no C compiler found (no-such-compiler from $CC)")
    assert fix.startswith("fix: Install one: apt install gcc")
    assert "emitted C" not in done.out


def compiler(tmp_path, monkeypatch, text):
    path = tmp_path / "odd-cc"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    return path


def test_a_compiler_that_breaks_the_promise(ifgo, cc, tmp_path, monkeypatch):
    """The self-test finds other bits, here because the stored ones are changed first."""
    change = r"sed -i 's/\(0x[0-9a-f]\{7\}\)[0-9a-f]u/\10u/g'"
    change += " $(for a; do case $a in */model.c) echo $a;; esac; done)"
    compiler(tmp_path, monkeypatch, f'[ "$1" = --version ] || {change}\nexec {cc} "$@"')
    done = ifgo("doctor")
    assert done.code == 1
    assert line(done, "emitted C") == (
        "broken",
        "main ends with status 1. main: selftest returns 6",
        "fix: choose another compiler: CC=/path/to/cc",
    )


def test_a_compiler_that_refuses(ifgo, tmp_path, monkeypatch):
    path = compiler(tmp_path, monkeypatch, "echo 'no\x1b[31m room' >&2; exit 1")
    done = ifgo("doctor")
    assert done.code == 1
    assert line(done, "C compiler") == ("ok", f"{path}, no version", "")
    assert line(done, "emitted C") == (
        "broken",
        f"{path} does not compile the emitted C. no\\x1b[31m room",
        "fix: choose another compiler: CC=/path/to/cc",
    )


def test_a_compiler_that_does_not_start(ifgo, tmp_path, monkeypatch):
    path = tmp_path / "odd-cc"
    path.write_bytes(b"\x7fELF no program")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    done = ifgo("doctor")
    assert done.code == 1
    assert line(done, "C compiler")[1].startswith(f"{path}, its version cannot be asked: ")
    assert line(done, "emitted C")[0] == "broken"


def test_flushed_denormals(ifgo, monkeypatch):
    def require_denormals() -> None:
        raise ToolError("this process flushes denormals to zero", hint="run ifgo without it")

    monkeypatch.setattr("ifgo.reference.interpret.require_denormals", require_denormals)
    done = ifgo("doctor")
    assert done.code == 1
    assert line(done, "float32") == (
        "broken",
        "this process flushes denormals to zero",
        "fix: run ifgo without it",
    )


def test_numpy_cannot_be_imported(tmp_path):
    """doctor itself still runs, where the dependency it is asked about is broken."""
    (tmp_path / "numpy.py").write_text("raise ImportError('libopenblas is gone')\n")
    done = subprocess.run(
        [sys.executable, "-m", "ifgo", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "the reference cannot be imported: ImportError: libopenblas is gone\n" in done.stdout
    assert f"fix: {doctor.REINSTALL}" in done.stdout
    assert np.__version__ in done.stdout


def test_the_engine_is_missing(ifgo, installed, monkeypatch):
    """The part that can be done without is yellow, with what to do."""

    def native():
        raise ToolError("the compiled engine is not installed", hint="Build it: here")

    monkeypatch.setattr(loading, "native", native)
    done = ifgo("doctor")
    assert done.code == 0
    assert line(done, "engine") == (
        "missing",
        "the compiled engine is not installed",
        "fix: Build it: here",
    )


def test_the_engine_is_broken(ifgo, installed, monkeypatch):
    def native():
        raise SystemError("initialization failed")

    monkeypatch.setattr(loading, "native", native)
    done = ifgo("doctor")
    assert done.code == 1
    assert line(done, "engine") == (
        "broken",
        "SystemError: initialization failed",
        f"fix: {doctor.REINSTALL}",
    )
