"""Every bound that untrusted input is held to, with its reason.

A bound keeps a hostile or damaged file from costing more memory or time than a real model would.
One is raised by an explicit argument alone: `load(path, limits=Limits(layers=100))`, or
`--limit layers=100`. Neither the environment nor a file changes it. How deep JSON may nest is
Python's own limit of recursion.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypedDict, cast

from ifgo.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds, each a whole number of 1 or more. Raises UsageError on anything else."""

    file_bytes: int = 2 * 1024**3
    """Largest model file read: protobuf's own limit, and far above any LSTM in use."""

    elements: int = 2**28
    """Largest tensor (1 GiB in float32): the recurrent matrix of hidden_size 8192."""

    hidden_size: int = 8192
    """Largest hidden_size; its weight_hh has exactly as many elements as a tensor may have."""

    input_size: int = 65536
    """Largest number of features per step."""

    vocabulary: int = 2**24
    """Largest embedding table (rows)."""

    layers: int = 64
    """Deepest chain; the deepest published recurrent nets have 16 layers."""

    name_chars: int = 256
    """Longest name of a layer, tensor or node that is kept."""

    json_bytes: int = 1024**2
    """Longest JSON description inside a file (its header), and the longest JSON that may hold
    anything."""

    json_file_bytes: int = 64 * 1024**2
    """Longest JSON model: json_values numbers, each on an indented line of 60 characters."""

    json_values: int = 2**20
    """Most values in a JSON model, 36 bytes each once parsed: one layer of hidden_size 511."""

    json_lists: int = 2**16
    """Most lists in a JSON model; each row of a matrix is one."""

    json_keys: int = 2**16
    """Most keys, and most escapes in strings, of a JSON model; each may take 200 bytes."""

    toml_bytes: int = 128 * 1024
    """Longest TOML file: 64 layers with the longest names take half; parsing costs 400 times it."""

    toml_depth: int = 8
    """Most parts of a dotted TOML key, whose parser takes memory by its square; ifgo's need 2."""

    cfg_bytes: int = 1024**2
    """Longest Darknet cfg; those of the largest networks have 20 kB."""

    text_numbers: int = 3 * 2**20
    """Most numbers in a text tensor or data file, and in all texts of a raw folder: reading them
    takes under two seconds. More belong in a binary one."""

    text_bytes: int = 32 * 3 * 2**20
    """Largest text tensor or data file: that many numbers of up to 32 characters."""

    expansion_bytes: int = 16 * 1024**2
    """What compressed or shared arrays may unpack to beyond the size of their file; plain ones are
    as large."""

    arrays: int = 1024
    """Most arrays, or members of an archive of them, in one file."""

    members: int = 2**14
    """Most members, and most modules, of a PyTorch file; each tensor is one member, and takes
    zipfile 600 bytes."""

    steps: int = 10**7
    """Longest sequence accepted in one call."""

    folded_elements: int = 2**20
    """Largest tensor that constant folding may create out of shape arithmetic."""

    folded_bytes: int = 16 * 1024**2
    """What folding may allocate beyond a small multiple of the constants that are there."""

    nodes: int = 20_000
    """Most nodes of a graph that a reader walks; 64 layers take about 2,000."""

    inputs: int = 1024
    """Most inputs, and most outputs, of a graph; a state for each of 64 layers takes 128."""

    fields: int = 2**19
    """Most fields in a protobuf file: exporters write about 60 for a node."""

    messages: int = 2**17
    """Most messages in a protobuf file: exporters write about 20 for a node, each takes 200
    bytes."""

    packed_bytes: int = 16 * 1024**2
    """What packed integers of a protobuf file may take beyond twice its size."""

    tables: int = 60_000
    """Most tables of a flatbuffer: an operator takes two, its tensors two each."""

    pickle_steps: int = 2**17
    """Most instructions of a pickle: an array takes about 30, and one costs microseconds."""

    pickle_depth: int = 32
    """Most levels of dicts, lists, objects and modules around the arrays of a pickle."""

    parts: int = 2**16
    """Most entries of a pickle or JSON that are looked at for arrays; there are a few for each."""

    hdf5_steps: int = 100_000
    """Most parts of an HDF5 file that are looked at; a weight takes about 20."""

    def __post_init__(self) -> None:
        for name in NAMES:
            value = getattr(self, name)
            most = _MOST_BYTES if name.endswith("_bytes") else _MOST_COUNT
            if type(value) is not int or not 1 <= value <= most:
                raise UsageError(
                    f"limit {name} is {str(value)[:40]}",
                    expected=f"a whole number from 1 to {most}",
                )


NAMES: Final = tuple(field.name for field in fields(Limits))
"""Every limit, as `--limit NAME=VALUE` takes it."""

_MOST_BYTES: Final = 2**62
_MOST_COUNT: Final = 2**31 - 1
"""Emitted C counts with int."""

DEFAULTS: Final = Limits()
"""What holds where no argument says otherwise."""

_given: Final[ContextVar[Limits]] = ContextVar("ifgo_limits")


def current() -> Limits:
    """What holds here: the argument of the surrounding `using` in this thread, or DEFAULTS."""
    return _given.get(DEFAULTS)


@contextmanager
def using(limits: Limits | None) -> Generator[None]:
    """Holds what is read and built inside to `limits`; None changes nothing."""
    if limits is None:
        yield
        return
    if not isinstance(cast("Any", limits), Limits):
        raise UsageError(
            f"limits is a {type(limits).__name__}", expected="ifgo.Limits, as Limits(layers=100)"
        )
    token = _given.set(limits)
    try:
        yield
    finally:
        _given.reset(token)


def value(name: str) -> int:
    """The limit of that name."""
    return cast("int", getattr(current(), name))


def parse(entries: Iterable[str]) -> Limits:
    """DEFAULTS changed by entries NAME=VALUE. Raises UsageError on any other entry."""
    values: dict[str, int] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if name not in NAMES:
            raise UsageError(
                f"no limit is named {name[:40]!r}", expected="one of " + ", ".join(NAMES)
            )
        if name in values:
            raise UsageError(f"limit {name} is given twice", expected="each limit once")
        if not (value.isascii() and value.isdigit() and len(value) <= 20):
            raise UsageError(f"limit {name} is {value[:40]!r}", expected="a whole number, as 1000")
        values[name] = int(value)
    return replace(DEFAULTS, **values)


class Exceeded(TypedDict):
    """The parts of an error that say which limit was passed and how it is raised."""

    expected: str
    hint: str | None


def at_most(
    *names: str, form: str = "at most {}", hint: str = "", found: int | None = None
) -> Exceeded:
    """What an error about a passed limit expects, and how to raise the limit.

    form takes the values of the limits `names`; `hint` is what else the user may do; `found` is the
    number at fault where one below 1 is refused too, which no limit allows.
    """
    expected = form.format(*map(value, names))
    if found is not None and found < 1:
        return Exceeded(expected=expected, hint=hint or None)
    flags = " ".join(f"--limit {name}=N" for name in names)
    fields = ", ".join(f"{name}=N" for name in names)
    raising = f"Raise it with {flags} (limits=Limits({fields}) in Python) if you trust the file"
    return Exceeded(expected=expected, hint=f"{hint}. {raising}" if hint else raising)
