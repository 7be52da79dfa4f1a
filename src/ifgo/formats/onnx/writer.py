"""A Model as an ONNX graph. Inside, sequences are [T, B, F] and vectors [B, F]; inputs and outputs
get the axes that the model names. SPEC.md 2.5.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

import ifgo
from ifgo import files
from ifgo.activations import Activation
from ifgo.errors import IfgoError
from ifgo.folding import folded_batch_norm
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats.onnx.holds import examine
from ifgo.formats.onnx.layers import ACTIVATIONS
from ifgo.formats.onnx.lstm import attributes, tensors
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
)
from ifgo.model import FeatureInput, LengthsInput, Model, Output, StateInput
from ifgo.packing import Packing

OPSET: Final = 17
IR_VERSION: Final = 8
BFLOAT16_OPSET: Final = 22
"""First operator set whose LSTM takes bfloat16."""
BFLOAT16_IR_VERSION: Final = 10

STANDALONE: Final = {name: op for op, (name, _) in ACTIVATIONS.items()} | {"softmax": "Softmax"}


def write(model: Model, path: Path, *, allow_lossy: Losses) -> Report:
    """Write `model` to `path`. Raises UnsupportedError listing all that ONNX cannot hold."""
    found = examine(model, allow_lossy=allow_lossy)
    try:
        found.judge()
    except IfgoError as error:
        raise error.located(str(path)) from None
    proto = _Builder(model).build()
    onnx.checker.check_model(proto, full_check=True)  # pyright: ignore[reportUnknownMemberType]
    files.atomic_write(path, proto.SerializeToString(deterministic=True))
    found.kept += model.arrays
    if _dtype(model) == np.float64:
        found.kept.append("float64 (ONNX Runtime's LSTM takes float32 alone)")
    return found.report(model)


def _dtype(model: Model) -> np.dtype[Any]:
    """That of the weights; float32 where a model has none."""
    return next((array.dtype for array in model.arrays.values()), np.dtype(np.float32))


class _Builder:
    """Nodes and initializers of one graph, in order."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.dtype = _dtype(model)
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.taken: set[str] = set()
        self.batched = model.input.axes != "T"
        self.layers = {layer.name: layer for layer in model.recurrent}
        self.states: dict[tuple[str, str], str] = {}
        self.finals: dict[tuple[str, str], str] = {}
        self.lengths = ""
        self.value = ""
        self.time: int | str | None = self.steps()
        self.pending: tuple[str, int] | None = None
        """Y of the last LSTM and its D, until somebody needs the sequence."""

    def build(self) -> onnx.ModelProto:
        """The whole file."""
        wanted = [self.unique(output.name or output.role) for output in self.model.outputs]
        self.main_input()
        for layer in self.model.layers:
            self.layer(layer)
        for output, name in zip(self.model.outputs, wanted, strict=True):
            self.output(output, name)
        self.drop_unused()
        narrow = self.dtype.name == "bfloat16"
        graph = helper.make_graph(
            self.nodes, "ifgo", self.inputs, self.outputs, initializer=self.initializers
        )
        return helper.make_model(
            graph,
            producer_name="ifgo",
            producer_version=ifgo.__version__,
            opset_imports=[helper.make_opsetid("", BFLOAT16_OPSET if narrow else OPSET)],
            ir_version=BFLOAT16_IR_VERSION if narrow else IR_VERSION,
        )

    # -- pieces -----------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        """`name`, or a numbered one where it is taken."""
        found, count = name, 1
        while found in self.taken:
            found, count = f"{name}_{count}", count + 1
        self.taken.add(found)
        return found

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        output = self.unique(name or kind.lower())
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """An initializer, whose name is returned."""
        name = self.unique(name)
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def numbers(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant("axes", np.array(values, dtype=np.int64))

    def info(self, name: str, shape: list[int | str], dtype: np.dtype[Any]) -> ValueInfoProto:
        """The declaration of an input or output."""
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)

    def drop_unused(self) -> None:
        """Empty names for the outputs of LSTM nodes that nobody reads."""
        used = {name for node in self.nodes for name in node.input}
        used |= {output.name for output in self.outputs}
        for node in self.nodes:
            if node.op_type == "LSTM":
                names = [name if name in used else "" for name in node.output]
                while names and not names[-1]:
                    names.pop()
                del node.output[:]
                node.output.extend(names)

    # -- inputs and outputs -----------------------------------------------------------------

    def main_input(self) -> None:
        """Declares every input; the main one arrives as [T, B, F] (tokens: after their table)."""
        entry = self.model.input
        sizes: dict[str, int | str] = {"B": "B", "T": self.steps()}
        names = [self.unique(e.name or "input") for e in self.model.inputs]
        shape = [sizes[letter] for letter in entry.axes]
        if isinstance(entry, FeatureInput):
            self.inputs.append(self.info(names[0], [*shape, entry.size], self.dtype))
        else:
            self.inputs.append(self.info(names[0], shape, np.dtype(np.int64)))
        self.value = names[0]
        if isinstance(entry, FeatureInput):
            self.to_time_major()
        for given, name in zip(self.model.inputs[1:], names[1:], strict=True):
            if isinstance(given, LengthsInput):
                batch = "B" if self.batched else 1
                self.inputs.append(self.info(name, [batch], np.dtype(np.int32)))
                self.lengths = name
            elif isinstance(given, StateInput):
                self.state_input(given, name)

    def steps(self) -> int | str:
        """How many steps the main input has: fixed where a Flatten takes its time."""
        for layer in self.model.layers:
            if isinstance(layer, Flatten):
                return layer.steps
            if layer.signature == "sequence→vector":
                break
        return "T"

    def to_time_major(self) -> None:
        """The main input, or its embedding, from the axes of the source to [T, B, F]."""
        axes = self.model.input.axes
        if axes == "BT":
            self.value = self.op("Transpose", self.value, perm=[1, 0, 2])
        elif axes == "T":
            self.value = self.op("Unsqueeze", self.value, self.numbers(1))

    def state_input(self, given: StateInput, name: str) -> None:
        """Cuts a packed state input into the state of each slot, [D, B, H]."""
        counts = [self.layers[slot.layer].directions for slot in given.slots]
        units = self.layers[given.slots[0].layer].hidden_size
        packing = self.packing(given.layout, sum(counts))
        self.inputs.append(self.info(name, packing.shape(units, "B"), self.dtype))
        rows, start = self.unpack(packing, name, units), 0
        for slot, count in zip(given.slots, counts, strict=True):
            part = rows
            if len(counts) > 1:
                ends = (self.numbers(n) for n in (start, start + count, 0))
                part = self.op("Slice", rows, *ends, name=f"initial_{slot.part}")
            self.states[slot.layer, slot.part] = part
            start += count

    def packing(self, layout: str, rows: int) -> Packing:
        """How a tensor holds `rows` states; along its leading axis where no layout says."""
        if layout:
            return Packing.parse(layout)
        return Packing.usual(rows, batched=self.batched)

    def unpack(self, packing: Packing, name: str, units: int) -> str:
        """The rows [R, B, H] of a packed tensor."""
        value = name
        atoms, order = packing.atoms, packing.order
        apart = [{"B": -1, "H": units}.get(str(atom), atom) for atom in atoms]
        if any(len(axis) > 1 for axis in packing.axes):
            value = self.op("Reshape", value, self.numbers(*map(int, apart)))
        if order != list(range(len(atoms))):
            value = self.op("Transpose", value, perm=order)
        if len(atoms) != 3 or not packing.batched:
            batch = -1 if packing.batched else 1
            value = self.op("Reshape", value, self.numbers(packing.rows, batch, units))
        return value

    def pack(self, packing: Packing, rows: str, units: int) -> str:
        """A tensor made of rows [R, B, H]."""
        value, atoms, order = rows, packing.atoms, packing.order
        apart = [{"B": -1, "H": units}.get(str(atoms[k]), atoms[k]) for k in order]
        if len(atoms) != 3 or not packing.batched:
            value = self.op("Reshape", value, self.numbers(*map(int, apart)))
        if order != list(range(len(atoms))):
            value = self.op("Transpose", value, perm=[order.index(k) for k in range(len(atoms))])
        if any(len(axis) > 1 for axis in packing.axes):
            value = self.op("Reshape", value, self.numbers(*packing.shape(units, -1)))
        return value

    def output(self, output: Output, name: str) -> None:
        """Ends the graph with one result, in the axes that it names."""
        sizes = self.model.sizes()
        batch: list[int | str] = ["B"] if self.batched else []
        if output.states:
            parts = [self.finals[slot.layer, slot.part] for slot in output.states]
            value = parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)
            count = sum(self.layers[slot.layer].directions for slot in output.states)
            units = self.layers[output.states[0].layer].hidden_size
            packing = self.packing(output.layout, count)
            value, shape = self.pack(packing, value, units), packing.shape(units, "B")
        elif output.role == "last":
            value = self.value if self.batched else self.op("Squeeze", self.value, self.numbers(0))
            shape = [*batch, sizes[-1]]
        else:
            steps = self.time or 1
            value, shape = self.sequence(), [steps, *batch, sizes[-1]]
            if not self.batched:
                value = self.op("Squeeze", value, self.numbers(1))
            elif output.axes != "TB":
                value = self.op("Transpose", value, perm=[1, 0, 2])
                shape = ["B", steps, sizes[-1]]
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        self.outputs.append(self.info(name, shape, self.dtype))

    # -- layers -----------------------------------------------------------------------------

    def sequence(self) -> str:
        """The current sequence, [T, B, F]."""
        if self.pending is not None:
            y, count = self.pending
            self.pending = None
            if count == 1:
                self.value = self.op("Squeeze", y, self.numbers(1))
            else:
                apart = self.op("Transpose", y, perm=[0, 2, 1, 3])
                self.value = self.op("Reshape", apart, self.numbers(0, 0, -1))
        return self.value

    def layer(self, layer: Layer) -> None:
        """Adds one layer to the graph."""
        name = layer.name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", layer.name) else layer.kind
        if not (isinstance(layer, LastStep) and layer.of == "state"):
            self.sequence()
        match layer:
            case Recurrent():
                self.recurrent(layer, name)
            case Dense():
                self.dense(layer, name)
            case Embedding():
                table = self.constant(f"{name}.weight", layer.weight)
                self.value = self.op("Gather", table, self.value, name=name)
                self.to_time_major()
            case ActivationLayer():
                self.activation(layer.activation)
            case Scale():
                self.scale(name, layer.factor, layer.offset)
            case BatchNorm() if layer.epsilon_outside:
                self.scale(name, *folded_batch_norm(layer))
            case BatchNorm():
                self.batch_norm(layer, name)
            case LastStep():
                self.last_step(layer)
            case HiddenAsSequence():
                turned = self.op("Transpose", self.value, perm=[1, 0])
                self.value = self.op("Unsqueeze", turned, self.numbers(2), name=name)
                self.time = self.model.sizes()[self.model.layers.index(layer) - 1]
            case RepeatVector():
                wide = self.op("Unsqueeze", self.value, self.numbers(0))
                shape = self.numbers(layer.steps, 1, 1)
                self.value = self.op("Expand", wide, shape, name=name)
                self.time = layer.steps
            case Flatten():
                self.flatten(layer, name)
            case Residual():
                self.residual(layer)
            case _:
                pass  # Dropout: the report says so

    def recurrent(self, layer: Recurrent, name: str) -> None:
        """An LSTM node. Its inputs are X, W, R, B, sequence_lens, initial_h, initial_c, P."""
        w, r, b, p = (
            "" if array is None else self.constant(f"{name}.{letter}", array)
            for letter, array in zip("WRBP", tensors(layer), strict=True)
        )
        inputs = [self.value, w, r, b, self.lengths, *self.initial(layer, name), p]
        while not inputs[-1]:
            inputs.pop()
        outputs = [self.unique(f"{name}.{y}") for y in ("Y", "Y_h", "Y_c")]
        self.nodes.append(helper.make_node("LSTM", inputs, outputs, name=name, **attributes(layer)))
        self.pending = (outputs[0], layer.directions)
        self.finals[layer.name, "h"], self.finals[layer.name, "c"] = outputs[1:]

    def initial(self, layer: Recurrent, name: str) -> list[str]:
        """initial_h and initial_c, empty names where they are zero."""
        if layer.initial.kind == "input":
            return [self.states.get((layer.name, part), "") for part in ("h", "c")]
        h, c = layer.initial.h, layer.initial.c
        if h is None or c is None or not (h.any() or c.any()):
            return ["", ""]
        batch = self.op("Shape", self.value, start=1, end=2)
        shape = self.op(
            "Concat",
            self.numbers(layer.directions),
            batch,
            self.numbers(layer.hidden_size),
            axis=0,
        )
        rows = [self.constant(f"{name}.initial", a[:, None, :]) for a in (h, c)]
        return [self.op("Expand", row, shape) for row in rows]

    def dense(self, layer: Dense, name: str) -> None:
        """MatMul, Add and the activation."""
        weight = self.constant(f"{name}.weight", layer.weight.T)
        self.value = self.op("MatMul", self.value, weight, name=name)
        if layer.bias is not None:
            self.value = self.op("Add", self.value, self.constant(f"{name}.bias", layer.bias))
        self.activation(layer.activation)

    def activation(self, activation: Activation) -> None:
        """An activation operator; none for linear."""
        if activation.name == "linear":
            return
        given: dict[str, Any] = {n: getattr(activation, n) for n in ("alpha", "beta")}
        given = {n: v for n, v in given.items() if v is not None}
        if activation.name == "softmax":
            given["axis"] = -1
        self.value = self.op(STANDALONE[activation.name], self.value, **given)

    def scale(self, name: str, factor: NDArray[Any], offset: NDArray[Any]) -> None:
        """Mul and Add."""
        self.value = self.op("Mul", self.value, self.constant(f"{name}.factor", factor))
        self.value = self.op("Add", self.value, self.constant(f"{name}.offset", offset))

    def batch_norm(self, layer: BatchNorm, name: str) -> None:
        """BatchNormalization, which takes the features on axis 1."""
        weight = np.ones_like(layer.mean) if layer.weight is None else layer.weight
        bias = np.zeros_like(layer.mean) if layer.bias is None else layer.bias
        arrays = {"weight": weight, "bias": bias, "mean": layer.mean, "variance": layer.variance}
        constants = [self.constant(f"{name}.{key}", array) for key, array in arrays.items()]
        if self.time:
            self.value = self.op("Transpose", self.value, perm=[0, 2, 1])
        epsilon = {"epsilon": layer.epsilon}
        self.value = self.op("BatchNormalization", self.value, *constants, name=name, **epsilon)
        if self.time:
            self.value = self.op("Transpose", self.value, perm=[0, 2, 1])

    def last_step(self, layer: LastStep) -> None:
        """One vector out of a sequence, [B, F]."""
        if layer.of == "sequence":
            last = self.constant("last", np.array(-1, dtype=np.int64))
            self.value = self.op("Gather", self.value, last, axis=0)
        else:
            before = self.model.layers[self.model.layers.index(layer) - 1]
            assert isinstance(before, Recurrent)
            final = self.finals[before.name, "h"]
            if before.directions == 1:
                self.value = self.op("Squeeze", final, self.numbers(0))
            else:
                apart = self.op("Transpose", final, perm=[1, 0, 2])
                self.value = self.op("Reshape", apart, self.numbers(0, -1))
        self.time, self.pending, self.lengths = None, None, ""

    def flatten(self, layer: Flatten, name: str) -> None:
        """[T, B, F] → [B, T·F]."""
        width = self.model.sizes()[self.model.layers.index(layer)]
        turned = self.op("Transpose", self.value, perm=[1, 0, 2])
        self.value = self.op("Reshape", turned, self.numbers(0, width), name=name)
        self.time, self.lengths = None, ""

    def residual(self, layer: Residual) -> None:
        """The inner layers, plus the first features of what went into them."""
        skipped = self.value
        place = self.model.layers.index(layer)
        width = [self.model.input_size, *self.model.sizes()][place]
        for inner in layer.layers:
            self.layer(inner)
        inner_value = self.sequence()
        if layer.channels != width:
            cut = (self.numbers(n) for n in (0, layer.channels, 2))
            skipped = self.op("Slice", skipped, *cut)
        self.value = self.op("Add", inner_value, skipped)
