"""Every message with which the reader refuses a graph that is no chain of LSTM layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_cases import AXES, SIZE, UNITS, chain, graph, ints, lstm_weights, node, one_lstm, random
from onnx_refusals import (
    ALONE,
    BRANCH,
    KNOWN,
    LAST_AXIS,
    SECOND,
    SQUEEZED,
    TIMED,
    Case,
    F,
    U,
    after,
    before,
    other_domain,
    plain,
    refuse,
)

CASES: dict[str, Case] = {
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
        lambda: other_domain(one_lstm()),
        U,
        "node 'n_Y': is a LSTM of domain 'com.microsoft', expected standard ONNX operators only. "
        "Export it without functions or contributed operators",
    ),
    "an LSTM of integers": (
        lambda: other_domain(one_lstm(), "DynamicQuantizeLSTM"),
        U,
        "node 'n_Y': is a DynamicQuantizeLSTM of domain 'com.microsoft', expected standard ONNX "
        "operators only. Its weights are integers: give the model before quantize_dynamic",
    ),
    "an LSTM with attention": (
        lambda: other_domain(one_lstm(), "AttnLSTM"),
        U,
        "node 'n_Y': is a AttnLSTM of domain 'com.microsoft', expected standard ONNX operators "
        "only. Its attention is no part of an LSTM layer: export a model of standard operators",
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
        "node 'n_out': gives 2 outputs, expected only the first 1" + ALONE,
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
        "final states beside it. Export a model with one result" + ALONE,
    ),
    "two layers joined": (
        after(
            SQUEEZED,
            node("LSTM", "y W2 R2 B2", "Z"),
            node("Squeeze", "Z k1", "z"),
            node("Concat", "y z", "out", axis=2),
        ),
        U,
        "mixes the outputs of several layers, expected a chain, one layer after another"
        + BRANCH
        + ALONE,
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
        f"another{BRANCH}" + ALONE,
    ),
    "state beside the chain": (
        after(
            SQUEEZED,
            node("LSTM", "y W2 R2 B2", "Z Z_h"),
            out={"Y": ["T", 1, "B", 4], "Z_h": [1, "B", 4]},
        ),
        U,
        "output 'Z_h' is the state of an LSTM beside the chain, expected LSTM layers one after "
        f"another{BRANCH}" + ALONE,
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
        f"another{BRANCH}" + ALONE,
    ),
    "part of the states": (
        after(
            node("Slice", "Y_h k0 k2 k2", "half"),
            SQUEEZED,
            out={"y": ["T", "B", 4], "half": [1, "B", 2]},
        ),
        U,
        "output 'half' holds the final states in another order or in part, expected whole states, "
        "each once, along axes of their own" + ALONE,
    ),
    "units in another order": (
        after(
            node("Slice", "Y_h last first k2 back", "turned"),
            SQUEEZED,
            out={"y": ["T", "B", 4], "turned": [1, "B", UNITS]},
            constants={"last": ints(-1), "first": ints(-9), "back": ints(-1)},
        ),
        U,
        "output 'turned' holds the final states in another order or in part, expected whole "
        "states, each once, along axes of their own" + ALONE,
    ),
    "one state twice": (
        after(
            node("Concat", "Y_h Y_h", "twice", axis=0),
            SQUEEZED,
            out={"y": ["T", "B", 4], "twice": [2, "B", UNITS]},
        ),
        U,
        "output 'twice' holds the final states in another order or in part, expected whole states, "
        "each once, along axes of their own" + ALONE,
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
        "cell states" + ALONE,
    ),
    "constant output": (
        after(
            SQUEEZED,
            node("Identity", "d", "out"),
            out=TIMED | {"y": ["T", "B", 4]},
            constants={"d": random(2)},
        ),
        U,
        "output 'out' is a constant, expected outputs that depend on the input" + ALONE,
    ),
    "cell state as features": (
        after(
            node("Squeeze", "Y_c k0", "c"),
            node("MatMul", "c d", "out"),
            constants={"d": random(UNITS, 2)},
        ),
        U,
        "node 'n_out': takes the cell state Y_c of an LSTM as features, expected the output of the "
        "layer before it" + ALONE,
    ),
    "some features": (
        after(
            SQUEEZED,
            node("Slice", "y k0 k2 k2", "part"),
            node("MatMul", "part d", "out"),
            constants={"d": random(2, 2)},
        ),
        U,
        "node 'n_out': takes 2 of the 4 features before it, expected all of them" + ALONE,
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
        "units, in the order of the weights" + ALONE,
    ),
    "features on another axis": (
        after(
            SQUEEZED,
            node("Transpose", "y", "turned", perm=[0, 2, 1]),
            node("MatMul", "turned d", "out"),
            constants={"d": random(2, 2)},
        ),
        U,
        f"node 'n_out': {LAST_AXIS}" + ALONE,
    ),
    "features of a broadcast input": (
        before(
            node("Unsqueeze", "x k2", "wide"),
            node("Concat", "wide wide", "two", axis=2),
            node("Sigmoid", "two", "v"),
        ),
        U,
        f"node 'n_v': {LAST_AXIS}" + ALONE,
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_refused(name: str, tmp_path: Path) -> None:
    refuse(CASES[name], tmp_path)
