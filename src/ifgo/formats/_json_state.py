"""A state_dict of PyTorch as JSON, {"lstm.weight_ih_l0": [[...]], ...}: what RTNeural's loaders for
PyTorch take. The tensors are here, the order of the modules is not (_state_chain.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo import limits
from ifgo.errors import FormatError
from ifgo.formats import _json, _state_chain
from ifgo.formats._shards import refuse_index
from ifgo.formats.extraction import Listing
from ifgo.layers import Layer, Recurrent
from ifgo.model import Model, Provenance


def read(
    tree: dict[str, Any], path: Path, layers: str | None, select: str | Sequence[str] | None
) -> Model:
    """The Model of the modules that `layers` or `select` name, or of the only one; every LSTM keeps
    its state, as all of RTNeural's do. Raises what _state_chain.read raises, FormatError on what is
    no tensor."""
    numbers = _json.Numbers()
    tensors = _tensors(tree, numbers)
    origin = Provenance("rtneural", "state_dict", str(path), numbers.notes)
    model = _state_chain.read(tensors, origin, layers=layers, select=select)
    return replace(model, layers=tuple(map(_stateful, model.layers)))


def listing(tree: dict[str, Any]) -> Listing:
    """The recurrent modules by name, and the others by kind."""
    tensors = _tensors(tree, _json.Numbers())
    return _state_chain.listing(tensors, "rtneural")


def _stateful(layer: Layer) -> Layer:
    return replace(layer, stateful=True) if isinstance(layer, Recurrent) else layer


def _tensors(tree: dict[str, Any], numbers: _json.Numbers) -> dict[str, NDArray[Any]]:
    """Every tensor, float32, of up to two axes. Raises UnsupportedError on an index of files."""
    refuse_index(tree)
    if len(tree) > limits.current().arrays:
        raise FormatError(f"has {len(tree)} tensors", **limits.at_most("arrays"))
    found: dict[str, NDArray[Any]] = {}
    for name, value in tree.items():
        where = f"tensor {_json.quoted([name])}"
        shape = _json.shape_of(value)
        if len(shape) > 2:
            raise FormatError(f"has {len(shape)} axes", where=where, expected="one or two")
        if shape:
            found[name] = numbers.take(value, shape, "it", where)
        elif type(value) is int:  # counters, as num_batches_tracked
            found[name] = np.array(min(abs(value), limits.current().elements))
        else:
            raise FormatError(
                f"is {_json.shown(value)}", where=where, expected="nested lists of numbers"
            )
    return found
