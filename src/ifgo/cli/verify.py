"""`ifgo verify`: runtimes against the reference, per layer, gate and time step."""

from __future__ import annotations

from pathlib import Path

import click

from ifgo import verification
from ifgo.cli import data, terminal
from ifgo.cli.options import Source, model_source
from ifgo.cli.terminal import json_option
from ifgo.errors import ToolError, UsageError
from ifgo.files import atomic_write
from ifgo.targets.c99 import find_compiler


@click.command("verify")
@click.option("--input", "input_", metavar="X", help="Data as `ifgo run` takes; seeded if absent.")
@click.option(
    "--against",
    metavar="LIST",
    help=f"Comma list of {', '.join(verification.RUNTIMES)} [default: c99 if a compiler is found].",
)
@click.option("--html", metavar="FILE", help="Also write the findings as one web page.")
@model_source()
@json_option
def command(
    source: Source, input_: str | None, against: str | None, html: str | None, as_json: bool
) -> int:
    """Compare runtimes of MODEL with the reference; exit code 1 where one is out of its bound.

    The reference itself (exact) is always checked against float64 (truth) first.
    """
    runtimes = [name.strip() for name in against.split(",")] if against is not None else _usual()
    if html is not None:
        data.check_destination(html, ".html")
    model = source.load()
    x = state = None
    if input_ is not None:
        given = data.read(input_, model)
        if given.lengths is not None:
            raise UsageError(
                "gives lengths, and sequences are compared whole",
                where=input_,
                expected="x of one length, without lengths",
            )
        x, state = given.x, given.state
    found = verification.verify(model, x, against=runtimes, state=state)
    if html is not None:
        atomic_write(Path(html), found.to_html(str(model)).encode())
    if as_json:
        terminal.emit({"model": source.path, "input": input_, **found.to_dict()})
    else:
        terminal.say(str(found))
    return 0 if found.ok else 1


def _usual() -> list[str]:
    """c99, or nothing beside exact where no compiler is found."""
    try:
        find_compiler()
    except ToolError as error:
        terminal.tell(f"c99 is left out: {error}")
        return []
    return ["c99"]
