"""Recurrent states as every backend passes them: {"h0": (D, B, P), "c0": (D, B, H), "h1": ...}.

k counts the recurrent layers of a model in chain order (Model.recurrent), those inside residuals
included; D is the number of directions, forward first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo.errors import UsageError
from ifgo.layers import Recurrent
from ifgo.model import Model

State = dict[str, NDArray[Any]]


def shapes(model: Model, batch: int) -> dict[str, tuple[int, int, int]]:
    """Key → (D, B, width) of every state array, in order."""
    found: dict[str, tuple[int, int, int]] = {}
    for k, layer in enumerate(model.recurrent):
        found[f"h{k}"] = (layer.directions, batch, layer.cell.output_size)
        found[f"c{k}"] = (layer.directions, batch, layer.hidden_size)
    return found


def initial(model: Model, batch: int, dtype: Any) -> State:
    """The state a fresh sequence starts from: zeros, or the constants a layer carries."""
    state: State = {}
    for k, layer in enumerate(model.recurrent):
        for part, width in (("h", layer.cell.output_size), ("c", layer.hidden_size)):
            array = np.zeros((layer.directions, batch, width), dtype=dtype)
            constant = getattr(layer.initial, part)
            if constant is not None:
                array[:] = constant.astype(dtype)[:, None, :]
            state[f"{part}{k}"] = array
    return state


def complete(model: Model, batch: int, given: Mapping[str, ArrayLike] | None, dtype: Any) -> State:
    """`initial`, overwritten by what the caller gives.

    Each given array is (D, B, width); (B, width) and, for B = 1, (width,) do where D = 1.
    Raises UsageError on an unknown key, a wrong shape, a value that is not finite, or a layer
    whose initial state is an input that was not given.
    """
    state, wanted = initial(model, batch, dtype), shapes(model, batch)
    names = {key: layer.name for key, layer in _owners(model)}
    for key, value in (given or {}).items():
        if key not in wanted:
            raise UsageError(
                f"the state has an array {key!r}",
                expected="only " + ", ".join(wanted) if wanted else "no state, nothing recurs",
            )
        array = np.asarray(value)
        directions, _, width = wanted[key]
        if directions == 1 and array.shape in ((batch, width), (width,)):
            array = array.reshape(1, -1, width)
        if array.shape != wanted[key]:
            raise UsageError(
                f"state {key} (layer {names[key]}) has shape {array.shape}",
                expected=f"{wanted[key]}: directions, batch, width",
            )
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise UsageError(
                f"state {key} (layer {names[key]}) holds values that are not finite numbers",
                expected="finite real numbers",
            )
        state[key] = array.astype(dtype)
    for key, layer in _owners(model):
        if layer.initial.kind == "input" and key not in (given or {}):
            raise UsageError(
                f"layer {layer.name} takes its initial state as an input, and {key} is missing",
                expected=f"{key} of shape {wanted[key]}",
                hint="Pass it in the state (--state-in), zeros if it starts at rest",
            )
    return state


def _owners(model: Model) -> list[tuple[str, Recurrent]]:
    return [(f"{p}{k}", layer) for k, layer in enumerate(model.recurrent) for p in "hc"]
