"""Text that came from a file, made safe to show."""

from __future__ import annotations


def escape(text: object) -> str:
    """`text` on one line: control, invisible and direction-changing characters as \\x1b."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in str(text)
    )
