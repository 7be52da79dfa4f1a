"""What a model costs on a board: flash, RAM, stack, instructions; measured, not modelled.

Only the cycles are an estimate, and say so. `measuring` fills a Report, this prints it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any, Final

from ifgo.text import escape

_ARITHMETIC: Final = {
    "exact": "exact: the bits of the reference",
    "contracted": "contracted: products and sums may be fused, within a bound",
    "": "the library's, within a bound",
}
"""What a Report says of its variant."""


@dataclass(frozen=True)
class Part:
    """One tensor or function in flash. kind: "tensor" and "function" are the model's own,
    "library" what these call, "project" everything else (start-up, console, example). what: the
    fields of the model that a tensor holds, else "".
    """

    name: str
    kind: str
    bytes: int
    what: str = ""


@dataclass(frozen=True)
class Stack:
    """Worst stack of one call of the model, two ways: seen while running, and by call graph."""

    painted: int
    call_graph: int


@dataclass(frozen=True)
class Instructions:
    """Executed per call: one call is one step, or the whole sequence of `steps` steps.

    recipe: what counted. functions: mean per step, the most first; empty without the plugin.
    """

    recipe: str
    steps: int
    calls: int
    per_step: float
    least_call: int
    most_call: int
    functions: dict[str, float]


@dataclass(frozen=True)
class Report:
    """Cost of `model` on a board, in bytes and executed instructions.

    flash: the example program without its self-test: its parts, and the unnamed rest of texts,
    jump tables and alignment. sections: section of it → bytes. ram: that program's variables
    without the stack; state: of them the model's state. cycles: estimate per step, None where
    assumptions say why. hertz: the clock that `microseconds` takes. library: what multiplies
    matrices, "" where the model does. variant: "exact" or "contracted", "" around a library.
    """

    board: str
    core: str
    hertz: int
    compiler: str
    flags: str
    library: str
    variant: str
    emulator: str
    flash: int
    flash_available: int
    sections: dict[str, int]
    parts: tuple[Part, ...]
    unnamed: int
    ram: int
    ram_available: int
    stack_reserved: int
    state: int
    scratch: int
    stack: Stack
    instructions: Instructions
    macs: int
    cycles: float | None
    assumptions: str

    @property
    def model_flash(self) -> int:
        """Flash that the model takes in any program: its tensors, functions, and their library."""
        return sum(part.bytes for part in self.parts if part.kind != "project")

    @property
    def microseconds(self) -> float | None:
        """Estimated time of a step at `hertz`, None where there are no cycles."""
        return None if self.cycles is None else self.cycles / self.hertz * 1e6

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"model_flash": self.model_flash, "microseconds": self.microseconds}

    def to_json(self) -> str:
        """`to_dict` as the text of report.json."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """One self-contained page, in ASCII."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        pages = Environment(
            loader=PackageLoader("ifgo.targets.cortex_m"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        text = pages.get_template("report.html.j2").render(
            report=self, facts=self._facts(), parts=self._flash(), functions=self._profile()
        )
        return text.encode("ascii", "xmlcharrefreplace").decode()

    def __str__(self) -> str:
        facts = _grid(("", ""), self._facts(), wrap=True)
        rows = [
            (f"{size}", f"{share:.1%}", kind, name, what)
            for name, kind, size, share, what in self._flash()
        ]
        parts = _grid(("bytes", "of flash", "", "", ""), rows, right=2)
        if not self.instructions.functions:
            return f"{facts}\n\n{parts}"
        found = [(f"{count:.1f}", f"{share:.1%}", name) for name, count, share in self._profile()]
        profile = _grid(("instructions per step", "of all", ""), found, right=2)
        return f"{facts}\n\n{parts}\n\n{profile}"

    def _facts(self) -> list[tuple[str, str]]:
        """(label, text) of everything but the lists."""
        counted = self.instructions
        estimate = "none"
        if self.cycles is not None:
            estimate = f"about {self.cycles:.0f} per step"
            estimate += f", {self.microseconds:.1f} us at {self.hertz / 1e6:g} MHz"
        many = counted.calls > 1
        calls = f"{counted.calls} calls" if many else f"one call of {counted.steps} steps"
        return [
            ("board", f"{self.board} ({self.core}), {self.emulator}"),
            ("compiler", ", ".join(filter(None, (self.compiler, self.flags, self.library)))),
            ("arithmetic", _ARITHMETIC[self.variant]),
            (
                "flash",
                f"{self.flash} of {self.flash_available} bytes in the example program, "
                f"{self.model_flash} of them the model",
            ),
            (
                "RAM",
                f"{self.ram} of {self.ram_available} bytes in the example program, {self.state} "
                f"of them the model's state; {self.scratch} of scratch from the caller",
            ),
            (
                "stack",
                f"at most {self.stack.call_graph} bytes by the call graph, {self.stack.painted} "
                f"touched in the emulator, {self.stack_reserved} reserved; interrupts come on top",
            ),
            (
                "instructions",
                f"{counted.per_step:.1f} per step on average, {counted.least_call} to "
                f"{counted.most_call} per call, over {calls} ({counted.recipe})",
            ),
            ("MACs", f"{self.macs} per step"),
            ("cycles", estimate),
            ("", self.assumptions),
        ]

    def _flash(self) -> list[tuple[str, str, int, float, str]]:
        """(name, kind, bytes, share of all, what) of everything in flash, the largest first."""
        rows = [(p.name, p.kind, p.bytes, escape(p.what)) for p in self.parts]
        rows.sort(key=lambda row: (-row[2], row[0]))
        rows.append(("(texts, jump tables, alignment)", "unnamed", self.unnamed, ""))
        return [(name, kind, size, size / self.flash, what) for name, kind, size, what in rows]

    def _profile(self) -> list[tuple[str, float, float]]:
        """(function, instructions per step, share of all)."""
        counted = self.instructions
        return [(name, n, n / counted.per_step) for name, n in counted.functions.items()]


def _grid(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 0, wrap: bool = False
) -> str:
    """A table without colours; the first `right` columns to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(titles))
    for position, title in enumerate(titles):
        side = "right" if position < right else "left"
        table.add_column(title, justify=side, no_wrap=not wrap)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out = StringIO()
    width = 100 if wrap else 10_000
    Console(file=out, width=width, no_color=True, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines() if line.strip())
