"""Executes a Program with NumPy: the exact float32 every target repeats bit for bit.

Batched over B; otherwise as plain as the instructions. No BLAS, no NumPy transcendental: both
differ between machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import ToolError
from ifgo.program import (
    F32,
    Affine,
    Buffer,
    Differs,
    Elementwise,
    Gather,
    Inside,
    Instruction,
    Normalise,
    Operand,
    Probe,
    Program,
    Softmax,
    Sweep,
    View,
    require_steps,
)
from ifgo.reference import float32


@dataclass
class Execution:
    """y: (B, T, ·) or (B, ·); state: key → (D, B, width); traces: as truth's, float32."""

    y: F32
    state: dict[str, F32]
    traces: dict[str, dict[str, dict[str, F32]]] = field(
        default_factory=dict[str, dict[str, dict[str, F32]]]
    )


def require_denormals() -> None:
    """Raises ToolError where this process flushes denormals to zero (some library set the FPU)."""
    tiny = np.array([1e-45, np.finfo(np.float32).tiny], dtype=np.float32)
    if not ((tiny * np.float32(0.75))[0] > 0 and (tiny * np.float32(0.5))[1] > 0):
        raise ToolError(
            "this process flushes denormals to zero, so exact float32 cannot be computed",
            hint="Some imported library was linked with -ffast-math; run ifgo without it",
        )


def execute(
    program: Program,
    x: NDArray[Any],
    state: Mapping[str, NDArray[Any]],
    lengths: NDArray[Any] | None = None,
    *,
    trace: bool = False,
) -> Execution:
    """Run `program` on x (B, T, I) float32, or tokens (B, T), from a complete state.

    lengths: (B,), for a program that takes them; T each where None. trace keeps every probed
    intermediate, (B, T, ·) by time of the input; under go_backwards by the order of processing, in
    which the layer's output stands too.
    """
    require_denormals()
    require_steps(program, x.shape[1])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        return _Machine(program, x, state, lengths, trace).run()


class _Machine:
    def __init__(
        self,
        program: Program,
        x: NDArray[Any],
        state: Mapping[str, NDArray[Any]],
        lengths: NDArray[Any] | None,
        trace: bool,
    ) -> None:
        self.program = program
        self.batch, self.steps = x.shape[:2]
        self.lengths = np.full(self.batch, self.steps) if lengths is None else lengths
        self.memory: dict[str, NDArray[Any]] = {"x": x.reshape(self.batch, -1)}
        self.trace = trace
        self.seen: dict[tuple[str, str, str], dict[int, F32]] = {}
        for buffer in program.buffers("state"):
            self.memory[buffer.name] = state[buffer.key][buffer.direction].astype(np.float32)

    def run(self) -> Execution:
        for sweep in self.program.sweeps:
            self.sweep(sweep)
        output = self.program.output
        y = self.storage(output)
        if not self.program.vector_output:
            y = y.reshape(self.batch, -1, output.width)
        state: dict[str, list[F32]] = {}
        for buffer in self.program.buffers("state"):
            state.setdefault(buffer.key, []).append(self.memory[buffer.name])
        traces: dict[str, dict[str, dict[str, F32]]] = {}
        for (layer, direction, part), rows in self.seen.items():
            stacked = np.stack([rows[t] for t in sorted(rows)], axis=1)
            traces.setdefault(layer, {}).setdefault(direction, {})[part] = stacked
        return Execution(y, {key: np.stack(parts) for key, parts in state.items()}, traces)

    def sweep(self, sweep: Sweep) -> None:
        count = self.steps if sweep.count is None else sweep.count
        self.time_of_input = sweep.count is None
        order = range(count - 1, -1, -1) if sweep.reverse else range(count)
        for t in order:
            for instruction in sweep.body:
                self.execute(instruction, t, count)

    def storage(self, buffer: Buffer) -> NDArray[Any]:
        if buffer.name not in self.memory:
            if buffer.data is not None:
                self.memory[buffer.name] = buffer.data.reshape(1, -1)
            else:
                rows = self.steps if buffer.rows is None else buffer.rows
                self.memory[buffer.name] = np.zeros(
                    (self.batch, rows * buffer.width), dtype=np.float32
                )
        return self.memory[buffer.name]

    def view(self, view: View, t: int, count: int) -> NDArray[Any]:
        row = count - 1 - t if view.mirrored else t
        if view.mirrored and self.program.lengths and self.time_of_input:
            return self.mirrored(view, t)
        start = view.offset + view.stride * row
        return self.storage(view.buffer)[:, start : start + view.size]

    def mirrored(self, view: View, t: int) -> NDArray[Any]:
        """A copy of the elements at each sequence's own mirrored step; never written to."""
        rows = np.where(t < self.lengths, self.lengths - 1 - t, t)
        columns = view.offset + view.stride * rows[:, None] + np.arange(view.size)
        return np.take_along_axis(self.storage(view.buffer), columns, axis=1)

    def operand(self, operand: Operand, t: int, count: int) -> Any:
        return self.view(operand, t, count) if isinstance(operand, View) else operand

    def execute(self, instruction: Instruction, t: int, count: int) -> None:
        match instruction:
            case Elementwise():
                value = self.elementwise(instruction, t, count)
                self.view(instruction.result, t, count)[:] = value
            case Affine():
                total = self.affine(instruction, t, count)
                self.view(instruction.result, t, count)[:] = total
            case Gather():
                assert instruction.table.data is not None
                tokens = self.view(instruction.index, t, count)[:, 0]
                self.view(instruction.result, t, count)[:] = instruction.table.data[tokens]
            case Softmax():
                source = self.view(instruction.source, t, count)
                self.view(instruction.result, t, count)[:] = float32.softmax(source)
            case Differs():
                source = self.view(instruction.source, t, count)
                seen = (source != instruction.value).any(axis=1, keepdims=True)
                self.view(instruction.result, t, count)[:] = seen
            case Inside():
                within = (t < self.lengths)[:, None]
                self.view(instruction.result, t, count)[:] = within
            case Normalise():
                source = self.view(instruction.source, t, count)
                weight = self.view(instruction.weight, t, count)
                done = float32.normalise(source, weight, instruction.epsilon)
                self.view(instruction.result, t, count)[:] = done
            case Probe():
                if self.trace:
                    key = (instruction.layer, instruction.direction, instruction.part)
                    seen = self.view(instruction.source, t, count).copy()
                    self.seen.setdefault(key, {})[t] = seen

    def elementwise(self, instruction: Elementwise, t: int, count: int) -> Any:
        a: Any = self.operand(instruction.a, t, count)
        b: Any = None if instruction.b is None else self.operand(instruction.b, t, count)
        match instruction.op:
            case "copy":
                return a
            case "add":
                return a + b
            case "sub":
                return a - b
            case "mul":
                return a * b
            case "clip":
                assert b is not None
                below = float32.select(a > b, b, a)
                return float32.select(below < -b, -b, below)
            case "select":
                assert instruction.condition is not None
                condition = self.view(instruction.condition, t, count) != 0
                return float32.select(condition, a, b)
            case "activate":
                assert instruction.activation is not None
                return float32.apply(instruction.activation, a)

    def affine(self, instruction: Affine, t: int, count: int) -> F32:
        total = np.empty((self.batch, instruction.result.size), dtype=np.float32)
        total[:] = self.operand(instruction.start, t, count)
        for matrix, view in instruction.terms:
            assert matrix.data is not None
            source = self.view(view, t, count)
            columns = np.ascontiguousarray(matrix.data.T)
            for k in range(view.size):
                total += source[:, k : k + 1] * columns[k]
        return total
