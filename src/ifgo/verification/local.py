"""One step of a cell against float64 from the same x, h and c: the local bound, applied.

Where float32 may leave its range no bound holds: from there on nothing is judged, and it is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.model import LSTMCell
from ifgo.reference import truth
from ifgo.verification import bounds
from ifgo.verification.bounds import ActivationErrors
from ifgo.verification.findings import Errors, first_unjudged, unjudged, within

LARGEST: Final = float(np.finfo(np.float32).max)
"""The largest finite float32."""


def may_overflow(value: NDArray[Any], bound: NDArray[Any] | float) -> NDArray[np.bool_]:
    """Where float32 may overflow on its way to `value`: every bound counts u times the sum of the
    magnitudes of what is added up, so no partial sum exceeds |value| + bound / u."""
    return ~(np.abs(value) + bound / bounds.U <= LARGEST)


def step_errors(
    cell: LSTMCell,
    x: NDArray[Any],
    h: NDArray[Any],
    c: NDArray[Any],
    got: Mapping[str, NDArray[Any]],
    errors: ActivationErrors,
    backward: bool = False,
) -> dict[str, Errors]:
    """Errors of the parts in `got` of steps that started from x, h, c.

    x (B, T, I), h (B, T, P), c (B, T, H), the parts alike; so are the errors. A row is not judged
    from the step on, in order of computing, in which float32 may overflow.
    """
    batch, steps = x.shape[:2]
    x, h, c = (array.astype(np.float64).reshape(batch * steps, -1) for array in (x, h, c))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        now = truth.step(cell, x, h, c)
        allowed = bounds.cell_bounds(cell, x, h, c, now, errors)
        beyond = np.any(
            [may_overflow(getattr(now, p), allowed[p]).any(axis=1) for p in truth.TRACED], axis=0
        )
        found = {
            part: within(
                np.abs(got[part].astype(np.float64) - getattr(now, part).reshape(got[part].shape)),
                allowed[part].reshape(got[part].shape),
            )
            for part in truth.TRACED
            if part in got
        }
    return judged_before(found, beyond.reshape(batch, steps), backward)


def judged_before(
    errors: Mapping[str, Errors], beyond: NDArray[np.bool_], backward: bool
) -> dict[str, Errors]:
    """`errors` of each row up to the first step, in order of computing, with beyond (B, T)."""
    order = slice(None, None, -1 if backward else 1)
    after = np.logical_or.accumulate(beyond[:, order], axis=1)[:, order, None]
    return {part: unjudged(found, after) for part, found in errors.items()}


def overflow_note(errors: Mapping[str, Errors], backward: bool) -> str:
    """Where float32 may overflow first; "" where it cannot. errors: of judged_before."""
    at = first_unjudged(errors, backward)
    if at is None:
        return ""
    return (
        f"the network may overflow float32 at step {at[0]}, row {at[1]}: "
        "nothing is judged from there in such a row"
    )
