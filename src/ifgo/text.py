"""Text that came from a file, made safe and short enough to show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

SHOWN_CHARS: Final = 60
SHOWN_NAMES: Final = 8


def escape(text: object) -> str:
    """`text` on one line: control, invisible and direction-changing characters as \\x1b."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in str(text)
    )


def cut(text: object, most: int = SHOWN_CHARS) -> str:
    """`text`, or its first `most` characters and dots where it is longer."""
    try:
        whole = str(text)
    except ValueError:  # of an integer with more digits than Python prints
        whole = "a huge number"
    return whole if len(whole) <= most else whole[:most] + "..."


def quote(text: object, most: int = SHOWN_CHARS) -> str:
    """`text` in quotes, cut."""
    return repr(cut(text, most))


def listed(names: Iterable[object], most: int = SHOWN_NAMES) -> str:
    """`names` between commas, each cut; past `most` of them, how many more there are."""
    every: Sequence[object] = list(names)
    shown = ", ".join(cut(name) for name in every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"
