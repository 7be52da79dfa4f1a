"""What a writer does with each part of a Model: kept, folded, lost on request, or refused.

A writer walks the layers, says here what becomes of each, and lets the plan judge once: everything
that the format cannot hold stands in one message. Fields are compared with their defaults, so a
field that is new to the Model is refused by every writer until it is handled.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ifgo.cell import Array, LSTMCell
from ifgo.errors import UnsupportedError
from ifgo.formats import Report
from ifgo.recurrent import Recurrent

Floats = NDArray[np.float32]


class Plan:
    """Collected over one model. holder: who cannot hold what is refused, such as "raw tensors"."""

    def __init__(self, holder: str, *, allow_lossy: bool) -> None:
        self.holder = holder
        self.allow_lossy = allow_lossy
        self.kept: list[str] = []
        self.folded: list[str] = []
        self.losable: list[str] = []
        self.refused: list[str] = []

    def judge(self) -> None:
        """Raises UnsupportedError where something is refused, or lost without permission."""
        reasons = self.refused + ([] if self.allow_lossy else self.losable)
        if reasons:
            whole = "an .ifgo file, which holds every model"
            raise UnsupportedError(
                f"{self.holder} cannot hold " + "; ".join(dict.fromkeys(reasons)),
                hint=f"Write {whole}"
                if self.refused
                else f"Permit it with --allow-lossy, or write {whole}",
            )

    def report(self) -> Report:
        """What was done, after `judge` let it pass."""
        return Report(tuple(self.kept), tuple(self.folded), tuple(dict.fromkeys(self.losable)))

    def beyond(
        self, name: str, owner: Any, handled: tuple[str, ...], losable: tuple[str, ...] = ()
    ) -> None:
        """Note each field of `owner` (part of layer `name`) that differs from its default and is
        not `handled`: as losable where the inference of one sequence does not need it."""
        for field in fields(owner):
            if field.name in handled:
                continue
            value, default = getattr(owner, field.name), field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            if value is default or (not isinstance(value, np.ndarray) and value == default):
                continue
            words = f"layer {name}: {_words(field.name, value)}"
            (self.losable if field.name in losable else self.refused).append(words)

    def persists(self, layer: Recurrent) -> None:
        """Note that state outlives a sequence in this format where it does not in `layer`."""
        if not layer.stateful:
            words = f"stateful, for {self.holder} keeps state between calls"
            self.folded.append(f"{layer.name} (lstm): {words}")

    def single(self, name: str, what: str, array: Array) -> Floats:
        """`array` as float32; noted where its dtype is another, refused where a value is beyond."""
        dtype = array.dtype.name
        with np.errstate(over="ignore"):
            values = array.astype(np.float32)
        if not np.isfinite(values).all():
            self.refused.append(f"layer {name}: {what}, beyond float32")
        elif (values.astype(array.dtype) != array).any():
            error = ulps(array.astype(np.float64), values)
            self.losable.append(
                f"layer {name}: {dtype} {what}, in float32 off by up to {error:.3g} ulp"
            )
        elif dtype != "float32":
            self.folded.append(f"{name}: {dtype} {what} as float32, same values")
        return values

    def add(self, name: str, what: str, a: Floats, b: Array, *, lost: bool = False) -> Floats:
        """a + b of LSTM layer `name` rounded to float32, reported with its largest error: as
        folded, or as lost."""
        exact = a.astype(np.float64) + b
        with np.errstate(over="ignore"):
            total = exact.astype(np.float32)
        if not np.isfinite(total).all():
            self.refused.append(f"layer {name}: {what}, beyond float32")
            return a
        words = f"{what} in one float32, off by up to {ulps(exact, total):.3g} ulp"
        if lost:
            self.losable.append(f"layer {name}: {words}")
        else:
            self.folded.append(f"{name} (lstm): {words}")
        return total

    def biases(
        self, name: str, cell: LSTMCell, *, one: bool, says_which: bool = False
    ) -> dict[str, Floats]:
        """The biases that `cell` of layer `name` has, float32 (4H,) in canonical order, by field.

        one: both are summed into bias_ih; says_which: the format tells a lone bias_hh from a lone
        bias_ih. A run-time forget bias becomes part of the first bias where losses are allowed.
        """
        given: dict[str, Floats] = {}
        for key in ("bias_ih", "bias_hh"):
            if (array := getattr(cell, key)) is not None:
                given[key] = self.single(name, key, array)
        if one and len(given) == 2:
            total = self.add(name, "bias_ih + bias_hh", given["bias_ih"], given["bias_hh"])
            given = {"bias_ih": total}
        elif one and "bias_hh" in given and not says_which:
            self.folded.append(f"{name} (lstm): bias_hh as the one bias, same values")
        if cell.forget_bias:
            what = f"forget_bias {cell.forget_bias:g}"
            if self.allow_lossy:
                target = next(iter(given), "bias_ih")
                zero = np.zeros(4 * cell.hidden_size, np.float32)
                extra = np.zeros(4 * cell.hidden_size)
                extra[cell.hidden_size : 2 * cell.hidden_size] = cell.forget_bias
                start = given.get(target, zero)
                given[target] = self.add(name, f"{what} + {target}", start, extra, lost=True)
            else:
                self.losable.append(f"layer {name}: {what}")
        return given


def _words(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str | tuple):
        return name
    if isinstance(value, tuple):
        return f"{name} {'/'.join(map(str, cast('tuple[Any, ...]', value)))}"
    return f"{name} {value}"


def ulps(exact: Any, single: Floats) -> float:
    """The largest distance between `exact` and `single` in units in the last place of float32."""
    return float(np.max(np.abs(exact - single.astype(np.float64)) / spacing(single)))


def spacing(values: Array) -> NDArray[np.float64]:
    """One unit in the last place of each value in float32, for the largest ones too."""
    wide = values.astype(np.float64)
    exponents = np.where(wide == 0, -149, np.frexp(wide)[1] - 24)
    return np.ldexp(1.0, np.maximum(exponents, -149))
