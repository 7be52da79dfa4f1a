"""Emitted C on Cortex-M cores in the emulator: the interpreter's bits, on every core."""

from __future__ import annotations

from pathlib import Path

import cortex_m_cases as cases
import numpy as np
import pytest

from ifgo import states
from ifgo.errors import ToolError, UnsupportedError, UsageError
from ifgo.model import Model
from ifgo.targets import cortex_m
from ifgo.targets.cortex_m import toolchain
from ifgo.targets.cortex_m.builder import compile_files

TAIL = 1200
"""Zero steps that take a decaying state through the denormals to zero."""

MODELS = {
    "plain": lambda: cases.conformance("plain_6_13"),
    "stacked with dense": lambda: cases.conformance("stacked_16_16_16_dense"),
    "softmax": cases.stream,
    "bidirectional": cases.whole,
    "tokens": cases.tokens,
    "every option": cases.every_option,
    "layer norm": lambda: cases.conformance("layer_norm"),
    "masking": lambda: cases.conformance("masking_repeats"),
    "fixed length": lambda: cases.conformance("flatten_after_repeat"),
}

by_core = pytest.mark.parametrize("board", cases.CORES)


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    cases.require_cross_tools()


def assert_exact(model: Model, board: str, batch: int = 2, steps: int = 7) -> None:
    x, state = cases.drawn_input(model, batch, steps), cases.drawn_state(model, batch)
    want = cases.interpreted(model, x, state)
    y, final = cortex_m.run_model(model, x, state, board)
    assert cases.same_bits(y, want.y)
    assert set(final) == set(want.state)
    for key in final:
        assert cases.same_bits(final[key], want.state[key]), key


@by_core
@pytest.mark.parametrize("name", MODELS)
def test_every_core_has_the_interpreters_bits(name: str, board: str) -> None:
    assert_exact(MODELS[name](), board)


@pytest.mark.parametrize("board", sorted(set(cortex_m.BOARDS) - set(cases.CORES)))
def test_other_boards_of_the_same_cores(board: str) -> None:
    assert_exact(cases.stream(), board)


@by_core
def test_a_state_that_decays_through_the_denormals(board: str) -> None:
    model = cases.conformance("decaying")
    x = np.zeros((1, 12 + TAIL, 3), np.float32)
    x[:, :12] = cases.drawn_input(model, 1, 12)
    state = cases.drawn_state(model, 1)
    want = cases.interpreted(model, x, state)
    c = np.abs(want.traces["r"]["forward"]["c"])
    assert ((c > 0) & (c < np.finfo(np.float32).tiny)).sum() > 50, "no denormals: no test"
    y, final = cortex_m.run_model(model, x, state, board)
    assert cases.same_bits(y, want.y)
    assert all(cases.same_bits(final[key], want.state[key]) for key in want.state)


@pytest.mark.parametrize("flags", ["-O0", "-Os", "-O3 -funroll-loops", "-std=gnu99 -O3"])
@pytest.mark.parametrize("board", ["microbit", "mps2-an386", "mps3-an547"])
def test_any_optimisation_has_the_same_bits(board: str, flags: str, tmp_path: Path) -> None:
    """Of these -std=gnu99 alone would fuse products and sums, did model.c not forbid it. It also
    makes FLT_EVAL_METHOD 16 where half precision exists, which model.c takes for excess precision.
    """
    if "gnu99" in flags and board == "mps3-an547":
        flags = "-fpermitted-flt-eval-methods=c11 " + flags
    model = cases.every_option()
    x, state = cases.drawn_input(model, 2, 7), cases.drawn_state(model, 2)
    built = cortex_m.build(model, tmp_path, board, flags=flags.split())
    y, final = built.run(x, state)
    want = cases.interpreted(model, x, state)
    assert cases.same_bits(y, want.y)
    assert all(cases.same_bits(final[key], want.state[key]) for key in want.state)


def test_one_program_runs_batches_of_any_length(tmp_path: Path) -> None:
    model = cases.stream()
    built = cortex_m.build(model, tmp_path, "mps2-an386")
    for batch, steps in ((1, 1), (5, 3), (1, 100)):
        x, state = cases.drawn_input(model, batch, steps), cases.drawn_state(model, batch)
        y, final = built.run(x, state)
        want = cases.interpreted(model, x, state)
        assert cases.same_bits(y, want.y)
        assert all(cases.same_bits(final[key], want.state[key]) for key in want.state)


@pytest.mark.parametrize("name", MODELS)
def test_traces_are_the_interpreters(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    x, state = cases.drawn_input(model, 2, 7), cases.drawn_state(model, 2)
    want = cases.interpreted(model, x, state)
    built = cortex_m.build(model, tmp_path, "mps2-an386", max_steps=9, trace=True)
    y, final, traces = built.run_traced(x, state)
    assert cases.same_bits(y, want.y)
    assert all(cases.same_bits(final[key], want.state[key]) for key in want.state)
    assert traces.keys() == want.traces.keys()
    for layer, directions in want.traces.items():
        assert traces[layer].keys() == directions.keys()
        for direction, parts in directions.items():
            assert traces[layer][direction].keys() == parts.keys()
            for part, values in parts.items():
                assert cases.same_bits(traces[layer][direction][part], values), (layer, part)


@pytest.mark.slow
@pytest.mark.parametrize("board", cortex_m.BOARDS)
def test_every_case_on_every_board(board: str) -> None:
    for case in cases.CASES:
        assert_exact(case.make(cases.Draw(1)), board)


# -- refusals -------------------------------------------------------------------------------------


def run(model: Model, board: str, steps: int = 2) -> None:
    x = cases.drawn_input(model, 1, steps)
    cortex_m.run_model(model, x, states.initial(model, 1, np.float32), board)


def test_unknown_board() -> None:
    with pytest.raises(UsageError) as caught:
        run(cases.stream(), "arduino")
    assert str(caught.value) == (
        "unknown board 'arduino', expected one of stm32f405, stm32f205, microbit, mps2-an385, "
        "mps2-an386, mps2-an500, mps2-an505, mps3-an547"
    )


def test_weights_larger_than_the_flash() -> None:
    with pytest.raises(UnsupportedError) as caught:
        run(cases.layer(16, 128), "microbit")
    assert str(caught.value) == (
        "board microbit: the model needs at least 296960 bytes of flash, nRF51822 has 262144. "
        "Choose a board with more memory, or a smaller model"
    )


def test_state_larger_than_the_ram() -> None:
    model = cases.whole()
    with pytest.raises(UnsupportedError) as caught:
        run(model, "microbit", steps=500)
    floats = cortex_m.emit(model, "mps2-an386", max_steps=500).source.schedule.scratch_size
    assert floats >= 500 * 10
    assert str(caught.value) == (
        f"board microbit: the model needs at least {4 * floats + 4 * 20 + 2048} bytes of RAM, "
        "nRF51822 has 16384. Choose a board with more memory, or a smaller model"
    )


def test_only_the_linker_sees_that_code_and_weights_exceed_the_flash(tmp_path: Path) -> None:
    model = cases.layer(7, 124)
    weights = cortex_m.emit(model, "microbit").facts.weight_bytes
    assert weights < 256 * 1024
    with pytest.raises(
        UnsupportedError, match=r"^board microbit: the model needs (\d+) "
    ) as caught:
        cortex_m.build(model, tmp_path, "microbit")
    needed = int(str(caught.value).split()[5])
    assert weights + 4000 < needed < weights + 12000, "weights, soft float, code"
    assert str(caught.value) == (
        f"board microbit: the model needs {needed} bytes of flash, nRF51822 has 262144. "
        "Choose a board with more memory, or a smaller model"
    )


def test_only_the_linker_sees_that_input_and_output_exceed_the_ram(tmp_path: Path) -> None:
    model = cases.whole()
    steps = 300
    with pytest.raises(UnsupportedError) as caught:
        cortex_m.build(model, tmp_path, "microbit", max_steps=steps)
    needed = int(str(caught.value).split()[5])
    scratch = 4 * cortex_m.emit(model, "microbit", max_steps=steps).source.schedule.scratch_size
    assert scratch + 2048 + 80 < 16384, "what emit can see fits"
    assert needed >= scratch + 4 * steps * (3 + 2) + 2048
    assert str(caught.value) == (
        f"board microbit: the model needs {needed} bytes of RAM, nRF51822 has 16384. "
        "Choose a board with more memory, or a smaller model"
    )


@pytest.mark.parametrize("name", ["arm-none-eabi-gcc", "qemu-system-arm"])
def test_missing_tools(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    if name == "qemu-system-arm":
        found = cortex_m.find_tool("arm-none-eabi-gcc")
        (path / "arm-none-eabi-gcc").symlink_to(found)
    monkeypatch.setenv("PATH", str(path))
    with pytest.raises(ToolError) as caught:
        run(cases.stream(), "mps2-an386")
    assert str(caught.value) == (
        f"{name} is not installed. Install the cross compiler and the emulator: apt install "
        "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
    )


def test_a_compiler_without_newlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "LINK_FLAGS", ("-specs=absent.specs", "-nostartfiles"))
    with pytest.raises(ToolError) as caught:
        run(cases.stream(), "mps2-an386")
    assert str(caught.value) == (
        "the library newlib is not installed. Install the cross compiler and the emulator: apt "
        "install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
    )


def test_source_that_does_not_compile(tmp_path: Path) -> None:
    project = cortex_m.emit(cases.stream(), "mps2-an386")
    with pytest.raises(ToolError, match=r"^arm-none-eabi-gcc ends with status 1\. main\.c: In"):
        compile_files(tmp_path, project.board, project.files | {"main.c": "int main(void) {"})


def test_a_program_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "TIMEOUT_SECONDS", 0.01)
    with pytest.raises(ToolError) as caught:
        toolchain.execute(["sleep", "600"])
    assert str(caught.value) == (
        "sleep does not end within 0.01 s. Give it less to do: fewer or shorter sequences"
    )


def test_a_status_of_the_model_is_an_error(tmp_path: Path) -> None:
    model = cases.stream()
    x, state = cases.drawn_input(model, 1, 2), cases.drawn_state(model, 1)
    x[0, 1, 0] = np.inf
    with pytest.raises(ToolError) as caught:
        cortex_m.build(model, tmp_path, "mps2-an386").run(x, state)
    assert str(caught.value) == "the model on board mps2-an386 returns status 2"


def test_a_fault_is_an_error_that_names_the_exception(tmp_path: Path) -> None:
    project = cortex_m.emit(cases.stream(), "mps2-an386")
    main = 'int main(void) {\n    __asm__ volatile("udf #0");\n    return 0;\n}\n'
    program = compile_files(tmp_path, project.board, project.files | {"main.c": main})
    with pytest.raises(ToolError) as caught:
        toolchain.emulate(project.board, program)
    assert str(caught.value) == "qemu-system-arm ends with status 3. fault, exception 3"
