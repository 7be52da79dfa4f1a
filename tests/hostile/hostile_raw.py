"""What only raw folders can suffer: model.toml, text tensors, and names of files that lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corpus import Format, Mutant, model

import ifgo

ENDINGS = {"bin": "raw", "txt": "raw text"}


def intact(folder: Path, encoding: str = "bin") -> Path:
    ifgo.save(model(), folder / "m", "raw", encoding=encoding)
    return folder / "m"


def _text(folder: Path) -> Path:
    return intact(folder, "txt")


def _toml(change: Callable[[str], str | bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        place = intact(folder) / "model.toml"
        changed = change(place.read_text())
        place.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
        return folder / "m"

    return write


def _swap(old: str, new: str) -> Callable[[Path], Path]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return _toml(change)


def _first(line: str) -> Callable[[Path], Path]:
    return _toml(lambda text: line + "\n" + text)


_LAYER = '\n[[layer]]\nkind = "dropout"\nname = "{}"\nrate = 0.5\n'

TOML: dict[str, Callable[[Path], Path]] = {
    "dotted keys": _first(".".join("a" * 20_000) + " = 1"),
    "dotted keys, quoted": _first(".".join(['"a"'] * 9_000) + " = 1"),
    "dotted keys, apart": _first(" . ".join("a" * 9_000) + " = 1"),
    "dotted table": _first("[" + ".".join("a" * 20_000) + "]"),
    "dotted tables": _first(
        "\n".join(f"[{'.'.join(f'a{k}' for _ in range(7))}]" for k in range(2000))
    ),
    "lists in lists": _first("a = " + "[" * 50_000),
    "tables in tables": _first("a = " + "{a=" * 20_000),
    "a list without end": _first("a = [" + "1," * 50_000 + "]"),
    "keys without end": _first("\n".join(f"k{k} = 1" for k in range(9_000))),
    "tables without end": _toml(lambda text: text + "".join(_LAYER.format(k) for k in range(1800))),
    "empty tables without end": _toml(lambda text: text + "[[layer]]\n" * 12_000),
    "megabytes": _toml(lambda text: text + "#" * 2**22),
    "a string without end": _first('a = """' + "x" * 100_000),
    "escapes": _first('a = "' + "\\u0041" * 20_000 + '"'),
    "an escape beyond Unicode": _swap('"lstm0"', '"\\UFFFFFFFF"'),
    "a surrogate": _swap('"lstm0"', '"\\ud800"'),
    "a number of 5000 digits": _swap("size = 3", "size = " + "9" * 5000),
    "a number of 100000 digits": _swap("size = 3", "size = " + "9" * 100_000),
    "size 2**62": _swap("size = 3", f"size = {2**62}"),
    "size -3": _swap("size = 3", "size = -3"),
    "size 0": _swap("size = 3", "size = 0"),
    "size 3.0": _swap("size = 3", "size = 3.0"),
    "size NaN": _swap("size = 3", "size = nan"),
    "size 4": _swap("size = 3", "size = 4"),
    "a date": _swap("size = 3", "size = 1979-05-27T07:32:00Z"),
    "a key twice": _swap("size = 3", "size = 3\nsize = 3"),
    "a table twice": _toml(lambda text: text + "[input]\n"),
    "version 2": _swap("version = 1", "version = 2"),
    "version 2**70": _swap("version = 1", f"version = {2**70}"),
    "layout C": _swap('layout = "A"', 'layout = "C"'),
    "other kind": _swap('kind = "lstm"', 'kind = "eval"'),
    "kind as list": _swap('kind = "lstm"', 'kind = ["lstm"]'),
    "an unknown key of 50 kB": _first("k" * 50_000 + " = 1"),
    "UTF-16": _toml(lambda text: text.encode("utf-16")),
    "latin-1": _toml(lambda text: b"# \xff\n" + text.encode()),
    "NUL": _toml(lambda text: "\0" + text),
    "carriage returns": _toml(lambda text: text.replace("\n", "\r")),
    "activation of 1e400": _swap('activation = "linear"', 'activation = "elu"\nalpha = 1e400'),
    "activation of NaN": _swap('activation = "linear"', 'activation = "elu"\nalpha = nan'),
    "of 2**40 steps": _toml(
        lambda text: (
            text + '\n[[layer]]\nkind = "repeat_vector"\nname = "r"\nsteps = 1099511627776\n'
        )
    ),
}


def _tensors(change: Callable[[Path], Any], encoding: str = "bin") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        change(intact(folder, encoding))
        return folder / "m"

    return write


def _put(name: str, data: bytes | str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    return change


def _crowd(folder: Path) -> None:
    for k in range(2000):
        (folder / f"tensor_W_{k + 10}_2.bin").write_bytes(bytes(16))


def _sparse(folder: Path) -> None:
    os.truncate(folder / "tensor_W_1_2.bin", 2**40)


def _renamed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "tensor_W_1_2.bin").rename(folder / name)


BIN = {
    "NaN": _put("tensor_W_1_2.bin", b"\0\0\xc0\x7f" * 24),
    "infinity": _put("tensor_W_1_2.bin", b"\0\0\x80\x7f" * 24),
    "the other byte order": _put("tensor_W_1_2.bin", b"\x3f\x80\0\0" * 24),
    "float64": _put("tensor_W_1_2.bin", b"\0\0\0\0\0\0\xf0\x3f" * 24),
    "megabytes": _put("tensor_W_1_2.bin", bytes(2**24)),
    "a tebibyte": _sparse,
    "a crowd of tensors": _crowd,
    "layer 0": _renamed("tensor_W_0_2.bin"),
    "layer 10**300": _renamed(f"tensor_W_{'9' * 200}_2.bin"),
    "units 10**200": _renamed(f"tensor_W_1_{'9' * 200}.bin"),
    "units 2**40": _renamed("tensor_W_1_1099511627776.bin"),
    "digits of another script": _renamed("tensor_W_١_2.bin"),
    "a newline at the end": _renamed("tensor_W_1_2.bin\n"),
    "both encodings": _put("tensor_W_1_2.txt", "1 2 3"),
}
TXT = {
    "NaN": _put("tensor_W_1_2.txt", "nan " * 24),
    "infinity": _put("tensor_W_1_2.txt", "1e39 " * 24),
    "1e999999999": _put("tensor_W_1_2.txt", "1e999999999 " * 24),
    "hexadecimal": _put("tensor_W_1_2.txt", "0x1p3 " * 24),
    "underscores": _put("tensor_W_1_2.txt", "1_0 " * 24),
    "a number of a megabyte": _put("tensor_W_1_2.txt", "1" * 2**20),
    "a fraction of a megabyte": _put("tensor_W_1_2.txt", "0." + "1" * 2**20),
    "numbers without end": _put("tensor_W_1_2.txt", "1 " * 2**21),
    "spaces without end": _put("tensor_W_1_2.txt", " " * 2**23),
    "lines without end": _put("tensor_W_1_2.txt", "\n" * 2**23),
    "binary": _put("tensor_W_1_2.txt", bytes(range(256)) * 100),
    "UTF-16": _put("tensor_W_1_2.txt", ("1 " * 24).encode("utf-16")),
    "byte order mark": _put("tensor_W_1_2.txt", "\ufeff" + "1 " * 24),
    "NUL": _put("tensor_W_1_2.txt", "1\0 " * 24),
    "digits of another script": _put("tensor_W_1_2.txt", "١ " * 24),
    "code": _put("tensor_W_1_2.txt", "__import__('os').system('true') " * 24),
}


def crafted() -> Iterator[Mutant]:
    """Everything in this file about tensors as bytes, and about model.toml."""
    for name, write in TOML.items():
        yield Mutant(f"toml: {name}", write)
    for name, change in BIN.items():
        yield Mutant(f"tensors: {name}", _tensors(change), codes=(2, 3, 4))


def crafted_text() -> Iterator[Mutant]:
    """What only tensors as text can suffer."""
    for name, change in TXT.items():
        yield Mutant(f"text: {name}", _tensors(change, "txt"))


def named(folder: Path, name: str) -> Path:
    """The intact model with `name` in every place that takes one."""
    place = intact(folder)
    sheet = place / "model.toml"
    text = sheet.read_text()
    said = {"lstm0": f"{name} 0", "last": f"{name} 1", "dense": f"{name} 2", "x": name, "y": name}
    for old, new in said.items():
        text = text.replace(f'name = "{old}"', f"name = {json.dumps(new)}")
    sheet.write_text(text.replace("# What", f"# {name!a} What"))
    return place


RAW = Format("raw", intact, crafted)
RAW_TEXT = Format("raw as text", _text, crafted_text)
