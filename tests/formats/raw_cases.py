"""Small models and tensor files for the tests of the raw format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from native_cases import identical

from ifgo.activations import PARAMETERS
from ifgo.errors import FormatError, IfgoError
from ifgo.formats import raw
from ifgo.model import (
    Activation,
    ActivationLayer,
    Dense,
    Dropout,
    FeatureInput,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    LSTMCell,
    Model,
    Output,
    Recurrent,
    RepeatVector,
)


def same(have: Any, want: Any) -> None:
    """Asserts the same model bit for bit; provenance is each reader's own."""
    identical(have, want, skip=("provenance",))


def weights(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def cell(inputs: int = 3, hidden: int = 2, biases: str = "both", **rules: Any) -> LSTMCell:
    return LSTMCell(
        weights(4 * hidden, inputs),
        weights(4 * hidden, hidden),
        weights(4 * hidden, seed=1) if biases in ("both", "bias_ih") else None,
        weights(4 * hidden, seed=2) if biases in ("both", "bias_hh") else None,
        **rules,
    )


def chain(*layers: Layer, size: int = 3, **more: Any) -> Model:
    return Model((FeatureInput(size),), layers, **more)


def fill(folder: Path, files: dict[str, Any]) -> Path:
    """Writes tensor files: numbers as bytes, text as it is."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_text(content, newline="")
        elif isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).write_bytes(np.asarray(content, "<f4").tobytes())
    return folder


def lstm_files(number: int, inputs: int, hidden: int, biases: int | None = 8) -> dict[str, Any]:
    name = f"{number}_{hidden}.bin"
    found = {
        f"tensor_W_{name}": weights(4 * hidden * inputs, seed=number),
        f"tensor_R_{name}": weights(4 * hidden * hidden, seed=number),
    }
    return found | ({f"tensor_B_{name}": weights(biases * hidden)} if biases else {})


def dense_files(number: int, inputs: int, outputs: int) -> dict[str, Any]:
    return {f"tensor_W_{number}_{outputs}.bin": weights(outputs * inputs, seed=number)}


def kinds(model: Model) -> list[str]:
    return [layer.kind for layer in model.layers]


def refused(folder: Path, error: type[IfgoError] = FormatError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        raw.read(folder, **options)
    prefix = f"{folder}: "
    assert str(caught.value).startswith(prefix)
    assert str(caught.value).count(str(folder)) == 1
    return str(caught.value).removeprefix(prefix)


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def array(draw: st.DrawFn, *shape: int) -> Any:
    size = int(np.prod(shape))
    return np.array(draw(st.lists(numbers, min_size=size, max_size=size)), "f4").reshape(shape)


@st.composite
def activations(draw: st.DrawFn) -> Activation:
    name = draw(st.sampled_from(sorted(PARAMETERS)))
    return Activation(name, **{parameter: draw(finite) for parameter in PARAMETERS[name]})


@st.composite
def models(draw: st.DrawFn, layout: str) -> Model:
    size = first = draw(st.integers(1, 3))
    names = draw(st.lists(st.text(min_size=1, max_size=6), min_size=5, max_size=5, unique=True))
    layers: list[Layer] = []
    vector = False
    for name in names[: draw(st.integers(1, 5))]:
        kind = draw(st.integers(0, 4 if not vector else 3)) if layers else 0
        if kind == 0 and vector:
            kind = 1
        if kind == 0:
            hidden = draw(st.integers(1, 3))
            given = draw(st.sampled_from([0, 1, 2, 3] if layout == "A" else [0, 1, 2]))
            biases = [draw(array(4 * hidden)) if given & bit else None for bit in (1, 2)]
            w, r = draw(array(4 * hidden, size)), draw(array(4 * hidden, hidden))
            layers.append(Recurrent(name, LSTMCell(w, r, *biases)))
        elif kind == 1:
            out = draw(st.integers(1, 3))
            bias = draw(st.none() | array(out))
            layers.append(Dense(name, draw(array(out, size)), bias, draw(activations())))
        elif kind == 2:
            layers.append(ActivationLayer(name, draw(activations())))
        elif kind == 3 and vector:
            steps = st.builds(RepeatVector, st.just(name), st.integers(1, 9))
            layers.append(draw(st.just(HiddenAsSequence(name)) | steps))
        elif kind == 3:
            layers.append(Dropout(name, draw(st.floats(0, 1, exclude_max=True))))
        else:
            of = ["sequence", "state"] if isinstance(layers[-1], Recurrent) else ["sequence"]
            steps = st.builds(Flatten, st.just(name), st.integers(1, 3))
            layers.append(draw(st.builds(LastStep, st.just(name), st.sampled_from(of)) | steps))
        vector = layers[-1].signature.endswith("vector") or (
            vector and layers[-1].signature == "step→step"
        )
        size = layers[-1].output_size(size)
    axes = st.sampled_from(["BT", "TB", "T"])
    recurrent = tuple(layer.name for layer in layers if isinstance(layer, Recurrent))
    one, two = draw(st.lists(st.text(), min_size=2, max_size=2, unique=True))
    outputs = (
        Output("last" if vector else "sequence", one, (), draw(axes)),
        Output(draw(st.sampled_from(["h_n", "c_n"])), two, recurrent, draw(axes)),
    )
    return Model((FeatureInput(first, draw(st.text()), draw(axes)),), tuple(layers), outputs)


SHEET = """version = 1
layout = "A"
encoding = "bin"

[input]
name = "x"
size = 3
axes = "BT"

[[layer]]
kind = "lstm"
name = "lstm"

[[layer]]
kind = "dropout"
name = "drop"
rate = 0.5

[[layer]]
kind = "dense"
name = "head"
activation = "tanh"

[[output]]
role = "sequence"
name = "y"
axes = "BT"
"""


def described(place: Path) -> Path:
    """A folder in `place` with the tensors that SHEET describes."""
    files = lstm_files(1, 3, 2) | dense_files(2, 2, 1) | {"model.toml": SHEET}
    return fill(place / "net", files)
