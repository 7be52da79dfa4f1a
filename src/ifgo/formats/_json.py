"""JSON that a stranger wrote: parsed within bounds, read key by key, and numbers written exactly.

Costs are bounded before anything is parsed: a text of up to `json_bytes` may hold what it likes, a
longer one so many values, lists, objects and escapes as limits.py says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ifgo import files, limits
from ifgo.cell import Array
from ifgo.errors import FormatError, UnsupportedError
from ifgo.text import cut, listed, quote

DAMAGED: Final = "The file was changed or cut short after it was written; fetch or write it again"

_COUNTED: Final = (
    (b",", "json_values", "commas"),
    (b"[", "json_lists", "lists"),
    (b":", "json_keys", "colons"),
    (b"\\", "json_keys", "backslashes"),
)
_SNIFFED_BYTES: Final = 4096
_MOST_NOTES: Final = 32


def head(path: Path) -> bytes:
    """The first bytes of a file that starts like a JSON object; b"" of any other. Never raises."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as stream:
            start = stream.read(_SNIFFED_BYTES)
    except OSError:
        return b""
    return start if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else b""


def read(path: Path) -> dict[str, Any]:
    """The object in `path`. Raises what `parse` raises, and FormatError past the size bound."""
    return parse(files.read_bytes(path, limit="json_file_bytes"), "it")


def parse(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object with unique keys and finite numbers only, UTF-8. `what` it is, for messages.

    Raises FormatError: no such object, nested too deep, or more in it than the bounds allow.
    """
    if len(data) > limits.current().json_bytes:
        for mark, limit, named in _COUNTED:
            if (found := data.count(mark)) > limits.value(limit):
                raise FormatError(f"{what} holds {found} {named}", **limits.at_most(limit))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{what} is no JSON (byte {error.start} is no UTF-8)", hint=DAMAGED
        ) from None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise FormatError(f"{what} has two keys {quote(twice)}", expected="each key once")
        return found

    def finite(token: str) -> float:
        value = float(token)
        if not math.isfinite(value):
            raise FormatError(f"{what} holds {cut(token, 40)}", expected="finite numbers")
        return value

    try:
        tree = json.loads(text, object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    except RecursionError:
        raise FormatError(f"{what} nests too deep") from None
    except ValueError as error:
        raise FormatError(f"{what} is no JSON ({cut(error, 200)})", hint=DAMAGED) from None
    if not isinstance(tree, dict):
        raise FormatError(f"{what} is no JSON object", expected="an object in braces")
    return cast(dict[str, Any], tree)


@dataclass(frozen=True)
class Fields:
    """One object of a file; whatever is missing, unknown or of the wrong kind is refused by name.

    where: how messages name it, "" for the file itself.
    """

    values: dict[str, Any]
    where: str = ""

    def only(self, *known: str) -> None:
        """Raises UnsupportedError naming the keys beside `known`."""
        if unknown := [key for key in self.values if key not in known]:
            raise UnsupportedError(
                f"key {listed(map(quote, unknown))} is none that ifgo reads there",
                where=self.where or None,
                expected="one of " + ", ".join(known),
                hint="Correct its spelling, or remove it if it changes no number",
            )

    def need(self, key: str) -> Any:
        """The value of `key`. Raises FormatError where there is none."""
        if key not in self.values:
            raise FormatError(
                f"has no {key}",
                where=self.where or None,
                hint="The file is no whole model of this format",
            )
        return self.values[key]

    def wrong(self, key: str, expected: str) -> FormatError:
        """The complaint about the value of `key`."""
        return FormatError(
            f"{key} is {cut(shown(self.values[key]))}", where=self.where or None, expected=expected
        )

    def text(self, key: str) -> str:
        """A string."""
        if not isinstance(self.need(key), str):
            raise self.wrong(key, "a string")
        return self.values[key]

    def whole(self, key: str, least: int, most: int) -> int:
        """A whole number of least to most; 2.0 is none."""
        value = self.need(key)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(key, f"a whole number from {least} to {most}")
        return value

    def size(self, key: str, limit: str, less: int = 0) -> int:
        """A whole number from 1 to the limit of that name, less `less`."""
        most = limits.value(limit) - less
        form = f"a whole number from 1 to {most}"
        value = self.need(key)
        if type(value) is int and value > most:
            said = self.wrong(key, form)
            raise FormatError(said.what, where=said.where, **limits.at_most(limit, form=form))
        return self.whole(key, 1, most)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.need(key)
        if type(value) not in (int, float) or abs(value) > 1e300:
            raise self.wrong(key, "a number")
        return float(value)

    def flag(self, key: str) -> bool:
        """true or false, which some writers spell 1 or 0."""
        value = self.need(key)
        if type(value) is not bool and not (type(value) is int and value in (0, 1)):
            raise self.wrong(key, "true or false")
        return bool(value)

    def list(self, key: str) -> list[Any]:
        """A list."""
        if not isinstance(self.need(key), list):
            raise self.wrong(key, "a list")
        return self.values[key]

    def fields(self, key: str) -> Fields:
        """An object."""
        value = self.need(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object in braces")
        return Fields(cast("dict[str, Any]", value), f"{self.where}, {key}" if self.where else key)


def shown(value: Any) -> str:
    """`value` as the file spells it, or what kind of thing it is."""
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "an object"
        return f"{kind} of {len(cast('list[Any]', value))}"
    try:
        return json.dumps(value)
    except ValueError:
        return "a huge number"


@dataclass
class Numbers:
    """Turns nested lists into float32, each decimal through float64 as C++ readers do.

    rounded: how many of them were no float32 values.
    """

    rounded: int = 0

    def take(
        self, value: Any, shape: tuple[int, ...], what: str, where: str | None = None
    ) -> Array:
        """`value` as an array of `shape`, of one or two axes.

        Raises FormatError where it has another shape, holds no number, or one beyond float32.
        """
        found = shape_of(value)
        rows = cast("list[Any]", value) if isinstance(value, list) else []
        nested = len(shape) == 2
        if found != shape or (nested and any(shape_of(row) != shape[1:] for row in rows)):
            said = f"has shape {found}" if found != shape else "has rows of different lengths"
            raise FormatError(f"{what} {said}", where=where, expected=str(shape))
        flat: list[Any] = [x for row in rows for x in row] if nested else rows
        bad = next((x for x in flat if type(x) is not float and type(x) is not int), None)
        if bad is not None or None in flat:
            raise FormatError(
                f"{what} holds {cut(shown(bad), 40)}", where=where, expected="numbers only"
            )
        try:
            double = np.array(flat, np.float64)
        except OverflowError:
            double = np.array([np.inf if abs(x) > 1e300 else x for x in flat], np.float64)
        with np.errstate(over="ignore"):
            single = double.astype(np.float32)
        if not np.isfinite(single).all():
            beyond = shown(flat[int(np.argmin(np.isfinite(single)))])
            raise FormatError(
                f"{what} holds {cut(beyond, 40)}, which is infinite in float32",
                where=where,
                expected="a finite float32",
            )
        self.rounded += int((single != double).sum())
        return single.reshape(shape)

    @property
    def notes(self) -> tuple[str, ...]:
        """What rounding did, if anything."""
        many = "s are" if self.rounded > 1 else " is"
        said = f"{self.rounded} number{many} rounded to float32, as the format's own reader does"
        return (said,) if self.rounded else ()


def shape_of(value: Any) -> tuple[int, ...]:
    """Lengths of nested lists, as the first entry of each has them; four levels at most."""
    shape: list[int] = []
    while isinstance(value, list) and len(shape) < 4:
        inner = cast("list[Any]", value)
        shape.append(len(inner))
        value = inner[0] if inner else None
    return tuple(shape)


def notes_of(metadata: Any) -> tuple[str, ...]:
    """What a model says about itself, one line a value: provenance, so no more than a few are
    kept, and each cut."""
    found: list[str] = []
    left: list[tuple[str, Any]] = [("metadata", metadata)]
    while left:
        name, value = left.pop(0)
        if isinstance(value, dict) and len(left) < limits.current().name_chars:
            pairs = list(cast("dict[str, Any]", value).items())[: limits.current().name_chars]
            left[:0] = [
                (f"{name} {cut(key)}"[: limits.current().name_chars], v) for key, v in pairs
            ]
        elif value is not None:
            said = cut(value) if isinstance(value, str) else cut(shown(value))
            found.append(f"{name}: {said}")
    more = len(found) - _MOST_NOTES
    return tuple(found[:_MOST_NOTES]) + ((f"metadata: {more} more values",) if more > 0 else ())


def numbers(array: NDArray[np.float32]) -> list[Any]:
    """Nested lists that json.dumps writes with every bit: the float64 of each float32."""
    return array.astype(np.float64).tolist()


def text(tree: dict[str, Any]) -> bytes:
    """The bytes of a file that `read` gives back as `tree`."""
    return (json.dumps(tree, allow_nan=False) + "\n").encode()


def spelled(value: Any) -> str:
    """A short list as the file spells it."""
    return cut(json.dumps(value)) if len(value) < 9 else shown(value)


def quoted(names: Iterable[str]) -> str:
    """Names in quotes, a few of them."""
    return listed(map(quote, names))
