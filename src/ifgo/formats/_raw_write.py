"""From a Model to raw tensors and their sheet: what fits, what is folded, what is refused."""

from __future__ import annotations

import numpy as np

from ifgo.cell import LSTMCell
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats._plan import Plan
from ifgo.formats._raw_files import Floats
from ifgo.formats._raw_toml import BIASES, Encoding, Layout, Sheet, Weighted
from ifgo.gates import CANONICAL, LSTM_LAYOUTS, reorder
from ifgo.layers import (
    ActivationLayer,
    Dense,
    Dropout,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    Recurrent,
    RepeatVector,
)
from ifgo.model import FeatureInput, LengthsInput, Model

_IN_TOML = (ActivationLayer, Dropout, Flatten, HiddenAsSequence, LastStep, RepeatVector)
_CELL_HANDLED = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "forget_bias")
_LAYER_HANDLED = ("name", "forward", "initial")
_LAYER_LOSABLE = ("merge", "zero_masked", "stateful", "training")
"""They mean nothing to one forward direction without masks, or to inference of one sequence."""


def lay_out(
    model: Model, layout: Layout, encoding: Encoding, *, allow_lossy: Losses
) -> tuple[Sheet, dict[str, Floats], Report]:
    """The sheet, the flat values by file name without ending, and the report.

    Raises UnsupportedError naming, in one message, all that the format cannot hold; allow_lossy
    permits what stays the same computation up to rounding.
    """
    plan = _Folder(layout, allow_lossy=allow_lossy)
    for entry in model.inputs:
        if isinstance(entry, LengthsInput):
            plan.lose("lengths", entry, f"lengths input {entry.name!r}")
        elif not isinstance(entry, FeatureInput):
            plan.refused.append(f"{type(entry).__name__} {entry.name!r}")
    layers = [placed for layer in model.layers if (placed := plan.layer(layer)) is not None]
    if not model.arrays:
        plan.refused.append("a model without weights")
    names = [entry.name for entry in (*model.inputs, *model.layers, *model.outputs)]
    for name in names:
        if any("\ud800" <= char <= "\udfff" for char in name):
            plan.refused.append(f"name {name!r}, which is no Unicode text")
    plan.judge()
    size, first = model.input_size, model.input
    sheet = Sheet(
        layout, encoding, FeatureInput(size, first.name, first.axes), tuple(layers), model.outputs
    )
    return sheet, plan.tensors, plan.report(model)


class _Folder(Plan):
    """The tensors of one folder."""

    def __init__(self, layout: Layout, *, allow_lossy: Losses) -> None:
        super().__init__("raw tensors", allow_lossy=allow_lossy)
        self.gates = LSTM_LAYOUTS[f"raw_{layout.lower()}"]
        self.number = 0
        self.tensors: dict[str, Floats] = {}

    def layer(self, layer: Layer) -> Layer | Weighted | None:
        """How `layer` stands in the sheet; None where it is refused."""
        if isinstance(layer, Recurrent):
            return self.recurrent(layer)
        if isinstance(layer, Dense):
            return self.dense(layer)
        if isinstance(layer, _IN_TOML):
            self.kept.append(f"{layer.name} ({layer.kind}): model.toml")
            return layer
        self.refused.append(f"layer {layer.name}: {layer.kind}")
        return None

    def dense(self, layer: Dense) -> Weighted:
        weight = self.single(layer.name, "weight", layer.weight)
        parts = {"W": weight.T if self.gates.orientation == "columns" else weight}
        if layer.bias is not None:
            parts["B"] = self.single(layer.name, "bias", layer.bias)
        self.store(layer, weight.shape[0], parts)
        return Weighted("dense", layer.name, activation=layer.activation)

    def recurrent(self, layer: Recurrent) -> Weighted | None:
        name = layer.name
        self.beyond(name, layer, _LAYER_HANDLED, _LAYER_LOSABLE)
        if layer.initial.kind != "zero":
            self.refused.append(f"layer {name}: initial state of kind {layer.initial.kind}")
        if layer.forward is None:
            self.refused.append(f"layer {name}: no forward direction")
            return None
        cell = layer.forward
        self.beyond(name, cell, _CELL_HANDLED)
        bias, declared = self.bias(name, cell)
        parts = {
            "W": self.single(name, "weight_ih", cell.weight_ih),
            "R": self.single(name, "weight_hh", cell.weight_hh),
        }
        blocks = {key: reorder(part, CANONICAL, self.gates.order) for key, part in parts.items()}
        if self.gates.orientation == "columns":
            blocks = {key: block.T for key, block in blocks.items()}
        self.store(layer, cell.hidden_size, {**blocks, "B": bias})
        return Weighted("lstm", name, declared)

    def bias(self, name: str, cell: LSTMCell) -> tuple[Floats, tuple[str, ...] | None]:
        """The values of the B file, and which biases they are where B alone would say otherwise."""
        stacked = self.gates.bias == "stacked"
        given = self.biases(name, cell, one=not stacked, says_which=True)
        usual = BIASES if stacked else ("bias_ih",)
        absent = [key for key in (BIASES if stacked else BIASES[:1]) if key not in given]
        if absent and (stacked or not given):
            self.kept.append(
                f"{name} (lstm): no {' and '.join(absent)}; zeros in B, and model.toml says so"
            )
        zeros = np.zeros(4 * cell.hidden_size, np.float32)
        stored = [given.get(key, zeros) for key in BIASES] if stacked else [*given.values(), zeros]
        count = 2 if stacked else 1
        blocks = [reorder(block, CANONICAL, self.gates.order) for block in stored[:count]]
        return np.concatenate(blocks), None if tuple(given) == usual else tuple(given)

    def store(self, layer: Layer, size: int, parts: dict[str, Floats]) -> None:
        """Take the arrays of the next weight-bearing layer."""
        self.number += 1
        named = {f"tensor_{letter}_{self.number}_{size}": part for letter, part in parts.items()}
        self.tensors |= {name: np.ascontiguousarray(part) for name, part in named.items()}
        self.kept.append(f"{layer.name} ({layer.kind}): {', '.join(named)}")
