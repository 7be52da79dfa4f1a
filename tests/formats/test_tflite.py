"""TFLite: files put together by hand give what the operator computes, whatever stands around it."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_bounds import float32_bound
from tflite_cases import (
    RELU,
    TANH,
    bidirectional_file,
    draw_cell,
    forward,
    lstm_file,
    save,
)

from ifgo import formats, gates
from ifgo.formats.tflite import lstm
from ifgo.model import Model
from ifgo.reference import truth

FLOAT64 = 1e-12
"""Two float64 computations of a few dozen terms each."""

KERNELS = 4
"""How much farther than our float32 run of the MNIST net the recorded one may be: the sigmoid and
tanh of the recording runtime are off by up to 4 times as much (3.6e-7 against 9.2e-8).

No derived bound can judge that recording: only its last outputs are there, no state between steps
from which the local bounds of verification/bounds.py start, and the bound over all 28 steps,
onnx_bounds.float32_bound, multiplies norms of trained weights to 1e180. Its kernel itself is judged
step by step with the local bounds in test_tflite_runtime.py."""

STEPS = np.random.default_rng(0).uniform(-1, 1, (6, 3)).astype("f")


def float64(model: Model, x: Any) -> Any:
    return model.run(x, on="truth")[0]


@pytest.mark.parametrize(
    ("cifg", "peephole", "outputs", "norm"),
    list(product([False, True], [False, True], [0, 2], [False, True])),
)
@pytest.mark.parametrize("time_major", [False, True])
def test_every_kind_of_cell(
    tmp_path: Path, cifg: bool, peephole: bool, outputs: int, norm: bool, time_major: bool
) -> None:
    cell = draw_cell(
        3, cifg=cifg, peephole=peephole, outputs=outputs, norm=norm, proj_bias=peephole
    )
    # bounds that float32 holds exactly, and that this input meets
    clips = {"CellClip": 0.25, "ProjClip": 0.125} if outputs else {"CellClip": 0.25}
    flat, x, y, _ = lstm_file(cell, activation=RELU if norm else TANH, time_major=time_major)
    bare = float64(formats.load(save(flat, tmp_path / "a.tflite", x, y)), STEPS)
    assert np.abs(bare - forward(cell, STEPS, RELU if norm else TANH)).max() < FLOAT64
    flat, x, y, _ = lstm_file(cell, time_major=time_major, **clips)
    model = formats.load(save(flat, tmp_path / "b.tflite", x, y))
    expected = forward(cell, STEPS, TANH, 0.25, clips.get("ProjClip", 0.0))
    assert np.abs(float64(model, STEPS) - expected).max() < FLOAT64
    assert np.abs(expected - forward(cell, STEPS)).max() > 1e-3
    assert model.recurrent[0].stateful
    assert model.input.axes == ("TB" if time_major else "BT")


def test_two_directions_in_one_operator(tmp_path: Path) -> None:
    one, two = (draw_cell(k, peephole=True) for k in (1, 2))
    flat, x, y = bidirectional_file(one, two)
    model = formats.load(save(flat, tmp_path / "a.tflite", x, y))
    expected = np.concatenate([forward(one, STEPS), forward(two, STEPS[::-1])[::-1]], axis=-1)
    assert np.abs(float64(model, STEPS) - expected).max() < FLOAT64


def test_wrong_gate_orders_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 23 other orders in the table gives other numbers."""
    cell = draw_cell(5)
    flat, x, y, _ = lstm_file(cell)
    path = save(flat, tmp_path / "a.tflite", x, y)
    expected, right, seen = forward(cell, STEPS), gates.LSTM_LAYOUTS["tflite"], 0
    for order in permutations("ifgo"):
        layout = gates.GateLayout("".join(order), right.orientation, right.bias, right.peephole)
        monkeypatch.setattr(lstm, "LAYOUT", layout)
        error = np.abs(float64(formats.load(path), STEPS) - expected).max()
        assert (error < FLOAT64) == (layout.order == right.order)
        seen += error > 1e-3
    assert seen == 23


def test_wrong_peephole_orders_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = draw_cell(6, peephole=True)
    flat, x, y, _ = lstm_file(cell)
    path = save(flat, tmp_path / "a.tflite", x, y)
    expected = forward(cell, STEPS)
    for order in permutations("ifo"):
        layout = gates.GateLayout("ifgo", "rows", "one", "".join(order))
        monkeypatch.setattr(lstm, "LAYOUT", layout)
        error = np.abs(float64(formats.load(path), STEPS) - expected).max()
        assert (error < FLOAT64) == (layout.peephole == "ifo")


def test_the_names_of_the_file_are_kept(tmp_path: Path) -> None:
    cell = draw_cell(7, outputs=2, peephole=True)
    flat, x, y, _ = lstm_file(cell)
    names = formats.load(save(flat, tmp_path / "a.tflite", x, y)).provenance.names
    assert names["lstm0.forward.weight_ih"] == "W_i, W_f, W_c, W_o"
    assert names["lstm0.forward.bias_ih"] == "b_i, b_f, b_c, b_o"
    assert names["lstm0.forward.peephole"] == "p_i, p_f, p_o"
    assert names["lstm0.forward.weight_hr"] == "proj"


# -- around it ------------------------------------------------------------------------------------


def around(tmp_path: Path, steps: int = -1, **more: Any) -> tuple[Any, int, int, Any]:
    cell = draw_cell(8)
    flat, x, y, _ = lstm_file(cell, steps=steps, **more)
    return flat, x, y, cell


def dense(flat: Any, x: int, width: int, outputs: int, shape: tuple[int, ...], **o: Any) -> Any:
    rng = np.random.default_rng(9)
    weight = rng.uniform(-1, 1, (outputs, width)).astype("f")
    bias = rng.uniform(-1, 1, outputs).astype("f")
    inputs = (x, flat.constant("dense.w", weight), flat.constant("dense.b", bias))
    made = flat.tensor("dense", shape)
    flat.operator("FULLY_CONNECTED", inputs, made, "FullyConnectedOptions", **o)
    return made, weight, bias


def softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("fused", [0, RELU, TANH])
def test_a_dense_layer_at_every_step(tmp_path: Path, keep: bool, fused: int) -> None:
    flat, x, y, cell = around(tmp_path, 6)
    shape = (1, 6, 2) if keep else (6, 2)
    out, w, b = dense(flat, y, 4, 2, shape, KeepNumDims=keep, FusedActivationFunction=fused)
    model = formats.load(save(flat, tmp_path / "a.tflite", x, out))
    z = forward(cell, STEPS) @ w.T.astype(float) + b
    expected = {0: z, RELU: np.maximum(z, 0), TANH: np.tanh(z)}[fused]
    assert np.abs(float64(model, STEPS) - expected).max() < FLOAT64


@pytest.mark.parametrize("how", ["strided slice", "gather", "slice", "unpack of directions"])
def test_the_last_step(tmp_path: Path, how: str) -> None:
    flat, x, y, cell = around(tmp_path, 6)
    last = flat.tensor("last", (1, 4))
    if how == "strided slice":
        places = [
            flat.integers(f"s{k}", *v) for k, v in enumerate([(0, -1, 0), (0, 0, 0), (1,) * 3])
        ]
        masks = {"BeginMask": 5, "EndMask": 5, "ShrinkAxisMask": 2}
        flat.operator("STRIDED_SLICE", (y, *places), last, "StridedSliceOptions", **masks)
    elif how == "gather":
        index = flat.constant("five", np.array(5, np.int32))
        flat.operator("GATHER", (y, index), last, "GatherOptions", Axis=1)
    elif how == "slice":
        cut = flat.tensor("cut", (1, 1, 4))
        places = [flat.integers(f"s{k}", *v) for k, v in enumerate([(0, 5, 0), (-1, 1, -1)])]
        flat.operator("SLICE", (y, *places), cut, "SliceOptions")
        flat.operator("RESHAPE", (cut, flat.integers("shape", 1, 4)), last)
    else:
        turned = flat.tensor("turned", (6, 1, 4))
        flat.operator("TRANSPOSE", (y, flat.integers("perm", 1, 0, 2)), turned, "TransposeOptions")
        index = flat.constant("five", np.array(5, np.int32))
        flat.operator("GATHER", (turned, index), last, "GatherOptions", Axis=0)
    out, w, b = dense(flat, last, 4, 3, (1, 3))
    end = flat.tensor("end", (1, 3))
    flat.operator("SOFTMAX", (out,), end, "SoftmaxOptions", Beta=1.0)
    model = formats.load(save(flat, tmp_path / "a.tflite", x, end))
    expected = softmax(forward(cell, STEPS)[-1] @ w.T.astype(float) + b)
    assert np.abs(float64(model, STEPS) - expected).max() < FLOAT64
    assert [layer.kind for layer in model.layers] == ["lstm", "last_step", "dense"]


def test_arithmetic_with_constants_and_activations(tmp_path: Path) -> None:
    flat, x, y, cell = around(tmp_path)
    factor, offset = np.array([2, 3, 0.5, 1], "f"), np.array([0.25, 0, -1, 1], "f")
    chain = [("MUL", "MulOptions", factor), ("ADD", "AddOptions", offset)]
    for kind, table, constant in chain:
        made = flat.tensor(kind, (1, -1, 4))
        y = flat.operator(
            kind, (y, flat.constant(f"k{kind}", constant)), made, table, FusedActivationFunction=0
        )
    for kind in ("LOGISTIC", "TANH"):
        y = flat.operator(kind, (y,), flat.tensor(kind, (1, -1, 4)))
    model = formats.load(save(flat, tmp_path / "a.tflite", x, y))
    z = forward(cell, STEPS) * factor.astype(float) + offset
    assert np.abs(float64(model, STEPS) - np.tanh(1 / (1 + np.exp(-z)))).max() < FLOAT64


def test_weights_of_float16_and_of_int8_that_are_turned_into_float32(tmp_path: Path) -> None:
    from ifgo.formats.tflite.build import FlatFile

    flat, x, y, cell = around(tmp_path, 6)
    assert isinstance(flat, FlatFile)
    half = np.random.default_rng(1).uniform(-1, 1, (2, 4)).astype(np.float16)
    flat.tensors.append(type(flat.tensors[0])("half", "FLOAT16", (2, 4), half, False))
    weight = flat.tensor("weight", (2, 4))
    flat.operator("DEQUANTIZE", (len(flat.tensors) - 2,), weight, "DequantizeOptions")
    out = flat.tensor("dense", (6, 2))
    flat.operator("FULLY_CONNECTED", (y, weight, -1), out, "FullyConnectedOptions")
    model = formats.load(save(flat, tmp_path / "a.tflite", x, out))
    expected = forward(cell, STEPS) @ half.T.astype(float)
    assert np.abs(float64(model, STEPS) - expected).max() < FLOAT64
    assert "DEQUANTIZE #1: FLOAT16 constants of 'half' as float32" in model.provenance.notes


def test_layers_of_a_larger_graph_by_name(tmp_path: Path) -> None:
    flat, x, y, cell = around(tmp_path, 6)
    out = flat.tensor("odd", (1, 6, 4))
    flat.operator("CUMSUM", (y, flat.constant("axis", np.array(1, np.int32))), out)
    path = save(flat, tmp_path / "a.tflite", x, out)
    listing = formats.list_layers(path)
    assert (listing.format, listing.names, listing.others) == (
        "tflite",
        ("lstm0",),
        (("CUMSUM", 1),),
    )
    assert (listing.layers[0].input_size, listing.layers[0].hidden_size) == (3, 4)
    model = formats.load(path, select="lstm0")
    assert np.abs(float64(model, STEPS) - forward(cell, STEPS)).max() < FLOAT64
    assert model.provenance.notes == ("selected 'lstm0'", "left out 1 node: 1 CUMSUM")


# -- what others made -----------------------------------------------------------------------------


def test_tensorflows_own_golden_values(shared: Path, tmp_path: Path) -> None:
    import json

    golden = json.loads((shared / "vectors" / "tflite_plain_golden.json").read_text())
    cell: dict[str, Any] = {}
    for gate in "ifco":
        cell[f"W_{gate}"] = np.array(golden[f"i2{gate}"], "f").reshape(4, 2)
        cell[f"R_{gate}"] = np.array(golden[f"r2{gate}"], "f").reshape(4, 4)
        cell[f"b_{gate}"] = np.full(4, float(gate == "f"), "f")
    for key, value in golden.items():
        if key.startswith("b"):
            cell[f"b_{key[-1]}"] = np.array(value, "f")
    flat, x, y, _ = lstm_file(cell)
    model = formats.load(save(flat, tmp_path / "a.tflite", x, y))
    values = np.array(golden["x"], "f").reshape(3, 2)
    ours = truth.forward(model, values[None])
    # the values have eight decimals: their rounding, and a float32 run
    bound = float32_bound(model, ours, values[None]) + 0.5e-8
    assert np.abs(ours.y[0] - np.array(golden["y"]).reshape(3, 4)).max() <= bound


def test_tflite_micros_mnist_model(shared: Path) -> None:
    """Recorded by another version of the runtime, from images that it read itself."""
    folder = shared / "models" / "tflm_mnist_lstm"
    model = formats.load(folder / "trained_lstm.tflite")
    assert [layer.kind for layer in model.layers] == ["lstm", "flatten", "dense"]
    stored = np.load(folder / "expected.npz")
    (file,) = (shared / "data" / "mnist").glob("t10k-images*.gz")
    with gzip.open(file) as stream:
        pixels = np.frombuffer(stream.read(16 + 200 * 784), np.uint8)[16:]
    images = (pixels.reshape(200, 28, 28) / np.float32(255)).astype("f")
    ours = truth.forward(model, images).y
    single = model.run(images, on="exact")[0]
    rounding = np.abs(single - ours).max()
    assert np.abs(ours - stored["y_float"]).max() <= KERNELS * rounding
    assert (single.argmax(axis=-1) == stored["pred_float"][:200]).all()
