"""Matrix products by a vendor's library: what of a program they compute, and in which form.

A library's product takes one vector that lies in one piece, so the vectors of a sum are copied side
by side first. The order of its sums is its own: such a build is judged by bounds, not by bits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from ifgo.errors import UsageError
from ifgo.program import Affine, Buffer, Elementwise, Instruction, Program, View

Library = Literal["cmsis-dsp"]

LIBRARIES: Final[tuple[Library, ...]] = ("cmsis-dsp",)

LARGEST: Final = 65535
"""Most rows or columns of a matrix: CMSIS-DSP counts them in 16 bits."""

PADDING: Final = 3
"""Zeros after a matrix: CMSIS-DSP's vectors of four read past the end of its last row."""


def check_library(library: str | None) -> None:
    """Raises UsageError on the name of a library that no emitted C can use."""
    if library not in (None, *LIBRARIES):
        raise UsageError(f"unknown library {library!r}", expected="one of " + ", ".join(LIBRARIES))


def gather(program: Program) -> tuple[Program, frozenset[str]]:
    """The program with vectors in one piece, and the matrices that the library multiplies.

    A product is named by its first matrix. What a product starts from may not be its result, which
    the library overwrites; such a product, or one too large, stays as it is. The program computes
    the same values.
    """
    names: set[str] = set()
    sweeps = [replace(sweep, body=_gathered(sweep.body, names)) for sweep in program.sweeps]
    return replace(program, sweeps=tuple(sweeps)), frozenset(names)


def _gathered(body: list[Instruction], names: set[str]) -> list[Instruction]:
    found: list[Instruction] = []
    for instruction in body:
        if isinstance(instruction, Affine) and _suits(instruction):
            first = instruction.terms[0][0].name
            names.add(first)
            if len(instruction.terms) > 1:
                copies, instruction = _side_by_side(instruction, f"{first}_vector")
                found += copies
        found.append(instruction)
    return found


def _suits(instruction: Affine) -> bool:
    start = instruction.start
    accumulates = isinstance(start, View) and start.buffer is instruction.result.buffer
    columns = sum(matrix.width for matrix, _ in instruction.terms)
    return not accumulates and max(columns, instruction.result.size) <= LARGEST


def _side_by_side(instruction: Affine, name: str) -> tuple[list[Elementwise], Affine]:
    buffer = Buffer(name, "scratch", sum(matrix.width for matrix, _ in instruction.terms))
    copies: list[Elementwise] = []
    terms: list[tuple[Buffer, View]] = []
    at = 0
    for matrix, view in instruction.terms:
        part = View(buffer, at, matrix.width)
        copies.append(Elementwise("copy", part, view))
        terms.append((matrix, part))
        at += matrix.width
    return copies, replace(instruction, terms=tuple(terms))
