"""TOML that describes arrays: parsed within bounds, and each key held to what is known.

Shared by every file that says what array files cannot: messages name the file, the table, the key.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from functools import cache
from typing import Any, Final, cast

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.text import cut, escape, quote

_PART: Final = r"""(?:(?<![\w-])[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""


@cache
def _deep(depth: int) -> re.Pattern[str]:
    """What every dotted key of more parts holds, and seldom anything else: a name is written so
    that it does not."""
    return re.compile(rf"(?:{_PART}[ \t]*+\.[ \t]*+){{{depth}}}")


# -- writing --------------------------------------------------------------------------------------


def pairs(**values: Any) -> list[str]:
    """Lines `key = value`, those that are None left out."""
    return [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
        deep = _deep(limits.DEFAULTS.toml_depth).search(text)
        return text.replace(".", "\\u002E") if deep else text
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, cast("tuple[Any, ...]", value))) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(float(value) if isinstance(value, float) else int(value))


# -- reading --------------------------------------------------------------------------------------


def load(data: bytes, file: str, version: int) -> dict[str, Any]:
    """The tree of a TOML text whose key version is `version`.

    Raises FormatError naming `file`, UnsupportedError on a newer version.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{file} is no text: byte {error.start} is {data[error.start]:#04x}", expected="UTF-8"
        ) from None
    if deep := _deep(limits.current().toml_depth).search(text):
        raise FormatError(
            f"{file} line {text.count(chr(10), 0, deep.start()) + 1} holds {quote(deep[0])}",
            **limits.at_most(
                "toml_depth",
                form="keys of at most {} parts",
                hint="In a string, write each dot as \\u002E",
            ),
        )
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{file} is no TOML ({cut(escape(error), 120)})",
            hint="Mend that line, or write it anew",
        ) from None
    said = tree.get("version")
    if type(said) is int and said > version:
        raise UnsupportedError(
            f"{file} has version {cut(said)}",
            expected=f"version {version}, all that this ifgo reads",
            hint="Install a newer ifgo",
        )
    if type(said) is not int or said != version:
        shown = "is missing" if said is None else f"is {quote(said)}"
        if type(said) is int:
            raise FormatError(f"{file}: version is {cut(said)}", expected=str(version))
        raise FormatError(f"{file}: version {shown}", expected="a whole number")
    return tree


class Table:
    """One table of the file; every key is known, and a value has the type that is asked for."""

    def __init__(
        self, file: str, place: str, values: dict[str, Any], known: tuple[str, ...]
    ) -> None:
        self.file, self.place, self.values = file, place, values
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(cut(key), known, n=1, cutoff=0.0)
                raise FormatError(
                    f"{self.file}: unknown key {quote(self.path(key))}",
                    expected="one of " + ", ".join(known),
                    hint=f"Did you mean {near[0]!r}?",
                )

    def path(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def take(self, key: str, kind: type[Any], expected: str) -> Any:
        value = self.values.get(key)
        if type(value) is not kind:
            shown = "is missing" if value is None else f"is {quote(value)}"
            raise FormatError(f"{self.file}: {self.path(key)} {shown}", expected=expected)
        return value

    def text(self, key: str) -> str:
        return self.take(key, str, "a string")

    def whole(self, key: str) -> int:
        return self.take(key, int, "a whole number")

    def number(self, key: str) -> float:
        value = self.values.get(key)
        if type(value) is int and abs(value) <= 2**53:
            return float(value)
        return self.take(key, float, "a number")

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        expected = "one of " + ", ".join(map(repr, choices))
        value = self.take(key, str, expected)
        if value not in choices:
            raise FormatError(f"{self.file}: {self.path(key)} is {quote(value)}", expected=expected)
        return value

    def strings(self, key: str, choices: tuple[str, ...] | None = None) -> tuple[str, ...]:
        values = tuple(self.take(key, list, "a list of strings"))
        for value in values:
            if type(value) is not str or (choices and value not in choices):
                raise FormatError(
                    f"{self.file}: {self.path(key)} holds {quote(value)}",
                    expected="one of " + ", ".join(map(repr, choices)) if choices else "strings",
                )
        if choices and values != tuple(choice for choice in choices if choice in values):
            raise FormatError(
                f"{self.file}: {self.path(key)} is {cut(list(values))}",
                expected="each name once, in the order " + ", ".join(map(repr, choices)),
            )
        return values

    def tables(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        values = self.take(key, list, f"[[{key}]] tables")
        for i, value in enumerate(values):
            if type(value) is not dict:
                raise FormatError(f"{self.file}: {key}[{i}] is no table", expected=f"[[{key}]]")
        return [(f"{key}[{i}]", value) for i, value in enumerate(values)]
