"""float64 truth against an independent scalar implementation, over every option of the cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scalar_lstm import FLOAT64, close, numbers, recurrent

from ifgo.activations import GATE_ACTIVATIONS, PARAMETERS, SIGMOID, TANH, Activation
from ifgo.model import (
    FeatureInput,
    InitialState,
    LayerNorm,
    LSTMCell,
    MatrixNorm,
    Model,
    Recurrent,
)
from ifgo.reference import truth

BOTH_SIDES = 2
"""Truth and the scalar implementation are each off by one bound at most."""

PLAIN = (SIGMOID, TANH, TANH)
COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
}


class Draw:
    """Weights of ordinary size from a seed that hypothesis chooses."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def array(self, *shape: int, scale: float = 0.5) -> Any:
        return self.random.normal(size=shape) * scale

    def positive(self, *shape: int) -> Any:
        return np.abs(self.array(*shape)) + 0.1


@st.composite
def activations(draw: st.DrawFn) -> Activation:
    name = draw(st.sampled_from(GATE_ACTIVATIONS))
    size = st.sampled_from([0.23, 0.57, 1.1, 1.6])  # no clip: a threshold jumps where x meets it
    return Activation(name, **{parameter: draw(size) for parameter in PARAMETERS[name]})


clips = st.none() | st.sampled_from([0.05, 0.3, 1.0])


@st.composite
def cells(
    draw: st.DrawFn, inputs: int, hidden: int, projected: int | None, ordinary: bool
) -> LSTMCell:
    make = Draw(draw(st.integers(0, 2**32 - 1)))
    rows, size = 4 * hidden, projected or hidden
    norm = draw(st.sampled_from(["none", "none", "layer", "input", "hidden", "both"]))

    def matrix(where: str) -> MatrixNorm | None:
        if norm not in (where, "both"):
            return None
        scale, mean = make.array(rows), make.array(rows)
        outside = draw(st.booleans())
        return MatrixNorm(
            scale, mean, make.positive(rows), 10.0 ** -draw(st.integers(1, 5)), outside
        )

    return LSTMCell(
        make.array(rows, inputs),
        make.array(rows, size),
        make.array(rows) if draw(st.booleans()) else None,
        make.array(rows) if draw(st.booleans()) else None,
        make.array(size, hidden) if projected else None,
        make.array(size) if projected and draw(st.booleans()) else None,
        make.array(3, hidden) if draw(st.booleans()) else None,
        activations=PLAIN
        if ordinary
        else (draw(activations()), draw(activations()), draw(activations())),
        clip_z=draw(clips),
        clip_cell=draw(clips),
        clip_projection=draw(clips) if projected else None,
        coupling=draw(st.sampled_from([None, "f=1-i", "i=1-f"])),
        forget_bias=draw(st.sampled_from([0.0, 1.0, -0.5])),
        layer_norm=LayerNorm(make.array(4, hidden), 10.0 ** -draw(st.integers(1, 4)))
        if norm == "layer"
        else None,
        input_norm=matrix("input"),
        hidden_norm=matrix("hidden"),
    )


@st.composite
def layers(draw: st.DrawFn, inputs: int, ordinary: bool) -> Recurrent:
    hidden = draw(st.integers(1, 4))
    projected = draw(st.none() | st.integers(1, hidden))
    shape = draw(st.sampled_from(["forward", "backward", "both", "both", "go_backwards"]))
    one = cells(inputs, hidden, projected, ordinary)
    return Recurrent(
        "lstm",
        draw(one) if shape != "backward" else None,
        draw(one) if shape in ("backward", "both") else None,
        merge=draw(st.sampled_from(["concat", "sum", "mul", "ave"])),
        go_backwards=shape == "go_backwards",
        zero_masked=draw(st.booleans()),
    )


@settings(max_examples=250, **COMMON)
@given(data=st.data())
def test_every_option_against_scalar_loops(data: st.DataObject) -> None:
    """Output, final states and every traced part of every step."""
    ordinary = data.draw(st.booleans())
    batch, inputs = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    # Gates that are not bounded let the cell grow with its own square: two steps, then.
    steps = data.draw(st.integers(1, 5 if ordinary else 2))
    layer = data.draw(layers(inputs, ordinary))
    make = Draw(data.draw(st.integers(0, 2**32 - 1)))
    x = make.array(batch, steps, inputs, scale=1.0)
    shape = (layer.directions, batch)
    start = {
        "h0": make.array(*shape, layer.cell.output_size),
        "c0": make.array(*shape, layer.hidden_size),
    }
    if data.draw(st.booleans()):
        start = {key: np.zeros_like(array) for key, array in start.items()}
    mask = lengths = None
    if data.draw(st.booleans()):
        mask = make.random.random((batch, steps)) < 0.6
    if not layer.go_backwards and data.draw(st.booleans()):
        lengths = make.random.integers(0, steps + 1, batch)
    model = Model((FeatureInput(inputs),), (layer,))
    found = truth.forward(model, x, start, lengths, mask)
    wanted = recurrent(
        FLOAT64, layer, numbers(x), start["h0"], start["c0"], mask=mask, lengths=lengths
    )
    close(found.y, wanted.y, times=BOTH_SIDES)
    close(found.state["h0"], wanted.h, times=BOTH_SIDES)
    close(found.state["c0"], wanted.c, times=BOTH_SIDES)
    for direction, rows in zip(found.traces["lstm"].values(), wanted.traces, strict=True):
        for b, row in enumerate(rows):
            for t, parts in enumerate(row):
                for name, values in (parts or {}).items():
                    close(direction[name][b, t], values, times=BOTH_SIDES)


@settings(max_examples=60, **COMMON)
@given(data=st.data())
def test_stacks_against_scalar_loops(data: st.DataObject) -> None:
    """Two or three layers, constant initial states, lengths that all of them keep."""
    batch, steps, size = 2, data.draw(st.integers(1, 4)), data.draw(st.integers(1, 2))
    make = Draw(data.draw(st.integers(0, 2**32 - 1)))
    x = make.array(batch, steps, size, scale=1.0)
    stack: list[Recurrent] = []
    for k in range(data.draw(st.integers(2, 3))):
        drawn = data.draw(layers(size, True).filter(lambda layer: not layer.go_backwards))
        h = make.array(drawn.directions, drawn.cell.output_size)
        c = make.array(drawn.directions, drawn.hidden_size)
        stack.append(
            Recurrent(
                f"lstm{k}",
                drawn.forward,
                drawn.backward,
                merge=drawn.merge,
                initial=InitialState("constant", h, c),
            )
        )
        size = stack[-1].output_size(size)
    lengths = make.random.integers(0, steps + 1, batch) if data.draw(st.booleans()) else None
    found = truth.forward(Model((FeatureInput(x.shape[2]),), tuple(stack)), x, None, lengths)
    values = numbers(x)
    for k, layer in enumerate(stack):
        h = np.repeat(np.asarray(layer.initial.h)[:, None], batch, axis=1)
        c = np.repeat(np.asarray(layer.initial.c)[:, None], batch, axis=1)
        outcome = recurrent(FLOAT64, layer, values, h, c, lengths=lengths)
        values = outcome.y
        close(found.outputs[f"lstm{k}"], values, times=BOTH_SIDES)
        close(found.state[f"h{k}"], outcome.h, times=BOTH_SIDES)
        close(found.state[f"c{k}"], outcome.c, times=BOTH_SIDES)
    assert (found.y == found.outputs[stack[-1].name]).all()


def test_states_carry_over() -> None:
    """A sequence in two calls is the sequence in one, to the bit: step by step the same numbers."""
    make = Draw(3)
    cell = LSTMCell(make.array(12, 2), make.array(12, 3), make.array(12), peephole=make.array(3, 3))
    model = Model((FeatureInput(2),), (Recurrent("a", cell, stateful=True),))
    x = make.array(2, 7, 2)
    whole = truth.forward(model, x)
    first = truth.forward(model, x[:, :3])
    second = truth.forward(model, x[:, 3:], first.state)
    assert (np.concatenate([first.y, second.y], axis=1) == whole.y).all()
    assert all((second.state[key] == whole.state[key]).all() for key in ("h0", "c0"))
