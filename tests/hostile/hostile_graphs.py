"""ONNX graphs that are well-formed and lie, or ask for more than any file could need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from corpus import model
from onnx import TensorProto, helper, numpy_helper

import ifgo


def intact(folder: Path) -> Path:
    ifgo.save(model(), folder / "m.onnx")
    return folder / "m.onnx"


def proto(name: str = "lstm0") -> onnx.ModelProto:
    """The intact model."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        ifgo.save(model(name=name), Path(place) / "m.onnx")
        return onnx.load(Path(place) / "m.onnx")


Change = Callable[[onnx.ModelProto], None]


def _dims(*dims: int) -> Change:
    def change(made: onnx.ModelProto) -> None:
        for tensor in made.graph.initializer:
            tensor.ClearField("dims")
            tensor.dims.extend(dims)

    return change


def _first(**fields: Any) -> Change:
    def change(made: onnx.ModelProto) -> None:
        for name, value in fields.items():
            setattr(made.graph.initializer[0], name, value)

    return change


def _weights(value: float, dtype: Any = np.float32) -> Change:
    def change(made: onnx.ModelProto) -> None:
        for tensor in made.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                data = np.full(numpy_helper.to_array(tensor).shape, value, dtype)
                tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))

    return change


def _swapped(made: onnx.ModelProto) -> None:
    for tensor in made.graph.initializer:
        tensor.raw_data = numpy_helper.to_array(tensor).byteswap().tobytes()


def _input_sizes(*sizes: int | str) -> Change:
    def change(made: onnx.ModelProto) -> None:
        shape = made.graph.input[0].type.tensor_type.shape
        shape.ClearField("dim")
        for size in sizes:
            one = shape.dim.add()
            if isinstance(size, str):
                one.dim_param = size
            else:
                one.dim_value = size

    return change


def _repeated(count: int) -> Change:
    """One small weight in many layers."""

    def change(made: onnx.ModelProto) -> None:
        last = made.graph.output[0].name
        data = np.eye(2, dtype=np.float32)
        made.graph.initializer.append(numpy_helper.from_array(data, "eye"))
        for k in range(count):
            after = f"again{k}"
            made.graph.node.append(helper.make_node("MatMul", [last, "eye"], [after]))
            last = after
        made.graph.output[0].name = last

    return change


def _big_layers(count: int, units: int) -> Change:
    """One weight of a megabyte or so in many LSTM nodes."""

    def change(made: onnx.ModelProto) -> None:
        graph = made.graph
        rng = np.random.default_rng(0)
        arrays = {
            "bigW": (1, 4 * units, units),
            "bigR": (1, 4 * units, units),
            "firstW": (1, 4 * units, 3),
        }
        for name, shape in arrays.items():
            data = rng.standard_normal(shape).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(data, name))
        graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis1"))
        del graph.node[:], graph.output[1:]
        last = graph.input[0].name
        graph.node.append(helper.make_node("Transpose", [last], ["tx"], perm=[1, 0, 2]))
        last = "tx"
        for k in range(count):
            w = "firstW" if k == 0 else "bigW"
            graph.node.append(
                helper.make_node("LSTM", [last, w, "bigR"], [f"Y{k}"], hidden_size=units)
            )
            graph.node.append(helper.make_node("Squeeze", [f"Y{k}", "axis1"], [f"y{k}"]))
            last = f"y{k}"
        graph.output[0].name = last

    return change


def _folding(op: str, count: int, size: int, **attributes: Any) -> Change:
    """`count` constants of `size` elements out of one small one, all of them needed."""

    def change(made: onnx.ModelProto) -> None:
        graph = made.graph
        graph.initializer.append(numpy_helper.from_array(np.array([size]), "size"))
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.float32), "one"))
        graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
        last = graph.output[0].name
        graph.node.append(helper.make_node("Expand", ["one", "size"], ["row"]))
        for k in range(count):
            inputs = {
                "Add": ["row", "row"],
                "Concat": ["row"] * 64,
                "Cast": ["row"],
                "Reshape": ["row", "size"],
                "Gather": ["row", "zeros"],
                "Neg": ["row"],
            }[op]
            graph.node.append(helper.make_node(op, inputs, [f"made{k}"], **attributes))
            graph.node.append(helper.make_node("Slice", [f"made{k}", "zero", "axis"], [f"cut{k}"]))
            graph.node.append(helper.make_node("Add", [last, f"cut{k}"], [f"sum{k}"]))
            last = f"sum{k}"
        graph.initializer.append(numpy_helper.from_array(np.zeros(1000, np.int64), "zeros"))
        graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
        graph.output[0].name = last

    return change


def _open_lengths(count: int) -> Change:
    """Products of sums of open lengths, which grow with every node."""

    def change(made: onnx.ModelProto) -> None:
        graph = made.graph
        _input_sizes("a", "b", 3)(made)
        graph.node.append(helper.make_node("Shape", [graph.input[0].name], ["s0"]))
        graph.initializer.append(numpy_helper.from_array(np.array([5, 7, 9]), "plus"))
        for k in range(count):
            graph.node.append(helper.make_node("Add", [f"s{k}", "plus"], [f"p{k}"]))
            graph.node.append(helper.make_node("Mul", [f"p{k}", f"s{k}"], [f"s{k + 1}"]))
        graph.node.append(helper.make_node("ConstantOfShape", [f"s{count}"], ["filled"]))
        graph.node.append(helper.make_node("Add", [graph.output[0].name, "filled"], ["end"]))
        graph.output[0].name = "end"

    return change


def _chain(op: str, count: int) -> Change:
    def change(made: onnx.ModelProto) -> None:
        last = made.graph.output[0].name
        for k in range(count):
            made.graph.node.append(helper.make_node(op, [last], [f"c{k}"]))
            last = f"c{k}"
        made.graph.output[0].name = last

    return change


def _states(batch: int) -> Change:
    def change(made: onnx.ModelProto) -> None:
        node = next(n for n in made.graph.node if n.op_type == "LSTM")
        inputs = [*node.input, *[""] * (7 - len(node.input))]
        inputs[5:7] = ["h_in", "c_in"]
        node.ClearField("input")
        node.input.extend(inputs)
        for name in ("h_in", "c_in"):
            info = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, batch, 2])
            made.graph.input.append(info)

    return change


def _attribute(name: str, value: Any) -> Change:
    def change(made: onnx.ModelProto) -> None:
        node = next(n for n in made.graph.node if n.op_type == "LSTM")
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def _inputs(count: int) -> Change:
    def change(made: onnx.ModelProto) -> None:
        for k in range(count):
            info = helper.make_tensor_value_info(f"in{k}", TensorProto.FLOAT, ["B", "T", 3])
            made.graph.input.append(info)

    return change


LIES: dict[str, Change] = {
    "dims of 0": _dims(0),
    "dims of -1": _dims(-1, 8, 3),
    "dims beyond 64 bits": _dims(2**62, 2**62, 2**62),
    "dims that wrap to the size": _dims(2**32, 2**32, 24),
    "dims of 2**40": _dims(1, 2**40, 3),
    "a thousand dims": _dims(*[1] * 1000),
    "no dims": _dims(),
    "type 0": _first(data_type=0),
    "type 999": _first(data_type=999),
    "text": _first(data_type=TensorProto.STRING),
    "4 bits": _first(data_type=TensorProto.INT4),
    "complex": _first(data_type=TensorProto.COMPLEX64),
    "segments": lambda made: made.graph.initializer[0].segment.SetInParent(),
    "NaN": _weights(np.nan),
    "infinity": _weights(np.inf),
    "-infinity": _weights(-np.inf),
    "signalling NaN": _first(raw_data=b"\x01\x00\x80\x7f" * 24),
    "float64": _weights(0.5, np.float64),
    "float64 beyond float32": _weights(1e300, np.float64),
    "other byte order": _swapped,
    "input of 2**62 features": _input_sizes("B", "T", 2**62),
    "input of -3": _input_sizes("B", "T", -3),
    "input of a thousand axes": _input_sizes(*["B"] * 1000),
    "input of no axes": _input_sizes(),
    "frozen batch": _input_sizes(2**62, 2**62, 3),
    "one name for all axes": _input_sizes("B", "B", "B"),
    "64 layers more": _repeated(70),
    "1000 layers more": _repeated(1000),
    "one LSTM 8 times": _big_layers(8, 48),
    "one LSTM 500 times": _big_layers(500, 256),
    "states for 2**22": _states(2**22),
    "states for 2**61": _states(2**61),
    "hidden_size 2**62": _attribute("hidden_size", 2**62),
    "hidden_size -1": _attribute("hidden_size", -1),
    "clip NaN": _attribute("clip", float("nan")),
    "activations without end": _attribute("activations", ["Sigmoid"] * 100_000),
    "alphas without end": _attribute("activation_alpha", [0.5] * 500_000),
    "a graph as attribute": _attribute("body", proto().graph),
    "inputs without end": _inputs(100_000),
    "identities without end": _chain("Identity", 19_000),
    "relus without end": _chain("Relu", 19_000),
    "too many nodes": _chain("Identity", 25_000),
    "open lengths": _open_lengths(100),
    "many sums": _folding("Add", 100, 2**20),
    "many concatenations": _folding("Concat", 100, 2**20, axis=0),
    "many casts": _folding("Cast", 100, 2**20, to=TensorProto.FLOAT),
    "many reshapes": _folding("Reshape", 100, 2**20),
    "many gathers": _folding("Gather", 5000, 2**20, axis=0),
    "many negations": _folding("Neg", 2000, 2**16),
}


def _started(op: str, count: int, **attributes: Any) -> Change:
    """States that the graph computes from the batch by a long or branching way."""

    def change(made: onnx.ModelProto) -> None:
        graph = made.graph
        lstm = next(n for n in graph.node if n.op_type == "LSTM")
        inputs = [*lstm.input, *[""] * (7 - len(lstm.input))]
        inputs[5:7] = [f"s{count}"] * 2
        lstm.ClearField("input")
        lstm.input.extend(inputs)
        nodes = [helper.make_node("Shape", [graph.input[0].name], ["s0"])]
        for k in range(count):
            sources = [f"s{k}"] * (2 if op == "Concat" else 1)
            nodes.append(helper.make_node(op, sources, [f"s{k + 1}"], **attributes))
        rest = list(graph.node)
        del graph.node[:]
        graph.node.extend([*nodes, *rest])

    return change


def _circle(made: onnx.ModelProto) -> None:
    _started("Identity", 3)(made)
    made.graph.node[0].input[0] = "s3"
    made.graph.node[0].op_type = "Identity"


STATES: dict[str, Change] = {
    "states by 2**60 ways": _started("Concat", 60, axis=0),
    "states by a long way": _started("Identity", 15_000),
    "states in a circle": _circle,
}


def saved(change: Change) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        made = proto()
        change(made)
        (folder / "m.onnx").write_bytes(made.SerializeToString())
        return folder / "m.onnx"

    return write
