"""The files tensor_{W,R,B}_{layer}_{size}.{txt,bin}: finding them, their numbers, their text.

A .bin is float32, little-endian, without header; a .txt holds one decimal per number. What the
numbers mean is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import files, limits
from ifgo.decimals import nearest_float32
from ifgo.errors import FormatError

Floats = NDArray[np.float32]

NAME: Final = re.compile(r"tensor_([WRB])_([1-9]\d{0,8})_([1-9]\d{0,8})\.(txt|bin)", re.ASCII)

_DECIMAL: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?[fF]?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[+-]?(nan|inf|infinity)(\(.*\))?f?", re.IGNORECASE)
_SEPARATORS: Final = str.maketrans(",;{}", "    ")
_MAX_TOKEN_CHARS: Final = 200
"""The exact decimal expansion of any float32 is shorter."""


@dataclass(frozen=True)
class Tensors:
    """The numbers of one weight-bearing layer, flat as they lie in the files.

    number: from 1 in chain order; size: H of an LSTM, O of a Dense layer.
    values and names are keyed by the letter W, R or B; names are those of the files.
    """

    number: int
    size: int
    values: dict[str, Floats] = field(default_factory=dict[str, Floats])
    names: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def recurrent(self) -> bool:
        """An LSTM has recurrent weights R, a Dense layer none."""
        return "R" in self.values

    @property
    def rows(self) -> int:
        """4H of an LSTM, O of a Dense layer: values of W per input feature."""
        return 4 * self.size if self.recurrent else self.size

    @property
    def input_size(self) -> int:
        """I, which no name says: the count of W divided by rows."""
        return self.values["W"].size // self.rows

    def expect(self, letter: str, *counts: tuple[int, str]) -> None:
        """Raises FormatError unless file `letter` has one of `counts`, (number, its formula)."""
        have = self.values[letter].size
        if have not in [number for number, _ in counts]:
            raise FormatError(
                f"{self.names[letter]} has {have} values",
                expected=" or ".join(f"{number} = {formula}" for number, formula in counts),
            )


def tensor_files(folder: Path) -> list[Path]:
    """Every entry of `folder` that is named like a tensor, rightly or not, in order of name."""
    return sorted(entry for entry in folder.iterdir() if entry.name.lower().startswith("tensor_"))


def read_tensors(folder: Path) -> tuple[list[Tensors], list[str]]:
    """The layers in `folder` in order, and notes about what reading changed.

    Sizes that do not depend on the layout are checked. Raises FormatError naming the file.
    """
    found: dict[int, dict[str, list[Path]]] = {}
    sizes: dict[int, Path] = {}
    for path in tensor_files(folder):
        match = NAME.fullmatch(path.name)
        if match is None:
            raise FormatError(
                f"{path.name} is no name of a tensor file",
                expected="tensor_{W,R,B}_{layer}_{size}.{txt,bin}, layer and size from 1",
            )
        if not path.is_file():
            raise FormatError(f"{path.name} is no regular file")
        letter, number = match[1], int(match[2])
        first = sizes.setdefault(number, path)
        if first.stem.split("_")[3] != match[3]:
            raise FormatError(
                f"layer {number} has two sizes, in {first.name} and {path.name}",
                expected="one size per layer",
            )
        found.setdefault(number, {}).setdefault(letter, []).append(path)
    if sorted(found) != list(range(1, len(found) + 1)):
        have = ", ".join(str(number) for number in sorted(found)[:16])
        raise FormatError(f"has tensors of layers {have}", expected="layers 1, 2, 3, ... unbroken")
    if len(found) > limits.MAX_LAYERS:
        raise FormatError(f"has {len(found)} layers", expected=f"at most {limits.MAX_LAYERS}")
    notes: list[str] = []
    layers = [_layer(number, found[number], notes) for number in sorted(found)]
    return layers, notes


def _layer(number: int, paths: dict[str, list[Path]], notes: list[str]) -> Tensors:
    any_name = next(iter(paths.values()))[0].stem
    size = int(any_name.split("_")[3])
    if "W" not in paths:
        raise FormatError(
            f"layer {number} has no tensor_W_{number}_{size}",
            expected=f"one beside {any_name}",
        )
    layer = Tensors(number, size)
    for letter, same in sorted(paths.items()):
        several = {path.name: _values(path, notes) for path in same}
        (name, values), *others = several.items()
        for other, copies in others:
            if values.tobytes() != copies.tobytes():
                raise FormatError(
                    f"{name} and {other} differ", expected="the same values bit for bit"
                )
        layer.values[letter], layer.names[letter] = values, name
    if layer.recurrent:
        layer.expect("R", (4 * size * size, f"4·{size}·{size}"))
    count = layer.values["W"].size
    if not count or count % layer.rows:
        formula = f"{layer.rows} = 4·{size}" if layer.recurrent else f"{size}"
        raise FormatError(
            f"{layer.names['W']} has {count} values", expected=f"a multiple of {formula}"
        )
    if "B" in layer.values and not layer.recurrent and layer.values["B"].size != size:
        raise FormatError(
            f"{layer.names['B']} has {layer.values['B'].size} values",
            expected=f"{size}, as of a Dense layer, for there is no tensor_R_{number}_{size}",
        )
    return layer


def _values(path: Path, notes: list[str]) -> Floats:
    values = _binary(path) if path.suffix == ".bin" else _text(path, notes)
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise FormatError(
            f"{path.name} holds {values[index]} as value {index + 1}", expected="a finite float32"
        )
    return values


def _binary(path: Path) -> Floats:
    data = files.read_bytes(path, limit=4 * limits.MAX_ELEMENTS)
    if len(data) % 4:
        raise FormatError(
            f"{path.name} has {len(data)} bytes", expected="a multiple of 4, float32 values alone"
        )
    return np.frombuffer(data, "<f4").astype(np.float32)


def _text(path: Path, notes: list[str]) -> Floats:
    data = files.read_bytes(path, limit=limits.MAX_TEXT_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path.name} is no text: byte {error.start} is {data[error.start]:#04x}",
            expected="UTF-8",
        ) from None
    tokens = text.translate(_SEPARATORS).split()
    if not all(map(_is_decimal, tokens)):
        raise _junk(path.name, text)
    doubles = np.array([float(token.rstrip("fF")) for token in tokens], np.float64)
    values = nearest_float32(tokens, doubles)
    rounded = sum(
        float(doubles[k]) not in (float(str(values[k])), float(f"{values[k]:.9g}"))
        for k in np.flatnonzero(values != doubles)
    )
    if rounded:
        notes.append(
            f"{path.name}: {rounded} of {values.size} decimals are no float32 number; "
            "each was rounded to the nearest"
        )
    return values


def _is_decimal(token: str) -> bool:
    return len(token) <= _MAX_TOKEN_CHARS and _DECIMAL.fullmatch(token) is not None


def _junk(name: str, text: str) -> FormatError:
    """The complaint about the first token of `text` that is no decimal."""
    for number, line in enumerate(text.translate(_SEPARATORS).split("\n"), 1):
        for token in line.split():
            if not _is_decimal(token):
                finite = _NOT_FINITE.fullmatch(token[:_MAX_TOKEN_CHARS])
                return FormatError(
                    f"{name} line {number} holds {token[:40]!r}",
                    expected="a finite number" if finite else "a decimal number",
                )
    raise AssertionError("no junk in the text")


def encode(values: Iterable[Any], encoding: str) -> bytes:
    """The bytes of a tensor file: float32 little-endian ("bin"), or one shortest decimal that
    reads back to the same float32 per line ("txt")."""
    flat = np.asarray(values, "<f4").reshape(-1)
    if encoding == "bin":
        return flat.tobytes()
    return "".join(f"{value!s}\n" for value in flat).encode()
