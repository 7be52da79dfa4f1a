"""Gradients against Keras 3 on the torch backend, in float64."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from presence import IN_CI

from ifgo.activations import (
    HARD_SIGMOID_KERAS3,
    LINEAR,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    Activation,
)
from ifgo.model import (
    Dense,
    Embedding,
    FeatureInput,
    LastStep,
    LSTMCell,
    Masking,
    Model,
    Recurrent,
    TokenInput,
)
from ifgo.reference import gradient

for name in ("torch", "keras"):
    if importlib.util.find_spec(name) is None and not IN_CI:  # in CI the import below fails
        pytest.skip(f"{name} is not installed (pip install '.[peers]')", allow_module_level=True)

os.environ["KERAS_BACKEND"] = "torch"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras
    from keras.src.backend.common import dtypes

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
L = keras.layers

BATCH, STEPS, INPUTS, UNITS = 3, 5, 3, 4

AGREEMENT = 2 * (BATCH * STEPS + 4 * UNITS + 2 * UNITS) * 2 * STEPS * 2.0**-53
"""Relative to the largest entry of the same gradient, 9e-14: both sides' roundings in one sum of
the backward, over batch and time or over gates, through the steps of two layers."""


ONE_SIXTH = STEPS * abs(float(np.float32(1 / 6)) * 6 - 1)
"""torch's hardsigmoid backward multiplies by 1/6 as a float32, also in float64: 3e-8 for each gate
that a path back goes through, one per step."""


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """Keras rounds float64 products to float32 on this backend, by one entry of its table of
    dtypes; here it is that of its TensorFlow backend."""
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
        yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


ACTIVATIONS = {
    "tanh": TANH,
    "sigmoid": SIGMOID,
    "relu": RELU,
    "linear": LINEAR,
    "hard_sigmoid": HARD_SIGMOID_KERAS3,
    "softsign": Activation("softsign"),
    "softplus": Activation("softplus"),
    "softmax": SOFTMAX,
}


def near(ours: Any, theirs: Any, bound: float = AGREEMENT) -> None:
    assert theirs.dtype == np.float64
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max()


def numpy(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy()


def cell(layer: Any) -> LSTMCell:
    """Keras keeps i, f, g, o in columns: the transpose."""
    parts = [numpy(weight.value) for weight in layer.cell.weights]
    bias = parts[2] if len(parts) > 2 else None
    show, gates = (
        ACTIVATIONS[one.__name__] for one in (layer.activation, layer.recurrent_activation)
    )
    return LSTMCell(parts[0].T, parts[1].T, bias, activations=(gates, show, show))


def recurrent(layer: Any, name: str) -> tuple[Recurrent, ...]:
    """The layer, and a LastStep where Keras returns one vector."""
    both = isinstance(layer, L.Bidirectional)
    first = layer.forward_layer if both else layer
    made = Recurrent(
        name,
        cell(first),
        cell(layer.backward_layer) if both else None,
        merge=layer.merge_mode if both else "concat",
        go_backwards=first.go_backwards,
        zero_masked=first.zero_output_for_mask,
    )
    return (made,) if layer.return_sequences else (made, LastStep(f"{name}_last", "state"))  # type: ignore[return-value]


def converted(model: Any) -> tuple[list[Any], dict[str, Any]]:
    """Our layers, and our array → the Keras variable, where not the same way round then ".T"."""
    chain: list[Any] = []
    variables: dict[str, Any] = {}
    for k, layer in enumerate(model.layers):
        name = f"l{k}"
        if isinstance(layer, L.Masking):
            chain.append(Masking(name, layer.mask_value))
        elif isinstance(layer, L.Embedding):
            chain.append(Embedding(name, numpy(layer.embeddings.value), layer.mask_zero))
            variables[f"{name}.weight"] = layer.embeddings
        elif isinstance(layer, L.Dense):
            weight, bias = numpy(layer.kernel.value).T, numpy(layer.bias.value)
            chain.append(Dense(name, weight, bias, ACTIVATIONS[layer.activation.__name__]))
            variables |= {f"{name}.weight.T": layer.kernel, f"{name}.bias": layer.bias}
        else:
            chain += recurrent(layer, name)
            both = isinstance(layer, L.Bidirectional)
            ways = {"forward": layer.forward_layer if both else layer}
            if both:
                ways["backward"] = layer.backward_layer
            for way, one in ways.items():
                names = ("weight_ih.T", "weight_hh.T", "bias_ih")
                for part, variable in zip(names, one.cell.weights, strict=False):
                    variables[f"{name}.{way}.{part}"] = variable
    return chain, variables


def check(layers: list[Any], x: Any, bound: float = AGREEMENT) -> None:
    """Every gradient of Σ dy·y."""
    import torch

    tokens = x.dtype.kind == "i"
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype.name), *layers])
    rng = np.random.default_rng(11)
    model.set_weights([rng.uniform(-0.7, 0.7, weight.shape) for weight in model.weights])
    given = torch.as_tensor(x)
    given = given if tokens else given.requires_grad_()
    y = model(given, training=False)
    dy = rng.normal(size=tuple(y.shape))
    y.backward(torch.as_tensor(dy))
    chain, variables = converted(model)
    entry = TokenInput(chain[0].vocabulary) if tokens else FeatureInput(INPUTS)
    run = gradient.record(Model((entry,), tuple(chain)), x)
    near(run.y, numpy(y))
    found = run.backward(dy)
    if not tokens:
        near(found.x, numpy(given.grad), bound)
    assert len(variables) == len(model.trainable_weights)
    for name, variable in variables.items():
        ours = found.arrays[name.removesuffix(".T")]
        near(ours.T if name.endswith(".T") else ours, numpy(variable.value.grad), bound)


def x_of(*, masked: bool = False) -> Any:
    x = np.random.default_rng(3).uniform(-1, 1, (BATCH, STEPS, INPUTS))
    if masked:
        x[0, 0] = x[0, 3] = x[1, 3:] = x[2, :2] = 0.5
    return x


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("go_backwards", [True, False])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_lstm(use_bias: bool, go_backwards: bool, return_sequences: bool) -> None:
    options = {"go_backwards": go_backwards, "return_sequences": return_sequences}
    check([L.LSTM(UNITS, use_bias=use_bias, **options)], x_of())


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "linear", "softsign"])
@pytest.mark.parametrize("recurrent_activation", ["sigmoid", "hard_sigmoid", "tanh", "softplus"])
def test_activations(activation: str, recurrent_activation: str) -> None:
    options = {"activation": activation, "recurrent_activation": recurrent_activation}
    bound = AGREEMENT + (ONE_SIXTH if recurrent_activation == "hard_sigmoid" else 0)
    check([L.LSTM(UNITS, return_sequences=True, **options)], x_of(), bound)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_bidirectional(merge_mode: str, return_sequences: bool) -> None:
    inner = L.LSTM(UNITS, return_sequences=return_sequences)
    check([L.Bidirectional(inner, merge_mode=merge_mode)], x_of())


@pytest.mark.parametrize("zero_output_for_mask", [True, False])
@pytest.mark.parametrize("go_backwards", [True, False])
def test_masks(zero_output_for_mask: bool, go_backwards: bool) -> None:
    options = {"zero_output_for_mask": zero_output_for_mask, "go_backwards": go_backwards}
    lower = L.LSTM(UNITS, return_sequences=True, **options)
    check([L.Masking(0.5), lower, L.Dense(2, activation="tanh")], x_of(masked=True))


@pytest.mark.parametrize("merge_mode", ["concat", "mul"])
def test_masks_both_ways(merge_mode: str) -> None:
    both = L.Bidirectional(L.LSTM(UNITS, return_sequences=True), merge_mode=merge_mode)
    check([L.Masking(0.5), both], x_of(masked=True))


@pytest.mark.parametrize("mask_zero", [True, False])
def test_a_classifier(mask_zero: bool) -> None:
    tokens = np.array([[1, 2, 3, 1, 0], [4, 4, 0, 0, 0], [5, 1, 0, 2, 6]])
    check(
        [
            L.Embedding(7, INPUTS, mask_zero=mask_zero),
            L.LSTM(UNITS, return_sequences=True),
            L.LSTM(UNITS),
            L.Dense(3, activation="softmax"),
        ],
        tokens,
    )
