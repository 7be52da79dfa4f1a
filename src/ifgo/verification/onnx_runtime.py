"""ONNX Runtime against float64 truth: each cell stepped on its own, then the whole graph.

Stepping (T = 1, from the runtime's own last state) keeps bounds local. Over a whole sequence errors
grow with the network's own amplification A: it is measured, and the bound A·Σ(largest local bound
of each step and layer) is asserted only where A < 100 (SPEC.md section 6).
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import formats, states
from ifgo.errors import ToolError, UnsupportedError
from ifgo.model import (
    Dense,
    FeatureInput,
    InitialState,
    LSTMCell,
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
from ifgo.verification import bounds, compare
from ifgo.verification.findings import Finding, Subject, within

RUNTIME: Final = "onnxruntime"

LARGEST_AMPLIFICATION: Final = 100.0
"""Above it a global bound says nothing: report the difference, assert nothing."""

PERTURBATION: Final = 2.0**-20


def session(path: Path) -> Any:
    """A single-threaded inference session. Raises ToolError where the runtime is missing."""
    try:
        onnxruntime: Any = import_module("onnxruntime")
    except ImportError:
        raise ToolError(
            "onnxruntime is not installed",
            hint='Install it: pip install onnxruntime, or pip install "ifgo[demo]"',
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UnsupportedError(f"ONNX Runtime refuses the graph: {error}") from None


def against_truth(model: Model, x: NDArray[Any], start: State, done: Execution) -> list[Finding]:
    """Every cell and the whole graph; what ONNX cannot hold is said, not dropped."""
    findings: list[Finding] = []
    injected = 0.0
    with tempfile.TemporaryDirectory(prefix="ifgo-") as folder:
        place = Path(folder)
        for k, layer in enumerate(model.recurrent):
            for d, (direction, cell) in enumerate(layer.cells.items()):
                shown = "" if layer.directions == 1 else direction
                backward = direction == "backward"
                subject = Subject(RUNTIME, "truth", layer.name, shown, k, backward)
                try:
                    seen = done.traces[layer.name][direction]["x"]
                    state = (start[f"h{k}"][d], start[f"c{k}"][d])
                    pairs = stepped(cell, seen, state, backward, place)
                    steps = np.maximum(pairs["h"][1].max(axis=2), pairs["c"][1].max(axis=2))
                    injected += float(steps.max(axis=0).sum())
                    errors = {part: within(*pair) for part, pair in pairs.items()}
                    findings.append(subject.finding(errors, "local bound"))
                except UnsupportedError as error:
                    findings.append(subject.silent(str(error)))
        findings.append(_whole(model, x, start, done, injected, place))
    return findings


def stepped(
    cell: LSTMCell,
    x: NDArray[Any],
    state: tuple[NDArray[Any], NDArray[Any]],
    backward: bool,
    folder: Path,
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Part ("h", "c") → (difference, bound), (B, T, ·), of a cell run one step per call."""
    layer = Recurrent("cell", cell, initial=InitialState("input"))
    alone = Model(
        (
            FeatureInput(cell.input_size),
            StateInput("h0", (StateSlot("cell", "h"),)),
            StateInput("c0", (StateSlot("cell", "c"),)),
        ),
        (layer,),
        (Output("h_n", "hn", ("cell",)), Output("c_n", "cn", ("cell",))),
    )
    path = folder / "cell.onnx"
    formats.save(alone, path, "onnx", allow_lossy=False)
    runtime = session(path)
    batch, steps = x.shape[:2]
    h, c = (part.astype(np.float32) for part in state)
    found = {"h": np.zeros((batch, steps, h.shape[1])), "c": np.zeros((batch, steps, c.shape[1]))}
    limit = {part: np.zeros_like(array) for part, array in found.items()}
    for t in range(steps - 1, -1, -1) if backward else range(steps):
        now = np.ascontiguousarray(x[:, t])
        fed = {"x": now[:, None], "h0": h[None], "c0": c[None]}
        h_new, c_new = (part[0] for part in runtime.run(["hn", "cn"], fed))
        got = {"h": h_new, "c": c_new}
        pairs = compare.local_step(cell, now, h, c, got, bounds.ONNXRUNTIME)
        for part, (difference, bound) in pairs.items():
            found[part][:, t], limit[part][:, t] = difference, bound
        h, c = h_new, c_new
    return {part: (found[part], limit[part]) for part in found}


def amplification(model: Model, x: NDArray[Any], start: State) -> float:
    """How much the output of the float64 net moves per unit of change in x and the initial state,
    largest entry, over eight seeded sign patterns; at least 1."""
    base = truth.forward(model, x, start).y
    random = np.random.default_rng(8)
    largest = 1.0
    for _ in range(8):
        moved = {key: array + PERTURBATION * _signs(random, array) for key, array in start.items()}
        pushed = x
        if x.dtype.kind == "f":
            pushed = x.astype(np.float64) + PERTURBATION * _signs(random, x)
        y = truth.forward(model, pushed, moved).y
        largest = max(largest, float(np.abs(y - base).max()) / PERTURBATION)
    return largest


def _signs(random: np.random.Generator, like: NDArray[Any]) -> NDArray[np.float64]:
    return random.choice([-1.0, 1.0], size=like.shape)


def _whole(
    model: Model, x: NDArray[Any], start: State, done: Execution, injected: float, folder: Path
) -> Finding:
    label = "whole graph"
    default = states.initial(model, x.shape[0], np.float32)
    if any(layer.initial.kind == "input" for layer in model.recurrent) or any(
        (start[key] != default[key]).any() for key in start
    ):
        note = "its initial states are inputs; the cells were stepped from them instead"
        return Finding(RUNTIME, "truth", label, "", True, note=note)
    try:
        y = run_graph(model, x, folder)
    except UnsupportedError as error:
        return Finding(RUNTIME, "truth", label, "", True, note=str(error))
    want = truth.forward(model, x, start).y
    difference = np.abs(y.astype(np.float64) - want)
    gain = amplification(model, x, start)
    note = f"amplification {gain:.3g}"
    worst = float(difference.max())
    if gain >= LARGEST_AMPLIFICATION:
        note += f", difference {worst:.2e} reported only"
        return Finding(RUNTIME, "truth", label, "", True, difference=worst, note=note)
    bound = gain * injected + _dense_bound(model, done)
    holds = bool(np.isfinite(y).all()) and worst <= bound
    return Finding(RUNTIME, "truth", label, "global bound", holds, worst, bound, "y", note=note)


def _dense_bound(model: Model, done: Execution) -> float:
    total = 0.0
    for layer in walk(model.layers):
        if isinstance(layer, Dense) and layer.name in done.traces:
            seen = done.traces[layer.name][""]["x"].astype(np.float64)
            flat = seen.reshape(-1, seen.shape[-1])
            out = np.ones((flat.shape[0], layer.weight.shape[0]))
            total += float(bounds.dense_bound(layer, flat, out, bounds.ONNXRUNTIME).max())
    return total


def run_graph(model: Model, x: NDArray[Any], folder: Path) -> NDArray[Any]:
    """The main output of the model's own ONNX file, or of the one ifgo writes, as (B, T, ·)."""
    source = Path(model.provenance.path)
    path = source
    if source.suffix != ".onnx" or not source.is_file():
        path = folder / "whole.onnx"
        formats.save(model, path, "onnx", allow_lossy=False)
    runtime = session(path)
    entry = model.input
    wanted = next(i for i in runtime.get_inputs() if i.name == entry.name)
    fed = x if wanted.type == "tensor(float)" else x.astype(_DTYPES.get(wanted.type, np.int64))
    if entry.axes == "TB":
        fed = np.swapaxes(fed, 0, 1)
    elif entry.axes == "T":
        return np.stack([_run(runtime, model, row) for row in fed])
    y = _run(runtime, model, fed)
    main = next(o for o in model.outputs if o.role in ("sequence", "last"))
    return np.swapaxes(y, 0, 1) if main.role == "sequence" and main.axes == "TB" else y


def _run(runtime: Any, model: Model, fed: NDArray[Any]) -> NDArray[Any]:
    main = next(o for o in model.outputs if o.role in ("sequence", "last"))
    try:
        (y,) = runtime.run([main.name], {model.input.name: np.ascontiguousarray(fed)})
    except Exception as error:
        raise UnsupportedError(f"ONNX Runtime fails on the graph: {error}") from None
    return y


_DTYPES: Final = {"tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}
