"""A Model as a float32 TFLite flatbuffer: what fits, what is folded, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from ifgo import files, gates
from ifgo.activations import LINEAR, RELU, SIGMOID, SOFTMAX, TANH, Activation
from ifgo.cell import LSTMCell
from ifgo.errors import IfgoError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats._plan import Floats, Plan
from ifgo.formats.tflite.build import FlatFile
from ifgo.formats.tflite.file import schema
from ifgo.formats.tflite.lstm import ACTIVATIONS, BIDIRECTIONAL, LAYOUT, UNIDIRECTIONAL
from ifgo.layers import (
    ActivationLayer,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    LastStep,
    Layer,
    Recurrent,
    Scale,
)
from ifgo.model import FeatureInput, Model, TokenInput

_FUSED: Final = {LINEAR: 0, RELU: 1, TANH: 4}
_OPERATORS: Final = {
    SIGMOID: "LOGISTIC",
    TANH: "TANH",
    RELU: "RELU",
    SOFTMAX: "SOFTMAX",
    Activation("elu", 1.0): "ELU",
}
_CELL_HANDLED = (
    *("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "bias_hr", "peephole"),
    *("activations", "clip_cell", "clip_projection", "coupling", "forget_bias", "layer_norm"),
)
_GATED = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole")
"""Arrays with rows for each gate."""
_EPSILON: Final = 1e-8


def write_file(model: Model, path: Path, *, allow_lossy: Losses) -> Report:
    """Write `path`; see ifgo.formats.tflite.write."""
    try:
        flat = _Flat(model, allow_lossy=allow_lossy)
        flat.chain()
        flat.judge()
    except IfgoError as error:
        raise error.located(str(path)) from None
    data = flat.file.bytes((flat.first,), (flat.last,), "ifgo")
    files.atomic_write(path, data)
    return flat.report(model)


class _Flat(Plan):
    """Operators of the file, layer by layer. `last` is the tensor after the last one."""

    def __init__(self, model: Model, *, allow_lossy: Losses) -> None:
        super().__init__("TFLite", allow_lossy=allow_lossy)
        self.model = model
        self.file = FlatFile(schema())
        self.time_major = model.input.axes == "TB"
        self.vector = False
        # open, unless a layer needs a whole sequence of a known length
        self.steps = next((la.steps for la in model.layers if isinstance(la, Flatten)), -1)
        self.width = model.input_size
        tokens = isinstance(model.input, TokenInput)
        shape = self._shape() if not tokens else self._shape()[:2]
        kind = "int32" if tokens else "float32"
        self.first = self.last = self.file.tensor(model.input.name, shape, dtype=kind)

    def _shape(self) -> tuple[int, ...]:
        """What the tensor after the last operator has; a batch of 1, as the states have."""
        if self.vector:
            return (1, self.width)
        return (self.steps, 1, self.width) if self.time_major else (1, self.steps, self.width)

    def chain(self) -> None:
        """Every part of the model."""
        for entry in self.model.inputs:
            if not isinstance(entry, FeatureInput | TokenInput):
                self.refused.append(f"{type(entry).__name__} {entry.name!r}")
        for output in self.model.outputs:
            if output.role not in ("sequence", "last"):
                self.refused.append(f"output {output.name!r} of role {output.role}")
            elif output.role == "sequence" and (output.axes == "TB") != self.time_major:
                self.refused.append(f"output {output.name!r} in another order of batch and time")
        if len(self.model.outputs) > 1:
            self.refused.append(f"{len(self.model.outputs)} outputs")
        for layer in self.model.layers:
            self.layer(layer)

    def layer(self, layer: Layer) -> None:
        """The operators of one layer."""
        name = layer.name
        match layer:
            case Recurrent():
                self.recurrent(layer)
            case Dense():
                self.dense(layer)
            case ActivationLayer(activation=activation) if activation == LINEAR:
                self.fold(layer, f"{name} (activation): linear, left out")
                return
            case ActivationLayer(activation=activation):
                self.activation(name, activation)
            case Scale(factor=factor, offset=offset):
                self.scale(name, "factor", "MUL", factor)
                self.scale(name, "offset", "ADD", offset)
            case LastStep(of=of):
                before = self.model.layers[self.model.layers.index(layer) - 1]
                both = isinstance(before, Recurrent) and before.backward is not None
                if of == "state" and both:
                    self.refused.append(f"layer {name}: the final state of a backward direction")
                self.last_step(name)
            case Flatten(steps=steps):
                self.vector, self.width = True, steps * self.width
                if self.time_major:
                    self.refused.append(f"layer {name}: a flattened sequence in order T, B")
                self.put(name, "RESHAPE", self.file.integers(f"{name}.shape", 1, self.width))
            case Embedding():
                self.embedding(layer)
            case Dropout():
                self.lose("dropout", layer, f"layer {name}: dropout (identity at inference)")
                return
            case _:
                self.refused.append(f"layer {name}: {layer.kind}")
                return
        self.kept.append(f"{name} ({layer.kind})")

    def put(
        self, name: str, kind: str, *others: int, table: str = "", version: int = 1, **options: Any
    ) -> None:
        """One operator from the last tensor (and `others`) to a new one."""
        target = self.file.tensor(name, self._shape())
        inputs = (self.last, *others)
        self.last = self.file.operator(kind, inputs, target, table, version=version, **options)

    def dense(self, layer: Dense) -> None:
        name, activation = layer.name, layer.activation
        weight = self.file.constant(f"{name}.weight", self.single(name, "weight", layer.weight))
        bias = -1
        if layer.bias is not None:
            bias = self.file.constant(f"{name}.bias", self.single(name, "bias", layer.bias))
        self.width = layer.weight.shape[0]
        self.put(
            name,
            "FULLY_CONNECTED",
            weight,
            bias,
            table="FullyConnectedOptions",
            version=6 if bias < 0 else 5,
            FusedActivationFunction=_FUSED.get(activation, 0),
            KeepNumDims=not self.vector,
        )
        if activation not in _FUSED:
            self.activation(f"{name}.activation", activation)

    def activation(self, name: str, activation: Activation) -> None:
        if activation == LINEAR:
            return
        if activation == SOFTMAX:
            self.put(name, "SOFTMAX", table="SoftmaxOptions", Beta=1.0)
        elif activation.name == "leaky_relu":
            self.put(name, "LEAKY_RELU", table="LeakyReluOptions", Alpha=activation.alpha)
            if activation.alpha != float(np.float32(activation.alpha)):
                words = f"layer {name}: alpha {activation.alpha} in float32"
                self.lose("dtype", name, words, "activation")
        elif activation in _OPERATORS:
            self.put(name, _OPERATORS[activation])
        else:
            self.refused.append(f"layer {name}: activation {activation}")

    def scale(self, name: str, field: str, kind: str, array: Any) -> None:
        table = {"MUL": "MulOptions", "ADD": "AddOptions"}[kind]
        values = self.single(name, field, array)
        constant = self.file.constant(f"{name}.{field}", values)
        self.put(f"{name}.{kind.lower()}", kind, constant, table=table, FusedActivationFunction=0)

    def last_step(self, name: str) -> None:
        time = 0 if self.time_major else 1
        self.vector = True
        begin, end = [0, 0, 0], [0, 0, 0]
        begin[time] = -1
        places = [
            self.file.integers(f"{name}.{k}", *v) for k, v in (("begin", begin), ("end", end))
        ]
        strides = self.file.integers(f"{name}.strides", 1, 1, 1)
        others = 7 - (1 << time)
        self.put(
            name,
            "STRIDED_SLICE",
            *places,
            strides,
            table="StridedSliceOptions",
            BeginMask=others,
            EndMask=others,
            ShrinkAxisMask=1 << time,
        )

    def embedding(self, layer: Embedding) -> None:
        name = layer.name
        if layer.mask_zero:
            self.refused.append(f"layer {name}: mask_zero")
        weight = self.file.constant(f"{name}.weight", self.single(name, "weight", layer.weight))
        self.width = layer.weight.shape[1]
        tokens, self.last = self.last, weight
        self.put(name, "GATHER", tokens, table="GatherOptions", Axis=0)

    # -- recurrent --------------------------------------------------------------------------

    def recurrent(self, layer: Recurrent) -> None:
        """One operator; the runtime keeps its state between calls, whatever the layer says."""
        name = layer.name
        handled = ("name", "forward", "backward", "merge", "stateful", "initial")
        self.beyond(name, layer, handled, ("zero_masked", "training"))
        if layer.initial.kind != "zero":
            self.refused.append(f"layer {name}: initial state of kind {layer.initial.kind}")
        self.persists(layer)
        if layer.forward is None:
            self.refused.append(f"layer {name}: a backward direction alone")
            return
        if layer.backward is not None and layer.merge != "concat":
            self.refused.append(f"layer {name}: merge {layer.merge}")
        cells = layer.cells
        first = layer.cell
        rules = {(c.activations, c.clip_cell, c.clip_projection) for c in cells.values()}
        if len(rules) > 1:
            self.refused.append(f"layer {name}: directions with different rules")
        inputs: list[int] = []
        states: list[int] = []
        norms: list[int] = []
        for direction, cell in cells.items():
            prefix = f"{name}.{direction}" if len(cells) > 1 else name
            self.side = direction if len(cells) > 1 else ""
            inputs += self.weights(prefix, name, cell)
            norms += self.norms(prefix, name, cell)
            states += [
                self.file.tensor(f"{prefix}.{part}", (1, size), variable=True)
                for part, size in (("h", cell.output_size), ("c", cell.hidden_size))
            ]
        self.side = ""
        self.width = layer.output_size(first.input_size)
        numbers = {ours: number for number, ours in ACTIVATIONS.items()}
        shared: dict[str, Any] = {
            "FusedActivationFunction": numbers.get(first.activations[1], 4),
            "CellClip": self.clip(name, "clip_cell", first.clip_cell),
            "ProjClip": self.clip(name, "clip_projection", first.clip_projection),
            "TimeMajor": self.time_major,
        }
        if layer.backward is None:
            table = "UnidirectionalSequenceLSTMOptions"
            self.put(name, UNIDIRECTIONAL, *inputs, *states, *norms, table=table, **shared)
            return
        if any(k >= 0 for k in norms):
            self.refused.append(f"layer {name}: layer norm in two directions")
        table = "BidirectionalSequenceLSTMOptions"
        others = (*inputs, *states, *(-1,) * 9)
        self.put(name, BIDIRECTIONAL, *others, table=table, MergeOutputs=True, **shared)

    def clip(self, name: str, field: str, bound: float | None) -> float:
        """A bound as the float32 that the options hold."""
        if bound is None:
            return 0.0
        with np.errstate(over="ignore"):
            stored = float(np.float32(bound))
        if not 0 < stored < np.inf:
            self.refused.append(f"layer {name}: {field} {bound:g}, beyond float32")
            return 0.0
        if stored != bound:
            self.lose("dtype", name, f"layer {name}: {field} {bound} in float32", field)
        return stored

    def weights(self, prefix: str, name: str, cell: LSTMCell) -> list[int]:
        """The 17 inputs of one direction: weights, recurrent weights, peepholes, biases and the
        projection; -1 where there is none."""
        self.beyond(name, cell, _CELL_HANDLED)
        gate, candidate, at_output = cell.activations
        if gate != SIGMOID or candidate != at_output or candidate not in ACTIVATIONS.values():
            words = "/".join(map(str, cell.activations))
            self.refused.append(f"layer {name}: activations {words}")
        blocks = self.blocks(name, cell)
        absent = "i" if cell.coupling == "i=1-f" else ""
        if absent:
            words = f"{name} (lstm): rows of i, which 1 - f replaces, are left out"
            self.fold(name, words, *_GATED)
        places: list[int] = []
        for field in ("weight_ih", "weight_hh", "peephole", "bias"):
            order = LAYOUT.peephole if field == "peephole" else LAYOUT.order
            for letter in order:
                held = field in blocks and letter != absent
                title = f"{prefix}.{field}.{letter}"
                places.append(self.file.constant(title, blocks[field][letter]) if held else -1)
        for field in ("weight_hr", "bias_hr"):
            array = getattr(cell, field)
            held = array is not None
            title = f"{prefix}.{field}"
            places.append(
                self.file.constant(title, self.single(name, field, array)) if held else -1
            )
        return places

    def norms(self, prefix: str, name: str, cell: LSTMCell) -> list[int]:
        """The four layer norm inputs."""
        norm = cell.layer_norm
        if norm is None:
            return [-1] * 4
        if norm.epsilon != _EPSILON:
            self.refused.append(f"layer {name}: layer norm with epsilon {norm.epsilon:g}")
        if cell.coupling == "f=1-i":
            self.refused.append(f"layer {name}: coupling f=1-i with layer norm")
        absent = "i" if cell.coupling == "i=1-f" else ""
        rows = dict(zip(gates.CANONICAL, self.single(name, "layer_norm", norm.weight), strict=True))
        return [
            -1 if letter == absent else self.file.constant(f"{prefix}.norm.{letter}", rows[letter])
            for letter in LAYOUT.order
        ]

    def blocks(self, name: str, cell: LSTMCell) -> dict[str, dict[str, Floats]]:
        """Field → gate → block. A coupling f = 1 − i becomes a forget gate of its own, whose
        numbers are those of i with the other sign."""
        weights = {k: self.single(name, k, getattr(cell, k)) for k in ("weight_ih", "weight_hh")}
        found = {field: gates.split(array) for field, array in weights.items()}
        bias = next(iter(self.biases(name, cell, one=True).values()), None)
        if bias is None:
            self.no_lstm_bias(name)
            bias = np.zeros(4 * cell.hidden_size, np.float32)
        found["bias"] = gates.split(bias)
        if cell.peephole is not None:
            rows = self.single(name, "peephole", cell.peephole)
            found["peephole"] = dict(zip("ifo", rows, strict=True))
        if cell.coupling == "f=1-i":
            for field, parts in found.items():
                found[field] = parts | {"f": -parts["i"]}
            words = "f = 1 - i as a forget gate with negated weights, equal in exact arithmetic"
            self.fold(name, f"{name} (lstm): {words}", "coupling", *_GATED)
        return found
