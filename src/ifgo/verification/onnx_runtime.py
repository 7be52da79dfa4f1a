"""ONNX Runtime against float64 truth: every LSTM node by itself, what stands between them, and the
whole graph.

Single steps, and Y judged from the Y before it, keep bounds local. Over a whole sequence errors
grow with the network's own amplification A: it is measured, and the bound A·Σ(largest local bound
of each step and layer) is asserted only where A < 100 (SPEC.md section 6.3).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import states
from ifgo.errors import UnsupportedError
from ifgo.model import (
    Dense,
    FeatureInput,
    InitialState,
    Model,
    Output,
    Recurrent,
    StateInput,
    StateSlot,
    walk,
)
from ifgo.reference import truth
from ifgo.reference.interpret import Execution
from ifgo.states import State
from ifgo.text import escape
from ifgo.verification import between, bounds, onnx_graph, onnx_node
from ifgo.verification.findings import (
    Cause,
    Errors,
    Finding,
    Subject,
    first_unjudged,
    unjudged,
    within,
)
from ifgo.verification.foreign import Judged, judge, subjects
from ifgo.verification.global_bound import LARGEST_AMPLIFICATION, OVERFLOWS, amplification
from ifgo.verification.local import may_overflow
from ifgo.verification.onnx_graph import GraphFile, Node, Ran

RUNTIME: Final = "onnxruntime"


def against_truth(model: Model, x: NDArray[Any], start: State, done: Execution) -> list[Finding]:
    """Every LSTM node, the output and the whole graph; what ONNX cannot hold is said, not dropped.

    Raises ToolError where the runtime is missing.
    """
    begin = states.initial(model, x.shape[0], np.float32)
    for k, layer in enumerate(model.recurrent):
        if layer.initial.kind == "input":  # only these can be given to a file
            begin |= {key: start[key] for key in (f"h{k}", f"c{k}")}
    with tempfile.TemporaryDirectory(prefix="ifgo-") as folder:
        place = Path(folder)
        try:
            file = onnx_graph.find_file(model, place)
            ran = onnx_graph.run(file, model, x, begin)
        except UnsupportedError as error:
            return [*_one_by_one(model, done, start, place), _end(model).silent(str(error))]
    layers, given = _paired(model, ran)
    if not ran.nodes:
        file.notes.append("no LSTM node stands at the top of the file")
    findings: list[Finding] = []
    injected = 0.0
    end: between.Near | None = None
    arrived: dict[str, between.Near] = {}
    if len(given) == len(layers):
        made = {layer.name: node.whole for layer, node in given}
        try:
            arrived, end = between.arrivals(model, x, made, bounds.ONNXRUNTIME)
        except UnsupportedError as error:
            file.notes.append(str(error))
    nodes = {layer.name: node for layer, node in given}
    for k, layer in enumerate(layers):
        if layer.name not in nodes:
            findings += _absent(model, layer, ran)
            continue
        node = nodes[layer.name]
        seen = None
        if layer.name in arrived:
            expected = arrived[layer.name]
            seen = _near(node.whole.x, expected.value, expected.off)
        note = f"node {escape(node.name)}" if file.own else ""
        first = (begin[f"h{k}"], begin[f"c{k}"])
        try:
            judged = _judged(model, layer, node, ran, done, first, seen, note)
        except UnsupportedError as error:
            findings += [s.silent(str(error)) for s in subjects(model, layer, RUNTIME).values()]
            continue
        findings += judged.findings
        injected += judged.injected
    inherits = any(not finding.holds for finding in findings)
    notes = "; ".join(file.notes)
    if ran.y is None:
        return [*findings, _end(model).silent(ran.without)]
    if end is not None:
        y, value, off = (a if a.ndim == 3 else a[:, None] for a in (ran.y, end.value, end.off))
        errors = _near(y, value, off)
        missing = first_unjudged({"y": errors}, False)
        if missing is not None:
            said = "not judged where float32 may overflow, first at step {}, row {}".format(
                *missing
            )
            notes = f"{notes}; {said}" if notes else said
        findings.append(_end(model, "output").finding({"y": errors}, "local bound", note=notes))
        inherits = inherits or not findings[-1].holds
    findings.append(_whole(model, x, begin, done, ran.y, injected, inherits))
    return findings


def _near(got: NDArray[Any], value: NDArray[Any], off: NDArray[Any]) -> Errors:
    """(B, T, ·), judged where float32 cannot overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = within(np.abs(got.astype(np.float64) - value), off)
        return unjudged(found, may_overflow(value, off))


# -- nodes ------------------------------------------------------------------------------------


def _end(model: Model, name: str = "whole graph") -> Subject:
    return Subject(RUNTIME, "truth", name, "", sum(1 for _ in walk(model.layers)))


def _paired(model: Model, ran: Ran) -> tuple[tuple[Recurrent, ...], list[tuple[Recurrent, Node]]]:
    """The recurrent layers, and those that a node computes: in order, or by the name of W where
    the file has another number of nodes."""
    layers = model.recurrent
    pairs: list[tuple[Recurrent, Node]] = []
    if len(ran.nodes) == len(layers):
        pairs = list(zip(layers, ran.nodes, strict=True))
    else:
        for layer in layers:
            field = f"{layer.name}.{next(iter(layer.cells))}.weight_ih"
            named = {n for key, n in model.provenance.names.items() if key.endswith(field)}
            pairs += [(layer, node) for node in ran.nodes if node.proto.input[1] in named][:1]
    return layers, [(layer, node) for layer, node in pairs if _fits(layer, node)]


def _fits(layer: Recurrent, node: Node) -> bool:
    wanted = (layer.directions, 4 * layer.hidden_size, layer.cell.input_size)
    return node.weights["W"].shape == wanted


def _absent(model: Model, layer: Recurrent, ran: Ran) -> Iterator[Finding]:
    shapes = [str(node.weights["W"].shape) for node in ran.nodes]
    wanted = (layer.directions, 4 * layer.hidden_size, layer.cell.input_size)
    note = f"no LSTM node of the file computes it: W {wanted} expected, "
    note += f"{', '.join(shapes)} found" if shapes else "no LSTM node found"
    for subject in subjects(model, layer, RUNTIME).values():
        yield subject.missing("local bound", note) if shapes else subject.silent(note)


def _judged(
    model: Model,
    layer: Recurrent,
    node: Node,
    ran: Ran,
    done: Execution,
    start: tuple[NDArray[Any], NDArray[Any]],
    arrived: Errors | None,
    note: str,
) -> Judged:
    return judge(
        layer,
        subjects(model, layer, RUNTIME),
        done.traces[layer.name],
        start,
        onnx_node.runner(node, ran),
        node.whole,
        bounds.ONNXRUNTIME,
        arrived=arrived,
        probe=onnx_node.probe(layer, node, ran),
        note=note,
    )


def _one_by_one(model: Model, done: Execution, start: State, folder: Path) -> Iterator[Finding]:
    """Where no file holds the model: a file for each layer that ONNX can hold."""
    for k, layer in enumerate(model.recurrent):
        single = replace(layer, merge="concat", initial=InitialState("input"))
        slots = (StateSlot(layer.name, "h"), StateSlot(layer.name, "c"))
        alone = Model(
            (
                FeatureInput(layer.cell.input_size),
                *(StateInput(f"{slot.part}0", (slot,)) for slot in slots),
            ),
            (single,),
            (Output("sequence"),),
        )
        path = folder / f"layer{k}.onnx"
        begin = {f"{part}0": start[f"{part}{k}"] for part in "hc"}
        try:
            onnx_graph.write(alone, path)
            (trace, *_) = done.traces[layer.name].values()
            ran = onnx_graph.run(GraphFile(path, False), alone, trace["x"], begin)
            first = (begin["h0"], begin["c0"])
            judged = _judged(model, layer, ran.nodes[0], ran, done, first, None, "")
            yield from judged.findings
        except UnsupportedError as error:
            yield from (s.silent(str(error)) for s in subjects(model, layer, RUNTIME).values())


# -- the whole --------------------------------------------------------------------------------


def _whole(
    model: Model,
    x: NDArray[Any],
    start: State,
    done: Execution,
    y: NDArray[Any],
    injected: float,
    inherits: bool,
) -> Finding:
    subject = _end(model)
    gain = amplification(model, x, start)
    with np.errstate(over="ignore", invalid="ignore"):
        want = truth.forward(model, x, start).y
        y, want = (a if a.ndim == 3 else a[:, None] for a in (y.astype(np.float64), want))
        difference = np.abs(y - want)
        allowed = gain * injected + _dense_bound(model, done)
        if not np.isfinite(injected) or may_overflow(want, 0.0).any():
            return subject.silent(OVERFLOWS)
    note, worst = f"amplification {gain:.3g}", float(difference.max())
    if gain >= LARGEST_AMPLIFICATION:
        silent = subject.silent(f"{note}, difference {worst:.2e} reported only")
        return replace(silent, difference=worst)
    bound = np.full_like(difference, allowed)
    cause: Cause = "inherited" if inherits else "own"
    errors = {"y": within(difference, bound)}
    return subject.finding(errors, "global bound", cause=cause, note=note)


def _dense_bound(model: Model, done: Execution) -> float:
    total = 0.0
    for layer in walk(model.layers):
        if isinstance(layer, Dense) and layer.name in done.traces:
            seen = done.traces[layer.name][""]["x"].astype(np.float64)
            flat = seen.reshape(-1, seen.shape[-1])
            out = np.ones((flat.shape[0], layer.weight.shape[0]))
            total += float(bounds.dense_bound(layer, flat, out, bounds.ONNXRUNTIME).max())
    return total
