"""Graphs around LSTM nodes: folded constants, moves of whole axes, layers, many operator sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx_bounds import compare, float32_bound
from onnx_cases import (
    AXES,
    INT64,
    SIZE,
    UNITS,
    assert_same,
    chain,
    graph,
    ints,
    lstm_weights,
    node,
    random,
    run_onnx,
    save,
)
from raising import raising

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
from ifgo.reference import truth

# -- layers -----------------------------------------------------------------------------------


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
        patch.setattr(limits, "DEFAULTS", limits.Limits(vocabulary=6))
        with pytest.raises(FormatError) as caught:
            room.read(path)
    assert str(caught.value) == f"{path}: node 'n_v': has 7 rows, expected at most 6" + raising(
        "vocabulary"
    )
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
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(elements=399))
    with pytest.raises(FormatError) as caught:
        room.read(path)
    assert str(caught.value) == (
        f"{path}: node 'n_out': flattens to 400 features, expected at most 399"
        + raising("elements")
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
    assert [o.layout for o in model.outputs] == ["", "B H", "B H"]
    assert model.provenance.notes == ()


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
    assert model.outputs[0].name == "?[31mrm -rf~963b16bc"
    assert len(model.provenance.version) == 64
    text = "".join([model.provenance.version, *model.provenance.notes])
    assert all(" " <= c <= "~" for c in text)
