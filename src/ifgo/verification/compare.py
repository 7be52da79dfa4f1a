"""The interpreter against float64 truth, and emitted C against the interpreter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import UnsupportedError
from ifgo.lower import lower
from ifgo.model import (
    ActivationLayer,
    BatchNorm,
    Dense,
    FeatureInput,
    Layer,
    Model,
    Recurrent,
    walk,
)
from ifgo.reference import truth
from ifgo.reference.interpret import Execution, execute
from ifgo.states import State
from ifgo.verification import bounds
from ifgo.verification.bounds import ActivationErrors
from ifgo.verification.findings import Errors, Finding, First, Subject, bits, first_wrong, within
from ifgo.verification.local import judged_before, may_overflow, overflow_note, step_errors

Arrays = Mapping[str, NDArray[Any]]
Traces = Mapping[str, Mapping[str, Arrays]]
"""Layer name → direction ("" where a layer has none) → part → (B, T, ·) float32.

Rows are indexed by time of the input; under go_backwards by the order of processing, in which
the layer's output stands too.
"""


GIVEN: Final = ("x", "h_before", "c_before")
"""Parts of a trace that a step is given; it makes the others."""


def traced_against_truth(
    model: Model,
    traces: Traces,
    runtime: str = "exact",
    accuracy: ActivationErrors = bounds.IFGO,
) -> list[Finding]:
    """Each layer of a runtime, from its own inputs and states, against a float64 step."""
    findings: list[Finding] = []
    for subject, layer, trace in observed(model, traces, runtime, "truth"):
        try:
            errors = local_errors(layer, subject, trace, accuracy)
            note = overflow_note(errors, subject.backward)
            if all(np.isinf(found.bound).all() for found in errors.values()):
                findings.append(subject.silent(note))
            else:
                findings.append(subject.finding(errors, "local bound", note=note))
        except UnsupportedError as error:
            findings.append(subject.silent(str(error)))
    return findings


def local_errors(
    layer: Layer, subject: Subject, trace: Arrays, accuracy: ActivationErrors
) -> dict[str, Errors]:
    """Part → errors under the local bound of a layer that traced its own inputs and states.

    Raises UnsupportedError where the layer has no bound.
    """
    if isinstance(layer, Recurrent):
        x, h, c = (trace[part] for part in GIVEN)
        cell = layer.cells[_direction(layer, subject)]
        return step_errors(cell, x, h, c, trace, accuracy, subject.backward)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        true, allowed = _pointwise(layer, trace, accuracy)
        found = within(np.abs(true - trace["y"].astype(np.float64)), allowed)
        beyond = np.asarray(may_overflow(true, allowed).any(axis=2))
    return judged_before({"y": found}, beyond, subject.backward)


def observed(
    model: Model, traces: Traces, runtime: str, judge: str
) -> Iterator[tuple[Subject, Layer, Arrays]]:
    """Every traced layer and direction in the order of the chain: who it is, and its trace."""
    for depth, layer in enumerate(walk(model.layers)):
        for direction, trace in traces.get(layer.name, {}).items():
            shown = direction if isinstance(layer, Recurrent) and layer.directions == 2 else ""
            backward = direction == "backward"
            yield Subject(runtime, judge, layer.name, shown, depth, backward), layer, trace


def _direction(layer: Layer, subject: Subject) -> str:
    """The key of the trace: a layer of one direction shows none."""
    if isinstance(layer, Recurrent) and not subject.direction:
        return next(iter(layer.cells))
    return subject.direction


def _pointwise(layer: Layer, trace: Arrays, accuracy: ActivationErrors) -> tuple[Any, Any]:
    """(true output, bound) of a layer without memory, from the input it saw."""
    x, shape = trace["x"].astype(np.float64), trace["y"].shape
    match layer:
        case Dense():
            flat = x.reshape(-1, x.shape[-1])
            true = flat @ layer.weight.T.astype(np.float64)
            if layer.bias is not None:
                true = true + layer.bias.astype(np.float64)
            true = truth.activate(layer.activation, true)
            allowed = bounds.dense_bound(layer, flat, true, accuracy)
            return true.reshape(shape), allowed.reshape(shape)
        case ActivationLayer():
            true = truth.activate(layer.activation, x)
            zero = np.zeros_like(true)
            if layer.activation.name == "softmax":
                allowed = bounds.softmax_bound(true, zero)
            else:
                allowed = bounds.activation_bound(layer.activation, x, true, zero, accuracy)
            return true, allowed
        case _:
            factor, offset = _scale(layer)
            true = x * factor + offset
            allowed = 4 * bounds.U * (np.abs(x * factor) + np.abs(offset))
            allowed = allowed + bounds.ETA * (2 + np.abs(x))
            return true, allowed


def _scale(layer: Layer) -> tuple[Any, Any]:
    arrays = {name: array.astype(np.float64) for name, array in layer.arrays.items()}
    if isinstance(layer, BatchNorm):
        inside, outside = (0.0, layer.epsilon) if layer.epsilon_outside else (layer.epsilon, 0.0)
        factor = arrays.get("weight", 1.0) / (np.sqrt(arrays["variance"] + inside) + outside)
        return factor, arrays.get("bias", 0.0) - arrays["mean"] * factor
    if "factor" not in arrays:
        raise UnsupportedError(f"{layer.kind} has no local bound")
    return arrays["factor"], arrays["offset"]


def lengths_against_alone(
    model: Model, x: NDArray[Any], start: State, lengths: NDArray[Any], done: Execution
) -> list[Finding]:
    """Each sequence of the reference, bit for bit, as if it were given alone and were that long.

    Its final state is that of its own last step; zero where its length is. Rows beyond its length
    are not compared.
    """
    depth = sum(1 for _ in walk(model.layers))
    subject = Subject("exact", "exact", "lengths", "", depth)
    if any(layer.signature == "sequence→vector" for layer in model.layers):
        return [subject.silent("a vector of a sequence is compared as part of c99 alone")]
    program = lower(model)
    want = {"y": done.y.copy()} | {k: np.zeros_like(a) for k, a in done.state.items()}
    for b, length in enumerate(lengths):
        if length:
            given = {key: array[:, b : b + 1] for key, array in start.items()}
            alone = execute(program, np.ascontiguousarray(x[b : b + 1, :length]), given)
            want["y"][b, :length] = alone.y[0]
            for key, array in alone.state.items():
                want[key][:, b] = array[:, 0]
    return [_same_bits(subject, want, {"y": done.y, **done.state}, inherits=False)]


def c99_against_exact(
    model: Model,
    x: NDArray[Any],
    start: State,
    done: Execution,
    lengths: NDArray[Any] | None = None,
) -> list[Finding]:
    """Emitted, compiled and run: every intermediate, output and state, bit for bit.

    The plain build gives the verdict on outputs and states; a build with -DIFGO_TRACE names the
    layer, part, step, row and unit of the first difference.
    """
    from ifgo.targets import c99

    with tempfile.TemporaryDirectory(prefix="ifgo-") as folder:
        place = Path(folder)
        plain, observed = place / "plain", place / "traced"
        plain.mkdir()
        observed.mkdir()
        steps = x.shape[1]
        padded = lengths is not None
        y, final, _ = c99.build(model, plain, max_steps=steps, lengths=padded).run(
            x, start, lengths
        )
        traced = c99.build(model, observed, max_steps=steps, lengths=padded, trace=True)
        _, _, traces = traced.run(x, start, lengths)
    findings = traced_against_exact("c99", model, done, traces)
    inherits = any(not finding.holds for finding in findings)
    return [*findings, _ends("c99", model, done, y, final, inherits)]


def board_against_exact(
    model: Model, x: NDArray[Any], start: State, done: Execution, name: str
) -> list[Finding]:
    """Emitted C on the emulated board qemu:BOARD, as c99_against_exact.

    Where the board has no room for traces, the output and the final state alone are compared.
    """
    from ifgo.backends import EMULATED
    from ifgo.targets import cortex_m

    board = cortex_m.find_board(name.removeprefix(EMULATED))
    y, final = cortex_m.run_model(model, x, start, board)
    try:
        findings = traced_against_exact(
            name, model, done, cortex_m.trace_model(model, x, start, board)
        )
    except UnsupportedError as error:
        findings = [Subject(name, "exact", "every layer").silent(f"traces: {error}")]
    inherits = any(not finding.holds for finding in findings)
    return [*findings, _ends(name, model, done, y, final, inherits)]


def traced_against_exact(
    runtime: str, model: Model, done: Execution, traces: Traces
) -> list[Finding]:
    """Each layer of a runtime that computes exact float32 and traces it, bit for bit.

    Every step is also replayed by the reference from the x, h and c that the runtime itself used:
    a layer that errs by itself is told from one that only repeats an error it was given.
    """
    findings: list[Finding] = []
    before: list[First] = []
    for subject, layer, want in observed(model, done.traces, runtime, "exact"):
        have = traces.get(layer.name, {}).get(_direction(layer, subject))
        if have is None or any(have[part].shape != want[part].shape for part in want):
            findings.append(subject.missing("EXACT", f"{runtime} does not compute it"))
            continue
        given = {part: bits(want[part], have[part]) for part in want if part in GIVEN}
        made = {part: bits(a, have[part]) for part, a in _replayed(layer, subject, have).items()}
        errors = given | made
        cause, at = "own", first_wrong(errors, subject.backward)
        if at is not None:
            arrived = at.part == "x" and _explained(at, before, model)
            before.append(at)
            if arrived:
                at = first_wrong(made, subject.backward)
                cause = "inherited" if at is None else "own"
        findings.append(subject.finding(errors, "EXACT", cause=cause, at=at))
    return findings


def _explained(at: First, before: list[First], model: Model) -> bool:
    """Whether an earlier layer went wrong early enough to make this input wrong."""
    return any(other.done <= at.done or not model.streamable for other in before)


def _replayed(layer: Layer, subject: Subject, have: Arrays) -> dict[str, NDArray[Any]]:
    """What the reference makes, step by step, of the x, h and c in a trace; (B, T, ·) as there."""
    batch, steps, width = have["x"].shape
    x = np.ascontiguousarray(have["x"].reshape(batch * steps, 1, width))
    start: State = {}
    if isinstance(layer, Recurrent):
        layer = Recurrent(layer.name, layer.cells[_direction(layer, subject)])
        for key in "hc":
            start[f"{key}0"] = have[f"{key}_before"].reshape(1, batch * steps, -1)
    done = execute(lower(Model((FeatureInput(width),), (layer,))), x, start, trace=True)
    (trace,) = done.traces[layer.name].values()
    return {
        part: array.reshape(batch, steps, -1) for part, array in trace.items() if part not in GIVEN
    }


def _ends(
    runtime: str, model: Model, done: Execution, y: NDArray[Any], final: State, inherits: bool
) -> Finding:
    depth = sum(1 for _ in walk(model.layers))
    subject = Subject(runtime, "exact", "output and final state", "", depth)
    return _same_bits(subject, {"y": done.y, **done.state}, {"y": y, **final}, inherits=inherits)


def _same_bits(subject: Subject, want: State, have: State, *, inherits: bool) -> Finding:
    """Outputs "y", (B, T, ·) or (B, ·), and final states by key, (D, B, ·), bit for bit."""

    def rows(key: str, array: NDArray[Any]) -> NDArray[Any]:
        if key == "y":
            return array if array.ndim == 3 else array[:, None]
        return np.moveaxis(array, 0, 1).reshape(array.shape[1], 1, -1)

    errors = {key: bits(rows(key, array), rows(key, have[key])) for key, array in want.items()}
    return subject.finding(errors, "EXACT", cause="inherited" if inherits else "own")
