"""LSTM nodes of a larger graph: listed, and cut out as a graph of their own that the walk can read.

The cut goes through X of the first chosen node, which becomes the input of the model, and through
whatever the graph computes for initial states and lengths, which become inputs too unless they fold
to constants. The outputs are those of the last chosen node.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto

from ifgo import limits
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats.extraction import Found, Listing, chosen, counted, left_out
from ifgo.formats.onnx.file import Graph, GraphInput, Node, printable, quoted, to_array
from ifgo.formats.onnx.fold import MOVES
from ifgo.formats.onnx.model import assemble
from ifgo.formats.onnx.value import Length
from ifgo.formats.onnx.walk import Walk
from ifgo.model import Model

_WEIGHTS: Final = {1: "W", 2: "R", 3: "B", 7: "P"}
_REQUIRED: Final = (1, 2)
_LENGTHS: Final = 4
_STATES: Final = {5: "h", 6: "c"}

_MAX_SETTLED: Final = 200
"""Most tensors that are looked at to know what initial states are; exporters take about 10 each."""

MAX_PATH: Final = 64
"""Moves between zeros and an initial state; exporters write fewer than ten."""

Bound = Mapping[str, NDArray[Any]]


def listing(graph: Graph, bound: Bound) -> Listing:
    """Every LSTM node, those in bodies of If, Loop and Scan by count only."""
    cut = _Cut(graph, bound)
    found = tuple(cut.found(name) for name in cut.nodes)
    others = _kinds(node for node in graph.nodes if node.op != "LSTM")
    for node in graph.nodes:
        others += _inner(node)
    return Listing(graph.framework, found, counted(others))


def extract(graph: Graph, bound: Bound, select: str | Sequence[str], path: str) -> Model:
    """The chosen nodes as a model. Raises UsageError where they are unknown or no chain."""
    cut = _Cut(graph, bound)
    return cut.model(chosen(select, list(cut.nodes)), path)


def _kinds(nodes: Iterable[Node]) -> list[str]:
    """Operators of the file: each node, or those that nodes are parts of."""
    found = {node.name if node.kind else node.position: node.kind or node.op for node in nodes}
    return list(found.values())


def _inner(node: Node) -> list[str]:
    """Operators in the bodies of a node, as "LSTM in Loop"."""
    bodies = [b for a in node.attributes.values() for b in (a.g, *a.graphs) if b.node]
    return [f"{op} in {printable(node.op, 40)}" for body in bodies for op in _operators(body)]


def _operators(body: GraphProto) -> list[str]:
    """Its operators and those of the bodies inside; protobuf bounds how deep they are."""
    found: list[str] = []
    for node in body.node:
        found.append(printable(str(node.op_type), 40))
        inner = [b for a in node.attribute for b in (a.g, *a.graphs) if b.node]
        found += [op for b in inner for op in _operators(b)]
    return found


@dataclass
class _Reach:
    """What a tensor is computed from: the nodes, LSTM nodes (not passed through), graph inputs."""

    nodes: dict[int, Node]
    lstms: dict[int, Node]
    inputs: set[str]


class _Cut:
    """One graph, whose LSTM nodes have names: their own, or "#position" where that is no name."""

    def __init__(self, graph: Graph, bound: Bound) -> None:
        self.graph = graph
        self.bound = bound
        self.makers = {name: node for node in graph.nodes for name in filter(None, node.outputs)}
        lstms = [node for node in graph.nodes if node.op == "LSTM"]
        if len(lstms) > limits.current().layers:
            raise FormatError(f"has {len(lstms)} LSTM nodes", **limits.at_most("layers"))
        own = [printable(node.name, 256) for node in lstms]
        self.nodes = {
            name if name and own.count(name) == 1 else f"#{node.position}": node
            for name, node in zip(own, lstms, strict=True)
        }
        self.names = {node.position: name for name, node in self.nodes.items()}
        self.constants = Walk(graph, bound)
        self._states: dict[str, str | None] = {}
        self._path: list[str] = []
        self.settled: dict[str, str | None] = {}

    # -- listing ----------------------------------------------------------------------------

    def found(self, name: str) -> Found:
        """What can be said of one node."""
        node = self.nodes[name]
        source, after = self._source(node)
        try:
            layer = self.model((name,), "").recurrent[0]
        except IfgoError as error:
            return Found(name, *self._sizes(node), (), "", source, after, str(error))
        sizes = layer.cell.input_size, layer.hidden_size
        return Found(name, *sizes, tuple(layer.cells), layer.detail(), source, after)

    def _sizes(self, node: Node) -> tuple[int | None, int | None]:
        """input_size and hidden_size by W, where that is known."""
        if node.layer is not None:
            return node.layer.cell.input_size, node.layer.hidden_size
        try:
            shape = self._constant(node, 1).shape
        except IfgoError:
            return None, None
        return (shape[2], shape[1] // 4) if len(shape) == 3 else (None, None)

    def _source(self, node: Node) -> tuple[str, str]:
        """Where X comes from beyond moves, and the only LSTM node before it."""
        name = node.inputs[0] if node.inputs else ""
        reach = self._reach([name])
        seen: set[str] = set()
        while (maker := self.makers.get(name)) is not None and name not in seen:
            seen.add(name)
            constant = bool(maker.inputs) and self.graph.is_constant(maker.inputs[0])
            if maker.op not in MOVES or maker.op == "Concat" or not maker.inputs or constant:
                break
            name = maker.inputs[0]
        after = [self.names[k] for k in reach.lstms]
        before = after[0] if len(after) == 1 and not reach.inputs else ""
        if maker is None:
            return (f"input {quoted(name)}" if name in self.graph.inputs else "a constant"), before
        if maker.op == "LSTM":
            part = dict(zip(maker.outputs, ("Y", "Y_h", "Y_c"), strict=False)).get(
                name, "an output"
            )
            return f"{part} of LSTM {quoted(self.names[maker.position])}", before
        return f"{maker.where} ({printable(maker.op, 40)})", before

    # -- cutting ----------------------------------------------------------------------------

    def model(self, names: tuple[str, ...], path: str) -> Model:
        """The nodes called `names`, in the order of the graph, as one chain."""
        nodes = sorted((self.nodes[name] for name in names), key=lambda node: node.position)
        for before, node in itertools.pairwise(nodes):
            self._check_follows(before, node)
        first, last = nodes[0], nodes[-1]
        if not first.inputs or not first.inputs[0]:
            raise FormatError("has no input 0", where=first.where, expected="one")
        entries = {first.inputs[0]: self._sequence(first)}
        replaced = {node.position: self._rewired(node, entries) for node in nodes}
        outputs = tuple(filter(None, last.outputs))
        inside = self._inside(outputs, first.inputs[0], replaced, entries)
        kept = {name: e for name, e in self.graph.inputs.items() if name in self.bound}
        graph = replace(self.graph, nodes=inside, inputs=entries | kept, outputs=outputs)
        walk = Walk(graph, self.bound, "Choose one layer at a time")
        walk.run()
        positions = {node.position for node in inside}
        rest = _kinds(node for node in self.graph.nodes if node.position not in positions)
        words = ", ".join(quoted(self.names[node.position]) for node in nodes)
        walk.chain.notes.append(f"selected {words}")
        walk.chain.notes.append(left_out(counted(rest), "node"))
        return assemble(graph, walk, path)

    def _check_follows(self, before: Node, node: Node) -> None:
        reach = self._reach([node.inputs[0]] if node.inputs else [])
        if list(reach.lstms) == [before.position]:
            return
        wanted = [quoted(self.names[k]) for k in sorted(reach.lstms)]
        raise UsageError(
            f"LSTM {quoted(self.names[node.position])} takes its input from "
            + (f"LSTM {' and LSTM '.join(wanted)}" if wanted else "no LSTM"),
            expected=f"from LSTM {quoted(self.names[before.position])}, chosen before it",
            hint="Choose layers one after another, or one at a time",
        )

    def _sequence(self, node: Node) -> GraphInput:
        """X of a node as an input with open time and batch."""
        if node.refusal is not None:
            raise node.refusal
        if node.layer is not None:
            width, dtype = node.layer.cell.input_size, node.layer.cell.weight_ih.dtype
        else:
            weight = self._constant(node, 1)
            if weight.ndim != 3:
                raise FormatError(
                    f"W has shape {weight.shape}", where=node.where, expected="(D, 4H, I)"
                )
            width, dtype = weight.shape[2], weight.dtype
        time, batch = Length.named(".time"), Length.named(".batch")
        layout = node.attributes.get("layout")
        order = (batch, time) if layout is not None and layout.i == 1 else (time, batch)
        return GraphInput(node.inputs[0], dtype, (*order, width))

    def _rewired(self, node: Node, entries: dict[str, GraphInput]) -> Node:
        """The node with its states constant, left out, or inputs; lengths are always an input."""
        if node.layer is not None:
            return node
        inputs = list(node.inputs)
        for position in _WEIGHTS:
            if position in _REQUIRED or (position < len(inputs) and inputs[position]):
                self._constant(node, position)
        given = {k: inputs[k] for k in _STATES if k < len(inputs) and inputs[k]}
        settled = {k: self._settled(name) for k, name in given.items()}
        if None in settled.values():
            recurrence = self._constant(node, 2)
            if recurrence.ndim != 3:
                raise FormatError(
                    f"R has shape {recurrence.shape}", where=node.where, expected="(D, 4H, H)"
                )
            count, hidden = recurrence.shape[0], recurrence.shape[-1]
            layout = node.attributes.get("layout")
            batch = Length.named(".batch")
            turned = layout is not None and layout.i == 1
            shape = (batch, count, hidden) if turned else (count, batch, hidden)
            inputs += [""] * (7 - len(inputs))
            for k, part in _STATES.items():
                name = f"{self.names[node.position]}.initial_{part}"
                entries[name] = GraphInput(name, recurrence.dtype, shape)
                inputs[k] = name
        else:
            for k, name in settled.items():
                inputs[k] = name or ""
        if len(inputs) > _LENGTHS and inputs[_LENGTHS]:
            name = inputs[_LENGTHS]
            entries[name] = GraphInput(name, np.dtype(np.int32), (Length.named(".batch"),))
        return replace(node, inputs=tuple(inputs))

    def _settled(self, name: str) -> str | None:
        """The constant that a state is however long the batch is; "" for zero, None for none."""
        if name not in self.settled and len(self.settled) < _MAX_SETTLED:
            self.settled[name] = None  # what leads back to itself settles nothing
            self.settled[name] = self._settles(name)
        return self.settled.get(name)

    def _settles(self, name: str) -> str | None:
        if name not in self._states:
            self._states[name] = None  # what comes back to itself is no constant
            if len(self._path) < MAX_PATH:
                self._path.append(name)
                self._states[name] = self._settle(name)
                self._path.pop()
        return self._states[name]

    def _settle(self, name: str) -> str | None:
        if self.constants.fold(name) is not None:
            return name
        maker = self.makers.get(name)
        if maker is None:
            return None
        if maker.op == "ConstantOfShape":
            fill = maker.attributes.get("value")
            data = None if fill is None else to_array(fill.t, f"value of {maker.where}", None)
            return "" if data is None or not data.any() else None
        first = maker.inputs[0] if maker.inputs else ""
        if maker.op == "Expand":
            return self._settled(first)
        if maker.op == "Concat":
            parts = {self._settled(part) for part in maker.inputs}
            return "" if parts == {""} else None
        if maker.op in MOVES or maker.op == "Cast":
            return "" if self._settled(first) == "" else None
        return None

    def _inside(
        self,
        outputs: Sequence[str],
        x: str,
        replaced: dict[int, Node],
        entries: Mapping[str, GraphInput],
    ) -> tuple[Node, ...]:
        """The nodes between X and the outputs. Raises UnsupportedError where they need more."""
        wanted, found = list(outputs), dict[int, Node]()
        while wanted:
            name = wanted.pop()
            if not name or name in entries or self.graph.is_constant(name) or name in self.bound:
                continue
            node = self.makers.get(name)
            if node is None or (node.op == "LSTM" and node.position not in replaced):
                outside = f"input {quoted(name)}" if node is None else f"LSTM {quoted(node.name)}"
                raise UnsupportedError(
                    f"what follows X of the first layer ({quoted(x)}) also takes {outside}",
                    expected="nothing but that sequence between the chosen layers",
                    hint="Choose one layer at a time",
                )
            if node.position not in found:
                found[node.position] = replaced.get(node.position, node)
                wanted.extend(found[node.position].inputs)
        return tuple(found[k] for k in sorted(found))

    # -- following --------------------------------------------------------------------------

    def _constant(self, node: Node, position: int) -> NDArray[Any]:
        """A weight of a node. Raises UnsupportedError where it is computed from an input."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        value = self.constants.fold(name) if name else None
        if value is None:
            letter = _WEIGHTS[position]
            raise UnsupportedError(
                f"{letter} ({quoted(name)}) is computed from inputs of the graph"
                if name
                else f"has no {letter}",
                where=node.where,
                expected="constant weights",
                hint="Bind inputs that are constants with --bind FILE.npz (bind= in Python)",
            )
        return value

    def _reach(self, names: Sequence[str]) -> _Reach:
        wanted, found = list(names), _Reach({}, {}, set())
        seen: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name in seen or not name:
                continue
            seen.add(name)
            node = self.makers.get(name)
            if node is None:
                if name in self.graph.inputs and name not in self.bound:
                    found.inputs.add(name)
            elif node.op == "LSTM":
                found.lstms[node.position] = node
            else:
                found.nodes[node.position] = node
                wanted.extend(() if node.op in ("Shape", "Size") else node.inputs)
        return found
