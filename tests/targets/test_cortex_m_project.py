"""The emitted firmware project: its own build files, its program's output, what it is made of."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import cortex_m_cases as cases
import numpy as np
import pytest
from firmware import STRICT, make, printed, write

from ifgo.errors import UsageError
from ifgo.model import FeatureInput, LSTMCell, Model, Recurrent
from ifgo.targets import c99, cortex_m
from ifgo.targets.cortex_m.emitter import example_input

MODELS = {"stream": cases.stream, "whole": cases.whole, "tokens": cases.tokens}

by_board = pytest.mark.parametrize("board", cortex_m.BOARDS)


def expected(model: Model, steps: int) -> Any:
    """What main.c prints: one row per step, the running value where the model ends in a vector."""
    x = example_input(model, steps)
    if model.streamable and model.ends_in_vector:
        return np.stack([model.run(x[0, : t + 1], on="exact")[0] for t in range(steps)])
    return np.atleast_2d(model.run(x[0], on="exact")[0])


@by_board
def test_makefile_builds_without_warnings_and_the_program_prints_the_bits(
    board: str, tmp_path: Path
) -> None:
    cases.require_cross_tools()
    cases.require("make")
    model = cases.stream()
    write(tmp_path, model, board)
    make(tmp_path, f"CFLAGS={STRICT}")
    text = make(tmp_path, "run")
    assert text.splitlines()[0] == "self-test ok"
    assert text.splitlines()[-1] == "done"
    assert cases.same_bits(printed(text), expected(model, 8))


@pytest.mark.parametrize("name", ["whole", "tokens"])
def test_sequences_and_tokens(name: str, tmp_path: Path) -> None:
    cases.require_cross_tools()
    cases.require("make")
    model = MODELS[name]()
    write(tmp_path, model, "mps2-an386", name="net", max_steps=5 if name == "whole" else None)
    make(tmp_path, f"CFLAGS={STRICT}")
    text = make(tmp_path, "run")
    assert text.startswith("self-test ok\n")
    assert cases.same_bits(printed(text), expected(model, 5 if name == "whole" else 8))


def test_the_decimals_are_the_value(tmp_path: Path) -> None:
    cases.require_cross_tools()
    cases.require("make")
    model = cases.whole()
    write(tmp_path, model, "stm32f405", max_steps=8)
    make(tmp_path)
    text = make(tmp_path, "run")
    decimals = [[float(w) for w in re.findall(r"(-?\d+\.\d{6})", t)] for t in text.splitlines()]
    rows = np.array([row for row in decimals if row])
    bits = printed(text)
    assert rows.shape == bits.shape
    assert (rows < 0).any()
    assert np.abs(rows - bits).max() <= 0.5e-6 + 2.0**-24 * np.abs(bits).max()


@by_board
@pytest.mark.parametrize("console", cortex_m.CONSOLES)
def test_cmake_builds_the_same_program(console: str, board: str, tmp_path: Path) -> None:
    """Whatever the console of the project: made for the other one too where it is asked to."""
    cases.require_cross_tools()
    cases.require("make", "cmake")
    write(tmp_path, cases.stream(), board, console=console)
    make(tmp_path)
    assert_cmake_builds_it(tmp_path)
    other = console == "semihosting"
    make(tmp_path, f"UART={1 if other else ''}")  # other settings: everything is built again
    assert_cmake_builds_it(tmp_path, f"-DIFGO_UART={'ON' if other else 'OFF'}")


def assert_cmake_builds_it(tmp_path: Path, *options: str) -> None:
    """The same image as make's."""
    for command in (["cmake", "-B", "build", *options], ["cmake", "--build", "build"]):
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    built = tmp_path / "build" / "firmware.elf"
    subprocess.run(
        ["arm-none-eabi-objcopy", "-O", "binary", built, "f.bin"], cwd=tmp_path, check=True
    )
    assert (tmp_path / "f.bin").read_bytes() == (tmp_path / "firmware.bin").read_bytes()


@by_board
@pytest.mark.parametrize("console", cortex_m.CONSOLES)
def test_serial_port(console: str, board: str, tmp_path: Path) -> None:
    """By UART=1, or from the start: the program never exits, read until it is done."""
    cases.require_cross_tools()
    cases.require("make")
    model = cases.stream()
    project = write(tmp_path, model, board, console=console)
    make(tmp_path, *(["UART=1"] if console == "semihosting" else []), f"CFLAGS={STRICT}")
    command = ["qemu-system-arm", "-M", project.board.machine, "-display", "none"]
    command += ["-monitor", "none", "-serial", "stdio", "-kernel", "firmware.elf"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as emulator:
        assert emulator.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != "done":
            line = emulator.stdout.readline()
            assert line.endswith(b"\r\n"), (lines, line)
            lines.append(line.decode("ascii").rstrip())
        emulator.kill()
    assert lines[0] == "self-test ok"
    assert cases.same_bits(printed("\n".join(lines)), expected(model, 8))


def test_selftest_notices_one_changed_weight(tmp_path: Path) -> None:
    cases.require_cross_tools()
    cases.require("make")
    project = write(tmp_path, cases.stream(), "mps2-an386")
    source = project.files["model.c"]
    first = re.search(r"w0\[\d+\] = \{\s+(\S+?)f,", source)
    assert first is not None
    changed = source.replace(first[1] + "f,", f"{float(first[1]) * 1.001:.9g}f,", 1)
    (tmp_path / "model.c").write_text(changed)
    make(tmp_path)
    assert make(tmp_path, "run", status=2) == "self-test returns 6\n"
    assert make(tmp_path, "SELFTEST=", "run").startswith("y 0 ")


@by_board
@pytest.mark.parametrize("name", MODELS)
def test_the_model_needs_no_library_beyond_arithmetic(
    name: str, board: str, tmp_path: Path
) -> None:
    cases.require_cross_tools()
    project = write(tmp_path, MODELS[name](), board, max_steps=9)
    cortex_m.toolchain.compile_object(tmp_path, project.board, "model.c")
    listing = subprocess.run(
        ["arm-none-eabi-nm", "model.o"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split()[-2:] for line in listing.splitlines()]
    undefined = {symbol for kind, symbol in rows if kind == "U"}
    soft_float = {symbol for symbol in undefined if symbol.startswith("__aeabi_")}
    assert undefined - soft_float <= {"memcpy", "memset"}
    assert bool(soft_float) != project.board.has_fpu
    assert all(re.fullmatch(r"__aeabi_(c?f\w+|i2f|ui2f|mem\w+)", symbol) for symbol in soft_float)
    assert not any(kind in "dDbBcC" for kind, _ in rows), "no writable globals"


def test_model_files_are_those_of_c99_and_all_is_ascii() -> None:
    for name, model in MODELS.items():
        project = cortex_m.emit(model(), "stm32f405", name="ecg", max_steps=6)
        plain = c99.emit(model(), name="ecg", max_steps=6).files
        assert {file: project.files[file] for file in plain} == plain, name
        assert set(project.files) == {
            *plain,
            *("main.c", "start.c", "console.h", "console.c", "semihost.h", "link.ld"),
            *("Makefile", "CMakeLists.txt", "README.md"),
        }
        for text in project.files.values():
            assert text.isascii()
            assert text.endswith("\n")
            assert not re.search(r"[ \t]$", text, re.MULTILINE)


def test_no_name_of_the_model_reaches_the_files() -> None:
    hostile = 'x"*/ #error \\ %s $(shell false) `false` ${X}'
    cell: LSTMCell = cases.layer(3, 5).recurrent[0].cell
    model = Model((FeatureInput(3, name=hostile),), (Recurrent(hostile, cell),))
    plain = Model((FeatureInput(3),), (Recurrent("a", cell),))
    first, second = (cortex_m.emit(m, "microbit").files for m in (model, plain))
    assert first == second


@by_board
def test_readme_states_true_facts(board: str) -> None:
    project = cortex_m.emit(cases.whole(), board, max_steps=9)
    text, found = project.files["README.md"], project.board
    assert f"| flash, weights | {project.facts.weight_bytes} of {found.flash.size} |" in text
    assert f"| RAM, scratch from the caller | {project.facts.scratch_bytes} |" in text
    assert ("make flash" in text) == bool(found.debugger)
    assert ("openocd" in project.files["Makefile"]) == bool(found.debugger)
    assert "CMSIS-DSP" in text
    assert "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm" in text


def test_the_readme_promises_only_what_the_variant_keeps() -> None:
    exact, contracted = (
        " ".join(
            cortex_m.emit(cases.stream(), "stm32f405", variant=variant).files["README.md"].split()
        )
        for variant in ("exact", "contracted")
    )
    assert "The bits are those of the reference on any machine." in exact
    assert "those of the reference" not in contracted
    assert (
        "This is the contracted variant: the bits depend on compiler and core, and the self-test "
        "holds the outputs to float64 truth within a bound."
    ) in contracted


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_stack_of_the_readme_is_the_stack_of_the_program(outputs: int) -> None:
    model = cases.layer(2, outputs)
    text = cortex_m.emit(model, "stm32f405").files["README.md"]
    reserved = cortex_m.measure(model, "stm32f405", recipe="timer").stack_reserved
    assert f"| RAM reserved for the stack | {reserved} |" in text


def test_the_boards_that_exist() -> None:
    assert set(cortex_m.BOARDS) == {
        *("stm32f405", "stm32f205", "microbit"),
        *("mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547"),
    }


@by_board
def test_readme_and_makefile_say_where_the_text_goes(board: str) -> None:
    semihosting = cortex_m.emit(cases.stream(), board).files
    uart = cortex_m.emit(cases.stream(), board, console="uart").files
    first, second = (" ".join(files["README.md"].split()) for files in (semihosting, uart))
    assert "To the debugger by semihosting, or with `make UART=1` to the serial port." in first
    assert "To the serial port, or with `make UART=` to the debugger by semihosting." in second
    pins = {"stm32": "PA9", "nrf51": "the UART on pin 24", "cmsdk": "UART 0"}
    for text in (first, second):
        assert "115200 baud" in text
        assert pins[cortex_m.BOARDS[board].uart.kind] in text
    assert "make UART=      " in uart["Makefile"]
    assert "make UART=      " not in semihosting["Makefile"]
    changed = {name for name in uart if uart[name] != semihosting[name]}
    assert changed == {"README.md", "Makefile", "CMakeLists.txt"}


def test_flash_command_of_an_stm32f4() -> None:
    files = cortex_m.emit(cases.stream(), "stm32f405").files
    command = "openocd -f interface/stlink.cfg -f target/stm32f4x.cfg -c "
    assert command + '"program $< verify reset exit"' in files["Makefile"]
    assert command + '"program firmware.elf verify reset exit"' in files["README.md"]
    for told in ("apt install openocd", "ST-Link", "arm semihosting enable", "0x08000000"):
        assert told in files["README.md"]


def test_the_emulator_has_every_machine() -> None:
    cases.require_cross_tools()
    done = subprocess.run(
        ["qemu-system-arm", "-M", "help"], capture_output=True, text=True, check=True
    )
    known = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {board.machine for board in cortex_m.BOARDS.values()} <= known


def test_bad_names_and_missing_lengths_are_refused_as_in_c99() -> None:
    with pytest.raises(UsageError, match=r"^'a b' cannot prefix C symbols"):
        cortex_m.emit(cases.stream(), "stm32f405", name="a b")
    with pytest.raises(UsageError, match=r"^the model needs whole sequences"):
        cortex_m.emit(cases.whole(), "stm32f405")
