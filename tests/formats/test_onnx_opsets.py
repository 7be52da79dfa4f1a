"""Operator sets 1 to 22: the same chain, each operator in the form that its set gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_bounds import float32_bound
from onnx_cases import (
    SIZE,
    UNITS,
    assert_same,
    ints,
    lstm_weights,
    node,
    random,
    refuse_file,
    run_onnx,
    save,
)
from onnx_refusals import ALONE

from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats import onnx as room
from ifgo.layers import BatchNorm, Dense, Dropout, Recurrent, Scale
from ifgo.reference import truth

OPSETS = range(1, 23)
RUNNABLE = 7
"""ONNX Runtime's first operator set."""


class Writer:
    """Nodes of one operator set; what moved from attributes to inputs goes where it belongs."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}

    def add(self, op: str, inputs: str, outputs: str, **attributes: Any) -> None:
        if self.opset < 6 and op in ("Add", "Mul", "Clip", "BatchNormalization", "Dropout"):
            attributes["consumed_inputs"] = [0]
        self.nodes.append(node(op, inputs, outputs, **attributes))

    def moved(self, op: str, since: int, x: str, y: str, given: dict[str, list[int]]) -> None:
        """`given`: attributes before operator set `since`, inputs in that order from then on."""
        if self.opset < since:
            self.add(op, x, y, **given)
            return
        names: list[str] = []
        for key, values in given.items():
            names.append(f"{y.split()[0]}_{key}")
            self.constants[names[-1]] = ints(*values)
        self.add(op, " ".join([x, *names]), y)

    def number(self, name: str, value: float) -> str:
        self.constants[name] = np.float32(value)
        return name


def broadcast(opset: int, axis: int) -> dict[str, int]:
    return {"broadcast": 1, "axis": axis} if opset < 7 else {}


def build(opset: int) -> onnx.ModelProto:
    """Folded weights, an LSTM, a scale, a batch norm, a dropout, a dense layer, softmax."""
    w = Writer(opset)
    weights = {k: v * np.float32(0.5) for k, v in lstm_weights(SIZE, UNITS).items()}
    whole = np.concatenate([weights["W"][0], np.full((16, 1), 9, np.float32)], axis=1)
    w.constants |= {"w": whole, "R": weights["R"], "b": weights["B"].reshape(2, 16)}
    to: Any = "FLOAT" if opset < 6 else TensorProto.FLOAT
    w.add("Cast", "x", "x1", to=to)
    w.moved("Slice", 10, "w", "w1", {"starts": [0], "ends": [SIZE], "axes": [1]})
    w.moved("Unsqueeze", 13, "w1", "W", {"axes": [0]})
    if opset < 2 or opset >= 13:
        w.constants["halves"] = ints(1, 1)
        w.add("Split", "b halves", "b0 b1", axis=0)
    else:
        w.add("Split", "b", "b0 b1", axis=0, split=[1, 1])
    # Each half is summed over an axis of length 1 and clipped to bounds beyond it: unchanged.
    for k in range(2):
        w.moved("ReduceSum", 13, f"b{k}", f"c{k}", {"axes": [0]})
        w.nodes[-1].attribute.append(helper.make_attribute("keepdims", 1))
        if opset < 11:
            w.add("Clip", f"c{k}", f"d{k}", min=-5.0, max=5.0)
        else:
            low, high = w.number("low", -5.0), w.number("high", 5.0)
            w.add("Clip", f"c{k} {low} {high}", f"d{k}")
    w.add("Concat", "d0 d1", "B", axis=1)
    extra: dict[str, Any] = {"layout": 0} if opset >= 14 else {}
    extra |= {"output_sequence": 1} if opset < 7 else {}
    w.add("LSTM", "x1 W R B", "Y", hidden_size=UNITS, clip=4.0, **extra)
    w.moved("Squeeze", 13, "Y", "y", {"axes": [1]})
    w.constants |= {"factor": random(UNITS, seed=3), "offset": random(UNITS, seed=4)}
    w.add("Mul", "y factor", "y1", **broadcast(opset, 2))
    w.add("Add", "y1 offset", "y2", **broadcast(opset, -1))
    w.add("Transpose", "y2", "y3", perm=[1, 2, 0])
    for k, name in enumerate(("scale", "shift", "mean", "variance")):
        w.constants[name] = random(UNITS, seed=5 + k) + np.float32(k == 3)
    norm: dict[str, Any] = {"epsilon": 0.125}
    norm |= {"is_test": 1} if opset < 7 else {}
    norm |= {"spatial": 1} if opset < 9 else {}
    norm |= {"training_mode": 0} if opset >= 14 else {}
    w.add("BatchNormalization", "y3 scale shift mean variance", "y4", **norm)
    w.add("Transpose", "y4", "y5", perm=[2, 0, 1])
    if opset < 12:
        w.add("Dropout", "y5", "y6", ratio=0.25, **({"is_test": 1} if opset < 7 else {}))
    else:
        w.add("Dropout", f"y5 {w.number('ratio', 0.25)}", "y6")
    w.constants["dense"] = random(UNITS, 2, seed=9)
    w.add("MatMul", "y6 dense", "y7")
    w.add("Softmax", "y7", "out", axis=2)
    made = helper.make_graph(
        w.nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", SIZE])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["T", "B", 2])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in w.constants.items()],
    )
    version = 3 if opset < 9 else 8 if opset < 20 else 10
    if version == 3:  # initializers were inputs too
        made.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in made.initializer
        )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", opset)], ir_version=version
    )


@pytest.mark.parametrize("opset", OPSETS)
def test_same_model_in_every_set(opset: int, tmp_path: Path) -> None:
    made = build(opset)
    onnx.checker.check_model(made)
    path = save(made, tmp_path)
    model = room.read(path)
    kinds = [type(layer) for layer in model.layers]
    assert kinds == [Recurrent, Scale, BatchNorm, Dropout, Dense]
    assert_same(model, room.read(save(build(17), tmp_path, "same.onnx")))
    x = random(5, 2, SIZE, scale=1.0)
    own = x.swapaxes(0, 1)
    result = truth.forward(model, own)
    bound = float32_bound(model, result, own)
    if opset >= RUNNABLE:
        assert np.abs(run_onnx(path, x=x)[0].swapaxes(0, 1) - result.y).max() <= bound
    y, _ = model.run(own, on="exact")
    assert np.abs(y - result.y).max() <= bound


def lstm(opset: int, **attributes: Any) -> onnx.ModelProto:
    constants = lstm_weights(SIZE, UNITS)
    outputs = attributes.pop("outputs", "Y Y_h")
    made = helper.make_graph(
        [node("LSTM", "x W R B", outputs, hidden_size=UNITS, **attributes)],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", SIZE])],
        [helper.make_tensor_value_info("Y_h", TensorProto.FLOAT, [1, "B", UNITS])],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


NEITHER = ", expected only attributes that ifgo knows in this operator set"


@pytest.mark.parametrize(
    ("opset", "attributes", "message"),
    [
        (7, {"output_sequence": 1}, f"LSTM has the attribute 'output_sequence'{NEITHER}"),
        (13, {"layout": 0}, f"LSTM has the attribute 'layout'{NEITHER}"),
        (22, {"output_sequence": 0}, f"LSTM has the attribute 'output_sequence'{NEITHER}"),
    ],
)
def test_attributes_of_another_set(
    opset: int, attributes: dict[str, int], message: str, tmp_path: Path
) -> None:
    made = lstm(opset, **attributes)
    refuse_file(save(made, tmp_path), UnsupportedError, f"node 'n_Y': {message}")


def test_output_sequence(tmp_path: Path) -> None:
    """0 lets Y be left out, 1 does not; neither changes a number."""
    kept = room.read(save(lstm(1, output_sequence=0), tmp_path))
    assert_same(kept, room.read(save(lstm(6, output_sequence=1), tmp_path)))
    assert_same(kept, room.read(save(lstm(22, outputs="- Y_h"), tmp_path)))
    refuse_file(
        save(lstm(1, output_sequence=1, outputs="- Y_h"), tmp_path),
        FormatError,
        "node 'n_Y_h': output_sequence is 1 without Y, expected an output Y, or 0",
    )


def tail(nodes: list[onnx.NodeProto], opset: int, **constants: Any) -> onnx.ModelProto:
    """An LSTM, its Y as y (T, B, UNITS), and nodes that make "out"."""
    made = lstm(opset, outputs="Y")
    if opset < 13:
        squeeze = node("Squeeze", "Y", "y", axes=[1])
    else:
        squeeze = node("Squeeze", "Y one", "y")
        constants["one"] = ints(1)
    made.graph.node.extend([squeeze, *nodes])
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()
    )
    made.graph.output[0].name = "out"
    del made.graph.output[0].type.tensor_type.shape.dim[:]
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made


@pytest.mark.parametrize(
    ("nodes", "opset", "constants", "kind", "message"),
    [
        (
            [node("Add", "y b", "out")],
            6,
            {"b": random(UNITS)},
            FormatError,
            "node 'n_out': has tensors of 3 and 1 axes without broadcast, expected equal shapes",
        ),
        (
            [node("Add", "y b", "out", broadcast=1, axis=2)],
            6,
            {"b": random(2, UNITS)},
            FormatError,
            "node 'n_out': broadcasts from axis 2, expected room for 2 axes",
        ),
        (
            [node("Add", "y b", "out", broadcast=1, axis=0)],
            6,
            {"b": random(UNITS)},
            UnsupportedError,
            "node 'n_out': weight 'b' has shape (4, 1, 1), expected one number, or one for each of "
            "4 features on the last axis" + ALONE,
        ),
        (
            [node("Unsqueeze", "b", "c", axes=[0]), node("Add", "y c", "out")],
            13,
            {"b": random(UNITS)},
            FormatError,
            "node 'n_c': has no axes, expected where to put new ones",
        ),
        (
            [node("Squeeze", "c", "b", axes=[0]), node("Add", "y b", "out")],
            13,
            {"c": random(1, UNITS)},
            UnsupportedError,
            f"node 'n_b': Squeeze has the attribute 'axes'{NEITHER}",
        ),
        (
            [
                node("Transpose", "y", "z", perm=[1, 2, 0]),
                node("BatchNormalization", "z a a a a", "out"),
            ],
            6,
            {"a": np.ones(UNITS, np.float32)},
            UnsupportedError,
            "node 'n_out': is in training mode, expected stored statistics per feature" + ALONE,
        ),
        (
            [node("Clip", "y", "out", min=-1.0)],
            10,
            {},
            UnsupportedError,
            "node 'n_out': clips the sequence to [-1, inf], expected no bounds, or 0 below and "
            "none above (relu)" + ALONE,
        ),
        (
            [node("Clip", "y low high", "out")],
            11,
            {"low": np.float32(0), "high": np.float32(6)},
            UnsupportedError,
            "node 'n_out': clips the sequence to [0, 6], expected no bounds, or 0 below and none "
            "above (relu)" + ALONE,
        ),
        (
            [node("ReduceSum", "y", "out")],
            12,
            {},
            UnsupportedError,
            "node 'n_out': computes with the values of the sequence, expected constants here"
            + ALONE,
        ),
    ],
)
def test_refused(
    nodes: list[onnx.NodeProto],
    opset: int,
    constants: dict[str, Any],
    kind: Any,
    message: str,
    tmp_path: Path,
) -> None:
    refuse_file(save(tail(nodes, opset, **constants), tmp_path), kind, message)


@pytest.mark.parametrize("opset", [6, 10, 11, 22])
def test_clip_as_relu_or_nothing(opset: int, tmp_path: Path) -> None:
    nodes = [node("Clip", "y", "z")]
    constants: dict[str, Any] = {}
    if opset < 11:
        nodes.append(node("Clip", "z", "out", min=0.0))
    else:
        nodes.append(node("Clip", "z low", "out"))
        constants["low"] = np.float32(0)
    model = room.read(save(tail(nodes, opset, **constants), tmp_path))
    assert [layer.detail() for layer in model.layers[1:]] == ["relu"]
