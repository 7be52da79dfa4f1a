"""Derivatives of activations, clips and norms in float64: what gradient.py is put together from.

d before a name is the gradient of the loss by it. Choices where a derivative does not exist:
SPEC.md 10.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import Activation
from ifgo.cell import MatrixNorm
from ifgo.errors import UsageError
from ifgo.layers import BatchNorm

F64 = NDArray[np.float64]

Variance = Literal["biased", "unbiased"]
"""The variance of n rows: squares summed and divided by n (PyTorch, Keras) or n - 1 (Darknet)."""


def _sigmoid_slope(x: F64) -> F64:
    """Without the cancellation of s(1 - s) where s is near 1."""
    e = np.exp(-np.abs(x))
    return e / (1 + e) ** 2


def _tanh_slope(x: F64) -> F64:
    return 4 * _sigmoid_slope(2 * x)


def _sigmoid(x: F64) -> F64:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


SLOPES: dict[str, Callable[[F64, float, float], F64]] = {
    "sigmoid": lambda x, a, b: _sigmoid_slope(x),
    "tanh": lambda x, a, b: _tanh_slope(x),
    "relu": lambda x, a, b: np.where(x > 0, 1.0, 0.0),
    "linear": lambda x, a, b: np.ones_like(x),
    "hard_sigmoid": lambda x, a, b: np.where((a * x + b > 0) & (a * x + b < 1), a, 0.0),
    "leaky_relu": lambda x, a, b: np.where(x > 0, 1.0, a),
    "thresholded_relu": lambda x, a, b: np.where(x > a, 1.0, 0.0),
    "elu": lambda x, a, b: np.where(x > 0, 1.0, a * np.exp(np.minimum(x, 0))),
    "scaled_tanh": lambda x, a, b: a * b * _tanh_slope(b * x),
    "affine": lambda x, a, b: np.full_like(x, a),
    "softsign": lambda x, a, b: 1 / (1 + np.abs(x)) ** 2,
    "softplus": lambda x, a, b: _sigmoid(x),
}
"""Name → derivative by x, element by element."""


def slope(activation: Activation, x: F64) -> F64:
    """The derivative of an activation that works element by element, at x."""
    return SLOPES[activation.name](x, activation.alpha or 0.0, activation.beta or 0.0)


def activation_backward(activation: Activation, x: F64, y: F64, dy: F64) -> F64:
    """dx of y = activation(x); softmax mixes the last axis."""
    if activation.name == "softmax":
        return y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return dy * slope(activation, x)


def clip_slope(x: F64, bound: float | None) -> F64:
    """1 where clip(x, bound) follows x, 0 where it holds, the bound itself included."""
    return np.ones_like(x) if bound is None else np.where(np.abs(x) < bound, 1.0, 0.0)


@dataclass(frozen=True)
class Normalised:
    """value = (x - mean) / divisor, (N, F); the rest (F,).

    slope: of the divisor by the variance. freedom: what the squares were divided by, or None where
    the statistics are stored and do not depend on x.
    """

    value: F64
    mean: F64
    variance: F64
    divisor: F64
    slope: F64
    freedom: int | None


def normalise(
    x: F64, norm: MatrixNorm | BatchNorm, variance: Variance | None, where: str
) -> Normalised:
    """x (N, F) by the stored statistics, or by those of its N rows where `variance` says how.

    Raises UsageError naming `where` on an unbiased variance of one row.
    """
    freedom: int | None = None
    if variance is None:
        mean, squares = norm.mean.astype(np.float64), norm.variance.astype(np.float64)
    else:
        freedom = x.shape[0] - (variance == "unbiased")
        if not freedom:
            raise UsageError(
                "takes the unbiased variance of one row",
                where=where,
                expected="a batch of at least 2, or the biased variance",
            )
        mean = x.mean(axis=0)
        squares = ((x - mean) ** 2).sum(axis=0) / freedom
    if norm.epsilon_outside:
        root = np.sqrt(squares)
        divisor = root + norm.epsilon
        slopes = np.divide(0.5, root, out=np.zeros_like(root), where=root > 0)
    else:
        divisor = np.sqrt(squares + norm.epsilon)
        slopes = 0.5 / divisor
    return Normalised((x - mean) / divisor, mean, squares, divisor, slopes, freedom)


def normalise_backward(done: Normalised, dvalue: F64) -> tuple[F64, F64, F64]:
    """(dx (N, F), dmean (F,), dvariance (F,)), the last two of stored statistics.

    Statistics of the rows themselves pass their gradients on to x, and stored ones get none.
    """
    direct = dvalue / done.divisor
    dmean = -direct.sum(axis=0)
    dvariance = -(direct * done.value).sum(axis=0) * done.slope
    if done.freedom is None:
        return direct, dmean, dvariance
    centred = done.value * done.divisor
    through = dvariance * 2 / done.freedom * centred + dmean / len(dvalue)
    return direct + through, np.zeros_like(dmean), np.zeros_like(dmean)


def float64(array: object) -> F64:
    """A stored array in float64."""
    return cast("NDArray[np.floating]", array).astype(np.float64)
