"""Forward and backward of one cell over one direction in time, in float64.

Back-propagation through time (Werbos 1990) of the cell of SPEC.md 1.1: Hochreiter and Schmidhuber
1997, with forget gates (Gers, Schmidhuber and Cummins 2000), peepholes (Gers and Schmidhuber 2000)
and projection (Sak, Senior and Beaufays 2014). d before a name is the gradient of the loss by it.
Letters: B batch, T time, I input, H hidden, P output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifgo.cell import LSTMCell, MatrixNorm
from ifgo.reference._derivatives import (
    F64,
    Normalised,
    Variance,
    clip_slope,
    float64,
    normalise,
    normalise_backward,
    slope,
)
from ifgo.reference.truth import activate

Bools = NDArray[np.bool_]
I, F, G, O = range(4)  # noqa: E741
PEEPHOLE_ROWS = {I: 0, F: 1, O: 2}


@dataclass(frozen=True)
class Plan:
    """What one direction of one layer computes, over the whole sequence.

    x (B, T, I) and the state h (B, P), c (B, H) that it starts from; order: the times, as they are
    processed; counts (B, T): the steps that change the state; inside (B, T): those that are no
    padding. input_factors (B, T, I) and hidden_factors (B, T, P): dropout, or None. variances:
    "input_norm", "hidden_norm" → how the statistics of each batch are taken, where they are.
    """

    cell: LSTMCell
    where: str
    x: F64
    h: F64
    c: F64
    order: range
    counts: Bools
    inside: Bools
    zero_masked: bool
    input_factors: F64 | None
    hidden_factors: F64 | None
    variances: Mapping[str, Variance]


@dataclass(frozen=True)
class Step:
    """What the backward of one step needs, all (B, ·): x and h as the matrices see them, c before
    the step, pre-activations z before their clip, gates, c and h after the step before their clip,
    act_h(c). layer: per gate, value and deviation of the layer norm."""

    x: F64
    h: F64
    c: F64
    products: dict[str, Normalised]
    layer: dict[int, tuple[F64, F64]]
    z: dict[int, F64]
    i: F64
    f: F64
    g: F64
    o: F64
    c_raw: F64
    c_new: F64
    shown: F64
    m: F64
    h_raw: F64
    h_new: F64


@dataclass(frozen=True)
class Swept:
    """y (B, T, P), the final h and c, and every step by time."""

    y: F64
    h: F64
    c: F64
    steps: dict[int, Step]


def step_forward(plan: Plan, t: int, h: F64, c: F64) -> Step:
    """One step from h (B, P), c (B, H)."""
    cell, hidden = plan.cell, plan.cell.hidden_size
    x = plan.x[:, t]
    if plan.input_factors is not None:
        x = x * plan.input_factors[:, t]
    if plan.hidden_factors is not None:
        h = h * plan.hidden_factors[:, t]
    products: dict[str, Normalised] = {}
    total = np.zeros((len(x), 4 * hidden))
    for name, values, weight, norm in (
        ("input_norm", x, cell.weight_ih, cell.input_norm),
        ("hidden_norm", h, cell.weight_hh, cell.hidden_norm),
    ):
        product = values @ float64(weight).T
        if norm is not None:
            where = f"{plan.where}.{name}"
            products[name] = normalise(product, norm, plan.variances.get(name), where)
            product = products[name].value * float64(norm.scale)
        total = total + product
    bias = np.zeros(4 * hidden)
    for part in (cell.bias_ih, cell.bias_hh):
        bias = bias if part is None else bias + float64(part)
    bias[hidden : 2 * hidden] += cell.forget_bias
    sums, biases = np.split(total, 4, axis=-1), np.split(bias, 4)
    layer: dict[int, tuple[F64, F64]] = {}
    z: dict[int, F64] = {}

    def gate(row: int, seen: F64) -> F64:
        v = sums[row]
        if cell.peephole is not None and row in PEEPHOLE_ROWS:
            v = v + float64(cell.peephole[PEEPHOLE_ROWS[row]]) * seen
        if cell.layer_norm is not None:
            deviation = np.sqrt(v.var(axis=-1, keepdims=True) + cell.layer_norm.epsilon)
            layer[row] = (v - v.mean(axis=-1, keepdims=True)) / deviation, deviation
            v = layer[row][0] * float64(cell.layer_norm.weight[row])
        z[row] = v + biases[row]
        return activate(cell.activations[1 if row == G else 0], _clip(z[row], cell.clip_z))

    i, f = gate(I, c), gate(F, c)
    if cell.coupling == "f=1-i":
        f = 1 - i
    elif cell.coupling == "i=1-f":
        i = 1 - f
    g = gate(G, c)
    c_raw = f * c + i * g
    c_new = _clip(c_raw, cell.clip_cell)
    o = gate(O, c_new)
    shown = activate(cell.activations[2], c_new)
    m = o * shown
    h_raw = m
    if cell.weight_hr is not None:
        h_raw = m @ float64(cell.weight_hr).T
        h_raw = h_raw if cell.bias_hr is None else h_raw + float64(cell.bias_hr)
    h_new = _clip(h_raw, cell.clip_projection)
    return Step(x, h, c, products, layer, z, i, f, g, o, c_raw, c_new, shown, m, h_raw, h_new)


def step_backward(
    plan: Plan, t: int, step: Step, dh: F64, dc: F64, arrays: dict[str, F64]
) -> tuple[F64, F64, F64]:
    """(dx, dh, dc) of what went into the step, from those of what came out.

    Adds to `arrays`, the gradients of the cell's arrays by name.
    """
    cell = plan.cell
    gate_act, candidate_act, shown_act = cell.activations
    if cell.weight_hr is None:
        dm = dh
    else:
        dh_raw = dh * clip_slope(step.h_raw, cell.clip_projection)
        arrays["weight_hr"] += dh_raw.T @ step.m
        if cell.bias_hr is not None:
            arrays["bias_hr"] += dh_raw.sum(axis=0)
        dm = dh_raw @ float64(cell.weight_hr)
    dv: dict[int, F64] = {}

    def gate_backward(row: int, da: F64, seen: F64) -> F64:
        """From d of the gate to dv of its sum; returns what the peephole passes to the cell."""
        z = step.z[row]
        activation = candidate_act if row == G else gate_act
        dz = da * slope(activation, z) * clip_slope(z, cell.clip_z)
        rows = slice(row * cell.hidden_size, (row + 1) * cell.hidden_size)
        for name in ("bias_ih", "bias_hh"):
            if name in arrays:
                arrays[name][rows] += dz.sum(axis=0)
        dv[row] = dz
        if cell.layer_norm is not None:
            value, deviation = step.layer[row]
            arrays["layer_norm.weight"][row] += (dz * value).sum(axis=0)
            d = dz * float64(cell.layer_norm.weight[row])
            mean, along = d.mean(axis=-1, keepdims=True), (d * value).mean(axis=-1, keepdims=True)
            dv[row] = (d - mean - value * along) / deviation
        if cell.peephole is None or row not in PEEPHOLE_ROWS:
            return np.zeros_like(seen)
        arrays["peephole"][PEEPHOLE_ROWS[row]] += (dv[row] * seen).sum(axis=0)
        return dv[row] * float64(cell.peephole[PEEPHOLE_ROWS[row]])

    dc = dc + dm * step.o * slope(shown_act, step.c_new)
    dc = dc + gate_backward(O, dm * step.shown, step.c_new)
    dc = dc * clip_slope(step.c_raw, cell.clip_cell)
    di, df, dg = dc * step.g, dc * step.c, dc * step.i
    if cell.coupling == "f=1-i":
        di, df = di - df, np.zeros_like(df)
    elif cell.coupling == "i=1-f":
        di, df = np.zeros_like(di), df - di
    dc_before = dc * step.f
    dc_before = dc_before + gate_backward(I, di, step.c)
    dc_before = dc_before + gate_backward(F, df, step.c)
    gate_backward(G, dg, step.c)
    total = np.concatenate([dv[row] for row in (I, F, G, O)], axis=-1)

    def product_backward(name: str, norm: MatrixNorm | None) -> F64:
        if norm is None:
            return total
        done = step.products[name]
        arrays[f"{name}.scale"] += (total * done.value).sum(axis=0)
        dproduct, dmean, dvariance = normalise_backward(done, total * float64(norm.scale))
        arrays[f"{name}.mean"] += dmean
        arrays[f"{name}.variance"] += dvariance
        return dproduct

    dproduct_x = product_backward("input_norm", cell.input_norm)
    dproduct_h = product_backward("hidden_norm", cell.hidden_norm)
    arrays["weight_ih"] += dproduct_x.T @ step.x
    arrays["weight_hh"] += dproduct_h.T @ step.h
    dx = dproduct_x @ float64(cell.weight_ih)
    dh_before = dproduct_h @ float64(cell.weight_hh)
    if plan.input_factors is not None:
        dx = dx * plan.input_factors[:, t]
    if plan.hidden_factors is not None:
        dh_before = dh_before * plan.hidden_factors[:, t]
    return dx, dh_before, dc_before


def sweep_forward(plan: Plan) -> Swept:
    """Every step of the plan. A step that does not count leaves the state, and puts out the last
    output, or zeros (SPEC.md 1.5, 7.2)."""
    h, c = plan.h, plan.c
    y = np.zeros((*plan.x.shape[:2], plan.cell.output_size))
    repeated = np.zeros_like(h)
    steps: dict[int, Step] = {}
    for t in plan.order:
        now = steps[t] = step_forward(plan, t, h, c)
        counts, inside = plan.counts[:, t][:, None], plan.inside[:, t][:, None]
        h, c = np.where(counts, now.h_new, h), np.where(counts, now.c_new, c)
        repeated = np.where(counts, now.h_new, repeated)
        shown = np.where(counts, repeated, 0.0) if plan.zero_masked else repeated
        y[:, t] = np.where(inside, shown, 0.0)
    return Swept(y, h, c, steps)


def sweep_backward(
    plan: Plan, swept: Swept, dy: F64, dh: F64, dc: F64
) -> tuple[F64, F64, F64, dict[str, F64]]:
    """(dx (B, T, I), dh, dc of the state at the start, gradients of the cell's arrays by name).

    dy (B, T, P); dh (B, P) and dc (B, H) of the final state.
    """
    arrays = {name: np.zeros(array.shape) for name, array in plan.cell.arrays.items()}
    dx = np.zeros(plan.x.shape)
    drepeated = np.zeros_like(dh)
    for t in reversed(plan.order):
        counts, inside = plan.counts[:, t][:, None], plan.inside[:, t][:, None]
        shown = inside & counts if plan.zero_masked else inside
        drepeated = drepeated + np.where(shown, dy[:, t], 0.0)
        dx[:, t], dh_step, dc_step = step_backward(
            plan,
            t,
            swept.steps[t],
            np.where(counts, dh + drepeated, 0.0),
            np.where(counts, dc, 0.0),
            arrays,
        )
        drepeated = np.where(counts, 0.0, drepeated)
        dh, dc = np.where(counts, dh_step, dh), np.where(counts, dc_step, dc)
    return dx, dh, dc, arrays


def _clip(x: F64, bound: float | None) -> F64:
    return x if bound is None else np.clip(x, -bound, bound)
