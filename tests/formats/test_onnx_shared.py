"""Outside models: what loads computes the published outputs, the rest is refused by name."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_bounds import cell_bound, float32_bound
from onnx_cases import INT32, assert_same, graph, node, random, run_onnx, save

from ifgo import states
from ifgo.errors import UnsupportedError
from ifgo.formats import onnx as room
from ifgo.model import StateInput, StateSlot
from ifgo.reference import truth


def tensors(folder: Path, kind: str) -> list[Any]:
    found: list[Any] = []
    for path in sorted((folder / "test_data_set_0").glob(f"{kind}_*.pb")):
        found.append(numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())))
    return found


WITH_OUTPUTS = [
    "test_lstm_activations",
    "test_lstm_all_outputs",
    "test_lstm_bidirectional",
    "test_lstm_clip",
    "test_lstm_intermediate_h",
    "test_lstm_reverse",
    "test_lstm_seq_length",
    "test_lstm_simple",
    "test_lstm_y_c",
]


@pytest.mark.parametrize("name", WITH_OUTPUTS)
def test_onnx2c_operators(name: str, shared: Path, tmp_path: Path) -> None:
    """One LSTM node each; the weights are graph inputs, bound from the stored test data."""
    folder = shared / "models" / "onnx2c_ops" / name
    path = folder / "model.onnx"
    declared = [entry.name for entry in onnx.load(path).graph.input]
    given = dict(zip(declared, tensors(folder, "input"), strict=True))
    with pytest.raises(UnsupportedError, match=r"takes weights from the inputs .*--bind FILE\.npz"):
        room.read(path)
    bound = {key: given[key] for key in declared[1:]}
    np.savez(tmp_path / "bound.npz", **bound)
    model = room.read(path, bind=tmp_path / "bound.npz")
    assert_same(room.read(path, bind=bound), model)
    x = given[declared[0]].swapaxes(0, 1)
    result = truth.forward(model, x)
    outputs = tensors(folder, "output")
    assert len(outputs) == len(model.outputs)
    for output, want in zip(model.outputs, outputs, strict=True):
        if output.role == "sequence":
            have = result.y.reshape(*x.shape[:2], want.shape[1], -1).transpose(1, 2, 0, 3)
        else:
            have = result.state[f"{output.role[0]}0"]
        limit = cell_bound if output.role == "c_n" else float32_bound
        assert have.shape == want.shape
        assert np.abs(have - want).max() <= limit(model, result, x)


@pytest.mark.parametrize("name", ["test_lstm_with_initial_state", "test_lstm_missing_inputs"])
def test_onnx2c_half_a_state(name: str, shared: Path) -> None:
    """initial_h is an input and initial_c is missing: refused, unless it is bound too."""
    path = shared / "models" / "onnx2c_ops" / name / "model.onnx"
    shapes = {
        entry.name: [d.dim_value for d in entry.type.tensor_type.shape.dim]
        for entry in onnx.load(path).graph.input
    }
    weights = {key: np.full(shapes[key], 0.25, np.float32) for key in "wr"}
    with pytest.raises(UnsupportedError) as caught:
        room.read(path, bind=weights)
    assert str(caught.value) == (
        f"{path}: node 'sclbl-onnx-node1': takes initial_h from an input and the other state from "
        "the file, expected both initial_h and initial_c as inputs, or neither. Bind the input to "
        "a constant with --bind FILE.npz (bind= in Python)"
    )
    start = np.full(shapes["i_h"], 0.5, np.float32)
    model = room.read(path, bind=weights | {"i_h": start})
    assert model.recurrent[0].initial.kind == "constant"


def test_tract_bytes(shared: Path) -> None:
    """Embedding, two bidirectional LSTMs and a Dense, with the authors' inputs and outputs."""
    folder = shared / "models" / "tract_byte_bidi"
    model = room.read(folder / "model.onnx")
    assert [layer.kind for layer in model.layers] == ["embedding", "lstm", "lstm", "dense"]
    assert model.sizes() == [32, 256, 128, 2]
    assert model.provenance.names["lstm0.forward.weight_ih"] == "190"
    assert model.provenance.version == "pytorch 1.5"
    stored = np.load(folder / "io.npz")
    x, y = stored["input"], stored["Add_26"]
    result = truth.forward(model, x)
    # The authors' runtime is unknown, so is its error: README measures 2.9e-6 between it and
    # ONNX Runtime; twice that separates both from float64.
    assert np.abs(result.y - y).max() <= 2 * 2.9e-6


@pytest.mark.parametrize("on", ["truth", "exact"])
def test_dtln(on: str, shared: Path) -> None:
    """h and c of two layers in one tensor, in and out; the recorded masks come out."""
    check_dtln(on, shared)


@pytest.mark.usefixtures("cc")
def test_dtln_in_c(shared: Path) -> None:
    check_dtln("c99", shared)


def check_dtln(on: str, shared: Path) -> None:
    folder = shared / "models" / "dtln"
    model = room.read(folder / "model_1.onnx")
    assert [layer.kind for layer in model.layers] == ["lstm", "lstm", "dense"]
    slots = [StateSlot(f"lstm{k}", part) for k in range(2) for part in ("h", "c")]  # type: ignore[arg-type]
    assert model.inputs[1:] == (StateInput("input_3", tuple(slots), "B 2 H 2"),)
    assert model.outputs[1].states == tuple(slots)
    assert (model.outputs[1].role, model.outputs[1].layout) == ("state", "B 2 H 2")
    stored = np.load(folder / "expected.npz")
    packed = np.zeros((1, 2, 128, 2), np.float32)
    y, final = model.run(stored["mag"], states.from_inputs(model, {"input_3": packed}), on=on)
    # README: two float32 runtimes differ by 1.4e-6 on these frames; twice that separates any.
    assert np.abs(y - stored["mask"]).max() <= 2 * 1.4e-6
    assert states.to_outputs(model, final)["tf_op_layer_stack_2"].shape == packed.shape


def test_dtln_frame_by_frame(shared: Path, tmp_path: Path) -> None:
    """Both files in ONNX Runtime, each fed its own packed states: bit for bit."""
    path = shared / "models" / "dtln" / "model_1.onnx"
    written = tmp_path / "w.onnx"
    model = room.read(path)
    assert room.write(model, written).exact
    assert_same(room.read(written), model)
    state = random(1, 2, 128, 2, seed=3)
    for frame in np.load(path.with_name("expected.npz"))["mag"][:8]:
        x = frame[None, None]
        have = run_onnx(written, input_2=x, input_3=state)
        want = run_onnx(path, input_2=x, input_3=state)
        for a, b in zip(have, want, strict=True):
            np.testing.assert_array_equal(a, b)
        state = want[1]


BACKEND = ["bidirectional", "defaults", "reverse", "with_initial_bias", "with_peepholes"]


@pytest.mark.parametrize("name", BACKEND)
def test_backend_vectors(name: str, shared: Path, tmp_path: Path) -> None:
    """The node tests of the ONNX project (batchwise needs layout=1, see test_onnx_lstm.py)."""
    stored = np.load(shared / "vectors" / f"test_lstm_{name}.npz")
    given = {k[3:]: stored[k] for k in stored.files if k.startswith("in_")}
    wanted = {k[4:]: stored[k] for k in stored.files if k.startswith("out_")}
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    inputs = ["X", *(n if n in given else "-" for n in names[1:])]
    results = [n if n in wanted else "-" for n in ("Y", "Y_h", "Y_c")]
    free = {"X": ["T", "B", given["X"].shape[2]]}
    if "sequence_lens" in given:
        free["sequence_lens"] = ["B"]
    made = graph(
        [
            node(
                "LSTM",
                " ".join(inputs),
                " ".join(results),
                **ast.literal_eval(str(stored["attrs"])),
            )
        ],
        free,
        {n: [1] * wanted[n].ndim for n in results if n != "-"},
        {n: given[n] for n in names[1:] if n in given and n not in free},
        types={"sequence_lens": INT32},
    )
    for output in made.graph.output:
        del output.type.tensor_type.shape.dim[:]
    model = room.read(save(made, tmp_path))
    x = given["X"].swapaxes(0, 1)
    result = truth.forward(model, x, lengths=given.get("sequence_lens"))
    for output, name_ in zip(model.outputs, [n for n in results if n != "-"], strict=True):
        limit = cell_bound if output.role == "c_n" else float32_bound
        have = result.state[f"{output.role[0]}0"]
        assert np.abs(have - wanted[name_]).max() <= limit(model, result, x)


GOLDEN = [
    "ForwardPeepHole",
    "BidirectionalBasic",
    "ForwardNoBiasUsePeepholes",
    "ForwardInputForget",
    "ForwardClip",
    "Backward",
    "Backward_gpu",
    "ForwardHiddenState",
    "ForwardCellState",
    "Activation",
    "BatchReallocation",
    "SequenceLengthShorterThanInputSequenceLength",
    "ShorterSeqInMiddle",
    "ZeroSeqInMiddle",
]

PRINTED = 5e-5
"""ONNX Runtime's tests print five significant digits or more: half a unit of the fifth."""

OFF = {"ShorterSeqInMiddle": 1e-4, "ZeroSeqInMiddle": 1e-4}
"""One printed value is itself off by 6e-5 (README of the vectors)."""


@pytest.mark.parametrize("name", GOLDEN)
def test_runtime_vectors(name: str, shared: Path, tmp_path: Path) -> None:
    """ONNX Runtime's own operator tests: gate order, peephole, clip, coupling, lengths, states."""
    stored = json.loads((shared / "vectors" / "ort_lstm_golden.json").read_text())
    case = next(case for case in stored["cases"] if case["name"] == name)
    d = 2 if case.get("dir") == "bidirectional" else 1
    steps, batch = case["T"], case["B"]
    constants: dict[str, Any] = {}
    for key, rows in (("W", (8, 2)), ("R", (8, 2)), ("B", (16,)), ("P", (6,))):
        array = np.array(stored["CTX"][key], np.float32).reshape(1, *rows)
        constants[key] = np.repeat(array, d, 0)
    for key in ("h0", "c0"):
        if key in case:
            constants[key] = np.array(case[key], np.float32).reshape(d, batch, 2)
    attributes: dict[str, Any] = {"hidden_size": 2}
    for key, attribute in (("dir", "direction"), ("clip", "clip"), ("input_forget",) * 2):
        if key in case:
            attributes[attribute] = case[key]
    if "act" in case:
        attributes["activations"] = [word.capitalize() for word in case["act"] * d]
    slots = {"B": case.get("bias", 1), "n": "seq" in case, "h0": "h0" in case, "c0": "c0" in case}
    slots["P"] = case.get("peep", 1)
    inputs = ["x", "W", "R", *(key if present else "-" for key, present in slots.items())]
    made = graph(
        [node("LSTM", " ".join(inputs), "Y Y_h Y_c", **attributes)],
        {"x": [steps, batch, 2]} | ({"n": [batch]} if "seq" in case else {}),
        {"Y": [steps, d, batch, 2], "Y_h": [d, batch, 2], "Y_c": [d, batch, 2]},
        {key: constants[key] for key in inputs if key in constants},
        types={"n": INT32},
    )
    model = room.read(save(made, tmp_path))
    x = np.array(case["X"], np.float32).reshape(steps, batch, 2).swapaxes(0, 1)
    result = truth.forward(model, x, lengths=case.get("seq"))
    y = result.y.reshape(batch, steps, d, 2).transpose(1, 2, 0, 3)
    known = {"Y": y, "Yh": result.state["h0"], "Yc": result.state["c0"]}
    bound = max(float32_bound(model, result, x), cell_bound(model, result, x))
    checked = 0
    for key, have in known.items():
        if key in case:
            want = np.array(case[key]).reshape(have.shape)
            tolerance = bound + PRINTED * np.abs(want) + OFF.get(name, 0.0)
            assert (np.abs(have - want) <= tolerance).all(), key
            checked += 1
    assert checked
