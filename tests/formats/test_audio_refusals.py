"""RTNeural, GuitarML and NAM files: what is refused, by key, with the message a user reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_cases import (
    FORWARD,
    Tree,
    entry,
    guitarml,
    nam,
    rt_dense,
    rt_lstm,
    rt_norm,
    rtneural,
    store,
)

from ifgo import formats
from ifgo.errors import FormatError, IfgoError, ModelError, UnsupportedError
from ifgo.model import (
    Activation,
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    InitialState,
    LastStep,
    LSTMCell,
    Model,
    Recurrent,
    Residual,
    Scale,
    TokenInput,
)

RNG = np.random.default_rng(0)
REMOVE = ". Correct its spelling, or remove it if it changes no number"
PART = ". The file is no whole model of this format"
FLOAT64 = 1e-12
"""Two float64 computations of some ten terms a step."""
GAINED = 16 * 2.0**-24
"""A gain is rounded to float32, and outputs stay below 16."""


def refusal(path: Path, form: str) -> str:
    with pytest.raises(IfgoError) as caught:
        formats.load(path, form)
    assert caught.value.exit_code in (3, 4)
    return str(caught.value).removeprefix(f"{path}: ")


def rt(*layers: Tree, inputs: int = 2, **more: Any) -> Tree:
    return rtneural(inputs, *(layers or (rt_lstm(RNG, 2, 3), rt_dense(RNG, 3, 1))), **more)


def with_(tree: Tree, *path: Any, value: Any) -> Tree:
    """`tree` with one thing changed; None removes it."""
    owner: Any = tree
    for part in path[:-1]:
        owner = owner[part]
    if value is None:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return tree


KINDS = "one of lstm, dense, time-distributed-dense, activation, batchnorm"
CHAINS = ". ifgo reads chains of LSTM and dense layers"


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (
            with_(rt(), "rate", value=1),
            "key 'rate' is none that ifgo reads there, expected one of in_shape, layers, in_skip, "
            "in_gain, out_gain, metadata, input_batch, output_batch" + REMOVE,
        ),
        (with_(rt(), "layers", value=None), "has no layers" + PART),
        (with_(rt(), "layers", value={}), "layers is an object of 0, expected a list"),
        (with_(rt(), "layers", value=[]), "has 0 layers, expected 1 to 64 of them"),
        (
            with_(rt(), "layers", 0, value=3),
            "layers holds 3, expected objects in braces only",
        ),
        (
            with_(rt(), "in_shape", value=[None, 8, 4, 2]),
            "in_shape is [null, 8, 4, 2], expected [null, null, N] with N from 1 to 65536",
        ),
        *(
            (
                with_(rt(), "layers", 0, "type", value=kind),
                f'layer 0: type is "{kind}", expected {KINDS}{CHAINS}',
            )
            for kind in ("gru", "conv1d", "conv2d", "prelu", "batchnorm2d", "unknown")
        ),
        (
            with_(rt(), "layers", 0, "sample_rate_correction", value="linear"),
            "layer 0 (lstm): key 'sample_rate_correction' is none that ifgo reads there, expected "
            "one of type, activation, shape, weights" + REMOVE,
        ),
        (
            with_(rt(), "layers", 1, "activation", value="selu"),
            "layer 1 (dense): activation is \"selu\", expected one of '', 'tanh', 'relu', "
            "'sigmoid', 'softmax', 'elu'",
        ),
        (
            with_(rt(), "layers", 0, "activation", value="relu"),
            "layer 0 (lstm): activation is 'relu', and RTNeural computes tanh all the same, "
            "expected 'tanh' or ''. Train it with tanh; or say 'tanh' in the file, if that is what "
            "you run",
        ),
        (
            with_(rt(), "layers", 0, "shape", value=[None, None, 2]),
            "layer 0 (lstm): kernel of weights has shape (2, 12), expected (2, 8)",
        ),
        (
            with_(rt(), "layers", 0, "shape", value=[None, None, 0]),
            "layer 0 (lstm): shape is [null, null, 0], expected [null, null, N] with N from 1 to "
            "8192",
        ),
        (
            with_(rt(), "layers", 1, "weights", 1, value=None),
            "layer 1 (dense): weights holds 1 arrays, expected 2: kernel, bias",
        ),
        (
            with_(rt(), "layers", 0, "weights", 0, 1, value=[0.5]),
            "layer 0 (lstm): kernel of weights has rows of different lengths, expected (2, 12)",
        ),
        (
            with_(rt(), "layers", 0, "weights", 2, 1, value="1"),
            'layer 0 (lstm): bias of weights holds "1", expected numbers only',
        ),
        (
            with_(rt(), "layers", 0, "weights", 2, 1, value=True),
            "layer 0 (lstm): bias of weights holds true, expected numbers only",
        ),
        (
            with_(rt(), "layers", 0, "weights", 2, 1, value=1e39),
            "layer 0 (lstm): bias of weights holds 1e+39, which is infinite in float32, expected a "
            "finite float32",
        ),
        (
            with_(rt(), "layers", 0, "weights", 2, 1, value=10**400),
            f"layer 0 (lstm): bias of weights holds 1{'0' * 39}..., which is infinite in float32, "
            "expected a finite float32",
        ),
        (
            rt(rt_lstm(RNG, 2, 3), entry("activation", 4, [], "tanh")),
            "layer 1 (activation): shape declares 4 features, expected 3, what reaches it",
        ),
        (
            rt(rt_lstm(RNG, 2, 3), entry("activation", 3, [[1.0]], "tanh")),
            "layer 1 (activation): weights holds 1 arrays, expected 0",
        ),
        (
            rt(rt_lstm(RNG, 2, 3), rt_norm(RNG, 3) | {"epsilon": "small"}),
            'layer 1 (batchnorm): epsilon is "small", expected a number',
        ),
        (
            rt(rt_lstm(RNG, 2, 3), rt_norm(RNG, 3) | {"activation": "tanh"}),
            'layer 1 (batchnorm): activation is "tanh", expected none: RTNeural computes none '
            "after a batch norm",
        ),
        (rt(in_skip=2), "in_skip is 2, expected a whole number from 0 to 1"),
        (rt(in_gain="loud"), 'in_gain is "loud", expected a number'),
        (rt(out_gain=301), "out_gain is 301, expected decibels, at most 300"),
        (
            rt(rt_lstm(RNG, 2, 3), in_skip=1),
            "sets in_skip, and 3 values come out, expected one output, as AIDA-X has",
        ),
    ],
)
def test_rtneural(tmp_path: Path, tree: Tree, says: str) -> None:
    assert refusal(store(tmp_path, "rtneural", tree), "rtneural") == says


TENSORS = "rec.weight_ih_l0, rec.weight_hh_l0, rec.bias_ih_l0, rec.bias_hh_l0, lin.weight, lin.bias"
LSTMS = ". ifgo reads LSTM networks"


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (
            with_(guitarml(1), "model_data", "unit_type", value="GRU"),
            "model_data: unit_type is \"GRU\", expected 'LSTM'" + LSTMS,
        ),
        (
            with_(guitarml(1), "model_data", "model", value="GatedWaveNet"),
            "model_data: model is \"GatedWaveNet\", expected 'SimpleRNN'" + LSTMS,
        ),
        (
            with_(guitarml(1), "model_data", "dropout", value=0),
            "model_data: key 'dropout' is none that ifgo reads there, expected one of model, "
            "unit_type, input_size, output_size, num_layers, hidden_size, skip, bias_fl" + REMOVE,
        ),
        (
            guitarml(1, skip=2),
            "model_data: skip is 2 where output_size is 1, expected skip 0, or as many channels as "
            "come out. PyTorch would repeat the one over the other; ifgo adds channel to channel",
        ),
        (
            with_(guitarml(1), "model_data", "skip", value=3),
            "model_data: skip is 3, expected a whole number from 0 to 2",
        ),
        (
            with_(guitarml(1), "model_data", "hidden_size", value=3.0),
            "model_data: hidden_size is 3.0, expected a whole number from 1 to 8192",
        ),
        (
            with_(guitarml(1), "model_data", "hidden_size", value=4),
            "state_dict: rec.weight_ih_l0 has shape (12, 2), expected (16, 2)",
        ),
        (
            with_(guitarml(1), "model_data", "bias_fl", value="yes"),
            'model_data: bias_fl is "yes", expected true or false',
        ),
        (
            with_(guitarml(1), "state_dict", "rec.bias_hh_l0", value=None),
            "state_dict: has no rec.bias_hh_l0" + PART,
        ),
        (
            with_(guitarml(1), "state_dict", "rec.weight_ih_l1", value=[]),
            "state_dict: tensor 'rec.weight_ih_l1' has no place in the network that model_data "
            f"describes, expected one of {TENSORS}",
        ),
        (
            with_(guitarml(1), "model_data", "bias_fl", value=False),
            "state_dict: tensor 'lin.bias' has no place in the network that model_data describes, "
            f"expected one of {TENSORS.removesuffix(', lin.bias')}",
        ),
        (
            with_(guitarml(1), "extra", value=1),
            "key 'extra' is none that ifgo reads there, expected one of model_data, state_dict"
            + REMOVE,
        ),
    ],
)
def test_guitarml(tmp_path: Path, tree: Tree, says: str) -> None:
    assert refusal(store(tmp_path, "guitarml", tree), "guitarml") == says


COUNT = ". The config is another model's, or the list was cut short"


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        *(
            (
                with_(nam(1), "architecture", value=kind),
                f"architecture is \"{kind}\", expected 'LSTM'" + LSTMS,
            )
            for kind in ("WaveNet", "ConvNet", "Linear", "SlimmableContainer")
        ),
        (
            with_(nam(1), "version", value="0.4.0"),
            "is of version 0.4.0, expected 0.5.x to 0.7.x. Convert it with the trainer that wrote "
            "it, or install a newer ifgo",
        ),
        (
            with_(nam(1), "version", value="1.5.0"),
            "is of version 1.5.0, expected 0.5.x to 0.7.x. Convert it with the trainer that wrote "
            "it, or install a newer ifgo",
        ),
        (
            with_(nam(1), "version", value="five"),
            'version is "five", expected a version such as 0.5.4',
        ),
        (
            with_(nam(1), "weights", 69, value=None),
            "weights has 69 numbers, expected 70 = 4·3·(1+3) + 6·3 + 1·(3+1)" + COUNT,
        ),
        (
            with_(nam(2, layers=3), "weights", value=[0.0] * 99),
            "weights has 99 numbers, expected 250 = 4·3·(1+3) + 6·3 + 2·(4·3·(3+3) + 6·3) + "
            "1·(3+1)" + COUNT,
        ),
        (
            with_(nam(1), "weights", value=[0.0] * 71),
            "weights has 71 numbers, expected 70 = 4·3·(1+3) + 6·3 + 1·(3+1)" + COUNT,
        ),
        (
            with_(nam(1), "weights", 5, value=[1.0]),
            "weights holds a list of 1, expected numbers only",
        ),
        (
            with_(nam(1), "config", "head", value={}),
            "config: key 'head' is none that ifgo reads there, expected one of input_size, "
            "hidden_size, num_layers, in_channels, out_channels" + REMOVE,
        ),
        (
            nam(1, in_channels=2),
            "config: in_channels is 2, expected input_size, 1",
        ),
        (
            with_(nam(1), "submodels", value=[]),
            "key 'submodels' is none that ifgo reads there, expected one of version, metadata, "
            "architecture, config, weights, sample_rate" + REMOVE,
        ),
        (
            with_(nam(1), "metadata", value=[]),
            "metadata is a list of 0, expected an object in braces",
        ),
    ],
)
def test_nam(tmp_path: Path, tree: Tree, says: str) -> None:
    assert refusal(store(tmp_path, "nam", tree), "nam") == says


# -- one thing at a time --------------------------------------------------------------------------

VALUES = (0, 1, 2, 4, 1.5, -1, "", "LSTM", "tanh", "relu", True, None, [], {}, [1], 10**30)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Any:
    """The place of every value but single weights."""
    if path and path[-1] in ("weights", "state_dict", "metadata"):
        return
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


@pytest.mark.parametrize("form", ["rtneural", "guitarml", "nam"])
def test_one_value_at_a_time(tmp_path: Path, form: str) -> None:
    """Another value is refused, or changes the numbers as it changes them in the player."""

    def make() -> Tree:
        if form == "rtneural":
            return rt(in_skip=1, in_gain=0, out_gain=0)
        return guitarml(1) if form == "guitarml" else nam(1, out_channels=1, in_channels=1)

    x = np.random.default_rng(3).normal(0, 1, (4, 1 if form == "nam" else 2)).astype("f")
    read = refused = 0
    for path in places(make()):
        for value in VALUES:
            tree = make()
            owner: Any = tree
            for part in path[:-1]:
                owner = owner[part]
            owner[path[-1]] = value
            try:
                model = formats.load(store(tmp_path, form, tree), form)
            except (FormatError, ModelError, UnsupportedError):
                refused += 1
                continue
            read += 1
            for key in ("in_skip", "in_gain", "out_gain"):
                tree[key] = tree.get(key) or 0
            wanted = FORWARD[form](tree, x)
            gained = path[-1] in ("in_gain", "out_gain")
            error = np.abs(model.run(x, on="truth")[0] - wanted).max()
            assert error < (GAINED if gained else FLOAT64)
    assert read > 5
    assert refused > 50


# -- writing --------------------------------------------------------------------------------------


def cell(inputs: int = 2, hidden: int = 3, **options: Any) -> LSTMCell:
    rng = np.random.default_rng(2)
    parts: dict[str, Any] = {
        "weight_ih": rng.normal(size=(4 * hidden, inputs)).astype("f"),
        "weight_hh": rng.normal(size=(4 * hidden, hidden)).astype("f"),
        "bias_ih": rng.normal(size=4 * hidden).astype("f"),
        "bias_hh": rng.normal(size=4 * hidden).astype("f"),
    }
    return LSTMCell(**(parts | options))


LSTM = Recurrent("l", cell(), stateful=True)
HEAD = Dense("d", np.ones((1, 3), "f"), np.ones(1, "f"))
TWO = Dense("d", np.ones((2, 3), "f"), np.ones(2, "f"))
STARTED = Recurrent(
    "l", cell(), initial=InitialState("constant", np.ones((1, 3), "f"), np.ones((1, 3), "f"))
)
FILES = {"rtneural": "m.json", "guitarml": "m.json", "nam": "m.nam"}
HOLDER = {"rtneural": "RTNeural JSON", "guitarml": "GuitarML JSON", "nam": "a NAM file"}
EVERY = tuple(FILES)
WHOLE = "Write an .ifgo file, which holds every model"
ONLY = "(only LSTMs, then a dense)"


@pytest.mark.parametrize(
    ("where", "layers", "says"),
    [
        (EVERY, [Recurrent("l", cell(), cell()), Dense("d", np.ones((1, 6), "f"), np.ones(1, "f"))],
         "layer l: backward"),
        (EVERY, [Recurrent("l", cell(peephole=np.ones((3, 3), "f"))), HEAD], "layer l: peephole"),
        (EVERY, [Recurrent("l", cell(clip_z=1.0)), HEAD], "layer l: clip_z 1.0"),
        (EVERY, [Recurrent("l", cell(coupling="i=1-f")), HEAD], "layer l: coupling i=1-f"),
        (EVERY, [Recurrent("l", cell(activations=(Activation("relu"),) * 3)), HEAD],
         "layer l: activations relu/relu/relu"),
        (EVERY, [Recurrent("l", cell(), go_backwards=True), HEAD], "layer l: go_backwards"),
        (("rtneural", "guitarml"), [STARTED, HEAD], "layer l: initial state of kind constant"),
        (("rtneural",), [LSTM, Scale("s", np.ones(3, "f"), np.ones(3, "f"))], "layer s: scale"),
        (("guitarml", "nam"), [LSTM, Scale("s", np.ones(3, "f"), np.ones(3, "f")), HEAD],
         f"layer s: scale {ONLY}"),
        (("guitarml", "nam"), [LSTM],
         f"a chain that ends in lstm {ONLY}"),
        (("guitarml", "nam"), [Dense("d", np.ones((1, 2), "f"), np.ones(1, "f"))],
         "a model without an LSTM"),
        (("guitarml", "nam"), [LSTM, Recurrent("m", cell(3, 2)),
                               Dense("d", np.ones((1, 2), "f"), np.ones(1, "f"))],
         "LSTMs of different hidden_size, 2 and 3"),
        (("guitarml", "nam"),
         [LSTM, Dense("d", np.ones((1, 3), "f"), np.ones(1, "f"), Activation("tanh"))],
         "layer d: activation tanh"),
        (("rtneural",),
         [LSTM, Dense("d", np.ones((1, 3), "f"), np.ones(1, "f"), Activation("softsign"))],
         "layer d: activation softsign"),
        (("rtneural",), [ActivationLayer("a", Activation("tanh"))],
         "a model without an LSTM or dense layer"),
        (("rtneural",), [LSTM, BatchNorm("b", *(np.ones(3, "f"),) * 4, epsilon_outside=True)],
         "layer b: batch norm with epsilon outside the root"),
        (("rtneural",), [Residual("r", (LSTM, HEAD), 1)],
         "layer r: residual (only AIDA-X adds the input, from .aidax files)"),
        (("nam",), [Residual("r", (LSTM, HEAD), 1)],
         f"layer r: residual {ONLY}; a chain that ends in residual {ONLY}; "
         "a model without an LSTM"),
        (("guitarml",), [Residual("r", (LSTM, TWO), 1)],
         "layer r: 1 of 2 channels added"),
        (EVERY, [LSTM, HEAD, LastStep("e")], None),
    ],
)  # fmt: skip
def test_models_that_a_format_cannot_hold(
    tmp_path: Path, where: tuple[str, ...], layers: Any, says: str | None
) -> None:
    model = Model((FeatureInput(2),), tuple(layers))
    for form in where:
        target = tmp_path / FILES[form]
        with pytest.raises(UnsupportedError) as caught:
            formats.save(model, target, form, allow_lossy=True)
        text = str(caught.value)
        assert text.startswith(f"{target}: {HOLDER[form]} cannot hold ")
        assert text.endswith(f". {WHOLE}")
        said = text.removeprefix(f"{target}: {HOLDER[form]} cannot hold ").removesuffix(
            f". {WHOLE}"
        )
        if says is None:
            assert "output 'y' of role last" in said
        else:
            assert said == says
    assert not list(tmp_path.iterdir())


def test_two_channels_in_an_aida_x_file(tmp_path: Path) -> None:
    model = Model((FeatureInput(2),), (Residual("r", (LSTM, TWO), 2),))
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, tmp_path / "m.aidax")
    assert "layer r: residual of 2 channels, 2 outputs (AIDA-X has one)" in str(caught.value)


def test_tokens(tmp_path: Path) -> None:
    layers = (Embedding("e", np.ones((5, 2), "f")), LSTM, HEAD)
    with pytest.raises(UnsupportedError) as caught:
        formats.save(Model((TokenInput(5),), layers), tmp_path / "m.json")
    assert "cannot hold TokenInput 'x'; layer e: embedding." in str(caught.value)


@pytest.mark.parametrize("form", EVERY)
def test_absent_biases_become_zeros_on_request(tmp_path: Path, form: str) -> None:
    bare = Recurrent("l", cell(bias_ih=None, bias_hh=None))
    model = Model((FeatureInput(2),), (bare, HEAD))
    target = tmp_path / FILES[form]
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, target, form)
    names = ("no bias_ih", "no bias_hh") if form == "guitarml" else ("no bias",)
    lost = tuple(f"layer l: {name} (written as zeros)" for name in names)
    assert str(caught.value) == (
        f"{target}: {HOLDER[form]} cannot hold {'; '.join(lost)}. "
        "Permit it with --allow-lossy, or write an .ifgo file, which holds every model"
    )
    report = formats.save(model, target, form, allow_lossy=True)
    assert report.lost == lost
    assert report.folded == (f"l (lstm): stateful, for {HOLDER[form]} keeps state between calls",)
    x = np.random.default_rng(1).normal(size=(4, 2)).astype("f")
    assert np.array_equal(formats.load(target).run(x)[0], model.run(x)[0])


def test_what_inference_does_not_need(tmp_path: Path) -> None:
    """A dropout, a head without bias, one of two parameters of a batch norm."""
    layers = (
        Recurrent("l", cell(bias_hh=None)),
        Dropout("p", 0.5),
        BatchNorm("b", *(np.ones(3, "f"),) * 2, bias=np.full(3, 2, "f")),
        Dense("d", np.ones((1, 3), "f")),
    )
    model = Model((FeatureInput(2),), layers)
    report = formats.save(model, tmp_path / "m.json", allow_lossy=True)
    assert report.lost == (
        "layer p: dropout 0.5",
        "layer b: weight or bias alone (the other written too)",
        "layer d: no bias (written as zeros)",
    )
    x = np.random.default_rng(1).normal(size=(4, 2)).astype("f")
    again, _ = formats.load(tmp_path / "m.json").run(x, on="truth")
    assert np.abs(again - model.run(x, on="truth")[0]).max() < FLOAT64


def test_float64_numbers_are_rounded_on_request(tmp_path: Path) -> None:
    model = Model((FeatureInput(2),), (LSTM, HEAD)).astype("float64")
    dense = Dense("d", np.full((1, 3), 0.1), np.ones(1))
    model = Model(model.inputs, (*model.layers[:-1], dense))
    for form, file in FILES.items():
        with pytest.raises(UnsupportedError, match=r"layer d: float64 weight, in float32 off by"):
            formats.save(model, tmp_path / file, form)
