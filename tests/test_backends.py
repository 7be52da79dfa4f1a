"""run: what it makes of x, states and lengths, and what it refuses before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core_cases import cell, chain, dense, lstm, ones, refused, weights
from raising import raising

from ifgo import backends, limits
from ifgo.activations import SOFTMAX
from ifgo.engine import loading, session
from ifgo.errors import ToolError, UsageError
from ifgo.model import (
    ActivationLayer,
    Dense,
    Embedding,
    FeatureInput,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Model,
    Recurrent,
    RepeatVector,
    Residual,
    TokenInput,
)

MODEL = chain(lstm(), dense())
TOKENS = Model((TokenInput(5),), (Embedding("embed", weights(1, 5, 2)), lstm()))
X = weights(9, 3, 4, 2, scale=1.0)


@pytest.fixture(params=["engine", "exact", "truth"])
def on(request: pytest.FixtureRequest) -> str:
    """Each backend that computes in this process."""
    if request.param == "engine":
        request.getfixturevalue("native")
    return request.param


# -- shapes and dtypes ----------------------------------------------------------------------------


def test_batched_and_not(on: str) -> None:
    y, state = backends.run(MODEL, X[:1], on=on)
    alone, again = backends.run(MODEL, X[0], on=on)
    assert (y.shape, alone.shape) == ((1, 4, 1), (4, 1))
    assert (y[0] == alone).all()
    assert {key: array.shape for key, array in again.items()} == {"h0": (1, 1, 3), "c0": (1, 1, 3)}
    assert all((state[key] == again[key]).all() for key in state)


def test_dtypes(on: str) -> None:
    dtype = np.float64 if on == "truth" else np.float32
    for x in (X, X.astype(np.float64), np.ones((3, 4, 2), np.int8), X.tolist()):
        y, state = backends.run(MODEL, x, on=on)
        assert y.dtype == dtype
        assert {array.dtype for array in state.values()} == {np.dtype(dtype)}


def test_x_is_rounded_to_float32_once(on: str) -> None:
    """float64 input gives the bits of its float32 neighbour, on truth too."""
    x = X.astype(np.float64) * (1 + 1e-9)
    assert (backends.run(MODEL, x, on=on)[0] == backends.run(MODEL, X, on=on)[0]).all()


def test_tokens_of_any_number_type() -> None:
    wanted, _ = backends.run(TOKENS, [[0, 4, 2]], on="exact")
    for dtype in (np.uint8, np.int64, np.float32):
        y, _ = backends.run(TOKENS, np.array([0, 4, 2], dtype), on="exact")
        assert (y == wanted[0]).all()


def test_states_are_carried() -> None:
    whole, end = backends.run(MODEL, X, on="exact")
    first, state = backends.run(MODEL, X[:, :3], on="exact")
    second, final = backends.run(MODEL, X[:, 3:], state, on="exact")
    assert (np.concatenate([first, second], axis=1) == whole).all()
    assert all((final[key] == end[key]).all() for key in end)


NAMES = "engine, truth, exact, c99, c99:contracted, qemu:BOARD, qemu:BOARD:contracted"


def test_names() -> None:
    assert ", ".join(backends.NAMES) == NAMES


# -- the one that is taken where none is named --


def test_the_engine_is_the_usual_one(native: Any) -> None:
    assert backends.usual(MODEL) == "engine"
    wanted, final = backends.run(MODEL, X, on="engine")
    y, state = MODEL.run(X)
    assert y.tobytes() == wanted.tobytes()
    assert all(state[key].tobytes() == final[key].tobytes() for key in final)
    assert y.tobytes() != MODEL.run(X, on="exact")[0].tobytes()


def test_exact_where_the_engine_has_no_kernel(native: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "beyond_stages", lambda model: "layer lstm: something new")
    assert backends.usual(MODEL) == "exact"
    assert MODEL.run(X)[0].tobytes() == MODEL.run(X, on="exact")[0].tobytes()


def test_exact_where_there_is_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(loading, "import_module", absent)
    monkeypatch.setattr(loading, "_FOLDER", tmp_path)
    assert backends.usual(MODEL) == "exact"
    assert MODEL.run(X)[0].tobytes() == MODEL.run(X, on="exact")[0].tobytes()
    with pytest.raises(ToolError, match=r"^the compiled engine is not installed"):
        MODEL.run(X, on="engine")


# -- refusals -------------------------------------------------------------------------------------


def ragged(value: Any) -> str:
    try:
        np.asarray(value)
    except ValueError as error:
        return str(error)
    raise AssertionError


RAGGED: Any = [[1.0, 2.0], [1.0]]
BAD = np.where(np.arange(24).reshape(3, 4, 2) == 13, np.nan, 0.5)
FLOAT32 = (
    "finite float32 values. "
    "Clean the data first; a network spreads one NaN over everything after it"
)
EACH = "expected (3,) integers, one length per sequence"
LENGTHS: Any = [[1], [1, 2]]


BACKENDS = f"expected one of {NAMES}"


@pytest.mark.parametrize(
    ("model", "x", "options", "message"),
    [
        (
            MODEL,
            X,
            {"on": "gpu"},
            f"unknown backend 'gpu', {BACKENDS}",
        ),
        (
            MODEL,
            X,
            {"on": 3},
            f"unknown backend '3', {BACKENDS}",
        ),
        # shapes
        (MODEL, None, {}, "x has shape (), expected (B, T, 2) or (T, 2)"),
        (MODEL, ones(2), {}, "x has shape (2,), expected (B, T, 2) or (T, 2)"),
        (MODEL, ones(1, 1, 1, 2), {}, "x has shape (1, 1, 1, 2), expected (B, T, 2) or (T, 2)"),
        (MODEL, ones(0, 4, 2), {}, "x has shape (0, 4, 2), expected (B, T, 2) or (T, 2)"),
        (MODEL, ones(3, 0, 2), {}, "x has shape (3, 0, 2), expected (B, T, 2) or (T, 2)"),
        (
            MODEL,
            ones(3, 4, 5),
            {},
            "x has shape (3, 4, 5), 5 features per step, expected (B, T, 2) or (T, 2). "
            "The last axis holds the features",
        ),
        (MODEL, RAGGED, {}, f"x cannot become an array ({ragged(RAGGED)})"),
        (TOKENS, ones(1, 2, 3), {}, "x has shape (1, 2, 3), expected (B, T) or (T,)"),
        (TOKENS, ones(1, 0), {}, "x has shape (1, 0), expected (B, T) or (T,)"),
        # values
        (MODEL, np.ones((4, 2), bool), {}, "x has dtype bool, expected real numbers"),
        (MODEL, np.ones((4, 2), complex), {}, "x has dtype complex128, expected real numbers"),
        (MODEL, [["a", "b"]], {}, "x has dtype <U1, expected real numbers"),
        (MODEL, BAD, {}, f"x[1, 2, 1] is nan, expected {FLOAT32}"),
        (MODEL, BAD[1], {}, f"x[2, 1] is nan, expected {FLOAT32}"),
        (MODEL, [[1.0, -1e39]], {}, f"x[0, 1] is -1e+39, expected {FLOAT32}"),
        # tokens
        (TOKENS, [0, 5], {}, "x holds token 5, expected ids from 0 to 4"),
        (TOKENS, [0, -1], {}, "x holds token -1, expected ids from 0 to 4"),
        (TOKENS, [0.0, 1.5], {}, "x holds values that are no whole numbers, expected token ids"),
        (TOKENS, [0.0, np.nan], {}, "x holds values that are no whole numbers, expected token ids"),
        (TOKENS, [0.0, np.inf], {}, "x holds values that are no whole numbers, expected token ids"),
        (TOKENS, ["a"], {}, "x has dtype <U1, expected whole numbers, token ids"),
        (TOKENS, [True], {}, "x has dtype bool, expected whole numbers, token ids"),
        # lengths
        (
            MODEL,
            X,
            {"lengths": [4, 4]},
            f"lengths has shape (2,) and dtype int64, {EACH}",
        ),
        (
            MODEL,
            X,
            {"lengths": 4},
            f"lengths has shape () and dtype int64, {EACH}",
        ),
        (
            MODEL,
            X,
            {"lengths": [4.0, 4.0, 4.0]},
            f"lengths has shape (3,) and dtype float64, {EACH}",
        ),
        (
            MODEL,
            X,
            {"lengths": [True, True, True]},
            f"lengths has shape (3,) and dtype bool, {EACH}",
        ),
        (MODEL, X, {"lengths": [4, 5, 1]}, "lengths reach from 1 to 5, expected 0 to 4"),
        (MODEL, X, {"lengths": [-1, 4, 4]}, "lengths reach from -1 to 4, expected 0 to 4"),
        (MODEL, X, {"lengths": LENGTHS}, f"lengths cannot become an array ({ragged(LENGTHS)})"),
        # states: the message of ifgo.states
        (MODEL, X, {"state": {"h9": 0}}, "the state has an array 'h9', expected only h0, c0"),
    ],
)
@pytest.mark.parametrize("on", ["engine", "exact", "truth", "c99"])
def test_refusals(model: Model, x: Any, options: Any, message: str, on: str) -> None:
    with refused(UsageError, message):
        model.run(x, **({"on": on} | options))


def test_the_longest_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.broadcast_to(np.float32(0), (limits.DEFAULTS.steps + 1, 2))
    with refused(
        UsageError,
        "x has 10000001 steps, expected at most 10000000. Cut it into shorter sequences"
        + raising("steps"),
    ):
        backends.prepare(MODEL, x)


# -- lengths --------------------------------------------------------------------------------------

BOTH = Recurrent("bi", cell(), cell())
TAIL = (Dense("scores", weights(4, 4, 6), weights(5, 4)), ActivationLayer("soft", SOFTMAX))


@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        chain(BOTH, *TAIL),
        chain(Recurrent("r", None, cell()), lstm("next", 3, 2)),
        chain(dense("first", 2, 2), lstm(), Residual("skip", (dense("in", 3, 3),), 3)),
        Model((TokenInput(5),), (Embedding("embed", weights(1, 5, 2)), BOTH)),
    ],
    ids=["stream", "bidirectional", "reverse", "residual", "tokens"],
)
def test_each_sequence_is_run_alone(model: Model) -> None:
    """To the bit, with each sequence's own initial state; padding is what zeros become."""
    tokens = isinstance(model.input, TokenInput)
    x = np.arange(24).reshape(4, 6) % 5 if tokens else weights(8, 4, 6, 2)
    start = {
        key: weights(7, layer.directions, 4, 3 if layer.hidden_size == 3 else 2)
        for k, layer in enumerate(model.recurrent)
        for key in (f"h{k}", f"c{k}")
    }
    lengths = [6, 2, 6, 1]
    y, final = model.run(x, start, lengths=lengths, on="exact")
    head = model.layers[max(i for i, la in enumerate(model.layers) if la in model.recurrent) + 1 :]
    width = model.sizes()[len(model.layers) - len(head) - 1]
    padding = np.zeros((1, width), np.float32)
    if head:
        padding, _ = Model((FeatureInput(width),), head).run(padding, on="exact")
    for row, length in enumerate(lengths):
        alone = {key: array[:, row : row + 1] for key, array in start.items()}
        wanted, end = model.run(x[row : row + 1, :length], alone, on="exact")
        assert (y[row, :length] == wanted[0]).all()
        assert (y[row, length:] == padding[0]).all()
        for key, array in end.items():
            assert (final[key][:, row : row + 1] == array).all()


def test_a_vector_is_that_of_each_last_step() -> None:
    for layers in (
        (BOTH, LastStep("last", "state"), dense("d", 6)),
        (lstm(), LastStep("last"), RepeatVector("again", 2), lstm("next", 3)),
        (lstm(), LastStep("last"), HiddenAsSequence("again"), lstm("next", 1)),
        (LastStep("last"),),
    ):
        model = chain(*layers)
        y, _ = model.run(X, lengths=[1, 4, 3], on="exact")
        for row, length in enumerate([1, 4, 3]):
            assert (y[row] == model.run(X[row, :length], on="exact")[0]).all()


def test_a_length_of_zero_ends_in_zeros() -> None:
    start = {"h0": ones(1, 3, 3), "c0": ones(1, 3, 3)}
    y, final = MODEL.run(X, start, lengths=[4, 0, 4], on="exact")
    bias = MODEL.arrays["dense.bias"]
    assert (y[1] == bias).all()
    assert not final["h0"][:, 1].any()
    assert not final["c0"][:, 1].any()
    assert final["h0"][:, 0].any()


def test_lengths_of_zero_only() -> None:
    y, final = MODEL.run(X, lengths=[0, 0, 0], on="exact")
    assert (y == MODEL.arrays["dense.bias"]).all()
    assert not final["c0"].any()


def test_steps_that_stand_alone_do_not_care(on: str) -> None:
    model = chain(Dense("d", weights(1, 3, 2), weights(2, 3)))
    assert (model.run(X, lengths=[1, 2, 0], on=on)[0] == model.run(X, on=on)[0]).all()


def test_a_vector_of_no_steps_is_what_follows_from_zeros(on: str) -> None:
    head = dense("d", 3)
    y, final = chain(lstm(), LastStep("last"), head).run(X, lengths=[4, 0, 2], on=on)
    assert (y[1] == head.bias).all()
    assert not final["h0"][:, 1].any()
    y, _ = chain(BOTH, LastStep("last", "state")).run(X, lengths=[4, 0, 2], on=on)
    assert not y[1].any()
    assert y[0].any()


def test_a_flatten_takes_the_padding_too(on: str) -> None:
    model, flat = chain(lstm()), chain(lstm(), Flatten("flat", 4))
    y, _ = model.run(X, lengths=[4, 0, 2], on=on)
    assert (flat.run(X, lengths=[4, 0, 2], on=on)[0] == y.reshape(3, -1)).all()
    assert not y[2, 2:].any()


@pytest.mark.parametrize("on", ["exact", "truth"])
def test_go_backwards_reverses_each_sequence_within_its_length(on: str) -> None:
    model = chain(lstm(go_backwards=True), lstm("next", 3))
    lengths = [4, 0, 2]
    reordered = 2.0**-45 if on == "truth" else 0  # BLAS sums float64 in an order of its own
    y, final = model.run(X, lengths=lengths, on=on)
    for row, length in enumerate(lengths):
        assert not y[row, length:].any()
        if length:
            wanted, end = model.run(X[row, :length], on=on)
            assert np.abs(y[row, :length] - wanted).max() <= reordered
            assert all(np.abs(final[k][:, row] - end[k][:, 0]).max() <= reordered for k in end)


def test_lengths_inside_residuals(on: str) -> None:
    model = chain(Residual("skip", (lstm(),), 2))
    y, _ = model.run(X, lengths=[4, 1, 2], on=on)
    assert (y[1, 1:, :2] == X[1, 1:]).all()
    assert not y[1, 1:, 2:].any()
