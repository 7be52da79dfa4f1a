"""model.toml beside raw tensors: what their names and sizes cannot say.

The schema is small and fixed: what is not in it is refused. Layer numbers are not repeated here:
weight-bearing layers stand in the order of their tensor numbers.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from ifgo.activations import LINEAR, Activation
from ifgo.errors import FormatError, UnsupportedError
from ifgo.layers import (
    ActivationLayer,
    Dropout,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    RepeatVector,
)
from ifgo.model import Axes, FeatureInput, Output

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
        lines += ["", "[[output]]", *_pairs(**facts, layers=out.layers or None)]
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
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
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
        tree = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise FormatError(f"{FILE} is no UTF-8 text: byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{FILE} is no TOML ({error})") from None
    version = tree.get("version")
    if type(version) is int and version > VERSION:
        raise UnsupportedError(
            f"{FILE} has version {version}",
            expected=f"version {VERSION}, all that this ifgo reads",
            hint="Install a newer ifgo",
        )
    top = _Table("", tree, ("version", "layout", "encoding", "input", "layer", "output"))
    if top.whole("version") != VERSION:
        raise FormatError(f"{FILE}: version is {version}", expected=str(VERSION))
    entry = _Table("input", top.take("input", dict, "a table"), ("name", "size", "axes"))
    axes = get_args(Axes)
    return Sheet(
        top.choice("layout", LAYOUTS),
        top.choice("encoding", ENCODINGS),
        FeatureInput(entry.whole("size"), entry.text("name"), entry.choice("axes", axes)),
        tuple(_layer(place, table) for place, table in top.tables("layer")),
        tuple(_output(place, table) for place, table in top.tables("output")),
    )


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
    table = _Table(place, values, ("role", "name", "axes", "layers"))
    return Output(
        table.choice("role", ("sequence", "last", "h_n", "c_n")),
        table.text("name"),
        table.strings("layers") if "layers" in values else (),
        table.choice("axes", get_args(Axes)),
    )


class _Table:
    """One table of the file; every key is known, and a value has the type that is asked for."""

    def __init__(self, place: str, values: dict[str, Any], known: tuple[str, ...]) -> None:
        self.place, self.values = place, values
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
                raise FormatError(
                    f"{FILE}: unknown key {self.path(key)!r}",
                    expected="one of " + ", ".join(known),
                    hint=f"Did you mean {near[0]!r}?",
                )

    def path(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def take(self, key: str, kind: type[Any], expected: str) -> Any:
        value = self.values.get(key)
        if type(value) is not kind:
            shown = "is missing" if value is None else f"is {str(value)[:60]!r}"
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
            raise FormatError(f"{FILE}: {self.path(key)} is {value[:60]!r}", expected=expected)
        return value

    def strings(self, key: str, choices: tuple[str, ...] | None = None) -> tuple[str, ...]:
        values = tuple(self.take(key, list, "a list of strings"))
        for value in values:
            if type(value) is not str or (choices and value not in choices):
                raise FormatError(
                    f"{FILE}: {self.path(key)} holds {str(value)[:60]!r}",
                    expected="one of " + ", ".join(map(repr, choices)) if choices else "strings",
                )
        if choices and values != tuple(choice for choice in choices if choice in values):
            raise FormatError(
                f"{FILE}: {self.path(key)} is {list(values)}",
                expected="each name once, in the order " + ", ".join(map(repr, choices)),
            )
        return values

    def tables(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        values = self.take(key, list, f"[[{key}]] tables")
        for i, value in enumerate(values):
            if type(value) is not dict:
                raise FormatError(f"{FILE}: {key}[{i}] is no table", expected=f"[[{key}]]")
        return [(f"{key}[{i}]", value) for i, value in enumerate(values)]
