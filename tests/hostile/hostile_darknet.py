"""What only Darknet's pairs can suffer: a cfg that lies about numbers without a magic or sizes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from corpus import MARK, NAMES, Format, Mutant

CFG = """[net]
inputs=3
time_steps=1

[lstm]
output=2

[connected]
output=2
activation=linear
"""
_FLOATS = 4 * 2 * (2 + 1) + 4 * 2 * (3 + 1) + 2 * (2 + 1)
"""Eight matrices with a bias each: four for h of 2, four for x of 3; then one."""


def _pair(cfg: str | bytes = CFG, *, head: tuple[int, ...] = (0, 2, 0), numbers: bytes = b""):
    def write(folder: Path) -> Path:
        drawn = np.random.default_rng(0).uniform(-0.5, 0.5, _FLOATS).astype("<f4").tobytes()
        whole = struct.pack("<iii", *head) + bytes(8) + (numbers or drawn)
        (folder / "m.weights").write_bytes(whole)
        (folder / "m.cfg").write_bytes(cfg.encode() if isinstance(cfg, str) else cfg)
        return folder / "m.weights"

    return write


def intact(folder: Path) -> Path:
    return _pair()(folder)


def _swap(old: str, new: str) -> Callable[[Path], Path]:
    assert old in CFG
    return _pair(CFG.replace(old, new, 1))


CASES: dict[str, Callable[[Path], Path]] = {
    "output 10**9": _swap("output=2", "output=999999999"),
    "output of 5000 digits": _swap("output=2", "output=" + "9" * 5000),
    "output -2": _swap("output=2", "output=-2"),
    "output 8192": _swap("output=2", "output=8192"),
    "inputs 10**9": _swap("inputs=3", "inputs=999999999"),
    "sizes of a picture": _swap("inputs=3", "height=99999\nwidth=99999\nchannels=99999"),
    "layers without end": _pair(CFG + "[dropout]\n" * 100_000),
    "connected without end": _pair(CFG + "[connected]\noutput=2\n" * 40_000),
    "lines without end": _pair(CFG + "\n" * 900_000),
    "comments without end": _pair(CFG + "#\n" * 450_000),
    "one long line": _pair(CFG + "#" * 900_000),
    "a long key": _pair(CFG + "k" * 900_000 + "=1"),
    "a long value": _swap("activation=linear", "activation=" + "l" * 900_000),
    "a long section": _pair(CFG + "[" + "l" * 900_000 + "]"),
    "megabytes": _pair(CFG + "#" * 2**23),
    "a key twice": _swap("output=2", "output=2\noutput=2"),
    "NaN as a key": _swap("activation=linear", "activation=nan"),
    "probability 1e400": _pair(CFG + "[dropout]\nprobability=1e400\n"),
    "probability of many digits": _pair(CFG + "[dropout]\nprobability=0." + "9" * 900_000),
    "UTF-16": _pair(CFG.encode("utf-16")),
    "NUL": _pair(CFG.replace("\n", "\0\n")),
    "version -1": _pair(head=(-1, 2, 0)),
    "version 2**31-1": _pair(head=(2**31 - 1,) * 3),
    "version 1001": _pair(head=(1001, 2, 0)),
    "NaN": _pair(numbers=b"\0\0\xc0\x7f" * _FLOATS),
    "infinity": _pair(numbers=b"\0\0\x80\x7f" * _FLOATS),
    "the other byte order": _pair(numbers=b"\x3f\x80\0\0" * _FLOATS),
    "numbers without end": _pair(numbers=bytes(2**24)),
}


def crafted() -> Iterator[Mutant]:
    """Everything in this file, and names in comments, all that Darknet has a place for."""
    for name, write in CASES.items():
        yield Mutant(f"darknet: {name}", write)
    for name, text in NAMES.items():
        assert MARK in text
        said = f"# {text}\n".encode(errors="surrogatepass")
        yield Mutant(f"darknet: comment, {name}", _pair(said + CFG.encode()))


def named(folder: Path, name: str) -> Path:
    """A comment, all that Darknet has a place for."""
    path = intact(folder)
    said = "# " + name.replace("\n", "\n# ") + "\n"
    path.with_suffix(".cfg").write_bytes(said.encode(errors="surrogatepass") + CFG.encode())
    return path


DARKNET = Format("darknet", intact, crafted)
