"""THE table of gate orders, and the only function that moves gates around.

Canonical order everywhere inside ifgo: i, f, g, o (input, forget, candidate, output); matrices are
(4H, I) and (4H, P) with y = x·Wᵀ. SPEC.md section 2 is the prose of this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import UsageError

CANONICAL: Final = "ifgo"

GATE_NAMES: Final = {"i": "input", "f": "forget", "g": "candidate", "o": "output"}


@dataclass(frozen=True)
class GateLayout:
    """How one framework stores the four gates of an LSTM.

    order: blocks along the gate axis, each H wide, in the letters i f g o.
    orientation: "rows" for (4H, I), "columns" for (I, 4H).
    bias: "two" (4H and 4H), "stacked" (8H: input biases, then recurrent ones), "one" (4H), "none".
    peephole: order of the peephole vectors, "" where the format has none.
    """

    order: str
    orientation: Literal["rows", "columns"]
    bias: Literal["two", "stacked", "one", "none"]
    peephole: str = ""


LSTM_LAYOUTS: Final[dict[str, GateLayout]] = {
    "ifgo": GateLayout("ifgo", "rows", "two", "ifo"),
    "pytorch": GateLayout("ifgo", "rows", "two"),
    "onnx": GateLayout("iofg", "rows", "stacked", "iof"),
    "keras": GateLayout("ifgo", "columns", "one"),
    "keras1": GateLayout("igfo", "columns", "one"),
    "cudnn_keras": GateLayout("ifgo", "columns", "stacked"),
    "tf1": GateLayout("igfo", "columns", "one", "ifo"),
    "darknet_pjreddie": GateLayout("ifog", "rows", "two"),
    "darknet_alexeyab": GateLayout("figo", "rows", "two"),
    "dlfs2": GateLayout("fgio", "columns", "one"),
    "tflite": GateLayout("ifgo", "rows", "one", "ifo"),
    "coreml_mil": GateLayout("ifog", "rows", "one", "ifo"),
    "raw_a": GateLayout("iofg", "rows", "stacked"),
    "raw_b": GateLayout("ifgo", "columns", "one"),
    "stm32_text": GateLayout("ifgo", "columns", "none"),
    "haste": GateLayout("igfo", "columns", "one"),
    "rtneural": GateLayout("ifgo", "columns", "one"),
    "guitarml": GateLayout("ifgo", "rows", "two"),
    "nam": GateLayout("ifgo", "rows", "one"),
}
"""Keyed by framework; every reader and writer takes its order from here."""


def permutation(source: str, target: str, hidden_size: int) -> NDArray[np.intp]:
    """Row indices (4H,) that turn blocks in `source` order into `target` order.

    Raises UsageError where either order is no arrangement of the same letters.
    """
    if sorted(source) != sorted(target) or len(set(source)) != len(source):
        raise UsageError(
            f"gate orders {source!r} and {target!r} are not arrangements of the same gates",
            expected="each gate letter once, such as 'ifgo' and 'iofg'",
        )
    blocks = np.arange(len(source) * hidden_size, dtype=np.intp).reshape(len(source), hidden_size)
    return blocks[[source.index(gate) for gate in target]].reshape(-1)


def reorder(
    array: NDArray[Any], source: str, target: str = CANONICAL, axis: int = 0
) -> NDArray[Any]:
    """`array` with its gate blocks along `axis` moved from `source` order to `target` order.

    array: (..., n·H, ...) with n = len(source). Same dtype, new memory.
    Raises UsageError where the axis does not divide into len(source) blocks, and as `permutation`.
    """
    width = _block_width(array, source, axis)
    return np.take(array, permutation(source, target, width), axis=axis)


def split(array: NDArray[Any], order: str = CANONICAL, axis: int = 0) -> dict[str, NDArray[Any]]:
    """Gate letter → its block of `array` along `axis`, in the canonical sequence of letters.

    array: (..., n·H, ...). Views, no copy. Raises UsageError where the axis does not divide into
    len(order) blocks or `order` holds other letters than i, f, g, o, or one twice.
    """
    if not set(order) <= set(CANONICAL) or len(set(order)) != len(order):
        raise UsageError(
            f"gate order {order!r} does not name gates", expected="letters of 'ifgo', each once"
        )
    _block_width(array, order, axis)
    blocks = np.split(array, len(order), axis=axis)
    return {gate: blocks[order.index(gate)] for gate in CANONICAL if gate in order}


def _block_width(array: NDArray[Any], order: str, axis: int) -> int:
    """H, the entries per gate of `order` along `axis`."""
    if not -array.ndim <= axis < array.ndim:
        raise UsageError(f"an array of shape {array.shape} has no axis {axis}")
    size = array.shape[axis]
    if not order or size % len(order):
        raise UsageError(
            f"axis {axis} has {size} entries",
            expected=f"a multiple of {len(order)}, one block per gate of {order!r}"
            if order
            else "a gate order of at least one letter",
        )
    return size // len(order)
