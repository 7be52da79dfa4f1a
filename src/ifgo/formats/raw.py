"""Raw tensors in a folder: tensor_{W,R,B}_{layer}_{size}.{txt,bin}, with model.toml beside them.

Layout A (ONNX order i, o, f, g): W (4H, I), R (4H, H), B 8H = input biases, recurrent biases; or
4H, both summed. Layout B (Keras order i, f, g, o): W (I, 4H), R (H, 4H), B 4H. A layer without R is
Dense: W (O, I) in layout A, (I, O) in B. The orders stand in gates.LSTM_LAYOUTS.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ifgo import files, limits
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats import Report, Stack
from ifgo.formats._attributes import Losses
from ifgo.formats._raw_files import Floats, Tensors, encode, read_tensors, tensor_files
from ifgo.formats._raw_infer import STACKS, infer
from ifgo.formats._raw_toml import (
    BIASES,
    ENCODINGS,
    FILE,
    LAYOUTS,
    Encoding,
    Layout,
    Sheet,
    Weighted,
    parse,
    render,
)
from ifgo.formats._raw_write import lay_out
from ifgo.gates import LSTM_LAYOUTS, GateLayout, reorder
from ifgo.layers import Dense, HiddenAsSequence, Layer, Recurrent
from ifgo.model import LSTMCell, Model, Provenance
from ifgo.text import cut

EXTENSIONS: tuple[str, ...] = ()
READ_OPTIONS = ("layout", "stack")
WRITE_OPTIONS = ("layout", "encoding")


def sniff(path: Path) -> bool:
    """Whether `path` is a folder with something named like a tensor, rightly or not."""
    try:
        return path.is_dir() and bool(tensor_files(path))
    except OSError:
        return False


def read(path: Path, *, layout: str | None = None, stack: str | None = None) -> Model:
    """The model in folder `path`, in float32.

    layout ("A" or "B") and stack ("stacked" or "hidden-as-sequence") settle what a folder without
    model.toml leaves open. Provenance says which file each array came from, and what was assumed
    or rounded. Raises UsageError naming the option that is missing or contradicts model.toml,
    FormatError naming the file that is damaged, ModelError where layers do not fit each other.
    """
    try:
        chosen = cast("Layout | None", _one_of("layout", layout, LAYOUTS))
        topology = cast("Stack | None", _one_of("stack", stack, STACKS))
        if not path.is_dir():
            raise UsageError("is no folder", expected="a folder with tensor files")
        return _read(path, chosen, topology)
    except IfgoError as error:
        raise error if str(path) in (error.where or "") else error.located(str(path)) from None
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None


def write(
    model: Model,
    path: Path,
    *,
    allow_lossy: Losses = False,
    layout: str = "A",
    encoding: str = "bin",
) -> Report:
    """Write `model` into folder `path`: its tensors, and model.toml with what they do not say.

    encoding: "bin" (float32) or "txt" (shortest exact decimals). Raises UnsupportedError naming all
    that the format cannot hold, UsageError where the folder holds tensors that would stay beside
    the new ones. allow_lossy permits giving up facts that inference does not use, rounding to
    float32, and adding a run-time forget bias to the bias. Provenance is not written.
    """
    try:
        _one_of("layout", layout, LAYOUTS)
        _one_of("encoding", encoding, ENCODINGS)
        sheet, tensors, report = lay_out(
            model, cast(Layout, layout), cast(Encoding, encoding), allow_lossy=allow_lossy
        )
        for name, values in tensors.items():
            if values.size > limits.current().text_numbers and encoding == "txt":
                raise UnsupportedError(
                    f"{name} has {values.size} values",
                    expected=f"at most {limits.current().text_numbers} in a text",
                    hint="Write it with encoding bin",
                )
        total = sum(values.size for values in tensors.values())
        if total > limits.current().text_numbers and encoding == "txt":
            raise UnsupportedError(
                f"its tensors have {total} values",
                expected=f"at most {limits.current().text_numbers} in the texts of a folder",
                hint="Write it with encoding bin",
            )
        contents = {f"{name}.{encoding}": encode(v, encoding) for name, v in tensors.items()}
        for name, data in contents.items():
            if len(data) > limits.current().text_bytes and encoding == "txt":
                raise UnsupportedError(
                    f"{name} would have {len(data)} bytes",
                    expected=f"at most {limits.current().text_bytes}",
                    hint="Write it with encoding bin",
                )
        refuse_others(path, contents)
        contents[FILE] = render(sheet).encode()
        if len(contents[FILE]) > limits.current().toml_bytes:
            raise UnsupportedError(
                f"{FILE} would have {len(contents[FILE])} bytes",
                expected=f"at most {limits.current().toml_bytes}",
                hint="Give the layers shorter names, or write an .ifgo file",
            )
    except IfgoError as error:
        raise error.located(str(path)) from None

    def fill(folder: Path) -> None:
        for name, data in contents.items():
            (folder / name).write_bytes(data)

    files.atomic_folder(path, fill)
    return report


def refuse_others(path: Path, names: Collection[str]) -> None:
    """Raises UsageError where `path` holds tensors that would stay beside those of `names`."""
    for entry in tensor_files(path) if path.is_dir() else []:
        if entry.name not in names:
            raise UsageError(
                f"already holds {cut(entry.name)}, which is no part of this model",
                expected="a folder without other tensors",
                hint="Remove them, or write to another folder",
            )


def _one_of(option: str, value: str | None, choices: tuple[str, ...]) -> str | None:
    if value is not None and value not in choices:
        raise UsageError(
            f"option {option} is {value!r}", expected="one of " + ", ".join(map(repr, choices))
        )
    return value


def _read(path: Path, layout: Layout | None, stack: Stack | None) -> Model:
    tensors, notes = read_tensors(path)
    if not tensors:
        raise FormatError("holds no tensor files", expected="tensor_W_1_{size}.txt or .bin")
    if (path / FILE).exists():
        sheet = _described(path, tensors, layout, stack)
    else:
        sheet, assumed = infer(tensors, layout, stack)
        notes += assumed
    numbered = iter(tensors)
    layers: list[Layer] = []
    names: dict[str, str] = {}
    for entry in sheet.layers:
        if isinstance(entry, Weighted):
            source = next(numbered)
            build = _lstm if source.recurrent else _dense
            layers.append(build(entry, source, LSTM_LAYOUTS[f"raw_{sheet.layout.lower()}"]))
            names |= _names(layers[-1], source)
        else:
            layers.append(entry)
    version = f"layout {sheet.layout}"
    provenance = Provenance("raw", version, str(path), tuple(notes), names)
    return Model((sheet.input,), tuple(layers), sheet.outputs, provenance)


def _names(layer: Layer, source: Tensors) -> dict[str, str]:
    letters = {"ih": "W", "hh": "R", "weight": "W", "bias": "B"}
    found: dict[str, str] = {}
    for name in layer.arrays:
        field = name.rpartition(".")[2]
        letter = "B" if field.startswith("bias") else letters[field.rpartition("_")[2]]
        found[f"{layer.name}.{name}"] = source.names[letter]
    return found


def _described(
    path: Path, tensors: list[Tensors], layout: Layout | None, stack: Stack | None
) -> Sheet:
    """What model.toml says, checked against the options and the files."""
    if not (path / FILE).is_file():
        raise FormatError(f"{FILE} is no regular file", hint="Put the file itself there")
    sheet = parse(files.read_bytes(path / FILE, limit="toml_bytes"))
    replays = any(isinstance(layer, HiddenAsSequence) for layer in sheet.layers)
    says = {"layout": sheet.layout, "stack": STACKS[1] if replays else STACKS[0]}
    for option, value in (("layout", layout), ("stack", stack)):
        if value not in (None, says[option]):
            raise UsageError(
                f"option {option} is {value!r}, but {FILE} says {says[option]!r}",
                expected=f"no option {option}, or the same",
            )
    weighted = sheet.weighted
    if len(weighted) != len(tensors):
        raise FormatError(
            f"has tensors of {len(tensors)} layers, but {FILE} describes {len(weighted)}",
            expected="one lstm or dense in model.toml per layer number",
        )
    for entry, source in zip(weighted, tensors, strict=True):
        if (entry.kind == "lstm") != source.recurrent:
            have = "has" if source.recurrent else "has no"
            raise FormatError(
                f"layer {source.number} {have} tensor_R_{source.number}_{source.size}, but {FILE} "
                f"says {entry.kind}",
                expected="R for an lstm, none for a dense layer",
            )
        for name in source.names.values():
            meant = Path(name).with_suffix(f".{sheet.encoding}").name
            if not (path / meant).is_file():
                raise FormatError(
                    f"{meant} is missing, but {FILE} says encoding {sheet.encoding!r}",
                    expected=f"it beside {name}",
                )
    return sheet


def _dense(entry: Weighted, source: Tensors, gates: GateLayout) -> Dense:
    outputs, inputs = source.size, source.input_size
    weight = source.values["W"]
    columns = gates.orientation == "columns"
    weight = weight.reshape(inputs, outputs).T if columns else weight.reshape(outputs, inputs)
    return Dense(entry.name, weight, source.values.get("B"), entry.activation)


def _lstm(entry: Weighted, source: Tensors, gates: GateLayout) -> Recurrent:
    def matrix(letter: str, width: int) -> Floats:
        flat = source.values[letter]
        columns = gates.orientation == "columns"
        block = flat.reshape(width, source.rows).T if columns else flat.reshape(source.rows, width)
        return reorder(block, gates.order)

    cell = LSTMCell(matrix("W", source.input_size), matrix("R", source.size))
    biases = {name: reorder(b, gates.order) for name, b in _biases(entry, source, gates).items()}
    return Recurrent(entry.name, replace(cell, **cast("dict[str, Any]", biases)))


def _biases(entry: Weighted, source: Tensors, gates: GateLayout) -> dict[str, Floats]:
    """The biases the layer has, in the gate order of the file."""
    size, letter = source.size, f"tensor_B_{source.number}_{source.size}"
    said = entry.biases
    if "B" not in source.values:
        if said:
            raise FormatError(
                f"{letter} is missing, but {FILE} says biases {', '.join(said)}",
                expected="the file, or biases = []",
            )
        return {}
    one, two = (4 * size, f"4·{size}"), (8 * size, f"8·{size}")
    source.expect("B", *((two, one) if gates.bias == "stacked" else (one,)))
    blocks = source.values["B"].reshape(-1, 4 * size)
    if len(blocks) == 2:
        stored = dict(zip(BIASES, blocks, strict=True))
    else:
        if said == BIASES:
            raise FormatError(
                f"{source.names['B']} has {4 * size} values, but {FILE} says two biases",
                expected=f"{two[0]} = {two[1]}",
            )
        stored = {said[0] if said else BIASES[0]: blocks[0]}
    for name, block in stored.items():
        if said is not None and name not in said and block.tobytes().strip(b"\0"):
            raise FormatError(
                f"{source.names['B']} holds a {name} other than 0, but {FILE} says the layer has "
                "none",
                expected="zeros",
            )
    return {name: block for name, block in stored.items() if said is None or name in said}
