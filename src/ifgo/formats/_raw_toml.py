"""model.toml beside raw tensors: what their names and sizes cannot say.

The schema is small and fixed: what is not in it is refused. Layer numbers are not repeated here:
weight-bearing layers stand in the order of their tensor numbers.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar, cast, get_args

from ifgo import limits
from ifgo.activations import LINEAR, Activation
from ifgo.errors import FormatError, ModelError, UnsupportedError
from ifgo.layers import (
    ActivationLayer,
    Dropout,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    RepeatVector,
)
from ifgo.model import Axes, FeatureInput, Output, StateSlot
from ifgo.text import cut, quote

Part = TypeVar("Part")

FILE: Final = "model.toml"
VERSION: Final = 1

Layout = Literal["A", "B"]
Encoding = Literal["txt", "bin"]
LAYOUTS: Final = get_args(Layout)
ENCODINGS: Final = get_args(Encoding)
BIASES: Final = ("bias_ih", "bias_hh")


@dataclass(frozen=True)
class Weighted:
    """A layer whose numbers lie in tensor files.

    biases: those an LSTM has, where its B file alone would say otherwise; None: as many as
    B holds. activation: of a Dense layer.
    """

    kind: Literal["lstm", "dense"]
    name: str
    biases: tuple[str, ...] | None = None
    activation: Activation = LINEAR


@dataclass(frozen=True)
class Sheet:
    """A raw folder without its numbers: what model.toml says, or what was inferred."""

    layout: Layout
    encoding: Encoding | None
    input: FeatureInput
    layers: tuple[Layer | Weighted, ...]
    outputs: tuple[Output, ...] = ()

    @property
    def weighted(self) -> list[Weighted]:
        """The layers with tensors; the first has number 1."""
        return [layer for layer in self.layers if isinstance(layer, Weighted)]


_ACTIVATION: Final = ("activation", "alpha", "beta")
_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "lstm": ("biases",),
    "dense": _ACTIVATION,
    "activation": _ACTIVATION,
    "dropout": ("rate",),
    "last_step": ("of",),
    "hidden_as_sequence": (),
    "repeat_vector": ("steps",),
    "flatten": ("steps",),
}
"""Layer kind → its keys besides kind and name."""

_PART: Final = r"""(?:(?<![\w-])[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_DEEP: Final = re.compile(rf"(?:{_PART}[ \t]*+\.[ \t]*+){{{limits.MAX_TOML_DEPTH}}}")
"""What every dotted key of more parts holds, and seldom anything else: a name is written so that
it does not."""


# -- writing --------------------------------------------------------------------------------------


def render(sheet: Sheet) -> str:
    """The text of model.toml for `sheet`."""
    lines = [
        "# What the names of the tensor files do not say. Layers with tensors stand in the order",
        "# of their numbers; SPEC.md describes layouts A and B.",
        *_pairs(version=VERSION, layout=sheet.layout, encoding=sheet.encoding),
        "",
        "[input]",
        *_pairs(name=sheet.input.name, size=sheet.input.size, axes=sheet.input.axes),
    ]
    for layer in sheet.layers:
        lines += ["", "[[layer]]", *_pairs(kind=layer.kind, name=layer.name, **_facts(layer))]
    for out in sheet.outputs:
        facts = {"role": out.role, "name": out.name, "axes": out.axes}
        slots = tuple(f"{slot.part} {slot.layer}" for slot in out.slots)
        packed = {"layers": out.layers, "slots": slots, "layout": out.layout}
        facts |= {key: value for key, value in packed.items() if value}
        lines += ["", "[[output]]", *_pairs(**facts)]
    return "\n".join(lines) + "\n"


def _facts(layer: Layer | Weighted) -> dict[str, Any]:
    if isinstance(layer, Weighted) and layer.kind == "lstm":
        return {"biases": layer.biases}
    if isinstance(layer, Weighted | ActivationLayer):
        act = layer.activation
        return {"activation": act.name, "alpha": act.alpha, "beta": act.beta}
    return {key: getattr(layer, key) for key in _KEYS[layer.kind]}


def _pairs(**values: Any) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
        return text.replace(".", "\\u002E") if _DEEP.search(text) else text
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, cast("tuple[Any, ...]", value))) + "]"
    return repr(float(value) if isinstance(value, float) else int(value))


# -- reading --------------------------------------------------------------------------------------


def parse(data: bytes) -> Sheet:
    """What model.toml says.

    Raises FormatError naming the key, UnsupportedError on a newer version, ModelError on values
    that no layer may have.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{FILE} is no text: byte {error.start} is {data[error.start]:#04x}", expected="UTF-8"
        ) from None
    if deep := _DEEP.search(text):
        raise FormatError(
            f"{FILE} line {text.count(chr(10), 0, deep.start()) + 1} holds {quote(deep[0])}",
            expected=f"keys of at most {limits.MAX_TOML_DEPTH} parts",
            hint="In a string, write each dot as \\u002E",
        )
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{FILE} is no TOML ({cut(error, 120)})", hint="Mend that line, or write it anew"
        ) from None
    version = tree.get("version")
    if type(version) is int and version > VERSION:
        raise UnsupportedError(
            f"{FILE} has version {cut(version)}",
            expected=f"version {VERSION}, all that this ifgo reads",
            hint="Install a newer ifgo",
        )
    top = _Table("", tree, ("version", "layout", "encoding", "input", "layer", "output"))
    if top.whole("version") != VERSION:
        raise FormatError(f"{FILE}: version is {cut(version)}", expected=str(VERSION))
    entry = _Table("input", top.take("input", dict, "a table"), ("name", "size", "axes"))
    axes = get_args(Axes)
    return Sheet(
        top.choice("layout", LAYOUTS),
        top.choice("encoding", ENCODINGS),
        _placed(
            "input",
            lambda: FeatureInput(
                entry.whole("size"), entry.text("name"), entry.choice("axes", axes)
            ),
        ),
        tuple(_placed(place, partial(_layer, place, t)) for place, t in top.tables("layer")),
        tuple(_placed(place, partial(_output, place, t)) for place, t in top.tables("output")),
    )


def _placed(place: str, build: Callable[[], Part]) -> Part:
    """What `build` makes; a ModelError of it names the file and the table."""
    try:
        return build()
    except ModelError as error:
        raise error.located(f"{FILE}: {place}") from None


def _layer(place: str, values: dict[str, Any]) -> Layer | Weighted:
    common = ("kind", "name")
    kind = _Table(place, {"kind": values.get("kind")}, common).choice("kind", tuple(_KEYS))
    table = _Table(place, values, common + _KEYS[kind])
    name = table.text("name")
    match kind:
        case "lstm":
            biases = table.strings("biases", BIASES) if "biases" in values else None
            return Weighted("lstm", name, biases)
        case "dense":
            return Weighted("dense", name, activation=_activation(table))
        case "activation":
            return ActivationLayer(name, _activation(table))
        case "dropout":
            return Dropout(name, table.number("rate"))
        case "last_step":
            return LastStep(name, table.choice("of", ("sequence", "state")))
        case "repeat_vector":
            return RepeatVector(name, table.whole("steps"))
        case "flatten":
            return Flatten(name, table.whole("steps"))
        case _:
            return HiddenAsSequence(name)


def _activation(table: _Table) -> Activation:
    values = {key: table.number(key) for key in ("alpha", "beta") if key in table.values}
    return Activation(table.text("activation"), **values)


def _output(place: str, values: dict[str, Any]) -> Output:
    table = _Table(place, values, ("role", "name", "axes", "layers", "slots", "layout"))
    return Output(
        table.choice("role", ("sequence", "last", "h_n", "c_n", "state")),
        table.text("name"),
        table.strings("layers") if "layers" in values else (),
        table.choice("axes", get_args(Axes)),
        _slots(table) if "slots" in values else (),
        table.text("layout") if "layout" in values else "",
    )


def _slots(table: _Table) -> tuple[StateSlot, ...]:
    """Final states as written: "h lstm0", "c lstm0"."""
    found: list[StateSlot] = []
    for text in table.strings("slots"):
        part, _, layer = text.partition(" ")
        if part not in ("h", "c") or not layer:
            raise FormatError(
                f"{FILE}: {table.path('slots')} holds {text[:60]!r}",
                expected="'h' or 'c', a blank, and the name of a layer",
            )
        found.append(StateSlot(layer, "h" if part == "h" else "c"))
    return tuple(found)


class _Table:
    """One table of the file; every key is known, and a value has the type that is asked for."""

    def __init__(self, place: str, values: dict[str, Any], known: tuple[str, ...]) -> None:
        self.place, self.values = place, values
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(cut(key), known, n=1, cutoff=0.0)
                raise FormatError(
                    f"{FILE}: unknown key {quote(self.path(key))}",
                    expected="one of " + ", ".join(known),
                    hint=f"Did you mean {near[0]!r}?",
                )

    def path(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def take(self, key: str, kind: type[Any], expected: str) -> Any:
        value = self.values.get(key)
        if type(value) is not kind:
            shown = "is missing" if value is None else f"is {quote(value)}"
            raise FormatError(f"{FILE}: {self.path(key)} {shown}", expected=expected)
        return value

    def text(self, key: str) -> str:
        return self.take(key, str, "a string")

    def whole(self, key: str) -> int:
        return self.take(key, int, "a whole number")

    def number(self, key: str) -> float:
        value = self.values.get(key)
        if type(value) is int and abs(value) <= 2**53:
            return float(value)
        return self.take(key, float, "a number")

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        expected = "one of " + ", ".join(map(repr, choices))
        value = self.take(key, str, expected)
        if value not in choices:
            raise FormatError(f"{FILE}: {self.path(key)} is {quote(value)}", expected=expected)
        return value

    def strings(self, key: str, choices: tuple[str, ...] | None = None) -> tuple[str, ...]:
        values = tuple(self.take(key, list, "a list of strings"))
        for value in values:
            if type(value) is not str or (choices and value not in choices):
                raise FormatError(
                    f"{FILE}: {self.path(key)} holds {quote(value)}",
                    expected="one of " + ", ".join(map(repr, choices)) if choices else "strings",
                )
        if choices and values != tuple(choice for choice in choices if choice in values):
            raise FormatError(
                f"{FILE}: {self.path(key)} is {cut(list(values))}",
                expected="each name once, in the order " + ", ".join(map(repr, choices)),
            )
        return values

    def tables(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        values = self.take(key, list, f"[[{key}]] tables")
        for i, value in enumerate(values):
            if type(value) is not dict:
                raise FormatError(f"{FILE}: {key}[{i}] is no table", expected=f"[[{key}]]")
        return [(f"{key}[{i}]", value) for i, value in enumerate(values)]
