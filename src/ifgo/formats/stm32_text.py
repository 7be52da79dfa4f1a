"""Weights as numbers to paste into the C of a microcontroller: four gate blocks, row by row.

The recipe cuts the matrices of a Keras LSTM into their gates i, f, c, o, each (in, units), lays
the blocks one after the other and rounds to a few decimals. One layer a file: the input blocks,
the recurrent blocks, and the biases where there are some. A text says no sizes; a C header does.
"""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ifgo import decimals as texts
from ifgo import files, limits
from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, IfgoError, UsageError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats._plan import Plan
from ifgo.gates import CANONICAL, LSTM_LAYOUTS, reorder
from ifgo.layers import Recurrent
from ifgo.model import FeatureInput, Model, Provenance
from ifgo.text import listed, quote

EXTENSIONS: tuple[str, ...] = ()
READ_OPTIONS = ("shape",)
WRITE_OPTIONS = ("decimals",)

Floats = NDArray[np.float32]

MOST_DECIMALS: Final = 20

_NAMES: Final = ("lstm_win", "lstm_wrec", "lstm_bias")
_SIZES: Final = ("LSTM_INPUT_SIZE", "LSTM_HIDDEN_SIZE", "LSTM_BIASES")
_DEFINE: Final = re.compile(
    rb"^[ \t]*#[ \t]*define[ \t]+(LSTM_INPUT_SIZE|LSTM_HIDDEN_SIZE|LSTM_BIASES)"
    rb"[ \t]+([0-9]{1,6})[ \t]*\r?$",
    re.MULTILINE,
)
_BRACES: Final = re.compile(rb"[{}]")
_COMMENT: Final = re.compile(rb"/\*[^*]*\*+(?:[^/*][^*]*\*+)*/|//[^\n]*")
_WHOLE: Final = re.compile(
    rb"\b(?:int|u?int[0-9]{1,2}_t|char|short|long|signed|unsigned|bool|_Bool)\b"
)
"""A type that would cut what stands after the point."""
_DEEPEST: Final = 4
"""Braces within braces: gates of rows of an array of arrays."""
_SHAPE: Final = re.compile(r"\s*([1-9][0-9]{0,5})\s*,\s*([1-9][0-9]{0,5})\s*", re.ASCII)
_CELL_HANDLED = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "forget_bias")
_LAYER_HANDLED = ("name", "forward", "initial")
_LAYER_LOSABLE = ("merge", "zero_masked", "stateful", "training")
_PER_LINE: Final = 8


def sniff(path: Path) -> bool:
    """Whether `path` is a C header that defines the sizes; a text of numbers may be anything."""
    try:
        if path.suffix != ".h" or not path.is_file():
            return False
        with path.open("rb") as stream:
            return _SIZES[0].encode() in stream.read(4096)
    except OSError:
        return False


def read(path: Path, *, shape: str | None = None) -> Model:
    """The LSTM whose numbers stand in `path`, in float32.

    shape: "input_size,hidden_size", which a text does not say and a header defines. Biases are
    there where the count of numbers says so. Raises UsageError where the sizes are not known,
    FormatError where the count does not fit them.
    """
    try:
        data = files.read_bytes(path, limit="text_bytes")
        defined = _defined(data, path.suffix == ".h" and shape is None)
        inputs, hidden = _sizes(defined, shape)
        bare = _COMMENT.sub(b" ", data) if b"/" in data else data
        blocks = _blocks(bare)
        parsed = [texts.parse(block) for block in blocks]
        values = np.concatenate([part for part, _ in parsed])
        cell = _cell(values, inputs, hidden)
        if b"{" in bare:
            _in_order([part.size for part, _ in parsed], inputs, hidden)
        biases = 0 if cell.bias_ih is None else cell.bias_ih.size
        if defined.get(_SIZES[2], biases) != biases:
            raise FormatError(
                f"holds {biases} biases and defines {_SIZES[2]} {defined[_SIZES[2]]}",
                expected="as many as it says",
            )
    except IfgoError as error:
        raise error if str(path) in (error.where or "") else error.located(str(path)) from None
    rounded = sum(count for _, count in parsed)
    notes = (f"{rounded} decimals rounded to float32",) if rounded else ()
    names = {f"lstm.forward.{key}": f"gate blocks i f c o of {key}" for key in cell.arrays}
    provenance = Provenance("stm32_text", "", str(path), notes, names)
    return Model((FeatureInput(inputs),), (Recurrent("lstm", cell),), provenance=provenance)


def _blocks(bare: bytes) -> list[bytes]:
    """The numbers of each C array, braces within it (rows, gates) left out; without braces all.

    Raises FormatError on braces that do not match, too many arrays, and whole numbers.
    """
    if b"{" not in bare and b"}" not in bare:
        return [bare]
    found: list[bytes] = []
    outside: list[bytes] = []
    depth = at = 0
    for brace in _BRACES.finditer(bare):
        depth += 1 if brace[0] == b"{" else -1
        if depth < 0 or depth > _DEEPEST:
            break
        if (brace[0], depth) == (b"{", 1):
            outside.append(bare[at : brace.start()])
            at = brace.end()
        elif depth == 0:
            found.append(_BRACES.sub(b" , ", bare[at : brace.start()]))
            at = brace.end()
    if depth:
        raise FormatError("has braces that are not closed", hint="The file is cut short")
    if len(found) > len(_NAMES):
        raise FormatError(
            f"holds {len(found)} C arrays",
            expected="2 or 3: input, recurrent and perhaps bias numbers of one LSTM",
            hint="Join the gates i, f, c, o of each into one array, in that order",
        )
    if kind := _WHOLE.search(b" ".join([*outside, bare[at:]])):
        raise FormatError(
            f"declares numbers of type {kind[0].decode()}", expected="float or double"
        )
    return found


def _in_order(sizes: list[int], inputs: int, hidden: int) -> None:
    """Raises FormatError where a C array ends in the middle of input, recurrent or bias numbers."""
    wanted = [4 * inputs * hidden, 4 * hidden * hidden, 4 * hidden]
    if not set(accumulate(sizes)) <= set(accumulate(wanted)):
        raise FormatError(
            f"holds C arrays of {', '.join(map(str, sizes))} numbers",
            expected=f"{', '.join(map(str, wanted))}: input, recurrent, bias",
            hint="Put them in that order",
        )


def _defined(data: bytes, needed: bool) -> dict[str, int]:
    """What the file defines of sizes and number of biases: all of it, or nothing unless needed."""
    found = [(name.decode(), int(value)) for name, value in _DEFINE.findall(data)]
    if (found or needed) and sorted(name for name, _ in found) != sorted(_SIZES):
        raise FormatError(
            f"defines {listed(name for name, _ in found) or 'no size'}",
            expected=f"{', '.join(_SIZES)}, each once",
            hint="Or remove them, and give the sizes by option shape",
        )
    return dict(found)


def _sizes(defined: dict[str, int], shape: str | None) -> tuple[int, int]:
    """input_size and hidden_size, as the option says and the file does not deny."""
    said = tuple(defined[name] for name in _SIZES[:2]) if defined else None
    if shape is None:
        if said is None:
            raise UsageError(
                "does not say its sizes",
                expected="option shape: input_size,hidden_size, such as 16,32",
            )
        inputs, hidden = said
    else:
        match = _SHAPE.fullmatch(shape)
        if match is None:
            raise UsageError(
                f"option shape is {quote(shape)}", expected="input_size,hidden_size, such as 16,32"
            )
        inputs, hidden = int(match[1]), int(match[2])
        if said not in (None, (inputs, hidden)):
            raise UsageError(
                f"option shape is {quote(shape)}, but the file defines {said[0]},{said[1]}",
                expected="no option shape, or the same",
            )
    for what, size in (("input_size", inputs), ("hidden_size", hidden)):
        if not 1 <= size <= limits.value(what):
            raise FormatError(
                f"{what} is {size}", **limits.at_most(what, form="1 to {}", found=size)
            )
    return inputs, hidden


def _cell(values: Floats, inputs: int, hidden: int) -> LSTMCell:
    first, second, third = 4 * inputs * hidden, 4 * hidden * hidden, 4 * hidden
    if values.size not in (first + second, first + second + third):
        raise FormatError(
            f"has {values.size} numbers",
            expected=f"{first + second} = 4·{inputs}·{hidden} + 4·{hidden}·{hidden}, or "
            f"{first + second + third} with 4·{hidden} biases",
        )
    order = LSTM_LAYOUTS["stm32_text"].order
    pair = zip((values[:first], values[first : first + second]), (inputs, hidden), strict=True)
    weight_ih, weight_hh = (
        reorder(block.reshape(4, width, hidden).transpose(0, 2, 1).reshape(-1, width), order)
        for block, width in pair
    )
    bias = values[first + second :]
    return LSTMCell(weight_ih, weight_hh, reorder(bias, order) if bias.size else None)


# -- writing --------------------------------------------------------------------------------------


def write(
    model: Model, path: Path, *, allow_lossy: Losses = False, decimals: int | None = None
) -> Report:
    """Write the one LSTM of `model`: a C header where `path` ends in .h, else a text, one number
    a line.

    decimals: digits after the point; None writes the shortest decimals that give the same float32.
    Raises UnsupportedError naming all that does not fit: another layer, any cell but the plain
    one. Rounding needs allow_lossy, and the report gives its largest error.
    """
    if decimals is not None and (type(decimals) is not int or not 0 <= decimals <= MOST_DECIMALS):
        raise UsageError(
            f"option decimals is {quote(decimals)}",
            expected=f"a whole number from 0 to {MOST_DECIMALS}",
        )
    plan = _Numbers(decimals, allow_lossy=allow_lossy)
    try:
        plan.chain(model)
        plan.judge()
    except IfgoError as error:
        raise error.located(str(path)) from None
    (cell,) = (layer.cell for layer in model.recurrent)
    text = _header(plan.parts, cell) if path.suffix == ".h" else _plain(plan.parts)
    files.atomic_write(path, text.encode())
    return plan.report(model)


class _Numbers(Plan):
    """The decimals of each block, by what they are."""

    def __init__(self, decimals: int | None, *, allow_lossy: Losses) -> None:
        super().__init__("A text of gate blocks", allow_lossy=allow_lossy)
        self.decimals = decimals
        self.parts: list[list[str]] = []

    def chain(self, model: Model) -> None:
        """The one layer, and whether there is more."""
        for entry in model.inputs:
            if not isinstance(entry, FeatureInput):
                self.refused.append(f"{type(entry).__name__} {entry.name!r}")
        for output in model.outputs:
            if output.role != "sequence":
                self.refused.append(f"output {output.name!r} of role {output.role}")
        layers = [layer for layer in model.layers if isinstance(layer, Recurrent)]
        for layer in model.layers:
            if not isinstance(layer, Recurrent):
                self.refused.append(f"layer {layer.name}: {layer.kind}")
        for layer in layers[1:]:
            self.refused.append(f"layer {layer.name}: a second lstm")
        for layer in layers[:1]:
            self.recurrent(layer)

    def recurrent(self, layer: Recurrent) -> None:
        name, cell = layer.name, layer.forward
        self.beyond(name, layer, _LAYER_HANDLED, _LAYER_LOSABLE)
        if layer.initial.kind != "zero":
            self.refused.append(f"layer {name}: initial state of kind {layer.initial.kind}")
        if cell is None:
            self.refused.append(f"layer {name}: no forward direction")
            return
        self.beyond(name, cell, _CELL_HANDLED)
        order = LSTM_LAYOUTS["stm32_text"].order
        for field in ("weight_ih", "weight_hh"):
            values = reorder(self.single(name, field, getattr(cell, field)), CANONICAL, order)
            blocks = values.reshape(4, cell.hidden_size, -1).transpose(0, 2, 1)
            self.store(name, field, blocks.reshape(-1))
        for values in self.biases(name, cell, one=True).values():
            self.store(name, "bias", reorder(values, CANONICAL, order))
        self.kept.append(f"{name} (lstm): shape {cell.input_size},{cell.hidden_size}")

    def store(self, name: str, what: str, values: Floats) -> None:
        """The next numbers as decimals, rounded where that is asked for."""
        if self.decimals is None:
            self.parts.append([str(value) for value in values])
            return
        spelled = [f"{float(value):.{self.decimals}f}" for value in values]
        back, _ = texts.to_float32(spelled)
        error = float(np.abs(back.astype(np.float64) - values).max())
        if error:
            off = f"rounded to {self.decimals} decimals, off by up to {error:.3g}"
            fields = ("bias_ih", "bias_hh") if what == "bias" else (what,)
            self.lose("decimals", name, f"layer {name}: {what} {off}", *fields)
        self.parts.append(spelled)


def _plain(parts: list[list[str]]) -> str:
    return "\n".join(number for part in parts for number in part) + "\n"


def _header(parts: list[list[str]], cell: LSTMCell) -> str:
    """Guarded C with the sizes and one array for each part."""
    sizes = (cell.input_size, cell.hidden_size, len(parts[2]) if len(parts) > 2 else 0)
    lines = ["#ifndef LSTM_WEIGHTS_H", "#define LSTM_WEIGHTS_H", ""]
    lines += ["/* Gate blocks i, f, c, o, one after the other, each (in, units) row by row. */"]
    lines += [f"#define {name} {size}" for name, size in zip(_SIZES, sizes, strict=True)]
    for name, part in zip(_NAMES, parts, strict=False):
        rows = [part[k : k + _PER_LINE] for k in range(0, len(part), _PER_LINE)]
        body = ",\n".join("    " + ", ".join(map(_c_float, row)) for row in rows)
        lines += ["", f"static const float {name}[{len(part)}] = {{", body, "};"]
    return "\n".join([*lines, "", "#endif", ""])


def _c_float(decimal: str) -> str:
    """A float literal: C wants a point or an exponent before the f."""
    return f"{decimal}f" if "." in decimal or "e" in decimal else f"{decimal}.0f"
