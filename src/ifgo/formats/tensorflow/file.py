"""A frozen GraphDef as plain data: nodes by name, attributes, constants. Nothing is computed.

The messages are declared here with the field numbers of TensorFlow's graph.proto, node_def.proto,
attr_value.proto and tensor.proto: only what is read, so that no TensorFlow is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ifgo import files, limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.wire import is_affordable
from ifgo.text import quote

_BOOL, _INT32, _INT64, _FLOAT, _DOUBLE, _BYTES = 8, 5, 3, 2, 1, 12

_MESSAGES: Final[dict[str, tuple[tuple[str, int, int | str, bool], ...]]] = {
    "Dim": (("size", 1, _INT64, False),),
    "Shape": (("dim", 2, "Dim", True), ("unknown_rank", 3, _BOOL, False)),
    "Tensor": (
        ("dtype", 1, _INT32, False),
        ("shape", 2, "Shape", False),
        ("content", 4, _BYTES, False),
        ("half_val", 13, _INT32, True),
        ("float_val", 5, _FLOAT, True),
        ("double_val", 6, _DOUBLE, True),
        ("int_val", 7, _INT32, True),
        ("int64_val", 10, _INT64, True),
        ("bool_val", 11, _BOOL, True),
    ),
    "List": (("i", 3, _INT64, True),),
    "Attribute": (
        ("list", 1, "List", False),
        ("s", 2, _BYTES, False),
        ("i", 3, _INT64, False),
        ("f", 4, _FLOAT, False),
        ("b", 5, _BOOL, False),
        ("type", 6, _INT32, False),
        ("shape", 7, "Shape", False),
        ("tensor", 8, "Tensor", False),
    ),
    "Entry": (("key", 1, _BYTES, False), ("value", 2, "Attribute", False)),
    "Node": (
        ("name", 1, _BYTES, False),
        ("op", 2, _BYTES, False),
        ("input", 3, _BYTES, True),
        ("attr", 5, "Entry", True),
    ),
    "Graph": (("node", 1, "Node", True), ("library", 2, _BYTES, False)),
}
"""Message → (field, number, type, repeated)."""

_TYPES: Final[dict[int, tuple[Any, str]]] = {
    1: (np.float32, "float_val"),
    2: (np.float64, "double_val"),
    3: (np.int32, "int_val"),
    4: (np.uint8, "int_val"),
    6: (np.int8, "int_val"),
    9: (np.int64, "int64_val"),
    10: (np.bool_, "bool_val"),
    19: (np.float16, "half_val"),
}
"""DataType → NumPy's, and the field that lists values."""


@dataclass(frozen=True)
class TFNode:
    """One node. inputs: "name:output" with 0 left out, control inputs dropped."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"node {quote(self.name)}"

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        found = self.attributes.get(name)
        return default if found is None else int(found.i)

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of integers."""
        found = self.attributes.get(name)
        return () if found is None else tuple(int(n) for n in found.list.i[:64])

    def flag(self, name: str) -> bool:
        """A boolean attribute."""
        found = self.attributes.get(name)
        return found is not None and bool(found.b)

    def dtype(self, name: str) -> np.dtype[Any] | None:
        """A type attribute, None where NumPy has no such type or there is none."""
        found = self.attributes.get(name)
        kind = None if found is None else _TYPES.get(found.type)
        return None if kind is None else np.dtype(kind[0])

    def constant(self) -> NDArray[Any]:
        """The array of a Const. Raises FormatError where its numbers are not all there."""
        found = self.attributes.get("value")
        if found is None or not found.HasField("tensor"):
            raise FormatError("has no value", where=self.where, expected="a tensor")
        return _array(found.tensor, self.where)


@cache
def _graph() -> Any:
    """The class of the message Graph."""
    file = descriptor_pb2.FileDescriptorProto(
        name="ifgo_tensorflow.proto", package="ifgo.tensorflow", syntax="proto3"
    )
    for title, fields in _MESSAGES.items():
        message = file.message_type.add(name=title)
        for name, number, kind, repeated in fields:
            made = message.field.add(name=name, number=number)
            made.label = made.LABEL_REPEATED if repeated else made.LABEL_OPTIONAL
            if isinstance(kind, str):
                made.type, made.type_name = made.TYPE_MESSAGE, f".ifgo.tensorflow.{kind}"
            else:
                made.type = kind  # pyright: ignore[reportAttributeAccessIssue]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ifgo.tensorflow.Graph"))


def parse(path: Path) -> dict[str, TFNode]:
    """The nodes of the graph in `path`, by name."""
    data = files.read_bytes(path)
    kind = _graph()
    graph: Any = None
    try:
        if is_affordable(data, kind.DESCRIPTOR):
            graph = kind.FromString(data)
    except DecodeError:
        pass
    if graph is None or not graph.node:
        raise FormatError(
            "is no frozen TensorFlow graph, or a truncated one (its protobuf does not decode)",
            expected="a GraphDef",
            hint="Save a Keras model as .keras or .h5, or freeze the graph",
        )
    if len(graph.node) > limits.MAX_NODES:
        raise FormatError(f"has {len(graph.node)} nodes", expected=f"at most {limits.MAX_NODES}")
    found: dict[str, TFNode] = {}
    for node in graph.node:
        made = TFNode(
            _text(node.name),
            _text(node.op),
            tuple(_input(_text(name)) for name in node.input if name[:1] != b"^"),
            {_text(entry.key): entry.value for entry in node.attr},
        )
        if made.name in found:
            raise FormatError(f"has two nodes named {quote(made.name)}", expected="unique names")
        found[made.name] = made
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _input(name: str) -> str:
    return name.removesuffix(":0")


def shape_of(shape: Any) -> tuple[int, ...] | None:
    """Sizes, -1 where one is open; None where the rank is."""
    if shape is None or shape.unknown_rank:
        return None
    sizes = tuple(int(dim.size) for dim in shape.dim[:9])
    if len(sizes) > 8 or any(size < -1 for size in sizes):
        raise FormatError(f"has a shape of {list(sizes)}", expected="at most 8 sizes of -1 or more")
    return sizes


def _array(tensor: Any, where: str) -> NDArray[Any]:
    known = _TYPES.get(tensor.dtype)
    if known is None:
        raise UnsupportedError(
            f"is a constant of data type {tensor.dtype}",
            where=where,
            expected="a float, integer or boolean type",
        )
    dtype, field = np.dtype(known[0]).newbyteorder("<"), known[1]
    shape = shape_of(tensor.shape)
    count = math.prod(shape or ())
    if shape is None or any(size < 0 for size in shape) or count > limits.MAX_ELEMENTS:
        raise FormatError(f"declares shape {shape}", where=where, expected="a known, possible one")
    if tensor.content:
        if len(tensor.content) != count * dtype.itemsize:
            raise FormatError(
                f"has {len(tensor.content)} bytes for shape {list(shape)}",
                where=where,
                expected=str(count * dtype.itemsize),
                hint="The file is damaged: freeze the graph again",
            )
        return np.frombuffer(tensor.content, dtype).reshape(shape)
    listed = np.array(getattr(tensor, field))
    if field == "half_val":
        listed = listed.astype(np.uint16).view(np.float16)
    if listed.size not in (1, count) and (listed.size or count):
        raise FormatError(
            f"lists {listed.size} values for shape {list(shape)}",
            where=where,
            expected=f"1 or {count}",
        )
    values = listed.astype(dtype) if listed.size else np.zeros(1, dtype)
    if values.size == count:
        return values.reshape(shape)
    return np.broadcast_to(values[0], shape)
