"""A model as an .npz with its sheet: the same bits back, and what a sheet cannot say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifgo import formats
from ifgo.activations import SIGMOID, SOFTMAX, TANH, Activation
from ifgo.cell import LSTMCell
from ifgo.errors import UnsupportedError, UsageError
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Recurrent,
    RepeatVector,
    Scale,
    TrainingFacts,
)
from ifgo.model import FeatureInput, LengthsInput, Model, Output, StateInput, StateSlot, TokenInput


def draw(rng: np.random.Generator, *shape: int) -> Any:
    return rng.normal(0, 0.5, shape).astype("f")


def cell(rng: np.random.Generator, inputs: int, hidden: int, **more: Any) -> LSTMCell:
    g, out = 4 * hidden, more["weight_hr"].shape[0] if "weight_hr" in more else hidden
    return LSTMCell(draw(rng, g, inputs), draw(rng, g, out), **more)


def models() -> dict[str, Model]:
    rng = np.random.default_rng(1)
    full = {"bias_ih": draw(rng, 16), "bias_hh": draw(rng, 16)}
    hard = Activation("hard_sigmoid", 0.2, 0.5)
    one = FeatureInput(3)
    return {
        "plain": Model((one,), (Recurrent("r", cell(rng, 3, 4, **full)),)),
        "no bias": Model((one,), (Recurrent("r", cell(rng, 3, 4)),)),
        "recurrent bias": Model((one,), (Recurrent("r", cell(rng, 3, 4, bias_hh=draw(rng, 16))),)),
        "rules": Model(
            (FeatureInput(3, "in", "TB"),),
            (
                Recurrent(
                    'r "quoted" {n} *',
                    cell(
                        rng,
                        3,
                        4,
                        **full,
                        peephole=draw(rng, 3, 4),
                        weight_hr=draw(rng, 2, 4),
                        bias_hr=draw(rng, 2),
                        activations=(hard, TANH, SIGMOID),
                        clip_z=5.0,
                        clip_cell=2.0,
                        clip_projection=1.0,
                        coupling="i=1-f",
                        forget_bias=1.0,
                    ),
                    stateful=True,
                ),
            ),
        ),
        "initial state": Model(
            (one,),
            (
                Recurrent(
                    "r",
                    cell(rng, 3, 4, weight_hr=draw(rng, 2, 4)),
                    cell(rng, 3, 4, weight_hr=draw(rng, 2, 4)),
                    initial=InitialState("constant", draw(rng, 2, 2), draw(rng, 2, 4)),
                ),
                Recurrent(
                    "s", cell(rng, 4, 2), initial=InitialState("constant", *draw(rng, 2, 1, 2))
                ),
            ),
        ),
        "both": Model(
            (one,),
            (
                Recurrent("a", cell(rng, 3, 4), cell(rng, 3, 4), "sum"),
                Recurrent("b", None, cell(rng, 4, 2)),
            ),
        ),
        "tokens": Model(
            (TokenInput(5, "ids"),),
            (
                Embedding("e", draw(rng, 5, 3), mask_zero=True),
                Recurrent("r", cell(rng, 3, 4)),
                LastStep("l", "state"),
                Dropout("d", 0.25),
                Dense("o", draw(rng, 2, 4), draw(rng, 2), Activation("leaky_relu", 0.1)),
                ActivationLayer("s", SOFTMAX),
            ),
        ),
        "shapes": Model(
            (one,),
            (
                Recurrent("a", cell(rng, 3, 2)),
                LastStep("l"),
                HiddenAsSequence("h"),
                Recurrent("b", cell(rng, 1, 2)),
                LastStep("m"),
                RepeatVector("v", 3),
                Flatten("f", 3),
                Dense("o", draw(rng, 2, 6)),
            ),
        ),
        "float64": Model((one,), (Recurrent("r", cell(rng, 3, 4, **full)),)).astype("float64"),
        "float16": Model((one,), (Recurrent("r", cell(rng, 3, 4, **full)),)).astype("float16"),
    }


@pytest.mark.parametrize("name", list(models()))
def test_a_model_comes_back(tmp_path: Path, name: str) -> None:
    model = models()[name]
    path = tmp_path / "w.npz"
    report = formats.save(model, path)
    alone = ("r (lstm): bias_hh as the one bias, same values",)
    assert (report.folded, report.lost) == (alone if name == "recurrent bias" else (), ())
    again = formats.load(path)
    assert again.inputs == model.inputs
    assert again.outputs == model.outputs
    assert [(layer.kind, layer.name) for layer in again.layers] == [
        (layer.kind, layer.name) for layer in model.layers
    ]
    assert [layer.detail() for layer in again.layers] == [layer.detail() for layer in model.layers]
    theirs = {
        n.replace("bias_hh", "bias_ih") if name == "recurrent bias" else n: a
        for n, a in model.arrays.items()
    }
    assert {n: (a.dtype, a.tobytes()) for n, a in again.arrays.items()} == {
        n: (a.dtype, a.tobytes()) for n, a in theirs.items()
    }
    formats.save(again, tmp_path / "w2.npz")
    if name != "recurrent bias":
        assert (tmp_path / "w2.npz").read_bytes() == path.read_bytes()
        assert (tmp_path / "w2.toml").read_text() == path.with_suffix(".toml").read_text()


def test_rules_are_read_as_written(tmp_path: Path) -> None:
    model = models()["rules"]
    formats.save(model, tmp_path / "w.npz")
    (mine,), (theirs,) = formats.load(tmp_path / "w.npz").recurrent, model.recurrent
    for field in ("activations", "clip_z", "clip_cell", "clip_projection", "coupling"):
        assert getattr(mine.cell, field) == getattr(theirs.cell, field)
    assert mine.cell.forget_bias == 1.0
    assert mine.stateful


def refused(model: Model, path: Path) -> str:
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, path)
    assert not path.exists()
    assert not path.with_suffix(".toml").exists()
    return str(caught.value)


def test_all_that_a_sheet_cannot_say_stands_in_one_message(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    state = InitialState("input")
    slots = (StateSlot("r", "h"), StateSlot("r", "c"))
    ones = np.ones(4, "f")
    layers = (
        Recurrent("r", cell(rng, 3, 4), initial=state, training=TrainingFacts(0.1)),
        Recurrent("g", cell(rng, 4, 4), go_backwards=True),
        Recurrent("d", cell(rng, 4, 2), cell(rng, 4, 2, bias_ih=draw(rng, 8))),
        BatchNorm("n", ones, ones),
        Scale("s", ones, ones),
    )
    outputs = (Output("sequence", "out"), Output("h_n", "h", ("r",)))
    model = Model((FeatureInput(3), LengthsInput(), StateInput("st", slots)), layers, outputs)
    path = tmp_path / "w.npz"
    assert refused(model, path) == (
        f"{path}: A sheet cannot hold StateInput 'st'; output 'h' of role h_n; layer r: initial "
        "state of kind input; layer g: go_backwards; layer d: directions of different forms; "
        "layer n: batch_norm; layer s: scale; lengths input 'lengths'; name or axes of output "
        "'out'; layer r: training. Write an .ifgo file, which holds every model"
    )


def test_what_may_be_lost(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    one = Recurrent("r", cell(rng, 3, 4), training=TrainingFacts(0.1))
    model = Model((FeatureInput(3), LengthsInput()), (one,), (Output("sequence", "out"),))
    path = tmp_path / "w.npz"
    assert refused(model, path) == (
        f"{path}: A sheet cannot hold lengths input 'lengths'; name or axes of output 'out'; "
        "layer r: training. Permit it with --allow-lossy lengths,outputs,training, or write an "
        ".ifgo file, which holds every model"
    )
    report = formats.save(model, path, allow_lossy=True)
    assert len(report.lost) == 3
    assert np.array_equal(formats.load(path).recurrent[0].cell.weight_ih, one.cell.weight_ih)


def test_names_and_endings(tmp_path: Path) -> None:
    model = models()["plain"]
    renamed = replace(model, layers=(replace(model.layers[0], name="\udc80"),))
    assert "name '\\udc80', which is no Unicode text" in refused(renamed, tmp_path / "w.npz")
    with pytest.raises(UsageError) as caught:
        formats.save(model, tmp_path / "w.npy", "arrays")
    assert str(caught.value) == f"{tmp_path / 'w.npy'}: does not end in .npz, expected NAME.npz"
    many = tuple(
        Recurrent("n" * 240 + str(k), cell(np.random.default_rng(k), 1, 1)) for k in range(64)
    )
    dots = tuple(replace(one, name=("." * 250 + str(k))[:256]) for k, one in enumerate(many))
    formats.save(Model((FeatureInput(1),), dots), tmp_path / "dots.npz")
    assert [one.name for one in formats.load(tmp_path / "dots.npz").layers] == [
        one.name for one in dots
    ]
