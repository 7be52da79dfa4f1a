"""An ONNX file as checked plain data: nodes, typed inputs, NumPy arrays. Nothing is computed.

The file is untrusted: sizes are bounded before anything is allocated, external data is read from
the model's own folder only, and text of the file reaches messages quoted and cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ifgo import files, limits
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats.onnx.value import Length, Size, is_real
from ifgo.formats.onnx.wire import is_affordable
from ifgo.layers import Recurrent

KNOWN_OPSET = 28
"""Newest operator set whose operators have the meaning this reader knows."""

MAX_RANK = 8
"""Deepest tensor; the operators of an LSTM chain need 5 axes at most."""

_KNOWN_TYPES = {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.UINT32,
    TensorProto.UINT64,
    TensorProto.BOOL,
}


def quoted(text: str) -> str:
    """Text of the file for a message: printable, in quotes, 80 characters at most."""
    return repr(text if len(text) <= 80 else text[:79] + "…")


def printable(text: str, length: int) -> str:
    """Text of the file as ASCII that prints, at most `length` characters."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:length])


def text(value: str | bytes) -> str:
    """A string field of the file; protobuf hands out bytes where it is no UTF-8."""
    if isinstance(value, bytes):
        raise FormatError("holds a name that is no UTF-8 text", hint="The file is damaged")
    return value


@dataclass(frozen=True)
class Node:
    """One operator of the graph. An empty input or output name means that it is left out.

    op: "LSTM"; with its domain, as "com.microsoft.Attention", where that is not the standard one
    (domain is "" there). In a graph of another format: layer, the whole layer where its LSTM is not
    that of ONNX (its only input is X, its output (T, B, P), both turned where attribute layout is
    1), with the source of each of its fields; refusal, raised where the node is needed; kind, the
    operator of the file that the node is a part of.
    """

    op: str
    name: str
    position: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, AttributeProto]
    domain: str = ""
    layer: Recurrent | None = None
    sources: dict[str, str] = field(default_factory=dict[str, str])
    refusal: IfgoError | None = None
    kind: str = ""

    @property
    def where(self) -> str:
        """How messages name the node."""
        return f"node {quoted(self.name)}" if self.name else f"node #{self.position}"


@dataclass(frozen=True)
class GraphInput:
    """A value the caller gives. shape: None where the file does not even say the rank."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Size, ...] | None


@dataclass(frozen=True)
class Graph:
    """What the reader needs of a file. constants are converted when asked for.

    framework: whose graph it is, as a Provenance names it.
    """

    nodes: tuple[Node, ...]
    inputs: dict[str, GraphInput]
    outputs: tuple[str, ...]
    opset: int
    producer: str
    folder: Path
    _tensors: dict[str, TensorProto] = field(repr=False)
    framework: str = field(default="onnx", kw_only=True)

    def is_constant(self, name: str) -> bool:
        """Whether an initializer has this name."""
        return name in self._tensors

    def constant(self, name: str) -> NDArray[Any]:
        """The initializer `name`."""
        return to_array(self._tensors[name], f"initializer {quoted(name)}", self.folder)


def parse(path: Path) -> Graph:
    """The graph in `path`. Raises FormatError where it is damaged, UnsupportedError where it holds
    what no model has that ifgo reads (sparse tensors, inputs that are no numbers)."""
    model = _decoded(files.read_bytes(path))
    graph = model.graph
    if not model.HasField("graph") or not graph.output:
        raise FormatError("has no graph with outputs", expected="a whole ONNX model")
    opset = _opset(model)
    if len(graph.node) > limits.current().nodes:
        raise FormatError(f"has {len(graph.node)} nodes", **limits.at_most("nodes"))
    if graph.sparse_initializer:
        name = quoted(text(graph.sparse_initializer[0].values.name))
        raise UnsupportedError(f"initializer {name} is sparse", expected="dense tensors")
    tensors: dict[str, TensorProto] = {}
    for tensor in graph.initializer:
        name = text(tensor.name)
        if name in tensors:
            raise FormatError(f"has two initializers named {quoted(name)}", expected="unique names")
        check_tensor(tensor, f"initializer {quoted(name)}")
        tensors[name] = tensor
    size = sum(_bytes(tensor) for tensor in tensors.values())
    if size > limits.current().file_bytes:
        raise FormatError(f"declares {size} bytes of constants", **limits.at_most("file_bytes"))
    free = [value for value in graph.input if text(value.name) not in tensors]
    for what, count in (("inputs", len(free)), ("outputs", len(graph.output))):
        if count > limits.current().inputs:
            raise FormatError(f"has {count} {what}", **limits.at_most("inputs"))
    inputs = [_input(value) for value in free]
    if len({entry.name for entry in inputs}) != len(inputs):
        raise FormatError("has two inputs of one name", expected="unique names")
    return Graph(
        nodes=tuple(_node(node, k) for k, node in enumerate(graph.node)),
        inputs={entry.name: entry for entry in inputs},
        outputs=tuple(text(v.name) for v in graph.output),
        opset=opset,
        producer=printable(
            f"{text(model.producer_name)} {text(model.producer_version)}".strip(), 64
        ),
        folder=path.parent,
        _tensors=tensors,
    )


def _decoded(data: bytes) -> onnx.ModelProto:
    try:
        if is_affordable(data):
            return onnx.ModelProto.FromString(data)
    except DecodeError:
        pass
    raise FormatError(
        "is no ONNX model, or a truncated one (its protobuf does not decode)",
        hint="Export it again",
    ) from None


def _opset(model: onnx.ModelProto) -> int:
    versions = [o.version for o in model.opset_import if text(o.domain) in ("", "ai.onnx")]
    if len(versions) != 1 or not 1 <= versions[0] <= KNOWN_OPSET:
        raise UnsupportedError(
            f"imports operator set {', '.join(map(str, versions[:8])) or 'none'}",
            expected=f"one version from 1 to {KNOWN_OPSET}",
            hint="Export it with a known opset",
        )
    return versions[0]


def _node(node: onnx.NodeProto, position: int) -> Node:
    domain = "" if text(node.domain) == "ai.onnx" else text(node.domain)
    made = Node(
        f"{domain}.{text(node.op_type)}" if domain else text(node.op_type),
        text(node.name),
        position,
        tuple(text(name) for name in node.input),
        tuple(text(name) for name in node.output),
        {text(attribute.name): attribute for attribute in node.attribute},
        domain,
    )
    if len(made.attributes) != len(node.attribute):
        raise FormatError("has an attribute twice", where=made.where, expected="each once")
    return made


def _input(value: onnx.ValueInfoProto) -> GraphInput:
    name = text(value.name)
    what = f"input {quoted(name)}"
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type not in _KNOWN_TYPES:
        raise UnsupportedError(f"{what} is no tensor of numbers", expected="a numeric tensor")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    if not kind.HasField("shape"):
        return GraphInput(name, dtype, None)
    shape: list[Size] = []
    for k, dim in enumerate(kind.shape.dim):
        if dim.WhichOneof("value") == "dim_value":
            if dim.dim_value < 1:
                raise FormatError(
                    f"{what} declares a size of {dim.dim_value} along axis {k}",
                    expected="1 or more, or a name",
                )
            shape.append(dim.dim_value)
        else:
            shape.append(Length.named(text(dim.dim_param) or f"{name}.{k}"))
    if len(shape) > MAX_RANK:
        raise FormatError(f"{what} has {len(shape)} axes", expected=f"at most {MAX_RANK}")
    return GraphInput(name, dtype, tuple(shape))


def check_tensor(tensor: TensorProto, what: str) -> None:
    """Refuse a tensor whose declared type or size is impossible, before anything is allocated."""
    if tensor.data_type not in _KNOWN_TYPES:
        names = {number: name for name, number in TensorProto.DataType.items()}
        raise UnsupportedError(
            f"{what} has element type {names.get(tensor.data_type, tensor.data_type)}",
            expected="a float, integer or boolean type of 8 to 64 bits",
        )
    if len(tensor.dims) > MAX_RANK or any(size < 0 for size in tensor.dims):
        raise FormatError(
            f"{what} declares shape {list(tensor.dims)[:16]}",
            expected=f"at most {MAX_RANK} sizes of 0 or more",
        )
    if math.prod(tensor.dims) > limits.current().elements:
        raise FormatError(
            f"{what} declares {math.prod(tensor.dims)} elements",
            **limits.at_most("elements"),
        )


def _bytes(tensor: TensorProto) -> int:
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    return math.prod(tensor.dims) * dtype.itemsize


def to_array(tensor: TensorProto, what: str, folder: Path | None) -> NDArray[Any]:
    """The numbers of `tensor`, in its own dtype. Raises FormatError where they are not all there.

    folder: where external data may lie, None where there must be none.
    """
    check_tensor(tensor, what)
    if tensor.data_location == TensorProto.EXTERNAL:
        if folder is None:
            raise UnsupportedError(f"{what} keeps its data outside", expected="it in the node")
        copy = TensorProto(dims=tensor.dims, data_type=tensor.data_type)
        copy.raw_data = _external(tensor, what, folder)
        tensor = copy
    try:
        return numpy_helper.to_array(tensor) if tensor.HasField("raw_data") else _listed(tensor)
    except (ValueError, TypeError):
        raise FormatError(
            f"{what} declares shape {list(tensor.dims)}, but its data has another size",
            hint="The file is damaged: export it again",
        ) from None


def _listed(tensor: TensorProto) -> NDArray[Any]:
    """The numbers of a tensor that lists them in a field for its type. Raises ValueError where
    their count is another; onnx's own helper would make a Python list of them all first."""
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    held = np.dtype(
        helper.tensor_dtype_to_np_dtype(
            helper.tensor_dtype_to_storage_tensor_dtype(tensor.data_type)
        )
    )
    numbers = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
    if len(numbers) != math.prod(tensor.dims):
        raise ValueError
    data = np.fromiter(numbers, held, len(numbers))
    if is_real(dtype) and held.kind != "f":
        data = data.astype(np.uint16).view(dtype)  # 16-bit floats are listed as their bits
    return data.astype(dtype, copy=False).reshape(list(tensor.dims))


def _external(tensor: TensorProto, what: str, folder: Path) -> bytes:
    entries = {text(entry.key): text(entry.value) for entry in tensor.external_data}
    location = entries.get("location", "")
    root = folder.resolve()
    try:
        target = (root / location).resolve()
        inside = bool(location) and target.is_relative_to(root) and target.is_file()
    except (OSError, ValueError, RuntimeError):  # the last of a link to itself, before Python 3.13
        target, inside = root, False
    if not inside:
        raise FormatError(
            f"{what} keeps its data in {quoted(location)}",
            expected="a file inside the model's own folder",
            hint="Keep the data file beside the model",
        )
    size = _bytes(tensor)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size)))
    except ValueError:
        offset, length = -1, -1
    if offset < 0 or length != size or offset + size > target.stat().st_size:
        raise FormatError(
            f"{what} says it has {quoted(entries.get('length', ''))} bytes from "
            f"{quoted(entries.get('offset', '0'))} of {quoted(location)}",
            expected=f"{size} bytes that are there",
            hint="The data file does not belong to this model",
        )
    with target.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)
