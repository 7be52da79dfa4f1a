"""The config of a whole model as calls of layers: Sequential, or functional.

Every tensor is (layer, number): what layer gives as its output of that number.
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
    order. nodes: every layer."""

    calls: dict[str, Call]
    outputs: tuple[Ref, ...]
    nodes: tuple[Node, ...]


def parse_graph(config: Any, version: Version) -> Graph:
    """Raises FormatError where the config is damaged, UnsupportedError where it is no model of
    Keras's own layers."""
    top = Node.parse(config, version) if isinstance(config, Mapping) else None
    if top is not None and top.kind in FUNCTIONAL and "layers" in top.values:
        return _functional(top, version)
    if top is not None and top.kind in SEQUENTIAL:
        return _sequential(top, version)
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
    if len(found) > 16 * limits.MAX_LAYERS:
        raise FormatError(
            f"has {len(found)} layers",
            where=top.where,
            expected=f"at most {16 * limits.MAX_LAYERS}",
        )
    return found


def _sequential(top: Node, version: Version) -> Graph:
    nodes = _flat(top, version, "", 4)
    calls: dict[str, Call] = {}
    before: Ref | None = None
    for node in nodes:
        if node.name in calls:
            raise FormatError(f"has two layers {quote(node.name)}", expected="unique names")
        if node.kind == "InputLayer" and before is not None:
            if node.within == "nested":
                continue
            raise FormatError("stands inside the chain", where=node.where, expected="to be first")
        calls[node.name] = Call(node, () if before is None else (before,))
        before = (node.name, 0)
    assert before is not None
    return Graph(calls, (before,), tuple(nodes))


def _flat(top: Node, version: Version, within: str, depth: int) -> list[Node]:
    """The layers of a Sequential, those of a Sequential inside it in its place."""
    nodes = [Node.parse(entry, version) for entry in _entries(top)]
    paths(nodes, within)
    found: list[Node] = []
    for node in nodes:
        if node.kind not in SEQUENTIAL:
            found.append(node)
            continue
        if not depth:
            raise FormatError("is nested too deep", where=node.where)
        for inner in _flat(node, version, f"{node.path}/", depth - 1):
            inner.owner = top.owner if within else node.name
            inner.within = "nested" if inner.kind == "InputLayer" else inner.within
            found.append(inner)
    return found


def _functional(top: Node, version: Version) -> Graph:
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
    paths(nodes)
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
    return Graph(calls, refs, tuple(nodes))


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
        if len(parts) >= 3 and isinstance(parts[0], str) and parts[1] == 0 and _whole(parts[2]):
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
