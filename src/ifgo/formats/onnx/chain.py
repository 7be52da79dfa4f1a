"""The chain of layers that a graph turns out to be, built while the graph is walked.

A Stream is what stands after one layer (or at an input, or in a recurrent state); it owns a block
of element ids. Each layer looks up whose ids it is given, which must be one whole stream in order,
and opens the next. The streams from an output back to the input are the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.file import GraphInput, quoted
from ifgo.formats.onnx.value import Axis, Labels, Size, Value, words
from ifgo.layers import HiddenAsSequence, LastStep, Layer, Recurrent, RepeatVector
from ifgo.recurrent import Merge

Kind = Literal["entry", "tokens", "lengths", "given state", "sequence", "vector", "h", "c"]

NO_BRANCHES = "ifgo has no graphs with branches"

FINAL = LastStep("last", "state")
"""The layer between a final state and what uses it as features."""


@dataclass(eq=False)
class Stream:
    """`width` elements per step (or per sequence) with ids from `start`.

    layer: what makes it out of parent, None at an input. inside: streams within a residual.
    entry: the graph input it comes from. owner: for kinds h and c, the stream of the recurrent
    layer. sources: field of the layer → name in the file. lengths: for a recurrent layer, the
    input that gives them. successor: what an entry or a state h became when it was first used.
    """

    kind: Kind
    start: int
    width: int
    dtype: np.dtype[Any]
    parent: Stream | None = None
    layer: Layer | None = None
    entry: GraphInput | None = None
    owner: Stream | None = None
    inside: tuple[Stream, ...] = ()
    sources: dict[str, str] = field(default_factory=dict[str, str])
    lengths: Stream | None = None
    successor: Stream | None = None

    @property
    def path(self) -> list[Stream]:
        """From the input to here."""
        found, stream = list[Stream](), self
        while stream is not None:
            found.append(stream)
            stream = stream.parent
        return found[::-1]


@dataclass
class Slot:
    """A recurrent state that the caller gives.

    ids: elements of the graph input, (B, D·H); B is 1 where the file leaves the batch open.
    """

    recurrent: Stream
    part: Literal["h", "c"]
    ids: NDArray[np.int64]


class Chain:
    """All streams of one graph, and the roles of the axes of its inputs."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []
        self._next = 0
        self.entries: dict[Stream, tuple[Labels, ...]] = {}
        self.slots: list[Slot] = []
        self._replays: dict[Stream, Stream] = {}
        self.pairs: dict[tuple[Stream, Stream, Merge], Stream] = {}
        self.finals: dict[tuple[Stream, str], Stream] = {}
        """Final states of layers in `pairs`, and of those whose last step is taken as one."""
        self.notes: list[str] = []

    # -- opening ----------------------------------------------------------------------------

    def open(self, kind: Kind, width: int, dtype: np.dtype[Any], **parts: Any) -> Stream:
        """A new stream with ids of its own."""
        if len(self._streams) > 16 * limits.current().layers:
            raise FormatError("has too many layers", **limits.at_most("layers"))
        stream = Stream(kind, self._next, width, dtype, **parts)
        self._next += width
        self._streams.append(stream)
        return stream

    def enter(self, entry: GraphInput, kind: Kind) -> Value:
        """A graph input as a signal; every axis is labelled but the known ones of a given state."""
        if entry.shape is None:
            raise UnsupportedError(
                f"input {quoted(entry.name)} declares no shape",
                expected="a known number of axes",
                hint="Export it with shapes",
            )
        full = kind == "given state"
        axes: list[Labels] = []
        extents: list[int] = []
        for size in entry.shape:
            known = full and isinstance(size, int)
            axes.append(() if known else (Axis(size),))
            extents.append(size if isinstance(size, int) and known else 1)
        width = math.prod(extents)
        stream = self.open(kind, width, entry.dtype, entry=entry)
        self.entries[stream] = tuple(axes)
        data = np.arange(stream.start, stream.start + width).reshape(extents)
        return Value(data, tuple(axes), signal=True, name=entry.name)

    # -- looking up -------------------------------------------------------------------------

    def streams(self, value: Value) -> list[Stream]:
        """The streams whose elements `value` holds, in the order it holds them first."""
        starts = [stream.start for stream in self._streams]
        ids = np.asarray(value.data).reshape(-1)
        if ids.size == 0:
            raise FormatError("is given an empty tensor", expected="at least one feature")
        found: list[Stream] = []
        places = np.searchsorted(np.array(starts), ids, side="right") - 1
        _, first = np.unique(places, return_index=True)
        for position in np.sort(first):
            found.append(self._streams[int(places[position])])
        return found

    def stream(self, value: Value) -> Stream:
        """The one stream that `value` holds elements of."""
        found = self.streams(value)
        if len(found) != 1:
            raise UnsupportedError(
                "mixes the outputs of several layers",
                expected="a chain, one layer after another",
                hint=NO_BRANCHES,
            )
        return found[0]

    def bind(self, axis: Axis, role: Literal["batch", "time", "features"]) -> None:
        """Fix what an axis means. Raises UnsupportedError where it means something else already."""
        if axis.role not in (None, role):
            raise UnsupportedError(
                f"uses {axis.words} as the {role} axis", expected="each axis in one role"
            )
        axis.fix(role)

    # -- reading signals --------------------------------------------------------------------

    def layout(self, value: Value) -> tuple[Stream, Value]:
        """The stream of `value`, whole and in order wherever its features lie.

        A final state becomes a LastStep layer first, since it is used as features.
        """
        stream = self.stream(value)
        if stream.kind == "entry":
            return self._entry(value, None)
        if stream.kind in ("c", "given state", "lengths", "tokens"):
            what = {"c": "cell state Y_c of an LSTM", "tokens": "token ids"}
            raise UnsupportedError(
                f"takes the {what.get(stream.kind, stream.kind)} as features",
                expected="the output of the layer before it",
            )
        if stream.kind == "h":
            stream, value = self._final_state(stream, value)
        ids = value.data.reshape(-1)
        if ids.size != stream.width:
            raise UnsupportedError(
                f"takes {ids.size} of the {stream.width} features before it",
                expected="all of them",
            )
        if not np.array_equal(ids, np.arange(stream.start, stream.start + stream.width)):
            raise UnsupportedError(
                "takes the features before it in another order",
                expected="directions, then units, in the order of the weights",
            )
        return stream, value

    def features(self, value: Value, width: int | None = None) -> tuple[Stream, Value]:
        """The stream of `value` with its features along the last axis.

        width: how many an input has where its shape leaves that open. A vector laid out along
        another axis, with a last axis of 1, becomes a HiddenAsSequence.
        """
        if self.stream(value).kind == "entry":
            return self._entry(value, width)
        stream, value = self.layout(value)
        shape = value.data.shape
        if shape and shape[-1] == stream.width and not value.axes[-1]:
            return stream, value
        if stream.kind == "vector" and shape and shape[-1] == 1 and stream.width in shape:
            return self.replayed(stream, value, shape.index(stream.width))
        raise UnsupportedError(
            "does not get its features along the last axis",
            expected="(batch, time, features) in any order of batch and time",
        )

    def ending(self, value: Value) -> tuple[Stream, Value]:
        """The stream of an output. A vector along another axis than the last, which is 1, is a
        HiddenAsSequence, the same for every output that is laid out so."""
        stream, value = self.layout(value)
        shape = value.data.shape
        turned = value.rank >= 2 and shape[-1] == 1 and not value.axes[-1]
        if stream.kind != "vector" or stream.width == 1 or not turned:
            return stream, value
        return self.replayed(stream, value, shape.index(stream.width))

    def _entry(self, value: Value, width: int | None) -> tuple[Stream, Value]:
        raw = self.stream(value)
        source = quoted(raw.entry.name if raw.entry else value.name)
        labels = value.axes[-1] if value.axes else ()
        size: Size | None = 1
        for label in labels:
            own = self.entries[raw]
            if labels != own[-1]:
                places = [k for k, axis in enumerate(own) if label in axis]
                raise UnsupportedError(
                    f"takes axis {places[0]} of input {source} as features",
                    expected="features on its last axis",
                )
            self.bind(label, "features")
            known = raw.successor.width if raw.successor else None
            size = label.size if isinstance(label.size, int) else known or width
        if not isinstance(size, int) or (width is not None and size != width):
            raise FormatError(
                f"gets {'an open number of' if size is None else words(size)} features from input "
                f"{source}",
                expected=str(width or "a known number"),
            )
        if raw.successor is None:
            raw.successor = self.open("sequence", size, raw.dtype, entry=raw.entry)
            raw.successor.parent = raw
        shape = (*value.data.shape[:-1], size)
        if math.prod(shape) != size:
            raise UnsupportedError(
                "does not get its features along the last axis",
                expected="(batch, time, features) in any order of batch and time",
            )
        return raw.successor, self.laid_out(raw.successor, shape, (*value.axes[:-1], ()))

    def laid_out(self, stream: Stream, shape: Sequence[int], axes: Sequence[Labels]) -> Value:
        """The elements of `stream` in order as a signal."""
        ids = np.arange(stream.start, stream.start + stream.width)
        return Value(ids.reshape(shape), tuple(axes), signal=True)

    # -- adding layers ----------------------------------------------------------------------

    def step(
        self, value: Value, layer: Layer, width: int, sources: dict[str, str] | None = None
    ) -> Value:
        """`layer` applied along the last axis of `value` (as `features` gave it)."""
        stream = self.stream(value)
        made = self.open(
            stream.kind, width, stream.dtype, parent=stream, layer=layer, sources=sources or {}
        )
        return self.laid_out(made, (*value.data.shape[:-1], width), value.axes)

    def elementwise(self, stream: Stream, value: Value, layer: Layer) -> Value:
        """`layer` applied where the elements stand (as `layout` gave them)."""
        made = self.open(stream.kind, stream.width, stream.dtype, parent=stream, layer=layer)
        return replace(value, data=value.data - stream.start + made.start)

    def instead(self, value: Value, layer: Layer, sources: dict[str, str]) -> Value:
        """The layer that made `value` replaced by `layer`, as when a bias joins its Dense."""
        old = self.stream(value)
        made = self.open(
            old.kind,
            old.width,
            old.dtype,
            parent=old.parent,
            layer=layer,
            sources={**old.sources, **sources},
        )
        return replace(value, data=value.data - old.start + made.start)

    def _final_state(self, state: Stream, value: Value) -> tuple[Stream, Value]:
        if state.successor is None:
            state.successor = self.open(
                "vector", state.width, state.dtype, parent=state.owner, layer=FINAL
            )
        made = state.successor
        return made, replace(value, data=value.data - state.start + made.start)

    def last_step(self, value: Value, axis: int, *, keep: bool) -> Value:
        """The last step of time along `axis`, which stays with length 1 where `keep`."""
        stream = self.stream(value)
        if stream.kind == "entry":
            raise UnsupportedError("takes the last step of the model's input", expected="an LSTM")
        if any(s.lengths for s in _within(stream.path)):
            raise UnsupportedError(
                "takes the row of the last time step, which is padding where a sequence is shorter",
                expected="the final state Y_h where sequence_lens is given",
            )
        if value.axes[axis][0].backwards:
            return self._first_step(stream, value, axis, keep=keep)
        made = self.open(
            "vector", stream.width, stream.dtype, parent=stream, layer=LastStep("last", "sequence")
        )
        return _at_one_step(value, axis, made.start - stream.start, keep=keep)

    def _first_step(self, stream: Stream, value: Value, axis: int, *, keep: bool) -> Value:
        """The last step of a sequence that is read from its end: where a backward layer ends."""
        if not isinstance(stream.layer, Recurrent) or stream.layer.forward is not None:
            raise UnsupportedError(
                "takes the first step of time", expected="that of a backward LSTM, its last"
            )
        return _at_one_step(value, axis, self.final(stream).start - stream.start, keep=keep)

    def final(self, recurrent: Stream) -> Stream:
        """The final hidden state of a layer in one direction."""
        if (recurrent, "h") not in self.finals:
            self.finals[recurrent, "h"] = self.state_of(recurrent, "h", recurrent.width)
        return self.finals[recurrent, "h"]

    def replayed(self, stream: Stream, value: Value, axis: int) -> tuple[Stream, Value]:
        """A vector laid out along `axis` as a sequence of single features, one for each vector."""
        made = self._replays.get(stream)
        if made is None:
            layer = HiddenAsSequence("replay")
            made = self.open("sequence", 1, stream.dtype, parent=stream, layer=layer)
            self._replays[stream] = made
        label = Axis(stream.width, "time")
        axes = (*value.axes[:axis], (label,), *value.axes[axis + 1 :])
        return made, self.laid_out(made, (1,) * len(axes), axes)

    def repeated(self, stream: Stream, value: Value, axis: int, steps: int) -> tuple[Stream, Value]:
        """A vector copied `steps` times along an axis of length 1."""
        layer = RepeatVector("repeat", steps)
        made = self.open("sequence", stream.width, stream.dtype, parent=stream, layer=layer)
        axes = (*value.axes[:axis], (Axis(steps, "time"),), *value.axes[axis + 1 :])
        return made, self.laid_out(made, value.data.shape, axes)

    def state_of(self, recurrent: Stream, kind: Literal["h", "c"], width: int) -> Stream:
        """The final state of a recurrent layer."""
        return self.open(kind, width, recurrent.dtype, owner=recurrent)


def _at_one_step(value: Value, axis: int, shift: int, *, keep: bool) -> Value:
    """`value` without its axis of time, or with length 1 there, its ids moved by `shift`."""
    axes = (*value.axes[:axis], (), *value.axes[axis + 1 :])
    found = replace(value, data=value.data + shift, axes=axes)
    if keep:
        return found
    shape = found.data.shape[:axis] + found.data.shape[axis + 1 :]
    return replace(found, data=found.data.reshape(shape), axes=axes[:axis] + axes[axis + 1 :])


def _within(streams: Iterable[Stream]) -> Iterator[Stream]:
    """Streams, and those inside their residuals."""
    for stream in streams:
        yield stream
        yield from _within(stream.inside)
