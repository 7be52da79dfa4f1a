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
from ifgo.text import quote


@click.command("verify")
@click.option("--input", "input_", metavar="X", help="Data as `ifgo run` takes; seeded if absent.")
@click.option(
    "--lengths",
    metavar="N,N,...",
    help="Length of each sequence, for exact and c99 alone; an .npz may hold them as `lengths`.",
)
@click.option(
    "--against",
    "--on",
    "against",
    metavar="LIST",
    help=f"Comma list of {', '.join(verification.RUNTIMES)} [default: c99 if a compiler is found].",
)
@click.option("--html", metavar="FILE", help="Also write the findings as one web page.")
@model_source()
@json_option
def command(
    source: Source,
    input_: str | None,
    lengths: str | None,
    against: str | None,
    html: str | None,
    as_json: bool,
) -> int:
    """Compare runtimes of MODEL with the reference; exit code 1 where one is out of its bound.

    The reference itself (exact) is always checked against float64 (truth) first.
    """
    runtimes = [name.strip() for name in against.split(",")] if against is not None else _usual()
    if html is not None:
        data.check_destination(html, ".html")
    model = source.load()
    x = state = None
    wanted = None if lengths is None else _numbers(lengths)
    if input_ is not None:
        given = data.read(input_, model)
        x, state = given.x, given.state
        if given.lengths is not None and wanted is not None:
            raise UsageError(
                "gives lengths, and so does --lengths", where=input_, expected="them once"
            )
        wanted = wanted if given.lengths is None else list(map(int, given.lengths))
    found = verification.verify(model, x, against=runtimes, state=state, lengths=wanted)
    if html is not None:
        atomic_write(Path(html), found.to_html(str(model)).encode())
    if as_json:
        terminal.emit({"model": source.path, "input": input_, **found.to_dict()})
    else:
        terminal.say(str(found))
    return 0 if found.ok else 1


def _numbers(text: str) -> list[int]:
    """The lengths in a comma list. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
        raise UsageError(
            f"--lengths is {quote(text)}", expected="whole numbers with commas, such as 5,3"
        )
    return [int(word) for word in words]


def _usual() -> list[str]:
    """c99, or nothing beside exact where no compiler is found."""
    try:
        find_compiler()
    except ToolError as error:
        terminal.tell(f"c99 is left out: {error}")
        return []
    return ["c99"]
