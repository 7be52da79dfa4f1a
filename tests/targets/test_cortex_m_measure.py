"""Costs: two recipes count the same instructions, two methods see the same stack, sizes add up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cortex_m_cases as cases
import numpy as np
import pytest

from ifgo.errors import ToolError, UsageError
from ifgo.model import Dense, FeatureInput, Flatten, Model, Recurrent
from ifgo.targets import cortex_m
from ifgo.targets.cortex_m import counting, stack, toolchain
from ifgo.targets.cortex_m.boards import BOARDS
from ifgo.targets.cortex_m.cycles import TIMINGS, Runs, estimate
from ifgo.targets.cortex_m.disassembly import Instruction, disassemble, pushed

PADDING = 4 * 2
"""Bytes of stack that no instruction touches: up to 4 per frame keep the stack pointer a multiple
of 8, and the deepest path of these models has two frames where the core has an FPU."""

CELL_FIELDS = ("weight_ih", "weight_hh", "bias")

MODELS = {"stream": cases.stream, "whole": cases.whole}

by_board = pytest.mark.parametrize("board", BOARDS)


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    cases.require_cross_tools()
    cases.require("gcc", "make")


def counted(
    model: Model, board: str, folder: Path, recipe: counting.Recipe, steps: int = 6
) -> counting.Counts:
    x = cases.drawn_input(model, 1, steps)[0]
    folder.mkdir()
    return counting.count(model, BOARDS[board], x, folder, recipe=recipe)


@by_board
@pytest.mark.parametrize("name", MODELS)
def test_timer_and_plugin_count_the_same(name: str, board: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    timer = counted(model, board, tmp_path / "timer", "timer")
    both = counted(model, board, tmp_path / "plugin", "plugin")
    assert both.runs is not None
    assert timer.runs is None
    assert timer.calls == both.calls
    assert sum(one.count for one in both.runs) == sum(timer.calls)
    assert len(timer.calls) == (6 if model.streamable else 1)
    assert all(one.taken <= one.count for one in both.runs)


def test_a_disagreement_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = counted(cases.stream(), "mps2-an386", tmp_path / "a", "plugin")
    monkeypatch.setattr(counting, "NOTHING", counting.NOTHING + 1)
    with pytest.raises(ToolError) as caught:
        counted(cases.stream(), "mps2-an386", tmp_path / "b", "plugin")
    total = sum(right.calls)
    assert str(caught.value) == (
        f"the plugin counts {total} instructions and the timer {total + 6}, "
        "expected the same number"
    )


def test_counts_are_the_same_every_time(tmp_path: Path) -> None:
    first, again = (
        counted(cases.stream(), "mps3-an547", tmp_path / part, "plugin") for part in "ab"
    )
    assert first.calls == again.calls
    assert first.stack == again.stack


@by_board
def test_painted_stack_is_within_the_call_graphs(board: str) -> None:
    report = cortex_m.measure(cases.every_option(), board, recipe="timer")
    assert 0 < report.stack.painted <= report.stack.call_graph
    if BOARDS[board].has_fpu:
        assert report.stack.call_graph - report.stack.painted <= PADDING


@by_board
def test_frames_in_the_disassembly_are_those_the_compiler_states(
    board: str, tmp_path: Path
) -> None:
    """What stands for the library's functions, which come without the compiler's word."""
    project = cortex_m.emit(cases.every_option(), board)
    program = cortex_m.builder.compile_files(tmp_path, project.board, project.files)
    toolchain.compile_object(tmp_path, project.board, "model.c", stack.FLAGS)
    stated = stack.compiled_frames((tmp_path / "model.ci").read_text())
    read = stack.disassembled_frames(disassemble(program), toolchain.addresses(program))
    common = stated.keys() & read.keys()
    assert {"model_step", "model_init", "model_tanh"} <= common
    for name in common:
        assert read[name].size == stated[name].size, name
        assert read[name].calls >= {called for called in stated[name].calls if called in common}


@by_board
def test_sizes_add_up(board: str, tmp_path: Path) -> None:
    model = cases.stream()
    report = cortex_m.measure(model, board)
    project = cortex_m.emit(model, board)
    tensors = [part for part in report.parts if part.kind == "tensor"]
    assert sum(part.bytes for part in tensors) == project.facts.weight_bytes
    labels = {label for part in tensors for label in part.what.split(", ")}
    assert labels == {
        *(f"{layer}.forward.{field}" for layer in "ab" for field in CELL_FIELDS),
        *("y.weight", "y.bias"),
    }
    assert {part.name for part in report.parts if part.kind == "function"} >= {"model_step"}
    libraries = {part.name for part in report.parts if part.kind == "library"}
    assert any(name.endswith("fmul") for name in libraries) != project.board.has_fpu
    assert report.model_flash <= report.flash <= report.flash_available
    assert report.state == project.facts.state_bytes <= report.ram <= report.ram_available
    for name, text in project.files.items():
        (tmp_path / name).write_text(text)
    subprocess.run(["make", "--silent", "SELFTEST="], cwd=tmp_path, check=True)
    assert (tmp_path / "firmware.bin").stat().st_size == report.flash


def test_profile() -> None:
    report = cortex_m.measure(cases.stream(), "mps2-an386")
    counted = report.instructions
    assert counted.recipe == "timer and plugin, which agree"
    assert (counted.steps, counted.calls) == (16, 16)
    assert sum(counted.functions.values()) == counted.per_step  # sixteenths: no rounding
    assert "model_step" in counted.functions
    assert counted.least_call <= counted.per_step <= counted.most_call
    assert report.cycles is not None
    assert report.cycles > counted.per_step


def test_timer_alone_gives_no_profile_and_no_cycles() -> None:
    report = cortex_m.measure(cases.stream(), "mps2-an386", recipe="timer")
    assert report.instructions.recipe == "timer"
    assert report.instructions.functions == {}
    assert report.cycles is None
    assert report.assumptions == "only the plugin recipe knows which instructions ran: no estimate"
    other = cortex_m.measure(cases.stream(), "mps2-an500")
    assert other.cycles is None
    assert other.assumptions == ("Arm publishes no instruction timing for this core: no estimate")


def test_without_a_compiler_of_the_machine_the_timer_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    report = cortex_m.measure(cases.stream(), "stm32f405")
    assert report.instructions.recipe == "timer"
    with pytest.raises(ToolError, match=r"^no C compiler found \(no-such-compiler from \$CC\)"):
        cortex_m.measure(cases.stream(), "stm32f405", recipe="plugin")


def test_given_input_and_whole_sequences() -> None:
    model = cases.whole()
    x = cases.drawn_input(model, 1, 5)
    report = cortex_m.measure(model, "mps2-an386", x=x[0])
    assert (report.instructions.steps, report.instructions.calls) == (5, 1)
    assert report.instructions.per_step * 5 == report.instructions.most_call
    assert report.scratch == cortex_m.emit(model, "mps2-an386", max_steps=5).facts.scratch_bytes
    assert report.to_dict() == cortex_m.measure(model, "mps2-an386", x=x).to_dict()


# -- cycles, by hand ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mnemonic", "operands", "taken", "m0", "m3", "m4"),
    [
        ("adds", "r0, r1, r2", 0, 1, 1, 1),
        ("ldr", "r0, [r1, #4]", 0, 2, 2, 2),
        ("vldr", "s0, [r1]", 0, 2, 2, 2),
        ("strb", "r0, [r1]", 0, 2, 2, 2),
        ("ldrd", "r0, r1, [r2]", 0, 3, 3, 3),
        ("push", "{r4, r5, lr}", 0, 4, 4, 4),
        ("ldmia.w", "r0!, {r1-r4}", 0, 5, 5, 5),
        ("vpush", "{d8-d9}", 0, 5, 5, 5),
        ("vldmia", "r0!, {s0-s3}", 0, 5, 5, 5),
        ("bne", "120 <f+0x20>", 1, 3, 3, 3),
        ("bne", "120 <f+0x20>", 0, 1, 1, 1),
        ("bl", "200 <g>", 1, 4, 3, 3),
        ("pop", "{r4, pc}", 1, 6, 5, 5),
        ("umull", "r0, r1, r2, r3", 0, 1, 4, 1),
        ("mla", "r0, r1, r2, r3", 0, 1, 2, 1),
        ("udiv", "r0, r1, r2", 0, 12, 12, 12),
        ("vadd.f32", "s0, s1, s2", 0, 1, 1, 1),
        ("vmla.f32", "s0, s1, s2", 0, 3, 3, 3),
        ("vdiv.f32", "s0, s1, s2", 0, 14, 14, 14),
    ],
)
def test_cycles_of_one_instruction(
    mnemonic: str, operands: str, taken: int, m0: int, m3: int, m4: int
) -> None:
    runs = [Runs(Instruction(0, "f", mnemonic, operands), 1, taken)]
    found = [estimate(core, runs) for core in ("cortex-m0", "cortex-m3", "cortex-m4")]
    assert found == [m0, m3, m4]
    assert set(TIMINGS) == {"cortex-m0", "cortex-m3", "cortex-m4"}
    assert estimate("cortex-m55", runs) is None


@pytest.mark.parametrize(
    ("mnemonic", "operands", "size"),
    [
        ("push", "{r4, r5, lr}", 12),
        ("stmdb", "sp!, {r4-r11, lr}", 36),
        ("stmdb", "r0!, {r4-r11, lr}", 0),
        ("vpush", "{d8-d10}", 24),
        ("vpush", "{s16-s19}", 16),
        ("sub", "sp, #24", 24),
        ("sub", "sp, sp, #516", 516),
        ("sub", "r0, sp, #24", 0),
        ("str", "lr, [sp, #-8]!", 8),
        ("vstr", "s0, [sp, #8]", 0),
        ("add", "sp, #24", 0),
    ],
)
def test_stack_of_one_instruction(mnemonic: str, operands: str, size: int) -> None:
    assert pushed(Instruction(0, "f", mnemonic, operands)) == size


# -- refusals -------------------------------------------------------------------------------------


def test_stacks_without_a_bound_are_refused() -> None:
    frames = {"f": stack.Frame(8, {"g"}), "g": stack.Frame(16, {"f"})}
    with pytest.raises(ToolError) as caught:
        stack.deepest(frames, "f")
    assert str(caught.value) == "f calls itself: its stack has no bound"
    with pytest.raises(ToolError) as caught:
        stack.deepest({"f": stack.Frame(8, {"printf"})}, "f")
    assert str(caught.value) == "f calls printf, of unknown stack"
    with pytest.raises(ToolError) as caught:
        stack.deepest({}, "f")
    assert str(caught.value) == "f has no known stack"
    node = 'node: { title: "m.c:f" label: "f\\nm.c:1:1\\n8 bytes (dynamic)\\n1 dynamic objects" }'
    with pytest.raises(ToolError) as caught:
        stack.compiled_frames(node)
    assert str(caught.value) == "the compiler gives f a stack frame of no fixed size"


def test_unknown_recipe() -> None:
    with pytest.raises(UsageError) as caught:
        cortex_m.measure(cases.stream(), "mps2-an386", recipe="guess")  # type: ignore[arg-type]
    assert str(caught.value) == "unknown recipe 'guess', expected timer or plugin"


def test_bad_input() -> None:
    with pytest.raises(UsageError) as caught:
        cortex_m.measure(cases.stream(), "mps2-an386", x=np.zeros((2, 4, 3), np.float32))
    assert str(caught.value) == "x holds 2 sequences, expected one, (T, I) or (T,)"
    with pytest.raises(UsageError, match=r"^x has shape \(4, 2\)"):
        cortex_m.measure(cases.stream(), "mps2-an386", x=np.zeros((4, 2), np.float32))


def test_a_model_of_one_length_runs_that_length_alone() -> None:
    d = cases.Draw(3)
    layers = (Recurrent("a", d.cell(3, 5)), Flatten("f", 4), Dense("y", d.array(2, 20)))
    model = Model((FeatureInput(3),), layers)
    assert cortex_m.measure(model, "mps2-an386").instructions.steps == 4
    with pytest.raises(ToolError) as caught:
        cortex_m.measure(model, "mps2-an386", x=cases.drawn_input(model, 1, 3))
    assert str(caught.value) == "the model on board mps2-an386 returns status 4"


def test_a_call_that_could_wrap_the_timer() -> None:
    model = cases.layer(1, 350)
    with pytest.raises(UsageError) as caught:
        cortex_m.measure(model, "mps2-an385", recipe="timer")
    assert str(caught.value) == (
        f"board mps2-an385: a call of {model.macs} MACs may run past the 32-bit timer, "
        "expected the recipe plugin"
    )
