"""Cortex-M: the emitted C99 as firmware, run and measured in the emulator (SPEC.md section 5)."""

from __future__ import annotations

from ifgo.targets.cortex_m.boards import BOARDS, Board, find_board
from ifgo.targets.cortex_m.builder import Built, build, run_model, trace_model
from ifgo.targets.cortex_m.emitter import CONSOLES, Project, emit
from ifgo.targets.cortex_m.measuring import measure
from ifgo.targets.cortex_m.report import Report
from ifgo.targets.cortex_m.toolchain import find_tool

__all__ = [
    "BOARDS",
    "CONSOLES",
    "Board",
    "Built",
    "Project",
    "Report",
    "build",
    "emit",
    "find_board",
    "find_tool",
    "measure",
    "run_model",
    "trace_model",
]
