"""A recorded LSTM layer, judged step by step: each from the h that the recording has before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ifgo.cell import LSTMCell
from ifgo.reference import truth
from ifgo.verification import bounds


def follow(cell: LSTMCell, x: Any, h: Any) -> float:
    """Fails where a step of h (T, H), recorded over x (T, I) from zero state, lies beyond its local
    bound (SPEC.md 6.2), of a runtime with a good libm; the largest of these bounds.

    c is not recorded, so it is carried in float64, with a bound that grows by each step's own.
    """
    x, h = np.asarray(x, np.float64), np.asarray(h, np.float64)
    before, c = np.zeros((1, h.shape[1])), np.zeros((1, cell.hidden_size))
    off: Any = np.zeros_like(c)
    largest = 0.0
    for row, shown in zip(x, h, strict=True):
        now = truth.step(cell, row[None], before, c)
        allowed = bounds.cell_bounds(cell, row[None], before, c, now, bounds.LIBM, off)
        assert (np.abs(shown - now.h) <= allowed["h"]).all()
        largest = max(largest, float(allowed["h"].max()))
        before, c, off = shown[None], now.c, allowed["c"]
    return largest
