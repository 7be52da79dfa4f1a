"""Gradients option by option, training included, at kinks, across windows, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core_cases import refused
from gradient_cases import Problem, Tally, compare, differentiate, judge, ordinary, parts, problem
from gradient_models import (
    BATCH,
    HIDDEN,
    INPUTS,
    MODELS,
    STEPS,
    ZEROS,
    batch_norm,
    cell,
    chain,
    dense,
    lstm,
    made,
    norm,
)

from ifgo.activations import PARAMETERS
from ifgo.errors import UnsupportedError, UsageError
from ifgo.model import (
    Activation,
    ActivationLayer,
    Dropout,
    Embedding,
    FeatureInput,
    LSTMCell,
    Model,
    Recurrent,
    Residual,
    TokenInput,
    TrainingFacts,
)
from ifgo.reference import gradient


def agrees(one: Problem, *, fixed: Any = None, kinks: int = 1) -> Tally:
    tally = compare(one, fixed=fixed)
    assert not tally.wrong
    assert tally.sharp > 0
    assert tally.kinked <= kinks
    return tally


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("counted", [False, True])
def test_every_option(name: str, counted: bool) -> None:
    # Gates that are not bounded let the cell grow with its own square: two steps, then.
    steps = 2 if name.endswith("_gates") else STEPS
    options: dict[str, Any] = {}
    if counted:
        mask = np.array([[1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]], dtype=bool)
        options |= {"lengths": np.array([steps - 1, steps, 0]), "mask": mask[:, :steps]}
    for seed in range(5):
        tally = compare(made(MODELS[name], seed, steps, **options))
        assert not tally.wrong
        if not tally.kinked:
            break
    assert tally.sharp > 0
    assert not tally.kinked


def test_every_entry_of_every_array() -> None:
    """One rich model, each number moved alone."""
    options = {"peephole": ZEROS((3, HIDDEN)), "input_norm": norm(), "bias_hr": ZEROS(2)}
    both = Recurrent("r", cell(output=2, **options), cell(output=2, **options))
    one = made(chain(both, dense(inputs=4)), 5, lengths=np.array([4, 2, 3]))
    tally = Tally()
    for name, (array, found) in parts(one, differentiate(one)).items():
        for index in np.ndindex(array.shape):
            direction = np.zeros(array.shape)
            direction[index] = 1.0
            judge(one, f"{name}{index}", array, direction, float(found[index]), tally)
    assert not tally.wrong
    assert tally.sharp > 200
    assert tally.kinked == 0


# -- training -------------------------------------------------------------------------------------


def kept(rng: Any, *shape: int, rate: float = 0.4) -> Any:
    return (rng.random(shape) >= rate) / (1 - rate)


@pytest.mark.parametrize("shape", ["both", "go_backwards"])
@pytest.mark.parametrize("steps", [1, STEPS])
def test_dropout(shape: str, steps: int) -> None:
    """steps 1: one draw for the whole sequence."""
    rng = np.random.default_rng(1)
    facts = TrainingFacts(0.4, 0.4, 0.4)
    both = shape == "both"
    layer = Recurrent(
        "r",
        cell(peephole=ZEROS((3, HIDDEN))),
        cell() if both else None,
        merge="sum",
        go_backwards=not both,
        training=facts,
    )
    model = chain(Dropout("first", 0.4), Residual("b", (layer, Dropout("last", 0.4)), 1))
    factors = {
        "first": kept(rng, BATCH, steps, INPUTS),
        "b.r.input": kept(rng, 1 + both, BATCH, steps, INPUTS),
        "b.r.recurrent": kept(rng, 1 + both, BATCH, steps, HIDDEN),
        "b.r.output": kept(rng, BATCH, steps, HIDDEN),
        "b.last": kept(rng, BATCH, steps, HIDDEN),
    }
    assert gradient.factors(model) == list(factors)
    agrees(made(model, lengths=np.array([2, 4, 3]), training={"dropout": factors}))


def test_dropout_that_keeps_all_changes_nothing() -> None:
    model = chain(Recurrent("r", cell(), training=TrainingFacts(0.5, 0.5, 0.5)))
    one = made(model)
    plain = one.record()
    ones = dict.fromkeys(gradient.factors(model), np.ones((1, 1, 1, 1)))
    ones["r.output"] = np.ones((1, 1, 1))
    again = gradient.record(one.model, one.x, one.state, dropout=ones)
    assert (plain.y == again.y).all()


@pytest.mark.parametrize("variance", ["biased", "unbiased"])
@pytest.mark.parametrize("outside", [False, True])
def test_batch_statistics(variance: Any, outside: bool) -> None:
    """Inside a cell per step, in a layer over batch and time; each step or row sees all others."""
    model = chain(batch_norm(), lstm(input_norm=norm(), hidden_norm=norm()), batch_norm(3, "out"))
    names = ["bn", "r.forward.input_norm", "r.forward.hidden_norm", "out"]
    assert gradient.norms(model) == names
    one = made(model, 3, training={"batch_statistics": dict.fromkeys(names, variance)})
    set_outside(one.model, outside)
    tally = agrees(one)
    assert tally.zero >= 8  # stored statistics: not used
    found = one.record().statistics
    assert {name: mean.shape for name, (mean, _) in found.items()} == {
        "bn": (INPUTS,),
        "r.forward.input_norm": (STEPS, 4 * HIDDEN),
        "r.forward.hidden_norm": (STEPS, 4 * HIDDEN),
        "out": (HIDDEN,),
    }
    rows = one.x.reshape(-1, INPUTS)
    mean, spread = rows.mean(axis=0), rows.var(axis=0, ddof=variance == "unbiased")
    # Two float64 sums of so many rows each, in any order: one rounding per row and side. The
    # terms of a variance are squares of differences, three roundings more.
    sums = 2 * len(rows) * 2.0**-53
    assert (np.abs(found["bn"][0] - mean) <= sums * np.abs(rows).max(axis=0)).all()
    squares = 2 * (len(rows) + 3) * 2.0**-53
    assert (np.abs(found["bn"][1] - spread) <= squares * spread).all()


def set_outside(model: Model, outside: bool) -> None:
    layers: Any = model.layers
    for part in (layers[0], layers[1].forward.input_norm, layers[1].forward.hidden_norm, layers[2]):
        object.__setattr__(part, "epsilon_outside", outside)


def test_statistics_of_equal_rows() -> None:
    """At rest R·h is 0 in every row: mean 0, variance 0, and the derivative is that by epsilon."""
    model = chain(lstm(hidden_norm=norm(True)))
    training = {"batch_statistics": {"r.forward.hidden_norm": "unbiased"}}
    rng = np.random.default_rng(0)
    model = ordinary(model, rng)
    object.__setattr__(model.recurrent[0].cell.hidden_norm, "epsilon_outside", True)
    x = rng.normal(size=(BATCH, 1, INPUTS))
    agrees(problem(model, x, {}, rng, training=training))
    h = ZEROS((1, BATCH, HIDDEN))
    found = gradient.record(model, x, {"h0": h}, **training).backward(ZEROS((BATCH, 1, 3)) + 1)
    direction, small = rng.normal(size=h.shape), 1e-7
    up, down = (
        gradient.record(model, x, {"h0": sign * small * direction}, **training) for sign in (1, -1)
    )
    wanted = (up.y.sum() - down.y.sum()) / (2 * small)
    # The divisor grows from epsilon to epsilon + sqrt(variance) within the step: so much is the
    # difference off, relative to itself.
    _, variance = up.statistics["r.forward.hidden_norm"]
    off = np.sqrt(variance).max() / model.recurrent[0].cell.hidden_norm.epsilon
    assert off < 1e-4
    assert abs((found.state["h0"] * direction).sum() - wanted) < off * abs(wanted)


# -- kinks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at", "wanted"),
    [
        ("relu", 0.0, 0.0),
        ("leaky_relu", 0.0, 0.5),
        ("elu", 0.0, 0.5),
        ("thresholded_relu", 0.5, 0.0),
        ("hard_sigmoid", -1.0, 0.0),
        ("hard_sigmoid", 1.0, 0.0),
        ("softsign", 0.0, 1.0),
    ],
)
def test_the_choice_at_a_kink(name: str, at: float, wanted: float) -> None:
    how = Activation(name, **dict.fromkeys(PARAMETERS[name], 0.5))
    model = Model((FeatureInput(1),), (ActivationLayer("a", how),))
    found = gradient.record(model, np.full((1, 1, 1), at)).backward(np.ones((1, 1, 1)))
    assert found.x is not None
    assert found.x.item() == wanted


@pytest.mark.parametrize(("at", "wanted"), [(0.5, 0.0), (0.4999, 1.0), (-0.5, 0.0), (0.7, 0.0)])
def test_clips_hold_at_their_bound(at: float, wanted: float) -> None:
    linear = (Activation("linear"),) * 3
    one = np.ones((4, 1))
    for option in ("clip_cell", "clip_projection"):
        how: dict[str, Any] = {option: 0.5, "activations": linear}
        how["weight_hr"] = np.ones((1, 1))
        bias = np.array([1.0, 0.0, 0.0, 1.0])
        weight = one * [[0], [0], [1], [0]]
        model = Model((FeatureInput(1),), (Recurrent("r", LSTMCell(weight, 0 * one, bias, **how)),))
        found = gradient.record(model, np.full((1, 1, 1), at)).backward(np.ones((1, 1, 1)))
        assert found.x is not None
        assert found.x.item() == wanted
    how = {"clip_z": 0.5, "activations": linear}
    model = Model((FeatureInput(1),), (Recurrent("r", LSTMCell(weight, 0 * one, bias, **how)),))
    found = gradient.record(model, np.full((1, 1, 1), at)).backward(np.ones((1, 1, 1)))
    assert found.x is not None
    assert found.x.item() == wanted * 0.25  # the gates i and o are held to 0.5 each


# -- windows --------------------------------------------------------------------------------------


def test_windows_stop_at_their_start() -> None:
    """The loss of each window by the weights, the carried state held: differences say so too."""
    one = made(chain(lstm(), dense()), 2)
    every = list(gradient.windows(one.model, one.x, 2, one.state))
    whole = one.record()
    assert np.array_equal(np.concatenate([w.y for w in every], axis=1), whole.y)
    assert all(np.array_equal(every[-1].state[key], whole.state[key]) for key in ("h0", "c0"))
    total = {name: ZEROS(a.shape) for name, a in one.model.arrays.items()}
    state = one.state
    for k, window in enumerate(every):
        span = slice(2 * k, 2 * k + 2)
        part = Problem(one.model, one.x[:, span].copy(), dict(state), one.rng)
        part.weights = {"y": one.weights["y"][:, span], "h0": 0.0, "c0": 0.0}
        upstream = part.weights["y"]
        found = window.backward(upstream)
        part.weights |= {key: ZEROS(array.shape) for key, array in state.items()}
        agrees(part)
        for name in total:
            total[name] += found.arrays[name]
        state = window.state
    through = whole.backward(one.weights["y"])
    assert not np.allclose(total["r.forward.weight_hh"], through.arrays["r.forward.weight_hh"])
    alone = next(gradient.windows(one.model, one.x, STEPS, one.state)).backward(one.weights["y"])
    assert all((alone.arrays[n] == through.arrays[n]).all() for n in total)


# -- states and refusals --------------------------------------------------------------------------


def test_a_given_state_takes_the_place_of_the_constant() -> None:
    one = made(MODELS["constant"])
    upstream = np.ones((BATCH, STEPS, HIDDEN))
    given = one.record().backward(upstream)
    assert not given.arrays["r.initial.h"].any()
    started = gradient.record(one.model, one.x).backward(upstream)
    for part in "hc":
        summed = started.state[f"{part}0"].sum(axis=1)
        assert (started.arrays[f"r.initial.{part}"] == summed).all()
        assert summed.any()


def test_refusals() -> None:
    model = ordinary(chain(batch_norm(), Dropout("drop", 0.5), lstm()), np.random.default_rng(0))
    x = ZEROS((1, 3, INPUTS))
    run = gradient.record
    factors: Any = ZEROS((2, 3, 5))
    wordy: Any = {"bn": "mean"}
    with refused(
        UsageError,
        "x has shape (3, 2) and dtype float64, expected (B, T, 2) finite real numbers",
    ):
        run(model, x[0])
    with refused(
        UsageError,
        "x holds values that are not finite, expected (B, T, 2) finite real numbers",
    ):
        run(model, x + np.inf)
    with refused(UsageError, "lengths are [4], expected (1,) integers from 0 to 3"):
        run(model, x, lengths=[4])
    with refused(UsageError, "mask has shape (1, 3) and dtype float64, expected (1, 3) booleans"):
        run(model, x, mask=np.ones((1, 3)))
    with refused(UsageError, "dropout factors are given for 'r.input', expected one of drop"):
        run(model, x, dropout={"r.input": factors})
    with refused(
        UsageError,
        "the dropout factors drop have shape (2, 3, 5), expected (1, 3, 2), or 1 along an "
        "axis that shares them",
    ):
        run(model, x, dropout={"drop": factors})
    with refused(
        UsageError,
        "the dropout factors drop are not all numbers, expected 0 or 1 / (1 - rate) each",
    ):
        run(model, x, dropout={"drop": factors + np.nan})
    with refused(UsageError, "batch statistics are given for 'r', expected one of bn"):
        run(model, x, batch_statistics={"r": "biased"})
    with refused(
        UsageError,
        "the batch statistics of bn are 'mean', expected 'biased' or 'unbiased'",
    ):
        run(model, x, batch_statistics=wordy)
    with refused(
        UnsupportedError,
        "bn: takes the statistics of a batch with lengths or a mask, expected sequences "
        "that count whole, or the stored statistics",
    ):
        run(model, x, lengths=[2], batch_statistics={"bn": "biased"})
    with refused(
        UsageError,
        "layer bn: takes the unbiased variance of one row, expected a batch of at least "
        "2, or the biased variance",
    ):
        run(model, x[:, :1], batch_statistics={"bn": "unbiased"})
    done = run(model, x)
    with refused(UsageError, "a gradient is given for 'h1', expected one of y, h0, c0"):
        done.backward(state={"h1": x})
    with refused(
        UsageError,
        "the gradient of y has shape (1, 3, 2) and dtype float64, expected real numbers (1, 3, 3)",
    ):
        done.backward(x)
    with refused(UsageError, "a window has 0 steps, expected at least 1"):
        list(gradient.windows(model, x, 0))
    tokens = Model((TokenInput(3),), (Embedding("e", ZEROS((3, 2))),))
    with refused(UsageError, "x holds tokens from 0 to 3, expected ids from 0 to 2"):
        run(tokens, np.array([[0, 3]]))
    alone = chain(Recurrent("r", cell(), cell()))
    with pytest.raises(UnsupportedError, match="its backward direction starts at the last step"):
        list(gradient.windows(alone, x, 2))
    twice = chain(Residual("a", (Dropout("b", 0.5),), 1), Dropout("a.b", 0.5))
    with refused(
        UsageError,
        "dropout factors are given for 'a.b', which names two parts of the model, "
        "expected layers whose names tell them apart",
    ):
        run(twice, x, dropout={"a.b": np.ones(2)})
