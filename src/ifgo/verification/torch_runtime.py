"""PyTorch against float64 truth: each recurrent layer as an nn.LSTM with the layer's weights.

Each is fed the reference's own input, so layers are judged apart; what nn.LSTM does not compute is
refused by name. The layers between are no part of it.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import SIGMOID, TANH
from ifgo.errors import ToolError
from ifgo.model import Embedding, LSTMCell, Masking, Model, Recurrent, walk
from ifgo.reference.interpret import Execution
from ifgo.states import State
from ifgo.verification import bounds
from ifgo.verification.findings import Finding
from ifgo.verification.foreign import Runner, Whole, judge, subjects

RUNTIME: Final = "torch"


def against_truth(model: Model, x: NDArray[Any], start: State, done: Execution) -> list[Finding]:
    """Every recurrent layer; what nn.LSTM cannot hold is said, not dropped.

    Raises ToolError where PyTorch is missing.
    """
    try:
        torch: Any = import_module("torch")
    except ImportError:
        raise ToolError("torch is not installed", hint="Install it: pip install torch") from None
    findings: list[Finding] = []
    masked = _masking(model)
    for k, layer in enumerate(model.recurrent):
        whose = subjects(model, layer, RUNTIME)
        reasons = _refusals(layer) + masked
        if reasons:
            note = "nn.LSTM cannot compute it: " + "; ".join(reasons)
            findings += [subject.silent(note) for subject in whose.values()]
            continue
        run = runner(layer, torch)
        traces = done.traces[layer.name]
        fed = next(iter(traces.values()))["x"]
        first = (start[f"h{k}"], start[f"c{k}"])
        whole = run(fed, *first)
        judged = judge(layer, whose, traces, first, run, whole, bounds.LIBM)
        findings += judged.findings
    return findings


def _masking(model: Model) -> list[str]:
    """Layers that make steps be skipped, which nn.LSTM does not."""
    return [
        f"layer {layer.name} masks steps"
        for layer in walk(model.layers)
        if isinstance(layer, Masking) or (isinstance(layer, Embedding) and layer.mask_zero)
    ]


def _refusals(layer: Recurrent) -> list[str]:
    found: list[str] = []
    plain = {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"}
    for cell in layer.cells.values():
        found += [name for name in cell.arrays if name not in plain]
        found += [
            name for name in ("clip_z", "clip_cell", "clip_projection") if getattr(cell, name)
        ]
        found += [f"coupling {cell.coupling}"] if cell.coupling else []
        found += [f"forget_bias {cell.forget_bias:g}"] if cell.forget_bias else []
        if cell.activations != (SIGMOID, TANH, TANH):
            found.append("activations " + "/".join(map(str, cell.activations)))
        if cell.weight_hr is not None and cell.output_size == cell.hidden_size:
            found.append("a projection to as many values as hidden_size")
    return list(dict.fromkeys(found))


def runner(layer: Recurrent, torch: Any) -> Runner:
    """`layer` as an nn.LSTM on the CPU; a backward direction alone is fed the reversed sequence."""
    cells = list(layer.cells.values())
    biased = any(cell.bias_ih is not None or cell.bias_hh is not None for cell in cells)
    cell = layer.cell
    theirs = torch.nn.LSTM(
        cell.input_size,
        cell.hidden_size,
        bias=biased,
        batch_first=True,
        bidirectional=layer.directions == 2,
        proj_size=0 if cell.weight_hr is None else cell.output_size,
    )
    for each, suffix in zip(cells, ("", "_reverse"), strict=False):
        for name, array in _arrays(each, biased).items():
            values = torch.from_numpy(np.array(array, dtype=np.float32))
            getattr(theirs, f"{name}_l0{suffix}").data = values
    theirs.eval()
    reverse = layer.forward is None

    def run(x: NDArray[Any], h: NDArray[Any], c: NDArray[Any]) -> Whole:
        fed = [np.array(a, dtype=np.float32) for a in (x[:, ::-1] if reverse else x, h, c)]
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LSTM with projections")  # takes its plain path
            values, *state = (torch.from_numpy(a) for a in fed)
            y, (h_n, c_n) = theirs(values, tuple(state))
        y = y.numpy()[:, ::-1] if reverse else y.numpy()
        apart = y.reshape(*y.shape[:2], layer.directions, -1)
        return Whole(x, apart, h_n.numpy(), c_n.numpy())

    return run


def _arrays(cell: LSTMCell, biased: bool) -> dict[str, NDArray[Any]]:
    """By nn.LSTM's names; a bias that only the other has is zero."""
    found: dict[str, NDArray[Any]] = {"weight_ih": cell.weight_ih, "weight_hh": cell.weight_hh}
    if biased:
        zeros = np.zeros(4 * cell.hidden_size)
        found["bias_ih"] = zeros if cell.bias_ih is None else cell.bias_ih
        found["bias_hh"] = zeros if cell.bias_hh is None else cell.bias_hh
    return found if cell.weight_hr is None else found | {"weight_hr": cell.weight_hr}
