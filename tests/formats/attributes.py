"""One attribute of a file at a time: equal numbers or a refusal, never others in silence.

A test module per format, test_attributes_NAME.py, walks the structure of valid files, changes each
thing it finds to other values, legal and not, and hands every change to `Attributes`. What is read
must compute what an oracle, which knows nothing of ifgo, computes of the same changed file.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from double import double_bound

from ifgo.errors import IfgoError
from ifgo.model import Model, TokenInput

Oracle = Callable[[Any], Any]
"""x → the numbers of the changed file, in float64; raises where it has no meaning."""


@dataclass(frozen=True)
class Change:
    """One attribute (`name`, where it stands) that became `value`, in the file at `path`."""

    name: str
    value: str
    path: Path
    oracle: Oracle


@dataclass
class Attributes:
    """The verdicts over all changes of one format.

    read: path → Model. silent: attribute without meaning for inference → why; whatever it becomes,
    the numbers are those of the unchanged file, or it is refused. overlooked: attribute that the
    original refuses and ifgo need not look at → why; then too, the numbers are the unchanged ones.
    """

    read: Callable[[Path], Model]
    base: Path
    silent: Mapping[str, str]
    x: Callable[[Model], Any]
    bound: Callable[[Model, Any], float] = double_bound
    overlooked: Mapping[str, str] = field(default_factory=dict[str, str])
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    equal: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    moved: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    known: dict[bytes, Any] = field(default_factory=dict[bytes, Any])
    """What was computed of models that were read before: (x, numbers, bound)."""

    def __post_init__(self) -> None:
        self.numbers = self.computed(self.read(self.base))[1]

    def computed(self, model: Model) -> tuple[Any, Any, float]:
        """x, the numbers of it, and their bound. Raises what Model.run raises."""
        same = pickle.dumps((model.inputs, model.layers, model.outputs))
        if same not in self.known:
            x = self.x(model)
            y = model.run(x, on="truth")[0]
            self.known[same] = x, y, self.bound(model, x)
        return self.known[same]

    def judge(self, change: Change) -> None:
        """Fails where the file is read and its numbers are not those of the oracle."""
        said = f"{change.name} = {change.value}"
        try:
            model = self.read(change.path)
        except IfgoError as error:
            self.refused[change.name] += 1
            if str(change.path) in str(error):
                return
            raise AssertionError(f"{said}: the file is not named: {error}") from error
        try:
            x, found, bound = self.computed(model)
        except IfgoError as error:  # such as more steps than a layer takes
            self.refused[change.name] += 1
            if (error.where or "").startswith("layer "):
                return
            raise AssertionError(f"{said}: the layer is not named: {error}") from error
        if change.name in self.silent:
            assert np.array_equal(found, self.numbers), said
            self.equal[change.name] += 1
            return
        try:
            expected = np.asarray(change.oracle(x))
        except Exception as error:
            if change.name in self.overlooked:
                assert np.array_equal(found, self.numbers), said
                self.equal[change.name] += 1
                return
            raise AssertionError(f"{said} is read, and has no meaning ({error!r})") from error
        assert found.shape == expected.shape, f"{said}: {found.shape}, not {expected.shape}"
        difference = np.abs(found - expected).max()
        assert difference <= bound, f"{said}: off by {difference:.3g}, {bound:.3g} allowed"
        same = found.shape == self.numbers.shape and np.abs(found - self.numbers).max() <= bound
        (self.equal if same else self.moved)[change.name] += 1

    def finish(self, expected: Iterable[str]) -> None:
        """Every attribute in `expected` was changed, and a change of it was noticed: refused, or
        other numbers than before. Those that are silent never gave other numbers, and are there."""
        wanted = set(expected)
        assert not wanted - set(self.refused) - set(self.equal) - set(self.moved)
        unnoticed = wanted - set(self.refused) - set(self.moved) - set(self.silent)
        assert not unnoticed, f"no change of {sorted(unnoticed)} is noticed"
        assert not set(self.silent) - set(self.equal), "silent, but never read"
        assert self.moved, "no change gave other numbers that are right"


def signal(model: Model, steps: int = 6) -> Any:
    """Seeded x (T, I), or tokens (T,)."""
    rng = np.random.default_rng(5)
    if isinstance(model.input, TokenInput):
        return rng.integers(0, model.input.vocabulary, steps)
    return rng.normal(0, 1, (steps, model.input_size)).astype("f")


# -- trees, as JSON and TOML hold them ------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """A tree with one thing changed. name: its path, without the numbers of list entries."""

    name: str
    value: str
    tree: Any


def edits(
    tree: Any, legal: Mapping[str, Iterable[Any]] | None = None, brief: Container[str] = ()
) -> Iterator[Edit]:
    """Every key, entry and value of a tree, each removed and set to other values.

    legal: last key → values to try besides those that every kind gets. brief: last keys that get
    no others. Lists of numbers are one value: their first entry, length and nesting change.
    """
    for path in _paths(tree):
        name = named(path)
        here = _at(tree, path)
        if path:
            yield Edit(name, "absent", _without(tree, path))
        tried: list[Any] = list((legal or {}).get(_last(path), ()))
        tried += [] if _last(path) in brief else list(_others(here))
        seen: list[str] = [_shown(here)]
        for value in tried:
            if (shown := _shown(value)) not in seen:
                seen.append(shown)
                yield Edit(name, shown, _with(tree, path, value))


def names(tree: Any) -> set[str]:
    """The names that `edits` gives the attributes of a tree."""
    return {named(path) for path in _paths(tree)}


def named(path: tuple[Any, ...]) -> str:
    """Keys joined by dots, entries of lists as []."""
    return "".join("[]" if type(key) is int else f".{key}" for key in path).lstrip(".") or "file"


def _paths(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(tree, dict):
        for key in tree:
            yield from _paths(tree[key], (*at, key))
    elif isinstance(tree, list) and not _numeric(tree):
        for k, value in enumerate(tree):
            yield from _paths(value, (*at, k))


def _numeric(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_numeric(one) for one in value)
    return type(value) in (int, float)


def _last(path: tuple[Any, ...]) -> str:
    return next((key for key in reversed(path) if type(key) is str), "")


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _with(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return copy.deepcopy(value)
    made = copy.deepcopy(tree)
    _at(made, path[:-1])[path[-1]] = copy.deepcopy(value)
    return made


def _without(tree: Any, path: tuple[Any, ...]) -> Any:
    made = copy.deepcopy(tree)
    del _at(made, path[:-1])[path[-1]]
    return made


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}... ({hash(text):x})"


def _others(value: Any) -> Iterator[Any]:
    """Values that are not `value`: of its kind, and of every other kind."""
    kinds: tuple[Any, ...] = (None, True, 0, "x", [], {})
    match value:
        case bool():
            yield from (not value, int(value), int(not value), 2, str(value).lower())
        case int():
            yield from (value + 1, value - 1, value * 2, -value, value + 0.5, float(value))
            yield str(value)
        case float():
            yield from (value + 0.25, value / 2, -value, 0.0, 1.0, 2.0, str(value))
        case str():
            yield from ("", value + "x", value.upper(), value.capitalize(), f" {value} ", [value])
        case list() if _numeric(value):
            yield from _number_lists(value)
        case list():
            yield from (
                value[:-1],
                [*value, *value[-1:]],
                value[::-1],
                dict.fromkeys(map(str, value)),
            )
        case dict():
            yield dict(reversed(value.items()))
            yield value | {"unheard_of": 1}
            yield {f"{key}x" if k == 0 else key: v for k, (key, v) in enumerate(value.items())}
            yield list(value.items())
        case _:
            yield from (1, 0.5, False)
    yield from kinds


def _number_lists(value: list[Any]) -> Iterator[Any]:
    def first(of: Any, change: Callable[[Any], Any]) -> Any:
        return [first(of[0], change), *of[1:]] if isinstance(of, list) else change(of)

    def last(of: Any, change: Callable[[Any], Any]) -> Any:
        return [*of[:-1], last(of[-1], change)] if isinstance(of, list) else change(of)

    yield first(value, lambda v: float(np.float32(v + 0.25)))
    yield last(value, lambda v: float(np.float32(v - 0.25)))
    for odd in (None, "1", True, [1.0], 1e39):
        yield first(value, lambda v, odd=odd: odd)
    yield from (value[:-1], [*value, value[-1]], [value], value[::-1])
    if isinstance(value[0], list):
        yield [list(row) for row in zip(*value, strict=False)]
        yield [v for row in value for v in (row if isinstance(row, list) else [row])]
        yield [value[0][:-1], *value[1:]]


def toml(tree: Any) -> str | None:
    """A tree as TOML, tables inline; None where TOML has no such thing."""
    if not isinstance(tree, dict):
        return None
    try:
        return "\n".join(f"{json.dumps(key)} = {_inline(value)}" for key, value in tree.items())
    except TypeError:
        return None


def _inline(value: Any) -> str:
    match value:
        case bool() | str():
            return json.dumps(value)
        case int() | float():
            return repr(value)
        case list():
            return "[" + ", ".join(map(_inline, value)) + "]"
        case dict():
            return (
                "{" + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + "}"
            )
        case _:
            raise TypeError(value)
