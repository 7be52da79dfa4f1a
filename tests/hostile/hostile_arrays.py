"""What only dumped arrays can suffer: sheets that lie, pickles that would run, bombs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from corpus import MARK, NAMES, Format, Mutant
from hostile_dlfs2 import CASES as PICKLES

SHEET = """version = 1

[[layer]]
kind = "lstm"
name = "lstm0"
order = "ifgo"
orientation = "rows"
bias = "one"
forget_bias = "stored"

[layer.forward]
weight_ih = "w"
weight_hh = "r"
bias_ih = "b"
"""
DECLARED = "".join(
    f'[[array]]\nname = "{name}"\nshape = {shape}\n'
    for name, shape in (("w", [8, 3]), ("r", [8, 2]), ("b", [8]))
)


def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3), "r": (8, 2), "b": (8,)}
    return {k: rng.uniform(-0.5, 0.5, shape).astype("f") for k, shape in shapes.items()}


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _pair(
    sheet: str | bytes = SHEET, data: bytes | None = None, name: str = "m.npz"
) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(_npz(_arrays()) if data is None else data)
        text = sheet.encode(errors="surrogatepass") if isinstance(sheet, str) else sheet
        path.with_suffix(".toml").write_bytes(text)
        return path

    return write


def intact(folder: Path) -> Path:
    return _pair()(folder)


def pickled(folder: Path) -> Path:
    """The intact arrays as a pickle."""
    return _pair(data=pickle.dumps(_arrays(), 3), name="m.pkl")(folder)


def json_lists(folder: Path) -> Path:
    """The intact arrays as JSON."""
    lists = {name: array.tolist() for name, array in _arrays().items()}
    return _pair(data=json.dumps(lists).encode(), name="m.json")(folder)


def _swap(old: str, new: str) -> Callable[[Path], Path]:
    assert old in SHEET
    return _pair(SHEET.replace(old, new, 1))


def _bomb(count: int) -> bytes:
    """Zeros that unpack to a thousand times their size."""
    buffer = io.BytesIO()
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (count,)}
    )
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.npy", head.getvalue() + bytes(4 * count))
    return buffer.getvalue()


def _objects(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([value], object), allow_pickle=True)
    return buffer.getvalue()


_STARS = SHEET.replace('"w"', '"*w*"').replace('"r"', '"*r*"')


def named(folder: Path, name: str) -> Path:
    """The layer and its arrays, those of a JSON, called after `name`."""
    sheet, arrays = SHEET, {}
    for old in ("lstm0", "w", "r", "b"):
        spelled = "".join(f"\\U{ord(char):08x}" for char in f"{name} {old}")
        sheet = sheet.replace(f'"{old}"', f'"{spelled}"')
    for old, array in _arrays().items():
        arrays[f"{name} {old}"] = array.tolist()
    return _pair(sheet, json.dumps(arrays).encode(), "m.json")(folder)


CASES: dict[str, Callable[[Path], Path]] = {
    "megabytes of sheet": _pair(SHEET + "#" * 2**23),
    "layers without end": _pair("version = 1\n" + SHEET[SHEET.index("[[") :] * 500),
    "layers without arrays": _pair(
        SHEET + '[[layer]]\nkind = "hidden_as_sequence"\nname = "h"\n' * 2500
    ),
    "a repeat of what has no end": _pair(
        SHEET.replace('"w"', '"{n}*"')
        .replace('"r"', '"{n+1}*"')
        .replace('"b"', '"{n+9999}*"')
        .replace('name = "lstm0"', 'name = "lstm{n}"\nrepeat = 0'),
        _npz({str(k): np.zeros(1, "f") for k in range(1000)}),
    ),
    "repeat 10**18": _swap('name = "lstm0"', 'name = "lstm{n}"\nrepeat = 1000000000000000000'),
    "{n+many digits}": _swap('"w"', '"w{n+99999999}"'),
    "stars without end": _pair(
        SHEET.replace('"w"', '"' + "*a" * 20_000 + '"'),
        _npz({"a" * 200 + str(k): np.zeros(1, "f") for k in range(500)}),
    ),
    "stars for every gate": _pair(
        _STARS.replace('"*w*"', str(["*a*" * 500] * 4).replace("'", '"')),
        _npz({"a" * 200 + str(k): np.zeros(1, "f") for k in range(1000)}),
    ),
    "shape of 2**62": _pair(SHEET + DECLARED.replace("[8, 3]", f"[{2**62}]"), name="m.bin"),
    "shape of many sizes": _pair(
        SHEET + DECLARED.replace("[8, 3]", str([2**28] * 9000)), name="m.bin"
    ),
    "arrays without end": _pair(
        SHEET + '[[array]]\nname = "w"\nshape = [1]\n' * 3000, bytes(12_000), "m.bin"
    ),
    "forget bias inf": _swap('"stored"', "inf"),
    "forget bias nan": _swap('"stored"', "nan"),
    "forget bias of many digits": _swap('"stored"', "9" * 4000),
    "clip inf": _swap('bias = "one"', 'bias = "one"\nclip_z = inf'),
    "a table for a name": _swap('"w"', '{ a = "w" }'),
    "input size -1": _swap("version = 1", "version = 1\n[input]\nsize = -1"),
    "input size 10**18": _swap("version = 1", f"version = 1\n[input]\nsize = {10**18}"),
    "all names alike": _pair(SHEET.replace('"r"', '"w"')),
    "UTF-16": _pair(SHEET.encode("utf-16")),
    "dotted keys": _pair(SHEET + ".".join(["a"] * 40_000) + " = 1"),
    "brackets": _pair(SHEET + "x = " + "[" * 60_000),
    "NaN": _pair(data=_npz(_arrays() | {"b": np.full(8, np.nan, "f")})),
    "infinity": _pair(data=_npz(_arrays() | {"b": np.full(8, np.inf, "f")})),
    "complex": _pair(data=_npz(_arrays() | {"b": np.zeros(8, complex)})),
    "strings": _pair(data=_npz(_arrays() | {"b": np.array(["a"] * 8)})),
    "times": _pair(data=_npz(_arrays() | {"b": np.zeros(8, "M8[s]")})),
    "no dimension": _pair(data=_npz(_arrays() | {"w": np.float32(1)})),
    "no elements": _pair(data=_npz(_arrays() | {"w": np.zeros((0, 8), "f")})),
    "a zip bomb": _pair(data=_bomb(2**26)),
    "a zip bomb below the bound": _pair(data=_bomb(2**21)),
    "objects in an npz": _pair(data=_npz(_arrays() | {"b": np.array([None] * 8, object)})),
    "binary of noise": _pair(SHEET + DECLARED, np.random.default_rng(1).bytes(192), "m.bin"),
    "text of noise": _pair(SHEET + DECLARED, np.random.default_rng(1).bytes(192), "m.txt"),
    "text without end": _pair(SHEET + DECLARED, b"1 " * 2**22, "m.txt"),
    "text of NaN": _pair(SHEET + DECLARED, b"nan " * 48, "m.txt"),
    "binary without end": _pair(SHEET + DECLARED, bytes(2**24), "m.bin"),
    "an object of objects": _pair(data=_objects([[[[{"a": [{}] * 100}]]]]), name="m.npy"),
    "lists in lists": _pair(data=b"\x80\x03" + b"]" * 60_000 + b"a" * 59_999 + b".", name="m.pkl"),
    "doubling dicts": _pair(
        data=b"\x80\x03}" + b"q\x01}(K\x01h\x01K\x02h\x01u" * 60 + b".", name="m.pkl"
    ),
    "a dict of itself": _pair(data=b"\x80\x03}q\x00K\x01h\x00s.", name="m.pkl"),
    "an object that is its own state": _pair(data=b"\x80\x03ca\nb\n)Rq\x00h\x00b.", name="m.pkl"),
    "an array of itself": _pair(
        data=b"\x80\x03cnumpy.core.multiarray\n_reconstruct\nq\x00)Rq\x01(K\x01h\x01h\x01\x89h\x01tb.",
        name="m.pkl",
    ),
    "JSON of NaN": _pair(data=b'{"w": [NaN, Infinity]}', name="m.json"),
    "JSON of 1e999": _pair(data=b'{"w": [1e999]}', name="m.json"),
    "JSON in JSON": _pair(data=b'{"w": ' + b"[" * 10**6, name="m.json"),
    "JSON of lists": _pair(data=b'{"w": [' + b"[]," * 10**6 + b"[]]}", name="m.json"),
    "JSON of numbers": _pair(data=b'{"w": [' + b"1," * 2**22 + b"1]}", name="m.json"),
    "JSON of one long number": _pair(data=b'{"w": [' + b"1" * 2**22 + b"]}", name="m.json"),
    "JSON of long keys": _pair(
        data=b'{"' + b"k" * 2**20 + b'": {"' + b"l" * 2**20 + b'": [1]}}', name="m.json"
    ),
    "JSON of objects": _pair(data=b'{"w": [' + b'{"a":1},' * 30_000 + b"{}]}", name="m.json"),
    "JSON of a key twice": _pair(data=b'{"w": [1], "w": [2]}', name="m.json"),
    "JSON of a lying shape": _pair(
        data=b'{"w": {"shape": [1e400, -1], "data": [1]}}', name="m.json"
    ),
    "JSON of a shape of 2**62": _pair(
        data=b'{"w": {"shape": [4611686018427387904, 4], "data": [1]}}', name="m.json"
    ),
    "JSON of strings": _pair(data=b'{"w": [1, "a", null, true]}', name="m.json"),
    "a long key": _pair(data=pickle.dumps({"k" * 2**20: np.zeros(8, "f")}, 3), name="m.pkl"),
}


def crafted() -> Iterator[Mutant]:
    """Everything in this file, the pickles of another format, and names."""
    for name, write in CASES.items():
        yield Mutant(f"arrays: {name}", write)
    for name, data in PICKLES.items():
        yield Mutant(f"arrays: {name}", _pair(data=data, name="m.pkl"))
        whole = _objects(None)
        start = 10 + int.from_bytes(whole[8:10], "little")
        yield Mutant(f"arrays: npy, {name}", _pair(data=whole[:start] + data, name="m.npy"))
    for name, text in NAMES.items():
        assert MARK in text
        for what in ("lstm0", "w"):
            spelled = "".join(f"\\U{ord(char):08x}" for char in text)
            yield Mutant(f"arrays: {what}, {name}", _swap(f'"{what}"', f'"{spelled}"'))


ARRAYS = Format("arrays", intact, crafted)
