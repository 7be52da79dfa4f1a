"""The arrays that `bind` gives for graph inputs: a mapping, or an untrusted .npz."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.arrays import Header, read_npz
from ifgo.errors import UsageError
from ifgo.formats.onnx.file import quoted
from ifgo.text import cut


def bound(bind: str | Path | Mapping[str, Any] | None) -> dict[str, NDArray[Any]]:
    """The arrays by name, in the machine's byte order. Raises UsageError where there is no such
    file or an array is not of numbers, FormatError where an .npz is damaged or expands too far."""
    if bind is None:
        return {}
    if isinstance(bind, Mapping):
        found = {str(name): np.asarray(array) for name, array in bind.items()}
        _check(found)
    else:
        found = read_npz(Path(bind), _check)
    return {name: a.astype(a.dtype.newbyteorder("="), copy=False) for name, a in found.items()}


def _check(arrays: Mapping[str, NDArray[Any]] | Mapping[str, Header]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise UsageError(f"bind gives {quoted(name)} as {cut(array.dtype)}", expected="numbers")
