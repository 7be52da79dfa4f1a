"""RTNeural, GuitarML and NAM files: read they compute what their players do, and come back."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_cases import (
    ELSE,
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

from ifgo import formats, gates
from ifgo.model import Model

RNG = np.random.default_rng(0)

AIDA_X: Tree = {"in_skip": 1, "metadata": {"name": "amp", "esr": 0.01}, "input_batch": [0, 1]}

CASES: dict[str, tuple[str, Tree]] = {
    "lstm": ("rtneural", rtneural(2, rt_lstm(RNG, 2, 3))),
    "two lstms, dense": (
        "rtneural",
        rtneural(2, rt_lstm(RNG, 2, 3), rt_lstm(RNG, 3, 4), rt_dense(RNG, 4, 2)),
    ),
    "time-distributed-dense": (
        "rtneural",
        rtneural(1, rt_dense(RNG, 1, 3, "tanh", "time-distributed-dense"), rt_lstm(RNG, 3, 2)),
    ),
    **{
        f"dense {name}": ("rtneural", rtneural(3, rt_lstm(RNG, 3, 2), rt_dense(RNG, 2, 3, name)))
        for name in ELSE
    },
    **{
        f"activation {name}": (
            "rtneural",
            rtneural(3, rt_lstm(RNG, 3, 2), entry("activation", 2, [], name)),
        )
        for name in ELSE
    },
    "batchnorm": ("rtneural", rtneural(2, rt_lstm(RNG, 2, 3), rt_norm(RNG, 3))),
    "batchnorm alone": (
        "rtneural",
        rtneural(2, rt_lstm(RNG, 2, 3), rt_norm(RNG, 3, affine=False)),
    ),
    "in_skip": ("rtneural", rtneural(2, rt_lstm(RNG, 2, 3), rt_dense(RNG, 3, 1), **AIDA_X)),
    "in_skip 0": ("rtneural", rtneural(1, rt_lstm(RNG, 1, 3), rt_dense(RNG, 3, 1), in_skip=0)),
    "guitarml": ("guitarml", guitarml(1)),
    "guitarml, three layers": ("guitarml", guitarml(2, layers=3)),
    "guitarml without skip": ("guitarml", guitarml(3, skip=0)),
    "guitarml without bias": ("guitarml", guitarml(4, bias_fl=False)),
    "guitarml, two channels": ("guitarml", guitarml(5, skip=2, output_size=2)),
    "nam": ("nam", nam(1)),
    "nam, two layers": ("nam", nam(2, layers=2)),
    "nam, three inputs": ("nam", nam(3, inputs=3, in_channels=3)),
    "nam, two outputs": ("nam", nam(4, out_channels=2)),
}

EVERY = pytest.mark.parametrize("name", list(CASES))


def loaded(folder: Path, form: str, tree: Tree) -> Model:
    """By its content: the format is not said."""
    model = formats.load(store(folder, form, tree))
    assert model.provenance.framework == form
    return model


def signal(model: Model) -> Any:
    return np.random.default_rng(9).normal(0, 1, (12, model.input_size)).astype("f")


def error(model: Model, form: str, tree: Tree) -> float:
    x = signal(model)
    return float(np.abs(model.run(x, on="truth")[0] - FORWARD[form](tree, x)).max())


@EVERY
def test_a_file_computes_what_its_player_does(tmp_path: Path, name: str) -> None:
    form, tree = CASES[name]
    model = loaded(tmp_path, form, tree)
    assert error(model, form, tree) < FLOAT64
    assert all(layer.stateful for layer in model.recurrent)


@pytest.mark.parametrize(("key", "decibels"), [("in_gain", 6.0), ("out_gain", -7.5)])
def test_gains(tmp_path: Path, key: str, decibels: float) -> None:
    """AIDA-X computes the factor in float32, so the numbers are off by its rounding."""
    tree = rtneural(2, rt_lstm(RNG, 2, 3), rt_dense(RNG, 3, 1), in_skip=1) | {key: decibels}
    model = loaded(tmp_path, "rtneural", tree)
    # Half an ulp of the factor, on numbers below 8 that the net does not amplify further.
    assert 0 < error(model, "rtneural", tree) < 8 * 2.0**-24
    silent = loaded(tmp_path, "rtneural", tree | {key: -90})
    factors = [layer.factor.tolist() for layer in silent.layers if layer.kind == "scale"]
    assert factors == ([[0, 1]] if key == "in_gain" else [[0]])


@pytest.mark.parametrize("name", ["two lstms, dense", "guitarml", "nam"])
def test_wrong_gate_orders_show(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 23 other orders in the table gives other numbers."""
    form, tree = CASES[name]
    right, seen = gates.LSTM_LAYOUTS[form], 0
    for order in permutations("ifgo"):
        layout = gates.GateLayout("".join(order), right.orientation, right.bias)
        monkeypatch.setitem(gates.LSTM_LAYOUTS, form, layout)
        wrong = error(loaded(tmp_path, form, tree), form, tree)
        assert (wrong < FLOAT64) == (layout.order == right.order)
        seen += wrong > 1e-3
    assert seen == 23


@pytest.mark.parametrize("form", ["rtneural", "guitarml", "nam"])
def test_the_second_call_goes_on_from_the_first(tmp_path: Path, form: str) -> None:
    tree = {"rtneural": CASES["lstm"][1], "guitarml": guitarml(1), "nam": nam(1)}[form]
    model = loaded(tmp_path, form, tree)
    x = signal(model)
    first, state = model.run(x[:5], on="truth")
    second, _ = model.run(x[5:], state, on="truth")
    assert np.abs(np.concatenate([first, second]) - FORWARD[form](tree, x)).max() < FLOAT64


def test_nam_starts_where_the_file_says(tmp_path: Path) -> None:
    tree = nam(7, hidden=2)
    model = loaded(tmp_path, "nam", tree)
    (layer,) = model.recurrent
    assert layer.initial.h is not None
    assert layer.initial.c is not None
    assert layer.initial.h.tolist() == [tree["weights"][32:34]]
    assert layer.initial.c.tolist() == [tree["weights"][34:36]]
    assert model.provenance.version == "0.5.4"
    assert model.provenance.notes == (
        "sample_rate: 48000",
        "metadata name: a pedal",
    )


def test_notes_of_rtneural(tmp_path: Path) -> None:
    tree = rtneural(1, rt_lstm(RNG, 1, 2), rt_dense(RNG, 2, 1), **AIDA_X)
    tree["layers"][0]["shape"] = [None, 2]
    tree["layers"][1]["weights"][1][0] = 0.1
    model = loaded(tmp_path, "rtneural", tree)
    assert model.provenance.notes == (
        "1 number is rounded to float32, as the format's own reader does",
        "layer 0 (lstm) gave its last step alone in training; RTNeural gives every step, and so "
        "does this model",
        "metadata name: amp",
        "metadata esr: 0.01",
        "input_batch is left out: a recording",
    )
    assert model.provenance.names["in_skip.lstm_0.forward.weight_ih"] == "layers[0]"


# -- writing --------------------------------------------------------------------------------------


def bits(model: Model) -> list[bytes]:
    return [array.tobytes() for array in model.arrays.values()]


@EVERY
def test_files_come_back(tmp_path: Path, name: str) -> None:
    """The same numbers in the same places, and the same layers when read again."""
    form, tree = CASES[name]
    model = loaded(tmp_path, form, tree)
    target = tmp_path / {"rtneural": "again.aidax", "nam": "again.nam"}.get(form, "again.json")
    report = formats.save(model, target, form)
    assert report.exact
    again = formats.load(target)
    assert bits(again) == bits(model)
    assert [layer.kind for layer in again.layers] == [layer.kind for layer in model.layers]
    assert error(again, form, tree) < FLOAT64
    written = json.loads(target.read_text())
    if form == "nam":
        assert written["weights"] == tree["weights"]
    elif form == "guitarml":
        assert written == tree
    else:
        stored = [e["weights"] for e in tree["layers"] if e["type"] != "activation"]
        assert [e["weights"] for e in written["layers"] if e["weights"]] == stored


def test_every_float32_comes_back(tmp_path: Path) -> None:
    """Extremes, denormals, and the least and most decimals."""
    tree = nam(8)
    special = [3.4028234663852886e38, 1e-45, -0.0, 0.1, 1 / 3, 16777217.0, 2.0**-126]
    tree["weights"][: len(special)] = [float(np.float32(value)) for value in special]
    model = loaded(tmp_path, "nam", tree)
    formats.save(model, tmp_path / "again.nam")
    assert json.loads((tmp_path / "again.nam").read_text())["weights"] == tree["weights"]
    assert bits(formats.load(tmp_path / "again.nam")) == bits(model)


def test_one_bias_where_the_format_has_one(tmp_path: Path) -> None:
    """GuitarML's two biases are summed by the others, off by half an ulp at most."""
    model = loaded(tmp_path, "guitarml", guitarml(1, skip=0))
    for form, file in (("rtneural", "m.json"), ("nam", "m.nam")):
        report = formats.save(model, tmp_path / file)
        (said,) = report.folded
        assert said.startswith("rec_l0 (lstm): bias_ih + bias_hh in one float32, off by up to 0.")
        again = formats.load(tmp_path / file)
        assert again.provenance.framework == form
        (ours,) = model.recurrent
        assert ours.cell.bias_ih is not None
        assert ours.cell.bias_hh is not None
        total = (ours.cell.bias_ih.astype(float) + ours.cell.bias_hh).astype("f")
        assert again.recurrent[0].cell.bias_ih is not None
        assert again.recurrent[0].cell.bias_ih.tobytes() == total.tobytes()


def test_one_audio_format_to_another(tmp_path: Path) -> None:
    """An AIDA-X file as GuitarML and back: the skip is kept."""
    tree = rtneural(2, rt_lstm(RNG, 2, 3), rt_dense(RNG, 3, 1), in_skip=1)
    model = loaded(tmp_path, "rtneural", tree)
    formats.save(model, tmp_path / "g.json", "guitarml", allow_lossy=True)
    back = formats.load(tmp_path / "g.json")
    assert error(back, "rtneural", tree) < FLOAT64


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ifgo.cli.main import call

    path = store(tmp_path, "guitarml", guitarml(1))
    target = tmp_path / "m.aidax"
    assert call(["convert", str(path), str(target)]) == 0
    capsys.readouterr()
    assert call(["inspect", str(target)]) == 0
    assert "residual" in capsys.readouterr().out
    assert call(["convert", str(target), str(tmp_path / "b.json"), "--to", "guitarml"]) == 3
    assert "no bias_hh (written as zeros)" in capsys.readouterr().err
