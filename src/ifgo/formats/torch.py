"""PyTorch .pt and .pth: the zip that torch.save writes, read without PyTorch (FORMATS.md).

A file holds tensors by name and nothing of what is computed with them; _state_chain.py has the
words that say it. Files are untrusted: the pickle inside is interpreted here, never executed.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ifgo import files, limits
from ifgo.errors import FormatError, IfgoError, ToolError, UnsupportedError
from ifgo.formats import Report, _state_chain, _state_dict
from ifgo.formats._architecture import chain_of
from ifgo.formats._state_write import OWN, lay_out
from ifgo.formats._torch_pickle import metadata_of, read_pickle, table_of, tensor_of
from ifgo.formats._torch_tensor import Tensor, values
from ifgo.formats._torch_zip import Archive
from ifgo.formats._unpickle import kind_of
from ifgo.formats.extraction import Listing
from ifgo.model import Model, Provenance
from ifgo.text import listed, quote

EXTENSIONS = (".pt", ".pth")
READ_OPTIONS = ("layers", "architecture", "select")
WRITE_OPTIONS: tuple[str, ...] = ()

NESTED: Final = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep the state_dict; the first that is there."""

_WANTED: Final = "a state_dict, or a checkpoint with one under " + ", ".join(NESTED)
_SAVE: Final = "torch.save(model.state_dict(), path) writes one"
_LEGACY: Final = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""A pickled number with which files of PyTorch before 1.6 begin."""


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
    return path.suffix in EXTENSIONS or archive or head.startswith(_LEGACY)


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
    return _state_chain.listing(_state_dict.modules(_tensors(path)[0]), "torch")


def write(model: Model, path: Path, *, allow_lossy: bool = False) -> Report:
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
    data = files.read_bytes(path)
    _require_zip(data)
    archive = Archive(data)
    names = archive.names
    if "constants.pkl" in archive or any(name.startswith("code/") for name in names):
        raise UnsupportedError(
            "is a TorchScript archive, a program",
            expected="a state_dict",
            hint="Save its tensors: torch.save(torch.jit.load(path).state_dict(), new_path)",
        )
    order = {b"little": "<", b"big": ">"}.get(
        bytes(archive.read("byteorder")) if "byteorder" in archive else b"little"
    )
    if order is None:
        raise FormatError("its byteorder is unknown", expected="little or big")
    root = read_pickle(archive.read("data.pkl"))
    chosen, notes = _state_dict_of(root)
    found = _named_tensors(chosen, notes)
    top = table_of(metadata_of(chosen).get("")) or {}
    own = top.get(OWN)
    arrays: dict[str, NDArray[Any]] = {}
    storages: dict[str, memoryview] = {}
    size = 0
    for key, tensor in found.items():
        storage = tensor.storage.key
        if storage not in storages:
            storages[storage] = archive.read(f"data/{storage}")
        arrays[key] = values(tensor, storages[storage], order)
        size += arrays[key].nbytes
    if size > len(data) + limits.MAX_EXPANSION:
        raise FormatError(
            f"has {len(data)} bytes and tensors of {size}",
            expected=f"at most {limits.MAX_EXPANSION} more than it has",
            hint="Save each tensor with .clone()",
        )
    return arrays, own, notes


def _require_zip(data: bytes) -> None:
    if data.startswith(b"PK\x03\x04"):
        return
    if data.startswith(_LEGACY) or data[257:262] == b"ustar":
        raise UnsupportedError(
            "was saved by PyTorch before 1.6, or with its legacy serialization",
            expected="the zip that torch.save writes since",
            hint="Save it again: torch.save(torch.load(path), new_path)",
        )
    what = "a bare pickle" if data[:1] == b"\x80" else "no PyTorch file"
    raise FormatError(f"is {what}", expected="the zip that torch.save writes")


def _state_dict_of(root: Any) -> tuple[Any, list[str]]:
    """The state_dict in what was pickled, and notes on what lies around it."""
    notes: list[str] = []
    for _ in range(3):  # a checkpoint in a checkpoint in a checkpoint
        table = table_of(root) or {}
        inner = [key for key in NESTED if table_of(table.get(key)) is not None]
        if not inner:
            break
        others = [key for key in table if key != inner[0]]
        if others:
            notes.append(f"read {inner[0]} of the checkpoint, left out {listed(others)}")
        root = table[inner[0]]
    return root, notes


def _named_tensors(chosen: Any, notes: list[str]) -> dict[str, Tensor]:
    """The tensors of a state_dict by key; a note is added where there is more in it."""
    table = table_of(chosen)
    if table is None:
        raise UnsupportedError(f"holds {kind_of(chosen)}", expected=_WANTED, hint=_SAVE)
    found: dict[str, Tensor] = {}
    for key, value in table.items():
        tensor = tensor_of(value)
        if tensor is None:
            continue
        if type(key) is not str:
            raise FormatError(f"names a tensor {quote(key)}", expected="text, as rec.weight_ih_l0")
        found[key] = tensor
    rest = [key for key in table if key not in found]
    if not found:
        raise UnsupportedError(
            f"holds no tensors by name, but {listed(rest) or 'nothing'}",
            expected=_WANTED,
            hint=_SAVE,
        )
    if rest:
        notes.append(f"left out what is no tensor: {listed(rest)}")
    return found
