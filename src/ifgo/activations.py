"""The activations ifgo knows, their parameters, and which framework means what by a name.

The float64 meaning stands in reference/truth.py, the exact float32 one in reference/float32.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ifgo.errors import FormatError, ModelError, UnsupportedError
from ifgo.fields import check_fields

PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "sigmoid": (),
    "tanh": (),
    "relu": (),
    "linear": (),
    "hard_sigmoid": ("alpha", "beta"),
    "leaky_relu": ("alpha",),
    "thresholded_relu": ("alpha",),
    "elu": ("alpha",),
    "scaled_tanh": ("alpha", "beta"),
    "affine": ("alpha", "beta"),
    "softsign": (),
    "softplus": (),
    "softmax": (),
}
"""Name → the parameters it needs. Equations: SPEC.md section 4."""

GATE_ACTIVATIONS: Final = tuple(name for name in PARAMETERS if name != "softmax")
"""softmax mixes the units of a vector, so no gate may use it."""


@dataclass(frozen=True)
class Activation:
    """One activation function with its parameters (None exactly where it takes none).

    Raises ModelError on an unknown name and on parameters that are missing, extra or not finite.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.name not in PARAMETERS:
            raise ModelError(
                f"unknown activation {self.name!r}",
                expected="one of " + ", ".join(PARAMETERS),
            )
        for parameter in ("alpha", "beta"):
            value: float | None = getattr(self, parameter)
            needed = parameter in PARAMETERS[self.name]
            if needed and (value is None or not math.isfinite(value)):
                raise ModelError(
                    f"activation {self.name} has {parameter}={value}",
                    expected="a finite number",
                )
            if not needed and value is not None:
                raise ModelError(
                    f"activation {self.name} has {parameter}={value}",
                    expected=f"no {parameter}, {self.name} takes none",
                )

    def __str__(self) -> str:
        values = [getattr(self, parameter) for parameter in PARAMETERS[self.name]]
        return f"{self.name}({', '.join(f'{v:g}' for v in values)})" if values else self.name


SIGMOID: Final = Activation("sigmoid")
TANH: Final = Activation("tanh")
LINEAR: Final = Activation("linear")
RELU: Final = Activation("relu")
SOFTMAX: Final = Activation("softmax")
HARD_SIGMOID_KERAS2: Final = Activation("hard_sigmoid", 0.2, 0.5)
HARD_SIGMOID_KERAS3: Final = Activation("hard_sigmoid", 1 / 6, 0.5)

ONNX_NAMES: Final[dict[str, str]] = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "hardsigmoid": "hard_sigmoid",
    "leakyrelu": "leaky_relu",
    "thresholdedrelu": "thresholded_relu",
    "elu": "elu",
    "scaledtanh": "scaled_tanh",
    "affine": "affine",
    "softsign": "softsign",
    "softplus": "softplus",
}
"""ONNX LSTM activation (lower case; the runtime ignores case) → ours."""

ONNX_SPELLING: Final[dict[str, str]] = {
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "hard_sigmoid": "HardSigmoid",
    "leaky_relu": "LeakyRelu",
    "thresholded_relu": "ThresholdedRelu",
    "elu": "Elu",
    "scaled_tanh": "ScaledTanh",
    "affine": "Affine",
    "softsign": "Softsign",
    "softplus": "Softplus",
}
"""Ours → the spelling ONNX writes; linear is Affine(1, 0)."""

ONNX_LSTM_DEFAULTS: Final[dict[str, dict[str, float]]] = {
    "hard_sigmoid": {"alpha": 0.20000000298023224, "beta": 0.5},
    "leaky_relu": {"alpha": 0.009999999776482582},
    "elu": {"alpha": 1.0},
}
"""Defaults that the operator text and ONNX Runtime agree on: 0.2, 0.5, 0.01 and 1 as float32, like
values that a file writes out. For Affine, ScaledTanh and ThresholdedRelu they disagree (1 against
0), so a file must say them."""


def from_onnx_lstm(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float], *, where: str
) -> list[Activation]:
    """Activations of an ONNX LSTM node from its three attributes.

    Values are consumed in order, only by functions that need them (SPEC.md section 4).
    Raises UnsupportedError on an unknown name or an ambiguous default, FormatError on values
    left over, ModelError on values that are not finite; all name `where`, the node.
    """
    alpha_list, beta_list = list(alphas), list(betas)
    result: list[Activation] = []
    for spelled in names:
        name = ONNX_NAMES.get(spelled.lower())
        if name is None:
            raise UnsupportedError(
                f"activations names {spelled!r}",
                where=where,
                expected="one of " + ", ".join(ONNX_SPELLING.values()),
            )
        values: dict[str, float] = {}
        for parameter, given in (("alpha", alpha_list), ("beta", beta_list)):
            if parameter not in PARAMETERS[name]:
                continue
            if given:
                values[parameter] = float(given.pop(0))
            elif parameter in ONNX_LSTM_DEFAULTS.get(name, {}):
                values[parameter] = ONNX_LSTM_DEFAULTS[name][parameter]
            else:
                raise UnsupportedError(
                    f"{spelled} has no activation_{parameter}, and its default is ambiguous "
                    "(the operator text says 1, ONNX Runtime computes 0)",
                    where=where,
                    hint=f"Write activation_{parameter} into the model",
                )
        try:
            found = Activation(name, **values)
        except ModelError as error:
            raise error.located(where) from None
        result.append(LINEAR if found == Activation("affine", 1.0, 0.0) else found)
    for parameter, left in (("alpha", alpha_list), ("beta", beta_list)):
        if left:
            raise FormatError(
                f"activation_{parameter} has {len(left)} more "
                f"{'value' if len(left) == 1 else 'values'} than the activations "
                f"{', '.join(names)} take",
                where=where,
                expected="one value for each activation that takes the parameter, in order",
            )
    return result
