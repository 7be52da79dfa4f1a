"""Models to write: drawn at random, or built in a line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ifgo import states
from ifgo.activations import LINEAR, SIGMOID, SOFTMAX, Activation
from ifgo.cell import LSTMCell
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Embedding,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Layer,
    Recurrent,
    RepeatVector,
    Scale,
)
from ifgo.model import (
    FeatureInput,
    Model,
    Output,
    TokenInput,
)
from ifgo.reference import truth


def random_cell(rng: np.random.Generator, i: int, h: int, **rules: Any) -> LSTMCell:
    """A contractive cell: weights shrink with the number of their terms."""

    def draw(*shape: int) -> Any:
        return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(shape[-1] + 1)

    return LSTMCell(
        draw(4 * h, i), draw(4 * h, h), *(rules.pop("biases", (draw(4 * h), draw(4 * h)))), **rules
    )


def random_recurrent(rng: np.random.Generator, name: str, i: int, h: int) -> Recurrent:
    """A layer with any of what ONNX can hold."""
    rules: dict[str, Any] = {}
    if rng.random() < 0.3:
        rules["biases"] = (None, None)
    if rng.random() < 0.3:
        rules["clip_z"] = 0.5
    if rng.random() < 0.3:
        rules["coupling"] = "f=1-i"
    if rng.random() < 0.3:
        choices = [
            Activation("sigmoid"),
            Activation("tanh"),
            Activation("hard_sigmoid", 0.25, 0.5),
            Activation("softsign"),
            Activation("linear"),
            Activation("leaky_relu", 0.125),
            Activation("scaled_tanh", 0.5, 0.75),
            Activation("affine", 0.5, 0.125),
            Activation("elu", 0.5),
        ]
        picked = [choices[int(k)] for k in rng.integers(0, len(choices), 3)]
        rules["activations"] = tuple(picked)
    peep = rng.random() < 0.3

    def cell() -> LSTMCell:
        made = random_cell(rng, i, h, **rules)
        if peep:
            made = replace(made, peephole=rng.uniform(-0.2, 0.2, (3, h)).astype(np.float32))
        return made

    which = int(rng.integers(0, 4))
    forward = cell() if which != 1 else None
    backward = cell() if which in (1, 2) else None
    d = 2 if which == 2 else 1
    initial = InitialState()
    if rng.random() < 0.3:
        draws = (rng.uniform(-0.5, 0.5, (d, h)).astype(np.float32) for _ in range(2))
        initial = InitialState("constant", *draws)
    return Recurrent(name, forward, backward, initial=initial)


def tokens_or_features(model: Model, rng: np.random.Generator, b: int, t: int) -> Any:
    """Input (B, T, I) or tokens (B, T)."""
    if isinstance(model.input, TokenInput):
        return rng.integers(0, model.input.vocabulary, (b, t))
    return rng.uniform(-1, 1, (b, t, model.input_size)).astype(np.float32)


def numbers(rng: np.random.Generator, *shape: int) -> Any:
    return (rng.uniform(-1, 1, shape) / (shape[-1] + 1)).astype(np.float32)


def random_model(seed: int) -> Model:
    """A chain of anything ONNX holds exactly, with the names that reading gives."""
    rng = np.random.default_rng(seed)
    axes = str(rng.choice(["BT", "TB", "T"]))
    layers: list[Layer] = []
    if rng.random() < 0.3:
        size = int(rng.integers(1, 4))
        entry: Any = TokenInput(7, "ids", axes)  # type: ignore[arg-type]
        layers.append(Embedding("embedding", numbers(rng, 7, size)))
    else:
        size = int(rng.integers(1, 4))
        entry = FeatureInput(size, "x", axes)  # type: ignore[arg-type]
    if rng.random() < 0.3:
        layers.append(Scale("scale", numbers(rng, size) + np.float32(1), numbers(rng, size)))
    recurrent: list[str] = []

    def lstm(width: int) -> int:
        made = random_recurrent(rng, f"lstm{len(recurrent)}", width, int(rng.integers(1, 5)))
        layers.append(made)
        recurrent.append(made.name)
        return made.output_size(width)

    for _ in range(int(rng.integers(1, 4))):
        size = lstm(size)
    if rng.random() < 0.3:
        stats = (numbers(rng, size), numbers(rng, size) + np.float32(1))
        layers.append(
            BatchNorm("batch_norm", *stats, numbers(rng, size), numbers(rng, size), 0.125)
        )
    ends_in_time = True
    if rng.random() < 0.4:
        of = "state" if isinstance(layers[-1], Recurrent) and rng.random() < 0.7 else "sequence"
        layers.append(LastStep("last", of))  # type: ignore[arg-type]
        ends_in_time = False
        choice = int(rng.integers(0, 3))
        if choice == 1:
            layers.append(HiddenAsSequence("hidden_as_sequence"))
            size, ends_in_time = lstm(1), True
        elif choice == 2:
            layers.append(RepeatVector("repeat", 3))
            size, ends_in_time = lstm(size), True
    if rng.random() < 0.3:
        layers.append(ActivationLayer("activation", Activation("softsign")))
    if rng.random() < 0.6:
        bias = numbers(rng, 3) if rng.random() < 0.7 else None
        functions = [LINEAR, SIGMOID, SOFTMAX, Activation("leaky_relu", 0.25)]
        layers.append(
            Dense("dense", numbers(rng, 3, size), bias, functions[int(rng.integers(0, 4))])
        )
    role = "sequence" if ends_in_time else "last"
    if role == "last" and axes != "T":
        outputs = [Output("last", "y")]
    else:
        outputs = [Output(role, "y", axes=axes)]  # type: ignore[arg-type]
    hidden = {layer.hidden_size for layer in layers if isinstance(layer, Recurrent)}
    names = tuple(recurrent) if len(hidden) == 1 else recurrent[:1]
    of_states = "T" if axes == "T" else "BT"
    if rng.random() < 0.5:
        outputs.append(Output("h_n", "h", tuple(names), of_states))
    if rng.random() < 0.5:
        outputs.append(Output("c_n", "c", tuple(names), of_states))
    return Model((entry,), tuple(layers), tuple(outputs))


def expected(model: Model, result: truth.Result) -> list[Any]:
    """The outputs as the file lays them out."""
    packed = states.to_outputs(model, result.state)
    found: list[Any] = []
    for output in model.outputs:
        if output.states:
            found.append(packed[output.name])
        elif output.role == "last":
            found.append(result.y[0] if output.axes == "T" else result.y)
        elif output.axes == "T":
            found.append(result.y[0])
        else:
            found.append(result.y.swapaxes(0, 1) if output.axes == "TB" else result.y)
    return found


def feed(model: Model, x: Any) -> Any:
    """(B, T, ·) in the axes of the source."""
    if model.input.axes == "TB":
        return np.ascontiguousarray(x.swapaxes(0, 1))
    return x[0] if model.input.axes == "T" else x


def lstm(name: str, i: int, h: int, seed: int = 0, **options: Any) -> Recurrent:
    cells = options.pop("cell", {})
    return Recurrent(name, random_cell(np.random.default_rng(seed), i, h, **cells), **options)


def model_of(*layers: Layer, size: int = 3, **inputs: Any) -> Model:
    return Model((FeatureInput(size), *inputs.get("more", ())), layers, inputs.get("outputs", ()))
