"""Running an ONNX file in ONNX Runtime so that every LSTM node shows what it was fed and put out.

The model's own file where it came from one, else the file that ifgo writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from ifgo import formats
from ifgo.errors import ToolError, UnsupportedError
from ifgo.model import LengthsInput, Model, StateInput
from ifgo.states import State
from ifgo.text import escape
from ifgo.verification.foreign import Whole

Arrays = Mapping[str, NDArray[Any]]

WEIGHTS: Final = {"W": 1, "R": 2, "B": 3, "P": 7}
"""Inputs of an LSTM node that are weights."""


def session(graph: Path | onnx.ModelProto) -> Any:
    """A single-threaded inference session. Raises ToolError where the runtime is missing,
    UnsupportedError where it refuses the graph."""
    try:
        onnxruntime: Any = import_module("onnxruntime")
    except ImportError:
        raise ToolError(
            "onnxruntime is not installed", hint="Install it: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UnsupportedError(f"ONNX Runtime refuses the graph: {error}") from None


@dataclass(frozen=True)
class Node:
    """One LSTM node: its proto, its weights by ONNX name, and what it made of the sequence."""

    proto: NodeProto
    weights: Arrays
    whole: Whole

    @property
    def name(self) -> str:
        """The node's name, or that of its first output."""
        return self.proto.name or next((name for name in self.proto.output if name), "LSTM")


@dataclass(frozen=True)
class Ran:
    """A file and what ONNX Runtime made of it; nodes in order.

    y: (B, T, ·) or (B, ·), None where there is none to compare, and `without` says why.
    """

    y: NDArray[Any] | None
    nodes: list[Node]
    opset: int
    ir_version: int
    without: str = ""


@dataclass
class GraphFile:
    """The ONNX file that is run for a model. own: whether the model was read from it."""

    path: Path
    own: bool
    notes: list[str] = field(default_factory=list[str])


def find_file(model: Model, folder: Path) -> GraphFile:
    """The file the model was read from, or one written into `folder`.

    Raises UnsupportedError where ONNX cannot hold the model.
    """
    source = Path(model.provenance.path)
    notes: list[str] = []
    if model.provenance.framework == "onnx" and source.is_file():
        runtime = session(source)
        inputs = {entry.name for entry in model.inputs}
        differs = inputs.symmetric_difference(given.name for given in runtime.get_inputs())
        differs |= {o.name for o in model.outputs} - {made.name for made in runtime.get_outputs()}
        if not differs:
            return GraphFile(source, True)
        named = ", ".join(escape(name) for name in sorted(differs))
        notes.append(f"the file ifgo writes was run: the model's own differs in {named}")
    path = folder / "whole.onnx"
    write(model, path)
    return GraphFile(path, False, notes)


def write(model: Model, path: Path) -> None:
    """Write `model`. Raises UnsupportedError, without the path, where ONNX cannot hold it."""
    try:
        formats.save(model, path, "onnx", allow_lossy=False)
    except UnsupportedError as error:
        raise UnsupportedError(error.what) from None


def declared(model: Model) -> tuple[int | None, int | None]:
    """(B, T) as far as the model's own ONNX file fixes them for the main input."""
    source = Path(model.provenance.path)
    if model.provenance.framework != "onnx" or not source.is_file():
        return None, None
    try:
        shapes = {given.name: given.shape for given in session(source).get_inputs()}
    except UnsupportedError:
        return None, None
    shape = shapes.get(model.input.name, [])
    sizes: dict[str, int | None] = {"B": None, "T": None}
    for letter, size in zip(model.input.axes, shape, strict=False):
        sizes[letter] = size if isinstance(size, int) else None
    return sizes["B"], sizes["T"]


def run(file: GraphFile, model: Model, x: NDArray[Any], start: State) -> Ran:
    """Run the file on x (B, T, I), or tokens (B, T), from `start`, as the caller of the file would.

    Raises UnsupportedError where ONNX Runtime refuses or fails.
    """
    proto = onnx.load(str(file.path))  # pyright: ignore[reportUnknownMemberType]
    wanted = _observed(proto)
    plain, seen = session(file.path), session(proto)
    batches = [x]
    if model.input.axes == "T" or declared(model)[0] == 1:
        batches = [row[None] for row in x]
    pieces: list[tuple[NDArray[Any] | str, dict[str, NDArray[Any]]]] = []
    for k, part in enumerate(batches):
        begin = start if len(batches) == 1 else {key: a[:, k : k + 1] for key, a in start.items()}
        fed = _feeds(model, plain, part, begin)
        pieces.append((_main(plain, model, proto, fed), _values(seen, wanted, fed)))
    ends = [end for end, _ in pieces if not isinstance(end, str)]
    y = np.concatenate(ends) if ends else None
    without = next((end for end, _ in pieces if isinstance(end, str)), "")
    nodes = [
        Node(names.proto, names.weights(pieces[0][1]), names.whole([p[1] for p in pieces]))
        for names in wanted
    ]
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    return Ran(y, nodes, versions.get("", versions.get("ai.onnx", 17)), proto.ir_version, without)


# -- what is fetched --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Names:
    """Where the values of one node stand in the graph; constants among them by value."""

    proto: NodeProto
    inputs: dict[str, str]
    outputs: tuple[str, str, str]
    constants: Arrays

    def value(self, found: Arrays, name: str) -> NDArray[Any]:
        return self.constants[name] if name in self.constants else found[name]

    def weights(self, found: Arrays) -> dict[str, NDArray[Any]]:
        names = {key: self.inputs[key] for key in WEIGHTS if key in self.inputs}
        return {key: self.value(found, name) for key, name in names.items()}

    def whole(self, found: list[dict[str, NDArray[Any]]]) -> Whole:
        """Batches joined; layout 1 puts the batch first."""
        first = any(a.name == "layout" and a.i == 1 for a in self.proto.attribute)
        x, y, h, c = (
            [self.value(piece, name) for piece in found]
            for name in (self.inputs["X"], *self.outputs)
        )
        if not first:
            x = [np.swapaxes(each, 0, 1) for each in x]
            y = [np.moveaxis(each, 2, 0) for each in y]
        else:
            h, c = ([np.swapaxes(each, 0, 1) for each in part] for part in (h, c))
        joined = (np.concatenate(x), np.concatenate(y))
        return Whole(*joined, np.concatenate(h, axis=1), np.concatenate(c, axis=1))


def _observed(proto: onnx.ModelProto) -> list[_Names]:
    """Makes every input and output of the LSTM nodes an output of the graph."""
    graph = proto.graph
    shown = {entry.name for entry in graph.output}
    taken = {name for node in graph.node for name in node.output}
    constants = {entry.name: entry for entry in graph.initializer}
    found: list[_Names] = []
    for node in graph.node:
        if node.op_type != "LSTM" or node.domain not in ("", "ai.onnx"):
            continue
        while len(node.output) < 3:
            node.output.append("")
        for place in range(3):
            if not node.output[place]:
                name = f"ifgo_observed_{len(found)}_{place}"
                while name in taken:
                    name += "_"
                node.output[place] = name
        inputs = {
            key: node.input[place]
            for key, place in {"X": 0, **WEIGHTS}.items()
            if place < len(node.input) and node.input[place]
        }
        here = {
            name: numpy_helper.to_array(constants[name])
            for name in inputs.values()
            if name in constants
        }
        for name in (*inputs.values(), *node.output):
            if name not in shown and name not in here:
                graph.output.append(helper.make_empty_tensor_value_info(name))
                shown.add(name)
        outputs = (node.output[0], node.output[1], node.output[2])
        found.append(_Names(node, inputs, outputs, here))
    return found


def _values(runtime: Any, wanted: list[_Names], fed: Arrays) -> dict[str, NDArray[Any]]:
    names = {n for w in wanted for n in (*w.inputs.values(), *w.outputs) if n not in w.constants}
    return dict(zip(sorted(names), _run(runtime, sorted(names), fed), strict=True)) if names else {}


# -- what is fed ------------------------------------------------------------------------------


def _feeds(model: Model, runtime: Any, x: NDArray[Any], start: State) -> dict[str, NDArray[Any]]:
    """Every input of the file by name, in the file's own types and axes."""
    wanted = {given.name: given for given in runtime.get_inputs()}
    main = wanted[model.input.name]
    fed = np.swapaxes(x, 0, 1) if model.input.axes == "TB" else x
    fed = fed[0] if model.input.axes == "T" else fed
    if len(main.shape) == fed.ndim - 1 and fed.shape[-1] == 1:
        fed = fed[..., 0]
    feeds = {main.name: fed}
    positions = {layer.name: k for k, layer in enumerate(model.recurrent)}
    for entry in model.inputs[1:]:
        if isinstance(entry, LengthsInput):
            feeds[entry.name] = np.full(x.shape[0], x.shape[1])
        elif isinstance(entry, StateInput):
            parts = [start[f"{slot.part}{positions[slot.layer]}"] for slot in entry.slots]
            packed = np.concatenate(parts)
            flat = len(wanted[entry.name].shape) == 2
            feeds[entry.name] = packed[:, 0] if flat and packed.shape[1] == 1 else packed
    return {
        name: np.ascontiguousarray(array, dtype=_DTYPES.get(wanted[name].type, np.float32))
        for name, array in feeds.items()
    }


def _main(runtime: Any, model: Model, proto: onnx.ModelProto, fed: Arrays) -> NDArray[Any] | str:
    """The main output as (B, T, ·) or (B, ·), or why it is not compared."""
    main = next((o for o in model.outputs if o.role in ("sequence", "last")), None)
    if main is None:
        return "the model puts out final states alone"
    (y,) = _run(runtime, [main.name], fed)
    single = main.axes == "T" or model.input.axes == "T"
    axes = _node_axes(proto, main.name)
    if not axes:
        axes = f"{main.axes}H" if main.role == "sequence" else "H" if single else "BH"
    if len(axes) != y.ndim:
        return f"the output has shape {y.shape} in the file"
    if "B" not in axes:
        y, axes = y[None], f"B{axes}"
    y = y.transpose([axes.index(letter) for letter in "BTDH" if letter in axes])
    return y.reshape(*y.shape[: 2 if "T" in axes else 1], -1)


def _node_axes(proto: onnx.ModelProto, name: str) -> str:
    """The axes of what an LSTM node itself puts out, D among them; nothing for other names."""
    for node in proto.graph.node:
        if node.op_type == "LSTM" and name in node.output[:2]:
            first = any(a.name == "layout" and a.i == 1 for a in node.attribute)
            of_y = name == node.output[0]
            return ("BTDH" if of_y else "BDH") if first else ("TDBH" if of_y else "DBH")
    return ""


def _run(runtime: Any, names: list[str], fed: Arrays) -> list[NDArray[Any]]:
    try:
        return runtime.run(names, dict(fed))
    except Exception as error:
        raise UnsupportedError(f"ONNX Runtime fails on the graph: {error}") from None


_DTYPES: Final = {
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
