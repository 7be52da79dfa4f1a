"""GuitarML JSON: the file of NeuralPi, Proteus and the TS-M1N3 (FORMATS.md).

{"model_data": sizes, "state_dict": tensors in PyTorch's layout}: LSTM layers, one Linear, and
`skip` channels of the input added to what comes out. The plug-ins keep the state from one buffer
to the next, so the layers are read as stateful.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from ifgo import files
from ifgo.activations import LINEAR
from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats import Report, _json
from ifgo.formats._attributes import Losses
from ifgo.formats._audio_plan import AudioPlan
from ifgo.formats._plan import Floats
from ifgo.gates import CANONICAL, LSTM_LAYOUTS, reorder
from ifgo.layers import Dense, Layer, Recurrent, Residual
from ifgo.model import FeatureInput, Model, Provenance
from ifgo.text import listed

EXTENSIONS: tuple[str, ...] = ()
"""It shares .json with others, so it is named: --to guitarml."""
READ_OPTIONS: tuple[str, ...] = ()
WRITE_OPTIONS: tuple[str, ...] = ()

_SIZES: Final = ("input_size", "output_size", "num_layers", "hidden_size", "skip", "bias_fl")
_MATRICES: Final = {
    "weight_ih": "rec.weight_ih_l{}",
    "weight_hh": "rec.weight_hh_l{}",
    "bias_ih": "rec.bias_ih_l{}",
    "bias_hh": "rec.bias_hh_l{}",
}
"""Our field of a cell → their tensor of layer number {}."""


def sniff(path: Path) -> bool:
    """Whether `path` starts like a JSON object with "model_data" or "state_dict"."""
    start = _json.head(path)
    return b'"model_data"' in start or b'"state_dict"' in start


def read(path: Path) -> Model:
    """The model in `path`, float32. Raises FormatError where a tensor is missing, left over or of
    another shape than model_data says, UnsupportedError naming what is no LSTM of this kind."""
    try:
        return _model(_json.Fields(_json.read(path)), path)
    except IfgoError as error:
        raise error.located(str(path)) from None


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write `model` to `path`. Raises UnsupportedError naming, in one message, all that the format
    cannot hold. allow_lossy permits zeros for absent biases and rounding to float32."""
    plan = _Writer(allow_lossy=allow_lossy)
    try:
        plan.chain(model)
        plan.judge()
    except IfgoError as error:
        raise error.located(str(path)) from None
    files.atomic_write(path, _json.text({"model_data": plan.sizes, "state_dict": plan.tensors}))
    return plan.report(model)


def _model(root: _json.Fields, path: Path) -> Model:
    root.only("model_data", "state_dict")
    facts = root.fields("model_data")
    facts.only("model", "unit_type", *_SIZES)
    for key, wanted in (("model", "SimpleRNN"), ("unit_type", "LSTM")):
        if facts.text(key) != wanted:
            raise UnsupportedError(
                f"{key} is {_json.shown(facts.values[key])}",
                where=facts.where,
                expected=repr(wanted),
                hint="ifgo reads LSTM networks",
            )
    inputs = facts.size("input_size", "input_size")
    outputs = facts.size("output_size", "input_size")
    hidden = facts.size("hidden_size", "hidden_size")
    count = facts.size("num_layers", "layers", less=2)
    skip = facts.whole("skip", 0, inputs)
    if skip not in (0, outputs):
        raise UnsupportedError(
            f"skip is {skip} where output_size is {outputs}",
            where=facts.where,
            expected="skip 0, or as many channels as come out",
            hint="PyTorch would repeat the one over the other; ifgo adds channel to channel",
        )
    names = {
        f"rec_l{k}.forward.{ours}": theirs.format(k)
        for k in range(count)
        for ours, theirs in _MATRICES.items()
    }
    names |= {"lin.weight": "lin.weight"}
    if facts.flag("bias_fl"):
        names |= {"lin.bias": "lin.bias"}
    tensors = root.fields("state_dict")
    if extra := sorted(set(tensors.values) - set(names.values())):
        raise FormatError(
            f"tensor {_json.quoted(extra)} has no place in the network that model_data describes",
            where=tensors.where,
            expected="one of " + listed(names.values()),
        )
    numbers = _json.Numbers()
    order = LSTM_LAYOUTS["guitarml"].order
    layers: list[Layer] = []
    for k in range(count):
        width = inputs if k == 0 else hidden
        shapes = ((4 * hidden, width), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
        parts: dict[str, Any] = {}
        for (ours, theirs), shape in zip(_MATRICES.items(), shapes, strict=True):
            name = theirs.format(k)
            stored = numbers.take(tensors.need(name), shape, name, tensors.where)
            parts[ours] = reorder(stored, order)
        layers.append(Recurrent(f"rec_l{k}", LSTMCell(**parts), stateful=True))
    weight = numbers.take(
        tensors.need("lin.weight"), (outputs, hidden), "lin.weight", tensors.where
    )
    bias = None
    if "lin.bias" in names:
        bias = numbers.take(tensors.need("lin.bias"), (outputs,), "lin.bias", tensors.where)
    layers.append(Dense("lin", weight, bias))
    if skip:
        layers = [Residual("skip", tuple(layers), skip)]
        names = {f"skip.{ours}": theirs for ours, theirs in names.items()}
    provenance = Provenance("guitarml", "", str(path), numbers.notes, names)
    return Model((FeatureInput(inputs),), tuple(layers), provenance=provenance)


class _Writer(AudioPlan):
    """model_data and state_dict of one model."""

    def __init__(self, *, allow_lossy: Losses) -> None:
        super().__init__("GuitarML JSON", allow_lossy=allow_lossy)
        self.sizes: dict[str, Any] = {}
        self.tensors: dict[str, Any] = {}

    def chain(self, model: Model) -> None:
        """Every part of `model`."""
        self.ends(model)
        layers = list(model.layers)
        skip = 0
        if len(layers) == 1 and isinstance(layers[0], Residual):
            skip, layers = layers[0].channels, list(layers[0].layers)
            if skip != model.output_size:
                self.refused.append(
                    f"layer {model.layers[0].name}: {skip} of {model.output_size} channels added"
                )
        stack, head = self.stack_and_head(layers)
        if head is None or not stack:
            return
        for k, layer in enumerate(stack):
            self.recurrent(k, layer)
        weight = self.single(head.name, "weight", head.weight)
        self.tensors["lin.weight"] = _json.numbers(weight)
        if head.bias is not None:
            self.tensors["lin.bias"] = _json.numbers(self.single(head.name, "bias", head.bias))
        if head.activation != LINEAR:
            self.refused.append(f"layer {head.name}: activation {head.activation}")
        self.kept.append(f"{head.name} (dense): lin")
        self.sizes = {
            "model": "SimpleRNN",
            "input_size": model.input_size,
            "skip": skip,
            "output_size": weight.shape[0],
            "unit_type": "LSTM",
            "num_layers": len(stack),
            "hidden_size": stack[0].hidden_size,
            "bias_fl": head.bias is not None,
        }

    def recurrent(self, k: int, layer: Recurrent) -> None:
        """The four tensors of layer number k."""
        cell = self.cell(layer)
        if cell is None:
            return
        given = self.biases(layer.name, cell, one=False)
        arrays: dict[str, Floats] = {
            name: self.single(layer.name, name, getattr(cell, name))
            for name in ("weight_ih", "weight_hh")
        }
        for name in ("bias_ih", "bias_hh"):
            if name not in given:
                self.zeros(layer.name, name)
            arrays[name] = given.get(name, np.zeros(4 * cell.hidden_size, np.float32))
        for name, array in arrays.items():
            stored = reorder(array, CANONICAL, LSTM_LAYOUTS["guitarml"].order)
            self.tensors[_MATRICES[name].format(k)] = _json.numbers(stored)
        self.kept.append(f"{layer.name} (lstm): rec layer {k}")
