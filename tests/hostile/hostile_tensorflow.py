"""What only a GraphDef can suffer: loops that never end, constants that lie, names of nodes."""

from __future__ import annotations

import struct
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from corpus import NAMES, Format, Mutant
from hostile_protobuf import renamed

sys.path.append(str(Path(__file__).resolve().parents[1] / "formats"))
from tensorflow_cases import Def, draw_cell, dynamic_rnn

from ifgo.errors import IfgoError
from ifgo.formats.tensorflow.bundle import Bundle
from ifgo.formats.tensorflow.crc import crc32c, masked
from ifgo.formats.tensorflow.file import message

HEADER = message("BundleHeader")(num_shards=1).SerializeToString()

ARCHIVE = Path(__file__).resolve().parents[1] / "formats" / "tensorflow_models.tar.xz"


def _whole(name: str = "x") -> Def:
    d = Def()
    x = d.node(name, "Placeholder", dtype=1, shape=(-1, -1, 3))
    outputs, _ = dynamic_rnn(d, [draw_cell(0)], x)
    d.node("y", "Identity", outputs)
    return d


def intact(folder: Path) -> Path:
    return _whole().save(folder / "m.pb")


def _changed(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        d = _whole()
        change(d)
        return d.save(folder / "m.pb")

    return write


def _find(d: Any, name: str) -> Any:
    return next(node for node in d.graph.node if node.name == name.encode())


def _input(name: str, *inputs: str) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        node = _find(d, name)
        del node.input[:]
        node.input.extend(i.encode() for i in inputs)

    return change


def _shape(name: str, *sizes: int) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        tensor = _find(d, name).attr[0].value.tensor
        del tensor.shape.dim[:]
        for size in sizes:
            tensor.shape.dim.add(size=size)

    return change


def _repeated(count: int, size: int) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        for k in range(count):
            d.constant(f"k{k}", 1.0)
            _shape(f"k{k}", size)(d)
            tensor = _find(d, f"k{k}").attr[0].value.tensor
            tensor.content = b""
            tensor.float_val.append(1.0)

    return change


def _chain(op: str, count: int) -> Callable[[Any], None]:
    """What a gate takes is `count` operators long."""

    def change(d: Any) -> None:
        before = "w/cell0/split"
        for k in range(count):
            inputs = (before,) if op == "Identity" else (before, before)
            before = d.node(f"deep{k}", op, *inputs)
        _input("w/cell0/i", before)(d)

    return change


def _many(count: int) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        for k in range(count):
            d.node(f"n{k}", "Sigmoid", "y")

    return change


def _frames(count: int) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        zero = d.constant("z", np.zeros(1, "f"))
        for k in range(count):
            enter = d.node(f"e{k}", "Enter", zero, frame_name=b"rnn/while")
            merge = d.node(f"m{k}", "Merge", enter, f"t{k}")
            switch = d.node(f"s{k}", "Switch", merge, "w/LoopCond")
            d.node(f"t{k}", "NextIteration", d.node(f"g{k}", "Identity", f"{switch}:1"))

    return change


CASES: dict[str, Callable[[Any], None]] = {
    "takes itself": _input("y", "y"),
    "takes nothing": _input("y"),
    "takes a stranger": _input("y", "nobody"),
    "a step without a sum": _input("w/cell0/add_1", "w/cell0/mul"),
    "two nodes that take each other": _input("w/cell0/mul_2", "w/cell0/o", "w/h0/Next"),
    "an empty constant": _shape("w/cell0/bias", 0),
    "a huge constant": _shape("w/cell0/bias", 2**31, 2**31),
    "a negative constant": _shape("w/cell0/bias", -5),
    "repeated constants": _repeated(2000, 2**18),
    "one repeated constant": _repeated(1, 2**27),
    "identities without end": _chain("Identity", 5000),
    "sums without end": _chain("Add", 5000),
    "products without end": _chain("Mul", 5000),
    "nodes without end": _many(30_000),
    "nodes almost without end": _many(15_000),
    "states in one loop": _frames(60),
    "states without end": _frames(3000),
}


def crafted() -> Iterator[Mutant]:
    for name, change in CASES.items():
        yield Mutant(f"tensorflow: {name}", _changed(change))
    for name, text in NAMES.items():
        safe = text.encode(errors="surrogatepass").decode("utf-8", "replace")
        yield Mutant(
            f"tensorflow: input, {name}", lambda folder, n=safe: _whole(n).save(folder / "m.pb")
        )


def named(folder: Path, name: str) -> Path:
    """Every node of the cell, and the input, called after `name`."""
    path = _whole("input").save(folder / "m.pb")
    said = name.encode(errors="surrogatepass")
    data = renamed(path.read_bytes(), b"w/cell0", said)
    path.write_bytes(renamed(data, b"input", b"i" + said))
    return path


TENSORFLOW = Format("tensorflow", intact, crafted)


# -- SavedModel folders -----------------------------------------------------------------------


def saved(folder: Path) -> Path:
    """One that TensorFlow wrote."""
    target = folder / "m"
    with tarfile.open(ARCHIVE) as archive:
        for member in archive.getmembers():
            if member.name.startswith("lstm_last_dense/"):
                content = archive.extractfile(member)
                assert content is not None
                path = target / member.name.partition("/")[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
    return target


def _meta(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = saved(folder) / "saved_model.pb"
        model = message("SavedModel").FromString(path.read_bytes())
        change(model.meta_graphs[0])
        path.write_bytes(model.SerializeToString())
        return path.parent

    return write


def _calls(change: Callable[[Any, Any], None]) -> Callable[[Any], None]:
    """What every call of a function calls instead."""

    def apply(meta: Any) -> None:
        library = meta.graph_def.library.function
        for k, stored in enumerate(library):
            function = message("FunctionDef").FromString(stored)
            for node in function.node_def:
                for entry in node.attr:
                    if entry.key in (b"f", b"body", b"cond"):
                        change(function, entry.value.func)
            library[k] = function.SerializeToString()

    return apply


def _itself(function: Any, called: Any) -> None:
    called.name = function.signature.name


def _nobody(function: Any, called: Any) -> None:
    called.name = b"nobody"


def _doubling(meta: Any) -> None:
    """Each function calls the one before it twice."""
    for k in range(40):
        function = message("FunctionDef")()
        function.signature.name = f"twice{k}".encode()
        for name in (b"a", b"b"):
            node = function.node_def.add(name=name, op=b"PartitionedCall")
            node.attr.add(key=b"f").value.func.name = f"twice{k - 1}".encode()
        meta.graph_def.library.function.append(function.SerializeToString())
    _calls(lambda _, called: setattr(called, "name", b"twice39"))(meta)


def _index(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    """The entry of every variable changed, in an index whose checksums fit."""

    def write(folder: Path) -> Path:
        target = saved(folder)
        path = target / "variables" / "variables.index"
        entries = entries_of(path.read_bytes())
        for key, value in entries.items():
            if key:
                entry = message("BundleEntry").FromString(value)
                change(entry)
                entries[key] = entry.SerializeToString()
        path.write_bytes(table_of(entries))
        return target

    return write


def entries_of(data: bytes) -> dict[bytes, bytes]:
    """What an index of variables holds, its header under the empty key; nothing where damaged."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "variables" / "variables.index"
        path.parent.mkdir()
        path.write_bytes(data)
        try:
            return {b"": HEADER, **Bundle(path.with_suffix("")).entries}
        except IfgoError:
            return {}


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def table_of(entries: dict[bytes, bytes]) -> bytes:
    """A LevelDB table of one block."""

    def block(pairs: dict[bytes, bytes]) -> bytes:
        data = b"".join(
            b"\0" + _varint(len(key)) + _varint(len(value)) + key + value
            for key, value in pairs.items()
        )
        data += struct.pack("<II", 0, 1)
        return data + struct.pack("<BI", 0, masked(crc32c(data + b"\0")))

    first = block(entries)
    handle = _varint(0) + _varint(len(first) - 5)
    second = block({b"~": handle})
    footer = b"\0\0" + _varint(len(first)) + _varint(len(second) - 5)
    magic = 0xDB4775248B80FB57
    return first + second + footer.ljust(40, b"\0") + struct.pack("<Q", magic)


def _sizes(*sizes: int) -> Callable[[Any], None]:
    def change(entry: Any) -> None:
        del entry.shape.dim[:]
        for size in sizes:
            entry.shape.dim.add(size=size)

    return change


def _field(name: str, value: int) -> Callable[[Any], None]:
    return lambda entry: setattr(entry, name, value)


def _linked(folder: Path) -> Path:
    """The numbers are a link out of the folder."""
    target = saved(folder)
    path = target / "variables" / "variables.data-00000-of-00001"
    path.unlink()
    path.symlink_to("/etc/hostname")
    return target


SAVED: dict[str, Callable[[Path], Path]] = {
    "functions that call themselves": _meta(_calls(_itself)),
    "functions that are not there": _meta(_calls(_nobody)),
    "calls that double": _meta(_doubling),
    "a variable of another part": _index(_field("shard_id", 7)),
    "a variable of part -1": _index(_field("shard_id", -1)),
    "a variable before its file": _index(_field("offset", -8)),
    "a variable behind its file": _index(_field("offset", 2**62)),
    "a variable of negative length": _index(_field("size", -4)),
    "a variable of endless length": _index(_field("size", 2**62)),
    "a huge variable": _index(_sizes(2**31, 2**31)),
    "a variable of size -1": _index(_sizes(-1)),
    "a variable of text": _index(_field("dtype", 7)),
    "numbers elsewhere": _linked,
}


def saved_crafted() -> Iterator[Mutant]:
    for name, write in SAVED.items():
        yield Mutant(f"SavedModel: {name}", write)


def saved_named(folder: Path, name: str) -> Path:
    """The input, and every node of the layers, called after `name`."""
    path = saved(folder) / "saved_model.pb"
    said, data = name.encode(errors="surrogatepass"), path.read_bytes()
    for old in (b"lstm", b"dense_1", b"keras_tensor"):
        data = renamed(data, old, said + b" " + old[:1])
    path.write_bytes(data)
    return path.parent


SAVED_MODEL = Format("saved_model", saved, saved_crafted)
