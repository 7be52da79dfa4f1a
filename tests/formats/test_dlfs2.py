"""Deep Learning from Scratch 2: its parameter files give what its layers compute, and come back."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dlfs2_cases import better, forward, lstm, rnnlm, store

from ifgo import formats, gates
from ifgo.activations import SIGMOID
from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.layers import Dense, Dropout, Embedding, LastStep, Recurrent
from ifgo.model import FeatureInput, Model, TokenInput

SHARED = Path(__file__).parents[2].parent / "shared"
ORIGINAL, PTB = SHARED / "models" / "dlfs2_rnnlm", SHARED / "data" / "ptb"
needs_original = pytest.mark.skipif(
    not ORIGINAL.is_dir(), reason="the trained Rnnlm.pkl is not at ../shared/models"
)
FLOAT64 = 1e-12
"""Two float64 computations of a few dozen terms each."""

NETS = {
    "TimeLSTM": lambda rng: lstm(rng, 3, 4),
    "Rnnlm": lambda rng: rnnlm(rng, 7, 3, 4),
    "BetterRnnlm": lambda rng: better(rng, 6, 3),
    "affine": lambda rng: [*lstm(rng, 3, 2), *(rng.normal(0, 1, s) for s in ((2, 5), (5,)))],
}


def inputs(rng: np.random.Generator, model: Model) -> Any:
    if isinstance(model.input, TokenInput):
        return rng.integers(0, model.input.vocabulary, 6)
    return rng.normal(0, 1, (6, 3)).astype("f")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("net", list(NETS))
def test_a_file_computes_what_the_book_computes(tmp_path: Path, net: str, protocol: int) -> None:
    rng = np.random.default_rng(1)
    arrays = NETS[net](rng)
    model = formats.load(store(tmp_path / "m.pkl", arrays, protocol=protocol))
    x = inputs(rng, model)
    assert np.abs(model.run(x, on="truth")[0] - forward(arrays, x)).max() < FLOAT64
    assert all(a.dtype == np.float32 for a in model.arrays.values())
    assert {one.stateful for one in model.recurrent} == {net.endswith("nnlm")}


def test_wrong_gate_orders_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 23 other orders in the table gives other numbers."""
    rng = np.random.default_rng(5)
    arrays = lstm(rng, 3, 4)
    path = store(tmp_path / "m.pkl", arrays)
    x = rng.normal(0, 1, (5, 3)).astype("f")
    seen = 0
    for order in permutations("ifgo"):
        layout = gates.GateLayout("".join(order), "columns", "one")
        monkeypatch.setitem(gates.LSTM_LAYOUTS, "dlfs2", layout)
        error = np.abs(formats.load(path).run(x, on="truth")[0] - forward(arrays, x)).max()
        assert (error < FLOAT64) == (layout.order == "fgio")
        seen += error > 1e-3
    assert seen == 23


@needs_original
def test_the_trained_files_scores() -> None:
    """Hidden values and scores recorded from the book's code, in float32."""
    expected = np.load(ORIGINAL / "expected.npz")
    model = formats.load(ORIGINAL / "Rnnlm.pkl")
    hidden = formats.load(ORIGINAL / "Rnnlm.pkl", select="lstm")
    (embedding,) = (a for n, a in model.arrays.items() if n == "embedding.weight")
    # Sums of 201 terms, each rounded by at most half an ulp of 2^-24 of what it adds up to.
    found = hidden.run(embedding[expected["xs"]], on="truth")[0]
    assert np.abs(found - expected["hidden"]).max() < 201 * 2.0**-24
    scores = model.run(expected["xs"], on="truth")[0][:, -1]
    terms = np.abs(expected["hidden"][:, -1]) @ np.abs(model.arrays["affine.weight"]).T
    bound = (103 * terms + 201 * np.abs(model.arrays["affine.weight"]).sum(axis=1)) * 2.0**-24
    assert (np.abs(scores - expected["scores_last"]) < bound).all()


@needs_original
@pytest.mark.slow
def test_the_perplexity_that_the_book_prints() -> None:
    """eval_perplexity over the whole test text: batch 10, 35 steps at a time, state kept."""
    ids = json.loads((PTB / "dlfs2_word_to_id.json").read_text())
    text = gzip.decompress((PTB / "ptb.test.txt.gz").read_bytes()).decode()
    corpus = np.array([ids[word] for word in text.replace("\n", "<eos>").strip().split()])
    model = formats.load(ORIGINAL / "Rnnlm.pkl")
    starts = np.arange(10)[:, None] * ((len(corpus) - 1) // 10)
    rounds = (len(corpus) - 1) // 350
    state, loss = None, 0.0
    for k in range(rounds):
        at = starts + k * 35 + np.arange(35)
        y, state = model.run(corpus[at % len(corpus)], state, on="truth")
        y = y - y.max(axis=-1, keepdims=True)
        target = corpus[(at + 1) % len(corpus)][..., None]
        loss += (np.log(np.exp(y).sum(-1)) - np.take_along_axis(y, target, -1)[..., 0]).mean()
    assert round(float(np.exp(loss / rounds)), 4) == 136.0776  # every decimal that it prints


# -- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", list(NETS))
def test_a_file_comes_back_bit_for_bit(tmp_path: Path, net: str) -> None:
    arrays = NETS[net](np.random.default_rng(2))
    model = formats.load(store(tmp_path / "m.pkl", arrays))
    report = formats.save(model, tmp_path / "again.pkl")
    assert report.exact
    again = pickle.loads(
        (tmp_path / "again.pkl").read_bytes()
    )  # our own file, as the book reads it
    assert [(a.dtype, a.tobytes()) for a in again] == [
        (np.dtype("f2"), a.astype("f2").tobytes()) for a in arrays
    ]
    assert (tmp_path / "again.pkl").read_bytes().count(b"numpy._core") == 0


def plain(rng: np.random.Generator, **cell: Any) -> Model:
    made = {"bias_ih": rng.normal(0, 1, 8).astype("f"), **cell}
    weights = (rng.normal(0, 1, shape).astype("f") for shape in ((8, 3), (8, 2)))
    return Model((FeatureInput(3),), (Recurrent("r", LSTMCell(*weights, **made)),))


def test_float16_is_a_loss_that_must_be_allowed(tmp_path: Path) -> None:
    model = plain(np.random.default_rng(3))
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, tmp_path / "m.pkl")
    (wx, wh, b) = (
        float(np.abs(a.astype("f2").astype(float) - a).max()) for a in model.arrays.values()
    )
    assert str(caught.value) == (
        f"{tmp_path / 'm.pkl'}: A list of parameters cannot hold layer r: Wx in float16 off by up "
        f"to {wx:.3g}; layer r: Wh in float16 off by up to {wh:.3g}; layer r: b in float16 off by "
        f"up to {b:.3g}. Permit it with --allow-lossy dtype, or write an .ifgo file, which holds "
        "every model"
    )
    assert not (tmp_path / "m.pkl").exists()
    report = formats.save(model, tmp_path / "m.pkl", allow_lossy=True)
    assert report.lost[0] == f"layer r: Wx in float16 off by up to {wx:.3g}"
    assert formats.save(model, tmp_path / "m.pkl", dtype="float32").exact
    again = formats.load(tmp_path / "m.pkl")
    for mine, theirs in zip(again.arrays.values(), model.arrays.values(), strict=True):
        assert np.array_equal(mine, theirs)


def test_all_that_the_list_cannot_hold_stands_in_one_message(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    cell = replace_cell(plain(rng, peephole=np.ones((3, 2), "f"), clip_cell=2.0))
    tail = (Dropout("d", 0.5), LastStep("last"), Dense("s", np.ones((2, 2), "f"), None, SIGMOID))
    model = Model((FeatureInput(3),), (Dense("a", np.ones((3, 3), "f")), cell, *tail))
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, tmp_path / "m.pkl", dtype="float32")
    assert str(caught.value) == (
        f"{tmp_path / 'm.pkl'}: A list of parameters cannot hold output 'y' of role last; layers "
        "dense, lstm, dropout, last_step, dense, in another order than an embedding, LSTMs, an "
        "affine layer; layer r: peephole; layer r: "
        "clip_cell 2.0; layer last: last_step; layer s: activation sigmoid; layer a: no bias "
        "(written as zeros); layer d: dropout of rate 0.5; layer s: no bias (written as zeros). "
        "Write an .ifgo file, which holds every model"
    )


def replace_cell(model: Model) -> Recurrent:
    return model.recurrent[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"forget_bias": 1.0}, "layer r: forget_bias 1"),
        ({"bias_ih": None}, "layer r: no bias (written as zeros)"),
        ({"bias_ih": np.full(8, 1e6, "f")}, "layer r: b, beyond float16"),
    ],
)
def test_what_a_cell_may_lose(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    model = plain(np.random.default_rng(3), **change)
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, tmp_path / "m.pkl")
    assert reason in str(caught.value)
    if "beyond" not in reason:
        formats.save(model, tmp_path / "m.pkl", dtype="float32", allow_lossy=True)
        x = np.random.default_rng(1).normal(0, 1, (4, 3)).astype("f")
        error = formats.load(tmp_path / "m.pkl").run(x, on="truth")[0] - model.run(x, on="truth")[0]
        assert np.abs(error).max() < 1e-6  # a float32 rounding of the bias


def test_two_biases_become_one(tmp_path: Path) -> None:
    model = plain(np.random.default_rng(3), bias_hh=np.full(8, 0.1, "f"))
    report = formats.save(model, tmp_path / "m.pkl", dtype="float32")
    assert report.folded[0].startswith(
        "r (lstm): bias_ih + bias_hh in one float32, off by up to 0."
    )


def test_padding_has_no_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    cell = plain(rng).recurrent[0]
    embedding = Embedding("e", np.ones((4, 3), "f"), mask_zero=True)
    model = Model((TokenInput(4),), (embedding, cell))
    with pytest.raises(UnsupportedError, match="layer e: mask_zero"):
        formats.save(model, tmp_path / "m.pkl", dtype="float32")


# -- refusals -------------------------------------------------------------------------------------


def test_an_unknown_dtype(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        formats.save(plain(np.random.default_rng(1)), tmp_path / "m.pkl", dtype="int8")
    assert str(caught.value) == "option dtype is 'int8', expected one of 'float16', 'float32'"


A3 = np.zeros((3, 8), "f2")
REFUSED = {
    "a dict": ({}, "holds a dict, expected a list of arrays"),
    "a number": ([A3, 3], "entry 1 of the list is an int, expected an array"),
    "whole numbers": ([np.zeros(3, "i4")], "array 0 holds int32, expected float16 or float32"),
    "objects": (
        [np.array([None, {}], object)],
        "array 0 holds objects, expected float16 or float32",
    ),
    "float64": (
        [np.full((3, 8), 0.1)],
        "array 0 is float64 and holds values that are no float32, expected float16 or float32. "
        "Save params as float32: params = [p.astype('f') for p in params]",
    ),
    "nothing": (
        [],
        "holds 0 arrays of no dimensions, expected [embed_W], then Wx, Wh, b of each LSTM, then "
        "[affine_W, affine_b]: 2, 2, 1 for each LSTM",
    ),
    "two embeddings": (
        [A3, A3, A3, A3, A3[0]],
        "holds 5 arrays of 2, 2, 2, 2, 1 dimensions, expected [embed_W], then Wx, Wh, b of each "
        "LSTM, then [affine_W, affine_b]: 2, 2, 1 for each LSTM",
    ),
    "a GRU": (
        [np.zeros((3, 6), "f2"), np.zeros((2, 6), "f2"), np.zeros(6, "f2")],
        "array 0, Wx of an LSTM with hidden_size 2, has shape (3, 6), expected "
        "(input_size, 4·hidden_size) = (3, 8). An RNN of 1 or a GRU of 3 blocks is no LSTM",
    ),
    "Wh": (
        [A3, np.zeros((2, 7), "f2"), np.zeros(8, "f2")],
        "array 1, Wh of an LSTM with hidden_size 2, has shape (2, 7), expected "
        "(hidden_size, 4·hidden_size) = (2, 8)",
    ),
    "b": (
        [A3, np.zeros((2, 8), "f2"), np.zeros(7, "f2")],
        "array 2, b of an LSTM with hidden_size 2, has shape (7,), expected (4·hidden_size,) "
        "= (8,)",
    ),
    "affine_b": (
        [A3, np.zeros((2, 8), "f2"), np.zeros(8, "f2"), np.zeros((2, 5), "f2"), np.zeros(4, "f2")],
        "array 4, affine_b, has shape (4,), expected (outputs,) = (5,), as affine_W has columns",
    ),
    "code": (
        [A3, os.system],
        "entry 1 of the list is the name 'posix.system', expected an array",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_list_that_is_no_model(tmp_path: Path, case: str) -> None:
    content, message = REFUSED[case]
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(FormatError) as caught:
        formats.load(path, "dlfs2")
    assert str(caught.value) == f"{path}: {message}"


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_that_runs_code_runs_none(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps([_Bomb(mark)], protocol))
    with pytest.raises(IfgoError, match=r"entry 0 of the list is an object"):
        formats.load(path, "dlfs2")
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # so that this test can fail
    assert mark.exists()


def test_a_file_cut_anywhere(tmp_path: Path) -> None:
    whole = store(tmp_path / "m.pkl", lstm(np.random.default_rng(1), 1, 1)).read_bytes()
    for end in range(len(whole)):
        (tmp_path / "m.pkl").write_bytes(whole[:end])
        with pytest.raises(FormatError):
            formats.load(tmp_path / "m.pkl", "dlfs2")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ifgo.cli.main import call

    path = store(tmp_path / "m.pkl", rnnlm(np.random.default_rng(1), 7, 3, 4))
    assert call(["inspect", str(path), "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out)["gate_storage"] == "dlfs2: f g i o, columns, biases one"
    )
    target = tmp_path / "again.pkl"
    assert call(["convert", str(path), str(target), "--to-dtype", "float32"]) == 0
    assert [a.dtype for a in pickle.loads(target.read_bytes())] == [np.dtype("f4")] * 6
