"""What goes into a model and what comes out, as its source names and lays it out.

A Model computes on (B, T, ·) and on states by key (ifgo.states) whatever stands here; formats keep
the names and axes of the file they read, and write them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifgo.fields import check_fields
from ifgo.packing import Packing

Axes = Literal["BT", "TB", "T"]
"""How the source lays out batch and time; ifgo itself always takes (B, T, ·)."""


@dataclass(frozen=True)
class FeatureInput:
    """Real features: (B, T, size) in ifgo; `axes` is the order of B and T in the source."""

    size: int
    name: str = "x"
    axes: Axes = "BT"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TokenInput:
    """Token ids in [0, vocabulary): (B, T) in ifgo; the first layer is then an Embedding."""

    vocabulary: int
    name: str = "x"
    axes: Axes = "BT"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class LengthsInput:
    """Length of each sequence, (B,) integers in [0, T]."""

    name: str = "lengths"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class StateSlot:
    """One state of one recurrent layer: part "h" (D, B, P) or "c" (D, B, H)."""

    layer: str
    part: Literal["h", "c"]

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class StateInput:
    """Initial states the caller gives, packed in the order of `slots`.

    layout: the axes of the tensor as ifgo.packing writes them; "" packs along the leading axis.
    Raises ModelError where it is no layout.
    """

    name: str
    slots: tuple[StateSlot, ...]
    layout: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.layout:
            Packing.parse(self.layout)


@dataclass(frozen=True)
class Output:
    """One result, in the order the source lists them.

    role: "sequence" (B, T, ·) or "last" (B, ·): the end of the chain; "h_n" or "c_n": the final
    states of `layers`; "state": the final states that `slots` name. States are packed as in a
    StateInput. Raises ModelError where `layout` is none.
    """

    role: Literal["sequence", "last", "h_n", "c_n", "state"]
    name: str = "y"
    layers: tuple[str, ...] = ()
    axes: Axes = "BT"
    slots: tuple[StateSlot, ...] = ()
    layout: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.layout:
            Packing.parse(self.layout)

    @property
    def states(self) -> tuple[StateSlot, ...]:
        """The states it holds, in order; () for the end of the chain."""
        if self.role == "h_n" or self.role == "c_n":
            part = "h" if self.role == "h_n" else "c"
            return tuple(StateSlot(layer, part) for layer in self.layers)
        return self.slots
