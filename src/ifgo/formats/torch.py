"""PyTorch .pt and .pth: what torch.save and torch.jit.save write, read without it (FORMATS.md).

A file holds tensors by name and nothing of what is computed with them; _state_chain.py has the
words that say it. Files are untrusted: the pickle inside is interpreted here, never executed.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ifgo import files, limits
from ifgo.errors import FormatError, IfgoError, ToolError, UnsupportedError
from ifgo.formats import Report, _state_chain, _torch_legacy
from ifgo.formats._architecture import chain_of
from ifgo.formats._attributes import Losses
from ifgo.formats._shards import refuse_shard
from ifgo.formats._state_write import OWN, lay_out
from ifgo.formats._torch_modules import named_tensors, state_dict_of
from ifgo.formats._torch_pickle import metadata_of, read_pickle, table_of
from ifgo.formats._torch_tensor import values
from ifgo.formats._torch_zip import Archive
from ifgo.formats.extraction import Listing
from ifgo.model import Model, Provenance
from ifgo.text import listed

EXTENSIONS = (".pt", ".pth")
READ_OPTIONS = ("layers", "architecture", "select")
WRITE_OPTIONS: tuple[str, ...] = ()


def sniff(path: Path) -> bool:
    """Whether `path` ends in .pt or .pth, or begins like an archive of torch.save."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError:
        return False
    archive = head.startswith(b"PK\x03\x04") and b"/data.pkl" in head[:300]
    program = b"/data/weights/weight_" in head[:300]
    known = archive or program or head.startswith(_torch_legacy.START)
    return known or path.suffix in EXTENSIONS


def read(
    path: Path,
    *,
    layers: str | None = None,
    architecture: str | None = None,
    select: str | Sequence[str] | None = None,
) -> Model:
    """The model in a state_dict, or in a checkpoint around one; weights keep their dtype.

    layers: the chain, as "embed,rec:last,lin:sigmoid"; architecture: a TOML file that says it;
    select: one recurrent module. One nn.LSTM or nn.LSTMCell alone needs none. Raises
    UnsupportedError naming what the pickle would run, what computes its weights, or all modules
    where their order is open; FormatError on damage.
    """
    tensors, own, notes = _tensors(path)
    provenance = Provenance("pytorch", "", str(path), tuple(notes))
    return _state_chain.read(
        tensors, provenance, layers=chain_of(layers, architecture), select=select, own=own
    )


def list_layers(
    path: Path, *, layers: str | None = None, architecture: str | None = None
) -> Listing:
    """The recurrent modules by name, and the others by kind.

    The options are those of `read`, and not needed.
    """
    return _state_chain.listing(_tensors(path)[0], "torch")


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write a state_dict that torch.load(weights_only=True) and load_state_dict take.

    The chain around the modules is kept in the state_dict's own _metadata, for reading it back.
    Raises ToolError without PyTorch, UnsupportedError naming all that a state_dict cannot hold.
    """
    try:
        tensors, spelled, report = lay_out(model, allow_lossy=allow_lossy)
        data = _saved(tensors, spelled)
    except IfgoError as error:
        raise error.located(str(path)) from None
    files.atomic_write(path, data)
    return report


def _saved(tensors: dict[str, NDArray[Any]], spelled: str) -> bytes:
    try:
        import torch
    except ImportError:
        raise ToolError(
            "PyTorch writes its own files, and is not installed",
            hint="Install it: pip install 'ifgo[torch]'; or write a .safetensors file, which "
            "needs no PyTorch",
        ) from None
    found = cast(Any, OrderedDict())
    tensor = cast(Any, torch.from_numpy)  # pyright: ignore[reportUnknownMemberType]
    for key, array in tensors.items():
        if array.dtype.name == "bfloat16":
            found[key] = tensor(array.view(np.int16).copy()).view(torch.bfloat16)
        else:
            found[key] = tensor(array.copy())
    paths = {path for key in tensors for path in _paths(key)}
    metadata: dict[str, dict[str, Any]] = OrderedDict(
        (path, {"version": 1}) for path in sorted(paths)
    )
    if spelled:
        metadata[""][OWN] = spelled
    found._metadata = metadata
    stream = io.BytesIO()
    torch.save(found, stream)
    return stream.getvalue()


def _paths(key: str) -> Iterator[str]:
    """Every module on the way to a tensor, the root first."""
    parts = key.split(".")[:-1]
    return (".".join(parts[:k]) for k in range(len(parts) + 1))


# -- reading --------------------------------------------------------------------------------------


def _tensors(path: Path) -> tuple[dict[str, NDArray[Any]], Any, list[str]]:
    """Arrays by key, the chain that the file says itself, and what was left out."""
    refuse_shard(path)
    data = files.read_bytes(path)
    _require_known(data)
    if data.startswith(_torch_legacy.START):
        root, named, storages, order = _torch_legacy.unpack(data)
        archive, scripted = None, False
    else:
        archive = Archive(data)
        _require_parameters(archive)
        scripted = "constants.pkl" in archive
        marks = {b"little": "<", b"big": ">"}
        order = marks.get(bytes(archive.read("byteorder")) if "byteorder" in archive else b"little")
        if order is None:
            raise FormatError("its byteorder is unknown", expected="little or big")
        pickled, named = read_pickle(archive.read("data.pkl"))
        root, storages = pickled.value, {}
    chosen, notes = state_dict_of(root)
    found = named_tensors(chosen, notes, scripted=scripted)
    if named and not scripted:
        notes.append(f"data.pkl names {listed(named)}: read as data, never imported or called")
    top = table_of(metadata_of(chosen).get("")) or {}
    own = top.get(OWN)
    arrays: dict[str, NDArray[Any]] = {}
    size = 0
    for key, tensor in found.items():
        storage = tensor.storage.key
        if storage not in storages and archive is not None:
            storages[storage] = archive.read(f"data/{storage}")
        arrays[key] = values(tensor, storages[storage], order)
        size += arrays[key].nbytes
    if size > len(data) + limits.current().expansion_bytes:
        raise FormatError(
            f"has {len(data)} bytes and tensors of {size}",
            **limits.at_most(
                "expansion_bytes",
                form="at most {} more than it has",
                hint="Save each tensor with .clone()",
            ),
        )
    return arrays, own, notes


def _require_parameters(archive: Archive) -> None:
    """Raises UnsupportedError where an archive is of another kind than torch.save writes."""
    if any(name.startswith("models/") for name in archive.names):
        raise UnsupportedError(
            "is a program of torch.export",
            expected="a state_dict",
            hint="Save its tensors: torch.save(torch.export.load(path).state_dict, new_path)",
        )


def _require_known(data: bytes) -> None:
    if data.startswith((b"PK\x03\x04", _torch_legacy.START)):
        return
    if data[257:262] == b"ustar":
        raise UnsupportedError(
            "was saved by PyTorch before 0.2, as a tar",
            expected="a file of torch.save since",
            hint="Save it again: torch.save(torch.load(path), new_path)",
        )
    what = "a bare pickle" if data[:1] == b"\x80" else "no PyTorch file"
    raise FormatError(f"is {what}", expected="the zip that torch.save writes")
