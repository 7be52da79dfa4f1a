"""Frozen TensorFlow graphs (GraphDef .pb) and SavedModel folders, read without TensorFlow.
FORMATS.md, TensorFlow.

Beside this file: file (plain data), saved_model with bundle and crc (variables), functions and
frames (one flat graph and its loops), graph with constants and tensordot (nodes for the walk of the
ONNX reader, see ifgo.formats._graph), loops with run, extent and turned (while loops that are
LSTMs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import UnsupportedError, UsageError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats._graph import ArrayGraph
from ifgo.formats.extraction import Listing
from ifgo.formats.onnx.file import Node
from ifgo.formats.tensorflow.functions import Flat
from ifgo.model import Model
from ifgo.text import listed, quote

if TYPE_CHECKING:
    from ifgo.formats.tensorflow.loops import Loops

EXTENSIONS: Final = (".pb",)
READ_OPTIONS: Final = ("select", "start", "end", "signature")
WRITE_OPTIONS: Final = ()

_KERAS: Final = "Save the Keras model as .keras or .h5 (model.save), or freeze its graph"


def sniff(path: Path) -> bool:
    """Whether the name ends in .pb, or the folder is a SavedModel."""
    try:
        return (path / "saved_model.pb").is_file() or (
            path.is_file() and path.suffix.lower() == ".pb"
        )
    except OSError:
        return False


def read(
    path: Path,
    *,
    select: str | Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    signature: str | None = None,
) -> Model:
    """The model in `path`, or the recurrent layers that `select` names as a model of their own.

    start, end: names of the tensors that are the model's input and output, where the graph holds
    more: a front end for audio, a loss. signature: that of a SavedModel, serving_default where none
    is given. Raises FormatError on a damaged file, UnsupportedError naming the node that is no
    part of a chain around LSTM cells.
    """
    from ifgo.formats.onnx.extract import extract
    from ifgo.formats.onnx.model import assemble
    from ifgo.formats.onnx.walk import Walk

    graph = _graph(path, start, end, signature)
    if select is not None:
        return extract(graph, {}, select, str(path))
    walk = Walk(graph, {})
    if start is not None:
        walk.chain.notes.append(f"the model starts at tensor {quote(start)}")
    walk.run()
    return assemble(graph, walk, str(path))


def list_layers(
    path: Path,
    *,
    start: str | None = None,
    end: str | None = None,
    signature: str | None = None,
) -> Listing:
    """The LSTM loops of the graph in `path`, whatever else it holds."""
    from ifgo.formats.onnx.extract import listing

    return listing(_graph(path, start, end, signature), {})


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Raises UnsupportedError: ifgo writes no TensorFlow graphs."""
    raise UnsupportedError(
        "ifgo writes no TensorFlow graphs",
        where=str(path),
        hint="Write an .onnx or a .tflite file",
    )


def _graph(
    path: Path, start: str | None, end: str | None, signature: str | None = None
) -> ArrayGraph:
    """The graph from `start` to `end`."""
    from ifgo.formats._graph import OPSET
    from ifgo.formats.tensorflow.constants import folded
    from ifgo.formats.tensorflow.file import graph_of
    from ifgo.formats.tensorflow.frames import unframed
    from ifgo.formats.tensorflow.functions import flatten
    from ifgo.formats.tensorflow.graph import Translation, entry
    from ifgo.formats.tensorflow.loops import Loops
    from ifgo.formats.tensorflow.saved_model import parse
    from ifgo.formats.tensorflow.tensordot import plain_products

    folder = path.parent if path.name == "saved_model.pb" else path
    saved = parse(folder, signature) if path.is_dir() or folder != path else None
    flat = unframed(flatten(graph_of(path)) if saved is None else saved.flat)
    nodes = plain_products(folded(flat.nodes))
    translation = Translation(nodes)
    arrays = translation.out.arrays

    def constant(plain: list[Node], name: str) -> NDArray[Any] | None:
        return translation.known(name) if name in nodes else arrays.get(name)

    loops = Loops(translation, flat.loops, constant)
    inputs = dict(translation.inputs)
    made = _rolled(loops, saved.outputs if saved is not None and end is None else (end or "",))
    if signature is not None and saved is None:
        raise UsageError("signature is given, but this is no SavedModel", expected="a folder")
    if start is not None:
        start = start.removesuffix(":0")
        node = nodes.get(start)
        if node is None:
            raise UsageError(
                f"start names {quote(start)}", expected="one of " + listed(list(nodes))
            )
        made = tuple(n for n in made if start not in n.outputs)
        sizes = (-1, -1, -1)
        if node.op == "Reshape" and len(node.inputs) == 2:
            target = translation.known(node.inputs[1])
            sizes = sizes if target is None else tuple(int(n) for n in target.reshape(-1)[:8])
        if node.op != "Placeholder":
            inputs[start] = entry(start, sizes, np.dtype(np.float32))
    outputs = _outputs(made, flat, end) if saved is None or end is not None else saved.outputs
    needed = _reached(made, outputs)
    return ArrayGraph(
        nodes=made,
        inputs={name: value for name, value in inputs.items() if name in needed},
        outputs=outputs,
        opset=OPSET,
        producer="GraphDef" if saved is None else f"SavedModel {saved.version}".rstrip(),
        folder=path.parent,
        _tensors={},
        framework="tensorflow",
        arrays=arrays,
    )


def _rolled(loops: Loops, outputs: tuple[str, ...]) -> tuple[Node, ...]:
    """The nodes with steps that stand one after another as LSTMs too."""
    from ifgo.formats.tensorflow.graph import sort
    from ifgo.formats.tflite.unrolled import unroll

    out = loops.t.out
    out.nodes[:] = loops.nodes
    taken = {name for node in loops.nodes for name in node.inputs}
    ends = [name for node in loops.nodes for name in node.outputs if name not in taken]
    unroll(out, (*(name.removesuffix(":0") for name in outputs), *ends), loops.name)
    if any(outputs):
        # Keras runs a step beside each loop to learn its shapes, which nothing takes
        taken = {name for node in out.nodes for name in node.inputs} | set(outputs)
        steps = [node for node in out.nodes if node.kind == "unrolled LSTM"]
        unused = {node.position for node in steps if not taken.intersection(node.outputs)}
        out.nodes[:] = [node for node in out.nodes if node.position not in unused]
    ready = sort(out.nodes)
    return tuple(replace(node, position=k) for k, node in enumerate(ready))


def _outputs(nodes: tuple[Node, ...], flat: Flat, end: str | None) -> tuple[str, ...]:
    """The tensors that nothing takes and that depend on an LSTM, or `end`."""
    every = [name for node in nodes for name in node.outputs]
    if end is not None:
        if end.removesuffix(":0") not in every:
            raise UsageError(f"end names {quote(end)}", expected="one of " + listed(every[::-1]))
        return (end.removesuffix(":0"),)
    taken = {name for node in (*nodes, *flat.nodes.values()) for name in node.inputs}
    taken |= flat.kept | {v.start for loop in flat.loops for v in loop.variables}
    behind: set[str] = set()
    for node in nodes:
        if node.op == "LSTM" or behind.intersection(node.inputs):
            behind.update(node.outputs)
    ends = [name for name in every if name in behind and name not in taken and name[:1] != " "]
    unused = {name for node in nodes if node.kind in ("Exit", "While") for name in node.outputs}
    found = tuple(name for name in ends if name not in unused) or tuple(ends)
    if not found:
        raise UnsupportedError(
            "has no loop that runs LSTM cells, but "
            + listed(dict.fromkeys(node.op for node in nodes)),
            expected="a graph with tf.nn.dynamic_rnn or Keras LSTMs",
            hint=_KERAS,
        )
    return found


def _reached(nodes: tuple[Node, ...], outputs: tuple[str, ...]) -> set[str]:
    makers = {name: node for node in nodes for name in node.outputs}
    wanted, found = list(outputs), set[str]()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            if name in makers:
                wanted.extend(makers[name].inputs)
    return found
