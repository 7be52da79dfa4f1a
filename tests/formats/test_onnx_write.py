"""Writing ONNX: what comes back is the same, ONNX Runtime runs it, the rest is said or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_bounds import ACTIVATION, cell_bound, float32_bound
from onnx_cases import assert_same, assert_same_arrays_by_order, graph, node, run_onnx, structure
from onnx_models import (
    expected,
    feed,
    lstm,
    model_of,
    numbers,
    random_cell,
    random_model,
    tokens_or_features,
)

from ifgo.activations import SIGMOID, TANH
from ifgo.formats import onnx as room
from ifgo.layers import (
    Dense,
    Embedding,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Layer,
    Recurrent,
    RepeatVector,
    Residual,
)
from ifgo.model import (
    Axes,
    FeatureInput,
    LengthsInput,
    Model,
    Output,
    StateInput,
    StateSlot,
    TokenInput,
)
from ifgo.reference import truth


@pytest.mark.parametrize("seed", range(120))
def test_round_trip_and_runtime(seed: int, tmp_path: Path) -> None:
    """The same structure and bits come back; ONNX Runtime computes what truth does."""
    model = random_model(seed)
    path = tmp_path / "m.onnx"
    report = room.write(model, path)
    assert report.exact, report
    assert list(report.kept) == list(model.arrays)
    assert_same(room.read(path), model)
    rng = np.random.default_rng(seed)
    x = tokens_or_features(model, rng, 1 if model.input.axes == "T" else 2, 4)
    result = truth.forward(model, x)
    bounds = {"c_n": cell_bound(model, result, x), "h_n": cell_bound(model, result, x)}
    bound = float32_bound(model, result, x)
    for output, have, want in zip(
        model.outputs,
        run_onnx(path, **{model.input.name: feed(model, x)}),
        expected(model, result),
        strict=True,
    ):
        assert have.shape == want.shape
        assert np.abs(have - want).max() <= bounds.get(output.role, bound)


def test_activation_error() -> None:
    """What the bounds assume of the runtime's sigmoid and tanh."""
    import onnxruntime

    x = np.linspace(-30, 30, 2**18, dtype=np.float32)
    for op, function in (("Sigmoid", SIGMOID), ("Tanh", TANH)):
        made = graph([node(op, "x", "y")], {"x": ["N"]}, {"y": ["N"]})
        session = onnxruntime.InferenceSession(
            made.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        have = session.run(None, {"x": x})[0]
        assert np.abs(have - truth.activate(function, x.astype(np.float64))).max() <= ACTIVATION


def test_deterministic(tmp_path: Path) -> None:
    model = random_model(3)
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    room.write(model, first)
    room.write(model, second)
    assert first.read_bytes() == second.read_bytes()


def test_what_the_file_says(tmp_path: Path) -> None:
    """Opset, ir_version, producer, open batch and time, int64 tokens."""
    model = Model(
        (TokenInput(5, "ids"), LengthsInput("n")),
        (Embedding("e", np.ones((5, 3), np.float32)), lstm("l", 3, 4)),
    )
    room.write(model, tmp_path / "m.onnx")
    made = onnx.load(tmp_path / "m.onnx")
    assert made.ir_version == 8
    assert [(o.domain, o.version) for o in made.opset_import] == [("", 17)]
    assert made.producer_name == "ifgo"
    types = [(i.name, i.type.tensor_type.elem_type) for i in made.graph.input]
    assert types == [("ids", TensorProto.INT64), ("n", TensorProto.INT32)]
    shapes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*made.graph.input, *made.graph.output)
    ]
    assert shapes == [["B", "T"], ["B"], ["B", "T", 4]]
    lstm_node = next(n for n in made.graph.node if n.op_type == "LSTM")
    assert list(lstm_node.output)[1:] == []


def test_lengths_and_states(tmp_path: Path) -> None:
    """Two layers, packed h, packed c, lengths, in an order of inputs of their own."""
    slots = [("b", "c"), ("a", "c")], [("a", "h"), ("b", "h")]
    inputs = (
        FeatureInput(3, "x", "TB"),
        StateInput("cells", tuple(StateSlot(*pair) for pair in slots[0])),  # type: ignore[arg-type]
        LengthsInput("n"),
        StateInput("hidden", tuple(StateSlot(*pair) for pair in slots[1])),  # type: ignore[arg-type]
    )
    rng = np.random.default_rng(0)
    first = Recurrent(
        "a", random_cell(rng, 3, 4), random_cell(rng, 3, 4), initial=InitialState("input")
    )
    second = Recurrent("b", None, random_cell(rng, 8, 4), initial=InitialState("input"))
    model = Model(
        inputs,
        (first, second, LastStep("last", "state"), Dense("d", numbers(rng, 2, 4), None)),
        (Output("last", "y"), Output("c_n", "c", ("b",))),
    )
    path = tmp_path / "m.onnx"
    assert room.write(model, path).exact
    back = room.read(path)
    assert [i.name for i in back.inputs] == ["x", "cells", "n", "hidden"]
    assert [(s.layer, s.part) for s in back.inputs[1].slots] == [("lstm1", "c"), ("lstm0", "c")]  # type: ignore[union-attr]
    x = rng.uniform(-1, 1, (3, 5, 3)).astype(np.float32)
    c = rng.uniform(-1, 1, (3, 3, 4)).astype(np.float32)
    h = rng.uniform(-1, 1, (3, 3, 4)).astype(np.float32)
    lengths = np.array([5, 1, 3], np.int32)
    y, c_n = run_onnx(path, x=feed(model, x), cells=c, hidden=h, n=lengths)
    state = {"c1": c[:1], "c0": c[1:], "h0": h[:2], "h1": h[2:]}
    for same in (model, back):
        result = truth.forward(same, x, state, lengths)
        assert np.abs(y - result.y).max() <= float32_bound(same, result, x)
        assert np.abs(c_n - result.state["c1"]).max() <= cell_bound(same, result, x)


def test_unbatched_states(tmp_path: Path) -> None:
    inputs = (
        FeatureInput(3, "x", "T"),
        StateInput("h", (StateSlot("lstm0", "h"),)),
        StateInput("c", (StateSlot("lstm0", "c"),)),
    )
    layer = lstm("lstm0", 3, 4, initial=InitialState("input"))
    outputs = (Output("sequence", "y", axes="T"), Output("h_n", "hn", ("lstm0",), "T"))
    model = Model(inputs, (layer,), outputs)
    path = tmp_path / "m.onnx"
    assert room.write(model, path).exact
    assert_same(room.read(path), model)
    shapes = [i.type.tensor_type.shape.dim for i in onnx.load(path).graph.input]
    assert [len(dims) for dims in shapes] == [2, 2, 2]


@pytest.mark.parametrize("channels", [1, 2])
def test_residual(channels: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inner = (lstm("lstm0", 2, 4), Dense("dense", numbers(rng, channels, 4), numbers(rng, channels)))
    model = model_of(Residual("residual", inner, channels), size=2)
    path = tmp_path / "m.onnx"
    assert room.write(model, path).exact
    assert_same(room.read(path), model)
    x = rng.uniform(-1, 1, (2, 4, 2)).astype(np.float32)
    result = truth.forward(model, x)
    assert np.abs(run_onnx(path, x=x)[0] - result.y).max() <= float32_bound(model, result, x)


def test_flatten_fixes_the_time(tmp_path: Path) -> None:
    model = model_of(lstm("lstm0", 3, 4), Flatten("flatten", 5))
    path = tmp_path / "m.onnx"
    assert room.write(model, path).exact
    back = room.read(path)
    assert structure(back) == structure(model)
    assert back.provenance.notes == ("the file fixes time 5 for input x; ifgo does not",)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 5, 3)).astype(np.float32)
    result = truth.forward(model, x)
    assert np.abs(run_onnx(path, x=x)[0] - result.y).max() <= float32_bound(model, result, x)


def test_names_that_collide_or_say_nothing(tmp_path: Path) -> None:
    """Layers named as tensors are, spaces in names, an output named as the input is."""
    model = Model(
        (FeatureInput(3, "transpose"),),
        (lstm("identity", 3, 4), Dense("a dense; layer", np.ones((2, 4), np.float32))),
        (Output("sequence", "transpose"), Output("sequence", "lstm")),
    )
    path = tmp_path / "m.onnx"
    room.write(model, path)
    assert_same_arrays_by_order(room.read(path), model)
    assert (
        len(run_onnx(path, **{onnx.load(path).graph.input[0].name: np.zeros((1, 2, 3), "f")})) == 2
    )


@pytest.mark.parametrize("axes", ["BT", "TB", "T"])
@pytest.mark.parametrize(
    "layer", [RepeatVector("repeat", 1), HiddenAsSequence("hidden_as_sequence")]
)
def test_a_vector_that_ends_as_a_sequence(layer: Layer, axes: Axes, tmp_path: Path) -> None:
    """One step of features, or one feature per step: the shape is the model's."""
    model = Model(
        (FeatureInput(3, "x", axes),),
        (lstm("lstm0", 3, 4), LastStep("last", "state"), layer),
        (Output("sequence", "y", axes=axes),),
    )
    path = tmp_path / "m.onnx"
    assert room.write(model, path).exact
    assert_same(room.read(path), model)
    x = np.random.default_rng(0).uniform(-1, 1, (1 if axes == "T" else 2, 5, 3)).astype(np.float32)
    result = truth.forward(model, x)
    (want,) = expected(model, result)
    (have,) = run_onnx(path, x=feed(model, x))
    assert have.shape == want.shape
    assert np.abs(have - want).max() <= float32_bound(model, result, x)
