"""Every message with which the reader refuses an operator beside the LSTM nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from onnx_cases import AXES, INT64, SIZE, UNITS, chain, graph, ints, lstm_weights, node, random
from onnx_refusals import (
    ALONE,
    DOUBLE,
    F64,
    FINITE,
    FROZEN,
    SQUEEZED,
    Case,
    F,
    U,
    after,
    before,
    refuse,
)

from ifgo.errors import IfgoError

CASES: dict[str, Case] = {
    "residual over a vector": (
        after(
            node("Squeeze", "Y_h k0", "h"),
            node("MatMul", "h d", "u"),
            node("Add", "h u", "out"),
            out={"out": ["B", UNITS]},
            constants={"d": random(UNITS, UNITS)},
        ),
        U,
        "node 'n_out': adds two vectors, expected a residual over a sequence, before its last step "
        "is taken" + ALONE,
    ),
    "repeats of the wrong rank": (
        after(node("Tile", "Y ones", "out"), constants={"ones": ints(1, 1)}),
        F,
        "node 'n_out': has 2 repeats, expected 4, one for each axis",
    ),
    "a tiled sequence": (
        after(SQUEEZED, node("Tile", "y twice", "out"), constants={"twice": ints(1, 1, 2)}),
        U,
        "node 'n_out': copies an axis of more than one entry, expected a vector repeated a known "
        "number of times" + ALONE,
    ),
    # -- layers ---------------------------------------------------------------------------------
    "weight on the left": (
        after(SQUEEZED, node("MatMul", "d y", "out"), constants={"d": random(2, 2)}),
        U,
        "node 'n_out': has a constant on its left, expected features · weight" + ALONE,
    ),
    "weight from the input": (
        after(SQUEEZED, node("MatMul", "y y", "out")),
        U,
        "node 'n_out': weight 'y' depends on the model's input, expected a constant" + ALONE,
    ),
    "weight of another type": (
        after(SQUEEZED, node("MatMul", "y d", "out"), constants={"d": random(4, 2, dtype=F64)}),
        F,
        "node 'n_out': weight 'd' is float64, its input float32, expected one type",
    ),
    "weight of many axes": (
        after(SQUEEZED, node("MatMul", "y d", "out"), constants={"d": random(1, 4, 2)}),
        U,
        "node 'n_out': weight 'd' has 3 axes, expected 2" + ALONE,
    ),
    "weight of another size": (
        after(SQUEEZED, node("MatMul", "y d", "out"), constants={"d": random(5, 2)}),
        F,
        "node 'n_out': multiplies 4 features by a weight for 5, expected 5",
    ),
    "nan in a dense": (
        after(
            SQUEEZED,
            node("MatMul", "y d", "out"),
            constants={"d": np.full((UNITS, 2), np.inf, np.float32)},
        ),
        F,
        f"node 'n_out': weight 'd'[0, 0] is inf{FINITE}",
    ),
    "bias over time": (
        after(SQUEEZED, node("Add", "y d", "out"), constants={"d": random(5, 1, 1)}),
        U,
        "node 'n_out': weight 'd' has shape (5, 1, 1), expected one number, or one for each of 4 "
        "features on the last axis" + ALONE,
    ),
    "gemm of a transpose": (
        after(
            node("Squeeze", "Y_h k0", "h"),
            node("Gemm", "h d", "out", transA=1),
            constants={"d": random(UNITS, 2)},
        ),
        U,
        "node 'n_out': does not have its features as rows on the left, expected A (B, features), "
        "transA 0" + ALONE,
    ),
    "alpha": (
        after(
            node("Squeeze", "Y_h k0", "h"),
            node("Gemm", "h d", "out", alpha=0.3),
            constants={"d": random(UNITS, 2)},
        ),
        U,
        "node 'n_out': alpha is 0.3, expected 1, or a power of two, which folds exactly" + ALONE,
    ),
    "subtracted": (
        after(SQUEEZED, node("Tanh", "y", "a"), node("Sub", "a y", "out")),
        U,
        "node 'n_out': subtracts two signals, expected a constant on one side" + ALONE,
    ),
    "multiplied": (
        after(SQUEEZED, node("Sigmoid", "y", "gate"), node("Mul", "gate y", "out")),
        U,
        "node 'n_out': multiplies two signals, expected a constant factor" + ALONE,
    ),
    "added": (
        after(SQUEEZED, node("Tanh", "y", "a"), node("Relu", "y", "b"), node("Add", "a b", "out")),
        U,
        "node 'n_out': adds two signals, expected the output of some layers plus their own input "
        "(a residual), or a bias" + ALONE,
    ),
    "divided": (
        after(SQUEEZED, node("Div", "d y", "out"), constants={"d": np.float32(2)}),
        U,
        "node 'n_out': divides by a signal, expected a signal divided by a constant" + ALONE,
    ),
    "divided by 0": (
        after(
            SQUEEZED, node("Div", "y d", "out"), constants={"d": np.array([1, 2, 0, 1], np.float32)}
        ),
        U,
        "node 'n_out': divides by 0, expected divisors whose reciprocals float32 holds" + ALONE,
    ),
    "divided by what has no reciprocal": (
        after(SQUEEZED, node("Div", "y d", "out"), constants={"d": np.float32(2.0**127)}),
        U,
        "node 'n_out': divides by 1.70141183e+38, expected divisors whose reciprocals float32 "
        "holds" + ALONE,
    ),
    "negated": (
        after(SQUEEZED, node("Neg", "y", "out")),
        U,
        "node 'n_out': computes with the values of the sequence, expected constants here" + ALONE,
    ),
    "softmax over time": (
        after(SQUEEZED, node("Softmax", "y", "out", axis=0)),
        U,
        "node 'n_out': normalises along axis 0, expected the last axis, features" + ALONE,
    ),
    "softmax of old": (
        after(node("Squeeze", "Y", "y", axes=[1]), node("Softmax", "y", "out"), opset=11),
        U,
        "node 'n_out': normalises along axis 1, expected the last axis, features" + ALONE,
    ),
    "dropout in training": (
        after(
            SQUEEZED,
            node("Dropout", "y r t", "out"),
            constants={"r": np.float32(0.5), "t": np.True_},
        ),
        U,
        "node 'n_out': is in training mode, expected a model exported for inference" + ALONE,
    ),
    "dropout rate": (
        after(SQUEEZED, node("Dropout", "y r", "out"), constants={"r": np.float32(1.5)}),
        IfgoError,
        "node 'n_out': layer dropout: dropout rate is 1.5, expected a rate in [0, 1)",
    ),
    "batch norm in training": (
        after(
            SQUEEZED,
            node("BatchNormalization", "y d d d d", "out", training_mode=1),
            constants={"d": random(UNITS)},
        ),
        U,
        "node 'n_out': is in training mode, expected stored statistics per feature" + ALONE,
    ),
    "batch norm of a vector": (
        after(
            node("Reshape", "Y_h flat", "h"),
            node("BatchNormalization", "h d d d d", "out"),
            constants={"d": random(UNITS), "flat": ints(-1)},
        ),
        U,
        "node 'n_h': merges the batch axis with 4 features, expected batch and time kept apart "
        "from features" + ALONE,
    ),
    "cast": (
        after(SQUEEZED, node("Cast", "y", "out", to=DOUBLE)),
        U,
        "node 'n_out': casts float32 to float64, expected one type throughout, or wider tokens"
        + ALONE,
    ),
    "cast to text": (
        after(SQUEEZED, node("Cast", "y", "out", to=TensorProto.STRING)),
        U,
        "node 'n_out': casts to object, expected a float, integer or boolean type" + ALONE,
    ),
    "cast to nothing": (
        after(SQUEEZED, node("Cast", "y", "out", to=99)),
        U,
        "node 'n_out': casts to element type 99, expected a float, integer or boolean type" + ALONE,
    ),
    "embedding axis": (
        before(
            node("Gather", "e x", "v", axis=1),
            constants={"e": random(3, 5)},
            inputs={"x": ["T", "B"]},
            types={"x": INT64},
        ),
        U,
        "node 'n_v': looks tokens up along another axis, expected axis 0" + ALONE,
    ),
    "embedding of integers": (
        before(
            node("Gather", "e x", "v"),
            constants={"e": np.zeros((5, SIZE), np.int64)},
            inputs={"x": ["T", "B"]},
            types={"x": INT64},
        ),
        U,
        "node 'n_v': looks tokens up in 'e', int64 of shape (5, 3), expected an embedding "
        "(vocabulary, features) of real numbers" + ALONE,
    ),
    "lookup by features": (
        after(SQUEEZED, node("Gather", "e y", "out"), constants={"e": random(5, 2)}),
        U,
        "node 'n_out': picks rows by something else than the tokens of an input, expected an "
        "embedding" + ALONE,
    ),
    "first step": (
        after(SQUEEZED, node("Gather", "y first", "out", axis=0), constants={"first": np.int64(0)}),
        U,
        "node 'n_out': picks entries of the time axis, expected the last step, at most" + ALONE,
    ),
    "last of the batch": (
        after(SQUEEZED, node("Gather", "y last", "out", axis=1), constants={"last": np.int64(-1)}),
        U,
        "node 'n_out': takes the last entry of the batch axis, expected the last step of time "
        "after an LSTM" + ALONE,
    ),
    "all but one step": (
        after(SQUEEZED, node("Slice", "y k1 e k0", "out"), constants={"e": ints(2**60)}),
        U,
        "node 'n_out': cuts the time axis to 1:1152921504606846976:1, expected the whole axis, or "
        "the last step of time" + ALONE,
    ),
    "time backwards": (
        after(
            SQUEEZED,
            node("Slice", "y m e k0 m", "out"),
            constants={"m": ints(-1), "e": ints(-(2**60))},
        ),
        U,
        "gives its result from the last step to the first, expected the order of time, or a "
        "backward LSTM whose result stands so" + ALONE,
    ),
    "copied sequence": (
        after(
            SQUEEZED,
            node("Unsqueeze", "y k0", "y2"),
            node("Expand", "y2 s", "out"),
            constants={"s": ints(3, 1, 1, 1)},
        ),
        U,
        "node 'n_out': copies the sequence along an axis, expected a vector repeated a known "
        "number of times" + ALONE,
    ),
    "batch squeezed": (
        after(SQUEEZED, node("Squeeze", "y k1", "out")),
        U,
        "node 'n_out': drops the batch axis, expected batch and time kept apart. Export the model "
        "without squeezing it away" + ALONE,
    ),
    "joined in time": (
        after(SQUEEZED, node("Concat", "y y", "out", axis=0)),
        U,
        "node 'n_out': joins along the time axis, expected features or states" + ALONE,
    ),
    "joined with a constant": (
        after(SQUEEZED, node("Concat", "y d", "out", axis=2), constants={"d": random(2, 2, 2)}),
        U,
        "node 'n_out': joins constants to the sequence, expected one of both" + ALONE,
    ),
    "split in time": (
        after(SQUEEZED, node("Split", "y", "out b", axis=0)),
        U,
        "node 'n_out': splits an axis of open length, expected features or states" + ALONE,
    ),
    "frozen in one place": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(5, 2, 4)}),
        U,
        f"node 'n_out': splits an axis of length ? into parts of 5{FROZEN}" + ALONE,
    ),
    "flattened open time": (
        after(
            SQUEEZED,
            node("Transpose", "y", "t", perm=[1, 0, 2]),
            node("Flatten", "t", "out"),
        ),
        U,
        "node 'n_out': merges the time axis with 4 features, expected batch and time kept apart "
        "from features" + ALONE,
    ),
    "last step of the input": (
        lambda: chain(
            [],
            [node("Gather", "x last", "out", axis=0)],
            {"last": np.int64(-1)},
            {"Y": ["T", 1, "B", 4], "out": ["B", SIZE]},
        ),
        U,
        "node 'n_out': takes the last step of the model's input, expected an LSTM" + ALONE,
    ),
    "output of the batch alone": (
        after(
            SQUEEZED,
            node("Gather", "y last", "h", axis=0),
            node("LSTM", "y W2 R2 B2", "Z"),
            out={"h": ["B", 4], "Z": ["T", 1, "B", 4]},
            constants={"last": np.int64(-1)},
        ),
        U,
        "outputs 'h' and 'Z' are taken from different places of the chain, expected one end, and "
        "final states beside it. Export a model with one result" + ALONE,
    ),
    "no features": (
        after(
            SQUEEZED,
            node("Slice", "y k2 k2 k2", "none"),
            node("MatMul", "none d", "out"),
            constants={"d": random(2, 2)},
        ),
        F,
        "node 'n_out': is given an empty tensor, expected at least one feature",
    ),
    "batch norm of one axis": (
        after(
            node("Reshape", "Y_h flat", "h"),
            node("BatchNormalization", "h d d d d", "out"),
            constants={"d": random(UNITS), "flat": ints(-1)},
            before=[node("Unsqueeze", "x k1", "v")],
            inputs={"x": ["T", SIZE]},
            lstm="v W R B",
        ),
        F,
        "node 'n_out': has an input of 1 axes, expected features on axis 1",
    ),
    "batch of two axes": (
        before(
            node("Reshape", "x s", "v"),
            constants={"s": ints(0, -1, SIZE)},
            inputs={"x": ["T", "B", "N", SIZE]},
        ),
        U,
        "node 'n_Y': does not get its batch along one axis, expected (T, B, I)",
    ),
    "lstm that only gives a shape": (
        lambda: graph(
            [
                node("LSTM", "x W R", "Y"),
                node("Squeeze", "Y k1", "y"),
                node("Shape", "y", "s", start=0, end=2),
                node("Concat", "s three", "s3", axis=0),
                node("Sigmoid", "x", "a"),
                node("Reshape", "a s3", "out"),
            ],
            {"x": ["T", "B", SIZE]},
            {"out": ["T", "B", SIZE]},
            lstm_weights() | AXES | {"three": ints(3)},
        ),
        U,
        "has no LSTM between its input and its outputs, expected a chain around LSTM nodes" + ALONE,
    ),
    "given state that only gives a shape": (
        lambda: graph(
            [
                node("LSTM", "x W R - - h c", "Z"),
                node("Shape", "Z", "s", start=0, end=1),
                node("LSTM", "x W R", "Y"),
                node("Squeeze", "Y k1", "y"),
                node("Concat", "s minus four", "s3", axis=0),
                node("Reshape", "y s3", "out"),
            ],
            {"x": ["T", "B", SIZE], "h": [1, "B", UNITS], "c": [1, "B", UNITS]},
            {"out": ["T", "B", UNITS]},
            lstm_weights() | AXES | {"minus": ints(-1), "four": ints(4)},
        ),
        U,
        "input 'h' feeds an LSTM beside the chain, expected LSTM layers one after another" + ALONE,
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_refused(name: str, tmp_path: Path) -> None:
    refuse(CASES[name], tmp_path)
