"""Emitted C of the contracted variant against float64 truth: each layer by its local bound.

What a compiler fuses differs between builds, traced ones included; so the plain build's own output
is held to the global bound as well, where that says something (SPEC.md section 6.3).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo import backends
from ifgo.errors import UnsupportedError
from ifgo.model import Model, walk
from ifgo.states import State
from ifgo.verification import bounds, compare
from ifgo.verification.findings import Finding, Subject, within
from ifgo.verification.global_bound import LARGEST_AMPLIFICATION, OVERFLOWS, Whole, whole
from ifgo.verification.local import may_overflow


def against_truth(model: Model, x: NDArray[Any], start: State, name: str) -> list[Finding]:
    """Every layer and the output of `name`, c99:contracted or qemu:BOARD:contracted."""
    y, _ = backends.backend(name)(model, x, start, None)
    try:
        traces = _traces(model, x, start, name)
        findings = compare.traced_against_truth(model, traces, name, bounds.CONTRACTED)
    except UnsupportedError as error:
        findings = [Subject(name, "truth", "every layer").silent(f"traces: {error}")]
    subject = Subject(name, "truth", "whole model", "", sum(1 for _ in walk(model.layers)))
    try:
        return [*findings, output_finding(subject, y, whole(model, x, start))]
    except UnsupportedError as error:
        return [*findings, subject.silent(str(error))]


def output_finding(subject: Subject, y: NDArray[Any], known: Whole) -> Finding:
    """y against truth under the global bound; reported only where that says nothing."""
    if may_overflow(known.y, known.bound).any():
        return subject.silent(OVERFLOWS)
    difference = np.abs(y.astype(np.float64) - known.y)
    note = f"amplification {known.amplification:.3g}"
    if known.amplification >= LARGEST_AMPLIFICATION:
        return subject.silent(f"{note}, difference {float(difference.max()):.2e} reported only")
    three = difference if difference.ndim == 3 else difference[:, None]
    errors = {"y": within(three, np.full_like(three, known.bound))}
    return subject.finding(errors, "global bound", note=note)


def _traces(model: Model, x: NDArray[Any], start: State, name: str) -> compare.Traces:
    base, variant = backends.split_variant(name)
    if base.startswith(backends.EMULATED):
        from ifgo.targets import cortex_m

        board = cortex_m.find_board(base.removeprefix(backends.EMULATED))
        return cortex_m.trace_model(model, x, start, board, variant=variant)
    from ifgo.targets import c99

    with tempfile.TemporaryDirectory(prefix="ifgo-") as folder:
        steps = x.shape[1]
        built = c99.build(model, Path(folder), max_steps=steps, trace=True, variant=variant)
        return built.run(x, start)[2]
