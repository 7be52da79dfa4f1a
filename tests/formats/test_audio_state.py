"""A state_dict of PyTorch as JSON, as RTNeural's loaders take it, and layers chosen by name."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_cases import (
    FLOAT64,
    Tree,
    forward_guitarml,
    forward_rtneural,
    guitarml,
    rt_dense,
    rt_lstm,
    rtneural,
)
from raising import raising

from ifgo import formats, gates
from ifgo.errors import IfgoError, UsageError

CHAIN = "rec,lin"


def state_dict(layers: int = 2) -> Tree:
    """The tensors of a GuitarML file, whose forward knows what they compute."""
    return guitarml(1, layers=layers, skip=0)


def stored(folder: Path, tree: Any) -> Path:
    path = folder / "m.json"
    path.write_text(json.dumps(tree))
    return path


def signal() -> Any:
    return np.random.default_rng(9).normal(0, 1, (12, 2)).astype("f")


def test_a_chain_by_its_modules(tmp_path: Path) -> None:
    tree = state_dict()
    path = stored(tmp_path, tree["state_dict"])
    model = formats.load(path, layers=CHAIN)
    assert (model.provenance.framework, model.provenance.version) == ("rtneural", "state_dict")
    assert all(layer.stateful for layer in model.recurrent)
    y, x = model.run(signal(), on="truth")[0], signal()
    assert np.abs(y - forward_guitarml(tree, x)).max() < FLOAT64
    found = formats.list_layers(path)
    assert found.format == "rtneural"
    assert [(f.name, f.input_size, f.hidden_size) for f in found.layers] == [("rec", 2, 3)]
    assert formats.load(path, select="rec").output_size == 3


def test_wrong_gate_orders_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 23 other orders in the table gives other numbers."""
    tree = state_dict()
    path, x = stored(tmp_path, tree["state_dict"]), signal()
    wanted, seen = forward_guitarml(tree, x), 0
    for order in permutations("ifgo"):
        layout = gates.GateLayout("".join(order), "rows", "two")
        monkeypatch.setitem(gates.LSTM_LAYOUTS, "pytorch", layout)
        y = formats.load(path, layers=CHAIN).run(x, on="truth")[0]
        error = np.abs(y - wanted).max()
        assert (error < FLOAT64) == (layout.order == "ifgo")
        seen += error > 1e-3
    assert seen == 23


def test_counters_are_no_weights(tmp_path: Path) -> None:
    tensors = state_dict(1)["state_dict"]
    norm = {"running_mean": [0.5] * 3, "running_var": [1.0] * 3, "num_batches_tracked": 10**40}
    tensors |= {f"norm.{name}": value for name, value in norm.items()}
    model = formats.load(stored(tmp_path, tensors), layers="rec,norm:batch_norm(1e-5),lin")
    assert [layer.kind for layer in model.layers] == ["lstm", "batch_norm", "dense"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("rec.weight_ih_l0", "x", "tensor 'rec.weight_ih_l0': is \"x\", expected nested lists of "
         "numbers"),
        ("rec.weight_ih_l0", 0.5, "tensor 'rec.weight_ih_l0': is 0.5, expected nested lists of "
         "numbers"),
        ("rec.weight_ih_l0", [[0.5], [0.5, 1]], "tensor 'rec.weight_ih_l0': it has rows of "
         "different lengths, expected (2, 1)"),
        ("rec.weight_ih_l0", [[[0.5]]], "tensor 'rec.weight_ih_l0': has 3 axes, expected one "
         "or two"),
        ("rec.bias_hh_l0", [None], "tensor 'rec.bias_hh_l0': it holds null, expected numbers only"),
        ("rec.weight_hh_l0", [[0.5] * 3] * 9, "module rec: is nn.GRU (3 blocks of rows), "
         "expected nn.LSTM or nn.LSTMCell"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, name: str, value: Any, says: str) -> None:
    tensors = state_dict(1)["state_dict"]
    path = stored(tmp_path, tensors | {name: value})
    with pytest.raises(IfgoError) as caught:
        formats.load(path, layers=CHAIN)
    assert str(caught.value) == f"{path}: {says}"


def test_tensors_without_end(tmp_path: Path) -> None:
    path = stored(tmp_path, {f"lstm.weight_ih_l{k}": [] for k in range(1025)})
    with pytest.raises(IfgoError) as caught:
        formats.load(path)
    assert str(caught.value) == f"{path}: has 1025 tensors, expected at most 1024" + raising(
        "arrays"
    )


def test_layers_of_a_file_that_says_them_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tree = rtneural(2, rt_lstm(rng, 2, 3), rt_lstm(rng, 3, 2), rt_dense(rng, 2, 1))
    path = stored(tmp_path, tree)
    with pytest.raises(UsageError) as caught:
        formats.load(path, layers="a,b")
    assert str(caught.value) == (
        f"{path}: option layers is 'a,b', and the file says its layers itself, expected it for a "
        "state_dict only"
    )
    assert formats.list_layers(path).names == ("lstm_0", "lstm_1")
    part = formats.load(path, select="lstm_0")
    tree["layers"] = tree["layers"][:1]
    y = part.run(signal(), on="truth")[0]
    assert np.abs(y - forward_rtneural(tree, signal())).max() < FLOAT64
