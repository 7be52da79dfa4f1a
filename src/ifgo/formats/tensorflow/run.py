"""One while loop that runs LSTM cells: its cells, its steps, and what takes its results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ifgo.cell import LSTMCell
from ifgo.errors import IfgoError, UnsupportedError
from ifgo.formats._step import States, Step
from ifgo.formats.onnx.file import Node
from ifgo.formats.tensorflow.extent import Extent
from ifgo.formats.tensorflow.file import TFNode
from ifgo.formats.tensorflow.functions import Loop, Variable
from ifgo.formats.tensorflow.turned import Use, straight, uses
from ifgo.layers import Recurrent
from ifgo.text import quote

if TYPE_CHECKING:
    from ifgo.formats.tensorflow.loops import Loops

MAX_VARIABLES: Final = 64
"""Most states of one loop that are tried in pairs."""

READS: Final = ("TensorArrayReadV3", "TensorListGetItem")


class Run:
    """One loop."""

    def __init__(self, loops: Loops, loop: Loop) -> None:
        self.all = loops
        self.t = loops.t
        self.loop = loop
        self.counters = [v for v in loop.variables if self._is_counter(v)]
        self.lengths: dict[str, str] = {}  # what a step makes → the lengths beyond which it is kept
        self.outputs: dict[str, str] = {}  # h of a step → the whole sequence of them
        self.last: dict[str, str] = {}  # h of a step → the last of them
        self.flipped = False
        self.within = ""  # the lengths within which sequences are turned
        self.turned: list[TFNode] = []  # what takes the last of outputs that are turned back
        self.steps: Extent = 0
        self.exact: str = ""

    def layers(self) -> None:
        """An LSTM node for each cell, and the nodes that take its results."""
        loop = self.loop
        if len(loop.variables) > MAX_VARIABLES:
            raise UnsupportedError(
                f"loop {quote(loop.name)} has {len(loop.variables)} states",
                expected=f"at most {MAX_VARIABLES}",
            )
        left = [self._kept(v) for v in loop.variables if v not in self.counters]
        x, sequence = self._sequence()
        while True:
            found = self._next_cell(left, x)
            if found is None:
                break
            cell, h, c = found
            left = [v for v in left if v not in (h, c)]
            sequence = self._emit(cell, h, c, sequence)
            x = h.made
            self.outputs[self._plain(h.made)] = sequence
        if not self.outputs:
            raise self._why(left, x)
        for gather in self.all.gathers(loop):
            self._gathered(gather)

    def _plain(self, name: str) -> str:
        return self.all.followed(name)

    def _maker(self, name: str) -> Node | None:
        return self.all.makers.get(self._plain(name))

    # -- cells --------------------------------------------------------------------------------

    def _next_cell(
        self, left: list[Variable], x: str
    ) -> tuple[LSTMCell, Variable, Variable] | None:
        for h in left:
            for c in left:
                if h is c:
                    continue
                try:
                    return self._step(h, c, x).cell(), h, c
                except IfgoError:
                    continue
        return None

    def _step(self, h: Variable, c: Variable, x: str) -> Step:
        states = States(x, h.given, c.given, h.made, c.made)
        return Step(self.all.makers, self.all.constant, states)

    def _why(self, left: list[Variable], x: str) -> IfgoError:
        """The reason of the pair that is most like a cell: the one whose message names a node."""
        masked = [v for v in left if (n := self._maker(v.made)) is not None and n.op == "Where"]
        if masked:
            return UnsupportedError(
                f"loop {quote(self.loop.name)} leaves out steps by a mask that it computes",
                where=f"node {quote(self._plain(masked[0].made))}",
                expected="every step, or sequence_length of tf.nn.dynamic_rnn",
                hint="Save the Keras model as .keras or .h5, whose masks are read",
            )
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
            f"loop {quote(self.loop.name)} runs no LSTM cell",
            expected="BasicLSTMCell or LSTMCell in tf.nn.dynamic_rnn, or a Keras LSTM",
        )

    def _emit(self, cell: LSTMCell, h: Variable, c: Variable, sequence: str) -> str:
        out = self.t.out
        lengths = self.lengths.get(h.made, "")
        if lengths != self.lengths.get(c.made, ""):
            raise UnsupportedError(
                f"loop {quote(self.loop.name)} keeps h and c beyond different lengths",
                expected="one sequence_length",
            )
        if self.flipped and lengths != self.within:
            raise UnsupportedError(
                f"loop {quote(self.loop.name)} has lengths, but turns whole sequences"
                if not self.within
                else f"loop {quote(self.loop.name)} turns sequences by ReverseSequence within "
                "other lengths than its own",
                expected="tf.reverse_sequence within the sequence_length of the loop",
            )
        if self.flipped and self.outputs:
            raise UnsupportedError(
                f"loop {quote(self.loop.name)} runs two cells from the last step to the first",
                expected="one cell in such a loop",
            )
        starts = [self._start(h, cell.output_size), self._start(c, cell.hidden_size)]
        inputs = (sequence, "", "", "", lengths or self.exact, *starts)
        layer = Recurrent("lstm", cell)
        if self.flipped:
            turned = self._is_turned_back()
            layer = Recurrent("lstm", None, cell) if turned else replace(layer, go_backwards=True)
        y, last = out.fresh("LSTM"), h.end or out.fresh("h")
        results = (y, last, c.end or out.fresh("c"))
        out.add("LSTM", inputs, results, name=self.all.name(), kind="While", layer=layer)
        self.last[self._plain(h.made)] = last
        return y

    def _is_turned_back(self) -> bool:
        """Whether all outputs are used in the order of time: turned again, as Bidirectional does.

        What turns them is then an Identity, and what takes the last of them the last state.
        """
        found: list[tuple[Use, TFNode]] = []
        for gather in self.all.gathers(self.loop):
            variable = self._variable_of(gather)
            if self._size(variable, gather.op == "TensorListStack") == self.steps:
                found += uses(self.all, gather.name, self.within)
        turns = [node for use, node in found if use == "turn"]
        in_order = any(use == "order" for use, _ in found)
        if self.within and any(use != "turn" for use, _ in found):
            raise UnsupportedError(
                f"loop {quote(self.loop.name)} turns sequences by ReverseSequence, and its outputs "
                "are used before they are turned back",
                expected="outputs turned back by ReverseSequence within the same lengths, as "
                "tf.nn.bidirectional_dynamic_rnn does",
            )
        if in_order:
            return False
        for node in turns:
            self.all.replace(node, node.inputs[0])
            self.all.turned_back.add(node.name)
        self.turned = [node for use, node in found if use == "last"] if turns else []
        return True

    def _start(self, variable: Variable, width: int) -> str:
        """The first value as (1, B, width), "" where it is zero for whatever batch."""
        name = variable.start
        for _ in range(16):
            known = self.t.known(name)
            if known is not None and not known.any():
                return ""
            node = self.t.nodes.get(name)
            if node is None or node.op not in ("Identity", "Fill", "Tile", "ExpandDims"):
                break
            if not node.inputs:
                break
            name = node.inputs[1 if node.op == "Fill" and len(node.inputs) == 2 else 0]
        node = self.t.nodes.get(self._plain(variable.start))
        if node is not None and node.op == "Placeholder":
            out = self.t.out
            place = out.integers(0)
            return out.add("Unsqueeze", (variable.start, place), name=node.name, kind="Enter")
        raise UnsupportedError(
            f"the loop starts with state {quote(variable.start)} of {width} units",
            expected="zeros, or an input of the graph",
        )

    # -- lengths ------------------------------------------------------------------------------

    def _kept(self, variable: Variable) -> Variable:
        """The variable without the choice that keeps it beyond its length."""
        found = self._chosen(variable.made)
        if found is None or self._plain(found[0]) != self._plain(variable.given):
            return variable
        made = self._plain(found[1])
        self.lengths[made] = found[2]
        return replace(variable, made=made)

    def _chosen(self, name: str) -> tuple[str, str, str] | None:
        """(beyond, within, lengths) of Where(t >= lengths, beyond, within)."""
        node = self._maker(name)
        if node is None or node.op != "Where":
            return None
        asked = self._maker(node.inputs[0])
        given = {self._plain(v.given) for v in self.counters}
        if asked is None or asked.op != "GreaterOrEqual":
            return None
        if self._plain(asked.inputs[0]) not in given:
            return None
        return node.inputs[1], node.inputs[2], self._plain(asked.inputs[1])

    # -- steps --------------------------------------------------------------------------------

    def _is_counter(self, variable: Variable) -> bool:
        node = self._maker(variable.made)
        return (
            node is not None
            and node.op == "Add"
            and any(
                (known := self.t.known(self._plain(name))) is not None and known.dtype.kind in "iu"
                for name in node.inputs
            )
        )

    def _sequence(self) -> tuple[str, str]:
        """(x of a step, the whole sequence that lies in its array)."""
        given = {self._plain(v.given) for v in self.counters}
        reads = [
            node
            for node in self.all.of(*READS)
            if len(node.inputs) == 3 and self._plain(node.inputs[1]) in given
        ]
        if len(reads) != 1:
            raise UnsupportedError(
                f"loop {quote(self.loop.name)} reads {len(reads)} sequences", expected="one"
            )
        (read,) = reads
        self.all.claim(read.name)
        listed = read.op == "TensorListGetItem"
        source = self.t.nodes.get(self._plain(read.inputs[0 if listed else 2]))
        wanted = ("TensorListFromTensor", 2) if listed else ("TensorArrayScatterV3", 4)
        if source is None or (source.op, len(source.inputs)) != wanted:
            raise UnsupportedError(
                f"loop {quote(self.loop.name)} reads from something else than a whole sequence",
                expected="a sequence laid out by tf.nn.dynamic_rnn or Keras",
            )
        sequence = source.inputs[0 if listed else 2]
        if listed:
            self._check_count(self.all.extents.along(sequence, 0))
        else:
            array = self.t.nodes.get(self._plain(read.inputs[0]))
            sized = array is not None and array.op == "TensorArrayV3" and bool(array.inputs)
            size = self.all.extents.number(array.inputs[0]) if array and sized else None
            self._check_count(size if size == self._ordered(source.inputs[1]) else None)
        turned = straight(self.all, sequence)
        if turned is None:
            return read.name, sequence
        self.flipped = True
        sequence, self.within = turned
        return read.name, sequence

    def _ordered(self, name: str) -> Extent | None:
        """n where `name` is 0, 1, ..., n - 1."""
        node = self.t.nodes.get(self._plain(name))
        if node is None or node.op != "Range" or len(node.inputs) != 3:
            return None
        first, stop, step = (self.all.extents.number(source) for source in node.inputs)
        return stop if (first, step) == (0, 1) else None

    def _check_count(self, size: Extent | None) -> None:
        """The loop counts from 0 in ones as far as the sequence that it reads is long."""
        limits = self._limits(self.loop.condition)
        found = {self._limit(limit) for limit in limits}
        if size is not None and found == {size}:
            self.steps = size
        elif len(found) == 1 and isinstance(size, tuple) and self._is_open(size, *found):
            # whether the sequence has that many steps is what the walk finds out
            (self.steps,) = found
            self.exact = self.t.out.integers(int(str(self.steps)))
        else:
            raise UnsupportedError(
                f"loop {quote(self.loop.name)} does not run over the whole of its sequence",
                expected="every step once, as tf.nn.dynamic_rnn and Keras run",
            )
        for variable in self.loop.variables:
            if variable.end:
                self.all.extents.stacked[variable.end] = self.steps
        for variable in self.counters:
            first, node = self.t.known(self._plain(variable.start)), self._maker(variable.made)
            inputs = () if node is None else node.inputs
            step = [self.t.known(self._plain(name)) for name in inputs]
            ones = [s for s in step if s is not None and s.size == 1 and s.reshape(-1)[0] == 1]
            own = any(self._plain(name) == self._plain(variable.given) for name in inputs)
            if first is None or first.any() or not ones or not own:
                raise UnsupportedError(
                    f"loop {quote(self.loop.name)} does not count from 0 in ones",
                    expected="steps in order",
                )

    def _is_open(self, size: tuple[str, int], limit: Extent) -> bool:
        """Whether a fixed number of steps may be the length of what another operator makes."""
        node = self.t.nodes.get(size[0])
        return isinstance(limit, int) and node is not None and node.op != "Placeholder"

    def _limit(self, name: str) -> Extent:
        """A limit of the loop; the longest of the lengths bounds it without changing a result."""
        node = self.t.nodes.get(self._plain(name))
        if node is not None and node.op == "Minimum" and len(node.inputs) == 2:
            for one, two in (node.inputs, node.inputs[::-1]):
                if self._is_longest(two):
                    return self.all.extents.number(one)
        return self.all.extents.number(name)

    def _is_longest(self, name: str) -> bool:
        """max(1, max(lengths))."""
        node = self.t.nodes.get(self._plain(name))
        if node is None or node.op != "Maximum" or len(node.inputs) != 2:
            return False
        for one, two in (node.inputs, node.inputs[::-1]):
            most = self.t.nodes.get(self._plain(two))
            if self.all.extents.number(one) == 1 and most is not None and most.op == "Max":
                return bool(most.inputs) and self._plain(most.inputs[0]) in self.lengths.values()
        return False

    def _limits(self, name: str) -> list[str]:
        """What counters are compared with; [] where the condition asks for anything else."""
        node = self._maker(name)
        tested = {self._plain(v.tested) for v in self.counters}
        if node is not None and node.op == "And":
            parts = [self._limits(source) for source in node.inputs[:2]]
            return parts[0] + parts[1] if all(parts) else []
        if node is not None and node.op == "Less" and self._plain(node.inputs[0]) in tested:
            return [node.inputs[1]]
        return []

    # -- results ------------------------------------------------------------------------------

    def _gathered(self, gather: TFNode) -> None:
        """All outputs of a layer, or its last one where each step writes over that before it."""
        listed = gather.op == "TensorListStack"
        variable = self._variable_of(gather)
        write = self.t.nodes.get(self._plain(variable.made))
        wanted = ("TensorListSetItem", 3) if listed else ("TensorArrayWriteV3", 4)
        if write is None or (write.op, len(write.inputs)) != wanted:
            return
        value, flow = write.inputs[2], write.inputs[0 if listed else 3]
        chosen = self._chosen(value)
        if chosen is not None and self._is_zero(chosen[0]):
            value = chosen[1]
        sequence = self.outputs.get(self._plain(value))
        cut = self.lengths.get(self._plain(value), "")
        if sequence is None or cut != ("" if chosen is None else chosen[2]):
            return
        if self._plain(flow) != self._plain(variable.given):
            return
        size = self._size(variable, listed)
        if not listed and self._ordered(gather.inputs[1]) != size:
            return
        index, out = self._plain(write.inputs[1]), self.t.out
        if index in {self._plain(v.given) for v in self.counters}:
            if size != self.steps:
                return
            out.add("Identity", (sequence,), gather.name, name=gather.name, kind="While")
            for node in self.turned:
                self.all.replace(node, self.last[self._plain(value)])
        elif size == 1 and self.all.extents.number(index) == 0 and not cut:
            place, last = out.integers(0), self.last[self._plain(value)]
            out.add("Unsqueeze", (last, place), gather.name, name=gather.name, kind="While")
        else:
            return
        self.all.claim(gather.name)

    def _variable_of(self, gather: TFNode) -> Variable:
        end = self._plain(list_of(gather))
        return next(v for v in self.loop.variables if v.end == end)

    def _size(self, variable: Variable, listed: bool) -> Extent | None:
        """How many results the array is for."""
        made = self.t.nodes.get(self._plain(variable.start).removesuffix(":1"))
        op, position = ("TensorListReserve", 1) if listed else ("TensorArrayV3", 0)
        if made is None or made.op != op or len(made.inputs) <= position:
            return None
        return self.all.extents.number(made.inputs[position])

    def _is_zero(self, name: str) -> bool:
        known = self.t.known(self._plain(name))
        node = self.t.nodes.get(self._plain(name))
        if known is None and node is not None and node.op == "Fill" and len(node.inputs) == 2:
            known = self.t.known(node.inputs[1])
        return known is not None and not known.any()


def list_of(node: TFNode) -> str:
    """The array of a node that takes all of it."""
    return node.inputs[0] if node.op == "TensorListStack" else node.inputs[-1]
