"""Every attribute of a Model by its place, and what became of each when it was written.

The list comes from the dataclasses, so a field that is new to the Model is in every report; what a
writer changes, it marks. This is the one place that enumerates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from ifgo.activations import Activation
from ifgo.errors import UsageError
from ifgo.interface import Output
from ifgo.layers import Layer, Recurrent
from ifgo.model import Model, walk
from ifgo.text import quote

Fate = Literal["kept", "folded", "lost", "unsaid"]
"""unsaid: the file says it otherwise or not at all, and no number of this model depends on it, such
as a name."""

LOSSES: Final = {
    "dtype": "numbers rounded to the type that the file holds",
    "decimals": "numbers rounded to the decimals asked for",
    "bias": "an absent bias or scale written as zeros or ones",
    "forget_bias": "a run-time forget bias added to the stored bias, rounded once",
    "coupling": "a coupled input gate written as a gate of its own",
    "dropout": "dropout layers, which inference passes through",
    "training": "dropout that a layer had in training",
    "merge": "how two directions are joined, where there is one",
    "zero_masked": "zeros at masked steps, where nothing masks",
    "stateful": "whether the state outlives a sequence",
    "lengths": "the input of sequence lengths",
    "states": "states as inputs of their own",
    "outputs": "names, axes or states among the outputs",
}
"""What `allow_lossy` may name, and what each means."""

Part = Literal["layer", "input", "output"]

Losses = bool | Collection[str]
"""allow_lossy: names of LOSSES; False is none, True all of them."""


def permitted(allow_lossy: Losses) -> frozenset[str]:
    """The names that `allow_lossy` permits. Raises UsageError on one that is no loss."""
    if isinstance(allow_lossy, bool):
        return frozenset(LOSSES) if allow_lossy else frozenset()
    names = [allow_lossy] if isinstance(allow_lossy, str) else list(allow_lossy)
    for name in names:
        if name not in LOSSES:
            raise UsageError(
                f"allow_lossy names {quote(name)}", expected="one of " + ", ".join(LOSSES)
            )
    return frozenset(names)


def permission(losses: Iterable[str]) -> str:
    """The option that permits `losses`, as the command line takes it."""
    return "--allow-lossy " + ",".join(dict.fromkeys(losses))


@dataclass(frozen=True)
class Attribute:
    """One field of one part of a Model, and what writing did to it.

    part: "layer", "input" or "output"; owner: the name of that part; name: the field, dotted where
    it lies inside another. usual: the value is the default, or None. words: what a writer says.
    """

    part: Part
    owner: str
    name: str
    fate: Fate = "kept"
    words: str = ""
    usual: bool = False

    def __str__(self) -> str:
        return f"{self.part} {self.owner}: {self.name}"


@dataclass(frozen=True)
class Mark:
    """What a writer says of an attribute, of all inside it, or with name "" of the whole part."""

    part: Part
    owner: str
    name: str
    fate: Fate
    words: str = ""

    def covers(self, attribute: Attribute) -> bool:
        """Whether `attribute` is meant; a field of a cell may be named without its direction."""
        if (self.part, self.owner) != (attribute.part, attribute.owner):
            return False
        inside = f".{attribute.name}."
        return not self.name or f".{self.name}." in inside


def owner_of(part: str | Any) -> tuple[Part, str]:
    """The kind and name of a part of a model; a string is the name of a layer."""
    if isinstance(part, str):
        return "layer", part
    if isinstance(part, Layer):
        return "layer", part.name
    return ("output" if isinstance(part, Output) else "input"), part.name


def values(model: Model) -> dict[tuple[Part, str, str], Any]:
    """(part, owner, name) → value, of every field of every input, layer and output."""
    found: dict[tuple[Part, str, str], Any] = {}
    for part in _parts(model):
        kind, owner = owner_of(part)
        found |= {(kind, owner, name): value for name, value, _ in _fields(part)}
    return found


def attributes(model: Model, marks: Iterable[Mark]) -> tuple[Attribute, ...]:
    """Every attribute of `model` with the gravest of the `marks` on it; what none covers is kept.
    A mark that covers nothing stands for itself."""
    plain: list[Attribute] = []
    idle: list[Mark] = []
    for part in _parts(model):
        kind, owner = owner_of(part)
        plain += [Attribute(kind, owner, name, usual=usual) for name, _, usual in _fields(part)]
        if isinstance(part, Recurrent) and part.directions == 1:
            idle.append(Mark(kind, owner, "merge", "unsaid", "one direction"))
    return with_marks(plain, [*idle, *marks])


def with_marks(plain: Iterable[Attribute], marks: Iterable[Mark]) -> tuple[Attribute, ...]:
    """`plain` with the gravest of what is said of each; see `attributes`."""
    found: list[Attribute] = []
    left = list(marks)
    met: set[int] = set()
    for one in plain:
        on = [k for k, mark in enumerate(left) if mark.covers(one)]
        met.update(on)
        said = [Mark(one.part, one.owner, one.name, one.fate, one.words), *(left[k] for k in on)]
        fate = max((mark.fate for mark in said), key=_GRAVITY.index)
        words = dict.fromkeys(mark.words for mark in said if mark.fate == fate and mark.words)
        found.append(replace(one, fate=fate, words="; ".join(words)))
    found += [
        Attribute(mark.part, mark.owner, mark.name, mark.fate, mark.words)
        for k, mark in enumerate(left)
        if k not in met
    ]
    return tuple(found)


_GRAVITY: Final = ("kept", "unsaid", "folded", "lost")


def _parts(model: Model) -> Iterator[Any]:
    yield from model.inputs
    yield from walk(model.layers)
    yield from model.outputs


def _fields(owner: Any, before: str = "") -> Iterator[tuple[str, Any, bool]]:
    """Place, value, and whether that is the default, of every field; nested ones dotted."""
    for field in fields(owner):
        value = getattr(owner, field.name)
        if is_dataclass(value) and not isinstance(value, Activation):
            yield from _fields(value, f"{before}{field.name}.")
        else:
            yield before + field.name, value, _usual(field, value)


def _usual(field: Field[Any], value: Any) -> bool:
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    if value is None or value is default:
        return True
    if isinstance(value, np.ndarray) or default is MISSING:
        return False
    return bool(value == default)
