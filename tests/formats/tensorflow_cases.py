"""GraphDefs by hand, node by node as tf.nn.dynamic_rnn writes them, and what they compute.

Kernels hold the gates in TensorFlow's order i, j, f, o; the forget bias is a sum in the graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ifgo.formats.tensorflow.file import message

DTYPES = {"float32": 1, "int32": 3}


class Def:
    """A GraphDef under construction."""

    def __init__(self) -> None:
        self.graph = message("Graph")()

    def node(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        """One node. Attributes: bytes, bool, int, float, a tuple (shape) or an array (tensor)."""
        made = self.graph.node.add(name=name.encode(), op=op.encode())
        made.input.extend(i.encode() for i in inputs)
        for key, value in attributes.items():
            entry = made.attr.add(key=key.encode())
            if isinstance(value, np.ndarray):
                tensor = entry.value.tensor
                tensor.dtype = DTYPES[value.dtype.name]
                for size in value.shape:
                    tensor.shape.dim.add(size=size)
                tensor.content = value.tobytes()
            elif isinstance(value, tuple):
                entry.value.shape.SetInParent()
                for size in value:
                    entry.value.shape.dim.add(size=size)
            elif isinstance(value, bool):
                entry.value.b = value
            elif isinstance(value, bytes):
                entry.value.s = value
            elif isinstance(value, int):
                setattr(entry.value, "type" if key == "dtype" else "i", value)
        return name

    def constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        dtype = np.int32 if array.dtype.kind == "i" else np.float32
        return self.node(name, "Const", value=array.astype(dtype))

    def save(self, path: Path) -> Path:
        path.write_bytes(self.graph.SerializeToString())
        return path


Cell = dict[str, Any]


def draw_cell(
    seed: int,
    inputs: int = 3,
    hidden: int = 4,
    *,
    outputs: int = 0,
    peephole: bool = False,
    clip: float = 0.0,
    proj_clip: float = 0.0,
    forget_bias: float = 1.0,
) -> Cell:
    """An LSTMCell's variables."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return rng.uniform(-0.6, 0.6, shape).astype("f")

    cell: Cell = {
        "kernel": draw(inputs + (outputs or hidden), 4 * hidden),
        "bias": draw(4 * hidden),
        "forget_bias": forget_bias,
        "clip": clip,
        "proj_clip": proj_clip,
        "hidden": hidden,
    }
    if peephole:
        cell |= {f"w_{gate}_diag": draw(hidden) for gate in "ifo"}
    if outputs:
        cell["projection"] = draw(hidden, outputs)
    return cell


def add_cell(
    d: Def, prefix: str, cell: Cell, x: str, h: str, c: str, one_matrix: bool = True
) -> Any:
    """The nodes of one step; (next h, next c)."""
    axis = d.constant(f"{prefix}/axis", 1)
    hidden, kernel = cell["hidden"], cell["kernel"]
    bias = d.constant(f"{prefix}/bias", cell["bias"])
    if one_matrix:
        both = d.node(f"{prefix}/concat", "ConcatV2", x, h, axis, N=2)
        weight = d.constant(f"{prefix}/kernel", kernel)
        read = d.node(f"{prefix}/kernel/read", "Identity", weight)
        product = d.node(f"{prefix}/MatMul", "MatMul", both, read)
    else:
        width = kernel.shape[0] - (cell["projection"].shape[1] if "projection" in cell else hidden)
        parts = []
        for k, (source, rows) in enumerate(((x, kernel[:width]), (h, kernel[width:]))):
            weight = d.constant(f"{prefix}/kernel{k}", rows)
            parts.append(d.node(f"{prefix}/MatMul{k}", "MatMul", source, weight))
        product = d.node(f"{prefix}/sum", "AddV2", *parts)
    total = d.node(f"{prefix}/BiasAdd", "BiasAdd", product, bias)
    split = d.node(f"{prefix}/split", "Split", axis, total, num_split=4)
    i, j, f, o = split, f"{split}:1", f"{split}:2", f"{split}:3"
    if cell["forget_bias"]:
        f = d.node(f"{prefix}/add", "Add", f, d.constant(f"{prefix}/y", cell["forget_bias"]))

    def peeped(gate: str, z: str, state: str) -> str:
        if f"w_{gate}_diag" not in cell:
            return z
        weight = d.constant(f"{prefix}/w_{gate}_diag", cell[f"w_{gate}_diag"])
        product = d.node(f"{prefix}/mul_{gate}", "Mul", weight, state)
        return d.node(f"{prefix}/peep_{gate}", "Add", z, product)

    def clipped(name: str, value: str, bound: float) -> str:
        if not bound:
            return value
        top, low = (d.constant(f"{prefix}/{name}{k}", b) for k, b in enumerate((bound, -bound)))
        under = d.node(f"{prefix}/{name}/Minimum", "Minimum", value, top)
        return d.node(f"{prefix}/{name}", "Maximum", under, low)

    kept = d.node(f"{prefix}/f", "Sigmoid", peeped("f", f, c))
    entering = d.node(f"{prefix}/i", "Sigmoid", peeped("i", i, c))
    candidate = d.node(f"{prefix}/j", "Tanh", j)
    left = d.node(f"{prefix}/mul", "Mul", kept, c)
    right = d.node(f"{prefix}/mul_1", "Mul", entering, candidate)
    state = clipped("clip", d.node(f"{prefix}/add_1", "Add", left, right), cell["clip"])
    gate = d.node(f"{prefix}/o", "Sigmoid", peeped("o", o, state))
    shown = d.node(f"{prefix}/Tanh_1", "Tanh", state)
    out = d.node(f"{prefix}/mul_2", "Mul", gate, shown)
    if "projection" in cell:
        weight = d.constant(f"{prefix}/projection/kernel", cell["projection"])
        out = d.node(f"{prefix}/projected", "MatMul", out, weight)
        out = clipped("proj_clip", out, cell["proj_clip"])
    return out, state


def dynamic_rnn(d: Def, cells: list[Cell], x: str, *, one_matrix: bool = True, **odd: Any) -> Any:
    """A loop over x (T, B, I); (all outputs (T, B, P), last h). odd: what is not as usual."""
    frame = {"frame_name": b"rnn/while"}
    shape = d.node("rnn/Shape", "Shape", x)
    zero, one = d.constant("rnn/zero", [0]), d.constant("rnn/one", [1])
    steps = d.node("rnn/steps", "StridedSlice", shape, zero, one, one, shrink_axis_mask=1)
    limit = d.constant("rnn/limit", odd["limit"]) if "limit" in odd else steps
    reading = d.node("rnn/in", "TensorArrayV3", steps)
    writing = d.node("rnn/out", "TensorArrayV3", steps)
    start, step = d.constant("rnn/start", odd.get("start", 0)), d.constant("rnn/step", 1)
    count = d.node("rnn/range", "Range", d.constant("rnn/first", 0), steps, step)
    flow = d.node("rnn/scatter", "TensorArrayScatterV3", reading, count, x, f"{reading}:1")
    states = {"time": start, "flow": f"{writing}:1"}
    for k, cell in enumerate(cells):
        outputs = cell["projection"].shape[1] if "projection" in cell else cell["hidden"]
        for part, size in (("h", outputs), ("c", cell["hidden"])):
            shaped = d.constant(f"rnn/{part}{k}/shape", [1, size])
            value = d.constant(f"rnn/{part}{k}/zero", odd.get("state", 0.0))
            states[f"{part}{k}"] = d.node(f"rnn/{part}{k}/zeros", "Fill", shaped, value)
    given: dict[str, str] = {}
    merges: dict[str, str] = {}
    for name, first in states.items():
        enter = d.node(f"w/{name}/Enter", "Enter", first, **frame)
        merges[name] = d.node(f"w/{name}/Merge", "Merge", enter, f"w/{name}/Next")
        switch = d.node(f"w/{name}/Switch", "Switch", merges[name], "w/LoopCond")
        given[name] = d.node(f"w/{name}/Identity", "Identity", f"{switch}:1")
        d.node(f"w/{name}/Exit", "Exit", switch)

    def kept(name: str, value: str) -> str:
        return d.node(f"w/{name}", "Enter", value, is_constant=True, **frame)

    less = d.node("w/Less", "Less", merges["time"], kept("steps", limit))
    d.node("w/LoopCond", "LoopCond", less)
    handles = [kept("in", reading), kept("inflow", flow), kept("out", writing)]
    value = d.node("w/read", "TensorArrayReadV3", handles[0], given["time"], handles[1])
    made = {"time": d.node("w/add", "Add", given["time"], d.constant("w/one", 1))}
    for k, cell in enumerate(cells):
        h, c = given[f"h{k}"], given[f"c{k}"]
        value, state = add_cell(d, f"w/cell{k}", cell, value, h, c, one_matrix)
        made |= {f"h{k}": value, f"c{k}": state}
    made["flow"] = d.node(
        "w/write", "TensorArrayWriteV3", handles[2], given["time"], value, given["flow"]
    )
    for name, result in made.items():
        d.node(f"w/{name}/Next", "NextIteration", result)
    gathered = d.node("rnn/gather", "TensorArrayGatherV3", writing, count, "w/flow/Exit")
    return gathered, f"w/h{len(cells) - 1}/Exit"


def forward(cells: list[Cell], x: Any) -> Any:
    """float64, x (T, I) → (T, P)."""

    def sigmoid(z: Any) -> Any:
        return 1 / (1 + np.exp(-z))

    rows = np.asarray(x, float)
    for cell in cells:
        wide = {k: np.asarray(v, float) for k, v in cell.items()}
        outputs = wide["projection"].shape[1] if "projection" in wide else cell["hidden"]
        h, c, found = np.zeros(outputs), np.zeros(cell["hidden"]), []
        for row in rows:
            total = np.concatenate([row, h]) @ wide["kernel"] + wide["bias"]
            i, j, f, o = np.split(total, 4)
            i = sigmoid(i + wide.get("w_i_diag", 0.0) * c)
            f = sigmoid(f + cell["forget_bias"] + wide.get("w_f_diag", 0.0) * c)
            c = f * c + i * np.tanh(j)
            c = np.clip(c, -cell["clip"], cell["clip"]) if cell["clip"] else c
            h = sigmoid(o + wide.get("w_o_diag", 0.0) * c) * np.tanh(c)
            if "projection" in wide:
                h = h @ wide["projection"]
                bound = cell["proj_clip"]
                h = np.clip(h, -bound, bound) if bound else h
            found.append(h)
        rows = np.stack(found)
    return rows
