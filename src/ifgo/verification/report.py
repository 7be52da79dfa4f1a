"""A verification as data (SPEC.md 6.4), as text, as a page, and as a verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any, Final, cast

from ifgo.text import escape
from ifgo.verification.findings import WORDS, Finding, PartErrors

SCHEMA: Final = 1
"""Number of the JSON form; it grows when a field changes its meaning or goes away."""


@dataclass(frozen=True)
class Verification:
    """All findings over one input. ok: every comparison made holds, and at least one was made."""

    batch: int
    steps: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True where every comparison holds and every runtime was compared somewhere."""
        compared = {f.runtime for f in self.findings if f.compared}
        asked = {f.runtime for f in self.findings}
        return compared == asked and all(f.holds for f in self.findings)

    @property
    def ranked(self) -> tuple[Finding, ...]:
        """What fails first, the root before what follows from it, then the order of the layers.

        Of what fails: the reference itself before what it judges, layers that err by themselves
        before those that inherit an error, then the order of computing (layer, step, part), then
        the size relative to the bound.
        """
        return tuple(sorted(self.findings, key=_rank))

    @property
    def first(self) -> Finding | None:
        """The failing finding of the highest rank, None where nothing fails."""
        found = self.ranked[0] if self.findings else None
        return None if found is None or found.holds else found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as SPEC.md 6.4 says it; findings are ranked, no number is infinite or NaN."""
        rows = [
            {"rank": rank}
            | _finite(asdict(f))
            | {"verdict": f.verdict, "place": f.place, "used": _number(f.used)}
            for rank, f in enumerate(self.ranked, 1)
        ]
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "batch": self.batch,
            "steps": self.steps,
            "findings": rows,
        }

    def summary(self) -> str:
        """One sentence about the first difference; "" where nothing fails."""
        f = self.first
        if f is None:
            return ""
        text = f"First difference: {f.runtime} against {f.judge}, {escape(f.where)}"
        if f.part:
            text += f", {WORDS.get(f.part, f.part)}"
        if f.step is not None:
            text += f" ({f.place})"
        if f.part:
            text += f": off by {f.difference:.3g}"
            text += "" if f.basis == "EXACT" else f", {f.bound:.3g} allowed"
        if f.note:
            text += f"{';' if f.part else ':'} {escape(f.note)}"
        rest = [g for g in self.ranked[1:] if not g.holds]
        own = sum(g.cause == "own" for g in rest)
        if own:
            text += f". Differences of their own besides: {own}"
        if len(rest) > own:
            text += f". Inherited from what came before: {len(rest) - own}"
        return text + "."

    def to_html(self, table: str = "") -> str:
        """One self-contained page: the ranked findings with their parts over time, and `table`
        (a model's) below them."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        pages: Any = Environment(
            loader=PackageLoader("ifgo.verification"), autoescape=True, undefined=StrictUndefined
        )
        pages.filters |= {"line": escape, "size": _size}
        pages.globals["level"] = level
        return pages.get_template("report.html.j2").render(
            ok=self.ok,
            batch=self.batch,
            steps=self.steps,
            findings=self.ranked,
            summary=self.summary(),
            table=[escape(line) for line in table.splitlines()],
        )

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("runtime", "against", "layer", "verdict", "difference"):
            grid.add_column(title, no_wrap=True)
        grid.add_column("at", overflow="fold")
        for f in self.ranked:
            place = f"{f.place}; {f.note}" if f.place and f.note else f.note or f.place
            place += " (inherited)" if f.cause == "inherited" else ""
            layer = Text(escape(f.where))
            grid.add_row(f.runtime, f.judge, layer, f.verdict, _size(f), Text(escape(place)))
        out = StringIO()
        Console(file=out, width=150, no_color=True, highlight=False).print(grid)
        body = "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
        what = f"{self.batch} sequence(s) of {self.steps} steps"
        end = f"{'PASS' if self.ok else 'FAIL'}: {what}"
        return "\n\n".join(part for part in (body.lstrip("\n"), self.summary(), end) if part)


def _rank(f: Finding) -> tuple[Any, ...]:
    if f.holds:
        return (1,)
    return (0, f.runtime != "exact", f.cause == "inherited", f.order, -f.used)


def level(used: float) -> int:
    """Shade of a share of the bound: 0 for none of it, 1 to 4 by quarters, 5 beyond it."""
    return min(5, math.ceil(used * 4)) if used <= 1 else 5


def _size(found: Finding | PartErrors) -> str:
    if isinstance(found, Finding) and not found.compared:
        return ""
    if not found.bound:
        return "0" if found.holds else f"{found.difference:.3g}"
    return f"{found.difference:.2e} of {found.bound:.2e}"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _finite(tree: Any) -> Any:
    """`tree` with None for numbers that JSON does not have, lists for tuples."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in cast("dict[str, Any]", tree).items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in cast("list[Any]", tree)]
    return _number(tree) if isinstance(tree, float) else tree
