"""What only a flatbuffer can suffer: offsets and lengths that lie, tables without end."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from corpus import NAMES, Format, Mutant, model

from ifgo import formats, limits


def intact(folder: Path) -> Path:
    formats.save(model(), folder / "m.tflite", allow_lossy=True)
    return folder / "m.tflite"


def _word(place: int, value: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = intact(folder)
        data = bytearray(path.read_bytes())
        struct.pack_into("<I", data, place % (len(data) - 4) & ~3, value)
        path.write_bytes(data)
        return path

    return write


def named(folder: Path, name: str) -> Path:
    """Every tensor of the LSTM called after `name`, over a name of as many bytes."""
    said = name.encode(errors="surrogatepass")
    held = "N" * len(said)
    with limits.using(limits.Limits(name_chars=2**20)):
        formats.save(model(name=held), folder / "m.tflite", allow_lossy=True)
    path = folder / "m.tflite"
    data = path.read_bytes()
    assert held.encode() in data
    path.write_bytes(data.replace(held.encode(), said))
    return path


def _padded(folder: Path) -> Path:
    path = intact(folder)
    path.write_bytes(path.read_bytes() + bytes(2**23))
    return path


def crafted() -> Iterator[Mutant]:
    """Every word of the tables in turn, as the offsets and lengths that attackers write."""
    for place in range(0, 4000, 60):
        for value in (0, 0x7FFFFFFF, 0xFFFFFFFF):
            yield Mutant(f"tflite: {value:#x} at {place}", _word(place, value))
    for name, text in NAMES.items():
        yield Mutant(f"tflite: tensor, {name}", partial(named, name=text))
    yield Mutant("tflite: megabytes behind it", _padded)


TFLITE = Format("tflite", intact, crafted)
