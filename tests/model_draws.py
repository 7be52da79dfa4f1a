"""Random legal models over every option at once, and what to run them on. A seed is a model.

Sizes are 1 to 9, weights and inputs also large, saturating, denormal, zero and -0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ifgo import states
from ifgo.activations import LINEAR, PARAMETERS, SIGMOID, SOFTMAX, TANH, Activation
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
    LengthsInput,
    LSTMCell,
    Masking,
    MatrixNorm,
    Model,
    Output,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    StateInput,
    StateSlot,
    TokenInput,
    TrainingFacts,
)

KINDS = ("ordinary", "large", "saturating", "tiny", "denormal", "zero", "mixed")
SIZES: dict[str, float] = {
    "ordinary": 0.5,
    "large": 1e3,
    "saturating": 30.0,
    "tiny": 1e-20,
    "denormal": 1e-40,
    "zero": 0.0,
}


@dataclass(frozen=True)
class Drawn:
    """A model, x (B, T, I) or tokens (B, T), a complete state, lengths (B,) or None."""

    seed: int
    model: Model
    x: Any
    start: states.State
    lengths: Any


class _Draw:
    """onnx: little but what an ONNX file holds (SPEC.md 2.10)."""

    def __init__(self, seed: int, onnx: bool) -> None:
        self.seed = seed
        self.onnx = onnx
        self.random = np.random.default_rng(seed)
        self.tame = self.chance(0.5)
        self.count = 0
        self.recurrent = 0
        self.dtype: Any = np.float32
        if self.beyond_onnx(0.2):
            self.dtype = self.pick(np.float16, np.float64)

    # -- numbers ----------------------------------------------------------------------------

    def pick(self, *options: Any) -> Any:
        return options[self.random.integers(len(options))]

    def chance(self, p: float) -> bool:
        return bool(self.random.random() < p)

    def beyond_onnx(self, p: float) -> bool:
        """A chance that options ONNX lacks do not get where it must hold the model."""
        return self.chance(p) and not self.onnx

    def size(self) -> int:
        return int(self.random.integers(1, 10))

    def values(self, *shape: int) -> Any:
        """Float32 values of one kind, or of several."""
        kind = "ordinary" if self.tame or self.chance(0.5) else self.pick(*KINDS)
        normal = self.random.normal(size=shape)
        if kind == "mixed":
            scale = self.random.choice(list(SIZES.values()), size=shape)
        else:
            scale = np.full(shape, SIZES[kind])
        with np.errstate(under="ignore"):
            return (normal * scale).astype(np.float32)

    def array(self, *shape: int) -> Any:
        """Weights: `values` in the model's dtype, which float32 holds exactly."""
        with np.errstate(under="ignore", over="ignore"):
            return np.clip(self.values(*shape), -6e4, 6e4).astype(self.dtype)

    def positive(self, *shape: int) -> Any:
        return np.abs(self.array(*shape)) + self.dtype(self.pick(0, 0.125))

    def number(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    # -- parts ------------------------------------------------------------------------------

    def activation(self, *, gate: bool = False, plain: Activation | None = None) -> Activation:
        if plain is not None and self.chance(0.5):
            return plain
        name = self.pick(*(name for name in PARAMETERS if not (gate and name == "softmax")))
        given: dict[str, float] = {p: self.number(-1.5, 1.5) for p in PARAMETERS[name]}
        if name == "thresholded_relu" and self.chance(0.3):
            given["alpha"] = 0.0
        return Activation(name, **given)

    def norm(self, hidden: int) -> MatrixNorm:
        rows = 4 * hidden
        epsilon = self.pick(1e-3, 1e-5, 1e-6)
        mean, variance = self.array(rows), self.positive(rows)
        return MatrixNorm(self.array(rows), mean, variance, epsilon, self.chance(0.5))

    def cell(self, inputs: int, hidden: int, output: int | None) -> LSTMCell:
        size = output or hidden
        options: dict[str, Any] = {}
        for name in ("bias_ih", "bias_hh"):
            if self.chance(0.7):
                options[name] = self.array(4 * hidden)
        if output is not None:
            options["weight_hr"] = self.array(output, hidden)
            if self.chance(0.5):
                options["bias_hr"] = self.array(output)
            if self.chance(0.4):
                options["clip_projection"] = self.number(0.1, 1)
        if self.chance(0.3):
            options["peephole"] = self.array(3, hidden)
        if self.chance(0.6):
            options["activations"] = (
                self.activation(gate=True, plain=SIGMOID),
                self.activation(gate=True, plain=TANH),
                self.activation(gate=True, plain=TANH),
            )
        if not self.onnx:
            options |= self.cell_beyond_onnx(hidden)
        return LSTMCell(self.array(4 * hidden, inputs), self.array(4 * hidden, size), **options)

    def cell_beyond_onnx(self, hidden: int) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for name, low, high in (("clip_z", 0.2, 3), ("clip_cell", 0.1, 2)):
            if self.chance(0.25):
                options[name] = self.number(low, high)
        options["coupling"] = self.pick(None, None, "f=1-i", "i=1-f")
        if self.chance(0.3):
            options["forget_bias"] = self.pick(1.0, -0.7)
        norm = self.pick(None, None, None, "layer", "batch")
        if norm == "layer":
            epsilon = self.pick(1e-3, 1e-5, 1e-8)
            options["layer_norm"] = LayerNorm(self.array(4, hidden), epsilon)
        if norm == "batch":
            for name in ("input_norm", "hidden_norm"):
                if self.chance(0.7):
                    options[name] = self.norm(hidden)
        return options

    def lstm(self, inputs: int) -> Recurrent:
        self.recurrent += 1
        hidden = self.size()
        output = int(self.random.integers(1, hidden + 1)) if self.beyond_onnx(0.3) else None
        make: Callable[[], LSTMCell] = lambda: self.cell(inputs, hidden, output)  # noqa: E731
        way = self.pick("forward", "forward", "backward", "both", "go_backwards")
        way = "forward" if self.onnx and way == "go_backwards" else way
        forward = None if way == "backward" else make()
        backward = make() if way in ("backward", "both") else None
        width, count = output or hidden, 2 if way == "both" else 1
        kind = self.pick("zero", "zero", "constant", "input")
        constants = (self.array(count, width), self.array(count, hidden))
        initial = InitialState(kind, *(constants if kind == "constant" else ()))
        return Recurrent(
            self.name("lstm"),
            forward,
            backward,
            merge="concat" if self.onnx else self.pick("concat", "sum", "mul", "ave"),
            go_backwards=way == "go_backwards",
            zero_masked=self.chance(0.4),
            stateful=self.beyond_onnx(0.2),
            initial=initial,
            training=TrainingFacts(0.1, 0.2, 0.3) if self.chance(0.2) else TrainingFacts(),
        )

    def simple(self, size: int) -> Layer:
        """A layer that takes a sequence or a vector alike."""
        match self.pick("dense", "dense", "activation", "dropout", "batch_norm", "scale"):
            case "dense":
                bias = self.chance(0.7)
                out = self.size()
                act = self.activation(plain=LINEAR)
                weight = self.array(out, size)
                return Dense(self.name("dense"), weight, self.array(out) if bias else None, act)
            case "activation":
                return ActivationLayer(self.name("act"), self.activation(plain=SOFTMAX))
            case "dropout":
                return Dropout(self.name("drop"), 0.5)
            case "batch_norm":
                mean, variance = self.array(size), self.positive(size)
                weight, bias = (self.array(size) if self.chance(0.6) else None for _ in range(2))
                epsilon = 2.0**-10 if self.onnx else self.pick(1e-3, 1e-5)
                return BatchNorm(self.name("norm"), mean, variance, weight, bias, epsilon)
            case _:
                return Scale(self.name("scale"), self.array(size), self.array(size))

    def residual(self, size: int) -> Residual:
        layers: list[Layer] = []
        width = size
        for _ in range(int(self.random.integers(1, 3))):
            inner = self.pick("lstm", "simple", "masking", "residual")
            if inner == "lstm" and self.recurrent < 3:
                layers.append(self.lstm(width))
            elif inner == "masking":
                layers.append(self.masking())
            elif inner == "residual" and self.chance(0.3):
                layers.append(self.residual(width))
            else:
                layers.append(self.simple(width))
            width = layers[-1].output_size(width)
        channels = int(self.random.integers(1, min(size, width) + 1))
        return Residual(self.name("skip"), tuple(layers), channels)

    def masking(self) -> Masking:
        return Masking(self.name("mask"), self.pick(0.0, 0.0, 0.1, -2.5))

    def layers(self, size: int, steps: int, first: list[Layer]) -> list[Layer]:
        """A chain of 1 to 3 recurrent layers; `steps` is what a Flatten finds."""
        chain = first
        wanted, sequence = int(self.random.integers(1, 4)), True
        while self.recurrent < wanted or self.chance(0.4):
            if len(chain) > 9:
                break
            forced = self.onnx and not self.recurrent
            kind = self.pick("lstm", "lstm", "lstm", "simple", "masking", "residual", "time")
            if forced or (self.onnx and kind in ("masking", "residual")):
                kind = "lstm"
            if not sequence and kind in ("lstm", "masking", "residual"):
                kind = "time"
            match kind:
                case "lstm" if self.recurrent < 3:
                    chain.append(self.lstm(size))
                case "masking":
                    chain.append(self.masking())
                case "residual":
                    chain.append(self.residual(size))
                case "time" if sequence:
                    final = isinstance(chain[-1], Recurrent) if chain else False
                    single = self.onnx and size == 1  # flattening is then no move of axes
                    if self.chance(0.3) and steps * size <= 40 and not single:
                        chain.append(Flatten(self.name("flat"), steps))
                    else:
                        of = self.pick("state", "sequence") if final else "sequence"
                        chain.append(LastStep(self.name("last"), of))
                    sequence = False
                case "time":
                    if self.chance(0.5) or (self.onnx and self.recurrent == 3):
                        steps = int(self.random.integers(2 if self.onnx else 1, 6))
                        chain.append(RepeatVector(self.name("again"), steps))
                    else:
                        steps = size
                        chain.append(HiddenAsSequence(self.name("units")))
                        if self.onnx:  # which reads it as the input of an LSTM alone
                            chain.append(self.lstm(1))
                            size = 1
                    sequence = True
                case _:
                    chain.append(self.simple(size))
            size = chain[-1].output_size(size)
        return chain

    # -- the whole --------------------------------------------------------------------------

    def drawn(self) -> Drawn:
        batch, steps = int(self.random.integers(1, 4)), int(self.random.integers(1, 8))
        entry: FeatureInput | TokenInput = FeatureInput(self.size())
        first: list[Layer] = []
        size = entry.size
        if self.chance(0.2):
            vocabulary = self.size()
            entry, size = TokenInput(vocabulary), self.size()
            first.append(
                Embedding(self.name("table"), self.array(vocabulary, size), self.beyond_onnx(0.5))
            )
        model_layers = tuple(self.layers(size, steps, first))
        inputs: list[Any] = [entry]
        lengths = self.random.integers(0, steps + 1, batch) if self.chance(0.4) else None
        if lengths is not None and self.chance(0.5):
            inputs.append(LengthsInput())
        bare = [layer for layer in _walk(model_layers) if isinstance(layer, Recurrent)]
        for layer in bare:
            if layer.initial.kind == "input":
                for part in ("h", "c"):
                    slot = StateSlot(layer.name, part)
                    inputs.append(StateInput(f"{part}_of_{layer.name}", (slot,)))
        model = Model(tuple(inputs), model_layers)
        if bare and self.chance(0.3):
            named = tuple(layer.name for layer in bare[:1])
            more = (Output("h_n", "hn", named), Output("c_n", "cn", named))
            model = replace(model, outputs=(*model.outputs, *more))
        return Drawn(
            self.seed, model, self.x(model, batch, steps), self.start(model, batch), lengths
        )

    def x(self, model: Model, batch: int, steps: int) -> Any:
        if isinstance(model.input, TokenInput):
            return self.random.integers(0, model.input.vocabulary, (batch, steps)).astype(np.int32)
        x = self.values(batch, steps, model.input_size)
        masked = [layer.value for layer in _walk(model.layers) if isinstance(layer, Masking)]
        for value in (*masked, 0.0, -0.0):
            x[self.random.random((batch, steps)) < 0.15] = np.float32(value)
        return x

    def start(self, model: Model, batch: int) -> states.State:
        """Any state where an input wants one or by chance; else the initial one."""
        found = states.initial(model, batch, np.float32)
        given = any(layer.initial.kind == "input" for layer in model.recurrent)
        if given or self.chance(0.5):
            found = {key: self.values(*array.shape) for key, array in found.items()}
        return found


def _walk(layers: Any) -> Any:
    for layer in layers:
        yield layer
        if isinstance(layer, Residual):
            yield from _walk(layer.layers)


def draw(seed: int, *, onnx: bool = False) -> Drawn:
    """The model of a seed; about half have ordinary numbers only. onnx: one that ONNX may hold."""
    return _Draw(seed, onnx).drawn()
