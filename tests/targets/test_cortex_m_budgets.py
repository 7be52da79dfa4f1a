"""Budgets of one layer on the cores with an FPU: instructions per step, code and stack.

The counts are exact and repeat, so a budget is what was measured (GCC 12.2, -O2) and little more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cortex_m_cases as cases
import pytest

from ifgo.targets import cortex_m
from ifgo.targets.cortex_m import toolchain
from ifgo.targets.cortex_m.boards import BOARDS
from ifgo.verification import verify

FPU = [name for name in cases.CORES if BOARDS[name].has_fpu]

PER_STEP = {
    "exact": {(1, 16): 6_100, (16, 64): 62_800, (16, 128): 198_500},
    "contracted": {(1, 16): 4_650, (16, 64): 40_800, (16, 128): 121_700},
}
"""Variant → (I, H) → instructions per step, mean of 16 steps of noise."""

CODE_BYTES = {"exact": 1_350, "contracted": 1_100}
"""Of the model and the library functions it calls, without weights."""

STACK_BYTES = 48


FUSED = ("vfma", "vfms", "vfnma", "vfnms", "vmla", "vmls")


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    cases.require_cross_tools()


@pytest.mark.parametrize("board", FPU)
@pytest.mark.parametrize("size", PER_STEP["exact"], ids=lambda size: "I{} H{}".format(*size))
@pytest.mark.parametrize("variant", PER_STEP)
def test_one_layer_within_its_budget(variant: Any, size: tuple[int, int], board: str) -> None:
    report = cortex_m.measure(cases.layer(*size), board, recipe="timer", variant=variant)
    code = sum(part.bytes for part in report.parts if part.kind in ("function", "library"))
    assert report.instructions.per_step <= PER_STEP[variant][size]
    assert code <= CODE_BYTES[variant]
    assert report.stack.painted <= report.stack.call_graph <= STACK_BYTES


@pytest.mark.parametrize("board", FPU)
def test_exact_never_fuses_and_contracted_does(board: str, tmp_path: Path) -> None:
    fused: dict[str, int] = {}
    for variant in ("exact", "contracted"):
        place = tmp_path / variant
        place.mkdir()
        cortex_m.build(cases.conformance("layer_norm"), place, board, variant=variant)
        code = toolchain.execute(
            [toolchain.find_tool("arm-none-eabi-objdump"), "-d", "model.o"], place
        )
        assert code.count("vldmia") > 5
        fused[variant] = sum(
            code.count(name) for name in ("vfma", "vfms", "vfnma", "vfnms", "vmla")
        )
    assert fused["exact"] == 0
    assert fused["contracted"] > 40


@pytest.mark.parametrize("board", FPU)
def test_contracted_on_a_board_lies_within_its_bounds(board: str) -> None:
    for name in ("plain_6_13", "layer_norm", "stacked_16_16_16_dense"):
        model = cases.conformance(name)
        found = verify(model, against=(f"qemu:{board}:contracted",))
        assert found.ok, str(found)
        ours = [finding for finding in found.findings if finding.runtime.startswith("qemu")]
        assert {finding.basis for finding in ours} == {"local bound", "global bound"}


def test_a_deployed_selftest_of_the_contracted_variant_passes(tmp_path: Path) -> None:
    project = cortex_m.emit(cases.stream(), "mps2-an386", variant="contracted")
    program = cortex_m.builder.compile_files(
        tmp_path, project.board, project.files, ["-DIFGO_SELFTEST"]
    )
    said = toolchain.emulate(project.board, program)
    assert said.startswith("self-test ok\n")
    assert said.endswith("done\n")
