"""The report of a writer has every attribute of the model, each with what became of it, and what
it says was kept comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
from model_draws import draw
from roundtrip import READING, Column, columns
from roundtrip_features import BODIES, FEATURES

from ifgo import formats
from ifgo.activations import LINEAR, Activation
from ifgo.errors import UnsupportedError
from ifgo.formats import Report
from ifgo.formats._attributes import values
from ifgo.model import ActivationLayer, Layer, Model, Residual, StateSlot, walk

DRAWN = 12


def every_field(owner: Any, before: str = "") -> Iterator[str]:
    """The dotted fields of one part of a model."""
    for field in fields(owner):
        value = getattr(owner, field.name)
        if is_dataclass(value) and not isinstance(value, Activation):
            yield from every_field(value, f"{before}{field.name}.")
        else:
            yield before + field.name


def every_attribute(model: Model) -> list[tuple[str, str, str]]:
    """(kind of part, its name, field) of all that a model has."""
    parts: list[tuple[str, Any]] = [("input", entry) for entry in model.inputs]
    left = list(model.layers)
    while left:
        layer = left.pop(0)
        parts.append(("layer", layer))
        if isinstance(layer, Residual):
            left = [*layer.layers, *left]
    parts += [("output", entry) for entry in model.outputs]
    return [(kind, part.name, name) for kind, part in parts for name in every_field(part)]


@cache
def models() -> dict[str, list[Model]]:
    """Every feature of the round-trip matrix, without and with a dense layer at the end, which is
    all that a format can ask for where losses are permitted; then random models."""
    found = {name: [one.model(body) for body in BODIES[:2]] for name, one in FEATURES.items()}
    return found | {f"seed {seed}": [draw(seed).model] for seed in range(DRAWN)}


def written(model: Model, path: Path, column: Column) -> Report | None:
    """The report, None where the model is refused."""
    try:
        return formats.save(model, path, column.format, allow_lossy=True, **dict(column.options))
    except UnsupportedError:
        return None


WRITTEN = [column for column in columns() if column.format != "tensorflow"]


@pytest.mark.parametrize("column", WRITTEN, ids=str)
def test_every_attribute_is_in_the_report(column: Column, tmp_path: Path) -> None:
    path = column.path(tmp_path)
    count, faults = 0, list[str]()
    for name, bodies in models().items():
        for model in bodies:
            if path.is_dir():
                rmtree(path)
            report = written(model, path, column)
            if report is None:
                continue
            count += 1
            told = [(one.part, one.owner, one.name) for one in report.attributes]
            assert told == every_attribute(model), name
            fates = {one.fate for one in report.attributes}
            assert ("lost" in fates) == bool(report.lost), (name, report.lost)
            assert report.exact == (not fates & {"folded", "lost"}), (name, report.folded)
            reading = READING.get(column.format, lambda _: {})(model)
            back = formats.load(path, column.format, **reading)
            lies = list(untrue(model, report, back))
            faults += [f"{name}: {lie}" for lie in lies]
            break
    assert not faults, "\n".join(faults)
    assert count > 10


def untrue(model: Model, report: Report, back: Model) -> Iterator[str]:
    """Attributes that are said to be kept and come back as others. Layers are matched by kind and
    number; a kind may lack layers that are said to be left out or in another form."""
    kept = {(one.part, one.owner, one.name) for one in report.attributes if one.fate == "kept"}
    have, want = values(back), values(model)
    pairs: list[tuple[str, str, str]] = []
    linear = {layer.name for layer in walk(model.layers) if _is_linear(layer)}
    kept = {place for place in kept if place[0] != "layer" or place[1] not in linear}
    for kind in {layer.kind for layer in walk(model.layers)}:
        ours = [
            one.name for one in walk(model.layers) if one.kind == kind and one.name not in linear
        ]
        theirs = [one.name for one in walk(back.layers) if one.kind == kind]
        if len(ours) == len(theirs):
            pairs += [("layer", *pair) for pair in zip(ours, theirs, strict=True)]
        elif any(part == "layer" and owner in ours for part, owner, _ in kept):
            yield f"{len(ours)} {kind}, came back as {len(theirs)}"
    names = {ours: theirs for _, ours, theirs in pairs}
    for part in ("input", "output"):
        entries = zip(getattr(model, f"{part}s"), getattr(back, f"{part}s"), strict=False)
        pairs += [(part, ours.name, theirs.name) for ours, theirs in entries]
    matched = {(part, ours): theirs for part, ours, theirs in pairs}
    for part, owner, name in sorted(kept):
        if (part, owner) not in matched:
            yield f"{part} {owner}: {name}, which is gone"
            continue
        other = have.get((part, matched[part, owner], name))
        one = want[part, owner, name]
        if plain(one, names) != plain(other, {}):
            yield f"{part} {owner}: {name} {one!r}, came back as {other!r}"


def _is_linear(layer: Layer) -> bool:
    """Files hold such a layer, and reading it leaves it out: it does nothing."""
    return isinstance(layer, ActivationLayer) and layer.activation == LINEAR


def plain(value: Any, names: dict[str, str]) -> Any:
    """`value` as what compares equal where it is the same to the bit; layers by their new names."""
    match value:
        case np.ndarray():
            return value.dtype.name, value.shape, np.ascontiguousarray(value).tobytes()
        case tuple():
            return tuple(
                names.get(one, one) if isinstance(one, str) else plain(one, names) for one in value
            )
        case StateSlot():
            return names.get(value.layer, value.layer), value.part
        case Layer():
            return value.kind
    return value
