"""Keras 1 to 3: `.keras`, `.h5` with or without a config, `.weights.h5`; FORMATS.md.

Keras is not needed and nothing in a file is run. Beside this file: _hdf5 and _hdf5_types (untrusted
bytes to arrays), _container (the file taken apart), _config (one layer's keys), _graph (the whole
model's calls), _weights (where arrays lie), _recurrent and _layers (what becomes a layer), _walk
(the result), _extract (some layers of a larger model), and _write.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ifgo.errors import FormatError, IfgoError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats.extraction import Listing
from ifgo.model import Model

if TYPE_CHECKING:
    from ifgo.formats.keras._container import Given

EXTENSIONS: Final = (".keras", ".h5")
READ_OPTIONS: Final = ("config", "select")
WRITE_OPTIONS: Final = ()

_SUFFIXES: Final = (*EXTENSIONS, ".hdf5")


def sniff(path: Path) -> bool:
    """Whether it ends in .keras, .h5 or .hdf5, or begins as HDF5 does."""
    try:
        if not path.is_file():
            return False
        if path.suffix.lower() in _SUFFIXES:
            return True
        with path.open("rb") as stream:
            return stream.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return False


def read(
    path: Path, *, config: Given | None = None, select: str | Sequence[str] | None = None
) -> Model:
    """The model in `path`, or the recurrent layers that `select` names as a model of their own.

    config: for a file of weights alone, the path of a JSON as model.to_json() writes it, or its
    content; a list of layers is a Sequential. Raises FormatError on a damaged file,
    UnsupportedError naming a layer or key that has no place in a chain, UsageError on options.
    """
    from ifgo.formats.keras._container import unpack
    from ifgo.formats.keras._extract import extract
    from ifgo.formats.keras._graph import parse_graph
    from ifgo.formats.keras._walk import Walk

    with _located(path):
        contents = unpack(path, config)
        graph = None
        if contents.config is not None:
            graph = parse_graph(contents.config, contents.version)
        if select is not None:
            model = extract(graph, contents, select)
        elif graph is not None:
            model = Walk(graph, contents).run()
        else:
            raise FormatError(
                "holds weights alone, and no config",
                expected="the config of the model",
                hint="Give what model.to_json() writes with --config FILE; "
                "`ifgo inspect --lstms` lists what can be read without",
            )
        return replace(model, provenance=replace(model.provenance, path=str(path)))


def list_layers(path: Path, *, config: Given | None = None) -> Listing:
    """The recurrent layers of LSTMs in `path`, whatever else it holds."""
    from ifgo.formats.keras._container import unpack
    from ifgo.formats.keras._extract import listing
    from ifgo.formats.keras._graph import parse_graph

    with _located(path):
        contents = unpack(path, config)
        if contents.config is None:
            return listing(None, contents)
        return listing(parse_graph(contents.config, contents.version), contents)


@contextmanager
def _located(path: Path) -> Generator[None]:
    """Errors name the file."""
    try:
        yield
    except RecursionError:
        raise FormatError(
            "its config is nested too deep", where=str(path), expected="as Keras writes it"
        ) from None
    except IfgoError as error:
        if error.where is not None and str(path) in error.where:
            raise
        raise error.located(str(path)) from None


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write `model` as a .keras or .h5 that Keras 3 loads. Raises UnsupportedError naming all that
    Keras cannot hold."""
    from ifgo.formats.keras._write import write_file

    return write_file(model, path, allow_lossy=allow_lossy)
