"""Recurrent layers of a larger Keras model, or of a file of weights alone: listed and cut out."""

from __future__ import annotations

from collections.abc import Sequence

from ifgo.errors import IfgoError, UnsupportedError, UsageError
from ifgo.formats.extraction import Found, Listing, chosen, counted, left_out
from ifgo.formats.keras._config import Node
from ifgo.formats.keras._container import Contents
from ifgo.formats.keras._graph import Call, Graph
from ifgo.formats.keras._layers import Chain
from ifgo.formats.keras._recurrent import is_recurrent
from ifgo.formats.keras._walk import assemble, store_of
from ifgo.formats.keras._weights import ByName, last_part
from ifgo.model import Model
from ifgo.text import quote

_MASKS = ("Masking", "Embedding")


def lstm_groups(contents: Contents) -> tuple[list[Node], list[str]]:
    """Of a file without a config: a node for every layer whose arrays are those of one LSTM with
    the bias of CuDNNLSTM, which has no options but these; and names of all other layers that look
    like an LSTM."""
    nodes: list[Node] = []
    others: list[str] = []
    if contents.by_path:
        return nodes, others
    store = ByName.open(contents.root)
    for layer, names in store.names.items():
        kinds = [last_part(name) for name in names]
        if kinds[:3] != [("kernel", ""), ("recurrent_kernel", ""), ("bias", "")]:
            if ("recurrent_kernel", "i") in kinds or ("recurrent_kernel", "") in kinds:
                others.append(layer)
            continue
        bias = store.groups[layer].at(names[2])
        width = bias.shape if bias is not None else ()
        recurrent = store.groups[layer].at(names[1])
        rows = recurrent.shape[0] if recurrent is not None and recurrent.shape else 0
        if len(names) == 3 and width == (8 * rows,) and rows:
            values = {"name": layer, "units": rows, "return_sequences": True}
            nodes.append(Node("CuDNNLSTM", layer, values, contents.version, owner=layer))
        else:
            others.append(layer)
    return nodes, others


_NO_CONFIG = (
    "its file holds weights alone, which do not say its activations, merge mode or direction"
)


def listing(graph: Graph | None, contents: Contents) -> Listing:
    """Every recurrent layer of LSTMs, with what keeps it from being read."""
    if graph is None:
        nodes, others = lstm_groups(contents)
        found = [_found(node, None, contents) for node in nodes]
        found += [
            Found(name, None, None, (), "", "not in the file", refusal=f"{_NO_CONFIG}")
            for name in others
        ]
        known = {layer.name for layer in found}
        names = contents.root.texts("layer_names") or []
        return Listing("keras", tuple(found), counted("layer" for n in names if n not in known))
    layers = tuple(
        _found(call.node, graph, contents)
        for call in graph.calls.values()
        if is_recurrent(call.node)
    )
    others = (n.kind for n in graph.nodes if not is_recurrent(n))
    return Listing("keras", layers, counted(others))


def _found(node: Node, graph: Graph | None, contents: Contents) -> Found:
    name = node.name
    source, after = "not in the file", ""
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
    return Node(node.kind, node.name, node.values, node.version, node.owner, node.path, node.within)


def extract(graph: Graph | None, contents: Contents, select: str | Sequence[str]) -> Model:
    """The chosen layers, and what lies on the path between them, as a model of their own. Raises
    UsageError where a name is unknown or the path leads elsewhere."""
    if graph is None:
        nodes, others = lstm_groups(contents)
        names = chosen(select, [n.name for n in nodes] + others)
        for name in names:
            if name in others:
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
        node = next(n for n in nodes if n.name in names)
        rest = [n for n in contents.root.texts("layer_names") or [] if n != node.name]
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
