"""The cases every backend is held to: one option each, then random combinations.

Biases are never zero, sizes are seldom multiples of 4. `make` draws weights from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ifgo.activations import (
    HARD_SIGMOID_KERAS2,
    HARD_SIGMOID_KERAS3,
    LINEAR,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    Activation,
)
from ifgo.model import (
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


class Draw:
    """Seeded float32 weights of ordinary size."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def array(self, *shape: int, scale: float = 0.5) -> Any:
        values = self.random.normal(size=shape) * scale
        return np.where(values == 0, 0.1, values).astype(np.float32)

    def cell(self, inputs: int, hidden: int, output: int | None = None, **options: Any) -> LSTMCell:
        size = output or hidden
        arrays: dict[str, Any] = {
            "weight_ih": self.array(4 * hidden, inputs),
            "weight_hh": self.array(4 * hidden, size, scale=0.9 / np.sqrt(size)),
            "bias_ih": self.array(4 * hidden),
            "bias_hh": self.array(4 * hidden),
        }
        if output is not None:
            arrays["weight_hr"] = self.array(output, hidden)
        return LSTMCell(**(arrays | options))

    def norm(self, hidden: int, outside: bool) -> MatrixNorm:
        return MatrixNorm(
            self.array(4 * hidden),
            self.array(4 * hidden),
            np.abs(self.array(4 * hidden)) + np.float32(0.1),
            1e-5,
            outside,
        )


@dataclass(frozen=True)
class Case:
    """A named model. bounded: no intermediate can overflow, whatever the input."""

    name: str
    make: Callable[[Draw], Model]
    bounded: bool = True


def chain(size: int, *layers: Layer) -> Model:
    return Model((FeatureInput(size),), layers)


def one(inputs: int, hidden: int, output: int | None = None, **options: Any) -> Any:
    return lambda d: chain(inputs, Recurrent("r", d.cell(inputs, hidden, output, **options)))


def with_arrays(inputs: int, hidden: int, output: int | None, **fields: tuple[int, ...]) -> Any:
    """A cell with further arrays of the given shapes."""

    def make(d: Draw) -> Model:
        extra = {name: d.array(*shape) for name, shape in fields.items()}
        return chain(inputs, Recurrent("r", d.cell(inputs, hidden, output, **extra)))

    return make


def activation(function: Activation, gates: Activation = SIGMOID) -> Any:
    return one(3, 6, activations=(gates, function, TANH))


def masked(zero_masked: bool) -> Any:
    return lambda d: chain(
        3,
        Masking("m", 0.0),
        Recurrent("r", d.cell(3, 5), zero_masked=zero_masked),
        Dense("y", d.array(2, 5), d.array(2)),
    )


def bidirectional(merge: Any) -> Any:
    return lambda d: chain(
        3,
        Recurrent("a", d.cell(3, 5), d.cell(3, 5), merge=merge),
        Recurrent("b", d.cell(10 if merge == "concat" else 5, 3)),
        Dense("y", d.array(2, 3), d.array(2)),
    )


def decaying(d: Draw) -> Model:
    """g is exactly 0 once the input is: c shrinks by f each step, through the denormals to 0."""
    hidden = 5
    bias_ih, weight_hh = d.array(4 * hidden), d.array(4 * hidden, hidden)
    bias_hh = d.array(4 * hidden)
    g = slice(2 * hidden, 3 * hidden)
    bias_hh[g], weight_hh[g] = -bias_ih[g], 0.0
    bias_ih[hidden : 2 * hidden] = 3.0
    return chain(
        3, Recurrent("r", d.cell(3, hidden, weight_hh=weight_hh, bias_ih=bias_ih, bias_hh=bias_hh))
    )


def combination(seed: int) -> Case:
    """Options drawn together, two layers and a head."""
    random = np.random.default_rng(1000 + seed)
    pick = lambda *options: options[random.integers(len(options))]  # noqa: E731
    inputs, hidden = int(random.integers(1, 7)), int(random.integers(1, 10))
    output = pick(None, max(1, hidden - 1)) if hidden > 1 else None
    options: dict[str, Any] = {
        "coupling": pick(None, None, "f=1-i", "i=1-f"),
        "clip_z": pick(None, 0.7),
        "clip_cell": pick(None, 0.4),
        "forget_bias": pick(0.0, 1.0),
        "activations": (
            pick(SIGMOID, HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3),
            pick(TANH, Activation("softsign")),
            pick(TANH, SIGMOID),
        ),
    }
    peephole, bias_hr = random.random() < 0.5, random.random() < 0.5
    if output is not None:
        options["clip_projection"] = pick(None, 0.3)
    head = pick(RELU, LINEAR, SOFTMAX, SIGMOID)
    middle = pick("plain", "backward", "both", "go_backwards")

    def make(d: Draw) -> Model:
        extra = dict(options)
        if peephole:
            extra["peephole"] = d.array(3, hidden)
        if output is not None and bias_hr:
            extra["bias_hr"] = d.array(output)
        first = d.cell(inputs, hidden, output, **extra)
        size = first.output_size
        second: dict[str, Recurrent] = {
            "plain": Recurrent("b", d.cell(size, 3)),
            "backward": Recurrent("b", None, d.cell(size, 3)),
            "both": Recurrent("b", d.cell(size, 3), d.cell(size, 3), merge="sum"),
            "go_backwards": Recurrent("b", d.cell(size, 3), go_backwards=True),
        }
        return chain(
            inputs,
            Recurrent("a", first),
            second[middle],
            Dense("y", d.array(5, 3), d.array(5), head),
        )

    return Case(f"combination_{seed}", make)


CASES: list[Case] = [
    Case("plain_3_5", one(3, 5)),
    Case("plain_1_16", one(1, 16)),
    Case("plain_1_1", one(1, 1)),
    Case("plain_6_13", one(6, 13)),
    Case("plain_4_8", one(4, 8)),
    Case("decaying", decaying),
    Case("bias_ih_only", one(3, 5, bias_hh=None)),
    Case("bias_hh_only", one(3, 5, bias_ih=None)),
    Case("peephole", with_arrays(3, 5, None, peephole=(3, 5))),
    Case("projection", one(3, 7, 3)),
    Case("projection_bias", with_arrays(3, 7, 4, bias_hr=(4,))),
    Case("coupling_f", one(3, 5, coupling="f=1-i")),
    Case("coupling_i", one(3, 5, coupling="i=1-f")),
    Case("clip_z", one(3, 5, clip_z=0.5)),
    Case("clip_cell", one(3, 5, clip_cell=0.25)),
    Case("clip_projection", one(3, 7, 3, clip_projection=0.2)),
    Case("forget_bias", one(3, 5, forget_bias=1.0)),
    Case("relu", activation(RELU), bounded=False),
    Case("linear", activation(LINEAR), bounded=False),
    Case("hard_sigmoid_keras2", activation(TANH, HARD_SIGMOID_KERAS2)),
    Case("hard_sigmoid_keras3", activation(TANH, HARD_SIGMOID_KERAS3)),
    Case("leaky_relu", activation(Activation("leaky_relu", 0.1)), bounded=False),
    Case("thresholded_relu", activation(Activation("thresholded_relu", 0.5)), bounded=False),
    Case("elu", activation(Activation("elu", 0.7)), bounded=False),
    Case("scaled_tanh", activation(Activation("scaled_tanh", 1.7, 0.67))),
    Case("affine", activation(Activation("affine", 0.5, 0.1)), bounded=False),
    Case("softsign", activation(Activation("softsign"))),
    Case("softplus", activation(Activation("softplus")), bounded=False),
    Case(
        "stacked_16_16_16_dense",
        lambda d: chain(
            1,
            *(Recurrent(f"r{k}", d.cell(16 if k else 1, 16)) for k in range(3)),
            LastStep("last"),
            Dense("y", d.array(1, 16), d.array(1)),
        ),
    ),
    Case(
        "dense_softmax",
        lambda d: chain(
            3, Recurrent("r", d.cell(3, 6)), Dense("y", d.array(7, 6), d.array(7), SOFTMAX)
        ),
    ),
    Case(
        "dense_before",
        lambda d: chain(
            2, Dense("x", d.array(5, 2), d.array(5), RELU), Recurrent("r", d.cell(5, 6))
        ),
    ),
    Case(
        "embedding",
        lambda d: Model(
            (TokenInput(11),),
            (
                Embedding("e", d.array(11, 5)),
                Recurrent("r", d.cell(5, 6)),
                Dropout("drop", 0.5),
                Dense("y", d.array(11, 6), d.array(11)),
            ),
        ),
    ),
    Case(
        "hidden_as_sequence",
        lambda d: chain(
            1,
            Recurrent("a", d.cell(1, 6)),
            LastStep("la", of="state"),
            HiddenAsSequence("ha"),
            Recurrent("b", d.cell(1, 5)),
            LastStep("lb", of="state"),
            HiddenAsSequence("hb"),
            Recurrent("c", d.cell(1, 1)),
            LastStep("lc", of="state"),
            ActivationLayer("y", SIGMOID),
        ),
    ),
    Case("reverse", lambda d: chain(3, Recurrent("r", None, d.cell(3, 5)))),
    Case("go_backwards", lambda d: chain(3, Recurrent("r", d.cell(3, 5), go_backwards=True))),
    Case("bidirectional_concat", bidirectional("concat")),
    Case("bidirectional_sum", bidirectional("sum")),
    Case("bidirectional_mul", bidirectional("mul")),
    Case("bidirectional_ave", bidirectional("ave")),
    Case(
        "bidirectional_final_state",
        lambda d: chain(
            3,
            Recurrent("r", d.cell(3, 5), d.cell(3, 5)),
            LastStep("last", of="state"),
            Dense("y", d.array(2, 10), d.array(2)),
        ),
    ),
    Case(
        "bidirectional_last_step",
        lambda d: chain(3, Recurrent("r", d.cell(3, 5), d.cell(3, 5)), LastStep("last")),
    ),
    Case(
        "constant_initial_state",
        lambda d: chain(
            3,
            Recurrent(
                "r", d.cell(3, 5), initial=InitialState("constant", d.array(1, 5), d.array(1, 5))
            ),
        ),
    ),
    Case(
        "batch_norm_in_cell",
        lambda d: chain(
            3,
            Recurrent(
                "r",
                replace(d.cell(3, 5), input_norm=d.norm(5, True), hidden_norm=d.norm(5, False)),
            ),
        ),
    ),
    Case(
        "scale_and_batch_norm",
        lambda d: chain(
            3,
            Scale("s", d.array(3), d.array(3)),
            Recurrent("r", d.cell(3, 5)),
            BatchNorm("n", d.array(5), np.abs(d.array(5)), d.array(5), d.array(5)),
        ),
    ),
    Case(
        "residual",
        lambda d: chain(3, Residual("s", (Recurrent("r", d.cell(3, 5)),), 2)),
    ),
    Case(
        "residual_bidirectional",
        lambda d: chain(3, Residual("s", (Recurrent("r", d.cell(3, 2), d.cell(3, 2)),), 3)),
    ),
    Case(
        "repeat_vector",
        lambda d: chain(
            3,
            Recurrent("a", d.cell(3, 5)),
            LastStep("last"),
            RepeatVector("again", 6),
            Recurrent("b", d.cell(5, 4)),
        ),
    ),
    Case(
        "flatten_after_repeat",
        lambda d: chain(
            3,
            Recurrent("a", d.cell(3, 5)),
            LastStep("last"),
            RepeatVector("again", 4),
            Recurrent("b", d.cell(5, 3)),
            Flatten("flat", 4),
            Dense("y", d.array(2, 12), d.array(2)),
        ),
    ),
    Case(
        "layer_norm",
        lambda d: chain(
            3,
            Recurrent(
                "r",
                d.cell(3, 5, peephole=d.array(3, 5), layer_norm=LayerNorm(d.array(4, 5), 1e-3)),
            ),
        ),
    ),
    Case("masking_repeats", masked(zero_masked=False)),
    Case("masking_zeros", masked(zero_masked=True)),
    Case(
        "masking_one_feature",
        lambda d: chain(1, Masking("m", 0.0), Masking("n", 1.0), Recurrent("r", d.cell(1, 1))),
    ),
    Case(
        "masking_bidirectional",
        lambda d: chain(
            3,
            Masking("m", 0.0),
            Recurrent("a", d.cell(3, 4), d.cell(3, 4)),
            Recurrent("b", d.cell(8, 3, 2), go_backwards=True),
            Recurrent("c", d.cell(2, 3)),
            LastStep("last"),
        ),
    ),
    Case(
        "embedding_mask_zero",
        lambda d: Model(
            (TokenInput(4),),
            (Embedding("e", d.array(4, 5), mask_zero=True), Recurrent("r", d.cell(5, 6))),
        ),
    ),
    Case(
        "decoder",
        lambda d: chain(
            3,
            Recurrent("encoder", d.cell(3, 9)),
            LastStep("last"),
            Dense("bridge", d.array(9, 9), d.array(9), RELU),
            RepeatVector("again", 5),
            Dense("in", d.array(11, 9), d.array(11)),
            Recurrent("decoder", d.cell(11, 6)),
            Dense("out", d.array(9, 6), d.array(9)),
            Dense("y", d.array(3, 9), d.array(3)),
        ),
    ),
    Case(
        "sequence_of_one_step",
        lambda d: chain(
            3,
            Recurrent("a", d.cell(3, 5)),
            LastStep("last"),
            RepeatVector("again", 1),
            Recurrent("b", d.cell(5, 4)),
        ),
    ),
    Case(
        "flatten_then_replay",
        lambda d: chain(
            3,
            LastStep("first"),
            RepeatVector("again", 2),
            Flatten("flat", 2),
            HiddenAsSequence("replay"),
            Recurrent("b", d.cell(1, 4)),
        ),
    ),
    *(combination(seed) for seed in range(12)),
]
"""Every case; names are unique."""
