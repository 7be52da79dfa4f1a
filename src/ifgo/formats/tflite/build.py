"""A TFLite flatbuffer put together: tensors and operators by name, then the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.formats.tflite.file import VERSION, enum
from ifgo.formats.tflite.guard import IDENTIFIER

_TYPES: Final = {"float32": "FLOAT32", "int32": "INT32"}


@dataclass
class _Tensor:
    name: str
    type: str
    shape: tuple[int, ...]
    data: NDArray[Any] | None
    variable: bool


@dataclass
class _Operator:
    kind: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: str
    options: dict[str, Any]


class FlatFile:
    """Tensors and operators in the order in which they are added."""

    def __init__(self, package: ModuleType) -> None:
        self.package = package
        self.tensors: list[_Tensor] = []
        self.operators: list[_Operator] = []

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        data: NDArray[Any] | None = None,
        *,
        dtype: str = "float32",
        variable: bool = False,
    ) -> int:
        """The index of a new tensor; -1 in `shape` is an open size."""
        kind = _TYPES[data.dtype.name if data is not None else dtype]
        self.tensors.append(_Tensor(name, kind, shape, data, variable))
        return len(self.tensors) - 1

    def constant(self, name: str, data: NDArray[Any]) -> int:
        """The index of a new constant."""
        return self.tensor(name, data.shape, data)

    def integers(self, name: str, *values: int) -> int:
        """The index of a new constant vector of int32."""
        return self.constant(name, np.array(values, np.int32))

    def operator(
        self,
        kind: str,
        inputs: tuple[int, ...],
        output: int,
        table: str = "",
        *,
        version: int = 1,
        **options: Any,
    ) -> int:
        """One operator with its table of options. Returns its output."""
        self.operators.append(_Operator(kind, version, inputs, (output,), table, options))
        return output

    def bytes(self, inputs: tuple[int, ...], outputs: tuple[int, ...], description: str) -> bytes:
        """The whole file."""
        made: Any = import_module("flatbuffers").Builder(1024)
        p: Any = self.package
        buffers = [self._buffer(made, None)]
        places: list[int] = []
        for tensor in self.tensors:
            places.append(0 if tensor.data is None else len(buffers))
            if tensor.data is not None:
                buffers.append(self._buffer(made, tensor.data))
        tensors = [self._tensor(made, t, b) for t, b in zip(self.tensors, places, strict=True)]
        codes = list(dict.fromkeys((o.kind, o.version) for o in self.operators))
        operators = [self._operator(made, o, codes) for o in self.operators]
        parts = [self._offsets(made, found) for found in (tensors, operators)]
        ends = [made.CreateNumpyVector(np.array(k, np.int32)) for k in (inputs, outputs)]
        name = made.CreateString("main")
        p.SubGraphStart(made)
        p.SubGraphAddTensors(made, parts[0])
        p.SubGraphAddInputs(made, ends[0])
        p.SubGraphAddOutputs(made, ends[1])
        p.SubGraphAddOperators(made, parts[1])
        p.SubGraphAddName(made, name)
        graph = p.SubGraphEnd(made)
        numbers = {word: number for number, word in enum(p.BuiltinOperator).items()}
        stored = [self._code(made, numbers[kind], version) for kind, version in codes]
        vectors = [self._offsets(made, found) for found in (stored, [graph], buffers)]
        said = made.CreateString(description)
        p.ModelStart(made)
        p.ModelAddVersion(made, VERSION)
        p.ModelAddOperatorCodes(made, vectors[0])
        p.ModelAddSubgraphs(made, vectors[1])
        p.ModelAddDescription(made, said)
        p.ModelAddBuffers(made, vectors[2])
        made.Finish(p.ModelEnd(made), IDENTIFIER)
        return bytes(made.Output())

    def _offsets(self, made: Any, offsets: list[int]) -> int:
        made.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            made.PrependUOffsetTRelative(offset)
        return made.EndVector()

    def _buffer(self, made: Any, data: NDArray[Any] | None) -> int:
        place = None
        if data is not None:
            raw = np.frombuffer(data.astype(data.dtype.newbyteorder("<")).tobytes(), np.uint8)
            made.Prep(16, raw.size)  # what kernels expect of constants
            place = made.CreateNumpyVector(raw)
        self.package.BufferStart(made)
        if place is not None:
            self.package.BufferAddData(made, place)
        return self.package.BufferEnd(made)

    def _tensor(self, made: Any, tensor: _Tensor, buffer: int) -> int:
        p: Any = self.package
        name = made.CreateString(tensor.name)
        shape = made.CreateNumpyVector(np.abs(np.array(tensor.shape, np.int32)))
        signature = None
        if -1 in tensor.shape:
            signature = made.CreateNumpyVector(np.array(tensor.shape, np.int32))
        p.TensorStart(made)
        p.TensorAddShape(made, shape)
        p.TensorAddType(made, getattr(p.TensorType, tensor.type))
        p.TensorAddBuffer(made, buffer)
        p.TensorAddName(made, name)
        p.TensorAddIsVariable(made, tensor.variable)
        if signature is not None:
            p.TensorAddShapeSignature(made, signature)
        return p.TensorEnd(made)

    def _operator(self, made: Any, operator: _Operator, codes: list[tuple[str, int]]) -> int:
        p: Any = self.package
        options = None
        if operator.table:
            getattr(p, f"{operator.table}Start")(made)
            for field, value in operator.options.items():
                getattr(p, f"{operator.table}Add{field}")(made, value)
            options = getattr(p, f"{operator.table}End")(made)
        ends = [
            made.CreateNumpyVector(np.array(k, np.int32))
            for k in (operator.inputs, operator.outputs)
        ]
        p.OperatorStart(made)
        p.OperatorAddOpcodeIndex(made, codes.index((operator.kind, operator.version)))
        p.OperatorAddInputs(made, ends[0])
        p.OperatorAddOutputs(made, ends[1])
        if options is not None:
            p.OperatorAddBuiltinOptionsType(made, getattr(p.BuiltinOptions, operator.table))
            p.OperatorAddBuiltinOptions(made, options)
        return p.OperatorEnd(made)

    def _code(self, made: Any, number: int, version: int) -> int:
        p: Any = self.package
        p.OperatorCodeStart(made)
        p.OperatorCodeAddDeprecatedBuiltinCode(made, min(number, 127))
        p.OperatorCodeAddBuiltinCode(made, number)
        p.OperatorCodeAddVersion(made, version)
        return p.OperatorCodeEnd(made)
