"""Prints a whole firmware project around model.h and model.c, which stay those of targets/c99."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from ifgo.errors import UsageError
from ifgo.model import Model, TokenInput
from ifgo.targets import c99
from ifgo.targets.c99.packing import columns
from ifgo.targets.c99.schedule import number
from ifgo.targets.cortex_m import cmsis_dsp
from ifgo.targets.cortex_m.boards import Board, find_board
from ifgo.targets.cortex_m.toolchain import (
    EMULATOR,
    FLAGS,
    LINK_FLAGS,
    PACKAGES,
    PREFIX,
    too_small,
)

STACK_BYTES: Final = 2048
"""What start-up, console and one step need, with room; the self-test adds one output row."""

EXAMPLE_STEPS: Final = 8

SUPPORT: Final = ("start.c", "console.h", "console.c", "semihost.h", "link.ld")
"""What every program on a board is built with; a library brings another file."""

CONSOLES: Final = ("semihosting", "uart")

PROJECT: Final = ("main.c", "Makefile", "CMakeLists.txt", "README.md")


@dataclass(frozen=True)
class Project:
    """File name → text of a firmware project, its board, and the C inside it."""

    files: dict[str, str]
    board: Board
    source: c99.Emitted

    @property
    def facts(self) -> c99.Facts:
        """What model.h states."""
        return self.source.facts


@cache
def templates() -> Environment:
    """The firmware templates; undefined names are errors."""
    return Environment(
        loader=PackageLoader("ifgo.targets.cortex_m"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  C, and only numbers and our identifiers reach it
    )


def emit(
    model: Model,
    board: str | Board,
    *,
    name: str = "model",
    max_steps: int | None = None,
    library: str | None = None,
    console: str = "semihosting",
    variant: c99.Variant = "exact",
) -> Project:
    """Print `model` as a firmware project for `board`; options as in c99.emit.

    console: where its text goes unless make says otherwise, "semihosting" (the debugger, or the
    emulator) or "uart". Raises UsageError on an unknown board or console, UnsupportedError where
    the weights or the memory that model.h states exceed the board's, and what c99.emit raises.
    """
    found = find_board(board)
    if console not in CONSOLES:
        raise UsageError(f"unknown console {console!r}", expected="one of " + ", ".join(CONSOLES))
    source = c99.emit(model, name=name, max_steps=max_steps, library=library, variant=variant)
    check_fit(found, source)
    values = context(model, found, source) | {"console": console}
    files = dict(source.files)
    for file in (*support_files(source), *PROJECT):
        files[file] = render(file, values)
    return Project(files, found, source)


def support_files(source: c99.Emitted) -> tuple[str, ...]:
    """What a program is built with, beside model.h and model.c."""
    return SUPPORT if source.library is None else (*SUPPORT, "cmsis_dsp.c")


def check_fit(board: Board, source: c99.Emitted) -> None:
    """Refuse what certainly does not fit; the linker knows the exact sizes."""
    facts = source.facts
    if facts.weight_bytes > board.flash.size:
        raise too_small(board, "FLASH", facts.weight_bytes, least=True)
    memory = facts.state_bytes + STACK_BYTES
    memory += 0 if source.program.streamable else facts.scratch_bytes
    if memory > board.ram.size:
        raise too_small(board, "RAM", memory, least=True)


def render(file: str, values: dict[str, Any]) -> str:
    """The text of one file of the project."""
    text = templates().get_template(f"{file}.j2").render(values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def context(
    model: Model, board: Board, source: c99.Emitted, steps: int | None = None
) -> dict[str, Any]:
    """What the templates know. steps: rows of x and y that a program holds; else the example's."""
    program = source.program
    limit = source.schedule.max_steps if not program.streamable else EXAMPLE_STEPS
    rows = steps or program.required_steps or min(EXAMPLE_STEPS, limit)
    whole = 1 if program.streamable or program.vector_output else rows
    tokens = isinstance(model.input, TokenInput)
    return {
        "p": source.name,
        "P": source.name.upper(),
        "board": board,
        "timer": board.timer,
        "facts": source.facts,
        "exact": source.variant == "exact",
        "stack_size": STACK_BYTES + _up_to_8(4 * program.output.width),
        "library": source.library is not None,
        "library_folders": cmsis_dsp.FOLDERS,
        "library_define": cmsis_dsp.DEFINE,
        "streamable": program.streamable,
        "lengths": program.lengths,
        "vector": program.vector_output,
        "input_type": "int32_t" if tokens else "float",
        "input_size": 1 if tokens else model.input_size,
        "steps": rows,
        "x_rows": 1 if program.streamable else rows,
        "y_rows": whole if program.output.rows is None else program.output.rows,
        "written_rows": "head[1]" if program.output.rows is None else f"{program.output.rows}u",
        "trace_rows": c99.trace_size(source, 1 if program.streamable else rows),
        "trace_words": [
            (record, sweep.count)
            for record, sweep in zip(source.schedule.records, program.sweeps, strict=True)
        ],
        "example": columns(_example(model, rows)),
        "prefix": PREFIX,
        "emulator": EMULATOR,
        "packages": PACKAGES,
        "flags": " ".join([*board.flags, *FLAGS]),
        "link_flags": " ".join(LINK_FLAGS),
    }


def _up_to_8(size: int) -> int:
    """Bytes as the linker script's alignment of the stack makes them."""
    return -(-size // 8) * 8


def example_input(model: Model, steps: int) -> Any:
    """The input (1, T, I), or tokens (1, T), that main.c runs: drawn from a fixed seed."""
    random = np.random.default_rng(405)
    if isinstance(model.input, TokenInput):
        return random.integers(0, model.input.vocabulary, (1, steps)).astype(np.int32)
    return random.standard_normal((1, steps, model.input_size)).astype(np.float32)


def _example(model: Model, steps: int) -> list[str]:
    x = example_input(model, steps).reshape(-1)
    if isinstance(model.input, TokenInput):
        return [str(int(token)) for token in x]
    return [number(value) for value in x]
