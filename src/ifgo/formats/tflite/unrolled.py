"""LSTMs whose steps stand one after another in the graph (unroll=True), as LSTM nodes.

A step is found by its end, h' = o·tanh(c') with c' = f·c + i·g, and proven by module _step; a chain
of steps, each from the h and c of the one before, over the rows of one sequence in order, is an
LSTM. From zero states converters leave f·c and R·h out of the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np

from ifgo.cell import LSTMCell
from ifgo.errors import IfgoError, UnsupportedError
from ifgo.formats._graph import GraphBuilder
from ifgo.formats._step import ACTIVATIONS, MAX_DEPTH, States, Step
from ifgo.formats.onnx.file import Node
from ifgo.formats.tflite.loops import Lookup
from ifgo.layers import Recurrent
from ifgo.text import quote

_EXPECTED: Final = "the steps of one LSTM over all rows of one sequence, as unroll=True writes them"

_PRODUCTS: Final = ("MatMul", "Gemm", "FULLY_CONNECTED", "BATCH_MATMUL")
"""Products by weights; by their own names those that are refused, as with weights of 8 bits."""


@dataclass(frozen=True, eq=False)
class _Step:
    """One step. before: the step whose states it takes. leaves: what its gates multiply by
    weights. c: the state that it takes, "" where it starts from zero."""

    next_h: str
    next_c: str
    c: str
    leaves: tuple[str, ...]
    before: _Step | None

    @property
    def chain(self) -> list[_Step]:
        """From the first step to this one."""
        found, step = list[_Step](), self
        while step is not None:
            found.append(step)
            step = step.before
        return found[::-1]


@dataclass(frozen=True)
class _Row:
    """Row `index` along `axis` of a sequence; -1 is the last one."""

    sequence: str
    axis: int
    index: int


def unroll(out: GraphBuilder, outputs: tuple[str, ...], next_layer: Callable[[], str]) -> None:
    """Puts one LSTM node for each chain of steps among the nodes of `out`, which stand in the order
    of their positions. A chain that is no LSTM becomes a node that refuses with the reason.

    outputs: what is wanted of the graph. next_layer: gives the name of one more LSTM.
    """
    _Unrolled(out, outputs, next_layer).rewrite()


class _Unrolled:
    def __init__(
        self, out: GraphBuilder, outputs: tuple[str, ...], next_layer: Callable[[], str]
    ) -> None:
        self.out = out
        self.outputs = outputs
        self.next_layer = next_layer
        self.look = Lookup(out)
        self.steps: dict[str, _Step] = {}
        self.rows: dict[str, _Row] = {}
        """Output h of a step of a chain that is read → its row of the chain's own sequence."""
        self.instead: dict[int, list[Node]] = {}
        """Position of a node → the nodes that stand there."""
        self.inside: set[int] = set()
        """Positions of nodes that go where nothing else needs them."""

    def rewrite(self) -> None:
        """See `unroll`."""
        by_c: dict[str, _Step] = {}
        for node in self.out.nodes:
            step = self._found(node, by_c) if node.op == "Mul" else None
            if step is not None:
                self.steps[step.next_h] = by_c[step.next_c] = step
        followed = {step.before for step in self.steps.values()}
        for step in [s for s in self.steps.values() if s not in followed]:
            self._layer(step.chain)
        if self.instead:
            self._replace()

    # -- finding ----------------------------------------------------------------------------

    def _found(self, node: Node, by_c: dict[str, _Step]) -> _Step | None:
        """The step that ends in `node`, None where it is no product that could be one."""
        for shown, gate in (node.inputs, node.inputs[::-1]):
            output, activated = self._maker(gate), self._maker(shown)
            if output is None or activated is None:
                continue
            if output.op not in ACTIVATIONS or activated.op not in ACTIVATIONS:
                continue
            next_c = self.look.plain(activated.inputs[0])
            states = self._taken(next_c)
            if states is None:
                continue
            c = next((name for name in states if name in by_c), states[0] if states else "")
            leaves = tuple(self._leaves(output.inputs[0]))
            return _Step(node.outputs[0], next_c, c, leaves, by_c.get(c))
        return None

    def _maker(self, name: str) -> Node | None:
        return self.look.makers.get(self.look.plain(name))

    def _is_gate(self, name: str) -> bool:
        node = self._maker(name)
        return node is not None and (node.op in ACTIVATIONS or node.op == "Sub")

    def _taken(self, next_c: str) -> list[str] | None:
        """The states that c' = f·c + i·g could take as c, [] where it is i·g; None where it is
        neither."""
        node = self._maker(next_c)
        while node is not None and node.op in ("Min", "Max"):
            value = [name for name in node.inputs if self.look.constant(name) is None]
            node = self._maker(value[0]) if len(value) == 1 else None
        if node is None or node.op not in ("Add", "Mul"):
            return None
        products = [node] if node.op == "Mul" else [self.look.node(n, "Mul") for n in node.inputs]
        if any(product is None for product in products):
            return None
        factors = [name for product in products if product is not None for name in product.inputs]
        states = [self.look.plain(name) for name in factors if not self._is_gate(name)]
        return states if len(states) == len(products) - 1 else None

    def _leaves(self, name: str) -> Iterator[str]:
        """What is multiplied by weights before a gate."""
        wanted, seen, found = [name], set[str](), set[str]()
        while wanted:
            name = self.look.plain(wanted.pop())
            node = self.look.makers.get(name)
            if node is None or name in seen:
                continue
            seen.add(name)
            if node.op == "Add":
                wanted.extend(node.inputs)
            elif node.op in ("Split", "Slice", "Reshape"):
                wanted.append(node.inputs[0])
            elif node.op in _PRODUCTS and node.inputs:
                source = self._maker(node.inputs[0])
                joined = source is not None and source.op == "Concat"
                for leaf in source.inputs if joined and source is not None else node.inputs[:1]:
                    leaf = self.look.plain(leaf)
                    if leaf not in found:
                        found.add(leaf)
                        yield leaf

    # -- one layer --------------------------------------------------------------------------

    def _layer(self, chain: list[_Step]) -> None:
        last = chain[-1]
        place = self.look.makers[last.next_c]
        ends = {self.look.makers[name].position for name in (last.next_h, last.next_c)}
        name = self.next_layer()
        try:
            nodes, rows = self._read(chain, name)
        except IfgoError as error:
            node = self.look.makers[last.next_h]
            located = error if error.where else error.located(node.where)
            made = (last.next_h, last.next_c)
            refused = Node("LSTM", name, 0, (), made, {}, refusal=located, kind=node.kind)
            self.instead |= {position: [] for position in ends} | {place.position: [refused]}
            return
        self.rows |= rows
        self.instead |= {position: [] for position in ends} | {place.position: nodes}
        self.inside |= set(self._cone(chain))
        for node in self.out.nodes:
            self._packed(node, chain, rows[last.next_h])

    def _read(self, chain: list[_Step], name: str) -> tuple[list[Node], dict[str, _Row]]:
        xs, starts = self._sequence(chain)
        cell = self._cell(chain, xs, starts)
        rows = [self._row(x) for x in xs]
        sequence, axis = rows[0].sequence, rows[0].axis
        count = len(chain)
        order = [row.index % count for row in rows]
        if (
            any((row.sequence, row.axis) != (sequence, axis) for row in rows)
            or order not in ([*range(count)], [*range(count)][::-1])
            or axis not in (0, 1)
        ):
            raise UnsupportedError(
                "takes other rows than all of one sequence in order", expected=_EXPECTED
            )
        out, before = self.out, len(self.out.nodes)
        if order[0] != 0:
            turn = (out.integers(n) for n in (2**31 - 1, -(2**31), axis, -1))
            sequence = out.add("Slice", (sequence, *turn), name=name, kind="LSTM")
        inputs = [sequence]
        if not all(self._is_zero(start) for start in starts):
            given = (out.add("Unsqueeze", (s, out.integers(0)), name=name) for s in starts)
            inputs += ["", "", "", "", *given]
        made = (out.fresh("sequence"), chain[-1].next_h, chain[-1].next_c)
        layer = Recurrent("lstm", cell)
        out.add(
            "LSTM",
            tuple(inputs),
            made,
            name=name,
            kind="unrolled LSTM",
            layer=layer,
            layout=axis,
            steps=count,
        )
        nodes = out.nodes[before:]
        del out.nodes[before:]
        return nodes, {s.next_h: _Row(made[0], axis, k) for k, s in enumerate(chain)}

    def _is_zero(self, name: str) -> bool:
        """Whether all of it is known to be zero, whatever the batch is."""
        node = self.look.makers.get(self.look.plain(name))
        for _ in range(MAX_DEPTH):
            if node is None or node.op not in ("Expand", "Tile", "Unsqueeze", "Identity"):
                break
            name = node.inputs[0]
            node = self.look.makers.get(name)
        known = self.out.arrays.get(name)
        return known is not None and not known.any()

    def _sequence(self, chain: list[_Step]) -> tuple[list[str], tuple[str, ...]]:
        """x of every step, and the states h and c that the first is given, none where zero."""
        xs: list[str] = []
        for step in chain[1:]:
            assert step.before is not None
            other = [name for name in step.leaves if name != step.before.next_h]
            if len(other) != 1 or len(step.leaves) != 2:
                raise UnsupportedError(
                    f"has {len(step.leaves)} sources of gates in a step", expected=_EXPECTED
                )
            xs += other
        first = chain[0]
        if not first.c:
            if len(chain) == 1:
                raise UnsupportedError(
                    "is one step from zero, without a forget gate", expected="two steps at least"
                )
            if len(first.leaves) != 1:
                raise UnsupportedError("starts from zero c alone", expected="zero h and c")
            return [*first.leaves, *xs], ()
        x = self._first_x(first, xs)
        (h,) = (name for name in first.leaves if name != x)
        return [x, *xs], (h, first.c)

    def _first_x(self, first: _Step, xs: list[str]) -> str:
        """Which source of a first step with given states is x: the row of the sequence of the
        others, or the one that does not come from where c does."""
        rows = [name for name in first.leaves if self._as_row(name) is not None]
        if len(first.leaves) == 2 and xs:
            wanted = self._row(xs[0]).sequence
            rows = [name for name in rows if self._row(name).sequence == wanted]
        elif len(rows) == 2:
            of_c = self._origins(first.c)
            rows = [name for name in rows if self._origins(name) != of_c]
        if len(first.leaves) != 2 or len(rows) != 1:
            raise UnsupportedError(
                "does not say which of its inputs is the sequence", expected=_EXPECTED
            )
        return rows[0]

    def _origins(self, name: str) -> set[str]:
        """What a tensor is computed from."""
        wanted, seen, found = [name], set[str](), set[str]()
        while wanted:
            name = wanted.pop()
            if name in seen:
                continue
            seen.add(name)
            node = self.look.makers.get(name)
            if node is not None:
                wanted.extend(node.inputs)
            elif name and name not in self.out.arrays:
                found.add(name)
        return found

    def _row(self, name: str) -> _Row:
        found = self._as_row(name)
        if found is None:
            raise UnsupportedError(
                f"takes {quote(name)}, which is no row of a sequence", expected=_EXPECTED
            )
        return found

    def _as_row(self, name: str) -> _Row | None:
        name = self.look.plain(name)
        if name in self.rows:
            return self.rows[name]
        node = self.look.node(name, "Gather")
        index = None if node is None else self.look.constant(node.inputs[1])
        if node is None or index is None or index.shape != ():
            return None
        return _Row(self.look.plain(node.inputs[0]), node.attributes["axis"].i, int(index))

    def _cell(self, chain: list[_Step], xs: list[str], starts: tuple[str, ...]) -> LSTMCell:
        """The cell that every step is."""
        cell: LSTMCell | None = None
        for step, x in zip(chain, xs, strict=True):
            if step.before is None and not starts:
                continue
            h, c = starts if step.before is None else (step.before.next_h, step.c)
            found = self._prove(step, x, h, c).cell()
            if cell is not None and not _alike(cell, found):
                raise UnsupportedError(
                    "has other weights in one step than in another",
                    where=self.look.makers[step.next_h].where,
                    expected=_EXPECTED,
                )
            cell = cell or found
        assert cell is not None
        if not starts:
            self._prove(chain[0], xs[0], "", "").check_start(cell)
        return cell

    def _prove(self, step: _Step, x: str, h: str, c: str) -> Step:
        states = States(x, h, c, step.next_h, step.next_c)
        return Step(self.look.makers, self.look.constant, states)

    # -- rewriting --------------------------------------------------------------------------

    def _cone(self, chain: list[_Step]) -> Iterator[int]:
        """Positions of the nodes between what the steps take and what they make."""
        ends = {name for step in chain for name in (*step.leaves, step.c)}
        wanted = [name for step in chain for name in (step.next_h, step.next_c)]
        seen: set[int] = set()
        for name in wanted:
            stack = [name]
            while stack:
                node = self.look.makers.get(stack.pop())
                if node is not None and node.position not in seen:
                    seen.add(node.position)
                    yield node.position
                    stack.extend(n for n in node.inputs if self.look.plain(n) not in ends)
        for step in chain:
            for name in step.leaves:
                node = self.look.node(name, "Gather")
                if node is not None:
                    yield node.position

    def _packed(self, node: Node, chain: list[_Step], last: _Row) -> None:
        """A PACK of every h in order as the sequence that the layer gives."""
        if node.op != "Concat" or len(node.inputs) != len(chain):
            return
        parts = [self.look.node(name, "Unsqueeze") for name in node.inputs]
        axis = node.attributes["axis"].i
        if any(
            part is None
            or self.look.plain(part.inputs[0]) != step.next_h
            or self.look.numbers(part.inputs[1]) != [axis]
            for part, step in zip(parts, chain, strict=True)
        ):
            return
        if axis not in (0, 1):
            return
        before = len(self.out.nodes)
        more: dict[str, Any] = {} if axis == last.axis else {"perm": [1, 0, 2]}
        op, out = "Transpose" if more else "Identity", node.outputs[0]
        self.out.add(op, (last.sequence,), out, name=node.name, kind=node.kind, **more)
        self.instead[node.position] = self.out.nodes[before:]
        del self.out.nodes[before:]
        self.inside |= {part.position for part in parts if part is not None}

    def _replace(self) -> None:
        """The nodes that are left, in their order."""
        kept = [n for n in self.out.nodes if n.position not in self.inside]
        kept = [n for n in kept if n.position not in self.instead]
        wanted = [name for n in kept for name in n.inputs]
        wanted += [name for new in self.instead.values() for n in new for name in n.inputs]
        wanted += self.outputs
        needed: set[int] = {n.position for n in kept}
        while wanted:
            node = self.look.makers.get(wanted.pop())
            if (
                node is not None
                and node.position not in needed
                and node.position not in self.instead
            ):
                needed.add(node.position)
                wanted.extend(node.inputs)
        nodes: list[Node] = []
        for node in self.out.nodes:
            nodes += self.instead.get(node.position, [node] if node.position in needed else [])
        self.out.nodes[:] = [replace(n, position=k) for k, n in enumerate(nodes)]


def _alike(one: LSTMCell, two: LSTMCell) -> bool:
    """Whether two cells have equal fields."""
    arrays = one.arrays, two.arrays
    rules = [
        {f.name: getattr(cell, f.name) for f in fields(cell) if f.name not in found}
        for cell, found in zip((one, two), arrays, strict=True)
    ]
    return (
        rules[0] == rules[1]
        and arrays[0].keys() == arrays[1].keys()
        and all(np.array_equal(a, arrays[1][name]) for name, a in arrays[0].items())
    )
