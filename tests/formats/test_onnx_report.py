"""What writing ONNX folds, loses on request, or refuses: all of it is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_bounds import float32_bound
from onnx_cases import assert_same_arrays, assert_same_arrays_by_order, run_onnx
from onnx_models import lstm, model_of, numbers, random_cell, random_model

from ifgo.activations import LINEAR, TANH, Activation
from ifgo.cell import LayerNorm, LSTMCell, MatrixNorm
from ifgo.errors import UnsupportedError
from ifgo.formats import onnx as room
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Masking,
    Recurrent,
    Residual,
    TrainingFacts,
)
from ifgo.model import (
    LengthsInput,
    Model,
    Output,
    TokenInput,
)
from ifgo.reference import truth

# -- folded -----------------------------------------------------------------------------------

BOTH = Activation("hard_sigmoid", 1 / 6, 0.5)


def with_cell(**changes: Any) -> Model:
    layer = lstm("l", 3, 4)
    assert layer.forward is not None
    return model_of(replace(layer, forward=replace(layer.forward, **changes)))


def two_directions(**changes: Any) -> Model:
    rng = np.random.default_rng(0)
    forward, backward = random_cell(rng, 3, 4), random_cell(rng, 3, 4)
    return model_of(Recurrent("l", forward, replace(backward, **changes)))


ROUNDED = "is rounded to float32 (0.33 ulp)"
FOLDED: dict[str, tuple[Model, tuple[str, ...]]] = {
    "one bias": (with_cell(bias_hh=None), ("layer l: no bias_hh is written as zeros",)),
    "biases of one direction": (
        two_directions(bias_ih=None, bias_hh=None),
        (
            "layer l, backward: no bias_ih is written as zeros",
            "layer l, backward: no bias_hh is written as zeros",
        ),
    ),
    "peephole of one direction": (
        two_directions(peephole=np.ones((3, 4), np.float32)),
        ("layer l, forward: no peephole is written as zeros",),
    ),
    "alpha": (
        with_cell(activations=(BOTH, TANH, TANH)),
        (f"layer l: alpha of hard_sigmoid 0.16666666666666666 {ROUNDED}",),
    ),
    "clip": (
        with_cell(clip_z=0.1),
        ("layer l: clip_z 0.1 is rounded to float32 (0.2 ulp)",),
    ),
    "dropout": (
        model_of(lstm("l", 3, 4), Dropout("d", 0.5)),
        ("layer d: dropout 0.5 is left out, it does nothing at inference",),
    ),
    "dropout inside": (
        model_of(lstm("l", 3, 4, training=TrainingFacts(input=0.5))),
        ("layer l: training dropout is left out, it does nothing at inference",),
    ),
    "linear": (
        model_of(lstm("l", 3, 4), ActivationLayer("a", LINEAR)),
        ("layer a: the linear activation is left out",),
    ),
    "zero state": (
        model_of(
            lstm(
                "l",
                3,
                4,
                initial=InitialState("constant", np.zeros((1, 4), "f"), np.zeros((1, 4), "f")),
            )
        ),
        ("layer l: the constant initial state is zero and left out",),
    ),
    "zero_masked": (
        model_of(lstm("l", 3, 4, zero_masked=True)),
        ("layer l: zero_masked is left out, nothing masks steps",),
    ),
    "batch norm": (
        model_of(lstm("l", 3, 4), BatchNorm("n", np.zeros(4, "f"), np.ones(4, "f"), epsilon=0.125)),
        ("layer n: no weight is written as ones", "layer n: no bias is written as zeros"),
    ),
}


@pytest.mark.parametrize("name", list(FOLDED))
def test_folded_is_reported(name: str, tmp_path: Path) -> None:
    """Said in the report, and the numbers stay: truth of what comes back is within rounding."""
    model, folded = FOLDED[name]
    path = tmp_path / "m.onnx"
    report = room.write(model, path)
    assert (report.kept, report.folded, report.lost) == (tuple(model.arrays), folded, ())
    assert not report.exact
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 3)).astype(np.float32)
    here, back = truth.forward(model, x), truth.forward(room.read(path), x)
    assert np.abs(here.y - back.y).max() <= float32_bound(model, here, x)


# -- lossy ------------------------------------------------------------------------------------

WHOLE = "write an .ifgo file, which holds every model"
LOSSY: dict[str, tuple[Model, str, str]] = {
    "forget bias": (
        with_cell(forget_bias=1.0),
        "layer l: forget_bias 1 (is added to bias_ih, rounded once, 0.31 ulp)",
        "forget_bias",
    ),
    "forget bias without bias": (
        with_cell(forget_bias=1.0, bias_ih=None, bias_hh=None),
        "layer l: forget_bias 1 (is added to bias_ih, rounded once, 0 ulp)",
        "forget_bias",
    ),
    "coupling": (
        with_cell(coupling="i=1-f", peephole=np.full((3, 4), 0.25, np.float32), forget_bias=0.5),
        "layer l: coupling i=1-f (becomes a gate of its own with the negated weights of f, equal "
        "in exact arithmetic); "
        "layer l: forget_bias 0.5 (is added to bias_ih, rounded once, 0.38 ulp)",
        "coupling,forget_bias",
    ),
    "stateful": (
        model_of(lstm("l", 3, 4, stateful=True)),
        "layer l: stateful (give the states as inputs instead)",
        "stateful",
    ),
}


@pytest.mark.parametrize("name", list(LOSSY))
def test_lossy_needs_a_word(name: str, tmp_path: Path) -> None:
    model, reason, losses = LOSSY[name]
    path = tmp_path / "m.onnx"
    with pytest.raises(UnsupportedError) as caught:
        room.write(model, path)
    assert (
        str(caught.value)
        == f"{path}: ONNX cannot hold {reason}. Permit it with --allow-lossy {losses}, or {WHOLE}"
    )
    assert not path.exists()
    report = room.write(model, path, allow_lossy=losses.split(","))
    assert "; ".join(report.lost) == reason
    assert not report.exact
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 3)).astype(np.float32)
    here, back = truth.forward(model, x), truth.forward(room.read(path), x)
    bound = float32_bound(model, here, x)
    assert np.abs(here.y - back.y).max() <= bound
    assert np.abs(run_onnx(path, x=x)[0] - here.y).max() <= 2 * bound  # rounded once more
    if name == "stateful":
        assert_same_arrays_by_order(room.read(path), model)


# -- refused ----------------------------------------------------------------------------------


def norm() -> MatrixNorm:
    return MatrixNorm(np.ones(16, "f"), np.zeros(16, "f"), np.ones(16, "f"), 1e-5, True)


def projected() -> Model:
    rng = np.random.default_rng(0)
    cell = LSTMCell(
        numbers(rng, 16, 3),
        numbers(rng, 16, 2),
        weight_hr=numbers(rng, 2, 4),
        clip_projection=1.0,
    )
    return model_of(Recurrent("l", cell))


def of_several_types() -> Model:
    dense = Dense("d", np.ones((2, 4), np.float64))
    return model_of(lstm("l", 3, 4), dense)


def merged(merge: Any) -> Model:
    rng = np.random.default_rng(0)
    return model_of(Recurrent("l", random_cell(rng, 3, 4), random_cell(rng, 3, 4), merge))


def different_widths() -> Model:
    outputs = (Output("sequence"), Output("h_n", "h", ("a", "b")))
    return model_of(lstm("a", 3, 4), lstm("b", 4, 5), outputs=outputs)


def wide_residual() -> Model:
    return model_of(Residual("r", (lstm("l", 3, 4),), 2))


def nested_residual() -> Model:
    inner = Residual("inner", (lstm("l", 4, 4),), 4)
    return model_of(Residual("outer", (inner,), 4), size=4)


def row_of_lengths() -> Model:
    return model_of(lstm("l", 3, 4), LastStep("last"), more=(LengthsInput(),))


REFUSED: dict[str, tuple[Model, str]] = {
    "projection": (projected(), "layer l: a projection (proj_size); layer l: clip_projection"),
    "clip_cell": (with_cell(clip_cell=1.0), "layer l: clip_cell"),
    "layer norm": (with_cell(layer_norm=LayerNorm(np.ones((4, 4), "f"))), "layer l: layer norm"),
    "batch norm of float64": (
        with_cell(input_norm=norm(), hidden_norm=norm()).astype(np.float64),
        "layer l: batch norm of weight_ih with float64 weights (folding rounds to float32); layer "
        "l: batch norm of weight_hh with float64 weights (folding rounds to float32)",
    ),
    "batch norm beyond float32": (
        with_cell(
            input_norm=replace(norm(), scale=np.full(16, 3e38, "f"), variance=np.zeros(16, "f"))
        ),
        "layer l: batch norm of weight_ih (a folded weight or bias is too large for float32)",
    ),
    "coupling": (
        with_cell(coupling="i=1-f", activations=(BOTH, TANH, TANH)),
        "layer l: coupling i=1-f with hard_sigmoid(0.166667, 0.5) gates",
    ),
    "masking": (model_of(Masking("m"), lstm("l", 3, 4)), "layer m: masking"),
    "mask_zero": (
        Model((TokenInput(5),), (Embedding("e", np.ones((5, 3), "f"), True), lstm("l", 3, 4))),
        "layer e: mask_zero",
    ),
    "go_backwards": (model_of(lstm("l", 3, 4, go_backwards=True)), "layer l: go_backwards"),
    "sum": (merged("sum"), "layer l: merge sum"),
    "mul": (merged("mul"), "layer l: merge mul"),
    "ave": (merged("ave"), "layer l: merge ave"),
    "types": (of_several_types(), "arrays of several types (float32, float64)"),
    "widths": (different_widths(), "output h: states of different widths in one tensor"),
    "residual": (wide_residual(), "layer r: a residual over 2 of 4 features"),
    "idle residual": (
        model_of(lstm("l", 3, 4), Residual("r", (Dropout("d", 0.5),), 4)),
        "layer r: a residual around layers that do nothing",
    ),
    "last unit": (
        model_of(
            lstm("l", 3, 4),
            LastStep("v"),
            HiddenAsSequence("h"),
            LastStep("last"),
            HiddenAsSequence("s"),
        ),
        "layer last: the last step of h, one unit",
    ),
    "nested residual": (nested_residual(), "layer outer: a residual inside a residual"),
    "scaled_tanh": (
        model_of(lstm("l", 3, 4), ActivationLayer("a", Activation("scaled_tanh", 0.5, 0.5))),
        "layer a: activation scaled_tanh(0.5, 0.5) outside a cell",
    ),
    "affine": (
        model_of(
            lstm("l", 3, 4), Dense("d", np.ones((2, 4), "f"), None, Activation("affine", 2, 1))
        ),
        "layer d: activation affine(2, 1) outside a cell",
    ),
    "clips": (two_directions(clip_z=0.5), "layer l: clip_z differs between its directions"),
    "couplings": (
        two_directions(coupling="f=1-i"),
        "layer l: coupling differs between its directions",
    ),
    "last row": (
        row_of_lengths(),
        "layer last: the last row inside each length (of='state' can be held)",
    ),
    "huge clip": (with_cell(clip_z=1e300), "layer l: clip_z 1e+300 (attributes are float32)"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    model, reason = REFUSED[name]
    path = tmp_path / "m.onnx"
    for lossy in (False, True):
        with pytest.raises(UnsupportedError) as caught:
            room.write(model, path, allow_lossy=lossy)
        assert str(caught.value) == f"{path}: ONNX cannot hold {reason}. W{WHOLE[1:]}"
        assert list(tmp_path.iterdir()) == []


def test_everything_refused_in_one_message(tmp_path: Path) -> None:
    layers = (
        Masking("m"),
        lstm("a", 3, 4, go_backwards=True, cell={"clip_cell": 1.0, "forget_bias": 1.0}),
    )
    with pytest.raises(UnsupportedError) as caught:
        room.write(model_of(*layers), tmp_path / "m.onnx")
    assert str(caught.value).endswith(
        "ONNX cannot hold layer m: masking; layer a: go_backwards; layer a: clip_cell; "
        "layer a: forget_bias 1 (is added to bias_ih, rounded once, 0.31 ulp). "
        "Write an .ifgo file, which holds every model"
    )


def test_more_weights_than_one_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ifgo.formats.onnx import holds

    monkeypatch.setattr(holds, "MAX_BYTES", 100)
    with pytest.raises(UnsupportedError) as caught:
        room.write(model_of(lstm("l", 3, 4)), tmp_path / "m.onnx")
    assert str(caught.value).endswith(
        "ONNX cannot hold 576 bytes of weights (one file holds 100). W" + WHOLE[1:]
    )


def test_float64_is_said(tmp_path: Path) -> None:
    model = model_of(lstm("lstm0", 3, 4)).astype(np.float64)
    report = room.write(model, tmp_path / "m.onnx")
    assert report.kept[-1] == "float64 (ONNX Runtime's LSTM takes float32 alone)"
    assert report.exact
    assert_same_arrays(room.read(tmp_path / "m.onnx"), model)
    with pytest.raises(Exception, match="LSTM"):
        run_onnx(tmp_path / "m.onnx", x=np.zeros((1, 2, 3)))


def test_read_of_write_of_a_file(tmp_path: Path) -> None:
    """Provenance names the file and its writer."""
    room.write(random_model(1), tmp_path / "m.onnx")
    provenance = room.read(tmp_path / "m.onnx").provenance
    assert provenance.framework == "onnx"
    assert provenance.version.startswith("ifgo ")


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize(
    "sides", [("input_norm",), ("hidden_norm",), ("input_norm", "hidden_norm")]
)
def test_batch_norm_inside_the_cell(sides: tuple[str, ...], outside: bool, tmp_path: Path) -> None:
    """Folded as exact float32 folds it: the file computes the same bits there, and ONNX Runtime
    what truth makes of the folded weights."""
    rng = np.random.default_rng(3)

    def drawn() -> MatrixNorm:
        parts = (numbers(rng, 16) + np.float32(shift) for shift in (1, 0, 1))
        return MatrixNorm(*parts, epsilon=1e-3, epsilon_outside=outside)

    model = with_cell(**{side: drawn() for side in sides}, bias_hh=None)
    path = tmp_path / "m.onnx"
    report = room.write(model, path)
    assert not report.exact
    said = [line for line in report.folded if "batch norm of" in line]
    assert len(said) == len(sides)
    for line in said:
        words, error = line.removesuffix(" ulp)").rsplit("(", 1)
        assert words.endswith("is folded into its rows and its bias, rounded once ")
        assert 0 < float(error) <= 0.5
    zeros = [line for line in report.folded if "is written as zeros" in line]
    assert zeros == ([] if "hidden_norm" in sides else ["layer l: no bias_hh is written as zeros"])
    back = room.read(path)
    x = rng.uniform(-1, 1, (2, 5, 3)).astype(np.float32)
    assert back.run(x, on="exact")[0].tobytes() == model.run(x, on="exact")[0].tobytes()
    result = truth.forward(back, x)
    assert np.abs(run_onnx(path, x=x)[0] - result.y).max() <= float32_bound(back, result, x)
