"""An LSTM layer once more, in loops over plain Python floats, from the equations of SPEC.md 1.

Every number travels with a bound of its rounding error in some arithmetic: running error analysis,
in which a sum of n terms, added in any order, is off by at most n·u·Σ|term|. So the tolerance of a
comparison follows from the very numbers that are compared. Shares no code with ifgo.reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ifgo.activations import Activation
from ifgo.model import LSTMCell, Recurrent

Number = tuple[float, float]
"""A value and the bound of its error."""


@dataclass(frozen=True)
class Arithmetic:
    """What a runtime computes in. u: unit roundoff; tanh, sigmoid: their largest absolute errors,
    beyond what comes in with their argument."""

    u: float
    tanh: float
    sigmoid: float

    def add(self, *terms: Number) -> Number:
        size = sum(abs(value) for value, _ in terms)
        error = sum(error for _, error in terms) + len(terms) * self.u * size
        return math.fsum(value for value, _ in terms), error

    def mul(self, a: Number, b: Number) -> Number:
        error = abs(a[0]) * b[1] + abs(b[0]) * a[1] + a[1] * b[1]
        return a[0] * b[0], error + 2 * self.u * abs(a[0] * b[0])

    def div(self, a: Number, b: Number) -> Number:
        value = a[0] / b[0]
        error = (a[1] + abs(value) * b[1]) / (abs(b[0]) - b[1])
        return value, error + 2 * self.u * abs(value)

    def sqrt(self, a: Number) -> Number:
        value = math.sqrt(a[0])
        return value, a[1] / (2 * math.sqrt(a[0] - a[1])) + 2 * self.u * value

    def products(self, row: Any, vector: Sequence[Number]) -> list[Number]:
        return [self.mul((float(w), 0.0), v) for w, v in zip(row, vector, strict=True)]

    def activate(self, activation: Activation, z: Number) -> Number:
        x, e = z
        a, b = activation.alpha or 0.0, activation.beta or 0.0
        near = max(abs(x) - e, 0.0)  # where an S-shaped curve is steepest within x ± e
        match activation.name:
            case "sigmoid":
                middle = 1 / (1 + math.exp(-near))
                return 1 / (1 + math.exp(-x)), middle * (1 - middle) * e + self.sigmoid
            case "tanh":
                return math.tanh(x), (1 - math.tanh(near) ** 2) * e + self.tanh
            case "relu":
                return (x if x > 0 else 0.0), e
            case "linear":
                return x, e
            case "hard_sigmoid":
                line = a * x + b
                slope = abs(a) * e + 4 * self.u * (abs(a * x) + abs(b))
                return (0.0 if line < 0 else 1.0 if line > 1 else line), slope
            case "leaky_relu":
                y = x if x >= 0 else a * x
                return y, max(1.0, abs(a)) * e + 2 * self.u * abs(y)
            case "thresholded_relu":
                return (x if x > a else 0.0), abs(x) + e if abs(x - a) <= e else e
            case "elu":
                y = x if x >= 0 else a * (math.exp(x) - 1)
                return y, max(1.0, abs(a) * math.exp(min(x + e, 0.0))) * e + 8 * self.u * abs(a)
            case "scaled_tanh":
                slope = abs(b) * e + 2 * self.u * abs(b * x) + self.tanh
                return a * math.tanh(b * x), abs(a) * slope + 2 * self.u * abs(a)
            case "affine":
                return a * x + b, abs(a) * e + 4 * self.u * (abs(a * x) + abs(b))
            case "softsign":
                return x / (1 + abs(x)), e + 4 * self.u
            case "softplus":
                return math.log(1 + math.exp(x)), e + 8 * self.u * (1 + abs(x))
        raise AssertionError(activation.name)


FLOAT64 = Arithmetic(2.0**-53, 4 * 2.0**-53, 4 * 2.0**-53)
"""libm and NumPy round tanh and exp to within 2 units in the last place; a sigmoid adds two
roundings."""

FLOAT32_LIBM = Arithmetic(2.0**-24, 4 * 2.0**-24, 4 * 2.0**-24)
"""The same in float32."""

FLOAT32_ONNXRUNTIME = Arithmetic(2.0**-24, 3.6e-7, 2.1e-7)
"""Its rational tanh and sigmoid: 3.5e-7 and 2.0e-7 measured over a dense grid (SPEC.md 6)."""


def clip(x: Number, bound: float | None) -> Number:
    return x if bound is None else (max(-bound, min(bound, x[0])), x[1])


def step(
    m: Arithmetic, cell: LSTMCell, x: Sequence[Number], h: Sequence[Number], c: Sequence[Number]
) -> dict[str, list[Number]]:
    """One step: z (before its clip), the gates, c, m (before projection), h."""
    size = cell.hidden_size
    gate, candidate, shown = cell.activations
    now: dict[str, list[Number]] = {name: [] for name in ("c", "m", "h")}

    def normalised(product: list[Number], norm: Any, row: int) -> list[Number]:
        if norm is None:
            return product
        total, variance = m.add(*product), float(norm.variance[row])
        divisor = (
            m.add(m.sqrt((variance, 0.0)), (norm.epsilon, 0.0))
            if norm.epsilon_outside
            else m.sqrt(m.add((variance, 0.0), (norm.epsilon, 0.0)))
        )
        centred = m.add(total, (-float(norm.mean[row]), 0.0))
        return [m.mul(m.div(centred, divisor), (float(norm.scale[row]), 0.0))]

    def pre_activations(block: int, peephole: int | None, state: Sequence[Number]) -> list[Number]:
        sums: list[list[Number]] = []
        for j in range(size):
            row = block * size + j
            terms = normalised(m.products(cell.weight_ih[row], x), cell.input_norm, row)
            terms = terms + normalised(m.products(cell.weight_hh[row], h), cell.hidden_norm, row)
            if cell.peephole is not None and peephole is not None:
                terms.append(m.mul((float(cell.peephole[peephole][j]), 0.0), state[j]))
            sums.append(terms)
        biases: list[list[Number]] = []
        for j in range(size):
            row = block * size + j
            parts = [(float(b[row]), 0.0) for b in (cell.bias_ih, cell.bias_hh) if b is not None]
            biases.append([*parts, (cell.forget_bias, 0.0)] if block == 1 else parts)
        if cell.layer_norm is None:
            return [m.add(*terms, *bias) for terms, bias in zip(sums, biases, strict=True)]
        totals = [m.add(*terms) for terms in sums]
        mean = m.div(m.add(*totals), (float(size), 0.0))
        apart = [m.add(total, (-mean[0], mean[1])) for total in totals]
        variance = m.div(m.add(*(m.mul(a, a) for a in apart)), (float(size), 0.0))
        deviation = m.sqrt(m.add(variance, (cell.layer_norm.epsilon, 0.0)))
        scaled = [
            m.mul(m.div(a, deviation), (float(w), 0.0))
            for a, w in zip(apart, cell.layer_norm.weight[block], strict=True)
        ]
        return [m.add(s, *bias) for s, bias in zip(scaled, biases, strict=True)]

    for block, letter in enumerate("ifg"):
        now[f"z_{letter}"] = pre_activations(block, block if letter in "if" else None, c)
        kind = candidate if letter == "g" else gate
        now[letter] = [m.activate(kind, clip(z, cell.clip_z)) for z in now[f"z_{letter}"]]
    one = (1.0, 0.0)
    if cell.coupling == "f=1-i":
        now["f"] = [m.add(one, (-i[0], i[1])) for i in now["i"]]
    if cell.coupling == "i=1-f":
        now["i"] = [m.add(one, (-f[0], f[1])) for f in now["f"]]
    for j in range(size):
        kept, new = m.mul(now["f"][j], c[j]), m.mul(now["i"][j], now["g"][j])
        now["c"].append(clip(m.add(kept, new), cell.clip_cell))
    now["z_o"] = pre_activations(3, 2, now["c"])
    now["o"] = [m.activate(gate, clip(z, cell.clip_z)) for z in now["z_o"]]
    for j in range(size):
        now["m"].append(m.mul(now["o"][j], m.activate(shown, now["c"][j])))
    if cell.weight_hr is None:
        now["h"] = now["m"]
        return now
    for p in range(cell.output_size):
        terms = m.products(cell.weight_hr[p], now["m"])
        if cell.bias_hr is not None:
            terms.append((float(cell.bias_hr[p]), 0.0))
        now["h"].append(clip(m.add(*terms), cell.clip_projection))
    return now


@dataclass
class Outcome:
    """y[b][t], h[d][b], c[d][b] lists of numbers; traces[direction][b][t] a step or None."""

    y: list[list[list[Number]]]
    h: list[list[list[Number]]] = field(default_factory=list)
    c: list[list[list[Number]]] = field(default_factory=list)
    traces: list[list[list[dict[str, list[Number]] | None]]] = field(default_factory=list)


def recurrent(
    m: Arithmetic,
    layer: Recurrent,
    x: list[list[list[Number]]],
    h0: Any,
    c0: Any,
    *,
    mask: Any = None,
    lengths: Any = None,
) -> Outcome:
    """x[b][t][i]; h0[d][b][p] and c0[d][b][j] floats; mask[b][t], False skips; lengths[b]."""
    if layer.go_backwards:
        x = [row[::-1] for row in x]
        mask = None if mask is None else [list(row)[::-1] for row in mask]
    parts: list[list[list[list[Number]]]] = []
    done = Outcome([])
    for d, (direction, cell) in enumerate(layer.cells.items()):
        nothing = [(0.0, 0.0)] * cell.output_size
        ys: list[list[list[Number]]] = []
        hs: list[list[Number]] = []
        cs: list[list[Number]] = []
        traces: list[list[dict[str, list[Number]] | None]] = []
        for b, sequence in enumerate(x):
            length = len(sequence) if lengths is None else int(lengths[b])
            h = [(float(v), 0.0) for v in h0[d][b]] if length else nothing
            c = [(float(v), 0.0) if length else (0.0, 0.0) for v in c0[d][b]]
            y = [nothing for _ in sequence]
            trace: list[dict[str, list[Number]] | None] = [None for _ in sequence]
            repeated = nothing
            times = range(length)
            for t in reversed(times) if direction == "backward" else times:
                if mask is not None and not mask[b][t]:
                    y[t] = nothing if layer.zero_masked else repeated
                    continue
                now = step(m, cell, sequence[t], h, c)
                h, c, trace[t] = now["h"], now["c"], now
                y[t] = repeated = h
            ys.append(y)
            hs.append(h)
            cs.append(c)
            traces.append(trace)
        parts.append(ys)
        done.h.append(hs)
        done.c.append(cs)
        done.traces.append(traces)
    done.y = parts[0] if len(parts) == 1 else merged(m, layer.merge, *parts)
    return done


def merged(m: Arithmetic, merge: str, a: Any, b: Any) -> Any:
    """Two directions, joined value by value."""
    joined: list[list[list[Number]]] = []
    for rows in zip(a, b, strict=True):
        joined.append([])
        for first, second in zip(*rows, strict=True):
            pairs = list(zip(first, second, strict=True))
            match merge:
                case "concat":
                    joined[-1].append([*first, *second])
                case "mul":
                    joined[-1].append([m.mul(p, q) for p, q in pairs])
                case "sum":
                    joined[-1].append([m.add(p, q) for p, q in pairs])
                case _:
                    joined[-1].append([m.mul(m.add(p, q), (0.5, 0.0)) for p, q in pairs])
    return joined


def numbers(x: Any) -> list[list[list[Number]]]:
    """(B, T, I) → exact numbers."""
    return [[[(float(v), 0.0) for v in step] for step in row] for row in np.asarray(x)]


VACUOUS = 1e-3
"""A wrong gate, sign or order moves a result by more (the mutation tests measure it); a bound above
it, in units of a value's size, would prove nothing, so there must be none."""


def close(found: Any, wanted: Any, *, times: float, more: Any = 0.0) -> None:
    """Asserts |found - value| ≤ times·bound + more, element by element, and no vacuous bound."""
    pairs = np.asarray(wanted, dtype=np.float64)
    value, bound = pairs[..., 0], times * pairs[..., 1] + more
    assert found.shape == value.shape
    assert (bound < VACUOUS * np.maximum(1.0, np.abs(value))).all(), "the bound is vacuous"
    difference = np.abs(np.asarray(found, dtype=np.float64) - value)
    assert (difference <= bound).all(), f"off by {(difference / (bound + 5e-324)).max()} bounds"
