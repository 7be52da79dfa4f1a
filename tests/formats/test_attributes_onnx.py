"""ONNX files, one field of the whole protobuf at a time, against ONNX Runtime on the changed file.

The graphs hold every operator that the reader knows: layers, moves, and constants that fold.
"""

from __future__ import annotations

import random as randomness
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from attributes import Attributes, Change
from onnx import TensorProto
from onnx_cases import AXES, SIZE, UNITS, chain, ints, node, one_lstm, random, run_onnx
from onnx_edits import edits, names
from onnx_models import expected
from test_onnx_folding import FOLDED, folded

from ifgo import formats, states
from ifgo.formats.onnx.layers import LAYERS
from ifgo.formats.onnx.walk import CONSTANTS, MOVES
from ifgo.lower import lower
from ifgo.model import Model, Recurrent, StateInput, TokenInput
from ifgo.reference import truth
from ifgo.reference.interpret import execute
from ifgo.verification import bounds, compare
from ifgo.verification.global_bound import LARGEST_AMPLIFICATION, PERTURBATION

BATCH, STEPS = 2, 5


def after(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """An LSTM with `nodes` behind it, from "y" (T, B, UNITS) to "out"."""
    first = node("Squeeze", "Y k1", "y")
    return chain([], [first, *nodes], AXES | constants, {"out": ["T", "B", "N"]})


def graphs() -> dict[str, onnx.ModelProto]:
    """Small graphs by name, which together hold every operator."""
    made = {name: folded(*FOLDED[name]) for name in FOLDED}
    every = {"direction": "bidirectional", "clip": 0.5, "input_forget": 1, "layout": 0}
    every |= {"activations": ["HardSigmoid", "Tanh", "Elu", "Sigmoid", "LeakyRelu", "Tanh"]}
    every |= {"activation_alpha": [0.25, 0.5, 0.125], "activation_beta": [0.5]}
    made["every attribute of an LSTM"] = one_lstm(
        every,
        d=2,
        inputs="x W R B - h c P",
        extra={"P": random(2, 3 * UNITS, seed=9, scale=0.2)},
        free={"h": [2, "B", UNITS], "c": [2, "B", UNITS]},
    )
    for op in ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus"):
        made[op] = after(node(op, "y", "out"))
    for op, given in {
        "HardSigmoid": {"alpha": 0.25, "beta": 0.75},
        "LeakyRelu": {"alpha": 0.5},
        "ThresholdedRelu": {"alpha": 0.125},
        "Elu": {"alpha": 0.5},
        "Softmax": {"axis": -1},
        "Cast": {"to": TensorProto.FLOAT},
    }.items():
        made[op] = after(node(op, "y", "out", **given))
    made["clip to zero and more"] = after(node("Clip", "y low", "out"), low=np.float32(0))
    made["dropout"] = after(node("Dropout", "y rate", "out"), rate=np.float32(0.5))
    weight, bias = random(UNITS, UNITS, seed=4), random(UNITS, seed=5)
    made["residual"] = after(
        node("MatMul", "y w", "p"), node("Add", "p b", "q"), node("Add", "y q", "out"),
        w=weight, b=bias,
    )  # fmt: skip
    made["scales"] = after(
        node("Mul", "y a", "p"), node("Sub", "p b", "out"), a=np.float32(0.5) + bias, b=bias
    )
    one = node("Squeeze", "Y_h k0", "h")
    made["gemm"] = chain(
        [], [one, node("Gemm", "h w b", "out", alpha=0.5, beta=2.0, transA=0, transB=1)],
        AXES | {"w": weight[:3], "b": bias[:3]}, {"out": ["B", 3]},
    )  # fmt: skip
    made["batch norm"] = chain(
        [],
        [one, node("BatchNormalization", "h s b m v", "out", epsilon=0.125, momentum=0.5)],
        AXES | {"s": bias + 1, "b": bias, "m": bias, "v": bias**2 + 1},
        {"out": ["B", UNITS]},
    )
    made["last step by gather"] = after(node("Gather", "y last", "out", axis=0), last=np.int64(-1))
    made["last step by slice"] = after(
        node("Slice", "y low high k0", "s"), node("Squeeze", "s k0", "out"),
        low=ints(-1), high=ints(2**62),
    )  # fmt: skip
    made["repeat"] = after(
        node("Gather", "y last", "h", axis=0), node("Unsqueeze", "h k0", "u"),
        node("Tile", "u n", "out"), last=np.int64(-1), n=ints(3, 1, 1),
    )  # fmt: skip
    made["expand"] = after(
        node("Gather", "y last", "h", axis=0), node("Unsqueeze", "h k0", "u"),
        node("Expand", "u n", "out"), last=np.int64(-1), n=ints(3, 1, 1),
    )  # fmt: skip
    made["batch first"] = chain(
        [node("Transpose", "a", "x", perm=[1, 0, 2])],
        [
            node("Transpose", "Y", "t", perm=[2, 0, 1, 3]),
            node("Reshape", "t s", "out", allowzero=0),
        ],
        {"s": ints(0, 0, -1)},
        {"out": ["B", "T", "N"]},
        inputs={"a": ["B", "T", SIZE]},
        direction="bidirectional",
    )
    made["embedding"] = chain(
        [node("Gather", "table ids", "x", axis=0), node("Identity", "x", "x2")],
        [node("Squeeze", "Y k1", "y"), node("Identity", "y", "out")],
        AXES | {"table": random(5, SIZE, seed=3)},
        {"out": ["T", "B", UNITS]},
        inputs={"ids": ["T", "B"]},
        lstm="x2 W R B",
        types={"ids": TensorProto.INT64},
    )
    shape = [
        node("Shape", "x", "shape"),
        node("Gather", "shape one", "b", axis=0),
        node("Unsqueeze", "b k0", "b1"),
        node("Concat", "k1 b1 n", "s", axis=0),
        node("ConstantOfShape", "s", "h"),
    ]
    made["zero states"] = chain(
        shape, [], AXES | {"one": np.int64(1), "n": ints(UNITS)},
        {"Y_h": [1, "B", UNITS]}, lstm="x W R B - h h",
    )  # fmt: skip
    made["reductions"] = folded(
        [
            node("ReduceMax", "w", "top", keepdims=1),
            node("ReduceMin", "w", "low", keepdims=1),
            node("Max", "w low", "m"),
            node("Min", "m top", "W"),
        ],
        {"w": random(1, 4 * UNITS, SIZE, seed=0)},
    )
    made["counts"] = folded(
        [
            node("ReduceProd", "parts", "p", keepdims=1),
            node("ReduceSum", "more k0", "q", keepdims=1),
            node("Concat", "k1 p q", "s", axis=0),
            node("Size", "flat", "size"),
            node("Equal", "size n", "same"),
            node("Where", "same flat other", "chosen"),
            node("Reshape", "chosen s", "W"),
        ],
        {
            "parts": ints(4, UNITS), "more": ints(1, SIZE - 1), "k0": ints(0), "k1": ints(1),
            "flat": random(4 * UNITS * SIZE, seed=1), "other": random(4 * UNITS * SIZE, seed=2),
            "n": np.int64(4 * UNITS * SIZE),
        },
    )  # fmt: skip
    made["tiles"] = folded(
        [
            node("Tile", "row n", "t"),
            node("Clip", "t low high", "B"),
        ],
        {"row": random(1, UNITS, seed=1), "n": ints(1, 8), "low": np.float32(-0.25),
         "high": np.float32(0.25)},
    )  # fmt: skip
    return made


GRAPHS = graphs()


def test_every_operator_is_in_a_graph() -> None:
    found = {n.op_type for made in GRAPHS.values() for n in made.graph.node}
    assert found >= {"LSTM", *LAYERS, *MOVES, *CONSTANTS}


SILENT = {
    "ir_version": "of the container; what operators mean is said by the operator set",
    "producer_name": "who wrote the file",
    "graph.name": "how the graph is called",
}

_TYPE = "put[].type.tensor_type"
OVERLOOKED = {
    "opset_import[].version": "ONNX Runtime has no kernel for some old operators",
    "graph.node[LSTM].attribute[hidden_size]": "the weights say it",
    "graph.node[LSTM].attribute": "hidden_size: the weights say it",
    "graph.initializer[].dims": "one axis as a scalar",
    "graph.initializer[].name": "a constant without a name that nothing reads",
    "graph.node[Dropout].input": "the rate, which is of training",
    "graph.node[Shape].input": "the batch of a state that is zero, which a Model leaves open",
    "graph.node[Squeeze].input": "ONNX Runtime takes no empty name for axes",
    **{
        f"graph.{way}{_TYPE}{part}": "a Model leaves sizes open and has its own types"
        for way in ("in", "out")
        for part in (
            "",
            ".elem_type",
            ".shape",
            ".shape.dim",
            ".shape.dim[]",
            ".shape.dim[].dim_value",
            ".shape.dim[].dim_param",
        )
    },
}


class Judge(Attributes):
    """Every output of the file, as it lays them out: the chain's end and the final states."""

    def computed(self, model: Model) -> tuple[Any, Any, float]:
        return model, *numbers(model)


def tokens_or_steps(model: Model) -> Any:
    """Seeded (B, T) tokens or (B, T, I)."""
    rng = np.random.default_rng(5)
    batch = 1 if model.input.axes == "T" else BATCH
    if isinstance(model.input, TokenInput):
        return rng.integers(0, model.input.vocabulary, (batch, STEPS))
    return rng.uniform(-1, 1, (batch, STEPS, model.input_size)).astype("f")


def given(model: Model) -> dict[str, Any]:
    """What the file takes for states, by input name: (D, B, H) each."""
    rng = np.random.default_rng(6)
    found = [entry.name for entry in model.inputs if isinstance(entry, StateInput)]
    shape = (model.recurrent[0].directions, BATCH, model.recurrent[0].hidden_size)
    return {name: rng.uniform(-0.5, 0.5, shape).astype("f") for name in sorted(found)}


def numbers(model: Model) -> tuple[Any, float]:
    """All outputs in float64, one behind the other, and how far ONNX Runtime may be off: the local
    bounds of every step and layer through the amplification of these very outputs (SPEC.md 6.3)."""
    x = tokens_or_steps(model)
    start = states.complete(model, len(x), states.from_inputs(model, given(model)), np.float64)

    def flat(x: Any, start: Any) -> Any:
        found = expected(model, truth.forward(model, x, start))
        return np.concatenate([array.reshape(-1) for array in found])

    local = 0.0
    done = execute(lower(model), x, start, trace=True)
    for subject, layer, trace in compare.observed(model, done.traces, "exact", "truth"):
        errors = compare.local_errors(layer, subject, trace, bounds.ONNXRUNTIME)
        leaves = ("h", "c") if isinstance(layer, Recurrent) else ("y",)
        for part in leaves:
            local += float(errors[part].bound.max(axis=(0, 2)).sum())
        local += float(bounds.U * np.abs(trace["x"]).max(axis=(0, 2)).sum())
    base, rng, gain = flat(x, start), np.random.default_rng(8), 1.0
    for _ in range(8):
        pushed = {k: a + PERTURBATION * rng.choice([-1.0, 1.0], a.shape) for k, a in start.items()}
        moved = x
        if x.dtype.kind == "f":
            moved = x + PERTURBATION * rng.choice([-1.0, 1.0], x.shape)
        gain = max(gain, float(np.abs(flat(moved, pushed) - base).max()) / PERTURBATION)
    assert gain < LARGEST_AMPLIFICATION
    rounding = bounds.U * float(np.abs(base).max())
    return base, gain * local * bounds.SAFETY + rounding


def judged(name: str, folder: Path, share: float) -> Judge:
    """The verdicts over a seeded share of all edits of one graph."""
    base, path = GRAPHS[name], folder / "m.onnx"
    path.write_bytes(base.SerializeToString())
    seen: list[Model] = []

    def read(path: Path) -> Model:
        seen[:] = [formats.load(path)]
        return seen[0]

    def oracle(model: Model) -> Any:
        x = tokens_or_steps(model)
        order = {"BT": (0, 1, 2), "TB": (1, 0, 2), "T": (1, 2)}[model.input.axes]
        x = x[0] if model.input.axes == "T" else x.transpose(order[: x.ndim])
        feeds = {model.input.name: np.ascontiguousarray(x)} | given(model)
        graph = onnx.load(path).graph
        unread = {entry.name for entry in graph.input} - set(feeds)
        feeds |= {name: np.zeros((2, BATCH, UNITS), "f") for name in unread}
        outputs = dict(zip((y.name for y in graph.output), run_onnx(path, **feeds), strict=True))
        for made in graph.node:
            if made.op_type == "LSTM" and made.output[0] in outputs:  # (T, D, B, H)
                outputs[made.output[0]] = np.moveaxis(outputs[made.output[0]], 1, 2)
        return np.concatenate([outputs[output.name].reshape(-1) for output in model.outputs])

    found = Judge(read, path, SILENT, lambda model: model, overlooked=OVERLOOKED)
    rng = randomness.Random(name)
    words = sorted({n for node in base.graph.node for n in (*node.input, *node.output) if n})
    for edit in edits(base, rng.sample(words, min(4, len(words)))):
        if rng.random() < share:
            path.write_bytes(edit.message.SerializeToString())
            found.judge(Change(edit.name, edit.value, path, oracle))
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_some_fields(tmp_path: Path, name: str) -> None:
    judged(name, tmp_path, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_every_field(tmp_path: Path, name: str) -> None:
    found = judged(name, tmp_path, 1.0)
    lstm = "graph.node[LSTM]"
    found.finish({f"{lstm}.input", f"{lstm}.op_type", "graph.initializer[].raw_data"})
    assert names(GRAPHS[name]) <= {*found.refused, *found.equal, *found.moved}
