"""What a model may have, one feature at a time, on a body that a format holds without it.

A format may hold nothing but an LSTM with one bias and a dense layer of one output; so each feature
is put on the plainest body that the format keeps, and what comes of it is the feature's doing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from conformance_cases import Draw, chain
from option_table import OPTIONS, case

from ifgo.activations import LINEAR, RELU, SIGMOID, TANH, Activation
from ifgo.cell import MatrixNorm
from ifgo.model import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    FeatureInput,
    Flatten,
    Model,
    Output,
    Recurrent,
    Scale,
    TrainingFacts,
)

Make = Callable[[Draw], Model]


@dataclass(frozen=True)
class Body:
    """What stands around a feature. single: one input feature; head: a dense layer at the end;
    one_bias: no bias_hh; stateful: of every LSTM."""

    single: bool = False
    head: bool = False
    one_bias: bool = False
    stateful: bool = False

    def __str__(self) -> str:
        words = ["1 feature" if self.single else "3 features"]
        words.append(f"LSTM with {'one bias' if self.one_bias else 'two biases'}")
        words += ["dense of 1"] * self.head + ["stateful"] * self.stateful
        return ", ".join(words)


BODIES = tuple(
    Body(single, head, one_bias, stateful)
    for stateful, one_bias, (single, head) in product(
        (False, True), (False, True), ((False, False), (False, True), (True, True))
    )
)
"""The plainest first."""


@dataclass(frozen=True)
class Feature:
    """words: one of them stands in a refusal (None: it is a body, of which any part may be named).
    about: the parts of a body that the feature itself decides."""

    make: Make
    words: tuple[str, ...] | None
    about: tuple[str, ...] = ()

    def model(self, body: Body) -> Model:
        """The feature on `body`, with the same numbers each time."""
        draw = Draw(1)
        model = self.make(draw)
        layers = [self._recurrent(layer, body) for layer in model.layers]
        inputs = model.inputs
        first = layers[0]
        if body.single and isinstance(first, Recurrent) and isinstance(inputs[0], FeatureInput):
            layers[0] = replace(
                first,
                **{
                    way: replace(cell, weight_ih=cell.weight_ih[:, :1])
                    for way, cell in first.cells.items()
                },
            )
            inputs = (replace(inputs[0], size=1), *inputs[1:])
        model = replace(model, inputs=inputs, layers=tuple(layers))
        if body.head and not isinstance(layers[-1], Dense):
            dtype = next(iter(model.arrays.values())).dtype
            weight, bias = draw.array(1, model.output_size), draw.array(1)
            head = Dense("head", weight.astype(dtype), bias.astype(dtype))
            model = replace(model, layers=(*layers, head))
        return model

    def _recurrent(self, layer: Any, body: Body) -> Any:
        if not isinstance(layer, Recurrent):
            return layer
        if body.stateful and "stateful" not in self.about:
            layer = replace(layer, stateful=True)
        if body.one_bias and "bias" not in self.about:
            cells = {way: replace(cell, bias_hh=None) for way, cell in layer.cells.items()}
            layer = replace(layer, **cells)
        return layer


def one(**options: Any) -> Make:
    """One LSTM with options of its cell."""
    return lambda d: chain(3, Recurrent("r", d.cell(3, 5, **options)))


def layer(**options: Any) -> Make:
    """One LSTM with options of the layer."""
    return lambda d: chain(3, Recurrent("r", d.cell(3, 5), **options))


def after(make: Callable[[Draw], Any]) -> Make:
    """One LSTM and a layer behind it."""
    return lambda d: chain(3, Recurrent("r", d.cell(3, 5)), make(d))


def typed(dtype: Any, *, exact: bool) -> Make:
    """Weights of a dtype; exact: values that float32 holds as well."""

    def make(d: Draw) -> Model:
        model = one()(d).astype(dtype)
        if exact:
            return model
        cell = model.recurrent[0].cell
        third = cell.weight_ih / np.asarray(3, cell.weight_ih.dtype)
        return chain(3, Recurrent("r", replace(cell, weight_ih=third)))

    return make


def extremes(d: Draw) -> Model:
    """The smallest and largest numbers of float32, and both zeros."""
    info = np.finfo(np.float32)
    odd = [info.max, -info.max, info.tiny, info.smallest_subnormal, -info.smallest_subnormal, -0.0]
    cell = d.cell(3, 5)
    weight = cell.weight_ih.copy()
    weight[: len(odd), 0] = np.array(odd, np.float32)
    return chain(3, Recurrent("r", replace(cell, weight_ih=weight)))


def darknet_norm(epsilon: float, outside: bool) -> Make:
    def make(d: Draw) -> Model:
        norms: list[MatrixNorm] = [replace(d.norm(5, outside), epsilon=epsilon) for _ in range(2)]
        cell = d.cell(3, 5, input_norm=norms[0], hidden_norm=norms[1])
        return chain(3, Recurrent("r", cell))

    return make


def batch_norm(**options: Any) -> Make:
    return after(
        lambda d: BatchNorm("n", d.array(5), np.abs(d.array(5)), d.array(5), d.array(5), **options)
    )


def finals(d: Draw) -> Model:
    model = one()(d)
    more = (Output("h_n", "hn", ("r",)), Output("c_n", "cn", ("r",)))
    return replace(model, outputs=(*model.outputs, *more))


def time_major(d: Draw) -> Model:
    model = one()(d)
    entry, out = replace(model.input, axes="TB"), replace(model.outputs[0], axes="TB")
    return replace(model, inputs=(entry,), outputs=(out,))


_GATES: dict[str, tuple[str, ...]] = {
    name: ("activation",) for name in OPTIONS if name.endswith("in a gate")
}

_WORDS: dict[str, tuple[str, ...]] = {
    "forward": (),
    "one bias": ("bias",),
    "reverse (backward cell alone)": ("backward", "forward direction", "reverse", "direction"),
    **{f"bidirectional, {way}": ("backward", "merge") for way in ("concat", "sum", "mul", "ave")},
    "go_backwards": ("go_backwards",),
    "initial state, constant": ("initial state",),
    "initial state, input": ("initial state", "stateinput", "state input"),
    "lengths": ("lengths",),
    "lengths, bidirectional": ("lengths", "backward"),
    "masking": ("masking", "mask"),
    "masking, zero_masked": ("masking", "mask"),
    "embedding, mask_zero": ("mask_zero", "embedding"),
    "dropout rates of training": ("training", "dropout"),
    "projection": ("projection", "proj_size", "weight_hr"),
    "projection with bias": ("projection", "proj_size", "weight_hr", "bias_hr"),
    "coupling f=1-i": ("coupling",),
    "coupling i=1-f": ("coupling",),
    "forget_bias": ("forget_bias",),
    "layer norm in the cell": ("layer_norm", "layer norm"),
    "batch norm of W·x": ("input_norm", "batch norm"),
    "batch norm of R·h": ("hidden_norm", "batch norm"),
    **_GATES,
    "dense, softmax": ("dense", "softmax", "activation"),
    "dropout layer": ("dropout",),
    "scale, batch_norm layer": ("scale", "batch_norm", "batch norm"),
    "last_step": ("last_step", "last step", "last row", "backward"),
    "last_step of the state": ("last_step", "state", "backward"),
    "flatten": ("flatten", "repeat_vector"),  # the case has a repeat_vector
    **{name: ("residual", "mask") for name in OPTIONS if name.startswith("residual")},
    "embedding": ("embedding", "stateful", "dropout"),  # the case has a dropout
}
"""Option → what a refusal may call it; else its own name."""

_ABOUT: dict[str, tuple[str, ...]] = {"one bias": ("bias",), "stateful": ("stateful",)}

_DROPOUT = ("training", "dropout")

FEATURES: dict[str, Feature] = {
    **{
        name: Feature(make, _WORDS.get(name, (name,)) or None, _ABOUT.get(name, ()))
        for name, make in OPTIONS.items()
    },
    "two biases": Feature(one(), ("bias",), ("bias",)),
    "b_hh alone": Feature(case("bias_hh_only"), ("bias",), ("bias",)),
    "no bias": Feature(one(bias_ih=None, bias_hh=None), ("bias",), ("bias",)),
    "no state between calls": Feature(one(), ("stateful",), ("stateful",)),
    "two LSTMs": Feature(
        lambda d: chain(3, Recurrent("r", d.cell(3, 5)), Recurrent("s", d.cell(5, 4))),
        ("layer s", "lstm", "layers"),
    ),
    "dropout of inputs": Feature(layer(training=TrainingFacts(input=0.25)), _DROPOUT),
    "dropout of h": Feature(layer(training=TrainingFacts(recurrent=0.25)), _DROPOUT),
    "dropout of outputs": Feature(layer(training=TrainingFacts(output=0.25)), _DROPOUT),
    "relu as g and h": Feature(one(activations=(SIGMOID, RELU, RELU)), ("activation",)),
    "hard_sigmoid gates of Keras 2": Feature(
        one(activations=(Activation("hard_sigmoid", 0.2, 0.5), TANH, TANH)), ("activation",)
    ),
    "batch norm in the cell, Darknet": Feature(
        darknet_norm(1e-6, True), ("input_norm", "batch norm")
    ),
    "batch norm in the cell, Darknet (AlexeyAB)": Feature(
        darknet_norm(1e-5, False), ("input_norm", "batch norm")
    ),
    "batch_norm": Feature(batch_norm(), ("batch_norm", "batch norm")),
    "batch_norm, epsilon outside the root": Feature(
        batch_norm(epsilon_outside=True), ("batch_norm", "batch norm")
    ),
    "scale": Feature(after(lambda d: Scale("s", d.array(5), d.array(5))), ("scale",)),
    "dense after": Feature(after(lambda d: Dense("y", d.array(4, 5), d.array(4))), ("dense",)),
    "dense after, relu": Feature(
        after(lambda d: Dense("y", d.array(4, 5), d.array(4), RELU)), ("dense", "activation")
    ),
    "dense without bias": Feature(after(lambda d: Dense("y", d.array(4, 5))), ("dense", "bias")),
    "flatten of the input's steps": Feature(after(lambda d: Flatten("f", 4)), ("flatten",)),
    "activation layer": Feature(after(lambda d: ActivationLayer("y", TANH)), ("activation",)),
    "linear activation layer": Feature(
        after(lambda d: ActivationLayer("y", LINEAR)), ("activation",)
    ),
    "dropout behind an LSTM": Feature(after(lambda d: Dropout("drop", 0.25)), ("dropout",)),
    "final states as outputs": Feature(finals, ("h_n", "output")),
    "time-major": Feature(time_major, ("axes", "time")),
    "float64 weights": Feature(typed("float64", exact=False), ("float64", "float32")),
    "float64 weights of float32 values": Feature(typed("float64", exact=True), ("float64",)),
    "float16 weights": Feature(typed("float16", exact=False), ("float16",)),
    "bfloat16 weights": Feature(typed(ml_dtypes.bfloat16, exact=False), ("bfloat16",)),
    "float32 extremes": Feature(extremes, ("weight", "value")),
}
"""Row → its feature. The options of SPEC.md 9 first, then what matters to files alone."""
