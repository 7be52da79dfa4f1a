"""One step of a cell against float64 from the same x, h and c: the local bound, applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.model import LSTMCell
from ifgo.reference import truth
from ifgo.verification import bounds
from ifgo.verification.bounds import ActivationErrors
from ifgo.verification.findings import Errors, within


def step_errors(
    cell: LSTMCell,
    x: NDArray[Any],
    h: NDArray[Any],
    c: NDArray[Any],
    got: Mapping[str, NDArray[Any]],
    errors: ActivationErrors,
) -> dict[str, Errors]:
    """Errors of the parts in `got` of steps that started from x, h, c.

    x (..., I), h (..., P), c (..., H), the parts alike; so are the errors.
    """
    x, h, c = (array.astype(np.float64).reshape(-1, array.shape[-1]) for array in (x, h, c))
    with np.errstate(over="ignore", invalid="ignore"):
        now = truth.step(cell, x, h, c)
        allowed = bounds.cell_bounds(cell, x, h, c, now, errors)
        return {
            part: within(
                np.abs(got[part].astype(np.float64) - getattr(now, part).reshape(got[part].shape)),
                allowed[part].reshape(got[part].shape),
            )
            for part in truth.TRACED
            if part in got
        }
