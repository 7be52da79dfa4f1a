"""A TFLite flatbuffer as checked plain data: tensors, operators, options. Nothing is computed.

The schema's accessors come from the package `tflite`; module guard checks every offset first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ifgo import files, limits
from ifgo.errors import FormatError, ToolError, UnsupportedError
from ifgo.formats.tflite.guard import OPTIONS, Guard
from ifgo.text import cut, quote

VERSION: Final = 3
"""The version of the schema that every file says."""

MAX_RANK: Final = 8

DTYPES: Final[dict[str, Any]] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
"""Types of the schema that NumPy has; a tensor of another type is refused where it is read."""


@dataclass(frozen=True)
class Quantization:
    """scale and zero_point along axis; one entry each for the whole tensor."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor. shape: -1 where a size is open. data: None where it is no constant."""

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    variable: bool
    data: NDArray[Any] | None
    quantization: Quantization | None


@dataclass(frozen=True)
class Operator:
    """One operator of graph number `graph`. inputs: -1 is left out. options: all fields of its
    table."""

    kind: str
    position: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]
    graph: int = 0

    @property
    def label(self) -> str:
        """Its kind and place; the main graph is not named."""
        return f"{self.kind} #{self.position}" + (f" of graph {self.graph}" if self.graph else "")

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"operator {self.label}"


@dataclass(frozen=True)
class Subgraph:
    """One graph of a file; that of number 0 is the model, others are bodies of its operators."""

    number: int
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class File:
    """The graphs of a file, the main one first."""

    graphs: tuple[Subgraph, ...]
    description: str

    @property
    def main(self) -> Subgraph:
        """The graph that a caller runs."""
        return self.graphs[0]


def schema() -> ModuleType:
    """The package with the schema. Raises ToolError where it is not installed."""
    try:
        return import_module("tflite")
    except ImportError:
        raise ToolError(
            "reading and writing TFLite needs the package tflite",
            hint="Install it with: pip install 'ifgo[tflite]'",
        ) from None


def enum(holder: Any) -> dict[int, str]:
    """Number → name of an enumeration of the schema."""
    members = cast("dict[str, Any]", vars(holder))
    return {v: k for k, v in members.items() if isinstance(v, int) and not k.startswith("_")}


def parse(path: Path) -> File:
    """The graphs in `path`. Raises FormatError where the file is damaged."""
    package = schema()
    data = files.read_bytes(path)
    kinds = {k: v for k, v in enum(package.BuiltinOptions).items() if v in OPTIONS}
    Guard(data, kinds).run()
    return _Reader(package, data, kinds).file()


def text(value: bytes | None) -> str:
    """A name of the file as text."""
    return "" if value is None else value.decode("utf-8", "replace")


class _Reader:
    """The accessors of a file that the guard has passed."""

    def __init__(self, package: ModuleType, data: bytes, kinds: dict[int, str]) -> None:
        self.package = package
        self.data = data
        self.kinds = kinds
        self.types = enum(package.TensorType)
        self.model: Any = package.Model.GetRootAs(data, 0)

    def file(self) -> File:
        model = self.model
        if model.Version() != VERSION:
            raise UnsupportedError(
                f"is of schema version {model.Version()}", expected=f"version {VERSION}"
            )
        if not model.SubgraphsLength():
            raise FormatError("has no graph", expected="one at least")
        graphs = [model.Subgraphs(k) for k in range(model.SubgraphsLength())]
        count = sum(graph.OperatorsLength() for graph in graphs)
        if count > limits.current().nodes:
            raise FormatError(f"has {count} operators", **limits.at_most("nodes"))
        names = self._codes()
        found = tuple(self._graph(graph, k, names) for k, graph in enumerate(graphs))
        if not found[0].outputs:
            raise FormatError("has no outputs", expected="one at least")
        return File(found, cut(text(model.Description()), 64))

    def _graph(self, graph: Any, number: int, names: list[str]) -> Subgraph:
        what = f"graph {number}" if number else "the graph"
        tensors = tuple(self._tensor(graph.Tensors(k), k) for k in range(graph.TensorsLength()))
        inputs, outputs = _list(graph, "Inputs"), _list(graph, "Outputs")
        for what, found in (("inputs", inputs), ("outputs", outputs)):
            if len(found) > limits.current().inputs:
                raise FormatError(f"has {len(found)} {what}", **limits.at_most("inputs"))
            self._check_indices(found, len(tensors), what, optional=False)
        operators = tuple(
            self._operator(graph.Operators(k), k, number, names, len(tensors))
            for k in range(graph.OperatorsLength())
        )
        return Subgraph(number, tensors, operators, inputs, outputs)

    def _codes(self) -> list[str]:
        """The operator that each operator code means."""
        builtin = enum(self.package.BuiltinOperator)
        found: list[str] = []
        for k in range(self.model.OperatorCodesLength()):
            code = self.model.OperatorCodes(k)
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            name = builtin.get(number, f"builtin operator {number}")
            custom = quote(text(code.CustomCode()), 40)
            found.append(f"CUSTOM {custom}" if name == "CUSTOM" else name)
        return found

    def _check_indices(
        self, indices: tuple[int, ...], count: int, what: str, *, optional: bool = True
    ) -> None:
        for index in indices:
            if not (-1 if optional else 0) <= index < count:
                raise FormatError(
                    f"names tensor {index}", where=what, expected=f"one of {count} tensors"
                )

    def _operator(
        self, found: Any, position: int, graph: int, names: list[str], tensors: int
    ) -> Operator:
        code = found.OpcodeIndex()
        if code >= len(names):
            raise FormatError(
                f"operator #{position} has code {code}", expected=f"one of {len(names)}"
            )
        made = Operator(
            names[int(code)],
            position,
            _list(found, "Inputs"),
            _list(found, "Outputs"),
            self._options(found, position),
            graph,
        )
        self._check_indices(made.inputs, tensors, made.where)
        self._check_indices(made.outputs, tensors, made.where)
        return made

    def _options(self, found: Any, position: int) -> dict[str, Any]:
        """The fields of the options that the reader knows, with "" → the name of their table."""
        kind = found.BuiltinOptionsType()
        union = found.BuiltinOptions()
        name = self.kinds.get(kind)
        if name is None or union is None:
            return {} if not kind else {"": enum(self.package.BuiltinOptions).get(kind, str(kind))}
        options: Any = getattr(self.package, name)()
        options.Init(union.Bytes, union.Pos)
        read: dict[str, Any] = {"": name}
        for field, width in OPTIONS[name].items():
            if width[0] == "v":
                read[field] = _list(options, field)
            else:
                value = getattr(options, field)()
                if isinstance(value, float) and not math.isfinite(value):
                    raise FormatError(
                        f"{field} is {value}",
                        where=f"operator #{position}",
                        expected="a finite number",
                    )
                read[field] = value
        return read

    # -- tensors ----------------------------------------------------------------------------

    def _tensor(self, found: Any, index: int) -> Tensor:
        name = text(found.Name())
        what = f"tensor {quote(name)}"
        kind = self.types.get(found.Type(), str(found.Type()))
        shape = _list(found, "Shape")
        signature = _list(found, "ShapeSignature")
        if len(shape) > MAX_RANK or any(size < 0 for size in shape):
            raise FormatError(
                f"{what} has shape {list(shape[:16])}",
                expected=f"at most {MAX_RANK} sizes of 0 or more",
            )
        fits = len(signature) == len(shape) and all(
            a in (b, -1) for a, b in zip(signature, shape, strict=True)
        )
        if signature and not fits:
            raise FormatError(
                f"{what} has shape {list(shape)} and signature {list(signature[:16])}",
                expected="the same sizes, or -1",
            )
        data = self._constant(found, what, kind, shape)
        return Tensor(
            index,
            name,
            kind,
            signature if signature and data is None else shape,
            bool(found.IsVariable()),
            data,
            self._quantization(found, what, shape),
        )

    def _constant(
        self, found: Any, what: str, kind: str, shape: tuple[int, ...]
    ) -> NDArray[Any] | None:
        number = found.Buffer()
        if number >= self.model.BuffersLength():
            raise FormatError(
                f"{what} names buffer {number}", expected=f"one of {self.model.BuffersLength()}"
            )
        buffer = self.model.Buffers(number)
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise UnsupportedError(
                f"{what} keeps its data behind the flatbuffer", expected="data in its buffer"
            )
        if not buffer.DataLength():
            return None
        if kind not in DTYPES or found.Sparsity() is not None:
            raise UnsupportedError(
                f"{what} is a {'sparse ' if found.Sparsity() is not None else ''}constant of type "
                f"{kind}",
                expected="a dense one of " + ", ".join(DTYPES),
            )
        dtype = np.dtype(DTYPES[kind]).newbyteorder("<")
        count = math.prod(shape)
        if count > limits.current().elements:
            raise FormatError(f"{what} has {count} elements", **limits.at_most("elements"))
        if count * dtype.itemsize != buffer.DataLength():
            raise FormatError(
                f"{what} of shape {list(shape)} and type {kind} has {buffer.DataLength()} bytes",
                expected=f"{count * dtype.itemsize}",
                hint="The file is damaged: convert it again",
            )
        raw = np.asarray(buffer.DataAsNumpy(), np.uint8)
        return raw.view(dtype).reshape(shape)

    def _quantization(self, found: Any, what: str, shape: tuple[int, ...]) -> Quantization | None:
        stored = found.Quantization()
        if stored is None or not stored.ScaleLength():
            return None
        scale = np.asarray(stored.ScaleAsNumpy(), np.float32)
        points = stored.ZeroPointLength()
        zero = np.asarray(stored.ZeroPointAsNumpy(), np.int64) if points else np.zeros(1, np.int64)
        axis = int(stored.QuantizedDimension())
        many = scale.size > 1
        wanted: int = shape[axis] if many and 0 <= axis < len(shape) else 1
        if scale.size != wanted or zero.size not in (1, scale.size):
            raise FormatError(
                f"{what} has {scale.size} scales and {zero.size} zero points along axis {axis} of "
                f"{list(shape)}",
                expected="one of each, or one for each entry of the axis",
            )
        return Quantization(scale, zero, axis)


def _list(owner: Any, field: str) -> tuple[int, ...]:
    """A vector of integers. The guard has held its length against the file."""
    count = getattr(owner, f"{field}Length")()
    if not count:
        return ()
    if count > limits.current().input_size:
        raise FormatError(f"{field} lists {count} numbers", **limits.at_most("input_size"))
    return tuple(int(n) for n in getattr(owner, f"{field}AsNumpy")())
