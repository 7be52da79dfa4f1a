"""What a verification found, as data, as text and as a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

from ifgo.text import escape


@dataclass(frozen=True)
class Finding:
    """One layer (or the whole model) of one runtime against its judge.

    basis: "EXACT" (bits), "local bound" or "global bound"; "" where nothing could be compared,
    `note` then says why. difference and bound are those of the worst place: `part` (gate, cell,
    output), `step` and `unit`; it is the place nearest its bound, or the first differing bit.
    """

    runtime: str
    judge: str
    layer: str
    basis: str
    holds: bool
    difference: float = 0.0
    bound: float = 0.0
    part: str = ""
    step: int | None = None
    unit: int | None = None
    note: str = ""

    @property
    def compared(self) -> bool:
        """Whether anything was compared at all."""
        return bool(self.basis)

    @property
    def verdict(self) -> str:
        """EXACT, within its bound, DIFFERS, or not compared."""
        if not self.compared:
            return "not compared"
        if not self.holds:
            return "DIFFERS" if self.basis == "EXACT" else f"OUT OF {self.basis}"
        return "EXACT" if self.basis == "EXACT" else f"within {self.basis}"

    @property
    def place(self) -> str:
        """Gate or part, step and unit of the difference; "" where there is none."""
        if self.step is None or (self.basis == "EXACT" and self.holds):
            return ""
        unit = "" if self.unit is None else f", unit {self.unit}"
        return f"{self.part}, step {self.step}{unit}"


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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: ok, batch, steps and every finding with its verdict."""
        rows = [asdict(f) | {"verdict": f.verdict} for f in self.findings]
        return {"ok": self.ok, "batch": self.batch, "steps": self.steps, "findings": rows}

    @property
    def ranked(self) -> tuple[Finding, ...]:
        """What fails first, the earliest step before later ones; else the order of the layers."""
        return tuple(
            sorted(self.findings, key=lambda f: (f.holds, 0 if f.holds else (f.step or 0)))
        )

    def to_html(self, table: str = "") -> str:
        """One self-contained page: the ranked findings, and `table` (a model's) below them."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        pages = Environment(
            loader=PackageLoader("ifgo.verification"), autoescape=True, undefined=StrictUndefined
        )
        return pages.get_template("report.html.j2").render(
            ok=self.ok, batch=self.batch, steps=self.steps, findings=self.ranked, table=table
        )

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("runtime", "against", "layer", "verdict", "largest difference"):
            grid.add_column(title, no_wrap=True)
        grid.add_column("at", overflow="fold")
        for f in self.findings:
            place = Text(escape(f.note or f.place))
            grid.add_row(f.runtime, f.judge, Text(escape(f.layer)), f.verdict, _size(f), place)
        out = StringIO()
        Console(file=out, width=150, no_color=True, highlight=False).print(grid)
        body = "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
        what = f"{self.batch} sequence(s) of {self.steps} steps"
        end = f"{'PASS' if self.ok else 'FAIL'}: {what}"
        return body.lstrip("\n") + "\n\n" + end


def _size(finding: Finding) -> str:
    if not finding.compared:
        return ""
    if finding.basis == "EXACT":
        return "0" if finding.holds else f"{finding.difference:.3g}"
    return f"{finding.difference:.2e} of {finding.bound:.2e}"
