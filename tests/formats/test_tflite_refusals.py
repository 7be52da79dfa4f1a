"""TFLite: what is refused, with the message a user reads; damage of a file that lies."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raising import raising
from tflite_cases import RELU6, bidirectional_file, draw_cell, lstm_file, save

from ifgo import formats, limits
from ifgo.activations import SIGMOID, TANH, Activation
from ifgo.cell import LayerNorm, LSTMCell, MatrixNorm
from ifgo.errors import IfgoError
from ifgo.formats.tflite import guard
from ifgo.formats.tflite.build import FlatFile
from ifgo.formats.tflite.file import schema
from ifgo.model import (
    Dropout,
    FeatureInput,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Masking,
    Model,
    Output,
    Recurrent,
    TrainingFacts,
)

LSTM = "operator UNIDIRECTIONAL_SEQUENCE_LSTM #0"
NOT_YET = "ifgo has no integer arithmetic yet"


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(IfgoError) as caught:
        formats.load(path, **options)
    return str(caught.value).removeprefix(f"{path}: ")


def retyped(flat: FlatFile, name: str, kind: str, data: Any = None) -> None:
    (k,) = (k for k, tensor in enumerate(flat.tensors) if tensor.name == name)
    flat.tensors[k] = replace(flat.tensors[k], type=kind, data=data)


def _options(**changes: Any) -> Callable[[FlatFile], None]:
    def change(flat: FlatFile) -> None:
        operator = flat.operators[0]
        flat.operators[0] = replace(operator, options=operator.options | changes)

    return change


def _without(place: int) -> Callable[[FlatFile], None]:
    def change(flat: FlatFile) -> None:
        operator = flat.operators[0]
        inputs = [-1 if k == place else index for k, index in enumerate(operator.inputs)]
        flat.operators[0] = replace(operator, inputs=tuple(inputs))

    return change


def _retyped(name: str, kind: str, data: Any = None) -> Callable[[FlatFile], None]:
    return lambda flat: retyped(flat, name, kind, data)


def _fixed(name: str) -> Callable[[FlatFile], None]:
    def change(flat: FlatFile) -> None:
        (k,) = (k for k, tensor in enumerate(flat.tensors) if tensor.name == name)
        flat.tensors[k] = replace(flat.tensors[k], variable=False)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            _retyped("x", "INT8"),
            f"computes with integers: its input 'x' is INT8, expected a float32 model, {NOT_YET}. "
            "Convert the model without full integer quantisation",
        ),
        (
            _retyped("W_f", "INT8", np.zeros((4, 3), np.int8)),
            f"{LSTM}: is a hybrid: INT8 weights on a float32 input, which it quantises while it "
            f"runs, expected a float32 LSTM, {NOT_YET}. Convert the model without dynamic range "
            "quantisation",
        ),
        (
            _options(FusedActivationFunction=RELU6),
            f"{LSTM}: fused_activation_function is RELU6, expected TANH or RELU",
        ),
        (
            _options(FusedActivationFunction=0),
            f"{LSTM}: fused_activation_function is NONE, expected TANH or RELU",
        ),
        (
            _options(CellClip=-1.0),
            f"{LSTM}: cell_clip is -1, expected a number above 0, or 0 for none",
        ),
        (
            _options(CellClip=float("nan")),
            "operator #0: CellClip is nan, expected a finite number",
        ),
        (
            _options(DiagonalRecurrentTensors=True),
            f"{LSTM}: sets diagonal_recurrent_tensors, expected whole matrices",
        ),
        (
            _fixed("state_h"),
            f"{LSTM}: takes its state h from tensor 'state_h', expected a variable tensor of its "
            "own",
        ),
        (_without(13), f"{LSTM}: has no input 13, expected one"),
        (
            _without(1),
            f"{LSTM}: has input 5 for gate i, but no weights for it, expected all of gate i, or "
            "nothing",
        ),
        (
            _without(10),
            f"{LSTM}: has peepholes for some gates only, expected one for each gate with weights",
        ),
        (
            _retyped("b_o", "FLOAT32", np.zeros(5, np.float32)),
            "tensor 'b_o' of shape [4] and type FLOAT32 has 20 bytes, expected 16. The file is "
            "damaged: convert it again",
        ),
        (
            _retyped("W_c", "FLOAT32"),
            f"{LSTM}: input 3 ('W_c') is no constant, expected constant weights",
        ),
    ],
)
def test_an_operator_that_is_refused(
    tmp_path: Path, change: Callable[[FlatFile], None], says: str
) -> None:
    flat, x, y, _ = lstm_file(draw_cell(1, peephole=True))
    change(flat)
    assert refusal(save(flat, tmp_path / "a.tflite", x, y)) == says


def test_a_bidirectional_operator_that_is_refused(tmp_path: Path) -> None:
    cells = draw_cell(1), draw_cell(2)
    flat, x, y = bidirectional_file(*cells, MergeOutputs=False)
    assert refusal(save(flat, tmp_path / "a.tflite", x, y)) == (
        "operator BIDIRECTIONAL_SEQUENCE_LSTM #0: gives its directions apart (merge_outputs "
        "false), expected merge_outputs true, the directions concatenated"
    )
    flat, x, y = bidirectional_file(*cells)
    operator = flat.operators[0]
    flat.operators[0] = replace(operator, inputs=(*operator.inputs[:39], x, *operator.inputs[40:]))
    assert refusal(save(flat, tmp_path / "a.tflite", x, y)) == (
        "operator BIDIRECTIONAL_SEQUENCE_LSTM #0: has an auxiliary input, expected one input for "
        "both directions"
    )


def test_two_operators_that_share_a_state(tmp_path: Path) -> None:
    flat, x, y, _ = lstm_file(draw_cell(1, inputs=4))
    z = flat.tensor("z", (1, -1, 4))
    flat.operators.append(
        replace(flat.operators[0], inputs=(y, *flat.operators[0].inputs[1:]), outputs=(z,))
    )
    assert refusal(save(flat, tmp_path / "a.tflite", x, z)) == (
        "operator UNIDIRECTIONAL_SEQUENCE_LSTM #1: shares state 'state_h' with operator "
        "UNIDIRECTIONAL_SEQUENCE_LSTM #0, expected a state of its own"
    )


@pytest.mark.parametrize(
    ("kind", "table", "options", "says"),
    [
        ("RELU6", "", {}, "node 'RELU6 #1': is a RELU6, expected only the operators of an LSTM"),
        ("CUMSUM", "", {}, "node 'CUMSUM #1': is a CUMSUM, expected only the operators of"),
        (
            "QUANTIZE",
            "QuantizeOptions",
            {},
            "operator QUANTIZE #1: computes with integers: it gives INT8",
        ),
        (
            "RESHAPE",
            "ReshapeOptions",
            {},
            "node 'RESHAPE #1': ",
        ),
        ("ADD", "AddOptions", {"FusedActivationFunction": RELU6}, "operator ADD #1: "),
    ],
)
def test_what_stands_around_it(
    tmp_path: Path, kind: str, table: str, options: dict[str, Any], says: str
) -> None:
    flat, x, y, _ = lstm_file(draw_cell(1), steps=6)
    out = flat.tensor("out", (1, 6, 4))
    inputs = (y, flat.constant("k", np.ones(4, "f"))) if kind == "ADD" else (y,)
    flat.operator(kind, inputs, out, table, **options)
    if kind == "QUANTIZE":
        retyped(flat, "out", "INT8")
    assert refusal(save(flat, tmp_path / "a.tflite", x, out)).startswith(says)


def test_quantised_models_of_others(shared: Path) -> None:
    models = shared / "models"
    assert refusal(models / "tflm_mnist_lstm" / "trained_lstm_int8.tflite").startswith(
        "computes with integers: its input 'serving_default_fixed_input:0' is INT8"
    )
    assert refusal(models / "dtln" / "model_quant_1.tflite") == (
        "operator FULLY_CONNECTED #3: has INT8 weights, and quantises its input while it runs, "
        f"expected float32 weights, {NOT_YET}. Convert the model without dynamic range quantisation"
    )


def test_a_file_without_any_lstm(tmp_path: Path) -> None:
    flat = FlatFile(schema())
    x, y = (flat.tensor(name, (1, 4, 3)) for name in "xy")
    flat.operator("TANH", (x,), y)
    assert refusal(save(flat, tmp_path / "a.tflite", x, y)) == (
        "has no LSTM, but TANH, expected UNIDIRECTIONAL_SEQUENCE_LSTM, "
        "BIDIRECTIONAL_SEQUENCE_LSTM, a WHILE over the steps of an LSTM, or its steps one after "
        "another. Read the model that it was converted from"
    )


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat, x, y, _ = lstm_file(draw_cell(1))
    path = save(flat, tmp_path / "a.tflite", x, y)
    monkeypatch.setitem(__import__("sys").modules, "tflite", None)
    assert refusal(path) == (
        "reading and writing TFLite needs the package tflite. Install it with: "
        "pip install 'ifgo[tflite]'"
    )


# -- writing --------------------------------------------------------------------------------------


def cell(**more: Any) -> LSTMCell:
    rng = np.random.default_rng(1)
    shapes = ((8, 3), (8, 2), (8,))
    parts = [rng.uniform(-1, 1, shape).astype("f") for shape in shapes]
    return LSTMCell(*parts[:2], more.pop("bias_ih", parts[2]), **more)


def model(*layers: Any, **more: Any) -> Model:
    return Model((FeatureInput(3),), layers, **more)


def norm(epsilon: float) -> LayerNorm:
    return LayerNorm(np.ones((4, 2), "f"), epsilon)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (model(Recurrent("a", None, cell())), "layer a: a backward direction alone"),
        (model(Recurrent("a", cell(), cell(), merge="sum")), "layer a: merge sum"),
        (model(Recurrent("a", cell(), go_backwards=True)), "layer a: go_backwards"),
        (model(Recurrent("a", cell(clip_z=1.0))), "layer a: clip_z 1.0"),
        (
            model(Recurrent("a", cell(), initial=InitialState("constant", *np.zeros((2, 1, 2))))),
            "layer a: initial state of kind constant",
        ),
        (
            model(Recurrent("a", cell(activations=(SIGMOID, TANH, Activation("relu"))))),
            "layer a: activations sigmoid/tanh/relu",
        ),
        (
            model(Recurrent("a", cell(layer_norm=norm(1e-3)))),
            "layer a: layer norm with epsilon 0.001",
        ),
        (
            model(
                Recurrent(
                    "a",
                    cell(input_norm=MatrixNorm(*np.ones((3, 8), "f"), 1e-3, epsilon_outside=True)),
                )
            ),
            "layer a: input_norm",
        ),
        (model(Masking("m"), Recurrent("a", cell())), "layer m: masking"),
        (
            model(Recurrent("a", cell()), LastStep("l"), HiddenAsSequence("s")),
            "layer s: hidden_as_sequence",
        ),
        (
            model(Recurrent("a", cell()), outputs=(Output("h_n", "h", ("a",)),)),
            "output 'h' of role h_n",
        ),
        (
            model(Recurrent("a", cell(), cell()), LastStep("l", "state")),
            "layer l: the final state of a backward direction",
        ),
    ],
)
def test_a_model_that_cannot_be_written(tmp_path: Path, made: Model, says: str) -> None:
    for lossy in (False, True):
        with pytest.raises(IfgoError) as caught:
            formats.save(made, tmp_path / "a.tflite", allow_lossy=lossy)
        assert str(caught.value) == (
            f"{tmp_path / 'a.tflite'}: TFLite cannot hold {says}. Write an .ifgo file, which holds "
            "every model"
        )
    assert not (tmp_path / "a.tflite").exists()


@pytest.mark.parametrize(
    ("made", "lost"),
    [
        (model(Recurrent("a", cell(bias_ih=None))), "layer a: no bias (written as zeros)"),
        (model(Recurrent("a", cell(forget_bias=1.0))), "layer a: forget_bias 1"),
        (
            model(Recurrent("a", cell()), Dropout("d", 0.5)),
            "layer d: dropout (identity at inference)",
        ),
        (
            model(Recurrent("a", cell(), training=TrainingFacts(0.5))),
            "layer a: training",
        ),
        (model(Recurrent("a", cell(clip_cell=0.1))), "layer a: clip_cell 0.1 in float32"),
    ],
)
def test_a_loss_that_must_be_permitted(tmp_path: Path, made: Model, lost: str) -> None:
    with pytest.raises(IfgoError) as caught:
        formats.save(made, tmp_path / "a.tflite")
    assert str(caught.value).startswith(f"{tmp_path / 'a.tflite'}: TFLite cannot hold {lost}")
    report = formats.save(made, tmp_path / "a.tflite", allow_lossy=True)
    assert not report.exact
    x = np.random.default_rng(2).uniform(-1, 1, (5, 3)).astype("f")
    ours, again = (m.run(x, on="exact")[0] for m in (made, formats.load(tmp_path / "a.tflite")))
    assert np.abs(ours - again).max() <= 2.0**-22


def test_a_clip_that_float32_holds_needs_no_permission(tmp_path: Path) -> None:
    report = formats.save(
        model(Recurrent("a", cell(clip_cell=0.375), stateful=True)), tmp_path / "a.tflite"
    )
    assert report.exact
    assert formats.load(tmp_path / "a.tflite").recurrent[0].cell.clip_cell == 0.375


@pytest.mark.parametrize("peephole", [False, True])
def test_a_coupling_that_is_rewritten(tmp_path: Path, peephole: bool) -> None:
    """f = 1 - i as a gate of its own, and two biases in one."""
    rng = np.random.default_rng(3)
    more = {"peephole": rng.uniform(-1, 1, (3, 2)).astype("f")} if peephole else {}
    bias = rng.uniform(-1, 1, 8).astype("f")
    made = model(Recurrent("a", cell(coupling="f=1-i", bias_hh=bias, **more), stateful=True))
    report = formats.save(made, tmp_path / "a.tflite")
    assert len(report.folded) == 2
    x = rng.uniform(-1, 1, (5, 3)).astype("f")
    ours, again = (m.run(x, on="truth")[0] for m in (made, formats.load(tmp_path / "a.tflite")))
    assert np.abs(ours - again).max() <= 2.0**-22


# -- damage ---------------------------------------------------------------------------------------


def small(tmp_path: Path) -> bytes:
    flat, x, y, _ = lstm_file(draw_cell(1, inputs=1, hidden=1))
    return save(flat, tmp_path / "whole.tflite", x, y).read_bytes()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data, path = small(tmp_path), tmp_path / "a.tflite"
    for end in range(0, len(data) - 16):  # after the last table lies padding
        path.write_bytes(data[:end])
        refusal(path)


def test_no_flipped_bit_does_more_than_change_a_number(tmp_path: Path) -> None:
    data, path = small(tmp_path), tmp_path / "a.tflite"
    rng, loaded = random.Random(0), 0
    for _ in range(1500):
        changed, bit = bytearray(data), rng.randrange(8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with suppress(IfgoError):
            formats.load(path).run(np.ones((2, 1), "f"), on="exact")
            loaded += 1
    assert 0 < loaded < 1500


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (0, 2**32 - 1, "the root leads to 4294967295 of "),
        (0, 0, "the root leads to 0 of "),
        (
            4,
            0,
            "does not begin as a TFLite flatbuffer does, expected the identifier TFL3 in bytes "
            "4 to 8. Convert it again",
        ),
    ],
)
def test_a_root_that_lies(tmp_path: Path, place: int, value: int, says: str) -> None:
    data = bytearray(small(tmp_path))
    struct.pack_into("<I", data, place, value)
    (tmp_path / "a.tflite").write_bytes(data)
    assert refusal(tmp_path / "a.tflite").startswith(says)


def test_many_offsets_to_one_table(tmp_path: Path) -> None:
    """A vector of 2^18 offsets to one tensor is refused by its count, before they are followed."""
    flat, x, y, _ = lstm_file(draw_cell(1))
    flat.tensors += [flat.tensors[0]] * limits.DEFAULTS.tables
    assert refusal(save(flat, tmp_path / "a.tflite", x, y)) == (
        f"SubGraph #0, field 0 lists {len(flat.tensors)} tables, expected at most "
        f"{limits.DEFAULTS.tables} in all" + raising("tables")
    )


def test_a_huge_shape_without_data(tmp_path: Path) -> None:
    flat, x, y, _ = lstm_file(draw_cell(1))
    flat.tensors[x] = replace(flat.tensors[x], shape=(1, 2**31 - 1, 2**31 - 1))
    assert refusal(save(flat, tmp_path / "a.tflite", x, y)).endswith("expected 3")


@pytest.mark.parametrize(
    ("name", "field", "value", "says"),
    [
        (
            "state_h",
            "shape",
            (1, 5),
            "keeps its state h in 'state_h', FLOAT32 of shape [1, 5], expected FLOAT32, 4 entries "
            "for each sequence",
        ),
        (
            "state_c",
            "type",
            "FLOAT16",
            "keeps its state c in 'state_c', FLOAT16 of shape [1, 4], expected FLOAT32, 4 entries "
            "for each sequence",
        ),
        ("y", "type", "INT8", "gives 'y' as INT8, expected FLOAT32"),
    ],
)
def test_a_tensor_that_is_no_constant(
    tmp_path: Path, name: str, field: str, value: Any, says: str
) -> None:
    flat, x, y, _ = lstm_file(draw_cell(1))
    (k,) = (k for k, tensor in enumerate(flat.tensors) if tensor.name == name)
    flat.tensors[k] = replace(flat.tensors[k], **{field: value})
    found = refusal(save(flat, tmp_path / "a.tflite", x, y))
    assert found == f"operator UNIDIRECTIONAL_SEQUENCE_LSTM #0: {says}"


def test_a_field_of_a_newer_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = guard.TABLES | {"Buffer": ()}
    monkeypatch.setattr(guard, "TABLES", tables)
    flat, x, y, _ = lstm_file(draw_cell(1))
    assert refusal(save(flat, tmp_path / "a.tflite", x, y)) == (
        "Buffer #1 has a field 0, expected the 0 fields of the schema that ifgo knows. Convert the "
        "model with an older converter"
    )
