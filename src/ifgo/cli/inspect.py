"""`ifgo inspect`: the layers of a model, and what its gates hold."""

from __future__ import annotations

from io import StringIO
from typing import Any

import click
import numpy as np

from ifgo.cli import terminal
from ifgo.cli.options import Source, model_source
from ifgo.cli.terminal import escape, json_option
from ifgo.describe import describe
from ifgo.errors import UsageError
from ifgo.formats.extraction import Listing
from ifgo.gates import CANONICAL, GATE_NAMES, LSTM_LAYOUTS
from ifgo.model import Model, Provenance


def _sheets(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """One line for each sheet that comes with ifgo."""
    if not wanted or context.resilient_parsing:
        return
    from ifgo.formats.arrays import shipped

    titles = shipped()
    width = max(map(len, titles))
    for name, title in titles.items():
        terminal.say(f"{name:<{width}}  {title}")
    context.exit()


@click.command("inspect")
@click.option("--gates", is_flag=True, help="Also show each gate: shapes, range, mean, L2 norm.")
@click.option(
    "--lstms",
    is_flag=True,
    help="List the recurrent layers of any graph, also one that ifgo cannot read whole.",
)
@click.option(
    "--sheets",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_sheets,
    help="List the sheets that come with ifgo, for --sheet NAME; needs no MODEL.",
)
@model_source()
@json_option
def command(source: Source, gates: bool, lstms: bool, as_json: bool) -> None:
    """Show the layers, sizes and gates of MODEL."""
    if lstms:
        _list(source, gates, as_json)
        return
    model = source.load(tell=False)
    if as_json:
        tree = {"model": source.path, **describe(model), "version": model.provenance.version}
        tree["gate_storage"] = storage(model.provenance)
        terminal.emit(tree | ({"gates": gate_rows(model)} if gates else {}))
        return
    terminal.say(str(model))
    for line in _origin(model.provenance):
        terminal.say(line)
    if gates:
        terminal.say()
        terminal.say(_gate_table(model))


def _list(source: Source, gates: bool, as_json: bool) -> None:
    if gates or source.select is not None:
        raise UsageError(
            f"--lstms and {'--gates' if gates else '--select'} exclude each other",
            hint="List the layers first, then select some of them",
        )
    listing = source.list_layers()
    if as_json:
        terminal.emit({"model": source.path, **listing.to_dict()})
        return
    terminal.say(listing_table(listing))


def listing_table(listing: Listing) -> str:
    """The recurrent layers of a file as a table, and one line about the rest."""
    rows: list[tuple[str, ...]] = []
    for layer in listing.layers:
        sizes = ("?" if n is None else str(n) for n in (layer.input_size, layer.hidden_size))
        words = layer.options if not layer.refusal else f"cannot be selected: {layer.refusal}"
        directions = "+".join(layer.directions) or "?"
        rows.append((layer.name, *sizes, directions, layer.source, words))
    others = ", ".join(f"{count} {escape(kind)}" for kind, count in listing.others)
    total = sum(count for _, count in listing.others)
    rest = f"beside them {total}: {others}" if total else "nothing beside them"
    if not rows:
        return f"no recurrent layer, {rest}"
    titles = ("name", "input", "hidden", "directions", "input from", "options")
    return f"{_grid(titles, rows, right=('input', 'hidden'))}\n\n{rest}"


def _origin(provenance: Provenance) -> list[str]:
    version = f" ({escape(provenance.version)})" if provenance.version else ""
    lines = [f"from {escape(provenance.framework)}{version}"]
    return lines + [f"note: {escape(note)}" for note in provenance.notes]


def storage(provenance: Provenance) -> str | None:
    """How the source stores gates, "onnx: i o f g, rows, biases stacked"; None where unknown."""
    name = provenance.framework
    if name == "raw":
        name = f"raw_{provenance.version.removeprefix('layout ').lower()}"
    layout = LSTM_LAYOUTS.get(name)
    if layout is None:
        return None
    return f"{name}: {' '.join(layout.order)}, {layout.orientation}, biases {layout.bias}"


def gate_rows(model: Model) -> list[dict[str, Any]]:
    """Per recurrent layer, direction, gate (i, f, g, o) and array: shape and statistics."""
    rows: list[dict[str, Any]] = []
    for layer in model.recurrent:
        for direction, cell in layer.cells.items():
            for gate in CANONICAL:
                for name, array in cell.gate(gate).items():
                    values = array.astype(np.float64)
                    rows.append(
                        {
                            "layer": layer.name,
                            "direction": direction,
                            "gate": gate,
                            "array": name,
                            "shape": array.shape,
                            "min": float(values.min()),
                            "max": float(values.max()),
                            "mean": float(values.mean()),
                            "l2": float(np.sqrt((values**2).sum())),
                        }
                    )
    return rows


def _gate_table(model: Model) -> str:
    rows: list[tuple[str, ...]] = []
    both = {layer.name for layer in model.recurrent if layer.directions == 2}
    before = ("", "")
    for row in gate_rows(model):
        layer = row["layer"] + (f" {row['direction']}" if row["layer"] in both else "")
        gate = f"{row['gate']} {GATE_NAMES[row['gate']]}"
        rows.append(
            (
                layer if layer != before[0] else "",
                gate if (layer, gate) != before else "",
                row["array"],
                " x ".join(map(str, row["shape"])),
                *(f"{row[name]:.4g}" for name in ("min", "max", "mean", "l2")),
            )
        )
        before = (layer, gate)
    numbers = ("min", "max", "mean", "L2")
    body = _grid(("layer", "gate", "array", "shape", *numbers), rows, right=numbers)
    stored = storage(model.provenance)
    head = (
        f"gates in order i f g o; the source stores {stored}"
        if stored
        else ("gates in order i f g o")
    )
    return f"{head}\n\n{body}"


def _grid(titles: tuple[str, ...], rows: list[tuple[str, ...]], *, right: tuple[str, ...]) -> str:
    """Rows of plain text under titles; columns named in `right` are numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        grid.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(escape(cell)) for cell in row))
    buffer = StringIO()
    Console(file=buffer, width=110, no_color=True, highlight=False).print(grid)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).strip("\n")
