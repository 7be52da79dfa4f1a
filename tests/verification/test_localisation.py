"""One corruption of the emitted C, drawn at random: verify names its layer, gate, unit and step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from corruptions import CORRUPTIONS, Corruption, bias, draw_model, gate_swap

from ifgo import states
from ifgo.lower import lower
from ifgo.model import Model
from ifgo.reference.interpret import Execution, execute
from ifgo.targets.c99 import emitter
from ifgo.verification import verify

SEEDS = range(6)


def sound_seed(corrupt: Corruption, seed: int) -> tuple[np.random.Generator, Model]:
    """The first model from `seed` on that the corruption applies to."""
    for attempt in range(100):
        random = np.random.default_rng([seed, attempt])
        model = draw_model(random)
        if corrupt(lower(model), model, np.random.default_rng(seed)) is not None:
            return random, model
    raise AssertionError("no drawn model has what the corruption needs")


def trace(program: Any, model: Model, x: Any) -> Execution:
    start = states.initial(model, x.shape[0], np.float32)
    return execute(program, x, start, trace=True)


def first_step(model: Model, right: Execution, wrong: Execution, expected: Any) -> int | None:
    """The first step, in order of processing, at which the part differs in any bit."""
    layer = next(each for each in model.recurrent if each.name == expected.layer)
    direction = expected.direction or next(iter(layer.cells))
    a, b = (done.traces[expected.layer][direction][expected.part] for done in (right, wrong))
    order = range(a.shape[1])
    for t in reversed(order) if direction == "backward" else order:
        if a[:, t].tobytes() != b[:, t].tobytes():
            return t
    return None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_a_corruption_of_the_emitted_c_is_located(
    corrupt: Corruption, seed: int, cc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, model = sound_seed(corrupt, seed)
    x = random.normal(size=(3, 7, model.input_size)).astype(np.float32)

    def corrupted(given: Model) -> Any:
        found = corrupt(lower(given), given, np.random.default_rng(seed))
        assert found is not None
        return found

    wrong_program, expected = corrupted(model)
    right, wrong = (trace(program, model, x) for program in (lower(model), wrong_program))
    step = first_step(model, right, wrong, expected)
    monkeypatch.setattr(emitter, "lower", lambda given, lengths: corrupted(given)[0])
    found = verify(model, x)
    assert all(f.holds for f in found.findings if f.runtime == "exact")
    if step is None:
        assert not expected.must_show
        assert found.ok
        return
    first = found.first
    assert first is not None
    assert (first.runtime, first.layer, first.direction, first.part, first.step) == (
        "c99",
        expected.layer,
        expected.direction,
        expected.part,
        step,
    )
    assert first.cause == "own"
    assert first.row is not None
    assert expected.unit in (None, first.unit)
    own = [f for f in found.findings if f.cause == "own"]
    assert {f.layer for f in own} == {expected.layer}, "what follows is called inherited"
    judged = next(p for p in first.parts if p.part == expected.part)
    assert not judged.holds


def test_two_corruptions_are_both_found_the_earlier_first(
    cc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(5)
    model = draw_model(random)
    while len(model.recurrent) < 3 or not model.streamable:
        model = draw_model(random)
    x = random.normal(size=(2, 6, model.input_size)).astype(np.float32)

    def corrupted(given: Model, *, lengths: bool) -> Any:
        program = lower(given, lengths=lengths)
        for k, spoil in ((2, gate_swap), (0, bias)):
            only = Model(given.inputs, (given.recurrent[k],))
            spoil(program, only, np.random.default_rng(k))
        return program

    monkeypatch.setattr(emitter, "lower", corrupted)
    found = verify(model, x)
    ranked = [(f.layer, f.cause, f.part[:2]) for f in found.ranked if not f.holds]
    assert ranked == [
        ("layer0", "own", "z_"),
        ("layer2", "own", "z_"),
        ("layer1", "inherited", "x"),
        ("head", "inherited", "x"),
        ("output and final state", "inherited", "y"),
    ]
    text = found.summary()
    assert text.startswith("First difference: c99 against exact, layer0, sum of gate ")
    assert text.endswith("Differences of their own besides: 1. Inherited from what came before: 3.")
