"""The activations by name: which parameters each takes, and what an ONNX node means by its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from core_cases import refused

from ifgo import activations
from ifgo.activations import (
    GATE_ACTIVATIONS,
    HARD_SIGMOID_KERAS2,
    HARD_SIGMOID_KERAS3,
    LINEAR,
    ONNX_LSTM_DEFAULTS,
    ONNX_NAMES,
    ONNX_SPELLING,
    PARAMETERS,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    Activation,
    from_onnx_lstm,
)
from ifgo.errors import FormatError, ModelError, UnsupportedError
from ifgo.reference import truth

EVERY_NAME = (
    "sigmoid, tanh, relu, linear, hard_sigmoid, leaky_relu, thresholded_relu, elu, scaled_tanh, "
    "affine, softsign, softplus, softmax"
)


def test_every_name_has_a_meaning() -> None:
    assert ", ".join(PARAMETERS) == EVERY_NAME
    assert set(GATE_ACTIVATIONS) == set(PARAMETERS) - {"softmax"} == set(truth.ACTIVATIONS)


def test_constants() -> None:
    names = [a.name for a in (SIGMOID, TANH, LINEAR, RELU, SOFTMAX)]
    assert names == ["sigmoid", "tanh", "linear", "relu", "softmax"]
    assert Activation("hard_sigmoid", 0.2, 0.5) == HARD_SIGMOID_KERAS2
    assert Activation("hard_sigmoid", 1 / 6, 0.5) == HARD_SIGMOID_KERAS3


def test_words() -> None:
    assert str(TANH) == "tanh"
    assert str(HARD_SIGMOID_KERAS2) == "hard_sigmoid(0.2, 0.5)"
    assert str(Activation("elu", 1)) == "elu(1)"


def test_parameters_become_floats() -> None:
    found = Activation("affine", np.float32(0.5), 2)  # type: ignore[arg-type]
    assert (type(found.alpha), type(found.beta)) == (float, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("Tanh",), f"unknown activation 'Tanh', expected one of {EVERY_NAME}"),
        ((None,), "name is None, expected a string"),
        (("tanh", 1.0), "activation tanh has alpha=1.0, expected no alpha, tanh takes none"),
        (("elu", 1.0, 0.0), "activation elu has beta=0.0, expected no beta, elu takes none"),
        (("elu",), "activation elu has alpha=None, expected a finite number"),
        (("affine", 1.0), "activation affine has beta=None, expected a finite number"),
        (("elu", math.nan), "activation elu has alpha=nan, expected a finite number"),
        (("elu", -math.inf), "activation elu has alpha=-inf, expected a finite number"),
        (("elu", "1"), "alpha is '1', expected a number or None"),
        (("elu", True), "alpha is True, expected a number or None"),
        (("affine", 1.0, 2**53 + 1), "beta is 9007199254740993, expected a number or None"),
    ],
)
def test_refusals(values: Any, message: str) -> None:
    with refused(ModelError, message):
        Activation(*values)


# -- ONNX -----------------------------------------------------------------------------------------


def test_onnx_names_are_those_of_the_operator() -> None:
    """The operator's own text lists its activations; every one but ours alone is in the table."""
    schema = onnx.defs.get_schema("LSTM", 22)
    listed = {line.strip("* \n").split("(")[0].lower() for line in schema.doc.splitlines()}
    assert set(ONNX_NAMES) <= listed
    assert {name.lower() for name in ONNX_SPELLING.values()} == set(ONNX_NAMES)
    assert {ONNX_NAMES[spelled.lower()]: spelled for spelled in ONNX_SPELLING.values()} == (
        ONNX_SPELLING
    )
    assert set(ONNX_SPELLING) == set(GATE_ACTIVATIONS) - {"linear"}


def read(names: list[str], alphas: Any = (), betas: Any = ()) -> list[Activation]:
    return from_onnx_lstm(names, alphas, betas, where="m.onnx: node lstm")


def test_onnx_names_ignore_case() -> None:
    assert read(["sigmoid", "TANH", "Softsign"]) == [SIGMOID, TANH, Activation("softsign")]


def test_onnx_values_go_to_those_that_need_them() -> None:
    found = read(["Sigmoid", "LeakyRelu", "Elu"], [0.25, 0.75])
    assert found == [SIGMOID, Activation("leaky_relu", 0.25), Activation("elu", 0.75)]
    found = read(["HardSigmoid", "ScaledTanh", "Elu"], [1, 2, 3], [4, 5])
    assert found == [
        Activation("hard_sigmoid", 1.0, 4.0),
        Activation("scaled_tanh", 2.0, 5.0),
        Activation("elu", 3.0),
    ]


def test_onnx_defaults_where_all_agree() -> None:
    assert set(ONNX_LSTM_DEFAULTS) == {"hard_sigmoid", "leaky_relu", "elu"}
    assert read(["HardSigmoid", "LeakyRelu", "Elu"]) == [
        Activation("hard_sigmoid", float(np.float32(0.2)), 0.5),
        Activation("leaky_relu", float(np.float32(0.01))),
        Activation("elu", 1.0),
    ]


def test_onnx_affine_of_one_and_zero_is_linear() -> None:
    assert read(["Affine", "Affine", "Tanh"], [1, 1], [0, 1]) == [
        LINEAR,
        Activation("affine", 1.0, 1.0),
        TANH,
    ]


@pytest.mark.parametrize("name", ["Affine", "ScaledTanh", "ThresholdedRelu"])
def test_onnx_defaults_that_contradict_are_refused(name: str) -> None:
    with refused(
        UnsupportedError,
        f"m.onnx: node lstm: {name} has no activation_alpha, and its default is ambiguous (the "
        "operator text says 1, ONNX Runtime computes 0). Write activation_alpha into the model",
    ):
        read(["Sigmoid", name, "Tanh"])


@pytest.mark.parametrize("name", ["Affine", "ScaledTanh"])
def test_onnx_betas_that_contradict_are_refused(name: str) -> None:
    with refused(
        UnsupportedError,
        f"m.onnx: node lstm: {name} has no activation_beta, and its default is ambiguous (the "
        "operator text says 1, ONNX Runtime computes 0). Write activation_beta into the model",
    ):
        read(["Sigmoid", name, "Tanh"], [1.0])


def test_onnx_names_that_are_none() -> None:
    with refused(
        UnsupportedError,
        "m.onnx: node lstm: activations names 'Gelu', expected one of Sigmoid, Tanh, Relu, "
        "HardSigmoid, LeakyRelu, ThresholdedRelu, Elu, ScaledTanh, Affine, Softsign, Softplus",
    ):
        read(["Sigmoid", "Gelu", "Tanh"])


def test_onnx_values_left_over() -> None:
    rule = "expected one value for each activation that takes the parameter, in order"
    with refused(
        FormatError,
        "m.onnx: node lstm: activation_alpha has 1 more value than the activations Sigmoid, Tanh, "
        f"Elu take, {rule}",
    ):
        read(["Sigmoid", "Tanh", "Elu"], [1.0, 2.0])
    with refused(
        FormatError,
        "m.onnx: node lstm: activation_beta has 2 more values than the activations Sigmoid, Tanh, "
        f"Tanh take, {rule}",
    ):
        read(["Sigmoid", "Tanh", "Tanh"], [], [1.0, 2.0])


def test_onnx_values_that_are_not_finite() -> None:
    with refused(
        ModelError,
        "m.onnx: node lstm: activation elu has alpha=nan, expected a finite number",
    ):
        read(["Sigmoid", "Tanh", "Elu"], [math.nan])


# -- meaning in float64 ---------------------------------------------------------------------------

EXAMPLES = {
    "hard_sigmoid": (0.3, 0.45),
    "leaky_relu": (0.1,),
    "thresholded_relu": (0.6,),
    "elu": (1.5,),
    "scaled_tanh": (1.7, 0.6),
    "affine": (0.8, -0.2),
}

ROUNDINGS = 8 * 2.0**-53
"""A few roundings of 1: the plain exp(x) - 1 and log(1 + exp(x)) lose that much where they cancel,
and so does the sigmoid's 1 + exp(-x)."""


def plain(name: str, x: float, a: float, b: float) -> float:
    """The activation from its textbook equation, with the math module."""
    match name:
        case "sigmoid":
            return 1 / (1 + math.exp(-x))
        case "tanh":
            return math.tanh(x)
        case "relu":
            return x if x > 0 else 0.0
        case "linear":
            return x
        case "hard_sigmoid":
            return max(0.0, min(1.0, a * x + b))
        case "leaky_relu":
            return x if x >= 0 else a * x
        case "thresholded_relu":
            return x if x > a else 0.0
        case "elu":
            return x if x >= 0 else a * (math.exp(x) - 1)
        case "scaled_tanh":
            return a * math.tanh(b * x)
        case "affine":
            return a * x + b
        case "softsign":
            return x / (1 + abs(x))
        case "softplus":
            return math.log(1 + math.exp(x))
    raise AssertionError(name)


POINTS = np.array([-30.0, -7.5, -2.0, -0.6, -0.5, -0.01, 0.0, 0.01, 0.5, 0.6, 0.61, 2.0, 7.5, 30.0])


@pytest.mark.parametrize("name", GATE_ACTIVATIONS)
def test_truth_is_the_equation(name: str) -> None:
    parameters = EXAMPLES.get(name, ())
    a, b = (*parameters, 0.0, 0.0)[:2]
    found = truth.activate(Activation(name, *parameters), POINTS)
    for x, y in zip(POINTS.tolist(), found.tolist(), strict=True):
        assert abs(y - plain(name, x, a, b)) <= ROUNDINGS * max(1.0, abs(y)), x


def test_softmax_sums_to_one_and_does_not_overflow() -> None:
    found = truth.activate(SOFTMAX, np.array([[1000.0, 1001.0], [0.0, -1e308]]))
    low = math.exp(-1)
    assert (np.abs(found[0] - [low / (1 + low), 1 / (1 + low)]) <= ROUNDINGS).all()
    assert found[1].tolist() == [1.0, 0.0]


def test_defaults_name_parameters_that_exist() -> None:
    for name, values in ONNX_LSTM_DEFAULTS.items():
        assert tuple(values) == activations.PARAMETERS[name]
