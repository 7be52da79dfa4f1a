"""The sheet: a TOML text that says what named arrays mean. FORMATS.md lists its keys.

A name of an array is a pattern: `*` stands for anything, {n} for the number of a repeated layer,
{n+2} for that number and 2. Sheets of known sources lie in the folder sheets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from ifgo import files, limits
from ifgo.activations import LINEAR, SIGMOID, TANH, Activation
from ifgo.cell import Coupling
from ifgo.errors import FormatError, IfgoError, ModelError, UsageError
from ifgo.formats._toml import Table, load
from ifgo.interface import Axes
from ifgo.recurrent import Merge
from ifgo.text import cut, quote

VERSION: Final = 1

MADMOM: Final = "madmom_lstm"
_MADMOM_HEAD: Final = b"\x80\x02cmadmom.ml.nn\nNeuralNetwork\n"
"""How its pickles start, protocol 2: all that madmom ever wrote."""

Orientation = Literal["rows", "columns", "blocks"]
Bias = Literal["two", "stacked", "one", "none"]

Patterns = tuple[str, ...]
"""One name, of an array with all gates; or one name for each gate."""

NUMBER: Final = re.compile(r"\{n(?:\+([0-9]{1,4}))?\}")

CELL: Final = {
    "weight_ih": "input matrix",
    "weight_hh": "recurrent matrix",
    "weight_xh": "one matrix of input rows, then recurrent rows",
    "weight_hx": "one matrix of recurrent rows, then input rows",
    "bias": "biases of both, one after the other",
    "bias_ih": "bias",
    "bias_hh": "second bias",
    "peephole": "peepholes",
    "weight_hr": "projection",
    "bias_hr": "its bias",
    "initial_h": "first hidden state",
    "initial_c": "first cell state",
}
"""What a [layer.forward] or [layer.backward] names."""

INITIAL: Final = ("initial_h", "initial_c")
"""Both or neither; a layer without them starts from zero."""

BIASES: Final[dict[str, tuple[str, ...]]] = {
    "two": ("bias_ih", "bias_hh"),
    "stacked": ("bias",),
    "one": ("bias_ih",),
    "none": (),
}
"""bias = ... → the keys that name it."""

LAYERS: Final[dict[str, tuple[str, ...]]] = {
    "embedding": ("weight", "mask_zero"),
    "dense": ("weight", "bias", "orientation", "activation", "alpha", "beta"),
    "activation": ("activation", "alpha", "beta"),
    "dropout": ("rate",),
    "last_step": ("of",),
    "hidden_as_sequence": (),
    "repeat_vector": ("steps",),
    "flatten": ("steps",),
}
"""Kind of every other layer → its keys."""

_LSTM: Final = (
    *("order", "orientation", "bias", "forget_bias", "peephole", "activations", "forward"),
    "interleaved",
    *("backward", "merge", "stateful", "clip_z", "clip_cell", "clip_projection", "coupling"),
)
_COMMON: Final = ("kind", "name", "repeat", "step", "optional")


@dataclass(frozen=True)
class Entry:
    """One [[layer]]. repeat: the first number of a repeated layer, None for a single one; step:
    from one number to the next. facts: what its kind takes, arrays left out."""

    place: str
    kind: str
    name: str
    repeat: int | None = None
    step: int = 1
    optional: bool = False
    patterns: Mapping[str, Patterns] = field(default_factory=dict[str, Patterns])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Gates:
    """How an lstm entry stores its gates; forget_bias is added at run time. interleaved: the gates
    of unit 0 come first, then those of unit 1, and so on, in each matrix and bias."""

    order: str
    orientation: Orientation
    bias: Bias
    forget_bias: float
    peephole: str
    interleaved: bool = False


@dataclass(frozen=True)
class Declared:
    """An array of a file without headers: its name and shape."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Sheet:
    """A whole sheet. title: one line about the source, "" if it says none. ignore: arrays that are
    no part of the model; zeros: those that are none because they hold nothing but zeros."""

    file: str
    title: str
    input_name: str
    input_size: int | None
    axes: Axes
    layers: tuple[Entry, ...]
    ignore: Patterns
    zeros: Patterns
    arrays: tuple[Declared, ...]
    dtype: str


def find(sheet: str | None, path: Path) -> Sheet:
    """The sheet of the model at `path`: the file or the shipped sheet that `sheet` names, or
    NAME.toml beside it, or that of madmom's pickles, which name their class.
    Raises UsageError where there is none, and what `parse` raises."""
    if sheet is None:
        beside = path / "sheet.toml" if path.is_dir() else path.with_suffix(".toml")
        if not beside.is_file() and is_madmom(path):
            return parse(_text(MADMOM), MADMOM)
        if not beside.is_file():
            raise UsageError(
                "needs a sheet that says what its arrays mean",
                expected=f"{beside.name}, or option sheet: a file, or one of "
                + ", ".join(_names()),
                hint="FORMATS.md describes sheets",
            )
        return _file(beside)
    if sheet in _names():
        return parse(_text(sheet), sheet)
    if not Path(sheet).is_file():
        raise UsageError(
            f"option sheet is {quote(sheet)}, and there is no such file",
            expected="a file, or one of " + ", ".join(_names()),
        )
    return _file(Path(sheet))


def is_madmom(path: Path) -> bool:
    """Whether `path` is a pickle of madmom's NeuralNetwork, by the name of its class."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(len(_MADMOM_HEAD)) == _MADMOM_HEAD
    except OSError:
        return False


def shipped() -> dict[str, str]:
    """Name and title of every sheet that comes with ifgo."""
    return {name: parse(_text(name), name).title for name in _names()}


def _file(path: Path) -> Sheet:
    return parse(files.read_bytes(path, limit="toml_bytes"), path.name)


def _names() -> tuple[str, ...]:
    folder = resources.files("ifgo.formats").joinpath("sheets")
    return tuple(
        sorted(e.name.removesuffix(".toml") for e in folder.iterdir() if e.name.endswith(".toml"))
    )


def _text(name: str) -> bytes:
    return resources.files("ifgo.formats").joinpath("sheets", f"{name}.toml").read_bytes()


def parse(data: bytes, file: str) -> Sheet:
    """What a sheet says.

    Raises FormatError naming the key, UnsupportedError on a newer version, ModelError on values
    that no layer may have.
    """
    known = ("version", "title", "input", "layer", "ignore", "zeros", "array", "dtype")
    top = Table(file, "", load(data, file, VERSION), known)
    given = top.values
    said: Any = top.take("input", dict, "a table") if "input" in given else {}
    entry = Table(file, "input", said, ("name", "size", "axes"))
    declared = tuple(_declared(file, *t) for t in top.tables("array")) if "array" in given else ()
    return Sheet(
        file,
        top.text("title") if "title" in given else "",
        entry.text("name") if "name" in entry.values else "x",
        entry.whole("size") if "size" in entry.values else None,
        entry.choice("axes", get_args(Axes)) if "axes" in entry.values else "BT",
        tuple(_entry(file, place, table) for place, table in top.tables("layer")),
        top.strings("ignore") if "ignore" in given else (),
        top.strings("zeros") if "zeros" in given else (),
        declared,
        top.choice("dtype", ("float32", "float64", "float16")) if "dtype" in given else "float32",
    )


def _declared(file: str, place: str, values: dict[str, Any]) -> Declared:
    table = Table(file, place, values, ("name", "shape"))
    shape = cast("list[Any]", table.take("shape", list, "a list of sizes"))
    if not shape or any(
        type(n) is not int or not 1 <= n <= limits.current().elements for n in shape
    ):
        raise FormatError(f"{file}: {place}.shape is {cut(shape)}", expected="sizes of 1 or more")
    return Declared(table.text("name"), tuple(shape))


def _entry(file: str, place: str, values: dict[str, Any]) -> Entry:
    kinds = ("lstm", *LAYERS)
    kind = Table(file, place, {"kind": values.get("kind")}, ("kind",)).choice("kind", kinds)
    table = Table(file, place, values, _COMMON + (_LSTM if kind == "lstm" else LAYERS[kind]))
    repeat = table.whole("repeat") if "repeat" in values else None
    step = table.whole("step") if "step" in values else 1
    if step < 1 or (repeat is not None and repeat < 0) or (repeat is None and "step" in values):
        raise FormatError(
            f"{file}: {place} has repeat {cut(repeat)} and step {cut(step)}",
            expected="repeat 0 or more, the first number; step 1 or more, with repeat only",
        )
    try:
        patterns, facts = (_lstm if kind == "lstm" else _other)(table, kind)
    except ModelError as error:
        raise error.located(f"{file}: {place}") from None
    for key, names in patterns.items():
        if (repeat is not None) != any(NUMBER.search(name) for name in names):
            raise FormatError(
                f"{file}: {place}: {key} {'holds no' if repeat is not None else 'holds'} {{n}}",
                expected="{n} in the names of arrays of a repeated layer, and only there",
            )
    name = table.text("name")
    optional = table.take("optional", bool, "true or false") if "optional" in values else False
    return Entry(place, kind, name, repeat, step, optional, patterns, facts)


def _patterns(table: Table, key: str, count: int) -> Patterns:
    """One name, or `count` of them."""
    value: Any = table.values.get(key)
    if type(value) is str and value:
        return (value,)
    if type(value) is list:
        names = cast("list[Any]", value)
        if len(names) == count and all(type(name) is str and name for name in names):
            return tuple(names)
    many = f", or a list of {count}, one for each gate in order" if count > 1 else ""
    shown = "is missing" if value is None else f"is {quote(cast(object, value))}"
    raise FormatError(
        f"{table.file}: {table.path(key)} {shown}", expected=f"the name of an array{many}"
    )


def _activation(table: Table, spelled: Any, where: str) -> Activation:
    """A name, or a table of a name with its parameters."""
    if type(spelled) is str:
        return Activation(spelled)
    if type(spelled) is not dict:
        raise FormatError(
            f"{table.file}: {where} holds {quote(spelled)}",
            expected="the name of an activation, or a table: activation, alpha, beta",
        )
    values = cast("dict[str, Any]", spelled)
    inner = Table(table.file, where, values, ("activation", "alpha", "beta"))
    numbers = {key: inner.number(key) for key in ("alpha", "beta") if key in values}
    return Activation(inner.text("activation"), **numbers)


def _lstm(table: Table, kind: str) -> tuple[dict[str, Patterns], dict[str, Any]]:
    values = table.values
    bias = table.choice("bias", tuple(BIASES))
    order = _order(table, "order", "ifgo")
    peephole = _order(table, "peephole", "ifo") if "peephole" in values else ""
    stored = values.get("forget_bias") == "stored"
    if not stored and type(values.get("forget_bias")) not in (int, float):
        raise FormatError(
            f"{table.file}: {table.path('forget_bias')} "
            + (
                "is missing"
                if "forget_bias" not in values
                else f"is {quote(values['forget_bias'])}"
            ),
            expected='"stored" where the bias holds it or there is none, or the number that is '
            "added to the forget gate at run time",
        )
    gates = Gates(
        order,
        table.choice("orientation", get_args(Orientation)),
        bias,
        0.0 if stored else table.number("forget_bias"),
        peephole,
        "interleaved" in values and table.take("interleaved", bool, "true or false"),
    )
    if gates.interleaved and gates.orientation == "blocks":
        raise FormatError(
            f"{table.file}: {table.path('interleaved')} is true",
            expected="false for blocks, which keep gates apart",
        )
    facts: dict[str, Any] = {"gates": gates, "activations": (SIGMOID, TANH, TANH)}
    if "activations" in values:
        three = table.take("activations", list, "three activations: of gates, candidate, output")
        if len(three) != 3:
            raise FormatError(
                f"{table.file}: {table.path('activations')} has {len(three)} entries",
                expected="3: of the gates, the candidate, the output",
            )
        where = table.path("activations")
        facts["activations"] = tuple(_activation(table, a, where) for a in three)
    for key in ("clip_z", "clip_cell", "clip_projection"):
        if key in values:
            facts[key] = table.number(key)
    for key, choices in (("coupling", get_args(Coupling)), ("merge", get_args(Merge))):
        if key in values:
            facts[key] = table.choice(key, choices)
    if "stateful" in values:
        facts["stateful"] = table.take("stateful", bool, "true or false")
    patterns: dict[str, Patterns] = {}
    for side in ("forward", "backward"):
        if side in values:
            inner = Table(
                table.file,
                table.path(side),
                table.take(side, dict, "a table of names"),
                tuple(CELL),
            )
            patterns |= {f"{side}.{k}": v for k, v in _cell(inner, gates).items()}
    if not patterns:
        raise FormatError(
            f"{table.file}: {table.place} names no arrays",
            expected=f"[{table.place.split('[')[0]}.forward] or [….backward] with weight_ih, …",
        )
    return patterns, facts


def _order(table: Table, key: str, letters: str) -> str:
    order = table.text(key)
    if sorted(order) != sorted(letters):
        raise FormatError(
            f"{table.file}: {table.path(key)} is {quote(order)}",
            expected=f"each of the letters {', '.join(letters)} once"
            + (", g the candidate" if "g" in letters else ""),
        )
    return order


def _cell(table: Table, gates: Gates) -> dict[str, Patterns]:
    """The arrays of one direction, each named as its shape and the bias form demand."""
    given = set(table.values)
    joined = given & {"weight_xh", "weight_hx"}
    weights = joined if len(joined) == 1 else {"weight_ih", "weight_hh"}
    wanted = {*weights, *BIASES[gates.bias], *(["peephole"] if gates.peephole else [])}
    wanted |= given & {"weight_hr", "bias_hr"}
    wanted |= {*INITIAL} if given & {*INITIAL} else set()
    if given != wanted:
        raise FormatError(
            f"{table.file}: {table.place} names {', '.join(sorted(given)) or 'nothing'}",
            expected=f"{', '.join(sorted(wanted))}, as bias = {gates.bias!r} and "
            f"peephole = {gates.peephole!r} say; weight_xh or weight_hx alone may stand for "
            "weight_ih and weight_hh",
        )
    counts = {"bias": 1, "peephole": 3, "weight_hr": 1, "bias_hr": 1, **dict.fromkeys(INITIAL, 1)}
    if gates.interleaved:  # all gates stand in one array
        counts |= {key: 1 for key in CELL if key != "peephole"}
    return {key: _patterns(table, key, counts.get(key, 4)) for key in CELL if key in given}


def _other(table: Table, kind: str) -> tuple[dict[str, Patterns], dict[str, Any]]:
    values = table.values
    patterns = {
        key: _patterns(table, key, 1)
        for key in ("weight", "bias")
        if key in LAYERS[kind] and (key in values or key == "weight")
    }
    facts: dict[str, Any] = {}
    match kind:
        case "embedding":
            if "mask_zero" in values:
                facts["mask_zero"] = table.take("mask_zero", bool, "true or false")
        case "dense":
            facts["orientation"] = table.choice("orientation", ("rows", "columns"))
            spelled = {k: values[k] for k in ("activation", "alpha", "beta") if k in values}
            facts["activation"] = _activation(table, spelled, table.place) if spelled else LINEAR
        case "activation":
            spelled = {k: values[k] for k in LAYERS[kind] if k in values}
            facts["activation"] = _activation(table, spelled, table.place)
        case "dropout":
            facts["rate"] = table.number("rate")
        case "last_step":
            facts["of"] = (
                table.choice("of", ("sequence", "state")) if "of" in values else "sequence"
            )
        case "repeat_vector" | "flatten":
            facts["steps"] = table.whole("steps")
        case _:
            pass
    return patterns, facts


def located(error: IfgoError, sheet: Sheet, entry: Entry) -> IfgoError:
    """`error`, said of one layer of the sheet."""
    return error.located(f"{sheet.file}: {entry.place}")
