"""A finding: one layer of one runtime against its judge, and where the two part first.

Everything here works on the errors of the intermediates of a layer, in order of computing; where
the errors come from is the business of the modules that compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

Cause = Literal["", "own", "inherited"]

SLICES: Final = 48
"""Most slices of time that `PartErrors.heat` tells apart."""

WORDS: Final = {
    "x": "input",
    "h_before": "state h before the step",
    "c_before": "state c before the step",
    **{f"z_{gate}": f"sum of gate {gate}" for gate in "ifgo"},
    **{gate: f"gate {gate}" for gate in "ifgo"},
    "c": "cell state",
    "m": "output before the projection",
    "h": "output",
    "y": "output",
}
"""Part → what it is called in a sentence; others are called by their names."""


@dataclass(frozen=True)
class Errors:
    """|difference| of one part, what it may be, and which elements are wrong; all (B, T, ·)."""

    difference: F64
    bound: F64
    wrong: Bools

    @property
    def used(self) -> F64:
        """Share of the bound: 0 where nothing differs, infinite where bits had to be equal."""
        with np.errstate(invalid="ignore", over="ignore"):
            share = self.difference / np.maximum(self.bound, 2.0**-149)
        share = np.where(self.difference == 0, 0.0, share)
        share = np.where(np.isfinite(share), share, np.inf)
        return np.where(self.wrong & (share <= 1), np.inf, share)


def within(difference: F64, bound: F64) -> Errors:
    """Errors held to a bound; what is no number is wrong."""
    return Errors(difference, bound, ~(difference <= bound))


def unjudged(errors: Errors, where: Bools) -> Errors:
    """`errors` where `where` (of their shape, or broadcast to it) is False; elsewhere an infinite
    bound, under which nothing is wrong and nothing is said."""
    return Errors(
        np.where(where, 0.0, errors.difference),
        np.where(where, np.inf, errors.bound),
        errors.wrong & ~where,
    )


def first_unjudged(errors: Mapping[str, Errors], backward: bool) -> tuple[int, int] | None:
    """(step, row) where, in order of computing, a bound first is infinite; None where none is."""
    where = np.any([np.isinf(found.bound).any(axis=2) for found in errors.values()], axis=0)
    steps = np.flatnonzero(where.any(axis=0))
    if not steps.size:
        return None
    step = int(steps[-1] if backward else steps[0])
    return step, int(np.argmax(where[:, step]))


def bits(want: NDArray[Any], have: NDArray[Any]) -> Errors:
    """float32 arrays held to the same bits."""
    have = np.ascontiguousarray(have, dtype=np.float32)
    wrong = np.ascontiguousarray(want).view(np.uint32) != have.view(np.uint32)
    with np.errstate(invalid="ignore"):
        difference = np.abs(want.astype(np.float64) - have)
    difference = np.where(wrong, difference, 0.0)
    bound = np.where(wrong, 0.0, np.inf)
    return Errors(difference, bound, wrong)


@dataclass(frozen=True)
class PartErrors:
    """One intermediate over all rows, steps and units.

    difference, bound, row, step, unit: those of the place that comes nearest its bound, or goes
    farthest beyond it; used is difference / bound there (EXACT: 0, or infinite). heat: the largest
    `used` in each of at most SLICES equal slices of time.
    """

    part: str
    holds: bool
    difference: float
    bound: float
    used: float
    row: int
    step: int
    unit: int
    heat: tuple[float, ...]


@dataclass(frozen=True)
class Finding:
    """One layer (or the whole model) of one runtime against its judge.

    basis: "EXACT" (bits), "local bound" or "global bound"; "" where nothing could be compared,
    `note` then says why. part, step, row and unit: where a finding that fails goes wrong first, in
    order of computing (a backward direction starts at the last step); else the place nearest its
    bound. difference and bound are those of that place, `parts` has the largest of each part.
    cause: "own" where the layer errs by itself, "inherited" where it only repeats what arrived.
    order: where the place stands in the order of computing: layer, steps done before it, part.
    """

    runtime: str
    judge: str
    layer: str
    basis: str
    holds: bool
    difference: float = 0.0
    bound: float = 0.0
    part: str = ""
    step: int | None = None
    unit: int | None = None
    note: str = ""
    row: int | None = None
    direction: str = ""
    cause: Cause = ""
    order: tuple[int, int, int] = (0, 0, 0)
    parts: tuple[PartErrors, ...] = ()

    @property
    def compared(self) -> bool:
        """Whether anything was compared at all."""
        return bool(self.basis)

    @property
    def where(self) -> str:
        """The layer, with its direction where it has two."""
        return f"{self.layer} {self.direction}" if self.direction else self.layer

    @property
    def verdict(self) -> str:
        """EXACT, within its bound, DIFFERS, or not compared."""
        if not self.compared:
            return "not compared"
        if not self.holds:
            return "DIFFERS" if self.basis == "EXACT" else f"OUT OF {self.basis}"
        return "EXACT" if self.basis == "EXACT" else f"within {self.basis}"

    @property
    def place(self) -> str:
        """Gate or part, step, row and unit of the difference; "" where there is none."""
        if self.step is None or (self.basis == "EXACT" and self.holds):
            return ""
        words = [self.part, f"step {self.step}"]
        words += [] if self.row is None else [f"row {self.row}"]
        words += [] if self.unit is None else [f"unit {self.unit}"]
        return ", ".join(words)

    @property
    def used(self) -> float:
        """Largest share of its bound over all parts, the place included."""
        here = self.difference / self.bound if self.bound else (0.0 if self.holds else np.inf)
        return max([np.inf if np.isnan(here) else here, *(part.used for part in self.parts)])


@dataclass(frozen=True)
class Subject:
    """Who is judged: a layer and direction of a runtime. depth: how many layers compute before."""

    runtime: str
    judge: str
    layer: str
    direction: str = ""
    depth: int = 0
    backward: bool = False

    def silent(self, note: str) -> Finding:
        """Nothing could be compared."""
        return Finding(
            self.runtime,
            self.judge,
            self.layer,
            "",
            True,
            note=note,
            direction=self.direction,
            order=(self.depth, 0, 0),
        )

    def missing(self, basis: str, note: str) -> Finding:
        """The runtime does not compute the layer at all."""
        return Finding(
            self.runtime,
            self.judge,
            self.layer,
            basis,
            False,
            note=note,
            direction=self.direction,
            cause="own",
            order=(self.depth, 0, 0),
        )

    def finding(
        self,
        errors: Mapping[str, Errors],
        basis: str,
        *,
        cause: Cause = "own",
        at: First | None = None,
        note: str = "",
    ) -> Finding:
        """What `errors` say, parts in order of computing. cause and `at` (where it goes wrong
        first, if not at the first of `errors`) matter only where it fails."""
        parts = tuple(_summary(part, found) for part, found in errors.items())
        first = first_wrong(errors, self.backward)
        if first is None:
            at, cause = _nearest(parts, errors), ""
        elif at is None:
            at = first
        place = (at.row, at.step, at.unit)
        return Finding(
            self.runtime,
            self.judge,
            self.layer,
            basis,
            first is None,
            float(errors[at.part].difference[place]),
            0.0 if basis == "EXACT" else float(errors[at.part].bound[place]),
            at.part,
            at.step,
            at.unit,
            note,
            at.row,
            self.direction,
            cause,
            (self.depth, at.done, at.rank),
            parts,
        )


@dataclass(frozen=True)
class First:
    """A place: `done` steps computed before its own, `rank` parts before it within the step."""

    done: int
    rank: int
    part: str
    row: int
    step: int
    unit: int


def first_wrong(errors: Mapping[str, Errors], backward: bool) -> First | None:
    """Where errors go wrong first in order of computing; of the rows and units of that step and
    part the one farthest beyond its bound. None where nothing is wrong."""
    best: First | None = None
    for rank, (part, found) in enumerate(errors.items()):
        steps = np.flatnonzero(found.wrong.any(axis=(0, 2)))
        if not steps.size:
            continue
        step = int(steps[-1] if backward else steps[0])
        done = found.wrong.shape[1] - 1 - step if backward else step
        if best is None or (done, rank) < (best.done, best.rank):
            used, size = found.used[:, step], found.difference[:, step]
            size = np.where(np.isfinite(size), size, np.inf)
            size = np.where(found.wrong[:, step] & (used >= used.max()), size, -1.0)
            row, unit = np.unravel_index(int(np.argmax(size)), size.shape)
            best = First(done, rank, part, int(row), step, int(unit))
    return best


def _summary(part: str, errors: Errors) -> PartErrors:
    used = errors.used
    place = np.unravel_index(int(np.argmax(used)), used.shape)
    if np.isinf(used[place]):  # of several beyond every bound, the largest
        size = np.where(np.isinf(used), errors.difference, -1.0)
        place = np.unravel_index(int(np.argmax(np.where(np.isnan(size), np.inf, size))), size.shape)
    row, step, unit = (int(index) for index in place)
    over_time = used.max(axis=(0, 2))
    slices = np.array_split(over_time, min(SLICES, over_time.size))
    bound = float(errors.bound[place])
    return PartErrors(
        part,
        not errors.wrong.any(),
        float(errors.difference[place]),
        bound if np.isfinite(bound) else 0.0,
        float(used[place]),
        row,
        step,
        unit,
        tuple(float(piece.max()) for piece in slices),
    )


def _nearest(parts: tuple[PartErrors, ...], errors: Mapping[str, Errors]) -> First:
    """The place of all parts that comes nearest its bound."""
    best = max(parts, key=lambda part: part.used)
    return First(0, list(errors).index(best.part), best.part, best.row, best.step, best.unit)
