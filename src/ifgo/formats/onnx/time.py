"""Moves of a signal that mean something for time: embeddings, last steps, copies, flattening.

Every other move is the plain one of fold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.arguments import Arguments, sizes
from ifgo.formats.onnx.chain import Chain
from ifgo.formats.onnx.file import quoted
from ifgo.formats.onnx.fold import MOVES, flatten_target, reshape_target, slices
from ifgo.formats.onnx.states import finite
from ifgo.formats.onnx.value import Size, Value, covers, cut, is_real, regroup, unsqueeze
from ifgo.layers import Embedding, Flatten

Handler = Callable[[Chain, Arguments], list[Value]]


def _gather(chain: Chain, a: Arguments) -> list[Value]:
    source, index = a.value(0), a.value(1)
    if index.signal:
        if a.attributes.integer("axis", 0) != 0:
            raise UnsupportedError("looks tokens up along another axis", expected="axis 0")
        return [_embedding(chain, source, index)]
    axis = source.position(a.attributes.integer("axis", 0) or 0)
    picked = sizes(index)
    if len(picked) == 1 and _is_last(source, axis, picked[0]):
        _require_time(source, axis)
        return [chain.last_step(source, axis, keep=index.data.ndim == 1)]
    return MOVES["Gather"](a)


def _embedding(chain: Chain, table: Value, tokens: Value) -> Value:
    stream = chain.stream(tokens)
    if stream.kind != "tokens" or table.signal:
        raise UnsupportedError(
            "picks rows by something else than the tokens of an input", expected="an embedding"
        )
    weight = table.data
    if weight.ndim != 2 or not is_real(weight.dtype):
        raise UnsupportedError(
            f"looks tokens up in {quoted(table.name)}, {weight.dtype.name} of shape {weight.shape}",
            expected="an embedding (vocabulary, features) of real numbers",
        )
    if weight.shape[0] > limits.current().vocabulary:
        raise FormatError(f"has {weight.shape[0]} rows", **limits.at_most("vocabulary"))
    finite(weight, f"embedding {quoted(table.name)}")
    made = chain.open(
        "sequence",
        weight.shape[1],
        weight.dtype,
        parent=stream,
        layer=Embedding("embedding", weight),
        sources={"weight": table.name},
    )
    return chain.laid_out(made, (*tokens.data.shape, weight.shape[1]), (*tokens.axes, ()))


def _is_last(value: Value, axis: int, index: Size) -> bool:
    """Whether `index` is the last entry of an axis with one label."""
    labels = value.axes[axis]
    return len(labels) == 1 and index in (-1, labels[0].size + -1)


def _require_time(value: Value, axis: int) -> None:
    label = value.axes[axis][0]
    if label.role != "time":
        raise UnsupportedError(
            f"takes the last entry of {label.words}", expected="the last step of time after an LSTM"
        )


def _slice(chain: Chain, a: Arguments) -> list[Value]:
    value = a.value(0)
    for axis, start, stop, step in slices(a):
        labels = value.axes[axis]
        whole = start == 0 and step == 1 and covers(stop, value.shape[axis])
        if _turns(value, axis, start, stop, step):
            turned = (labels[0].reversed(),)
            value = replace(value, axes=(*value.axes[:axis], turned, *value.axes[axis + 1 :]))
        elif whole or not labels:
            value = cut(value, axis, start, stop, step)
        elif _is_last(value, axis, start) and step == 1 and covers(stop, value.shape[axis]):
            _require_time(value, axis)
            value = chain.last_step(value, axis, keep=True)
        else:
            if chain.stream(value).kind == "entry" and axis == value.rank - 1:
                value = chain.features(value)[1]
            value = cut(value, axis, start, stop, step)
    return [value]


def _turns(value: Value, axis: int, start: Size, stop: Size, step: int) -> bool:
    """Whether a slice reads a labelled axis from its end to its start, all of it."""
    if len(value.axes[axis]) != 1 or step != -1:
        return False
    size = value.axes[axis][0].size
    last = start == -1 or (isinstance(start, int) and start >= 0 and covers(start + 1, size))
    return last and isinstance(stop, int) and stop <= _before(size)


def _before(size: Size) -> int:
    """The greatest stop that a slice backwards never reaches."""
    return -size - 1 if isinstance(size, int) else -(2**31)


def _tile(chain: Chain, a: Arguments) -> list[Value]:
    """A vector repeated along an axis of length 1, as keras writes RepeatVector."""
    value, repeats = a.value(0), a.sizes(1)
    if len(repeats) != value.rank:
        raise FormatError(
            f"has {len(repeats)} repeats", expected=f"{value.rank}, one for each axis"
        )
    grown = [k for k, count in enumerate(repeats) if count != 1]
    if any(value.shape[k] != 1 or value.axes[k] for k in grown):
        raise UnsupportedError(
            "copies an axis of more than one entry",
            expected="a vector repeated a known number of times",
        )
    return _grown(chain, value, repeats)


def _expand(chain: Chain, a: Arguments) -> list[Value]:
    value, target = a.value(0), a.sizes(1)
    value = unsqueeze(value, range(max(len(target) - value.rank, 0)))
    wanted = [1] * (value.rank - len(target)) + target
    return _grown(chain, value, wanted)


def _grown(chain: Chain, value: Value, wanted: list[Size]) -> list[Value]:
    """A vector with one axis grown from 1 to a number of steps; three axes of 1 are one step."""
    grown = [k for k, want in enumerate(wanted) if want not in (1, value.shape[k])]
    if not grown and value.rank == 3 and chain.stream(value).kind in ("vector", "h"):
        single = [k for k, size in enumerate(value.data.shape[:-1]) if size == 1]
        grown = [k for k in single if not value.axes[k]][:1]
    if not grown:
        return [value]
    steps: Size = wanted[grown[0]]
    stream, value = chain.features(value)
    if len(grown) > 1 or stream.kind != "vector" or not isinstance(steps, int):
        raise UnsupportedError(
            "copies the sequence along an axis",
            expected="a vector repeated a known number of times",
        )
    return [chain.repeated(stream, value, grown[0], steps)[1]]


def _reshape(chain: Chain, a: Arguments) -> list[Value]:
    zero = a.attributes.flag("allowzero")
    return _flattened(chain, a, reshape_target(a), zero) or MOVES["Reshape"](a)


def _flatten(chain: Chain, a: Arguments) -> list[Value]:
    return _flattened(chain, a, flatten_target(a), True) or MOVES["Flatten"](a)


def _flattened(chain: Chain, a: Arguments, target: list[Size], zero: bool) -> list[Value]:
    """The result where the target merges time with features, nothing where it does not."""
    value = a.value(0)
    groups = regroup(value, target, allow_zero=zero)
    merged = [k for k, g in enumerate(groups) if len(g) == 2 and g[0][0] and not g[1][0]]
    if len(merged) != 1 or groups[merged[0]][0][0] is None:
        return []
    label = groups[merged[0]][0][0]
    stream, value = chain.features(value)
    if label is None or label.role != "time" or not isinstance(label.size, int):
        return []
    if label.backwards:
        raise UnsupportedError("flattens time from its end", expected="steps in their order")
    width = label.size * stream.width
    if width > limits.current().elements:
        raise FormatError(f"flattens to {width} features", **limits.at_most("elements"))
    made = chain.open(
        "vector", width, stream.dtype, parent=stream, layer=Flatten("flatten", label.size)
    )
    axes = [tuple(axis for axis, _ in group if axis is not None) for group in groups]
    axes[merged[0]] = ()
    extents = [width if k == merged[0] else 1 for k in range(len(groups))]
    return [chain.laid_out(made, extents, axes)]


TIME: Final[dict[str, Handler]] = {
    "Gather": _gather,
    "Slice": _slice,
    "Expand": _expand,
    "Tile": _tile,
    "Reshape": _reshape,
    "Flatten": _flatten,
}
"""Operator → handler, called where an input is a signal."""
