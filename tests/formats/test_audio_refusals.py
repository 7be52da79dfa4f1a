"""RTNeural, GuitarML and NAM files: what is refused, by key, with the message a user reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_cases import (
    FLOAT64,
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

RNG = np.random.default_rng(0)
REMOVE = ". Correct its spelling, or remove it if it changes no number"
PART = ". The file is no whole model of this format"
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
CHAINS = (
    ". Take the LSTM layers alone with --select NAME (select= in Python), see ifgo inspect --lstms"
)


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
