"""Holds the fields of the model's dataclasses to their own annotations.

Arrays are left alone: cell.frozen_array checks those, with their shapes.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from ifgo.errors import ModelError

_PLAIN: Final = {
    str: "a string",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    NoneType: "None",
    Ellipsis: "...",
}


def check_fields(owner: Any, *, where: str | None = None) -> None:
    """Raises ModelError naming the first field of dataclass `owner` that has the wrong type.

    A whole number does for a float, a NumPy scalar for its Python type, a list for a tuple; the
    field then holds the declared type.
    """
    for name, hint in _hints(cast(type[Any], type(owner))).items():
        value = _declared(hint, getattr(owner, name), name, where)
        object.__setattr__(owner, name, value)


@cache
def _hints(owner: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(owner)
    return {field.name: hints[field.name] for field in fields(owner)}


def _declared(hint: Any, given: Any, what: str, where: str | None) -> Any:
    """`given` as the type that `hint` declares."""
    members = _members(hint)
    kind, origin = members[0], get_origin(members[0])
    if origin is np.ndarray or (NoneType in members and _is_a(given, NoneType)):
        return given
    value = given.item() if _is_a(given, np.generic) else given
    if origin is tuple and _is_a(value, tuple, list):
        items = get_args(kind)
        if items[-1] is Ellipsis or len(items) == len(value):
            parts = enumerate(cast("list[Any]", value))
            return tuple(_declared(items[0], part, f"{what}[{i}]", where) for i, part in parts)
        said = f"has {len(value)} entries"
        raise ModelError(f"{what} {said}", where=where, expected=_words(hint))
    if _fits(value, kind, members):
        return float(value) if kind is float else value
    raise ModelError(f"{what} is {_shown(given)}", where=where, expected=_words(hint))


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, None last; of anything else the one."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _shown(value: Any) -> str:
    if type(value).__module__ in ("builtins", "numpy"):
        return " ".join(reprlib.repr(value).split())
    return f"of type {type(value).__name__}"


def _is_a(value: Any, *kinds: type[Any]) -> bool:
    return isinstance(value, kinds)


def _fits(value: Any, kind: Any, members: tuple[Any, ...]) -> bool:
    """Whether `value` is what `kind` (no tuple), or another of `members`, declares."""
    origin = get_origin(kind)
    if origin is Mapping:
        return _is_a(value, Mapping) and all(_is_a(t, str) for pair in value.items() for t in pair)
    if origin is Literal:
        return _is_a(value, str) and value in get_args(kind)
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) <= 2**53)
    if kind in (bool, int):
        return type(value) is kind
    return origin is None and _is_a(value, *members)


def _words(hint: Any) -> str:
    members = _members(hint)
    if len(members) > 1:
        return " or ".join(map(_words, members))
    origin = get_origin(hint)
    if origin is tuple:
        return f"a tuple ({', '.join(map(_words, get_args(hint)))})"
    if origin is Mapping:
        return "a mapping of strings"
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return _PLAIN.get(hint) or hint.__name__
