"""Every message with which the reader refuses lengths, initial states and inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_cases import (
    AXES,
    INT32,
    INT64,
    SIZE,
    UNITS,
    chain,
    graph,
    ints,
    lstm_weights,
    node,
    one_lstm,
    random,
)
from onnx_refusals import (
    ALONE,
    BIND,
    DOUBLE,
    F64,
    FINITE,
    HIDDEN,
    SECOND,
    SQUEEZED,
    Case,
    F,
    U,
    after,
    before,
    frozen,
    plain,
    refuse,
    without_shape,
)

CASES: dict[str, Case] = {
    # -- lengths --------------------------------------------------------------------------------
    "constant lengths": (
        plain(inputs="x W R B n", extra={"n": np.array([2, 1], np.int32)}),
        U,
        "node 'n_Y': sequence_lens ('n') is constant and not the whole length ?, expected an input "
        "of the model, or none",
    ),
    "turned lengths": (
        lambda: chain(
            [node("Unsqueeze", "n k0", "n2")],
            [],
            AXES,
            {"Y": ["T", 1, "B", UNITS]},
            inputs={"x": ["T", "B", SIZE], "n": ["B"]},
            lstm="x W R B n2",
            types={"n": INT32},
        ),
        U,
        "node 'n_Y': sequence_lens ('n2') is no plain input of shape (B,), expected the lengths as "
        "an input of the model",
    ),
    "lengths of one layer only": (
        lambda: chain(
            [],
            [SQUEEZED, node("LSTM", "y W2 R2 B2", "out")],
            AXES | SECOND,
            {"out": ["T", 1, "B", UNITS]},
            inputs={"x": ["T", "B", SIZE], "n": ["B"]},
            lstm="x W R B n",
            types={"n": INT32},
        ),
        U,
        "node 'n_out': sequence_lens differs from that of the LSTM before it, expected the same "
        "lengths for every LSTM over the same time",
    ),
    "lengths of a replayed vector": (
        lambda: chain(
            [],
            [
                node("Transpose", "Y_h", "replay", perm=[2, 1, 0]),
                node("LSTM", "replay W2 R2 B2 n", "out"),
            ],
            SECOND | {"W2": random(1, 16, 1)},
            {"out": ["T", 1, "B", UNITS]},
            inputs={"x": ["T", "B", SIZE], "n": ["B"]},
            types={"n": INT32},
        ),
        U,
        "node 'n_out': has sequence_lens over a time that the model itself makes, expected lengths "
        "of the input sequence only",
    ),
    "last row of lengths": (
        lambda: chain(
            [],
            [SQUEEZED, node("Gather", "y last", "out", axis=0)],
            AXES | {"last": np.int64(-1)},
            HIDDEN,
            inputs={"x": ["T", "B", SIZE], "n": ["B"]},
            lstm="x W R B n",
            types={"n": INT32},
        ),
        U,
        "node 'n_out': takes the row of the last time step, which is padding where a sequence is "
        "shorter, expected the final state Y_h where sequence_lens is given" + ALONE,
    ),
    # -- states ---------------------------------------------------------------------------------
    "half a state": (
        plain(
            inputs="x W R B - h c", free={"c": [1, "B", UNITS]}, extra={"h": random(1, 1, UNITS)}
        ),
        U,
        "node 'n_Y': takes initial_c from an input and the other state from the file, expected "
        "the other state zero, an input too, or both constant. Bind the input to a constant with "
        "--bind FILE.npz (bind= in Python)",
    ),
    "rank of a state": (
        plain(inputs="x W R B - h", extra={"h": random(1, UNITS)}),
        F,
        "node 'n_Y': initial_h ('h') has 2 axes, expected 3: directions, batch, units",
    ),
    "shape of a state": (
        plain(inputs="x W R B - h", extra={"h": random(1, 1, 5)}),
        F,
        "node 'n_Y': initial_h ('h') has shape (1, 1, 5), expected (1, B, 4)",
    ),
    "wide cell": (
        plain(inputs="x W R B - h c", extra={"h": random(1, 1, 4), "c": random(1, 1, 9)}),
        F,
        "node 'n_Y': initial_c ('c') has shape (1, 1, 9), expected (1, B, 4). A cell state wider "
        "than the output is what torch's exporter writes for proj_size: ONNX LSTM has no "
        "projection, and the weights in this file are cut to the wrong rows. Export a model "
        "without proj_size, or read its state_dict",
    ),
    "batch of a state": (
        frozen(plain(inputs="x W R B - h", extra={"h": random(1, 3, UNITS)}), "T", 2),
        F,
        "node 'n_Y': initial_h ('h') is for a batch of 3, expected 2",
    ),
    "no rows of a state": (
        plain(inputs="x W R B - h", extra={"h": np.zeros((1, 0, UNITS), np.float32)}),
        F,
        "node 'n_Y': initial_h ('h') is for a batch of 0, expected ?",
    ),
    "rows of a state": (
        plain(inputs="x W R B - h", extra={"h": random(1, 2, UNITS)}),
        U,
        "node 'n_Y': initial_h ('h') differs between the rows of its batch, expected one initial "
        "state for all sequences, or an input",
    ),
    "type of a state": (
        plain(inputs="x W R B - h", extra={"h": random(1, 1, UNITS, dtype=F64)}),
        F,
        "node 'n_Y': initial_h ('h') is float64, W is float32, expected one type",
    ),
    "nan in a state": (
        plain(inputs="x W R B - h", extra={"h": np.full((1, 1, 4), np.nan, np.float32)}),
        F,
        f"node 'n_Y': initial_h ('h')[0, 0, 0] is nan{FINITE}",
    ),
    "type of a given state": (
        plain(
            inputs="x W R B - h c",
            free={"h": [1, "B", UNITS], "c": [1, "B", UNITS]},
            types={"h": DOUBLE},
        ),
        F,
        "node 'n_Y': initial_h ('h') is float64, W is float32, expected one type",
    ),
    "encoder and decoder": (
        after(SQUEEZED, node("LSTM", "y W2 R2 B2 - Y_h Y_c", "out")),
        U,
        "node 'n_out': initial_h ('Y_h') is computed from other layers, expected zero, a constant, "
        "or an input of the model. ifgo has no encoder-decoder pairs",
    ),
    "mixed state": (
        lambda: chain(
            [
                node("Reshape", "s two", "s2"),
                node("Transpose", "s2", "s3", perm=[1, 0, 2]),
                node("Reshape", "s3 three", "h"),
            ],
            [],
            {"two": ints(2, 2, 2), "three": ints(1, 2, 4)},
            {"Y": ["T", 1, "B", UNITS]},
            inputs={"x": ["T", 2, SIZE], "s": [1, 2, UNITS], "c": [1, 2, UNITS]},
            lstm="x W R B - h c",
        ),
        U,
        "input 's' does not pack whole states, expected whole states along axes of their own, "
        "every part used once. Pass h_0 and c_0 as inputs of their own" + ALONE,
    ),
    "units and batch mixed": (
        lambda: chain(
            [node("Gather", "s order", "t"), node("Reshape", "t three", "h")],
            [],
            {"order": ints(0, 1, 2, 3, 7, 6, 5, 4), "three": ints(1, 2, 4)},
            {"Y": ["T", 1, "B", UNITS]},
            inputs={"x": ["T", 2, SIZE], "s": [2 * UNITS], "c": [1, 2, UNITS]},
            lstm="x W R B - h c",
        ),
        U,
        "node 'n_Y': initial_h ('h') mixes units and batch, expected (directions, batch, units) of "
        "an input",
    ),
    "different parts of one batch": (
        lambda: chain(
            [node("Slice", "s k0 k1 k1", "c")],
            [],
            AXES,
            {"Y": ["T", 1, "B", UNITS]},
            inputs={"x": ["T", "B", SIZE], "s": [1, 2, UNITS]},
            lstm="x W R B - s c",
        ),
        U,
        "input 's' does not pack whole states, expected whole states along axes of their own, "
        "every part used once. Pass h_0 and c_0 as inputs of their own" + ALONE,
    ),
    "overlapping states": (
        plain(inputs="x W R B - s s", free={"s": [1, "B", UNITS]}),
        U,
        "input 's' does not pack whole states, expected whole states along axes of their own, "
        "every part used once. Pass h_0 and c_0 as inputs of their own" + ALONE,
    ),
    "unused part of a state": (
        lambda: chain(
            [
                node("Slice", "s k0 k1 k0", "h"),
                node("Slice", "s k1 k2 k0", "c"),
            ],
            [],
            AXES,
            {"Y": ["T", 1, "B", UNITS]},
            inputs={"x": ["T", "B", SIZE], "s": [3, "B", UNITS]},
            lstm="x W R B - h c",
        ),
        U,
        "input 's' does not pack whole states, expected whole states along axes of their own, "
        "every part used once. Pass h_0 and c_0 as inputs of their own" + ALONE,
    ),
    "huge state": (
        plain(inputs="x W R B - h c", free={"h": [1, 2**20, 2**10], "c": [1, "B", UNITS]}),
        U,
        "input 'h' fixes 1073741824 states, expected about as many as the weights are for. Export "
        "the model with an open batch",
    ),
    # -- inputs ---------------------------------------------------------------------------------
    "unbound": (
        plain(inputs="x w r", free={"w": [1, 16, SIZE], "r": [1, 16, UNITS]}),
        U,
        f"takes weights from the inputs 'w', 'r'{BIND}",
    ),
    "two sequences": (
        before(node("MatMul", "x d", "v"), inputs={"x": ["T", "B", SIZE], "d": [SIZE, SIZE]}),
        U,
        f"takes the sequence from the inputs 'x', 'd'{BIND}",
    ),
    "no sequence": (
        lambda: chain(
            [], [], {"v": random(2, 1, SIZE)}, {"Y": [2, 1, 1, UNITS]}, inputs={}, lstm="v W R B"
        ),
        U,
        "has no input for the sequence, expected one",
    ),
    "two uses": (
        lambda: chain(
            [node("Transpose", "x", "h", perm=[0, 1, 2])],
            [],
            {},
            {"Y": ["T", 1, "B", UNITS]},
            lstm="x W R B - h",
        ),
        U,
        "uses input 'x' as X and as state, expected one use of each input. With --select NAME "
        "(select= in Python) the LSTM layers are read alone, and what the graph computes for them "
        "becomes an input",
    ),
    "no shape": (
        lambda: without_shape(one_lstm()),
        U,
        "input 'x' declares no shape, expected a known number of axes. Export it with shapes",
    ),
    "open features": (
        before(node("Sigmoid", "x", "v"), inputs={"x": ["T", "B", "I"]}),
        F,
        "node 'n_v': gets an open number of features from input 'x', expected a known number",
    ),
    "two numbers of features": (
        lambda: graph(
            [node("MatMul", "x d", "a"), node("LSTM", "x W R", "Y"), node("Add", "a Y", "out")],
            {"x": ["T", "B", "I"]},
            {"out": ["T", 1, "B", UNITS]},
            lstm_weights() | {"d": random(5, 2)},
        ),
        F,
        "node 'n_Y': gets 5 features from input 'x', expected 3",
    ),
    "integers as features": (
        before(node("Sigmoid", "x", "v"), types={"x": INT64}),
        U,
        "node 'n_v': takes the token ids as features, expected the output of the layer before it"
        + ALONE,
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_refused(name: str, tmp_path: Path) -> None:
    refuse(CASES[name], tmp_path)
