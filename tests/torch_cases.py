"""A .pt file by hand, opcode by opcode and member by member, as torch.save writes it."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int8": "CharStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
}
ORDERED = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def sizes(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def call(name: str, arguments: bytes) -> bytes:
    """What calling `name` ("module.function") with one tuple gives."""
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + arguments + b"R"


def storage(key: str, kind: str, count: int) -> bytes:
    return (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
        + number(count) + b"tQ"
    )  # fmt: skip


def view(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """The call that makes a tensor."""
    parts = stored + number(offset) + sizes(shape) + sizes(strides) + b"\x89" + ORDERED
    return call("torch._utils._rebuild_tensor_v2", b"(" + parts + b"t")


def table(entries: dict[str, bytes], *, ordered: bool = True, metadata: bytes = b"") -> bytes:
    """A dict of pickled values; metadata: a pickled dict that it has as _metadata."""
    whole = b"(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"
    state = b"}" + text("_metadata") + metadata + b"sb" if metadata else b""
    return (ORDERED if ordered else b"}") + whole + state


def tensors(arrays: dict[str, Any]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Pickled tensors by key, and the members that hold their numbers."""
    entries: dict[str, bytes] = {}
    members: dict[str, bytes] = {}
    for k, (key, array) in enumerate(arrays.items()):
        kind = KINDS[array.dtype.name]
        strides = tuple(
            step // array.itemsize for step in np.empty(array.shape, array.dtype).strides
        )
        entries[key] = view(storage(str(k), kind, array.size), 0, array.shape, strides)
        members[f"data/{k}"] = array.tobytes()
    return entries, members


def pack(
    members: dict[str, bytes], *, folder: str = "archive", method: int = zipfile.ZIP_STORED
) -> bytes:
    """The zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{folder}/{name}", data)
    return stream.getvalue()


def whole(pickle: bytes, members: dict[str, bytes], **options: Any) -> bytes:
    """A file of a pickle without its frame, and the members beside it."""
    first = {"data.pkl": b"\x80\x02" + pickle + b".", "byteorder": b"little"}
    return pack(first | members | {"version": b"3\n"}, **options)


def state_dict(arrays: dict[str, Any]) -> bytes:
    entries, members = tensors(arrays)
    return whole(table(entries), members)


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def lstm(prefix: str = "", inputs: int = 3, hidden: int = 2, dtype: Any = "f") -> dict[str, Any]:
    """The tensors of an nn.LSTM of one layer."""
    rng = np.random.default_rng(0)
    shapes = {
        "weight_ih_l0": (4 * hidden, inputs),
        "weight_hh_l0": (4 * hidden, hidden),
        "bias_ih_l0": (4 * hidden,),
        "bias_hh_l0": (4 * hidden,),
    }
    return {prefix + k: rng.normal(size=shape).astype(dtype) for k, shape in shapes.items()}
