"""What only ifgo's own files can suffer: JSON that lies, under checksums that are right."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corpus import Format, Mutant, model

import ifgo


def intact(folder: Path) -> Path:
    ifgo.save(model(), folder / "m.ifgo")
    return folder / "m.ifgo"


def _parts(folder: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header without its metadata, the model's description, and the numbers."""
    data = intact(folder).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    description = json.loads(header.pop("__metadata__")["ifgo"])
    return header, description["model"], data[8 + length :]


def _file(header: dict[str, Any], tree: Any, numbers: bytes) -> bytes:
    """A file whose checksums hold."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    said = json.dumps({"version": 1, "sha256": digest, "model": tree})
    whole = json.dumps({"__metadata__": {"ifgo": said}, **header}).encode()
    whole += b" " * (-len(whole) % 8)
    return struct.pack("<Q", len(whole)) + whole + numbers


def _checked(header: dict[str, Any], tree: Any, numbers: bytes) -> None:
    """Puts the checksums of the tensors into `tree`."""

    def found(place: str) -> str:
        entry = header[place]
        start, end = entry["data_offsets"]
        said = f"{entry['dtype']} {list(entry['shape'])}\n".encode()
        return hashlib.sha256(said + numbers[start:end]).hexdigest()

    cell, dense = tree["layers"][0]["forward"], tree["layers"][2]
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        cell[name] = found(f"layers[0].forward.{name}")
    for name in ("weight", "bias"):
        dense[name] = found(f"layers[2].{name}")


Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def _tree(path: str, value: Any) -> Change:
    """`value` at a dotted path of the description."""

    def change(header: dict[str, Any], tree: dict[str, Any]) -> None:
        owner: Any = tree
        *parts, last = path.split(".")
        for part in parts:
            owner = owner[int(part)] if part.isdigit() else owner[part]
        owner[int(last) if last.isdigit() else last] = value

    return change


def _tensor(name: str, value: Any, place: str = "layers[0].forward.weight_ih") -> Change:
    def change(header: dict[str, Any], tree: dict[str, Any]) -> None:
        header[place][name] = value

    return change


def _more(count: int) -> Change:
    def change(header: dict[str, Any], tree: dict[str, Any]) -> None:
        for k in range(count):
            header[f"t{k}"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}

    return change


def _layers(count: int) -> Change:
    def change(header: dict[str, Any], tree: dict[str, Any]) -> None:
        drop = {"class": "Dropout", "name": "d", "rate": 0.5}
        tree["layers"] = tree["layers"][:1] + [drop | {"name": f"d{k}"} for k in range(count)]

    return change


def _residuals(depth: int) -> Change:
    def change(header: dict[str, Any], tree: dict[str, Any]) -> None:
        layer = tree["layers"][0]
        for k in range(depth):
            layer = {"class": "Residual", "name": f"r{k}", "layers": [layer]}
        tree["layers"][0] = layer

    return change


LIES: dict[str, Change] = {
    "shape beyond 64 bits": _tensor("shape", [2**40, 2**40]),
    "shape of 2**63": _tensor("shape", [2**63 - 1, 3]),
    "shape of 10**400": _tensor("shape", [10**400]),
    "negative shape": _tensor("shape", [-8, -3]),
    "shape of a thousand axes": _tensor("shape", [1] * 1000),
    "offsets beyond the end": _tensor("data_offsets", [0, 2**60]),
    "offsets backwards": _tensor("data_offsets", [64, 0]),
    "offsets over another": _tensor("data_offsets", [0, 96]),
    "dtype I64": _tensor("dtype", "I64"),
    "dtype F8": _tensor("dtype", "F8_E4M3"),
    "dtype of 10 kB": _tensor("dtype", "F" * 10_000),
    "dtype as number": _tensor("dtype", 1),
    "tensors without end": _more(15_000),
    "other class": _tree("layers.0.class", "Popen"),
    "class of a path": _tree("layers.0.class", "os.system"),
    "class as list": _tree("layers.0.class", ["Recurrent"]),
    "model as list": _tree("layers", {}),
    "layers without end": _layers(5_000),
    "residuals in residuals": _residuals(250),
    "a few residuals": _residuals(20),
    "input of 2**62": _tree("inputs.0.size", 2**62),
    "input of 10**400": _tree("inputs.0.size", 10**400),
    "input of -1": _tree("inputs.0.size", -1),
    "input of 1e308": _tree("inputs.0.size", 1e308),
    "no inputs": _tree("inputs", []),
    "inputs without end": _tree("inputs", [{"class": "FeatureInput", "size": 3}] * 10_000),
    "outputs without end": _tree("outputs", [{"class": "Output", "role": "last"}] * 10_000),
    "forget_bias NaN": _tree("layers.0.forward.forget_bias", "NaN"),
    "forget_bias 1e400": _tree("layers.0.forward.forget_bias", 10**400),
    "clip -1": _tree("layers.0.forward.clip_z", -1.0),
    "activation exec": _tree("layers.0.forward.activations.0.name", "__import__"),
    "activations without end": _tree(
        "layers.0.forward.activations",
        [{"class": "Activation", "name": "tanh", "alpha": None, "beta": None}] * 5_000,
    ),
    "names without end": _tree("provenance.names", {f"k{k}": "v" for k in range(20_000)}),
    "notes without end": _tree("provenance.notes", ["n" * 100] * 5_000),
    "a name of 500 kB": _tree("layers.0.name", "n" * 500_000),
    "checksum as number": _tree("layers.0.forward.weight_ih", 1),
    "nothing": _tree("layers.0.forward", None),
}


def _lie(change: Change) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        header, tree, numbers = _parts(folder)
        change(header, tree)
        (folder / "m.ifgo").write_bytes(_file(header, tree, numbers))
        return folder / "m.ifgo"

    return write


def _filled(part: bytes) -> Callable[[Path], Path]:
    """Every number the same four bytes, with checksums that hold."""

    def write(folder: Path) -> Path:
        header, tree, numbers = _parts(folder)
        numbers = part * (len(numbers) // 4)
        _checked(header, tree, numbers)
        (folder / "m.ifgo").write_bytes(_file(header, tree, numbers))
        return folder / "m.ifgo"

    return write


def _header(text: bytes, length: int | None = None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        size = len(text) if length is None else length
        (folder / "m.ifgo").write_bytes(struct.pack("<Q", size) + text)
        return folder / "m.ifgo"

    return write


_START = b'{"__metadata__":{"ifgo":"{}"},'
MEBI = 2**20 - 100

HEADERS = {
    "length 2**64-1": _header(_START, 2**64 - 1),
    "length 2**63": _header(_START, 2**63),
    "length 10**8": _header(_START, 10**8),
    "lists in lists": _header(_START + b'"a":' + b"[" * 500_000),
    "objects in objects": _header(_START + b'"a":' + b'{"a":' * 180_000),
    "empty lists": _header(_START + b'"a":[' + b"[]," * (MEBI // 3) + b"0]}"),
    "empty objects": _header(_START + b'"a":[' + b"{}," * (MEBI // 3) + b"0]}"),
    "numbers": _header(_START + b'"a":[' + b"1," * (MEBI // 2) + b"0]}"),
    "a number of a million digits": _header(_START + b'"a":' + b"9" * MEBI + b"}"),
    "a float of a million digits": _header(_START + b'"a":0.' + b"9" * MEBI + b"}"),
    "one key again and again": _header(_START + b'"a":1,' * (MEBI // 6) + b'"a":1}'),
    "metadata twice": _header(_START + b'"__metadata__":{"ifgo":"{}"}}'),
    "metadata of lists": _header(b'{"__metadata__":[["ifgo"]]}' + b" " * 99),
    "metadata as number": _header(b'{"__metadata__":1,"ifgo":1}' + b" " * 99),
    "description in depth": _header(
        b'{"__metadata__":{"ifgo":"' + b"[" * 500_000 + b'"}}' + b" " * 99
    ),
    "description of one string": _header(
        b'{"__metadata__":{"ifgo":"' + b"\\u0000" * 150_000 + b'"}}'
    ),
    "NaN": _header(b'{"__metadata__":{"ifgo":"{\\"version\\":NaN}"}}'),
    "UTF-16": _header('{"__metadata__":{"ifgo":"{}"}}'.encode("utf-16")),
    "byte order mark": _header(b"\xef\xbb\xbf" + _START[:-1] + b"}"),
    "lone surrogates": _header(b'{"__metadata__":{"ifgo":"\\ud800"}}'),
    "version 2**63": _header(b'{"__metadata__":{"ifgo":"{\\"version\\":9223372036854775808}"}}'),
    "version of many digits": _header(
        b'{"__metadata__":{"ifgo":"{\\"version\\":' + b"9" * 5000 + b'}"}}'
    ),
}


def crafted() -> Iterator[Mutant]:
    """Everything in this file."""
    for name, change in LIES.items():
        yield Mutant(f"lie: {name}", _lie(change))
    for name, write in HEADERS.items():
        yield Mutant(f"header: {name}", write)
    for name, part in {
        "NaN": b"\0\0\xc0\x7f",
        "infinity": b"\0\0\x80\x7f",
        "the other byte order": b"\x3f\x80\0\0",
        "denormals": b"\1\0\0\0",
    }.items():
        yield Mutant(f"numbers: {name}", _filled(part))


def named(folder: Path, name: str) -> Path:
    """The intact model with `name` in every place that takes one."""
    header, tree, numbers = _parts(folder)
    tree["layers"][0]["name"] = f"{name} 0"
    tree["layers"][1]["name"] = f"{name} 1"
    tree["inputs"][0]["name"] = f"{name} x"
    tree["outputs"][0]["name"] = f"{name} y"
    places = {"layers[0].forward.weight_ih": name, name: name}
    tree["provenance"] |= {
        "framework": name,
        "version": name,
        "path": name,
        "notes": [name],
        "names": places,
    }
    (folder / "m.ifgo").write_bytes(_file(header, tree, numbers))
    return folder / "m.ifgo"


NATIVE = Format("native", intact, crafted)
