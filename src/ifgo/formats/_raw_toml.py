"""model.toml beside raw tensors: what their names and sizes cannot say.

The schema is small and fixed: what is not in it is refused. Layer numbers are not repeated here:
weight-bearing layers stand in the order of their tensor numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar, get_args

from ifgo.activations import LINEAR, Activation
from ifgo.errors import FormatError, ModelError
from ifgo.formats._toml import Table, load, pairs
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

_Table = partial(Table, FILE)


# -- writing --------------------------------------------------------------------------------------


def render(sheet: Sheet) -> str:
    """The text of model.toml for `sheet`."""
    lines = [
        "# What the names of the tensor files do not say. Layers with tensors stand in the order",
        "# of their numbers; SPEC.md describes layouts A and B.",
        *pairs(version=VERSION, layout=sheet.layout, encoding=sheet.encoding),
        "",
        "[input]",
        *pairs(name=sheet.input.name, size=sheet.input.size, axes=sheet.input.axes),
    ]
    for layer in sheet.layers:
        lines += ["", "[[layer]]", *pairs(kind=layer.kind, name=layer.name, **_facts(layer))]
    for out in sheet.outputs:
        facts = {"role": out.role, "name": out.name, "axes": out.axes}
        slots = tuple(f"{slot.part} {slot.layer}" for slot in out.slots)
        packed = {"layers": out.layers, "slots": slots, "layout": out.layout}
        facts |= {key: value for key, value in packed.items() if value}
        lines += ["", "[[output]]", *pairs(**facts)]
    return "\n".join(lines) + "\n"


def _facts(layer: Layer | Weighted) -> dict[str, Any]:
    if isinstance(layer, Weighted) and layer.kind == "lstm":
        return {"biases": layer.biases}
    if isinstance(layer, Weighted | ActivationLayer):
        act = layer.activation
        return {"activation": act.name, "alpha": act.alpha, "beta": act.beta}
    return {key: getattr(layer, key) for key in _KEYS[layer.kind]}


# -- reading --------------------------------------------------------------------------------------


def parse(data: bytes) -> Sheet:
    """What model.toml says.

    Raises FormatError naming the key, UnsupportedError on a newer version, ModelError on values
    that no layer may have.
    """
    tree = load(data, FILE, VERSION)
    top = _Table("", tree, ("version", "layout", "encoding", "input", "layer", "output"))
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


def _activation(table: Table) -> Activation:
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


def _slots(table: Table) -> tuple[StateSlot, ...]:
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
