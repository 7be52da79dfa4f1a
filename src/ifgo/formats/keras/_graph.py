"""The config of a whole model as calls of layers: Sequential, or functional, or either in either.

Every tensor is (layer, number): what layer gives as its output of that number. The layers of a
model within the model stand in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.keras._config import SELECT_HINT, Node, Version
from ifgo.formats.keras._weights import paths
from ifgo.text import quote

Ref = tuple[str, int]

SEQUENTIAL: Final = ("Sequential",)
FUNCTIONAL: Final = ("Functional", "Model")
_MAX_DEPTH: Final = 4


@dataclass
class Call:
    """One layer and what it is applied to. inputs: tensors by position. kwargs: tensors by name.
    plain: arguments that are other values. shared: how often else the layer is called."""

    node: Node
    inputs: tuple[Ref, ...] = ()
    kwargs: dict[str, tuple[Ref, ...]] = field(default_factory=dict[str, tuple[Ref, ...]])
    plain: dict[str, Any] = field(default_factory=dict[str, Any])
    shared: bool = False

    @property
    def needs(self) -> list[Ref]:
        """Every tensor that it takes."""
        return [*self.inputs, *(ref for value in self.kwargs.values() for ref in value)]

    def refuse_arguments(self, *known: str) -> None:
        """Raises UnsupportedError where the call says more than `known`, or is one of several."""
        if self.shared:
            raise UnsupportedError(
                "is called more than once",
                where=self.node.where,
                expected="one call",
                hint=SELECT_HINT,
            )
        for name in (*self.kwargs, *self.plain):
            if name not in (*known, "training", "mask"):
                raise UnsupportedError(
                    f"is called with {quote(name)}", where=self.node.where, hint=SELECT_HINT
                )


@dataclass
class Graph:
    """Calls by the name of their layer, in the order of the config; outputs of the model, in
    order. nodes: every layer. inputs: InputLayers by name, in order."""

    calls: dict[str, Call]
    outputs: tuple[Ref, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...] = ()


def parse_graph(config: Any, version: Version) -> Graph:
    """Raises FormatError where the config is damaged, UnsupportedError where it is no model of
    Keras's own layers."""
    top = Node.parse(config, version) if isinstance(config, Mapping) else None
    if top is not None and top.kind in FUNCTIONAL and "layers" in top.values:
        return _whole_model(top, version)
    if top is not None and top.kind in SEQUENTIAL:
        return _whole_model(top, version)
    kind = "nothing" if top is None else top.kind
    raise UnsupportedError(
        f"its config is a {quote(kind)}",
        expected="a Sequential or functional model",
        hint="A model class of its own keeps its computation in Python: rebuild it from layers",
    )


def _entries(top: Node) -> list[Any]:
    layers = top.values.get("layers")
    if not isinstance(layers, list) or not layers:
        raise FormatError("has no layers", where=top.where, expected="a list of layers")
    found = cast("list[Any]", layers)
    if len(found) > 16 * limits.current().layers:
        raise FormatError(
            f"has {len(found)} layers",
            where=top.where,
            **limits.at_most("layers", form=f"at most {16 * limits.current().layers}"),
        )
    return found


def _whole_model(top: Node, version: Version, within: str = "", depth: int = _MAX_DEPTH) -> Graph:
    build = _sequential if top.kind in SEQUENTIAL else _functional
    return _inlined(build(top, version, within), version, depth)


def _sequential(top: Node, version: Version, within: str) -> Graph:
    nodes = [Node.parse(entry, version) for entry in _entries(top)]
    paths(nodes, within)
    calls: dict[str, Call] = {}
    before: Ref | None = None
    for node in nodes:
        if node.name in calls:
            raise FormatError(f"has two layers {quote(node.name)}", expected="unique names")
        if node.kind == "InputLayer" and before is not None:
            raise FormatError("stands inside the chain", where=node.where, expected="to be first")
        calls[node.name] = Call(node, () if before is None else (before,))
        before = (node.name, 0)
    assert before is not None
    inputs = (nodes[0].name,) if nodes[0].kind == "InputLayer" else ()
    return Graph(calls, (before,), tuple(nodes), inputs)


def _inlined(graph: Graph, version: Version, depth: int) -> Graph:
    """`graph` with the layers of each model within it in the place of that model."""
    calls: dict[str, Call] = {}
    instead: dict[Ref, Ref] = {}
    nodes: list[Node] = []
    for name, call in graph.calls.items():
        if call.node.kind not in (*SEQUENTIAL, *FUNCTIONAL):
            calls[name] = call
            nodes.append(call.node)
            continue
        if not depth:
            raise FormatError("is nested too deep", where=call.node.where)
        call.refuse_arguments()
        inner = _whole_model(call.node, version, f"{call.node.path}/", depth - 1)
        inner = _renamed(inner, name, {*graph.calls, *calls})
        for k, ref in enumerate(inner.outputs):
            instead[name, k] = ref
        if call.inputs:
            _feed(inner, call, instead)
        for one in inner.calls.values():
            one.node.owner = name
            calls[one.node.name] = one
            nodes.append(one.node)

    def found(ref: Ref) -> Ref:
        while ref in instead:
            ref = instead[ref]
        return ref

    for call in calls.values():
        call.inputs = tuple(map(found, call.inputs))
        call.kwargs = {key: tuple(map(found, refs)) for key, refs in call.kwargs.items()}
    return Graph(calls, tuple(map(found, graph.outputs)), tuple(nodes), graph.inputs)


def _feed(inner: Graph, call: Call, instead: dict[Ref, Ref]) -> None:
    """Give the tensors of `call` to what stands behind the inputs of `inner`."""
    if inner.inputs and len(inner.inputs) != len(call.inputs):
        raise UnsupportedError(
            f"takes {len(call.inputs)} inputs for {len(inner.inputs)}",
            where=call.node.where,
            hint=SELECT_HINT,
        )
    heads = {(name, 0): ref for name, ref in zip(inner.inputs, call.inputs, strict=False)}
    for one in inner.calls.values():
        takes = bool(set(one.inputs) & set(heads))
        if not one.inputs and one.node.name not in inner.inputs:
            one.inputs, takes = call.inputs, True
        if takes and "mask" in call.kwargs:
            one.kwargs.setdefault("mask", call.kwargs["mask"])
    instead |= heads
    for name in inner.inputs:
        del inner.calls[name]


def _renamed(graph: Graph, owner: str, taken: set[str]) -> Graph:
    """`graph` with other names for those layers whose names are taken."""
    names: dict[str, str] = {}
    for name in graph.calls:
        new = name
        while new in taken or new in names.values():
            new = f"{owner}_{new}"
        names[name] = new

    def moved(refs: tuple[Ref, ...]) -> tuple[Ref, ...]:
        return tuple((names[name], number) for name, number in refs)

    calls: dict[str, Call] = {}
    for name, call in graph.calls.items():
        call.node.own = call.node.own or name
        call.node.name = names[name]
        call.inputs = moved(call.inputs)
        call.kwargs = {key: moved(refs) for key, refs in call.kwargs.items()}
        calls[names[name]] = call
    inputs = tuple(names[name] for name in graph.inputs)
    return Graph(calls, moved(graph.outputs), graph.nodes, inputs)


def _functional(top: Node, version: Version, within: str) -> Graph:
    nodes: list[Node] = []
    calls: dict[str, Call] = {}
    for entry in _entries(top):
        node = Node.parse(entry, version)
        if node.name in calls:
            raise FormatError(f"has two layers {quote(node.name)}", expected="unique names")
        inbound = entry.get("inbound_nodes", [])
        if not isinstance(inbound, list):
            raise node.wrong("inbound_nodes", inbound, "a list")
        calls[node.name] = _call(node, cast("list[Any]", inbound))
        nodes.append(node)
    paths(nodes, within)
    outputs = top.values.get("output_layers")
    refs = tuple(_refs(outputs, top))
    for call in calls.values():
        for name, _ in call.needs:
            if name not in calls:
                raise FormatError(
                    f"takes a tensor of {quote(name)}", where=call.node.where, expected="a layer"
                )
    if not refs or any(name not in calls for name, _ in refs):
        raise FormatError("names no layer as its output", where=top.where, expected="output_layers")
    inputs = tuple(name for name, _ in _refs(top.values.get("input_layers", []), top))
    if any(name not in calls for name in inputs):
        raise FormatError("names no layer as its input", where=top.where, expected="input_layers")
    return Graph(calls, refs, tuple(nodes), inputs)


def _call(node: Node, inbound: list[Any]) -> Call:
    if not inbound:
        return Call(node)
    first: Any = inbound[0]
    if not isinstance(first, dict | list):
        raise node.wrong("inbound_nodes", first, "calls in {} or []")
    if isinstance(first, dict):
        given = cast("Mapping[str, Any]", first)
        args = given.get("args", [])
        found = Call(node, tuple(_tensors(args)))
        for k, value in enumerate(_plain(args)):
            found.plain[f"argument {k}"] = value
        keywords = given.get("kwargs", {})
    else:
        entries = cast("list[Any]", first)
        # One input of Keras 2 may be written without the list around it.
        if entries and isinstance(entries[0], str):
            entries = [entries]
        found = Call(node, tuple(_refs(entries, node)))
        keywords: Any = {}
        for entry in entries:
            parts = cast("list[Any]", entry) if isinstance(entry, list) else []
            keywords = parts[3] if len(parts) > 3 and parts[3] else keywords
    if not isinstance(keywords, Mapping):
        raise node.wrong("inbound_nodes", keywords, "keyword arguments in {}")
    for name, value in cast("Mapping[str, Any]", keywords).items():
        tensors = _tensors(value)
        if not tensors and isinstance(value, list):
            tensors = _old_tensors(cast("list[Any]", value))
        if tensors:
            found.kwargs[str(name)] = tuple(tensors)
        elif value is not None:
            found.plain[str(name)] = value
    found.shared = len(inbound) > 1
    return found


def _refs(entries: Any, node: Node) -> list[Ref]:
    """Keras 2's [["name", 0, 0], ...], or one such alone."""
    if isinstance(entries, list) and entries and isinstance(entries[0], str):
        entries = [entries]
    found = _old_tensors(cast("list[Any]", entries)) if isinstance(entries, list) else []
    if not isinstance(entries, list) or len(found) != len(cast("list[Any]", entries)):
        raise node.wrong("a list of tensors", entries, "[name, call, number] for each")
    return found


def _old_tensors(entries: list[Any]) -> list[Ref]:
    found: list[Ref] = []
    for entry in entries:
        parts = cast("list[Any]", entry) if isinstance(entry, list) else []
        numbers = parts[1:3]
        if len(parts) >= 3 and isinstance(parts[0], str) and all(map(_whole, numbers)):
            found.append((parts[0], parts[2]))
    return found


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _tensors(value: Any) -> list[Ref]:
    """Every tensor of Keras 3 inside `value`, in order."""
    if isinstance(value, Mapping):
        given = cast("Mapping[str, Any]", value)
        if given.get("class_name") != "__keras_tensor__":
            return []
        config = given.get("config")
        history = cast("Any", config).get("keras_history") if isinstance(config, Mapping) else None
        return _old_tensors([history])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [ref for part in cast("Sequence[Any]", value) for ref in _tensors(part)]
    return []


def _plain(args: Any) -> list[Any]:
    """Positional arguments that are no tensors."""
    parts = cast("list[Any]", args) if isinstance(args, list) else [args]
    return [part for part in parts if not _tensors(part)]
