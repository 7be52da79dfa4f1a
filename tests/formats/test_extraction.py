"""Part of a whole model by name, for formats whose files hold nothing but a chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_models import lstm

import ifgo
from ifgo import formats
from ifgo.errors import UsageError
from ifgo.formats.extraction import Found, Listing, part_of
from ifgo.layers import Dense, InitialState, LastStep, RepeatVector, Residual
from ifgo.model import FeatureInput, LengthsInput, Model, StateInput, StateSlot


def model() -> Model:
    """Three LSTMs; the first two have their states in one input, the third in another."""
    start = InitialState("input")
    weight = np.full((4, 4), 0.25, np.float32)
    return Model(
        (
            FeatureInput(3, axes="TB"),
            LengthsInput("n"),
            StateInput("s", tuple(StateSlot(n, p) for n in "ab" for p in ("h", "c"))),  # type: ignore[arg-type]
            StateInput("t", (StateSlot("c", "h"), StateSlot("c", "c"))),
        ),
        (
            lstm("a", 3, 4, initial=start),
            Dense("mid", weight),
            lstm("b", 4, 4, 1, initial=start),
            LastStep("last", "state"),
            RepeatVector("repeat", 3),
            lstm("c", 4, 4, 2, initial=start),
        ),
    )


def test_listing(tmp_path: Path) -> None:
    path = tmp_path / "m.ifgo"
    ifgo.save(model(), path)
    words = "initial state: input"
    assert formats.list_layers(path) == Listing(
        "native",
        (
            Found("a", 3, 4, ("forward",), words, "input 'x'"),
            Found("b", 4, 4, ("forward",), words, "layer 'mid' (dense)", "a"),
            Found("c", 4, 4, ("forward",), words, "layer 'repeat' (repeat_vector)", "b"),
        ),
        (("dense", 1), ("last_step", 1), ("repeat_vector", 1)),
    )
    assert formats.list_layers(path).to_dict()["others"] == {
        "dense": 1,
        "last_step": 1,
        "repeat_vector": 1,
    }


def test_two_of_three(tmp_path: Path) -> None:
    path = tmp_path / "m.ifgo"
    ifgo.save(model(), path)
    part = ifgo.load(path, select="a,b")
    assert [layer.name for layer in part.layers] == ["a", "mid", "b"]
    assert part.inputs == model().inputs[:3]
    assert part.provenance.notes == ("left out 3 layers: 1 last_step, 1 lstm, 1 repeat_vector",)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 5, 3)).astype(np.float32)
    start = {f"{p}{k}": np.full((1, 2, 4), 0.5, np.float32) for k in range(3) for p in "hc"}
    kept = {key: array for key, array in start.items() if key[1] != "2"}
    y, state = part.run(x, kept, on="exact")
    _, whole = model().run(x, start, on="exact")
    assert y.shape == (2, 5, 4)
    for key, array in state.items():
        np.testing.assert_array_equal(array, whole[key])


def test_part_of_a_state_input_and_no_lengths_after_the_sequence() -> None:
    part = part_of(model(), ["b"])
    assert part.inputs == (
        FeatureInput(4, axes="TB"),
        LengthsInput("n"),
        StateInput("b.h", (StateSlot("b", "h"),)),
        StateInput("b.c", (StateSlot("b", "c"),)),
    )
    assert part_of(model(), ["c"]).inputs == (FeatureInput(4, axes="TB"), model().inputs[3])


@pytest.mark.parametrize(
    ("select", "text"),
    [
        ("a,c", "select names 'a', 'c', expected layers one after another, as a,b,c"),
        ("b,a", "select names 'b', 'a', expected layers one after another, as a,b"),
        ("q", "has no recurrent layer 'q', expected one of 'a', 'b', 'c'"),
        ([], "select names no layer, expected one of 'a', 'b', 'c'"),
    ],
)
def test_refused(select: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        part_of(model(), select)
    assert str(caught.value) == text


def test_inside_a_residual() -> None:
    inner = Residual("skip", (lstm("a", 3, 4), Dense("d", np.ones((3, 4), np.float32))), 3)
    with pytest.raises(UsageError) as caught:
        part_of(Model((FeatureInput(3),), (inner,)), "a")
    assert str(caught.value) == (
        "layer 'a' stands inside a residual, expected layers of the chain itself"
    )


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.ifgo"
    ifgo.save(model(), path)
    with pytest.raises(UsageError) as caught:
        ifgo.load(path, select="z")
    assert str(caught.value) == (
        f"{path}: has no recurrent layer 'z', expected one of 'a', 'b', 'c'"
    )
    with pytest.raises(UsageError) as caught:
        formats.list_layers(path, bind="w.npz")
    assert str(caught.value) == (
        f"{path}: option 'bind' means nothing to listing format 'native', expected no option"
    )
