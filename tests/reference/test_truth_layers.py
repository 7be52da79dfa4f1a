"""float64 truth of every layer but the LSTM itself, against explicit loops over plain floats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ifgo.activations import RELU, SOFTMAX
from ifgo.errors import UnsupportedError
from ifgo.model import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    LSTMCell,
    Masking,
    Model,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    TokenInput,
)
from ifgo.reference import truth

BATCH, STEPS, SIZE = 3, 4, 2

ROUNDINGS = 32 * 2.0**-53
"""Sums of at most four terms near 1, a division, an exponential: well below 32 roundings of 1."""


def draw(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape) * 0.5


X = draw(0, BATCH, STEPS, SIZE)


def run(*layers: Layer, x: Any = X, **given: Any) -> truth.Result:
    return truth.forward(Model((FeatureInput(x.shape[2]),), layers), x, **given)


def near(found: Any, wanted: Any) -> None:
    wanted = np.array(wanted)
    assert found.shape == wanted.shape
    assert found.dtype == np.float64
    assert (np.abs(found - wanted) <= ROUNDINGS).all()


def each(function: Any, x: Any = X) -> list[Any]:
    """function(features of one step) for every step."""
    return [[function(step.tolist()) for step in row] for row in x]


def lstm(name: str = "lstm", inputs: int = SIZE, hidden: int = 3, **options: Any) -> Recurrent:
    cell = LSTMCell(draw(1, 4 * hidden, inputs), draw(2, 4 * hidden, hidden), draw(3, 4 * hidden))
    return Recurrent(name, cell, **options)


# -- layers that work step by step ----------------------------------------------------------------

W, B, F = draw(4, 3, SIZE).tolist(), draw(5, 3).tolist(), draw(6, 4, SIZE).tolist()


def affine(v: list[float]) -> list[float]:
    return [
        sum(w * a for w, a in zip(row, v, strict=True)) + b for row, b in zip(W, B, strict=True)
    ]


def softmax(v: list[float]) -> list[float]:
    powers = [math.exp(a) for a in v]
    return [p / sum(powers) for p in powers]


def normalised(v: list[float]) -> list[float]:
    mean, variance, weight, bias = F
    return [
        (a - m) / math.sqrt(abs(s) + 1e-2) * w + b
        for a, m, s, w, b in zip(v, mean, variance, weight, bias, strict=True)
    ]


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (Dense("d", np.array(W), np.array(B)), affine),
        (Dense("d", np.array(W)), lambda v: [z - b for z, b in zip(affine(v), B, strict=True)]),
        (Dense("d", np.array(W), np.array(B), RELU), lambda v: [max(z, 0) for z in affine(v)]),
        (Dense("d", np.array(W), np.array(B), SOFTMAX), lambda v: softmax(affine(v))),
        (ActivationLayer("a", SOFTMAX), softmax),
        (ActivationLayer("a", RELU), lambda v: [max(a, 0.0) for a in v]),
        (Dropout("d", 0.9), lambda v: v),
        (
            Scale("s", np.array(F[0]), np.array(F[1])),
            lambda v: [a * f + o for a, f, o in zip(v, F[0], F[1], strict=True)],
        ),
        (
            BatchNorm("b", *(np.array(row) for row in (F[0], np.abs(F[1]), *F[2:])), epsilon=1e-2),
            normalised,
        ),
        (
            BatchNorm("b", np.zeros(2), np.ones(2), epsilon=3.0),
            lambda v: [a / 2 for a in v],
        ),
        (
            Residual("r", (Dense("d", np.array(W), np.array(B)),), 1),
            lambda v: [affine(v)[0] + v[0], *affine(v)[1:]],
        ),
        (
            Residual("r", (Residual("q", (Dropout("d", 0.5),), 1), Dropout("e", 0.5)), 2),
            lambda v: [3 * v[0], 2 * v[1]],
        ),
        (Masking("m", 0.5), lambda v: v),
    ],
)
def test_step_by_step(layer: Layer, function: Any) -> None:
    near(run(layer).y, each(function))


def test_a_step_layer_on_a_vector() -> None:
    found = run(LastStep("last"), Dense("d", np.array(W), np.array(B), SOFTMAX)).y
    near(found, [softmax(affine(row[-1].tolist())) for row in X])


def test_embedding() -> None:
    table, tokens = draw(7, 5, SIZE), np.array([[0, 4, 2], [1, 1, 3]])
    model = Model((TokenInput(5),), (Embedding("e", table),))
    near(truth.forward(model, tokens).y, [[table[t] for t in row] for row in tokens.tolist()])


# -- layers that change time ----------------------------------------------------------------------


def test_last_step() -> None:
    near(run(LastStep("last")).y, X[:, -1])
    near(run(LastStep("last"), lengths=[2, 0, 4]).y, [X[0, 1], [0.0, 0.0], X[2, 3]])


def test_last_step_of_a_backward_direction() -> None:
    """The row of the last time step is the first that it computed; its final state the last."""
    both = Recurrent("bi", lstm().forward, lstm().forward)
    y = run(both).y
    near(run(both, LastStep("last")).y, y[:, -1])
    final = run(both, LastStep("last", "state")).y
    near(final, np.concatenate([y[:, -1, :3], y[:, 0, 3:]], axis=1))
    summed = Recurrent("bi", lstm().forward, lstm().forward, merge="sum")
    near(run(summed, LastStep("last", "state")).y, final[:, :3] + final[:, 3:])


def test_last_step_with_lengths() -> None:
    both = Recurrent("bi", lstm().forward, lstm().forward)
    found = run(both, LastStep("last", "state"), lengths=[2, 4, 1]).y
    for row, length in enumerate([2, 4, 1]):
        alone = run(both, LastStep("last", "state"), x=X[row : row + 1, :length]).y
        near(found[row], alone[0])


def test_hidden_as_sequence() -> None:
    found = run(LastStep("last"), HiddenAsSequence("again")).y
    near(found, [[[v] for v in row[-1].tolist()] for row in X])


def test_repeat_vector() -> None:
    near(run(LastStep("last"), RepeatVector("again", 3)).y, [[row[-1]] * 3 for row in X])


def test_flatten() -> None:
    near(run(Flatten("flat", STEPS)).y, [[v for step in row for v in step] for row in X])
    with pytest.raises(UnsupportedError) as caught:
        run(Flatten("flat", 5))
    assert str(caught.value) == "layer flat: gets 4 steps, expected exactly 5"


def test_lengths_end_where_time_does() -> None:
    """After a LastStep a new sequence begins, and all of it counts."""
    chain = (lstm(), LastStep("last"), HiddenAsSequence("again"), lstm("next", 1))
    found = run(*chain, lengths=[1, 4, 2])
    assert found.y.shape == (BATCH, 3, 3)
    for row, length in enumerate([1, 4, 2]):
        near(found.y[row], run(*chain, x=X[row : row + 1, :length]).y[0])


# -- masks ----------------------------------------------------------------------------------------


def alone(layer: Recurrent, x: Any, kept: list[int]) -> truth.Result:
    """One sequence of which only the steps `kept` exist."""
    return run(layer, x=x[None, kept])


@pytest.mark.parametrize("zero_masked", [False, True])
def test_masking_skips_steps(zero_masked: bool) -> None:
    """The steps that count are a sequence of their own; the others repeat or give zero."""
    x = X.copy()
    x[0, 1], x[1, 0], x[1, 3] = -1.0, -1.0, -1.0
    layer = lstm(zero_masked=zero_masked)
    found = run(Masking("m", -1.0), layer, x=x)
    kept = {0: [0, 2, 3], 1: [1, 2], 2: [0, 1, 2, 3]}
    for row, steps in kept.items():
        wanted = alone(layer, x[row], steps)
        near(found.y[row, steps], wanted.y[0])
        near(found.state["h0"][:, row], wanted.state["h0"][:, 0])
        near(found.state["c0"][:, row], wanted.state["c0"][:, 0])
    idle = np.zeros(3)
    near(found.y[0, 1], idle if zero_masked else found.y[0, 0])
    near(found.y[1, 0], idle)  # nothing to repeat yet
    near(found.y[1, 3], idle if zero_masked else found.y[1, 2])


def test_masking_needs_every_feature() -> None:
    x = X.copy()
    x[0, 1, 0] = -1.0
    assert (run(Masking("m", -1.0), lstm(), x=x).y == run(lstm(), x=x).y).all()


def test_masked_steps_are_zero_before_the_layer() -> None:
    x = X.copy()
    x[0, 1] = -1.0
    near(run(Masking("m", -1.0), x=x).y[0, 1], np.zeros(2))


def test_two_masks_are_both_kept() -> None:
    x = X.copy()
    x[0, 1], x[0, 2] = -1.0, 0.5
    found = run(Masking("a", -1.0), Masking("b", 0.5), lstm(), x=x)
    near(found.y[0, [0, 3]], alone(lstm(), x[0], [0, 3]).y[0])


def test_token_0_is_padding_where_the_embedding_says_so() -> None:
    table, tokens = draw(7, 5, SIZE), np.array([[1, 0, 3, 0]])
    chain = (lstm(),)
    found = truth.forward(Model((TokenInput(5),), (Embedding("e", table, True), *chain)), tokens)
    near(found.y[0, [0, 2]], run(*chain, x=table[[1, 3]][None]).y[0])
    near(found.y[0, 1], found.y[0, 0])
    every = truth.forward(Model((TokenInput(5),), (Embedding("e", table), *chain)), tokens)
    near(every.y, run(*chain, x=table[tokens]).y)


def test_a_mask_ends_where_time_does() -> None:
    x = X.copy()
    x[:, 1] = -1.0
    chain = (Masking("m", -1.0), lstm(), LastStep("last"), HiddenAsSequence("h"), lstm("n", 1))
    for row in range(BATCH):
        wanted = run(*chain[1:], x=x[row : row + 1, [0, 2, 3]]).y
        near(run(*chain, x=x).y[row], wanted[0])


# -- residuals, states ----------------------------------------------------------------------------


def test_a_residual_around_an_lstm() -> None:
    found = run(Residual("skip", (lstm(),), 2))
    inner = run(lstm())
    wanted = inner.y.copy()
    wanted[..., :2] += X
    near(found.y, wanted)
    assert (found.state["c0"] == inner.state["c0"]).all()


def test_outputs_of_every_layer_are_kept() -> None:
    found = run(lstm(), Residual("skip", (Dropout("d", 0.5),), 1), LastStep("last"))
    assert list(found.outputs) == ["lstm", "d", "skip", "last"]
    assert found.outputs["lstm"].shape == (BATCH, STEPS, 3)
    assert (found.outputs["last"] == found.y).all()


def test_states_count_recurrent_layers_in_chain_order() -> None:
    found = run(Residual("skip", (lstm("a"), Dropout("d", 0.0)), 1), lstm("b", 3, 2))
    assert {key: array.shape for key, array in found.state.items()} == {
        "h0": (1, BATCH, 3),
        "c0": (1, BATCH, 3),
        "h1": (1, BATCH, 2),
        "c1": (1, BATCH, 2),
    }


def test_layers_of_others_have_no_meaning() -> None:
    with pytest.raises(UnsupportedError) as caught:
        run(Layer("mine"))
    assert str(caught.value) == "layer mine: layers of kind 'layer' have no float64 meaning"
