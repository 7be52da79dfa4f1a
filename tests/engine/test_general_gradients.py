"""Gradients of the general path against the float64 judge, every option, at 5e-6 relative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from general_cases import draw

from ifgo.activations import GATE_ACTIVATIONS, PARAMETERS, Activation
from ifgo.engine.general import General
from ifgo.errors import UsageError
from ifgo.model import (
    Dense,
    FeatureInput,
    InitialState,
    LayerNorm,
    LSTMCell,
    Masking,
    Model,
    Recurrent,
)
from ifgo.reference import gradient

pytestmark = pytest.mark.usefixtures("native")

RELATIVE = 5e-6
"""To the largest entry of each array's gradient: what the engine promises."""

MOVED = 2.0**-24
"""What weights are moved by, relative to them: one rounding of float32."""

STEADY = 1e-6
"""A gradient that moves by more with the weights, relative to its largest entry, is not one that
float32 can hold to RELATIVE."""

LEAST = 1e-3
"""The gradients of y and the final states are of size 1; a gradient below this is what is left of
larger terms that cancel, and is held to RELATIVE times this."""

SEEDS = range(300)

Pairs = dict[str, tuple[Any, Any]]


def parts(found: Any) -> dict[str, Any]:
    every = dict(found.arrays) | dict(found.state)
    return every if found.x is None else every | {"x": found.x}


def truth_of(model: Model, one: Any, dy: Any, dstate: Any) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        done = gradient.record(model, one.x, one.start, one.lengths)
        return parts(done.backward(dy, dstate))


def moved(model: Model, rng: Any) -> Model:
    model = model.astype(np.float64)
    for array in model.arrays.values():
        array.setflags(write=True)
        array *= 1 + MOVED * rng.choice([-1.0, 1.0], array.shape)
    return model


def largest(array: Any) -> float:
    return float(np.abs(array).max(initial=0.0))


def held_to(want: Any) -> float:
    """What errors of a gradient are relative to."""
    return max(LEAST, largest(want))


def steady(model: Model, one: Any, dy: Any, dstate: Any, want: dict[str, Any]) -> set[str]:
    """The arrays whose true gradient barely moves with the model's own numbers."""
    rng, names = np.random.default_rng(one.seed), set(want)
    for _ in range(3):
        near = truth_of(moved(model, rng), one, dy, dstate)
        names = {n for n in names if largest(near[n] - want[n]) <= STEADY * held_to(want[n])}
    finite = all(largest(d) < 2.0**64 for d in want.values())  # products stay in float32
    return names if finite else set()


def test_random_models() -> None:
    wrong, judged, left, kinds = [], 0, 0, set()
    for seed in SEEDS:
        one = draw(seed, tame=True)
        model, rng = one.model.astype(np.float32), np.random.default_rng(seed)
        done = General(model).record(one.x, one.start, lengths=one.lengths)
        dy = rng.normal(size=done.y.shape).astype(np.float32)
        dstate = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in done.state.items()}
        want = truth_of(model, one, dy, dstate)
        found = parts(done.backward(dy, dstate))
        assert list(found) == list(want)
        firm = steady(model, one, dy, dstate, want)
        for name in want:
            assert found[name].shape == want[name].shape
            assert found[name].dtype == np.float32
            if name not in firm:
                left += 1
                continue
            judged += 1
            kinds.add(name.split(".")[-1])
            off = largest(found[name] - want[name])
            if not off <= RELATIVE * held_to(want[name]):
                wrong.append((seed, name, off / largest(want[name])))
    assert wrong == []
    assert left < judged / 8
    fields = {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "bias_hr", "peephole"}
    fields |= {"scale", "mean", "variance", "weight", "bias", "factor", "offset", "h", "c"}
    assert kinds >= fields


@pytest.mark.parametrize("name", GATE_ACTIVATIONS)
def test_every_gate_activation(name: str) -> None:
    """On both sides of every kink; two steps, since gates that are not bounded grow."""
    rng = np.random.default_rng(1)
    gate = Activation(name, **dict.fromkeys(PARAMETERS[name], 0.8))
    cell = drawn_cell(rng, 3, 9, activations=(gate, gate, gate))
    agrees(Model((FeatureInput(3),), (Recurrent("r", cell),)), rng.normal(size=(5, 2, 3)))


def test_a_constant_initial_state_gets_its_gradient_where_it_was_used() -> None:
    rng = np.random.default_rng(2)
    start = InitialState("constant", rng.normal(size=(1, 9)), rng.normal(size=(1, 9)))
    model = Model((FeatureInput(3),), (Recurrent("r", drawn_cell(rng, 3, 9), initial=start),))
    x = rng.normal(size=(4, 6, 3))
    found = agrees(model, x)
    assert found.arrays["r.initial.h"].any()
    given = agrees(model, x, {"h0": np.zeros((1, 4, 9))})
    assert not given.arrays["r.initial.h"].any()
    assert given.arrays["r.initial.c"].any()


def test_wide_layers_and_long_sequences() -> None:
    """Whole panels of every instruction set, and sums of many terms."""
    rng = np.random.default_rng(3)
    norm = LayerNorm(rng.normal(size=(4, 70)), 1e-3)
    layers = (
        Masking("m"),
        Recurrent("r", drawn_cell(rng, 33, 70, layer_norm=norm), drawn_cell(rng, 33, 70)),
        Dense("d", rng.normal(size=(37, 140)) / 12, np.zeros(37), Activation("softmax")),
    )
    agrees(Model((FeatureInput(33),), layers), rng.normal(size=(7, 40, 33)))


def drawn_cell(rng: Any, inputs: int, hidden: int, **options: Any) -> LSTMCell:
    rows = 4 * hidden
    arrays = [rng.normal(size=s) / 3 for s in ((rows, inputs), (rows, hidden), rows, rows)]
    return LSTMCell(*arrays, **options)


def agrees(model: Model, x: Any, state: Any = None) -> Any:
    """The gradients of the general path, held to those of the judge."""
    model, x, rng = model.astype(np.float32), x.astype(np.float32), np.random.default_rng(7)
    want = gradient.record(model, x, state)
    dy = rng.normal(size=want.y.shape).astype(np.float32)
    dstate = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in want.state.items()}
    true = want.backward(dy, dstate)
    found = General(model).record(x, state).backward(dy, dstate)
    for name, array in parts(found).items():
        off, size = largest(array - parts(true)[name]), largest(parts(true)[name])
        assert off <= RELATIVE * size, (name, off / size)
    return found


# -- what is given and what is refused ------------------------------------------------------------


@pytest.fixture(scope="module")
def general(native: Any) -> General:
    rng = np.random.default_rng(4)
    layers = (Masking("m"), Recurrent("r", drawn_cell(rng, 2, 3)))
    return General(Model((FeatureInput(2),), layers).astype(np.float32))


X = np.random.default_rng(5).normal(size=(2, 4, 2)).astype(np.float32)


def test_what_is_not_given_is_zero(general: General) -> None:
    zero = general.record(X).backward()
    assert not any(array.any() for array in parts(zero).values())
    by_state = general.record(X).backward(state={"c0": np.ones((1, 2, 3))})
    assert by_state.x is not None
    assert by_state.x.any()


def test_recordings_do_not_disturb_each_other(general: General) -> None:
    first, second = general.record(X), general.record(-X)
    one = second.backward(np.ones(second.y.shape))
    again = general.record(-X).backward(np.ones(second.y.shape))
    assert all(
        (a == b).all() for a, b in zip(parts(one).values(), parts(again).values(), strict=True)
    )
    assert first.backward(np.ones(first.y.shape)).x is not None


def test_a_second_backward_is_refused(general: General) -> None:
    done = general.record(X)
    done.backward()
    with pytest.raises(UsageError) as caught:
        done.backward()
    assert str(caught.value) == (
        "backward was called before on this recording, expected one call for each. "
        "Record the run again"
    )


def test_gradients_of_what_is_not_there_are_refused(general: General) -> None:
    with pytest.raises(UsageError) as caught:
        general.record(X).backward(state={"h7": np.zeros(3)})
    assert str(caught.value) == "a gradient is given for 'h7', expected one of y, h0, c0"


def test_gradients_of_another_shape_are_refused(general: General) -> None:
    with pytest.raises(UsageError) as caught:
        general.record(X).backward(np.zeros((2, 3)))
    assert str(caught.value) == (
        "the gradient of y has shape (2, 3) and dtype float64, expected real numbers (2, 4, 3)"
    )
