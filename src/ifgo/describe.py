"""A model as a table for people, and as plain data for `--json`."""

from __future__ import annotations

from io import StringIO
from typing import Any

from ifgo.layers import HiddenAsSequence, Layer, Recurrent
from ifgo.model import FeatureInput, Model, Output, StateInput, TokenInput
from ifgo.text import escape


def describe(model: Model) -> dict[str, Any]:
    """JSON-ready facts: input, layers (name, kind, shapes, parameters, macs, detail), totals."""
    entry = model.input
    size = model.input_size
    layers: list[dict[str, Any]] = []
    for layer, out, domain in zip(model.layers, model.sizes(), _domains(model), strict=True):
        layers.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "input_size": size,
                "output_size": out,
                "hidden_size": layer.hidden_size if isinstance(layer, Recurrent) else None,
                "output": f"(B, T, {out})" if domain == "sequence" else f"(B, {out})",
                "parameters": sum(array.size for array in layer.arrays.values()),
                "macs": layer.macs,
                "dtype": _dtype(layer),
                "time": layer.signature,
                "detail": layer.detail(),
            }
        )
        size = out
    return {
        "input": {
            "name": entry.name,
            "kind": "tokens" if isinstance(entry, TokenInput) else "features",
            "size": entry.size if isinstance(entry, FeatureInput) else entry.vocabulary,
            "source_axes": entry.axes,
        },
        "layers": layers,
        "state_inputs": [
            {"name": e.name, **_packed(e)} for e in model.inputs if isinstance(e, StateInput)
        ],
        "outputs": [
            {"name": o.name, "role": o.role, **(_packed(o) if o.states else {})}
            for o in model.outputs
        ],
        "parameters": model.parameters,
        "macs_per_step": model.macs,
        "streamable": model.streamable,
        "not_streamable_because": model.not_streamable_because,
        "framework": model.provenance.framework,
        "notes": list(model.provenance.notes),
    }


def _packed(entry: StateInput | Output) -> dict[str, Any]:
    """The states of a tensor, in order, and its axes where they are not the usual ones."""
    slots = entry.states if isinstance(entry, Output) else entry.slots
    return {"states": [f"{s.layer}.{s.part}" for s in slots], "layout": entry.layout or None}


def _domains(model: Model) -> list[str]:
    """After each layer: "sequence" or "vector"."""
    domain, found = "sequence", list[str]()
    for layer in model.layers:
        gives = layer.signature.split("→")[1]
        domain = domain if gives == "step" else gives
        found.append(domain)
    return found


def _dtype(layer: Layer) -> str:
    return "/".join(sorted({array.dtype.name for array in layer.arrays.values()}))


def table(model: Model, *, width: int = 100) -> str:
    """The readable table: layers, shapes, parameters, MACs per step, streamable or why not."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    facts = describe(model)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, justify in (
        ("layer", "left"),
        ("kind", "left"),
        ("output", "left"),
        ("parameters", "right"),
        ("MACs/step", "right"),
        ("notes", "left"),
    ):
        grid.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    source = facts["input"]
    what = "tokens of" if source["kind"] == "tokens" else "features"
    shape = "(B, T)" if source["kind"] == "tokens" else f"(B, T, {source['size']})"
    grid.add_row(Text(escape(source["name"])), "input", shape, "", "", f"{what} {source['size']}")
    for row in facts["layers"]:
        grid.add_row(
            Text(escape(row["name"])),
            row["kind"],
            row["output"],
            f"{row['parameters']:,}" if row["parameters"] else "",
            f"{row['macs']:,}" if row["macs"] else "",
            Text(escape(row["detail"])),
        )
    buffer = StringIO()
    console = Console(file=buffer, width=width, no_color=True, highlight=False)
    console.print(grid)
    replayed = any(isinstance(layer, HiddenAsSequence) for layer in model.layers)
    steps = " (layers after a replayed hidden vector step once per unit)" if replayed else ""
    lines = [
        f"{facts['parameters']:,} parameters, {facts['macs_per_step']:,} MACs per step{steps}",
        "streamable: one step per call"
        if model.streamable
        else f"not streamable, {escape(facts['not_streamable_because'])}",
    ]
    for entry in (*facts["state_inputs"], *facts["outputs"]):
        if entry.get("layout"):
            held = f"{escape(entry['name'])} holds {escape(', '.join(entry['states']))}"
            lines.append(f"{held} as ({', '.join(entry['layout'].split())})")
    body = "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())
    return body.lstrip("\n") + "\n\n" + "\n".join(lines)
