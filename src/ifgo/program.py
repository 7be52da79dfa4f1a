"""The step program: what `lower` writes, the interpreter executes and targets print.

A Program is a list of sweeps; a sweep repeats a straight line of vector instructions over the rows
of a sequence. Every instruction is exact float32: operands and results are float32, each operation
rounds once, sums run in the stated order. A streamable model is one sweep, printed as `step`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import Activation
from ifgo.errors import UnsupportedError

F32 = NDArray[np.float32]

Storage = Literal["input", "output", "weight", "state", "carry", "sequence", "scratch"]


@dataclass(frozen=True, eq=False)
class Buffer:
    """Named float32 memory of one kind.

    carry: a value of the step before, zero where a sequence starts, no part of the state.
    width: elements of one row. rows: 1, a fixed number, or None for one row per time step of the
    main input. data: weights, a vector (width,) or a matrix (rows, width). initial: where a state
    starts, (width,). key and direction: the model's name of a state ("h0", 0). source: for a
    weight, the layer it comes from and its field.
    """

    name: str
    storage: Storage
    width: int
    rows: int | None = 1
    data: F32 | None = None
    initial: F32 | None = None
    key: str = ""
    direction: int = 0
    source: tuple[str, str] = ("", "")
    tokens: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """`size` elements of a buffer at offset + stride·t, t the step of the sweep.

    mirrored: t counts from the end (T − 1 − t); under lengths, in a sweep over the main input,
    from the end of the sequence: length − 1 − t inside it, t in the padding.
    """

    buffer: Buffer
    offset: int
    size: int
    stride: int = 0
    mirrored: bool = False

    def part(self, offset: int, size: int) -> View:
        """`size` elements of this view from `offset`."""
        return View(self.buffer, self.offset + offset, size, self.stride, self.mirrored)


Operand = View | np.float32

ElementwiseOp = Literal["copy", "add", "sub", "mul", "clip", "activate", "select"]


@dataclass(frozen=True, eq=False)
class Elementwise:
    """result[j] = op(a[j], b[j]), j = 0..size−1.

    copy: a. add, sub, mul: of a and b. clip: a held to [−b, b] by comparison, b a constant.
    activate: `activation` of a. select: a where the one value of `condition` is not 0, else b.
    """

    op: ElementwiseOp
    result: View
    a: Operand
    b: Operand | None = None
    activation: Activation | None = None
    condition: View | None = None


@dataclass(frozen=True, eq=False)
class Affine:
    """result[j] = start[j], then + source[k]·matrix[j, k] for k ascending, term after term.

    Products and sums each round. start is a view, 0, or the result itself.
    """

    result: View
    start: Operand
    terms: tuple[tuple[Buffer, View], ...]


@dataclass(frozen=True, eq=False)
class Gather:
    """result = row `index` of table; index is a token of the input."""

    result: View
    table: Buffer
    index: View


@dataclass(frozen=True, eq=False)
class Softmax:
    """result = softmax of source: maximum subtracted, exponentials summed ascending."""

    result: View
    source: View


@dataclass(frozen=True, eq=False)
class Differs:
    """result (one value) = 1 where any element of source differs from value, else 0."""

    result: View
    source: View
    value: np.float32


@dataclass(frozen=True, eq=False)
class Inside:
    """result (one value) = 1 where t < the length of the sequence, else 0. Under lengths only."""

    result: View


@dataclass(frozen=True, eq=False)
class Normalise:
    """result = (source − mean) / sqrt(variance + epsilon) · weight over the elements of source.

    mean: sum ascending / n; variance: sum of squared deviations ascending / n.
    """

    result: View
    source: View
    weight: View
    epsilon: np.float32


@dataclass(frozen=True, eq=False)
class Probe:
    """Lets an observer see `source` as intermediate `part` of a layer's direction; no effect."""

    layer: str
    direction: str
    part: str
    source: View


Instruction = Elementwise | Affine | Gather | Softmax | Differs | Inside | Normalise | Probe


@dataclass(eq=False)
class Sweep:
    """`body` once per step t; count None: as many as the main input has. reverse: t descends."""

    count: int | None
    reverse: bool = False
    body: list[Instruction] = field(default_factory=list[Instruction])


@dataclass(frozen=True, eq=False)
class Program:
    """Sweeps in order, over the buffers they name.

    streamable: one sweep that may also run one step per call. vector_output: the output is one
    row per sequence (a sequence of one step is something else). lengths: each sequence fills the
    first `length` of its T steps, the rest is padding. required_steps: the only T that the program
    accepts, or None for any.
    """

    sweeps: tuple[Sweep, ...]
    input: Buffer
    output: Buffer
    streamable: bool
    vector_output: bool
    lengths: bool = False
    required_steps: int | None = None
    macs_per_step: int = 0

    def buffers(self, storage: Storage) -> list[Buffer]:
        """Buffers of one kind in order of first use, states in the model's order."""
        found: dict[str, Buffer] = {}
        for sweep in self.sweeps:
            for instruction in sweep.body:
                for buffer in touched(instruction):
                    if buffer.storage == storage:
                        found.setdefault(buffer.name, buffer)
        ordered = list(found.values())
        if storage == "state":
            ordered.sort(key=lambda b: (int(b.key[1:]), b.key[0] == "c", b.direction))
        return ordered


def require_steps(program: Program, steps: int) -> None:
    """Raises UnsupportedError where `program` takes sequences of one other length only."""
    if program.required_steps not in (None, steps):
        raise UnsupportedError(
            f"x has {steps} steps",
            expected=f"exactly {program.required_steps}, the number a Flatten layer takes",
        )


def reads(instruction: Instruction) -> list[View]:
    """Views an instruction reads."""
    match instruction:
        case Elementwise():
            operands = (instruction.a, instruction.b, instruction.condition)
            return [v for v in operands if isinstance(v, View)]
        case Affine():
            start = [instruction.start] if isinstance(instruction.start, View) else []
            return start + [view for _, view in instruction.terms]
        case Gather():
            return [instruction.index]
        case Softmax() | Differs() | Probe():
            return [instruction.source]
        case Inside():
            return []
        case Normalise():
            return [instruction.source, instruction.weight]


def writes(instruction: Instruction) -> View | None:
    """The view an instruction writes."""
    return None if isinstance(instruction, Probe) else instruction.result


def touched(instruction: Instruction) -> list[Buffer]:
    """Every buffer an instruction names."""
    found = [view.buffer for view in reads(instruction)]
    if isinstance(instruction, Affine):
        found += [matrix for matrix, _ in instruction.terms]
    if isinstance(instruction, Gather):
        found.append(instruction.table)
    result = writes(instruction)
    return found if result is None else [*found, result.buffer]
