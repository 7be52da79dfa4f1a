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

from ifgo import decimals, files, limits
from ifgo.errors import FormatError

Floats = NDArray[np.float32]

NAME: Final = re.compile(r"tensor_([WRB])_([1-9]\d{0,8})_([1-9]\d{0,8})\.(txt|bin)", re.ASCII)

Counts = tuple[tuple[int, str], ...]
"""How many values a file may have, each with its formula."""


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
        _expect(self.names[letter], self.values[letter].size, counts)


def _expect(name: str, have: int, counts: Counts) -> None:
    if have not in [number for number, _ in counts]:
        raise FormatError(
            f"{name} has {have} values",
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
    if len(found) > limits.current().layers:
        raise FormatError(f"has {len(found)} layers", **limits.at_most("layers"))
    notes: list[str] = []
    texts: list[int] = []
    layers = [_layer(number, found[number], notes, texts) for number in sorted(found)]
    return layers, notes


def _layer(
    number: int, paths: dict[str, list[Path]], notes: list[str], texts: list[int]
) -> Tensors:
    """texts: how many numbers each text before it had; those of this layer are added."""
    any_name = next(iter(paths.values()))[0].stem
    size = int(any_name.split("_")[3])
    if "W" not in paths:
        raise FormatError(
            f"layer {number} has no tensor_W_{number}_{size}",
            expected=f"one beside {any_name}",
        )
    layer = Tensors(number, size)
    for letter, same in sorted(paths.items()):
        counts = _counts(letter, size, "R" in paths)
        several = {path.name: _values(path, counts, notes, texts) for path in same}
        (name, values), *others = several.items()
        for other, copies in others:
            if values.tobytes() != copies.tobytes():
                raise FormatError(
                    f"{name} and {other} differ", expected="the same values bit for bit"
                )
        layer.values[letter], layer.names[letter] = values, name
    count = layer.values["W"].size
    if not count or count % layer.rows:
        formula = f"{layer.rows} = 4·{size}" if layer.recurrent else f"{size}"
        raise FormatError(
            f"{layer.names['W']} has {count} values", expected=f"a multiple of {formula}"
        )
    return layer


def _counts(letter: str, size: int, recurrent: bool) -> Counts:
    """How many values that file may have; empty for W, whose count says the input size."""
    if letter == "R":
        return ((4 * size * size, f"4·{size}·{size}"),)
    if letter == "W":
        return ()
    if recurrent:
        return ((8 * size, f"8·{size}"), (4 * size, f"4·{size}"))
    return ((size, "O of a Dense layer, for it has no tensor R"),)


def _values(path: Path, counts: Counts, notes: list[str], texts: list[int]) -> Floats:
    """The values of a file, refused by its size alone where that cannot be one of `counts`."""
    binary = path.suffix == ".bin"
    values = _binary(path, counts) if binary else _text(path, counts, notes, sum(texts))
    if not binary:
        texts.append(values.size)
    if counts:
        _expect(path.name, values.size, counts)
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise FormatError(
            f"{path.name} holds {values[index]} as value {index + 1}", expected="a finite float32"
        )
    return values


def _binary(path: Path, counts: Counts) -> Floats:
    size = path.stat().st_size
    if size % 4:
        raise FormatError(
            f"{path.name} has {size} bytes", expected="a multiple of 4, float32 values alone"
        )
    if counts:
        _expect(path.name, size // 4, counts)
    data = files.read_bytes(path)
    return np.frombuffer(data[: size - size % 4], "<f4").astype(np.float32, copy=False)


def _text(path: Path, counts: Counts, notes: list[str], before: int) -> Floats:
    data = files.read_bytes(path, limit="text_bytes")
    most = None
    if counts:
        fewest, most = (choose(number for number, _ in counts) for choose in (min, max))
        if len(data) < 2 * fewest - 1:
            raise FormatError(
                f"{path.name} has {len(data)} bytes, too few for {fewest} values",
                expected=" or ".join(f"{number} = {formula}" for number, formula in counts),
            )
    try:
        values, rounded = decimals.parse(data, most, before)
    except FormatError as error:
        raise FormatError(
            f"{path.name} {error.what}", expected=error.expected, hint=error.hint
        ) from None
    if rounded:
        notes.append(
            f"{path.name}: {rounded} of {values.size} decimals are no float32 number; "
            "each was rounded to the nearest"
        )
    return values


def encode(values: Iterable[Any], encoding: str) -> bytes:
    """The bytes of a tensor file: float32 little-endian ("bin"), or one shortest decimal that
    reads back to the same float32 per line ("txt")."""
    flat = np.asarray(values, "<f4").reshape(-1)
    if encoding == "bin":
        return flat.tobytes()
    return "".join(f"{value!s}\n" for value in flat).encode()
