"""Every array of a model in another type before it is written: what that changed, in its report."""

from __future__ import annotations

from typing import cast

import numpy as np

from ifgo.cell import Array
from ifgo.errors import UnsupportedError
from ifgo.formats._attributes import Losses, Mark, permission, permitted, values
from ifgo.layers import floating_dtype
from ifgo.model import Model


def narrow(
    model: Model, dtype: str, allow_lossy: Losses
) -> tuple[Model, tuple[str, ...], tuple[Mark, ...]]:
    """`model` with its arrays in `dtype`, one sentence where a value was rounded, and the marks.

    Raises UsageError where `dtype` is none or a value lies beyond its range, UnsupportedError where
    values would be rounded and allow_lossy does not permit "dtype".
    """
    converted = model.astype(floating_dtype(dtype))
    after = values(converted)
    changed, marks = 0, list[Mark]()
    for (part, owner, name), before in values(model).items():
        array = cast(Array, before)
        if not isinstance(before, np.ndarray) or array.dtype.name == dtype:
            continue
        count = _changed(array, after[part, owner, name])
        changed += count
        words = f"{count} of {array.size} values rounded" if count else "same values"
        fate = "lost" if count else "folded"
        marks.append(Mark(part, owner, name, fate, f"{array.dtype.name} as {dtype}, {words}"))
    if changed and "dtype" not in permitted(allow_lossy):
        raise UnsupportedError(
            f"{dtype} cannot hold {changed} of {model.parameters} weights as they are",
            hint=f"Permit it with {permission(['dtype'])}, or leave out --to-dtype",
        )
    said = (f"{changed} of {model.parameters} weights: rounded to {dtype}",) if changed else ()
    return converted, said, tuple(marks)


def _changed(before: Array, after: Array) -> int:
    return int((before.astype(np.float64) != after.astype(np.float64)).sum())
