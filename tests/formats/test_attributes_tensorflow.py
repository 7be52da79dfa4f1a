"""A frozen graph, one attribute or input of one NodeDef at a time, against the operators' meaning.

The oracle runs the changed graph node by node with NumPy, loops and tensor arrays included.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attributes import Attributes, Change
from double import double_bound
from tensorflow_cases import Def, draw_cell, dynamic_rnn

from ifgo import formats
from ifgo.formats.tensorflow.file import message
from ifgo.model import Model

TYPES = {1: np.float32, 3: np.int32}

BOOKKEEPING = ("Enter", "Merge", "Switch", "Shape", "StridedSlice", "Fill", "Const", "Placeholder",
               "ConcatV2", "TensorArrayV3", "TensorArrayScatterV3", "TensorArrayReadV3",
               "TensorArrayWriteV3", "TensorArrayGatherV3")  # fmt: skip
"""Operators that say how the loop runs and how long it is. TensorFlow refuses some of what becomes
of them that ifgo need not look at, for the loop is read as one over the whole sequence."""

OVERLOOKED = {
    f"{op}.{part}": "how the loop runs"
    for op in BOOKKEEPING
    for part in ("op", "input", "value", "N", "shape", "frame_name", "is_constant", "data_format",
                 "transpose_a", "unheard_of", "shrink_axis_mask")
}  # fmt: skip

PLAIN: dict[str, Any] = {
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "MatMul": np.matmul,
    "BiasAdd": np.add, "Minimum": np.minimum, "Maximum": np.maximum, "Tanh": np.tanh,
    "Sigmoid": lambda z: 1 / (1 + np.exp(-z)), "Softplus": lambda z: np.log1p(np.exp(z)),
    "Identity": lambda z: z, "LoopCond": lambda z: z, "Less": np.less,
    "Transpose": lambda x, order: x.transpose([int(k) for k in order]),
    "Shape": lambda x: np.array(x.shape),
    "Range": lambda a, b, d: np.arange(int(a), int(b), int(d)),
    "Fill": lambda shape, value: np.full([int(n) for n in shape], value),
    "Enter": lambda z: z, "NextIteration": lambda z: z,
}  # fmt: skip
"""Operator → what it computes of its inputs."""


class Graph:
    """What the nodes of a file compute of one input."""

    def __init__(self, data: bytes, x: Any) -> None:
        self.nodes = {node.name: node for node in message("Graph").FromString(data).node}
        self.x = x
        self.known: dict[tuple[str, int], Any] = {}
        frames = {_attributes(n).get("frame_name") for n in self.nodes.values() if n.op == b"Enter"}
        assert len(frames) == 1, "one loop"

    def value(self, ref: bytes, step: int = 0) -> Any:
        """What `ref` names in one step of the loop."""
        name, _, which = ref.partition(b":")
        node = self.nodes[name]
        key = ref.decode(), step
        if key not in self.known:
            self.known[key] = self._compute(node, int(which or b"0"), step)
        return self.known[key]

    def _compute(self, node: Any, which: int, step: int) -> Any:
        op, said, inputs = node.op.decode(), _attributes(node), list(node.input)
        if op == "Merge":
            enter, again = inputs
            assert self.nodes[enter].op == b"Enter"
            assert self.nodes[again].op == b"NextIteration"
            return self.value(again, step - 1) if step else self.value(enter)
        if op == "Exit":
            (switch,) = (self.nodes[name] for name in inputs)
            assert switch.op == b"Switch"
            last = 0
            while self.value(switch.input[1], last):
                last += 1
                assert last < 100
            return self.value(switch.input[0], last)
        if op == "Enter":
            return self.value(*inputs)
        given = [self.value(name, step) for name in inputs]
        if op in PLAIN:
            assert which == 0
            return PLAIN[op](*given)
        match op:
            case "Placeholder":
                assert said["dtype"] == 1
                return self.x
            case "Const":
                return said["value"]
            case "Switch":
                return given[0]
            case "ConcatV2":
                assert said["N"] == len(given) - 1
                return np.concatenate(given[:-1], int(given[-1]))
            case "Split":
                assert which < said["num_split"]
                return np.split(given[1], said["num_split"], int(given[0]))[which]
            case "StridedSlice":
                found = given[0][int(given[1][0]) : int(given[2][0]) : int(given[3][0])]
                assert set(said) <= {"shrink_axis_mask"}
                return found[0] if said.get("shrink_axis_mask") == 1 else found
            case "TensorArrayV3":
                return ({}, node.name)[1 - which]
            case "TensorArrayScatterV3":
                return {int(k): row for k, row in zip(given[1], given[2], strict=True)}
            case "TensorArrayReadV3":
                return given[2][int(given[1])]
            case "TensorArrayWriteV3":
                return given[3] | {int(given[1]): given[2]}
            case "TensorArrayGatherV3":
                return np.stack([given[2][int(k)] for k in given[1]])
            case _:
                raise AssertionError(op)


def _attributes(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in node.attr:
        fields = entry.value.ListFields()
        value = fields[0][1] if fields else None
        if fields and fields[0][0].name == "tensor":
            value = _array(fields[0][1])
        found[entry.key.decode()] = value
    return found


def _array(tensor: Any) -> Any:
    """In the widest type of its kind. Without content TensorFlow has zeros."""
    shape, kind = [dim.size for dim in tensor.shape.dim], TYPES[tensor.dtype]
    wide = np.float64 if kind is np.float32 else np.int64
    if not tensor.content:
        return np.zeros(shape, wide)
    return np.frombuffer(tensor.content, kind).reshape(shape).astype(wide)


def edits(graph: Any, rng: random.Random) -> Iterator[tuple[str, str, Any]]:
    """(operator and part, value, changed graph) for each part of each node."""

    def changed() -> Any:
        made = message("Graph")()
        made.CopyFrom(graph)
        return made

    every = [node.name for node in graph.node]
    for k, node in enumerate(graph.node):
        op = node.op.decode()
        for other in ("Softplus", "Sub", "Identity", "Mul", "Maximum", "Nothing"):
            if other != op:
                made = changed()
                made.node[k].op = other.encode()
                yield f"{op}.op", other, made
        for place, had in enumerate(node.input):
            name, _, which = had.partition(b":")
            others = [*rng.sample(every, 4), name + b":1", b"^" + name, b"", name + b"x"]
            if which:
                others += [name, name + b":2", name + b":9"]
            for other in others:
                if other != had and other + b":0" != had:
                    made = changed()
                    made.node[k].input[place] = other
                    yield f"{op}.input", f"{place} of {node.name}: {other}", made
        if len(node.input) > 1:
            made = changed()
            made.node[k].input[:] = node.input[::-1]
            yield f"{op}.input", f"reversed of {node.name}", made
        if node.input:
            made = changed()
            made.node[k].input.pop()
            yield f"{op}.input", f"all but the last of {node.name}", made
        for j, entry in enumerate(node.attr):
            key = entry.key.decode()
            made = changed()
            del made.node[k].attr[j]
            yield f"{op}.{key}", "absent", made
            for field, value in entry.value.ListFields():
                for shown, other in _others(field.name, value):
                    made = changed()
                    target = made.node[k].attr[j].value
                    if hasattr(other, "CopyFrom"):
                        getattr(target, field.name).CopyFrom(other)
                    else:
                        setattr(target, field.name, other)
                    yield f"{op}.{key}", f"{shown} of {node.name}", made
        for key, number in (("transpose_a", 1), ("data_format", b"NCHW"), ("unheard_of", 1)):
            made = changed()
            entry = made.node[k].attr.add(key=key.encode())
            if key == "data_format":
                entry.value.s = number
            else:
                entry.value.b = bool(number)
            yield f"{op}.{key}", "added", made


def _others(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    match name:
        case "b":
            yield str(not value), not value
        case "i" | "type":
            for other in (0, 1, 2, 3, 5, value + 1):
                if other != value:
                    yield str(other), other
        case "s":
            yield "x", b"x"
        case "tensor":
            made = type(value)()
            made.CopyFrom(value)
            data = np.frombuffer(value.content, TYPES[value.dtype]).copy()
            data.reshape(-1)[-1] += 1
            made.content = data.tobytes()
            yield "moved", made
            for content in (value.content[:-4], value.content * 2, b""):
                made = type(value)()
                made.CopyFrom(value)
                made.content = content
                yield f"{len(content)} bytes", made
            for dtype in (1, 2, 3, 9):
                if dtype != value.dtype:
                    made = type(value)()
                    made.CopyFrom(value)
                    made.dtype = dtype
                    yield f"dtype {dtype}", made
        case _:
            yield "empty", type(value)()


def judged(folder: Path, share: float, **cell: Any) -> Attributes:
    """The verdicts over a seeded share of all edits of a loop over one cell."""
    d, path = Def(), folder / "a.pb"
    x = d.node("x", "Placeholder", dtype=1, shape=(-1, -1, 3))
    order = d.constant("order", [1, 0, 2])
    turned = d.node("turned", "Transpose", x, order)
    outputs, _ = dynamic_rnn(d, [draw_cell(1, **cell)], turned)
    d.node("y", "Transpose", outputs, order)
    d.save(path)
    seen: list[Model] = []

    def read(path: Path) -> Model:
        seen[:] = [formats.load(path, end="y")]
        return seen[0]

    def steps(model: Model) -> Any:
        return np.random.default_rng(5).uniform(-1, 1, (6, model.input_size)).astype("f")

    def oracle(x: Any) -> Any:
        batch = x[:, None] if seen[0].input.axes == "TB" else x[None]
        return np.squeeze(Graph(path.read_bytes(), batch.astype(float)).value(b"y"))

    found = Attributes(read, path, {}, steps, double_bound, OVERLOOKED)
    rng = random.Random(str(cell))
    for name, value, made in edits(d.graph, rng):
        if rng.random() < share:
            path.write_bytes(made.SerializeToString())
            found.judge(Change(name, value, path, oracle))
    return found


GRAPHS: dict[str, dict[str, Any]] = {
    "plain": {},
    "projected": {"outputs": 2, "peephole": True, "clip": 0.25, "proj_clip": 0.125},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_some_nodes(tmp_path: Path, name: str) -> None:
    judged(tmp_path, 0.2, **GRAPHS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_every_node(tmp_path: Path, name: str) -> None:
    found = judged(tmp_path, 1.0, **GRAPHS[name])
    found.finish({"Const.value", "MatMul.input", "Split.num_split", "Sigmoid.op", "Tanh.op"})
