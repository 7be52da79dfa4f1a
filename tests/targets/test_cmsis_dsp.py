"""Projects around CMSIS-DSP: the vendor's sums within the bound of rounding, and what they cost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import cortex_m_cases as cases
import numpy as np
import pytest
from firmware import STRICT, make, printed, write

from ifgo import states
from ifgo.deployment import deploy
from ifgo.errors import ToolError, UnsupportedError, UsageError
from ifgo.lower import lower
from ifgo.model import Dense, FeatureInput, Model
from ifgo.reference.interpret import Execution, execute
from ifgo.targets import c99, cortex_m
from ifgo.targets.c99.library import LARGEST, gather
from ifgo.targets.cortex_m import toolchain
from ifgo.targets.cortex_m.emitter import example_input
from ifgo.verification.compare import traced_against_truth
from ifgo.verification.findings import Finding

LIBRARY = "cmsis-dsp"

BOARDS = ("mps2-an386", "mps3-an547")
"""Cortex-M4, where the library is plain C, and Cortex-M55, where it is Helium."""

MODELS = {
    "16 units": lambda: cases.layer(1, 16),
    "64 units": lambda: cases.layer(16, 64),
    "odd sizes": lambda: cases.layer(3, 7),
    "stacked": lambda: cases.conformance("stacked_16_16_16_dense"),
    "softmax": cases.stream,
    "bidirectional": cases.whole,
    "tokens": cases.tokens,
    "every option": cases.every_option,
}

by_board = pytest.mark.parametrize("board", BOARDS)


def traced(folder: Path, model: Model, board: str) -> tuple[cortex_m.Built, Execution]:
    """What the library makes of a drawn input, every intermediate included."""
    cases.require_cross_tools()
    cases.require_cmsis_dsp()
    random = np.random.default_rng(5)
    x: Any = cases.drawn_input(model, 2, 7)
    if x.dtype == np.float32:
        x = random.standard_normal(x.shape).astype(np.float32)
    state = cases.drawn_state(model, 2)
    built = cortex_m.build(model, folder, board, max_steps=7, trace=True, library=LIBRARY)
    y, final, traces = built.run_traced(x, state)
    return built, Execution(y, dict(final), traces)


def judged(model: Model, done: Execution) -> list[Finding]:
    """Every layer, each step from the inputs that it used, against float64."""
    return traced_against_truth(model, done.traces)


@by_board
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_lies_within_its_local_bound(name: str, board: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    built, done = traced(tmp_path, model, board)
    findings = judged(model, done)
    assert {finding.layer for finding in findings} >= {layer.name for layer in model.recurrent}
    assert all(finding.compared and finding.holds for finding in findings), findings
    functions = {symbol.name for symbol in toolchain.symbols(built.program)}
    assert {"arm_mat_vec_mult_f32", "model_product"} & functions
    assert "model_affine" not in functions


@by_board
def test_what_the_library_does_not_do_stays_ours(board: str, tmp_path: Path) -> None:
    model = cases.conformance("layer_norm")
    _, done = traced(tmp_path, model, board)
    text = (tmp_path / "model.c").read_text()
    assert "model_normalise(" in text
    assert "model_product(" in text
    assert all(finding.compared and finding.holds for finding in judged(model, done))


@by_board
def test_a_forgotten_bias_is_out_of_bound(
    board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge can fail."""
    emit = c99.emit

    def wrong(*args: Any, **options: Any) -> c99.Emitted:
        source = emit(*args, **options)
        text = source.files["model.c"]
        assert text.count("    if (start) {") == 1
        source.files["model.c"] = text.replace("    if (start) {", "    if (0) {")
        return source

    monkeypatch.setattr(c99, "emit", wrong)
    model = cases.layer(3, 7)
    _, done = traced(tmp_path, model, board)
    (finding,) = judged(model, done)
    assert (finding.verdict, finding.part, finding.step) == ("OUT OF local bound", "z_i", 0)


@pytest.mark.parametrize(
    ("inputs", "hidden", "board"),
    [
        *((1, 16, board) for board in cases.CORES),
        *((16, 64, board) for board in BOARDS),
        *((16, 128, board) for board in BOARDS),
    ],
)
def test_our_products_take_fewer_instructions_but_for_helium(
    inputs: int, hidden: int, board: str
) -> None:
    """Per step, activations alike. Helium multiplies four pairs at a time."""
    cases.require_cross_tools()
    cases.require_cmsis_dsp()
    model = cases.layer(inputs, hidden)
    x = example_input(model, 4)
    ours = cortex_m.measure(model, board, x=x)
    theirs = cortex_m.measure(model, board, x=x, library=LIBRARY)
    fewer = ours.instructions.per_step < theirs.instructions.per_step
    assert fewer == (board != "mps3-an547"), (ours.instructions, theirs.instructions)
    assert (ours.library, theirs.library) == ("", LIBRARY)
    assert theirs.stack.painted <= theirs.stack.call_graph
    kinds = {part.name: part.kind for part in theirs.parts}
    assert kinds["arm_mat_vec_mult_f32"] == "library"
    assert kinds["arm_add_f32"] == "library"
    profile = theirs.instructions
    assert sum(profile.functions.values()) == profile.per_step  # sixteenths: no rounding


# -- the project ----------------------------------------------------------------------------------


def from_build(folder: Path, model: Model, board: str) -> Any:
    """What the program prints, by the test program of the same model."""
    x = example_input(model, 8)
    built = cortex_m.build(model, folder, board, max_steps=8, library=LIBRARY)
    return built.run(x, states.initial(model, 1, np.float32))[0][0]


@by_board
@pytest.mark.parametrize("console", cortex_m.CONSOLES)
def test_makefile_and_cmake_build_the_same_program(
    board: str, console: str, tmp_path: Path
) -> None:
    cases.require_cross_tools()
    cases.require_cmsis_dsp()
    cases.require("make", "cmake")
    model = cases.layer(3, 7)
    place, other = tmp_path / "project", tmp_path / "other"
    place.mkdir()
    other.mkdir()
    write(place, model, board, library=LIBRARY, console=console)
    make(place, f"CFLAGS={STRICT}")
    if console == "semihosting":
        text = make(place, "run")
        assert "self-test" not in text
        assert text.splitlines()[-1] == "done"
        assert cases.same_bits(printed(text), from_build(other, model, board))
    assert_same_by_cmake(place)


def assert_same_by_cmake(place: Path) -> None:
    define = f"-DCMSIS_DSP={os.environ['CMSIS_DSP']}"
    for command in (["cmake", "-B", "build", define], ["cmake", "--build", "build"]):
        subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    command = ["arm-none-eabi-objcopy", "-O", "binary", "build/firmware.elf", "f.bin"]
    subprocess.run(command, cwd=place, check=True)
    assert (place / "f.bin").read_bytes() == (place / "firmware.bin").read_bytes()


@pytest.mark.parametrize("given", ["", "/no/such folder"])
def test_build_files_ask_for_the_folder(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases.require_cross_tools()
    cases.require("make", "cmake")
    monkeypatch.delenv("CMSIS_DSP", raising=False)
    write(tmp_path, cases.stream(), "mps2-an386", library=LIBRARY)
    for command, wanted in (
        (["make", f"CMSIS_DSP={given}"], "make CMSIS_DSP=/path/to/CMSIS-DSP"),
        (["cmake", "-B", "b", f"-DCMSIS_DSP={given}"], "-DCMSIS_DSP=/path/to/CMSIS-DSP"),
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode
        assert f"give the folder of CMSIS-DSP: {wanted}\n" in done.stderr


def test_readme_says_where_the_library_plugs_in() -> None:
    model = cases.stream()
    text = cortex_m.emit(model, "stm32f405", name="net", library=LIBRARY).files["README.md"]
    assert "make CMSIS_DSP=/path/to/CMSIS-DSP\n" in text
    assert "make flash CMSIS_DSP=/path/to/CMSIS-DSP\n" in text
    assert "`net_product` in `model.c` is where it plugs in: `arm_mat_vec_mult_f32`" in text
    assert "self-test ok" not in text
    assert "On this core the plain project takes fewer instructions." in text
    helium = cortex_m.emit(model, "mps3-an547", library=LIBRARY).files["README.md"]
    assert "On this core it uses Helium, which also flushes denormals to zero." in helium
    plain = cortex_m.emit(model, "stm32f405").files["README.md"]
    assert "ifgo deploy --library cmsis-dsp" in plain
    assert "make CMSIS_DSP" not in plain


def test_no_file_promises_bits_or_a_self_test() -> None:
    files = cortex_m.emit(cases.stream(), "stm32f405", library=LIBRARY).files
    assert not any("_selftest" in text or "IFGO_SELFTEST" in text for text in files.values())
    assert "The same bits come out" not in files["model.h"]
    for text in files.values():
        assert text.isascii()


# -- the program ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_gathered_programs_compute_the_same_bits(case: Any) -> None:
    model = case.make(cases.Draw(1))
    plain = lower(model)
    steps = plain.required_steps or 5
    x, state = cases.drawn_input(model, 2, steps), cases.drawn_state(model, 2)
    program, names = gather(plain)
    want, have = execute(plain, x, state), execute(program, x, state)
    assert bool(names) == any(layer.arrays for layer in model.recurrent)
    assert cases.same_bits(have.y, want.y)
    assert all(cases.same_bits(have.state[key], want.state[key]) for key in want.state)


def test_zeros_follow_every_matrix_of_the_library() -> None:
    text = c99.emit(cases.layer(3, 7), library=LIBRARY).files["model.c"]
    matrix = text.split("static const float w0[283] = {")[1].split("}")[0]
    values = [float(word.strip().removesuffix("f")) for word in matrix.split(",")]
    assert len(values) == 4 * 7 * (3 + 7) + 3
    assert values[-3:] == [0.0, 0.0, 0.0]
    assert 0.0 not in values[:-3]


# -- refusals -------------------------------------------------------------------------------------


def test_unknown_library_and_console(tmp_path: Path) -> None:
    options: Any = {"target": "cortex_m", "board": "mps2-an386"}
    with pytest.raises(UsageError) as caught:
        deploy(cases.stream(), tmp_path / "out", library="mkl", **options)
    assert str(caught.value) == "unknown library 'mkl', expected one of cmsis-dsp"
    with pytest.raises(UsageError) as caught:
        deploy(cases.stream(), tmp_path / "out", console="lcd", **options)
    assert str(caught.value) == "unknown console 'lcd', expected one of semihosting, uart"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("what", "value"), [("library", LIBRARY), ("console", "uart")])
def test_c99_has_neither(what: str, value: str, tmp_path: Path) -> None:
    options: Any = {what: value}
    with pytest.raises(UsageError) as caught:
        deploy(cases.stream(), tmp_path / "out", **options)
    assert str(caught.value) == f"{what} {value!r} means nothing to target c99, expected no {what}"
    assert not (tmp_path / "out").exists()


def test_weights_as_files() -> None:
    with pytest.raises(UsageError) as caught:
        c99.emit(cases.layer(3, 7), library=LIBRARY, weights="files")
    assert str(caught.value) == (
        "cmsis-dsp needs its weights in the source, expected weights embedded"
    )


def test_a_matrix_too_large_for_the_library() -> None:
    weight = np.full((1, LARGEST + 1), 0.5, np.float32)
    with pytest.raises(UnsupportedError) as caught:
        c99.emit(Model((FeatureInput(LARGEST + 1),), (Dense("y", weight),)), library=LIBRARY)
    assert str(caught.value) == (
        "the model has no matrix product that cmsis-dsp can compute. Emit it without a library"
    )


HINT = "Give the folder that holds Include and Source: CMSIS_DSP=/path/to/CMSIS-DSP"


@pytest.mark.parametrize("folder", [None, "empty"])
def test_the_library_is_not_there(
    folder: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases.require_cross_tools()
    options: Any = {"target": "cortex_m", "board": "mps2-an386", "library": LIBRARY}
    monkeypatch.delenv("CMSIS_DSP", raising=False)
    message = f"CMSIS-DSP is not found, CMSIS_DSP is not set. {HINT}"
    if folder is not None:
        monkeypatch.setenv("CMSIS_DSP", str(tmp_path))
        message = f"{tmp_path}: no CMSIS-DSP, Include/dsp/matrix_functions.h is missing. {HINT}"
    with pytest.raises(ToolError) as caught:
        deploy(cases.stream(), tmp_path / "out", report=True, **options)
    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()
    deploy(cases.stream(), tmp_path / "out", **options)
