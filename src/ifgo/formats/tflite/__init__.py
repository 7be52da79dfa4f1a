"""TFLite (LiteRT): float32 flatbuffers around its sequence LSTM operators. FORMATS.md, TFLite.

Beside this file: guard (the bytes), file (plain data), lstm and graph (nodes for the walk of the
ONNX reader, see ifgo.formats._graph), build and writer. The package `tflite` holds the schema:
pip install 'ifgo[tflite]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ifgo.errors import UnsupportedError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats.extraction import Listing
from ifgo.model import Model
from ifgo.text import cut

EXTENSIONS: Final = (".tflite",)
READ_OPTIONS: Final = ("select",)
WRITE_OPTIONS: Final = ()


def sniff(path: Path) -> bool:
    """Whether the name ends in .tflite, or the file has the identifier of the schema."""
    try:
        if not path.is_file():
            return False
        if path.suffix.lower() in EXTENSIONS:
            return True
        with path.open("rb") as stream:
            return stream.read(8)[4:] == b"TFL3"
    except OSError:
        return False


def read(path: Path, *, select: str | Sequence[str] | None = None) -> Model:
    """The model in `path`, or the recurrent layers that `select` names as a model of their own.

    Layers are stateful: the operator keeps its state between calls. Raises ToolError where the
    package tflite is missing, FormatError on a damaged file, UnsupportedError naming the operator
    that is no part of a float32 chain of layers.
    """
    from ifgo.formats.onnx.extract import extract
    from ifgo.formats.onnx.model import assemble
    from ifgo.formats.onnx.walk import Walk
    from ifgo.formats.tflite.file import parse
    from ifgo.formats.tflite.graph import Translation

    file = parse(path)
    translation = Translation(file, path)
    graph = translation.graph()
    if select is not None:
        return extract(graph, {}, select, str(path))
    translation.require_float()
    walk = Walk(graph, {})
    if not any(node.op == "LSTM" for node in graph.nodes):
        kinds = dict.fromkeys(operator.kind for operator in file.main.operators)
        raise UnsupportedError(
            "has no LSTM, but " + cut(", ".join(kinds) or "nothing", 120),
            expected="UNIDIRECTIONAL_SEQUENCE_LSTM, BIDIRECTIONAL_SEQUENCE_LSTM, a WHILE over the "
            "steps of an LSTM, or its steps one after another",
            hint="Read the model that it was converted from",
        )
    walk.chain.notes += translation.notes
    walk.run()
    return assemble(graph, walk, str(path))


def list_layers(path: Path) -> Listing:
    """The LSTM operators of the main graph in `path`, whatever else it holds."""
    from ifgo.formats.onnx.extract import listing
    from ifgo.formats.tflite.file import parse
    from ifgo.formats.tflite.graph import Translation

    return listing(Translation(parse(path), path).graph(), {})


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write `model` as a float32 flatbuffer with one operator per layer.

    Raises UnsupportedError naming all that TFLite cannot hold, in one message; ToolError where the
    package tflite is missing. allow_lossy permits zeros for absent biases, rounding to float32, a
    run-time forget bias in the bias, and a state that TFLite keeps between calls.
    """
    from ifgo.formats.tflite.writer import write_file

    return write_file(model, path, allow_lossy=allow_lossy)
