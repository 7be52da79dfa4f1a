"""What only ONNX files can suffer: protobuf that lies, and data kept outside the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from corpus import FULL, Format, Mutant, model
from onnx import TensorProto, external_data_helper, helper, numpy_helper

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


# -- protobuf by hand -------------------------------------------------------------------------


def varint(value: int, pad: int = 0) -> bytes:
    """`value`, with `pad` bytes more than it needs."""
    out = b""
    while value > 0x7F or pad > 0:
        pad -= value <= 0x7F
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def number(field_number: int, value: int) -> bytes:
    return varint(field_number << 3) + varint(value & (2**64 - 1))


def nested(numbers: list[int], depth: int) -> bytes:
    """`depth` messages, one in the other, through the fields `numbers` in turn."""
    content = b""
    for level in reversed(range(depth)):
        content = field(numbers[level % len(numbers)], content)
    return content


GRAPH, NODE, INITIALIZER, ATTRIBUTE = 7, 1, 5, 5
MANY = 2**21


def _bytes_cases(whole: bytes) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Appended to a whole file, whose graph protobuf merges with a second one."""
    inside = {
        "nodes": field(NODE, b"") * MANY,
        "nodes of an operator": field(NODE, field(4, b"LSTM")) * (MANY // 8),
        "initializers": field(INITIALIZER, b"") * MANY,
        "inputs": field(11, b"") * MANY,
        "outputs": field(12, b"") * MANY,
        "value infos": field(13, b"") * MANY,
        "sparse initializers": field(15, b"") * MANY,
        "annotations": field(14, b"") * MANY,
        "attributes": field(NODE, field(ATTRIBUTE, b"") * MANY),
        "node inputs": field(NODE, field(1, b"") * MANY),
        "node outputs": field(NODE, field(2, b"") * MANY),
        "dims one by one": field(INITIALIZER, number(1, 1) * MANY),
        "packed dims": field(INITIALIZER, field(1, b"\x01" * MANY)),
        "packed integers": field(INITIALIZER, field(7, bytes(2**23))),
        "packed integers of 10 bytes": field(INITIALIZER, field(7, (b"\xff" * 9 + b"\1") * 2**17)),
        "strings": field(INITIALIZER, field(6, b"") * MANY),
        "external data": field(INITIALIZER, field(13, b"") * MANY),
        "shape of an input": field(11, field(2, field(1, field(2, field(1, b"") * MANY)))),
        "floats of an attribute": field(NODE, field(ATTRIBUTE, field(7, bytes(4 * 2**20)))),
        "ints of an attribute": field(NODE, field(ATTRIBUTE, field(8, bytes(2**21)))),
        "tensors of an attribute": field(NODE, field(ATTRIBUTE, field(10, b"") * MANY)),
        "graphs in attributes": field(NODE, nested([ATTRIBUTE, 6, NODE], 90)),
        "graphs beyond any stack": field(NODE, nested([ATTRIBUTE, 6, NODE], 3000)),
    }
    for name, content in inside.items():
        yield name, lambda content=content: whole + field(GRAPH, content)
    beside = {
        "operator sets": field(8, b"") * MANY,
        "functions": field(25, b"") * MANY,
        "metadata": field(14, b"") * MANY,
        "training": field(20, b"") * MANY,
        "graphs": field(GRAPH, b"") * MANY,
        "unknown messages": field(999, b"") * MANY,
        "unknown numbers": number(999, 1) * MANY,
        "unknown megabytes": field(999, bytes(2**23)),
        "types in types": field(GRAPH, field(11, field(2, nested([4, 1], 95)))),
        "a length of 2**63": varint(GRAPH << 3 | 2) + varint(2**63 - 1),
        "a length of 2**32": varint(GRAPH << 3 | 2) + varint(2**32),
        "a varint without end": varint(1 << 3) + b"\xff" * 100,
        "varints longer than needed": (varint(1 << 3, 4) + varint(8, 4)) * 10,
        "groups": b"\x0b" * 5000 + b"\x0c" * 5000,
        "a group of groups": b"\x3b" * 60 + b"\x3c" * 60,
        "wire type 6": b"\x0e\x00",
        "wire type 7": b"\x0f\x00",
        "field 0": b"\x02\x00",
        "many megabytes of a name": field(2, b"a" * 2**23),
        "a long documentation": field(6, b"\xff" * 2**22),
    }
    for name, content in beside.items():
        yield name, lambda content=content: whole + content
        if FULL:
            yield f"{name} before it", lambda content=content: content + whole


# -- what the schema lets lie -----------------------------------------------------------------

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


def _saved(change: Change) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        made = proto()
        change(made)
        (folder / "m.onnx").write_bytes(made.SerializeToString())
        return folder / "m.onnx"

    return write


# -- data outside -----------------------------------------------------------------------------


def _outside(prepare: Callable[[Path], Any] | None = None, **entry: Any) -> Callable[[Path], Path]:
    """The first weight in a file of its own. prepare(folder) may put something else there."""

    def write(folder: Path) -> Path:
        made = proto()
        tensor = next(t for t in made.graph.initializer if len(t.raw_data) == 96)
        place = folder / "weights.bin"
        place.write_bytes(tensor.raw_data)
        if prepare is not None:
            place.unlink()
            prepare(folder)
        fields = {"location": "weights.bin"} | entry
        external_data_helper.set_external_data(tensor, "x")
        del tensor.external_data[:]
        for key, value in fields.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.ClearField("raw_data")
        (folder / "m.onnx").write_bytes(made.SerializeToString())
        return folder / "m.onnx"

    return write


def secret(folder: Path) -> Path:
    """A file outside the model's folder that would fit."""
    place = folder.parent / "secret.bin"
    place.write_bytes(bytes(96))
    return place


def _link(folder: Path) -> None:
    (folder / "weights.bin").symlink_to(secret(folder))


def _linked_folder(folder: Path) -> None:
    secret(folder)
    (folder / "sub").symlink_to("..", target_is_directory=True)


def _linked_to_itself(folder: Path) -> None:
    (folder / "weights.bin").symlink_to("weights.bin")


OUTSIDE: dict[str, Callable[[Path], Path]] = {
    "whole": _outside(),
    "absolute": _outside(secret, location="/etc/passwd"),
    "upwards": _outside(secret, location="../secret.bin"),
    "down and upwards": _outside(secret, location="sub/../../secret.bin"),
    "a link": _outside(_link),
    "a linked folder": _outside(_linked_folder, location="sub/secret.bin"),
    "a link to itself": _outside(_linked_to_itself),
    "nothing": _outside(lambda folder: None),
    "the folder": _outside(location="."),
    "the model itself": _outside(location="m.onnx"),
    "an empty name": _outside(location=""),
    "a NUL": _outside(location="weights.bin\0"),
    "a name of 10 kB": _outside(location="a" * 10_000),
    "a URL": _outside(location="file:///etc/passwd"),
    "a pipe": _outside(lambda folder: os.mkfifo(folder / "weights.bin")),
    "a device": _outside(lambda folder: (folder / "weights.bin").symlink_to("/dev/zero")),
    "the device itself": _outside(location="/dev/zero"),
    "a folder": _outside(lambda folder: (folder / "weights.bin").mkdir()),
    "offset 2**62": _outside(offset=2**62),
    "offset 10**30": _outside(offset=10**30),
    "offset of 5000 digits": _outside(offset="9" * 5000),
    "offset -1": _outside(offset=-1),
    "offset one": _outside(offset="one"),
    "length 2**62": _outside(length=2**62),
    "length 0": _outside(length=0),
    "length -96": _outside(length=-96),
    "checksum": _outside(checksum="0" * 40),
    "short": _outside(lambda folder: (folder / "weights.bin").write_bytes(bytes(95))),
    "sparse": _outside(lambda folder: os.truncate(_touched(folder), 2**40)),
}


def _touched(folder: Path) -> Path:
    (folder / "weights.bin").write_bytes(b"")
    return folder / "weights.bin"


# -- bind -------------------------------------------------------------------------------------


def _unbound(folder: Path) -> Path:
    """The first weight as an input of the graph."""
    made = proto()
    tensor = next(t for t in made.graph.initializer if len(t.raw_data) == 96)
    info = helper.make_tensor_value_info("w", TensorProto.FLOAT, list(tensor.dims))
    for node in made.graph.node:
        node.input[:] = ["w" if name == tensor.name else name for name in node.input]
    made.graph.input.append(info)
    made.graph.initializer.remove(tensor)
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    return folder / "m.onnx"


def crafted() -> Iterator[Mutant]:
    """Everything in this file."""
    whole = proto().SerializeToString()
    for name, data in _bytes_cases(whole):

        def write(folder: Path, data: Callable[[], bytes] = data) -> Path:
            (folder / "m.onnx").write_bytes(data())
            return folder / "m.onnx"

        yield Mutant(f"protobuf: {name}", write)
    for name, change in LIES.items():
        yield Mutant(f"lie: {name}", _saved(change))
    for name, write in OUTSIDE.items():
        yield Mutant(f"outside: {name}", write)
    yield Mutant("unbound", _unbound)


# -- names ------------------------------------------------------------------------------------


def named(folder: Path, name: str) -> Path:
    """The intact model with `name` in every place that takes one."""
    name, given = name.replace("\udcff", "\u2021"), name
    made = proto()
    graph = made.graph
    used = {n for node in graph.node for n in (*node.input, *node.output) if n}
    renamed = {old: f"{name} {k}" for k, old in enumerate(sorted(used))}
    for entry in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        entry.name = renamed.get(entry.name, entry.name)
        entry.doc_string = name
    for k, node in enumerate(graph.node):
        node.name = f"{name} node {k}"
        node.doc_string = name
        for names in (node.input, node.output):
            names[:] = [renamed.get(n, n) for n in names]
    for k, axis in enumerate(graph.input[0].type.tensor_type.shape.dim):
        if axis.WhichOneof("value") == "dim_param":
            axis.dim_param = f"{name} {k}"
    graph.name = graph.doc_string = made.doc_string = made.domain = name
    made.producer_name = made.producer_version = name
    made.metadata_props.add(key=name, value=name)
    path = folder / "m.onnx"
    data = made.SerializeToString()
    if name != given:  # bytes that are no UTF-8, which protobuf itself would not write
        data = data.replace("\u2021".encode(), "\udcff".encode(errors="surrogatepass"))
    path.write_bytes(data)
    return path


ONNX = Format("onnx", intact, crafted)
