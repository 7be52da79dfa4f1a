"""Every message with which the reader refuses an LSTM node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_cases import (
    AXES,
    SIZE,
    UNITS,
    graph,
    ints,
    lstm_weights,
    node,
    random,
)
from onnx_refusals import (
    BIND,
    DOUBLE,
    F64,
    FINITE,
    SQUEEZED,
    Case,
    F,
    U,
    after,
    before,
    frozen,
    plain,
    refuse,
    small,
)
from raising import raising

from ifgo.errors import IfgoError

CASES: dict[str, Case] = {
    # -- the LSTM node --------------------------------------------------------------------------
    "unknown attribute": (
        plain({"proj_size": 2, "gain": 1.0}),
        U,
        "node 'n_Y': LSTM has the attribute 'gain', 'proj_size', expected only attributes that "
        "ifgo knows in this operator set",
    ),
    "output_sequence": (
        plain({"output_sequence": 1}),
        U,
        "node 'n_Y': LSTM has the attribute 'output_sequence', expected only attributes that ifgo "
        "knows in this operator set",
    ),
    "attribute type": (
        plain({"clip": 1}),
        F,
        "node 'n_Y': attribute clip is of type INT, expected FLOAT",
    ),
    "attribute nan": (
        plain({"clip": float("nan")}),
        F,
        "node 'n_Y': attribute clip is nan, expected finite numbers",
    ),
    "direction": (
        plain({"direction": "sideways"}),
        F,
        "node 'n_Y': direction is 'sideways', expected forward, reverse or bidirectional",
    ),
    "activation count": (
        plain({"direction": "bidirectional", "activations": ["Tanh"] * 3}, d=2),
        F,
        "node 'n_Y': activations has 3 names, expected 6, three for each direction",
    ),
    "activation name": (
        plain({"activations": ["Swish", "Tanh", "Tanh"]}),
        U,
        "node 'n_Y': activations names 'Swish', expected one of Sigmoid, Tanh, Relu, HardSigmoid, "
        "LeakyRelu, ThresholdedRelu, Elu, ScaledTanh, Affine, Softsign, Softplus",
    ),
    "ambiguous default": (
        plain({"activations": ["Sigmoid", "Affine", "Tanh"]}),
        U,
        "node 'n_Y': Affine has no activation_alpha, and its default is ambiguous (the operator "
        "text says 1, ONNX Runtime computes 0). Write activation_alpha into the model",
    ),
    "left over": (
        plain({"activation_alpha": [0.5]}),
        F,
        "node 'n_Y': activation_alpha has 1 more value than the activations Sigmoid, Tanh, Tanh "
        "take, expected one value for each activation that takes the parameter, in order",
    ),
    "input_forget": (
        plain({"input_forget": 2}),
        F,
        "node 'n_Y': input_forget is 2, expected 0 or 1",
    ),
    "layout": (plain({"layout": 7}), F, "node 'n_Y': layout is 7, expected 0 or 1"),
    "clip": (plain({"clip": 0.0}), F, "node 'n_Y': clip is 0.0, expected a number above 0"),
    "hidden_size": (
        plain({"hidden_size": 2}),
        F,
        "node 'n_Y': R ('R') has shape (1, 16, 4) with hidden_size 2, expected (D, 4H, H), H being "
        "hidden_size. ONNX LSTM has no projection: a model with proj_size cannot be exported to it",
    ),
    "projected": (
        plain(extra={"R": random(1, 16, 2)}),
        F,
        "node 'n_Y': R ('R') has shape (1, 16, 2) with hidden_size 4, expected (D, 4H, H), H being "
        "hidden_size. ONNX LSTM has no projection: a model with proj_size cannot be exported to it",
    ),
    "shape of W": (
        plain(extra={"W": random(1, 12, 3)}),
        F,
        "node 'n_Y': W ('W') has shape (1, 12, 3), expected (1, 16, I)",
    ),
    "shape of B": (
        plain(extra={"B": random(1, 16)}),
        F,
        "node 'n_Y': B ('B') has shape (1, 16), expected (1, 32)",
    ),
    "shape of P": (
        plain(inputs="x W R B - - - P", extra={"P": random(1, 16)}),
        F,
        "node 'n_Y': P ('P') has shape (1, 16), expected (1, 12)",
    ),
    "directions": (
        plain({"direction": "bidirectional"}),
        F,
        "node 'n_Y': R ('R') has shape (1, 16, 4), expected (2, 4H, H)",
    ),
    "nan": (
        plain(extra=small("W", np.nan, (0, 3, 1))),
        F,
        f"node 'n_Y': W ('W')[0, 3, 1] is nan{FINITE}",
    ),
    "infinity": (
        plain(extra=small("B", -np.inf, (0, 9))),
        F,
        f"node 'n_Y': B ('B')[0, 9] is -inf{FINITE}",
    ),
    "type of W": (
        plain(extra={k: v.astype(np.int32) for k, v in lstm_weights().items()}),
        F,
        "node 'n_Y': R ('R') has type int32, expected float",
    ),
    "type of B": (
        plain(extra={"B": random(1, 32, dtype=F64)}),
        F,
        "node 'n_Y': B is float64, W is float32, expected one type",
    ),
    "type of X": (
        plain(types={"x": DOUBLE}),
        F,
        "node 'n_Y': X is float64, W is float32, expected one type",
    ),
    "too wide": (
        plain(extra={"W": np.zeros((1, 16, 70000), np.float32)}, i=70000),
        IfgoError,
        "node 'n_Y': input_size is 70000, expected at most 65536" + raising("input_size"),
    ),
    "no W": (plain(inputs="x - R"), F, "node 'n_Y': has no input 1, expected one"),
    "rank of X": (
        before(node("Unsqueeze", "x k0", "v")),
        F,
        "node 'n_Y': X has 4 axes, expected 3: time, batch, features",
    ),
    "width of X": (
        before(node("MatMul", "x d", "v"), constants={"d": random(SIZE, 2)}),
        F,
        "node 'n_Y': X has 2 features, W is for 3, expected 3",
    ),
    "declared width": (
        frozen(plain(), "T", "B", 5),
        F,
        "node 'n_Y': gets 5 features from input 'x', expected 3",
    ),
    "constant X": (
        lambda: graph(
            [node("LSTM", "v W R", "Z"), node("LSTM", "x W R", "Y"), node("Add", "Z Y", "out")],
            {"x": ["T", "B", SIZE]},
            {"out": ["T", 1, "B", UNITS]},
            lstm_weights() | {"v": random(2, 1, SIZE)},
        ),
        U,
        "node 'n_Z': X is a constant, expected a value that depends on an input",
    ),
    "no time": (
        before(node("Unsqueeze", "x k0", "v"), inputs={"x": ["B", SIZE]}),
        U,
        "node 'n_Y': runs over a time axis of length 1 that is not in the model's input, expected "
        "an input with a time axis. Export the model for whole sequences, (batch, time, features)",
    ),
    "batch as features": (
        before(node("Transpose", "x", "v", perm=[0, 2, 1])),
        U,
        "node 'n_Y': takes axis 1 of input 'x' as features, expected features on its last axis",
    ),
    "time as batch": (
        after(
            SQUEEZED,
            node("Transpose", "y", "turned", perm=[1, 0, 2]),
            node("LSTM", "turned W2 R2 B2", "out"),
        ),
        U,
        "node 'n_out': uses the batch axis as the time axis, expected each axis in one role",
    ),
    "batch in two axes": (
        after(
            node("Transpose", "Y", "t", perm=[2, 0, 1, 3]),
            node("Reshape", "t s", "flat"),
            node("LSTM", "flat W2 R2 B2", "out"),
            constants={"s": ints(1, -1, UNITS)},
        ),
        U,
        "node 'n_out': runs over a time axis of length 1 that is not in the model's input, "
        "expected an input with a time axis. Export the model for whole sequences, (batch, time, "
        "features)",
    ),
    "merged batch": (
        after(
            SQUEEZED,
            node("Shape", "y", "s"),
            node("Slice", "s k0 k1 k0", "t"),
            node("Concat", "t k1 minus four", "target", axis=0),
            node("Reshape", "y target", "flat"),
            node("LSTM", "flat W2 R2 B2", "out"),
            constants={"minus": ints(-1), "four": ints(4)},
        ),
        F,
        "node 'n_out': X has 4 axes, expected 3: time, batch, features",
    ),
    "weights from the input": (
        lambda: graph(
            [
                node("LSTM", "x W R", "Y"),
                node("Unsqueeze", "w k0", "W3"),
                node("Squeeze", "Y k1", "y"),
                node("LSTM", "y W3 R", "Z"),
            ],
            {"x": ["T", "B", SIZE], "w": [16, UNITS]},
            {"Z": ["T", 1, "B", UNITS]},
            lstm_weights() | AXES,
        ),
        U,
        f"takes weights from the inputs 'w'{BIND}",
    ),
    "weights from a signal": (
        after(SQUEEZED, node("LSTM", "y Y R2", "out")),
        U,
        "node 'n_out': W ('Y') is computed from the model's input, expected constant weights",
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_refused(name: str, tmp_path: Path) -> None:
    refuse(CASES[name], tmp_path)
