"""States of several layers in one tensor: every order of axes that a graph can build."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_bounds import cell_bound, float32_bound
from onnx_cases import (
    assert_same,
    graph,
    ints,
    lstm_weights,
    node,
    random,
    refuse_file,
    run_onnx,
    save,
)
from onnx_models import lstm
from onnx_refusals import ALONE

import ifgo
from ifgo import limits, states
from ifgo.errors import FormatError, ModelError, UnsupportedError, UsageError
from ifgo.formats import onnx as room
from ifgo.formats.onnx import packed
from ifgo.layers import InitialState, Recurrent
from ifgo.model import FeatureInput, Model, Output, StateInput, StateSlot
from ifgo.reference import truth

SIZE, H, B, T = 3, 4, 2, 5

ORDERS = list(permutations("LPBH"))
"""Axes of a tensor: layers, h and c, batch, units."""


def two_layers(cuts: list[onnx.NodeProto], ends: list[onnx.NodeProto], **parts: Any) -> Any:
    """Two LSTMs that take h0, c0, h1, c1 as `cuts` make them and give Y_h, Y_c, Z_h, Z_c."""
    weights = lstm_weights(SIZE, H) | {f"{k}2": v for k, v in lstm_weights(H, H, seed=7).items()}
    weights = {k: v * np.float32(0.5) for k, v in weights.items()}
    nodes = [
        *cuts,
        node("LSTM", "x W R B - h0 c0", "Y Y_h Y_c", hidden_size=H),
        node("Squeeze", "Y k1", "y"),
        node("LSTM", "y W2 R2 B2 - h1 c1", "Z Z_h Z_c", hidden_size=H),
        node("Squeeze", "Z k1", "z"),
        *ends,
    ]
    axes = {f"k{k}": ints(k) for k in range(-1, 5)}
    return graph(
        nodes,
        {"x": ["T", "B", SIZE], "s": parts["given"]},
        {"z": ["T", "B", H], "end": parts["given"]},
        weights | axes | parts.get("constants", {}),
    )


def compare(path: Path, s: Any) -> Model:
    """What is read computes the file's outputs, and what is written computes them to the bit."""
    model = room.read(path)
    x = random(T, B, SIZE, scale=1.0)
    start = states.from_inputs(model, {"s": s})
    result = truth.forward(model, x.swapaxes(0, 1), start)
    y, end = run_onnx(path, x=x, s=s)
    own = x.swapaxes(0, 1)
    assert np.abs(y.swapaxes(0, 1) - result.y).max() <= float32_bound(model, result, own)
    wanted = states.to_outputs(model, result.state)["end"]
    assert wanted.shape == end.shape
    assert np.abs(wanted - end).max() <= cell_bound(model, result, own)
    written = path.with_name("w.onnx")
    assert room.write(model, written).exact
    assert_same(room.read(written), model)
    for have, want in zip(run_onnx(written, x=x, s=s), (y, end), strict=True):
        np.testing.assert_array_equal(have, want)
    return model


@pytest.mark.parametrize("order", ORDERS, ids="".join)
def test_stacked_in_every_order(order: tuple[str, ...], tmp_path: Path) -> None:
    """Gather takes each state out of the tensor, Unsqueeze and Concat stack it again."""
    sizes = {"L": 2, "P": 2, "B": "B", "H": H}
    given = [sizes[letter] for letter in order]
    layer, part = order.index("L"), order.index("P")
    cuts: list[onnx.NodeProto] = []
    ends: list[onnx.NodeProto] = []
    left = [letter for letter in order if letter in "BH"]
    turn = [1, 0] if left == ["H", "B"] else [0, 1]
    first, second = sorted((layer, part))
    for k in range(2):
        cuts.append(node("Gather", f"s i{k}", f"s{k}", axis=layer))
        for p, name in enumerate("hc"):
            inner = part - (part > layer)
            cuts.append(node("Gather", f"s{k} i{p}", f"{name}{k}a", axis=inner))
            cuts.append(node("Transpose", f"{name}{k}a", f"{name}{k}b", perm=turn))
            cuts.append(node("Unsqueeze", f"{name}{k}b k0", f"{name}{k}"))
            final = f"{'YZ'[k]}_{name}"
            ends.append(node("Squeeze", f"{final} k0", f"{final}a"))
            ends.append(node("Transpose", f"{final}a", f"{final}b", perm=turn))
            ends.append(node("Unsqueeze", f"{final}b axes", f"{final}c"))
        ends.append(node("Concat", f"{'YZ'[k]}_hc {'YZ'[k]}_cc", f"end{k}", axis=part))
    ends.append(node("Concat", "end0 end1", "end", axis=layer))
    constants = {"i0": np.int64(0), "i1": np.int64(1), "axes": ints(first, second)}
    path = save(two_layers(cuts, ends, given=given, constants=constants), tmp_path)
    shape = [B if size == "B" else size for size in given]
    model = compare(path, random(*shape, seed=3))  # type: ignore[arg-type]
    layout = " ".join({"L": "2", "P": "2"}.get(letter, letter) for letter in order)
    assert model.inputs[1].layout == layout  # type: ignore[union-attr]
    assert model.outputs[1].layout == layout
    by_layer = layer < part
    names = [("lstm0", "h"), ("lstm0", "c"), ("lstm1", "h"), ("lstm1", "c")]
    names = names if by_layer else [names[k] for k in (0, 2, 1, 3)]
    assert [(slot.layer, slot.part) for slot in model.outputs[1].states] == names


def test_side_by_side(tmp_path: Path) -> None:
    """(B, 4H): Split, Unsqueeze; Squeeze, Concat along the units, as with state_is_tuple=False."""
    names = ["h0", "c0", "h1", "c1"]
    cuts = [node("Split", "s", " ".join(f"{n}a" for n in names), axis=1)]
    cuts += [node("Unsqueeze", f"{n}a k0", n) for n in names]
    finals = ["Y_h", "Y_c", "Z_h", "Z_c"]
    ends = [node("Squeeze", f"{n} k0", f"{n}a") for n in finals]
    ends.append(node("Concat", " ".join(f"{n}a" for n in finals), "end", axis=-1))
    path = save(two_layers(cuts, ends, given=["B", 4 * H]), tmp_path)
    model = compare(path, random(B, 4 * H, seed=3))
    assert model.inputs[1].layout == model.outputs[1].layout == "B 4*H"  # type: ignore[union-attr]


def test_slices_with_steps(tmp_path: Path) -> None:
    """h in the even places, c in the odd ones, layers one after another: "B 2*H*2"."""
    names = ["h0", "c0", "h1", "c1"]
    cuts = [node("Slice", f"s {n}f {n}t k1 k2", f"{n}a") for n in names]
    cuts += [node("Unsqueeze", f"{n}a k0", n) for n in names]
    ends = [node("Unsqueeze", f"{n} k3", f"{n}a") for n in ("Y_h", "Y_c", "Z_h", "Z_c")]
    ends += [node("Concat", f"{n}_ha {n}_ca", f"{n}b", axis=3) for n in "YZ"]
    ends += [node("Concat", "Yb Zb", "c", axis=0), node("Transpose", "c", "d", perm=[1, 0, 2, 3])]
    ends += [node("Reshape", "d flat", "end")]
    starts = {"h0": 0, "c0": 1, "h1": 2 * H, "c1": 2 * H + 1}
    constants = {f"{n}f": ints(k) for n, k in starts.items()}
    constants |= {f"{n}t": ints(2 * H if k < 2 else 4 * H) for n, k in starts.items()}
    constants["flat"] = ints(0, -1)
    path = save(two_layers(cuts, ends, given=["B", 4 * H], constants=constants), tmp_path)
    model = compare(path, random(B, 4 * H, seed=3))
    assert model.inputs[1].layout == model.outputs[1].layout == "B 2*H*2"  # type: ignore[union-attr]


def test_flat_frozen_batch_has_no_axis(tmp_path: Path) -> None:
    """(2, 2, H) without a batch beside x with one: the batch goes before the units, noted."""
    cuts: list[onnx.NodeProto] = []
    for k in range(2):
        for p, name in enumerate("hc"):
            cuts.append(node("Gather", f"s i{k}", f"{name}{k}a", axis=0))
            cuts.append(node("Gather", f"{name}{k}a i{p}", f"{name}{k}b", axis=0))
            cuts.append(node("Unsqueeze", f"{name}{k}b both", f"{name}{k}"))
    constants = {"i0": np.int64(0), "i1": np.int64(1), "both": ints(0, 1)}
    ends = [node("Concat", "Y_h Y_c Z_h Z_c", "end", axis=0)]
    made = two_layers(cuts, ends, given=[2, 2, H], constants=constants)
    model = room.read(save(made, tmp_path))
    assert model.inputs[1].layout == "2 2 B H"  # type: ignore[union-attr]
    assert "input s has shape (2, 2, 4) in the file" in model.provenance.notes
    room.write(model, tmp_path / "w.onnx")
    assert_same(room.read(tmp_path / "w.onnx"), model)


def test_parts_of_two_states_in_one_tensor(tmp_path: Path) -> None:
    """Half of h and half of c are no whole states."""
    cuts = [
        node("Split", "s", "a b c d", axis=2),
        node("Concat", "a c", "h0", axis=2),
        node("Concat", "b d", "c0", axis=2),
        node("Identity", "h0", "h1"),
        node("Identity", "c0", "c1"),
    ]
    ends = [node("Concat", "Y_h Y_c", "end", axis=2)]
    path = save(two_layers(cuts, ends, given=[1, "B", 2 * H]), tmp_path)
    refuse_file(
        path,
        UnsupportedError,
        "input 's' does not pack whole states, expected whole states along axes of their own, "
        "every part used once. Pass h_0 and c_0 as inputs of their own" + ALONE,
    )


# -- the model --------------------------------------------------------------------------------

SLOTS = (StateSlot("a", "h"), StateSlot("a", "c"))


def model(**parts: Any) -> Model:
    """A bidirectional layer "a" of 4 units whose states are one input and one output."""
    made = lstm("a", SIZE, H, initial=InitialState("input"))
    both = Recurrent("a", made.forward, made.forward, initial=InitialState("input"))
    given = {"slots": SLOTS, "layout": "B 2 H 2"} | parts.get("given", {})
    ends = {"role": "state", "name": "end", "slots": SLOTS} | parts.get("ends", {})
    axes = parts.get("axes", "BT")
    return Model(
        (FeatureInput(SIZE, axes=axes), StateInput("s", **given)),
        (both,),
        (Output("sequence", axes=axes), Output(**ends)),
    )


def test_to_and_from_tensors() -> None:
    made = model(ends={"layout": "2 B H 2"})
    tensor = random(B, 2, H, 2)
    state = states.from_inputs(made, {"s": tensor})
    assert {key: array.shape for key, array in state.items()} == {"h0": (2, B, H), "c0": (2, B, H)}
    # Rows in row-major order over the two axes of 2: h forward, h backward, c forward, c backward.
    np.testing.assert_array_equal(state["h0"][1], tensor[:, 0, :, 1])
    np.testing.assert_array_equal(state["c0"][0], tensor[:, 1, :, 0])
    back = states.to_outputs(made, state)["end"]
    np.testing.assert_array_equal(back, tensor.transpose(1, 0, 2, 3))


def test_tensors_that_do_not_fit() -> None:
    made = model()
    with pytest.raises(UsageError) as caught:
        states.from_inputs(made, {"t": np.zeros(1)})
    assert str(caught.value) == "the model has no state input 't', expected one of 's'"
    with pytest.raises(UsageError) as caught:
        states.from_inputs(made, {"s": np.zeros((2, 2, 5, 2))})
    assert str(caught.value) == (
        "state input 's' has shape (2, 2, 5, 2), expected (B, 2, 4, 2), packed as B 2 H 2"
    )


AXES = 'axes such as "2 B H" or "B 2 H 2": H once, B at most once, row counts'


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        *(
            ({"given": {"layout": word}}, f"layout is {word!r}, expected {AXES}")
            for word in ("B 4", "H B H", "2*B H", "0 B H", "4 B  H", "4 b h", "1 " * 8 + "H")
        ),
        (
            {"given": {"layout": "3 B H"}},
            "input 's' packs 4 rows as '3 B H', expected numbers whose product is 4, with B",
        ),
        (
            {"given": {"layout": "4 H"}},
            "input 's' packs 4 rows as '4 H', expected numbers whose product is 4, with B",
        ),
        (
            {"axes": "T"},
            "input 's' packs 4 rows as 'B 2 H 2', expected numbers whose product is 4, without B",
        ),
        (
            {"ends": {"layout": "2 B H"}},
            "output 'end' packs 4 rows as '2 B H', expected numbers whose product is 4, with B",
        ),
        (
            {"ends": {"slots": (*SLOTS, SLOTS[0])}},
            "output 'end' gives state h of 'a' twice, expected each layer once",
        ),
        (
            {"ends": {"slots": (StateSlot("b", "h"),)}},
            "output 'end' gives state of 'b', expected one of the recurrent layers a",
        ),
        (
            {"ends": {"slots": ()}},
            "output 'end' gives state of no layer, expected one of the recurrent layers a",
        ),
        (
            {"ends": {"role": "h_n"}},
            "output 'end' has role 'h_n' and names slots, expected slots for the role 'state' only",
        ),
        (
            {"ends": {"layers": ("a",)}},
            "output 'end' has role 'state' and names layers, expected layers for the roles 'h_n' "
            "and 'c_n' only",
        ),
        (
            {"ends": {"role": "sequence", "slots": (), "layout": "B H"}},
            "output 'end' has role 'sequence' and a layout, expected a layout for final states "
            "only",
        ),
    ],
)
def test_refused(parts: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError) as caught:
        model(**parts)
    assert str(caught.value) == text


def test_widths_that_differ() -> None:
    made = [lstm(n, i, h, initial=InitialState("input")) for n, i, h in (("a", 3, 4), ("b", 4, 5))]
    slots = tuple(StateSlot(n, p) for n in "ab" for p in ("h", "c"))  # type: ignore[arg-type]
    with pytest.raises(ModelError) as caught:
        Model((FeatureInput(3), StateInput("s", slots, "B 4*H")), tuple(made))
    assert str(caught.value) == (
        "input 's' packs states of widths [4, 5] as 'B 4*H', expected one width in one tensor"
    )


def test_a_raw_folder_keeps_layouts(tmp_path: Path) -> None:
    """Final states of a model whose initial ones are zero."""
    layers = (lstm("a", 3, 4), lstm("b", 4, 4))
    slots = tuple(StateSlot(n, p) for n in "ab" for p in ("h", "c"))  # type: ignore[arg-type]
    made = Model(
        (FeatureInput(3),),
        layers,
        (
            Output("sequence"),
            Output("state", "s", slots=slots, layout="B 2 H 2"),
            Output("c_n", "c", ("b",), layout="B H"),
        ),
    )
    ifgo.save(made, tmp_path / "folder", "raw")
    assert ifgo.load(tmp_path / "folder").outputs == made.outputs
    sheet = tmp_path / "folder" / "model.toml"
    sheet.write_text(sheet.read_text().replace('"c b"', '"g b"'))
    with pytest.raises(FormatError) as caught:
        ifgo.load(tmp_path / "folder")
    assert str(caught.value) == (
        f"{tmp_path / 'folder'}: model.toml: output[1].slots holds 'g b', expected 'h' or 'c', a "
        "blank, and the name of a layer"
    )


def test_long_names_that_begin_alike_stay_apart() -> None:
    first, second = (packed.label("x" * 300 + end, "") for end in "ab")
    assert first != second
    assert len(first) == len(second) == limits.DEFAULTS.name_chars
    assert packed.label("x" * limits.DEFAULTS.name_chars, "") == "x" * limits.DEFAULTS.name_chars
    assert packed.label("", "h_n") == "h_n"
