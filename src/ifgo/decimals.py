"""Numbers in text: one grammar for tensor files, input files and the emitted main.c (SPEC.md 2.11).

Each decimal becomes the nearest float32, rounded once, as C's strtof does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ifgo import limits
from ifgo.errors import FormatError
from ifgo.text import quote

MARK: Final = b"\xef\xbb\xbf"
"""The UTF-8 byte order mark that some editors put first."""

MAX_CHARS: Final = 200
"""Longest decimal; the exact expansion of any float32 is shorter."""

_SEPARATORS: Final = b" \t\r\n,;{}"
_BLANKS: Final = bytes.maketrans(_SEPARATORS, b" " * len(_SEPARATORS))
_SEPARATOR: Final = re.compile(rb"[ \t\r\n,;{}]")
_DECIMAL: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?[fF]?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[+-]?(nan|inf|infinity)(\(.*\))?f?", re.IGNORECASE)
_CHUNK_BYTES: Final = 2**18
"""Small beside the text, though its numbers as Python objects take 30 times as much."""


def is_decimal(token: str) -> bool:
    """Whether `token` is a number of the grammar."""
    return len(token) <= MAX_CHARS and _DECIMAL.fullmatch(token) is not None


def is_not_finite(token: str) -> bool:
    """Whether `token` spells an infinity or NaN, which no text may hold."""
    return _NOT_FINITE.fullmatch(token[:MAX_CHARS]) is not None


def to_float32(tokens: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The nearest float32 and float64 of decimals; infinite where they are beyond it."""
    doubles = np.array([float(token.rstrip("fF")) for token in tokens], np.float64)
    return nearest_float32(tokens, doubles), doubles


def parse(
    data: bytes, wanted: int | None = None, before: int = 0
) -> tuple[NDArray[np.float32], int]:
    """The numbers of a text as float32 (N,), and how many of its decimals name no float32.

    Raises FormatError naming the line of what is no number or is beyond float32, and as soon as
    there are more than `wanted` numbers, or with the `before` of other texts of the model more than
    the limit text_numbers.
    """
    found: list[NDArray[np.float32]] = []
    count = rounded = 0
    limit = limits.current().text_numbers - before
    most = limit if wanted is None else min(wanted, limit)
    for start, tokens in _chunks(data):
        if not all(map(is_decimal, tokens)):
            raise _junk(data, start)
        values, doubles = to_float32(tokens)
        if not np.isfinite(values).all():
            raise _junk(data, start)
        count += values.size
        if count > most:
            what = f"has more than {most} numbers"
            if most < limit:
                raise FormatError(what, expected="at most that many")
            if before:
                what += f" after {before} in the texts before it"
            hint = "Save them as binary, .npy or a .bin tensor"
            raise FormatError(
                what,
                **limits.at_most(
                    "text_numbers",
                    form="at most {} in all" if before else "at most that many",
                    hint=hint,
                ),
            )
        rounded += sum(
            float(doubles[k]) not in (float(str(values[k])), float(f"{values[k]:.9g}"))
            for k in np.flatnonzero(values != doubles)
        )
        found.append(values)
    return np.concatenate(found) if found else np.empty(0, np.float32), rounded


def _chunks(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """The tokens of `data` a few at a time, and where the bytes of each portion start."""
    at = len(MARK) if data.startswith(MARK) else 0
    while at < len(data):
        found = _SEPARATOR.search(data, at + _CHUNK_BYTES)
        end = found.end() if found else len(data)
        text = data[at:end].translate(_BLANKS).decode("utf-8", "replace")
        yield at, [token for token in text.split(" ") if token]
        at = end


def _junk(data: bytes, start: int) -> FormatError:
    """The complaint about the first token from `start` on that is no number or beyond float32."""
    line = data.count(b"\n", 0, start) + 1
    for piece in data[start:].split(b"\n"):
        try:
            text = piece.translate(_BLANKS).decode()
        except UnicodeDecodeError as error:
            return FormatError(
                f"line {line} is no text: it holds the byte {piece[error.start]:#04x}",
                expected="UTF-8",
            )
        for token in text.split(" "):
            if token and not is_decimal(token):
                return FormatError(
                    f"line {line} holds {quote(token, 40)}",
                    expected="a finite number" if is_not_finite(token) else "a decimal number",
                    hint="A number looks like -1.5e-3, and has a point, no comma",
                )
            if token and not np.isfinite(to_float32([token])[0]).all():
                return beyond(f"line {line} ", token)
        line += 1
    raise AssertionError("no junk in the text")


def beyond(place: str, token: str) -> FormatError:
    """The complaint about a decimal that float32 cannot hold."""
    return FormatError(
        f"{place}holds {quote(token, 40)}, which is infinite in float32",
        expected="a finite float32",
        hint="Scale the numbers down",
    )


def nearest_float32(tokens: Sequence[str], doubles: NDArray[np.float64]) -> NDArray[np.float32]:
    """The float32 nearest to each decimal, as C's strtof gives it. tokens, doubles: (N,).

    `doubles` are the nearest float64. Rounding twice differs from rounding once only where the
    float64 is the very middle of two float32 numbers; there the decimal itself decides.
    """
    with np.errstate(over="ignore"):
        values = doubles.astype(np.float32)
        back = values.astype(np.float64)
        further = np.nextafter(values, np.where(doubles > back, np.inf, -np.inf).astype(np.float32))
    other = further.astype(np.float64)
    with np.errstate(invalid="ignore"):
        middle = (doubles != back) & (np.abs(doubles - back) == np.abs(other - doubles))
    for k in np.flatnonzero(middle & np.isfinite(other)).tolist():
        exact, half = Decimal(tokens[k].rstrip("fF")), Decimal(float(doubles[k]))
        if exact != half:
            pair = sorted((values[k], further[k]))
            values[k] = pair[1] if exact > half else pair[0]
    return values
