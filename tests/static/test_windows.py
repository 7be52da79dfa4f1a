"""The emitted C on Windows: compiled with mingw-w64, and run where wine is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from presence import missing
from static_cases import ALL, FEW, STRICT, Emission, call, require, two_layers

from ifgo.model import Model

X86_64 = ("x86_64-w64-mingw32-gcc",)
X86 = ("i686-w64-mingw32-gcc", "-msse2", "-mfpmath=sse")
COMPILERS = {"x86_64": X86_64, "x86": X86}

by_compiler = pytest.mark.parametrize("compiler", COMPILERS.values(), ids=COMPILERS)


def build(compiler: tuple[str, ...], folder: Path, *flags: str) -> None:
    """Compile and link main.exe; any warning is an error."""
    require(compiler[0])
    command = (*compiler, "-std=c99", "-O2", *STRICT, *flags)
    done = call(*command, "-o", "main.exe", "main.c", "model.c", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")


@by_compiler
@pytest.mark.parametrize("emission", FEW, ids=lambda emission: emission.name)
def test_windows_compilers_accept_and_link(
    emission: Emission, compiler: tuple[str, ...], tmp_path: Path
) -> None:
    emission.write(tmp_path)
    for flags in ((), ("-DIFGO_SELFTEST", "-DIFGO_TRACE")):
        build(compiler, tmp_path, *flags)


@pytest.mark.slow
@by_compiler
@pytest.mark.parametrize("emission", ALL, ids=lambda emission: emission.name)
def test_windows_compilers_accept_and_link_every_case(
    emission: Emission, compiler: tuple[str, ...], tmp_path: Path
) -> None:
    emission.write(tmp_path)
    build(compiler, tmp_path, "-DIFGO_SELFTEST")


def test_excess_precision_is_a_compile_error(tmp_path: Path) -> None:
    """x87 arithmetic, which 32-bit x86 has by default, rounds to 64 bits of mantissa."""
    require("i686-w64-mingw32-gcc")
    Emission("two_layers", two_layers()).write(tmp_path)
    done = call("i686-w64-mingw32-gcc", "-std=c99", "-c", "model.c", folder=tmp_path)
    assert done.returncode == 1
    assert (
        '#error "model.c needs float arithmetic that rounds to float '
        '(FLT_EVAL_METHOD 0 or 16; on x86-32: -msse2 -mfpmath=sse)"'
    ) in done.stderr
    assert done.stderr.count("error:") == 1


# -- running them -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Wine and its environment: a home of its own, gone after the tests."""
    program = next((p for p in ("wine64", "/usr/lib/wine/wine64") if shutil.which(p)), None)
    if program is None:
        missing("wine", "apt install wine64")
    home = tmp_path_factory.mktemp("wine")
    environment = os.environ | {"WINEPREFIX": str(home / "prefix"), "WINEDEBUG": "-all"}
    yield program, environment
    server = shutil.which("wineserver") or "/usr/lib/wine/wineserver"
    subprocess.run([server, "--kill"], env=environment, check=False)
    shutil.rmtree(home / "prefix", ignore_errors=True)  # 700 MB


def run(
    wine: tuple[str, dict[str, str]], folder: Path, *arguments: str, text: bytes = b""
) -> tuple[int, bytes, str]:
    """main.exe's status, output and error text."""
    program, environment = wine
    done = subprocess.run(
        [program, "main.exe", *arguments],
        cwd=folder,
        env=environment,
        input=text,
        capture_output=True,
        timeout=120,
        check=False,
    )
    errors = [line for line in done.stderr.decode().splitlines() if line.startswith("main: ")]
    return done.returncode, done.stdout, "\n".join(errors)


def numbers(model: Model) -> tuple[bytes, np.ndarray]:
    """An input as the text of a Windows program, and the exact output."""
    x = np.random.default_rng(3).normal(size=(50, model.input_size)).astype(np.float32)
    x[7, 0], x[8, 0] = 1e-45, 3.4e38
    lines = [" ".join(f"{value:.9g}" for value in row) for row in x.tolist()]
    y, _ = model.run(x, on="exact")
    return "\r\n".join(lines).encode() + b"\r\n", y


def test_a_windows_program_prints_the_same_bits(
    wine: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    model = two_layers()
    Emission("two_layers", model).write(tmp_path)
    build(X86_64, tmp_path, "-DIFGO_SELFTEST")
    text, y = numbers(model)
    (tmp_path / "x.txt").write_bytes(text)
    for arguments, piped in ((["x.txt"], b""), (["-"], text)):
        status, out, errors = run(wine, tmp_path, *arguments, text=piped)
        assert (status, errors) == (0, "")
        rows = [line.split() for line in out.decode().split("\r\n")[:-1]]
        assert (np.array(rows, dtype=np.float32) == y).all()


def test_a_windows_program_reads_weight_files_whole(
    wine: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    """0x1a ends a file that Windows reads as text; weights have such bytes."""
    from ifgo.deployment import deploy

    model = two_layers()
    deploy(model, tmp_path / "out", main=True, weights="files")
    data = b"".join(path.read_bytes() for path in (tmp_path / "out" / "weights").glob("*.bin"))
    assert b"\x1a" in data
    assert b"\r" in data or b"\n" in data
    build(X86_64, tmp_path / "out")
    text, y = numbers(model)
    (tmp_path / "out" / "x.txt").write_bytes(text)
    status, out, errors = run(wine, tmp_path / "out", "weights", "x.txt")
    assert (status, errors) == (0, "")
    assert (np.array(out.split(), dtype=np.float32) == y.reshape(-1)).all()


def test_a_windows_program_does_not_stop_at_a_ctrl_z_in_a_file(
    wine: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    Emission("two_layers", two_layers()).write(tmp_path)
    build(X86_64, tmp_path)
    (tmp_path / "x.txt").write_bytes(b"1 2 3\r\n\x1a4 5 6\r\n")
    status, _, errors = run(wine, tmp_path, "x.txt")
    assert (status, errors) == (4, "main: value 4 of the input is no number")
