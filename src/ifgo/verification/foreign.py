"""Judging one layer of a foreign runtime by itself: what it is fed decides, not what came before.

Two ways, both under local bounds (SPEC.md 6.2, 6.3). Stepped: every step of the reference run again
as a sequence of one step, from the reference's x, h and c. Whole: Y, Y_h and Y_c of the layer over
the sequence it was fed, each step of Y judged from the step of Y before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.model import LSTMCell, Model, Recurrent, walk
from ifgo.reference import truth
from ifgo.verification import bounds
from ifgo.verification.bounds import ActivationErrors
from ifgo.verification.findings import (
    Errors,
    Finding,
    Subject,
    first_unjudged,
    unjudged,
    within,
)
from ifgo.verification.local import LARGEST, overflow_note, step_errors

F64 = NDArray[np.float64]
Trace = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Whole:
    """A recurrent layer over a sequence: x (B, T, I) as it was fed, Y (B, T, D, P), Y_h (D, B, P)
    and Y_c (D, B, H)."""

    x: NDArray[Any]
    y: NDArray[Any]
    h_n: NDArray[Any]
    c_n: NDArray[Any]


Runner = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], Whole]
"""The layer as the runtime computes it: x (B, T, I), h (D, B, P), c (D, B, H), all float32."""

Probe = Callable[[LSTMCell, NDArray[Any], NDArray[Any], NDArray[Any], int], dict[str, Errors]]
"""(cell, x (B, T, I), h (B, T, P), c (B, T, H), position of the direction) → errors of gates."""


@dataclass(frozen=True)
class Judged:
    """Findings of a layer, one per direction, and the largest local bound of h and c of each step,
    summed over steps and directions."""

    findings: list[Finding]
    injected: float


def subjects(model: Model, layer: Recurrent, runtime: str) -> dict[str, Subject]:
    """Direction → who is judged, as `runtime` computes `layer`."""
    depth = next(n for n, each in enumerate(walk(model.layers)) if each is layer)
    return {
        direction: Subject(
            runtime,
            "truth",
            layer.name,
            direction if layer.directions == 2 else "",
            depth,
            direction == "backward",
        )
        for direction in layer.cells
    }


def judge(
    layer: Recurrent,
    whose: Mapping[str, Subject],
    traces: Mapping[str, Trace],
    start: tuple[NDArray[Any], NDArray[Any]],
    run: Runner,
    whole: Whole,
    errors: ActivationErrors,
    *,
    arrived: Errors | None = None,
    probe: Probe | None = None,
    note: str = "",
) -> Judged:
    """Both ways for each direction. whose: direction → who is judged.

    traces: the reference's, by direction. start: h (D, B, P) and c (D, B, H) of the sequence.
    run: the layer, for single steps. whole: what it made of the sequence. arrived: errors of the x
    it was fed. probe: looks at the gates one by one where c or h is wrong.
    """
    directions = list(layer.cells)
    batch, steps = next(iter(traces.values()))["x"].shape[:2]
    before = [
        np.stack([traces[d][f"{part}_before"].reshape(batch * steps, -1) for d in directions])
        for part in "hc"
    ]
    findings: list[Finding] = []
    injected = 0.0
    for position, direction in enumerate(directions):
        cell, who = layer.cells[direction], whose[direction]
        trace = traces[direction]
        x = trace["x"].reshape(batch * steps, -1)
        single = run(np.ascontiguousarray(x[:, None]), *before)
        got = {
            part: array[position].reshape(batch, steps, -1)
            for part, array in (("h", single.h_n), ("c", single.c_n))
        }
        seen = (trace["x"], trace["h_before"], trace["c_before"])
        found = step_errors(cell, *seen, got, errors, who.backward)
        notes = [note, overflow_note(found, who.backward)]
        beyond = np.asarray(np.isinf(found["h"].bound).any(axis=2))
        if probe is not None and any(error.wrong.any() for error in found.values()):
            found = probe(cell, *seen, position) | found
        injected += float(np.maximum(*(found[p].bound.max(axis=2) for p in "ch")).max(axis=0).sum())
        first = (start[0][position], start[1][position])
        followed = _followed(cell, whole, position, first, who.backward, errors, beyond)
        notes += [] if notes[1] else [_unbounded(followed, who.backward)]
        found |= followed
        found = found if arrived is None else {"x": arrived, **found}
        said = "; ".join(filter(None, notes))
        if beyond.all() and not any(error.wrong.any() for error in found.values()):
            findings.append(who.silent(said))
        else:
            findings.append(who.finding(found, "local bound", note=said))
    return Judged(findings, injected)


def _followed(
    cell: LSTMCell,
    whole: Whole,
    position: int,
    start: tuple[NDArray[Any], NDArray[Any]],
    backward: bool,
    errors: ActivationErrors,
    beyond: NDArray[np.bool_],
) -> dict[str, Errors]:
    """Y, Y_h and Y_c: each step in float64 from the h that the runtime itself put out before it.

    c is not put out, so it is carried in float64 with a bound that grows by each step's own. A unit
    is not judged where that bound is no longer finite, a row from where float32 overflows.
    beyond (B, T): where it may, as the reference has it.
    """
    y = whole.y[:, :, position].astype(np.float64)
    h, c = start[0].astype(np.float64), start[1].astype(np.float64)
    off = np.zeros_like(c)
    last, last_bound = h, np.zeros_like(h)
    difference, bound = np.zeros_like(y), np.zeros_like(y)
    order = range(y.shape[1])
    lost = np.zeros((y.shape[0], 1), bool)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for t in reversed(order) if backward else order:
            x = whole.x[:, t].astype(np.float64)
            now = truth.step(cell, x, h, c)
            allowed = bounds.cell_bounds(cell, x, h, c, now, errors, off)
            lost |= beyond[:, t, None]
            for part in truth.TRACED:
                lost |= ~(np.abs(getattr(now, part)) <= LARGEST).all(axis=1, keepdims=True)
            last, last_bound = now.h, _finite(allowed["h"], lost)
            difference[:, t], bound[:, t] = np.abs(y[:, t] - now.h), last_bound
            h, c, off = y[:, t], now.c, _finite(allowed["c"], lost)
        h_off = np.abs(whole.h_n[position].astype(np.float64) - last)
        c_off = np.abs(whole.c_n[position].astype(np.float64) - c)
    at = 0 if backward else y.shape[1] - 1
    return {
        "Y": _judged(difference, bound),
        "Y_h": _at_step(_judged(h_off, last_bound), at, y.shape[1]),
        "Y_c": _at_step(_judged(c_off, off), at, y.shape[1]),
    }


def _finite(bound: F64, lost: NDArray[np.bool_]) -> F64:
    """The bound, infinite where it is no number (an infinite one times 0) or the row is lost."""
    return np.where(lost | ~np.isfinite(bound), np.inf, bound)


def _judged(difference: F64, bound: F64) -> Errors:
    """Errors where the bound is finite; elsewhere nothing is said."""
    return unjudged(within(difference, bound), np.isinf(bound))


def _unbounded(followed: Mapping[str, Errors], backward: bool) -> str:
    """What of Y, Y_h and Y_c has no bound; "" where all have one."""
    parts = {p: error for p, error in followed.items() if np.isinf(error.bound).any()}
    if not parts:
        return ""
    at = first_unjudged(parts, backward)
    assert at is not None
    return f"{', '.join(parts)}: no bound from step {at[0]}, row {at[1]}, not judged there"


def _at_step(errors: Errors, step: int, steps: int) -> Errors:
    """Errors (B, ·) of a value that belongs to one step, as (B, T, ·)."""
    shape = (errors.wrong.shape[0], steps, errors.wrong.shape[1])
    difference, bound = np.zeros(shape), np.ones(shape)
    difference[:, step], bound[:, step] = errors.difference, errors.bound
    return within(difference, bound)
