"""Models within models, normalisation, x[:, -1] and the like: as Keras 3 itself computes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_peer import agree, computed, keras, randomised, save, within

from ifgo import formats
from ifgo.errors import FormatError, UnsupportedError

pytestmark = pytest.mark.peers
L = keras.layers

STEPS, INPUTS = 6, 3
ENDINGS = pytest.mark.parametrize("ending", ["keras", "h5"])
D = {"dtype": "float64"}


def x_of(seed: int) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, (3, STEPS, INPUTS))


def inputs(*shape: int) -> Any:
    return keras.Input(shape or (STEPS, INPUTS), **D)


def functional(build: Callable[[Any], Any]) -> Any:
    x = inputs()
    return randomised(keras.Model(x, build(x)), 5)


def lstm(units: int = 4, **options: Any) -> Any:
    return L.LSTM(units, return_sequences=options.pop("sequences", True), **options, **D)


def inner(kind: str, units: int = 4) -> Any:
    if kind == "sequential":
        return keras.Sequential([inputs(), lstm(units, name="same"), L.Dense(INPUTS, **D)])
    x = inputs()
    return keras.Model(x, L.Dense(INPUTS, **D)(lstm(units, name="same")(x)))


@ENDINGS
@pytest.mark.parametrize("kind", ["sequential", "functional"])
@pytest.mark.parametrize("outer", ["sequential", "functional"])
def test_two_models_in_a_model(tmp_path: Path, ending: str, kind: str, outer: str) -> None:
    """Both hold a layer of one name, as copies of one builder do."""
    parts = [inner(kind), inner(kind), lstm(2, sequences=False)]
    if outer == "sequential":
        model = randomised(keras.Sequential([inputs(), *parts]), 5)
    else:
        model = functional(lambda x: parts[2](parts[1](parts[0](x))))
    found = agree(model, tmp_path / f"m.{ending}", x_of(1))
    assert len({layer.name for layer in found.layers}) == 6


@ENDINGS
def test_models_three_deep(tmp_path: Path, ending: str) -> None:
    middle = keras.Sequential([inputs(), inner("functional"), lstm(3)])
    agree(functional(lambda x: lstm(2)(middle(x))), tmp_path / f"m.{ending}", x_of(2))


@ENDINGS
def test_an_encoder_and_a_decoder(tmp_path: Path, ending: str) -> None:
    encoder = keras.Sequential([inputs(), lstm(4, sequences=False)], name="encoder")
    step = L.TimeDistributed(L.Dense(INPUTS, **D), **D)
    decoder = keras.Sequential([inputs(4), L.RepeatVector(5), lstm(4), step], name="decoder")
    agree(functional(lambda x: decoder(encoder(x))), tmp_path / f"m.{ending}", x_of(3))


@ENDINGS
@pytest.mark.parametrize("frozen", [0, 1])
def test_frozen_layers_of_an_inner_model(tmp_path: Path, ending: str, frozen: int) -> None:
    """.h5 lists what is trained first: arrays of one shape belong to a layer by its name."""
    layers = [lstm(INPUTS, name="one"), lstm(INPUTS, name="two")]
    layers[frozen].trainable = False
    part = keras.Sequential([inputs(), *layers])
    agree(functional(lambda x: lstm(2)(part(x))), tmp_path / f"m.{ending}", x_of(4))


@pytest.mark.filterwarnings("ignore:.*does not support masking")
def test_a_mask_goes_into_the_inner_model(tmp_path: Path) -> None:
    x = x_of(5)
    x[0, 3:] = x[1, 1] = 0.5
    model = functional(lambda t: lstm(2)(inner("functional")(L.Masking(0.5, **D)(t))))
    agree(model, tmp_path / "m.keras", x)


def test_models_nested_too_deep(tmp_path: Path) -> None:
    model = inner("sequential")
    for _ in range(5):
        model = keras.Sequential([inputs(), model])
    with pytest.raises(FormatError, match=r"\(Sequential\): is nested too deep"):
        formats.load(save(model, tmp_path / "m.keras"))


def test_a_layer_that_is_called_twice(tmp_path: Path) -> None:
    shared = lstm(INPUTS, name="shared")
    model = functional(lambda x: shared(shared(x)))
    with pytest.raises(
        UnsupportedError,
        match=r"layer shared \(LSTM\): is called more than once, expected one call\. --select",
    ):
        formats.load(save(model, tmp_path / "m.keras"))


# -- the last step --------------------------------------------------------------------------------


@ENDINGS
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    "take", [lambda y: y[:, -1], lambda y: y[:, -1, :], lambda y: y[:, STEPS - 1]]
)
def test_the_last_step(tmp_path: Path, ending: str, both: bool, masked: bool, take: Any) -> None:
    x = x_of(6)
    if masked:
        x[0, 4:] = x[1, 0] = 0.5

    def build(t: Any) -> Any:
        t = L.Masking(0.5, **D)(t) if masked else t
        return L.Dense(2, **D)(take((L.Bidirectional(lstm(), **D) if both else lstm())(t)))

    agree(functional(build), tmp_path / f"m.{ending}", x)


@pytest.mark.parametrize(
    "take", [lambda y: y[:, 0], lambda y: y[:, -2:], lambda y: y[:, -1, 1:], lambda y: y[:, 4]]
)
def test_other_parts_are_refused(tmp_path: Path, take: Any) -> None:
    model = functional(lambda x: take(lstm()(x)))
    with pytest.raises(
        UnsupportedError,
        match=r"\(GetItem\): takes a part of its input other than the last step, expected "
        r"x\[:, -1\]\. --select takes recurrent layers out of a larger model",
    ):
        formats.load(save(model, tmp_path / "m.keras"))


@ENDINGS
@pytest.mark.parametrize("sequences", [True, False])
def test_final_states_of_both_directions_put_together(
    tmp_path: Path, ending: str, sequences: bool
) -> None:
    def build(x: Any) -> Any:
        both = L.Bidirectional(lstm(sequences=sequences, return_state=True), **D)
        _, h_forward, _, h_backward, _ = both(x)
        return L.Dense(2, **D)(L.Concatenate(**D)([h_forward, h_backward]))

    agree(functional(build), tmp_path / f"m.{ending}", x_of(7))


def test_other_states_put_together_are_refused(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        _, h_forward, c_forward, _, _ = L.Bidirectional(lstm(return_state=True), **D)(x)
        return L.Concatenate(**D)([h_forward, c_forward])

    with pytest.raises(UnsupportedError, match=r"\(Concatenate\): takes the output 1 of layer"):
        formats.load(save(functional(build), tmp_path / "m.keras"))


# -- step by step ---------------------------------------------------------------------------------

NORMALISED: dict[str, dict[str, Any]] = {
    "each": {"mean": [1.0, -2.0, 3.0], "variance": [4.0, 0.5, 0.0]},
    "one": {"mean": 0.25, "variance": 2.0, "axis": None},
    "invert": {"mean": [1.0, -2.0, 3.0], "variance": [4.0, 0.5, 1e-16], "invert": True},
    "adapted": {},
    "adapted as one": {"axis": None},
}
ROUNDINGS = 4
"""Of 1/deviation, of the product, and of Keras's root and division: half an ulp each."""


@ENDINGS
@pytest.mark.parametrize("name", NORMALISED)
def test_normalization(tmp_path: Path, ending: str, name: str) -> None:
    layer = L.Normalization(name="norm", **NORMALISED[name])
    if "adapted" in name:
        layer.adapt(np.random.default_rng(1).normal(2, 3, (20, STEPS, INPUTS)).astype("f"))
    model = keras.Sequential([keras.Input((STEPS, INPUTS)), layer])
    found = formats.load(save(model, tmp_path / f"m.{ending}"))
    x = x_of(8).astype("f")
    y, _ = found.run(x, on="exact")
    theirs = computed(model, x)[0]
    size = np.abs(theirs)
    if name == "invert":  # a product and a sum, which may cancel
        size = size + np.abs(x * found.arrays["norm.factor"])
    assert (np.abs(y - theirs) <= ROUNDINGS * 2.0**-24 * size).all()
    assert np.abs(theirs).max() > 0.5


def test_normalization_over_time_is_refused(tmp_path: Path) -> None:
    layer = L.Normalization(axis=1)
    layer.adapt(np.ones((2, STEPS, INPUTS), "f"))
    model = keras.Sequential([keras.Input((STEPS, INPUTS)), layer, L.LSTM(2)])
    with pytest.raises(
        UnsupportedError,
        match=r"\(Normalization\): axis is '\[1\]', expected -1, the features, or null\. --select",
    ):
        formats.load(save(model, tmp_path / "m.keras"))


@ENDINGS
def test_layers_within_a_step(tmp_path: Path, ending: str) -> None:
    def build(x: Any) -> Any:
        x = L.Conv1D(5, 1, activation="relu", **D)(x)
        x = keras.ops.tanh(L.Identity(**D)(x))
        x = L.Conv1D(4, 1, use_bias=False, padding="causal", **D)(x)
        x = keras.ops.softplus(lstm()(keras.ops.sigmoid(x)))
        return keras.ops.softsign(keras.ops.relu(x))

    agree(functional(build), tmp_path / f"m.{ending}", x_of(9))


def test_wide_convolutions_are_refused(tmp_path: Path) -> None:
    model = functional(lambda x: lstm()(L.Conv1D(4, 3, padding="causal", name="conv", **D)(x)))
    with pytest.raises(
        UnsupportedError,
        match=r"layer conv \(Conv1D\): kernel_size is '\[3\]', expected 1, a convolution within a "
        r"step\. --select takes recurrent layers out of a larger model",
    ):
        formats.load(save(model, tmp_path / "m.keras"))


@ENDINGS
@pytest.mark.parametrize("target", [(STEPS, INPUTS), (-1, INPUTS), (STEPS * INPUTS, 1)])
def test_an_input_that_is_folded(tmp_path: Path, ending: str, target: tuple[int, int]) -> None:
    flat = inputs(STEPS * INPUTS)
    model = randomised(keras.Model(flat, lstm()(L.Reshape(target, name="fold", **D)(flat))), 5)
    found = formats.load(save(model, tmp_path / f"m.{ending}"))
    width = target[1]
    x = x_of(10)
    within(found, x.reshape(3, -1, width), computed(model, x.reshape(3, -1))[0])
    steps = STEPS * INPUTS // width
    assert found.provenance.notes == (
        f"fold folds an input of 18 values: it is ({steps}, {width}) from the start",
    )


def test_a_model_of_vectors_is_refused(tmp_path: Path) -> None:
    x = inputs(4)
    model = keras.Model(x, lstm()(L.RepeatVector(5, name="copies")(x)))
    with pytest.raises(
        UnsupportedError,
        match=r"layer copies \(RepeatVector\): repeats the input, which is one vector and no "
        r"sequence, expected a model that takes sequences",
    ):
        formats.load(save(model, tmp_path / "m.keras"))
