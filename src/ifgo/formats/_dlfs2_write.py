"""A Model as the list of arrays of Deep Learning from Scratch 2, and that list as a pickle."""

from __future__ import annotations

import pickle
from typing import Any, Final

import numpy as np

from ifgo.cell import Array
from ifgo.errors import IfgoError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats._plan import Plan, ulps
from ifgo.gates import CANONICAL, LSTM_LAYOUTS, reorder
from ifgo.layers import LINEAR, Dense, Dropout, Embedding, Layer, Recurrent
from ifgo.model import FeatureInput, Model, TokenInput

DTYPES: Final = ("float16", "float32")

_PROTOCOL: Final = 3
"""What the book's Python writes."""

_NEW_NAME, _OLD_NAME = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
"""Where NumPy 2 says its arrays are rebuilt, and what every NumPy understands."""

_CELL_HANDLED = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "forget_bias")
_LAYER_HANDLED = ("name", "forward", "initial", "stateful")
_LAYER_LOSABLE = ("merge", "zero_masked", "training")
_OURS: Final = {
    "embed_W": ("weight",),
    "Wx": ("weight_ih",),
    "Wh": ("weight_hh",),
    "b": ("bias_ih", "bias_hh"),
    "affine_W": ("weight",),
    "affine_b": ("bias",),
}
"""Their array → our attributes of the layer."""
_ORDER: Final = "an embedding, LSTMs, an affine layer"


def lay_out(model: Model, dtype: str, *, allow_lossy: Losses, where: str) -> tuple[bytes, Report]:
    """The bytes of the file and the report. Raises UnsupportedError naming all that is refused."""
    plan = _List(dtype, allow_lossy=allow_lossy)
    try:
        plan.chain(model)
        plan.judge()
    except IfgoError as error:
        raise error.located(where) from None
    data = pickle.dumps(plan.arrays, _PROTOCOL)
    # The first of them stands before all numbers.
    return data.replace(_NEW_NAME, _OLD_NAME, 1), plan.report(model)


class _List(Plan):
    """The arrays in their order."""

    def __init__(self, dtype: str, *, allow_lossy: Losses) -> None:
        super().__init__("A list of parameters", allow_lossy=allow_lossy)
        self.dtype = dtype
        self.arrays: list[Any] = []

    def chain(self, model: Model) -> None:
        """Every part of `model`, and whether it stands where the list has a place for it."""
        for entry in model.inputs:
            if not isinstance(entry, FeatureInput | TokenInput):
                self.refused.append(f"{type(entry).__name__} {entry.name!r}")
        for output in model.outputs:
            if output.role != "sequence":
                self.refused.append(f"output {output.name!r} of role {output.role}")
        kinds = "".join(letter for layer in model.layers for letter in _letter(layer))
        after, middle = kinds.lstrip("e"), kinds.strip("ea")
        if not middle or set(middle) != {"l"} or after.rstrip("a") != middle or kinds[-2:] == "aa":
            order = ", ".join(layer.kind for layer in model.layers)
            self.refused.append(f"layers {order}, in another order than {_ORDER}")
        embedded = kinds.startswith("e")
        for layer in model.layers:
            self.layer(layer, embedded=embedded)

    def layer(self, layer: Layer, *, embedded: bool) -> None:
        match layer:
            case Embedding():
                if layer.mask_zero:
                    self.refused.append(f"layer {layer.name}: mask_zero")
                self.store(layer, "embed_W", layer.weight)
            case Recurrent():
                self.recurrent(layer, embedded=embedded)
            case Dense():
                if layer.activation != LINEAR:
                    self.refused.append(f"layer {layer.name}: activation {layer.activation}")
                self.store(layer, "affine_W", layer.weight.T)
                bias = layer.bias
                if bias is None:
                    self.zeros(layer.name)
                    bias = np.zeros(layer.weight.shape[0], np.float32)
                self.store(layer, "affine_b", bias)
            case Dropout():
                self.lose("dropout", layer, f"layer {layer.name}: dropout of rate {layer.rate:g}")
            case _:
                self.refused.append(f"layer {layer.name}: {layer.kind}")

    def recurrent(self, layer: Recurrent, *, embedded: bool) -> None:
        name = layer.name
        self.beyond(name, layer, _LAYER_HANDLED, _LAYER_LOSABLE)
        if layer.initial.kind != "zero":
            self.refused.append(f"layer {name}: initial state of kind {layer.initial.kind}")
        if layer.forward is None:
            self.refused.append(f"layer {name}: no forward direction")
            return
        if layer.stateful != embedded:
            habit = "Rnnlm keeps its state" if embedded else "TimeLSTM does by default not"
            words = f"layer {name}: stateful {layer.stateful} ({habit})"
            self.lose("stateful", layer, words, "stateful")
        cell = layer.forward
        self.beyond(name, cell, _CELL_HANDLED)
        order = LSTM_LAYOUTS["dlfs2"].order
        for field, theirs in (("weight_ih", "Wx"), ("weight_hh", "Wh")):
            values = reorder(getattr(cell, field), CANONICAL, order)
            self.store(layer, theirs, values.T)
        given = self.biases(name, cell, one=True)
        if not given:
            self.no_lstm_bias(name)
        zeros = np.zeros(4 * cell.hidden_size, np.float32)
        self.store(layer, "b", reorder(next(iter(given.values()), zeros), CANONICAL, order))

    def store(self, layer: Layer, theirs: str, values: Array) -> None:
        """The next array, rounded to the dtype of the file."""
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values.astype(self.dtype))
        if not np.isfinite(stored).all():
            self.refused.append(f"layer {layer.name}: {theirs}, beyond {self.dtype}")
            return
        error = float(np.abs(stored.astype(np.float64) - values.astype(np.float64)).max())
        if error:
            off = f"{error:.3g}"
            if self.dtype == "float32":
                off = f"{ulps(values.astype(np.float64), stored):.3g} ulp"
            words = f"layer {layer.name}: {theirs} in {self.dtype} off by up to {off}"
            self.lose("dtype", layer, words, *_OURS[theirs])
        elif values.dtype != np.float32:  # which a reader gives back
            words = f"{layer.name}: {values.dtype.name} {theirs} as {self.dtype}, same values"
            self.fold(layer, words, *_OURS[theirs])
        self.kept.append(f"{layer.name} ({layer.kind}): array {len(self.arrays)}, {theirs}")
        self.arrays.append(stored)


def _letter(layer: Layer) -> str:
    """How `layer` counts in the order of the list; "" where it has no arrays there."""
    match layer:
        case Embedding():
            return "e"
        case Recurrent():
            return "l"
        case Dense():
            return "a"
        case _:
            return ""
