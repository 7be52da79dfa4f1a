"""A Model as plain JSON values and back, driven by the field types of its own dataclasses.

Every object is written as {"class": name, field: value, ...}; an array as a string that the caller
chooses (its checksum), stored under its own path, such as "layers[2].forward.weight_ih". Only the
classes in CLASSES are ever built, each with exactly its own fields.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from ifgo import layers, limits, model
from ifgo.cell import Array
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.text import cut, quote

CLASSES: Final[dict[str, type[Any]]] = {
    known.__name__: known
    for known in (
        model.Model,
        model.FeatureInput,
        model.TokenInput,
        model.LengthsInput,
        model.StateInput,
        model.StateSlot,
        model.Output,
        model.Provenance,
        model.Activation,
        model.LSTMCell,
        model.LayerNorm,
        model.MatrixNorm,
        layers.InitialState,
        layers.TrainingFacts,
        layers.Recurrent,
        layers.Dense,
        layers.Embedding,
        layers.ActivationLayer,
        layers.Dropout,
        layers.BatchNorm,
        layers.Masking,
        layers.LastStep,
        layers.HiddenAsSequence,
        layers.RepeatVector,
        layers.Flatten,
        layers.Scale,
        layers.Residual,
    )
}
"""The closed table: what a file may name. Nothing outside it is looked up, let alone built."""

_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""JSON has no such numbers; as strings they keep a float field whole."""

_EXPECTED: Final = {str: "a string", int: "a whole number", bool: "true or false"}


def encode(whole: model.Model, put: Callable[[str, Array], str]) -> dict[str, Any]:
    """`whole` as JSON values. put(path, array) stores an array and returns its checksum.

    Raises UnsupportedError on an object or a value that the table does not know.
    """
    return _Encoder(put).value(model.Model, whole, "")


def decode(tree: Any, take: Callable[[str, str], Array]) -> model.Model:
    """The Model that `encode` wrote. take(path, checksum) returns the array stored at `path`.

    Raises FormatError naming the path of what is unknown, missing or of the wrong type, and
    ModelError where the parts do not fit each other.
    """
    return _Decoder(take).value(model.Model, tree, "", 0)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_class(kind: Any) -> bool:
    return is_dataclass(kind)


def _alternatives(hint: Any) -> tuple[tuple[Any, ...], bool]:
    """The members of a union (one where it is none), and whether None is among them."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(m for m in members if m is not NoneType), NoneType in members


def _length(kind: Any) -> int | None:
    """How many items a tuple type has; None for any number."""
    items = get_args(kind)
    return None if items[-1] is Ellipsis else len(items)


def _choice(literal: Any) -> str:
    return "one of " + ", ".join(map(repr, get_args(literal)))


@cache
def _hints(known: type[Any]) -> dict[str, Any]:
    """Field name → type, of a class in the table."""
    hints = get_type_hints(known)
    return {field.name: hints[field.name] for field in fields(known)}


def _unlike(path: str, value: Any, expected: str, optional: bool) -> dict[str, str]:
    """The words of an error about a value of the wrong type."""
    return {
        "what": f"{path or 'the model'} is {reprlib.repr(value)}",
        "expected": expected + (" or null" if optional else ""),
    }


@dataclass(frozen=True)
class _Encoder:
    put: Callable[[str, Array], str]

    def value(self, hint: Any, value: Any, path: str) -> Any:
        members, optional = _alternatives(hint)
        if value is None and optional:
            return None
        if isinstance(value, np.generic):
            value = cast(Any, value).item()
        kind, origin = members[0], get_origin(members[0])
        expected = _EXPECTED.get(kind, "a number")
        if _is_class(kind):
            return self.object(value, path)
        if origin is np.ndarray:
            if isinstance(value, np.ndarray):
                return self.put(path, cast(Array, value))
            expected = "an array"
        elif origin is tuple:
            count = _length(kind)
            if isinstance(value, tuple | list) and count in (None, len(cast("list[Any]", value))):
                return self.items(get_args(kind)[0], list(cast("list[Any]", value)), path)
            expected = "a tuple" if count is None else f"a tuple of {count}"
        elif origin is Mapping:
            if isinstance(value, Mapping):
                pairs = cast("Mapping[Any, Any]", value).items()
                return {
                    self.value(str, n, f"{path} key"): self.value(str, v, f"{path}[{n!r}]")
                    for n, v in pairs
                }
            expected = "a mapping"
        elif origin is Literal:
            if value in get_args(kind):
                return value
            expected = _choice(kind)
        elif kind is float:
            if type(value) is float:
                return _number(value)
            if type(value) is int and abs(value) <= 2**53:
                return float(value)
        elif type(value) is kind:
            return value
        raise UnsupportedError(**_unlike(path, value, expected, False))

    def items(self, hint: Any, values: list[Any], path: str) -> list[Any]:
        return [self.value(hint, value, f"{path}[{i}]") for i, value in enumerate(values)]

    def object(self, value: Any, path: str) -> dict[str, Any]:
        known = cast(type[Any], type(value))
        if CLASSES.get(known.__name__) is not known:
            raise UnsupportedError(
                f"{path or 'the model'} is a {known.__module__}.{known.__qualname__}",
                expected="one of ifgo's own " + ", ".join(CLASSES),
            )
        found: dict[str, Any] = {"class": known.__name__}
        for name, hint in _hints(known).items():
            found[name] = self.value(hint, getattr(value, name), _join(path, name))
        return found


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


@dataclass(frozen=True)
class _Decoder:
    take: Callable[[str, str], Array]

    def value(self, hint: Any, value: Any, path: str, depth: int) -> Any:
        members, optional = _alternatives(hint)
        if value is None and optional:
            return None
        kind, origin = members[0], get_origin(members[0])
        expected = _EXPECTED.get(kind, "a number")
        if _is_class(kind):
            return self.object(members, value, path, depth)
        if origin is np.ndarray:
            if isinstance(value, str):
                return self.take(path, value)
            expected = "the checksum of a tensor"
        elif origin is tuple:
            count = _length(kind)
            if isinstance(value, list) and count in (None, len(cast("list[Any]", value))):
                return self.items(get_args(kind)[0], cast("list[Any]", value), path, depth)
            expected = "a list" if count is None else f"a list of {count}"
        elif origin is Mapping:
            if isinstance(value, dict):
                entries = cast(dict[str, Any], value).items()
                return {n: self.value(str, t, f"{path}[{quote(n)}]", depth) for n, t in entries}
            expected = "an object of strings"
        elif origin is Literal:
            if isinstance(value, str) and value in get_args(kind):
                return value
            expected = _choice(kind)
        elif kind is float:
            if type(value) is float and math.isfinite(value):
                return value
            if isinstance(value, str) and value in _NOT_FINITE:
                return _NOT_FINITE[value]
        elif type(value) is kind:
            return value
        raise FormatError(**_unlike(path, value, expected, optional))

    def items(self, hint: Any, values: list[Any], path: str, depth: int) -> tuple[Any, ...]:
        found: list[Any] = []
        for i, value in enumerate(values):
            found.append(self.value(hint, value, f"{path}[{i}]", depth))
        return tuple(found)

    def object(self, allowed: tuple[type[Any], ...], value: Any, path: str, depth: int) -> Any:
        if depth > limits.current().layers:
            raise FormatError("the model description nests too deep", **limits.at_most("layers"))
        if not isinstance(value, dict):
            raise FormatError(**_unlike(path, value, "an object", False))
        given = cast(dict[str, Any], value)
        names = [n for n, known in CLASSES.items() if issubclass(known, allowed)]
        name = given.get("class")
        if not isinstance(name, str) or name not in names:
            raise FormatError(
                f"{_join(path, 'class')} is {reprlib.repr(name)}",
                expected="one of " + ", ".join(names),
                hint="A newer ifgo may have written it",
            )
        known, hints = CLASSES[name], _hints(CLASSES[name])
        for field in given:
            if field != "class" and field not in hints:
                raise FormatError(
                    f"{_join(path, cut(field))} is a field that {name} does not have",
                    expected="one of " + ", ".join(hints),
                )
        parts: dict[str, Any] = {}
        for field, hint in hints.items():
            if field not in given:
                raise FormatError(
                    f"{_join(path, field)} is missing", expected=f"every field of {name}"
                )
            parts[field] = self.value(hint, given[field], _join(path, field), depth + 1)
        try:
            return known(**parts)
        except IfgoError as error:
            raise error.located(path) if path else error from None
