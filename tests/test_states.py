"""States: keys and shapes, where a sequence starts, and what a caller may not give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core_cases import cell, chain, dense, lstm, ones, refused, weights

from ifgo import states
from ifgo.errors import UsageError
from ifgo.model import (
    FeatureInput,
    InitialState,
    Model,
    Recurrent,
    Residual,
    StateInput,
    StateSlot,
)

PROJECTED = Recurrent("b", cell(3, 4, 2), cell(3, 4, 2))
MODEL = chain(lstm("a"), PROJECTED, Residual("skip", (lstm("c", 4, 5),), 1))
FED = Model(
    (FeatureInput(2), StateInput("s", (StateSlot("a", "h"), StateSlot("a", "c")))),
    (lstm("a", initial=InitialState("input")),),
)
ONE = chain(lstm("a"))
"""One layer, H = 3, one direction: h0 and c0 are (1, B, 3)."""


def test_shapes() -> None:
    assert states.shapes(MODEL, 7) == {
        "h0": (1, 7, 3),
        "c0": (1, 7, 3),
        "h1": (2, 7, 2),
        "c1": (2, 7, 4),
        "h2": (1, 7, 5),
        "c2": (1, 7, 5),
    }
    assert states.shapes(chain(dense("d", 2)), 7) == {}


def test_initial_is_zero() -> None:
    found = states.initial(MODEL, 3, np.float32)
    assert {key: array.shape for key, array in found.items()} == states.shapes(MODEL, 3)
    assert all(array.dtype == np.float32 and not array.any() for array in found.values())


def test_initial_is_the_constant_of_the_layer() -> None:
    h, c = weights(1, 2, 2), weights(2, 2, 4)
    layer = Recurrent("b", cell(2, 4, 2), cell(2, 4, 2), initial=InitialState("constant", h, c))
    found = states.initial(chain(layer), 3, np.float64)
    for row in range(3):
        assert (found["h0"][:, row] == h).all()
        assert (found["c0"][:, row] == c).all()
    assert found["h0"].dtype == np.float64


def test_constants_beyond_float32_do_not_warn() -> None:
    """What a backend makes of them is its own matter; the lowering refuses them."""
    wide = InitialState("constant", np.full((1, 3), 1e39), np.zeros((1, 3)))
    found = states.initial(chain(lstm("a", initial=wide)), 1, np.float32)
    assert np.isinf(found["h0"]).all()


def test_given_states_win() -> None:
    given = {"c0": weights(1, 1, 2, 3), "h1": weights(2, 2, 2, 2)}
    found = states.complete(MODEL, 2, given, np.float32)
    assert list(found) == list(states.shapes(MODEL, 2))
    for key, array in found.items():
        assert (array == given[key]).all() if key in given else not array.any()


def test_given_states_are_copied() -> None:
    given = {"h0": np.zeros((1, 2, 3), np.float32)}
    states.complete(ONE, 2, given, np.float32)["h0"][:] = 1
    assert not given["h0"].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_short_forms_where_one_direction(dtype: Any) -> None:
    rows = weights(1, 4, 3)
    assert (states.complete(ONE, 4, {"h0": rows}, dtype)["h0"] == rows[None]).all()
    assert (states.complete(ONE, 1, {"h0": rows[0]}, dtype)["h0"] == rows[None, :1]).all()
    assert (states.complete(ONE, 1, {"h0": [1, 2, 3]}, dtype)["h0"] == [[[1, 2, 3]]]).all()
    assert states.complete(ONE, 1, {"h0": [1, 2, 3]}, dtype)["h0"].dtype == dtype


def test_states_that_are_inputs() -> None:
    given = {"h0": ones(1, 1, 3), "c0": ones(1, 1, 3)}
    assert (states.complete(FED, 1, given, np.float32)["c0"] == 1).all()


def ragged(value: Any) -> str:
    try:
        np.asarray(value)
    except ValueError as error:
        return str(error)
    raise AssertionError


RAGGED: Any = [[1.0], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("model", "batch", "given", "message"),
    [
        (ONE, 1, [1.0], "the state is a list, expected a mapping of keys to arrays"),
        (ONE, 1, ones(1, 1, 3), "the state is a ndarray, expected a mapping of keys to arrays"),
        (ONE, 1, {"h1": ones(1, 1, 3)}, "the state has an array 'h1', expected only h0, c0"),
        (ONE, 1, {0: ones(1, 1, 3)}, "the state has an array 0, expected only h0, c0"),
        (
            chain(dense("d", 2)),
            1,
            {"h0": ones(1, 1, 3)},
            "the state has an array 'h0', expected no state, nothing recurs",
        ),
        (
            ONE,
            2,
            {"h0": ones(1, 1, 3)},
            "state h0 (layer a) has shape (1, 1, 3), expected (1, 2, 3): directions, batch, width",
        ),
        (
            ONE,
            2,
            {"c0": ones(3)},
            "state c0 (layer a) has shape (3,), expected (1, 2, 3): directions, batch, width",
        ),
        (
            ONE,
            2,
            {"c0": ones(6)},
            "state c0 (layer a) has shape (6,), expected (1, 2, 3): directions, batch, width",
        ),
        (
            MODEL,
            2,
            {"h1": ones(2, 2)},
            "state h1 (layer b) has shape (2, 2), expected (2, 2, 2): directions, batch, width",
        ),
        (
            MODEL,
            1,
            {"c2": ones(1, 1, 4)},
            "state c2 (layer c) has shape (1, 1, 4), expected (1, 1, 5): directions, batch, width",
        ),
        (
            ONE,
            1,
            {"h0": RAGGED},
            f"state h0 (layer a) cannot become an array ({ragged(RAGGED)})",
        ),
        (
            ONE,
            1,
            {"h0": np.ones((1, 1, 3), bool)},
            "state h0 (layer a) has dtype bool, expected real numbers",
        ),
        (
            ONE,
            1,
            {"h0": np.ones((1, 1, 3), complex)},
            "state h0 (layer a) has dtype complex128, expected real numbers",
        ),
        (
            ONE,
            1,
            {"h0": ["a", "b", "c"]},
            "state h0 (layer a) has dtype <U1, expected real numbers",
        ),
        (
            ONE,
            1,
            {"h0": [0.0, np.nan, 0.0]},
            "state h0 (layer a) holds values that are not finite, expected finite float32 values",
        ),
        (
            ONE,
            1,
            {"c0": [0.0, 1e39, 0.0]},
            "state c0 (layer a) holds values that are not finite, expected finite float32 values",
        ),
        (
            FED,
            5,
            None,
            "layer a takes its initial state as an input, and h0 is missing, expected h0 of shape "
            "(1, 5, 3). Pass it in the state (--state-in), zeros if it starts at rest",
        ),
        (
            FED,
            1,
            {"h0": ones(1, 1, 3)},
            "layer a takes its initial state as an input, and c0 is missing, expected c0 of shape "
            "(1, 1, 3). Pass it in the state (--state-in), zeros if it starts at rest",
        ),
    ],
)
def test_refusals(model: Model, batch: int, given: Any, message: str) -> None:
    with refused(UsageError, message):
        states.complete(model, batch, given, np.float32)


def test_what_float64_holds_is_no_refusal_there() -> None:
    found = states.complete(ONE, 1, {"c0": [0.0, 1e39, 0.0]}, np.float64)
    assert found["c0"][0, 0, 1] == 1e39
