"""An ONNX LSTM node and a Recurrent layer, one as the other. SPEC.md 1.3.

Gate order i, o, f, g; B holds two biases, P is i, o, f. Reading, every attribute becomes a field or
is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from ifgo import gates
from ifgo.activations import LINEAR, ONNX_SPELLING, Activation, from_onnx_lstm
from ifgo.cell import Array, LSTMCell
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.arguments import Arguments
from ifgo.formats.onnx.chain import Chain, Slot, Stream
from ifgo.formats.onnx.file import printable, quoted
from ifgo.formats.onnx.holds import plain
from ifgo.formats.onnx.states import Given, finite, initial_state
from ifgo.formats.onnx.value import Axis, Labels, Value, is_real, transpose, words
from ifgo.layers import InitialState, Recurrent

LAYOUT: Final = gates.LSTM_LAYOUTS["onnx"]

DIRECTIONS: Final = {
    "forward": ("forward",),
    "reverse": ("backward",),
    "bidirectional": ("forward", "backward"),
}
"""Attribute `direction` → fields of Recurrent, in the order of the leading axis of W."""


@dataclass(frozen=True)
class _Rules:
    """The attributes of the node."""

    directions: tuple[str, ...]
    activations: list[Activation]
    clip: float | None
    coupled: bool
    layout: int
    hidden_size: int | None


def _rules(a: Arguments) -> _Rules:
    direction = a.attributes.text("direction", "forward")
    if direction not in DIRECTIONS:
        raise FormatError(
            f"direction is {quoted(direction)}", expected="forward, reverse or bidirectional"
        )
    directions = DIRECTIONS[direction]
    named = [printable(n, 40) for n in a.attributes.texts("activations") or []]
    names = named or ["Sigmoid", "Tanh", "Tanh"] * len(directions)
    if len(names) != 3 * len(directions):
        raise FormatError(
            f"activations has {len(names)} names",
            expected=f"{3 * len(directions)}, three for each direction",
        )
    flags: dict[str, int] = {"layout": 0}
    known = ["input_forget"]
    known += ["layout"] if a.opset >= 14 else ["output_sequence"] if a.opset < 7 else []
    for name in known:
        flags[name] = a.attributes.integer(name, 0) or 0
        if flags[name] not in (0, 1):
            raise FormatError(f"{name} is {flags[name]}", expected="0 or 1")
    if flags.get("output_sequence") and not (a.node.outputs and a.node.outputs[0]):
        raise FormatError("output_sequence is 1 without Y", expected="an output Y, or 0")
    clip = a.attributes.number("clip")
    if clip is not None and clip <= 0:
        raise FormatError(f"clip is {clip}", expected="a number above 0")
    return _Rules(
        directions=directions,
        activations=from_onnx_lstm(
            names,
            a.attributes.numbers("activation_alpha"),
            a.attributes.numbers("activation_beta"),
            where=a.node.where,
        ),
        clip=clip,
        coupled=bool(flags["input_forget"]),
        layout=flags["layout"],
        hidden_size=a.attributes.integer("hidden_size"),
    )


def recurrent(chain: Chain, a: Arguments) -> list[Value]:
    """The outputs Y, Y_h and Y_c of an LSTM node, whose layer joins the chain."""
    if a.node.layer is not None:
        return _ready(chain, a, a.node.layer)
    rules = _rules(a)
    count = len(rules.directions)
    recurrence = _weights(a.value(2), "R", (count, "4H", "H"))
    hidden = recurrence.shape[2]
    if rules.hidden_size not in (None, hidden) or recurrence.shape[1] != 4 * hidden:
        _not_an_lstm(a.value(2), recurrence.shape, rules.hidden_size)
    weights = _weights(a.value(1), "W", (count, 4 * hidden, "I"))
    stream, x, time, batch = _sequence(chain, a.value(0), weights.shape[2], rules.layout)
    if stream.dtype != weights.dtype:
        raise FormatError(
            f"X is {stream.dtype.name}, W is {weights.dtype.name}", expected="one type"
        )
    biases = _optional(a.optional(3), "B", (count, 8 * hidden), weights)
    peepholes = _optional(a.optional(7), "P", (count, 3 * hidden), weights)
    cells: dict[str, LSTMCell] = {}
    for d, direction in enumerate(rules.directions):
        cells[direction] = _cell(
            weights[d],
            recurrence[d],
            None if biases is None else biases[d],
            None if peepholes is None else peepholes[d],
            rules,
            rules.activations[3 * d : 3 * d + 3],
        )
    lengths = _lengths(chain, stream, a.optional(4), time)
    directions = rules.directions
    if time.backwards:
        if count == 2 or lengths is not None:
            raise UnsupportedError(
                "runs over a reversed sequence in two directions, or with lengths",
                expected="one direction over whole sequences",
            )
        directions = ("backward",) if directions == ("forward",) else ("forward",)
        cells = dict(zip(directions, cells.values(), strict=True))
    initial, given = initial_state(
        chain, a, (count, hidden, hidden), batch, rules.layout, weights.dtype
    )
    made = chain.open(
        "sequence",
        count * hidden,
        stream.dtype,
        parent=stream,
        layer=Recurrent("lstm", cells.get("forward"), cells.get("backward"), initial=initial),
        lengths=lengths,
        sources=_sources(a, directions, initial),
    )
    chain.slots.extend(Slot(made, g.part, g.ids) for g in given)
    return _outputs(chain, made, count, hidden, x.axes[0], x.axes[1], rules.layout)


def _ready(chain: Chain, a: Arguments, layer: Recurrent) -> list[Value]:
    """Y (T, B, D·P), and with one direction Y_h (B, P) and Y_c (B, H), of a node with its layer.

    Attribute `steps`: how many steps the node takes, which must be the whole sequence.
    """
    layout, steps = (a.attributes.integer(name) for name in ("layout", "steps"))
    stream, x, time, batch = _sequence(chain, a.value(0), layer.cell.input_size, layout or 0)
    if stream.dtype != layer.cell.weight_ih.dtype:
        raise FormatError(
            f"X is {stream.dtype.name}, its weights are {layer.cell.weight_ih.dtype.name}",
            expected="one type",
        )
    if steps is not None and time.size != steps:
        raise UnsupportedError(
            f"takes {steps} steps of a sequence of {words(time.size)}", expected="all of them"
        )
    sources = a.node.sources
    if time.backwards:
        layer, sources = _turned(layer, sources)
    given: list[Given] = []
    if a.optional(5) is not None or a.optional(6) is not None:
        size = (1, layer.cell.output_size, layer.hidden_size)
        initial, given = initial_state(chain, a, size, batch, 0, layer.cell.weight_ih.dtype)
        layer = replace(layer, initial=initial)
    lengths = _lengths(chain, stream, a.optional(4), time)
    if lengths is not None and time.backwards:
        raise UnsupportedError(
            "runs over a reversed sequence with lengths", expected="one over whole sequences"
        )
    width = layer.output_size(stream.width)
    made = chain.open(
        "sequence",
        width,
        stream.dtype,
        parent=stream,
        layer=layer,
        lengths=lengths,
        sources=sources,
    )
    chain.slots.extend(Slot(made, g.part, g.ids) for g in given)
    y = chain.laid_out(made, (1, 1, width), (*x.axes[:2], ()))
    results = [transpose(y, (1, 0, 2)) if layout else y]
    if layer.directions == 1:
        c = chain.state_of(made, "c", layer.hidden_size)
        for state in (chain.final(made), c)[: len(a.node.outputs) - 1]:
            results.append(chain.laid_out(state, (1, state.width), (x.axes[1], ())))
    return results


def _turned(layer: Recurrent, sources: dict[str, str]) -> tuple[Recurrent, dict[str, str]]:
    """A layer over a sequence that is read from its end, in the order of time."""
    if layer.directions == 2:
        raise UnsupportedError(
            "runs in two directions over a reversed sequence", expected="one direction"
        )
    old, new = ("forward", "backward") if layer.forward is not None else ("backward", "forward")
    renamed = {key.replace(f"{old}.", f"{new}."): name for key, name in sources.items()}
    return replace(layer, forward=layer.backward, backward=layer.forward), renamed


def _outputs(
    chain: Chain, made: Stream, count: int, hidden: int, time: Labels, batch: Labels, layout: int
) -> list[Value]:
    y = chain.laid_out(made, (1, count, 1, hidden), (time, (), batch, ()))
    finals: list[Value] = []
    for part in ("h", "c"):
        state = chain.state_of(made, part, count * hidden)
        finals.append(chain.laid_out(state, (count, 1, hidden), ((), batch, ())))
    if layout == 0:
        return [y, *finals]
    return [transpose(y, (2, 0, 1, 3)), *(transpose(final, (1, 0, 2)) for final in finals)]


def _sequence(
    chain: Chain, x: Value, width: int, layout: int
) -> tuple[Stream, Value, Axis, Axis | None]:
    """X as (stream, value in the order T, B, I, axis of time, axis of the batch if any)."""
    if x.rank != 3:
        raise FormatError(f"X has {x.rank} axes", expected="3: time, batch, features")
    if layout == 1:
        x = transpose(x, (1, 0, 2))
    if not x.signal:
        raise UnsupportedError("X is a constant", expected="a value that depends on an input")
    stream, x = chain.features(x, width)
    if stream.width != width:
        raise FormatError(f"X has {stream.width} features, W is for {width}", expected=str(width))
    if not x.axes[0] and stream.kind == "vector":
        replay = stream.width == 1
        stream, x = chain.replayed(stream, x, 0) if replay else chain.repeated(stream, x, 0, 1)
    if len(x.axes[0]) != 1:
        raise UnsupportedError(
            "runs over a time axis of length 1 that is not in the model's input",
            expected="an input with a time axis",
            hint="Export the model for whole sequences, (batch, time, features)",
        )
    time = x.axes[0][0]
    chain.bind(time, "time")
    if len(x.axes[1]) > 1 or (not x.axes[1] and x.data.shape[1] != 1):
        raise UnsupportedError("does not get its batch along one axis", expected="(T, B, I)")
    batch = x.axes[1][0] if x.axes[1] else None
    if batch is not None:
        chain.bind(batch, "batch")
    return stream, x, time, batch


def _cell(
    w: NDArray[Any],
    r: NDArray[Any],
    bias: NDArray[Any] | None,
    peephole: NDArray[Any] | None,
    rules: _Rules,
    activations: list[Activation],
) -> LSTMCell:
    rows = r.shape[0]
    both = [None, None] if bias is None else [bias[:rows], bias[rows:]]
    f, g, h = activations
    return LSTMCell(
        gates.reorder(w, LAYOUT.order),
        gates.reorder(r, LAYOUT.order),
        *(None if part is None else gates.reorder(part, LAYOUT.order) for part in both),
        peephole=None
        if peephole is None
        else gates.reorder(peephole, LAYOUT.peephole, "ifo").reshape(3, -1),
        activations=(f, g, h),
        clip_z=rules.clip,
        coupling="f=1-i" if rules.coupled else None,
    )


def _weights(value: Value, what: str, shape: tuple[int | str, ...]) -> NDArray[Any]:
    """A constant real tensor of `shape` (letters: any size ≥ 1)."""
    if value.signal or any(value.axes):
        raise UnsupportedError(
            f"{what} ({quoted(value.name)}) is computed from the model's input",
            expected="constant weights",
        )
    data = value.data
    if not is_real(data.dtype):
        raise FormatError(
            f"{what} ({quoted(value.name)}) has type {data.dtype.name}", expected="float"
        )
    fits = data.ndim == len(shape) and all(
        have == want if isinstance(want, int) else have >= 1
        for have, want in zip(data.shape, shape, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join(map(str, shape)) + ")"
        raise FormatError(f"{what} ({quoted(value.name)}) has shape {data.shape}", expected=wanted)
    finite(data, f"{what} ({quoted(value.name)})")
    return data


def _optional(
    value: Value | None, what: str, shape: tuple[int, ...], like: NDArray[Any]
) -> NDArray[Any] | None:
    if value is None:
        return None
    found = _weights(value, what, shape)
    if found.dtype != like.dtype:
        raise FormatError(
            f"{what} is {found.dtype.name}, W is {like.dtype.name}", expected="one type"
        )
    return found


def _not_an_lstm(value: Value, shape: tuple[int, ...], hidden_size: int | None) -> NoReturn:
    said = f" with hidden_size {hidden_size}" if hidden_size is not None else ""
    raise FormatError(
        f"R ({quoted(value.name)}) has shape {shape}{said}",
        expected="(D, 4H, H), H being hidden_size",
        hint="ONNX LSTM has no projection: a model with proj_size cannot be exported to it",
    )


def _lengths(chain: Chain, stream: Stream, value: Value | None, time: Axis) -> Stream | None:
    lengths: Stream | None = None
    if value is not None and value.signal:
        lengths = chain.stream(value)
        if lengths.kind != "lengths" or value.rank != 1 or not value.axes[0]:
            raise UnsupportedError(
                f"sequence_lens ({quoted(value.name)}) is no plain input of shape (B,)",
                expected="the lengths as an input of the model",
            )
        chain.bind(value.axes[0][0], "batch")
    elif value is not None and set(value.data.reshape(-1).tolist()) != {time.size}:
        raise UnsupportedError(
            f"sequence_lens ({quoted(value.name)}) is constant and not the whole length "
            f"{words(time.size)}",
            expected="an input of the model, or none",
        )
    for earlier in reversed(stream.path):
        if earlier.layer is not None and earlier.layer.signature == "vector→sequence":
            if lengths is not None:
                raise UnsupportedError(
                    "has sequence_lens over a time that the model itself makes",
                    expected="lengths of the input sequence only",
                )
            break
        layers = [s for s in (earlier, *earlier.inside) if isinstance(s.layer, Recurrent)]
        if any(s.lengths is not lengths for s in layers):
            raise UnsupportedError(
                "sequence_lens differs from that of the LSTM before it",
                expected="the same lengths for every LSTM over the same time",
            )
    return lengths


def _sources(a: Arguments, directions: tuple[str, ...], initial: InitialState) -> dict[str, str]:
    found: dict[str, str] = {}
    fields = {
        1: ("weight_ih",),
        2: ("weight_hh",),
        3: ("bias_ih", "bias_hh"),
        7: ("peephole",),
    }
    for position, names in fields.items():
        value = a.optional(position)
        if value is not None:
            found |= {f"{d}.{name}": value.name for d in directions for name in names}
    constant = ((5, "initial.h"), (6, "initial.c")) if initial.kind == "constant" else ()
    for position, name in constant:
        value = a.optional(position)
        if value is not None:
            found[name] = value.name
    return found


# -- writing ----------------------------------------------------------------------------------


def tensors(layer: Recurrent) -> tuple[Array, Array, Array | None, Array | None]:
    """W (D, 4H, I), R (D, 4H, H), B (D, 8H) and P (D, 3H) of `layer`; B and P None where no
    direction has any. A bias or peephole that only some have is zero for the others."""
    cells = [plain(cell) for cell in layer.cells.values()]
    units = layer.hidden_size

    def stacked(parts: list[Array | None], rows: int, order: str, target: str) -> Array | None:
        if all(part is None for part in parts):
            return None
        zeros = np.zeros(rows, cells[0].weight_ih.dtype)
        flat = (zeros if part is None else part for part in parts)
        return np.stack([gates.reorder(part, order, target) for part in flat])

    biases = [
        stacked([getattr(cell, name) for cell in cells], 4 * units, "ifgo", LAYOUT.order)
        for name in ("bias_ih", "bias_hh")
    ]
    if any(b is not None for b in biases):
        zeros = np.zeros((len(cells), 4 * units), cells[0].weight_ih.dtype)
        biases = [zeros if b is None else b for b in biases]
    both = [b for b in biases if b is not None]
    peepholes = [None if c.peephole is None else c.peephole.reshape(-1) for c in cells]
    return (
        np.stack([gates.reorder(cell.weight_ih, "ifgo", LAYOUT.order) for cell in cells]),
        np.stack([gates.reorder(cell.weight_hh, "ifgo", LAYOUT.order) for cell in cells]),
        np.concatenate(both, axis=1) if both else None,
        stacked(peepholes, 3 * units, "ifo", LAYOUT.peephole),
    )


def attributes(layer: Recurrent) -> dict[str, Any]:
    """Attributes of the node that computes `layer`; those at their defaults are left out."""
    cells, fields = list(layer.cells.values()), tuple(layer.cells)
    direction = next(word for word, names in DIRECTIONS.items() if names == fields)
    found: dict[str, Any] = {"hidden_size": layer.hidden_size}
    if direction != "forward":
        found["direction"] = direction
    functions = [function for cell in cells for function in cell.activations]
    if [f.name for f in functions] != ["sigmoid", "tanh", "tanh"] * len(cells):
        functions = [Activation("affine", 1.0, 0.0) if f == LINEAR else f for f in functions]
        found["activations"] = [ONNX_SPELLING[f.name] for f in functions]
        for parameter in ("alpha", "beta"):
            values = [getattr(f, parameter) for f in functions]
            if given := [value for value in values if value is not None]:
                found[f"activation_{parameter}"] = given
    if cells[0].clip_z is not None:
        found["clip"] = cells[0].clip_z
    if cells[0].coupling == "f=1-i":
        found["input_forget"] = 1
    return found
