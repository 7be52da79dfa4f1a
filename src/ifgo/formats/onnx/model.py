"""The walked chain as a Model: which outputs it has, how its layers are called, what it notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from ifgo import limits
from ifgo.errors import UnsupportedError
from ifgo.formats.onnx.chain import Chain, Stream
from ifgo.formats.onnx.file import Graph, printable, quoted
from ifgo.formats.onnx.order import processing_order
from ifgo.formats.onnx.packed import label, state_input, state_output
from ifgo.formats.onnx.value import Axis, Labels, Value
from ifgo.formats.onnx.walk import Walk
from ifgo.layers import Embedding, Layer, Recurrent, Residual
from ifgo.model import (
    Axes,
    FeatureInput,
    LengthsInput,
    Model,
    Output,
    Provenance,
    StateInput,
    TokenInput,
)

_KINDS = {
    "entry": "an input",
    "tokens": "an input",
    "lengths": "an input",
    "given state": "an input",
    "sequence": "a sequence",
    "vector": "a vector",
    "h": "hidden states",
    "c": "cell states",
}
"""Kinds of streams, as messages name them."""


@dataclass(frozen=True)
class _Result:
    """A graph output: what it holds, and whether it can only be final states."""

    name: str
    value: Value
    streams: list[Stream]

    @property
    def is_state(self) -> bool:
        return all(stream.kind in ("h", "c") for stream in self.streams)

    @property
    def may_be_vector(self) -> bool:
        """One final hidden state without its axis of directions, as features are laid out, or its
        units along time."""
        if len(self.streams) > 1 or self.streams[0].kind != "h":
            return False
        *front, last = self.value.data.shape or (0,)
        if last == 1 < self.streams[0].width and self.streams[0].width in front:
            return True
        plain = [k for k, labels in enumerate(self.value.axes) if not labels]
        labelled = [k for k, labels in enumerate(self.value.axes) if labels]
        return len(plain) < 2 or (bool(labelled) and labelled[0] != 1)


def assemble(graph: Graph, walk: Walk, path: str) -> Model:
    """The Model that the walk found. Raises UnsupportedError where the outputs are not those of
    one chain."""
    results = [_result(walk, name) for name in graph.outputs]
    end, states = _end(walk.chain, results)
    layers = [stream for stream in end.path if stream.layer is not None]
    if not any(isinstance(stream.layer, Recurrent) for stream in _every(layers)):
        raise UnsupportedError(
            "has no LSTM between its input and its outputs", expected="a chain around LSTM nodes"
        )
    names = _names(layers)
    outputs: list[Output] = []
    for result in results:
        if result in states:
            value, streams = result.value, result.streams
            outputs.append(state_output(walk.chain, result.name, value, streams, names))
        else:
            outputs.append(_main_output(walk.chain, result, end))
    sources: dict[str, str] = {}
    built = tuple(_named(stream, names, sources, "") for stream in layers)
    orders = {_is_turned(walk.chain, r) for r in results if r not in states}
    if orders == {True, False}:
        raise UnsupportedError(
            "gives its result in the order of time and in the reverse", expected="one order"
        )
    if True in orders:
        built, turned = processing_order(built)
        start = f"{turned}.backward."
        sources = {
            f"{turned}.forward.{name.removeprefix(start)}" if name.startswith(start) else name: of
            for name, of in sources.items()
        }
    entry = _main_input(walk.chain, end.path, built[0])
    return Model(
        inputs=(entry, *_side_inputs(walk.chain, names, batched=entry.axes != "T")),
        layers=built,
        outputs=tuple(outputs),
        provenance=Provenance(
            framework=graph.framework,
            version=graph.producer,
            path=path,
            notes=tuple(dict.fromkeys(walk.chain.notes)),
            names=sources,
        ),
    )


def _is_turned(chain: Chain, result: _Result) -> bool:
    """Whether an output stands from the last step to the first."""
    value = chain.ending(result.value)[1]
    return any(axis.backwards for labels in value.axes for axis in labels)


def _result(walk: Walk, name: str) -> _Result:
    value = walk.output(name)
    if not value.signal:
        raise UnsupportedError(
            f"output {quoted(name)} is a constant", expected="outputs that depend on the input"
        )
    streams = walk.chain.streams(value)
    kinds = {stream.kind for stream in streams}
    if not (kinds <= {"h", "c"} or kinds <= {"sequence"} or kinds <= {"vector"}):
        raise UnsupportedError(
            f"output {quoted(name)} holds {' and '.join(_KINDS[kind] for kind in sorted(kinds))}",
            expected="the end of the chain, final hidden states, or final cell states",
        )
    return _Result(name, value, streams)


def _end(chain: Chain, results: list[_Result]) -> tuple[Stream, list[_Result]]:
    """The end of the chain, and the results that are final states beside it."""
    main = [result for result in results if not result.is_state]
    vectors = [result for result in results if result.is_state and result.may_be_vector]
    if not main and vectors and len({result.streams[0] for result in vectors}) == 1:
        main = vectors
    states = [result for result in results if result not in main]
    if main:
        ends = [chain.ending(result.value)[0] for result in main]
        if any(stream is not ends[0] for stream in ends):
            names = " and ".join(quoted(result.name) for result in main[:4])
            raise UnsupportedError(
                f"outputs {names} are taken from different places of the chain",
                expected="one end, and final states beside it",
                hint="Export a model with one result",
            )
        return ends[0], states
    owners = [stream.owner for result in states for stream in result.streams]
    return max((o for o in owners if o is not None), key=lambda owner: len(owner.path)), states


def _every(layers: list[Stream]) -> Iterator[Stream]:
    for stream in layers:
        yield stream
        yield from _every(list(stream.inside))


def _names(layers: list[Stream]) -> dict[Stream, str]:
    """Names of our own, none of the file's: lstm0, lstm1, dense, ..."""
    base = {"last_step": "last", "repeat_vector": "repeat"}
    every = list(_every(layers))
    kinds = [base.get(s.layer.kind, s.layer.kind) for s in every if s.layer is not None]
    total, count, names = Counter(kinds), Counter[str](), dict[Stream, str]()
    for stream, kind in zip(every, kinds, strict=True):
        single = total[kind] == 1 and kind != "lstm"
        names[stream] = kind if single else f"{kind}{count[kind]}"
        count[kind] += 1
    return names


def _named(stream: Stream, names: dict[Stream, str], sources: dict[str, str], prefix: str) -> Layer:
    layer, name = cast(Layer, stream.layer), names[stream]
    for field, source in stream.sources.items():
        if source:
            sources[f"{prefix}{name}.{field}"] = printable(source, limits.current().name_chars)
    if isinstance(layer, Residual):
        inner = tuple(_named(s, names, sources, f"{prefix}{name}.") for s in stream.inside)
        return replace(layer, name=name, layers=inner)
    return replace(layer, name=name)


# -- outputs ----------------------------------------------------------------------------------


def _main_output(chain: Chain, result: _Result, end: Stream) -> Output:
    value = chain.ending(result.value)[1]
    order = _roles(value.axes)
    name = label(result.name, "y")
    letters = "".join(role[0].upper() for role in order)
    if end.kind == "vector":
        letters = "BT" if letters == "B" else "T"
    plain = [k for k, labels in enumerate(value.axes) if not labels]
    if plain != [value.rank - 1] or any(len(labels) > 1 for labels in value.axes):
        _note_layout(chain, "output", result.name, value)
    role = "sequence" if end.kind == "sequence" else "last"
    return Output(role, name, axes=cast(Axes, letters))  # an LSTM has bound them, see assemble


def _roles(axes: tuple[Labels, ...]) -> list[str]:
    return [axis.role or "?" for labels in axes for axis in labels]


def _note_layout(chain: Chain, what: str, name: str, value: Value) -> None:
    letters: list[str] = []
    for labels, extent in zip(value.axes, value.data.shape, strict=True):
        roles = [(axis.role or "?")[0].upper() for axis in labels]
        letters.append("·".join(roles) if roles else str(extent))
    shape = "(" + ", ".join(letters) + ("," if len(letters) == 1 else "") + ")"
    chain.notes.append(f"{what} {printable(name, 80)} has shape {shape} in the file")


# -- inputs -----------------------------------------------------------------------------------


def _main_input(chain: Chain, path: list[Stream], first: Layer) -> FeatureInput | TokenInput:
    root = path[0]
    entry = root.entry
    assert entry is not None
    axes = tuple(label for labels in chain.entries[root] for label in labels)
    roles = [axis.role or "?" for axis in axes if axis.role != "features"]
    letters = "".join(role[0].upper() for role in roles)
    name = label(entry.name, "x")
    order = cast(Axes, letters)  # an LSTM has bound them, see assemble
    _note_frozen(chain, name, axes)
    if root.kind == "tokens":
        assert isinstance(first, Embedding)
        return TokenInput(first.vocabulary, name, order)
    if not any(axis.role == "features" for axis in axes):
        chain.notes.append(f"input {printable(name, 80)} has no axis of features in the file")
    return FeatureInput(path[1].width, name, order)


def _note_frozen(chain: Chain, name: str, axes: tuple[Axis, ...]) -> None:
    frozen = [f"{axis.role} {axis.size}" for axis in axes if isinstance(axis.size, int)]
    frozen = [words for words in frozen if not words.startswith("features")]
    if frozen:
        said = " and ".join(frozen)
        chain.notes.append(f"the file fixes {said} for input {printable(name, 80)}; ifgo does not")


def _side_inputs(
    chain: Chain, names: dict[Stream, str], *, batched: bool
) -> list[LengthsInput | StateInput]:
    used = {stream.lengths for stream in names}
    found: list[LengthsInput | StateInput] = []
    for stream in chain.entries:
        if stream in used and stream.entry is not None:
            found.append(LengthsInput(label(stream.entry.name, "lengths")))
        elif stream.kind == "given state":
            found.append(state_input(chain, stream, names, batched=batched))
    return found
