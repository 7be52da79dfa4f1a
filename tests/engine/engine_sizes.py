"""Run by test_engine_sessions.py in a process of its own, for the instruction set IFGO_ISA."""

from __future__ import annotations

import sys

from core_cases import cell, chain, weights

from ifgo import verify
from ifgo.engine.loading import native
from ifgo.model import Recurrent

HIDDEN = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 33, 64, 70)
"""Around every number of lanes, of four lanes, and the k that small cells are compiled for."""


def judge(hidden: int) -> None:
    for k, inputs in enumerate((1, 3, 9, 20)):
        output = max(1, hidden // 2) if (hidden + k) % 3 == 0 else None
        options = {"peephole": weights(9, 3, hidden), "clip_cell": 0.75} if k == 2 else {}
        made = cell(inputs, hidden, output, **options)
        layer = Recurrent("a", None, made) if k == 1 else Recurrent("a", made)
        found = verify(chain(layer, size=inputs), against=["engine"])
        assert found.ok, f"H={hidden} I={inputs} P={output}\n{found}"


for size in HIDDEN:
    judge(size)
sys.stdout.write(str(native().isa()))
