"""How far a float32 runtime may lie from truth over a whole sequence (SPEC.md section 6.3).

Errors made in each step and layer grow with the network's own amplification, which is measured, not
derived: from LARGEST_AMPLIFICATION on such a bound says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.lower import lower
from ifgo.model import Model, Recurrent
from ifgo.reference import truth
from ifgo.reference.interpret import execute
from ifgo.states import State
from ifgo.verification import bounds, compare

LARGEST_AMPLIFICATION: Final = 100.0

OVERFLOWS: Final = "no global bound: the network may overflow float32"

PERTURBATION: Final = 2.0**-20


@dataclass(frozen=True)
class Whole:
    """The true output of a sequence, and how far float32 may lie from it, itself rounded once."""

    y: NDArray[np.float64]
    amplification: float
    bound: float


def whole(
    model: Model,
    x: NDArray[Any],
    start: State,
    accuracy: bounds.ActivationErrors = bounds.CONTRACTED,
) -> Whole:
    """The output over x (B, T, I), or tokens (B, T), as a runtime of that accuracy computes it: by
    default any variant of the emitted C.

    Every layer and step adds the largest local bound of what leaves it, and one rounding of its
    input for the layers that are only a sum. Raises UnsupportedError where a layer has no bound.
    """
    done = execute(lower(model), x, start, trace=True)
    added = 0.0
    for subject, layer, trace in compare.observed(model, done.traces, "exact", "truth"):
        errors = compare.local_errors(layer, subject, trace, accuracy)
        leaves = ("h", "c") if isinstance(layer, Recurrent) else ("y",)
        largest = np.max([errors[part].bound.max(axis=(0, 2)) for part in leaves], axis=0)
        added += float((largest + bounds.U * np.abs(trace["x"]).max(axis=(0, 2))).sum())
    with np.errstate(over="ignore", invalid="ignore"):
        y, gain = truth.forward(model, x, start).y, amplification(model, x, start)
    rounding = bounds.U * float(np.abs(y).max())
    return Whole(y, gain, gain * added * bounds.SAFETY + rounding)


def amplification(model: Model, x: NDArray[Any], start: State) -> float:
    """How much the output of the float64 net moves per unit of change in x and the initial state,
    largest entry, over eight seeded sign patterns; at least 1. Infinite where the net itself is."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _amplification(model, x, start)


def _amplification(model: Model, x: NDArray[Any], start: State) -> float:
    base = truth.forward(model, x, start).y
    random = np.random.default_rng(8)
    largest = 1.0
    for _ in range(8):
        moved = {key: array + PERTURBATION * _signs(random, array) for key, array in start.items()}
        pushed = x
        if x.dtype.kind == "f":
            pushed = x.astype(np.float64) + PERTURBATION * _signs(random, x)
        y = truth.forward(model, pushed, moved).y
        change = float(np.abs(y - base).max()) / PERTURBATION
        largest = max(largest, change if np.isfinite(change) else np.inf)
    return largest


def _signs(random: np.random.Generator, like: NDArray[Any]) -> NDArray[np.float64]:
    return random.choice([-1.0, 1.0], size=like.shape)
