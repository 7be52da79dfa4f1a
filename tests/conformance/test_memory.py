"""Shared scratch memory: no value is read from floats that another value has taken meanwhile.

Follows every float of the emitted loops, step by step, without a compiler.
"""

from __future__ import annotations

import pytest
from conformance_cases import CASES, Case, Draw, combination
from model_draws import draw

from ifgo.lower import lower
from ifgo.program import Probe, View, reads, writes
from ifgo.targets.c99.schedule import Schedule

STEPS = 5


def elements(view: View, t: int, count: int) -> list[int]:
    row = count - 1 - t if view.mirrored else t
    return [view.offset + view.stride * row + k for k in range(view.size)]


def foreign_read(schedule: Schedule, steps: int) -> str | None:
    """The first read of a float whose last writer was another buffer, or None."""
    slots = schedule.slots
    owner: dict[int, tuple[str, int]] = {}
    for buffer in schedule.program.buffers("carry"):
        if buffer.name in slots:
            place = slots[buffer.name].offset
            owner |= {place + k: (buffer.name, k) for k in range(buffer.width)}
    for sweep, groups in zip(schedule.program.sweeps, schedule.groups, strict=True):
        count = steps if sweep.count is None else sweep.count
        for t in reversed(range(count)) if sweep.reverse else range(count):
            for group in groups:
                members = group if isinstance(group, list) else [group]
                local: set[tuple[str, int]] = set()
                for member in members:
                    for view in reads(member):
                        name = view.buffer.name
                        for e in elements(view, t, count) if name in slots else ():
                            assert e < slots[name].size
                            held = owner.get(slots[name].offset + e)
                            if (name, e) not in local and held != (name, e):
                                return f"{name}[{e}] at step {t} is held by {held}"
                    result = None if isinstance(member, Probe) else writes(member)
                    if result is not None:
                        mine = elements(result, t, count)
                        local |= {(result.buffer.name, e) for e in mine}
                for name, e in local:
                    if name in slots:
                        owner[slots[name].offset + e] = (name, e)
    return None


@pytest.mark.parametrize(
    "case", [*CASES, *(combination(seed) for seed in range(100, 300))], ids=lambda case: case.name
)
def test_no_value_is_overwritten_while_it_is_needed(case: Case) -> None:
    program = lower(case.make(Draw(5)))
    steps = program.required_steps or STEPS
    assert foreign_read(Schedule(program, steps), steps) is None


def test_random_models_with_and_without_lengths() -> None:
    for seed in range(150):
        model = draw(seed).model
        for lengths in (False, True):
            program = lower(model, lengths=lengths)
            steps = program.required_steps or STEPS
            assert foreign_read(Schedule(program, steps), steps) is None, (seed, lengths)


def test_a_life_that_ends_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector read by every step of a later sweep must outlive its first step."""
    program = lower(next(case for case in CASES if case.name == "decoder").make(Draw(5)))
    monkeypatch.setattr(
        Schedule, "_life", lambda self, b: (self.positions[b.name][0], self.positions[b.name][-1])
    )
    assert foreign_read(Schedule(program, STEPS), STEPS) is not None
