"""LSTM nodes out of larger graphs: listed with everything beside them, read alone or as a chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_bounds import float32_bound
from onnx_cases import (
    AXES,
    INT32,
    graph,
    ints,
    lstm_weights,
    node,
    one_lstm,
    random,
    refuse_file,
    run_onnx,
    save,
)
from raising import raising

from ifgo import formats, limits
from ifgo.errors import FormatError, UnsupportedError, UsageError
from ifgo.formats import onnx as room
from ifgo.formats.extraction import Found, Listing
from ifgo.layers import Dense
from ifgo.model import Model
from ifgo.reference import truth

SIZE, UNITS = 3, 4
B, T = 2, 5


def speech() -> onnx.ModelProto:
    """Two convolutions' worth of ReduceMax and Abs, two LSTMs with a Dense between, a product with
    the first LSTM's output, and a third LSTM whose states the graph computes."""
    weights: dict[str, Any] = {}
    for name, size in (("a", SIZE), ("b", 2), ("c", UNITS)):
        for key, array in lstm_weights(size, UNITS, seed=ord(name)).items():
            weights[key + name] = array * np.float32(0.5)
    start = random(1, 1, UNITS, seed=5)
    constants = weights | AXES | {"d": random(UNITS, 2), "start": start, "one": ints(1)}
    nodes = [
        node("Abs", "x", "front"),
        node("Shape", "x", "batch", start=1, end=2),
        node("Concat", "one batch units", "shape", axis=0),
        node("ConstantOfShape", "shape", "zeros"),
        node("Unsqueeze", "zeros k0", "zeros4"),
        node("Squeeze", "zeros4 k0", "h_a"),
        node("LSTM", "front Wa Ra Ba - h_a h_a", "Ya", hidden_size=UNITS),
        node("Squeeze", "Ya k1", "ya"),
        node("MatMul", "ya d", "between"),
        node("Expand", "start shape", "h_b"),
        node("LSTM", "between Wb Rb Bb - h_b h_a", "Yb Yb_h Yb_c", hidden_size=UNITS),
        node("Squeeze", "Yb k1", "yb"),
        node("Mul", "ya yb", "attended"),
        node("Sigmoid", "Yb_h", "h_c"),
        node("LSTM", "attended Wc Rc Bc - h_c Yb_c", "Yc Yc_h Yc_c", hidden_size=UNITS),
        node("Abs", "Yc", "end"),
    ]
    shape = ["T", 1, "B", UNITS]
    outputs = {"end": shape, "front": ["T", "B", SIZE], "Yb": shape, "Yb_h": [1, "B", UNITS]}
    made = graph(
        nodes,
        {"x": ["T", "B", SIZE]},
        outputs | {"Ya": shape, "attended": ["T", "B", UNITS], "h_c": [1, "B", UNITS]},
        constants | {"units": ints(UNITS)},
    )
    return made


def test_listing(tmp_path: Path) -> None:
    path = save(speech(), tmp_path)
    with pytest.raises(UnsupportedError, match="Abs"):
        room.read(path)
    assert formats.list_layers(path) == Listing(
        "onnx",
        (
            Found("n_Ya", SIZE, UNITS, ("forward",), "", "node 'n_front' (Abs)"),
            Found(
                "n_Yb",
                2,
                UNITS,
                ("forward",),
                "initial state: constant",
                "node 'n_between' (MatMul)",
                "n_Ya",
            ),
            Found(
                "n_Yc",
                UNITS,
                UNITS,
                ("forward",),
                "initial state: input",
                "node 'n_attended' (Mul)",
            ),
        ),
        (
            ("Squeeze", 3),
            ("Abs", 2),
            ("Concat", 1),
            ("ConstantOfShape", 1),
            ("Expand", 1),
            ("MatMul", 1),
            ("Mul", 1),
            ("Shape", 1),
            ("Sigmoid", 1),
            ("Unsqueeze", 1),
        ),
    )


def test_a_chain_of_two(tmp_path: Path) -> None:
    """What lies between is kept, zero states fold whatever the batch, a learned one is constant."""
    path = save(speech(), tmp_path)
    model = formats.load(path, select="n_Ya,n_Yb")
    assert [layer.kind for layer in model.layers] == ["lstm", "dense", "lstm"]
    assert isinstance(model.layers[1], Dense)
    first, second = (layer.initial for layer in model.recurrent)
    assert (first.kind, second.kind) == ("zero", "constant")
    assert second.h is not None
    assert second.h.tobytes() == random(1, 1, UNITS, seed=5).tobytes()
    assert model.provenance.notes[:2] == (
        "selected 'n_Ya', 'n_Yb'",
        "left out 12 nodes: 2 Abs, 2 Squeeze, 1 Concat, 1 ConstantOfShape, 1 Expand, 1 LSTM, "
        "1 Mul, 1 Shape, 1 Sigmoid, 1 Unsqueeze",
    )
    x = random(T, B, SIZE, scale=1.0)
    _, front, y, h, *_ = run_onnx(path, x=x)
    check(model, front, y, h)


def test_one_alone(tmp_path: Path) -> None:
    """States that the graph computes become inputs."""
    path = save(speech(), tmp_path)
    model = formats.load(path, select=["n_Yc"])
    assert [entry.name for entry in model.inputs] == [
        "attended",
        "n_Yc.initial_h",
        "n_Yc.initial_c",
    ]
    assert [o.name for o in model.outputs] == ["Yc", "Yc_h", "Yc_c"]


def check(model: Model, front: Any, y: Any, h: Any) -> None:
    own = front.swapaxes(0, 1)
    result = truth.forward(model, own)
    bound = float32_bound(model, result, own)
    assert np.abs(y[:, 0].swapaxes(0, 1) - result.y).max() <= bound
    last = len(model.recurrent) - 1
    assert np.abs(h - result.state[f"h{last}"]).max() <= bound


def test_every_option_survives(tmp_path: Path) -> None:
    """Attributes, peepholes, both directions, layout 1, lengths, behind an operator of no chain."""
    attributes = {
        "direction": "bidirectional",
        "clip": 3.0,
        "layout": 1,
        "input_forget": 1,
        "activations": ["Sigmoid", "Tanh", "Relu"] * 2,
    }
    made = one_lstm(
        attributes,
        d=2,
        inputs="front W R B n h h P",
        free={"n": ["B"]},
        types={"n": INT32},
        extra={"h": np.zeros((7, 2, 4), np.float32), "P": random(2, 12)},
    )
    made.graph.node.insert(0, node("Abs", "x", "front"))
    path = save(made, tmp_path)
    (found,) = formats.list_layers(path).layers
    assert found.directions == ("forward", "backward")
    assert found.options == "bidirectional, peephole, f=1-i, clip_z 3, sigmoid/tanh/relu"
    model = formats.load(path, select=found.name)
    assert model.input.axes == "BT"
    assert [entry.name for entry in model.inputs] == ["front", "n"]
    plain = one_lstm(
        attributes,
        d=2,
        inputs="x W R B n - - P",
        free={"n": ["B"]},
        types={"n": INT32},
        extra={"P": random(2, 12)},
    )
    whole = room.read(save(plain, tmp_path, "whole.onnx"))
    assert {k: a.tobytes() for k, a in model.arrays.items()} == {
        k: a.tobytes() for k, a in whole.arrays.items()
    }
    assert model.layers[0].detail() == whole.layers[0].detail()


def test_nodes_without_a_name_of_their_own(tmp_path: Path) -> None:
    """Empty and repeated names are replaced by positions."""
    made = speech()
    for k, entry in enumerate(n for n in made.graph.node if n.op_type == "LSTM"):
        entry.name = "" if k == 0 else "same"
    path = save(made, tmp_path)
    names = formats.list_layers(path).names
    assert names == ("#6", "#10", "#14")
    assert formats.load(path, select="#10").provenance.notes[0] == "selected '#10'"


def test_a_node_called_as_the_list(tmp_path: Path) -> None:
    """A name with a comma is one name where the file has it."""
    made = one_lstm()
    made.graph.node[0].name = "a,b"
    assert formats.load(save(made, tmp_path), select="a,b").recurrent


def test_bodies_and_other_domains_are_counted(tmp_path: Path) -> None:
    made = one_lstm()
    body = helper.make_graph([node("LSTM", "x W R", "z"), node("Abs", "z", "v")], "b", [], [])
    made.graph.node.append(
        helper.make_node("If", ["c"], ["u"], name="if", then_branch=body, else_branch=body)
    )
    made.graph.node.append(helper.make_node("Attention", ["Y"], ["v"], domain="com.microsoft"))
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path = save(made, tmp_path)
    assert formats.list_layers(path).others == (
        ("Abs in If", 2),
        ("LSTM in If", 2),
        ("If", 1),
        ("com.microsoft.Attention", 1),
    )
    model = formats.load(path, select="n_Y")
    assert "left out 2 nodes: 1 If, 1 com.microsoft.Attention" in model.provenance.notes


def test_weights_of_the_data_are_listed_with_the_reason(tmp_path: Path) -> None:
    made = one_lstm()
    made.graph.initializer.remove(next(t for t in made.graph.initializer if t.name == "R"))
    made.graph.input.append(helper.make_tensor_value_info("R", 1, [1, 16, 4]))
    path = save(made, tmp_path)
    (found,) = formats.list_layers(path).layers
    assert (found.input_size, found.hidden_size) == (3, 4)
    assert found.refusal == (
        "node 'n_Y': R ('R') is computed from inputs of the graph, expected constant weights. Bind "
        "inputs that are constants with --bind FILE.npz (bind= in Python)"
    )
    refuse_file(path, UnsupportedError, found.refusal, select="n_Y")
    bound = {"R": lstm_weights()["R"]}
    assert formats.list_layers(path, bind=bound).layers[0].refusal == ""
    assert formats.load(path, select="n_Y", bind=bound).recurrent


def test_a_graph_without_lstms(tmp_path: Path) -> None:
    made = graph([node("Abs", "x", "y")], {"x": ["T"]}, {"y": ["T"]})
    path = save(made, tmp_path)
    assert formats.list_layers(path) == Listing("onnx", (), (("Abs", 1),))
    refuse_file(
        path,
        UsageError,
        "has no recurrent layer 'lstm', expected a file with recurrent layers",
        select="lstm",
    )


KNOWN = "expected one of 'n_Ya', 'n_Yb', 'n_Yc'"


@pytest.mark.parametrize(
    ("select", "kind", "text"),
    [
        ("n_Yd", UsageError, f"has no recurrent layer 'n_Yd', {KNOWN}. Did you mean 'n_Yc'?"),
        ("conv", UsageError, f"has no recurrent layer 'conv', {KNOWN}"),
        (" , ", UsageError, f"select names no layer, {KNOWN}"),
        (["n_Ya", "n_Ya"], UsageError, "select names 'n_Ya' twice, expected each layer once"),
        (
            "n_Ya,n_Yc",
            UsageError,
            "LSTM 'n_Yc' takes its input from LSTM 'n_Ya' and LSTM 'n_Yb', expected from LSTM "
            "'n_Ya', chosen before it. Choose layers one after another, or one at a time",
        ),
        (
            "n_Yb,n_Yc",
            UsageError,
            "LSTM 'n_Yc' takes its input from LSTM 'n_Ya' and LSTM 'n_Yb', expected from LSTM "
            "'n_Yb', chosen before it. Choose layers one after another, or one at a time",
        ),
    ],
)
def test_choices_that_are_no_chain(
    select: Any, kind: type[Exception], text: str, tmp_path: Path
) -> None:
    refuse_file(save(speech(), tmp_path), kind, text, select=select)  # type: ignore[arg-type]


def test_two_inputs_side_by_side(tmp_path: Path) -> None:
    """LSTMs that do not follow each other."""
    made = one_lstm()
    made.graph.node.append(node("LSTM", "x W R B", "Z", hidden_size=4))
    refuse_file(
        save(made, tmp_path),
        UsageError,
        "LSTM 'n_Z' takes its input from no LSTM, expected from LSTM 'n_Y', chosen before it. "
        "Choose layers one after another, or one at a time",
        select="n_Y,n_Z",
    )


def test_a_side_input_between(tmp_path: Path) -> None:
    weights = lstm_weights() | {f"{k}2": v for k, v in lstm_weights(4, 4).items()}
    made = graph(
        [
            node("LSTM", "x W R B", "Y", hidden_size=4),
            node("Squeeze", "Y k1", "y"),
            node("Add", "y side", "z"),
            node("LSTM", "z W2 R2 B2", "Z", hidden_size=4),
        ],
        {"x": ["T", "B", 3], "side": ["T", "B", 4]},
        {"Z": ["T", 1, "B", 4]},
        weights | AXES,
    )
    path = save(made, tmp_path)
    assert [found.after for found in formats.list_layers(path).layers] == ["", ""]
    refuse_file(
        path,
        UnsupportedError,
        "what follows X of the first layer ('x') also takes input 'side', expected nothing but "
        "that sequence between the chosen layers. Choose one layer at a time",
        select="n_Y,n_Z",
    )


def test_many_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(layers=2))
    path = save(speech(), tmp_path)
    with pytest.raises(FormatError) as caught:
        formats.list_layers(path)
    assert str(caught.value) == f"{path}: has 3 LSTM nodes, expected at most 2" + raising("layers")


@pytest.mark.parametrize("name", ["dtln/model_1", "tract_byte_bidi/model"])
def test_outside_models(name: str, shared: Path) -> None:
    """Each layer alone has the arrays that it has in the whole model."""
    path = shared / "models" / f"{name}.onnx"
    whole = room.read(path)
    names = formats.list_layers(path).names
    for k, chosen in enumerate(names):
        alone = formats.load(path, select=chosen)
        for key, array in alone.arrays.items():
            assert array.tobytes() == whole.arrays[key.replace("lstm0", f"lstm{k}")].tobytes()
    both = formats.load(path, select=list(names))
    assert len(both.recurrent) == len(names) == 2


# -- hostile states ---------------------------------------------------------------------------


def started(nodes: list[onnx.NodeProto], name: str, **constants: Any) -> onnx.ModelProto:
    """One LSTM whose initial states are `name`, which `nodes` compute."""
    made = one_lstm(inputs=f"x W R B - {name} {name}", extra={"k0": ints(0), **constants})
    for entry in reversed(nodes):
        made.graph.node.insert(0, entry)
    known = {t.name for t in made.graph.initializer}
    for key, array in constants.items():
        if key not in known:
            made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), key))
    return made


def listed(made: onnx.ModelProto, folder: Path) -> Found:
    (found,) = room.list_layers(save(made, folder)).layers
    return found


def test_states_that_branch_without_end(tmp_path: Path) -> None:
    """Each tensor is looked at once, though there are 2**60 ways to it."""
    nodes = [node("Shape", "x", "s0")]
    nodes += [node("Concat", f"s{k} s{k}", f"s{k + 1}", axis=0) for k in range(60)]
    assert "s60" not in listed(started(nodes, "s60"), tmp_path).refusal


def test_states_at_the_end_of_a_long_way(tmp_path: Path) -> None:
    nodes = [node("Shape", "x", "s0")]
    nodes += [node("Unsqueeze", f"s{k} k0", f"s{k + 1}") for k in range(5000)]
    assert listed(started(nodes, "s5000", k0=ints(0)), tmp_path).refusal == ""


def test_states_in_a_circle(tmp_path: Path) -> None:
    nodes = [node("Identity", "b", "a"), node("Identity", "a", "b")]
    found = listed(started(nodes, "a"), tmp_path)
    assert "takes 'b', which no node before it makes" in found.refusal


def test_a_fill_kept_outside(tmp_path: Path) -> None:
    """No file is read for it, wherever it says it lies."""
    (tmp_path / "secret.bin").write_bytes(bytes(4))
    fill = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "fill")
    onnx.external_data_helper.set_external_data(fill, str(tmp_path / "secret.bin"))
    fill.ClearField("raw_data")
    nodes = [node("Shape", "x", "s"), node("ConstantOfShape", "s", "h", value=fill)]
    found = listed(started(nodes, "h"), tmp_path)
    assert "value of node 'n_h' keeps its data outside, expected it in the node" in found.refusal


def test_outputs_beyond_those_of_an_lstm(tmp_path: Path) -> None:
    made = one_lstm()
    made.graph.node[0].output.append("more")
    second = node("LSTM", "more W R B", "Z", hidden_size=UNITS)
    second.name = "second"
    made.graph.node.append(second)
    found = room.list_layers(save(made, tmp_path)).layers[1]
    assert found.source == "an output of LSTM 'n_Y'"


def test_a_recurrence_without_axes(tmp_path: Path) -> None:
    made = one_lstm(inputs="x W flat B - h h", extra={"flat": np.float32(1)})
    made.graph.input.append(
        helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, [1, "B", UNITS])
    )
    refusal = listed(made, tmp_path).refusal
    assert refusal == "node 'n_Y': R has shape (), expected (D, 4H, H)"


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Concat", "h x", "h", axis=1)],
        [node("Identity", f"z{k}", f"z{k + 1}") for k in range(2000)]
        + [node("Expand", "z2000 s", "h")],
        [node("Concat", f"d{k} d{k}", f"d{k + 1}", axis=1) for k in range(60)]
        + [node("Identity", "d60", "h")],
    ],
    ids=["loop", "depth", "doubling"],
)
def test_states_that_would_take_forever(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    """What is not found out quickly is an input."""
    made = one_lstm(inputs="x W R B - h h")
    made.graph.node.insert(0, node("Shape", "x", "s"))
    made.graph.node.insert(1, node("ConstantOfShape", "s", "z0"))
    made.graph.node.insert(2, node("Neg", "x", "d0"))
    for k, extra in enumerate(nodes):
        made.graph.node.insert(3 + k, extra)
    path = save(made, tmp_path)
    (found,) = formats.list_layers(path).layers
    assert found.options == "initial state: input"
    assert [entry.name for entry in formats.load(path, select="n_Y").inputs[1:]] == [
        "n_Y.initial_h",
        "n_Y.initial_c",
    ]
