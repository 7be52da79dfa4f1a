"""Local error bounds: how far one float32 step may lie from the same step in float64.

Both start from the same x, h and c, so nothing accumulates over time: a bound over many steps
grows with the network's own amplification and soon says nothing. First-order rounding analysis,
SPEC.md section 6: u = 2⁻²⁴, a sum of K products is off by at most (K+3)·u·(|b| + Σ|w||v|) + K·η:
a product (or quotient) that underflows is off by half the least denormal, η = 2⁻¹⁵⁰; sums are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

ETA: Final = 2.0**-150
"""Half the least denormal of float32: what a product loses where u times it says nothing."""

SAFETY: Final = 1.0 + 2.0**-10
"""Covers the terms of second order in u that the analysis drops, for K below 10⁴."""


@dataclass(frozen=True)
class ActivationErrors:
    """Largest absolute error of a runtime's float32 tanh and sigmoid against the true functions."""

    tanh: float
    sigmoid: float


IFGO: Final = ActivationErrors(9.2e-8, 6.0e-8)
"""Ours, measured over every float32 (tests of the activations)."""

CONTRACTED: Final = ActivationErrors(1.0e-7, 6.5e-8)
"""Ours with products and sums fused: 9.31e-8 and 6.10e-8 measured over every float32 with all of
them fused, by two compilers; the room is for a compiler that fuses only some."""

ENGINE: Final = ActivationErrors(4.4e-7, 2.4e-7)
"""The compiled engine's rational forms: 4.2e-7 and 2.3e-7 measured on SSE4.2, 3.7e-7 and 2.0e-7 on
wider vectors, over every float32 between 2⁻²⁴ and 2⁶ (tests/
engine/test_engine_activations.py)."""

ONNXRUNTIME: Final = ActivationErrors(3.6e-7, 2.1e-7)
"""The rational forms of its kernels: 3.5e-7 and 2.0e-7 measured over a dense grid."""

LIBM: Final = ActivationErrors(1.2e-7, 1.2e-7)
"""A good libm or vector library: about 1 ulp of a value below 1, two operations in a sigmoid.
PyTorch's LSTM kernels: 7.3e-8 and 9.0e-8 measured over a dense grid."""


def activation_bound(
    activation: Activation, z: F64, y: F64, delta: F64, errors: ActivationErrors
) -> F64:
    """Bound of activation(z) where z is off by delta; y is its true value."""
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
            return alpha * (beta * delta + errors.tanh) + 4 * U * (np.abs(y) + alpha * beta) + ETA
        case "affine":
            return alpha * delta + 4 * U * (np.abs(y) + beta) + ETA
        case "softsign" | "softplus":
            return delta + rounding
        case "thresholded_relu":
            jumps = np.abs(z - (activation.alpha or 0.0)) <= delta + U * alpha
            return np.where(jumps, np.abs(z) + delta, delta)
        case _:
            raise UnsupportedError(f"activation {activation} has no local bound")


def sum_bound(source: F64, weight: NDArray[np.floating], extra: F64, terms: int) -> F64:
    """(K+3)·u·(extra + Σ|w||v|) + K·η. source (N, K), weight (M, K), extra (M,) or (N, M) → (N, M).

    terms: K, and what else is summed.
    """
    total = extra + np.abs(source) @ np.abs(weight.T.astype(np.float64))
    return (terms + 3) * U * total + terms * ETA


def cell_bounds(
    cell: LSTMCell,
    x: F64,
    h: F64,
    c: F64,
    now: truth.Step,
    errors: ActivationErrors,
    c_off: F64 | float = 0.0,
) -> dict[str, F64]:
    """Bound of every part of one step; x (N, I), h (N, P), c (N, H) as the float32 step saw them.

    now: the float64 step from the same values. c_off (N, H): how far the c that the float32 step
    saw may lie from `c`. Keys are those of truth.TRACED.
    """
    size = cell.hidden_size
    z = _sums(cell, x, h)
    peephole = None if cell.peephole is None else np.abs(cell.peephole.astype(np.float64))
    norm = _LayerNorms(cell, x, h, c, now)
    if peephole is not None:
        for row, letter in enumerate("if"):
            rounding = 3 * U * (norm.magnitude(letter) + peephole[row] * np.abs(c)) + ETA
            z[letter] = z[letter] + rounding + peephole[row] * c_off
    for letter in "ifg":
        z[letter] = norm.bound(letter, z[letter]) + U * (cell.clip_z or 0.0)
    gate_act, cell_act, hidden_act = cell.activations
    i = activation_bound(gate_act, now.z_i, now.i, z["i"], errors)
    f = activation_bound(gate_act, now.z_f, now.f, z["f"], errors)
    if cell.coupling == "f=1-i":
        f = i + U
    elif cell.coupling == "i=1-f":
        i = f + U
    g = activation_bound(cell_act, now.z_g, now.g, z["g"], errors)
    products = np.abs(now.f * c) + np.abs(now.i * now.g)
    c_bound = np.abs(c) * f + np.abs(now.g) * i + np.abs(now.i) * g + i * g + 3 * U * products
    c_bound = c_bound + (np.abs(now.f) + f) * c_off + U * (cell.clip_cell or 0.0) + 2 * ETA
    z_o = z["o"]
    if peephole is not None:
        rounding = 3 * U * (norm.magnitude("o") + peephole[2] * np.abs(now.c))
        z_o = z_o + peephole[2] * c_bound + rounding + ETA
    z_o = norm.bound("o", z_o) + U * (cell.clip_z or 0.0)
    o = activation_bound(gate_act, now.z_o, now.o, z_o, errors)
    shown = truth.activate(hidden_act, now.c)
    shown_bound = activation_bound(hidden_act, now.c, shown, c_bound, errors)
    m = np.abs(now.o) * shown_bound + np.abs(shown) * o + o * shown_bound + 2 * U * np.abs(now.m)
    m = m + ETA
    out = m
    if cell.weight_hr is not None:
        start = np.zeros(cell.output_size)
        if cell.bias_hr is not None:
            start = np.abs(cell.bias_hr.astype(np.float64))
        out = m @ np.abs(cell.weight_hr.T.astype(np.float64))
        out = out + sum_bound(now.m, cell.weight_hr, start, size + 1)
        out = out + U * (cell.clip_projection or 0.0)
    found = {"z_i": z["i"], "z_f": z["f"], "z_g": z["g"], "z_o": z_o, "i": i, "f": f, "g": g}
    found |= {"o": o, "c": c_bound, "m": m, "h": out}
    return {part: bound * SAFETY for part, bound in found.items()}


def _sums(cell: LSTMCell, x: F64, h: F64) -> dict[str, F64]:
    """Gate letter → bound of its sums before peephole and norm, folded batch norms included.

    A folded weight or bias is rounded once more: one further u in the count of terms, and η.
    """
    size = cell.hidden_size
    terms = cell.input_size + cell.output_size + 2
    total = np.zeros((x.shape[0], 4 * size))
    bias = np.zeros(4 * size)
    underflow = np.full((x.shape[0], 1), terms * ETA)
    for source, side, norm in ((x, "ih", cell.input_norm), (h, "hh", cell.hidden_norm)):
        weight = np.abs(getattr(cell, f"weight_{side}").astype(np.float64))
        stored = getattr(cell, f"bias_{side}")
        if stored is not None:
            bias = bias + np.abs(stored.astype(np.float64))
        if norm is not None:
            variance = norm.variance.astype(np.float64)
            root = np.sqrt(variance) if norm.epsilon_outside else np.sqrt(variance + norm.epsilon)
            divisor = root + (norm.epsilon if norm.epsilon_outside else 0.0)
            gain = np.abs(norm.scale.astype(np.float64)) / divisor
            weight = weight * gain[:, None]
            underflow = underflow + ETA * (1 + np.abs(source).sum(axis=-1, keepdims=True))
            bias = bias + np.abs(norm.mean.astype(np.float64)) * gain
        total = total + np.abs(source) @ weight.T
    bias[size : 2 * size] += abs(cell.forget_bias)
    parts = np.split((terms + 3) * U * (bias + total) + underflow, 4, axis=-1)
    return dict(zip("ifgo", parts, strict=True))


class _LayerNorms:
    """What layer norm makes of the bounds: y = d/s·w + b, d = z − mean, s = sqrt(var + eps).

    |δd| ≤ 2·max δz + rounding; s is 1-Lipschitz in the root mean square of d; |d/s| ≤ √n whatever
    the error. Without layer norm every bound passes through.
    """

    def __init__(self, cell: LSTMCell, x: F64, h: F64, c: F64, now: truth.Step) -> None:
        self.norm = cell.layer_norm
        self.now = now
        if self.norm is None:
            return
        bare = replace(cell, layer_norm=None, bias_ih=None, bias_hh=None, forget_bias=0.0)
        self.raw = truth.step(replace(bare, peephole=None), x, h, c)
        self.peephole = cell.peephole
        self.bias = np.zeros(4 * cell.hidden_size)
        for part in (cell.bias_ih, cell.bias_hh):
            self.bias = self.bias + (0.0 if part is None else np.abs(part.astype(np.float64)))
        self.bias[cell.hidden_size : 2 * cell.hidden_size] += abs(cell.forget_bias)
        self.c = c

    def magnitude(self, letter: str) -> F64:
        """|z| before norm and bias."""
        if self.norm is None:
            return np.abs(getattr(self.now, f"z_{letter}"))
        return np.abs(self._sum(letter))

    def _sum(self, letter: str) -> F64:
        total = getattr(self.raw, f"z_{letter}")
        if self.peephole is None or letter == "g":
            return total
        seen = self.now.c if letter == "o" else self.c
        return total + self.peephole["ifo".index(letter)].astype(np.float64) * seen

    def bound(self, letter: str, delta: F64) -> F64:
        """The bound of z after norm and bias, from that of the sums."""
        if self.norm is None:
            return delta
        row = "ifgo".index(letter)
        weight = np.abs(self.norm.weight[row].astype(np.float64))
        z = self._sum(letter)
        n = z.shape[-1]
        d: F64 = z - z.mean(axis=-1, keepdims=True)
        s: F64 = np.sqrt((d * d).mean(axis=-1, keepdims=True) + self.norm.epsilon)
        largest = np.abs(z).max(axis=-1, keepdims=True)
        d_off = 2 * delta.max(axis=-1, keepdims=True) + (n + 4) * U * 2 * largest + ETA
        s_off: F64 = d_off + (n + 8) * U * s + n * ETA / s
        y = np.abs(d) / s * weight
        off: F64 = weight * (d_off / s + np.abs(d) * s_off / s**2) * (1 + 2 * s_off / s)
        safe: F64 = np.where(np.less_equal(s_off, s / 2), off, 2 * np.sqrt(n) * weight)
        rounding = 6 * U * (y + np.split(self.bias, 4)[row]) + ETA * (1 + weight)
        return safe + rounding


def dense_bound(
    layer: Dense, x: F64, y: F64, errors: ActivationErrors, x_off: F64 | None = None
) -> F64:
    """Bound of a Dense layer's output; x (N, I) as the float32 layer saw it, but for an error of at
    most x_off (N, I); y the true output."""
    start = np.zeros(layer.weight.shape[0])
    if layer.bias is not None:
        start = np.abs(layer.bias.astype(np.float64))
    seen = np.abs(x) if x_off is None else np.abs(x) + x_off
    delta = sum_bound(seen, layer.weight, start, layer.weight.shape[1] + 1)
    if x_off is not None:
        delta = delta + x_off @ np.abs(layer.weight.T.astype(np.float64))
    if layer.activation.name == "softmax":
        return softmax_bound(y, delta) * SAFETY
    z = x @ layer.weight.T.astype(np.float64)
    if layer.bias is not None:
        z = z + layer.bias.astype(np.float64)
    return activation_bound(layer.activation, z, y, delta, errors) * SAFETY


def softmax_bound(y: F64, delta: F64) -> F64:
    """Softmax of n values off by delta: y changes by the factor e^(2·max δ) at most, stays in
    [0, 1], and n+12 roundings (powers, sum) follow; two of them may underflow.

    The difference to the largest value, ln(max y / y), rounds too: u times it."""
    below = np.log(y.max(axis=-1, keepdims=True) / np.maximum(y, 2.0**-1000))
    worst = 2 * delta.max(axis=-1, keepdims=True) + U * below
    moved = np.minimum(y * np.expm1(np.minimum(worst, 100.0)), 1.0)
    return moved + y * 2 * (y.shape[-1] + 12) * U + 4 * ETA
