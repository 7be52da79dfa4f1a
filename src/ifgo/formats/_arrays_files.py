"""Named arrays out of what people dump them into: NumPy files, JSON, pickles, numbers, folders.

Pickles, those of .npy files with objects too, are read as data: nothing in them runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ifgo import arrays, decimals, files, limits
from ifgo.errors import FormatError, IfgoError
from ifgo.formats import _json, _unpickle
from ifgo.formats._arrays_sheet import Declared, Sheet
from ifgo.formats._unpickle import Made
from ifgo.text import cut, quote

Array = NDArray[Any]

_OBJECTS: Final = b"'descr': '|O'"
_HEADER_BYTES: Final = 128


def read(path: Path, sheet: Sheet) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Every array of `path` by name, and notes about what reading changed.

    Raises FormatError naming the file and the array.
    """
    if path.is_dir():
        return _folder(path, sheet)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise FormatError(
            f"ends in {quote(path.suffix)}",
            expected="one of " + ", ".join(READERS) + ", or a folder",
        )
    return reader(path, sheet)


def _folder(path: Path, sheet: Sheet) -> tuple[dict[str, Array], tuple[str, ...]]:
    """One array per file, .npy or plain numbers, named by the file without its ending."""
    found: dict[str, Array] = {}
    notes: tuple[str, ...] = ()
    shapes = {declared.name: declared for declared in sheet.arrays}
    entries = sorted(e for e in path.iterdir() if e.suffix.lower() in (".npy", ".bin", ".txt"))
    if len(entries) > limits.current().arrays:
        raise FormatError(f"holds {len(entries)} arrays", **limits.at_most("arrays"))
    for entry in entries:
        name = entry.stem
        if name in found:
            raise FormatError(f"holds array {quote(name)} twice", expected="one file for each")
        if entry.suffix.lower() == ".npy":
            found[name] = arrays.read_npy(entry)
            continue
        values, said = _numbers(entry, sheet)
        if name not in shapes:
            raise FormatError(
                f"{cut(entry.name)} has no header, and {sheet.file} no [[array]] {quote(name)}",
                expected="its name and shape there",
            )
        found |= _cut_up(values, (shapes[name],), entry.name, sheet)
        notes += said
    return found, notes


def _npz(path: Path, sheet: Sheet) -> tuple[dict[str, Array], tuple[str, ...]]:
    return arrays.read_npz(path, lambda _: None), ()


def _npy(path: Path, sheet: Sheet) -> tuple[dict[str, Array], tuple[str, ...]]:
    """One array, cut up where the sheet declares several in it; or the arrays of a list."""
    data = files.read_bytes(path)
    if _OBJECTS in data[:_HEADER_BYTES]:
        start = 10 + int.from_bytes(data[8:10], "little")
        found = _tree(_unpickle.parse(data[start:]))
        return found, (f"{path.name} holds objects; of them, the arrays were read",)
    values = arrays.read_npy(path)
    if sheet.arrays:
        return _cut_up(values.reshape(-1), sheet.arrays, path.name, sheet), ()
    return {path.stem: values}, ()


def _pickle(path: Path, sheet: Sheet) -> tuple[dict[str, Array], tuple[str, ...]]:
    return _tree(_unpickle.parse(files.read_bytes(path))), ()


def _plain(path: Path, sheet: Sheet) -> tuple[dict[str, Array], tuple[str, ...]]:
    if not sheet.arrays:
        raise FormatError(
            f"{path.name} has no header, and {sheet.file} declares no arrays",
            expected="[[array]] with name and shape for each, in the order of the file",
        )
    values, notes = _numbers(path, sheet)
    return _cut_up(values, sheet.arrays, path.name, sheet), notes


def _numbers(path: Path, sheet: Sheet) -> tuple[Array, tuple[str, ...]]:
    """The numbers of a text, or of a .bin of the sheet's dtype, little-endian."""
    if path.suffix.lower() == ".txt":
        try:
            values, rounded = decimals.parse(files.read_bytes(path, limit="text_bytes"))
        except IfgoError as error:
            raise error.located(path.name) from None
        note = f"{path.name}: {rounded} decimals rounded to float32"
        return values, (note,) if rounded else ()
    data = files.read_bytes(path)
    dtype = np.dtype(sheet.dtype).newbyteorder("<")
    if len(data) % dtype.itemsize:
        raise FormatError(
            f"{path.name} has {len(data)} bytes",
            expected=f"a multiple of {dtype.itemsize}, the size of {sheet.dtype}",
        )
    return np.frombuffer(data, dtype).astype(sheet.dtype), ()


def _cut_up(
    values: Array, declared: tuple[Declared, ...], name: str, sheet: Sheet
) -> dict[str, Array]:
    """Flat `values` as the arrays that the sheet declares, which they must fill exactly."""
    counts = [math.prod(one.shape) for one in declared]
    if sum(counts) != values.size:
        sizes = " + ".join("·".join(map(str, one.shape)) for one in declared)
        raise FormatError(
            f"{cut(name)} has {values.size} numbers",
            expected=f"{cut(sum(counts))} = {cut(sizes, 200)}, as {sheet.file} declares",
        )
    found: dict[str, Array] = {}
    at = 0
    for one, count in zip(declared, counts, strict=True):
        if one.name in found:
            raise FormatError(
                f"{sheet.file} declares array {quote(one.name)} twice", expected="each once"
            )
        found[one.name] = values[at : at + count].reshape(one.shape)
        at += count
    return found


def _described(path: Path, sheet: Sheet) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Every list of numbers in a JSON object, float32, named by the keys that lead to it.

    {"dim": [...], "data": [...]} (or shape) is one array. What is no array is left out.
    """
    found: dict[str, Array] = {}
    others = 0
    left: list[tuple[str, Any]] = list(_json.read(path).items())
    while left:
        name, value = left.pop()
        if isinstance(value, list):
            numbers = _rectangular(cast("list[Any]", value), name)
            if numbers is not None:
                found[name] = numbers
                continue
            inner = enumerate(cast("list[Any]", value))
            left += [(f"{name}.{k}"[: limits.current().name_chars], one) for k, one in inner]
        elif isinstance(value, dict):
            tree = cast("dict[str, Any]", value)
            shaped = _shaped(tree, name)
            if shaped is not None:
                found[name] = shaped
                continue
            pairs = tree.items()
            left += [(f"{name}.{cut(k)}"[: limits.current().name_chars], one) for k, one in pairs]
        else:
            others += 1
        if len(found) > limits.current().arrays or len(left) > limits.current().parts:
            raise FormatError(
                f"{path.name} holds too many parts",
                **limits.at_most(
                    "arrays", "parts", form="at most {} arrays, {} values beside them"
                ),
            )
    found = dict(sorted(found.items()))
    return found, (f"left out {others} values that are no arrays",) if others else ()


def _rectangular(value: list[Any], name: str) -> Array | None:
    """Nested lists of numbers as float32; None where they are something else."""
    rows: list[Any] = value
    for _ in range(3):
        rows = cast("list[Any]", rows[0]) if rows and type(rows[0]) is list else rows
    if not rows or type(rows[0]) not in (int, float):
        return None
    try:
        double = np.array(value)
    except ValueError:
        return None
    if double.dtype.kind not in "iuf":
        return None
    with np.errstate(over="ignore"):
        single = double.astype(np.float32)
    if not np.isfinite(single).all():
        raise FormatError(
            f"{cut(name)} holds a number that is infinite in float32",
            expected="finite float32 numbers",
        )
    return single


def _shaped(tree: dict[str, Any], name: str) -> Array | None:
    """An object of a shape and flat data, as libraries of other languages write arrays."""
    key = next((key for key in ("dim", "shape") if key in tree), None)
    if key is None or not isinstance(tree.get("data"), list):
        return None
    shape: Any = tree[key]
    values = _rectangular(tree["data"], name)
    if values is None or values.ndim != 1 or not isinstance(shape, list):
        return None
    sizes = cast("list[Any]", shape)
    whole = all(type(n) is int and 0 < n <= limits.current().elements for n in sizes)
    if not whole or math.prod(sizes) != values.size:
        raise FormatError(
            f"{cut(name)} has {values.size} numbers for {key} {cut(sizes)}",
            expected="as many as that shape has",
        )
    return values.reshape(sizes)


READERS: Final[dict[str, Callable[[Path, Sheet], tuple[dict[str, Array], tuple[str, ...]]]]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".json": _described,
    ".pkl": _pickle,
    ".bin": _plain,
    ".txt": _plain,
}
"""Ending → its reader."""


# -- pickles --------------------------------------------------------------------------------------


def _tree(root: Any) -> dict[str, Array]:
    """Every array in a pickle, named by the keys and places that lead to it, between dots."""
    found: dict[str, Array] = {}
    left: list[tuple[tuple[str, ...], Any]] = [((), root)]
    visits = 0
    while left:
        keys, value = left.pop()
        visits += 1
        bounds = limits.current()
        if visits > bounds.parts or len(keys) > bounds.pickle_depth or len(found) > bounds.arrays:
            raise FormatError(
                "is a pickle of too many or too deep parts",
                **limits.at_most(
                    "arrays",
                    "parts",
                    "pickle_depth",
                    form="at most {} arrays, {} parts, {} levels deep",
                ),
            )
        if _unpickle.is_array(value):
            name = ".".join(keys)
            values = _unpickle.array(value, cut(name) or "it")
            if isinstance(values, list):
                left += _children(keys, values)
            elif name in found:
                raise FormatError(f"holds array {quote(name)} twice", expected="each once")
            else:
                found[name] = values
        else:
            left += _children(keys, value)
    return dict(sorted(found.items()))


def _children(keys: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What `value` holds, with the keys that lead there; an object holds its state."""
    if isinstance(value, Made):
        yield keys, value.maker if value.state is None else value.state
        yield from (
            ((*keys, cut(key, limits.current().name_chars)), inner) for key, inner in value.pairs
        )
        yield keys, value.items
    elif isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value).items()
        yield from (((*keys, cut(key, limits.current().name_chars)), inner) for key, inner in pairs)
    elif isinstance(value, list):
        entries = enumerate(cast("list[Any]", value))
        yield from (((*keys, str(k)), inner) for k, inner in entries)
    elif isinstance(value, tuple):
        # A state of several parts, or the arguments of a call: their own keys name what they hold.
        yield from ((keys, inner) for inner in cast("tuple[Any, ...]", value))
