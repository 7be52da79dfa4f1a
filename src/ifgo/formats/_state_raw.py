"""WeightDropout of AWD-LSTM (fastai): the recurrent matrix that counts is stored as NAME_raw.

In training NAME is NAME_raw with a part dropped, and a state_dict may keep it as it was last
drawn; at inference the layer computes with NAME_raw.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from numpy.typing import NDArray

from ifgo.text import listed

_RAW: Final = re.compile(r"(?:(?P<path>.+)\.)?(?P<name>weight_(?:ih|hh)(?:_l\d{1,4})?)_raw")


def undropped(
    tensors: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """`tensors` with each NAME_raw in the place of NAME, and a note where there was one.

    The module of PATH.NAME_raw is PATH.module, or PATH where its other matrix lies there.
    """
    found = dict(tensors)
    moved: list[str] = []
    for key in tensors:
        match = _RAW.fullmatch(key)
        if match is None:
            continue
        name, path = match["name"], f"{match['path']}." if match["path"] else ""
        other = name.replace("_ih", "_hh") if "_ih" in name else name.replace("_hh", "_ih")
        homes = [home for home in (f"{path}module.", path) if _holds(tensors, home + other)]
        if homes:
            found[homes[0] + name] = found.pop(key)
            moved.append(key)
    note = f"{listed(moved)} in the place of the matrix without _raw, which dropout drew from it"
    return found, (note,) if moved else ()


def _holds(tensors: Mapping[str, NDArray[Any]], key: str) -> bool:
    return key in tensors or f"{key}_raw" in tensors
