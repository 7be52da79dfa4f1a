"""Layer names as they may be printed: a file can put anything into a name."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ifgo.cli.terminal import escape
from ifgo.model import Layer, Model, Residual, StateInput, walk

LONGEST: Final = 100
"""Characters of a name that a table shows."""


def printable(model: Model) -> Model:
    """`model` with every name escaped and kept unique, for text; itself where no name needs it."""
    names: dict[str, str] = {}
    for name in (layer.name for layer in walk(model.layers)):
        shown = _short(name)
        while shown in names.values():
            shown += "'"
        names[name] = shown
    entries = (*model.inputs, *model.outputs)
    if all(name == shown for name, shown in names.items()) and all(
        entry.name == _short(entry.name) for entry in entries
    ):
        return model
    return replace(
        model,
        inputs=tuple(
            replace(
                entry,
                name=_short(entry.name),
                slots=tuple(replace(slot, layer=names[slot.layer]) for slot in entry.slots),
            )
            if isinstance(entry, StateInput)
            else replace(entry, name=_short(entry.name))
            for entry in model.inputs
        ),
        layers=tuple(_renamed(layer, names) for layer in model.layers),
        outputs=tuple(
            replace(
                output,
                name=_short(output.name),
                layers=tuple(names[layer] for layer in output.layers),
            )
            for output in model.outputs
        ),
    )


def _short(name: str) -> str:
    shown = escape(name)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


def _renamed(layer: Layer, names: dict[str, str]) -> Layer:
    renamed = replace(layer, name=names[layer.name])
    if isinstance(renamed, Residual):
        return replace(renamed, layers=tuple(_renamed(inner, names) for inner in renamed.layers))
    return renamed
