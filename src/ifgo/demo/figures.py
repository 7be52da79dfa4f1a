"""The figures of the demo's page, as plotly figures without colours for text or background.

No text from outside reaches a figure: labels are ours or numbers. Imported only by `page`, where
plotly is known to be there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.demo.data import BEFORE, CLASSES, RATE, RECORD_RATE, STEPS, Beats
from ifgo.gates import GATE_NAMES

go: Any = import_module("plotly.graph_objects")
make_subplots: Any = import_module("plotly.subplots").make_subplots

COLOURS: Final = ("#3b7dd8", "#e0692e")
"""Normal and ventricular; both readable on light and on dark."""

PARTS: Final = {
    **{gate: f"{name}{' gate' if gate != 'g' else ''}" for gate, name in GATE_NAMES.items()},
    "c": "cell state",
    "h": "output",
}
"""What is shown of a layer, in this order, and what it is called."""

MILLISECONDS: Final = (np.arange(STEPS) - BEFORE) * 1000 / RATE
"""Time of each step, from the peak of the beat."""

SEQUENTIAL: Final = [[0, "#f2f5fa"], [0.5, "#6f9fd8"], [1, "#12315e"]]
DIVERGING: Final = [[0, "#1f5fae"], [0.5, "#f5f3f0"], [1, "#c8501c"]]


def _styled(figure: Any, height: int, **layout: Any) -> Any:
    figure.update_layout(
        height=height,
        margin={"l": 64, "r": 24, "t": 16, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="closest",
        **layout,
    )
    figure.update_xaxes(zeroline=False, ticks="outside", ticklen=4)
    figure.update_yaxes(zeroline=False)
    return figure


def _clock(peak: int) -> str:
    """Sample of the record → minutes:seconds."""
    minutes, seconds = divmod(round(peak / RECORD_RATE, 1), 60)
    return f"{minutes:.0f}:{seconds:04.1f}"


def beat_shapes(beats: Beats) -> Any:
    """Every test beat over the time from its peak, coloured by class, with the median of each."""
    figure = go.Figure()
    for label, (name, colour) in enumerate(zip(CLASSES, COLOURS, strict=True)):
        shapes = beats.x[beats.in_test & (beats.label == label), :, 0]
        gap = np.full((len(shapes), 1), np.nan)
        figure.add_scatter(
            x=np.tile(np.append(MILLISECONDS, np.nan), len(shapes)),
            y=np.hstack([shapes, gap]).ravel(),
            mode="lines",
            line={"color": colour, "width": 0.8},
            opacity=0.3,
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=MILLISECONDS,
            y=np.median(shapes, axis=0),
            mode="lines",
            line={"color": colour, "width": 3},
            name=f"{len(shapes)} {name} beats and their median",
            hovertemplate="%{x:.0f} ms, %{y:.2f} mV",
        )
    figure.update_xaxes(title="time from the peak (ms)")
    figure.update_yaxes(title="voltage above the beat's mean (mV)")
    return _styled(figure, 380)


def scores_over_time(beats: Beats, logits: NDArray[np.float64]) -> Any:
    """The score of every test beat over the time in the record, threshold, mistakes ringed."""
    figure = go.Figure()
    seconds = beats.peak / RECORD_RATE
    figure.add_hline(y=0, line={"dash": "dash", "width": 1.5, "color": "#8a8f98"})
    figure.add_annotation(
        text="threshold", x=1, xref="x domain", xanchor="right", y=0, yanchor="bottom",
        showarrow=False,
    )  # fmt: skip
    for label, (name, colour) in enumerate(zip(CLASSES, COLOURS, strict=True)):
        shown = np.flatnonzero(beats.in_test & (beats.label == label))
        figure.add_scatter(
            x=seconds[shown],
            y=logits[shown],
            mode="markers",
            marker={"color": colour, "size": 7},
            name=f"labelled {name}",
            text=[f"beat {index} at {_clock(beats.peak[index])}" for index in shown],
            hovertemplate="%{text}<br>log-odds %{y:.2f}",
        )
    wrong = np.flatnonzero(beats.in_test & ((logits > 0) != (beats.label == 1)))
    if wrong.size:
        figure.add_scatter(
            x=seconds[wrong],
            y=logits[wrong],
            mode="markers",
            marker={"symbol": "circle-open", "color": "#e5484d", "size": 16, "line": {"width": 2}},
            name="mistake",
            hoverinfo="skip",
        )
    shown = seconds[beats.in_test]
    ticks = range(15 * int(shown.min() // 15 + 1), int(shown.max()) + 1, 15)
    figure.update_xaxes(
        title="time in the record (minutes:seconds)",
        tickvals=list(ticks),
        ticktext=[f"{tick // 60}:{tick % 60:02}" for tick in ticks],
    )
    figure.update_yaxes(title="log-odds of ventricular")
    return _styled(figure, 360)


def inside_layer(
    beats: Beats, chosen: Sequence[int], parts: Sequence[Mapping[str, NDArray[Any]]]
) -> Any:
    """One layer while it reads the `chosen` beats: one column each, time across, units down.

    parts: for each chosen beat, the arrays (T, H) of PARTS. Gates i, f, o lie in 0 to 1, g and h
    in -1 to 1; the range of c is its own, the same in every column.
    """
    rows, columns = len(PARTS) + 1, len(chosen)
    figure = make_subplots(
        rows,
        columns,
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.018,
        horizontal_spacing=0.02,
        row_heights=[1.5] + [1.0] * len(PARTS),
        column_titles=[
            f"{CLASSES[beats.label[i]]} beat at {_clock(beats.peak[i])}" for i in chosen
        ],
    )
    axis_of = {"i": "coloraxis", "f": "coloraxis", "o": "coloraxis", "c": "coloraxis3"}
    for column, (index, arrays) in enumerate(zip(chosen, parts, strict=True), start=1):
        figure.add_scatter(
            x=MILLISECONDS,
            y=beats.x[index, :, 0],
            mode="lines",
            line={"color": COLOURS[beats.label[index]], "width": 2},
            showlegend=False,
            hovertemplate="%{x:.0f} ms, %{y:.2f} mV<extra></extra>",
            row=1,
            col=column,
        )
        for row, part in enumerate(PARTS, start=2):
            figure.add_heatmap(
                x=MILLISECONDS,
                y=np.arange(1, arrays[part].shape[1] + 1),
                z=np.asarray(arrays[part], np.float32).T,
                coloraxis=axis_of.get(part, "coloraxis2"),
                hovertemplate=f"%{{x:.0f}} ms, unit %{{y}}: {part} = %{{z:.3f}}<extra></extra>",
                row=row,
                col=column,
            )
    largest = max(float(np.abs(arrays["c"]).max()) for arrays in parts) or 1.0
    figure.update_layout(
        coloraxis=_colours(SEQUENTIAL, 0, 1, "i, f, o", 0.84),
        coloraxis2=_colours(DIVERGING, -1, 1, "g, h", 0.5),
        coloraxis3=_colours(DIVERGING, -largest, largest, "c", 0.16),
    )
    _styled(figure, 640).update_layout(margin={"l": 120, "r": 24, "t": 32, "b": 48})
    figure.update_yaxes(title={"text": "mV", "standoff": 8}, row=1, col=1)
    for row, (part, name) in enumerate(PARTS.items(), start=2):
        figure.update_yaxes(showticklabels=False, showgrid=False, row=row)
        figure.add_annotation(
            text=f"<b>{part}</b>  {name}", x=0, y=0.5, xshift=-10, xanchor="right",
            xref="x domain", yref=f"y{columns * (row - 1) + 1} domain", showarrow=False,
        )  # fmt: skip
    figure.update_xaxes(title="time from the peak (ms)", row=rows)
    return figure


def _colours(scale: list[list[Any]], low: float, high: float, title: str, y: float) -> Any:
    bar = {"title": {"text": title}, "y": y, "len": 0.28, "thickness": 10, "x": 1.01}
    return {"colorscale": scale, "cmin": low, "cmax": high, "colorbar": bar}
