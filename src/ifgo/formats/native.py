"""ifgo's own file: safetensors whose metadata describes the Model completely. Lossless.

Layout: SPEC.md section 2 (native). The header's `__metadata__` holds one JSON string under "ifgo":

    {"version": 1, "sha256": of the canonical text of "model", "model": {...}}

Arrays are named by their place in the model ("layers[0].forward.weight_ih"); where the description
would hold the array it holds the sha256 of dtype, shape and little-endian bytes. So no bit of a
tensor or of the description can change unseen.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save as to_safetensors

from ifgo import files, limits
from ifgo.cell import Array
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats import Report, _json
from ifgo.formats._attributes import Losses, attributes
from ifgo.formats._native_codec import decode, encode
from ifgo.formats._safetensors_file import DTYPES, dtype_of, open_file
from ifgo.model import Model
from ifgo.text import cut, listed, quote

EXTENSIONS = (".ifgo",)
READ_OPTIONS: tuple[str, ...] = ()
WRITE_OPTIONS: tuple[str, ...] = ()

VERSION: Final = 1
"""Version of the description, written and read."""

_SNIFFED_BYTES: Final = 4096


def sniff(path: Path) -> bool:
    """Whether `path` starts like a safetensors file with a description of ours."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            start = stream.read(_SNIFFED_BYTES)
    except OSError:
        return False
    length, text = int.from_bytes(start[:8], "little"), start[8:]
    if len(start) < 8 or length < 2:
        return False
    return text.startswith(b"{") and b'"__metadata__"' in text and b'"ifgo"' in text


def read(path: Path) -> Model:
    """The Model in `path`, bit for bit as it was written, provenance included.

    Raises FormatError naming the tensor or the place in the description that is damaged, ModelError
    where the parts do not fit, UnsupportedError on a newer version or a file of tensors alone.
    """
    data = files.read_bytes(path)
    try:
        return _parse(data)
    except IfgoError as error:
        raise error.located(str(path)) from None


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write every part of `model` to `path`. Nothing is ever lost, so allow_lossy changes nothing.

    Raises UnsupportedError on a dtype other than float16, bfloat16, float32, float64, on a layer
    class that is not ifgo's, and on a description above the limit json_bytes.
    """
    tensors: dict[str, Array] = {}

    def put(place: str, array: Array) -> str:
        if array.dtype.name not in DTYPES:
            raise UnsupportedError(
                f"{place} has dtype {array.dtype}", expected="one of " + ", ".join(DTYPES)
            )
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        tensors[place] = little
        return _checksum(DTYPES[array.dtype.name], array.shape, little.tobytes())

    try:
        tree = encode(model, put)
        text = json.dumps({"version": VERSION, "sha256": _digest(tree), "model": tree})
        data = to_safetensors(dict(sorted(tensors.items())), {"ifgo": text})
        for what, size, bound in (
            ("the description", int.from_bytes(data[:8], "little"), limits.current().json_bytes),
            ("the file", len(data), limits.current().file_bytes),
        ):
            if size > bound:
                raise UnsupportedError(
                    f"{what} would take {size} bytes", expected=f"at most {bound}"
                )
    except IfgoError as error:
        raise error.located(str(path)) from None
    files.atomic_write(path, data)
    kept = tuple(f"{layer.name} ({layer.kind})" for layer in model.layers)
    return Report(kept, attributes=attributes(model, ()))


def _parse(data: bytes) -> Model:
    metadata, entries = open_file(data)
    text = metadata.get("ifgo")
    if text is None:
        raise UnsupportedError(
            f"holds {len(entries)} tensors but no model description",
            expected="a file that ifgo wrote",
            hint="Read it as a state_dict of PyTorch: --from safetensors",
        )
    return _Payload(entries).model(
        _json.parse(text.encode(errors="surrogatepass"), "the description")
    )


class _Payload:
    """The tensors of a file, each handed out once to the place in the model it is named after."""

    def __init__(self, entries: dict[str, dict[str, Any]]) -> None:
        self.left = entries

    def model(self, description: dict[str, Any]) -> Model:
        version = description.get("version")
        if type(version) is not int or version < 1:
            raise FormatError(
                f"its version is {cut(repr(version))}", expected="a whole number from 1"
            )
        if version > VERSION:
            raise UnsupportedError(
                f"is written in version {cut(version)} of the native format",
                expected=f"version {VERSION}, all that this ifgo reads",
                hint="Install a newer ifgo",
            )
        if set(description) != {"version", "sha256", "model"}:
            raise FormatError(
                f"the description has {listed(sorted(description))}",
                expected="version, sha256 and model",
            )
        if description["sha256"] != _digest(description["model"]):
            raise FormatError("the description does not match its checksum", hint=_json.DAMAGED)
        model = decode(description["model"], self.take)
        if self.left:
            names = listed(map(quote, sorted(self.left)))
            raise FormatError(f"the model does not use tensor {names}", expected="no other tensors")
        return model

    def take(self, place: str, checksum: str) -> Array:
        entry = self.left.pop(place, None)
        if entry is None:
            raise FormatError(f"tensor {place!r} is missing", hint=_json.DAMAGED)
        dtype, shape, data = entry["dtype"], tuple(entry["shape"]), bytes(entry["data"])
        if _checksum(dtype, shape, data) != checksum:
            raise FormatError(f"tensor {place!r} does not match its checksum", hint=_json.DAMAGED)
        return np.frombuffer(data, dtype_of(dtype, place)).reshape(shape)


def _checksum(dtype: str, shape: tuple[int, ...], data: bytes) -> str:
    digest = hashlib.sha256(f"{dtype} {list(shape)}\n".encode())
    digest.update(data)
    return digest.hexdigest()


def _digest(tree: Any) -> str:
    """sha256 of the canonical text: sorted keys, no spaces, ASCII, shortest exact numbers."""
    try:
        text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise FormatError("the description nests too deep") from None
    return hashlib.sha256(text.encode()).hexdigest()
