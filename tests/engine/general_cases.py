"""Random models for the general path, and its runs with every probe of the program kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import model_draws
import numpy as np
from model_draws import Drawn

from ifgo.engine.general import Form, General
from ifgo.lower import lower
from ifgo.model import Model
from ifgo.program import Buffer, Elementwise, Probe, Program, Sweep, View


def draw(seed: int, *, tame: bool = False) -> Drawn:
    """A random model of every option. tame: with ordinary numbers only."""
    drawing = model_draws._Draw(seed, False)
    drawing.tame = drawing.tame or tame
    return drawing.drawn()


def traced(program: Program) -> tuple[Program, dict[Probe, Buffer]]:
    """`program` with a copy in the place of each probe, and where the copies go."""
    kept: dict[Probe, Buffer] = {}

    def copied(instruction: Any, sweep: Sweep) -> Any:
        if not isinstance(instruction, Probe):
            return instruction
        size = instruction.source.size
        buffer = Buffer(f"probe {len(kept)}", "sequence", size, sweep.count)
        kept[instruction] = buffer
        return Elementwise("copy", View(buffer, 0, size, size), instruction.source)

    sweeps = tuple(
        Sweep(s.count, s.reverse, [copied(instruction, s) for instruction in s.body])
        for s in program.sweeps
    )
    return replace(program, sweeps=sweeps), kept


def run_traced(model: Model, x: Any, start: Any, lengths: Any) -> tuple[Any, Any, Any]:
    """y, state and traces as the interpreter gives them, of the compiled engine."""
    program, kept = traced(lower(model, lengths=lengths is not None))
    form = Form(program, with_back=False)
    machine = form.machine()
    y, state = form.run(machine, x, start, lengths, keep=False)
    batch, steps = x.shape[:2]
    traces: dict[str, Any] = {}
    given = [(form.index("x"), np.ascontiguousarray(x, np.float32).reshape(batch, -1))]
    given += [(form.index(b.name), start[b.key][b.direction]) for b in form.states]
    for probe, buffer in kept.items():
        rows = steps if buffer.rows is None else buffer.rows
        values = np.empty((batch, rows * buffer.width), np.float32)
        counts = None if lengths is None else np.asarray(lengths, np.int64)
        machine.run(batch, steps, counts, False, given, [(form.index(buffer.name), values)])
        parts = traces.setdefault(probe.layer, {}).setdefault(probe.direction, {})
        parts[probe.part] = values.reshape(batch, rows, buffer.width)
    return y, state, traces


def run(model: Model, x: Any, start: Any, lengths: Any = None) -> tuple[Any, Any]:
    """The general path, whatever the model."""
    return General(model).compute(x, start, lengths)
