"""One step of an LSTM, written out in primitive operators, recognised as an LSTMCell.

A loop body computes h and c of the next step from x, h and c. Pre-activations are followed as sums
of matrices on those three and constants; what is no such sum is refused with its node, never
guessed. Gates are known by what they do, not by their order in a matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import RELU, SIGMOID, TANH, Activation
from ifgo.cell import LSTMCell
from ifgo.errors import UnsupportedError
from ifgo.formats.onnx.file import Node, quoted

Array = NDArray[Any]

MAX_DEPTH: Final = 64
"""Longest way from a gate to its matrices; the frameworks write 6 operators."""

ACTIVATIONS: Final = {"Sigmoid": SIGMOID, "Tanh": TANH, "Relu": RELU}


@dataclass(frozen=True)
class Sum:
    """Σ matrix·source + Σ diagonal·source + Σ constants, one row per unit.

    matrices: (source, (K, width)); diagonals: (source, (K,)); biases (K,) and single numbers in the
    order in which they are added.
    """

    matrices: tuple[tuple[str, Array], ...] = ()
    diagonals: tuple[tuple[str, Array], ...] = ()
    biases: tuple[Array, ...] = ()
    numbers: tuple[float, ...] = ()

    @property
    def units(self) -> int:
        """K."""
        return self.matrices[0][1].shape[0] if self.matrices else 0

    def rows(self, start: int, stop: int) -> Sum:
        """Some of the units."""
        cut = slice(start, stop)
        return Sum(
            tuple((source, matrix[cut]) for source, matrix in self.matrices),
            tuple((source, vector[cut]) for source, vector in self.diagonals),
            tuple(bias[cut] for bias in self.biases),
            self.numbers,
        )


@dataclass(frozen=True)
class States:
    """Names of what a step is given, x, h and c, and of what it makes of them."""

    x: str
    h: str
    c: str
    next_h: str
    next_c: str


@dataclass
class Step:
    """The nodes around one step. constant: the array that a name is known to be, or None."""

    makers: dict[str, Node]
    constant: Callable[[str], Array | None]
    states: States
    _sums: dict[str, Sum | tuple[str, ...]] = field(
        default_factory=dict[str, "Sum | tuple[str, ...]"]
    )
    _width: int | None = None
    _depth: int = 0

    def cell(self) -> LSTMCell:
        """The cell. Raises UnsupportedError naming the node that is no part of one."""
        s = self.states
        top, projection, clip_projection = self._projected(s.next_h)
        shown, gate = self._output(top)
        clipped, clip_cell = self._clipped(s.next_c)
        kept, added = self._halves(clipped)
        activation = self._activation(gate)
        entering, candidate = self._entering(added, activation)
        activations = (activation, self._activation(candidate), self._activation(shown))
        coupling, kept, entering = self._coupling(kept, entering)
        gates = {"i": entering, "f": kept, "g": candidate, "o": gate}
        if self._activation(kept) != activation or self._activation(entering) != activation:
            raise self._refused(gate, "gates with different activations")
        if projection is not None:
            self._width = projection.shape[0]
        sums = {letter: self._pre_activation(name) for letter, name in gates.items()}
        return self._assembled(
            sums,
            activations=activations,
            weight_hr=projection,
            clip_projection=clip_projection,
            clip_cell=clip_cell,
            coupling=coupling,
        )

    def check_start(self, cell: LSTMCell) -> None:
        """Raises UnsupportedError where the step is not that of `cell` from h = c = 0, with f and R
        left out as converters do."""
        s = self.states
        shown, gate = self._output(s.next_h)
        activation = self._activation(gate)
        entering, candidate = self._entering(s.next_c, activation)
        found = (activation, self._activation(candidate), self._activation(shown))
        plain = cell.peephole is None and cell.weight_hr is None and cell.coupling is None
        if found != cell.activations or not plain or cell.clip_cell is not None:
            raise self._refused(s.next_h, "other rules in its first step than in those behind it")
        units = cell.hidden_size
        rows = {letter: slice(k * units, (k + 1) * units) for k, letter in enumerate("ifgo")}
        biases = [b for b in (cell.bias_ih, cell.bias_hh) if b is not None and b.any()]
        for letter, name in (("i", entering), ("g", candidate), ("o", gate)):
            total = self._pre_activation(name)
            own = [b for b in total.biases if b.any()]
            given = [b[rows[letter]] for b in biases if b[rows[letter]].any()]
            same = (
                [source for source, _ in total.matrices] == [self._plain(s.x)]
                and np.array_equal(total.matrices[0][1], cell.weight_ih[rows[letter]])
                and not (total.diagonals or total.numbers)
                and len(own) == len(given)
                and all(np.array_equal(a, b) for a, b in zip(own, given, strict=True))
            )
            if not same:
                raise self._refused(name, "other weights in its first step than in those behind it")

    # -- walking back -----------------------------------------------------------------------

    def _plain(self, name: str) -> str:
        """`name` without the nodes that change nothing."""
        for _ in range(MAX_DEPTH):
            node = self.makers.get(name)
            if node is None or node.op != "Identity":
                break
            name = node.inputs[0]
        return name

    def _node(self, name: str) -> Node:
        node = self.makers.get(self._plain(name))
        if node is None:
            raise UnsupportedError(
                f"takes {quoted(name)} where a part of an LSTM cell is expected",
                expected="c' = f·c + i·g and h' = o·tanh(c')",
            )
        if node.refusal is not None:
            raise node.refusal
        return node

    def _refused(self, name: str, what: str) -> UnsupportedError:
        node = self.makers.get(self._plain(name))
        return UnsupportedError(
            f"the step of a loop has {what}",
            where=node.where if node is not None else None,
            expected="an LSTM cell: c' = f·c + i·g, h' = o·tanh(c')",
        )

    def _is(self, name: str, wanted: str) -> bool:
        return self._plain(name) == self._plain(wanted)

    def _activation(self, name: str) -> Activation:
        node = self._node(name)
        found = ACTIVATIONS.get(node.op)
        if found is None:
            raise self._refused(name, f"a {node.op} where an activation is expected")
        return found

    def _factors(self, name: str) -> tuple[str, str]:
        node = self._node(name)
        if node.op != "Mul":
            raise self._refused(name, f"a {node.op} where a product of two gates is expected")
        return node.inputs[0], node.inputs[1]

    def _clipped(self, name: str) -> tuple[str, float | None]:
        """What is clipped to [-bound, bound], and the bound; None where nothing is."""
        bounds: dict[str, float] = {}
        node = self._node(name)
        while node.op in ("Min", "Max") and node.op not in bounds:
            value, other = node.inputs
            if (number := self._number(other)) is None:
                value, other = other, value
                number = self._number(other)
            if number is None:
                break
            bounds[node.op] = number
            name, node = value, self._node(value)
        if not bounds:
            return name, None
        if set(bounds) != {"Min", "Max"} or bounds["Min"] != -bounds["Max"] or bounds["Min"] <= 0:
            raise self._refused(name, "a clip other than to [-b, b]")
        return name, bounds["Min"]

    def _number(self, name: str) -> float | None:
        found = self.constant(name)
        return float(found.reshape(-1)[0]) if found is not None and found.size == 1 else None

    def _projected(self, name: str) -> tuple[str, Array | None, float | None]:
        value, clip = self._clipped(name)
        node = self._node(value)
        if node.op not in ("MatMul", "Gemm"):
            if clip is not None:
                raise self._refused(name, "a clip of h without a projection")
            return value, None, None
        weight, (source, *others) = self._weight(node), node.inputs
        if weight is None or len(others) > 1:
            raise self._refused(name, "a projection that is no constant matrix alone")
        return source, weight.T, clip

    def _output(self, name: str) -> tuple[str, str]:
        """(activation of the cell, output gate) of o·tanh(c')."""
        one, two = self._factors(name)
        for shown, gate in ((one, two), (two, one)):
            node = self.makers.get(self._plain(shown))
            if node is not None and node.op in ACTIVATIONS:
                source = node.inputs[0]
                if self._is(source, self.states.next_c):
                    return shown, gate
        raise self._refused(name, "a product without an activation of c'")

    def _halves(self, name: str) -> tuple[str, str]:
        """(f, i·g) of f·c + i·g."""
        node = self._node(name)
        if node.op != "Add":
            raise self._refused(name, f"a {node.op} where c' = f·c + i·g is expected")
        for kept, added in (node.inputs, node.inputs[::-1]):
            product = self.makers.get(self._plain(kept))
            if product is not None and product.op == "Mul":
                for gate, state in (product.inputs, product.inputs[::-1]):
                    if self._is(state, self.states.c):
                        return gate, added
        raise self._refused(name, "a sum without f·c")

    def _entering(self, name: str, gate: Activation) -> tuple[str, str]:
        """(i, g): the candidate is the factor whose activation is not that of the gates."""
        one, two = self._factors(name)
        for i, g in ((one, two), (two, one)):
            node = self.makers.get(self._plain(i))
            coupled = node is not None and node.op == "Sub"
            if coupled or (node is not None and ACTIVATIONS.get(node.op) == gate):
                return i, g
        raise self._refused(name, "a product without an input gate")

    def _coupling(self, f: str, i: str) -> tuple[str | None, str, str]:
        """The coupling, and the gates that stand for f and i."""
        for coupling, gate, other in (("i=1-f", i, f), ("f=1-i", f, i)):
            node = self.makers.get(self._plain(gate))
            if node is not None and node.op == "Sub":
                if self._number(node.inputs[0]) != 1 or not self._is(node.inputs[1], other):
                    raise self._refused(gate, "a difference that is no 1 - f or 1 - i")
                return coupling, other, other
        return None, f, i

    # -- pre-activations --------------------------------------------------------------------

    def _pre_activation(self, name: str) -> Sum:
        source = self._node(name).inputs[0]
        found = self._sum(source)
        if isinstance(found, tuple):
            raise self._refused(name, "a gate without weights")
        return found

    def _sum(self, name: str) -> Sum | tuple[str, ...]:
        """`name` as a sum, or as sources side by side."""
        name = self._plain(name)
        if name not in self._sums:
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise self._refused(name, f"more than {MAX_DEPTH} operators before a gate")
            self._sums[name] = self._followed(name)
            self._depth -= 1
        return self._sums[name]

    def _followed(self, name: str) -> Sum | tuple[str, ...]:
        s = self.states
        for source in (s.x, s.h, s.c, s.next_c):
            if self._is(name, source):
                return (self._plain(source),)
        node = self._node(name)
        match node.op:
            case "Concat":
                parts = [self._sum(part) for part in node.inputs]
                if all(isinstance(part, tuple) for part in parts):
                    return tuple(one for part in parts if isinstance(part, tuple) for one in part)
            case "MatMul" | "Gemm":
                return self._product(node)
            case "Reshape":
                return self._reshaped(node)
            case "Slice":
                return self._cut(node)
            case "Add":
                return self._added(node)
            case "Mul":
                return self._peephole(node)
            case "Split":
                return self._part(node, name)
            case _:
                pass
        raise self._refused(name, f"a {node.op} before a gate")

    def _weight(self, node: Node) -> Array | None:
        """The matrix (width, K) of a product, None where it is no constant one."""
        found = self.constant(node.inputs[1])
        if found is None or found.ndim != 2:
            return None
        turned = node.attributes.get("transB")
        return found.T if turned is not None and turned.i else found

    def _product(self, node: Node) -> Sum:
        made = self._matrices(node)
        if len(node.inputs) < 3:
            return made
        bias = self.constant(node.inputs[2])
        if bias is None or bias.shape != (made.matrices[0][1].shape[0],):
            raise self._refused(node.outputs[0], "a product with a bias that is no constant vector")
        return replace(made, biases=(bias,))

    def _matrices(self, node: Node) -> Sum:
        sources, weight = self._sum(node.inputs[0]), self._weight(node)
        if isinstance(sources, Sum) or weight is None:
            raise self._refused(node.outputs[0], "a product with something else than constants")
        known = {self._plain(self.states.h): self._width or weight.shape[1] // 4}
        open_ones = [source for source in sources if source not in known]
        width = weight.shape[0] - sum(known[s] for s in sources if s in known)
        if len(sources) == 1:
            known, open_ones = {sources[0]: weight.shape[0]}, list[str]()
        elif len(open_ones) != 1 or width < 1:
            raise self._refused(node.outputs[0], f"a matrix of {weight.shape[0]} rows for x and h")
        start, matrices = 0, list[tuple[str, Array]]()
        for source in sources:
            stop = start + known.get(source, width)
            matrices.append((source, weight[start:stop].T))
            start = stop
        return Sum(tuple(matrices))

    def _added(self, node: Node) -> Sum:
        one, two = node.inputs
        for value, other in ((one, two), (two, one)):
            bias = self.constant(other)
            if bias is None:
                continue
            found = self._sum(value)
            if isinstance(found, tuple):
                break
            if bias.size == 1:
                return replace(found, numbers=(*found.numbers, float(bias.reshape(-1)[0])))
            if bias.shape[-1] == bias.size:
                return replace(found, biases=(*found.biases, bias.reshape(-1)))
        left, right = self._sum(one), self._sum(two)
        if isinstance(left, tuple) or isinstance(right, tuple):
            raise self._refused(node.outputs[0], "a sum with a state")
        return Sum(
            left.matrices + right.matrices,
            left.diagonals + right.diagonals,
            left.biases + right.biases,
            left.numbers + right.numbers,
        )

    def _peephole(self, node: Node) -> Sum:
        for vector, state in (node.inputs, node.inputs[::-1]):
            values = self.constant(vector)
            source = self._sum(state) if values is not None else ()
            if values is not None and isinstance(source, tuple) and len(source) == 1:
                return Sum(diagonals=((source[0], values.reshape(-1)),))
        raise self._refused(node.outputs[0], "a product before a gate")

    def _part(self, node: Node, name: str) -> Sum:
        found = self._sum(node.inputs[0])
        if isinstance(found, tuple):
            raise self._refused(name, "a split of x or h")
        axis = node.attributes.get("axis")
        if axis is None or axis.i not in (1, -1):
            raise self._refused(name, "a split along another axis than that of the units")
        total, count, place = found.units, len(node.outputs), node.outputs.index(name)
        sizes = [total // count] * count
        if len(node.inputs) > 1:
            given = self.constant(node.inputs[1])
            sizes = [] if given is None else [int(n) for n in given.reshape(-1)[: count + 1]]
        if sum(sizes) != total or len(sizes) != count or min(sizes) < 1:
            raise self._refused(name, f"a split of {total} rows in {count}")
        start = sum(sizes[:place])
        return found.rows(start, start + sizes[place])

    def _reshaped(self, node: Node) -> Sum:
        """A reshape that leaves the units on the last axis, and every row of the batch a row."""
        found, shape = self._sum(node.inputs[0]), self.constant(node.inputs[1])
        if isinstance(found, tuple) or shape is None or not 1 <= shape.size <= 2:
            raise self._refused(node.outputs[0], "a reshape before a gate")
        if int(shape.reshape(-1)[-1]) != found.units:
            raise self._refused(node.outputs[0], "a reshape of its units")
        return found

    def _cut(self, node: Node) -> Sum:
        """Some of the units, by starts and ends of both axes."""
        found = self._sum(node.inputs[0])
        lists = [self.constant(name) for name in node.inputs[1:5]]
        numbers = [[int(n) for n in a.reshape(-1)[:8]] for a in lists if a is not None]
        if isinstance(found, tuple) or len(numbers) != len(lists) or len(numbers) < 2:
            raise self._refused(node.outputs[0], "a slice before a gate")
        starts, ends = numbers[:2]
        axes = numbers[2] if len(numbers) > 2 else list(range(len(starts)))
        steps = numbers[3] if len(numbers) > 3 else [1] * len(starts)
        places = dict(zip(axes, zip(starts, ends, steps, strict=False), strict=False))
        batch = places.pop(0, (0, 2**31 - 1, 1))
        start, end, step = places.pop(1, (0, 2**31 - 1, 1))
        end = min(end, found.units)
        if places or batch != (0, 2**31 - 1, 1) or step != 1 or not 0 <= start < end:
            raise self._refused(node.outputs[0], "a slice of something else than units")
        return found.rows(start, end)

    # -- assembling -------------------------------------------------------------------------

    def _assembled(self, sums: dict[str, Sum], **rules: Any) -> LSTMCell:
        s = self.states
        sides: dict[str, Array] = {}
        for field_name, source in (("weight_ih", s.x), ("weight_hh", s.h)):
            blocks = [self._matrix(sums[letter], self._plain(source)) for letter in "ifgo"]
            sides[field_name] = np.concatenate(blocks)
        hidden = sides["weight_hh"].shape[0] // 4
        counts = {len(sums[letter].biases) for letter in "ifgo"}
        if len(counts) != 1 or max(counts) > 2:
            raise self._refused(s.next_c, "gates with different or more than two biases")
        for k, field_name in enumerate(("bias_ih", "bias_hh")[: max(counts)]):
            sides[field_name] = np.concatenate([sums[letter].biases[k] for letter in "ifgo"])
        forget = sums["f"].numbers
        if any(sums[letter].numbers for letter in "igo") or len(forget) > 1:
            raise self._refused(s.next_c, "a number added to another gate than f")
        peepholes = {letter: sums[letter].diagonals for letter in "ifgo"}
        if any(peepholes.values()):
            rows: list[Any] = []
            for letter, source in (("i", s.c), ("f", s.c), ("o", s.next_c)):
                given = peepholes[letter]
                if (
                    peepholes["g"]
                    or len(given) > 1
                    or any(name != self._plain(source) for name, _ in given)
                ):
                    raise self._refused(s.next_c, "a peephole of another state")
                rows.append(np.asarray(given[0][1]) if given else np.zeros(hidden, np.float32))
            if any(row.shape != (hidden,) for row in rows):
                raise self._refused(s.next_c, "a peephole that is no vector of its units")
            sides["peephole"] = np.stack(rows)
        bias = forget[0] if forget else 0.0
        return LSTMCell(**sides, **rules, forget_bias=bias)

    def _matrix(self, found: Sum, source: str) -> Array:
        own = [matrix for name, matrix in found.matrices if name == source]
        known = {self._plain(self.states.x), self._plain(self.states.h)}
        if len(own) != 1 or any(name not in known for name, _ in found.matrices):
            raise self._refused(self.states.next_c, "a gate that is not W·x + R·h")
        return own[0]
