"""Writing RTNeural, GuitarML and NAM: what a file cannot hold, and what is lost on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_cases import FLOAT64

from ifgo import formats
from ifgo.errors import UnsupportedError
from ifgo.model import (
    Activation,
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    InitialState,
    LastStep,
    LSTMCell,
    Model,
    Recurrent,
    Residual,
    Scale,
    TokenInput,
)


def cell(inputs: int = 2, hidden: int = 3, **options: Any) -> LSTMCell:
    rng = np.random.default_rng(2)
    parts: dict[str, Any] = {
        "weight_ih": rng.normal(size=(4 * hidden, inputs)).astype("f"),
        "weight_hh": rng.normal(size=(4 * hidden, hidden)).astype("f"),
        "bias_ih": rng.normal(size=4 * hidden).astype("f"),
        "bias_hh": rng.normal(size=4 * hidden).astype("f"),
    }
    return LSTMCell(**(parts | options))


LSTM = Recurrent("l", cell(), stateful=True)
HEAD = Dense("d", np.ones((1, 3), "f"), np.ones(1, "f"))
TWO = Dense("d", np.ones((2, 3), "f"), np.ones(2, "f"))
STARTED = Recurrent(
    "l", cell(), initial=InitialState("constant", np.ones((1, 3), "f"), np.ones((1, 3), "f"))
)
FILES = {"rtneural": "m.json", "guitarml": "m.json", "nam": "m.nam"}
HOLDER = {"rtneural": "RTNeural JSON", "guitarml": "GuitarML JSON", "nam": "a NAM file"}
EVERY = tuple(FILES)
WHOLE = "Write an .ifgo file, which holds every model"
ONLY = "(only LSTMs, then a dense)"


@pytest.mark.parametrize(
    ("where", "layers", "says"),
    [
        (EVERY, [Recurrent("l", cell(), cell()), Dense("d", np.ones((1, 6), "f"), np.ones(1, "f"))],
         "layer l: backward"),
        (EVERY, [Recurrent("l", cell(peephole=np.ones((3, 3), "f"))), HEAD], "layer l: peephole"),
        (EVERY, [Recurrent("l", cell(clip_z=1.0)), HEAD], "layer l: clip_z 1.0"),
        (EVERY, [Recurrent("l", cell(coupling="i=1-f")), HEAD], "layer l: coupling i=1-f"),
        (EVERY, [Recurrent("l", cell(activations=(Activation("relu"),) * 3)), HEAD],
         "layer l: activations relu/relu/relu"),
        (EVERY, [Recurrent("l", cell(), go_backwards=True), HEAD], "layer l: go_backwards"),
        (("rtneural", "guitarml"), [STARTED, HEAD], "layer l: initial state of kind constant"),
        (("rtneural",), [LSTM, Scale("s", np.ones(3, "f"), np.ones(3, "f"))], "layer s: scale"),
        (("guitarml", "nam"), [LSTM, Scale("s", np.ones(3, "f"), np.ones(3, "f")), HEAD],
         f"layer s: scale {ONLY}"),
        (("guitarml", "nam"), [LSTM],
         f"a chain that ends in lstm {ONLY}"),
        (("guitarml", "nam"), [Dense("d", np.ones((1, 2), "f"), np.ones(1, "f"))],
         "a model without an LSTM"),
        (("guitarml", "nam"), [LSTM, Recurrent("m", cell(3, 2)),
                               Dense("d", np.ones((1, 2), "f"), np.ones(1, "f"))],
         "LSTMs of different hidden_size, 2 and 3"),
        (("guitarml", "nam"),
         [LSTM, Dense("d", np.ones((1, 3), "f"), np.ones(1, "f"), Activation("tanh"))],
         "layer d: activation tanh"),
        (("rtneural",),
         [LSTM, Dense("d", np.ones((1, 3), "f"), np.ones(1, "f"), Activation("softsign"))],
         "layer d: activation softsign"),
        (("rtneural",), [ActivationLayer("a", Activation("tanh"))],
         "a model without an LSTM or dense layer"),
        (("rtneural",), [LSTM, BatchNorm("b", *(np.ones(3, "f"),) * 4, epsilon_outside=True)],
         "layer b: batch norm with epsilon outside the root"),
        (("rtneural",), [Residual("r", (LSTM, HEAD), 1)],
         "layer r: residual (only AIDA-X adds the input, from .aidax files)"),
        (("nam",), [Residual("r", (LSTM, HEAD), 1)],
         f"layer r: residual {ONLY}; a chain that ends in residual {ONLY}; "
         "a model without an LSTM"),
        (("guitarml",), [Residual("r", (LSTM, TWO), 1)],
         "layer r: 1 of 2 channels added"),
        (EVERY, [LSTM, HEAD, LastStep("e")], None),
    ],
)  # fmt: skip
def test_models_that_a_format_cannot_hold(
    tmp_path: Path, where: tuple[str, ...], layers: Any, says: str | None
) -> None:
    model = Model((FeatureInput(2),), tuple(layers))
    for form in where:
        target = tmp_path / FILES[form]
        with pytest.raises(UnsupportedError) as caught:
            formats.save(model, target, form, allow_lossy=True)
        text = str(caught.value)
        assert text.startswith(f"{target}: {HOLDER[form]} cannot hold ")
        assert text.endswith(f". {WHOLE}")
        said = text.removeprefix(f"{target}: {HOLDER[form]} cannot hold ").removesuffix(
            f". {WHOLE}"
        )
        if says is None:
            assert "output 'y' of role last" in said
        else:
            assert said == says
    assert not list(tmp_path.iterdir())


def test_two_channels_in_an_aida_x_file(tmp_path: Path) -> None:
    model = Model((FeatureInput(2),), (Residual("r", (LSTM, TWO), 2),))
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, tmp_path / "m.aidax")
    assert "layer r: residual of 2 channels, 2 outputs (AIDA-X has one)" in str(caught.value)


def test_tokens(tmp_path: Path) -> None:
    layers = (Embedding("e", np.ones((5, 2), "f")), LSTM, HEAD)
    with pytest.raises(UnsupportedError) as caught:
        formats.save(Model((TokenInput(5),), layers), tmp_path / "m.json")
    assert "cannot hold TokenInput 'x'; layer e: embedding." in str(caught.value)


@pytest.mark.parametrize("form", EVERY)
def test_absent_biases_become_zeros_on_request(tmp_path: Path, form: str) -> None:
    bare = Recurrent("l", cell(bias_ih=None, bias_hh=None))
    model = Model((FeatureInput(2),), (bare, HEAD))
    target = tmp_path / FILES[form]
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, target, form)
    names = ("no bias_ih", "no bias_hh") if form == "guitarml" else ("no bias",)
    lost = tuple(f"layer l: {name} (written as zeros)" for name in names)
    assert str(caught.value) == (
        f"{target}: {HOLDER[form]} cannot hold {'; '.join(lost)}. "
        "Permit it with --allow-lossy bias, or write an .ifgo file, which holds every model"
    )
    report = formats.save(model, target, form, allow_lossy=True)
    assert report.lost == lost
    assert report.folded == (f"l (lstm): stateful, for {HOLDER[form]} keeps state between calls",)
    x = np.random.default_rng(1).normal(size=(4, 2)).astype("f")
    assert np.array_equal(formats.load(target).run(x, on="exact")[0], model.run(x, on="exact")[0])


def test_what_inference_does_not_need(tmp_path: Path) -> None:
    """A dropout, a head without bias, one of two parameters of a batch norm."""
    layers = (
        Recurrent("l", cell(bias_hh=None)),
        Dropout("p", 0.5),
        BatchNorm("b", *(np.ones(3, "f"),) * 2, bias=np.full(3, 2, "f")),
        Dense("d", np.ones((1, 3), "f")),
    )
    model = Model((FeatureInput(2),), layers)
    report = formats.save(model, tmp_path / "m.json", allow_lossy=True)
    assert report.lost == (
        "layer p: dropout 0.5",
        "layer b: weight or bias alone (the other written too)",
        "layer d: no bias (written as zeros)",
    )
    x = np.random.default_rng(1).normal(size=(4, 2)).astype("f")
    again, _ = formats.load(tmp_path / "m.json").run(x, on="truth")
    assert np.abs(again - model.run(x, on="truth")[0]).max() < FLOAT64


def test_float64_numbers_are_rounded_on_request(tmp_path: Path) -> None:
    model = Model((FeatureInput(2),), (LSTM, HEAD)).astype("float64")
    dense = Dense("d", np.full((1, 3), 0.1), np.ones(1))
    model = Model(model.inputs, (*model.layers[:-1], dense))
    for form, file in FILES.items():
        with pytest.raises(UnsupportedError, match=r"layer d: float64 weight, in float32 off by"):
            formats.save(model, tmp_path / file, form)
