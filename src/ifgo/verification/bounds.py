"""Local error bounds: how far one float32 step may lie from the same step in float64.

Both start from the same x, h and c, so nothing accumulates over time: a bound over many steps
grows with the network's own amplification and soon says nothing. First-order rounding analysis,
SPEC.md section 6: u = 2⁻²⁴, a sum of K products is off by at most (K+3)·u·(|b| + Σ|w||v|).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import Activation
from ifgo.errors import UnsupportedError
from ifgo.model import Dense, LSTMCell
from ifgo.reference import truth

F64 = NDArray[np.float64]

U: Final = 2.0**-24
"""Unit roundoff of float32."""

SAFETY: Final = 1.0 + 2.0**-10
"""Covers the terms of second order in u that the analysis drops, for K below 10⁴."""


@dataclass(frozen=True)
class ActivationErrors:
    """Largest absolute error of a runtime's float32 tanh and sigmoid against the true functions."""

    tanh: float
    sigmoid: float


IFGO: Final = ActivationErrors(9.2e-8, 6.0e-8)
"""Ours, measured over every float32 (tests of the activations)."""

ONNXRUNTIME: Final = ActivationErrors(3.6e-7, 2.1e-7)
"""The rational forms of its kernels: 3.5e-7 and 2.0e-7 measured over a dense grid."""

LIBM: Final = ActivationErrors(1.2e-7, 1.2e-7)
"""A good libm or vector library: about 1 ulp of a value below 1, two operations in a sigmoid."""


def activation_bound(activation: Activation, y: F64, delta: F64, errors: ActivationErrors) -> F64:
    """Bound of activation(z) where z is off by delta; y is the true value."""
    alpha, beta = abs(activation.alpha or 0.0), abs(activation.beta or 0.0)
    rounding = 4 * U * (np.abs(y) + 1)
    match activation.name:
        case "sigmoid":
            return delta / 4 + errors.sigmoid
        case "tanh":
            return delta + errors.tanh
        case "relu" | "linear":
            return delta
        case "hard_sigmoid":
            return alpha * delta + 4 * U * (np.abs(y) + beta + 1)
        case "leaky_relu" | "elu":
            return max(1.0, alpha) * delta + rounding * max(1.0, alpha)
        case "scaled_tanh":
            return alpha * (beta * delta + errors.tanh) + 4 * U * (np.abs(y) + alpha * beta)
        case "affine":
            return alpha * delta + 4 * U * (np.abs(y) + beta)
        case "softsign" | "softplus":
            return delta + rounding
        case _:
            raise UnsupportedError(f"activation {activation} has no local bound")


def sum_bound(source: F64, weight: NDArray[np.floating], extra: F64, terms: int) -> F64:
    """(K+3)·u·(extra + Σ|w||v|). source (N, K), weight (M, K), extra (M,) or (N, M) → (N, M)."""
    return (terms + 3) * U * (extra + np.abs(source) @ np.abs(weight.T.astype(np.float64)))


def cell_bounds(
    cell: LSTMCell, x: F64, h: F64, c: F64, now: truth.Step, errors: ActivationErrors
) -> dict[str, F64]:
    """Bound of every part of one step; x (N, I), h (N, P), c (N, H) as the float32 step saw them.

    now: the float64 step from the same values. Keys are those of truth.TRACED.
    Raises UnsupportedError where a part has no bound (norms inside the cell, a jumping activation).
    """
    if cell.layer_norm or cell.input_norm or cell.hidden_norm:
        raise UnsupportedError("norms inside a cell have no local bound yet")
    size = cell.hidden_size
    bias = np.zeros(4 * size)
    for part in (cell.bias_ih, cell.bias_hh):
        bias += 0 if part is None else np.abs(part.astype(np.float64))
    bias[size : 2 * size] += abs(cell.forget_bias)
    terms = cell.input_size + cell.output_size + 1
    magnitude = sum_bound(x, cell.weight_ih, bias, terms) + sum_bound(
        h, cell.weight_hh, np.zeros(4 * size), terms
    )
    z = dict(zip("ifgo", np.split(magnitude, 4, axis=-1), strict=True))
    peephole = None if cell.peephole is None else np.abs(cell.peephole.astype(np.float64))
    if peephole is not None:
        z["i"] = z["i"] + 3 * U * (np.abs(now.z_i) + peephole[0] * np.abs(c))
        z["f"] = z["f"] + 3 * U * (np.abs(now.z_f) + peephole[1] * np.abs(c))
    gate_act, cell_act, hidden_act = cell.activations
    i = activation_bound(gate_act, now.i, z["i"], errors)
    f = activation_bound(gate_act, now.f, z["f"], errors)
    if cell.coupling == "f=1-i":
        f = i + U
    elif cell.coupling == "i=1-f":
        i = f + U
    g = activation_bound(cell_act, now.g, z["g"], errors)
    products = np.abs(now.f * c) + np.abs(now.i * now.g)
    c_bound = np.abs(c) * f + np.abs(now.g) * i + np.abs(now.i) * g + i * g + 3 * U * products
    z_o = z["o"]
    if peephole is not None:
        z_o = z_o + peephole[2] * c_bound + 3 * U * (np.abs(now.z_o) + peephole[2] * np.abs(now.c))
    o = activation_bound(gate_act, now.o, z_o, errors)
    shown = truth.activate(hidden_act, now.c)
    shown_bound = activation_bound(hidden_act, shown, c_bound, errors)
    m = np.abs(now.o) * shown_bound + np.abs(shown) * o + o * shown_bound + 2 * U * np.abs(now.m)
    out = m
    if cell.weight_hr is not None:
        start = np.zeros(cell.output_size)
        if cell.bias_hr is not None:
            start = np.abs(cell.bias_hr.astype(np.float64))
        out = m @ np.abs(cell.weight_hr.T.astype(np.float64))
        out = out + sum_bound(now.m, cell.weight_hr, start, size + 1)
    found = {"z_i": z["i"], "z_f": z["f"], "z_g": z["g"], "z_o": z_o, "i": i, "f": f, "g": g}
    found |= {"o": o, "c": c_bound, "m": m, "h": out}
    return {part: bound * SAFETY for part, bound in found.items()}


def dense_bound(layer: Dense, x: F64, y: F64, errors: ActivationErrors) -> F64:
    """Bound of a Dense layer's output; x (N, I) as the float32 layer saw it, y the true output."""
    start = np.zeros(layer.weight.shape[0])
    if layer.bias is not None:
        start = np.abs(layer.bias.astype(np.float64))
    delta = sum_bound(x, layer.weight, start, layer.weight.shape[1] + 1)
    if layer.activation.name == "softmax":
        return softmax_bound(y, delta) * SAFETY
    return activation_bound(layer.activation, y, delta, errors) * SAFETY


def softmax_bound(y: F64, delta: F64) -> F64:
    """Softmax of n values off by delta: |dy| ≤ 2·y·max δ, and n+12 roundings (powers, sum)."""
    worst = delta.max(axis=-1, keepdims=True)
    return y * (2 * worst + 2 * (y.shape[-1] + 12) * U) + 2.0**-149
