"""A step program (program.py) as the tables that the compiled engine runs.

Numbers of operations, activations and storage are those of native/include/ifgo_engine.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import PARAMETERS
from ifgo.program import (
    F32,
    Affine,
    Buffer,
    Differs,
    Elementwise,
    Gather,
    Inside,
    Normalise,
    Operand,
    Probe,
    Program,
    Softmax,
    View,
)

MEMORY, CARRY, WEIGHT = range(3)
OPERATIONS: Final = (
    *("copy", "add", "sub", "mul", "clip", "select", "activate"),
    *("affine", "gather", "softmax", "differs", "inside", "normalise"),
)
ACTIVATIONS: Final = tuple(name for name in PARAMETERS if name != "softmax")
NONE: Final = -1

Computing = Elementwise | Affine | Gather | Softmax | Differs | Inside | Normalise


@dataclass
class Tables:
    """Rows of each table, and where each buffer of the program went."""

    buffers: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    views: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    instructions: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    parameters: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    terms: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    sweeps: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    weights: list[F32] = field(default_factory=list[F32])
    index: dict[str, int] = field(default_factory=dict[str, int])
    floats: int = 0

    def native(self, module: Any, *, lengths: bool, with_back: bool) -> Any:
        """The compiled Program."""
        return module.Program(
            _table(self.buffers, 4),
            _table(self.views, 5),
            _table(self.instructions, 8),
            np.array(self.parameters, np.float32).reshape(-1, 2),
            _table(self.terms, 2),
            _table(self.sweeps, 4),
            np.concatenate(self.weights) if self.weights else np.zeros(0, np.float32),
            lengths,
            with_back,
        )


def tables(program: Program) -> Tables:
    """`program` without its probes."""
    made = Tables()
    for sweep in program.sweeps:
        first = len(made.instructions)
        for instruction in sweep.body:
            if not isinstance(instruction, Probe):
                _add(made, instruction)
        count = NONE if sweep.count is None else sweep.count
        made.sweeps.append((count, int(sweep.reverse), first, len(made.instructions) - first))
    for buffer in (program.input, program.output):
        _buffer(made, buffer)
    return made


def _table(rows: list[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(-1, width)


def _add(made: Tables, instruction: Computing) -> None:
    a = b = condition = activation = NONE
    alpha = beta = 0.0
    first, terms = len(made.terms), 0
    match instruction:
        case Elementwise():
            size = instruction.result.size
            a = _operand(made, instruction.a, size)
            if instruction.b is not None:
                b = _operand(made, instruction.b, 1 if instruction.op == "clip" else size)
            if instruction.condition is not None:
                condition = _view(made, instruction.condition)
            if instruction.activation is not None:
                activation = ACTIVATIONS.index(instruction.activation.name)
                alpha = float(np.float32(instruction.activation.alpha or 0.0))
                beta = float(np.float32(instruction.activation.beta or 0.0))
        case Affine():
            if isinstance(instruction.start, View) or instruction.start != 0:
                a = _operand(made, instruction.start, instruction.result.size)
            for matrix, source in instruction.terms:
                made.terms.append((_buffer(made, matrix), _view(made, source)))
            terms = len(instruction.terms)
        case Gather():
            a = _view(made, instruction.index)
            made.terms.append((_buffer(made, instruction.table), a))
            terms = 1
        case Softmax():
            a = _view(made, instruction.source)
        case Differs():
            a, alpha = _view(made, instruction.source), float(instruction.value)
        case Normalise():
            a, b = _view(made, instruction.source), _view(made, instruction.weight)
            alpha = float(instruction.epsilon)
        case Inside():
            pass
    name = instruction.op if isinstance(instruction, Elementwise) else type(instruction).__name__
    op, result = OPERATIONS.index(name.lower()), _view(made, instruction.result)
    made.instructions.append((op, result, a, b, condition, activation, first, terms))
    made.parameters.append((alpha, beta))


def _operand(made: Tables, operand: Operand, size: int) -> int:
    """A view; a constant becomes `size` copies of it among the weights."""
    if isinstance(operand, View):
        return _view(made, operand)
    buffer = Buffer(f" {operand!r} {size}", "weight", size, data=np.full(size, operand))
    return _view(made, View(buffer, 0, size))


def _view(made: Tables, view: View) -> int:
    buffer = _buffer(made, view.buffer)
    made.views.append((buffer, view.offset, view.size, view.stride, int(view.mirrored)))
    return len(made.views) - 1


def _buffer(made: Tables, buffer: Buffer) -> int:
    if buffer.name not in made.index:
        made.index[buffer.name] = len(made.buffers)
        rows = NONE if buffer.rows is None else buffer.rows
        storage, data = CARRY if buffer.storage == "carry" else MEMORY, 0
        if buffer.data is not None:
            storage, data = WEIGHT, made.floats
            made.weights.append(np.ascontiguousarray(buffer.data, np.float32).reshape(-1))
            made.floats += buffer.data.size
        made.buffers.append((storage, buffer.width, rows, data))
    return made.index[buffer.name]
