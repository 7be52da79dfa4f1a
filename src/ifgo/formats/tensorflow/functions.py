"""Functions of a TensorFlow graph laid out where they are called, so that one flat graph remains.

A call becomes the nodes of its function. A functional While becomes the nodes of one step and those
of its condition, and an entry in `loops` that says how they hang together. What every step is given
unchanged is taken from outside. Nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from ifgo import limits
from ifgo.errors import FormatError
from ifgo.formats.onnx.wire import Spent
from ifgo.formats.tensorflow.file import TFNode, decoded, text
from ifgo.text import quote

MAX_DEPTH: Final = 16
"""Deepest calls within calls; exporters of Keras write 4."""

_CALLS: Final = ("PartitionedCall", "StatefulPartitionedCall")
_WHILES: Final = ("While", "StatelessWhile")

_OUTPUTS: Final[dict[str, tuple[str, ...]]] = {
    "Switch": ("output_false", "output_true"),
    "Merge": ("output", "value_index"),
    "TensorArrayV3": ("handle", "flow"),
    "LSTMBlockCell": ("i", "cs", "f", "o", "ci", "co", "h"),
    "BlockLSTM": ("i", "cs", "f", "o", "ci", "co", "h"),
    "BlockLSTMV2": ("i", "cs", "f", "o", "ci", "co", "h"),
}
"""Operators that have more than one named output, in order."""


@dataclass
class Variable:
    """One state of a loop: its first value, what a step is given, what it makes, the last one, and
    what the condition is given."""

    start: str
    given: str
    made: str
    end: str = ""
    tested: str = ""


@dataclass
class Loop:
    """A while loop. condition: the boolean that a step is run for."""

    name: str
    variables: list[Variable] = field(default_factory=list[Variable])
    condition: str = ""


@dataclass
class Flat:
    """Nodes by name, no calls among them; the loops. kept: what lies within
    them or no step changes, which is no result of the graph."""

    nodes: dict[str, TFNode] = field(default_factory=dict[str, TFNode])
    loops: list[Loop] = field(default_factory=list[Loop])
    kept: set[str] = field(default_factory=set[str])


def flatten(graph: Any, roots: Iterable[str] | None = None) -> Flat:
    """All nodes of a GraphDef, or those that `roots` (names of nodes) need.

    Raises FormatError where names are not unique, functions call themselves or are not there.
    """
    return _Flattening(graph).run(roots)


class _Flattening:
    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._stored = {_name(data): data for data in graph.library.function}
        self._functions: dict[str, Any] = {}
        self._spent = Spent()
        self._flat = Flat()

    def run(self, roots: Iterable[str] | None) -> Flat:
        nodes = list(self._graph.node)
        if roots is not None:
            nodes = _needed(nodes, roots)
        self._lay(nodes, "", None, ())
        return self._flat

    def _add(self, node: TFNode) -> None:
        found = self._flat.nodes
        if node.name in found:
            raise FormatError(f"has two nodes named {quote(node.name)}", expected="unique names")
        if len(found) >= limits.current().nodes:
            raise FormatError(
                f"has more than {limits.current().nodes} nodes", **limits.at_most("nodes")
            )
        found[node.name] = node

    def _lay(
        self, protos: Any, prefix: str, scope: dict[str, str] | None, path: tuple[str, ...]
    ) -> None:
        """The nodes of a function, or of the graph itself where scope is None."""
        kinds = {} if scope is None else {text(p.name): text(p.op) for p in protos}
        for proto in protos:
            name = prefix + text(proto.name)
            inputs = tuple(
                _plain(source) if scope is None else _inner(source, prefix, scope, kinds)
                for source in map(text, proto.input)
                if not source.startswith("^")
            )
            attributes = {text(entry.key): entry.value for entry in proto.attr}
            node = TFNode(name, text(proto.op), inputs, attributes)
            if node.op in _WHILES:
                self._while(node, path)
            elif node.op in _CALLS or node.op in self._stored:
                called = node.function("f") if node.op in _CALLS else node.op
                results = self._call(called, f"{name}/", inputs, node, path)
                for k, result in enumerate(results):
                    self._add(TFNode(_output(name, k), "Identity", (result,), {}))
            else:
                self._add(node)

    def _call(
        self,
        called: str,
        prefix: str,
        inputs: tuple[str, ...],
        node: TFNode,
        path: tuple[str, ...],
    ) -> list[str]:
        """What the function makes of inputs."""
        function = self._function(called)
        if function is None:
            raise FormatError(
                f"calls {quote(called)}", where=node.where, expected="a function of the file"
            )
        if called in path or len(path) >= MAX_DEPTH:
            raise FormatError(
                f"calls {quote(called)} within itself"
                if called in path
                else f"calls functions {len(path) + 1} deep",
                where=node.where,
                expected=f"calls at most {MAX_DEPTH} deep",
            )
        names = [text(argument.name) for argument in function.signature.input_arg]
        if len(names) != len(inputs):
            raise FormatError(
                f"gives {quote(called)} {len(inputs)} inputs",
                where=node.where,
                expected=str(len(names)),
            )
        scope = dict(zip(names, inputs, strict=True))
        self._lay(function.node_def, prefix, scope, (*path, called))
        kinds = {text(p.name): text(p.op) for p in function.node_def}
        results = {text(r.key): text(r.value) for r in function.ret}
        found: list[str] = []
        for argument in function.signature.output_arg:
            result = results.get(text(argument.name))
            if result is None:
                raise FormatError(
                    f"calls {quote(called)}, which does not say its result "
                    f"{quote(text(argument.name))}",
                    where=node.where,
                    expected="a whole function",
                )
            found.append(_inner(result, prefix, scope, kinds))
        return found

    def _function(self, name: str) -> Any:
        """The function called `name`, None where there is none."""
        if name not in self._functions and name in self._stored:
            self._functions[name] = decoded(self._stored[name], "FunctionDef", self._spent)
        return self._functions.get(name)

    def _while(self, node: TFNode, path: tuple[str, ...]) -> None:
        name, count = node.name, len(node.inputs)
        loop = Loop(name)
        given = tuple(f"{name}/given/{k}" for k in range(count))
        tested = tuple(f"{name}/tested/{k}" for k in range(count))
        before = len(self._flat.nodes)
        made = self._call(node.function("body"), f"{name}/body/", given, node, path)
        answer = self._call(node.function("cond"), f"{name}/cond/", tested, node, path)
        self._flat.kept.update(list(self._flat.nodes)[before:])
        if len(made) != count or len(answer) != 1:
            raise FormatError(
                f"has {count} states, a body with {len(made)} results and a condition with "
                f"{len(answer)}",
                where=node.where,
                expected="a body that makes each state, and one condition",
            )
        for k, start in enumerate(node.inputs):
            end = _output(name, k)
            if self._followed(made[k]) == given[k]:
                for same in (given[k], tested[k], end):
                    self._add(TFNode(same, "Identity", (start,), {}))
                self._flat.kept.update((given[k], tested[k], end))
                continue
            for state in (given[k], tested[k], end):
                self._add(TFNode(state, "LoopState", (), {}))
            loop.variables.append(Variable(start, given[k], made[k], end, tested[k]))
        loop.condition = answer[0]
        self._flat.loops.append(loop)

    def _followed(self, name: str) -> str:
        for _ in range(64):
            node = self._flat.nodes.get(name)
            if node is None or node.op != "Identity" or not node.inputs:
                break
            name = node.inputs[0]
        return name


def _name(function: bytes) -> str:
    """The name of a FunctionDef, "" where it does not decode."""
    head = decoded(function, "FunctionHead")
    return "" if head is None else text(head.signature.name)


def _needed(nodes: list[Any], roots: Iterable[str]) -> list[Any]:
    """Those that `roots` depend on, in the order of the file."""
    by_name = {text(node.name): node for node in nodes}
    wanted, found = list(roots), set[str]()
    while wanted:
        name = wanted.pop()
        if name not in found and name in by_name:
            found.add(name)
            sources = (text(source) for source in by_name[name].input)
            wanted.extend(s.partition(":")[0] for s in sources if not s.startswith("^"))
    return [node for node in nodes if text(node.name) in found]


def _output(name: str, k: int) -> str:
    return f"{name}:{k}" if k else name


def _plain(name: str) -> str:
    return name.removesuffix(":0")


def _inner(name: str, prefix: str, scope: dict[str, str], kinds: dict[str, str]) -> str:
    """A tensor as a function names it, "argument" or "node:output:index", in the flat graph."""
    node, _, rest = name.partition(":")
    if not rest:
        if node in scope:
            return scope[node]
        return prefix + node
    output, _, index = rest.partition(":")
    number = int(index) if index.isdecimal() and len(index) < 6 else 0
    names = _OUTPUTS.get(kinds.get(node, ""), ())
    if output in names:
        number += names.index(output)
    return _output(prefix + node, number)
