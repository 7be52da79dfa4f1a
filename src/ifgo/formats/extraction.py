"""Recurrent layers inside something larger: a listing, a choice by name, what is left out.

A format whose files hold more than a chain offers `list_layers(path, **options) -> Listing` and
takes `select` (names of that listing) in `read`. A format whose files are whole models needs
neither: `listing_of` and `part_of` do it on the Model.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ifgo.errors import UsageError
from ifgo.layers import Recurrent
from ifgo.model import FeatureInput, LengthsInput, Model, StateInput, walk
from ifgo.text import cut, quote

MAX_SHOWN: Final = 24
"""Names that a message lists at most."""


@dataclass(frozen=True)
class Found:
    """One recurrent layer of a file.

    name: what `select` takes. input_size, hidden_size, directions ("forward", "backward"): None
    and () where the file does not let them be known. options: all that is not the default, in
    words. source: where its input comes from. after: the recurrent layer before it, "" if none.
    refusal: why it cannot be read on its own, "" where it can.
    """

    name: str
    input_size: int | None
    hidden_size: int | None
    directions: tuple[str, ...]
    options: str
    source: str
    after: str = ""
    refusal: str = ""


@dataclass(frozen=True)
class Listing:
    """The recurrent layers of a file in order, and everything else by kind and count."""

    format: str
    layers: tuple[Found, ...]
    others: tuple[tuple[str, int], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What `select` takes."""
        return tuple(layer.name for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready facts."""
        return {
            "format": self.format,
            "lstms": [asdict(layer) for layer in self.layers],
            "others": dict(self.others),
        }


def counted(kinds: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Kind → how many, the most frequent first, then by name."""
    return tuple(sorted(Counter(kinds).items(), key=lambda pair: (-pair[1], pair[0])))


def left_out(others: Sequence[tuple[str, int]], what: str) -> str:
    """One sentence: "left out 5 nodes: 3 Conv, 2 Relu"; `what` is one thing, as "node"."""
    total = sum(count for _, count in others)
    if not total:
        return f"left out no {what}"
    words = ", ".join(f"{count} {cut(kind)}" for kind, count in others)
    return f"left out {total} {what}{'s' if total > 1 else ''}: {words}"


def chosen(select: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names in `select` (a string: between commas, or one name as it is), in that order.

    Raises UsageError on a name that `known` does not hold, one that stands twice, or none.
    """
    if isinstance(select, str):
        names = [select] if select in known else [name.strip() for name in select.split(",")]
    else:
        names = [str(name) for name in select]
    names = [name for name in names if name]
    if not names:
        raise UsageError("select names no layer", expected=_known(known))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"has no recurrent layer {quote(name)}",
                expected=_known(known),
                hint=f"Did you mean {quote(near[0])}?" if near else None,
            )
        if names.count(name) > 1:
            raise UsageError(f"select names {quote(name)} twice", expected="each layer once")
    return tuple(names)


def _known(known: Sequence[str]) -> str:
    if not known:
        return "a file with recurrent layers"
    more = f" and {len(known) - MAX_SHOWN} more" if len(known) > MAX_SHOWN else ""
    return "one of " + ", ".join(quote(name) for name in known[:MAX_SHOWN]) + more


# -- whole models -------------------------------------------------------------------------------


def listing_of(model: Model, format: str) -> Listing:
    """The recurrent layers of a whole model."""
    found: list[Found] = []
    before, last = f"input {quote(model.input.name)}", ""
    for layer in walk(model.layers):
        if isinstance(layer, Recurrent):
            sizes = layer.cell.input_size, layer.hidden_size
            found.append(
                Found(layer.name, *sizes, tuple(layer.cells), layer.detail(), before, last)
            )
            last = layer.name
        before = f"layer {quote(layer.name)} ({layer.kind})"
    others = counted(layer.kind for layer in walk(model.layers) if not isinstance(layer, Recurrent))
    return Listing(format, tuple(found), others)


def part_of(model: Model, select: str | Sequence[str]) -> Model:
    """The chain from the first to the last of the chosen recurrent layers, as a model of its own.

    Raises UsageError where the names are unknown, in another order, not all of those between, or
    inside a residual.
    """
    names = chosen(select, [layer.name for layer in model.recurrent])
    places = {layer.name: k for k, layer in enumerate(model.layers)}
    for name in names:
        if name not in places:
            raise UsageError(
                f"layer {quote(name)} stands inside a residual",
                expected="layers of the chain itself",
            )
    first, last = places[names[0]], places[names[-1]]
    inside = model.layers[first : last + 1]
    between = [layer.name for layer in walk(inside) if isinstance(layer, Recurrent)]
    if tuple(between) != names:
        wanted = between or [layer.name for layer in model.recurrent if layer.name in names]
        raise UsageError(
            f"select names {', '.join(map(quote, names))}",
            expected="layers one after another, as " + ",".join(wanted),
        )
    width = ([model.input_size, *model.sizes()])[first]
    given = set(between)
    axes = model.input.axes
    states: list[LengthsInput | StateInput] = []
    for entry in model.inputs[1:]:
        if isinstance(entry, LengthsInput):
            ended = any(layer.signature == "sequence→vector" for layer in model.layers[:first])
            states += [] if ended else [entry]
        elif isinstance(entry, StateInput):
            states += _states(entry, given)
    rest = [*model.layers[:first], *model.layers[last + 1 :]]
    notes = (
        *model.provenance.notes,
        left_out(counted(layer.kind for layer in rest), "layer"),
    )
    domain = Model((FeatureInput(width, axes=axes), *states), inside)
    ends = tuple(replace(output, axes=axes) for output in domain.outputs)
    return replace(domain, outputs=ends, provenance=replace(model.provenance, notes=notes))


def _states(entry: StateInput, given: set[str]) -> list[StateInput]:
    """The part of a state input that is for the chosen layers, one tensor per state if it is a
    part only."""
    kept = [slot for slot in entry.slots if slot.layer in given]
    if len(kept) == len(entry.slots):
        return [entry]
    return [StateInput(f"{slot.layer}.{slot.part}", (slot,)) for slot in kept]
