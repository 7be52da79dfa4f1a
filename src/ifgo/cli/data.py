"""Input data and states from files, results into files.

Files may come from anywhere: sizes are checked before anything is allocated, pickles are refused.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import arrays, backends, decimals, files, limits, states
from ifgo.arrays import Header
from ifgo.errors import FormatError, UsageError
from ifgo.model import Model, TokenInput
from ifgo.states import State
from ifgo.text import quote

Array = NDArray[Any]

STATE_KEY: Final = re.compile(r"[hc]\d{1,3}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Data:
    """What a model is run on. x: (B, T, I), or tokens (B, T); lengths (B,); state as given."""

    x: Array
    lengths: Array | None
    state: State


def read(path: str | Path, model: Model, state_in: str | Path | None = None) -> Data:
    """The input in `path`, checked against `model`, with the states in it and in `state_in`.

    Raises UsageError where the data do not fit, FormatError where a file is damaged.
    """
    place = files.as_path(path, "--input")
    found = _arrays(place, model)
    x, lengths = found.pop("x"), found.pop("lengths", None)
    try:
        ready = backends.prepare(model, x, lengths)
    except UsageError as error:
        raise error.located(str(place)) from None
    sources = [str(place)] if found else []
    state = found
    if state_in is not None:
        more = read_state(state_in, model, ready.x.shape[0])
        if both := sorted(set(more) & set(state)):
            raise UsageError(
                f"gives {', '.join(both)}, and so does {place}",
                where=str(state_in),
                expected="each state once",
                hint="Leave it out of one of the two",
            )
        state |= more
        sources.append(str(state_in))
    if state:
        try:
            states.complete(model, ready.x.shape[0], state, np.float32)
        except UsageError as error:
            raise error.located(" and ".join(sources)) from None
    return Data(ready.x, ready.lengths, state)


def read_state(path: str | Path, model: Model, batch: int) -> State:
    """The arrays h0, c0, ... of an .npz for `batch` sequences. Raises UsageError, FormatError."""
    place = Path(path)
    if place.suffix != ".npz":
        raise UsageError(f"has the ending {place.suffix!r}", where=str(place), expected=".npz")

    def check(headers: Mapping[str, Header]) -> None:
        _known(headers, STATE_KEY, "h0, c0, h1 and so on", str(place))
        _fit_states(model, batch, headers, str(place))

    return arrays.read_npz(place, check)


_KEYS: Final = re.compile(rf"x|lengths|{STATE_KEY.pattern}", re.ASCII)


def _known(headers: Mapping[str, Header], keys: re.Pattern[str], names: str, where: str) -> None:
    for name in headers:
        if not keys.fullmatch(name):
            raise UsageError(
                f"holds an array {quote(name)}",
                where=where,
                expected=names,
                hint="Leave it out, or give it one of these names",
            )


def _fit(model: Model, where: str, headers: Mapping[str, Header]) -> None:
    """Raises UsageError where the arrays of an input file are not those of `model`."""
    names = "x, lengths, h0, c0, h1 and so on"
    _known(headers, _KEYS, names, where)
    if "x" not in headers:
        raise UsageError(
            "has no array 'x'", where=where, expected=names, hint="Save the input under that name"
        )
    try:
        batch = backends.check_shape(model, headers["x"].shape)
        if "lengths" in headers:
            backends.check_lengths(headers["lengths"].shape, headers["lengths"].dtype, batch)
    except UsageError as error:
        raise error.located(where) from None
    given = {key: header for key, header in headers.items() if key not in ("x", "lengths")}
    _fit_states(model, batch, given, where)


def _fit_states(model: Model, batch: int, headers: Mapping[str, Header], where: str) -> None:
    try:
        for key, header in headers.items():
            states.check_shape(model, batch, key, header.shape)
    except UsageError as error:
        raise error.located(where) from None


def _arrays(path: Path, model: Model) -> dict[str, Array]:
    """Arrays of an input file by key. Text files give x (T, I), or (T,) where the model reads
    tokens."""
    tokens = isinstance(model.input, TokenInput)
    match path.suffix:
        case ".npy":
            return {"x": arrays.read_npy(path)}
        case ".npz":
            return arrays.read_npz(path, partial(_fit, model, str(path)))
        case ".csv":
            x = _csv(path)
        case ".txt":
            x = _txt(path)
        case _:
            raise UsageError(
                f"has the ending {path.suffix!r}",
                where=str(path),
                expected=".npy, .npz, .csv or .txt",
            )
    if tokens and x.shape[1] != 1:
        raise UsageError(
            f"has {x.shape[1]} columns", where=str(path), expected="one, for the model reads tokens"
        )
    return {"x": x[:, 0] if tokens else x}


# -- text -------------------------------------------------------------------------------------


def _too_many(path: Path) -> FormatError:
    return FormatError(
        f"has more than {limits.current().text_numbers} numbers",
        where=str(path),
        **limits.at_most(
            "text_numbers",
            form="at most that many in a text",
            hint="Save them with numpy.save, as .npy",
        ),
    )


class _Numbers:
    """Decimals one by one, as the float32 that main.c reads from the same text."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.chunks: list[NDArray[np.float32]] = []
        self.count = 0

    def add(self, token: str) -> bool:
        """Takes a decimal; False where float32 cannot hold it."""
        self.tokens.append(token)
        self.count += 1
        if len(self.tokens) == 2**14:  # small beside what text and float objects would take
            self.flush()
        largest = abs(float(token.rstrip("fF"))) <= float(np.finfo(np.float32).max)
        return largest or bool(np.isfinite(decimals.to_float32([token])[0]).all())

    def flush(self) -> None:
        self.chunks.append(decimals.to_float32(self.tokens)[0])
        self.tokens = []

    def array(self) -> NDArray[np.float32]:
        self.flush()
        return np.concatenate(self.chunks)


class _Lines:
    """The lines of a text; no row of them may have more columns than a model has inputs."""

    def __init__(self, path: Path) -> None:
        self.path, self.columns = path, 1

    def __iter__(self) -> Iterator[str]:
        data = files.read_bytes(self.path, limit="text_bytes")
        lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
        try:
            for number, line in enumerate(lines, 1):
                self.columns += line.count(",")
                if self.columns > limits.current().input_size:
                    raise FormatError(
                        f"has {self.columns} columns or more",
                        where=f"{self.path} line {number}",
                        **limits.at_most(
                            "input_size", hint="Rows are time steps, columns are features"
                        ),
                    )
                yield line
        except UnicodeDecodeError:
            raise FormatError("is no text", where=str(self.path), expected="UTF-8") from None


def _csv(path: Path) -> NDArray[np.float32]:
    """Rows are time steps, columns features; a first line without any number is a header."""
    numbers, lines = _Numbers(), _Lines(path)
    reader = csv.reader(lines, strict=True)
    first, empty, width = True, 0, 0
    try:
        for row in reader:
            lines.columns = 1
            cells = [cell.strip(" \t") for cell in row]
            if not any(cells):
                empty = empty or reader.line_num
                continue
            if empty:
                raise FormatError(
                    "is empty",
                    where=f"{path} line {empty}",
                    expected="numbers in every line but the last",
                    hint="Remove it",
                )
            width = width or len(row)
            if len(row) != width:
                raise FormatError(
                    f"has {len(row)} columns",
                    where=f"{path} line {reader.line_num}",
                    expected=f"{width}, as the first line",
                    hint="Every line is one time step of all features",
                )
            if first and not any(
                decimals.is_decimal(c) or decimals.is_not_finite(c) for c in cells
            ):
                cells = []
            first = False
            for column, cell in enumerate(cells, 1):
                _take(cell, numbers, f"{path} line {reader.line_num} column {column}")
            if numbers.count > limits.current().text_numbers:
                raise _too_many(path)
    except csv.Error as error:
        raise FormatError(
            f"is no CSV ({error})",
            where=f"{path} line {reader.line_num}",
            hint="Save it again, with quotes closed at the end of a field",
        ) from None
    found = numbers.array()
    if not found.size:
        raise FormatError("holds no numbers", where=str(path), expected="one line per time step")
    return found.reshape(-1, width)


def _take(cell: str, numbers: _Numbers, where: str) -> None:
    if not decimals.is_decimal(cell):
        raise FormatError(
            f"holds {quote(cell, 40)}",
            where=where,
            expected="a finite number" if decimals.is_not_finite(cell) else "a number",
            hint="Commas separate columns, decimals have a point",
        )
    if not numbers.add(cell):
        raise decimals.beyond("", cell).located(where)


def _txt(path: Path) -> NDArray[np.float32]:
    """One sequence of one feature, (T, 1), in the grammar of `decimals`."""
    data = files.read_bytes(path, limit="text_bytes")
    try:
        found, _ = decimals.parse(data)
    except FormatError as error:
        raise error.located(str(path)) from None
    if not found.size:
        raise FormatError("holds no numbers", where=str(path), expected="one per time step")
    return found.reshape(-1, 1)


# -- results ----------------------------------------------------------------------------------


def check_destination(path: str | Path, ending: str) -> None:
    """Raises UsageError where `path` has another ending, or no folder to lie in."""
    place = Path(path)
    if place.suffix != ending:
        raise UsageError(f"has the ending {place.suffix!r}", where=str(place), expected=ending)
    if not place.parent.is_dir():
        raise UsageError(
            "no such folder", where=str(place.parent), hint="Make it first, or check the path"
        )


def write_array(path: str | Path, array: Array) -> None:
    """Write one array as .npy, whole or not at all."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    files.atomic_write(Path(path), stream.getvalue())


def write_state(path: str | Path, state: State) -> None:
    """Write h0, c0, ... as .npz, whole or not at all."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **state)
    files.atomic_write(Path(path), stream.getvalue())


def as_text(y: NDArray[np.float32]) -> str:
    """y (B, T, ·) or (B, ·) as main.c prints it: a line per step, sequences apart by a line."""

    def line(row: NDArray[np.float32]) -> str:
        return " ".join(f"{value:.9g}" for value in row.tolist())

    if y.ndim == 2:
        return "\n".join(line(row) for row in y)
    return "\n\n".join("\n".join(line(row) for row in sequence) for sequence in y)
