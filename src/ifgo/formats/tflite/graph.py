"""The operators of a TFLite graph as nodes with the meaning of ONNX (see ifgo.formats._graph).

What is not translated keeps its own name, and the walk refuses it where an output needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats._graph import ArrayGraph, GraphBuilder
from ifgo.formats.onnx.file import GraphInput
from ifgo.formats.onnx.value import Length, Size
from ifgo.formats.tflite.file import DTYPES, File, Operator, Subgraph, Tensor
from ifgo.formats.tflite.lstm import (
    ACTIVATION_NAMES,
    BIDIRECTIONAL,
    UNIDIRECTIONAL,
    Read,
    bidirectional,
    unidirectional,
)
from ifgo.formats.tflite.operators import HANDLERS
from ifgo.formats.tflite.unrolled import unroll
from ifgo.text import quote

_FUSED: Final = {1: "Relu", 4: "Tanh"}
_LSTMS: Final[dict[str, Callable[[Subgraph, Operator], Read]]] = {
    UNIDIRECTIONAL: unidirectional,
    BIDIRECTIONAL: bidirectional,
}


class Translation:
    """One graph of a file, operator by operator; `notes` says what reading decided.

    file, path: as `parse` gave them. number: which graph; the bodies of a loop are translated too,
    for module loops to recognise.
    """

    def __init__(self, file: File, path: Path, number: int = 0) -> None:
        self.file = file
        self.subgraph = file.graphs[number]
        self.path = path
        self.out = GraphBuilder()
        self.notes: list[str] = []
        self.bodies: dict[int, Translation] = {}
        self.layers = 0
        self._states: dict[int, str] = {}
        shown = Counter(tensor.name for tensor in self.subgraph.tensors)
        self.names = [
            tensor.name if tensor.name and shown[tensor.name] == 1 else f"{tensor.name}#{k}"
            for k, tensor in enumerate(self.subgraph.tensors)
        ]
        for tensor in self.subgraph.tensors:
            if tensor.data is not None:
                self.out.arrays[self.names[tensor.index]] = tensor.data
        for operator in self.subgraph.operators:
            done = len(self.out.nodes)
            try:
                self._translate(operator)
            except IfgoError as error:
                named = error.where is not None and operator.where in error.where
                del self.out.nodes[done:]
                recurrent = operator.kind in _LSTMS or operator.kind == "WHILE"
                self.out.refuse(
                    "LSTM" if recurrent else operator.kind,
                    self._names(operator.inputs),
                    self._names(operator.outputs),
                    error if named else error.located(operator.where),
                    self.next_layer() if recurrent else operator.label,
                    operator.kind,
                )

    def graph(self) -> ArrayGraph:
        """The result, for the walk."""
        others = len(self.file.graphs) - 1 - len(self.bodies)
        if others:
            self.notes.append(f"left out {others} further graphs of the file")
        outputs = tuple(self.names[k] for k in self.subgraph.outputs)
        unroll(self.out, outputs, self.next_layer)
        return self.out.graph(
            [self._input(self.subgraph.tensors[k]) for k in dict.fromkeys(self.subgraph.inputs)],
            outputs,
            framework="tflite",
            producer=self.file.description,
            path=self.path,
        )

    def body(self, number: int) -> Translation:
        """Another graph of the file, translated once."""
        if number not in self.bodies:
            self.bodies[number] = Translation(self.file, self.path, number)
        return self.bodies[number]

    def next_layer(self) -> str:
        """The name of one more LSTM."""
        self.layers += 1
        return f"lstm{self.layers - 1}"

    def _input(self, tensor: Tensor) -> GraphInput:
        name = self.names[tensor.index]
        shape: list[Size] = []
        for k, size in enumerate(tensor.shape):
            if size == 0:
                raise FormatError(f"input {quote(name)} has a size of 0", expected="1 or more")
            shape.append(Length.named(f"{name}.{k}") if size < 0 else size)
        return GraphInput(name, np.dtype(DTYPES.get(tensor.type, np.bool_)), tuple(shape))

    def require_float(self) -> None:
        """Raises UnsupportedError where an input of the graph is of no type that ifgo reads."""
        for tensor in (self.subgraph.tensors[k] for k in self.subgraph.inputs):
            name = quote(self.names[tensor.index])
            if tensor.type in ("INT8", "UINT8", "INT16"):
                raise UnsupportedError(
                    f"computes with integers: its input {name} is {tensor.type}",
                    expected="a float32 model, ifgo has no integer arithmetic yet",
                    hint="Convert the model without full integer quantisation",
                )
            if tensor.type not in DTYPES or tensor.data is not None:
                what = "a constant" if tensor.data is not None else tensor.type
                raise UnsupportedError(f"input {name} is {what}", expected="a numeric input")

    # -- operators --------------------------------------------------------------------------

    def _translate(self, operator: Operator) -> None:
        handler = HANDLERS.get(operator.kind)
        label = operator.label
        if operator.kind in _LSTMS:
            self._recurrent(operator)
            return
        self._check_types(operator)
        if handler is not None:
            handler(self, operator, label)
        else:
            inputs, outputs = self._names(operator.inputs), self._names(operator.outputs)
            self.out.add(operator.kind, inputs, outputs, name=label)

    def _names(self, indices: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self.names[k] if k >= 0 else "" for k in indices)

    def _check_types(self, operator: Operator) -> None:
        """An operator on numbers of the network computes in float32."""
        for index in operator.outputs:
            kind = self.subgraph.tensors[index].type if index >= 0 else ""
            if kind in ("INT8", "UINT8", "INT16"):
                raise UnsupportedError(
                    f"computes with integers: it gives {kind}",
                    expected="a float32 model, ifgo has no integer arithmetic yet",
                    hint="Convert the model without quantisation",
                )

    def _recurrent(self, operator: Operator) -> None:
        found = _LSTMS[operator.kind](self.subgraph, operator)
        self.notes += found.notes
        places = (
            operator.inputs[18:20] if operator.kind == UNIDIRECTIONAL else (operator.inputs[35:39])
        )
        for index in places:
            if index in self._states:
                raise UnsupportedError(
                    f"shares state {quote(self.names[index])} with {self._states[index]}",
                    expected="a state of its own",
                )
            self._states[index] = operator.where
        self.out.add(
            "LSTM",
            (self.input(operator, 0),),
            self.output(operator),
            name=self.next_layer(),
            kind=operator.kind,
            layer=found.layer,
            sources=found.sources,
            layout=0 if operator.options.get("TimeMajor") else 1,
        )

    def input(self, operator: Operator, position: int) -> str:
        """The name of a required input."""
        if position >= len(operator.inputs) or operator.inputs[position] < 0:
            raise FormatError(f"has no input {position}", expected="one")
        return self.names[operator.inputs[position]]

    def tensor(self, operator: Operator, position: int) -> Tensor:
        """The tensor of a required input."""
        self.input(operator, position)
        return self.subgraph.tensors[operator.inputs[position]]

    def rank(self, operator: Operator, position: int = 0) -> int:
        """How many axes an input has."""
        return len(self.tensor(operator, position).shape)

    def integers(self, operator: Operator, position: int) -> list[int]:
        """A constant vector of integers."""
        tensor = self.tensor(operator, position)
        if tensor.data is None or tensor.data.dtype.kind not in "iu" or tensor.data.size > 64:
            raise UnsupportedError(
                f"takes {quote(tensor.name)}, which is no constant vector of integers",
                expected="places known in the file",
            )
        return [int(n) for n in tensor.data.reshape(-1)]

    def output(self, operator: Operator, count: int = 1) -> str:
        """The name of its only output."""
        if len(operator.outputs) != count or min(operator.outputs, default=-1) < 0:
            raise FormatError(f"has {len(operator.outputs)} outputs", expected=str(count))
        return self.names[operator.outputs[0]]

    def turned(self, name: str, label: str) -> str:
        """The transpose of a matrix, under its own name where it is a constant."""
        if name not in self.out.arrays:
            return self.out.add("Transpose", (name,), name=label, perm=[1, 0])
        self.out.arrays[f"{name} (transposed)"] = self.out.arrays[name].T
        return f"{name} (transposed)"

    def activated(self, operator: Operator, value: str, label: str) -> None:
        """`value`, made by the last node, through the fused activation as the operator's output."""
        number = operator.options.get("FusedActivationFunction", 0)
        target = self.output(operator)
        if number and number not in _FUSED:
            raise UnsupportedError(
                f"fused_activation_function is {ACTIVATION_NAMES.get(number, number)}",
                expected="NONE, RELU or TANH",
            )
        if number:
            self.out.add(_FUSED[number], (value,), target, name=label)
        else:
            self.out.nodes[-1] = replace(self.out.nodes[-1], outputs=(target,))
