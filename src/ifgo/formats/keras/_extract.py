"""Recurrent layers of a larger Keras model, or of a file of weights alone: listed and cut out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ifgo.errors import IfgoError, UnsupportedError, UsageError
from ifgo.formats.extraction import Found, Listing, chosen, counted, left_out
from ifgo.formats.keras._config import Node
from ifgo.formats.keras._container import Contents
from ifgo.formats.keras._graph import Call, Graph
from ifgo.formats.keras._hdf5 import Object
from ifgo.formats.keras._layers import Chain
from ifgo.formats.keras._recurrent import is_recurrent
from ifgo.formats.keras._walk import assemble, store_of
from ifgo.formats.keras._weights import ByName
from ifgo.model import Model
from ifgo.text import quote

_MASKS = ("Masking", "Embedding")


@dataclass(frozen=True)
class _Alone:
    """A layer whose arrays are those of an LSTM, in a file that does not say more. node: how it is
    read where its bias of 8H shows CuDNNLSTM, whose activations are fixed; None for others."""

    name: str
    input_size: int
    hidden_size: int
    node: Node | None


def _alone(contents: Contents) -> list[_Alone]:
    """Every layer that holds a recurrent kernel (H, 4H), one entry for all its directions."""
    held: list[tuple[str, list[Object]]] = []
    if contents.by_path:
        top = contents.root.children.get("layers")
        for name, group in ({} if top is None or top.is_array else top.children).items():
            held.append((name, list(_arrays(group, 8))))
    else:
        store = ByName.open(contents.root)
        for name, names in store.names.items():
            arrays = [store.groups[name].at(one) for one in names]
            held.append((name, [array for array in arrays if array is not None]))
    found: list[_Alone] = []
    for name, arrays in held:
        shapes = [array.shape for array in arrays if array.is_array]
        for first, second in itertools.pairwise(shapes):
            units = second[0] if second else 0
            if not units or second != (units, 4 * units) or first[1:] != (4 * units,):
                continue
            node = None
            if shapes == [first, second, (8 * units,)] and not contents.by_path:
                values = {"name": name, "units": units, "return_sequences": True}
                node = Node("CuDNNLSTM", name, values, contents.version, owner=name)
            found.append(_Alone(name, first[0], units, node))
            break
    return found


def _arrays(group: Object, depth: int) -> Iterator[Object]:
    """The arrays of a layer that Keras 3 stored."""
    for child in group.children.values() if depth and not group.is_array else ():
        if child.is_array:
            yield child
        else:
            yield from _arrays(child, depth - 1)


_NO_CONFIG = (
    "its file holds weights alone, which do not say its activations, merge mode or direction"
)


_UNSAID = "not in the file"


def _names(contents: Contents) -> list[str]:
    """Every layer of a file of weights alone."""
    if not contents.by_path:
        return contents.root.texts("layer_names") or []
    top = contents.root.children.get("layers")
    return [] if top is None or top.is_array else list(top.children)


def listing(graph: Graph | None, contents: Contents) -> Listing:
    """Every recurrent layer of LSTMs, with what keeps it from being read."""
    if graph is None:
        found = [
            Found(one.name, one.input_size, one.hidden_size, (), "", _UNSAID, refusal=_NO_CONFIG)
            if one.node is None
            else _found(one.node, None, contents)
            for one in _alone(contents)
        ]
        known = {layer.name for layer in found}
        return Listing(
            "keras", tuple(found), counted("layer" for n in _names(contents) if n not in known)
        )
    layers = tuple(
        _found(call.node, graph, contents)
        for call in graph.calls.values()
        if is_recurrent(call.node)
    )
    others = (n.kind for n in graph.nodes if not is_recurrent(n))
    return Listing("keras", layers, counted(others))


def _found(node: Node, graph: Graph | None, contents: Contents) -> Found:
    name = node.name
    source, after = _UNSAID, ""
    if graph is not None:
        source, after = _source(graph, name)
    try:
        model = _chain([Call(_fresh(node))], graph, contents, ())
    except IfgoError as error:
        return Found(name, None, None, (), "", source, after, str(error))
    layer = model.recurrent[0]
    sizes = layer.cell.input_size, layer.hidden_size
    options = layer.detail()
    if not model.ends_in_vector:
        options = ", ".join(filter(None, (options, "return_sequences")))
    return Found(name, *sizes, tuple(layer.cells), options, source, after)


def _source(graph: Graph, name: str) -> tuple[str, str]:
    """What the layer reads, and the recurrent layer straight before it on the one path."""
    call = graph.calls[name]
    if not call.inputs:
        return "the input", ""
    before = graph.calls[call.inputs[0][0]]
    source = f"layer {quote(before.node.name)} ({before.node.kind})"
    seen: set[str] = set()
    while before.node.name not in seen:
        seen.add(before.node.name)
        if is_recurrent(before.node):
            return source, before.node.name
        if len(before.inputs) != 1:
            break
        before = graph.calls[before.inputs[0][0]]
    return source, ""


def _fresh(node: Node) -> Node:
    """A node that no reading has touched."""
    return replace(node, taken=set[str]())


def extract(graph: Graph | None, contents: Contents, select: str | Sequence[str]) -> Model:
    """The chosen layers, and what lies on the path between them, as a model of their own. Raises
    UsageError where a name is unknown or the path leads elsewhere."""
    if graph is None:
        alone = {one.name: one.node for one in _alone(contents)}
        names = chosen(select, list(alone))
        for name in names:
            if alone[name] is None:
                raise UnsupportedError(
                    f"layer {quote(name)} cannot be read: {_NO_CONFIG}",
                    expected="the config of the model",
                    hint="Give what model.to_json() writes with --config FILE",
                )
        if len(names) > 1:
            raise UsageError(
                f"select names {len(names)} layers, and the file does not say how they are joined",
                expected="one layer, or the config of the model",
                hint="Give what model.to_json() writes with --config FILE",
            )
        node = next(node for name, node in alone.items() if node is not None and name in names)
        rest = [name for name in _names(contents) if name != node.name]
        notes = (
            left_out(counted("named" for _ in rest), "layer"),
            f"{node.name} gives its whole sequence: the file does not say return_sequences",
        )
        return _chain([Call(node)], None, contents, notes)
    names = chosen(select, [n for n, call in graph.calls.items() if is_recurrent(call.node)])
    calls = _path(graph, names)
    inside = {call.node.name for call in calls}
    rest = [node.kind for node in graph.nodes if node.name not in inside]
    notes = (left_out(counted(rest), "layer"),)
    if _masked(graph, calls[0]):
        notes += ("a mask that reaches the first layer is left out",)
    return _chain([Call(_fresh(call.node)) for call in calls], graph, contents, notes)


def _path(graph: Graph, names: tuple[str, ...]) -> list[Call]:
    """The calls from the first chosen layer to the last."""
    calls: list[Call] = [graph.calls[names[-1]]]
    while calls[0].node.name != names[0]:
        before = _before(calls[0])
        if before is None or len(calls) > len(graph.calls):
            break
        calls.insert(0, graph.calls[before])
    between = tuple(call.node.name for call in calls if is_recurrent(call.node))
    if between != names:
        raise UsageError(
            f"select names {', '.join(map(quote, names))}",
            expected="layers one after another on one path, as "
            + (", ".join(between) if calls[0].node.name == names[0] else names[-1] + " alone"),
        )
    for call in calls:
        call.refuse_arguments()
        if len(call.inputs) > 1:
            raise UnsupportedError("takes initial states", where=call.node.where)
    return calls


def _before(call: Call) -> str | None:
    """The one layer whose first output `call` takes; a recurrent one may take states too."""
    many = len(call.inputs) > 1 and not is_recurrent(call.node)
    for name, number in call.inputs:
        return None if number or many else name
    return None


def _masked(graph: Graph, first: Call) -> bool:
    """Whether a mask may reach `first`."""
    waiting, seen = [first], set[str]()
    while waiting:
        call = waiting.pop()
        for name, _ in call.inputs:
            before = graph.calls[name]
            if name in seen:
                continue
            seen.add(name)
            if before.node.kind == "Masking" or before.node.values.get("mask_zero"):
                return True
            waiting.append(before)
    return False


def _chain(
    calls: list[Call], graph: Graph | None, contents: Contents, notes: tuple[str, ...]
) -> Model:
    """A model of `calls`, one after another."""
    chain = Chain(store_of(contents, graph.nodes if graph else ()), started=True)
    for call in calls:
        chain.read(call.node)
    return assemble(chain, contents, "x", [], (), notes)
