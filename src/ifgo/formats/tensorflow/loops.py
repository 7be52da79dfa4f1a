"""While loops of a TensorFlow graph that run LSTM cells over time, as LSTM nodes.

tf.nn.dynamic_rnn lays a sequence (T, B, I) into a TensorArray, reads step t of it in the body, and
writes the outputs into another one. A state of the loop is what Merge takes from Enter first and
from NextIteration then; Switch hands it to the body, Exit gives the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.cell import LSTMCell
from ifgo.errors import IfgoError, UnsupportedError
from ifgo.formats._step import States, Step
from ifgo.formats.onnx.file import Node
from ifgo.formats.tensorflow.file import TFNode
from ifgo.formats.tensorflow.graph import Translation, sort
from ifgo.layers import Recurrent
from ifgo.text import quote

MAX_VARIABLES = 64
"""Most states of one loop that are tried in pairs."""


@dataclass
class _Variable:
    """One state of a loop: its first value, what a step is given, what it makes, the last one."""

    start: str
    given: str
    made: str
    end: str = ""


@dataclass
class _Loop:
    """One frame. limit: what the step number is compared with."""

    name: str
    variables: list[_Variable] = field(default_factory=list["_Variable"])


class Loops:
    """The loops of one translation. `nodes`: the graph with those that are LSTMs as nodes."""

    def __init__(
        self, t: Translation, constant: Callable[[list[Node], str], NDArray[Any] | None]
    ) -> None:
        self.t = t
        self.plain = sort(t.out.nodes)
        self.makers = {name: node for node in self.plain for name in node.outputs}
        self._constant = constant
        self._count = 0
        for loop in self._loops():
            try:
                self._layers(loop)
            except IfgoError as error:
                ends = tuple(v.end for v in loop.variables if v.end)
                outputs = (*ends, *self._gathered(loop, None))
                starts = tuple(v.start for v in loop.variables)
                t.out.refuse("LSTM", starts, outputs, error, self._name(), "While")
        inside = self._inside()
        self.nodes = tuple(
            replace(node, position=k)
            for k, node in enumerate(
                sort([n for n in t.out.nodes if not inside.intersection(n.outputs)])
            )
        )

    def _name(self) -> str:
        self._count += 1
        return f"lstm{self._count - 1}"

    def _of(self, op: str) -> list[TFNode]:
        return [node for node in self.t.nodes.values() if node.op == op]

    def _plain(self, name: str) -> str:
        for _ in range(64):
            node = self.makers.get(name)
            if node is None or node.op != "Identity":
                break
            name = node.inputs[0]
        return name

    def _loops(self) -> list[_Loop]:
        nodes, found = self.t.nodes, dict[str, _Loop]()
        switches = {node.inputs[0]: node for node in self._of("Switch") if len(node.inputs) == 2}
        exits = {node.inputs[0]: node for node in self._of("Exit") if node.inputs}
        for merge in self._of("Merge"):
            sources = [nodes.get(name) for name in merge.inputs]
            enter = next((n for n in sources if n is not None and n.op == "Enter"), None)
            step = next((n for n in sources if n is not None and n.op == "NextIteration"), None)
            switch = switches.get(merge.name)
            if (
                enter is None
                or step is None
                or switch is None
                or not (enter.inputs and step.inputs)
            ):
                continue
            stored = enter.attributes.get("frame_name")
            frame = "" if stored is None else stored.s.decode("utf-8", "replace")
            end = exits.get(switch.name)
            made = _Variable(
                enter.inputs[0],
                f"{switch.name}:1",
                step.inputs[0],
                "" if end is None else end.name,
            )
            found.setdefault(frame, _Loop(frame)).variables.append(made)
        return list(found.values())

    # -- layers -----------------------------------------------------------------------------

    def _layers(self, loop: _Loop) -> None:
        if len(loop.variables) > MAX_VARIABLES:
            raise UnsupportedError(
                f"loop {quote(loop.name)} has {len(loop.variables)} states",
                expected=f"at most {MAX_VARIABLES}",
            )
        x, sequence = self._sequence(loop)
        left = [v for v in loop.variables if not self._is_counter(v)]
        outputs: dict[str, str] = {}
        while True:
            found = self._next_cell(left, x)
            if found is None:
                break
            cell, h, c = found
            self._require_zero(h, cell.output_size)
            self._require_zero(c, cell.hidden_size)
            left = [v for v in left if v not in (h, c)]
            sequence = self._emit(loop, cell, h, c, sequence)
            x = h.made
            outputs[self._plain(h.made)] = sequence
        if not outputs:
            raise self._why(left, x, loop)
        for target in self._gathered(loop, outputs):
            self.t.out.add("Identity", (sequence,), target, name=target, kind="While")

    def _next_cell(
        self, left: list[_Variable], x: str
    ) -> tuple[LSTMCell, _Variable, _Variable] | None:
        for h in left:
            for c in left:
                if h is c:
                    continue
                try:
                    return self._step(h, c, x).cell(), h, c
                except IfgoError:
                    continue
        return None

    def _step(self, h: _Variable, c: _Variable, x: str) -> Step:
        states = States(x, h.given, c.given, h.made, c.made)
        return Step(self.makers, lambda name: self._constant(self.plain, name), states)

    def _why(self, left: list[_Variable], x: str, loop: _Loop) -> IfgoError:
        """The reason of the pair that is most like a cell: the one whose message names a node."""
        reasons: list[IfgoError] = []
        for h in left:
            for c in left:
                if h is not c:
                    try:
                        self._step(h, c, x).cell()
                    except IfgoError as error:
                        reasons.append(error)
        said = next((r for r in reasons if "without f·c" not in r.what and r.where), None)
        if said is not None:
            return said
        return UnsupportedError(
            f"loop {quote(loop.name)} runs no LSTM cell",
            expected="BasicLSTMCell or LSTMCell in tf.nn.dynamic_rnn without sequence_length",
        )

    def _emit(self, loop: _Loop, cell: LSTMCell, h: _Variable, c: _Variable, sequence: str) -> str:
        out = self.t.out
        name = self._name()
        y = out.add("LSTM", (sequence,), name=name, kind="While", layer=Recurrent("lstm", cell))
        if h.end:
            place = out.constant(np.int64(-1))
            out.add("Gather", (y, place), h.end, name=h.end, kind="Exit", axis=0)
        if c.end:
            error = UnsupportedError(
                f"the final cell state of loop {quote(loop.name)} is used",
                expected="its outputs or its final hidden state",
            )
            out.refuse("Exit", (y,), (c.end,), error, c.end, "Exit")
        return y

    def _is_counter(self, variable: _Variable) -> bool:
        node = self.makers.get(self._plain(variable.made))
        return (
            node is not None
            and node.op == "Add"
            and any(
                (known := self.t.known(name)) is not None and known.dtype.kind in "iu"
                for name in node.inputs
            )
        )

    def _sequence(self, loop: _Loop) -> tuple[str, str]:
        """(x of a step, the whole sequence that lies in its TensorArray)."""
        given = {v.given for v in loop.variables if self._is_counter(v)}
        reads = [
            node
            for node in self._of("TensorArrayReadV3")
            if len(node.inputs) == 3 and self._plain(node.inputs[1]) in given
        ]
        if len(reads) != 1:
            raise UnsupportedError(
                f"loop {quote(loop.name)} reads {len(reads)} sequences", expected="one"
            )
        (read,) = reads
        self._check_count(loop, read)
        scatter = self.t.nodes.get(self._plain(read.inputs[2]))
        if scatter is None or scatter.op != "TensorArrayScatterV3" or len(scatter.inputs) != 4:
            raise UnsupportedError(
                f"loop {quote(loop.name)} reads from something else than a whole sequence",
                expected="a sequence laid out by tf.nn.dynamic_rnn",
            )
        return read.name, scatter.inputs[2]

    def _check_count(self, loop: _Loop, read: TFNode) -> None:
        """The loop counts from 0 in ones as far as the sequence that it reads is long."""
        array = self.t.nodes.get(self._plain(read.inputs[0]))
        counters = [v for v in loop.variables if self._is_counter(v)]
        merges = {f"{v.given.removesuffix(':1')}": v for v in counters}
        limits = [
            self._plain(less.inputs[1])
            for less in self._of("Less")
            if len(less.inputs) == 2
            and any(
                (switch := self.t.nodes.get(name)) is not None
                and switch.inputs[:1] == less.inputs[:1]
                for name in merges
            )
        ]
        size = self._plain(array.inputs[0]) if array is not None and array.inputs else ""
        whole = array is not None and array.op == "TensorArrayV3" and bool(limits)
        if not whole or any(not self._same(limit, size) for limit in limits):
            raise UnsupportedError(
                f"loop {quote(loop.name)} does not run over the whole of its sequence",
                expected="tf.nn.dynamic_rnn without sequence_length",
            )
        for variable in counters:
            first, node = self.t.known(variable.start), self._maker(variable.made)
            step = [self.t.known(name) for name in (() if node is None else node.inputs)]
            ones = [s for s in step if s is not None and s.size == 1 and s.reshape(-1)[0] == 1]
            if first is None or first.any() or not ones:
                raise UnsupportedError(
                    f"loop {quote(loop.name)} does not count from 0 in ones",
                    expected="steps in order",
                )

    def _maker(self, name: str) -> Node | None:
        return self.makers.get(self._plain(name))

    def _same(self, one: str, two: str) -> bool:
        if one == two:
            return True
        left, right = self.t.known(one), self.t.known(two)
        return left is not None and right is not None and np.array_equal(left, right)

    def _require_zero(self, variable: _Variable, width: int) -> None:
        """The first value is zero, for whatever batch."""
        name = variable.start
        for _ in range(16):
            known = self.t.known(name)
            if known is not None and not known.any():
                return
            node = self.t.nodes.get(name)
            if node is None or node.op not in ("Identity", "Fill", "Tile", "ExpandDims"):
                break
            if not node.inputs:
                break
            name = node.inputs[1 if node.op == "Fill" and len(node.inputs) == 2 else 0]
        raise UnsupportedError(
            f"the loop starts with state {quote(variable.start)} of {width} units",
            expected="zeros",
        )

    def _gathered(self, loop: _Loop, outputs: dict[str, str] | None) -> list[str]:
        """The nodes that read the outputs of the last layer, those of any value where None."""
        found: list[str] = []
        exits = {v.end: v for v in loop.variables if v.end}
        for gather in self._of("TensorArrayGatherV3"):
            variable = exits.get(self._plain(gather.inputs[-1])) if gather.inputs else None
            if variable is None:
                continue
            write = self.t.nodes.get(self._plain(variable.made))
            if write is None or write.op != "TensorArrayWriteV3" or len(write.inputs) != 4:
                continue
            if outputs is None or self._plain(write.inputs[2]) == list(outputs)[-1]:
                found.append(gather.name)
        return found

    def _inside(self) -> set[str]:
        """What is computed from what a step is given."""
        found = {v.given for loop in self._loops() for v in loop.variables}
        found |= {node.name for node in self._of("TensorArrayReadV3")}
        found |= {node.name for node in self._of("Merge")}
        made: set[str] = set()
        for node in self.plain:
            if any(name in found or name in made for name in node.inputs):
                made.update(node.outputs)
        return made
