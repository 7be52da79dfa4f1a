"""A Model as the tensors of PyTorch modules: what fits, what is folded, what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.activations import LINEAR, Activation
from ifgo.cell import LSTMCell
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats._plan import Plan
from ifgo.gates import CANONICAL, LSTM_LAYOUTS, reorder
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    Recurrent,
    RepeatVector,
)
from ifgo.model import FeatureInput, LengthsInput, Model, StateInput, TokenInput

OWN: Final = "ifgo_layers"
"""Key under which a file says the chain itself, in the words of option layers."""

_BIASES = ("bias_ih", "bias_hh")
_CELL_HANDLED = ("weight_ih", "weight_hh", *_BIASES, "weight_hr", "forget_bias", "activations")
_LAYER_HANDLED = ("name", "forward", "backward", "initial", "merge")
_LAYER_LOSABLE = ("zero_masked", "stateful", "training")
"""They mean nothing to sequences without masks, or to inference of one of them."""

_NUMBERED: Final = re.compile(r"(.+)_l\d+")
_DTYPES: Final = ("float16", "bfloat16", "float32", "float64")


def lay_out(model: Model, *, allow_lossy: Losses) -> tuple[dict[str, NDArray[Any]], str, Report]:
    """Arrays by key, the words of the chain ("" for one nn.LSTM alone), and the report.

    Consecutive layers that one nn.LSTM can hold are one module; alone it needs no prefix.
    Raises UnsupportedError naming, in one message, all that a state_dict cannot hold.
    """
    plan = _Modules(allow_lossy=allow_lossy)
    plan.ends(model)
    groups = _grouped(model.layers)
    plan.alone = len(groups) == 1 and isinstance(groups[0][0], Recurrent)
    for group in groups:
        plan.place(group)
    if not plan.tensors:
        plan.refused.append("a model without weights")
    plan.judge()
    return plan.tensors, "" if plan.alone else ",".join(plan.words), plan.report(model)


def _grouped(layers: Sequence[Layer]) -> list[list[Layer]]:
    """The chain, layers that one nn.LSTM can hold together."""
    groups: list[list[Layer]] = []
    for layer in layers:
        last = groups[-1][-1] if groups else None
        if isinstance(layer, Recurrent) and isinstance(last, Recurrent) and _stacks(last, layer):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return groups


def _stacks(below: Recurrent, above: Recurrent) -> bool:
    """Whether nn.LSTM can hold `above` as the layer after `below`."""

    def form(layer: Recurrent) -> Any:
        cell = layer.cell
        biased = any(getattr(cell, name) is not None for name in _BIASES) or cell.forget_bias
        own = _NUMBERED.fullmatch(layer.name)
        projected = cell.output_size if cell.weight_hr is not None else 0
        sizes = cell.hidden_size, projected, tuple(layer.cells), bool(biased)
        return sizes, own[1] if own else "", layer.training

    return form(below) == form(above)


class _Modules(Plan):
    """The tensors of one state_dict."""

    def __init__(self, *, allow_lossy: Losses) -> None:
        super().__init__("a state_dict", allow_lossy=allow_lossy)
        self.alone = False
        self.tensors: dict[str, NDArray[Any]] = {}
        self.words: list[str] = []
        self.names: set[str] = set()

    def ends(self, model: Model) -> None:
        """Inputs and outputs: nn.LSTM takes and gives states whether a model names them or not."""
        for entry in model.inputs:
            if not isinstance(entry, FeatureInput | TokenInput):
                loss = "lengths" if isinstance(entry, LengthsInput) else "states"
                words = f"{type(entry).__name__} {entry.name!r} as an input of its own"
                self.lose(loss, entry, words)
                for slot in entry.slots if isinstance(entry, StateInput) else ():
                    self.lose(loss, slot.layer, words, "initial.kind")
        for output in model.outputs:
            if output.role not in ("sequence", "last"):
                words = f"output {output.name!r} of role {output.role}"
                self.lose("outputs", output, words)

    def place(self, group: list[Layer]) -> None:
        """One module, or one step between modules."""
        layer = group[0]
        match layer:
            case Recurrent():
                self.lstm([part for part in group if isinstance(part, Recurrent)])
            case Dense():
                name = self.module(layer.name, weight=layer.weight, bias=layer.bias)
                first = layer.bias is None and not self.words[:-1]
                self.words[-1] += ":dense" if first else ""
                self.activation(layer.activation)
                self.keep(layer, name)
            case Embedding():
                self.beyond(layer.name, layer, ("name", "weight"))
                name = self.module(layer.name, weight=layer.weight)
                self.words[-1] += ":embedding"
                self.keep(layer, name)
            case BatchNorm():
                self.norm(layer)
            case ActivationLayer(activation=activation):
                self.step(_spelled(activation), layer)
                if activation == LINEAR:
                    words = f"{layer.name} (activation): linear, as affine(1, 0)"
                    self.fold(layer, words, "activation")
            case LastStep():
                self.step("last" if layer.of == "sequence" else "state", layer)
            case Dropout():
                self.step(f"dropout({layer.rate!r})", layer)
            case Flatten() | RepeatVector():
                self.step(f"{layer.kind}({layer.steps})", layer)
            case HiddenAsSequence():
                self.step("hidden_as_sequence", layer)
            case _:
                self.refused.append(f"layer {layer.name}: {layer.kind}")

    def keep(self, layer: Layer, name: str) -> None:
        self.kept.append(f"{layer.name} ({layer.kind}): {name}")

    def activation(self, activation: Activation) -> None:
        if activation != LINEAR:
            self.words[-1] += f":{_spelled(activation)}"

    def step(self, word: str, layer: Layer) -> None:
        """A step after the last module, of which the file keeps the word alone."""
        if not self.words:
            self.words.append("")
        self.words[-1] += f":{word}"
        self.kept.append(f"{layer.name} ({layer.kind}): {word} in the chain")

    def module(self, name: str, **parts: Any) -> str:
        """Takes the tensors of a module called `name`, in letters that words and keys allow."""
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:200] or "module"
        spelled, k = base, 2
        while spelled in self.names:
            spelled, k = f"{base}_{k}", k + 1
        self.names.add(spelled)
        self.words.append(spelled)
        prefix = "" if self.alone else f"{spelled}."
        for key, array in parts.items():
            if array is not None:
                self.tensors[prefix + key] = self.native(name, key, array)
        return ", ".join(prefix + key for key, array in parts.items() if array is not None)

    def native(self, name: str, what: str, array: NDArray[Any]) -> NDArray[Any]:
        """`array` as it is: a state_dict holds four floating-point types."""
        if array.dtype.name not in _DTYPES:
            self.refused.append(f"layer {name}: {what} of dtype {array.dtype}")
        return np.ascontiguousarray(array)

    def norm(self, layer: BatchNorm) -> None:
        if (layer.weight is None) != (layer.bias is None):
            self.refused.append(f"layer {layer.name}: weight and bias, one without the other")
        own = ("name", "mean", "variance", "weight", "bias", "epsilon", "epsilon_outside")
        self.beyond(layer.name, layer, own)
        if layer.epsilon_outside:
            self.refused.append(f"layer {layer.name}: batch norm with epsilon outside the root")
        parts = {"weight": layer.weight, "bias": layer.bias}
        name = self.module(layer.name, **parts, running_mean=layer.mean, running_var=layer.variance)
        self.words[-1] += f":batch_norm({layer.epsilon!r})"
        self.keep(layer, name)

    def lstm(self, group: list[Recurrent]) -> None:
        """One nn.LSTM."""
        own = _NUMBERED.fullmatch(group[0].name)
        name = own[1] if own and len(group) > 1 else group[0].name
        parts: dict[str, NDArray[Any]] = {}
        for k, layer in enumerate(group):
            self.rules(layer)
            if layer.forward is None:
                self.refused.append(f"layer {layer.name}: no forward direction")
            biased = any(getattr(c, b) is not None for c in layer.cells.values() for b in _BIASES)
            biased = biased or any(cell.forget_bias for cell in layer.cells.values())
            for direction, cell in layer.cells.items():
                end = f"_l{k}" + ("_reverse" if direction == "backward" else "")
                self.side = direction
                arrays = self.cell(layer.name, cell, biased=biased)
                self.side = ""
                parts |= {part + end: array for part, array in arrays.items()}
        keys = self.module(name, **parts)
        for k, layer in enumerate(group):
            mine = [key for key in keys.split(", ") if re.search(rf"_l{k}(_reverse)?$", key)]
            self.kept.append(f"{layer.name} (lstm): {', '.join(mine)}")

    def rules(self, layer: Recurrent) -> None:
        """What nn.LSTM has no word for."""
        name = layer.name
        self.beyond(name, layer, _LAYER_HANDLED, _LAYER_LOSABLE)
        if layer.directions == 2 and layer.merge != "concat":
            self.refused.append(f"layer {name}: merge {layer.merge}")
        if layer.initial.kind == "constant":
            self.refused.append(f"layer {name}: initial state of kind constant")
        for cell in layer.cells.values():
            self.beyond(name, cell, _CELL_HANDLED)
            if [a.name for a in cell.activations] != ["sigmoid", "tanh", "tanh"]:
                self.refused.append(
                    f"layer {name}: activations {'/'.join(map(str, cell.activations))}"
                )
            if cell.weight_hr is not None and cell.output_size >= cell.hidden_size:
                self.refused.append(
                    f"layer {name}: a projection to {cell.output_size}, which PyTorch wants below "
                    f"hidden_size {cell.hidden_size}"
                )

    def cell(self, name: str, cell: LSTMCell, *, biased: bool) -> dict[str, NDArray[Any]]:
        """The arrays of one direction, in PyTorch's order of gates and of keys."""
        found: dict[str, NDArray[Any]] = {"weight_ih": cell.weight_ih, "weight_hh": cell.weight_hh}
        if biased:
            dtype = cell.weight_ih.dtype
            for key in _BIASES:
                bias = getattr(cell, key)
                if bias is None:
                    self.fold(name, f"{name} (lstm): no {key}, which PyTorch wants: zeros", key)
                found[key] = np.zeros(4 * cell.hidden_size, dtype) if bias is None else bias
            if cell.forget_bias:
                found["bias_ih"] = self.forget(name, cell, found["bias_ih"])
        order = LSTM_LAYOUTS["pytorch"].order
        found = {key: reorder(array, CANONICAL, order) for key, array in found.items()}
        return found | ({} if cell.weight_hr is None else {"weight_hr": cell.weight_hr})

    def forget(self, name: str, cell: LSTMCell, bias: NDArray[Any]) -> NDArray[Any]:
        """bias_ih with the run-time forget bias added, where that is permitted."""
        what = f"forget_bias {cell.forget_bias:g}"
        if "forget_bias" not in self.permitted:
            self.lose("forget_bias", name, f"layer {name}: {what}", "forget_bias")
            return bias
        rows = slice(cell.hidden_size, 2 * cell.hidden_size)
        total = bias.astype(np.float64)
        total[rows] += cell.forget_bias
        with np.errstate(over="ignore"):
            rounded = total.astype(bias.dtype)
        if not np.isfinite(rounded.astype(np.float64)).all():
            self.refused.append(f"layer {name}: {what} + bias_ih, beyond {bias.dtype}")
        error = np.abs(total - rounded.astype(np.float64)) / np.spacing(np.abs(rounded))
        off = f"rounded once in {bias.dtype}, off by up to {float(error.max()):.3g} ulp"
        words = f"layer {name}: {what} + bias_ih, {off}"
        self.lose("forget_bias", name, words, "forget_bias", "bias_ih")
        return rounded


def _spelled(activation: Activation) -> str:
    """The word that option layers has for it; linear is affine(1, 0) there."""
    values = [repr(v) for v in (activation.alpha, activation.beta) if v is not None]
    if activation == LINEAR:
        return "affine(1.0,0.0)"
    return f"{activation.name}({','.join(values)})" if values else activation.name
