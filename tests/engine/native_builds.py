"""Builds of native/ for the tests, and what is in the object files."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from presence import missing

ROOT = Path(__file__).parents[2]


def tool(name: str, package: str) -> str:
    """Path of a program, beside the interpreter or on PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return found or missing(name, f"apt install {package}")


def run(*command: str | Path) -> str:
    """Standard output of a command that must succeed, silently where it can be warned of."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(folder: Path, **options: str) -> Path:
    """A build of native/ with its C tests and every warning an error, in `folder`."""
    cmake = tool("cmake", "cmake")
    given = {"IFGO_TESTS": "ON", "IFGO_PYTHON": "OFF", "IFGO_WERROR": "ON", **options}
    ninja = ["-G", "Ninja"] if shutil.which("ninja") else []
    run(cmake, "-S", ROOT, "-B", folder, *ninja, *(f"-D{k}={v}" for k, v in given.items()))
    run(cmake, "--build", folder, "--parallel")
    return folder


def build_once(factory: pytest.TempPathFactory, name: str, **options: str) -> Path:
    """`build`, once for all the processes that share the tests of this run."""
    mine = factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            build(folder, **options)
            done.touch()
    return folder


def ctest(folder: Path) -> None:
    """Run the C tests of a build; there is at least one."""
    run(tool("ctest", "cmake"), "--test-dir", folder, "--output-on-failure", "--no-tests=error")


def objects(folder: Path, target: str) -> list[Path]:
    """The object files of a target."""
    found = sorted((folder / "CMakeFiles" / f"{target}.dir").rglob("*.o"))
    assert found, f"no objects of {target} in {folder}"
    return found


def visible_symbols(path: Path) -> set[str]:
    """What the linker sees of an object file: external, weak and unique definitions."""
    lines = run(tool("nm", "binutils"), "--defined-only", "--extern-only", path).splitlines()
    return {line.split()[2] for line in lines if len(line.split()) == 3}


VEX = re.compile(r"^\s+[0-9a-f]+:\s+(?:[0-9a-f]{2} )*\s*(v[a-z]\w*|k[a-z]+[bwdq]) ")
EVEX = re.compile(r"%(?:zmm\d|[xy]mm(?:1[6-9]|2\d|3[01])|k[0-7])\b")


def instructions(path: Path) -> dict[str, set[str]]:
    """The functions of an object file or archive that hold AVX or wider, and AVX-512 or wider."""
    found: dict[str, set[str]] = {"avx": set(), "avx512": set()}
    function = ""
    text = run(tool("objdump", "binutils"), "--disassemble", "--no-show-raw-insn", path)
    for line in text.splitlines():
        if line.endswith(">:"):
            function = line.split("<", 1)[1].removesuffix(">:")
        elif VEX.match(line):
            found["avx"].add(function)
            if EVEX.search(line):
                found["avx512"].add(function)
    return found
