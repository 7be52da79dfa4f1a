"""Every message with which the reader refuses a graph, whole; see test_onnx_damage.py for files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
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
    save,
)

from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats import onnx as room

F64 = np.float64
DOUBLE = TensorProto.DOUBLE
HIDDEN = {"out": ["B", UNITS]}
TIMED = {"out": ["T", "B", UNITS]}
SECOND = {f"{k}2": v for k, v in lstm_weights(UNITS, UNITS, seed=5).items()}
SQUEEZED = node("Squeeze", "Y k1", "y")


def after(*nodes: onnx.NodeProto, out: Any = None, **options: Any) -> Callable[[], Any]:
    """Nodes after an LSTM, whose last one gives `out`."""
    constants = AXES | SECOND | options.pop("constants", {})
    first = options.pop("before", [])
    return lambda: chain(first, list(nodes), constants, out or TIMED, **options)


def before(*nodes: onnx.NodeProto, **options: Any) -> Callable[[], Any]:
    """Nodes between x and an LSTM that takes `v`."""
    constants = AXES | options.pop("constants", {})
    options.setdefault("lstm", "v W R B")
    return lambda: chain(list(nodes), [], constants, {"Y": ["T", 1, "B", UNITS]}, **options)


def plain(attributes: dict[str, Any] | None = None, **options: Any) -> Callable[[], Any]:
    return lambda: one_lstm(attributes, **options)


def frozen(made: Callable[[], Any], *sizes: int | str) -> Callable[[], Any]:
    """The same graph with the sizes of x declared."""

    def build() -> Any:
        model = made()
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim, size in zip(dims, sizes, strict=False):
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = size
        return model

    return build


def small(name: str, value: Any, index: tuple[int, ...] = (0, 0, 0)) -> dict[str, Any]:
    """The weights with one entry changed."""
    array = lstm_weights(SIZE, UNITS)[name].copy()
    array[index[: array.ndim]] = value
    return {name: array}


U, F = UnsupportedError, FormatError
FINITE = (
    ", expected finite weights. Train or export the model again: a NaN or infinity never computes"
)
BRANCH = ". ifgo has no graphs with branches"
BIND = (
    ", expected weights in the file and one input for the sequence. Bind inputs that are constants "
    "with --bind FILE.npz (bind= in Python)"
)
KNOWN = (
    ", expected only the operators of an LSTM chain: LSTM, MatMul, Gemm, Add, Mul, activations, "
    "Gather of an embedding, and moves of whole axes. Export the recurrent part of the model on "
    "its own"
)
LAST_AXIS = (
    "does not get its features along the last axis, expected (batch, time, features) in any order "
    "of batch and time"
)
FROZEN = (
    ", expected axes that stay whole. A length that the exporter froze in one place and left open "
    "in another cannot be followed"
)
MANY = "computes a length beyond 64-bit integers or of too many terms, expected at most 64 terms"

CASES: dict[str, tuple[Callable[[], Any], type[IfgoError], str]] = {
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
        "node 'n_Y': input_size is 70000, expected at most 65536",
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
        "shorter, expected the final state Y_h where sequence_lens is given",
    ),
    # -- states ---------------------------------------------------------------------------------
    "half a state": (
        plain(inputs="x W R B - - c", free={"c": [1, "B", UNITS]}),
        U,
        "node 'n_Y': takes initial_c from an input and the other state from the file, expected "
        "both initial_h and initial_c as inputs, or neither. Bind the input to a constant with "
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
        "input 's' does not pack whole states one after another, expected (layers · directions, "
        "batch, units), every part used once. Pass h_0 and c_0 as inputs of their own",
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
        "input 's' does not pack whole states one after another, expected (layers · directions, "
        "batch, units), every part used once. Pass h_0 and c_0 as inputs of their own",
    ),
    "overlapping states": (
        plain(inputs="x W R B - s s", free={"s": [1, "B", UNITS]}),
        U,
        "input 's' does not pack whole states one after another, expected (layers · directions, "
        "batch, units), every part used once. Pass h_0 and c_0 as inputs of their own",
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
        "input 's' does not pack whole states one after another, expected (layers · directions, "
        "batch, units), every part used once. Pass h_0 and c_0 as inputs of their own",
    ),
    "huge state": (
        plain(inputs="x W R B - h c", free={"h": [1, 2**20, 2**10], "c": [1, "B", UNITS]}),
        F,
        "input 'h' declares 1073741824 states, expected at most 16777216",
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
        "uses input 'x' as X and as state, expected one use of each input",
    ),
    "no shape": (
        lambda: _without_shape(one_lstm()),
        U,
        "input 'x' declares no shape, expected a known number of axes. Export it with shapes",
    ),
    "open features": (
        before(node("Sigmoid", "x", "v"), inputs={"x": ["T", "B", "I"]}),
        F,
        "node 'n_v': gets an open number of features from input 'x', expected a known number",
    ),
    "integers as features": (
        before(node("Sigmoid", "x", "v"), types={"x": INT64}),
        U,
        "node 'n_v': takes the token ids as features, expected the output of the layer before it",
    ),
    # -- the chain ------------------------------------------------------------------------------
    "unknown operator": (
        after(SQUEEZED, node("Conv", "y W2", "out")),
        U,
        f"node 'n_out': is a Conv{KNOWN}",
    ),
    "operator of constants": (
        after(
            SQUEEZED,
            node("Sigmoid", "d", "e"),
            node("MatMul", "y e", "out"),
            constants={"d": random(UNITS, 2)},
        ),
        U,
        "node 'n_e': is a Sigmoid of constants, expected a value that depends on an input",
    ),
    "no lstm": (
        lambda: graph([node("Relu", "x", "y")], {"x": ["T"]}, {"y": ["T"]}),
        U,
        "has no LSTM node that its outputs depend on, expected a model around LSTM nodes",
    ),
    "other domain": (
        lambda: _other_domain(one_lstm()),
        U,
        "node 'n_Y': is a LSTM of domain 'com.microsoft', expected standard ONNX operators only. "
        "Export it without functions or contributed operators",
    ),
    "inputs nobody reads": (
        after(SQUEEZED, node("Relu", "y k1", "out")),
        F,
        "node 'n_out': has 2 inputs, expected Relu with fewer",
    ),
    "more inputs than the operator has": (
        plain(inputs="x W R B - - - - B"),
        F,
        "node 'n_Y': has 9 inputs, expected LSTM with fewer",
    ),
    "two outputs of a node": (
        after(SQUEEZED, node("Dropout", "y", "out mask"), out=TIMED | {"mask": ["T", "B", 4]}),
        U,
        "node 'n_out': gives 2 outputs, expected only the first 1",
    ),
    "branch": (
        after(
            SQUEEZED,
            node("Relu", "y", "a"),
            node("Tanh", "y", "b"),
            out={"a": ["T", "B", UNITS], "b": ["T", "B", UNITS]},
        ),
        U,
        "outputs 'a' and 'b' are taken from different places of the chain, expected one end, and "
        "final states beside it. Export a model with one result",
    ),
    "two layers joined": (
        after(
            SQUEEZED,
            node("LSTM", "y W2 R2 B2", "Z"),
            node("Squeeze", "Z k1", "z"),
            node("Concat", "y z", "out", axis=2),
        ),
        U,
        "mixes the outputs of several layers, expected a chain, one layer after another" + BRANCH,
    ),
    "two layers into a dense": (
        after(
            SQUEEZED,
            node("LSTM", "y W2 R2 B2", "Z"),
            node("Squeeze", "Z k1", "z"),
            node("Concat", "y z", "yz", axis=2),
            node("MatMul", "yz d", "out"),
            constants={"d": random(8, 2)},
        ),
        U,
        "node 'n_out': mixes the outputs of several layers, expected a chain, one layer after "
        f"another{BRANCH}",
    ),
    "state beside the chain": (
        after(
            SQUEEZED,
            node("LSTM", "y W2 R2 B2", "Z Z_h"),
            out={"Y": ["T", 1, "B", 4], "Z_h": [1, "B", 4]},
        ),
        U,
        "output 'Z_h' is the state of an LSTM beside the chain, expected LSTM layers one after "
        f"another{BRANCH}",
    ),
    "given state beside the chain": (
        lambda: chain(
            [],
            [SQUEEZED, node("LSTM", "y W2 R2 B2 - h c", "Z Z_h"), node("Relu", "y", "out")],
            AXES | SECOND,
            TIMED | {"Z_h": [1, "B", 4]},
            inputs={
                "x": ["T", "B", SIZE],
                "h": [1, "B", UNITS],
                "c": [1, "B", UNITS],
            },
        ),
        U,
        "output 'Z_h' is the state of an LSTM beside the chain, expected LSTM layers one after "
        f"another{BRANCH}",
    ),
    "part of the states": (
        after(
            node("Slice", "Y_h k0 k2 k2", "half"),
            SQUEEZED,
            out={"y": ["T", "B", 4], "half": [1, "B", 2]},
        ),
        U,
        "output 'half' holds the final states in another order or in part, expected (layers · "
        "directions, batch, units)",
    ),
    "mixed states": (
        after(node("Concat", "Y_h Y_c", "out", axis=0), out={"out": [2, "B", UNITS]}),
        U,
        "output 'out' holds cell states and hidden states, expected the end of the chain, final "
        "hidden states, or final cell states",
    ),
    "input as output": (
        lambda: graph(
            [node("LSTM", "x W R", "Y"), node("Identity", "x", "out")],
            {"x": ["T", "B", SIZE]},
            {"Y": ["T", 1, "B", UNITS], "out": ["T", "B", SIZE]},
            lstm_weights(),
        ),
        U,
        "output 'out' holds an input, expected the end of the chain, final hidden states, or final "
        "cell states",
    ),
    "constant output": (
        after(
            SQUEEZED,
            node("Identity", "d", "out"),
            out=TIMED | {"y": ["T", "B", 4]},
            constants={"d": random(2)},
        ),
        U,
        "output 'out' is a constant, expected outputs that depend on the input",
    ),
    "cell state as features": (
        after(
            node("Squeeze", "Y_c k0", "c"),
            node("MatMul", "c d", "out"),
            constants={"d": random(UNITS, 2)},
        ),
        U,
        "node 'n_out': takes the cell state Y_c of an LSTM as features, expected the output of the "
        "layer before it",
    ),
    "some features": (
        after(
            SQUEEZED,
            node("Slice", "y k0 k2 k2", "part"),
            node("MatMul", "part d", "out"),
            constants={"d": random(2, 2)},
        ),
        U,
        "node 'n_out': takes 2 of the 4 features before it, expected all of them",
    ),
    "features in another order": (
        after(
            SQUEEZED,
            node("Gather", "y i", "turned", axis=2),
            node("MatMul", "turned d", "out"),
            constants={"d": random(UNITS, 2), "i": ints(3, 2, 1, 0)},
        ),
        U,
        "node 'n_out': takes the features before it in another order, expected directions, then "
        "units, in the order of the weights",
    ),
    "features on another axis": (
        after(
            SQUEEZED,
            node("Transpose", "y", "turned", perm=[0, 2, 1]),
            node("MatMul", "turned d", "out"),
            constants={"d": random(2, 2)},
        ),
        U,
        f"node 'n_out': {LAST_AXIS}",
    ),
    "features of a broadcast input": (
        before(
            node("Unsqueeze", "x k2", "wide"),
            node("Concat", "wide wide", "two", axis=2),
            node("Sigmoid", "two", "v"),
        ),
        U,
        f"node 'n_v': {LAST_AXIS}",
    ),
    # -- layers ---------------------------------------------------------------------------------
    "weight on the left": (
        after(SQUEEZED, node("MatMul", "d y", "out"), constants={"d": random(2, 2)}),
        U,
        "node 'n_out': has a constant on its left, expected features · weight",
    ),
    "weight from the input": (
        after(SQUEEZED, node("MatMul", "y y", "out")),
        U,
        "node 'n_out': weight 'y' depends on the model's input, expected a constant",
    ),
    "weight of another type": (
        after(SQUEEZED, node("MatMul", "y d", "out"), constants={"d": random(4, 2, dtype=F64)}),
        F,
        "node 'n_out': weight 'd' is float64, its input float32, expected one type",
    ),
    "weight of many axes": (
        after(SQUEEZED, node("MatMul", "y d", "out"), constants={"d": random(1, 4, 2)}),
        U,
        "node 'n_out': weight 'd' has 3 axes, expected 2",
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
        "features on the last axis",
    ),
    "gemm of a transpose": (
        after(
            node("Squeeze", "Y_h k0", "h"),
            node("Gemm", "h d", "out", transA=1),
            constants={"d": random(UNITS, 2)},
        ),
        U,
        "node 'n_out': does not have its features as rows on the left, expected A (B, features), "
        "transA 0",
    ),
    "alpha": (
        after(
            node("Squeeze", "Y_h k0", "h"),
            node("Gemm", "h d", "out", alpha=0.3),
            constants={"d": random(UNITS, 2)},
        ),
        U,
        "node 'n_out': alpha is 0.3, expected 1, or a power of two, which folds exactly",
    ),
    "subtracted": (
        after(SQUEEZED, node("Sub", "d y", "out"), constants={"d": random(UNITS)}),
        U,
        "node 'n_out': subtracts a signal, expected a signal minus a constant",
    ),
    "multiplied": (
        after(SQUEEZED, node("Sigmoid", "y", "gate"), node("Mul", "gate y", "out")),
        U,
        "node 'n_out': multiplies two signals, expected a constant factor",
    ),
    "added": (
        after(SQUEEZED, node("Tanh", "y", "a"), node("Relu", "y", "b"), node("Add", "a b", "out")),
        U,
        "node 'n_out': adds two signals, expected the output of some layers plus their own input "
        "(a residual), or a bias",
    ),
    "divided": (
        after(SQUEEZED, node("Div", "y d", "out"), constants={"d": np.float32(2)}),
        U,
        "node 'n_out': computes with the values of the sequence, expected constants here",
    ),
    "softmax over time": (
        after(SQUEEZED, node("Softmax", "y", "out", axis=0)),
        U,
        "node 'n_out': normalises along axis 0, expected the last axis, features",
    ),
    "softmax of old": (
        after(node("Squeeze", "Y", "y", axes=[1]), node("Softmax", "y", "out"), opset=11),
        U,
        "node 'n_out': normalises along axis 1, expected the last axis, features",
    ),
    "dropout in training": (
        after(
            SQUEEZED,
            node("Dropout", "y r t", "out"),
            constants={"r": np.float32(0.5), "t": np.True_},
        ),
        U,
        "node 'n_out': is in training mode, expected a model exported for inference",
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
        "node 'n_out': is in training mode, expected stored statistics per feature",
    ),
    "batch norm of a vector": (
        after(
            node("Reshape", "Y_h flat", "h"),
            node("BatchNormalization", "h d d d d", "out"),
            constants={"d": random(UNITS), "flat": ints(-1)},
        ),
        U,
        "node 'n_h': merges the batch axis with 4 features, expected batch and time kept apart "
        "from features",
    ),
    "cast": (
        after(SQUEEZED, node("Cast", "y", "out", to=DOUBLE)),
        U,
        "node 'n_out': casts float32 to float64, expected one type throughout, or wider tokens",
    ),
    "cast to text": (
        after(SQUEEZED, node("Cast", "y", "out", to=TensorProto.STRING)),
        U,
        "node 'n_out': casts to object, expected a float, integer or boolean type",
    ),
    "cast to nothing": (
        after(SQUEEZED, node("Cast", "y", "out", to=99)),
        U,
        "node 'n_out': casts to element type 99, expected a float, integer or boolean type",
    ),
    "embedding axis": (
        before(
            node("Gather", "e x", "v", axis=1),
            constants={"e": random(3, 5)},
            inputs={"x": ["T", "B"]},
            types={"x": INT64},
        ),
        U,
        "node 'n_v': looks tokens up along another axis, expected axis 0",
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
        "(vocabulary, features) of real numbers",
    ),
    "lookup by features": (
        after(SQUEEZED, node("Gather", "e y", "out"), constants={"e": random(5, 2)}),
        U,
        "node 'n_out': picks rows by something else than the tokens of an input, expected an "
        "embedding",
    ),
    "first step": (
        after(SQUEEZED, node("Gather", "y first", "out", axis=0), constants={"first": np.int64(0)}),
        U,
        "node 'n_out': picks entries of the time axis, expected the last step, at most",
    ),
    "last of the batch": (
        after(SQUEEZED, node("Gather", "y last", "out", axis=1), constants={"last": np.int64(-1)}),
        U,
        "node 'n_out': takes the last entry of the batch axis, expected the last step of time "
        "after an LSTM",
    ),
    "all but one step": (
        after(SQUEEZED, node("Slice", "y k1 e k0", "out"), constants={"e": ints(2**60)}),
        U,
        "node 'n_out': cuts the time axis to 1:1152921504606846976:1, expected the whole axis, or "
        "the last step of time",
    ),
    "time backwards": (
        after(
            SQUEEZED,
            node("Slice", "y m e k0 m", "out"),
            constants={"m": ints(-1), "e": ints(-(2**60))},
        ),
        U,
        "node 'n_out': cuts the time axis to -1:-1152921504606846976:-1, expected the whole axis, "
        "or the last step of time",
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
        "number of times",
    ),
    "batch squeezed": (
        after(SQUEEZED, node("Squeeze", "y k1", "out")),
        U,
        "node 'n_out': drops the batch axis, expected batch and time kept apart. Export the model "
        "without squeezing it away",
    ),
    "joined in time": (
        after(SQUEEZED, node("Concat", "y y", "out", axis=0)),
        U,
        "node 'n_out': joins along the time axis, expected features or states",
    ),
    "joined with a constant": (
        after(SQUEEZED, node("Concat", "y d", "out", axis=2), constants={"d": random(2, 2, 2)}),
        U,
        "node 'n_out': joins constants to the sequence, expected one of both",
    ),
    "split in time": (
        after(SQUEEZED, node("Split", "y", "out b", axis=0)),
        U,
        "node 'n_out': splits an axis of open length, expected features or states",
    ),
    "frozen in one place": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(5, 2, 4)}),
        U,
        f"node 'n_out': splits an axis of length ? into parts of 5{FROZEN}",
    ),
    "flattened open time": (
        after(
            SQUEEZED,
            node("Transpose", "y", "t", perm=[1, 0, 2]),
            node("Flatten", "t", "out"),
        ),
        U,
        "node 'n_out': merges the time axis with 4 features, expected batch and time kept apart "
        "from features",
    ),
    "last step of the input": (
        lambda: chain(
            [],
            [node("Gather", "x last", "out", axis=0)],
            {"last": np.int64(-1)},
            {"Y": ["T", 1, "B", 4], "out": ["B", SIZE]},
        ),
        U,
        "node 'n_out': takes the last step of the model's input, expected an LSTM",
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
        "final states beside it. Export a model with one result",
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
        "has no LSTM between its input and its outputs, expected a chain around LSTM nodes",
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
        "input 'h' feeds an LSTM beside the chain, expected LSTM layers one after another",
    ),
    # -- folding --------------------------------------------------------------------------------
    "shape from data": (
        after(SQUEEZED, node("Cast", "y", "s", to=INT64), node("Reshape", "y s", "out")),
        U,
        "node 'n_s': casts float32 to int64, expected one type throughout, or wider tokens",
    ),
    "shape that is a table": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": np.zeros((2, 2), np.int64)}),
        U,
        "node 'n_out': takes a shape that is computed from the data, expected a shape known in the "
        "file",
    ),
    "shape of many numbers": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": np.ones(70000, np.int64)}),
        F,
        "node 'n_out': takes a shape of 70000 numbers, expected at most 8",
    ),
    "shape of many axes": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": np.ones(9, np.int64)}),
        F,
        "node 'n_out': folds to 1 elements in 9 axes, expected at most 16777216 in 8",
    ),
    "impossible shape": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(-1, -1, 4)}),
        F,
        "node 'n_out': takes an impossible shape, expected sizes of 0 or more and one -1",
    ),
    "copied axis": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(0, 0, 4, 0)}),
        F,
        "node 'n_out': copies axis 3 of a tensor with 3 axes",
    ),
    "too few elements": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(0, 0, 4, 2)}),
        F,
        "node 'n_out': reshapes to more elements than there are",
    ),
    "too many elements": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(0, 0, 2)}),
        F,
        "node 'n_out': reshapes (?, ?, 4) to (0, 0, 2): the sizes differ",
    ),
    "constant reshaped": (
        after(
            SQUEEZED,
            node("Reshape", "d s", "e"),
            node("MatMul", "y e", "out"),
            constants={"d": random(UNITS, 2), "s": ints(3, 3)},
        ),
        F,
        "node 'n_e': reshapes (4, 2) to (3, 3)",
    ),
}


def _without_shape(made: onnx.ModelProto) -> onnx.ModelProto:
    made.graph.input[0].type.tensor_type.ClearField("shape")
    return made


def _other_domain(made: onnx.ModelProto) -> onnx.ModelProto:
    made.graph.node[0].domain = "com.microsoft"
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


@pytest.mark.parametrize("name", list(CASES))
def test_refused(name: str, tmp_path: Path) -> None:
    build, kind, text = CASES[name]
    path = save(build(), tmp_path)
    with pytest.raises(kind) as caught:
        room.read(path)
    assert str(caught.value) == f"{path}: {text}"
    assert caught.value.exit_code == (3 if isinstance(caught.value, U) else 4)


def folding(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """A constant `out` computed by nodes and used as the bias of a chain."""
    tail = [SQUEEZED, node("Add", "y out", "end")]
    return chain([*nodes], tail, AXES | constants, {"end": ["T", "B", UNITS]})


ABC = np.ones((2, 3), np.float32)
FOLDING: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], type[IfgoError], str]] = {
    "perm": (
        [node("Transpose", "a", "out", perm=[0, 0])],
        {"a": ABC},
        F,
        "perm is [0, 0], expected each of 0 to 1 once",
    ),
    "unsqueeze": (
        [node("Unsqueeze", "a b", "out")],
        {"a": ABC, "b": ints(0, 0)},
        F,
        "axes are [0, 0], expected distinct axes of 4",
    ),
    "unsqueeze where": (
        [node("Unsqueeze", "a", "out")],
        {"a": ABC},
        F,
        "has no axes, expected where to put new ones",
    ),
    "squeeze": (
        [node("Squeeze", "a k0", "out")],
        {"a": ABC},
        F,
        "squeezes axis 0 of length 2, expected 1",
    ),
    "axis": (
        [node("Squeeze", "a b", "out")],
        {"a": ABC, "b": ints(5)},
        F,
        "names axis 5, expected an axis of 2",
    ),
    "gather": (
        [node("Gather", "a b", "out")],
        {"a": ABC, "b": ints(0, 2)},
        F,
        "picks entries 0 to 2, expected entries of an axis of length 2",
    ),
    "gather by floats": (
        [node("Gather", "a a", "out")],
        {"a": ABC},
        U,
        "picks open entries, expected integers known in the file",
    ),
    "slice at an open place": (
        [
            node("Shape", "x", "s"),
            node("Slice", "s k0 k1 k0", "t"),
            node("Slice", "a k0 t k0", "out"),
        ],
        {"a": ABC},
        U,
        "cuts an axis at an open place, expected known starts and ends",
    ),
    "slice lengths": (
        [node("Slice", "a k0 b", "out")],
        {"a": ABC, "b": ints(1, 1)},
        F,
        "has starts, ends, axes and steps of different lengths",
    ),
    "slice twice": (
        [node("Slice", "a b b b", "out")],
        {"a": ABC, "b": ints(0, 0)},
        F,
        "cuts an axis twice, expected each axis once",
    ),
    "slice in no steps": (
        [node("Slice", "a k0 k1 k0 k0", "out")],
        {"a": ABC},
        F,
        "cuts in steps of 0, expected steps other than 0",
    ),
    "open axes": (
        [
            node("Shape", "x", "s"),
            node("Slice", "s k0 k1 k0", "t"),
            node("Unsqueeze", "a t", "out"),
        ],
        {"a": ABC},
        U,
        "takes open axes, expected integers known in the file",
    ),
    "split": (
        [node("Split", "a b", "out other")],
        {"a": ABC, "b": ints(5, -3)},
        F,
        "splits into [5, -3], expected parts of 2 entries",
    ),
    "concat rank": (
        [node("Concat", "a b", "out", axis=0)],
        {"a": ABC, "b": ints(1)},
        F,
        "joins tensors of 2 and 1 axes",
    ),
    "concat size": (
        [node("Concat", "a b", "out", axis=0)],
        {"a": ABC, "b": ABC.T.copy()},
        F,
        "joins tensors of sizes 3 and 2 along axis 1",
    ),
    "concat axis": (
        [node("Concat", "a a", "out")],
        {"a": ABC},
        F,
        "has no axis or no input, expected both",
    ),
    "expand": (
        [node("Expand", "a b", "out")],
        {"a": ABC, "b": ints(4, 3)},
        F,
        "expands axis 0 of length 2 to 4",
    ),
    "expand to much": (
        [node("Expand", "a b", "out")],
        {"a": ABC, "b": ints(2**40, 2, 3)},
        F,
        "folds to 6597069766656 elements in 3 axes, expected at most 16777216 in 8",
    ),
    "constant of nothing": (
        [helper.make_node("Constant", [], ["out"], name="n_out", value_string="x")],
        {},
        U,
        "holds no dense numbers, expected value, value_int(s), ...",
    ),
    "fill": (
        [
            helper.make_node(
                "ConstantOfShape",
                ["k1"],
                ["out"],
                name="n_out",
                value=helper.make_tensor("", TensorProto.FLOAT, [2], [1, 2]),
            )
        ],
        {},
        F,
        "fills with 2 values, expected 1",
    ),
    "negative size": (
        [node("ConstantOfShape", "b", "out")],
        {"b": ints(-1)},
        F,
        "has a negative size, expected sizes of 0 or more",
    ),
    "range": (
        [node("Range", "a b b", "out")],
        {"a": np.float32(0), "b": np.float32(1)},
        U,
        "counts over an open range, expected integers known in the file",
    ),
    "huge range": (
        [node("Range", "a b c", "out")],
        {"a": np.int64(0), "b": np.int64(2**40), "c": np.int64(1)},
        F,
        "folds to 1099511627776 elements in 1 axes, expected at most 16777216 in 8",
    ),
    "open length as a float": (
        [node("Shape", "x", "s"), node("Cast", "s", "out", to=TensorProto.FLOAT)],
        {},
        U,
        "casts an open length to float32, expected an integer type",
    ),
    "open constant": (
        [
            node("Shape", "x", "s"),
            node("ConstantOfShape", "s", "c"),
            node("Add", "c a", "out"),
        ],
        {"a": np.float32(1)},
        U,
        "computes with a constant of open length, expected a shape known in the file",
    ),
    "division by zero": (
        [node("Div", "k1 k0", "out")],
        {},
        F,
        "divides by 0, expected another divisor",
    ),
    "division with a rest": (
        [node("Shape", "x", "s"), node("Div", "s k2", "out")],
        {},
        U,
        "divides an open length by 2, expected a division without a rest",
    ),
    "division by a sum": (
        [node("Shape", "x", "s"), node("Add", "s k1", "t"), node("Div", "s t", "out")],
        {},
        U,
        "divides an open length by ?, expected a division without a rest",
    ),
    "shapes": (
        [node("Add", "a b", "out")],
        {"a": ABC, "b": np.ones(2, np.float32)},
        F,
        "computes with shapes (2, 3), (2,), expected shapes that broadcast",
    ),
    "powers": (
        [
            node("Shape", "x", "s0"),
            *(node("Mul", f"s{k} s{k}", f"s{k + 1}") for k in range(8)),
            node("Identity", "s8", "out"),
        ],
        {},
        U,
        MANY,
    ),
    "huge integers": (
        [
            node("Shape", "x", "s"),
            node("Where", "c s b", "s0"),
            *(node("Mul", f"s{k} s0", f"s{k + 1}") for k in range(8)),
            node("Identity", "s8", "out"),
        ],
        {"c": np.array([True, False, False]), "b": ints(2**40, 2**40, 2**40)},
        U,
        MANY,
    ),
    "huge coefficients": (
        [
            node("Shape", "x", "s0"),
            *(node("Mul", f"s{k} b", f"s{k + 1}") for k in range(8)),
            node("Identity", "s8", "out"),
        ],
        {"b": ints(2**40)},
        U,
        MANY,
    ),
    "flatten": (
        [node("Flatten", "a", "out", axis=5)],
        {"a": ABC},
        F,
        "flattens at axis 5, expected 0 to 2",
    ),
}


@pytest.mark.parametrize("name", list(FOLDING))
def test_folding_refused(name: str, tmp_path: Path) -> None:
    nodes, constants, kind, text = FOLDING[name]
    path = save(folding(*nodes, **constants), tmp_path)
    with pytest.raises(kind) as caught:
        room.read(path)
    prefix, _, found = str(caught.value).partition("': ")
    assert found == text
    assert prefix.startswith(f"{path}: node 'n_")
