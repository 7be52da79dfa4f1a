"""What Keras 3 saves is what ifgo reads, and what ifgo writes Keras 3 computes alike."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_peer import (
    agree,
    computed,
    keras,
    load,
    randomised,
    save,
    save_weights,
    within,
)
from onnx_bounds import cell_bound, float32_bound

from ifgo import formats
from ifgo.errors import UnsupportedError
from ifgo.model import LSTMCell, Model
from ifgo.reference import truth

pytestmark = pytest.mark.peers
L = keras.layers

STEPS, INPUTS = 6, 3
ENDINGS = pytest.mark.parametrize("ending", ["keras", "h5"])


def x_of(seed: int, *, masked: bool = False) -> Any:
    x = np.random.default_rng(seed).uniform(-1, 1, (3, STEPS, INPUTS))
    if masked:
        x[0, 0] = x[0, 3] = x[1, 4:] = 0.5
    return x


def build(layers: list[Any], *, masked: bool = False, steps: int | None = STEPS) -> Any:
    first = [L.Masking(0.5, dtype="float64")] if masked else []
    inputs = keras.Input((steps, INPUTS), dtype="float64")
    return randomised(keras.Sequential([inputs, *first, *layers]), 7)


def lstm(units: int = 4, **options: Any) -> Any:
    return L.LSTM(units, dtype="float64", **options)


@ENDINGS
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": s, "go_backwards": b, "zero_output_for_mask": z}
        for s, b, z in itertools.product([False, True], repeat=3)
    ]
    + [
        {"return_sequences": True, "use_bias": False},
        {"return_sequences": True, "unroll": True},
        {"return_sequences": True, "dropout": 0.2, "recurrent_dropout": 0.3},
        {"return_sequences": True, "unit_forget_bias": False, "kernel_regularizer": "l2"},
    ],
    ids=str,
)
def test_options(tmp_path: Path, ending: str, masked: bool, options: dict[str, Any]) -> None:
    model = build([lstm(**options)], masked=masked)
    found = agree(model, tmp_path / f"m.{ending}", x_of(1, masked=masked))
    facts = found.recurrent[0].training
    assert facts.input == options.get("dropout", 0)
    assert facts.recurrent == options.get("recurrent_dropout", 0)


@pytest.mark.parametrize("name", ["sigmoid", "hard_sigmoid", "relu", "linear", "softsign"])
@pytest.mark.parametrize("inside", ["tanh", "softplus", "elu", "leaky_relu", "hard_sigmoid"])
def test_activations(tmp_path: Path, name: str, inside: str) -> None:
    layer = lstm(recurrent_activation=name, activation=inside, return_sequences=True)
    agree(randomised(build([layer]), 1, 0.2), tmp_path / "m.keras", x_of(2))


@ENDINGS
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave"])
def test_bidirectional(
    tmp_path: Path, ending: str, masked: bool, sequences: bool, merge: str
) -> None:
    both = L.Bidirectional(lstm(return_sequences=sequences), merge_mode=merge, dtype="float64")
    agree(build([both], masked=masked), tmp_path / f"m.{ending}", x_of(3, masked=masked))


@ENDINGS
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
def test_cells(tmp_path: Path, ending: str, masked: bool, sequences: bool) -> None:
    """RNN of one cell and of three, and a bidirectional RNN of a cell."""
    one = L.RNN(L.LSTMCell(4, dtype="float64"), return_sequences=True, dtype="float64")
    inner = L.RNN(L.LSTMCell(3, dtype="float64"), return_sequences=True, dtype="float64")
    cells = [L.LSTMCell(n, dtype="float64") for n in (4, 2, 3)]
    stack = L.RNN(cells, return_sequences=sequences, dtype="float64")
    both = L.Bidirectional(inner, dtype="float64")
    agree(build([one, both, stack], masked=masked), tmp_path / f"m.{ending}",
          x_of(4, masked=masked))  # fmt: skip


def test_a_stack_of_cells_that_goes_backwards(tmp_path: Path) -> None:
    cells = [L.LSTMCell(n, dtype="float64") for n in (4, 2)]
    stack = L.RNN(cells, return_sequences=True, go_backwards=True, dtype="float64")
    agree(build([stack]), tmp_path / "m.keras", x_of(5))


@ENDINGS
def test_what_stands_around(tmp_path: Path, ending: str) -> None:
    options = {"dtype": "float64"}
    layers = [
        L.Rescaling(0.5, offset=0.25, **options),
        lstm(return_sequences=True),
        L.SpatialDropout1D(0.2),
        L.TimeDistributed(L.Dense(5, activation="softmax", **options), **options),
        L.TimeDistributed(L.BatchNormalization(**options), **options),
        L.BatchNormalization(scale=False, epsilon=0.01, **options),
        L.GaussianNoise(0.1, **options),
        L.Dense(4, use_bias=False, **options),
        L.LeakyReLU(0.1, **options),
        L.ELU(0.7, **options),
        L.ReLU(**options),
        L.ReLU(negative_slope=0.2, **options),
        lstm(3),
        L.Dense(4, activation="leaky_relu", **options),
        L.Softmax(**options),
        L.RepeatVector(5, **options),
        lstm(2, return_sequences=True),
        L.Flatten(**options),
        L.Reshape((10, 1), **options),
        lstm(2, return_sequences=True),
        L.Reshape((-1,), **options),
        L.Reshape((1, 20), **options),
        lstm(2),
        L.Flatten(**options),
        L.Activation("hard_sigmoid", **options),
    ]
    agree(build(layers), tmp_path / f"m.{ending}", x_of(6))


@ENDINGS
def test_a_model_inside_a_model(tmp_path: Path, ending: str) -> None:
    inner = keras.Sequential([lstm(4, return_sequences=True), lstm(3, return_sequences=True)])
    model = build([lstm(4, return_sequences=True), inner, lstm(2)])
    agree(model, tmp_path / f"m.{ending}", x_of(7))


@ENDINGS
@pytest.mark.parametrize("zero", [False, True])
def test_tokens_and_states(tmp_path: Path, ending: str, zero: bool) -> None:
    """A functional model: padded tokens, initial states in, final states out. Keras 3 drops the
    mask of a layer that is given states, unless it is told to take it."""
    tokens = keras.Input((None,), dtype="int32", name="words")
    h, c = (keras.Input((4,), dtype="float64", name=name) for name in ("h", "c"))
    table = L.Embedding(9, 3, mask_zero=zero, dtype="float64")(tokens)
    layer, mask = lstm(return_sequences=True, return_state=True), None
    if zero:
        rows = layer(table, initial_state=[h, c])[0]
        path = save(keras.Model([tokens, h, c], rows), tmp_path / f"dropped.{ending}")
        with pytest.raises(UnsupportedError, match="Keras 3 forgets the mask of its input"):
            formats.load(path)
        layer = lstm(return_sequences=True, return_state=True)
        mask = keras.ops.not_equal(tokens, 0)
    y, h_n, c_n = layer(table, initial_state=[h, c], mask=mask)
    out = L.Dense(2, dtype="float64")(y)
    model = randomised(keras.Model([tokens, h, c], [out, c_n, h_n]), 8)
    rng = np.random.default_rng(9)
    x = np.array([[0, 3, 0, 8, 1], [2, 2, 5, 0, 0]])
    state = [rng.normal(size=(2, 4)) for _ in "hc"]
    expected = computed(model, [x, *state])
    found = formats.load(save(model, tmp_path / f"m.{ending}"))
    assert [entry.name for entry in found.inputs] == ["words", "h", "c"]
    assert [output.role for output in found.outputs] == ["sequence", "c_n", "h_n"]
    result = truth.forward(found, x, dict(zip(("h0", "c0"), state, strict=True)))
    final = result.state
    start = max(np.abs(s).max() for s in state)
    bound = max(float32_bound(found, result, x, start), cell_bound(found, result, x, start))
    for ours, theirs in zip((result.y, final["c0"][0], final["h0"][0]), expected, strict=True):
        assert np.abs(ours - theirs).max() < bound


def test_masks_of_a_functional_model(tmp_path: Path) -> None:
    x = keras.Input((STEPS, INPUTS), dtype="float64")
    _, h, _ = lstm(return_sequences=True, return_state=True)(L.Masking(0.5, dtype="float64")(x))
    model = randomised(keras.Model(x, L.Dense(2, dtype="float64")(h)), 10)
    agree(model, tmp_path / "m.keras", x_of(11, masked=True))


def test_stateful(tmp_path: Path) -> None:
    inputs = keras.Input(batch_shape=(3, STEPS, INPUTS), dtype="float64")
    model = randomised(keras.Sequential([inputs, lstm(stateful=True)]), 12)
    found = formats.load(save(model, tmp_path / "m.keras"))
    assert found.recurrent[0].stateful
    state = None
    for seed in (1, 2):
        result = truth.forward(found, x_of(seed), state)
        state = result.state
        bound = float32_bound(found, result, x_of(seed))
        assert np.abs(result.y - computed(model, x_of(seed))[0]).max() < bound


@pytest.mark.parametrize("seed", range(12))
def test_random_chains(tmp_path: Path, seed: int) -> None:
    """Options drawn together, and the weights alone with model.to_json() beside them."""
    rng = np.random.default_rng(seed)
    masked = bool(rng.integers(2))
    layers: list[Any] = []
    for _ in range(int(rng.integers(1, 4))):
        options = {
            "return_sequences": True,
            "use_bias": bool(rng.integers(2)),
            "activation": str(rng.choice(["tanh", "softsign", "sigmoid"])),
            "recurrent_activation": str(rng.choice(["sigmoid", "tanh"])),
        }
        one = lstm(int(rng.integers(1, 6)), **options)
        if rng.integers(2):
            merge = str(rng.choice(["concat", "sum", "mul", "ave"]))
            one = L.Bidirectional(one, merge_mode=merge, dtype="float64")
        layers += [one] + [L.Dense(3, activation="tanh", dtype="float64")] * int(rng.integers(2))
    if rng.integers(2):
        layers.append(lstm(3, go_backwards=bool(rng.integers(2))))
    model = build(layers, masked=masked, steps=None)
    x = x_of(seed + 20, masked=masked)
    whole = agree(model, tmp_path / "m.keras", x)
    save_weights(model, tmp_path / "m.weights.h5")
    (tmp_path / "m.json").write_text(model.to_json())
    again = formats.load(tmp_path / "m.weights.h5", config=tmp_path / "m.json")
    for name, array in whole.arrays.items():
        assert np.array_equal(array, again.arrays[name])


def test_hard_sigmoid_of_weights_alone_needs_a_version(tmp_path: Path) -> None:
    model = build([lstm(recurrent_activation="hard_sigmoid")])
    save_weights(model, tmp_path / "m.weights.h5")
    config = json.loads(model.to_json())
    (alone,) = formats.list_layers(tmp_path / "m.weights.h5").layers
    assert (alone.name, alone.input_size, alone.hidden_size) == ("lstm", INPUTS, 4)
    assert "weights alone" in alone.refusal
    with pytest.raises(UnsupportedError, match="no keras_version is known"):
        formats.load(tmp_path / "m.weights.h5", config=config)
    found = formats.load(tmp_path / "m.weights.h5", config={**config, "keras_version": "3.1.0"})
    within(found, x_of(1), computed(model, x_of(1))[0])


def test_layers_out_of_a_larger_model(tmp_path: Path) -> None:
    """Two inputs, a convolution and a sum: the LSTMs of one path alone."""
    x = keras.Input((None, INPUTS), dtype="float64", name="x")
    other = keras.Input((None, 4), dtype="float64", name="z")
    first = lstm(return_sequences=True, name="first")(x)
    second = lstm(return_sequences=True, name="second")(L.Dropout(0.1, name="drop")(first))
    total = L.Add(name="sum")([second, L.Conv1D(4, 1, dtype="float64", name="conv")(other)])
    out = L.Bidirectional(lstm(2, name="third"), name="third", dtype="float64")(total)
    model = randomised(keras.Model([x, other], out), 13)
    path = save(model, tmp_path / "m.keras")
    with pytest.raises(UnsupportedError, match="is a second input"):
        formats.load(path)
    listing = formats.list_layers(path)
    assert listing.names == ("first", "second", "third")
    assert [found.after for found in listing.layers] == ["", "first", ""]
    assert dict(listing.others) == {"InputLayer": 2, "Dropout": 1, "Add": 1, "Conv1D": 1}
    found = formats.load(path, select="first,second")
    expected = computed(keras.Model(x, model.get_layer("second").output), x_of(14))[0]
    within(found, x_of(14), expected)
    assert found.provenance.notes[-1] == (
        "left out 5 layers: 2 InputLayer, 1 Add, 1 Bidirectional, 1 Conv1D"
    )


# -- written by ifgo ------------------------------------------------------------------------------


def single(layers: list[Any], *, masked: bool = False) -> Any:
    first = [L.Masking(0.5)] if masked else []
    model = keras.Sequential([keras.Input((STEPS, INPUTS)), *first, *layers])
    return randomised(model, 15)


WRITTEN: dict[str, Any] = {
    "lstm": lambda: [L.LSTM(4, return_sequences=True, recurrent_activation="hard_sigmoid")],
    "backwards": lambda: [L.LSTM(4, go_backwards=True)],
    "both": lambda: [L.Bidirectional(L.LSTM(3, return_sequences=True), merge_mode="ave")],
    "both, last": lambda: [L.Bidirectional(L.LSTM(3)), L.Dense(2, activation="softmax")],
    "zero": lambda: [L.LSTM(3, return_sequences=True, zero_output_for_mask=True)],
    "around": lambda: [
        L.LSTM(4, return_sequences=True, dropout=0.1, recurrent_dropout=0.2),
        L.BatchNormalization(),
        L.Dropout(0.5),
        L.LeakyReLU(0.1),
        L.LSTM(2),
        L.RepeatVector(3),
        L.LSTM(2, return_sequences=True),
        L.Flatten(),
        L.Reshape((6, 1)),
        L.LSTM(2, use_bias=False),
        L.Activation("elu"),
    ],
}


@ENDINGS
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("masked", [False, True])
def test_keras_computes_what_is_written(
    tmp_path: Path, ending: str, name: str, masked: bool
) -> None:
    """Every bit comes back, and Keras gives the very numbers of the model that it saved."""
    model = single(WRITTEN[name](), masked=masked)
    x = x_of(16, masked=masked).astype(np.float32)
    (expected,) = computed(model, x)
    read = formats.load(save(model, tmp_path / "in.keras"))
    report = formats.save(read, tmp_path / f"out.{ending}")
    assert report.exact
    again = formats.load(tmp_path / f"out.{ending}")
    assert list(again.arrays) == list(read.arrays)
    assert all(np.array_equal(a, again.arrays[n]) for n, a in read.arrays.items())
    assert [str(layer) for layer in again.layers] == [str(layer) for layer in read.layers]
    (found,) = computed(load(tmp_path / f"out.{ending}"), x)
    assert np.array_equal(found, expected)


@ENDINGS
def test_two_biases_become_one(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(17)
    parts = {"weight_ih": (16, 3), "weight_hh": (16, 4), "bias_ih": (16,), "bias_hh": (16,)}
    arrays = {n: rng.uniform(-0.4, 0.4, shape).astype(np.float32) for n, shape in parts.items()}
    from ifgo.model import FeatureInput, Recurrent

    model = Model((FeatureInput(3),), (Recurrent("r", LSTMCell(**arrays)),))
    report = formats.save(model, tmp_path / f"m.{ending}")
    (line,) = report.folded
    assert line.startswith("r (lstm): bias_ih + bias_hh in one float32, off by up to 0.")
    x = x_of(18).astype(np.float32)
    result = truth.forward(model, x)
    (found,) = computed(load(tmp_path / f"m.{ending}"), x)
    assert np.abs(found - result.y).max() < float32_bound(model, result, x)
