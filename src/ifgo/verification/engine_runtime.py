"""The compiled engine against float64 truth: each layer by its local bound, the output by the
global one (SPEC.md 6.3).

Each layer is fed the reference's own input, so layers are judged apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import backends
from ifgo.errors import UnsupportedError
from ifgo.layers import InitialState
from ifgo.model import FeatureInput, Layer, Model, Recurrent, walk
from ifgo.reference.interpret import Execution
from ifgo.states import State
from ifgo.verification import bounds, compare
from ifgo.verification.contracted import output_finding
from ifgo.verification.findings import Finding, Subject
from ifgo.verification.foreign import Runner, Whole, judge, subjects
from ifgo.verification.global_bound import whole

RUNTIME: Final = "engine"


def against_truth(model: Model, x: NDArray[Any], start: State, done: Execution) -> list[Finding]:
    """Every layer, then the output.

    Raises ToolError where the engine is not installed, UnsupportedError where it does not compute
    the model.
    """
    y, _ = backends.backend(RUNTIME)(model, x, start, None)
    findings: list[Finding] = []
    for k, layer in enumerate(model.recurrent):
        traces = done.traces[layer.name]
        first = (start[f"h{k}"], start[f"c{k}"])
        run = runner(layer)
        fed = run(next(iter(traces.values()))["x"], *first)
        whose = subjects(model, layer, RUNTIME)
        findings += judge(layer, whose, traces, first, run, fed, bounds.ENGINE).findings
    for subject, layer, trace in compare.observed(model, done.traces, RUNTIME, "truth"):
        if not isinstance(layer, Recurrent):
            findings.append(_pointwise(layer, subject, trace))
    subject = Subject(RUNTIME, "truth", "whole model", "", sum(1 for _ in walk(model.layers)))
    try:
        known = whole(model, x, start, bounds.ENGINE)
    except UnsupportedError as error:
        return [*findings, subject.silent(str(error))]
    return [*findings, output_finding(subject, y, known)]


def runner(layer: Recurrent) -> Runner:
    """`layer` alone in the engine, its directions apart, steps in the order that they are given."""
    alone = replace(layer, merge="concat", go_backwards=False, initial=InitialState())
    model = Model((FeatureInput(layer.cell.input_size),), (alone,))

    def run(x: NDArray[Any], h: NDArray[Any], c: NDArray[Any]) -> Whole:
        state = {"h0": h.astype(np.float32), "c0": c.astype(np.float32)}
        y, final = backends.backend(RUNTIME)(model, np.ascontiguousarray(x), state, None)
        apart = y.reshape(*y.shape[:2], layer.directions, -1)
        return Whole(x, apart, final["h0"], final["c0"])

    return run


def _pointwise(layer: Layer, subject: Subject, trace: compare.Arrays) -> Finding:
    """A layer without memory, fed what the reference fed it."""
    model = Model((FeatureInput(trace["x"].shape[-1]),), (layer,))
    y, _ = backends.backend(RUNTIME)(model, np.ascontiguousarray(trace["x"]), {}, None)
    try:
        errors = compare.local_errors(layer, subject, {**trace, "y": y}, bounds.ENGINE)
    except UnsupportedError as error:
        return subject.silent(str(error))
    return subject.finding(errors, "local bound")
