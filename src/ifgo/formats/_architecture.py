"""An architecture file: the chain around the modules of a state_dict, in the words of model.toml.

version = 1
[[layer]]
kind = "lstm"
module = "rec"       # its path in the file, or the end of it
[[layer]]
kind = "last_step"
of = "sequence"
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

from ifgo import files
from ifgo.activations import Activation
from ifgo.errors import ModelError, UsageError
from ifgo.formats._state_chain import Step, Use
from ifgo.formats._toml import Table, load
from ifgo.layers import (
    ActivationLayer,
    Dropout,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    RepeatVector,
)

VERSION: Final = 1
_ACTIVATION: Final = ("activation", "alpha", "beta")
_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "lstm": ("module",),
    "embedding": ("module",),
    "dense": ("module", *_ACTIVATION),
    "batch_norm": ("module", "epsilon"),
    "activation": _ACTIVATION,
    "dropout": ("rate",),
    "last_step": ("of",),
    "hidden_as_sequence": (),
    "repeat_vector": ("steps",),
    "flatten": ("steps",),
}
"""Layer kind → its keys besides kind and name."""


def chain_of(layers: str | None, architecture: str | None) -> str | tuple[Step, ...] | None:
    """What the options of a state_dict say of its chain; UsageError where both do."""
    if architecture is None:
        return layers
    if layers is not None:
        raise UsageError(
            "options layers and architecture both say the chain", expected="one of them"
        )
    return read_steps(Path(architecture))


def read_steps(path: Path) -> tuple[Step, ...]:
    """The chain that the file at `path` says.

    Raises UsageError where there is no such file, FormatError naming the key, ModelError on values
    that no layer may have.
    """
    tree = load(files.read_bytes(path, limit="toml_bytes"), path.name, VERSION)
    top = Table(path.name, "", tree, ("version", "layer"))
    steps: list[Step] = []
    for place, values in top.tables("layer"):
        try:
            steps += _steps(partial(Table, path.name, place), values)
        except ModelError as error:
            raise error.located(f"{path.name}: {place}") from None
    return tuple(steps)


def _steps(table_of: Any, values: dict[str, Any]) -> list[Step]:
    """One layer; a dense layer with an activation is two steps."""
    common = ("kind", "name")
    kind: str = table_of({"kind": values.get("kind")}, common).choice("kind", tuple(_KEYS))
    table: Table = table_of(values, common + _KEYS[kind])
    name = table.text("name") if "name" in values else ""
    match kind:
        case "lstm" | "embedding" | "dense":
            steps: list[Step] = [Use(table.text("module"), kind, name=name)]
            return steps + ([_activation(table, name)] if "activation" in values else [])
        case "batch_norm":
            return [Use(table.text("module"), epsilon=table.number("epsilon"), name=name)]
        case "activation":
            return [_activation(table, name or kind)]
        case _:
            return [_plain(kind, table, name or kind)]


def _plain(kind: str, table: Table, name: str) -> Layer:
    match kind:
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


def _activation(table: Table, name: str) -> ActivationLayer:
    values = {key: table.number(key) for key in ("alpha", "beta") if key in table.values}
    said = table.text("activation")
    return ActivationLayer(name or said, Activation(said, **values))
