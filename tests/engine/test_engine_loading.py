"""What `ifgo.engine` says where its compiled part is missing, stale or cannot run."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from ifgo import __version__
from ifgo.engine import loading
from ifgo.errors import ToolError, UnsupportedError, UsageError

COMPILERS = "It needs a C and a C++ compiler (apt install g++; xcode-select --install)."
REINSTALL = "Install ifgo anew, from its source: pip install --force-reinstall --no-deps ."


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An installed package `ifgo.engine` without its module."""

    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(loading, "import_module", absent)
    monkeypatch.setattr(loading, "_FOLDER", tmp_path)
    monkeypatch.setattr(loading, "_SCRIPT", tmp_path / "build_native.sh")
    return tmp_path


@pytest.fixture
def module(monkeypatch):
    """A module that stands for the compiled one on a CPU without AVX-512."""
    stands = SimpleNamespace(
        __version__=__version__,
        wanted_isa="",
        isa=lambda: "avx2",
        isas=lambda: ["sse42", "avx2"],
        built_isas=lambda: ["sse42", "avx2", "avx512"],
    )
    monkeypatch.setattr(loading, "import_module", lambda name: stands)
    return stands


def refusal(kind):
    with pytest.raises(kind) as caught:
        loading.native()
    assert type(caught.value) is kind
    return str(caught.value)


def test_installed_without(folder):
    (folder / "_native.pyi").touch()
    assert refusal(ToolError) == (f"the compiled engine is not installed. {COMPILERS} {REINSTALL}")


def test_a_checkout_without(folder):
    script = folder / "build_native.sh"
    script.touch()
    assert refusal(ToolError) == (
        f"the compiled engine is not installed. {COMPILERS} Build it: {script}"
    )


def test_of_another_python(folder):
    (folder / "_native.cpython-39-x86_64-linux-gnu.so").touch()
    assert refusal(ToolError) == (
        "the compiled engine was built for another Python "
        f"(_native.cpython-39-x86_64-linux-gnu.so). {REINSTALL}"
    )


def test_that_cannot_be_loaded(folder, monkeypatch):
    def fails(name):
        raise ImportError("libstdc++.so.6: cannot open shared object file")

    monkeypatch.setattr(loading, "import_module", fails)
    assert refusal(ToolError) == (
        "the compiled engine cannot be loaded (libstdc++.so.6: cannot open shared object file). "
        + REINSTALL
    )


def test_of_another_version(folder, module):
    module.__version__ = "0.0.1"
    assert refusal(ToolError) == (
        f"the compiled engine is of ifgo 0.0.1, expected {__version__}. {REINSTALL}"
    )


def test_isa_that_is_unknown(module):
    module.wanted_isa, module.isa = "sse9", lambda: None
    assert refusal(UsageError) == (
        "IFGO_ISA is 'sse9', which is no instruction set of this build, "
        "expected sse42 or avx2. Unset it to take the widest"
    )


def test_isa_that_the_cpu_lacks(module):
    module.wanted_isa, module.isa = "avx512", lambda: None
    assert refusal(UnsupportedError) == (
        "IFGO_ISA is 'avx512', which this CPU or its system cannot run, "
        "expected sse42 or avx2. Unset it to take the widest"
    )


def test_cpu_that_runs_nothing(module):
    module.isa, module.isas = lambda: None, list
    assert refusal(UnsupportedError) == (
        "this CPU has no instruction set that the compiled engine was built for, expected sse42, "
        "avx2 or avx512. Without the engine, backend exact computes everything"
    )


def in_a_process(isa):
    """What a process says of the engine where IFGO_ISA is `isa`."""
    code = """
from ifgo.engine.loading import native
from ifgo.errors import IfgoError
try:
    print(native().isa())
except IfgoError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "IFGO_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_each_isa_can_be_forced(native):
    assert native.isas()
    for isa in native.isas():
        assert in_a_process(isa) == isa
    assert in_a_process("") == native.isas()[-1]


def test_a_forced_isa_is_refused_on_use(native):
    *others, last = native.isas()
    runs = f"{', '.join(others)} or {last}" if others else last
    assert in_a_process("sse9") == (
        "UsageError IFGO_ISA is 'sse9', which is no instruction set of this build, "
        f"expected {runs}. Unset it to take the widest"
    )
