"""From a Model to raw tensors and their sheet: what fits, what is folded, what is refused.

Fields that raw tensors cannot hold are found by comparing with their defaults, so a field that is
new to the Model is refused here until it is handled.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, cast

import numpy as np

from ifgo.cell import Array, LSTMCell
from ifgo.errors import UnsupportedError
from ifgo.formats import Report
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
    model: Model, layout: Layout, encoding: Encoding, *, allow_lossy: bool
) -> tuple[Sheet, dict[str, Floats], Report]:
    """The sheet, the flat values by file name without ending, and the report.

    Raises UnsupportedError naming, in one message, all that the format cannot hold; allow_lossy
    permits what stays the same computation up to rounding.
    """
    plan = _Plan(layout, allow_lossy)
    for entry in model.inputs:
        if isinstance(entry, LengthsInput):
            plan.losable.append(f"lengths input {entry.name!r}")
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
    lost = tuple(dict.fromkeys(plan.losable))
    return sheet, plan.tensors, Report(tuple(plan.kept), tuple(plan.folded), lost)


class _Plan:
    """What becomes of each layer, collected over the whole model."""

    def __init__(self, layout: Layout, allow_lossy: bool) -> None:
        self.gates = LSTM_LAYOUTS[f"raw_{layout.lower()}"]
        self.allow_lossy = allow_lossy
        self.number = 0
        self.tensors: dict[str, Floats] = {}
        self.kept: list[str] = []
        self.folded: list[str] = []
        self.losable: list[str] = []
        self.refused: list[str] = []

    def judge(self) -> None:
        """Raises UnsupportedError where something is refused, or lost without permission."""
        reasons = self.refused + ([] if self.allow_lossy else self.losable)
        if reasons:
            whole = "an .ifgo file, which holds every model"
            raise UnsupportedError(
                "raw tensors cannot hold " + "; ".join(dict.fromkeys(reasons)),
                hint=f"Write {whole}"
                if self.refused
                else f"Permit it with --allow-lossy, or write {whole}",
            )

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
        losable, refused = _beyond(layer, _LAYER_HANDLED, _LAYER_LOSABLE)
        self.losable += [f"layer {name}: {what}" for what in losable]
        self.refused += [f"layer {name}: {what}" for what in refused]
        if layer.initial.kind != "zero":
            self.refused.append(f"layer {name}: initial state of kind {layer.initial.kind}")
        if layer.forward is None:
            self.refused.append(f"layer {name}: no forward direction")
            return None
        cell = layer.forward
        _, refused = _beyond(cell, _CELL_HANDLED, ())
        self.refused += [f"layer {name}: {what}" for what in refused]
        bias, declared = self.biases(name, cell)
        parts = {
            "W": self.single(name, "weight_ih", cell.weight_ih),
            "R": self.single(name, "weight_hh", cell.weight_hh),
        }
        blocks = {key: reorder(part, CANONICAL, self.gates.order) for key, part in parts.items()}
        if self.gates.orientation == "columns":
            blocks = {key: block.T for key, block in blocks.items()}
        self.store(layer, cell.hidden_size, {**blocks, "B": bias})
        return Weighted("lstm", name, declared)

    def biases(self, name: str, cell: LSTMCell) -> tuple[Floats, tuple[str, ...] | None]:
        """The values of the B file, and which biases they are where B alone would say otherwise."""
        given: dict[str, Floats] = {}
        for key in BIASES:
            if (array := getattr(cell, key)) is not None:
                given[key] = self.single(name, key, array)
        stacked = self.gates.bias == "stacked"
        if len(given) == 2 and not stacked:
            total = self.add(name, "bias_ih + bias_hh", given["bias_ih"], given["bias_hh"])
            given = {"bias_ih": total}
        if cell.forget_bias:
            what = f"forget_bias {cell.forget_bias:g}"
            if self.allow_lossy:
                target = next(iter(given), "bias_ih")
                zero = np.zeros(4 * cell.hidden_size, np.float32)
                extra = np.zeros(4 * cell.hidden_size)
                extra[cell.hidden_size : 2 * cell.hidden_size] = cell.forget_bias
                given[target] = self.add(name, f"{what} + {target}", given.get(target, zero), extra)
            else:
                self.losable.append(f"layer {name}: {what}")
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

    def add(self, name: str, what: str, a: Floats, b: Array) -> Floats:
        """a + b rounded to float32, reported with its largest error."""
        exact = a.astype(np.float64) + b
        with np.errstate(over="ignore"):
            total = exact.astype(np.float32)
        if not np.isfinite(total).all():
            self.refused.append(f"layer {name}: {what}, beyond float32")
            return a
        self.folded.append(
            f"{name} (lstm): {what} in one float32, off by up to {_ulps(exact, total):.3g} ulp"
        )
        return total

    def single(self, name: str, what: str, array: Array) -> Floats:
        """`array` as float32; noted where its dtype is another, refused where a value is beyond."""
        dtype = array.dtype.name
        with np.errstate(over="ignore"):
            values = array.astype(np.float32)
        if not np.isfinite(values).all():
            self.refused.append(f"layer {name}: {what}, beyond float32")
        elif (values.astype(array.dtype) != array).any():
            error = _ulps(array.astype(np.float64), values)
            self.losable.append(
                f"layer {name}: {dtype} {what}, in float32 off by up to {error:.3g} ulp"
            )
        elif dtype != "float32":
            self.folded.append(f"{name}: {dtype} {what} as float32, same values")
        return values

    def store(self, layer: Layer, size: int, parts: dict[str, Floats]) -> None:
        """Take the arrays of the next weight-bearing layer."""
        self.number += 1
        named = {f"tensor_{letter}_{self.number}_{size}": part for letter, part in parts.items()}
        self.tensors |= {name: np.ascontiguousarray(part) for name, part in named.items()}
        self.kept.append(f"{layer.name} ({layer.kind}): {', '.join(named)}")


def _beyond(
    owner: Any, handled: tuple[str, ...], losable: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    """The fields of `owner` that differ from their default: those that may be lost, the others."""
    found: tuple[list[str], list[str]] = ([], [])
    for field in fields(owner):
        if field.name in handled:
            continue
        value, default = getattr(owner, field.name), field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if value is default or (not isinstance(value, np.ndarray) and value == default):
            continue
        found[field.name not in losable].append(_words(field.name, value))
    return found


def _words(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str | tuple):
        return name
    if isinstance(value, tuple):
        return f"{name} {'/'.join(map(str, cast('tuple[Any, ...]', value)))}"
    return f"{name} {value}"


def _ulps(exact: Any, single: Floats) -> float:
    """The largest distance between `exact` and `single` in units in the last place of float32."""
    spacing = np.spacing(np.abs(single)).astype(np.float64)
    return float(np.max(np.abs(exact - single.astype(np.float64)) / spacing))
