"""What of a Model ONNX can hold: everything that is refused, folded or lost when it is written.

SPEC.md 2.10. Nothing is written here.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from ifgo.activations import SIGMOID, Activation
from ifgo.cell import Array, LSTMCell, MatrixNorm
from ifgo.errors import UnsupportedError
from ifgo.folding import folded_norm, norm_gain
from ifgo.formats._attributes import Losses
from ifgo.formats._plan import Plan
from ifgo.formats.onnx.layers import ACTIVATIONS
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    HiddenAsSequence,
    LastStep,
    Layer,
    Masking,
    Recurrent,
    Residual,
    TrainingFacts,
)
from ifgo.model import LengthsInput, Model, StateInput, walk

STANDALONE = {name for name, _ in ACTIVATIONS.values()} | {"softmax", "linear"}
"""Activations with an ONNX operator of their own (linear needs none)."""

MAX_BYTES = 2**31 - 2**20
"""Weights one file can hold: protobuf stops at 2 GiB."""


class Findings(Plan):
    """What is refused, lost and folded. layer: the one that is looked at."""

    UNSAID = ("layer.name",)

    def __init__(self, *, allow_lossy: Losses) -> None:
        super().__init__("ONNX", allow_lossy=allow_lossy)
        self.layer: Layer | None = None

    def folds(self, words: str, *names: str) -> None:
        """`fold` of the layer that is looked at."""
        self.fold(self.layer, words, *names)

    def loses(self, loss: str, words: str, *names: str) -> None:
        """`lose` of the layer that is looked at."""
        self.lose(loss, self.layer, words, *names)


def examine(model: Model, *, allow_lossy: Losses) -> Findings:
    """Everything about `model` that an ONNX file does not say as it is."""
    found = Findings(allow_lossy=allow_lossy)
    _whole(model, found)
    for before, layer in pairwise(model.layers):
        if isinstance(before, HiddenAsSequence) and isinstance(layer, LastStep):
            found.refused.append(f"layer {layer.name}: the last step of {before.name}, one unit")
    padded = any(isinstance(entry, LengthsInput) for entry in model.inputs)
    for layer in walk(model.layers):
        _layer(layer, found)
        if isinstance(layer, LastStep):
            if padded and layer.of == "sequence":
                found.refused.append(
                    f"layer {layer.name}: the last row inside each length (of='state' can be held)"
                )
            padded = False
    return found


def _whole(model: Model, found: Findings) -> None:
    dtypes = sorted({array.dtype.name for array in model.arrays.values()})
    if len(dtypes) > 1:
        found.refused.append(f"arrays of several types ({', '.join(dtypes)})")
    size = sum(array.nbytes for array in model.arrays.values())
    if size > MAX_BYTES:
        found.refused.append(f"{size} bytes of weights (one file holds {MAX_BYTES})")
    widths = {layer.name: layer.hidden_size for layer in model.recurrent}
    packs = [
        (f"input {e.name}", [s.layer for s in e.slots])
        for e in model.inputs
        if isinstance(e, StateInput)
    ]
    packs += [(f"output {o.name}", [s.layer for s in o.states]) for o in model.outputs]
    for what, names in packs:
        if len({widths[name] for name in names}) > 1:
            found.refused.append(f"{what}: states of different widths in one tensor")
    sizes = [model.input_size, *model.sizes()]
    for k, layer in enumerate(model.layers):
        if isinstance(layer, Residual) and layer.channels != sizes[k + 1]:
            found.refused.append(
                f"layer {layer.name}: a residual over {layer.channels} of {sizes[k + 1]} features"
            )


def _layer(layer: Layer, found: Findings) -> None:
    where = f"layer {layer.name}"
    found.layer = layer
    match layer:
        case Recurrent():
            _recurrent(layer, found)
        case Masking():
            found.refused.append(f"{where}: masking")
        case Embedding() if layer.mask_zero:
            found.refused.append(f"{where}: mask_zero")
        case Dense():
            _activation(layer.activation, where, found)
        case ActivationLayer():
            _activation(layer.activation, where, found)
            if layer.activation.name == "linear":
                found.folds(f"{where}: the linear activation is left out")
        case Dropout():
            found.folds(
                f"{where}: dropout {layer.rate:g} is left out, it does nothing at inference"
            )
        case BatchNorm() if layer.epsilon_outside:
            found.folds(
                f"{where}: epsilon outside the root; written as Mul and Add with the float32 "
                "factors that inference uses"
            )
        case BatchNorm():
            for name in ("weight", "bias"):
                if getattr(layer, name) is None:
                    value = "ones" if name == "weight" else "zeros"
                    found.folds(f"{where}: no {name} is written as {value}", name)
            _rounded(layer.epsilon, f"{where}: epsilon", found, "epsilon")
        case Residual() if any(isinstance(inner, Residual) for inner in layer.layers):
            found.refused.append(f"{where}: a residual inside a residual")
        case Residual() if all(_idle(inner) for inner in layer.layers):
            found.refused.append(f"{where}: a residual around layers that do nothing")
        case _:
            pass


def _idle(layer: Layer) -> bool:
    """Whether a file has nothing in its place."""
    linear = isinstance(layer, ActivationLayer) and layer.activation.name == "linear"
    return linear or isinstance(layer, Dropout)


def _activation(activation: Activation, where: str, found: Findings) -> None:
    if activation.name not in STANDALONE:
        found.refused.append(f"{where}: activation {activation} outside a cell")
    _parameters(activation, where, found, "activation")


def _parameters(activation: Activation, where: str, found: Findings, attribute: str) -> None:
    for name in ("alpha", "beta"):
        value = getattr(activation, name)
        _rounded(value, f"{where}: {name} of {activation.name}", found, attribute)


def _rounded(value: float | None, what: str, found: Findings, attribute: str) -> None:
    """ONNX attributes are float32."""
    if value is None:
        return
    with np.errstate(over="ignore"):
        narrow = float(np.float32(value))
    if not np.isfinite(narrow):
        found.refused.append(f"{what} {value!r} (attributes are float32)")
    elif narrow != value:
        error = abs(narrow - value) / float(np.spacing(np.float32(abs(value))))
        found.folds(f"{what} {value!r} is rounded to float32 ({error:.2g} ulp)", attribute)


def _recurrent(layer: Recurrent, found: Findings) -> None:
    where = f"layer {layer.name}"
    if layer.directions == 2 and layer.merge != "concat":
        found.refused.append(f"{where}: merge {layer.merge}")
    if layer.go_backwards:
        found.refused.append(f"{where}: go_backwards")
    if layer.stateful:
        words = f"{where}: stateful (give the states as inputs instead)"
        found.loses("stateful", words, "stateful")
    if layer.zero_masked:
        found.folds(f"{where}: zero_masked is left out, nothing masks steps", "zero_masked")
    if layer.training != TrainingFacts():
        words = f"{where}: training dropout is left out, it does nothing at inference"
        found.folds(words, "training")
    constants = [a for a in (layer.initial.h, layer.initial.c) if a is not None]
    if constants and not any(a.any() for a in constants):
        found.folds(f"{where}: the constant initial state is zero and left out", "initial")
    cells = list(layer.cells.values())
    for name in ("clip_z", "coupling"):
        if len({getattr(cell, name) for cell in cells}) > 1:
            found.refused.append(f"{where}: {name} differs between its directions")
    biased = any(_has_bias(cell, name) for cell in cells for name in _BIASES)
    peeps = any(cell.peephole is not None for cell in cells)
    for direction, cell in layer.cells.items():
        place = where if len(cells) == 1 else f"{where}, {direction}"
        found.side = direction
        _cell(cell, place, found)
        missing = [n for n in _BIASES if biased and not _has_bias(cell, n)]
        missing += ["peephole"] if peeps and cell.peephole is None else []
        for name in missing:
            found.folds(f"{place}: no {name} is written as zeros", name)
    found.side = ""
    _rounded(cells[0].clip_z, f"{where}: clip_z", found, "clip_z")


def _cell(cell: LSTMCell, where: str, found: Findings) -> None:
    fields = {
        "weight_hr": "a projection (proj_size)",
        "clip_cell": "clip_cell",
        "clip_projection": "clip_projection",
        "layer_norm": "layer norm",
    }
    reasons = dict.fromkeys(
        words for name, words in fields.items() if getattr(cell, name) is not None
    )
    found.refused.extend(f"{where}: {words}" for words in reasons)
    for side, norm in (("ih", cell.input_norm), ("hh", cell.hidden_norm)):
        if norm is not None:
            _norm(cell, side, norm, where, found)
    if cell.coupling == "i=1-f":
        if cell.activations[0] == SIGMOID:
            found.loses(
                "coupling",
                f"{where}: coupling i=1-f (becomes a gate of its own with the negated weights of "
                "f, equal in exact arithmetic)",
                "coupling",
                *("weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole"),
            )
        else:
            found.refused.append(f"{where}: coupling i=1-f with {cell.activations[0]} gates")
    if cell.forget_bias:
        found.loses(
            "forget_bias",
            f"{where}: forget_bias {cell.forget_bias:g} (is added to bias_ih, rounded once"
            f"{_forget_ulps(cell)})",
            *("forget_bias", "bias_ih"),
        )
    for activation in cell.activations:
        _parameters(activation, where, found, "activations")


_BIASES = {"bias_ih": "input_norm", "bias_hh": "hidden_norm"}
"""Bias → the batch norm whose mean becomes part of it."""


def _has_bias(cell: LSTMCell, name: str) -> bool:
    return any(getattr(cell, n) is not None for n in (name, _BIASES[name]))


def _norm(cell: LSTMCell, side: str, norm: MatrixNorm, where: str, found: Findings) -> None:
    weight: Array = getattr(cell, f"weight_{side}")
    what = f"{where}: batch norm of weight_{side}"
    if weight.dtype != np.float32:
        found.refused.append(f"{what} with {weight.dtype} weights (folding rounds to float32)")
        return
    try:
        folded, _ = folded_norm(weight, None, norm, where)
    except UnsupportedError as error:
        found.refused.append(f"{what} ({error.what})")
        return
    exact = weight.astype(np.float64) * norm_gain(norm)[:, None]
    error = float((np.abs(folded - exact) / np.spacing(np.abs(folded))).max())
    words = f"is folded into its rows and its bias, rounded once ({error:.2g} ulp)"
    norms = {"ih": "input_norm", "hh": "hidden_norm"}
    found.folds(f"{what} {words}", norms[side], f"weight_{side}", f"bias_{side}")


def _forget_ulps(cell: LSTMCell) -> str:
    """How far rounding moves the sum of bias_ih and forget_bias; "" where a norm is in between."""
    if cell.input_norm is not None:
        return ""
    units = cell.hidden_size
    old = np.zeros(4 * units) if cell.bias_ih is None else cell.bias_ih.astype(np.float64)
    exact = old[units : 2 * units] + cell.forget_bias
    single = exact.astype(cell.weight_ih.dtype)
    error = np.abs(exact - single.astype(np.float64)) / np.spacing(np.abs(single))
    return f", {float(error.max()):.2g} ulp"


def plain(cell: LSTMCell) -> LSTMCell:
    """The cell that ONNX holds: batch norms folded, rounded once; forget_bias added to bias_ih,
    rounded once; the coupling i=1-f as an input gate of its own, sigmoid(-z) = 1 - sigmoid(z)."""
    units = cell.hidden_size
    forget = slice(units, 2 * units)
    for side, name in (("ih", "input_norm"), ("hh", "hidden_norm")):
        norm: MatrixNorm | None = getattr(cell, name)
        if norm is not None:
            given = getattr(cell, f"weight_{side}"), getattr(cell, f"bias_{side}")
            weight, bias = folded_norm(*given, norm, f"batch norm of {side}")
            parts: dict[str, Any] = {f"weight_{side}": weight, f"bias_{side}": bias, name: None}
            cell = replace(cell, **parts)
    if cell.forget_bias:
        old = cell.bias_ih
        bias = np.zeros(4 * units, cell.weight_ih.dtype) if old is None else old.copy()
        bias[forget] = (bias[forget].astype(np.float64) + cell.forget_bias).astype(bias.dtype)
        cell = replace(cell, bias_ih=bias, forget_bias=0.0)
    if cell.coupling == "i=1-f":
        gates: dict[str, Array] = {}
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole"):
            old = getattr(cell, name)
            if old is not None:
                gates[name] = old.copy()
                of_forget = old[1] if name == "peephole" else old[forget]
                gates[name][0 if name == "peephole" else slice(units)] = -of_forget
        cell = replace(cell, coupling=None, **gates)
    return cell
