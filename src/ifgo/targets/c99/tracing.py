"""What a build with -DIFGO_TRACE writes, told to the reader of model.h."""

from __future__ import annotations

import textwrap

from ifgo.model import Model, walk
from ifgo.program import Probe, Program


def trace_layout(program: Program, model: Model) -> list[str]:
    """Lines of a comment: per sweep its steps, and every part with its width in order.

    Layers are numbered as they stand in the chain, from 1; the inner ones of a residual count
    after it.
    """
    layers = {layer.name: (n, layer.kind) for n, layer in enumerate(walk(model.layers), 1)}
    lines: list[str] = []
    for sweep in program.sweeps:
        probes = [i for i in sweep.body if isinstance(i, Probe)]
        if not probes:
            continue
        last = "n - 1" if sweep.count is None else str(sweep.count - 1)
        order = f"from step {last} down to 0" if sweep.reverse else f"from step 0 to {last}"
        size = sum(p.source.size for p in probes)
        lines.append(f"{size} floats:" if program.streamable else f"{order}, {size} floats each:")
        parts: dict[str, list[str]] = {}
        for probe in probes:
            number, kind = layers[probe.layer]
            label = " ".join(["layer", str(number), kind, probe.direction]).rstrip()
            parts.setdefault(label, []).append(f"{probe.part}[{probe.source.size}]")
        for label, names in parts.items():
            text = f"{label}: {', '.join(names)}"
            lines += textwrap.wrap(text, 90, initial_indent="  ", subsequent_indent="    ")
    return lines
