"""Keras: what has no place in a Model is refused by name, and one changed key never lies."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_cases import draw, lstm, lstm_layer, lstm_weights, named, sequential, store

from ifgo import formats
from ifgo.activations import SIGMOID, TANH, Activation
from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats.keras._hdf5 import Hdf5
from ifgo.model import (
    FeatureInput,
    InitialState,
    LengthsInput,
    Model,
    Recurrent,
    Residual,
)

RNG = np.random.default_rng
WEIGHTS = lstm_weights(RNG(1), 3, 4)
SELECT = ". --select takes recurrent layers out of a larger model"
DTYPE_HINT = ". Load it in Keras, set every layer's dtype policy to float32, and save it"
REPORT = ". Report the model if Keras wrote it"


def saved(
    folder: Path, layers: list[Any], version: str | None = "2.3.1", **arrays: dict[str, Any]
) -> Path:
    return store(
        folder / "m.h5",
        sequential(layers, [None, 5, 3]),
        {"rnn": named("rnn", WEIGHTS), **arrays},
        version=version,
    )


def refusal(path: Path, kind: type[IfgoError], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        formats.load(path, **options)
    return str(caught.value).removeprefix(f"{path}: ")


def other(kind: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": "other", **config}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"activation": "gelu"},
            "layer rnn (LSTM): activation is 'gelu', expected one of linear, sigmoid, tanh, relu, "
            f"softmax, softplus, softsign, elu, leaky_relu, hard_sigmoid{SELECT}",
        ),
        (
            {"dtype": "mixed_float16"},
            "layer rnn (LSTM): computes by the dtype policy 'mixed_float16', expected float32 or "
            f"float64{DTYPE_HINT}",
        ),
        (
            {"dtype": {"class_name": "QuantizedDTypePolicy", "config": {"name": "int8"}}},
            "layer rnn (LSTM): computes by the dtype policy 'int8', expected float32 or "
            f"float64{DTYPE_HINT}",
        ),
        (
            {"peephole": True},
            f"layer rnn (LSTM): sets peephole to 'True', expected no such key{REPORT}",
        ),
        (
            {"lora_rank": 4},
            f"layer rnn (LSTM): sets lora_rank to '4', expected None{REPORT}",
        ),
    ],
)
def test_options_of_an_lstm(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, [lstm_layer("rnn", 4, **changes)])
    assert refusal(path, UnsupportedError) == message


def test_hard_sigmoid_without_a_version(tmp_path: Path) -> None:
    layer = lstm_layer("rnn", 4, recurrent_activation="hard_sigmoid")
    assert refusal(saved(tmp_path, [layer], None), UnsupportedError) == (
        "layer rnn (LSTM): recurrent_activation is 'hard_sigmoid', clip(0.2x + 0.5) in Keras 1 and "
        "2 and clip(x/6 + 0.5) in Keras 3, and no keras_version is known. "
        'Write "keras_version": "2.15.0" (or what it was) beside class_name in the config'
    )


LAYERS = "expected LSTM, Bidirectional, RNN, Dense, Embedding and what goes with them"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            other("Lambda", function=["code", None, None]),
            "layer other (Lambda): computes by Python code that the file holds, which is never "
            f"run, {LAYERS}{SELECT}",
        ),
        (
            other("LayerNormalization"),
            f"layer other (LayerNormalization): is a layer of class 'LayerNormalization', {LAYERS}"
            f"{SELECT}",
        ),
        (
            other("Dense", units=2) | {"module": "mine", "registered_name": "mine>Dense"},
            "layer other (Dense): is a class of its own, 'mine>Dense', expected a layer of Keras"
            f"{SELECT}",
        ),
        (
            other("Reshape", target_shape=[10, 2]),
            "layer other (Reshape): makes (10, 2) out of (5, 4), expected (20,), (20, 1) or "
            f"(1, 20){SELECT}",
        ),
        (
            other("RepeatVector", n=3),
            f"layer other (RepeatVector): gets a sequence, expected a vector{SELECT}",
        ),
        (
            other("TimeDistributed", layer=lstm_layer("inner", 2)),
            "layer other (TimeDistributed): wraps a 'LSTM', expected one of Dense, Activation, "
            f"Dropout, BatchNormalization, LeakyReLU, ReLU, ELU, ThresholdedReLU{SELECT}",
        ),
        (
            other("ReLU", max_value=6.0),
            f"layer other (ReLU): max_value is '6.0', expected null{SELECT}",
        ),
        (
            other("Bidirectional", layer=lstm_layer("inner", 2), merge_mode=None),
            "layer other (Bidirectional): merge_mode is 'None', expected one of 'concat', 'sum', "
            "'mul', 'ave'. null gives two tensors, which is no chain",
        ),
        (
            other("RNN", cell=other("GRUCell", units=2)),
            "layer other (RNN): layer other (GRUCell): has a cell of class 'GRUCell', "
            "expected LSTMCell",
        ),
    ],
    ids=lambda value: value["class_name"] if isinstance(value, dict) else "",
)
def test_layers(tmp_path: Path, layer: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, [lstm_layer("rnn", 4), layer])
    assert refusal(path, UnsupportedError) == message


def test_a_softmax_layer_under_a_mask(tmp_path: Path) -> None:
    layers = [other("Masking", mask_value=0.0), lstm_layer("rnn", 4)]
    layers.append({"class_name": "Softmax", "config": {"name": "s", "axis": -1}})
    assert refusal(saved(tmp_path, layers, other={}), UnsupportedError) == (
        "layer s (Softmax): gets a mask, which it would apply to features, expected no mask. "
        "An Activation('softmax') ignores masks"
    )


def test_masks_of_a_version_that_does_not_say(tmp_path: Path) -> None:
    both = other("Bidirectional", layer=lstm_layer("inner", 4))
    masking = {"class_name": "Masking", "config": {"name": "mask", "mask_value": 0.0}}
    arrays = named("f", WEIGHTS) | named("b", WEIGHTS)
    path = store(
        tmp_path / "m.h5",
        sequential([masking, both], [None, 5, 3]),
        {"mask": {}, "other": arrays},
        version="2.2.4-tf",
    )
    assert refusal(path, UnsupportedError) == (
        "layer other (Bidirectional): gets a mask, and keras_version 2.2.4-tf does not tell "
        "whether its masked steps give zeros, expected Keras 3, or TensorFlow 2.2 and later. "
        "Load it in such a Keras and save it again"
    )


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    path = saved(tmp_path, [lstm_layer("rnn", 5)])
    assert refusal(path, FormatError) == (
        "layer rnn (LSTM): has a kernel of shape (3, 16) and a recurrent kernel of (4, 16), "
        "expected (I, 20) and (5, 20) for 5 units"
    )
    path = saved(tmp_path, [lstm_layer("rnn", 4, use_bias=False)])
    assert refusal(path, UnsupportedError) == (
        "holds arrays of rnn, which the config has no layer for, expected a layer for every array. "
        "Give the config of this model, or choose layers with --select"
    )
    swapped = dict(zip(named("rnn", WEIGHTS), [WEIGHTS[k] for k in (0, 1, 2)], strict=True))
    turned = {name: swapped[name] for name in sorted(swapped)}
    path = store(tmp_path / "m.h5", sequential([lstm_layer("rnn", 4)], [None, 5, 3]),
                 {"rnn": turned})  # fmt: skip
    assert refusal(path, FormatError) == (
        "layer rnn (LSTM): has the arrays rnn/bias:0, rnn/kernel:0, rnn/recurrent_kernel:0, "
        "expected kernel, recurrent_kernel, bias in this order. "
        "The config is another model's, or the file is damaged"
    )


def test_weights_alone(tmp_path: Path) -> None:
    path = store(tmp_path / "w.h5", None, {"rnn": named("rnn", WEIGHTS)}, whole=False)
    assert refusal(path, FormatError) == (
        "holds weights alone, and no config, expected the config of the model. Give what "
        "model.to_json() writes with --config FILE; `ifgo inspect --lstms` lists what can be read "
        "without"
    )
    assert refusal(path, UnsupportedError, select="rnn") == (
        "layer 'rnn' cannot be read: its file holds weights alone, which do not say its "
        "activations, merge mode or direction, expected the config of the model. Give what "
        "model.to_json() writes with --config FILE"
    )
    whole = saved(tmp_path, [lstm_layer("rnn", 4)])
    assert refusal(whole, UsageError, config=[lstm_layer("rnn", 4)]) == (
        "holds its config, and another is given, expected one. Leave it"
    )


def test_a_model_class_of_its_own(tmp_path: Path) -> None:
    path = store(tmp_path / "m.h5", {"class_name": "MyModel", "config": {"units": 3}},
                 {"rnn": named("rnn", WEIGHTS)})  # fmt: skip
    assert refusal(path, UnsupportedError) == (
        "its config is a 'MyModel', expected a Sequential or functional model. A model class of "
        "its own keeps its computation in Python: rebuild it from layers"
    )


# -- one key at a time ----------------------------------------------------------------------------

MEANINGLESS = {"trainable", "unroll", "kernel_initializer", "unit_forget_bias", "implementation"}
MEANINGLESS |= {"kernel_regularizer"}
CHANGED: dict[str, list[Any]] = {
    "return_sequences": [False],
    "return_state": [True],
    "go_backwards": [True],
    "stateful": [True],
    "units": [3, 8, 0],
    "activation": ["relu", "swish", None],
    "recurrent_activation": ["hard_sigmoid", "relu", {"class_name": "X", "config": {}}],
    "use_bias": [False],
    "dropout": [0.5, 1.0, "x"],
    "recurrent_dropout": [0.5],
    "dtype": ["float64", "float16", 3],
    "time_major": [True],
    "zero_output_for_mask": [True],
    "an unknown key": [1],
}


@pytest.mark.parametrize("key", [*CHANGED, *sorted(MEANINGLESS)])
def test_one_key_changes_the_numbers_as_in_keras_or_is_refused(tmp_path: Path, key: str) -> None:
    x = draw(RNG(2), 2, 5, 3)
    plain = {"activation": "tanh", "recurrent_activation": "sigmoid", "go_backwards": False}
    for value in CHANGED.get(key, [1]):
        config = lstm_layer("rnn", **({"units": 4} | {key: value}))
        path = saved(tmp_path, [config])
        try:
            model = formats.load(path)
        except (UnsupportedError, FormatError):
            assert key not in MEANINGLESS
            continue
        meant = plain | ({key: value or "linear"} if key in plain else {})
        meant["go_backwards"] = bool(config["config"]["go_backwards"])
        rows, _, _ = lstm(x, WEIGHTS, **meant)
        expected = rows if config["config"]["return_sequences"] else rows[:, -1]
        assert np.abs(model.run(x, on="truth")[0] - expected).max() < 1e-12
        layer = model.recurrent[0]
        assert layer.stateful == (key == "stateful")
        assert layer.zero_masked == (key == "zero_output_for_mask")
        assert model.input.axes == ("TB" if key == "time_major" else "BT")
        assert layer.training.input == (value if key == "dropout" else 0)
        assert layer.training.recurrent == (value if key == "recurrent_dropout" else 0)


# -- HDF5 -----------------------------------------------------------------------------------------


def test_what_h5py_writes_is_read_as_h5py_reads_it(tmp_path: Path) -> None:
    """Two superblocks, both byte orders, chunks with every filter, texts of both kinds."""
    rng = RNG(3)
    for version in ("earliest", "latest"):
        path = tmp_path / f"{version}.h5"
        with h5py.File(path, "w", libver=version) as file:
            file.attrs["one"] = "a text of any length"
            file.attrs["list"] = np.array([b"ab", b"c"])
            file.attrs["many"] = ["x", "yy", "zzz"]
            for k in range(6):
                file[f"group/{k}/values"] = rng.normal(size=(3, k + 1)).astype("<f2")
            file["big"] = rng.normal(size=(4, 3)).astype(">f8")
            file["scalar"] = np.float32(3)
            if version == "earliest":
                options = {"chunks": (4, 3), "compression": "gzip", "fletcher32": True}
                rows = rng.normal(size=(30, 7)).astype("f4")
                file.create_dataset("packed", data=rows, shuffle=True, **options)
        root = Hdf5(path.read_bytes()).root
        assert root.text("one") == "a text of any length"
        assert root.texts("list") == ["ab", "c"]
        assert root.texts("many") == ["x", "yy", "zzz"]
        assert root.texts("absent") is None
        seen = 0
        with h5py.File(path) as file:

            def check(name: str, item: Any, root: Any = root) -> None:
                nonlocal seen
                if isinstance(item, h5py.Dataset):
                    found = root.at(name).array()
                    assert found.dtype == item.dtype.newbyteorder("=")
                    assert np.array_equal(found, item[()])
                    seen += 1

            file.visititems(check)
        assert seen == (9 if version == "earliest" else 8)


def test_every_truncation_is_an_error_of_ours(tmp_path: Path) -> None:
    data = saved(tmp_path, [lstm_layer("rnn", 4)]).read_bytes()
    cut = tmp_path / "cut.h5"
    for end in range(0, len(data), 97):
        cut.write_bytes(data[:end])
        with contextlib.suppress(FormatError, UnsupportedError):
            formats.load(cut)


# -- writing --------------------------------------------------------------------------------------


def refused_writing(path: Path, *layers: Any, inputs: tuple[Any, ...] = ()) -> str:
    model = Model((FeatureInput(3), *inputs), layers)
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, path / "m.keras")
    assert not (path / "m.keras").exists()
    return str(caught.value).removeprefix(f"{path / 'm.keras'}: ")


def cell(**more: Any) -> LSTMCell:
    return LSTMCell(draw(RNG(4), 16, 3), draw(RNG(5), 16, 4), draw(RNG(6), 16), **more)


NATIVE = ". Write an .ifgo file, which holds every model"


def test_writing_says_all_that_keras_cannot_hold(tmp_path: Path) -> None:
    one = Recurrent(
        "r",
        cell(
            peephole=draw(RNG(7), 3, 4),
            clip_cell=3.0,
            coupling="f=1-i",
            activations=(Activation("hard_sigmoid", 0.2, 0.5), TANH, SIGMOID),
        ),
        initial=InitialState("constant", np.ones((1, 4)), np.ones((1, 4))),
    )
    assert refused_writing(tmp_path, one, inputs=(LengthsInput(),)) == (
        "Keras cannot hold lengths ('lengths'); layer r: initial state of kind constant; "
        "layer r: peephole; layer r: clip_cell 3.0; layer r: coupling f=1-i; layer r: activations "
        "tanh of the candidate and sigmoid of the output, which Keras has as one; layer r: "
        f"activation hard_sigmoid(0.2, 0.5) in the cell{NATIVE}"
    )


def test_writing_a_backward_direction_alone_and_a_residual(tmp_path: Path) -> None:
    square = LSTMCell(draw(RNG(8), 12, 3), draw(RNG(9), 12, 3))
    layers = (Recurrent("r", None, cell()),)
    assert refused_writing(tmp_path, *layers) == (
        "Keras cannot hold layer r: a backward direction alone, whose sequence Keras would turn"
        f"{NATIVE}"
    )
    assert refused_writing(tmp_path, Residual("s", (Recurrent("r", square),), 3)) == (
        f"Keras cannot hold layer s: residual{NATIVE}"
    )


def test_a_forget_bias_is_folded_on_request(tmp_path: Path) -> None:
    model = Model((FeatureInput(3),), (Recurrent("r", cell(forget_bias=1.0)),))
    with pytest.raises(UnsupportedError, match=r"layer r: forget_bias 1\. Permit it with"):
        formats.save(model, tmp_path / "m.keras")
    formats.save(model, tmp_path / "m.keras", allow_lossy=True)
    x = draw(RNG(10), 1, 5, 3)
    again = formats.load(tmp_path / "m.keras")
    # One rounding of the sum 1 + b, b below 0.5: half an ulp of 2^-23 per step and gate.
    assert np.abs(again.run(x, on="truth")[0] - model.run(x, on="truth")[0]).max() < 5 * 2.0**-24


def test_writing_weights_alone(tmp_path: Path) -> None:
    model = Model((FeatureInput(3),), (Recurrent("r", cell()),))
    with pytest.raises(UsageError) as caught:
        formats.save(model, tmp_path / "m.weights.h5")
    assert str(caught.value).endswith(
        "does not end in .keras or .h5, expected NAME.keras, or NAME.h5 of the older form; weights "
        "without a config say less"
    )


def test_json_twice_the_same_key(tmp_path: Path) -> None:
    path = store(tmp_path / "w.h5", None, {"rnn": named("rnn", WEIGHTS)}, whole=False)
    written = tmp_path / "c.json"
    text = json.dumps(sequential([lstm_layer("rnn", 4)]))
    written.write_text(text.replace('"units": 4', '"units": 4, "units": 4'))
    assert "c.json: config is no JSON (a key twice)" in refusal(path, FormatError, config=written)
