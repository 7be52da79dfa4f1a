"""Budgets of one layer on the cores with an FPU: instructions per step, code and stack.

The counts are exact and repeat, so a budget is what was measured (GCC 12.2, -O2) and little more.
"""

from __future__ import annotations

import cortex_m_cases as cases
import pytest

from ifgo.targets import cortex_m
from ifgo.targets.cortex_m.boards import BOARDS

FPU = [name for name in cases.CORES if BOARDS[name].has_fpu]

PER_STEP = {(1, 16): 6_100, (16, 64): 62_800, (16, 128): 198_500}
"""(I, H) → instructions per step, mean of 16 steps of noise."""

CODE_BYTES = 1_350
"""Of the model and the library functions it calls, without weights."""

STACK_BYTES = 48


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    cases.require_cross_tools()


@pytest.mark.parametrize("board", FPU)
@pytest.mark.parametrize("size", PER_STEP, ids=lambda size: "I{} H{}".format(*size))
def test_one_layer_within_its_budget(size: tuple[int, int], board: str) -> None:
    report = cortex_m.measure(cases.layer(*size), board, recipe="timer")
    code = sum(part.bytes for part in report.parts if part.kind != "tensor")
    assert report.instructions.per_step <= PER_STEP[size]
    assert code <= CODE_BYTES
    assert report.stack.painted <= report.stack.call_graph <= STACK_BYTES
