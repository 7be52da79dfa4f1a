"""The general path: what no kernel computes runs as its step program, instruction by instruction.

Every option of every layer takes it: any gate activation, layer norm, batch norm inside a cell,
masked steps. Letters: B batch, T time, I input features, P output size of a cell, D directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo import backends, states
from ifgo.engine.chain_rule import model_gradients, recurrent_paths
from ifgo.engine.loading import native
from ifgo.engine.tables import Tables, tables
from ifgo.errors import UsageError
from ifgo.lower import lower
from ifgo.model import Model, TokenInput
from ifgo.program import F32, Program, require_steps
from ifgo.text import listed


class General:
    """A model on the general path. Threads may share it. It does not keep the Model itself alive.

    Raises UnsupportedError as `lower` does, ToolError where the engine is not installed.
    """

    def __init__(self, model: Model) -> None:
        self.model = replace(model)
        self._forms: dict[tuple[bool, bool], Form] = {}
        self.form(lengths=False)

    def form(self, *, lengths: bool, with_back: bool = False) -> Form:
        """The program of the model, with lengths or without."""
        key = lengths, with_back
        if key not in self._forms:
            self._forms[key] = Form(lower(self.model, lengths=lengths), with_back=with_back)
        return self._forms[key]

    def record(
        self,
        x: NDArray[Any],
        state: Mapping[str, ArrayLike] | None = None,
        *,
        lengths: Sequence[int] | NDArray[Any] | None = None,
    ) -> Recording:
        """A run that can be differentiated; the arguments are those of Session.run, x with B."""
        ready = backends.prepare(self.model, x, lengths)
        start = states.complete(self.model, ready.x.shape[0], state, np.float32)
        form = self.form(lengths=ready.lengths is not None, with_back=True)
        machine = form.machine()
        y, final = form.run(machine, ready.x, start, ready.lengths, keep=True)
        return Recording(self.model, form, machine, y, final, frozenset(state or {}), ready.x.shape)

    def compute(
        self, x: NDArray[Any], state: states.State, lengths: NDArray[np.intp] | None
    ) -> tuple[F32, states.State]:
        """x (B, T, I) or tokens (B, T), checked, from a complete state → y, final state."""
        form = self.form(lengths=lengths is not None)
        machine = form.machine()
        try:
            return form.run(machine, x, state, lengths, keep=False)
        finally:
            form.machines.append(machine)


class Form:
    """A program taken over by the engine, and the machines that run it."""

    def __init__(self, program: Program, *, with_back: bool) -> None:
        self.program = program
        self.tables: Tables = tables(program)
        self.native = self.tables.native(native(), lengths=program.lengths, with_back=with_back)
        self.states = program.buffers("state")
        self.machines: list[Any] = []

    def machine(self) -> Any:
        """Memory of an earlier call, or new."""
        try:
            return self.machines.pop()
        except IndexError:
            return native().Machine(self.native)

    def run(
        self,
        machine: Any,
        x: NDArray[Any],
        state: states.State,
        lengths: NDArray[np.intp] | None,
        *,
        keep: bool,
    ) -> tuple[F32, states.State]:
        """x (B, T, I) or tokens (B, T) → y, final state. keep: gradients can follow.

        Raises UnsupportedError on a number of steps that a Flatten layer refuses, UsageError where
        the batch is too large for memory.
        """
        batch, steps = x.shape[:2]
        require_steps(self.program, steps)
        output = self.program.output
        rows = steps if output.rows is None else output.rows
        given = [(self.index("x"), _rows(x))]
        given += [(self.index(b.name), _rows(state[b.key][b.direction])) for b in self.states]
        final = {key: np.empty(a.shape, np.float32) for key, a in state.items()}
        try:
            y = np.empty((batch, rows * output.width), np.float32)
            wanted = [(self.index(output.name), y)]
            wanted += [(self.index(b.name), final[b.key][b.direction]) for b in self.states]
            counts = None if lengths is None else lengths.astype(np.int64)
            machine.run(batch, steps, counts, keep, given, wanted)
        except MemoryError:
            raise UsageError(
                f"x has {batch} sequences of {steps} steps, more than memory holds at once",
                hint="Pass fewer sequences or shorter windows per call",
            ) from None
        shape = (batch, -1) if self.program.vector_output else (batch, rows, output.width)
        return y.reshape(shape), final

    def index(self, name: str) -> int:
        """The number of a buffer."""
        return self.tables.index[name]


@dataclass(frozen=True)
class Gradients:
    """Of one number, the loss, by everything that went into a run; float32.

    arrays: as Model.arrays, the same names and shapes; x (B, T, I), None for tokens; state: by key,
    (D, B, ·), the state that the run started from.
    """

    arrays: dict[str, F32]
    x: F32 | None
    state: states.State


class Recording:
    """A run that can be differentiated, once. y (B, T, ·) or (B, ·); state: final states."""

    def __init__(
        self,
        model: Model,
        form: Form,
        machine: Any,
        y: F32,
        state: states.State,
        given: frozenset[str],
        shape: tuple[int, ...],
    ) -> None:
        self.y, self.state = y, state
        self._model, self._form, self._machine = model, form, machine
        self._given, self._shape = given, shape

    def backward(
        self, y: ArrayLike | None = None, state: Mapping[str, ArrayLike] | None = None
    ) -> Gradients:
        """The gradients of a loss, from its gradients by y and by final states (by key).

        What is not given is zero. Raises UsageError on a shape or a key that is not the run's, and
        where backward has been called before.
        """
        upstream = {"y": self.y} | self.state
        given = dict(state or {}) | ({} if y is None else {"y": y})
        arrays = {name: _upstream(name, given[name], upstream) for name in given}
        if self._machine is None:
            raise UsageError(
                "backward was called before on this recording",
                expected="one call for each",
                hint="Record the run again",
            )
        form, machine, self._machine = self._form, self._machine, None
        seeds = (
            [(form.index(form.program.output.name), _rows(arrays["y"]))] if y is not None else []
        )
        seeds += [
            (form.index(b.name), _rows(arrays[b.key][b.direction]))
            for b in form.states
            if b.key in arrays
        ]
        dx = np.empty((self._shape[0], int(np.prod(self._shape[1:]))), np.float32)
        dstate = {key: np.empty(a.shape, np.float32) for key, a in self.state.items()}
        wanted = [(form.index("x"), dx)]
        wanted += [(form.index(b.name), dstate[b.key][b.direction]) for b in form.states]
        weights = [
            (b, np.empty((1, b.data.size), np.float32))
            for b in form.program.buffers("weight")
            if b.data is not None
        ]
        machine.back(seeds, wanted + [(form.index(b.name), array) for b, array in weights])
        form.machines.append(machine)
        by_source = {b.source: array.reshape(b.rows or 1, b.width) for b, array in weights}
        found = model_gradients(self._model, by_source)
        for k, (path, layer) in enumerate(recurrent_paths(self._model)):
            for part in ("h", "c") if layer.initial.kind == "constant" else ():
                if f"{part}{k}" not in self._given:
                    found[f"{path}.initial.{part}"] = dstate[f"{part}{k}"].sum(axis=1)
        tokens = isinstance(self._model.input, TokenInput)
        return Gradients(found, None if tokens else dx.reshape(self._shape), dstate)


def _upstream(name: str, array: ArrayLike, upstream: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if name not in upstream:
        raise UsageError(f"a gradient is given for {name!r}", expected="one of " + listed(upstream))
    have = states.as_array(array, f"the gradient of {name}")
    if have.shape != upstream[name].shape or have.dtype.kind not in "fiu":
        raise UsageError(
            f"the gradient of {name} has shape {have.shape} and dtype {have.dtype}",
            expected=f"real numbers {upstream[name].shape}",
        )
    return have


def _rows(array: NDArray[Any]) -> F32:
    """(B, ...) as contiguous float32 rows."""
    return np.ascontiguousarray(array, np.float32).reshape(array.shape[0], -1)
