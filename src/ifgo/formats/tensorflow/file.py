"""What TensorFlow writes as plain data: messages, attributes, constants. Nothing is computed.

The messages are declared here with the field numbers of TensorFlow's graph.proto, function.proto,
meta_graph.proto, tensor_bundle.proto and others: only what is read, so that no TensorFlow is
needed.
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
from ifgo.formats.onnx.wire import Spent, is_affordable
from ifgo.text import quote

_BOOL, _INT32, _INT64, _FLOAT, _DOUBLE, _BYTES, _FIXED32 = 8, 5, 3, 2, 1, 12, 7

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
        ("string_val", 8, _BYTES, True),
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
        ("func", 10, "Function", False),
    ),
    "Function": (("name", 1, _BYTES, False),),
    "Entry": (("key", 1, _BYTES, False), ("value", 2, "Attribute", False)),
    "Node": (
        ("name", 1, _BYTES, False),
        ("op", 2, _BYTES, False),
        ("input", 3, _BYTES, True),
        ("attr", 5, "Entry", True),
    ),
    "Graph": (("node", 1, "Node", True), ("library", 2, "Library", False)),
    "Library": (("function", 1, _BYTES, True),),  # each a FunctionDef, most of them never called
    "FunctionHead": (("signature", 1, "Function", False),),
    "FunctionDef": (
        ("signature", 1, "Signature", False),
        ("node_def", 3, "Node", True),
        ("ret", 4, "Return", True),
    ),
    "Signature": (
        ("name", 1, _BYTES, False),
        ("input_arg", 2, "Argument", True),
        ("output_arg", 3, "Argument", True),
    ),
    "Argument": (("name", 1, _BYTES, False),),
    "Return": (("key", 1, _BYTES, False), ("value", 2, _BYTES, False)),
    "SavedModel": (("meta_graphs", 2, "MetaGraph", True),),
    "MetaGraph": (
        ("meta_info_def", 1, "MetaInfo", False),
        ("graph_def", 2, "Graph", False),
        ("saver_def", 3, "Saver", False),
        ("signature_def", 5, "NamedSignature", True),
    ),
    "MetaInfo": (("tags", 4, _BYTES, True), ("tensorflow_version", 5, _BYTES, False)),
    "Saver": (("restore_op_name", 3, _BYTES, False),),
    "NamedSignature": (("key", 1, _BYTES, False), ("value", 2, "Interface", False)),
    "Interface": (("inputs", 1, "NamedTensor", True), ("outputs", 2, "NamedTensor", True)),
    "NamedTensor": (("key", 1, _BYTES, False), ("value", 2, "TensorName", False)),
    "TensorName": (("name", 1, _BYTES, False),),
    "BundleHeader": (("num_shards", 1, _INT32, False), ("endianness", 2, _INT32, False)),
    "BundleEntry": (
        ("dtype", 1, _INT32, False),
        ("shape", 2, "Shape", False),
        ("shard_id", 3, _INT32, False),
        ("offset", 4, _INT64, False),
        ("size", 5, _INT64, False),
        ("crc32c", 6, _FIXED32, False),
        ("slices", 7, _BYTES, True),
    ),
}
"""Message → (field, number, type, repeated)."""

TYPES: Final[dict[int, tuple[Any, str]]] = {
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
    """One node. inputs: "name:output" with 0 left out, control inputs dropped. array: the numbers
    of a variable, which stands as a Const."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]
    array: NDArray[Any] | None = None

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
        kind = None if found is None else TYPES.get(found.type)
        return None if kind is None else np.dtype(kind[0])

    def function(self, name: str) -> str:
        """The name of a function."""
        found = self.attributes.get(name)
        return "" if found is None else text(found.func.name)

    def texts(self) -> tuple[str, ...]:
        """The strings of a Const."""
        found = self.attributes.get("value")
        return () if found is None else tuple(map(text, found.tensor.string_val))

    def constant(self) -> NDArray[Any]:
        """The array of a Const. Raises FormatError where its numbers are not all there."""
        if self.array is not None:
            return self.array
        found = self.attributes.get("value")
        if found is None or not found.HasField("tensor"):
            raise FormatError("has no value", where=self.where, expected="a tensor")
        return _array(found.tensor, self.where)


@cache
def message(name: str) -> Any:
    """The class of a message of this file."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"ifgo.tensorflow.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
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
    return pool


def decoded(data: bytes, name: str, spent: Spent | None = None) -> Any:
    """The message `name` in `data`, None where it is none. Raises FormatError beyond limits, of
    which `spent` counts what other parts took."""
    kind = message(name)
    try:
        return kind.FromString(data) if is_affordable(data, kind.DESCRIPTOR, spent) else None
    except DecodeError:
        return None


def graph_of(path: Path) -> Any:
    """The GraphDef in `path`."""
    graph = decoded(files.read_bytes(path), "Graph")
    if graph is None or not graph.node:
        raise FormatError(
            "is no frozen TensorFlow graph, or a truncated one (its protobuf does not decode)",
            expected="a GraphDef",
            hint="Save a Keras model as .keras or .h5, or freeze the graph",
        )
    return graph


def text(data: bytes) -> str:
    """A name in the file."""
    return data.decode("utf-8", "replace")


def shape_of(shape: Any) -> tuple[int, ...] | None:
    """Sizes, -1 where one is open; None where the rank is."""
    if shape is None or shape.unknown_rank:
        return None
    sizes = tuple(int(dim.size) for dim in shape.dim[:9])
    if len(sizes) > 8 or any(size < -1 for size in sizes):
        raise FormatError(f"has a shape of {list(sizes)}", expected="at most 8 sizes of -1 or more")
    return sizes


def _array(tensor: Any, where: str) -> NDArray[Any]:
    known = TYPES.get(tensor.dtype)
    if known is None:
        raise UnsupportedError(
            f"is a constant of data type {tensor.dtype}",
            where=where,
            expected="a float, integer or boolean type",
        )
    dtype, field = np.dtype(known[0]).newbyteorder("<"), known[1]
    shape = shape_of(tensor.shape)
    count = math.prod(shape or ())
    if shape is None or any(size < 0 for size in shape) or count > limits.current().elements:
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
    if listed.size > count:
        raise FormatError(
            f"lists {listed.size} values for shape {list(shape)}",
            where=where,
            expected=f"at most {count}",
        )
    values = listed.astype(dtype) if listed.size else np.zeros(1, dtype)
    if values.size < count and values.size > 1:
        # TensorFlow leaves out values at the end that are like the last one
        if count > limits.current().folded_elements:
            raise FormatError(
                f"lists {listed.size} values for shape {list(shape)}",
                where=where,
                expected="all of them, or one for all",
            )
        values = np.concatenate([values, np.full(count - values.size, values[-1])])
    return values.reshape(shape) if values.size == count else np.broadcast_to(values[0], shape)
