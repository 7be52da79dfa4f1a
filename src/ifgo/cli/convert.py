"""`ifgo convert`: a model from one format into another, with a report of what happened to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ifgo import files, formats
from ifgo.cli import terminal
from ifgo.cli.options import Source, model_source, tell_notes, writing_options
from ifgo.cli.terminal import escape, json_option
from ifgo.model import Model, walk


@click.command("convert")
@click.option(
    "--to",
    type=click.Choice(formats.FORMATS),
    help="Format of DST; found from its ending where not given. A folder needs --to raw.",
)
@writing_options
@click.option(
    "--allow-lossy",
    "losses",
    metavar="LOSS[,LOSS]",
    multiple=True,
    help="Give up these, which a refusal names: " + ", ".join(formats.LOSSES) + ".",
)
@click.option("--quiet", "-q", is_flag=True, help="Report only what is not kept exactly.")
@model_source("SRC")
@click.argument("destination", metavar="DST")
@json_option
def command(
    source: Source,
    destination: str,
    to: str | None,
    writing: dict[str, str | None],
    losses: tuple[str, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Write the model in SRC to DST, and say what was kept exactly, folded or lost.

    What DST cannot hold is refused by name, all in one message, with the --allow-lossy that
    permits it where it can be given up.
    """
    layout = source.options["layout"]
    if layout and writing["layout"] is None and not _is_raw(source):
        source, writing["layout"] = (
            replace(source, options=source.options | {"layout": None}),
            layout,
        )
    files.refuse_own_source(Path(source.path), Path(destination))
    model = source.load(tell=False)
    notes: tuple[str, ...] = ()
    if source.select or model.provenance.path == str(Path(source.path)):  # no earlier reading's
        notes = model.provenance.notes
        tell_notes(model)
    named = [name.strip() for text in losses for name in text.split(",")]
    report = formats.save(model, destination, to, allow_lossy=named, **writing)
    if as_json:
        tree = {"source": source.path, "destination": destination, "exact": report.exact}
        said = {"kept": report.kept, "folded": report.folded, "lost": report.lost}
        terminal.emit(tree | {"notes": notes, **said, "attributes": _rows(report)})
    else:
        for line in report_lines(model, report, quiet=quiet):
            terminal.say(line)
    verdict = (
        "every bit kept"
        if report.exact
        else f"{len(report.folded)} folded, {len(report.lost)} lost, as reported"
    )
    terminal.tell(f"{escape(destination)}: {verdict}")


def _is_raw(source: Source) -> bool:
    return source.format == "raw" or (
        source.format is None and formats.get("raw").sniff(Path(source.path))
    )


def _rows(report: formats.Report) -> list[dict[str, str]]:
    """Every attribute as JSON has it."""
    return [
        {"part": one.part, "of": one.owner, "name": one.name, "fate": one.fate, "words": one.words}
        for one in report.attributes
    ]


def report_lines(model: Model, report: formats.Report, *, quiet: bool) -> list[str]:
    """A block for each part of the model, a line for each attribute; what is kept and usual (the
    default, or absent) is counted. quiet: what is kept or unsaid is left out."""
    lines: list[str] = []
    kinds = {layer.name: layer.kind for layer in walk(model.layers)}
    parts = dict.fromkeys((one.part, one.owner) for one in report.attributes)
    for part, owner in parts:
        mine = [one for one in report.attributes if (one.part, one.owner) == (part, owner)]
        shown = [one for one in mine if one.fate in ("folded", "lost")]
        if not quiet:
            shown = [one for one in mine if not (one.fate in ("kept", "unsaid") and one.usual)]
        rest = len(mine) - len(shown)
        if not shown:
            continue
        kind = f" ({kinds[owner]})" if part == "layer" and owner in kinds else ""
        lines.append(f"{part} {escape(owner)}{kind}")
        for one in shown:
            words = f": {escape(one.words)}" if one.words else ""
            lines.append(f"  {_WORDS[one.fate]:<7} {one.name}{words}")
        if rest and not quiet:
            lines.append(f"  and {rest} more, absent or usual")
    return lines


_WORDS = {"kept": "exact", "folded": "folded", "lost": "lost", "unsaid": "unsaid"}
