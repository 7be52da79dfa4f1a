"""Hostile model files: intact ones that the tests make themselves, and what is done to them.

A format joins with one Format in FORMATS: a function that writes an intact model, and one that
yields what only this format can suffer. Truncations and flipped bits of every file come by
themselves.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ifgo import formats
from ifgo.activations import TANH
from ifgo.cell import LSTMCell
from ifgo.layers import Dense, Dropout, LastStep, Recurrent
from ifgo.model import FeatureInput, Model


@dataclass(frozen=True)
class Mutant:
    """A hostile model. write(folder) makes it in an empty folder and gives the path to load."""

    name: str
    write: Callable[[Path], Path]
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the reader takes, a path within the model's folder as {"bind": "w.npz"}; {"list": True}
    lists the layers and selects the first."""
    codes: tuple[int, ...] = (3, 4)
    """Exit codes that a refusal may have."""


@dataclass(frozen=True)
class Format:
    """intact(folder) writes a model and gives the path to load; crafted() is this format's own."""

    name: str
    intact: Callable[[Path], Path]
    crafted: Callable[[], Iterator[Mutant]]


def model(*, name: str = "lstm0", seed: int = 0) -> Model:
    """A small model that every format holds."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return rng.uniform(-0.5, 0.5, shape).astype(np.float32)

    cell = LSTMCell(draw(8, 3), draw(8, 2), draw(8), draw(8))
    layers = (
        Recurrent(name, cell),
        LastStep("last", "sequence"),
        Dense("dense", draw(2, 2), draw(2)),
    )
    return Model((FeatureInput(3),), layers)


def rich() -> Model:
    """A chain that not every format holds: two directions, two layers, an activation."""
    rng = np.random.default_rng(1)

    def cell(inputs: int) -> LSTMCell:
        shapes = ((8, inputs), (8, 2), (8,))
        return LSTMCell(*(rng.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in shapes))

    layers = (
        Recurrent("first", cell(3), cell(3)),
        Dropout("drop", 0.5),
        Recurrent("second", cell(4)),
        LastStep("last", "sequence"),
        Dense("dense", rng.uniform(-0.5, 0.5, (1, 2)).astype(np.float32), activation=TANH),
    )
    return Model((FeatureInput(3),), layers)


def written(name: str) -> Format:
    """A format of which the corpus knows no more than its writer."""

    def intact(folder: Path) -> Path:
        formats.save(model(), folder / f"m.{name}", name)
        return folder / f"m.{name}"

    return Format(name, intact, lambda: iter(()))


# -- damage that any file can suffer ----------------------------------------------------------


def damaged(form: Format, folder: Path, *, full: bool = False) -> Iterator[Mutant]:
    """Every file of the intact model cut, flipped, overwritten, doubled, emptied and swapped.

    full: at every offset of a small file, and thousands of times each; else about a hundred in all.
    """
    path = form.intact(folder)
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    for file in files:
        data, place = file.read_bytes(), file.relative_to(folder)
        for what, changed in _changes(
            data, random.Random(f"{form.name} {place}"), 0 if full else len(files)
        ):

            def write(
                target: Path,
                place: Path = place,
                changed: Callable[[], bytes] = changed,
            ) -> Path:
                shutil.copytree(folder, target, dirs_exist_ok=True)
                (target / place).write_bytes(changed())
                return target / path.relative_to(folder)

            yield Mutant(f"{place} {what}", write)
        others = [f for f in files if f != file]
        for what, change in _special(others[0] if others else None):

            def replace(
                target: Path, place: Path = place, change: Callable[[Path], None] = change
            ) -> Path:
                shutil.copytree(folder, target, dirs_exist_ok=True)
                (target / place).unlink()
                change(target / place)
                return target / path.relative_to(folder)

            yield Mutant(f"{place} {what}", replace, codes=(2, 3, 4))


def _changes(
    data: bytes, rng: random.Random, share: int
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """share: how many files the reduced corpus is spread over, 0 for the full one."""
    size = len(data)
    step = max(1, size * share // 40) if share else max(1, size // 4096)
    for end in range(0, size, step):
        yield f"cut at {end}", partial(_slice, data, end)
    for _ in range(60 // share if share else 1500):
        bit = rng.randrange(8 * size)
        yield f"bit {bit} flipped", partial(_flip, data, [bit])
    for k in range(20 // share if share else 300):
        bits = [rng.randrange(8 * size) for _ in range(rng.randrange(2, 30))]
        yield f"many bits flipped {k}", partial(_flip, data, bits)
    for _ in range(20 // share if share else 200):
        start = rng.randrange(size)
        length = rng.choice([1, 2, 4, 8, 16])
        filler = rng.choice([b"\x00", b"\xff", b"\x7f", b"\x80", b"9", b"["])
        part = filler * length
        yield f"{part!r} over {start}", partial(_over, data, start, part)
    for _ in range(10 // share if share else 100):
        start, end = sorted(rng.randrange(size + 1) for _ in range(2))
        yield f"{start}:{end} doubled", partial(_doubled, data, start, end)
        yield f"{start}:{end} left out", partial(_without, data, start, end)
    yield "empty", lambda: b""
    yield "zeros after it", lambda: data + bytes(4096)
    yield "zeros instead", lambda: bytes(size)
    yield "ones instead", lambda: b"\xff" * size
    yield "megabytes of noise", lambda: random.Random(1).randbytes(2**22)


def _special(other: Path | None) -> Iterator[tuple[str, Callable[[Path], None]]]:
    yield "is a pipe", os.mkfifo
    yield "is a folder", lambda place: place.mkdir()
    yield "leads nowhere", lambda place: place.symlink_to("nowhere")
    yield "leads to itself", lambda place: place.symlink_to(place.name)
    yield "is a device without end", lambda place: place.symlink_to("/dev/zero")
    yield "is missing", lambda place: None
    if other is not None:
        yield "is another file", lambda place: place.write_bytes(other.read_bytes())


def _slice(data: bytes, end: int) -> bytes:
    return data[:end]


def _flip(data: bytes, bits: list[int]) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _over(data: bytes, start: int, part: bytes) -> bytes:
    return (data[:start] + part + data[start + len(part) :])[: len(data)]


def _doubled(data: bytes, start: int, end: int) -> bytes:
    return data[:end] + data[start:]


def _without(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + data[end:]


# -- names ------------------------------------------------------------------------------------

MARK = "IFGOMARK"
"""In every hostile name; it must turn up nowhere."""

NAMES = {
    "newline": f"{MARK}\n#error {MARK}\n",
    "carriage return": f"{MARK}\r#error {MARK}",
    "end of comment": f"*/ #error {MARK} /*",
    "line comment": f"// {MARK} \\",
    "quotes": f'"; \'{MARK}` "',
    "dollar": f"$(shell touch {MARK}) ${{{MARK}}} $$",
    "backslash": f"\\{MARK}\\n\\",
    "trigraph": f"??/{MARK}??/",
    "conversion": f"%n%s%{MARK}",
    "nul": f"a\0{MARK}",
    "right to left": f"\u202e{MARK}\u2066",
    "script": f"</script><script>{MARK}</script><img src=x onerror={MARK}>",
    "template": f"{{{{ {MARK} }}}} {{% for x in {MARK} %}}",
    "linker": f"{MARK} = . ; /DISCARD/ : {{ *(*) }}",
    "path": f"../../{MARK}",
    "terminal": f"\x1b]0;{MARK}\x07\x1b[2J",
    "long": MARK * 1250,
    "keyword": f"int {MARK}",
    "lone surrogate": f"\udcff{MARK}",
}
"""What a name may try to be in C, Make, CMake, a linker script, Markdown, HTML or a terminal."""
