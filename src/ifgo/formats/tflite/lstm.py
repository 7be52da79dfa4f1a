"""UNIDIRECTIONAL_SEQUENCE_LSTM and BIDIRECTIONAL_SEQUENCE_LSTM as Recurrent layers.

Gate by gate in the order i, f, g, o (FORMATS.md); without weights for i the gate is i = 1 - f. The
fused activation is that of the candidate and of the cell at the output; the gates are sigmoids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import gates, limits
from ifgo.activations import RELU, SIGMOID, TANH, Activation
from ifgo.cell import LayerNorm, LSTMCell
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats.tflite.file import Operator, Subgraph, Tensor
from ifgo.layers import Recurrent
from ifgo.text import quote

UNIDIRECTIONAL: Final = "UNIDIRECTIONAL_SEQUENCE_LSTM"
BIDIRECTIONAL: Final = "BIDIRECTIONAL_SEQUENCE_LSTM"

LAYOUT: Final = gates.LSTM_LAYOUTS["tflite"]

ACTIVATIONS: Final[dict[int, Activation]] = {1: RELU, 4: TANH}
"""fused_activation_function of an LSTM → ours. With NONE the runtime multiplies the output gate by
memory that it never wrote."""

ACTIVATION_NAMES: Final = {
    0: "NONE",
    1: "RELU",
    2: "RELU_N1_TO_1",
    3: "RELU6",
    4: "TANH",
    5: "SIGN_BIT",
}

WEIGHTS: Final = 1
RECURRENT: Final = 5
PEEPHOLES: Final = 9
BIASES: Final = 12
PROJECTION: Final = 16
PROJECTION_BIAS: Final = 17
STATES: Final = (18, 19)
NORMS: Final = 20
INPUTS: Final = 24
"""Places of the inputs of a unidirectional operator; the states are those of h and of c."""

_SIDE: Final = 17
"""Inputs of one direction of a bidirectional operator; then 4 states, an auxiliary input and its
8 weights."""


@dataclass(frozen=True)
class Read:
    """An operator's layer. sources: field → tensor; notes: what reading decided."""

    layer: Recurrent
    sources: dict[str, str]
    notes: tuple[str, ...]


def unidirectional(graph: Subgraph, operator: Operator) -> Read:
    """The layer of one operator. Raises UnsupportedError where it computes with integers, or
    FormatError where its tensors do not fit."""
    inputs = list(operator.inputs)
    if len(inputs) not in (20, INPUTS):
        raise FormatError(
            f"has {len(inputs)} inputs", where=operator.where, expected=f"20 or {INPUTS}"
        )
    inputs += [-1] * (INPUTS - len(inputs))
    if operator.options.get("DiagonalRecurrentTensors"):
        raise UnsupportedError(
            "sets diagonal_recurrent_tensors", where=operator.where, expected="whole matrices"
        )
    side = _Side(graph, operator, inputs, "forward")
    layer = Recurrent("lstm", side.cell(), stateful=True)
    return Read(layer, side.sources, tuple(side.notes))


def bidirectional(graph: Subgraph, operator: Operator) -> Read:
    """The layer of one operator, the directions concatenated; refusals as `unidirectional`."""
    inputs = list(operator.inputs)
    if len(inputs) != 48:
        raise FormatError(f"has {len(inputs)} inputs", where=operator.where, expected="48")
    if any(index >= 0 for index in inputs[39:]):
        raise UnsupportedError(
            "has an auxiliary input", where=operator.where, expected="one input for both directions"
        )
    if not operator.options.get("MergeOutputs"):
        raise UnsupportedError(
            "gives its directions apart (merge_outputs false)",
            where=operator.where,
            expected="merge_outputs true, the directions concatenated",
        )
    sides: dict[str, _Side] = {}
    for k, direction in enumerate(("forward", "backward")):
        start = 1 + k * _SIDE
        own = [inputs[0], *inputs[start : start + _SIDE], *inputs[35 + 2 * k : 37 + 2 * k]]
        sides[direction] = _Side(graph, operator, own + [-1] * 4, direction)
    forward, backward = (side.cell() for side in sides.values())
    sources = sides["forward"].sources | sides["backward"].sources
    notes = (*sides["forward"].notes, *sides["backward"].notes)
    return Read(Recurrent("lstm", forward, backward, stateful=True), sources, notes)


class _Side:
    """The tensors of one direction, at the places of a unidirectional operator."""

    def __init__(
        self, graph: Subgraph, operator: Operator, inputs: list[int], direction: str
    ) -> None:
        self.operator = operator
        self.results = [graph.tensors[k] for k in operator.outputs]
        self.direction = direction
        self.tensors: list[Tensor | None] = [graph.tensors[k] if k >= 0 else None for k in inputs]
        self.sources: dict[str, str] = {}
        self.notes: list[str] = []

    def cell(self) -> LSTMCell:
        """The cell. Raises errors that name the operator."""
        try:
            return self._cell()
        except IfgoError as error:
            raise error.located(self.operator.where) from None

    def _cell(self) -> LSTMCell:
        self._require_float()
        order = LAYOUT.order
        coupled = self.tensors[WEIGHTS + order.index("i")] is None
        weight = self._array(WEIGHTS + order.index("f"), ("H", "I"))
        recurrent = self._array(RECURRENT + order.index("f"), (weight.shape[0], "P"))
        units, inputs, outputs = *weight.shape, recurrent.shape[1]
        if units > limits.current().hidden_size or inputs > limits.current().input_size:
            raise FormatError(
                f"has {units} units of {inputs} features",
                **limits.at_most("hidden_size", "input_size", form="at most {} of {}"),
            )
        projected = self.tensors[PROJECTION] is not None
        if not projected and (outputs != units or self.tensors[PROJECTION_BIAS] is not None):
            raise FormatError(
                f"has {units} units, {outputs} outputs and no projection",
                expected="as many outputs as units, or projection weights",
            )
        self._require_states(outputs, units)
        clip_cell, clip_projection = (self._clip(name) for name in ("CellClip", "ProjClip"))
        if clip_projection is not None and not projected:
            self.notes.append(
                f"{self.operator.where}: left out proj_clip {clip_projection:g}, it has no "
                "projection"
            )
            clip_projection = None
        activation = self._activation()
        norms = self._gates("layer_norm.weight", NORMS, (units,), coupled, optional=True)
        return LSTMCell(
            self._stacked("weight_ih", WEIGHTS, (units, inputs), coupled),
            self._stacked("weight_hh", RECURRENT, (units, outputs), coupled),
            self._stacked("bias_ih", BIASES, (units,), coupled),
            weight_hr=self._named("weight_hr", PROJECTION, (outputs, units)),
            bias_hr=self._named("bias_hr", PROJECTION_BIAS, (outputs,)),
            peephole=self._peephole(units, coupled),
            activations=(SIGMOID, activation, activation),
            clip_cell=clip_cell,
            clip_projection=clip_projection,
            coupling="i=1-f" if coupled else None,
            layer_norm=None if norms is None else LayerNorm(np.stack(norms)),
        )

    def _require_float(self) -> None:
        x, weight = self.tensors[0], self.tensors[WEIGHTS + LAYOUT.order.index("f")]
        if x is not None and x.type != "FLOAT32":
            raise UnsupportedError(
                f"computes with integers: its input is {x.type}",
                expected="a float32 LSTM, ifgo has no integer arithmetic yet",
                hint="Convert the model without full integer quantisation",
            )
        if weight is not None and weight.type in ("INT8", "UINT8"):
            raise UnsupportedError(
                f"is a hybrid: {weight.type} weights on a float32 input, which it quantises while "
                "it runs",
                expected="a float32 LSTM, ifgo has no integer arithmetic yet",
                hint="Convert the model without dynamic range quantisation",
            )
        for place, part in zip(STATES, "hc", strict=True):
            state = self.tensors[place]
            if state is None or not state.variable or state.data is not None:
                raise UnsupportedError(
                    f"takes its state {part} from "
                    + ("nowhere" if state is None else f"tensor {quote(state.name)}"),
                    expected="a variable tensor of its own",
                )

        for result in self.results:
            if result.type != "FLOAT32":
                raise UnsupportedError(
                    f"gives {quote(result.name)} as {result.type}", expected="FLOAT32"
                )

    def _require_states(self, *sizes: int) -> None:
        """States of float32, `sizes` entries for each sequence of the batch."""
        x = self.tensors[0]
        axis = 1 if self.operator.options.get("TimeMajor") else 0
        batch = -1 if x is None or len(x.shape) <= axis else x.shape[axis]
        for place, part, size in zip(STATES, "hc", sizes, strict=True):
            state = self.tensors[place]
            assert state is not None
            count = math.prod(state.shape)
            fits = count == batch * size if batch > 0 else count > 0 and count % size == 0
            if state.type != "FLOAT32" or not fits:
                raise FormatError(
                    f"keeps its state {part} in {quote(state.name)}, {state.type} of shape "
                    f"{list(state.shape)}",
                    expected=f"FLOAT32, {size} entries for each sequence",
                )

    def _activation(self) -> Activation:
        number = self.operator.options.get("FusedActivationFunction", 0)
        found = ACTIVATIONS.get(number)
        if found is None:
            raise UnsupportedError(
                f"fused_activation_function is {ACTIVATION_NAMES.get(number, number)}",
                expected="TANH or RELU",
            )
        return found

    def _clip(self, name: str) -> float | None:
        value = float(self.operator.options.get(name, 0.0))
        if value < 0:
            words = {"CellClip": "cell_clip", "ProjClip": "proj_clip"}[name]
            raise FormatError(f"{words} is {value:g}", expected="a number above 0, or 0 for none")
        return value or None

    # -- tensors ----------------------------------------------------------------------------

    def _array(self, place: int, shape: tuple[int | str, ...]) -> NDArray[np.float32]:
        """The constant at `place`; letters: any size ≥ 1."""
        tensor = self.tensors[place]
        if tensor is None:
            raise FormatError(f"has no input {place}", expected="one")
        what = f"input {place} ({quote(tensor.name)})"
        if tensor.data is None:
            raise UnsupportedError(f"{what} is no constant", expected="constant weights")
        if tensor.type != "FLOAT32":
            raise UnsupportedError(f"{what} has type {tensor.type}", expected="FLOAT32")
        fits = tensor.data.ndim == len(shape) and all(
            have == want if isinstance(want, int) else have >= 1
            for have, want in zip(tensor.data.shape, shape, strict=True)
        )
        if not fits:
            wanted = "(" + ", ".join(map(str, shape)) + ")"
            raise FormatError(f"{what} has shape {tensor.data.shape}", expected=wanted)
        return tensor.data.astype(np.float32)

    def _gates(
        self, field: str, start: int, shape: tuple[int, ...], coupled: bool, *, optional: bool
    ) -> list[NDArray[np.float32]] | None:
        """Four blocks in canonical order; that of i is zero where it is coupled. None where
        `optional` and all are left out."""
        order = LAYOUT.order
        given = [self.tensors[start + k] is not None for k in range(4)]
        if optional and not any(given):
            return None
        if coupled and given[order.index("i")]:
            raise FormatError(
                f"has input {start + order.index('i')} for gate i, but no weights for it",
                expected="all of gate i, or nothing",
            )
        blocks: dict[str, NDArray[np.float32]] = {}
        for k, gate in enumerate(order):
            absent = coupled and gate == "i"
            blocks[gate] = np.zeros(shape, np.float32) if absent else self._array(start + k, shape)
        names = [tensor.name for k in range(4) if (tensor := self.tensors[start + k]) is not None]
        self.sources[f"{self.direction}.{field}"] = ", ".join(names)
        return [blocks[gate] for gate in gates.CANONICAL]

    def _stacked(
        self, field: str, start: int, shape: tuple[int, ...], coupled: bool
    ) -> NDArray[Any]:
        found = self._gates(field, start, shape, coupled, optional=False)
        assert found is not None
        return np.concatenate(found)

    def _named(self, field: str, place: int, shape: tuple[int, ...]) -> NDArray[Any] | None:
        tensor = self.tensors[place]
        if tensor is None:
            return None
        self.sources[f"{self.direction}.{field}"] = tensor.name
        return self._array(place, shape)

    def _peephole(self, units: int, coupled: bool) -> NDArray[Any] | None:
        given = [self.tensors[PEEPHOLES + k] is not None for k in range(3)]
        if not any(given):
            return None
        wanted = [not (coupled and gate == "i") for gate in LAYOUT.peephole]
        if given != wanted:
            raise FormatError(
                "has peepholes for some gates only", expected="one for each gate with weights"
            )
        rows: dict[str, NDArray[Any]] = {}
        names: list[str] = []
        for k, gate in enumerate(LAYOUT.peephole):
            tensor = self.tensors[PEEPHOLES + k]
            zero = np.zeros(units, np.float32)
            rows[gate] = zero if tensor is None else self._array(PEEPHOLES + k, (units,))
            names += [tensor.name] if tensor is not None else []
        self.sources[f"{self.direction}.peephole"] = ", ".join(names)
        return np.stack([rows[gate] for gate in "ifo"])
