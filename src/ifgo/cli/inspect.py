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
from ifgo.gates import CANONICAL, GATE_NAMES, LSTM_LAYOUTS
from ifgo.model import Model, Provenance


@click.command("inspect")
@click.option("--gates", is_flag=True, help="Also show each gate: shapes, range, mean, L2 norm.")
@model_source()
@json_option
def command(source: Source, gates: bool, as_json: bool) -> None:
    """Show the layers, sizes and gates of MODEL."""
    model = source.load()
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
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("layer", "gate", "array", "shape", "min", "max", "mean", "L2"):
        right = title in ("min", "max", "mean", "L2")
        grid.add_column(title, justify="right" if right else "left", overflow="fold")
    both = {layer.name for layer in model.recurrent if layer.directions == 2}
    before = ("", "")
    for row in gate_rows(model):
        layer = escape(row["layer"]) + (f" {row['direction']}" if row["layer"] in both else "")
        gate = f"{row['gate']} {GATE_NAMES[row['gate']]}"
        grid.add_row(
            Text(layer if layer != before[0] else ""),
            gate if (layer, gate) != before else "",
            row["array"],
            " x ".join(map(str, row["shape"])),
            *(f"{row[name]:.4g}" for name in ("min", "max", "mean", "l2")),
        )
        before = (layer, gate)
    buffer = StringIO()
    Console(file=buffer, width=110, no_color=True, highlight=False).print(grid)
    body = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).strip("\n")
    stored = storage(model.provenance)
    head = (
        f"gates in order i f g o; the source stores {stored}"
        if stored
        else ("gates in order i f g o")
    )
    return f"{head}\n\n{body}"
