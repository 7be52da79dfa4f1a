"""Program → C statements: element-wise runs become one loop each, scratch memory is shared.

Nothing here changes what is computed: an element's operations keep their order, intermediates that
stay inside one loop live in locals, and buffers whose lives do not meet share memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ifgo.activations import Activation
from ifgo.program import (
    Affine,
    Buffer,
    Differs,
    Elementwise,
    Gather,
    Inside,
    Instruction,
    Normalise,
    Operand,
    Probe,
    Program,
    Softmax,
    View,
    reads,
    touched,
    writes,
)

BLOCK: Final = 8
"""Rows that `affine` computes at once: their sums stay in registers while one input is read."""

UNROLL: Final = 4
"""Columns that its inner loop takes at a time, a power of 2."""

Run = list[Elementwise | Probe]
Single = Affine | Gather | Softmax | Differs | Inside | Normalise


@dataclass(frozen=True)
class Slot:
    """Where a scratch or sequence buffer lies in the scratch memory (floats)."""

    offset: int
    size: int


def number(value: float | np.float32) -> str:
    """A float32 as a C literal that reads back to the same bits: 9 significant digits."""
    assert np.isfinite(value), "no literal for a value that is not finite"
    text = f"{float(np.float32(value)):.9g}"
    if not any(mark in text for mark in ".e"):
        text += ".0"
    return text + "f"


def key(view: View) -> tuple[str, int, int, int, bool]:
    """Views with equal keys are the same memory at every step."""
    return (view.buffer.name, view.offset, view.size, view.stride, view.mirrored)


def _overlap(a: View, b: View) -> bool:
    return a.buffer.name == b.buffer.name and (
        a.stride != b.stride
        or a.mirrored != b.mirrored
        or (a.offset < b.offset + b.size and b.offset < a.offset + a.size)
    )


def group(body: list[Instruction]) -> Iterator[Run | Single]:
    """Consecutive element-wise instructions of one size as runs, everything else alone.

    A run never holds two views that overlap without being the same.
    """
    run: Run = []
    for instruction in body:
        if isinstance(instruction, Elementwise | Probe):
            if run and not _joins(run, instruction):
                yield run
                run = []
            run.append(instruction)
            continue
        if run:
            yield run
            run = []
        yield instruction
    if run:
        yield run


def _views(instruction: Elementwise | Probe) -> list[View]:
    result = writes(instruction)
    return [*reads(instruction), *([] if result is None else [result])]


def _size(instruction: Elementwise | Probe) -> int:
    return (writes(instruction) or reads(instruction)[0]).size


def _joins(run: Run, instruction: Elementwise | Probe) -> bool:
    if _size(run[0]) != _size(instruction):
        return False
    mine = _views(instruction)
    seen = [view for member in run for view in _views(member)]
    return not any(_overlap(a, b) and key(a) != key(b) for a in mine for b in seen)


class Schedule:
    """The statements of each sweep, the scratch layout and the trace layout of a program.

    max_steps: rows given to sequences as long as the main input. raw: layer name → "1_16", the
    tail of its raw tensor names, where weights come as raw tensors instead of packed arrays.
    products: matrices that a vendor's library multiplies (library.py).
    In a statement, @mirror stands for the mirrored step of its sweep, any other @ for the prefix
    of the emitted file.
    """

    def __init__(
        self,
        program: Program,
        max_steps: int,
        raw: Mapping[str, str] | None = None,
        products: frozenset[str] = frozenset(),
    ) -> None:
        self.program = program
        self.max_steps = max_steps
        self.raw = raw
        self.products = products
        self.groups = [list(group(sweep.body)) for sweep in program.sweeps]
        self.order = [(s, g) for s, sweep in enumerate(self.groups) for g in range(len(sweep))]
        self.positions = self._positions()
        self.slots = self._allocate()
        self.scratch_size = max((s.offset + s.size for s in self.slots.values()), default=0)
        self.records = [
            sum(i.source.size for i in sweep.body if isinstance(i, Probe))
            for sweep in program.sweeps
        ]

    # -- memory -----------------------------------------------------------------------------

    def _positions(self) -> dict[str, list[int]]:
        """Buffer name → positions of the groups that touch it, ascending."""
        found: dict[str, list[int]] = {}
        for position, (s, g) in enumerate(self.order):
            member = self.groups[s][g]
            for instruction in member if isinstance(member, list) else [member]:
                for buffer in touched(instruction):
                    spots = found.setdefault(buffer.name, [])
                    if not spots or spots[-1] != position:
                        spots.append(position)
        return found

    def in_register(self, buffer: Buffer) -> bool:
        """Whether a scratch buffer lives inside one run, so that a local variable holds it."""
        spots = self.positions[buffer.name]
        if buffer.storage != "scratch" or len(spots) != 1:
            return False
        s, g = self.order[spots[0]]
        return isinstance(self.groups[s][g], list)

    def _allocate(self) -> dict[str, Slot]:
        """First-fit placement; two buffers share memory only where their lives do not meet."""
        placed: list[tuple[int, int, Slot]] = []
        slots: dict[str, Slot] = {}
        for storage in ("carry", "sequence", "scratch"):
            if storage == "carry" and self.program.streamable:
                continue
            for buffer in self.program.buffers(storage):
                if self.in_register(buffer):
                    continue
                rows = self.max_steps if buffer.rows is None else buffer.rows
                size = rows * buffer.width
                first, last = self._life(buffer)
                taken = sorted(
                    (slot.offset, slot.offset + slot.size)
                    for begin, end, slot in placed
                    if begin <= last and first <= end
                )
                offset = 0
                for low, high in taken:
                    if offset + size <= low:
                        break
                    offset = max(offset, high)
                slots[buffer.name] = Slot(offset, size)
                placed.append((first, last, slots[buffer.name]))
        return slots

    def _life(self, buffer: Buffer) -> tuple[int, int]:
        """First and last group in which the memory must be its own.

        A value that a later sweep reads is read in every step of it, so it lives to that sweep's
        end; rows of a sequence live through every sweep that touches them.
        """
        spots = self.positions[buffer.name]
        if buffer.storage == "carry":
            return 0, len(self.order) - 1
        sweeps = {self.order[spot][0] for spot in spots}
        if buffer.storage == "scratch" and len(sweeps) == 1:
            return spots[0], spots[-1]
        inside = [p for p, (s, _) in enumerate(self.order) if min(sweeps) <= s <= max(sweeps)]
        return spots[0] if buffer.storage == "scratch" else inside[0], inside[-1]

    # -- text -------------------------------------------------------------------------------

    def base(self, buffer: Buffer) -> tuple[str, int]:
        """C name of the array that holds a buffer, and the buffer's offset in it."""
        match buffer.storage:
            case "input":
                return "x", 0
            case "output":
                return "y", 0
            case "state":
                return f"s->{buffer.name}", 0
            case "carry" if self.program.streamable:
                return f"s->{buffer.name}", 0
            case "weight":
                return buffer.name, 0
            case _:
                return "m", self.slots[buffer.name].offset

    def index(self, view: View, element: str | None) -> str:
        """C index of one element of a view (None: of its first, omitted where it is 0)."""
        offset = self.base(view.buffer)[1] + view.offset
        terms: list[str] = []
        if view.stride:
            t = "@mirror" if view.mirrored else "t"
            terms.append(t if view.stride == 1 else f"{t} * {view.stride}u")
        if offset:
            terms.append(f"{offset}u")
        if element not in (None, "0"):
            terms.append(str(element))
        return " + ".join(terms) or "0"

    def pointer(self, view: View) -> str:
        """C pointer to the first element of a view."""
        name, index = self.base(view.buffer)[0], self.index(view, None)
        return name if index == "0" else f"{name} + {index}"

    def sweep(self, number_: int) -> list[str]:
        """The statements of one step of a sweep."""
        lines: list[str] = []
        probe = 0
        for g, member in enumerate(self.groups[number_]):
            if isinstance(member, list):
                lines += self._run(member, self.order.index((number_, g)), probe)
                probe += sum(i.source.size for i in member if isinstance(i, Probe))
            else:
                lines += self._single(member)
        return lines

    def _single(self, instruction: Single) -> list[str]:
        result = self.pointer(instruction.result)
        match instruction:
            case Affine():
                return self._affine(instruction, result)
            case Gather():
                table, width = instruction.table.name, instruction.table.width
                index = instruction.index
                token = f"{self.base(index.buffer)[0]}[{self.index(index, None)}]"
                return [
                    f"for (j = 0; j < {width}u; ++j) {{",
                    f"    ({result})[j] = {table}[(size_t){token} * {width}u + j];",
                    "}",
                ]
            case Softmax():
                source = self.pointer(instruction.source)
                return [f"@softmax({result}, {source}, {instruction.result.size}u);"]
            case Differs():
                source, name = instruction.source, self.base(instruction.source.buffer)[0]
                if source.buffer.tokens:
                    found = f"{name}[{self.index(source, None)}] != {int(instruction.value)}"
                    return [f"*({result}) = {found} ? 1.0f : 0.0f;"]
                count, value = f"{source.size}u", number(instruction.value)
                return [f"*({result}) = @differs({self.pointer(source)}, {count}, {value});"]
            case Inside():
                return [f"*({result}) = t < length ? 1.0f : 0.0f;"]
            case Normalise():
                source, weight = self.pointer(instruction.source), self.pointer(instruction.weight)
                epsilon = number(instruction.epsilon)
                count = f"{instruction.result.size}u"
                return [f"@normalise({result}, {source}, {weight}, {count}, {epsilon});"]

    def _affine(self, instruction: Affine, result: str) -> list[str]:
        start = "NULL"
        if isinstance(instruction.start, View):
            start = self.pointer(instruction.start)
        matrices = [matrix for matrix, _ in instruction.terms]
        sources = [(self.pointer(view), f"{view.size}u") for _, view in instruction.terms]
        rows = instruction.result.size
        if self.raw is not None:
            suffix = self.raw[matrices[0].source[0]]
            bias = "NULL" if start == "NULL" else f"s->weights->B_{suffix}"
            terms = ", ".join(
                f"s->weights->{letter}_{suffix}, {pointer}, {count}"
                for letter, (pointer, count) in zip("WR", sources, strict=False)
            )
            if len(sources) == 2:
                return [f"@gates({result}, {bias}, {terms}, {rows // 4}u);"]
            return [f"@rows({result}, {bias}, {terms}, NULL, 0u, {rows}u);"]
        columns = sum(matrix.width for matrix in matrices)
        if matrices[0].name in self.products:
            vector = sources[0][0]
            return [
                f"@product({result}, {start}, {matrices[0].name}, {vector}, {columns}u, {rows}u);"
            ]
        pairs = [*sources, ("NULL", "0u")][:2]
        terms = ", ".join(f"{pointer}, {count}" for pointer, count in pairs)
        packed, blocks, rest = matrices[0].name, rows // BLOCK, rows % BLOCK
        lines: list[str] = []
        if blocks:
            lines.append(f"@affine({result}, {start}, {packed}, {terms}, {blocks}u);")
        if rest:
            done = BLOCK * blocks
            place = [
                f"{name} + {skip}u" if skip else name
                for name, skip in ((result, done), (packed, done * columns))
            ]
            begin = f"{start} + {done}u" if done and start != "NULL" else start
            lines.append(f"@rows({place[0]}, {begin}, {place[1]}, {terms}, {rest}u);")
        return lines

    def _run(self, run: Run, position: int, probe: int) -> list[str]:
        size = _size(run[0])
        known: dict[tuple[str, int, int, int, bool], str] = {}
        stores: dict[tuple[str, int, int, int, bool], View] = {}
        element = "j" if size > 1 else "0"
        body: list[str] = []

        def at(view: View) -> str:
            return f"{self.base(view.buffer)[0]}[{self.index(view, element)}]"

        def operand(value: Operand | None) -> str:
            if value is None:
                return ""
            if isinstance(value, View):
                if key(value) not in known:
                    name = f"v{len(known)}"
                    body.append(f"const float {name} = {at(value)};")
                    known[key(value)] = name
                return known[key(value)]
            return number(value)

        serial = 0
        for instruction in run:
            if isinstance(instruction, Probe):
                where = f"{probe}u + {element}" if size > 1 else f"{probe}u"
                body.append(f"IFGO_PROBE({where}, {operand(instruction.source)});")
                probe += instruction.source.size
                continue
            a, b = operand(instruction.a), operand(instruction.b)
            condition = ""
            if instruction.condition is not None:
                view = instruction.condition
                condition = known.get(key(view), "")
                if not condition:
                    condition = f"{self.base(view.buffer)[0]}[{self.index(view, None)}]"
            target = instruction.result
            if instruction.op == "copy":
                known[key(target)] = a
            else:
                name = f"r{serial}"
                serial += 1
                body.append(f"const float {name} = {_expression(instruction, a, b, condition)};")
                known[key(target)] = name
            stores[key(target)] = target
        for view_key, view in stores.items():
            if self._needed(view, position):
                body.append(f"{at(view)} = {known[view_key]};")
        body = _live(body)
        observed = all(isinstance(instruction, Probe) for instruction in run)
        if observed:
            return ["#ifdef IFGO_TRACE", *_loop(body, size), "#endif"]
        return _loop(body, size) if body else []

    def _needed(self, view: View, position: int) -> bool:
        """Whether what a run wrote is read after it."""
        if view.buffer.storage != "scratch":
            return True
        return self.positions[view.buffer.name][-1] > position


def _loop(body: list[str], size: int) -> list[str]:
    head = "{" if size == 1 else f"for (j = 0; j < {size}u; ++j) {{"
    return [head, *(f"    {line}" for line in body), "}"]


def _live(body: list[str]) -> list[str]:
    """`body` without locals that nothing after them uses."""
    kept: list[str] = []
    for line in reversed(body):
        local = re.match(r"const float (\w+) = ", line)
        if local and not any(re.search(rf"\b{local[1]}\b", later) for later in kept):
            continue
        kept.append(line)
    return kept[::-1]


def function(activation: Activation) -> str:
    """Name of the C function of an element-wise activation, without the prefix."""
    return "affine_activation" if activation.name == "affine" else activation.name


def _expression(instruction: Elementwise, a: str, b: str, condition: str) -> str:
    match instruction.op:
        case "add":
            return f"{a} + {b}"
        case "sub":
            return f"{a} - {b}"
        case "mul":
            return f"{a} * {b}"
        case "clip":
            return f"@clip({a}, {b})"
        case "select":
            return f"{condition} != 0.0f ? {a} : {b}"
        case "activate":
            assert instruction.activation is not None
            parameters = [
                number(value)
                for value in (instruction.activation.alpha, instruction.activation.beta)
                if value is not None
            ]
            return f"@{function(instruction.activation)}({', '.join([a, *parameters])})"
        case "copy":
            return a
