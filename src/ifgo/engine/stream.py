"""One sequence, one step per call, the state inside: 50 nanoseconds of overhead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo import states
from ifgo.engine.cells import DENSE_ACTIVATIONS, F32, beyond_kernels, pack, pack_dense
from ifgo.engine.loading import native
from ifgo.errors import UnsupportedError, UsageError
from ifgo.layers import Dense, Dropout, Layer, Recurrent
from ifgo.model import Model, require_streamable

if TYPE_CHECKING:
    from ifgo.engine._native import Stream as Base
else:
    Base = native().Stream


def _links(model: Model) -> list[tuple[Layer, Any]]:
    require_streamable(model)
    found: list[tuple[Layer, Any]] = []
    for layer in model.layers:
        if isinstance(layer, Dropout):
            continue
        if isinstance(layer, Recurrent) and beyond_kernels(layer.cell) is None:
            found.append((layer, pack(layer.cell)))
        elif isinstance(layer, Dense) and layer.activation.name in DENSE_ACTIVATIONS:
            found.append((layer, pack_dense(layer)))
        else:
            raise UnsupportedError(
                f"a layer of kind {layer.kind} cannot run in a Stream",
                where=f"layer {layer.name}",
                expected="Recurrent and Dense layers with the usual activations",
                hint="Session.run computes the whole model",
            )
    return found


class Stream(Base):
    """A model computed one step per call.

    step(x, out=None) → out: x (I,), out (O,), float32, contiguous; a new array where out is None.
    bind(x, out), then tick(): the same from and to fixed arrays. run(x, out=None): x (T, I) →
    (T, O). state: {"h0": (1, 1, P), "c0": (1, 1, H), ...}. reset(): the state that the model
    starts from. A Stream serves one thread at a time; several may share a model. threads: None lets
    the engine choose by size; results do not depend on it.

    Raises UnsupportedError naming the layer that cannot run so, UsageError where an argument does
    not fit or a value is not finite; the state is then as it was.
    """

    def __init__(self, model: Model, *, threads: int | None = None) -> None:
        links = _links(model)
        self.model = model
        self.input_size = model.input_size
        self.output_size = model.output_size
        self._cells = [k for k, (layer, _) in enumerate(links) if isinstance(layer, Recurrent)]
        start = states.initial(model, 1, np.float32)
        pairs = [(link, start[f"h{k}"], start[f"c{k}"]) for k, link in enumerate(self._cells)]
        self._start = [(link, h, c) for link, h, c in pairs if h.any() or c.any()]
        super().__init__(tuple(packed for _, packed in links), threads or 0, model.macs)
        self.reset()

    def run(self, x: ArrayLike, out: F32 | None = None) -> F32:  # type: ignore[override]
        """Steps of one sequence in one call: x (T, I) → (T, O).

        With `out`, x must be float32 and contiguous; else it is converted.
        """
        if out is not None and isinstance(x, np.ndarray) and x.ndim == 2:
            given = cast("F32", x)
            return super().run(given, out, given.shape[0])
        array = np.ascontiguousarray(x, dtype=np.float32)
        if array.ndim != 2 or array.shape[1] != self.input_size:
            raise UsageError(f"x has shape {array.shape}", expected=f"(T, {self.input_size})")
        steps = array.shape[0]
        if out is None:
            out = np.empty((steps, self.output_size), np.float32)
        return super().run(array, out, steps)

    @property
    def state(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the state; assign a mapping to set it."""
        found = {
            key: np.empty(shape, np.float32) for key, shape in states.shapes(self.model, 1).items()
        }
        for k, link in enumerate(self._cells):
            self.state_io(link, found[f"h{k}"], found[f"c{k}"], False)
        return found

    @state.setter
    def state(self, given: dict[str, ArrayLike]) -> None:
        full = states.complete(self.model, 1, {**self.state, **given}, np.float32)
        for k, link in enumerate(self._cells):
            self.state_io(link, full[f"h{k}"], full[f"c{k}"], True)

    def reset(self) -> None:
        """Start again: zeros, or the constants that the model carries."""
        super().reset()
        for link, h, c in self._start:
            self.state_io(link, h, c, True)

    def _new_output(self) -> F32:
        return np.empty(self.output_size, np.float32)

    def _refuse(self, x: Any, out: Any, what: str) -> NoReturn:
        """Word what the compiled step found wrong."""
        match what:
            case "busy":
                raise UsageError(
                    "another thread is inside this Stream",
                    expected="one thread at a time",
                    hint="Make a Stream per thread; they share the model",
                )
            case "bind":
                raise UsageError("tick() has nothing bound", hint="Call bind(x, out) first")
            case "finite":
                raise UsageError(
                    "x holds a value that is not finite",
                    expected="finite float32 values",
                    hint="Clean the data first; the state would keep a NaN for ever",
                )
            case _:
                size = self.output_size if what == "out" else self.input_size
                array: Any = out if what == "out" else x
                writable = ", writable" if what == "out" else ""
                given: tuple[int, ...] = getattr(x, "shape", ())
                steps = f"{given[0]}, " if len(given) == 2 else ""
                shape = f"({steps}{size}{'' if steps else ','})"
                raise UsageError(
                    f"{what} is {_described(array)}",
                    expected=f"float32 of shape {shape}, contiguous{writable}",
                )


def _described(array: Any) -> str:
    if not isinstance(array, np.ndarray):
        return f"a {type(array).__name__}"
    found = f"{array.dtype} of shape {array.shape}"  # pyright: ignore[reportUnknownMemberType]
    if not array.flags.c_contiguous:
        found += ", not contiguous"
    return found if array.flags.writeable else found + ", read-only"
