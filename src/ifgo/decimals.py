"""Decimal text to float32, rounded once, as C's strtof does."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray


def nearest_float32(tokens: Sequence[str], doubles: NDArray[np.float64]) -> NDArray[np.float32]:
    """The float32 nearest to each decimal, as C's strtof gives it. tokens, doubles: (N,).

    `doubles` are the nearest float64. Rounding twice differs from rounding once only where the
    float64 is the very middle of two float32 numbers; there the decimal itself decides.
    """
    with np.errstate(over="ignore"):
        values = doubles.astype(np.float32)
        back = values.astype(np.float64)
        beyond = np.nextafter(values, np.where(doubles > back, np.inf, -np.inf).astype(np.float32))
    other = beyond.astype(np.float64)
    with np.errstate(invalid="ignore"):
        middle = (doubles != back) & (np.abs(doubles - back) == np.abs(other - doubles))
    for k in np.flatnonzero(middle & np.isfinite(other)).tolist():
        exact, half = Decimal(tokens[k].rstrip("fF")), Decimal(float(doubles[k]))
        if exact != half:
            pair = sorted((values[k], beyond[k]))
            values[k] = pair[1] if exact > half else pair[0]
    return values
