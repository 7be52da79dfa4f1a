"""Chains in the shapes that keras2onnx and tf2onnx write, built by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_bounds import cell_bound, compare, float32_bound
from onnx_cases import (
    INT32,
    INT64,
    SIZE,
    UNITS,
    graph,
    ints,
    lstm_weights,
    node,
    random,
    refuse_file,
    run_onnx,
    save,
)
from onnx_refusals import ALONE

from ifgo import formats, states
from ifgo.errors import UnsupportedError
from ifgo.formats import onnx as room
from ifgo.layers import Dense, Flatten, Recurrent, RepeatVector
from ifgo.model import Model
from ifgo.reference import truth

B, T = 2, 5
FORWARD = {k: v * np.float32(0.5) for k, v in lstm_weights(SIZE, UNITS).items()}
BOTH = {k: v * np.float32(0.5) for k, v in lstm_weights(SIZE, UNITS, 2).items()}
DENSE = {"dw": random(UNITS, 2, seed=4), "db": random(2, seed=5)}
WIDE = {"dw": random(2 * UNITS, 2, seed=4), "db": random(2, seed=5)}
HEAD = ("MatMul", "Add", "Sigmoid")


def head(source: str) -> list[onnx.NodeProto]:
    """MatMul, Add and the activation as nodes of their own."""
    return [
        node("MatMul", f"{source} dw", "dense0"),
        node("Add", "dense0 db", "biased_tensor_name"),
        node("Sigmoid", "biased_tensor_name", "out"),
    ]


def keras(
    after: list[onnx.NodeProto], shape: list[Any], weights: dict[str, Any], **attributes: Any
) -> onnx.ModelProto:
    """keras2onnx: operator set 11, axes as attributes, (N, T, F) transposed around the node."""
    d = weights["W"].shape[0]
    nodes = [
        node("Transpose", "x", "lstm_X", perm=[1, 0, 2]),
        node(
            "LSTM",
            "lstm_X W R B",
            "lstm_Y lstm_Y_h lstm_Y_c",
            activations=["Sigmoid", "Tanh", "Tanh"] * d,
            direction="bidirectional" if d == 2 else "forward",
            hidden_size=UNITS,
            **attributes,
        ),
        *after,
    ]
    return graph(nodes, {"x": ["N", "T", SIZE]}, {"out": shape}, weights, opset=11)


X = random(B, T, SIZE, scale=1.0)


def test_keras_sequences(tmp_path: Path) -> None:
    after = [
        node("Transpose", "lstm_Y", "y_transposed", perm=[2, 1, 0, 3]),
        node("Squeeze", "y_transposed", "y", axes=[1]),
        node("Identity", "y", "y1"),
        *head("y1"),
    ]
    path = save(keras(after, ["N", "T", 2], FORWARD | DENSE), tmp_path)
    model = room.read(path)
    assert [type(layer) for layer in model.layers] == [Recurrent, Dense]
    compare(path, model, X)


def test_keras_last(tmp_path: Path) -> None:
    after = [node("Squeeze", "lstm_Y_h", "y", axes=[0]), *head("y")]
    path = save(keras(after, ["N", 2], FORWARD | DENSE), tmp_path)
    model = room.read(path)
    assert [layer.kind for layer in model.layers] == ["lstm", "last_step", "dense"]
    compare(path, model, X)


def test_keras_bidirectional_sequences(tmp_path: Path) -> None:
    after = [
        node("Transpose", "lstm_Y", "y0", perm=[2, 0, 1, 3]),
        node("Reshape", "y0 shape", "y"),
        *head("y"),
    ]
    made = keras(after, ["N", "T", 2], BOTH | WIDE | {"shape": ints(0, 0, -1)})
    path = save(made, tmp_path)
    compare(path, room.read(path), X)


@pytest.mark.parametrize("op", ["Flatten", "Reshape"])
def test_keras_bidirectional_last(op: str, tmp_path: Path) -> None:
    join = node("Flatten", "y0", "y", axis=1)
    if op == "Reshape":
        join = node("Reshape", "y0 shape", "y")
    after = [node("Transpose", "lstm_Y_h", "y0", perm=[1, 0, 2]), join, *head("y")]
    made = keras(after, ["N", 2], BOTH | WIDE | {"shape": ints(-1, 2 * UNITS)})
    path = save(made, tmp_path)
    compare(path, room.read(path), X)


def test_keras_time_distributed(tmp_path: Path) -> None:
    """Features of all steps as rows, a Gemm, and back to a time that the file fixes."""
    after = [
        node("Squeeze", "lstm_Y", "y", axes=[1]),
        node("Transpose", "y", "y1", perm=[1, 0, 2]),
        node("Reshape", "y1 rows", "y2"),
        node("Gemm", "y2 dw db", "y3"),
        node("Tanh", "y3", "y4"),
        node("Reshape", "y4 back", "out"),
    ]
    constants = FORWARD | DENSE | {"rows": ints(-1, UNITS), "back": ints(-1, T, 2)}
    made = keras(after, ["N", T, 2], constants)
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = T
    path = save(made, tmp_path)
    model = room.read(path)
    assert [layer.kind for layer in model.layers] == ["lstm", "dense"]
    assert model.layers[1].detail() == "tanh"
    x = X.swapaxes(0, 1).swapaxes(0, 1)
    result = truth.forward(model, x)
    have = run_onnx(path, x=x)[0]
    assert np.abs(have - result.y).max() <= float32_bound(model, result, x)


def test_keras_repeat_vector(tmp_path: Path) -> None:
    """An encoder, its last h tiled, a decoder."""
    second = {k + "2": v * np.float32(0.5) for k, v in lstm_weights(UNITS, UNITS, seed=9).items()}
    after = [
        node("Squeeze", "lstm_Y_h", "h", axes=[0]),
        node("Unsqueeze", "h", "h1", axes=[1]),
        node("Tile", "h1 repeats", "h2"),
        node("Transpose", "h2", "h3", perm=[1, 0, 2]),
        node("LSTM", "h3 W2 R2 B2", "Z", hidden_size=UNITS),
        node("Squeeze", "Z", "z", axes=[1]),
        node("Transpose", "z", "out", perm=[1, 0, 2]),
    ]
    made = keras(after, ["N", 3, UNITS], FORWARD | second | {"repeats": ints(1, 3, 1)})
    path = save(made, tmp_path)
    model = room.read(path)
    assert [layer.kind for layer in model.layers] == ["lstm", "last_step", "repeat_vector", "lstm"]
    assert isinstance(model.layers[2], RepeatVector)
    assert model.layers[2].steps == 3
    compare(path, model, X)


def test_keras_flatten(tmp_path: Path) -> None:
    after = [
        node("Squeeze", "lstm_Y", "y", axes=[1]),
        node("Transpose", "y", "y1", perm=[1, 0, 2]),
        node("Reshape", "y1 flat", "y2"),
        *head("y2"),
    ]
    weights = {"dw": random(T * UNITS, 2, seed=4), "db": random(2, seed=5)}
    made = keras(after, ["N", 2], FORWARD | weights | {"flat": ints(-1, T * UNITS)})
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = T
    path = save(made, tmp_path)
    model = room.read(path)
    assert isinstance(model.layers[1], Flatten)
    result = truth.forward(model, X)
    have = run_onnx(path, x=X)[0]
    assert np.abs(have - result.y).max() <= float32_bound(model, result, X)


# -- tf2onnx ----------------------------------------------------------------------------------


def tensorflow(
    after: list[onnx.NodeProto], shape: list[Any], weights: dict[str, Any], nodes: Any = None
) -> onnx.ModelProto:
    """tf2onnx: operator set 15, zero states of the input's batch as a chain of shape operators."""
    d = weights["W"].shape[0]
    direction = "bidirectional" if d == 2 else "forward"
    lstm = node(
        "LSTM",
        "x1 W R B - h h",
        "Y Y_h Y_c",
        direction=direction,
        hidden_size=UNITS,
    )
    before = [
        node("Transpose", "x", "x1", perm=[1, 0, 2]),
        node("Shape", "x", "shape"),
        node("Cast", "shape", "shape32", to=INT32),
        node("Slice", "shape32 k0 k1 k0", "batch32"),
        node("Cast", "batch32", "batch64", to=INT64),
        node("Concat", "directions batch64 units", "states", axis=0),
        node("Expand", "nil states", "h"),
    ]
    constants = weights | {"k0": ints(0), "k1": ints(1), "k2": ints(2), "k-1": ints(-1)}
    constants |= {
        "directions": ints(d),
        "units": ints(UNITS),
        "nil": np.float32(0).reshape(1, 1, 1),
    }
    made = [*before, *([lstm] if nodes is None else nodes), *after]
    return graph(made, {"x": ["N", "T", SIZE]}, {"out": shape}, constants, opset=15)


SEQUENCE = [node("Squeeze", "Y k1", "ys"), node("Transpose", "ys", "y", perm=[1, 0, 2])]
TAILS: dict[str, tuple[list[onnx.NodeProto], list[Any]]] = {
    "sequences": ([*SEQUENCE, *head("y")], ["N", "T", 2]),
    "final state": ([node("Squeeze", "Y_h k0", "y"), *head("y")], ["N", 2]),
    "strided slice": (
        [
            *SEQUENCE,
            node("Slice", "y k-1 far k1", "last"),
            node("Squeeze", "last k1", "y2"),
            *head("y2"),
        ],
        ["N", 2],
    ),
    "gather": (
        [*SEQUENCE, node("Gather", "y minus", "y2", axis=1), *head("y2")],
        ["N", 2],
    ),
    "tensordot": (
        [
            *SEQUENCE,
            node("Shape", "y", "full"),
            node("Slice", "full k0 k2", "free"),
            node("ReduceProd", "free", "rows", axes=[0], keepdims=1),
            node("Concat", "rows units", "flat", axis=0),
            node("Reshape", "y flat", "y2"),
            node("MatMul", "y2 dw", "y3"),
            node("Concat", "free two", "back", axis=0),
            node("Reshape", "y3 back", "y4"),
            node("Add", "y4 db", "y5"),
            node("Sigmoid", "y5", "out"),
        ],
        ["N", "T", 2],
    ),
}


@pytest.mark.parametrize("name", TAILS)
def test_tensorflow(name: str, tmp_path: Path) -> None:
    after, shape = TAILS[name]
    constants = {"far": ints(2**31 - 1), "minus": np.int64(-1), "two": ints(2)}
    path = save(tensorflow(after, shape, FORWARD | DENSE | constants), tmp_path)
    model = room.read(path)
    assert model.recurrent[0].initial.kind == "zero"
    assert model.layers[-1].kind == "dense"
    compare(path, model, X)


def test_tensorflow_bidirectional(tmp_path: Path) -> None:
    """Each direction cut out of Y, and joined again after its own Transpose."""
    after: list[onnx.NodeProto] = []
    for k, name in enumerate("fb"):
        after += [
            node("Slice", f"Y k{k} k{k + 1} k1", f"{name}1"),
            node("Squeeze", f"{name}1 k1", f"{name}2"),
            node("Transpose", f"{name}2", f"{name}3", perm=[1, 0, 2]),
        ]
    after += [node("Concat", "f3 b3", "y", axis=2), *head("y")]
    path = save(tensorflow(after, ["N", "T", 2], BOTH | WIDE), tmp_path)
    compare(path, room.read(path), X)


# -- two nodes for two directions ---------------------------------------------------------------


def apart(after: list[onnx.NodeProto], outputs: dict[str, Any], **constants: Any) -> Any:
    """A forward and a reverse node over one sequence."""
    weights = {k: v for n in "fb" for k, v in direction(n).items()}
    nodes = [
        node("LSTM", "x Wf Rf Bf", "Yf Yf_h Yf_c", hidden_size=UNITS),
        node("LSTM", "x Wb Rb Bb", "Yb Yb_h Yb_c", hidden_size=UNITS, direction="reverse"),
        *after,
    ]
    axes = {"k0": ints(0), "k1": ints(1)}
    return graph(nodes, {"x": ["T", "B", SIZE]}, outputs, weights | axes | WIDE | constants)


def direction(name: str) -> dict[str, Any]:
    made = lstm_weights(SIZE, UNITS, seed=ord(name))
    return {k + name: v * np.float32(0.5) for k, v in made.items()}


def check_apart(path: Path, merge: str) -> Model:
    model = room.read(path)
    (layer,) = model.recurrent
    assert (layer.directions, layer.merge) == (2, merge)
    assert layer.forward is not None
    assert layer.backward is not None
    want = {n: direction(n)[f"R{n}"][0][:UNITS].tobytes() for n in "fb"}  # rows of gate i
    assert layer.forward.gate("i")["weight_hh"].tobytes() == want["f"]
    assert layer.backward.gate("i")["weight_hh"].tobytes() == want["b"]
    x = random(T, B, SIZE, scale=1.0)
    own = x.swapaxes(0, 1)
    result = truth.forward(model, own)
    outputs = run_onnx(path, x=x)
    packed = states.to_outputs(model, result.state)
    for output, have in zip(model.outputs, outputs, strict=True):
        if output.states:
            assert np.abs(have - packed[output.name]).max() <= cell_bound(model, result, own)
        else:
            y = result.y.swapaxes(0, 1) if output.axes == "TB" else result.y
            assert np.abs(have - y).max() <= float32_bound(model, result, own)
    return model


def test_two_nodes_joined_by_features(tmp_path: Path) -> None:
    after = [
        node("Squeeze", "Yf k1", "yf"),
        node("Squeeze", "Yb k1", "yb"),
        node("Concat", "yf yb", "y", axis=-1),
        *head("y"),
        node("Concat", "Yf_h Yb_h", "h", axis=0),
        node("Concat", "Yf_c Yb_c", "c", axis=0),
    ]
    state = [2, "B", UNITS]
    made = apart(after, {"out": ["T", "B", 2], "h": state, "c": state})
    path = save(made, tmp_path)
    model = check_apart(path, "concat")
    assert [o.role for o in model.outputs] == ["sequence", "h_n", "c_n"]
    assert model.provenance.names["lstm0.backward.weight_ih"] == "Wb"
    assert room.write(model, tmp_path / "w.onnx").kept


def test_two_nodes_joined_by_directions_and_last_states(tmp_path: Path) -> None:
    after = [
        node("Squeeze", "Yf_h k0", "hf"),
        node("Squeeze", "Yb_h k0", "hb"),
        node("Concat", "hf hb", "y", axis=1),
        *head("y"),
    ]
    path = save(apart(after, {"out": ["B", 2]}), tmp_path)
    model = check_apart(path, "concat")
    assert [layer.kind for layer in model.layers] == ["lstm", "last_step", "dense"]


def test_two_nodes_summed(tmp_path: Path) -> None:
    after = [node("Add", "Yb Yf", "y"), node("Squeeze", "y k1", "out")]
    check_apart(save(apart(after, {"out": ["T", "B", UNITS]}), tmp_path), "sum")


def test_two_nodes_with_states_of_their_own(tmp_path: Path) -> None:
    """Packed as torch does: rows of one input for each direction."""
    after = [
        node("Squeeze", "Yf k1", "yf"),
        node("Squeeze", "Yb k1", "yb"),
        node("Concat", "yf yb", "out", axis=-1),
    ]
    made = apart(after, {"out": ["T", "B", 2 * UNITS]})
    entries = [onnx.helper.make_tensor_value_info(n, 1, [2, "B", UNITS]) for n in ("h", "c")]
    made.graph.input.extend(entries)
    for k, name in enumerate("hc"):
        split = node("Split", name, f"{name}f {name}b", axis=0)
        made.graph.node.insert(k, split)
    for lstm, name in zip((n for n in made.graph.node if n.op_type == "LSTM"), "fb", strict=True):
        lstm.input.extend(["", f"h{name}", f"c{name}"])
    path = save(made, tmp_path)
    model = room.read(path)
    assert [len(entry.slots) for entry in model.inputs[1:]] == [1, 1]  # type: ignore[union-attr]
    x, h, c = random(T, B, SIZE), random(2, B, UNITS, seed=1), random(2, B, UNITS, seed=2)
    start = states.from_inputs(model, {"h": h, "c": c})
    result = truth.forward(model, x.swapaxes(0, 1), start)
    have = run_onnx(path, x=x, h=h, c=c)[0].swapaxes(0, 1)
    assert np.abs(have - result.y).max() <= float32_bound(model, result, x.swapaxes(0, 1))


def test_two_nodes_that_start_differently(tmp_path: Path) -> None:
    after = [node("Concat", "Yf Yb", "out", axis=1)]
    made = apart(after, {"out": ["T", 2, "B", UNITS]}, start=random(1, 1, UNITS))
    lstms = [n for n in made.graph.node if n.op_type == "LSTM"]
    lstms[1].input.extend(["", "start", "start"])
    path = save(made, tmp_path)
    initial = check_apart_constant(path)
    assert not initial[0].any()
    assert initial[1].tobytes() == random(1, 1, UNITS).tobytes()
    entry = onnx.helper.make_tensor_value_info("s", 1, [1, "B", UNITS])
    made.graph.input.append(entry)
    lstms[0].input.extend(["", "s"])
    refuse_file(
        save(made, tmp_path),
        UnsupportedError,
        "node 'n_out': joins two directions, one of which takes its initial state from an input, "
        "expected both or neither" + ALONE,
    )


def check_apart_constant(path: Path) -> Any:
    initial = room.read(path).recurrent[0].initial
    assert initial.kind == "constant"
    assert initial.h is not None
    return initial.h


# -- masks ------------------------------------------------------------------------------------


def test_lengths_of_a_mask(tmp_path: Path) -> None:
    """Lengths that the graph counts itself: refused with the way out, which then works."""
    nodes = [
        node("ReduceMax", "x", "top", axes=[2], keepdims=0),
        node("Cast", "top", "kept", to=INT32),
        node("ReduceSum", "kept k0", "n", keepdims=0),
        node("LSTM", "x W R B n", "Y", hidden_size=UNITS),
    ]
    made = graph(
        nodes,
        {"x": ["T", "B", SIZE]},
        {"Y": ["T", 1, "B", UNITS]},
        FORWARD | {"k0": ints(0)},
    )
    path = save(made, tmp_path)
    refuse_file(
        path,
        UnsupportedError,
        "uses input 'x' as X and as lengths, expected one use of each input. With --select NAME "
        "(select= in Python) the LSTM layers are read alone, and what the graph computes for them "
        "becomes an input",
    )
    model = formats.load(path, select="n_Y")
    assert [entry.name for entry in model.inputs] == ["x", "n"]
