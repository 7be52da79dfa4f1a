"""Every feature through every format and back: equal bits, folded within n ulp, lost, or refused.

roundtrip_table.py publishes it. A new format needs no line here; one that writes in several ways
may name them in VARIANTS.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from roundtrip_features import BODIES, FEATURES, Body, Feature

from ifgo import formats, states
from ifgo.activations import LINEAR
from ifgo.cell import LSTMCell
from ifgo.errors import ToolError, UnsupportedError
from ifgo.folding import norm_gain
from ifgo.formats import Report
from ifgo.formats._plan import spacing
from ifgo.model import (
    ActivationLayer,
    InitialState,
    LastStep,
    Layer,
    LengthsInput,
    Masking,
    Model,
    Recurrent,
    TokenInput,
    walk,
)
from ifgo.reference import truth
from ifgo.verification.global_bound import LARGEST_AMPLIFICATION, whole

STEPS: Final = 4
LENGTHS: Final = np.array([4, 2])

VARIANTS: Final[dict[str, tuple[dict[str, str], ...]]] = {
    "raw": ({"layout": "A"}, {"layout": "B"}),
    "darknet": ({"dialect": "pjreddie"}, {"dialect": "alexeyab"}),
}
"""Format → the ways it can write. Another has one, in float32 where it lets choose."""


READING: Final[dict[str, Callable[[Model], dict[str, str]]]] = {
    "stm32_text": lambda model: {
        "shape": f"{model.input_size},{model.recurrent[0].hidden_size}",
    },
}
"""Format whose files do not say all → the options that the reader asks for."""


@dataclass(frozen=True)
class Column:
    """One way to write a format."""

    format: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return " ".join((self.format, *(value for _, value in self.options)))

    def path(self, folder: Path) -> Path:
        """Where it writes."""
        return folder / f"m{next(iter(formats.get(self.format).EXTENSIONS), '')}"


def columns() -> list[Column]:
    """Every way to write every format; the first of a format is the usual one."""
    found: list[Column] = []
    for name in formats.FORMATS:
        usual = {"dtype": "float32"} if "dtype" in formats.get(name).WRITE_OPTIONS else {}
        found += [Column(name, tuple(way.items())) for way in VARIANTS.get(name, (usual,))]
    return found


# -- one leg ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leg:
    """A model written and read: what came back, or why it was refused.

    outcome: "equal" (every part to the bit), "same" (outputs to the bit; what inference does not
    need is gone), "n ulp" (of a weight), "n ulp, same", "rounding" (another way to the same numbers
    in exact arithmetic), "other" outputs, or "refused".
    """

    outcome: str
    back: Model | None = None
    report: Report = field(default_factory=Report)
    message: str = ""

    @property
    def lossy(self) -> bool:
        """Whether --allow-lossy was needed."""
        return bool(self.report.lost)

    @property
    def reasons(self) -> str:
        """What a refusal or a loss says, without who says it."""
        if self.lossy:
            return "; ".join(self.report.lost)
        return re.sub(r"^.*?cannot hold:? ", "", self.message)

    def __str__(self) -> str:
        return f"lossy, {self.outcome}" if self.lossy else self.outcome


def travel(model: Model, column: Column) -> Leg:
    """`model` → file → model. Raises AssertionError where the report does not say what happened,
    ToolError where the format cannot be written for want of a package."""
    with TemporaryDirectory() as folder:
        path = column.path(Path(folder))
        try:
            report = _written(model, path, column)
        except UnsupportedError as error:
            return Leg("refused", message=error.what)
        reading = READING.get(column.format, lambda _: {})(model)
        back = formats.load(path, column.format, **reading)
        source = back.provenance
        assert column.format == "native" or source.path == str(path), "forgets its source"
        assert source.framework, "forgets its framework"
    return Leg(_outcome(model, back, report, stated_ulps(report)), back, report)


def _written(model: Model, path: Path, column: Column) -> Report:
    """Raises UnsupportedError as without permission, where permission does not help."""
    try:
        report = formats.save(model, path, column.format, **dict(column.options))
    except UnsupportedError as error:
        refusal = error
    else:
        assert not report.lost, f"{column}: loses without permission {report.lost}"
        return report
    try:
        report = formats.save(model, path, column.format, allow_lossy=True, **dict(column.options))
    except UnsupportedError:
        raise refusal from None
    assert report.lost, f"{column}: refused, then permitted without a loss: {refusal}"
    return report


def _outcome(
    model: Model, back: Model, report: Report, ulps: list[float], *, direct: bool = True
) -> str:
    """How `back` differs. direct: of one leg, so weights are within `ulps` of their own; after
    several, of numbers that are no longer there."""
    if tree(model) == tree(back):
        return "equal"
    assert not report.exact, f"something changed in silence: {report.kept}"
    far = max(ulps, default=0.0)
    words = [f"{far:.2g} ulp"] if far else []
    fault = _weights_depart(model, back, far) if direct and ulps else ""
    if not fault and _same_outputs(model, back):
        return ", ".join([*words, "same"])
    if _EXACTLY in " ".join(report.folded + report.lost):
        words, fault = ["rounding"], ""
    if not fault:
        fault = _outputs_depart(model, back, sum(ulps)) if words else "other outputs, no ulp stated"
    assert report.lost or not fault, fault
    return "other" if fault else words[0]


_EXACTLY: Final = "equal in exact arithmetic"
"""What a report says of weights that are others and mean the same."""


def stated_ulps(*reports: Report) -> list[float]:
    """The largest "n ulp" that each of the reports names, where it names one."""
    said = [" ".join(report.folded + report.lost) for report in reports]
    found = [[float(n) for n in re.findall(r"(\d[\d.e+-]*) ulp", text)] for text in said]
    return [max(numbers) for numbers in found if numbers]


def tree(value: Any, names: dict[str, int] | None = None) -> Any:
    """`value` as plain data; names, the axes of tensors in files, and options that mean nothing
    where they stand are no part of it."""
    if isinstance(value, Model):
        names = {layer.name: k for k, layer in enumerate(value.recurrent)}
        value = _plain(value)
    if isinstance(value, np.ndarray):
        return (value.dtype.name, value.shape, np.ascontiguousarray(value).tobytes())
    if is_dataclass(value):
        left = {"name", "axes", "layout", "provenance"}
        parts = {f.name: getattr(value, f.name) for f in fields(value) if f.name not in left}
        return (type(value).__name__, {key: tree(part, names) for key, part in parts.items()})
    if isinstance(value, tuple):
        return [tree(part, names) for part in cast("tuple[Any, ...]", value)]
    return (names or {}).get(value, value) if isinstance(value, str) else value


def _plain(model: Model) -> Model:
    """`model` without zero_masked where nothing is masked, a merge of one direction, an initial
    state of zeros, and linear activation layers; the last step of a forward layer is its state."""
    masked = any(
        isinstance(part, Masking | LengthsInput) or getattr(part, "mask_zero", False)
        for part in (*model.inputs, *walk(model.layers))
    )
    layers: list[Layer] = []
    for layer in model.layers:
        if isinstance(layer, Recurrent):
            h, c = layer.initial.h, layer.initial.c
            still = h is not None and c is not None and not (h.any() or c.any())
            layer = replace(
                layer,
                zero_masked=layer.zero_masked and masked,
                merge=layer.merge if layer.directions == 2 else "concat",
                initial=InitialState() if still else layer.initial,
            )
        before = layers[-1] if layers else None
        if (
            isinstance(layer, LastStep)
            and isinstance(before, Recurrent)
            and not before.not_streamable_because
        ):
            layer = replace(layer, of="state")
        if not (isinstance(layer, ActivationLayer) and layer.activation == LINEAR):
            layers.append(layer)
    return replace(model, layers=tuple(layers)) if layers else model


# -- numbers ------------------------------------------------------------------------------------


def data(model: Model) -> tuple[Any, states.State, Any]:
    """x (2, STEPS, I) or tokens, a state (random where the caller gives it), lengths or None."""
    random = np.random.default_rng(5)
    if isinstance(model.input, TokenInput):
        x: Any = random.integers(0, model.input.vocabulary, (2, STEPS))
    else:
        x = random.standard_normal((2, STEPS, model.input_size)).astype(np.float32)
        x[0, 1] = 0.0
    start = states.initial(model, 2, np.float32)
    if any(layer.initial.kind == "input" for layer in model.recurrent):
        start = {k: random.standard_normal(a.shape).astype(np.float32) for k, a in start.items()}
    padded = any(isinstance(entry, LengthsInput) for entry in model.inputs)
    return x, start, LENGTHS if padded else None


def _same_outputs(model: Model, back: Model) -> bool:
    x, start, lengths = data(model)
    given = start if any(one.initial.kind == "input" for one in model.recurrent) else None
    found: list[Any] = []
    on = "truth" if _wide(model) or _wide(back) else "exact"
    for one in (model, back):
        y, final = one.run(x, given, lengths=lengths, on=on)
        found.append((y, *(final[key] for key in sorted(final))))
    return len(found[0]) == len(found[1]) and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(*found, strict=True)
    )


def _wide(model: Model) -> bool:
    return any(a.dtype == np.float64 for a in model.arrays.values())


def _weights_depart(model: Model, back: Model, ulps: float) -> str:
    """Which weight of an LSTM is further off than `ulps`; "" if none."""
    for k, (one, two) in enumerate(zip(model.recurrent, back.recurrent, strict=True)):
        for (way, a), b in zip(one.cells.items(), two.cells.values(), strict=True):
            for part, far in _effective_ulps(a, b).items():
                if far > ulps * 1.01 + 1e-6:  # as printed, with three digits
                    return f"LSTM {k}, {way}: {part} off by {far:.3g} ulp, said {ulps:.3g}"
    return ""


def _outputs_depart(model: Model, back: Model, ulps: float) -> str:
    """How the outputs of `back` lie further from `model` than `ulps` of a weight explain.

    A weight that is n ulp, at most 2n·u of itself, off adds 2n·u·|w||x| to a sum, and the local
    bound of a sum of K terms holds at least (K+3)·u·|w||x| ≥ 4u·|w||x|: the bound grows by n/2 of
    itself.
    """
    x, start, _ = data(model)
    known = whole(model.astype(np.float32) if _wide(model) else model, x, start)
    if known.amplification >= LARGEST_AMPLIFICATION:
        return f"amplification {known.amplification:.3g}: the case says nothing"
    want, have = (truth.forward(one, x, start).y for one in (model, back))
    far = float(np.abs(have - want).max())
    return "" if far <= known.bound * (1 + ulps / 2) else f"outputs off by {far:.3g}"


def _effective_ulps(a: LSTMCell, b: LSTMCell) -> dict[str, float]:
    """Matrices and the sum of the biases, norms and forget bias in them, in ulp of `b`'s."""
    matrices: dict[str, Any] = {}
    room = np.zeros(4 * b.hidden_size)
    for side in ("ih", "hh"):
        weight = getattr(b, f"weight_{side}")
        matrices[f"weight_{side}"] = spacing(weight)
        if (bias := getattr(b, f"bias_{side}")) is not None:
            room = room + spacing(bias)
    parts = [_effective(a), _effective(b)]
    far = {
        name: float((np.abs(parts[0][name] - parts[1][name]) / ulp).max())
        for name, ulp in matrices.items()
    }
    return far | {"bias": float((np.abs(parts[0]["bias"] - parts[1]["bias"]) / room).max())}


def _effective(cell: LSTMCell) -> dict[str, Any]:
    found: dict[str, Any] = {"bias": np.zeros(4 * cell.hidden_size)}
    units = cell.hidden_size
    found["bias"][units : 2 * units] = cell.forget_bias
    for side, norm in (("ih", cell.input_norm), ("hh", cell.hidden_norm)):
        weight = getattr(cell, f"weight_{side}").astype(np.float64)
        bias = getattr(cell, f"bias_{side}")
        if norm is not None:
            gain = norm_gain(norm)
            weight = weight * gain[:, None]
            found["bias"] -= norm.mean.astype(np.float64) * gain
        found[f"weight_{side}"] = weight
        if bias is not None:
            found["bias"] += bias.astype(np.float64)
    unused = {"i=1-f": slice(0, units), "f=1-i": slice(units, 2 * units)}.get(cell.coupling or "")
    if unused is not None:
        for array in found.values():
            array[unused] = 0.0
    return found


# -- every feature through the formats ------------------------------------------------------------


@cache
def _first(feature: Feature, body: Body, column: Column) -> Leg:
    return travel(feature.model(body), column)


@dataclass(frozen=True)
class Route:
    """One format, or one and then another."""

    stops: tuple[Column, ...]

    def __str__(self) -> str:
        return " → ".join(map(str, self.stops))

    def travel(self, feature: Feature, body: Body) -> Leg:
        """`feature` through every stop, judged as one."""
        model = feature.model(body)
        legs: list[Leg] = []
        back: Model | None = model
        for stop in self.stops:
            assert back is not None
            first = not legs
            legs.append(_first(feature, body, stop) if first else travel(back, stop))
            back = legs[-1].back
            if back is None:
                break
        if back is None or len(legs) == 1:
            return legs[-1]
        folded, lost = (
            tuple(line for leg in legs for line in getattr(leg.report, part))
            for part in ("folded", "lost")
        )
        report, ulps = Report((), folded, lost), stated_ulps(*(leg.report for leg in legs))
        return Leg(_outcome(model, back, report, ulps, direct=False), back, report)

    def body(self, faults: list[str]) -> tuple[Body, Leg]:
        """The body of which the route keeps most, the plainest of those. Raises ToolError where a
        package is missing; what goes wrong otherwise is added to `faults`."""
        best: tuple[Body, Leg] | None = None
        for body in BODIES:
            try:
                leg = self.travel(FEATURES["forward"], body)
            except ToolError:
                raise
            except Exception as error:
                faults.append(f"{body}, {self}: {type(error).__name__}: {error}")
                continue
            if best is None or rank(leg) < rank(best[1]):
                best = body, leg
            if rank(leg) == 0:
                break
        assert best is not None, faults
        return best

    def leg(self, feature: Feature, body: Body) -> Leg:
        """What comes of `feature`; a refusal or a loss by one format is asserted to name it."""
        leg = self.travel(feature, body)
        if len(self.stops) == 1 and (leg.outcome == "refused" or leg.lossy):
            said = leg.reasons.lower()
            words = feature.words
            assert not words or any(word in said for word in words), f"none of {words} in: {said}"
        return leg


def rank(leg: Leg) -> int:
    """0 for equal bits, more for less."""
    order = ("equal", "same", "ulp", "rounding", "other", "refused")
    return max(k for k, word in enumerate(order) if word in leg.outcome) + 10 * leg.lossy


@dataclass
class Matrix:
    """What came of every feature on every route.

    bodies: route → its body, and what came of that alone; legs: feature → route → leg; absent:
    routes that cannot be tried here, with the reason; unwritten: formats that are only read, with
    their message; faults: where a report says too little.
    """

    bodies: dict[str, tuple[Body, Leg]] = field(default_factory=dict[str, tuple[Body, Leg]])
    legs: dict[str, dict[str, Leg]] = field(default_factory=dict[str, dict[str, Leg]])
    absent: dict[str, str] = field(default_factory=dict[str, str])
    unwritten: dict[str, str] = field(default_factory=dict[str, str])
    faults: list[str] = field(default_factory=list[str])


def matrix(routes: Iterable[Route], features: Iterable[str] = FEATURES) -> Matrix:
    """Every feature on each of the routes."""
    found = Matrix()
    for route in routes:
        name = str(route)
        try:
            body, start = route.body(found.faults)
        except ToolError as error:
            found.absent[name] = str(error)
            continue
        if start.outcome == "refused" and len(route.stops) == 1:
            found.unwritten[name] = start.message
            continue
        found.bodies[name] = body, start
        for feature in features:
            try:
                leg = route.leg(FEATURES[feature], body)
            except Exception as error:
                found.faults.append(f"{feature}, {name}: {type(error).__name__}: {error}")
                continue
            found.legs.setdefault(feature, {})[name] = leg
    return found


def singles() -> list[Route]:
    """Every way to write every format."""
    return [Route((column,)) for column in columns()]


@cache
def usual() -> tuple[Column, ...]:
    """How each format that is written is written where nobody chooses."""
    first = {column.format: column for column in reversed(columns())}
    every = [first[name] for name in formats.FORMATS]
    return tuple(one for one in every if Route((one,)).body([])[1].outcome != "refused")


def pairs() -> list[Route]:
    """Every format, in its usual way, to every other."""
    return [Route((a, b)) for a in usual() for b in usual()]
