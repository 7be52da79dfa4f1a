"""Two LSTM nodes over one sequence, one in each direction, as one bidirectional layer.

Exporters that do not fuse the directions write the forward and the reverse node side by side and
join their results.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from ifgo.errors import UnsupportedError
from ifgo.formats.onnx.arguments import Arguments
from ifgo.formats.onnx.chain import FINAL, Chain, Slot, Stream
from ifgo.formats.onnx.fold import MOVES
from ifgo.formats.onnx.value import Value
from ifgo.layers import InitialState, LastStep, Recurrent
from ifgo.recurrent import Merge


def concat(chain: Chain, a: Arguments) -> list[Value]:
    """Concat of signals; those of a forward and a backward node become those of their pair."""
    values = _as_states(chain, a.every())
    streams = [chain.streams(value) if value.signal else [] for value in values]
    owners = list(dict.fromkeys(s.owner or s for found in streams for s in found))
    if len(owners) == 2 and all(len(found) == 1 for found in streams):
        first, second = owners
        if _is_pair(first, second):
            pair = joined(chain, first, second, "concat")
            moved = [_moved(chain, value, pair) for value in values]
            results = MOVES["Concat"](Arguments(a.node, moved, a.opset, a.budget))
            a.attributes.integer("axis")
            return results
    return MOVES["Concat"](a)


def _as_states(chain: Chain, values: list[Value]) -> list[Value]:
    """Where one is a final state, the last steps of forward layers as their final states too."""
    kinds = {s.kind for value in values if value.signal for s in chain.streams(value)}
    return [_as_state(chain, v) for v in values] if "h" in kinds and "vector" in kinds else values


def _as_state(chain: Chain, value: Value) -> Value:
    found = chain.streams(value) if value.signal else []
    for stream in found[:1]:
        before = stream.parent
        layer = None if before is None else before.layer
        last = isinstance(stream.layer, LastStep) and stream.layer.of == "sequence"
        single = isinstance(layer, Recurrent) and layer.backward is None
        if len(found) == 1 and last and single and before is not None:
            return replace(value, data=value.data - stream.start + chain.final(before).start)
    return value


def combined(chain: Chain, x: Value, y: Value, merge: Literal["sum", "mul"]) -> Value | None:
    """The sum or product of a forward and a backward node, of their sequences or of their final
    states h, as their pair; None where they are no pair."""
    x, y = _as_states(chain, [x, y])
    parts = chain.stream(x), chain.stream(y)
    kinds = {part.kind for part in parts}
    if kinds not in ({"sequence"}, {"h"}):
        return None
    first, second = (part.owner or part for part in parts)
    if _is_pair(second, first):
        x, y, parts, first, second = y, x, parts[::-1], second, first
    if not _is_pair(first, second) or x.axes != y.axes or x.data.shape != y.data.shape:
        return None
    if not np.array_equal(x.data - parts[0].start, y.data - parts[1].start):
        return None
    made = joined(chain, first, second, merge)
    if kinds == {"h"}:
        made = _merged_state(chain, made)
    return replace(x, data=x.data - parts[0].start + made.start)


def averaged(chain: Chain, x: Value, factor: Value) -> Value | None:
    """Half of the sum of a pair, None where it is anything else."""
    if factor.data.size != 1 or factor.rank > x.rank or factor.data.reshape(-1)[0] != 0.5:
        return None
    stream = chain.stream(x)
    over = stream.parent if stream.layer == FINAL else stream
    pair = next((key for key, made in chain.pairs.items() if made is over), None)
    if over is None or pair is None or pair[2] != "sum":
        return None
    made = joined(chain, *pair[:2], "ave")
    for slot in chain.slots:
        slot.recurrent = made if slot.recurrent is over else slot.recurrent
    if over is not stream:
        made = _merged_state(chain, made)
    return replace(x, data=x.data - stream.start + made.start)


def _merged_state(chain: Chain, pair: Stream) -> Stream:
    """The final states of both directions as one vector."""
    return chain.open("vector", pair.width, pair.dtype, parent=pair, layer=FINAL)


def _is_pair(first: Stream, second: Stream) -> bool:
    a, b = first.layer, second.layer
    if not isinstance(a, Recurrent) or not isinstance(b, Recurrent):
        return False
    single = a.backward is None and b.forward is None
    alike = first.width == second.width and first.lengths is second.lengths
    return single and alike and first.parent is second.parent


def joined(chain: Chain, first: Stream, second: Stream, merge: Merge) -> Stream:
    """The bidirectional layer of a pair, made once for each merge."""
    known = chain.pairs.get((first, second, merge))
    if known is not None:
        return known
    a, b = first.layer, second.layer
    assert isinstance(a, Recurrent)
    assert isinstance(b, Recurrent)
    if a.stateful != b.stateful:
        raise UnsupportedError(
            "joins two directions, one of which keeps its state between calls",
            expected="both or neither",
        )
    layer = Recurrent(
        "lstm",
        a.forward,
        b.backward,
        merge=merge,
        initial=_initial(a, b),
        stateful=a.stateful,
    )
    made = chain.open(
        "sequence",
        first.width * (2 if merge == "concat" else 1),
        first.dtype,
        parent=first.parent,
        layer=layer,
        lengths=first.lengths,
        sources={**first.sources, **second.sources},
    )
    for part in ("h", "c"):
        slots = [s for s in chain.slots if s.recurrent in (first, second) and s.part == part]
        slots.sort(key=lambda slot: slot.recurrent is second)
        chain.slots = [slot for slot in chain.slots if slot not in slots]
        if slots:
            ids = np.concatenate([slot.ids for slot in slots], axis=1)
            chain.slots.append(Slot(made, part, ids))
        chain.finals[made, part] = chain.state_of(made, part, 2 * first.width)
    chain.pairs[first, second, merge] = made
    return made


def _initial(a: Recurrent, b: Recurrent) -> InitialState:
    kinds = {a.initial.kind, b.initial.kind}
    if kinds == {"zero"}:
        return InitialState()
    if kinds == {"input"}:
        return InitialState("input")
    if "input" in kinds:
        raise UnsupportedError(
            "joins two directions, one of which takes its initial state from an input",
            expected="both or neither",
        )
    parts: list[np.ndarray] = []
    for name in ("h", "c"):
        given = [getattr(layer.initial, name) for layer in (a, b)]
        like = next(array for array in given if array is not None)
        parts.append(np.concatenate([np.zeros_like(like) if x is None else x for x in given]))
    return InitialState("constant", *parts)


def _moved(chain: Chain, value: Value, pair: Stream) -> Value:
    """The elements of one direction as those of the pair."""
    (stream,) = chain.streams(value)
    owner = stream.owner or stream
    second = isinstance(owner.layer, Recurrent) and owner.layer.forward is None
    target = (
        pair if stream.owner is None else chain.finals[pair, "h" if stream.kind == "h" else "c"]
    )
    start = target.start + (stream.width if second else 0)
    return replace(value, data=value.data - stream.start + start)
