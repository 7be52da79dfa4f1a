"""What only ONNX files can suffer: graphs that lie, data kept outside the file, bound arrays."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_protobuf
import numpy as np
from corpus import Format, Mutant
from hostile_graphs import LIES, STATES, intact, proto, saved
from onnx import TensorProto, external_data_helper, helper

# -- data outside -----------------------------------------------------------------------------


def _outside(prepare: Callable[[Path], Any] | None = None, **entry: Any) -> Callable[[Path], Path]:
    """The first weight in a file of its own. prepare(folder) may put something else there."""

    def write(folder: Path) -> Path:
        made = proto()
        tensor = next(t for t in made.graph.initializer if len(t.raw_data) == 96)
        place = folder / "weights.bin"
        place.write_bytes(tensor.raw_data)
        if prepare is not None:
            place.unlink()
            prepare(folder)
        fields = {"location": "weights.bin"} | entry
        external_data_helper.set_external_data(tensor, "x")
        del tensor.external_data[:]
        for key, value in fields.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.ClearField("raw_data")
        (folder / "m.onnx").write_bytes(made.SerializeToString())
        return folder / "m.onnx"

    return write


def secret(folder: Path) -> Path:
    """A file outside the model's folder that would fit."""
    place = folder.parent / "secret.bin"
    place.write_bytes(bytes(96))
    return place


def _link(folder: Path) -> None:
    (folder / "weights.bin").symlink_to(secret(folder))


def _linked_folder(folder: Path) -> None:
    secret(folder)
    (folder / "sub").symlink_to("..", target_is_directory=True)


def _linked_to_itself(folder: Path) -> None:
    (folder / "weights.bin").symlink_to("weights.bin")


OUTSIDE: dict[str, Callable[[Path], Path]] = {
    "whole": _outside(),
    "absolute": _outside(secret, location="/etc/passwd"),
    "upwards": _outside(secret, location="../secret.bin"),
    "down and upwards": _outside(secret, location="sub/../../secret.bin"),
    "a link": _outside(_link),
    "a linked folder": _outside(_linked_folder, location="sub/secret.bin"),
    "a link to itself": _outside(_linked_to_itself),
    "nothing": _outside(lambda folder: None),
    "the folder": _outside(location="."),
    "the model itself": _outside(location="m.onnx"),
    "an empty name": _outside(location=""),
    "a NUL": _outside(location="weights.bin\0"),
    "a name of 10 kB": _outside(location="a" * 10_000),
    "a URL": _outside(location="file:///etc/passwd"),
    "a pipe": _outside(lambda folder: os.mkfifo(folder / "weights.bin")),
    "a device": _outside(lambda folder: (folder / "weights.bin").symlink_to("/dev/zero")),
    "the device itself": _outside(location="/dev/zero"),
    "a folder": _outside(lambda folder: (folder / "weights.bin").mkdir()),
    "offset 2**62": _outside(offset=2**62),
    "offset 10**30": _outside(offset=10**30),
    "offset of 5000 digits": _outside(offset="9" * 5000),
    "offset -1": _outside(offset=-1),
    "offset one": _outside(offset="one"),
    "length 2**62": _outside(length=2**62),
    "length 0": _outside(length=0),
    "length -96": _outside(length=-96),
    "checksum": _outside(checksum="0" * 40),
    "short": _outside(lambda folder: (folder / "weights.bin").write_bytes(bytes(95))),
    "sparse": _outside(lambda folder: os.truncate(_touched(folder), 2**40)),
}


def _touched(folder: Path) -> Path:
    (folder / "weights.bin").write_bytes(b"")
    return folder / "weights.bin"


# -- bind -------------------------------------------------------------------------------------


def _unbound(folder: Path) -> Path:
    """The first weight as an input of the graph."""
    made = proto()
    tensor = next(t for t in made.graph.initializer if len(t.raw_data) == 96)
    info = helper.make_tensor_value_info("w", TensorProto.FLOAT, list(tensor.dims))
    for node in made.graph.node:
        node.input[:] = ["w" if name == tensor.name else name for name in node.input]
    made.graph.input.append(info)
    made.graph.initializer.remove(tensor)
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    return folder / "m.onnx"


def _binding(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "w.npz", w=np.ones((1, 8, 3), np.float32))
        (folder / "w.npz").write_bytes(change((folder / "w.npz").read_bytes()))
        return _unbound(folder)

    return write


def _zipped(compression: int, **members: bytes) -> Callable[[bytes], bytes]:
    def change(_: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(f"{name}.npy", data)
        return stream.getvalue()

    return change


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


_OF = "{{'descr': '{}', 'fortran_order': False, 'shape': {}}}"
_PACKED = zipfile.ZIP_DEFLATED
BINDS: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda data: data,
    "cut": lambda data: data[:-30],
    "no file": lambda data: b"",
    "a bomb of zeros": _zipped(_PACKED, w=npy(_OF.format("<f4", "(67108864,)"), bytes(2**28))),
    "a bomb of spaces": _zipped(_PACKED, w=b" " * 2**28),
    "a bomb beside it": _zipped(_PACKED, v=bytes(2**28)),
    "2**62 numbers": _zipped(0, w=npy(_OF.format("<f4", f"({2**62},)"))),
    "negative": _zipped(0, w=npy(_OF.format("<f4", "(-1, 24)"), bytes(96))),
    "a pickle": _zipped(0, w=npy(_OF.format("|O", "(1,)"), b"cos\nsystem\n(S'true'\ntR.")),
    "a header that calls": _zipped(0, w=npy("__import__('os').system('true')")),
    "a header in depth": _zipped(0, w=npy("(" * 9000)),
    "members without end": _zipped(0, **{f"m{k}": b"" for k in range(30_000)}),
    "a long name": _zipped(0, **{"n" * 60_000: b""}),
    "bzip2": _zipped(zipfile.ZIP_BZIP2, w=bytes(2**28)),
    "lzma": _zipped(zipfile.ZIP_LZMA, w=bytes(2**27)),
    "NaN": _zipped(0, w=npy(_OF.format("<f4", "(1, 8, 3)"), b"\0\0\xc0\x7f" * 24)),
}


def crafted() -> Iterator[Mutant]:
    """Everything in this file."""
    whole = proto().SerializeToString()
    for name, data in hostile_protobuf.cases(whole):

        def write(folder: Path, data: Callable[[], bytes] = data) -> Path:
            (folder / "m.onnx").write_bytes(data())
            return folder / "m.onnx"

        yield Mutant(f"protobuf: {name}", write)
    for name, change in LIES.items():
        yield Mutant(f"lie: {name}", saved(change))
    for name, write in OUTSIDE.items():
        yield Mutant(f"outside: {name}", write)
        yield Mutant(f"outside, listed: {name}", write, {"list": True}, codes=(2, 3, 4))
    for name, change in {**LIES, **STATES}.items():
        yield Mutant(f"listed: {name}", saved(change), {"list": True}, codes=(2, 3, 4))
    yield Mutant("unbound", _unbound)
    for name, change in BINDS.items():
        yield Mutant(f"bind: {name}", _binding(change), {"bind": "w.npz"}, codes=(2, 3, 4))


# -- names ------------------------------------------------------------------------------------


def named(folder: Path, name: str) -> Path:
    """The intact model with `name` in every place that takes one."""
    name, given = name.replace("\udcff", "\u2021"), name
    made = proto()
    graph = made.graph
    used = {n for node in graph.node for n in (*node.input, *node.output) if n}
    renamed = {old: f"{name} {k}" for k, old in enumerate(sorted(used))}
    for entry in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        entry.name = renamed.get(entry.name, entry.name)
        entry.doc_string = name
    for k, node in enumerate(graph.node):
        node.name = f"{name} node {k}"
        node.doc_string = name
        for names in (node.input, node.output):
            names[:] = [renamed.get(n, n) for n in names]
    for k, axis in enumerate(graph.input[0].type.tensor_type.shape.dim):
        if axis.WhichOneof("value") == "dim_param":
            axis.dim_param = f"{name} {k}"
    graph.name = graph.doc_string = made.doc_string = made.domain = name
    made.producer_name = made.producer_version = name
    made.metadata_props.add(key=name, value=name)
    path = folder / "m.onnx"
    data = made.SerializeToString()
    if name != given:  # bytes that are no UTF-8, which protobuf itself would not write
        data = data.replace("\u2021".encode(), "\udcff".encode(errors="surrogatepass"))
    path.write_bytes(data)
    return path


ONNX = Format("onnx", intact, crafted)
