"""Darknet: both forks' files give what their C code computes, and come back bit for bit."""

from __future__ import annotations

import struct
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from darknet_cases import ACTIVATE, STORED, connected, forward, lstm, payload, store

from ifgo import formats, gates
from ifgo.formats import darknet
from ifgo.model import BatchNorm, Model

ORIGINAL = Path(__file__).parents[2].parent / "shared" / "models" / "darknet_lstm64"
needs_original = pytest.mark.skipif(
    not ORIGINAL.is_dir(), reason="the trained Darknet files are not at ../shared/models"
)
FORKS = pytest.mark.parametrize("dialect", ["pjreddie", "alexeyab"])
FLOAT64 = 1e-12
"""Two float64 computations of a few dozen terms each."""


def net(rng: np.random.Generator, *, normed: bool = False) -> list[Any]:
    return [
        lstm(rng, 3, 4, normed=normed),
        {"type": "dropout"},
        lstm(rng, 4, 2),
        connected(rng, 2, 5, "leaky", normed=normed),
        connected(rng, 5, 3, "linear"),
        {"type": "softmax", "temperature": 0.5},
        {"type": "cost"},
    ]


def float64(model: Model, x: Any) -> Any:
    return model.run(x, on="truth")[0]


@FORKS
@pytest.mark.parametrize("normed", [False, True])
def test_a_file_computes_what_darknet_computes(tmp_path: Path, dialect: str, normed: bool) -> None:
    rng = np.random.default_rng(3)
    layers = net(rng, normed=normed)
    model = formats.load(store(tmp_path, 3, layers, dialect))
    x = rng.normal(0, 1, (6, 3)).astype("f")
    assert np.abs(float64(model, x) - forward(layers, x, dialect)).max() < FLOAT64
    assert [layer.kind for layer in model.layers].count("dropout") == 1
    assert all(layer.stateful for layer in model.recurrent)


@FORKS
@pytest.mark.parametrize("activation", list(ACTIVATE))
def test_activations_of_a_connected_layer(tmp_path: Path, dialect: str, activation: str) -> None:
    rng = np.random.default_rng(4)
    layers = [lstm(rng, 2, 3), connected(rng, 3, 4, activation)]
    model = formats.load(store(tmp_path, 2, layers, dialect))
    x = rng.normal(0, 1, (5, 2)).astype("f")
    assert np.abs(float64(model, x) - forward(layers, x, dialect)).max() < 1e-8


def test_a_temperature_that_rounds_is_noted(tmp_path: Path) -> None:
    layers = [lstm(np.random.default_rng(8), 2, 3), {"type": "softmax", "temperature": 3}]
    model = formats.load(store(tmp_path, 2, layers, "pjreddie"), dialect="pjreddie")
    said = "layer 1 [softmax] divides by 3: here times 0.3333333432674408, rounded to float32"
    assert model.provenance.notes == (said,)


@FORKS
def test_wrong_gate_orders_show(
    tmp_path: Path, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the 23 other orders in the table gives other numbers."""
    rng = np.random.default_rng(5)
    layers = [lstm(rng, 2, 3)]
    path = store(tmp_path, 2, layers, dialect)
    x = rng.normal(0, 1, (5, 2)).astype("f")
    expected = forward(layers, x, dialect)
    right, seen = gates.LSTM_LAYOUTS[f"darknet_{dialect}"], 0
    for order in permutations("ifgo"):
        layout = gates.GateLayout("".join(order), right.orientation, right.bias)
        monkeypatch.setitem(gates.LSTM_LAYOUTS, f"darknet_{dialect}", layout)
        error = np.abs(float64(formats.load(path, dialect=dialect), x) - expected).max()
        assert (error < FLOAT64) == (layout.order == right.order)
        seen += error > 1e-3
    assert seen == 23


# -- dialects and headers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "chosen", "said"),
    [
        ((0, 2, 0), "pjreddie", "which writes version 0.2.0; other writers copy that number"),
        ((0, 2, 5), "alexeyab", "which writes version 0.2.5; other writers copy that number"),
        ((0, 3, 1), "pjreddie", "by default: neither fork writes version 0.3.1"),
    ],
)
def test_the_revision_chooses_the_dialect_and_a_note_says_so(
    tmp_path: Path, version: tuple[int, int, int], chosen: str, said: str
) -> None:
    layers = [lstm(np.random.default_rng(6), 2, 3)]
    header = struct.pack("<iiiQ", *version, 1)
    model = formats.load(store(tmp_path, 2, layers, chosen, header=header))
    other = "alexeyab" if chosen == "pjreddie" else "pjreddie"
    assert model.provenance.framework == f"darknet_{chosen}"
    assert model.provenance.notes == (
        f"gate order of {chosen}, {said}. Option dialect {other} reads the other order",
    )


def test_a_given_dialect_wins_over_the_revision(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    layers = [lstm(rng, 2, 3)]
    header = struct.pack("<iiiQ", 0, 2, 0, 1)
    path = store(tmp_path, 2, layers, "alexeyab", header=header)
    x = rng.normal(0, 1, (5, 2)).astype("f")
    expected = forward(layers, x, "alexeyab")
    assert np.abs(float64(formats.load(path, dialect="alexeyab"), x) - expected).max() < FLOAT64
    assert np.abs(float64(formats.load(path), x) - expected).max() > 1e-3


@FORKS
@pytest.mark.parametrize(
    ("version", "wide"),
    [((0, 1, 0), ""), ((0, 2, 0), "pjreddie alexeyab"), ((1001, 2, 0), "alexeyab")],
)
def test_seen_has_four_or_eight_bytes(
    tmp_path: Path, dialect: str, version: tuple[int, int, int], wide: str
) -> None:
    """Old headers have four; those of the transposed kind depend on the fork."""
    layers = [lstm(np.random.default_rng(8), 2, 3)]
    header = struct.pack("<iiiQ" if dialect in wide else "<iiiI", *version, 9)
    transposed = version[0] > 1000
    path = store(tmp_path, 2, layers, dialect, header=header, transposed=transposed)
    model = formats.load(path, dialect=dialect)
    x = np.random.default_rng(9).normal(0, 1, (4, 2)).astype("f")
    assert np.abs(float64(model, x) - forward(layers, x, dialect)).max() < FLOAT64


def test_the_cfg_can_be_the_path_or_an_option(tmp_path: Path) -> None:
    path = store(tmp_path, 2, [lstm(np.random.default_rng(1), 2, 3)], "pjreddie")
    train = path.with_name("train.cfg")
    train.write_text(path.with_suffix(".cfg").read_text().replace("time_steps=1", "time_steps=32"))
    models = [
        formats.load(path),
        formats.load(path.with_suffix(".cfg")),
        formats.load(path, cfg=str(train)),
    ]
    for model in models[1:]:
        assert all(np.array_equal(a, models[0].arrays[n]) for n, a in model.arrays.items())


# -- writing --------------------------------------------------------------------------------------


@FORKS
@pytest.mark.parametrize("normed", [False, True])
def test_files_come_back_byte_for_byte(tmp_path: Path, dialect: str, normed: bool) -> None:
    layers = net(np.random.default_rng(10), normed=normed)
    model = formats.load(store(tmp_path, 3, layers, dialect))
    target = tmp_path / "again.weights"
    report = formats.save(model, target, dialect=dialect)
    assert report.exact
    assert target.read_bytes()[20:] == payload(layers, dialect)
    again = formats.load(target)
    assert again.provenance.framework == f"darknet_{dialect}"
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
    assert [a.tobytes() for a in again.arrays.values()] == [
        a.tobytes() for a in model.arrays.values()
    ]


def test_one_fork_to_the_other(tmp_path: Path) -> None:
    layers = [lstm(np.random.default_rng(11), 2, 3)]
    model = formats.load(store(tmp_path, 2, layers, "pjreddie"))
    formats.save(model, tmp_path / "b.weights", dialect="alexeyab")
    assert (tmp_path / "b.weights").read_bytes()[20:] == payload(layers, "alexeyab")
    assert STORED["pjreddie"] != STORED["alexeyab"]


@needs_original
def test_the_trained_files() -> None:
    """Recorded from the original library: softmax of 400 characters in float32."""
    expected = np.load(ORIGINAL / "expected.npz")
    x = np.eye(256, dtype=np.float32)[expected["text"]]
    for name in ("test.cfg", "train.cfg"):
        model = formats.load(ORIGINAL / "lstm.weights", cfg=str(ORIGINAL / name))
        mean = float64(model, x)
        # 400 float32 steps; the sums of 256 products cost at most 256 half ulp of 2^-24 each.
        sums = 256 * 2.0**-24
        assert np.abs(mean[:400] - expected["prob_first400"]).max() < sums
        at = np.arange(1999), expected["text"][1:2000].astype(int)
        # A mean of logarithms is off by no more than the largest relative error of what they are
        # taken of, which is seen where the library's own values are recorded.
        recorded = expected["prob_first400"][at[0][:400], at[1][:400]].astype(float)
        largest = np.abs(mean[at][:400] / recorded - 1).max()
        assert np.abs(-np.log(mean[at]).mean() - expected["nll_per_char_2000"]) < largest
        assert largest < sums  # what a logit is off by, its probability is relative to itself


def test_batch_norm_of_darknet_in_other_formats(tmp_path: Path) -> None:
    """ONNX takes the factors that inference folds: the same float32 bits."""
    layers = [
        lstm(np.random.default_rng(2), 2, 3),
        connected(np.random.default_rng(3), 3, 4, "tanh", normed=True),
    ]
    model = formats.load(store(tmp_path, 2, layers, "pjreddie"))
    norm = next(layer for layer in model.layers if isinstance(layer, BatchNorm))
    assert (norm.epsilon, norm.epsilon_outside) == darknet.EPSILONS["pjreddie"]
    report = formats.save(model, tmp_path / "m.onnx", allow_lossy=True)
    assert any("epsilon outside the root" in line for line in report.folded)
    x = np.random.default_rng(4).normal(0, 1, (1, 5, 2)).astype("f")
    again = formats.load(tmp_path / "m.onnx")
    assert np.array_equal(
        again.run(x, on="exact")[0].reshape(5, 4), model.run(x, on="exact")[0].reshape(5, 4)
    )


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--cfg and --dialect read, --to-dialect writes, and the choice is said."""
    from ifgo.cli.main import call

    layers = [lstm(np.random.default_rng(12), 2, 3)]
    path = store(tmp_path, 2, layers, "alexeyab", header=struct.pack("<iiiQ", 0, 2, 0, 1))
    layout = path.with_suffix(".cfg").rename(tmp_path / "other.cfg")
    target = tmp_path / "out.weights"
    reading = ["--cfg", str(layout), "--dialect", "alexeyab"]
    code = call(["convert", str(path), str(target), *reading, "--to-dialect", "pjreddie"])
    assert (code, capsys.readouterr().err) == (0, f"{target}: every bit kept\n")
    assert target.read_bytes()[20:] == payload(layers, "pjreddie")
    assert call(["convert", str(target), str(tmp_path / "m.ifgo")]) == 0
    assert capsys.readouterr().err.startswith("note: gate order of pjreddie, which writes version")
