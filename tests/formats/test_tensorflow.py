"""Frozen TensorFlow graphs: loops of LSTM cells compute what their nodes say, or are refused."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_cases import Cell, Def, draw_cell, dynamic_rnn, forward

from ifgo import formats
from ifgo.errors import IfgoError
from ifgo.model import Model

FLOAT64 = 1e-12
"""Two float64 computations of a few dozen terms each."""

STEPS = np.random.default_rng(0).uniform(-1, 1, (6, 3)).astype("f")


def float64(model: Model, x: Any) -> Any:
    return model.run(x, on="truth")[0]


def saved(path: Path, cells: list[Cell], *, last: bool = False, **odd: Any) -> Path:
    """A batch-major input, the loop, and its outputs or its last state."""
    d = Def()
    x = d.node(
        "x", "Placeholder", dtype=1, shape=(-1, -1, cells[0]["kernel"].shape[0] - _p(cells[0]))
    )
    order = d.constant("order", [1, 0, 2])
    turned = d.node("turned", "Transpose", x, order)
    outputs, h = dynamic_rnn(d, cells, turned, **odd)
    if last:
        weight = d.constant("dense", np.eye(_p(cells[-1]), 2, dtype="f") + 0.5)
        d.node("y", "Softmax", d.node("matmul", "MatMul", h, weight))
    else:
        d.node("y", "Transpose", outputs, order)
    return d.save(path)


def _p(cell: Cell) -> int:
    return cell["projection"].shape[1] if "projection" in cell else cell["hidden"]


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(IfgoError) as caught:
        formats.load(path, **options)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("outputs", "peephole", "clip", "forget_bias", "one_matrix"),
    list(product([0, 2], [False, True], [0.0, 0.25], [0.0, 1.0], [True, False])),
)
def test_every_kind_of_cell(
    tmp_path: Path, outputs: int, peephole: bool, clip: float, forget_bias: float, one_matrix: bool
) -> None:
    cell = draw_cell(
        1,
        outputs=outputs,
        peephole=peephole,
        clip=clip,
        proj_clip=clip / 2 if outputs else 0.0,
        forget_bias=forget_bias,
    )
    model = formats.load(saved(tmp_path / "a.pb", [cell], one_matrix=one_matrix))
    assert np.abs(float64(model, STEPS) - forward([cell], STEPS)).max() < FLOAT64
    assert model.recurrent[0].cell.forget_bias == forget_bias
    assert model.provenance.framework == "tensorflow"


def test_layers_in_one_loop_the_last_state_and_what_follows(tmp_path: Path) -> None:
    cells = [draw_cell(1), draw_cell(2, 4, 5)]
    model = formats.load(saved(tmp_path / "a.pb", cells, last=True))
    assert [layer.kind for layer in model.layers] == ["lstm", "lstm", "last_step", "dense"]
    z = forward(cells, STEPS)[-1] @ (np.eye(5, 2) + 0.5)
    assert np.abs(float64(model, STEPS) - np.exp(z) / np.exp(z).sum()).max() < FLOAT64


def test_gates_are_known_by_what_they_do(tmp_path: Path) -> None:
    """Blocks of the kernel in each of the 23 other orders are other cells, read as such."""
    cell = draw_cell(3)
    expected, seen = forward([cell], STEPS), 0
    for order in permutations(range(4)):
        other = dict(cell)
        for name in ("kernel", "bias"):
            parts = np.split(cell[name], 4, axis=-1)
            other[name] = np.concatenate([parts[k] for k in order], axis=-1)
        found = float64(formats.load(saved(tmp_path / "a.pb", [other])), STEPS)
        assert np.abs(found - forward([other], STEPS)).max() < FLOAT64
        seen += np.abs(found - expected).max() > 1e-3
    assert seen == 23


def test_layers_by_name_and_where_the_model_starts(tmp_path: Path) -> None:
    d = Def()
    cell = draw_cell(4)
    odd = d.node("odd", "Mfcc", d.node("wav", "Placeholder", dtype=1, shape=(-1,)))
    rows = d.node("rows", "Reshape", odd, d.constant("shape", [-1, 6, 3]))
    order = d.constant("order", [1, 0, 2])
    outputs, _ = dynamic_rnn(d, [cell], d.node("turned", "Transpose", rows, order))
    d.node("y", "Transpose", outputs, order)
    path = d.save(tmp_path / "a.pb")
    assert refusal(path).startswith("node 'odd': is a Mfcc, expected only the operators of an LSTM")
    listing = formats.list_layers(path)
    assert (listing.format, listing.names) == ("tensorflow", ("lstm0",))
    assert ("Mfcc", 1) in listing.others
    for options in ({"select": "lstm0"}, {"start": "rows"}, {"start": "rows:0", "end": "y:0"}):
        model = formats.load(path, **options)
        assert np.abs(float64(model, STEPS) - forward([cell], STEPS)).max() < FLOAT64
    assert refusal(path, start="row").startswith("start names 'row', expected one of wav, odd, ")
    assert refusal(path, end="why").startswith("end names 'why', expected one of ")


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        (
            {"limit": 3},
            "loop 'rnn/while' does not run over the whole of its sequence, expected "
            "every step once, as tf.nn.dynamic_rnn and Keras run",
        ),
        ({"start": 1}, "loop 'rnn/while' does not count from 0 in ones, expected steps in order"),
        (
            {"state": 0.5},
            "the loop starts with state 'rnn/h0/zeros' of 4 units, expected zeros, or an "
            "input of the graph",
        ),
    ],
)
def test_a_loop_that_is_refused(tmp_path: Path, odd: dict[str, Any], says: str) -> None:
    assert refusal(saved(tmp_path / "a.pb", [draw_cell(5)], **odd)) == says


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Mul", "Add", "BiasAdd", "MatMul", "Split"])
def test_one_operator_at_a_time(tmp_path: Path, op: str) -> None:
    """Another operator in a cell is another cell that is read as what it is, or a refusal."""
    path = saved(tmp_path / "a.pb", [draw_cell(6, peephole=True, clip=0.25)])
    from ifgo.formats.tensorflow.file import message

    whole = path.read_bytes()
    count = sum(node.op == op.encode() for node in message("Graph").FromString(whole).node)
    refused = 0
    for k in range(count):
        graph = message("Graph").FromString(whole)
        node = [node for node in graph.node if node.op == op.encode()][k]
        node.op = b"Softplus" if op in ("Sigmoid", "Tanh") else b"Sub"
        path.write_bytes(graph.SerializeToString())
        with pytest.raises(IfgoError):
            formats.load(path)
        refused += 1
    assert refused == count > 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("w/steps", "loop 'rnn/while' does not run over the whole of its sequence"),
        ("w/in", "loop 'rnn/while' does not run over the whole of its sequence"),
    ],
)
def test_a_node_without_its_input(tmp_path: Path, name: str, says: str) -> None:
    path = saved(tmp_path / "a.pb", [draw_cell(6)])
    from ifgo.formats.tensorflow.file import message

    graph = message("Graph").FromString(path.read_bytes())
    (node,) = (node for node in graph.node if node.name == name.encode())
    del node.input[:]
    path.write_bytes(graph.SerializeToString())
    assert refusal(path).startswith(says)


def test_a_peephole_of_another_size(tmp_path: Path) -> None:
    cell = draw_cell(6, peephole=True)
    cell["w_f_diag"] = np.ones((4, 4), "f")
    assert refusal(saved(tmp_path / "a.pb", [cell])) == (
        "node 'w/cell0/mul_2': the step of a loop has a product without an activation of c', "
        "expected an LSTM cell: c' = f·c + i·g, h' = o·tanh(c')"
    )


def test_what_is_no_frozen_graph(tmp_path: Path) -> None:
    (tmp_path / "a.pb").write_bytes(b"\x0a\xff\xff")
    assert refusal(tmp_path / "a.pb") == (
        "is no frozen TensorFlow graph, or a truncated one (its protobuf does not decode), "
        "expected a GraphDef. Save a Keras model as .keras or .h5, or freeze the graph"
    )
    (tmp_path / "saved_model.pb").write_bytes(b"")
    for path in (tmp_path, tmp_path / "saved_model.pb"):
        assert refusal(path) == (
            "saved_model.pb: holds no SavedModel, or a truncated one (its protobuf does not "
            "decode), expected a graph for serving. Save the model again: model.export(folder) or "
            "tf.saved_model.save"
        )
    d = Def()
    d.node("y", "Sigmoid", d.node("x", "Placeholder", dtype=1, shape=(-1, 3)))
    assert refusal(d.save(tmp_path / "b.pb")).startswith("has no loop that runs LSTM cells, but ")
    d.node("a", "Add", "x", "b")
    d.node("b", "Add", "x", "a")
    assert refusal(d.save(tmp_path / "b.pb")) == (
        "node 'a': depends on itself, expected a graph whose loops are while loops"
    )


def test_nothing_is_written(tmp_path: Path) -> None:
    model = formats.load(saved(tmp_path / "a.pb", [draw_cell(7)]))
    with pytest.raises(IfgoError) as caught:
        formats.save(model, tmp_path / "b.pb")
    assert str(caught.value) == (
        f"{tmp_path / 'b.pb'}: ifgo writes no TensorFlow graphs. Write an .onnx or a .tflite file"
    )


def test_damage(tmp_path: Path) -> None:
    """Cut and flipped files are refused or read; nothing else happens."""
    data = saved(tmp_path / "a.pb", [draw_cell(8)]).read_bytes()
    path, rng = tmp_path / "b.pb", random.Random(0)
    for end in range(0, len(data), 97):
        path.write_bytes(data[:end])
        with suppress(IfgoError):
            formats.load(path)
    for _ in range(400):
        changed, bit = bytearray(data), rng.randrange(8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with suppress(IfgoError):
            formats.load(path).run(STEPS, on="exact")


def test_arms_keyword_model(shared: Path) -> None:
    """BasicLSTMCell behind an audio front end; probabilities that TensorFlow recorded."""
    folder = shared / "models" / "kws_basic_lstm_s"
    model = formats.load(folder / "Basic_LSTM_S.pb", start="Reshape_1")
    stored = np.load(folder / "expected.npz")
    clips = [name.removeprefix("feat_") for name in stored if name.startswith("feat_")]
    assert len(clips) == 7
    for clip in clips:
        x = stored[f"feat_{clip}"]
        true, single = float64(model, x)[0], model.run(x, on="exact")[0][0]
        # another float32 run with sigmoids up to 4 times as far off as ours
        room = 4 * max(np.abs(single - true).max(), 2.0**-22)
        assert np.abs(true - stored[f"prob_{clip}"]).max() <= room
