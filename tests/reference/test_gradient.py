"""Gradients of the whole superset against central differences of truth (gradient_cases.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gradient_cases import Tally, compare, ordinary, problem
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_models import models, recurrents

from ifgo import states
from ifgo.errors import UnsupportedError
from ifgo.model import (
    FeatureInput,
    Flatten,
    Masking,
    Model,
    StateInput,
    StateSlot,
    TokenInput,
    walk,
)

SAME_FORWARD = 1e-12
"""Two float64 forwards of a few dozen operations, relative to the largest value."""

LARGEST = 1e3
"""Of a loss's terms: unbounded activations square the cell at every step."""

COMMON: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


def inputs(model: Model, rng: Any, batch: int, steps: int) -> tuple[Any, Any]:
    """x, and which steps of it are masked by their values (B, T)."""
    if isinstance(model.input, TokenInput):
        return rng.integers(0, model.input.vocabulary, (batch, steps)), None
    x = rng.normal(size=(batch, steps, model.input.size))
    fixed = np.zeros((batch, steps), dtype=bool)
    if isinstance(model.layers[0], Masking):
        fixed = rng.random((batch, steps)) < 0.3
        x[fixed] = model.layers[0].value
    return x, fixed


def check(drawn: Model, seed: int, lengths: bool, mask: bool, tally: Tally) -> None:
    """One model with ordinary numbers: forward as truth, gradients as differences of truth."""
    rng = np.random.default_rng(seed)
    model = ordinary(drawn, rng)
    flat = [layer.steps for layer in walk(model.layers) if isinstance(layer, Flatten)]
    batch, steps = 2, flat[0] if flat else int(rng.integers(1, 4))
    x, fixed = inputs(model, rng, batch, steps)
    start = {key: rng.normal(size=size) for key, size in states.shapes(model, batch).items()}
    asked = any(layer.initial.kind == "input" for layer in model.recurrent)
    if not asked and rng.random() < 0.5:
        start = {}
    counted = rng.integers(0, steps + 1, batch) if lengths else None
    masked = rng.random((batch, steps)) < 0.6 if mask else None
    try:
        made = problem(model, x, start, rng, lengths=counted, mask=masked)
    except UnsupportedError:  # a Flatten that gets another number of steps
        assume(False)
        raise
    assume(made.size() < LARGEST)
    found = made.record()
    wanted = made.outputs()
    for name, value in ({"y": found.y} | found.state).items():
        assert np.abs(value - wanted[name]).max() <= SAME_FORWARD * max(1, np.abs(value).max())
    compare(made, fixed=fixed, tally=tally)
    assert not tally.wrong


def sharply(tally: Tally, at_least: int) -> None:
    """Most derivatives were held to 1e-7, some to their rounding floor alone, hardly any to none.

    Which examples are drawn depends on the modules that this process has imported, so the counts
    do: about 1300 to 70 and 1.
    """
    assert tally.sharp > at_least, tally
    assert tally.blunt < 0.2 * tally.sharp, tally
    assert tally.kinked < 0.05 * tally.sharp, tally


def test_any_model() -> None:
    tally = Tally()

    @settings(max_examples=150, **COMMON)
    @given(models(), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
    def every(drawn: Model, seed: int, lengths: bool, mask: bool) -> None:
        check(drawn, seed, lengths, mask, tally)

    every()
    sharply(tally, 200)


def test_any_recurrent_layer() -> None:
    """Stacks of one or two, with every option of the cell in any combination."""
    tally = Tally()

    @st.composite
    def stacks(draw: st.DrawFn) -> Model:
        size = draw(st.integers(1, 3))
        layers = [draw(recurrents("a", size))]
        if draw(st.booleans()):
            layers.append(draw(recurrents("b", layers[0].output_size(size))))
        given = tuple(StateSlot(r.name, "h") for r in layers if r.initial.kind == "input")
        entry = (StateInput("h", given),) if given else ()
        return Model((FeatureInput(size), *entry), tuple(layers))

    @settings(max_examples=150, **COMMON)
    @given(stacks(), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
    def every(drawn: Model, seed: int, lengths: bool, mask: bool) -> None:
        check(drawn, seed, lengths, mask, tally)

    every()
    sharply(tally, 600)
    names = {"weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh", "bias_hr", "peephole"}
    names |= {"weight", "scale", "mean", "variance", "h", "c", "x", "h0", "c0", "h1", "c1"}
    assert tally.names == names
