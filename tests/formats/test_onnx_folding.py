"""Constants that the graph itself computes: weights, states, shapes, in many operator sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_bounds import compare
from onnx_cases import (
    INT64,
    SIZE,
    UNITS,
    assert_same,
    graph,
    ints,
    lstm_weights,
    node,
    one_lstm,
    random,
    run_onnx,
    save,
)

from ifgo.formats import onnx as room

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
