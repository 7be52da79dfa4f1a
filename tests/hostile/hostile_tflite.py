"""What only a flatbuffer can suffer: offsets and lengths that lie, tables without end."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from corpus import NAMES, Format, Mutant, model

from ifgo import formats


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


def _named(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = intact(folder)
        data = path.read_bytes()
        said = name.encode(errors="surrogatepass")[:9].ljust(9, b" ")
        path.write_bytes(data.replace(b"lstm0.c", said[:7]).replace(b"lstm0", said[:5]))
        return path

    return write


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
        yield Mutant(f"tflite: tensor, {name}", _named(text))
    yield Mutant("tflite: megabytes behind it", _padded)


TFLITE = Format("tflite", intact, crafted)
