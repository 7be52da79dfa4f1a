"""The interpreter against float64 truth, and emitted C against the interpreter."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import UnsupportedError
from ifgo.model import ActivationLayer, BatchNorm, Dense, Layer, LSTMCell, Model, Recurrent, walk
from ifgo.reference import truth
from ifgo.reference.interpret import Execution
from ifgo.states import State
from ifgo.verification import bounds
from ifgo.verification.bounds import ActivationErrors
from ifgo.verification.report import Finding

Arrays = Mapping[str, NDArray[Any]]


def local_step(
    cell: LSTMCell,
    x: NDArray[Any],
    h: NDArray[Any],
    c: NDArray[Any],
    found: Arrays,
    errors: ActivationErrors,
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Part → (difference, bound) of steps that started from x, h, c; all (N, ·), `found` too."""
    x, h, c = (array.astype(np.float64) for array in (x, h, c))
    now = truth.step(cell, x, h, c)
    allowed = bounds.cell_bounds(cell, x, h, c, now, errors)
    result: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for part in truth.TRACED:
        if part in found:
            difference = np.abs(found[part].astype(np.float64) - getattr(now, part))
            result[part] = (difference, allowed[part])
    return result


def worst(
    pairs: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[float, float, str, int, int]:
    """(difference, bound, part, step, unit) of the place that comes nearest its bound.

    Arrays are (B, T, ·). A difference that is no number counts as infinite.
    """
    best = (-1.0, 0.0, 0.0, "", 0, 0)
    for part, (difference, bound) in pairs.items():
        ratio = np.where(difference == 0, 0.0, difference / np.maximum(bound, 2.0**-149))
        ratio = np.where(np.isfinite(ratio), ratio, np.inf)
        at = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
        if float(ratio[at]) > best[0]:
            place = (part, int(at[1]), int(at[2]))
            best = (float(ratio[at]), float(difference[at]), float(bound[at]), *place)
    return best[1:]


def exact_against_truth(model: Model, done: Execution) -> list[Finding]:
    """Each layer of a traced execution, from its own inputs and states, against a float64 step."""
    findings: list[Finding] = []
    for layer in walk(model.layers):
        if layer.name not in done.traces:
            continue
        traces = done.traces[layer.name]
        try:
            if isinstance(layer, Recurrent):
                for direction, cell in layer.cells.items():
                    name = layer.name if layer.directions == 1 else f"{layer.name} {direction}"
                    findings.append(_finding(name, _cell_pairs(cell, traces[direction])))
            else:
                pairs = {"y": _pointwise(layer, traces[""])}
                findings.append(_finding(layer.name, pairs))
        except UnsupportedError as error:
            findings.append(Finding("exact", "truth", layer.name, "", True, note=str(error)))
    return findings


def _cell_pairs(
    cell: LSTMCell, trace: Arrays
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    batch, steps = trace["h"].shape[:2]
    flat = {part: array.reshape(batch * steps, -1) for part, array in trace.items()}
    before = (flat["x"], flat["h_before"], flat["c_before"])
    pairs = local_step(cell, *before, flat, bounds.IFGO)
    return {
        part: (a.reshape(batch, steps, -1), b.reshape(batch, steps, -1))
        for part, (a, b) in pairs.items()
    }


def _finding(name: str, pairs: Mapping[str, tuple[Any, Any]]) -> Finding:
    difference, bound, part, step, unit = worst(pairs)
    holds = all(bool((a <= b).all()) for a, b in pairs.values())
    return Finding(
        "exact", "truth", name, "local bound", holds, difference, bound, part, step, unit
    )


def _pointwise(layer: Layer, trace: Arrays) -> tuple[Any, Any]:
    """(difference, bound) of a layer without memory, from the input it saw."""
    x, y = trace["x"].astype(np.float64), trace["y"].astype(np.float64)
    match layer:
        case Dense():
            flat = x.reshape(-1, x.shape[-1])
            true = flat @ layer.weight.T.astype(np.float64)
            if layer.bias is not None:
                true = true + layer.bias.astype(np.float64)
            true = truth.activate(layer.activation, true)
            allowed = bounds.dense_bound(layer, flat, true, bounds.IFGO)
            return np.abs(true.reshape(y.shape) - y), allowed.reshape(y.shape)
        case ActivationLayer():
            true = truth.activate(layer.activation, x)
            zero = np.zeros_like(true)
            if layer.activation.name == "softmax":
                allowed = bounds.softmax_bound(true, zero)
            else:
                allowed = bounds.activation_bound(layer.activation, x, true, zero, bounds.IFGO)
            return np.abs(true - y), allowed
        case _:
            factor, offset = _scale(layer)
            true = x * factor + offset
            allowed = 4 * bounds.U * (np.abs(x * factor) + np.abs(offset))
            return np.abs(true - y), allowed


def _scale(layer: Layer) -> tuple[Any, Any]:
    arrays = {name: array.astype(np.float64) for name, array in layer.arrays.items()}
    if isinstance(layer, BatchNorm):
        factor = arrays.get("weight", 1.0) / np.sqrt(arrays["variance"] + layer.epsilon)
        return factor, arrays.get("bias", 0.0) - arrays["mean"] * factor
    if "factor" not in arrays:
        raise UnsupportedError(f"{layer.kind} has no local bound")
    return arrays["factor"], arrays["offset"]


def c99_against_exact(
    model: Model, x: NDArray[Any], start: State, done: Execution
) -> list[Finding]:
    """Emitted, compiled and run: every intermediate, output and state, bit for bit.

    The plain build gives the verdict on outputs and states; a build with -DIFGO_TRACE names the
    layer, part, step and unit of the first difference.
    """
    from ifgo.targets import c99

    with tempfile.TemporaryDirectory(prefix="ifgo-") as folder:
        place = Path(folder)
        plain, observed = place / "plain", place / "traced"
        plain.mkdir()
        observed.mkdir()
        steps = x.shape[1]
        y, final, _ = c99.build(model, plain, max_steps=steps).run(x, start)
        traced = c99.build(model, observed, max_steps=steps, trace=True)
        _, _, traces = traced.run(x, start)
    findings: list[Finding] = []
    for name, directions in done.traces.items():
        for direction, parts in directions.items():
            label = name if len(directions) == 1 else f"{name} {direction}"
            backward = direction == "backward"
            findings.append(_first_difference(label, parts, traces[name][direction], backward))
    findings.append(_ends("c99", done, y, final))
    return findings


def backend_against_exact(
    model: Model, x: NDArray[Any], start: State, done: Execution, name: str
) -> Finding:
    """Output and final state of a float32 backend (qemu:BOARD), bit for bit."""
    from ifgo.backends import backend

    y, final = backend(name)(model, x, start)
    return _ends(name, done, y, final)


def _ends(runtime: str, done: Execution, y: NDArray[Any], final: State) -> Finding:
    want: dict[str, NDArray[Any]] = {"y": done.y if done.y.ndim == 3 else done.y[:, None]}
    have: dict[str, NDArray[Any]] = {"y": y if y.ndim == 3 else y[:, None]}
    for key, array in done.state.items():
        want[key] = np.moveaxis(array, 0, 1).reshape(array.shape[1], 1, -1)
        have[key] = np.moveaxis(final[key], 0, 1).reshape(array.shape[1], 1, -1)
    return replace(_first_difference("output and final state", want, have, False), runtime=runtime)


def _first_difference(label: str, want: Arrays, have: Arrays, backward: bool) -> Finding:
    """EXACT, or where bits differ first in processing order; parts count in order of computing."""
    first: tuple[int, int, str, int, int, float] | None = None
    for rank, part in enumerate(want):
        differs = want[part].view(np.uint32) != np.ascontiguousarray(have[part]).view(np.uint32)
        if not differs.any():
            continue
        steps = np.flatnonzero(differs.any(axis=(0, 2)))
        step = int(steps[-1] if backward else steps[0])
        unit = int(np.flatnonzero(differs[:, step].any(axis=0))[0])
        size = float(np.abs(want[part].astype(np.float64) - have[part]).max())
        when = -step if backward else step
        if first is None or (when, rank) < first[:2]:
            first = (when, rank, part, step, unit, size)
    if first is None:
        return Finding("c99", "exact", label, "EXACT", True)
    _, _, part, step, unit, size = first
    return Finding("c99", "exact", label, "EXACT", False, size, 0.0, part, step, unit)
