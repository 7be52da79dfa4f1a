"""While loops of a TensorFlow graph that run LSTM cells over time, as LSTM nodes.

A loop takes step t of a sequence (T, B, I) that lies in a TensorArray or a TensorList, and lays the
outputs into another one. Where tf.nn.dynamic_rnn has lengths, a step beyond them keeps the state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from numpy.typing import NDArray

from ifgo.errors import IfgoError, UnsupportedError
from ifgo.formats.onnx.file import Node
from ifgo.formats.tensorflow.extent import Extents
from ifgo.formats.tensorflow.file import TFNode
from ifgo.formats.tensorflow.functions import Loop
from ifgo.formats.tensorflow.graph import Translation, sort
from ifgo.formats.tensorflow.run import READS, Run, list_of

GATHERS: Final = ("TensorArrayGatherV3", "TensorListStack")


class Loops:
    """The loops of one translation. `nodes`: the graph with those that are LSTMs as nodes."""

    def __init__(
        self,
        t: Translation,
        loops: list[Loop],
        constant: Callable[[list[Node], str], NDArray[Any] | None],
    ) -> None:
        self.t = t
        self.loops = loops
        self.plain = sort(t.out.nodes)
        self.makers = {name: node for node in self.plain for name in node.outputs}
        self.extents = Extents(t, self.makers)
        self._constant = constant
        self._count = 0
        self._by_op: dict[str, list[TFNode]] = {}
        for node in t.nodes.values():
            self._by_op.setdefault(node.op, []).append(node)
        self._stacked: set[str] = set()
        self.turned_back: set[str] = set()  # what turns outputs back, now an Identity
        self.read_turned: set[str] = set()  # what turns the sequence of a loop
        self._users: dict[str, list[TFNode]] = {}
        for loop in loops:
            try:
                Run(self, loop).layers()
            except IfgoError as error:
                ends = tuple(v.end for v in loop.variables if v.end)
                outputs = (*ends, *(g.name for g in self.gathers(loop)))
                starts = tuple(v.start for v in loop.variables)
                self._stacked.update(outputs)
                nodes = t.out.nodes
                nodes[:] = [n for n in nodes if not set(outputs).intersection(n.outputs)]
                t.out.refuse("LSTM", starts, outputs, error, self.name(), "While")
        inside = self._inside()
        self._refuse_arrays(inside)
        left = [node for node in t.out.nodes if not inside.intersection(node.outputs)]
        ready = sort([replace(node, position=k) for k, node in enumerate(left)])
        self.nodes = tuple(replace(node, position=k) for k, node in enumerate(ready))

    def name(self) -> str:
        """The name of the next layer."""
        self._count += 1
        return f"lstm{self._count - 1}"

    def of(self, *ops: str) -> list[TFNode]:
        """The nodes with these operators."""
        return [node for op in ops for node in self._by_op.get(op, [])]

    def constant(self, name: str) -> NDArray[Any] | None:
        """The array that `name` is known to be, whatever the input is."""
        return self._constant(self.plain, name)

    def _plain(self, name: str) -> str:
        for _ in range(64):
            node = self.makers.get(name)
            if node is None or node.op != "Identity" or not node.inputs:
                break
            name = node.inputs[0]
        return name

    def followed(self, name: str) -> str:
        """`name` without the nodes that change nothing."""
        return self._plain(name)

    def gathers(self, loop: Loop) -> list[TFNode]:
        """The nodes that take all that the loop has laid into an array."""
        ends = {v.end for v in loop.variables if v.end}
        return [
            node for node in self.of(*GATHERS) if node.inputs and self._plain(list_of(node)) in ends
        ]

    def users(self, name: str) -> list[TFNode]:
        """The nodes that take `name`."""
        if not self._users:
            for node in self.t.nodes.values():
                for source in set(node.inputs):
                    self._users.setdefault(source, []).append(node)
        return self._users.get(name, [])

    def replace(self, node: TFNode, source: str) -> None:
        """The node hands on `source`, whatever it was."""
        out = self.t.out
        out.nodes[:] = [n for n in out.nodes if n.outputs != (node.name,)]
        out.add("Identity", (source,), node.name, name=node.name, kind=node.op)

    def claim(self, name: str) -> None:
        """The node is read."""
        self._stacked.add(name)

    def _inside(self) -> set[str]:
        """What is computed from what a step is given."""
        found = {v.given for loop in self.loops for v in loop.variables}
        found |= {v.tested for loop in self.loops for v in loop.variables}
        found |= {node.name for node in self.of(*READS)}
        found |= {node.name for node in self.of("Merge")}
        made: set[str] = set()
        for node in self.plain:
            if any(name in found or name in made for name in node.inputs):
                made.update(node.outputs)
        return made

    def _refuse_arrays(self, inside: set[str]) -> None:
        """What is taken from an array in another way is no sequence of steps."""
        for node in self.of(*GATHERS, "TensorListSetItem", *READS):
            if node.name in self._stacked or node.name in inside:
                continue
            error = UnsupportedError(
                f"takes from an array of steps what no loop of LSTM cells lays there ({node.op})",
                where=node.where,
                expected="all outputs of a loop of LSTM cells",
            )
            self.t.out.refuse("refused", (), (node.name,), error, node.name, node.op)
