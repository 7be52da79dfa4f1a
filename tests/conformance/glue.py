"""The whole of a model out of its parts: truth's way through time, exact arithmetic inside.

Truth decides what is computed when (masks, lengths, directions, merges, residuals); each cell step
and each dense, activation, scale or batch norm layer is computed by the interpreter, alone, on one
step. Lowering must reach the same bits by its own way through time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ifgo.lower import lower
from ifgo.model import (
    ActivationLayer,
    BatchNorm,
    Dense,
    FeatureInput,
    LSTMCell,
    Model,
    Recurrent,
    Scale,
)
from ifgo.program import Program
from ifgo.reference import truth
from ifgo.reference.interpret import execute


class _Flow(truth._Flow):
    """Values between layers are float32."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "value" and value.dtype.kind == "f":
            with np.errstate(over="ignore"):
                value = value.astype(np.float32).astype(np.float64)
        super().__setattr__(name, value)


def glued(model: Model, x: Any, state: Any, lengths: Any = None) -> truth.Result:
    """As truth.forward; every number in the result is a float32."""
    programs: dict[int, Program] = {}
    simple = truth._simple

    def step(cell: LSTMCell, x: Any, h: Any, c: Any) -> truth.Step:
        if id(cell) not in programs:
            alone = Model((FeatureInput(cell.input_size),), (Recurrent("r", cell),))
            programs[id(cell)] = lower(alone)
        narrow = x.astype(np.float32)[:, None]
        start = {"h0": h.astype(np.float32)[None], "c0": c.astype(np.float32)[None]}
        found = execute(programs[id(cell)], narrow, start, trace=True).traces["r"]["forward"]
        nothing = np.zeros_like(found["c"])
        parts = {name: found.get(name, nothing)[:, 0] for name in truth.TRACED}
        return truth.Step(**{name: part.astype(np.float64) for name, part in parts.items()})

    def pointwise(layer: Any, flow: Any) -> None:
        if not isinstance(layer, Dense | ActivationLayer | Scale | BatchNorm):
            simple(layer, flow)
            return
        size = flow.value.shape[-1]
        rows = flow.value.reshape(-1, 1, size).astype(np.float32)
        done = execute(lower(Model((FeatureInput(size),), (layer,))), rows, {})
        flow.value = done.y.reshape(*flow.value.shape[:-1], -1).astype(np.float64)

    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(truth, "step", step)
        patch.setattr(truth, "_simple", pointwise)
        patch.setattr(truth, "_Flow", _Flow)
        return truth.forward(model, x, state, lengths)
