"""ONNX: reads a graph that is a chain around LSTM nodes, writes such a graph.

Reading is a symbolic walk: constants are folded, what moves elements is followed element by
element, everything else is a layer or is refused by name with its node. SPEC.md 1.3, 2.5.

Untrusted bytes to plain data: wire, file, attributes, bind. Values and folding: value, arguments,
fold, reduce. What becomes a layer: chain, layers, time, lstm, pairs, states. The result: walk,
model, packed; out of a larger graph: extract. Writing: holds (what ONNX cannot hold), writer.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ifgo.errors import IfgoError, UnsupportedError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats.extraction import Listing
from ifgo.model import Model

EXTENSIONS: Final = (".onnx",)
READ_OPTIONS: Final = ("bind", "select")
WRITE_OPTIONS: Final = ()


def sniff(path: Path) -> bool:
    """Whether the name ends in .onnx, or the file starts as exporters start one."""
    try:
        if not path.is_file() or path.name == "saved_model.pb":
            return False
        if path.suffix.lower() in EXTENSIONS:
            return True
        with path.open("rb") as stream:
            start = stream.read(3)
    except OSError:
        return False
    # ir_version (field 1, 1 to 31), then producer name, graph or operator sets
    return (
        len(start) == 3 and start[0] == 0x08 and 0 < start[1] < 32 and start[2] in b"\x12\x3a\x42"
    )


def read(
    path: Path,
    *,
    bind: str | Path | Mapping[str, Any] | None = None,
    select: str | Sequence[str] | None = None,
) -> Model:
    """The model in `path`, or the LSTM nodes that `select` names as a model of their own.

    bind: arrays for graph inputs that are really weights or states, by input name: the path of an
    .npz, or a mapping. Raises FormatError on a damaged file, UnsupportedError naming the node that
    has no place in a chain of layers.
    """
    from ifgo.formats.onnx.bind import bound
    from ifgo.formats.onnx.extract import extract
    from ifgo.formats.onnx.file import parse
    from ifgo.formats.onnx.model import assemble
    from ifgo.formats.onnx.walk import SELECT_HINT, Walk, with_hint

    given = bound(bind)
    with _located(path):
        graph = parse(path)
        if select is not None:
            return extract(graph, given, select, str(path))
        walk = Walk(graph, given)
        walk.run()
        try:
            return assemble(graph, walk, str(path))
        except UnsupportedError as error:
            raise with_hint(error, SELECT_HINT) from None


def list_layers(path: Path, *, bind: str | Path | Mapping[str, Any] | None = None) -> Listing:
    """The LSTM nodes of the graph in `path`, whatever else it holds."""
    from ifgo.formats.onnx.bind import bound
    from ifgo.formats.onnx.extract import listing
    from ifgo.formats.onnx.file import parse

    given = bound(bind)
    with _located(path):
        return listing(parse(path), given)


@contextmanager
def _located(path: Path) -> Generator[None]:
    """Errors name the file."""
    try:
        yield
    except IfgoError as error:
        if error.where is not None and str(path) in error.where:
            raise
        raise error.located(str(path)) from None


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write `model` as one ONNX file. Raises UnsupportedError naming all that ONNX cannot hold."""
    from ifgo.formats.onnx.writer import write as write_file

    return write_file(model, path, allow_lossy=allow_lossy)
