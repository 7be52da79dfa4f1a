"""The page that `ifgo demo` writes: one HTML file that asks nothing of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import jinja2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo.demo.data import BEFORE, CLASSES, STEPS, TRAIN_MINUTES, Beats
from ifgo.demo.scores import linear_baseline, score
from ifgo.errors import ToolError, UsageError

TRACED: Final = ("i", "f", "g", "o", "c", "h")
"""What a View holds of each layer: the four gates after activation, cell state, output."""


@dataclass(frozen=True)
class Proof:
    """One comparison of two runtimes, as a row of the page's first table.

    what: the two sides ("emitted C99, gcc -O2, against the exact reference"). compared: what was
    compared and how much of it. verdict: "EXACT", or the bound and the largest difference.
    holds: whether it passed. All text is escaped.
    """

    what: str
    compared: str
    verdict: str
    holds: bool


@dataclass(frozen=True, eq=False)
class View:
    """The inside of every layer while it reads one beat.

    beat: index into the Beats. layers: layer name → letter of TRACED → array (T, H).
    """

    beat: int
    layers: Mapping[str, Mapping[str, NDArray[Any]]]


def typical_beats(beats: Beats, logits: ArrayLike) -> tuple[int, int]:
    """Index of the normal and of the ventricular test beat with the middle score of its class.

    logits: (N,), one per beat. Raises UsageError where they do not fit the beats.
    """
    values = _logits(beats, logits)
    found = list[int]()
    for label, name in enumerate(CLASSES):
        candidates = np.flatnonzero(beats.in_test & (beats.label == label))
        if not candidates.size:
            raise UsageError(f"no {name} beat among the test beats", expected="at least one")
        order = candidates[np.argsort(values[candidates], kind="stable")]
        found.append(int(order[len(order) // 2]))
    return found[0], found[1]


def page(beats: Beats, logits: ArrayLike, proof: Sequence[Proof], views: Sequence[View]) -> str:
    """The whole page as HTML; plotly.js is inside it, and a policy forbids every request.

    beats: of `demo.beats()`. logits: (N,), what the model says of each beat. proof: at least one
    row. views: at least one, all of the same layers; `typical_beats` chooses good ones.
    Raises ToolError where plotly is missing, UsageError where the parts do not fit together.
    """
    values = _logits(beats, logits)
    names = _layer_names(beats, views)
    if not proof:
        raise UsageError("the proof has no rows", expected="at least one comparison")
    try:
        plotlyjs: str = import_module("plotly.offline").get_plotlyjs()
    except ModuleNotFoundError:
        raise ToolError(
            "the page is drawn with plotly, which is not installed",
            hint="Install it: pip install plotly",
        ) from None
    figures = import_module("ifgo.demo.figures")
    test, label = beats.in_test, beats.label[beats.in_test]
    chosen = [view.beat for view in views]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ifgo.demo"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        plotlyjs=plotlyjs,
        proof=proof,
        failed=sum(not row.holds for row in proof),
        scores={
            "LSTM": score(values[test], label),
            "linear baseline": score(linear_baseline(beats)[test], label),
        },
        train_beats=int((~test).sum()),
        train_minutes=TRAIN_MINUTES,
        steps=STEPS,
        before=BEFORE,
        sizes=[next(iter(views[0].layers[name].values())).shape[1] for name in names],
        shapes=_html(figures.beat_shapes(beats), "shapes"),
        over_time=_html(figures.scores_over_time(beats, values), "over-time"),
        layers=[
            (
                name,
                _html(
                    figures.inside_layer(beats, chosen, [view.layers[name] for view in views]),
                    f"layer-{position}",
                ),
            )
            for position, name in enumerate(names)
        ],
    )


def _logits(beats: Beats, logits: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(logits, np.float64)
    if values.shape != beats.label.shape:
        raise UsageError(
            f"logits have shape {values.shape}", expected=f"{beats.label.shape}, one per beat"
        )
    if not np.isfinite(values).all():
        raise UsageError("logits hold NaN or infinity", expected="finite numbers")
    return values


def _layer_names(beats: Beats, views: Sequence[View]) -> list[str]:
    """The layers that all `views` show; UsageError where a view is incomplete."""
    if not views or not views[0].layers:
        raise UsageError("there is no view of a layer", expected="at least one beat and one layer")
    names = list(views[0].layers)
    for view in views:
        where = f"view of beat {view.beat}"
        if not 0 <= view.beat < len(beats.label):
            raise UsageError("no such beat", where=where, expected=f"0 to {len(beats.label) - 1}")
        if list(view.layers) != names:
            raise UsageError(
                f"shows the layers {', '.join(view.layers)}",
                where=where,
                expected=f"{', '.join(names)}, as the first view",
            )
        for name, parts in view.layers.items():
            shapes = {part: np.shape(parts[part]) for part in TRACED if part in parts}
            hidden = {shape[1] for shape in shapes.values() if len(shape) == 2}
            fits = all(len(shape) == 2 and shape[0] == STEPS for shape in shapes.values())
            if len(shapes) != len(TRACED) or len(hidden) != 1 or not fits:
                held = ", ".join(f"{part} {shape}" for part, shape in shapes.items())
                raise UsageError(
                    f"layer {name!r} holds arrays {held}",
                    where=where,
                    expected=f"{', '.join(TRACED)}, each ({STEPS}, H)",
                )
    return names


def _html(figure: Any, identifier: str) -> str:
    """`figure` as a <div> with its script; the page carries plotly.js itself."""
    return import_module("plotly.io").to_html(
        figure,
        include_plotlyjs=False,
        full_html=False,
        div_id=identifier,
        config={"displaylogo": False, "displayModeBar": False, "responsive": True},
    )
