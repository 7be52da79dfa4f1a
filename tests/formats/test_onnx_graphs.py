"""Graphs around LSTM nodes: folded constants, moves of whole axes, layers, many operator sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import (
    AXES,
    INT64,
    SIZE,
    UNITS,
    assert_same,
    chain,
    float32_bound,
    graph,
    ints,
    lstm_weights,
    node,
    one_lstm,
    random,
    run_onnx,
    save,
)

from ifgo import limits
from ifgo.errors import FormatError
from ifgo.formats import onnx as room
from ifgo.layers import (
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
)
from ifgo.model import Model
from ifgo.reference import truth

# -- constants that the graph computes ----------------------------------------------------------


def folded(nodes: list[onnx.NodeProto], constants: dict[str, Any], opset: int = 17) -> Any:
    """The plain LSTM, its weights computed by `nodes`."""
    made = one_lstm(opset=opset)
    keep = [t for t in made.graph.initializer if t.name not in {o for n in nodes for o in n.output}]
    lstm = made.graph.node[0]
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend([*nodes, lstm])
    made.graph.initializer.extend(keep)
    made.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    return made


PLAIN = lstm_weights(SIZE, UNITS)
W, R, BIAS = PLAIN["W"], PLAIN["R"], PLAIN["B"]

FOLDED: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "transpose": ([node("Transpose", "w", "W", perm=[0, 2, 1])], {"w": W.swapaxes(1, 2).copy()}),
    "reversed axes": ([node("Transpose", "w", "W")], {"w": W.T.copy()}),
    "unsqueeze": ([node("Unsqueeze", "w a", "W")], {"w": W[0], "a": ints(0)}),
    "squeeze": ([node("Squeeze", "w a", "W")], {"w": W[None], "a": ints(0)}),
    "squeeze and unsqueeze": (
        [node("Squeeze", "w", "w2"), node("Unsqueeze", "w2 a", "W")],
        {"w": W, "a": ints(0)},
    ),
    "gates joined": (
        [node("Concat", "w0 w1 w2 w3", "W", axis=1)],
        {f"w{k}": W[:, 4 * k : 4 * k + 4] for k in range(4)},
    ),
    "gates reordered by slices": (
        [
            *(node("Slice", f"w a{k} a{k + 1} axis", f"g{k}") for k in range(4)),
            node("Concat", "g0 g3 g1 g2", "W", axis=1),
        ],
        {
            "w": np.concatenate([W[:, 0:4], W[:, 8:12], W[:, 12:16], W[:, 4:8]], 1),
            "axis": ints(1),
            **{f"a{k}": ints(4 * k) for k in range(5)},
        },
    ),
    "gates reordered by split": (
        [
            node("Split", "w", "g0 g1 g2 g3", axis=1),
            node("Concat", "g0 g3 g1 g2", "W", axis=1),
        ],
        {"w": np.concatenate([W[:, 0:4], W[:, 8:12], W[:, 12:16], W[:, 4:8]], 1)},
    ),
    "split in parts": (
        [node("Split", "b p", "b0 b1", axis=1), node("Concat", "b1 b0", "B", axis=1)],
        {"b": np.concatenate([BIAS[:, 10:], BIAS[:, :10]], 1), "p": ints(22, 10)},
    ),
    "gather": (
        [node("Gather", "w i", "W", axis=1)],
        {"w": W[:, ::-1].copy(), "i": np.arange(15, -1, -1)},
    ),
    "gather by a range": (
        [node("Range", "s e d", "i"), node("Gather", "w i", "W", axis=1)],
        {
            "w": W[:, ::-1].copy(),
            "s": np.int64(15),
            "e": np.int64(-1),
            "d": np.int64(-1),
        },
    ),
    "slice backwards": (
        [node("Slice", "w s e a d", "W")],
        {"w": W[:, ::-1].copy(), "s": ints(-1), "e": ints(-(2**62)), "a": ints(1), "d": ints(-1)},
    ),
    "reshape": ([node("Reshape", "w s", "W")], {"w": W.reshape(-1), "s": ints(1, 16, -1)}),
    "flatten": ([node("Flatten", "b", "B")], {"b": BIAS.reshape(1, 4, 8)}),
    "cast": ([node("Cast", "w", "W", to=TensorProto.FLOAT)], {"w": W.astype(np.float64)}),
    "arithmetic": (
        [node("Mul", "w two", "w2"), node("Sub", "w2 w", "w1"), node("Div", "w1 one", "W")],
        {"w": W, "two": np.float32(2), "one": np.float32(1)},
    ),
    "negative": ([node("Neg", "w", "W")], {"w": -W}),
    "constant node": (
        [helper.make_node("Constant", [], ["B"], value=numpy_helper.from_array(BIAS))],
        {},
    ),
    "constant floats": (
        [
            helper.make_node("Constant", [], ["b"], value_floats=BIAS.reshape(-1).tolist()),
            helper.make_node("Constant", [], ["s"], value_ints=[1, -1]),
            node("Reshape", "b s", "B"),
        ],
        {},
    ),
    "identities": ([node("Identity", "w", "v"), node("Identity", "v", "W")], {"w": W}),
    "whole numbers": (
        [node("Div", "n m", "s"), node("Reshape", "w s", "W")],
        {"w": W.reshape(-1), "n": ints(1, 33, -7), "m": ints(1, 2, -2)},
    ),
    "constant int and float": (
        [
            helper.make_node("Constant", [], ["i"], value_int=0),
            helper.make_node("Constant", [], ["one"], value_float=1.0),
            node("Gather", "two i", "w", axis=0),
            node("Mul", "w one", "W"),
        ],
        {"two": np.stack([W, -W])},
    ),
    "size": (
        [
            node("Size", "b", "n"),
            node("Unsqueeze", "n nil", "s"),
            node("Expand", "z s", "z32"),
            node("Add", "b z32", "B"),
        ],
        {"b": BIAS, "z": np.zeros((1,), np.float32), "nil": ints(0)},
    ),
    "where": (
        [node("Equal", "k l", "m"), node("Where", "m w v", "W")],
        {"k": ints(1), "l": ints(1), "w": W, "v": np.zeros_like(W)},
    ),
}


@pytest.mark.parametrize("name", list(FOLDED))
def test_weights_are_folded(name: str, tmp_path: Path) -> None:
    plain = room.read(save(one_lstm(), tmp_path, "plain.onnx"))
    path = save(folded(*FOLDED[name]), tmp_path)
    found = room.read(path)
    assert_same(found, plain)
    x = random(5, 2, SIZE)
    runs = [run_onnx(p, x=x) for p in (path, tmp_path / "plain.onnx")]
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


def test_old_operator_sets_take_axes_as_attributes(tmp_path: Path) -> None:
    """Opset 9: Unsqueeze, Squeeze, Slice and Split with attributes, Reshape with an input."""
    nodes = [
        node("Unsqueeze", "w", "w3", axes=[0]),
        node("Slice", "w3", "top", axes=[1], starts=[0], ends=[8]),
        node("Slice", "w3", "low", axes=[1], starts=[8], ends=[2**31 - 1]),
        node("Concat", "top low", "w4", axis=1),
        node("Split", "w4", "a b", axis=1, split=[4, 12]),
        node("Concat", "a b", "W", axis=1),
        node("LSTM", "x W R B", "Y", hidden_size=UNITS),
        node("Squeeze", "Y", "y", axes=[1]),
        node("MatMul", "y d", "m"),
        node("Softmax", "m", "out", axis=2),
    ]
    made = graph(
        nodes,
        {"x": ["T", "B", SIZE]},
        {"out": ["T", "B", 2]},
        {"w": W[0], "R": R, "B": BIAS, "d": random(UNITS, 2)},
        opset=9,
    )
    made.ir_version = 4
    path = save(made, tmp_path)
    model = room.read(path)
    assert model.recurrent[0].cell.weight_ih.shape == (16, SIZE)
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_zero_states_of_open_shape(tmp_path: Path) -> None:
    """What exporters build for a state of zeros; all of it is nothing."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s one", "b", axis=0),
        node("Unsqueeze", "b nil", "b1"),
        node("Mul", "b1 unit", "b2"),
        node("Add", "b2 nil", "b3"),
        node("Sub", "b3 nil", "b4"),
        node("Div", "b4 unit", "b5a"),
        node("Neg", "b5a", "b5b"),
        node("Sub", "nil b5b", "b5c"),
        node("Slice", "b5c nil unit nil", "b5"),
        node("Cast", "b5", "b6", to=INT64),
        node("Concat", "unit b6 four", "shape", axis=0),
        node("Equal", "shape minus", "open"),
        node("Where", "open ones shape", "shape2"),
        node("ConstantOfShape", "shape2", "h"),
        node("Expand", "z shape", "c"),
        node("LSTM", "x W R B - h c", "Y", hidden_size=UNITS),
    ]
    constants = PLAIN | {
        "one": np.int64(1),
        "nil": ints(0),
        "unit": ints(1),
        "four": ints(4),
        "minus": ints(-1, -1, -1),
        "ones": ints(1, 1, 1),
        "z": np.zeros((1, 1, 1), np.float32),
    }
    made = graph(nodes, {"x": ["T", "B", SIZE]}, {"Y": ["T", 1, "B", UNITS]}, constants)
    model = room.read(save(made, tmp_path))
    assert model.recurrent[0].initial.kind == "zero"
    assert run_onnx(tmp_path / "m.onnx", x=random(5, 2, SIZE))[0].shape == (5, 1, 2, 4)


# -- layers -----------------------------------------------------------------------------------


def compare(path: Path, model: Model, x: Any, ours: Any = None, shape: Any = None) -> None:
    """The first output against truth, the original and what we write of it."""
    order = {"BT": (0, 1, 2), "TB": (1, 0, 2), "T": (0, 1)}[model.input.axes]
    if ours is None:
        ours = x.transpose(order[: x.ndim]) if model.input.axes != "T" else x[None]
    result = truth.forward(model, ours)
    bound = float32_bound(model, result, ours)
    want = result.y
    if model.outputs[0].role == "sequence" and model.outputs[0].axes == "TB":
        want = want.swapaxes(0, 1)
    name = onnx.load(path).graph.input[0].name
    have = run_onnx(path, **{name: x})[0]
    if shape is not None:
        assert have.shape == shape
    assert np.abs(have.reshape(want.shape) - want).max() <= bound
    written = path.parent / "written.onnx"
    room.write(model, written)
    assert_same(room.read(written), model)
    again = run_onnx(written, **{onnx.load(written).graph.input[0].name: np.ascontiguousarray(x)})
    assert np.abs(again[0].reshape(want.shape) - want).max() <= bound


@pytest.mark.parametrize(
    ("op", "attributes", "text"),
    [
        ("Sigmoid", {}, "sigmoid"),
        ("Tanh", {}, "tanh"),
        ("Relu", {}, "relu"),
        ("HardSigmoid", {}, "hard_sigmoid(0.2, 0.5)"),
        ("HardSigmoid", {"alpha": 0.25, "beta": 0.75}, "hard_sigmoid(0.25, 0.75)"),
        ("LeakyRelu", {}, "leaky_relu(0.01)"),
        ("LeakyRelu", {"alpha": 0.5}, "leaky_relu(0.5)"),
        ("Elu", {}, "elu(1)"),
        ("Softsign", {}, "softsign"),
        ("Softplus", {}, "softplus"),
        ("Softmax", {"axis": -1}, "softmax"),
        ("Softmax", {"axis": 2}, "softmax"),
        ("Softmax", {}, "softmax"),
    ],
)
def test_activation_layers(op: str, attributes: dict[str, Any], text: str, tmp_path: Path) -> None:
    made = chain(
        [],
        [node("Squeeze", "Y k1", "y"), node(op, "y", "out", **attributes)],
        AXES,
        {"out": ["T", "B", UNITS]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert model.layers[1].detail() == text
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_thresholded_relu(tmp_path: Path) -> None:
    """A jump has no slope: the very structure is compared, and ORT with ORT."""
    made = chain(
        [],
        [node("Squeeze", "Y k1", "y"), node("ThresholdedRelu", "y", "out", alpha=0.125)],
        AXES,
        {"out": ["T", "B", UNITS]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert model.layers[1].detail() == "thresholded_relu(0.125)"
    written = tmp_path / "w.onnx"
    room.write(model, written)
    assert_same(room.read(written), model)
    x = random(5, 2, SIZE)
    np.testing.assert_array_equal(run_onnx(path, x=x)[0], run_onnx(written, x=x)[0])


@pytest.mark.parametrize(("alpha", "beta", "trans"), [(1.0, 1.0, 0), (0.5, 1.0, 1), (-2.0, 0.3, 1)])
def test_gemm(alpha: float, beta: float, trans: int, tmp_path: Path) -> None:
    weight, bias = random(UNITS, 2, seed=4), random(1, 2, seed=5)
    made = chain(
        [],
        [
            node("Squeeze", "Y_h k0", "h"),
            node("Gemm", "h w b", "out", alpha=alpha, beta=beta, transB=trans),
        ],
        AXES | {"w": weight.T.copy() if trans else weight, "b": bias},
        {"out": ["B", 2]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    dense = model.layers[-1]
    assert isinstance(dense, Dense)
    assert dense.bias is not None
    np.testing.assert_array_equal(dense.weight, weight.T * np.float32(alpha))
    np.testing.assert_array_equal(dense.bias, bias[0] * np.float32(beta))
    notes = " ".join(model.provenance.notes)
    assert ("alpha" in notes) == (alpha != 1)
    assert ("beta" in notes) == (beta != 1)
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_gemm_without_bias(tmp_path: Path) -> None:
    tail = [node("Squeeze", "Y_h k0", "h"), node("Gemm", "h w b", "out", beta=0.0)]
    constants = AXES | {"w": random(UNITS, 2), "b": random(2)}
    model = room.read(save(chain([], tail, constants, {"out": ["B", 2]}), tmp_path))
    dense = model.layers[-1]
    assert isinstance(dense, Dense)
    assert dense.bias is None


def test_scale_and_offset_before(tmp_path: Path) -> None:
    """x·factor, then minus a mean: one Scale; two offsets in a row stay two."""
    made = chain(
        [node("Mul", "f x", "x1"), node("Sub", "x1 m", "x2"), node("Add", "x2 s", "x3")],
        [],
        {"f": random(SIZE, seed=1), "m": random(1, 1, SIZE, seed=2), "s": np.float32(0.5)},
        {"Y": ["T", 1, "B", UNITS]},
        lstm="x3 W R B",
    )
    path = save(made, tmp_path)
    model = room.read(path)
    first, second = model.layers[:2]
    assert isinstance(first, Scale)
    assert isinstance(second, Scale)
    np.testing.assert_array_equal(first.factor, random(SIZE, seed=1))
    np.testing.assert_array_equal(first.offset, -random(1, 1, SIZE, seed=2).reshape(-1))
    np.testing.assert_array_equal(second.factor, np.ones(SIZE))
    np.testing.assert_array_equal(second.offset, np.full(SIZE, 0.5))
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_batch_norm(tmp_path: Path) -> None:
    """Features on axis 1, as the operator wants them."""
    stats = {
        "g": random(UNITS, seed=1),
        "b": random(UNITS, seed=2),
        "m": random(UNITS, seed=3),
        "v": random(UNITS, seed=4) + np.float32(1),
    }
    made = chain(
        [],
        [
            node("Squeeze", "Y k1", "y"),
            node("Transpose", "y", "y1", perm=[1, 2, 0]),
            node("BatchNormalization", "y1 g b m v", "y2", epsilon=0.125, momentum=0.9),
            node("Transpose", "y2", "out", perm=[0, 2, 1]),
        ],
        AXES | stats,
        {"out": ["B", "T", UNITS]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    norm = model.layers[1]
    assert isinstance(norm, BatchNorm)
    assert norm.epsilon == 0.125
    np.testing.assert_array_equal(norm.variance, stats["v"])
    assert model.outputs[0].axes == "BT"
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_dropout_is_kept_as_a_fact(tmp_path: Path) -> None:
    made = chain(
        [],
        [node("Squeeze", "Y k1", "y"), node("Dropout", "y r", "out")],
        AXES | {"r": np.float32(0.25)},
        {"out": ["T", "B", UNITS]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert isinstance(model.layers[1], Dropout)
    assert model.layers[1].rate == 0.25
    written = tmp_path / "w.onnx"
    report = room.write(model, written)
    assert report.folded == (
        "layer dropout: dropout 0.25 is left out, it does nothing at inference",
    )
    x = random(5, 2, SIZE)
    np.testing.assert_array_equal(run_onnx(path, x=x)[0], run_onnx(written, x=x)[0])


def test_residual(tmp_path: Path) -> None:
    """The first feature of the input is added to the output of the layers."""
    made = chain(
        [node("Transpose", "x", "t", perm=[1, 0, 2])],
        [
            node("Squeeze", "Y k1", "y"),
            node("MatMul", "y w", "y1"),
            node("Slice", "t k0 k1 k2", "skip"),
            node("Add", "skip y1", "y2"),
            node("Transpose", "y2", "out", perm=[1, 0, 2]),
        ],
        AXES | {"w": random(UNITS, 1)},
        {"out": ["B", "T", 1]},
        inputs={"x": ["B", "T", SIZE]},
        lstm="t W R B",
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert isinstance(model.layers[0], Residual)
    assert model.layers[0].channels == 1
    assert [layer.name for layer in model.layers[0].layers] == ["lstm0", "dense"]
    assert "residual.lstm0.forward.weight_ih" in model.provenance.names
    compare(path, model, random(2, 5, SIZE, scale=1.0))


def test_residual_around_the_second_layer(tmp_path: Path) -> None:
    second = {f"{k}2": v * np.float32(0.5) for k, v in lstm_weights(UNITS, UNITS, seed=5).items()}
    made = chain(
        [],
        [
            node("Squeeze", "Y k1", "y"),
            node("LSTM", "y W2 R2 B2", "Z Z_h", hidden_size=UNITS),
            node("Squeeze", "Z k1", "z"),
            node("Add", "z y", "out"),
        ],
        AXES | second,
        {"out": ["T", "B", UNITS]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert [layer.name for layer in model.layers] == ["lstm0", "residual"]
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_repeat_vector_and_flatten(tmp_path: Path) -> None:
    """Encoder state, repeated for a decoder whose 3 steps are flattened."""
    second = {f"{k}2": v * np.float32(0.5) for k, v in lstm_weights(UNITS, UNITS, seed=5).items()}
    made = chain(
        [],
        [
            node("Expand", "Y_h n", "rep"),
            node("LSTM", "rep W2 R2 B2", "Z", hidden_size=UNITS),
            node("Squeeze", "Z k1", "z"),
            node("Transpose", "z", "zb", perm=[1, 0, 2]),
            node("Flatten", "zb", "out", axis=1),
        ],
        AXES | second | {"n": ints(3, 1, 1)},
        {"out": ["B", 12]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert [type(layer) for layer in model.layers] == [
        Recurrent,
        LastStep,
        RepeatVector,
        Recurrent,
        Flatten,
    ]
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_last_step_as_a_sequence_of_one(tmp_path: Path) -> None:
    """y[-1:] keeps its axis: the second LSTM runs over one step."""
    second = {f"{k}2": v * np.float32(0.5) for k, v in lstm_weights(UNITS, UNITS, seed=5).items()}
    made = chain(
        [],
        [
            node("Squeeze", "Y k1", "y"),
            node("Slice", "y m e k0", "last"),
            node("LSTM", "last W2 R2 B2", "Z Z_h", hidden_size=UNITS),
            node("Squeeze", "Z_h k0", "out"),
        ],
        AXES | second | {"m": ints(-1), "e": ints(2**62)},
        {"out": ["B", UNITS]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    kinds = [layer.kind for layer in model.layers]
    assert kinds == ["lstm", "last_step", "repeat_vector", "lstm", "last_step"]
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_slices_and_copies_of_everything(tmp_path: Path) -> None:
    """A whole axis cut, also at its own open length, and an Expand that expands nothing."""
    made = chain(
        [],
        [
            node("Squeeze", "Y k1", "y"),
            node("Shape", "y", "s", start=0, end=1),
            node("Slice", "y k0 s k0", "a"),
            node("Expand", "a k1", "b"),
            node("Shape", "b", "s3"),
            node("Expand", "b s3", "out"),
        ],
        AXES,
        {"out": ["T", "B", UNITS]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert [layer.kind for layer in model.layers] == ["lstm"]
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_input_without_features(tmp_path: Path) -> None:
    """(T, B) with an axis of 1 put behind it; here the sequence has one feature."""
    weights = {k: v * np.float32(0.5) for k, v in lstm_weights(1, UNITS).items()}
    made = graph(
        [
            node("Unsqueeze", "x k2", "v"),
            node("LSTM", "v W R B", "Y", hidden_size=UNITS),
            node("Squeeze", "Y k1", "y"),
        ],
        {"x": ["T", "B"]},
        {"y": ["T", "B", UNITS]},
        weights | AXES,
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert model.input_size == 1
    assert model.provenance.notes == ("input x has no axis of features in the file",)
    x = random(5, 2, scale=1.0)
    result = truth.forward(model, x.T[..., None])
    have = run_onnx(path, x=x)[0].swapaxes(0, 1)
    assert np.abs(have - result.y).max() <= float32_bound(model, result, x.T[..., None])


def test_inputs_that_nobody_reads_are_noted(tmp_path: Path) -> None:
    made = chain([], [], {}, {"Y": ["T", 1, "B", UNITS]}, inputs={"x": ["T", "B", SIZE], "z": [1]})
    model = room.read(save(made, tmp_path))
    assert "left out input z, nothing reads it" in model.provenance.notes
    assert len(model.inputs) == 1


def test_limits_of_what_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary and a flattened time beyond the limits."""
    tokens = chain(
        [node("Gather", "e x", "v")],
        [],
        {"e": random(7, SIZE)},
        {"Y": ["T", 1, "B", UNITS]},
        inputs={"x": ["T", "B"]},
        lstm="v W R B",
        types={"x": INT64},
    )
    path = save(tokens, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "MAX_VOCABULARY", 6)
        with pytest.raises(FormatError) as caught:
            room.read(path)
    assert str(caught.value) == f"{path}: node 'n_v': has 7 rows, expected at most 6"
    flat = chain(
        [],
        [
            node("Squeeze", "Y k1", "y"),
            node("Transpose", "y", "t", perm=[1, 0, 2]),
            node("Flatten", "t", "out"),
        ],
        AXES,
        {"out": ["B", 100 * UNITS]},
        inputs={"x": [100, "B", SIZE]},
    )
    path = save(flat, tmp_path)
    monkeypatch.setattr(limits, "MAX_ELEMENTS", 399)
    with pytest.raises(FormatError) as caught:
        room.read(path)
    assert str(caught.value) == (
        f"{path}: node 'n_out': flattens to 400 features, expected at most 399"
    )


def test_hidden_as_sequence_into_a_dense(tmp_path: Path) -> None:
    """(B, H, 1) with a MatMul over the 1: the hidden vector is a sequence for the Dense too."""
    made = chain(
        [],
        [node("Transpose", "Y_h", "h", perm=[1, 2, 0]), node("MatMul", "h w", "out")],
        {"w": random(1, 2)},
        {"out": ["B", UNITS, 2]},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert [type(layer) for layer in model.layers] == [Recurrent, LastStep, HiddenAsSequence, Dense]
    compare(path, model, random(5, 2, SIZE, scale=1.0))


def test_tokens_of_a_small_type(tmp_path: Path) -> None:
    made = chain(
        [node("Cast", "x", "t", to=INT64), node("Gather", "e t", "v")],
        [node("Squeeze", "Y k1", "out")],
        AXES | {"e": random(7, SIZE)},
        {"out": ["T", "B", UNITS]},
        inputs={"x": ["T", "B"]},
        lstm="v W R B",
        types={"x": TensorProto.UINT8},
    )
    model = room.read(save(made, tmp_path))
    assert model.input.axes == "TB"
    tokens = np.random.default_rng(0).integers(0, 7, (5, 2))
    result = truth.forward(model, tokens.T)
    have = run_onnx(tmp_path / "m.onnx", x=tokens.astype(np.uint8))[0]
    assert np.abs(have.swapaxes(0, 1) - result.y).max() <= float32_bound(model, result, tokens)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_outputs_straight_from_the_node(direction: str, tmp_path: Path) -> None:
    """Y stays (T, D, B, H) in the file; here directions are merged into features."""
    d = 2 if direction == "bidirectional" else 1
    made = chain([], [], {}, {"Y": ["T", d, "B", UNITS]}, direction=direction)
    model = room.read(save(made, tmp_path))
    assert model.output_size == d * UNITS
    assert f"output Y has shape (T, {d}, B, 4) in the file" in model.provenance.notes


def test_squeezed_states_beside_the_sequence(tmp_path: Path) -> None:
    """Keras writes state_h and state_c as (B, H): final states, since Y is the result."""
    made = chain(
        [],
        [
            node("Squeeze", "Y k1", "y"),
            node("Squeeze", "Y_h k0", "h"),
            node("Squeeze", "Y_c k0", "c"),
        ],
        AXES,
        {"y": ["T", "B", UNITS], "h": ["B", UNITS], "c": ["B", UNITS]},
    )
    model = room.read(save(made, tmp_path))
    assert [o.role for o in model.outputs] == ["sequence", "h_n", "c_n"]
    assert "output h has shape (B, 4) in the file" in model.provenance.notes


def test_only_final_states(tmp_path: Path) -> None:
    made = chain([], [], {}, {"Y_h": [1, "B", UNITS], "Y_c": [1, "B", UNITS]})
    model = room.read(save(made, tmp_path))
    assert [(o.role, o.layers) for o in model.outputs] == [
        ("h_n", ("lstm0",)),
        ("c_n", ("lstm0",)),
    ]


def test_dead_nodes_are_noted(tmp_path: Path) -> None:
    made = chain(
        [], [node("Einsum", "x x", "dead", equation="tbi,tbi->tb")], {}, {"Y": ["T", 1, "B", 4]}
    )
    model = room.read(save(made, tmp_path))
    assert "left out 1 nodes that no output depends on" in model.provenance.notes


def test_names_are_ours(tmp_path: Path) -> None:
    evil = "\x1b[31mrm -rf"
    made = chain([], [], {}, {evil: ["T", 1, "B", 4]}, result=evil, lstm="x W R B")
    made.graph.node[0].output[0] = made.graph.output[0].name = evil
    made.producer_name = "evil\x1b" * 100
    model = room.read(save(made, tmp_path))
    assert [layer.name for layer in model.layers] == ["lstm0"]
    assert model.outputs[0].name == "?[31mrm -rf"
    assert len(model.provenance.version) == 64
    text = "".join([model.provenance.version, *model.provenance.notes])
    assert all(" " <= c <= "~" for c in text)
