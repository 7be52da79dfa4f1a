"""Safetensors without a description: a state_dict of PyTorch, read and written without PyTorch.

A file holds tensors by name and a map of texts; FORMATS.md says how the chain of modules is said.
ifgo's own files are safetensors too, see native.py: their description says the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_safetensors

from ifgo import files, limits
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats import Report, _state_chain
from ifgo.formats._architecture import chain_of
from ifgo.formats._attributes import Losses
from ifgo.formats._safetensors_file import INTEGERS, dtype_of, open_file
from ifgo.formats._shards import refuse_shard
from ifgo.formats._state_write import OWN, lay_out
from ifgo.formats.extraction import Listing
from ifgo.model import Model, Provenance

EXTENSIONS = (".safetensors",)
READ_OPTIONS = ("layers", "architecture", "select")
WRITE_OPTIONS: tuple[str, ...] = ()


def sniff(path: Path) -> bool:
    """Whether `path` starts like a safetensors file. Those of ifgo are native's, asked before."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError:
        return False
    length = int.from_bytes(start[:8], "little")
    return path.suffix in EXTENSIONS or (
        start[8:].lstrip().startswith(b'{"') and 2 <= length <= limits.current().json_bytes
    )


def read(
    path: Path,
    *,
    layers: str | None = None,
    architecture: str | None = None,
    select: str | Sequence[str] | None = None,
) -> Model:
    """The model in a state_dict; weights keep their dtype.

    layers: the chain, as "embed,rec:last,lin:sigmoid"; architecture: a TOML file that says it;
    select: one recurrent module. One nn.LSTM or nn.LSTMCell alone needs none, nor does a file
    of `write`. Raises UnsupportedError naming what computes its weights, or all modules where
    their order is open; FormatError on damage.
    """
    tensors, metadata = _tensors(path)
    provenance = Provenance("pytorch", "safetensors", str(path))
    own = metadata.get(OWN)
    return _state_chain.read(
        tensors, provenance, layers=chain_of(layers, architecture), select=select, own=own
    )


def list_layers(
    path: Path, *, layers: str | None = None, architecture: str | None = None
) -> Listing:
    """The recurrent modules by name, and the others by kind.

    The options are those of `read`, and not needed.
    """
    return _state_chain.listing(_tensors(path)[0], "safetensors")


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write a state_dict that safetensors.torch.load_file and load_state_dict take.

    The chain around the modules is kept in the metadata, for reading it back.
    Raises UnsupportedError naming all that a state_dict cannot hold.
    """
    try:
        tensors, spelled, report = lay_out(model, allow_lossy=allow_lossy)
        metadata = {"format": "pt"} | ({OWN: spelled} if spelled else {})
        little = {k: a.astype(a.dtype.newbyteorder("<"), copy=False) for k, a in tensors.items()}
        data = to_safetensors(little, metadata)
        if len(data) > limits.current().file_bytes:
            raise UnsupportedError(
                f"would take {len(data)} bytes", expected=f"at most {limits.current().file_bytes}"
            )
    except IfgoError as error:
        raise error.located(str(path)) from None
    files.atomic_write(path, data)
    return report


def _tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    refuse_shard(path)
    metadata, entries = open_file(files.read_bytes(path))
    if not entries:
        raise FormatError("holds no tensors", expected="the tensors of a state_dict")
    found: dict[str, NDArray[Any]] = {}
    for key, entry in entries.items():
        name = entry["dtype"]
        dtype = np.dtype(INTEGERS[name]) if name in INTEGERS else dtype_of(name, key)
        found[key] = np.frombuffer(entry["data"], dtype.newbyteorder("<")).reshape(entry["shape"])
    return found, metadata
