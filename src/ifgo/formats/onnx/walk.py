"""The symbolic walk: every node that an output depends on is folded, moved, or made a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats.onnx.arguments import Arguments, Budget
from ifgo.formats.onnx.chain import NO_BRANCHES, Chain, Kind
from ifgo.formats.onnx.file import Graph, GraphInput, Node, printable, quoted
from ifgo.formats.onnx.fold import FOLDS, MOVES
from ifgo.formats.onnx.layers import LAYERS
from ifgo.formats.onnx.lstm import recurrent
from ifgo.formats.onnx.reduce import REDUCTIONS
from ifgo.formats.onnx.value import Value, constant, is_real

SELECT_HINT = (
    "Take the LSTM layers alone with --select NAME (select= in Python), see ifgo inspect --lstms"
)

CONSTANTS = FOLDS | REDUCTIONS
"""Operators on constants alone."""

_STATE_COPIES = 4
"""Arrays of element ids that are made of a state on its way into a layer."""


class Walk:
    """One pass over a graph. After `run`, `values` holds every output and `chain` the layers.

    hint: what to do where an operator beside the LSTM nodes has no place in a chain.
    """

    def __init__(
        self, graph: Graph, bound: Mapping[str, NDArray[Any]], hint: str = SELECT_HINT
    ) -> None:
        self.graph = graph
        self.hint = hint
        self.chain = Chain()
        self.values: dict[str, Value] = {}
        self._budget = Budget()
        self._bound = bound
        self._makers: dict[str, Node] = {}

    def run(self) -> None:
        """Walk. Raises IfgoErrors that name the node."""
        needed = self._needed()
        if left := len(self.graph.nodes) - len(needed):
            self.chain.notes.append(f"left out {left} nodes that no output depends on")
        for node in needed:
            if node.op == "LSTM" and node.refusal is not None:
                raise node.refusal
        self._enter(needed)
        for node in needed:
            self._located_visit(node)

    def fold(self, name: str) -> NDArray[Any] | None:
        """The constant called `name`, None where it depends on an input that is not bound.

        Raises IfgoErrors that name the node where constants meet an operator that does not fold.
        """
        for given, array in self._bound.items():
            if given not in self.values:
                self._bind(given, array)
        if not self._makers:
            self._makers |= {out: node for node in self.graph.nodes for out in node.outputs if out}
        wanted, needed = [name], dict[int, Node]()
        while wanted:
            source = wanted.pop()
            if not source or source in self.values or self.graph.is_constant(source):
                continue
            node = self._makers.get(source)
            if node is None or node.op == "LSTM":
                return None
            if node.position not in needed:
                needed[node.position] = node
                wanted.extend(node.inputs)
        for position in sorted(needed):
            self._located_visit(needed[position])
        found = self._value(name)
        return None if any(found.axes) or found.data.dtype.kind == "O" else found.data

    def _located_visit(self, node: Node) -> None:
        if node.refusal is not None:
            raise node.refusal
        try:
            self._visit(node)
        except IfgoError as error:
            branches = error.hint == NO_BRANCHES or self._is_beside(node)
            if branches and isinstance(error, UnsupportedError):
                error = with_hint(error, self.hint)
            named = error.where is not None and node.where in error.where
            raise (error if named else error.located(node.where)) from None

    def _is_beside(self, node: Node) -> bool:
        """Whether a node is no LSTM and works on what an input gives."""
        given = (self.values.get(name) for name in node.inputs)
        return node.op != "LSTM" and any(value is not None and value.signal for value in given)

    # -- inputs -----------------------------------------------------------------------------

    def _needed(self) -> list[Node]:
        makers: dict[str, Node] = {}
        for node in self.graph.nodes:
            for name in filter(None, node.outputs):
                if name in makers or name in self.graph.inputs or self.graph.is_constant(name):
                    raise FormatError(
                        f"makes {quoted(name)} a second time",
                        where=node.where,
                        expected="unique names",
                    )
                makers[name] = node
        wanted, seen = list(self.graph.outputs), set[int]()
        while wanted:
            node = makers.get(wanted.pop())
            if node is not None and node.position not in seen:
                seen.add(node.position)
                wanted.extend(filter(None, node.inputs))
        needed = [node for node in self.graph.nodes if node.position in seen]
        for node in needed:
            _require_standard(node)
        if not any(node.op == "LSTM" for node in needed):
            raise UnsupportedError(
                "has no LSTM node that its outputs depend on", expected="a model around LSTM nodes"
            )
        return needed

    def _uses(self, needed: list[Node]) -> dict[str, set[str]]:
        """Graph input → what LSTM nodes take it for: X, state, lengths or weights."""
        makers = {name: node for node in needed for name in node.outputs}
        slots = ("X", "weights", "weights", "weights", "lengths", "state", "state", "weights")
        uses: dict[str, set[str]] = {name: set() for name in self.graph.inputs}
        for role in ("X", "weights", "lengths", "state"):
            wanted = [
                name
                for node in needed
                if node.op == "LSTM"
                for name, slot in zip(node.inputs, slots, strict=False)
                if slot == role
            ]
            seen: set[str] = set()
            while wanted:
                name = wanted.pop()
                if name in seen:
                    continue
                seen.add(name)
                if name in uses:
                    uses[name].add(role)
                maker = makers.get(name)
                if maker is not None and maker.op not in ("LSTM", "Shape", "Size"):
                    wanted.extend(maker.inputs)
        return uses

    def _enter(self, needed: list[Node]) -> None:
        for name, array in self._bound.items():
            self._bind(name, array)
        uses = self._uses(needed)
        read = {name for node in needed for name in node.inputs} | set(self.graph.outputs)
        free = [name for name in self.graph.inputs if name not in self.values]
        main = [name for name in free if "X" in uses[name]]
        unbound = [name for name in free if "weights" in uses[name] or not uses[name]]
        unbound = [name for name in unbound if name in read]
        if unbound or len(main) > 1:
            what = "weights" if unbound else "the sequence"
            raise UnsupportedError(
                f"takes {what} from the inputs {', '.join(map(quoted, (unbound or main)[:8]))}",
                expected="weights in the file and one input for the sequence",
                hint="Bind inputs that are constants with --bind FILE.npz (bind= in Python)",
            )
        if not main:
            raise UnsupportedError("has no input for the sequence", expected="one")
        for name in free:
            if name not in read:
                self.chain.notes.append(f"left out input {printable(name, 80)}, nothing reads it")
                continue
            roles = uses[name]
            entry = self.graph.inputs[name]
            kind: Kind = "entry" if is_real(entry.dtype) else "tokens"
            if roles != {"X"}:
                kind = "lengths" if roles == {"lengths"} else "given state"
            if len(roles) != 1:
                raise UnsupportedError(
                    f"uses input {quoted(name)} as {' and as '.join(sorted(roles))}",
                    expected="one use of each input",
                    hint="With --select NAME (select= in Python) the LSTM layers are read alone, "
                    "and what the graph computes for them becomes an input",
                )
            if kind == "given state":
                self._enter_state(entry)
            self.values[name] = self.chain.enter(entry, kind)

    def _bind(self, name: str, array: NDArray[Any]) -> None:
        entry = self.graph.inputs.get(name)
        if entry is None:
            known = ", ".join([quoted(given) for given in self.graph.inputs][:8])
            raise UsageError(f"bind names {quoted(name)}", expected=f"one of the inputs {known}")
        if array.dtype != entry.dtype:
            raise UsageError(
                f"bind gives {quoted(name)} as {array.dtype.name}", expected=entry.dtype.name
            )
        shape = entry.shape
        if shape is not None and (
            array.ndim != len(shape)
            or any(isinstance(n, int) and n != m for n, m in zip(shape, array.shape, strict=True))
        ):
            raise UsageError(
                f"bind gives {quoted(name)} with shape {array.shape}",
                expected="("
                + ", ".join(str(n) if isinstance(n, int) else "?" for n in shape)
                + ")",
            )
        self.values[name] = constant(array, name)
        self._budget.grow(array)

    # -- nodes ------------------------------------------------------------------------------

    def _visit(self, node: Node) -> None:
        _require_standard(node)
        inputs = [self._value(name) if name else None for name in node.inputs]
        a = Arguments(node, inputs, self.graph.opset, self._budget)
        signal = any(value.signal for value in inputs if value is not None)
        if signal and (node.op == "LSTM" or node.op in LAYERS):
            self._keep(inputs)
        if node.op == "LSTM":
            results = recurrent(self.chain, a)
        elif signal and node.op in LAYERS:
            results = LAYERS[node.op](self.chain, a)
        elif node.op in MOVES:
            results = MOVES[node.op](a)
        elif node.op in CONSTANTS:
            results = CONSTANTS[node.op](a)
        elif node.op in LAYERS:
            raise UnsupportedError(
                f"is a {node.op} of constants", expected="a value that depends on an input"
            )
        else:
            raise UnsupportedError(
                f"is {'an' if node.op[:1] in 'AEIO' else 'a'} {printable(node.op, 40)}",
                expected="only the operators of an LSTM chain: LSTM, MatMul, Gemm, Add, Mul, "
                "activations, Gather of an embedding, and moves of whole axes",
                hint=self.hint,
            )
        a.finish()
        if any(node.outputs[len(results) :]):
            raise UnsupportedError(
                f"gives {len(node.outputs)} outputs", expected=f"only the first {len(results)}"
            )
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                self.values[name] = replace(value, name=name)

    def _value(self, name: str) -> Value:
        found = self.values.get(name)
        if found is None:
            if not self.graph.is_constant(name):
                raise FormatError(
                    f"takes {quoted(name)}, which no node before it makes",
                    expected="nodes in the order of their computation",
                )
            found = self.values[name] = constant(self.graph.constant(name), name)
            self._budget.grow(found.data)
        return found

    def output(self, name: str) -> Value:
        """What a graph output holds."""
        return self._value(name)

    def _enter_state(self, entry: GraphInput) -> None:
        """A state's elements are followed one by one, also those of a batch that the file fixes."""
        sizes = [size for size in entry.shape or () if isinstance(size, int)]
        try:
            self._budget.spend(_STATE_COPIES * math.prod(sizes), np.dtype(np.int64))
        except FormatError:
            raise UnsupportedError(
                f"input {quoted(entry.name)} fixes {math.prod(sizes)} states",
                expected="about as many as the weights are for",
                hint="Export the model with an open batch",
            ) from None

    def _keep(self, inputs: Sequence[Value | None]) -> None:
        """A layer keeps a copy of its weights."""
        for value in inputs:
            if value is not None and not value.signal:
                self._budget.spend(value.data.size, value.data.dtype)


def with_hint(error: UnsupportedError, hint: str) -> UnsupportedError:
    """`error` that also says `hint`, once."""
    said = error.hint or ""
    if hint in said or "--select" in said:
        return error
    both = f"{said}. {hint}" if said else hint
    return UnsupportedError(error.what, where=error.where, expected=error.expected, hint=both)


_FUNCTIONS: Final = "Export it without functions or contributed operators"
_CONTRIBUTED: Final = {
    "DynamicQuantizeLSTM": "Its weights are integers: give the model before quantize_dynamic",
    "AttnLSTM": "Its attention is no part of an LSTM layer: export a model of standard operators",
}
"""Operators of ONNX Runtime that hold an LSTM → what to do instead."""


def _require_standard(node: Node) -> None:
    if node.domain:
        raise UnsupportedError(
            f"is a {printable(node.op.removeprefix(f'{node.domain}.'), 40)} of domain "
            f"{quoted(node.domain)}",
            where=node.where,
            expected="standard ONNX operators only",
            hint=_CONTRIBUTED.get(node.op.rpartition(".")[2], _FUNCTIONS),
        )
