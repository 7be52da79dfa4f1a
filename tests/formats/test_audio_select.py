"""LSTM layers of RTNeural networks whose other layers ifgo does not compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifgo import formats
from ifgo.errors import FormatError, UnsupportedError, UsageError


def drawn(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(0, 0.5, shape).astype("f").tolist()


def layer(kind: str, width: int, *weights: Any, **more: Any) -> dict[str, Any]:
    return {"type": kind, "activation": "", "shape": [None, None, width], "weights": weights} | more


def lstm(inputs: int, units: int) -> dict[str, Any]:
    arrays = drawn(inputs, 4 * units), drawn(units, 4 * units), drawn(4 * units)
    return layer("lstm", units, *arrays)


CONV = layer("conv1d", 4, drawn(3, 1, 4), drawn(4), kernel_size=[3], dilation=[1], groups=1)
DENSE = layer("dense", 5, drawn(5, 5), drawn(5), activation="tanh")
PRELU = layer("prelu", 3, drawn(1, 3))
LAYERS = [CONV, lstm(4, 5), DENSE, lstm(5, 3), PRELU, lstm(3, 2), layer("gru", 2)]


def stored(path: Path, layers: list[dict[str, Any]], width: int, **more: Any) -> Path:
    path.write_text(json.dumps({"in_shape": [None, None, width], "layers": layers} | more))
    return path


@pytest.mark.parametrize(
    ("select", "first", "last", "left"),
    [
        ("lstm_1", 1, 1, "left out 6 layers: 2 lstm, 1 conv1d, 1 dense, 1 gru, 1 prelu"),
        ("lstm_3", 3, 3, "left out 6 layers: 2 lstm, 1 conv1d, 1 dense, 1 gru, 1 prelu"),
        ("lstm_5", 5, 5, "left out 6 layers: 2 lstm, 1 conv1d, 1 dense, 1 gru, 1 prelu"),
        ("lstm_1,lstm_3", 1, 3, "left out 4 layers: 1 conv1d, 1 gru, 1 lstm, 1 prelu"),
    ],
)
def test_chosen_layers(tmp_path: Path, select: str, first: int, last: int, left: str) -> None:
    """Equal bits to a file of those layers alone, and the others by kind."""
    whole = stored(tmp_path / "whole.json", LAYERS, 1)
    width = LAYERS[first - 1]["shape"][-1]
    alone = formats.load(stored(tmp_path / "alone.json", LAYERS[first : last + 1], width))
    model = formats.load(whole, select=select)
    x = np.random.default_rng(1).normal(0, 1, (6, width)).astype("f")
    assert np.array_equal(model.run(x, on="truth")[0], alone.run(x, on="truth")[0])
    assert model.layers[0].name == f"lstm_{first}"
    assert model.provenance.notes == (left,)
    assert set(model.provenance.names) == set(model.arrays)
    assert set(model.provenance.names.values()) == {f"layers[{k}]" for k in range(first, last + 1)}


def test_the_listing(tmp_path: Path) -> None:
    listing = formats.list_layers(stored(tmp_path / "whole.json", LAYERS, 1))
    assert [(f.name, f.input_size, f.hidden_size, f.source, f.after) for f in listing.layers] == [
        ("lstm_1", 4, 5, "layer 0 (conv1d)", ""),
        ("lstm_3", 5, 3, "layer 2 (dense)", "lstm_1"),
        ("lstm_5", 3, 2, "layer 4 (prelu)", "lstm_3"),
    ]
    assert listing.others == (("conv1d", 1), ("dense", 1), ("gru", 1), ("prelu", 1))


def test_gains_of_the_whole_are_named(tmp_path: Path) -> None:
    path = stored(tmp_path / "m.json", [lstm(1, 5), DENSE, PRELU], 1, in_gain=3.0, in_skip=1)
    model = formats.load(path, select="lstm_0")
    left = "left out 4 layers: 1 dense, 1 in_gain, 1 in_skip, 1 prelu"
    assert model.provenance.notes == (left,)


REFUSED: dict[str, tuple[list[Any], str, type[Exception], str]] = {
    "no such layer": (
        LAYERS,
        "lstm_2",
        UsageError,
        "has no recurrent layer 'lstm_2', expected one of 'lstm_1', 'lstm_3', 'lstm_5'. Did you "
        "mean 'lstm_5'?",
    ),
    "another order": (
        LAYERS,
        "lstm_3,lstm_1",
        UsageError,
        "select names 'lstm_3', 'lstm_1', expected layers one after another, as lstm_1,lstm_3",
    ),
    "a stranger between": (
        LAYERS,
        "lstm_3,lstm_5",
        UnsupportedError,
        'layer 4: type is "prelu", expected one of lstm, dense, time-distributed-dense, '
        "activation, batchnorm. Take the LSTM layers alone with --select NAME (select= in "
        "Python), see ifgo inspect --lstms",
    ),
    "no size before it": (
        [{"type": "conv1d"}, lstm(4, 5)],
        "lstm_1",
        FormatError,
        "layer 0: has no shape. The file is no whole model of this format",
    ),
    "no object before it": (
        [3, lstm(4, 5)],
        "lstm_1",
        FormatError,
        "layers holds 3, expected objects in braces only",
    ),
    "another size before it": (
        [CONV, lstm(5, 5)],
        "lstm_1",
        FormatError,
        "layer 1 (lstm): kernel of weights has shape (5, 20), expected (4, 20)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(tmp_path: Path, case: str) -> None:
    layers, select, kind, message = REFUSED[case]
    path = stored(tmp_path / "m.json", layers, 1)
    with pytest.raises(kind) as caught:
        formats.load(path, select=select)
    assert str(caught.value) == f"{path}: {message}"
