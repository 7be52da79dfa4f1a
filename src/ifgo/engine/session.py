"""Whole sequences, batched, through the compiled kernels.

Letters: B batch, T time, I input features, P output size of a cell, D directions.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo import backends, states
from ifgo.activations import LINEAR, Activation
from ifgo.engine.cells import DENSE_ACTIVATIONS, F32, beyond_kernels, float32, pack, pack_dense
from ifgo.engine.general import General
from ifgo.engine.loading import native
from ifgo.errors import UnsupportedError, UsageError
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    Masking,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
)
from ifgo.lower import lower
from ifgo.model import Model, walk
from ifgo.program import require_steps
from ifgo.reference import float32 as exact

Precision = Literal["float32"]
PRECISIONS: Final = ("float32",)

MAX_THREADS: Final = 64


def beyond_stages(model: Model) -> str | None:
    """The layer and option that no compiled stage has, so that `model` takes the general path; None
    where all of it fits."""
    for layer in walk(model.layers):
        if isinstance(layer, Masking) or (isinstance(layer, Embedding) and layer.mask_zero):
            return f"layer {layer.name}: masked steps"
        for cell in layer.cells.values() if isinstance(layer, Recurrent) else ():
            if why := beyond_kernels(cell):
                return f"layer {layer.name}: {why}"
    return None


class Session:
    """A model packed once, to run on many batches; its sessions share what is packed.

    run(x, state, lengths=...) takes and returns what Model.run does. threads: None lets the engine
    choose by size, 1 to 64 force; results do not depend on it. A Session may be used from several
    threads at once.

    Raises UsageError on another precision or number of threads, or on input that does not fit;
    UnsupportedError naming the layer where a number is no float32 value; ToolError where the
    engine is not installed.
    """

    def __init__(
        self, model: Model, precision: Precision = "float32", threads: int | None = None
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"unknown precision {precision!r}", expected="float32")
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise UsageError(f"threads is {threads}", expected=f"1 to {MAX_THREADS}, or None")
        self.model = model
        self.threads = threads or 0
        self._packed = _packed(model)

    def run(
        self,
        x: ArrayLike,
        state: Mapping[str, ArrayLike] | None = None,
        *,
        lengths: Sequence[int] | NDArray[Any] | None = None,
    ) -> tuple[F32, states.State]:
        """x (B, T, I) or (T, I), tokens (B, T) or (T,) → y, final state: as Model.run."""
        ready = backends.prepare(self.model, x, lengths)
        start = states.complete(self.model, ready.x.shape[0], state, np.float32)
        y, final = self.compute(ready.x, start, ready.lengths)
        return (y[0] if ready.unbatched else y), final

    def compute(
        self, x: NDArray[Any], state: states.State, lengths: NDArray[np.intp] | None
    ) -> tuple[F32, states.State]:
        """`run` on input that has been checked, with a complete state."""
        packed = self._packed
        if isinstance(packed, General):
            return packed.compute(x, state, lengths)
        require_steps(packed.shape, x.shape[1])
        tape = packed.tapes.pop() if packed.tapes else native().Tape()
        flow = _Flow(packed, self.threads, tape, x, state, lengths)
        try:
            flow.chain(packed.layers)
        finally:
            packed.tapes.append(tape)
        return flow.value, flow.final


class _Packed:
    """The layers of a model as the kernels read them. It holds no Model, so that it dies with it.

    shape: its program without the instructions. tapes: what calls worked in, to be used again.
    Raises what `lower` raises.
    """

    def __init__(self, model: Model) -> None:
        self.shape = replace(lower(model), sweeps=())
        self.layers = model.layers
        self.positions = {layer.name: k for k, layer in enumerate(model.recurrent)}
        self.tapes: list[Any] = []
        self._of: dict[str, Any] = {}
        for layer in walk(model.layers):
            if isinstance(layer, Recurrent):
                self._of[layer.name] = [pack(cell) for cell in layer.cells.values()]
            elif isinstance(layer, Dense):
                self._of[layer.name] = pack_dense(layer)

    def of(self, layer: Layer) -> Any:
        """What stands for `layer` in the engine."""
        return self._of[layer.name]


_kept: Final[MutableMapping[Model, _Packed | General]] = WeakKeyDictionary()


def _packed(model: Model) -> _Packed | General:
    found = _kept.get(model)
    if found is None:
        found = _kept[model] = General(model) if beyond_stages(model) else _Packed(model)
    return found


class _Flow:
    """One call: the value between layers, (B, T, ·) or (B, ·), and the states that came out."""

    def __init__(
        self,
        packed: _Packed,
        threads: int,
        tape: Any,
        x: NDArray[Any],
        state: states.State,
        lengths: NDArray[np.intp] | None,
    ) -> None:
        self.packed, self.threads, self.tape, self.start = packed, threads, tape, state
        self.value: NDArray[Any] = x
        self.lengths = lengths
        self.final: states.State = {}
        self.last_state: F32 | None = None

    def chain(self, layers: Sequence[Layer]) -> None:
        for layer in layers:
            self.value = self.apply(layer)

    def apply(self, layer: Layer) -> F32:
        x = self.value
        match layer:
            case Recurrent():
                return self.recurrent(layer)
            case Dense():
                return self.dense(layer)
            case ActivationLayer():
                return activate(layer.activation, x)
            case Dropout():
                return x
            case Scale():
                return x * float32(layer.factor) + float32(layer.offset)
            case BatchNorm():
                return self.batch_norm(layer)
            case Embedding():
                return float32(layer.weight)[x]
            case LastStep():
                return self.last_step(layer)
            case HiddenAsSequence():
                return np.ascontiguousarray(x[..., None])
            case RepeatVector():
                return np.repeat(x[:, None, :], layer.steps, axis=1)
            case Flatten():
                return self.flatten()
            case Residual():
                self.chain(layer.layers)
                total = self.value.copy()
                total[..., : layer.channels] += x[..., : layer.channels]
                return total
            case _:
                raise UnsupportedError(
                    f"layers of kind {layer.kind!r} have no compiled kernel",
                    where=f"layer {layer.name}",
                )

    def dense(self, layer: Dense) -> F32:
        x = self.value
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        y = np.empty((rows.shape[0], layer.weight.shape[0]), np.float32)
        self.packed.of(layer).run(rows, y, self.threads)
        y = y.reshape(*x.shape[:-1], -1)
        return y if layer.activation.name in DENSE_ACTIVATIONS else activate(layer.activation, y)

    def batch_norm(self, layer: BatchNorm) -> F32:
        variance = layer.variance.astype(np.float64)
        outside = np.sqrt(variance) + layer.epsilon
        factor = 1 / (outside if layer.epsilon_outside else np.sqrt(variance + layer.epsilon))
        if layer.weight is not None:
            factor = factor * layer.weight.astype(np.float64)
        y = (self.value - float32(layer.mean)) * float32(factor)
        return y if layer.bias is None else y + float32(layer.bias)

    def flatten(self) -> F32:
        x = self.value
        self.lengths = None
        return np.ascontiguousarray(x).reshape(x.shape[0], -1)

    def last_step(self, layer: LastStep) -> F32:
        lengths, self.lengths = self.lengths, None
        if layer.of == "state" and self.last_state is not None:
            return self.last_state
        if lengths is None:
            return np.ascontiguousarray(self.value[:, -1])
        rows = np.arange(self.value.shape[0], dtype=np.intp)
        found = self.value[rows, np.maximum(lengths - 1, 0)]
        return np.where((lengths > 0)[:, None], found, np.float32(0))

    def recurrent(self, layer: Recurrent) -> F32:
        x, lengths = self.value, self.lengths
        if x.dtype != np.float32 or (x.shape[-1] > 1 and x.strides[-1] != x.itemsize):
            x = np.ascontiguousarray(x, dtype=np.float32)
        if layer.go_backwards:
            x = self.reversed(x)
        batch, steps = x.shape[:2]
        concat = layer.merge == "concat" or layer.directions == 1
        width = layer.cell.output_size
        new = np.empty if lengths is None else np.zeros
        whole = new((batch, steps, width * layer.directions), np.float32)
        parts: list[F32] = []
        finals: dict[str, list[F32]] = {"h": [], "c": []}
        k = self.packed.positions[layer.name]
        wanted = None if lengths is None else lengths.astype(np.int64)
        for d, (direction, cell) in enumerate(layer.cells.items()):
            h, c = self.start[f"h{k}"][d], self.start[f"c{k}"][d]
            if lengths is not None:  # an empty sequence ends in zeros
                inside = (lengths > 0)[:, None]
                h, c = np.where(inside, h, 0), np.where(inside, c, 0)
            h_n = np.empty((batch, width), np.float32)
            c_n = np.empty((batch, cell.hidden_size), np.float32)
            part = whole[:, :, d * width : (d + 1) * width]
            native().forward(
                self.packed.of(layer)[d],
                self.tape,
                x,
                part,
                reverse=direction == "backward",
                threads=self.threads,
                lengths=wanted,
                h0=float32(h),
                c0=float32(c),
                h_n=h_n,
                c_n=c_n,
            )
            parts.append(part)
            finals["h"].append(h_n)
            finals["c"].append(c_n)
        self.final |= {f"{name}{k}": np.stack(rows) for name, rows in finals.items()}
        self.last_state = merged(layer, finals["h"])
        return whole if concat else merged(layer, parts)

    def reversed(self, x: F32) -> F32:
        """Each sequence from its own last step to its first, padding in its place."""
        if self.lengths is None:
            return np.ascontiguousarray(x[:, ::-1])
        t, length = np.arange(x.shape[1], dtype=np.intp)[None, :], self.lengths[:, None]
        order = np.where(t < length, length - 1 - t, t)
        return np.take_along_axis(x, order[:, :, None], axis=1)


def merged(layer: Recurrent, parts: list[F32]) -> F32:
    """The directions of `layer` as one array."""
    if len(parts) == 1:
        return parts[0]
    match layer.merge:
        case "sum":
            return parts[0] + parts[1]
        case "mul":
            return parts[0] * parts[1]
        case "ave":
            return (parts[0] + parts[1]) * np.float32(0.5)
        case _:
            return np.concatenate(parts, axis=-1)


def activate(activation: Activation, x: F32) -> F32:
    """Any activation of the table, over the last axis."""
    if activation == LINEAR:
        return x
    return exact.softmax(x) if activation.name == "softmax" else exact.apply(activation, x)
