"""Tensors of a graph that hold recurrent states, as inputs and outputs of the model."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ifgo import limits
from ifgo.errors import UnsupportedError
from ifgo.formats.onnx.chain import NO_BRANCHES, Chain, Slot, Stream
from ifgo.formats.onnx.file import printable, quoted
from ifgo.formats.onnx.value import Value, words
from ifgo.layers import Recurrent
from ifgo.model import Output, StateInput, StateSlot
from ifgo.packing import Packing

BESIDE = "LSTM layers one after another"


def label(name: str, default: str) -> str:
    """A name of the file as the model carries it; one that is longer or no ASCII ends in a digest
    of the whole, since two may differ in what is not kept."""
    shown = printable(name, len(name)) or default
    if shown == (name or default) and len(shown) <= limits.current().name_chars:
        return shown
    digest = sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{shown[: limits.current().name_chars - 9]}~{digest}"


def state_output(
    chain: Chain, name: str, value: Value, streams: list[Stream], names: dict[Stream, str]
) -> Output:
    """Final states. Raises UnsupportedError where they are not whole, or of other layers."""
    owners = [cast(Stream, stream.owner) for stream in streams]
    if any(owner not in names for owner in owners):
        raise UnsupportedError(
            f"output {quoted(name)} is the state of an LSTM beside the chain",
            expected=BESIDE,
            hint=NO_BRANCHES,
        )
    labelled = [k for k, labels in enumerate(value.axes) if labels]
    batch = labelled[0] if labelled else None
    flat = value.data.reshape(-1)
    rows = [_places(flat, np.arange(s.start, s.start + s.width), s) for s in streams]
    shape = [n for k, n in enumerate(value.data.shape) if k != batch]
    found = None
    if flat.size == sum(stream.width for stream in streams):
        found = _find(shape, batch, rows)
    if found is None:
        raise UnsupportedError(
            f"output {quoted(name)} holds the final states in another order or in part",
            expected="whole states, each once, along axes of their own",
        )
    packing, order = found
    slots = tuple(
        StateSlot(names[owners[k]], "h" if streams[k].kind == "h" else "c") for k in order
    )
    layout = _layout(packing, chain, f"output {printable(name, 80)}", value.shape)
    axes = "T" if batch is None else "BT"
    parts = {slot.part for slot in slots}
    if len(parts) == 2:
        return Output("state", label(name, "state"), axes=axes, slots=slots, layout=layout)
    role = "h_n" if parts == {"h"} else "c_n"
    return Output(role, label(name, role), tuple(slot.layer for slot in slots), axes, layout=layout)


def state_input(
    chain: Chain, stream: Stream, names: dict[Stream, str], *, batched: bool
) -> StateInput:
    """Initial states. Raises UnsupportedError where their tensor is not all of them, each once."""
    assert stream.entry is not None
    name = stream.entry.name
    slots = [s for s in chain.slots if stream.start <= s.ids[0, 0] < stream.start + stream.width]
    found = _given(chain, stream, slots, batched=batched)
    if found is None:
        raise UnsupportedError(
            f"input {quoted(name)} does not pack whole states",
            expected="whole states along axes of their own, every part used once",
            hint="Pass h_0 and c_0 as inputs of their own",
        )
    if any(slot.recurrent not in names for slot in slots):
        raise UnsupportedError(
            f"input {quoted(name)} feeds an LSTM beside the chain", expected=BESIDE
        )
    packing, order = found
    shape = stream.entry.shape or ()
    if packing is not None and packing.batched != batched:
        sizes = ", ".join(map(words, shape))
        chain.notes.append(f"input {printable(name, 80)} has shape ({sizes}) in the file")
        packing = _rebatched(packing, batched=batched)
    return StateInput(
        label(name, "state"),
        tuple(StateSlot(names[slots[k].recurrent], slots[k].part) for k in order),
        _layout(packing, chain, f"input {printable(name, 80)}", shape),
    )


def _rebatched(packing: Packing, *, batched: bool) -> Packing:
    """With a batch axis before that of the units, or with one row in place of the batch."""
    if not batched:
        return Packing(tuple((1,) if axis == ("B",) else axis for axis in packing.axes))
    axes = list(packing.axes)
    axes.insert(next(k for k, axis in enumerate(axes) if "H" in axis), ("B",))
    return Packing(tuple(axes))


def _given(
    chain: Chain, stream: Stream, slots: list[Slot], *, batched: bool
) -> tuple[Packing | None, list[int]] | None:
    """As Packing.find, over each axis that may be the batch."""
    assert stream.entry is not None
    axes = chain.entries[stream]
    sizes = zip(axes, stream.entry.shape or (), strict=True)
    extents = [1 if labels or not isinstance(n, int) else n for labels, n in sizes]
    whole = np.arange(stream.start, stream.start + stream.width).reshape(extents)
    counts = {slot.ids.shape[0] for slot in slots}
    if len(counts) != 1:
        return None
    (count,) = counts
    places: list[int] = [k for k, labels in enumerate(axes) if labels]
    if batched and not places:
        places = sorted((k for k, n in enumerate(extents) if n == count), key=lambda k: k != 1)
    for place in [*places, *([None] if count == 1 and not any(axes) else [])]:
        moved = whole.reshape(1, -1)
        if place is not None:
            moved = np.moveaxis(whole, place, 0).reshape(count, -1)
        rows = [_places(moved[0], slot.ids[0], slot.recurrent) for slot in slots]
        pairs = zip(slots, rows, strict=True)
        if all(np.array_equal(moved[:, r.reshape(-1)], slot.ids) for slot, r in pairs):
            shape = [n for k, n in enumerate(extents) if k != place]
            if found := _find(shape, place, rows):
                return found
    return None


def _places(flat: NDArray[Any], ids: NDArray[Any], owner: Stream) -> NDArray[np.intp]:
    """Where each of `ids` stands in `flat`, as (D, H); 0 where it does not (checked later)."""
    order = np.argsort(flat, kind="stable")
    found = order[np.minimum(np.searchsorted(flat, ids, sorter=order), flat.size - 1)]
    layer = (owner.owner or owner).layer
    assert isinstance(layer, Recurrent)
    return found.reshape(layer.directions, -1)


def _find(
    shape: Sequence[int], batch: int | None, rows: list[NDArray[np.intp]]
) -> tuple[Packing | None, list[int]] | None:
    """As Packing.find; no Packing where states of several widths stand one after another."""
    if len({row.shape[1] for row in rows}) == 1:
        return Packing.find(shape, batch, rows)
    order = sorted(range(len(rows)), key=lambda k: int(rows[k][0, 0]))
    flat = np.concatenate([rows[k].reshape(-1) for k in order])
    return (None, order) if np.array_equal(flat, np.arange(flat.size)) else None


def _layout(packing: Packing | None, chain: Chain, what: str, shape: Sequence[Any]) -> str:
    """The layout of a tensor, "" where it is the usual one; notes what no layout says."""
    if packing is None:
        sizes = ", ".join(map(words, shape))
        chain.notes.append(f"{what} has shape ({sizes}) in the file")
        return ""
    usual = Packing.usual(packing.rows, batched=packing.batched)
    return "" if packing == usual else str(packing)
