"""`ifgo convert`: a model from one format into another, with a report of what happened to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from ifgo import files, formats
from ifgo.cli import terminal
from ifgo.cli.options import Source, model_source, tell_notes, writing_options
from ifgo.cli.terminal import escape, json_option
from ifgo.errors import UnsupportedError
from ifgo.model import Model


@click.command("convert")
@click.option(
    "--to",
    type=click.Choice(formats.FORMATS),
    help="Format of DST; found from its ending where not given. A folder needs --to raw.",
)
@writing_options
@click.option(
    "--allow-lossy",
    is_flag=True,
    help="Give up what the report names, and round float64 weights to float32.",
)
@model_source("SRC")
@click.argument("destination", metavar="DST")
@json_option
def command(
    source: Source,
    destination: str,
    to: str | None,
    writing: dict[str, str | None],
    allow_lossy: bool,
    as_json: bool,
) -> None:
    """Write the model in SRC to DST, and say what was kept exactly, folded or lost.

    Without --allow-lossy nothing is lost: what DST cannot hold is refused by name.
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
    rounded = ""
    if allow_lossy:
        model, rounded = narrow(model)
    report = formats.save(model, destination, to, allow_lossy=allow_lossy, **writing)
    kept, folded = report.kept, report.folded
    lost = ((rounded,) if rounded else ()) + report.lost
    if as_json:
        tree = {"source": source.path, "destination": destination, "exact": not (folded or lost)}
        terminal.emit(tree | {"notes": notes, "kept": kept, "folded": folded, "lost": lost})
    else:
        for word, entries in (("exact", kept), ("folded", folded), ("lost", lost)):
            for entry in entries:
                terminal.say(f"{word:<7} {escape(entry)}")
    verdict = (
        "every bit kept"
        if not (folded or lost)
        else (f"{len(folded)} folded, {len(lost)} lost, as reported")
    )
    terminal.tell(f"{escape(destination)}: {verdict}")


def _is_raw(source: Source) -> bool:
    return source.format == "raw" or (
        source.format is None and formats.get("raw").sniff(Path(source.path))
    )


def narrow(model: Model) -> tuple[Model, str]:
    """`model` with its arrays as float32, and how many values that changed; itself and "" where
    float32 holds every value. Raises UnsupportedError where a value is beyond float32."""
    changed = 0
    for place, array in model.arrays.items():
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        if not np.isfinite(single).all():
            raise UnsupportedError("holds values beyond float32", where=place)
        changed += int((single.astype(np.float64) != array.astype(np.float64)).sum())
    if not changed:
        return model, ""
    return model.astype(np.float32), f"{changed} of {model.parameters} weights: rounded to float32"
