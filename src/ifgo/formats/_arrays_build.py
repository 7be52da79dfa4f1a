"""Named arrays and a sheet become layers: names matched, shapes checked, gates brought in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import gates as gate_orders
from ifgo import limits
from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, IfgoError
from ifgo.formats._arrays_sheet import INITIAL, NUMBER, Entry, Gates, Patterns, Sheet, located
from ifgo.layers import (
    ActivationLayer,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Layer,
    Recurrent,
    RepeatVector,
)
from ifgo.text import cut, listed, quote

Array = NDArray[Any]
Shape = tuple[int, ...]

_CELL_FACTS: Final = ("activations", "clip_z", "clip_cell", "clip_projection", "coupling")


class Store:
    """The arrays of a source by name; each may be taken once."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays
        self.taken: dict[str, str] = {}

    def has(self, pattern: str) -> bool:
        """Whether any array has a name of `pattern`."""
        return bool(self.matches(pattern))

    def matches(self, pattern: str) -> list[str]:
        """Every name of `pattern`."""
        if "*" not in pattern:
            return [pattern] if pattern in self.arrays else []
        return [name for name in self.arrays if _fits(name, pattern.split("*"))]

    def take(self, pattern: str, use: str) -> tuple[str, Array]:
        """The one array of `pattern`, as floats. Raises FormatError where there is none, or more,
        or it is used already."""
        found = self.matches(pattern)
        if len(found) != 1:
            raise FormatError(
                f"{use} is array {quote(pattern)}, which "
                + (f"fits {listed(map(quote, found), 4)}" if found else "is not there"),
                expected="one array of that name",
                hint=None if found else f"There are {listed(map(quote, self.arrays), 6)}",
            )
        name = found[0]
        if name in self.taken:
            raise FormatError(
                f"{use} is array {quote(name)}, which is {self.taken[name]} already",
                expected="each array once",
            )
        self.taken[name] = use
        values = self.arrays[name]
        return name, values if values.dtype.kind == "f" else values.astype(np.float32)

    def finish(self, sheet: Sheet) -> tuple[str, ...]:
        """Names that the sheet lets go. Raises FormatError naming any other that nobody took, and
        one that is to be zeros and is not."""
        left = [name for name in self.arrays if name not in self.taken]
        empty = [n for n in left if any(_fits(n, p.split("*")) for p in sheet.zeros)]
        for name in empty:
            if np.count_nonzero(self.arrays[name]):
                raise FormatError(
                    f"array {quote(name)} holds other values than 0",
                    expected=f"zeros, as {sheet.file} says: it has no place in the model",
                )
        ignored = [n for n in left if any(_fits(n, p.split("*")) for p in sheet.ignore)]
        if unused := [name for name in left if name not in (*ignored, *empty)]:
            raise FormatError(
                f"{sheet.file} has no use for {len(unused)} of {len(self.arrays)} arrays: "
                f"{listed(map(quote, unused))}",
                expected="a layer for each",
                hint="Name them in the sheet, or under ignore if they are no part of the model",
            )
        return (*empty, *ignored)


def _fits(name: str, parts: list[str]) -> bool:
    """Whether `name` is `parts` with anything between them."""
    if len(parts) == 1:
        return name == parts[0]
    if len(name) < len(parts[0]) + len(parts[-1]):
        return False
    if not name.startswith(parts[0]) or not name.endswith(parts[-1]):
        return False
    middle = name[len(parts[0]) : len(name) - len(parts[-1])]
    for part in parts[1:-1]:
        _, found, middle = middle.partition(part)
        if part and not found:
            return False
    return True


def numbered(pattern: str, n: int) -> str:
    """`pattern` with the number of a layer in place of {n}."""
    return NUMBER.sub(lambda found: str(n + int(found[1] or 0)), pattern)


def build(sheet: Sheet, store: Store) -> tuple[list[Layer], dict[str, str]]:
    """The layers, and our array names → the source's. Raises FormatError naming array and shape."""
    layers: list[Layer] = []
    names: dict[str, str] = {}
    for entry in sheet.layers:
        try:
            for name, patterns in _instances(entry, store):
                layer, sources = _layer(name, entry, patterns, store)
                layers.append(layer)
                names |= {f"{name}.{key}": source for key, source in sources.items()}
        except IfgoError as error:
            raise located(error, sheet, entry) from None
    return layers, names


def _instances(entry: Entry, store: Store) -> Iterator[tuple[str, dict[str, Patterns]]]:
    """The name and patterns of each layer that `entry` stands for."""
    if entry.repeat is None:
        patterns = dict(entry.patterns)
        if not entry.optional or any(store.has(p) for ps in patterns.values() for p in ps):
            yield entry.name, patterns
        return
    for k in range(limits.current().layers + 1):
        n = entry.repeat + k * entry.step
        patterns = {key: tuple(numbered(p, n) for p in ps) for key, ps in entry.patterns.items()}
        present = any(store.has(p) for ps in patterns.values() for p in ps)
        if not present and (k or entry.optional):
            return
        name = numbered(entry.name, k)
        yield (name if name != entry.name else f"{entry.name}{k}"), patterns


def _layer(
    name: str, entry: Entry, patterns: Mapping[str, Patterns], store: Store
) -> tuple[Layer, dict[str, str]]:
    facts = entry.facts
    if entry.kind == "lstm":
        return _recurrent(name, facts, patterns, store)
    arrays: dict[str, Array] = {}
    sources: dict[str, str] = {}
    for key, (pattern,) in patterns.items():
        sources[key], arrays[key] = store.take(pattern, f"{key} of layer {cut(name)}")
    match entry.kind:
        case "embedding":
            return Embedding(name, arrays["weight"], **facts), sources
        case "dense":
            return _dense(name, facts, arrays, sources), sources
        case "activation":
            return ActivationLayer(name, facts["activation"]), sources
        case "dropout":
            return Dropout(name, facts["rate"]), sources
        case "last_step":
            return LastStep(name, facts["of"]), sources
        case "repeat_vector":
            return RepeatVector(name, facts["steps"]), sources
        case "flatten":
            return Flatten(name, facts["steps"]), sources
        case _:
            return HiddenAsSequence(name), sources


def _dense(
    name: str, facts: Mapping[str, Any], arrays: Mapping[str, Array], sources: Mapping[str, str]
) -> Dense:
    weight, columns = arrays["weight"], facts["orientation"] == "columns"
    words = "(inputs, outputs)" if columns else "(outputs, inputs)"
    if weight.ndim != 2:
        raise _shape(sources["weight"], weight, words)
    weight = weight.T if columns else weight
    bias = arrays.get("bias")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise _shape(sources["bias"], bias, "(outputs,)", weight.shape[:1])
    return Dense(name, weight, bias, facts["activation"])


def _flat(values: Array, size: int) -> Array:
    """A row or a column of `size` numbers without its axis of 1."""
    return values.reshape(-1) if values.shape in ((size, 1), (1, size)) else values


def _shape(name: str, have: Array, words: str, want: Shape | None = None) -> FormatError:
    """The complaint about a shape, with the arithmetic."""
    return FormatError(
        f"{cut(name)} has shape {have.shape}",
        expected=words if want is None else f"{words} = {want}",
    )


# -- cells ----------------------------------------------------------------------------------------


def _recurrent(
    name: str, facts: Mapping[str, Any], patterns: Mapping[str, Patterns], store: Store
) -> tuple[Layer, dict[str, str]]:
    cells: dict[str, LSTMCell] = {}
    names: dict[str, str] = {}
    starts: dict[str, list[Array]] = {}
    for side in ("forward", "backward"):
        own = {k.partition(".")[2]: v for k, v in patterns.items() if k.startswith(side)}
        if own:
            cell = _Cell(name, facts["gates"], own, store)
            rules = {key: facts[key] for key in _CELL_FACTS if key in facts}
            parts = cell.parts()
            cells[side] = LSTMCell(**parts, **rules, forget_bias=facts["gates"].forget_bias)
            sources = {key: ", ".join(cell.sources[key]) for key in cell.sources}
            for key in cells[side].arrays:
                joined = next((k for k in ("weight_xh", "weight_hx") if k in sources), key)
                source = sources.get(key) or sources.get("bias" if "bias" in key else joined, "")
                names[f"{side}.{key}"] = source
            for key in INITIAL:
                if key in own:
                    starts.setdefault(key, []).append(cell.start(key))
                    source = names.get(f"initial.{key[-1]}", "")
                    names[f"initial.{key[-1]}"] = ", ".join(
                        [*filter(None, [source]), *cell.sources[key]]
                    )
    options = {key: facts[key] for key in ("merge", "stateful") if key in facts}
    if starts:
        options["initial"] = _initial(starts, len(cells))
    return Recurrent(name, cells.get("forward"), cells.get("backward"), **options), names


def _initial(starts: Mapping[str, list[Array]], directions: int) -> InitialState:
    """The constant state, (D, ·) each, that both directions name or neither."""
    h, c = (starts[key] for key in INITIAL)
    if len(h) != directions:
        raise FormatError(
            "names initial states of one direction", expected="those of both directions, or none"
        )
    return InitialState("constant", np.stack(h), np.stack(c))


class _Cell:
    """The arrays of one direction on their way to canonical order."""

    def __init__(
        self, layer: str, gates: Gates, patterns: Mapping[str, Patterns], store: Store
    ) -> None:
        self.layer, self.gates, self.store = layer, gates, store
        self.patterns = patterns
        self.sources: dict[str, list[str]] = {}
        self.hidden = 0
        self.output = 0

    def parts(self) -> dict[str, Array]:
        """Fields of LSTMCell. Raises FormatError naming the array of a wrong shape."""
        found: dict[str, Array] = {}
        joined = next((k for k in ("weight_xh", "weight_hx") if k in self.patterns), None)
        first = self.matrix(joined or "weight_hh")
        self.hidden = first.shape[0] // 4
        self.output = self.hidden
        if "weight_hr" in self.patterns:
            found["weight_hr"] = self.projection()
        if joined is None:
            if first.shape[1] != self.output:
                raise self.wrong("weight_hh", first, "output_size", self.output)
            weight = self.matrix("weight_ih")
            if weight.shape[0] != first.shape[0]:
                raise self.wrong("weight_ih", weight, "input_size", weight.shape[1])
            found |= {"weight_ih": weight, "weight_hh": first}
        else:
            inputs = first.shape[1] - self.output
            if inputs < 1:
                raise self.wrong(joined, first, "input_size + output_size", None)
            cut_at = inputs if joined == "weight_xh" else self.output
            left, right = first[:, :cut_at], first[:, cut_at:]
            pair = (left, right) if joined == "weight_xh" else (right, left)
            found |= dict(zip(("weight_ih", "weight_hh"), pair, strict=True))
        for key in ("bias_ih", "bias_hh"):
            if key in self.patterns:
                found[key] = self.vector(key, self.gates.order, self.hidden).reshape(-1)
        if "bias" in self.patterns:
            found |= self.stacked()
        if "peephole" in self.patterns:
            found["peephole"] = self.vector("peephole", self.gates.peephole, self.hidden)
        if "bias_hr" in self.patterns:
            found["bias_hr"] = self.one("bias_hr", (self.output,), "(output_size,)")
        return found

    def taken(self, key: str) -> list[tuple[str, Array]]:
        """The arrays under `key`, with their names."""
        use = f"{key} of layer {cut(self.layer)}"
        found = [self.store.take(pattern, use) for pattern in self.patterns[key]]
        self.sources[key] = [name for name, _ in found]
        return found

    def width(self, key: str) -> str:
        """What a matrix multiplies, in words."""
        if key in ("weight_xh", "weight_hx"):
            pair = ["input_size", "hidden_size"]
            return " + ".join(pair if key == "weight_xh" else pair[::-1])
        return "input_size" if key == "weight_ih" else "hidden_size"

    def matrix(self, key: str) -> Array:
        """The matrix under `key` as (4H, X), rows in canonical order."""
        found, form, width = self.taken(key), self.gates.orientation, self.width(key)
        words = {
            "rows": f"(4·hidden_size, {width})",
            "columns": f"({width}, 4·hidden_size)",
            "blocks": f"(4, {width}, hidden_size)",
        }[form]
        if len(found) == 1:
            ((name, values),) = found
            if form == "blocks":
                if values.ndim != 3 or values.shape[0] != 4:
                    raise _shape(name, values, words)
                values = values.transpose(0, 2, 1).reshape(-1, values.shape[1])
            elif values.ndim == 2 and form == "columns":
                values = values.T
            if values.ndim != 2 or values.shape[0] % 4 or not values.size:
                raise _shape(name, found[0][1], words)
            return gate_orders.reorder(self.apart(values), self.gates.order)
        rows = form == "rows"
        words = f"(hidden_size, {width})" if rows else f"({width}, hidden_size)"
        shape = found[0][1].shape
        for name, values in found:
            if values.ndim != 2 or not values.size:
                raise _shape(name, values, words)
            if values.shape != shape:
                raise _shape(name, values, words, shape)
        stack = np.concatenate([values if rows else values.T for _, values in found])
        return gate_orders.reorder(stack, self.gates.order)

    def vector(self, key: str, order: str, size: int) -> Array:
        """Gates (len(order), size) in canonical sequence: all in one array, or one array each."""
        found, count = self.taken(key), len(order)
        if len(found) == 1:
            ((name, values),) = found
            values = _flat(values, count * size)
            if values.shape not in ((count * size,), (count, size)):
                words, want = f"({count}·hidden_size,)", (count * size,)
                raise _shape(name, values, words, want)
            blocks = (self.apart(values) if "bias" in key else values).reshape(count, size)
        else:
            for name, values in found:
                if _flat(values, size).shape != (size,):
                    raise _shape(name, values, "(hidden_size,)", (size,))
            blocks = np.stack([_flat(values, size) for _, values in found])
        return np.stack([blocks[order.index(letter)] for letter in "ifgo" if letter in order])

    def stacked(self) -> dict[str, Array]:
        """Both biases out of one array: input biases, then recurrent ones."""
        size = 4 * self.hidden
        values = self.one("bias", (2 * size,), "(8·hidden_size,)")
        pair = (
            gate_orders.reorder(self.apart(half), self.gates.order)
            for half in (values[:size], values[size:])
        )
        return dict(zip(("bias_ih", "bias_hh"), pair, strict=True))

    def apart(self, values: Array) -> Array:
        """(4H, ...) gate by gate, where the source has them unit by unit."""
        if not self.gates.interleaved:
            return values
        return np.concatenate([values[k::4] for k in range(4)])

    def start(self, key: str) -> Array:
        """The initial state under `key`."""
        sizes = {
            "initial_h": ("output_size", self.output),
            "initial_c": ("hidden_size", self.hidden),
        }
        words, size = sizes[key]
        return self.one(key, (size,), f"({words},)")

    def one(self, key: str, shape: Shape, words: str) -> Array:
        ((name, values),) = self.taken(key)
        values = _flat(values, shape[0])
        if values.shape != shape:
            raise _shape(name, values, words, shape)
        return values

    def projection(self) -> Array:
        ((name, values),) = self.taken("weight_hr")
        rows = self.gates.orientation == "rows"
        words = "(output_size, hidden_size)" if rows else "(hidden_size, output_size)"
        if values.ndim != 2 or values.shape[1 if rows else 0] != self.hidden:
            raise FormatError(
                f"{cut(name)} has shape {values.shape}",
                expected=f"{words} with hidden_size = {self.hidden}",
            )
        weight = values if rows else values.T
        self.output = weight.shape[0]
        return weight

    def wrong(self, key: str, matrix: Array, words: str, width: int | None) -> FormatError:
        """The complaint about (4H, X) `matrix`, in the shape of the source."""
        name, rows = ", ".join(self.sources[key]), 4 * self.hidden
        form = self.gates.orientation
        count = "4·hidden_size" if len(self.patterns[key]) == 1 else "hidden_size"
        high = rows if len(self.patterns[key]) == 1 else self.hidden
        have = matrix.shape if count[0] == "4" else (matrix.shape[0] // 4, matrix.shape[1])
        seen, said = (have, (count, words)) if form == "rows" else (have[::-1], (words, count))
        sizes = (high, width) if form == "rows" else (width, high)
        if form == "blocks":
            seen, said = (4, matrix.shape[1], matrix.shape[0] // 4), ("4", words, "hidden_size")
            sizes = (4, width, self.hidden)
        want = f"({', '.join(said)})"
        numbers = "" if width is None else f" = ({', '.join(map(str, sizes))})"
        return FormatError(f"{cut(name)} has shape {seen}", expected=want + numbers)
