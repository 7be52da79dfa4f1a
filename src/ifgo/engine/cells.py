"""Which cells and layers the compiled kernels compute, and how they are handed over.

Letters: I input_size, H hidden_size, P output size of a cell.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import SIGMOID, TANH
from ifgo.cell import LSTMCell
from ifgo.engine.loading import native
from ifgo.layers import Dense

if TYPE_CHECKING:
    from ifgo.engine import _native

F32 = NDArray[np.float32]

DENSE_ACTIVATIONS: Final = ("linear", "tanh", "sigmoid", "relu", "softmax")
"""Activations of a Dense layer that the kernels know, in the order of native/include."""

COUPLINGS: Final = (None, "f=1-i", "i=1-f")
"""In the order of native/include."""


def float32(array: Any) -> F32:
    """A contiguous float32 copy or view."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def maybe(array: Any) -> F32 | None:
    """`float32`, None staying None."""
    return None if array is None else float32(array)


def bias_of(cell: LSTMCell) -> F32 | None:
    """(bias_ih + bias_hh) + forget_bias in float32, (4H,); None where all are absent."""
    parts = [float32(b) for b in (cell.bias_ih, cell.bias_hh) if b is not None]
    if not parts and not cell.forget_bias:
        return None
    total = np.zeros(4 * cell.hidden_size, np.float32)
    for part in parts:
        total += part
    total[cell.hidden_size : 2 * cell.hidden_size] += np.float32(cell.forget_bias)
    return total


def beyond_kernels(cell: LSTMCell) -> str | None:
    """The option that no kernel has, so that the cell takes the general path; None: all fit."""
    if cell.activations != (SIGMOID, TANH, TANH):
        return "activations " + "/".join(map(str, cell.activations))
    for name in ("layer_norm", "input_norm", "hidden_norm"):
        if getattr(cell, name) is not None:
            return name
    return None


def pack(cell: LSTMCell, *, with_back: bool = False) -> _native.Cell:
    """`cell` packed for the instruction set in use; with_back: gradients can follow."""
    return native().Cell(
        float32(cell.weight_ih),
        float32(cell.weight_hh),
        bias_of(cell),
        maybe(cell.peephole),
        maybe(cell.weight_hr),
        maybe(cell.bias_hr),
        inf if cell.clip_z is None else cell.clip_z,
        inf if cell.clip_cell is None else cell.clip_cell,
        inf if cell.clip_projection is None else cell.clip_projection,
        COUPLINGS.index(cell.coupling),
        with_back,
    )


def pack_dense(layer: Dense) -> _native.Dense:
    """`layer` packed; an activation beyond DENSE_ACTIVATIONS is left to the caller."""
    name = layer.activation.name
    activation = DENSE_ACTIVATIONS.index(name) if name in DENSE_ACTIVATIONS else 0
    return native().Dense(float32(layer.weight), maybe(layer.bias), activation)
