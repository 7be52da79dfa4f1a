"""Draw beat.svg: the last LSTM layer of the demo's model while it reads a ventricular beat.

python draw.py
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ifgo
from ifgo import demo, states
from ifgo.gates import GATE_NAMES
from ifgo.lower import lower
from ifgo.reference.interpret import execute

Array = NDArray[Any]

LAYER = "lstm2"
PARTS = {
    **{gate: f"{name}{'' if gate == 'g' else ' gate'}" for gate, name in GATE_NAMES.items()},
    "c": "cell state",
    "h": "output",
}
SIGNED = ("g", "c", "h")

CELL_WIDTH, CELL_HEIGHT = 6, 5
LEFT, RIGHT, TOP, GAP = 116, 76, 50, 10
WIDTH = LEFT + CELL_WIDTH * demo.STEPS + RIGHT
CURVE = 84
LEVELS = 32
WHITE, SKY, BLUE, DARK = (247, 246, 243), (111, 159, 216), (31, 95, 174), (18, 49, 94)
ORANGE = (200, 80, 28)


def colour(share: float, signed: bool) -> str:
    """Of a value at `share` of its range, 0 to 1."""
    if signed:
        start, end = (WHITE, ORANGE) if share > 0.5 else (WHITE, BLUE)
        share = abs(2 * share - 1)
    elif share > 0.5:
        start, end, share = SKY, DARK, 2 * share - 1
    else:
        start, end, share = WHITE, SKY, 2 * share
    mixed = (round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def text(x: float, y: float, words: str, style: str = "") -> str:
    """One line of text."""
    return f'<text x="{x:g}" y="{y:g}" {style}>{words}</text>'


def curve(values: Array, top: float, stroke: str) -> str:
    """A line through the steps, with a thin line at 0."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)

    def height(value: float) -> float:
        return top + CURVE * (high - value) / (high - low)

    points = " ".join(
        f"{LEFT + CELL_WIDTH * (t + 0.5):g},{height(float(v)):.1f}" for t, v in enumerate(values)
    )
    zero = f"M{LEFT} {height(0):.1f}h{CELL_WIDTH * len(values)}"
    end = LEFT + CELL_WIDTH * len(values) + 6
    return (
        f'<path d="{zero}" stroke="#b9bec7"/>'
        f'<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="2"/>'
        + text(end, height(high) + 8, f"{high:.1f}")
        + text(end, height(low), f"{low:.1f}")
    )


def heat(values: Array, top: float, bound: float, signed: bool) -> str:
    """Units down, steps across: one path for each colour, equal neighbours joined."""
    share = (values / bound + 1) / 2 if signed else values / bound
    levels = np.rint(share * LEVELS).astype(int)
    paths: dict[int, list[str]] = {}
    for unit, row in enumerate(levels.T):
        t = 0
        for level, run in groupby(row.tolist()):
            width = len(list(run))
            x, y = LEFT + CELL_WIDTH * t, top + CELL_HEIGHT * unit
            path = f"M{x} {y:g}h{CELL_WIDTH * width}v{CELL_HEIGHT}h-{CELL_WIDTH * width}z"
            paths.setdefault(level, []).append(path)
            t += width
    drawn = (
        f'<path fill="{colour(level / LEVELS, signed)}" d="{"".join(parts)}"/>'
        for level, parts in sorted(paths.items())
    )
    return f'<g shape-rendering="crispEdges">{"".join(drawn)}</g>'


def scale(top: float, height: float, bound: float, signed: bool) -> str:
    """What the colours of a heat map mean."""
    x, steps = LEFT + CELL_WIDTH * demo.STEPS + 8, 16
    cells = (
        f'<rect x="{x}" y="{top + height * k / steps:g}" width="10" height="{height / steps:g}" '
        f'fill="{colour(1 - (k + 0.5) / steps, signed)}"/>'
        for k in range(steps)
    )
    low = -bound if signed else 0.0
    return (
        "".join(cells)
        + text(x + 15, top + 10, f"{bound:.3g}")
        + text(x + 15, top + height, f"{low:.3g}")
    )


def panels(beat: Array, parts: dict[str, Array], logit: Array) -> Iterator[tuple[int, str]]:
    """(height, drawing) of each panel, from the top."""
    top = TOP
    names = {"x": "<tspan font-weight='bold'>x</tspan>  beat, mV", "y": "log-odds so far"}
    label = 'text-anchor="end"'
    yield CURVE, curve(beat, top, "#c8501c") + text(LEFT - 12, top + CURVE / 2, names["x"], label)
    top += CURVE + GAP
    for part, name in PARTS.items():
        values, signed = parts[part], part in SIGNED
        bound = float(np.abs(values).max()) if part == "c" else 1.0
        height = CELL_HEIGHT * values.shape[1]
        shown = f"<tspan font-weight='bold'>{part}</tspan>  {name}"
        yield (
            height,
            heat(values, top, bound, signed)
            + scale(top, height, bound, signed)
            + text(LEFT - 12, top + height / 2 + 4, shown, label),
        )
        top += height + GAP
    yield CURVE, curve(logit, top, "#12315e") + text(LEFT - 12, top + CURVE / 2, names["y"], label)
    top += CURVE + GAP
    ticks = range(0, demo.STEPS + 1, 16)
    axis = [text(LEFT + CELL_WIDTH * t, top + 10, str(t), 'text-anchor="middle"') for t in ticks]
    middle = LEFT + CELL_WIDTH * demo.STEPS / 2
    words = f"step (1/{demo.RATE} s); the peak of the beat is step {demo.BEFORE}"
    yield 28, "".join(axis) + text(middle, top + 28, words, 'text-anchor="middle"')


def main() -> None:
    """Compute the beat and write the picture."""
    beats = demo.beats()
    model = ifgo.load(demo.model_path())
    logits, _ = ifgo.run(model, beats.x)
    _, chosen = demo.typical_beats(beats, logits[:, 0])
    x = beats.x[chosen : chosen + 1]
    start = states.complete(model, 1, None, np.float32)
    traces = execute(lower(model), x, start, trace=True).traces
    parts = {part: traces[LAYER]["forward"][part][0] for part in PARTS}
    drawn = list(panels(x[0, :, 0], parts, traces["dense"][""]["y"][0, :, 0]))
    height = TOP + sum(size + GAP for size, _ in drawn)
    units = parts["h"].shape[1]
    title = f"One ventricular beat inside the third LSTM layer: {units} units, {demo.STEPS} steps"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#2b303b">'
        f"<title>{title}</title>"
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>'
        + text(LEFT, 28, title, 'font-size="15" font-weight="bold"')
        + "\n"
        + "\n".join(drawing for _, drawing in drawn)
        + "\n</svg>\n"
    )
    Path(__file__).with_name("beat.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
