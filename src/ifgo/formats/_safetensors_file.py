"""A safetensors file as its metadata and its tensors; sizes and keys are checked before use."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
from safetensors import (
    SafetensorError,
    deserialize,  # pyright: ignore[reportUnknownVariableType]
)

from ifgo import limits
from ifgo.errors import FormatError, ToolError
from ifgo.formats import _json
from ifgo.text import cut, escape

DTYPES: Final = {"float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16"}
"""NumPy's name → safetensors' name."""

INTEGERS: Final = {
    **{
        f"{kind}{bits}": f"{name}{bits}"
        for kind, name in (("I", "int"), ("U", "uint"))
        for bits in (8, 16, 32, 64)
    },
    "BOOL": "bool",
}
"""safetensors' name → NumPy's, of what is no weight but may lie beside one."""


def open_file(data: bytes) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """The metadata, and each tensor by name as {"dtype", "shape", "data"}.

    Raises FormatError where the header is damaged, huge, or not of the bytes that follow it.
    """
    length, room = int.from_bytes(data[:8], "little"), len(data) - 8
    if room < 2 or length > room:
        raise FormatError(
            f"ends after {len(data)} bytes"
            + (f", inside a header of {length} bytes" if room >= 2 else ""),
            expected="a safetensors file: header length, header, tensors",
            hint=_json.DAMAGED,
        )
    if length > limits.current().json_bytes:
        raise FormatError(f"its header has {length} bytes", **limits.at_most("json_bytes"))
    header = _json.parse(data[8 : 8 + length], "the header")
    try:
        entries = cast("list[tuple[str, dict[str, Any]]]", deserialize(data))
    except SafetensorError as error:
        raise FormatError(
            f"is no whole safetensors file ({cut(escape(error), 200)})", hint=_json.DAMAGED
        ) from None
    return cast("dict[str, str]", header.get("__metadata__") or {}), dict(entries)


def dtype_of(name: str, place: str) -> np.dtype[Any]:
    """The dtype of weights; FormatError naming the tensor where it is another."""
    known = {theirs: ours for ours, theirs in DTYPES.items()}
    if name not in known:
        raise FormatError(
            f"tensor {place!r} has dtype {cut(name)}", expected="one of " + ", ".join(known)
        )
    if name == "BF16":
        try:
            import ml_dtypes
        except ImportError:
            raise ToolError(
                f"tensor {place!r} is bfloat16, which NumPy alone does not know",
                hint="Install it: pip install ml_dtypes",
            ) from None
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(known[name]).newbyteorder("<")
