"""The exact float32 activations: NumPy twin of what every target prints (SPEC.md section 4).

Only + − × ÷, comparison, truncation to integer and exponent bits, each rounded once in the stated
order: the same bits from NumPy, from any C compiler that does not fuse, and from any core. The
constants here are the only copy; targets print them into their text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import Activation

F32 = NDArray[np.float32]

LOG2E: Final = np.float32(1.44269504)
LN2_HIGH: Final = np.float32(0.693145751953125)
"""ln 2 with 9 trailing zero bits: n·LN2_HIGH is exact for |n| < 512."""
LN2_LOW: Final = np.float32(1.42860677e-06)

EXP: Final = tuple(
    np.float32(c)
    for c in (
        0.0013814173871651292,
        0.008368921466171741,
        0.04166840761899948,
        0.1666651964187622,
        0.4999999403953552,
        1.0,
        1.0,
    )
)
"""e^r for |r| ≤ ln(2)/2, highest power first; relative error of the fit 3.1e-9."""

TANH: Final = tuple(
    np.float32(c)
    for c in (
        0.016428545117378235,
        -0.05266720429062843,
        0.1332065612077713,
        -0.333329439163208,
    )
)
"""tanh(a) = a + (a·u)·poly(u), u = a², below the split; highest power first."""
TANH_SPLIT: Final = np.float32(0.55)
TANH_LIMIT: Final = np.float32(10.0)
"""From here on 1 − 2/(e^2a + 1) rounds to 1."""

ATANH: Final = tuple(
    np.float32(c)
    for c in (
        0.14009429514408112,
        0.14000260829925537,
        0.20010799169540405,
        0.3333320617675781,
    )
)
"""atanh(s) = s + (s·w)·poly(w), w = s², s ≤ 1/3; highest power first."""

EXP_LOW: Final = np.float32(-104.0)
"""e^x rounds to 0 below."""
EXP_HIGH: Final = np.float32(88.0)
"""e^x is held at e^88 above, so that it never overflows."""

SQRT_SEED: Final = np.int32(0x5F3759DF)
"""1/sqrt starts from the exponent bits: seed − bits/2."""

ZERO: Final = np.float32(0.0)
HALF: Final = np.float32(0.5)
ONE: Final = np.float32(1.0)
TWO: Final = np.float32(2.0)
THREE_HALVES: Final = np.float32(1.5)


def select(condition: Any, yes: Any, no: Any) -> F32:
    """condition ? yes : no, element by element; a comparison with NaN is false."""
    return cast(F32, np.where(condition, yes, no))


def _polynomial(coefficients: tuple[np.float32, ...], x: Any) -> Any:
    value: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _power_of_two(n: NDArray[np.int32]) -> F32:
    """2^n for −126 ≤ n ≤ 127, by exponent bits."""
    return ((n + np.int32(127)) << np.int32(23)).astype(np.int32).view(np.float32)


def _reduced_exp(x: F32, n: NDArray[np.int32]) -> F32:
    """e^(x − n·ln 2), x near n·ln 2."""
    whole = n.astype(np.float32)
    return _polynomial(EXP, (x - whole * LN2_HIGH) - whole * LN2_LOW)


def exp(x: F32) -> F32:
    """e^x, x clamped to [EXP_LOW, EXP_HIGH]; rounds once into the denormals; NaN stays NaN."""
    given = x
    x = select(x > EXP_LOW, x, EXP_LOW)
    x = select(x < EXP_HIGH, x, EXP_HIGH)
    scaled: Any = x * LOG2E
    rounded: F32 = select(x < ZERO, scaled - HALF, scaled + HALF)
    n = rounded.astype(np.int32)
    upper = np.trunc(n.astype(np.float32) * HALF).astype(np.int32)
    power = (_reduced_exp(x, n) * _power_of_two(upper)) * _power_of_two(n - upper)
    return select(given != given, given, power)


def tanh(x: F32) -> F32:
    """tanh, odd (−0 included), monotone, |error| ≤ 9.1e-8 over all float32; NaN stays NaN."""
    a = np.abs(x)
    u: Any = a * a
    with np.errstate(over="ignore", invalid="ignore"):
        near = a + (a * u) * _polynomial(TANH, u)
    held = select(a < TANH_LIMIT, a, TANH_LIMIT)
    doubled = TWO * held
    n = (doubled * LOG2E + HALF).astype(np.int32)
    power = _reduced_exp(doubled, n) * _power_of_two(n)
    far = ONE - TWO / (power + ONE)
    beyond = select(a >= TANH_LIMIT, ONE, a)
    magnitude = select(a < TANH_SPLIT, near, select(a < TANH_LIMIT, far, beyond))
    return np.copysign(magnitude, x)


def sigmoid(x: F32) -> F32:
    """½ + ½·tanh(½·x); |error| ≤ 6.0e-8 over all float32."""
    return HALF + HALF * tanh(HALF * x)


def softplus(x: F32) -> F32:
    """max(x, 0) + log1p(e^−|x|), the logarithm as 2·atanh(t / (2 + t))."""
    t = exp(-np.abs(x))
    s: Any = t / (TWO + t)
    w: Any = s * s
    return select(x > ZERO, x, ZERO) + TWO * (s + (s * w) * _polynomial(ATANH, w))


def _hard_sigmoid(x: F32, alpha: np.float32, beta: np.float32) -> F32:
    v = alpha * x + beta
    v = select(v < ZERO, ZERO, v)
    return select(v > ONE, ONE, v)


FUNCTIONS: Final[dict[str, Callable[[F32, np.float32, np.float32], F32]]] = {
    "sigmoid": lambda x, a, b: sigmoid(x),
    "tanh": lambda x, a, b: tanh(x),
    "relu": lambda x, a, b: select(x < ZERO, ZERO, x),
    "linear": lambda x, a, b: x,
    "hard_sigmoid": _hard_sigmoid,
    "leaky_relu": lambda x, a, b: select(x < ZERO, a * x, x),
    "thresholded_relu": lambda x, a, b: select(x <= a, ZERO, x),
    "elu": lambda x, a, b: select(x < ZERO, a * (exp(x) - ONE), x),
    "scaled_tanh": lambda x, a, b: a * tanh(b * x),
    "affine": lambda x, a, b: a * x + b,
    "softsign": lambda x, a, b: x / (ONE + np.abs(x)),
    "softplus": lambda x, a, b: softplus(x),
}
"""Name → (x, alpha, beta) → y, all float32; softmax is an instruction of its own."""


def apply(activation: Activation, x: F32) -> F32:
    """One element-wise activation over a float32 array of any shape."""
    alpha = np.float32(0.0 if activation.alpha is None else activation.alpha)
    beta = np.float32(0.0 if activation.beta is None else activation.beta)
    return FUNCTIONS[activation.name](x, alpha, beta).astype(np.float32, copy=False)


def softmax(x: F32) -> F32:
    """Over the last axis: maximum subtracted, exponentials summed in ascending order."""
    top = x[..., :1]
    for k in range(1, x.shape[-1]):
        top = select(x[..., k : k + 1] > top, x[..., k : k + 1], top)
    powers = exp(x - top)
    total = np.zeros((*x.shape[:-1], 1), dtype=np.float32)
    for k in range(x.shape[-1]):
        total = total + powers[..., k : k + 1]
    return powers / total


def sqrt(x: F32) -> F32:
    """Square root of normal x > 0: four Newton steps for 1/sqrt, one for the root; ≤ 1 ulp off."""
    half: Any = HALF * x
    r: Any = (SQRT_SEED - (np.ascontiguousarray(x).view(np.int32) >> 1)).view(np.float32)
    for _ in range(4):
        r = r * (THREE_HALVES - (half * r) * r)
    root = x * r
    return root + (HALF * r) * (x - root * root)


def normalise(x: F32, weight: F32, epsilon: np.float32) -> F32:
    """Layer norm over the last axis: every sum ascending, one division per element."""
    size = np.float32(x.shape[-1])
    total = np.zeros(x.shape[:-1], dtype=np.float32)
    for k in range(x.shape[-1]):
        total = total + x[..., k]
    deviation: Any = x - (total / size)[..., None]
    squares = np.zeros_like(total)
    for k in range(x.shape[-1]):
        squares = squares + deviation[..., k] * deviation[..., k]
    return deviation / sqrt(squares / size + epsilon)[..., None] * weight
