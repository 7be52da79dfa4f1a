"""A small model of every option, in shapes alone, and with ordinary numbers drawn for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from gradient_cases import Problem, ordinary, problem

from ifgo import states
from ifgo.activations import GATE_ACTIVATIONS, PARAMETERS, SOFTMAX, TANH
from ifgo.model import (
    Activation,
    ActivationLayer,
    BatchNorm,
    Dense,
    Embedding,
    FeatureInput,
    InitialState,
    LastStep,
    Layer,
    LayerNorm,
    LSTMCell,
    Masking,
    MatrixNorm,
    Model,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    TokenInput,
)

BATCH, STEPS, INPUTS, HIDDEN = 3, 4, 2, 3
ZEROS = np.zeros


def cell(inputs: int = INPUTS, hidden: int = HIDDEN, output: int = 0, **more: Any) -> LSTMCell:
    """Shapes alone: `ordinary` draws the numbers."""
    if output:
        more["weight_hr"] = ZEROS((output, hidden))
    rows = 4 * hidden
    both = ZEROS(rows), ZEROS(rows)
    return LSTMCell(ZEROS((rows, inputs)), ZEROS((rows, output or hidden)), *both, **more)


def lstm(name: str = "r", **more: Any) -> Recurrent:
    return Recurrent(name, cell(**more))


def norm(outside: bool = False) -> MatrixNorm:
    rows = 4 * HIDDEN
    return MatrixNorm(ZEROS(rows), ZEROS(rows), ZEROS(rows), 0.1, outside)


def batch_norm(size: int = INPUTS, name: str = "bn") -> BatchNorm:
    every = ZEROS(size), ZEROS(size), ZEROS(size), ZEROS(size)
    return BatchNorm(name, *every, epsilon=0.1)


def dense(name: str = "d", inputs: int = HIDDEN, act: Activation = TANH) -> Dense:
    return Dense(name, ZEROS((2, inputs)), ZEROS(2), act)


def chain(*layers: Layer) -> Model:
    return Model((FeatureInput(INPUTS),), layers)


def made(model: Model, seed: int = 0, steps: int = STEPS, **options: Any) -> Problem:
    rng = np.random.default_rng(seed)
    model = ordinary(model, rng)
    if isinstance(model.input, TokenInput):
        x = rng.integers(0, model.input.vocabulary, (BATCH, steps))
    else:
        x = rng.normal(size=(BATCH, steps, INPUTS))
    start = {key: rng.normal(size=shape) for key, shape in states.shapes(model, BATCH).items()}
    return problem(model, x, start, rng, **options)


def activation(name: str) -> Activation:
    return Activation(name, **dict.fromkeys(PARAMETERS[name], 1.0))


BOTH = {f"both_{m}": chain(Recurrent("r", cell(), cell(), merge=m)) for m in ("sum", "mul", "ave")}
MODELS: dict[str, Model] = BOTH | {
    "plain": chain(lstm()),
    "both_concat": chain(Recurrent("r", cell(), cell()), lstm("s", inputs=2 * HIDDEN)),
    "backward": chain(Recurrent("r", None, cell())),
    "go_backwards": chain(Recurrent("r", cell(), go_backwards=True)),
    "zero_masked": chain(Recurrent("r", cell(), zero_masked=True)),
    "peephole": chain(lstm(peephole=ZEROS((3, HIDDEN)))),
    "projection": chain(lstm(output=2)),
    "projection_bias": chain(lstm(output=2, bias_hr=ZEROS(2), clip_projection=0.5)),
    "f=1-i": chain(lstm(coupling="f=1-i", peephole=ZEROS((3, HIDDEN)))),
    "i=1-f": chain(lstm(coupling="i=1-f", peephole=ZEROS((3, HIDDEN)))),
    "clip_z": chain(lstm(clip_z=0.5)),
    "clip_cell": chain(lstm(clip_cell=0.5, peephole=ZEROS((3, HIDDEN)))),
    "layer_norm": chain(lstm(layer_norm=LayerNorm(ZEROS((4, HIDDEN))), peephole=ZEROS((3, 3)))),
    "input_norm": chain(lstm(input_norm=norm())),
    "both_norms": chain(lstm(input_norm=norm(), hidden_norm=norm(True))),
    "forget_bias": chain(lstm(forget_bias=1.0)),
    "constant": chain(
        Recurrent("r", cell(), initial=InitialState("constant", ZEROS((1, 3)), ZEROS((1, 3))))
    ),
    "dense_softmax": chain(lstm(), dense(act=SOFTMAX)),
    "embedding": Model((TokenInput(3),), (Embedding("e", ZEROS((3, INPUTS)), True), lstm())),
    "masking": chain(Masking("m", 0.25), lstm(), dense()),
    "batch_norm": chain(batch_norm(), lstm(), Scale("s", ZEROS(HIDDEN), ZEROS(HIDDEN))),
    "last_step": chain(lstm(), LastStep("l"), dense()),
    "dense_last_step": chain(lstm(), dense(), LastStep("l")),
    "last_state": chain(Recurrent("r", cell(), cell(), merge="mul"), LastStep("l", "state")),
    "repeat": chain(lstm(), LastStep("l"), RepeatVector("v", 3), lstm("s", inputs=HIDDEN)),
    "residual": chain(Residual("b", (lstm("r"), ActivationLayer("a", TANH)), 2), dense()),
} | {
    f"{name}_gates": chain(lstm(activations=(activation(name),) * 3)) for name in GATE_ACTIVATIONS
}  # fmt: skip
