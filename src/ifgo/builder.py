"""Builder: writes instructions into sweeps, names buffers, casts weights. Used by `lower` alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import LINEAR, SOFTMAX, Activation
from ifgo.errors import UnsupportedError
from ifgo.folding import exact_float32
from ifgo.model import Layer
from ifgo.program import (
    F32,
    Buffer,
    Elementwise,
    ElementwiseOp,
    Inside,
    Operand,
    Probe,
    Softmax,
    Storage,
    Sweep,
    View,
)


def constant(value: float, what: str) -> np.float32:
    """`value` as float32. Raises UnsupportedError where it becomes 0 or infinite."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.float32(value)
    if not np.isfinite(narrow) or (narrow == 0) != (value == 0):
        raise UnsupportedError(
            f"{what} is {value:g}, which is {narrow:g} in float32",
            expected="a value that float32 can hold",
            hint="Run the model on truth instead",
        )
    return narrow


class Builder:
    """Sweeps under construction; instructions go into the open, last one.

    start: what happens once, before the first sweep.
    """

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.sweeps: list[Sweep] = [Sweep(None)]
        self.start = Sweep(1)
        self.nonempty: View | None = None

    @property
    def open(self) -> Sweep:
        """The sweep that instructions go into."""
        return self.sweeps[-1]

    def new_sweep(self, count: int | None, *, reverse: bool = False) -> Sweep:
        """Close the open sweep and open one of `count` steps (None: as many as the input has)."""
        self.sweeps.append(Sweep(count, reverse))
        return self.open

    def buffer(self, stem: str, storage: Storage, width: int, **facts: Any) -> Buffer:
        """A buffer with a name of its own."""
        number = self.names.get(stem, 0)
        self.names[stem] = number + 1
        return Buffer(f"{stem}{number}", storage, width, **facts)

    def scratch(self, stem: str, size: int) -> View:
        """Memory of one step."""
        return View(self.buffer(stem, "scratch", size), 0, size)

    def sequence(self, size: int) -> View:
        """Rows that outlive the open sweep, one per step of it."""
        return View(self.buffer("seq", "sequence", size, rows=self.open.count), 0, size, size)

    def carry(self, size: int) -> View:
        """A value that the next step finds again, zero where a sequence starts."""
        return View(self.buffer("carry", "carry", size), 0, size)

    def zero_where_empty(self, state: View) -> None:
        """Under lengths a sequence of length 0 starts, and so ends, in a zero state."""
        if self.nonempty is None:
            self.nonempty = self.scratch("some", 1)
            self.start.body.append(Inside(self.nonempty))
        chosen = Elementwise("select", state, state, np.float32(0.0), condition=self.nonempty)
        self.start.body.append(chosen)

    def matrix(self, stem: str, array: F32, layer: Layer, field: str) -> Buffer:
        """A weight that is float32 already; 2-d arrays keep their rows."""
        rows = array.shape[0] if array.ndim == 2 else 1
        return self.buffer(
            stem, "weight", array.shape[-1], rows=rows, data=array, source=(layer.name, field)
        )

    def vector(self, stem: str, array: F32, layer: Layer, field: str) -> View:
        """A float32 weight as one vector."""
        buffer = self.matrix(stem, array.reshape(-1), layer, field)
        return View(buffer, 0, buffer.width)

    def bias(self, array: NDArray[Any] | None, layer: Layer, field: str) -> Operand:
        """Where a sum starts: a stored bias, or 0."""
        if array is None:
            return np.float32(0.0)
        narrow = exact_float32(array, f"layer {layer.name}, {field}")
        return self.vector("b", narrow, layer, field)

    def emit(
        self,
        op: ElementwiseOp,
        result: View,
        a: Operand,
        b: Operand | None = None,
        *,
        activation: Activation | None = None,
        condition: View | None = None,
    ) -> View:
        """An element-wise instruction; returns its result."""
        self.open.body.append(Elementwise(op, result, a, b, activation, condition))
        return result

    def copy(self, result: View, a: Operand) -> View:
        """result = a."""
        return self.emit("copy", result, a)

    def select(self, result: View, condition: View, a: Operand, b: Operand) -> View:
        """result = condition ? a : b, the condition one value for all elements."""
        return self.emit("select", result, a, b, condition=condition)

    def activate(self, result: View, a: View, activation: Activation) -> View:
        """result = activation(a). Raises UnsupportedError where a parameter leaves float32."""
        for parameter in (activation.alpha, activation.beta):
            if parameter is not None:
                constant(parameter, f"a parameter of activation {activation}")
        if activation == SOFTMAX:
            self.open.body.append(Softmax(result, a))
            return result
        if activation == LINEAR:
            return self.copy(result, a)
        return self.emit("activate", result, a, activation=activation)

    def clip(self, value: View, bound: float | None) -> None:
        """Hold a value to [-bound, bound] in place."""
        if bound is not None:
            self.emit("clip", value, value, constant(bound, "a clip"))

    def probe(self, layer: Layer, direction: str, part: str, view: View) -> None:
        """Let observers see a value."""
        self.open.body.append(Probe(layer.name, direction, part, view))
