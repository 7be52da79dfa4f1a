"""Models of every kind, drawn by hypothesis: any structure that the model allows, any values."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from ifgo.activations import GATE_ACTIVATIONS, PARAMETERS
from ifgo.model import (
    Activation,
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Layer,
    LayerNorm,
    LengthsInput,
    LSTMCell,
    Masking,
    MatrixNorm,
    Model,
    Output,
    Provenance,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    StateInput,
    StateSlot,
    TokenInput,
    TrainingFacts,
)

DTYPES = [np.dtype(t) for t in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)]
ODD_VALUES = (0.0, -0.0, 5e-324, -1e-40, 6e-8, 1 / 3, -1.5, 1e-38, 65504.0)
"""Zeros of both signs, denormals of every dtype, values that no narrow dtype holds."""


@st.composite
def array(draw: st.DrawFn, *shape: int, positive: bool = False) -> np.ndarray[Any, Any]:
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.where(
        rng.random(shape) < 0.3, rng.choice(ODD_VALUES, shape), rng.standard_normal(shape)
    )
    return (np.abs(values) if positive else values).astype(dtype)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


bounds = st.floats(min_value=0, max_value=1e300, exclude_min=True)
rates = st.floats(min_value=0, max_value=1, exclude_max=True)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def activations(draw: st.DrawFn, names: tuple[str, ...]) -> Activation:
    name = draw(st.sampled_from(names))
    return Activation(name, **{parameter: draw(finite) for parameter in PARAMETERS[name]})


@st.composite
def cells(draw: st.DrawFn, size: int, hidden: int, projected: int | None) -> LSTMCell:
    rows, out = 4 * hidden, projected or hidden
    matrix_norm = st.builds(
        MatrixNorm,
        array(rows),
        array(rows),
        array(rows, positive=True),
        bounds,
        st.booleans(),
    )
    norm = draw(st.sampled_from(["none", "layer", "matrix"]))
    return LSTMCell(
        draw(array(rows, size)),
        draw(array(rows, out)),
        draw(maybe(array(rows))),
        draw(maybe(array(rows))),
        draw(array(out, hidden)) if projected else None,
        draw(maybe(array(out))) if projected else None,
        draw(maybe(array(3, hidden))),
        activations=(
            draw(activations(GATE_ACTIVATIONS)),
            draw(activations(GATE_ACTIVATIONS)),
            draw(activations(GATE_ACTIVATIONS)),
        ),
        clip_z=draw(maybe(bounds)),
        clip_cell=draw(maybe(bounds)),
        clip_projection=draw(maybe(bounds)) if projected else None,
        coupling=draw(st.sampled_from([None, "f=1-i", "i=1-f"])),
        forget_bias=draw(finite),
        layer_norm=LayerNorm(draw(array(4, hidden)), draw(bounds)) if norm == "layer" else None,
        input_norm=draw(maybe(matrix_norm)) if norm == "matrix" else None,
        hidden_norm=draw(maybe(matrix_norm)) if norm == "matrix" else None,
    )


@st.composite
def recurrents(draw: st.DrawFn, name: str, size: int) -> Recurrent:
    hidden = draw(st.integers(1, 3))
    projected = draw(maybe(st.integers(1, hidden)))
    forward = draw(maybe(cells(size, hidden, projected)))
    backward = (
        draw(cells(size, hidden, projected)) if forward is None or draw(st.booleans()) else None
    )
    directions = (forward is not None) + (backward is not None)
    constant = st.builds(
        InitialState,
        st.just("constant"),
        array(directions, projected or hidden),
        array(directions, hidden),
    )
    return Recurrent(
        name,
        forward,
        backward,
        merge=draw(st.sampled_from(["concat", "sum", "mul", "ave"])),
        go_backwards=backward is None and draw(st.booleans()),
        zero_masked=draw(st.booleans()),
        stateful=draw(st.booleans()),
        initial=draw(st.just(InitialState()) | st.just(InitialState("input")) | constant),
        training=TrainingFacts(draw(rates), draw(rates), draw(rates)),
    )


@st.composite
def step_layers(
    draw: st.DrawFn, name: str, size: int, depth: int = 0, vector: bool = False
) -> Layer:
    """A layer that keeps the sequence, or works on a vector."""
    kind = draw(st.integers(0, 4 if vector else 5 if depth > 1 else 6))
    if kind == 0:
        outputs = draw(st.integers(1, 3))
        act = draw(activations(tuple(PARAMETERS)))
        return Dense(name, draw(array(outputs, size)), draw(maybe(array(outputs))), act)
    if kind == 1:
        return ActivationLayer(name, draw(activations(tuple(PARAMETERS))))
    if kind == 2:
        return Dropout(name, draw(rates))
    if kind == 3:
        variance = draw(array(size, positive=True))
        weight, bias = draw(maybe(array(size))), draw(maybe(array(size)))
        return BatchNorm(name, draw(array(size)), variance, weight, bias, draw(bounds))
    if kind == 4:
        return Scale(name, draw(array(size)), draw(array(size)))
    if kind == 5:
        return Masking(name, draw(finite))
    inner: list[Layer] = []
    width = size
    for i in range(draw(st.integers(1, 2))):
        recurrent = draw(st.booleans())
        build = recurrents if recurrent else step_layers
        more = {} if recurrent else {"depth": depth + 1}
        inner.append(draw(build(f"{name}.{i}", width, **more)))
        width = inner[-1].output_size(width)
    return Residual(name, tuple(inner), draw(st.integers(1, min(size, width))))


@st.composite
def models(draw: st.DrawFn) -> Model:
    names = iter(
        draw(st.lists(st.text(min_size=1, max_size=8), min_size=6, max_size=6, unique=True))
    )
    axes = st.sampled_from(["BT", "TB", "T"])
    labels = iter(draw(st.lists(st.text(), min_size=6, max_size=6, unique=True)))
    chain: list[Layer] = []
    entry: FeatureInput | TokenInput
    if draw(st.booleans()):
        rows, size = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        entry = TokenInput(rows, next(labels), draw(axes))
        chain.append(Embedding(next(names), draw(array(rows, size)), draw(st.booleans())))
    else:
        size = draw(st.integers(1, 3))
        entry = FeatureInput(size, next(labels), draw(axes))
    vector = False
    for name in list(names)[: draw(st.integers(0 if chain else 1, 4))]:
        after_recurrent = bool(chain) and isinstance(chain[-1], Recurrent)
        layer: Layer
        if vector:
            turns = st.just(HiddenAsSequence(name)) | st.builds(
                RepeatVector, st.just(name), st.integers(1, 5)
            )
            layer = draw(turns | step_layers(name, size, vector=True))
        else:
            of = st.sampled_from(["sequence", "state"] if after_recurrent else ["sequence"])
            ends = st.builds(LastStep, st.just(name), of) | st.builds(
                Flatten, st.just(name), st.integers(1, 3)
            )
            layer = draw(recurrents(name, size) | step_layers(name, size) | ends)
        if layer.signature.endswith("vector"):
            vector = True
        elif layer.signature.startswith("vector"):
            vector = False
        size = layer.output_size(size)
        chain.append(layer)
    asked = [r for r in walked(chain) if r.initial.kind == "input"]
    inputs: list[Any] = [entry]
    if draw(st.booleans()):
        inputs.append(LengthsInput(next(labels)))
    for part in ("h", "c"):
        if asked:
            slots = tuple(StateSlot(r.name, part) for r in asked)  # type: ignore[arg-type]
            inputs.append(StateInput(next(labels), slots))
    outputs = [Output("last" if vector else "sequence", next(labels), (), draw(axes))]
    if recurrent := [r.name for r in walked(chain)]:
        role = draw(st.sampled_from(["h_n", "c_n"]))
        outputs.append(Output(role, next(labels), tuple(recurrent)))
    names_map = draw(st.dictionaries(st.text(), st.text(), max_size=2))
    notes = tuple(draw(st.lists(st.text(), max_size=2)))
    provenance = Provenance(draw(st.text()), draw(st.text()), draw(st.text()), notes, names_map)
    return Model(tuple(inputs), tuple(chain), tuple(outputs), provenance)


def walked(chain: Any) -> list[Recurrent]:
    found: list[Recurrent] = []
    for layer in chain:
        if isinstance(layer, Residual):
            found += walked(layer.layers)
        elif isinstance(layer, Recurrent):
            found.append(layer)
    return found
