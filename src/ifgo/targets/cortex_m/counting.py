"""Executed instructions and touched stack of every call of the model, counted in the emulator.

Two recipes. The timer: under -icount the emulator's clock advances by a fixed time per instruction,
so a peripheral timer that the firmware reads counts instructions; it needs no further tool. The
plugin: counter.c, compiled with the machine's own C compiler, sees every instruction run. Where the
plugin can be built both are used, and they have to agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import ToolError, UsageError
from ifgo.model import Model
from ifgo.targets import c99
from ifgo.targets.cortex_m import toolchain
from ifgo.targets.cortex_m.boards import Board
from ifgo.targets.cortex_m.builder import compile_with, input_words
from ifgo.targets.cortex_m.cycles import Runs
from ifgo.targets.cortex_m.disassembly import Instruction, disassemble

Recipe = Literal["timer", "plugin"]

HARNESS: Final = {"ifgo_window", "ifgo_window_begin", "ifgo_window_end", "nothing"}
"""Functions of measure.c that run inside a window but are no part of the model."""

NOTHING: Final = 2
"""Instructions of the function `nothing` of measure.c, which calibrates the timer."""


@dataclass(frozen=True)
class Counts:
    """What running an input of `steps` steps took.

    calls: instructions of each call, from its entry to its return: one call per step, or one for
    the whole sequence where the model needs it. stack: most bytes below the caller's stack pointer
    that any call touched. runs: per instruction, all calls together; None without the plugin.
    """

    steps: int
    calls: tuple[int, ...]
    stack: int
    runs: tuple[Runs, ...] | None

    @property
    def per_step(self) -> float:
        """Mean instructions of a time step."""
        return sum(self.calls) / self.steps


def default_recipe() -> Recipe:
    """The plugin where this machine has a C compiler, else the timer alone."""
    try:
        c99.find_compiler()
    except ToolError:
        return "timer"
    return "plugin"


def count(
    model: Model,
    board: Board,
    x: NDArray[Any],
    folder: Path,
    *,
    recipe: Recipe,
    name: str = "model",
    library: str | None = None,
    variant: c99.Variant = "exact",
) -> Counts:
    """Run x (T, I), or tokens (T,), on `board` from the initial state, built in `folder`.

    Raises UsageError where one call could be too long for the timer, ToolError where a tool is
    missing or the recipes disagree, UnsupportedError where the model does not fit.
    """
    if recipe not in ("timer", "plugin"):
        raise UsageError(f"unknown recipe {recipe!r}", expected="timer or plugin")
    steps = x.shape[0]
    if recipe == "timer":
        _check_range(model, board, 1 if model.streamable else steps)
    program, _ = compile_with(
        folder,
        model,
        board,
        "measure.c",
        max_steps=steps,
        name=name,
        library=library,
        variant=variant,
    )
    (folder / "input").write_bytes(np.array([steps], "<u4").tobytes() + input_words(model, x))
    arguments = ["-icount", f"shift={board.timer.shift}"]
    if recipe == "plugin":
        arguments += ["-plugin", _plugin(program)]
    text = toolchain.emulate(board, program, arguments)
    (_, empty, rest), *real = [tuple(map(int, found)) for found in _WINDOW.findall(text)]
    for status, _, _ in real:
        if status:
            raise ToolError(f"the model on board {board.name} returns status {status}")
    calls = tuple(_instructions(board, ticks - empty) for _, ticks, _ in real)
    runs = _profile(program, sum(calls)) if recipe == "plugin" else None
    return Counts(steps, calls, max(stack for _, _, stack in real) - rest, runs)


MOST_PER_MAC: Final = {True: 100, False: 2000}
"""Instructions per multiplication that no call exceeds, with an FPU and without."""


def _check_range(model: Model, board: Board, steps: int) -> None:
    """Refuse a call that could wrap the timer unseen."""
    most = steps * model.macs * MOST_PER_MAC[board.has_fpu]
    if most * board.timer.ticks_per_instruction >= 2**32:
        raise UsageError(
            f"a call of {steps * model.macs} MACs may run past the 32-bit timer",
            where=f"board {board.name}",
            expected="the recipe plugin",
        )


_WINDOW: Final = re.compile(r"^window (\d+) (\d+) (\d+)$", re.MULTILINE)


def _instructions(board: Board, ticks: int) -> int:
    """Instructions that the timer counted as so many ticks more than a call of `nothing`."""
    return NOTHING + round(ticks / board.timer.ticks_per_instruction)


def _plugin(program: Path) -> str:
    """The -plugin argument for a program; counter.c is compiled beside it."""
    folder = program.parent
    source = resources.files("ifgo.targets.cortex_m").joinpath("counter.c").read_text("ascii")
    (folder / "counter.c").write_text(source, encoding="ascii")
    version = toolchain.execute([toolchain.find_tool(toolchain.EMULATOR), "--version"])
    major = re.search(r"version (\d+)", version)
    interface = 1 if major is None or int(major[1]) < 9 else 2
    command = [*c99.find_compiler(), "-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
    command += [f"-DPLUGIN_VERSION={interface}", "-o", "counter.so", "counter.c"]
    toolchain.execute(command, folder)
    at = toolchain.addresses(program)
    begin, end = at["ifgo_window_begin"], at["ifgo_window_end"]
    return f"./counter.so,out=counts,begin={begin},end={end}"


def _profile(program: Path, expected: int) -> tuple[Runs, ...]:
    """What the plugin wrote, the harness left out. Raises ToolError where the timer disagrees."""
    code = {one.address: one for one in disassemble(program)}
    found: list[Runs] = []
    for line in (program.parent / "counts").read_text("ascii").splitlines():
        address, ran, taken = line.split()
        one: Instruction = code[int(address, 16)]
        if one.function not in HARNESS:
            found.append(Runs(one, int(ran), int(taken)))
    total = sum(one.count for one in found)
    if total != expected:
        raise ToolError(
            f"the plugin counts {total} instructions and the timer {expected}",
            expected="the same number",
        )
    return tuple(found)


def by_function(runs: Sequence[Runs]) -> dict[str, int]:
    """Function → instructions, the most first."""
    found: dict[str, int] = {}
    for one in runs:
        name = one.instruction.function
        found[name] = found.get(name, 0) + one.count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
