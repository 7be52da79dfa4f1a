"""Every attribute and input of the LSTM operator: what is read computes what ONNX Runtime does."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, helper
from onnx_bounds import cell_bound, float32_bound
from onnx_cases import (
    INT32,
    assert_same,
    assert_same_arrays,
    graph,
    lstm_weights,
    node,
    one_lstm,
    random,
    run_onnx,
    save,
    structure,
)

from ifgo.activations import LINEAR, Activation
from ifgo.errors import IfgoError
from ifgo.formats import onnx as room
from ifgo.model import Model
from ifgo.reference import truth

T, B, I, H = 6, 3, 3, 4  # noqa: E741
SEVEN_OF_EIGHT = "x W R B - - - P"


def assert_numbers(path: Path, model: Model, **feeds: Any) -> None:
    """Y, Y_h and Y_c of ONNX Runtime against truth, both directions."""
    x = feeds["x"]
    state = None
    if "h" in feeds:
        state = {"h0": feeds["h"], "c0": feeds["c"]}
    ours = np.swapaxes(x, 0, 1)
    result = truth.forward(model, ours, state, feeds.get("n"))
    bound = float32_bound(model, result, ours)
    y, y_h, y_c = run_onnx(path, **feeds)
    merged = np.moveaxis(y, 2, 0).reshape(B, T, -1)
    assert np.abs(merged - result.y).max() <= bound
    assert np.abs(y_h - result.state["h0"]).max() <= bound
    assert np.abs(y_c - result.state["c0"]).max() <= cell_bound(model, result, ours)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("coupled", [0, 1])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_computes_the_same(
    direction: str,
    peephole: bool,
    clip: float | None,
    coupled: int,
    lengths: bool,
    states: bool,
    tmp_path: Path,
) -> None:
    d = 2 if direction == "bidirectional" else 1
    attributes: dict[str, Any] = {"direction": direction, "input_forget": coupled}
    if clip is not None:
        attributes["clip"] = clip
    free: dict[str, Any] = {}
    feeds: dict[str, Any] = {"x": random(T, B, I, scale=1.0)}
    if lengths:
        free["n"] = ["B"]
        feeds["n"] = np.array([T, 0, 2], np.int32)
    if states:
        free |= {"h": [d, "B", H], "c": [d, "B", H]}
        feeds |= {"h": random(d, B, H, seed=1), "c": random(d, B, H, seed=2)}
    inputs = ["x", "W", "R", "B", "n" if lengths else "-"]
    inputs += ["h", "c"] if states else ["-", "-"]
    inputs += ["P"] if peephole else ["-"]
    scaled = {name: a * np.float32(0.5) for name, a in lstm_weights(I, H, d).items()}
    extra = scaled | ({"P": random(d, 3 * H, seed=9, scale=0.2)} if peephole else {})
    model = one_lstm(
        attributes, d=d, inputs=" ".join(inputs), extra=extra, free=free, types={"n": INT32}
    )
    path = save(model, tmp_path)
    found = room.read(path)
    cells = found.layers[0].cells  # type: ignore[attr-defined]
    assert (
        list(cells)
        == {
            "forward": ["forward"],
            "reverse": ["backward"],
            "bidirectional": ["forward", "backward"],
        }[direction]
    )
    for cell in cells.values():
        assert cell.clip_z == (None if clip is None else float(np.float32(clip)))
        assert cell.coupling == ("f=1-i" if coupled else None)
        assert (cell.peephole is not None) == peephole
    assert_numbers(path, found, **feeds)


def test_gate_order(tmp_path: Path) -> None:
    """i, o, f, g in the file; i, f, g, o here; each entry says where it stood."""
    h, i = 2, 3
    w = np.arange(4 * h * i, dtype=np.float32).reshape(1, 4 * h, i)
    r = np.arange(4 * h * h, dtype=np.float32).reshape(1, 4 * h, h) + 100
    b = np.arange(8 * h, dtype=np.float32).reshape(1, 8 * h) + 200
    p = np.arange(3 * h, dtype=np.float32).reshape(1, 3 * h) + 300
    made = one_lstm(i=i, h=h, inputs=SEVEN_OF_EIGHT, extra={"W": w, "R": r, "B": b, "P": p})
    cell = room.read(save(made, tmp_path)).recurrent[0].cell
    rows = [0, 1, 4, 5, 6, 7, 2, 3]
    np.testing.assert_array_equal(cell.weight_ih, w[0][rows])
    np.testing.assert_array_equal(cell.weight_hh, r[0][rows])
    np.testing.assert_array_equal(cell.bias_ih, b[0][rows])
    np.testing.assert_array_equal(cell.bias_hh, b[0][[8 + k for k in rows]])
    np.testing.assert_array_equal(cell.peephole, [[300, 301], [304, 305], [302, 303]])


ACTIVATIONS: list[tuple[str, list[float], list[float], Activation]] = [
    ("Sigmoid", [], [], Activation("sigmoid")),
    ("tanh", [], [], Activation("tanh")),
    ("RELU", [], [], Activation("relu")),
    ("Affine", [0.5], [0.25], Activation("affine", 0.5, 0.25)),
    ("Affine", [1.0], [0.0], LINEAR),
    ("LeakyRelu", [0.25], [], Activation("leaky_relu", 0.25)),
    ("ScaledTanh", [0.5], [0.75], Activation("scaled_tanh", 0.5, 0.75)),
    ("HardSigmoid", [0.25], [0.5], Activation("hard_sigmoid", 0.25, 0.5)),
    ("HardSigmoid", [], [], Activation("hard_sigmoid", float(np.float32(0.2)), 0.5)),
    ("Elu", [0.5], [], Activation("elu", 0.5)),
    ("Softsign", [], [], Activation("softsign")),
    ("Softplus", [], [], Activation("softplus")),
]


PLACED = [
    (position, *known)
    for position, known in itertools.product(range(3), ACTIVATIONS)
    if position == 2 or known[:2] != ("HardSigmoid", [])
]
"""Values are consumed in order, so only the last function can be left to its default."""


@pytest.mark.parametrize(("position", "name", "alpha", "beta", "ours"), PLACED)
def test_activations(
    position: int,
    name: str,
    alpha: list[float],
    beta: list[float],
    ours: Activation,
    tmp_path: Path,
) -> None:
    names = ["HardSigmoid", "HardSigmoid", "HardSigmoid"]
    names[position] = name
    alphas, betas = [0.25] * 3, [0.5] * 3
    alphas[position : position + 1] = alpha
    betas[position : position + 1] = beta
    made = one_lstm(
        {"activations": names, "activation_alpha": alphas, "activation_beta": betas},
        extra={k: a * np.float32(0.25) for k, a in lstm_weights().items()},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    assert model.recurrent[0].cell.activations[position] == ours
    assert_numbers(path, model, x=random(T, B, I, scale=1.0))


def test_activations_of_two_directions(tmp_path: Path) -> None:
    made = one_lstm(
        {
            "direction": "bidirectional",
            "activations": ["Sigmoid", "LeakyRelu", "Elu", "HardSigmoid", "Tanh", "LeakyRelu"],
            "activation_alpha": [0.25, 0.5, 0.125, 0.75],
            "activation_beta": [0.5],
        },
        d=2,
        extra={k: a * np.float32(0.25) for k, a in lstm_weights(d=2).items()},
    )
    path = save(made, tmp_path)
    model = room.read(path)
    forward, backward = model.recurrent[0].cells.values()
    assert [str(a) for a in forward.activations] == ["sigmoid", "leaky_relu(0.25)", "elu(0.5)"]
    assert [str(a) for a in backward.activations] == [
        "hard_sigmoid(0.125, 0.5)",
        "tanh",
        "leaky_relu(0.75)",
    ]
    assert_numbers(path, model, x=random(T, B, I, scale=1.0))


@pytest.mark.parametrize("inputs", ["x W R", "x W R -", "x W R B", "x W R B -"])
def test_missing_bias(inputs: str, tmp_path: Path) -> None:
    path = save(one_lstm(inputs=inputs), tmp_path)
    cell = room.read(path).recurrent[0].cell
    assert (cell.bias_ih is None) == (cell.bias_hh is None) == ("B" not in inputs)


def test_hidden_size_may_be_left_out(tmp_path: Path) -> None:
    made = one_lstm()
    del made.graph.node[0].attribute[:]
    assert_same(room.read(save(made, tmp_path)), room.read(save(one_lstm(), tmp_path)))


def test_layout_batchwise(tmp_path: Path) -> None:
    """layout=1 is the same layer over (B, T, I). ONNX Runtime refuses it, so arrays only."""
    extra = {"h": random(1, 1, H), "c": random(1, 1, H, seed=1)}
    plain = one_lstm(inputs="x W R B - h c", extra=extra, free={})
    batchwise = one_lstm({"layout": 1}, inputs="x W R B - h c", extra=extra)
    for made in (plain, batchwise):
        made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "S"
        for axis in (0, 1):
            made.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 1
    a, b = (room.read(save(m, tmp_path, f"{k}.onnx")) for k, m in enumerate((plain, batchwise)))
    assert_same_arrays(a, b)
    assert (a.input.axes, b.input.axes) == ("TB", "BT")
    assert [o.role for o in a.outputs] == [o.role for o in b.outputs]
    assert (a.outputs[0].axes, b.outputs[0].axes) == ("TB", "BT")


def test_batchwise_states_as_inputs(tmp_path: Path) -> None:
    free = {"h": ["B", 1, H], "c": ["B", 1, H]}
    made = one_lstm({"layout": 1}, inputs="x W R B - h c", free=free)
    model = room.read(save(made, tmp_path))
    assert model.recurrent[0].initial.kind == "input"
    assert [entry.layout for entry in model.inputs[1:]] == ["B 1 H", "B 1 H"]  # type: ignore[union-attr]
    assert [output.layout for output in model.outputs] == ["", "B 1 H", "B 1 H"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_keep_their_bits(dtype: Any, tmp_path: Path) -> None:
    weights = {name: a.astype(dtype) for name, a in lstm_weights().items()}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    names = ("x", "Y", "Y_h", "Y_c")
    made = one_lstm(extra=weights, types=dict.fromkeys(names, kind))
    model = room.read(save(made, tmp_path))
    assert {a.dtype for a in model.arrays.values()} == {np.dtype(dtype)}
    written = tmp_path / "w.onnx"
    room.write(model, written)
    assert_same(room.read(written), model)


def test_bfloat16_keeps_its_bits(tmp_path: Path) -> None:
    import ml_dtypes

    dtype = np.dtype(ml_dtypes.bfloat16)
    weights = {name: a.astype(dtype) for name, a in lstm_weights().items()}
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    made = one_lstm(extra=weights, types=dict.fromkeys(("x", "Y", "Y_h", "Y_c"), kind), opset=22)
    model = room.read(save(made, tmp_path))
    assert {a.dtype for a in model.arrays.values()} == {dtype}
    written = tmp_path / "w.onnx"
    room.write(model, written)
    assert onnx.load(written).opset_import[0].version == 22
    assert_same(room.read(written), model)


def test_full_lengths_are_no_input(tmp_path: Path) -> None:
    """A constant equal to the declared T, and one computed from the shape of x, change nothing."""
    plain = room.read(save(one_lstm(), tmp_path, "plain.onnx"))
    fixed = one_lstm(inputs="x W R B n", extra={"n": np.full(B, T, np.int32)})
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = T
    fixed = room.read(save(fixed, tmp_path, "fixed.onnx"))
    assert_same(fixed, plain)
    computed = one_lstm(inputs="x W R B n")
    nodes = [
        node("Shape", "x", "t", start=0, end=1),
        node("Shape", "x", "b", start=1, end=2),
        node("Expand", "t b", "long"),
        node("Cast", "long", "n", to=INT32),
    ]
    lstm = computed.graph.node[0]
    del computed.graph.node[:]
    computed.graph.node.extend([*nodes, lstm])
    assert_same(room.read(save(computed, tmp_path, "computed.onnx")), plain)


@pytest.mark.parametrize("count", [1, B])
def test_constant_initial_state(count: int, tmp_path: Path) -> None:
    """One row for all sequences, whether the file repeats it or not."""
    rows = random(1, 1, H, seed=5)
    extra = {
        "h": np.repeat(rows, count, 1),
        "c": np.zeros((1, count, H), np.float32),
        **{k: a * np.float32(0.5) for k, a in lstm_weights().items()},
    }
    made = one_lstm(inputs="x W R B - h c", extra=extra)
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = count
    model = room.read(save(made, tmp_path))
    initial = model.recurrent[0].initial
    assert initial.kind == "constant"
    assert initial.h is not None
    assert initial.c is not None
    assert initial.h.tobytes() == rows[0].tobytes()
    assert not initial.c.any()
    assert model.provenance.names["lstm0.initial.h"] == "h"


def test_packed_states_in_one_input(tmp_path: Path) -> None:
    """h and c of two layers as slices of one tensor, taken in any order."""
    weights = lstm_weights() | {f"{k}2": v for k, v in lstm_weights(H, H, seed=7).items()}
    numbers = {f"n{k}": np.array([k], np.int64) for k in range(5)}
    cuts = [node("Slice", f"s n{k} n{k + 1} n0", f"s{k}") for k in range(4)]
    nodes = [
        *cuts,
        node("LSTM", "x W R B - s2 s0", "Y Y_h Y_c", hidden_size=H),
        node("Squeeze", "Y n1", "y"),
        node("LSTM", "y W2 R2 B2 - s3 s1", "Z Z_h Z_c", hidden_size=H),
        node("Concat", "Y_h Z_h", "hn", axis=0),
    ]
    made = graph(
        nodes,
        {"x": ["T", "B", I], "s": [4, "B", H]},
        {"hn": [2, "B", H]},
        weights | numbers,
    )
    path = save(made, tmp_path)
    model = room.read(path)
    slots = model.inputs[1].slots  # type: ignore[union-attr]
    assert [(s.layer, s.part) for s in slots] == [
        ("lstm0", "c"),
        ("lstm1", "c"),
        ("lstm0", "h"),
        ("lstm1", "h"),
    ]
    assert [(o.role, o.layers) for o in model.outputs] == [("h_n", ("lstm0", "lstm1"))]
    written = tmp_path / "w.onnx"
    assert room.write(model, written).exact
    assert_same(room.read(written), model)
    x, s = random(T, B, I, scale=1.0), random(4, B, H, seed=3)
    np.testing.assert_array_equal(run_onnx(path, x=x, s=s)[0], run_onnx(written, x=x, s=s)[0])


# -- mutations --------------------------------------------------------------------------------


def _attribute(name: str, value: Any) -> AttributeProto:
    return helper.make_attribute(name, value)


MUTATIONS: dict[str, list[AttributeProto]] = {
    f"{a.name}={helper.get_attribute_value(a)!r}"[:60]: [a]
    for a in [
        _attribute("hidden_size", 4),
        _attribute("hidden_size", 3),
        _attribute("hidden_size", 0),
        _attribute("hidden_size", 4.0),
        _attribute("direction", "forward"),
        _attribute("direction", "reverse"),
        _attribute("direction", "Forward"),
        _attribute("direction", "bidirectional"),
        _attribute("direction", "sideways"),
        _attribute("direction", 1),
        _attribute("input_forget", 0),
        _attribute("input_forget", 1),
        _attribute("input_forget", 2),
        _attribute("input_forget", 1.0),
        _attribute("layout", 0),
        _attribute("layout", 1),
        _attribute("layout", 2),
        _attribute("clip", 0.25),
        _attribute("clip", 1e30),
        _attribute("clip", 0.0),
        _attribute("clip", -1.0),
        _attribute("clip", float("nan")),
        _attribute("clip", float("inf")),
        _attribute("clip", 1),
        _attribute("activations", ["Sigmoid", "Tanh", "Tanh"]),
        _attribute("activations", ["Tanh", "Sigmoid", "Sigmoid"]),
        _attribute("activations", ["Sigmoid", "Tanh"]),
        _attribute("activations", ["Sigmoid", "Tanh", "Tanh"] * 2),
        _attribute("activations", ["Sigmoid", "Tanh", "Swish"]),
        _attribute("activations", ["Sigmoid", "Affine", "Tanh"]),
        _attribute("activations", "Sigmoid"),
        _attribute("activation_alpha", [0.5]),
        _attribute("activation_beta", [0.5]),
        _attribute("activation_alpha", [float("nan")]),
        _attribute("activation_alpha", 0.5),
        _attribute("output_sequence", 1),
        _attribute("linear_before_reset", 1),
        _attribute("proj_size", 2),
    ]
}

SAME_AS_ORT = {
    "hidden_size=4",
    "direction=b'forward'",
    "direction=b'reverse'",
    "input_forget=0",
    "input_forget=1",
    "layout=0",
    "clip=0.25",
    "clip=1.0000000150474662e+30",
    "activations=[b'Sigmoid', b'Tanh', b'Tanh']",
    "activations=[b'Tanh', b'Sigmoid', b'Sigmoid']",
}
"""The mutations that are legal models; all others must be refused."""


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_every_attribute_counts(name: str, tmp_path: Path) -> None:
    """A changed attribute either computes what ONNX Runtime computes, or is refused by name."""
    extra = {k: a * np.float32(0.5) for k, a in lstm_weights().items()}
    made = one_lstm(extra=extra)
    lstm = made.graph.node[0]
    kept = [a for a in lstm.attribute if a.name != MUTATIONS[name][0].name]
    del lstm.attribute[:]
    lstm.attribute.extend([*kept, *MUTATIONS[name]])
    path = save(made, tmp_path)
    if name in SAME_AS_ORT:
        assert_numbers(path, room.read(path), x=random(T, B, I, scale=1.0))
        return
    if name == "layout=1":
        assert room.read(path).input.axes == "BT"
        return
    with pytest.raises(IfgoError) as caught:
        room.read(path)
    assert f"{path}: node 'n_Y': " in str(caught.value)


def test_mutations_change_the_model(tmp_path: Path) -> None:
    """No two of the accepted attributes that differ in meaning read as the same model."""
    seen: dict[str, Any] = {}
    same = {"hidden_size=4", "direction=b'forward'", "input_forget=0"}
    same |= {"layout=0", "activations=[b'Sigmoid', b'Tanh', b'Tanh']"}
    for name in SAME_AS_ORT - same:
        made = one_lstm()
        made.graph.node[0].attribute.extend(MUTATIONS[name])
        seen[name] = structure(room.read(save(made, tmp_path)))
    seen["plain"] = structure(room.read(save(one_lstm(), tmp_path)))
    for a, b in itertools.combinations(seen, 2):
        assert seen[a] != seen[b], (a, b)


def test_element_type_of_x_must_match(tmp_path: Path) -> None:
    made = one_lstm(types={"x": helper.np_dtype_to_tensor_dtype(np.dtype(np.float64))})
    with pytest.raises(IfgoError, match="X is float64, W is float32, expected one type"):
        room.read(save(made, tmp_path))
