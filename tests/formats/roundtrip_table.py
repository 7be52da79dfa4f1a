"""The round-trip matrix as text, between the markers of FORMATS.md.

    PYTHONPATH=src python tests/formats/roundtrip_table.py

writes both generated parts again (some minutes); test_roundtrip.py compares them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from roundtrip import Leg, Matrix, matrix, pairs, rank, singles, usual
from roundtrip_features import FEATURES

PAGE: Final = Path(__file__).parents[2] / "FORMATS.md"
COMMAND: Final = "PYTHONPATH=src python tests/formats/roundtrip_table.py"


class Notes:
    """Reasons of refusals and losses, each said once."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def mark(self, leg: Leg) -> str:
        """What stands in a cell."""
        if leg.outcome != "refused" and not leg.lossy:
            return str(leg)
        number = self.known.setdefault(leg.reasons, len(self.known) + 1)
        return f"{leg} [{number}]"

    def lines(self) -> list[str]:
        """The list below the table."""
        return [f"{number}. {_plain(text)}" for text, number in self.known.items()]


def _plain(text: str) -> str:
    """`text` without what Markdown would read as markup."""
    return re.sub(r"([<>|*_`])", r"\\\1", text)


def single_lines(made: Matrix) -> list[str]:
    """The table of single formats, what each column stands on, and the reasons."""
    notes = Notes()
    lines = [f"| | {' | '.join(made.bodies)} |", "|" + "---|" * (len(made.bodies) + 1)]
    for name in FEATURES:
        row = made.legs[name]
        lines.append(f"| {name} | {' | '.join(notes.mark(leg) for leg in row.values())} |")
    lines += ["", "Bodies:", ""]
    lines += [f"- {column}: {body}" for column, (body, _) in made.bodies.items()]
    only = [f"- {column}: {message}" for column, message in made.unwritten.items()]
    lines += ["", "Only read:", "", *only] if only else []
    return [*lines, "", "Reasons:", "", *notes.lines()]


LETTERS: Final = ("=", "≈", "≈", "≈", "!", "×")
"""By rank: equal, same outputs, ulps, rounding, other numbers, refused; a loss is "!" always."""


def letter(leg: Leg) -> str:
    """One leg of a pair."""
    return "!" if leg.lossy else LETTERS[rank(leg)]


def pair_lines(made: Matrix) -> list[str]:
    """Every pair: a row per feature, a column per format left, a letter per format reached."""
    names = [column.format for column in usual()]
    routes = [list(made.bodies)[k : k + len(names)] for k in range(0, len(names) ** 2, len(names))]
    lines = [f"| to {' '.join(names)}, from | {' | '.join(names)} |"]
    lines.append("|" + "---|" * (len(names) + 1))
    for feature in FEATURES:
        legs = made.legs[feature]
        cells = ("`" + "".join(letter(legs[route]) for route in row) + "`" for row in routes)
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    return lines


def part(name: str) -> tuple[str, str]:
    """The markers around a generated part."""
    return f"<!-- {name}: made by {COMMAND} -->", f"<!-- end of {name} -->"


def published(name: str, text: str) -> list[str]:
    """The lines of a part as FORMATS.md has them."""
    start, end = part(name)
    return text.split(start)[1].split(end)[0].strip("\n").split("\n")


def publish(name: str, lines: list[str]) -> None:
    """Put `lines` in the place of a part."""
    start, end = part(name)
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(start)
    after = rest.split(end)[1]
    whole = "\n".join([before + start, "", *lines, "", end + after])
    PAGE.write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    alone = matrix(singles())
    both = matrix(pairs())
    if problems := [*alone.faults, *both.faults, *alone.absent.values()]:
        sys.exit("\n".join(problems))
    publish("formats alone", single_lines(alone))
    publish("formats in pairs", pair_lines(both))
