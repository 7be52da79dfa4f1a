"""How far two float64 computations of one network may lie apart: derived, not chosen.

Rounding errors of first order are proportional to the unit roundoff, so the bound of a float32
runtime (SPEC.md 6.3) times 2^-29 is that of a float64 one with a good libm.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ifgo import states
from ifgo.model import Model, TokenInput
from ifgo.verification import bounds
from ifgo.verification.global_bound import LARGEST_AMPLIFICATION, whole

SHARPER: Final = 2.0**-29
"""Unit roundoff of float64 over that of float32."""

BOTH: Final = 2.0
"""Two computations, each within the bound of the true numbers."""


def double_bound(model: Model, x: Any, state: states.State | None = None) -> float:
    """Bound of the difference of any output over x, with a batch axis or without, as Model.run
    takes it. Fails where the network amplifies so much that the bound says nothing."""
    x = np.asarray(x)
    if x.ndim == (1 if isinstance(model.input, TokenInput) else 2):
        x = x[None]
    start = states.complete(model, len(x), state, np.float64)
    judged = whole(model, x, start, bounds.LIBM)
    assert judged.amplification < LARGEST_AMPLIFICATION, "draw a more contractive network"
    return BOTH * SHARPER * judged.bound
