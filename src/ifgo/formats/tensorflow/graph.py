"""The operators of a TensorFlow graph as nodes with the meaning of ONNX (see ifgo.formats._graph).

Loops are cut where a step begins: what a step is given has no maker. Module loops turns those
that compute an LSTM into nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import limits
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats._graph import GraphBuilder
from ifgo.formats.onnx.file import GraphInput, Node
from ifgo.formats.onnx.value import Length, Size
from ifgo.formats.tensorflow.file import TFNode, shape_of
from ifgo.text import quote

LOOP: Final = ("Enter", "Merge", "Switch", "NextIteration", "Exit", "LoopCond", "LoopState")
ARRAYS: Final = (
    "TensorArrayV3",
    "TensorArrayScatterV3",
    "TensorArrayReadV3",
    "TensorArrayWriteV3",
    "TensorArrayGatherV3",
    "TensorListReserve",
    "TensorListFromTensor",
    "TensorListGetItem",
    "TensorListSetItem",
    "TensorListStack",
)
SAME: Final = ("Identity", "Enter", "ReadVariableOp", "StopGradient")
"""Operators that hand on what they are given; those of a variable hand on its numbers."""

_SAME: Final = {
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "Relu": "Relu",
    "Elu": "Elu",
    "Softplus": "Softplus",
    "Softsign": "Softsign",
    "Identity": "Identity",
    "StopGradient": "Identity",
    "ReadVariableOp": "Identity",
    "PreventGradient": "Identity",
    "Add": "Add",
    "AddV2": "Add",
    "BiasAdd": "Add",
    "Sub": "Sub",
    "RealDiv": "Div",
    "Mul": "Mul",
    "Minimum": "Min",
    "Maximum": "Max",
    "Reshape": "Reshape",
    "Shape": "Shape",
    "Range": "Range",
    "Less": "Less",
    "GreaterEqual": "GreaterOrEqual",
    "LogicalAnd": "And",
    "Select": "Where",
    "SelectV2": "Where",
}
"""Operators whose inputs and meaning are those of an ONNX operator."""

_TAKES: Final = {
    **dict.fromkeys(("Add", "AddV2", "BiasAdd", "Sub", "RealDiv", "Mul", "Minimum", "Maximum"), 2),
    **dict.fromkeys(("Reshape", "Less", "MatMul", "BatchMatMulV2", "Fill"), 2),
    **dict.fromkeys(("GreaterEqual", "LogicalAnd", "ReverseV2"), 2),
    **dict.fromkeys(("Range", "ClipByValue", "Select", "SelectV2"), 3),
}
"""Operator → its number of inputs; one where nothing stands here and the operator is above."""


class Translation:
    """All nodes, in any order; `sorted` puts them in that of their computation."""

    def __init__(self, nodes: dict[str, TFNode]) -> None:
        self.nodes = nodes
        self.out = GraphBuilder()
        self.inputs: dict[str, GraphInput] = {}
        self._repeated = 0
        # constants first: operators ask for their numbers
        for node in sorted(nodes.values(), key=lambda node: node.op != "Const"):
            done = len(self.out.nodes)
            try:
                self._translate(node)
            except IfgoError as error:
                named = error.where is not None and node.where in error.where
                del self.out.nodes[done:]
                self.out.refuse(
                    "refused",  # so that nobody takes its inputs for those of its operator
                    node.inputs,
                    (node.name,),
                    error if named else error.located(node.where),
                    node.name,
                    node.op,
                )

    def _translate(self, node: TFNode) -> None:
        takes = _TAKES.get(node.op, 1 if node.op in _SAME else len(node.inputs))
        if len(node.inputs) != takes:
            raise FormatError(f"has {len(node.inputs)} inputs", expected=str(takes))
        if node.op == "Const":
            self.out.arrays[node.name] = self._constant(node)
        elif node.op == "Placeholder":
            dtype = node.dtype("dtype")
            stored = node.attributes.get("shape")
            sizes = None if stored is None else shape_of(stored.shape)
            self.inputs[node.name] = entry(node.name, sizes, dtype)
        elif node.op == "Enter" and node.flag("is_constant"):
            self.add(node, "Identity", node.inputs)
        elif node.op in LOOP or node.op in ARRAYS:
            return
        elif node.op == "BiasAdd" and _text(node, "data_format", "NHWC") != "NHWC":
            raise UnsupportedError("adds a bias along another axis", expected="data_format NHWC")
        elif node.op == "Reshape":
            self.add(node, "Reshape", node.inputs, allowzero=1)
        elif node.op in _SAME:
            self.add(node, _SAME[node.op], node.inputs)
        elif node.op in _HANDLERS:
            _HANDLERS[node.op](self, node)
        else:
            self.add(node, node.op, node.inputs)

    def _constant(self, node: TFNode) -> NDArray[Any]:
        found = node.constant()
        stored = node.attributes.get("value")
        if stored is not None and found.nbytes > 16 * stored.tensor.ByteSize() + 64:
            self._repeated += found.nbytes
            if self._repeated > limits.current().folded_bytes:
                raise FormatError(
                    "repeats one value more often than the file could need",
                    **limits.at_most("folded_bytes", form="at most {} bytes"),
                )
        return found

    def add(
        self, node: TFNode, op: str, inputs: tuple[str, ...], outputs: Any = None, **more: Any
    ) -> str:
        """One ONNX node of `node`; its output is that of the node where none is given."""
        target = node.name if outputs is None else outputs
        return self.out.add(op, inputs, target, name=node.name, kind=node.op, **more)

    def input(self, node: TFNode, position: int) -> str:
        """The name of a required input."""
        if position >= len(node.inputs):
            raise FormatError(f"has no input {position}", expected="one")
        return node.inputs[position]

    def known(self, name: str) -> NDArray[Any] | None:
        """The constant called `name`, through nodes that change nothing."""
        for _ in range(64):
            node = self.nodes.get(name)
            if node is None or not node.inputs or node.op not in SAME:
                break
            name = node.inputs[0]
        return self.out.arrays.get(name) if name in self.nodes else None

    def integers(self, node: TFNode, position: int) -> list[int]:
        """A constant vector of integers."""
        name = self.input(node, position)
        found = self.known(name)
        if found is None or found.dtype.kind not in "iu" or found.size > 64:
            raise UnsupportedError(
                f"takes {quote(name)}, which is no constant vector of integers",
                expected="places known in the file",
            )
        return [int(n) for n in found.reshape(-1)]

    def integer(self, node: TFNode, position: int) -> int:
        """A constant integer."""
        found = self.integers(node, position)
        if len(found) != 1:
            raise FormatError(f"takes {len(found)} numbers as input {position}", expected="one")
        return found[0]


def entry(name: str, sizes: tuple[int, ...] | None, dtype: np.dtype[Any] | None) -> GraphInput:
    """A graph input; sizes: -1 where one is open."""
    shape: tuple[Size, ...] | None = None
    if sizes is not None:
        shape = tuple(Length.named(f"{name}.{k}") if n < 1 else n for k, n in enumerate(sizes))
    return GraphInput(name, np.dtype(np.bool_) if dtype is None else dtype, shape)


def sort(nodes: list[Node]) -> list[Node]:
    """The nodes in the order of their computation. Raises FormatError where there is a cycle."""
    makers = {name: node for node in nodes for name in node.outputs if name}
    waiting = {
        node.position: {makers[n].position for n in node.inputs if n in makers} for node in nodes
    }
    users: dict[int, list[int]] = {}
    for position, needs in waiting.items():
        for need in needs:
            users.setdefault(need, []).append(position)
    ready = [position for position, needs in waiting.items() if not needs]
    by_position, found = {node.position: node for node in nodes}, list[Node]()
    while ready:
        position = ready.pop()
        found.append(by_position[position])
        for user in users.get(position, ()):
            waiting[user].discard(position)
            if not waiting[user]:
                ready.append(user)
    if len(found) != len(nodes):
        stuck = next(n for n in nodes if waiting[n.position])
        raise FormatError(
            "depends on itself", where=stuck.where, expected="a graph whose loops are while loops"
        )
    return found


def _text(node: TFNode, name: str, default: str) -> str:
    found = node.attributes.get(name)
    return default if found is None else found.s.decode("ascii", "replace")


Handler = Callable[[Translation, TFNode], None]


def _matmul(t: Translation, node: TFNode) -> None:
    flags = [node.flag(name) for name in ("transpose_a", "transpose_b", "adj_x", "adj_y")]
    if flags[0] or flags[2]:
        raise UnsupportedError("multiplies a transposed signal", expected="features · weight")
    x, weight = t.input(node, 0), t.input(node, 1)
    if flags[1] or flags[3]:
        weight = t.add(node, "Transpose", (weight,), "", perm=[1, 0])
    t.add(node, "MatMul", (x, weight))


def _transpose(t: Translation, node: TFNode) -> None:
    """The permutation is folded: exporters compute it from a range."""
    found = t.known(t.input(node, 1))
    order = None if found is None else [int(n) for n in found.reshape(-1)[:8]]
    if order is None:
        order = _folded(t, t.input(node, 1))
    t.add(node, "Transpose", (t.input(node, 0),), perm=order)


def _folded(t: Translation, name: str) -> list[int]:
    """A permutation as [1, 0] + range(2, rank), which time-major layers compute."""
    node = t.nodes.get(name)
    if node is not None and node.op == "ConcatV2" and len(node.inputs) == 3:
        first, rest = t.known(node.inputs[0]), t.nodes.get(node.inputs[1])
        if first is not None and rest is not None and rest.op == "Range":
            bounds = [t.known(part) for part in rest.inputs]
            ends = [int(b.reshape(-1)[0]) for b in bounds if b is not None and b.size == 1]
            if len(ends) == 3 and ends[2] == 1 and 0 <= ends[1] - ends[0] <= 8:
                return [int(n) for n in first.reshape(-1)[:8]] + list(range(ends[0], ends[1]))
    raise UnsupportedError("has no constant permutation", expected="one known in the file")


def _concat(t: Translation, node: TFNode) -> None:
    count = len(node.inputs) - 1
    t.add(node, "Concat", node.inputs[:count], axis=t.integer(node, count))


def _split(t: Translation, node: TFNode) -> None:
    count = node.integer("num_split", 1)
    if not 1 <= count <= 1024:
        raise FormatError(f"splits into {count} parts", expected="1 to 1024")
    names = tuple(node.name if k == 0 else f"{node.name}:{k}" for k in range(count))
    axis = t.integer(node, 0)
    t.add(node, "Split", (t.input(node, 1),), names, axis=axis, num_outputs=count)


def _squeeze(t: Translation, node: TFNode) -> None:
    axes = node.integers("squeeze_dims")
    extra = (t.out.integers(*axes),) if axes else ()
    t.add(node, "Squeeze", (t.input(node, 0), *extra))


def _expand_dims(t: Translation, node: TFNode) -> None:
    t.add(node, "Unsqueeze", (t.input(node, 0), t.out.integers(t.integer(node, 1))))


def _strided_slice(t: Translation, node: TFNode) -> None:
    if node.integer("ellipsis_mask") or node.integer("new_axis_mask"):
        raise UnsupportedError(
            "sets ellipsis_mask or new_axis_mask", expected="begins, ends and strides"
        )
    begin, end, step = (t.integers(node, k) for k in (1, 2, 3))
    if not len(begin) == len(end) == len(step):
        raise FormatError("has begins, ends and strides of different lengths")
    masks = [node.integer(name) for name in ("begin_mask", "end_mask", "shrink_axis_mask")]
    value = t.input(node, 0)
    for axis in reversed(range(len(begin))):
        opens, closes, shrinks = (mask >> axis & 1 for mask in masks)
        if shrinks:
            place = t.out.constant(np.int64(0 if opens else begin[axis]))
            value = t.add(node, "Gather", (value, place), "", axis=axis)
            continue
        back = step[axis] < 0
        first = (2**31 - 1 if back else 0) if opens else begin[axis]
        last = (-(2**31) if back else 2**31 - 1) if closes else end[axis]
        places = (t.out.integers(n) for n in (first, last, axis, step[axis]))
        value = t.add(node, "Slice", (value, *places), "")
    t.add(node, "Identity", (value,))


def _gather(t: Translation, node: TFNode) -> None:
    axis = t.integer(node, 2) if node.op == "GatherV2" else 0
    if node.integer("batch_dims"):
        raise UnsupportedError("gathers with batch_dims", expected="batch_dims 0")
    t.add(node, "Gather", (t.input(node, 0), t.input(node, 1)), axis=axis)


def _pack(t: Translation, node: TFNode) -> None:
    axis = node.integer("axis")
    place = t.out.integers(axis)
    parts = [t.add(node, "Unsqueeze", (part, place), "") for part in node.inputs]
    t.add(node, "Concat", tuple(parts), axis=axis)


def _unpack(t: Translation, node: TFNode) -> None:
    for k in range(min(node.integer("num"), 1024)):
        place = t.out.constant(np.int64(k))
        target = node.name if k == 0 else f"{node.name}:{k}"
        t.add(node, "Gather", (t.input(node, 0), place), target, axis=node.integer("axis"))


def _softmax(t: Translation, node: TFNode) -> None:
    t.add(node, "Softmax", (t.input(node, 0),), axis=-1)


def _leaky_relu(t: Translation, node: TFNode) -> None:
    found = node.attributes.get("alpha")
    alpha = float(found.f) if found is not None else float(np.float32(0.2))
    t.add(node, "LeakyRelu", (t.input(node, 0),), alpha=alpha)


def _fill(t: Translation, node: TFNode) -> None:
    t.add(node, "Expand", (t.input(node, 1), t.input(node, 0)))


def _clip(t: Translation, node: TFNode) -> None:
    low = t.add(node, "Min", (t.input(node, 0), t.input(node, 2)), "")
    t.add(node, "Max", (low, t.input(node, 1)))


def _reverse(t: Translation, node: TFNode) -> None:
    value = t.input(node, 0)
    for axis in t.integers(node, 1):
        places = (t.out.integers(n) for n in (-1, -(2**31), axis, -1))
        value = t.add(node, "Slice", (value, *places), "")
    t.add(node, "Identity", (value,))


def _cast(t: Translation, node: TFNode) -> None:
    """Between integers and to the same type it changes nothing that a model has."""
    source, target = node.dtype("SrcT"), node.dtype("DstT")
    same = (
        source is not None
        and target is not None
        and (source == target or source.kind == target.kind == "i")
    )
    if not same:
        raise UnsupportedError(
            f"casts {source} to {target}", expected="one type in the whole graph"
        )
    t.add(node, "Identity", (t.input(node, 0),))


_HANDLERS: Final[dict[str, Handler]] = {
    "MatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "Transpose": _transpose,
    "ConcatV2": _concat,
    "Split": _split,
    "Squeeze": _squeeze,
    "ExpandDims": _expand_dims,
    "StridedSlice": _strided_slice,
    "GatherV2": _gather,
    "Gather": _gather,
    "Pack": _pack,
    "Unpack": _unpack,
    "Softmax": _softmax,
    "LeakyRelu": _leaky_relu,
    "Fill": _fill,
    "ClipByValue": _clip,
    "ReverseV2": _reverse,
    "ResourceGather": _gather,
    "Cast": _cast,
}
"""Operator → its nodes."""
