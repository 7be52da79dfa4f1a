"""ONNX Runtime and PyTorch, layer by layer: sound models pass under bounds that say something, one
corruption of an exported file is named by layer, gate and first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper, numpy_helper

import ifgo
from ifgo import gates, states
from ifgo.model import (
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    InitialState,
    LastStep,
    LengthsInput,
    LSTMCell,
    Masking,
    Model,
    Output,
    Provenance,
    Recurrent,
    StateInput,
    StateSlot,
    TokenInput,
)
from ifgo.verification import Verification, onnx_graph, verify
from ifgo.verification.findings import Finding


def draw_cell(random: np.random.Generator, inputs: int, hidden: int, **more: Any) -> LSTMCell:
    def array(*shape: int) -> Any:
        return (random.normal(size=shape) * 0.5).astype(np.float32)

    rows = 4 * hidden
    return LSTMCell(array(rows, inputs), array(rows, hidden), array(rows), array(rows), **more)


def foreign(found: Verification, runtime: str) -> list[Finding]:
    return [f for f in found.findings if f.runtime == runtime]


# -- sound models -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("torch", marks=pytest.mark.peers)])
def test_random_layers_lie_within_bounds_that_say_something(runtime: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs, hidden = int(random.integers(1, 20)), int(random.integers(1, 24))
    cells = [draw_cell(random, inputs, hidden) for _ in range(2)]
    layer = (
        Recurrent("a", cells[0]),
        Recurrent("a", None, cells[0]),
        Recurrent("a", *cells),
    )[seed % 3]
    model = Model((FeatureInput(inputs),), (layer,))
    x = random.normal(size=(3, 12, inputs)).astype(np.float32)
    start = {
        key: random.normal(size=shape).astype(np.float32)
        for key, shape in states.shapes(model, 3).items()
    }
    rows = [f for f in foreign(verify(model, x, against=(runtime,), state=start), runtime)]
    rows = [f for f in rows if f.layer == "a"]
    assert len(rows) == layer.directions
    for row in rows:
        assert row.verdict == "within local bound"
        assert {p.part for p in row.parts} >= {"c", "h", "Y", "Y_h", "Y_c"}
        assert all(p.bound < 1e-4 for p in row.parts)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"peephole": np.ones((3, 3), np.float32)}, "peephole"),
        ({"clip_z": 1.0}, "clip_z"),
        ({"coupling": "f=1-i"}, "coupling f=1-i"),
        ({"forget_bias": 1.0}, "forget_bias 1"),
        (
            {"weight_hr": np.ones((3, 3), np.float32)},
            "a projection to as many values as hidden_size",
        ),
    ],
)
def test_what_nn_lstm_does_not_compute_is_refused_by_name(options: Any, reason: str) -> None:
    cell = draw_cell(np.random.default_rng(1), 2, 3, **options)
    found = verify(Model((FeatureInput(2),), (Recurrent("a", cell),)), against=("torch",))
    (row,) = foreign(found, "torch")
    assert (row.layer, row.verdict) == ("a", "not compared")
    assert row.note == f"nn.LSTM cannot compute it: {reason}"
    assert not found.ok


@pytest.mark.peers
def test_torch_skips_no_steps() -> None:
    cell = draw_cell(np.random.default_rng(1), 2, 3)
    for first, entry in (
        (Masking("m"), FeatureInput(2)),
        (Embedding("m", np.ones((5, 2), np.float32), mask_zero=True), TokenInput(5)),
    ):
        found = verify(Model((entry,), (first, Recurrent("a", cell))), against=("torch",))
        (row,) = foreign(found, "torch")
        assert row.note == "nn.LSTM cannot compute it: layer m masks steps"


@pytest.mark.peers
def test_a_wrong_layer_of_torch_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer is fed the reference's input: an error of the first does not reach the second."""
    import torch

    random = np.random.default_rng(3)
    layers = (Recurrent("a", draw_cell(random, 2, 4)), Recurrent("b", draw_cell(random, 4, 5)))
    right = torch.nn.LSTM.forward

    def wrong(self: Any, *given: Any) -> Any:
        y, state = right(self, *given)
        return (y + 1e-3, state) if self.hidden_size == 4 else (y, state)

    monkeypatch.setattr(torch.nn.LSTM, "forward", wrong)
    found = verify(Model((FeatureInput(2),), layers), against=("torch",))
    assert [(f.layer, f.part, f.step) for f in found.ranked if not f.holds] == [("a", "Y", 0)]


# -- one corruption of a file -----------------------------------------------------------------

Corruption = Callable[[onnx.ModelProto, np.random.Generator], tuple[str, str, int | None]]
"""Spoils a file; returns the layer, the part and (where it is one) the unit to be named."""


def drawn(random: np.random.Generator) -> Model:
    """Three layers of one width, peepholes in the first, both directions in the last."""
    width = int(random.integers(3, 7))
    peephole = (random.normal(size=(3, width)) * 0.5).astype(np.float32)
    head = random.normal(size=(2, 2 * width)).astype(np.float32)
    return Model(
        (FeatureInput(width),),
        (
            Recurrent("first", draw_cell(random, width, width, peephole=peephole)),
            Dropout("drop", 0.1),
            Recurrent("second", draw_cell(random, width, width)),
            Recurrent("third", *(draw_cell(random, width, width) for _ in range(2))),
            Dense("head", head, head[:, 0].copy()),
        ),
    )


def node(proto: onnx.ModelProto, name: str) -> NodeProto:
    return next(each for each in proto.graph.node if each.name == name)


def change(proto: onnx.ModelProto, tensor: str, edit: Callable[[Any], Any]) -> None:
    for entry in proto.graph.initializer:
        if entry.name == tensor:
            array = np.ascontiguousarray(edit(numpy_helper.to_array(entry).copy()))
            entry.CopyFrom(numpy_helper.from_array(array, tensor))
            return
    raise AssertionError(f"no tensor {tensor}")


def swapped_gates(proto: onnx.ModelProto, random: np.random.Generator) -> Any:
    a, b = sorted(random.choice(4, size=2, replace=False))
    order = list("ifgo")
    order[a], order[b] = order[b], order[a]

    def edit(array: Any) -> Any:
        rows = gates.reorder(array, "iofg", "ifgo", axis=1)
        return gates.reorder(gates.reorder(rows, "".join(order), axis=1), "ifgo", "iofg", axis=1)

    change(proto, "second.W", edit)
    return "second", f"z_{'ifgo'[a]}", None


def changed_bias(proto: onnx.ModelProto, random: np.random.Generator) -> Any:
    gate, unit = int(random.integers(4)), None

    def edit(array: Any) -> Any:
        nonlocal unit
        size = array.shape[1] // 8
        unit = int(random.integers(size))
        array[0, gate * size + unit] += 0.01
        return array

    change(proto, "second.B", edit)
    return "second", f"z_{'iofg'[gate]}", unit


def changed_weight(proto: onnx.ModelProto, random: np.random.Generator) -> Any:
    """Of R: seen from the second step on, where h is no longer zero."""
    gate, unit = int(random.integers(4)), None

    def edit(array: Any) -> Any:
        nonlocal unit
        size = array.shape[2]
        unit = int(random.integers(size))
        array[0, gate * size + unit] += 0.5
        return array

    change(proto, "second.R", edit)
    return "second", f"z_{'iofg'[gate]}", unit


def missing_peephole(proto: onnx.ModelProto, random: np.random.Generator) -> Any:
    row = int(random.integers(3))

    def edit(array: Any) -> Any:
        size = array.shape[1] // 3
        array[0, row * size : (row + 1) * size] = 0
        return array

    change(proto, "first.P", edit)
    return "first", f"z_{'iof'[row]}", None


def wrong_direction(proto: onnx.ModelProto, random: np.random.Generator) -> Any:
    node(proto, "second").attribute.append(helper.make_attribute("direction", "reverse"))
    return "second", "Y", None


def skipped_layer(proto: onnx.ModelProto, random: np.random.Generator) -> Any:
    node(proto, "second").input[0] = node(proto, "first").input[0]
    return "second", "x", None


def wrong_activation(proto: onnx.ModelProto, random: np.random.Generator) -> Any:
    functions = ["Sigmoid", "Tanh", "Sigmoid"]
    node(proto, "second").attribute.append(helper.make_attribute("activations", functions))
    return "second", "h", None


CORRUPTIONS: tuple[Corruption, ...] = (
    swapped_gates,
    changed_bias,
    changed_weight,
    missing_peephole,
    wrong_direction,
    skipped_layer,
    wrong_activation,
)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_a_corruption_of_an_exported_file_is_located(
    corrupt: Corruption, seed: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    model, path = drawn(random), tmp_path / "model.onnx"
    x = random.normal(size=(3, 6, model.input_size)).astype(np.float32)
    ifgo.save(model, path)
    model = replace(model, provenance=Provenance("onnx", path=str(path)))
    assert verify(model, x, against=("onnxruntime",)).ok
    proto = onnx.load(path)
    layer, part, unit = corrupt(proto, random)
    path.write_bytes(proto.SerializeToString())
    found = verify(model, x, against=("onnxruntime",))
    first = found.first
    assert first is not None
    seen_at_once = part not in ("z_i", "z_f") or corrupt is not missing_peephole
    step = 0 if seen_at_once and corrupt is not changed_weight else 1
    assert (first.layer, first.part, first.step) == (layer, part, step)
    assert first.note == f"node {layer}"
    assert unit in (None, first.unit)
    own = {f.layer for f in found.findings if f.cause == "own"}
    assert own == {layer}, "the layers after it are judged by what they were fed"


# -- files ------------------------------------------------------------------------------------


def test_a_file_with_another_number_of_nodes_names_the_layer_it_lacks(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    layers = tuple(Recurrent(name, draw_cell(random, 3, 3)) for name in ("lstm0", "lstm1"))
    ifgo.save(Model((FeatureInput(3),), layers), tmp_path / "two.onnx")
    ifgo.save(Model((FeatureInput(3),), layers[:1]), tmp_path / "one.onnx")
    two = ifgo.load(tmp_path / "two.onnx")
    facts = replace(two.provenance, path=str(tmp_path / "one.onnx"))
    found = verify(replace(two, provenance=facts), against=("onnxruntime",))
    assert found.first is not None
    assert (found.first.layer, found.first.verdict) == ("lstm1", "OUT OF local bound")
    assert found.first.note == (
        "no LSTM node of the file computes it: W (1, 12, 3) expected, (1, 12, 3) found"
    )


WRITTEN = "the file ifgo writes was run: the model's own differs in"


@pytest.mark.parametrize("name", ["lstm0", "lstm1"])
def test_layers_taken_out_of_a_file_run_in_a_file_of_their_own(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    layers = tuple(Recurrent(each, draw_cell(random, 3, 3)) for each in ("lstm0", "lstm1"))
    ifgo.save(Model((FeatureInput(3),), layers), tmp_path / "m.onnx")
    found = verify(ifgo.load(tmp_path / "m.onnx", select=name), against=("onnxruntime",))
    assert found.ok
    assert all(f.compared for f in found.findings)
    assert any(f.note.startswith(WRITTEN) for f in found.findings)


def test_a_file_whose_weights_are_inputs_is_written_again(tmp_path: Path) -> None:
    model = Model((FeatureInput(3),), (Recurrent("a", draw_cell(np.random.default_rng(1), 3, 4)),))
    ifgo.save(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    w = next(entry for entry in proto.graph.initializer if entry.name == "a.W")
    bound = {"a.W": numpy_helper.to_array(w)}
    proto.graph.initializer.remove(w)
    proto.graph.input.append(helper.make_tensor_value_info("a.W", w.data_type, w.dims))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    found = verify(ifgo.load(tmp_path / "m.onnx", bind=bound), against=("onnxruntime",))
    assert found.ok
    assert all(f.compared for f in found.findings)
    assert f"{WRITTEN} a.W" in {f.note for f in found.findings}


def fixed(model: Model, path: Path, batch: int | None, steps: int | None) -> Model:
    """The model read from a file that fixes B or T."""
    ifgo.save(model, path)
    proto = onnx.load(path)
    for entry in (*proto.graph.input, *proto.graph.output):
        for axis, size in zip(entry.type.tensor_type.shape.dim, (batch, steps), strict=False):
            if size is not None:
                axis.dim_value = size
    path.write_bytes(proto.SerializeToString())
    return ifgo.load(path)


@pytest.mark.parametrize(("batch", "steps"), [(1, 7), (3, None), (None, 5)])
def test_a_file_that_fixes_its_shape_is_run_in_that_shape(
    batch: int | None, steps: int | None, tmp_path: Path
) -> None:
    model = Model((FeatureInput(3),), (Recurrent("a", draw_cell(np.random.default_rng(1), 3, 4)),))
    read = fixed(model, tmp_path / "m.onnx", batch, steps)
    assert onnx_graph.declared(read) == (batch, steps)
    found = verify(read, against=("onnxruntime",))
    assert found.ok
    assert (found.batch, found.steps) == (batch or 2, steps or 32)
    assert all(f.compared for f in found.findings)


def test_a_file_of_one_sequence_takes_several_one_by_one(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    layers = (Recurrent("a", *(draw_cell(random, 3, 4) for _ in range(2))), LastStep("last"))
    read = fixed(Model((FeatureInput(3),), layers), tmp_path / "m.onnx", 1, None)
    found = verify(read, random.normal(size=(4, 6, 3)), against=("onnxruntime",))
    assert found.ok
    assert all(f.compared for f in found.findings)


def test_states_and_lengths_are_inputs_of_the_file_too(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    given = InitialState("input")
    layers = tuple(
        Recurrent(name, draw_cell(random, 3, 3), initial=given) for name in ("lstm0", "lstm1")
    )
    slots = {p: tuple(StateSlot(layer.name, p) for layer in layers) for p in ("h", "c")}
    model = Model(
        (
            FeatureInput(3, axes="TB"),
            LengthsInput("lengths"),
            StateInput("h0", slots["h"]),
            StateInput("c0", slots["c"]),
        ),
        layers,
        (
            Output("sequence", "y", axes="TB"),
            Output("h_n", "hn", ("lstm0", "lstm1")),
            Output("c_n", "cn", ("lstm0", "lstm1")),
        ),
    )
    ifgo.save(model, tmp_path / "m.onnx")
    read = ifgo.load(tmp_path / "m.onnx")
    start = {
        key: random.normal(size=shape).astype(np.float32)
        for key, shape in states.shapes(read, 2).items()
    }
    x = random.normal(size=(2, 6, 3))
    found = verify(read, x, against=("onnxruntime",), state=start)
    assert found.ok
    assert all(f.compared for f in found.findings)
    nodes = [f.note for f in foreign(found, "onnxruntime") if f.layer.startswith("lstm")]
    assert nodes == ["node lstm0", "node lstm1"]


def test_layers_are_compared_one_by_one_where_no_file_holds_the_model() -> None:
    random = np.random.default_rng(1)
    projected = draw_cell(random, 3, 4)
    projected = replace(
        projected,
        weight_hh=projected.weight_hh[:, :2].copy(),
        weight_hr=projected.weight_hh[:2].copy(),
    )
    layers = (
        Recurrent("a", draw_cell(random, 3, 3), draw_cell(random, 3, 3), merge="sum"),
        Recurrent("b", projected),
    )
    rows = foreign(
        verify(Model((FeatureInput(3),), layers), against=("onnxruntime",)), "onnxruntime"
    )
    assert [(f.layer, f.direction, f.verdict) for f in rows] == [
        ("a", "forward", "within local bound"),
        ("a", "backward", "within local bound"),
        ("b", "", "not compared"),
        ("whole graph", "", "not compared"),
    ]
    assert rows[-1].note == (
        "ONNX cannot hold layer a: merge sum; layer b: a projection (proj_size)"
    )


# -- files whose outputs keep the axes of the node ----------------------------------------------


def node_file(path: Path, direction: str, layout: int, result: str, *, more: bool = False) -> Path:
    """One LSTM node, H=3, I=2, whose Y or Y_h is the output of the graph as it is."""
    sides = 2 if direction == "bidirectional" else 1
    random = np.random.default_rng(7)
    weights = {
        name: random.normal(size=(sides, *shape)).astype(np.float32)
        for name, shape in {"W": (12, 2), "R": (12, 3)}.items()
    }
    node = helper.make_node(
        "LSTM", ["X", "W", "R"], ["Y", "Y_h"], hidden_size=3, direction=direction, layout=layout
    )
    nodes = [node]
    if more:
        nodes.append(helper.make_node("Relu", [result], ["end"]))
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", float32, ["t", "b", 2])],
        [helper.make_tensor_value_info("end" if more else result, float32, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_the_output_of_a_node_is_compared_as_it_is(direction: str, tmp_path: Path) -> None:
    path = node_file(tmp_path / "node.onnx", direction, 0, "Y")
    found = verify(path, against=("onnxruntime",))
    assert found.ok
    rows = {f.layer: f.verdict for f in foreign(found, "onnxruntime")}
    assert (rows["output"], rows["whole graph"]) == ("within local bound", "within global bound")


def test_an_output_of_other_axes_is_said_not_to_be_compared(tmp_path: Path) -> None:
    path = node_file(tmp_path / "node.onnx", "bidirectional", 0, "Y", more=True)
    (row,) = [
        f
        for f in foreign(verify(path, against=("onnxruntime",)), "onnxruntime")
        if f.layer == "whole graph"
    ]
    assert (row.verdict, row.note) == (
        "not compared",
        "the output has shape (32, 2, 2, 3) in the file",
    )


def test_states_that_a_model_must_be_given_are_seeded_with_its_input(cc: str) -> None:
    layer = Recurrent("a", draw_cell(np.random.default_rng(1), 2, 3), initial=InitialState("input"))
    slots = (StateSlot("a", "h"), StateSlot("a", "c"))
    inputs = (FeatureInput(2), *(StateInput(f"{slot.part}0", (slot,)) for slot in slots))
    assert verify(Model(inputs, (layer,)), against=("c99", "onnxruntime")).ok
