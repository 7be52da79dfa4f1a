"""Where an LSTM node starts: initial_h and initial_c as zero, constants, or inputs of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.arguments import Arguments
from ifgo.formats.onnx.chain import Chain
from ifgo.formats.onnx.file import quoted
from ifgo.formats.onnx.value import Axis, Value, is_real, transpose, words
from ifgo.layers import InitialState

_PROJECTED = (
    "A cell state wider than the output is what torch's exporter writes for proj_size: ONNX LSTM "
    "has no projection, and the weights in this file are cut to the wrong rows. Export a model "
    "without proj_size, or read its state_dict"
)


def finite(data: NDArray[Any], what: str) -> None:
    """Raises FormatError naming the first entry that is NaN or infinite."""
    wide = data if data.dtype.kind == "f" else data.astype(np.float64)
    good = np.isfinite(wide)
    if not good.all():
        bad = np.unravel_index(int(np.argmin(good)), data.shape)
        index = ", ".join(str(int(i)) for i in bad)
        raise FormatError(
            f"{what}[{index}] is {float(wide[bad])}",
            expected="finite weights",
            hint="Train or export the model again: a NaN or infinity never computes",
        )


@dataclass(frozen=True)
class Given:
    """A state that the caller gives: element ids (B where it is known, else 1; D·H)."""

    part: Literal["h", "c"]
    ids: NDArray[np.int64]


def initial_state(
    chain: Chain,
    a: Arguments,
    shape: tuple[int, int, int],
    batch: Axis | None,
    layout: int,
    dtype: np.dtype[Any],
) -> tuple[InitialState, list[Given]]:
    """The start of an LSTM node with shape (D, P, H), and the inputs it comes from.

    Raises UnsupportedError where the state is neither zero, nor one constant for all sequences,
    nor an input for h, c or both with zero for the rest.
    """
    given: list[Given] = []
    constants: list[NDArray[Any] | None] = []
    shapes = (shape[0], shape[1]), (shape[0], shape[2])
    for position, part, own in ((5, "h", shapes[0]), (6, "c", shapes[1])):
        value = a.optional(position)
        rows = None if value is None else _rows(value, part, own, batch, layout)
        if value is None or rows is None:
            constants.append(None)
        elif value.signal:
            _check_given(chain, value, rows, batch, part, dtype, layout)
            given.append(Given("h" if part == "h" else "c", rows))
        else:
            constants.append(_constant(value, rows, part, dtype))
    if given and all(constant is None for constant in constants):
        return InitialState("input"), given
    if given:
        raise UnsupportedError(
            f"takes initial_{given[0].part} from an input and the other state from the file",
            expected="the other state zero, an input too, or both constant",
            hint="Bind the input to a constant with --bind FILE.npz (bind= in Python)",
        )
    if all(constant is None for constant in constants):
        return InitialState(), []
    h, c = (
        np.zeros(own, dtype) if x is None else x.reshape(own)
        for x, own in zip(constants, shapes, strict=True)
    )
    return InitialState("constant", h, c), []


def _rows(
    value: Value, part: str, shape: tuple[int, int], batch: Axis | None, layout: int
) -> NDArray[Any]:
    """The state as (B or 1, D·H)."""
    what = f"initial_{part} ({quoted(value.name)})"
    if value.rank != 3:
        raise FormatError(f"{what} has {value.rank} axes", expected="3: directions, batch, units")
    if layout == 1:
        value = transpose(value, (1, 0, 2))
    if value.axes[0] or value.axes[2] or value.data.shape[0::2] != shape:
        wider = part == "c" and not value.axes[2] and value.data.shape[2] > shape[1]
        raise FormatError(
            f"{what} has shape ({', '.join(map(words, value.shape))})",
            expected=f"({shape[0]}, B, {shape[1]})",
            hint=_PROJECTED if wider else None,
        )
    rows = value.data.shape[1]
    size = batch.size if batch is not None else 1
    if not value.axes[1] and (rows == 0 or (isinstance(size, int) and rows != size)):
        raise FormatError(f"{what} is for a batch of {rows}", expected=words(size))
    return value.data.transpose(1, 0, 2).reshape(rows, -1)


def _constant(
    value: Value, rows: NDArray[Any], part: str, dtype: np.dtype[Any]
) -> NDArray[Any] | None:
    """One row for all sequences, None where it is zero."""
    what = f"initial_{part} ({quoted(value.name)})"
    if rows.dtype != dtype or not is_real(rows.dtype):
        raise FormatError(f"{what} is {rows.dtype.name}, W is {dtype.name}", expected="one type")
    finite(value.data, what)
    if (rows != rows[:1]).any():
        raise UnsupportedError(
            f"{what} differs between the rows of its batch",
            expected="one initial state for all sequences, or an input",
        )
    return rows[0] if rows[0].any() else None


def _check_given(
    chain: Chain,
    value: Value,
    rows: NDArray[np.int64],
    batch: Axis | None,
    part: str,
    dtype: np.dtype[Any],
    layout: int,
) -> None:
    what = f"initial_{part} ({quoted(value.name)})"
    stream = chain.stream(value)
    if stream.kind != "given state":
        raise UnsupportedError(
            f"{what} is computed from other layers",
            expected="zero, a constant, or an input of the model",
            hint="ifgo has no encoder-decoder pairs",
        )
    if stream.dtype != dtype:
        raise FormatError(f"{what} is {stream.dtype.name}, W is {dtype.name}", expected="one type")
    for label in value.axes[0 if layout == 1 else 1]:
        chain.bind(label, "batch")
    stride = rows - rows[:1]
    if (stride != stride[:, :1]).any() or (batch is None and rows.shape[0] > 1):
        raise UnsupportedError(
            f"{what} mixes units and batch", expected="(directions, batch, units) of an input"
        )
