"""WHILE operators that run LSTM cells over the steps of a sequence, as LSTM nodes.

The converter of TensorFlow 2 makes one of every keras.layers.LSTM that it does not fuse. Two graphs
of the file are its condition and its body; argument k of both is a state of the loop, which starts
as input k of the operator, becomes output k of the body with each step, and ends as output k of the
operator. Step t reads row t of a sequence (T, B, I) and writes row t of a list (T, B, P).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats._graph import GraphBuilder
from ifgo.formats._step import MAX_DEPTH, States, Step
from ifgo.formats.onnx.file import Node
from ifgo.formats.tflite.file import Operator
from ifgo.layers import Recurrent
from ifgo.text import quote

if TYPE_CHECKING:
    from ifgo.formats.tflite.graph import Translation

MAX_STATES: Final = 32
"""Most states of one loop."""

MAX_LOOPS: Final = 64
"""Most loops of one file."""

_WHOLE = "a loop over the whole of one sequence, as keras.layers.LSTM is converted"


@dataclass(frozen=True)
class _State:
    """One state of a loop. start, end: in the graph around it; given, made: in the body."""

    start: str
    given: str
    made: str
    end: str


def while_loop(t: Translation, operator: Operator, label: str) -> None:
    """The LSTM layers of one WHILE. Raises UnsupportedError naming what is no part of one."""
    if t.subgraph.number:
        raise UnsupportedError("is a loop in a loop", expected=_WHOLE)
    if t.layers >= MAX_LOOPS:
        raise UnsupportedError(f"comes after {t.layers} LSTMs", expected=f"at most {MAX_LOOPS}")
    graphs: list[Translation] = []
    for name in ("CondSubgraphIndex", "BodySubgraphIndex"):
        number = operator.options.get(name, -1)
        if not 1 <= number < len(t.file.graphs):
            raise FormatError(f"names graph {number}", expected=f"1 to {len(t.file.graphs) - 1}")
        graphs.append(t.body(number))
    _Loop(t, operator, *graphs).layers()


class Lookup:
    """The nodes and constants of a graph by name."""

    def __init__(self, out: GraphBuilder) -> None:
        self.out = out
        self.makers = {name: node for node in out.nodes for name in node.outputs}

    def plain(self, name: str) -> str:
        """`name` without the nodes that change nothing."""
        for _ in range(MAX_DEPTH):
            node = self.makers.get(name)
            if node is None or node.op != "Identity":
                break
            name = node.inputs[0]
        return name

    def node(self, name: str, op: str) -> Node | None:
        """The node that makes `name`, where it is an `op`."""
        node = self.makers.get(self.plain(name))
        return node if node is not None and node.op == op else None

    def constant(self, name: str) -> NDArray[Any] | None:
        """The constant called `name`, through nodes that change nothing."""
        return self.out.arrays.get(self.plain(name))

    def integer(self, name: str) -> int | None:
        """The one integer that `name` is known to be."""
        found = self.constant(name)
        one = found is not None and found.size == 1 and found.dtype.kind in "iu"
        return int(found.reshape(-1)[0]) if one and found is not None else None

    def numbers(self, name: str) -> list[int] | None:
        """The few integers that `name` is known to be."""
        found = self.constant(name)
        few = found is not None and found.size <= 8 and found.dtype.kind in "iu"
        return [int(n) for n in found.reshape(-1)] if few and found is not None else None


class _Loop:
    """One WHILE: `t` is the graph around it."""

    def __init__(
        self, t: Translation, operator: Operator, condition: Translation, body: Translation
    ) -> None:
        self.t = t
        self.around, self.inside = Lookup(t.out), Lookup(body.out)
        self.condition, self.body = condition, body
        lists = (operator.inputs, operator.outputs, body.subgraph.inputs, body.subgraph.outputs)
        if len({*map(len, lists), len(condition.subgraph.inputs)}) != 1:
            raise FormatError(
                "has other numbers of inputs, outputs, and arguments of its graphs",
                expected="the same number of each",
            )
        if len(operator.inputs) > MAX_STATES:
            raise UnsupportedError(
                f"has {len(operator.inputs)} states", expected=f"at most {MAX_STATES}"
            )
        if min((*operator.inputs, *operator.outputs), default=-1) < 0:
            raise FormatError("leaves out an input or an output", expected="all of them")
        silent = next((o for o in body.subgraph.operators if not o.outputs), None)
        if silent is not None:
            raise UnsupportedError(
                "does something else than compute", where=silent.where, expected=_WHOLE
            )
        names = (t.names, t.names, body.names, body.names)
        start, end, given, made = (
            [n[k] for k in found] for n, found in zip(names, lists, strict=True)
        )
        self.states = [_State(*s) for s in zip(start, given, made, end, strict=True)]
        if len(set(given)) != len(given) or any(self.inside.makers.get(name) for name in given):
            raise FormatError("has a body whose arguments are not its own", expected="arguments")
        self.fixed = {s.given: s.start for s in self.states if self.inside.plain(s.made) == s.given}
        self.counters = {s.given for s in self.states if self._counts(s)}

    def layers(self) -> None:
        """Adds the nodes of its layers."""
        limit = self._limit()
        x, sequence = self._sequence()
        steps = self._steps(limit, sequence)
        written = {s: h for s in self.states if (h := self._written(s)) is not None}
        left = [
            s
            for s in self.states
            if s.given not in self.fixed and s.given not in self.counters and s not in written
        ]
        outputs: dict[str, tuple[str, str]] = {}
        while (found := self._next_cell(left, x)) is not None:
            cell, h, c = found
            left = [s for s in left if s not in (h, c)]
            sequence = self._emit(cell, h, c, sequence, steps)
            x = self.inside.plain(h.made)
            outputs[x] = (sequence, h.end)
        if left or not outputs:
            raise self._why(left, x)
        for state, h in written.items():
            self._lists(state, h, outputs, limit)

    # -- the cell ---------------------------------------------------------------------------

    def _step(self, h: _State, c: _State, x: str) -> Step:
        states = States(x, h.given, c.given, h.made, c.made)
        return Step(self.inside.makers, self._weight, states)

    def _weight(self, name: str) -> NDArray[Any] | None:
        """A constant of the body, or one that the loop is given and passes on."""
        turned = self.inside.node(name, "Transpose")
        plain = self.inside.plain(name if turned is None else turned.inputs[0])
        around = self.fixed.get(plain)
        found = self.inside.constant(plain) if around is None else self.around.constant(around)
        if turned is None or found is None:
            return found
        return found.T if found.ndim == 2 else None

    def _next_cell(self, left: list[_State], x: str) -> tuple[LSTMCell, _State, _State] | None:
        for h in left:
            for c in left:
                if h is c:
                    continue
                try:
                    return self._step(h, c, x).cell(), h, c
                except IfgoError:
                    continue
        return None

    def _why(self, left: list[_State], x: str) -> IfgoError:
        """The reason of the pair that is most like a cell: whose message names an operator."""
        reasons: list[IfgoError] = []
        for h in left:
            for c in left:
                try:
                    if h is not c:
                        self._step(h, c, x).cell()
                except IfgoError as error:
                    reasons.append(error)
        quantised = next((r for r in reasons if "weights" in r.what), None)
        said = next((r for r in reasons if "without f·c" not in r.what and r.where), None)
        return quantised or said or UnsupportedError("runs no LSTM cell", expected=_WHOLE)

    def _emit(self, cell: LSTMCell, h: _State, c: _State, sequence: str, steps: int | None) -> str:
        """The node of one layer. Returns its sequence."""
        out, name = self.t.out, self.t.next_layer()
        place = out.integers(0)
        inputs = [sequence]
        starts = [self.around.constant(state.start) for state in (h, c)]
        if any(start is None or start.any() for start in starts):
            given = [
                out.add("Unsqueeze", (state.start, place), name=name, kind="WHILE")
                for state in (h, c)
            ]
            inputs += ["", "", "", "", *given]
        for start, size in zip(starts, (cell.output_size, cell.hidden_size), strict=True):
            if start is not None and (start.ndim != 2 or start.shape[1] != size):
                raise FormatError(
                    f"starts with a state of shape {start.shape}", expected=f"(B, {size})"
                )
        made = (out.fresh("sequence"), h.end, c.end)
        layer = Recurrent("lstm", cell)
        more: dict[str, Any] = {} if steps is None else {"steps": steps}
        return out.add("LSTM", tuple(inputs), made, name=name, kind="WHILE", layer=layer, **more)

    # -- counting ---------------------------------------------------------------------------

    def _counts(self, state: _State) -> bool:
        """Whether a state is the number of the step: from 0 in ones."""
        node = self.inside.node(state.made, "Add")
        if node is None or self.around.integer(state.start) != 0:
            return False
        one, two = node.inputs
        pairs = ((one, two), (two, one))
        return any(
            self.inside.plain(a) == state.given and self.inside.integer(b) == 1 for a, b in pairs
        )

    def _limit(self) -> int | str:
        """What the step number stays below: a number, or the name of one in the graph around."""
        found = Lookup(self.condition.out)
        arguments = [self.condition.names[k] for k in self.condition.subgraph.inputs]
        outputs = self.condition.subgraph.outputs
        wanted = [self.condition.names[outputs[0]]] if len(outputs) == 1 else []
        limits: set[int | str] = set() if wanted else {""}
        while wanted:
            node = found.makers.get(found.plain(wanted.pop()))
            if node is not None and node.op == "LOGICAL_AND" and len(wanted) < MAX_STATES:
                wanted.extend(node.inputs)
                continue
            less = node is not None and node.op == "LESS" and len(node.inputs) == 2
            step, bound = [found.plain(n) for n in node.inputs] if less and node else ["", ""]
            place = arguments.index(step) if step in arguments else -1
            counts = place >= 0 and self.states[place].given in self.counters
            limits.add(self._bound(found, arguments, bound) if counts else "")
        if len(limits) != 1 or "" in limits:
            raise UnsupportedError(
                "goes on by another rule than a step number from 0 in ones that is less than the "
                "length of its sequence",
                expected=_WHOLE,
            )
        return limits.pop()

    def _bound(self, found: Lookup, arguments: list[str], name: str) -> int | str:
        """A number, a name in the graph around, or "" where it is neither."""
        number = found.integer(name)
        if number is not None or name not in arguments:
            return "" if number is None else number
        start = self.fixed.get(self.states[arguments.index(name)].given, "")
        number = self.around.integer(start) if start else None
        return self.around.plain(start) if number is None and start else number or 0

    def _sequence(self) -> tuple[str, str]:
        """(x of a step, the whole sequence that it is row `step number` of)."""
        reads = [
            node
            for node in self.body.out.nodes
            if node.op == "Gather"
            and self.inside.plain(node.inputs[0]) in self.fixed
            and self.inside.plain(node.inputs[1]) in self.counters
        ]
        if len(reads) != 1 or reads[0].attributes["axis"].i != 0:
            raise UnsupportedError(
                f"reads rows of {len(reads)} sequences"
                if len(reads) != 1
                else "reads another axis than the first",
                expected=_WHOLE,
            )
        return reads[0].outputs[0], self.fixed[self.inside.plain(reads[0].inputs[0])]

    def _steps(self, limit: int | str, sequence: str) -> int | None:
        """The number of steps, None where it is the length of the sequence by its making."""
        if isinstance(limit, int):
            if limit < 1:
                raise UnsupportedError(f"takes {limit} steps", expected="one at least")
            return limit
        pick = self.around.node(limit, "Gather")
        shape = self.around.node(pick.inputs[0], "Shape") if pick is not None else None
        if (
            pick is None
            or shape is None
            or self.around.integer(pick.inputs[1]) != 0
            or self.around.plain(shape.inputs[0]) != self.around.plain(sequence)
        ):
            raise UnsupportedError(
                f"takes {quote(limit)} steps, which is not the length of its sequence",
                expected=_WHOLE,
            )
        return None

    # -- what is written --------------------------------------------------------------------

    def _written(self, state: _State) -> str | None:
        """The value that each step writes into the list `state`: of one entry, which it replaces,
        or at the place of the step number. None where it is no list."""
        node = self.inside.node(state.made, "Concat")
        if node is None or len(node.inputs) != 3 or node.attributes["axis"].i != 0:
            return self._row(state.made)
        before, row, after = node.inputs
        parts = [self.inside.node(name, "SLICE") for name in (before, after)]
        value = self._row(row)
        if value is None or any(
            p is None or len(p.inputs) != 3 or self.inside.plain(p.inputs[0]) != state.given
            for p in parts
        ):
            return None
        first, last = (p.inputs[1:] for p in parts if p is not None)
        fits = (
            self.inside.numbers(first[0]) == [0, 0, 0]
            and self._place(first[1], -1) == 0
            and self._place(last[0], 0) == 1
            and self.inside.numbers(last[1]) == [-1, -1, -1]
        )
        return value if fits else None

    def _row(self, name: str) -> str | None:
        """What is laid out as (1, B, P)."""
        node = self.inside.node(name, "Reshape")
        shape = None if node is None else self.inside.numbers(node.inputs[1])
        if node is None or shape is None or len(shape) != 3 or shape[0] != 1:
            return None
        return self.inside.plain(node.inputs[0])

    def _place(self, name: str, rest: int) -> int | None:
        """k where `name` is the vector (step number + k, rest, rest)."""
        node = self.inside.node(name, "Concat")
        if node is None or len(node.inputs) != 2:
            return None
        if self.inside.numbers(node.inputs[1]) != [rest] * 2:
            return None
        first = self.inside.node(node.inputs[0], "Reshape")
        if first is None or self.inside.numbers(first.inputs[1]) not in ([1], [-1]):
            return None
        number = self.inside.plain(first.inputs[0])
        if number in self.counters:
            return 0
        following = {self.inside.plain(s.made) for s in self.states if s.given in self.counters}
        return 1 if number in following else None

    def _lists(
        self, state: _State, h: str, outputs: dict[str, tuple[str, str]], limit: int | str
    ) -> None:
        """The list as a sequence, or as the last state where it has one entry."""
        found = outputs.get(h)
        if found is None:
            raise UnsupportedError(
                f"puts {quote(h)} into a list, which is no output of an LSTM cell", expected=_WHOLE
            )
        sequence, final = found
        label = quote(state.end)
        if self.inside.node(state.made, "Concat") is None:
            place = self.t.out.integers(0)
            self.t.out.add("Unsqueeze", (final, place), state.end, name=label, kind="WHILE")
            return
        if not self._is_long(state.start, limit):
            raise UnsupportedError(
                f"writes into a list, {quote(state.start)}, that is not as long as its sequence",
                expected=_WHOLE,
            )
        self.t.out.add("Identity", (sequence,), state.end, name=label, kind="WHILE")

    def _is_long(self, name: str, limit: int | str) -> bool:
        known = self.around.constant(name)
        if known is not None:
            return known.ndim == 3 and known.shape[0] == limit
        fill = self.around.node(name, "FILL")
        dims = self.around.node(fill.inputs[0], "Concat") if fill and fill.inputs else None
        first = self.around.node(dims.inputs[0], "Reshape") if dims and dims.inputs else None
        return first is not None and self.around.plain(first.inputs[0]) == limit
