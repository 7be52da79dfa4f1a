"""What a writer does with each part of a Model: kept, folded, lost on request, or refused.

A writer walks the layers, says here what becomes of each, and lets the plan judge once: everything
that the format cannot hold stands in one message. Fields are compared with their defaults, so a
field that is new to the Model is refused by every writer until it is handled; the report has every
attribute of the Model, and what no sentence is about was kept (ifgo.formats._attributes).
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ifgo.cell import Array, LSTMCell
from ifgo.errors import UnsupportedError
from ifgo.formats import Report
from ifgo.formats._attributes import (
    LOSSES,
    Fate,
    Losses,
    Mark,
    attributes,
    owner_of,
    permission,
    permitted,
)
from ifgo.model import Model
from ifgo.recurrent import Recurrent

Floats = NDArray[np.float32]


class Plan:
    """Collected over one model. holder: who cannot hold what is refused, such as "raw tensors"."""

    UNSAID: tuple[str, ...] = (
        "layer.name",
        "input.name",
        "input.axes",
        "output.name",
        "output.axes",
    )
    """What the format has no place for and no number depends on."""

    def __init__(self, holder: str, *, allow_lossy: Losses) -> None:
        self.holder = holder
        self.permitted = permitted(allow_lossy)
        self.kept: list[str] = []
        self.folded: list[str] = []
        self.losable: list[str] = []
        self.refused: list[str] = []
        self.marks: list[Mark] = []
        self.losses: dict[str, str] = {}
        """Sentence of `losable` → the name in LOSSES that permits it."""
        self.side = ""
        """The direction whose cell is being placed, "" where there is one."""

    def judge(self) -> None:
        """Raises UnsupportedError where something is refused, or lost without permission."""
        missing = [words for words in self.losable if self.losses[words] not in self.permitted]
        if reasons := self.refused + missing:
            whole = "an .ifgo file, which holds every model"
            losses = [self.losses[words] for words in self.losable]
            raise UnsupportedError(
                f"{self.holder} cannot hold " + "; ".join(dict.fromkeys(reasons)),
                hint=f"Write {whole}"
                if self.refused
                else f"Permit it with {permission(losses)}, or write {whole}",
            )

    def report(self, model: Model) -> Report:
        """What was done with every attribute of `model`, after `judge` let it pass."""
        unsaid = [
            Mark(one.part, one.owner, one.name, "unsaid")
            for one in attributes(model, ())
            if f"{one.part}.{one.name}" in self.UNSAID
        ]
        return Report(
            tuple(self.kept),
            tuple(self.folded),
            tuple(dict.fromkeys(self.losable)),
            attributes(model, unsaid + self.marks),
        )

    def fold(self, part: Any, words: str, *names: str) -> None:
        """Note that attributes `names` (of the whole part where there is none) of `part`, a layer
        or its name, an input or output, are held in another form: `words`, a whole sentence."""
        self.folded.append(words)
        self._mark("folded", part, words, names)

    def lose(self, loss: str, part: Any, words: str, *names: str) -> None:
        """Note that they are lost where `loss`, a name in LOSSES, is permitted."""
        assert loss in LOSSES, loss
        self.losable.append(words)
        self.losses[words] = loss
        self._mark("lost", part, words, names)

    def unsaid(self, part: Any, *names: str, words: str = "") -> None:
        """Note that the file does not say them, and no number of this model depends on them."""
        self._mark("unsaid", part, words, names)

    def _mark(self, fate: Fate, part: Any, words: str, names: tuple[str, ...]) -> None:
        kind, owner = owner_of(part)
        short = words.removeprefix(f"layer {owner}: ").removeprefix(f"{owner} (lstm): ")
        for name in names or ("",):
            cell = self.side and name in LSTMCell.__dataclass_fields__
            spelled = f"{self.side}.{name}" if cell else name
            self.marks.append(Mark(kind, owner, spelled, fate, short))

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
            if field.name in losable:
                self.lose(field.name, name, words, field.name)
            else:
                self.refused.append(words)

    def persists(self, layer: Recurrent) -> None:
        """Note that state outlives a sequence in this format where it does not in `layer`."""
        if not layer.stateful:
            words = f"stateful, for {self.holder} keeps state between calls"
            self.fold(layer, f"{layer.name} (lstm): {words}", "stateful")

    def single(self, name: str, what: str, array: Array, field: str = "") -> Floats:
        """`array` as float32; noted where its dtype is another, refused where a value is beyond.
        field: the attribute of layer `name` that it is, where `what` is another word for it."""
        dtype = array.dtype.name
        with np.errstate(over="ignore"):
            values = array.astype(np.float32)
        if not np.isfinite(values).all():
            self.refused.append(f"layer {name}: {what}, beyond float32")
        elif (values.astype(array.dtype) != array).any():
            error = ulps(array.astype(np.float64), values)
            words = f"layer {name}: {dtype} {what}, in float32 off by up to {error:.3g} ulp"
            self.lose("dtype", name, words, field or what)
        elif dtype != "float32":
            words = f"{name}: {dtype} {what} as float32, same values"
            self.fold(name, words, field or what)
        return values

    def add(
        self, name: str, what: str, a: Floats, b: Array, *fields: str, loss: str = ""
    ) -> Floats:
        """a + b of LSTM layer `name` rounded to float32, reported of `fields` with its largest
        error: as folded, or as `loss`."""
        exact = a.astype(np.float64) + b
        with np.errstate(over="ignore"):
            total = exact.astype(np.float32)
        if not np.isfinite(total).all():
            self.refused.append(f"layer {name}: {what}, beyond float32")
            return a
        words = f"{what} in one float32, off by up to {ulps(exact, total):.3g} ulp"
        if loss:
            self.lose(loss, name, f"layer {name}: {words}", *fields)
        else:
            self.fold(name, f"{name} (lstm): {words}", *fields)
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
            pair = given["bias_ih"], given["bias_hh"]
            total = self.add(name, "bias_ih + bias_hh", *pair, "bias_ih", "bias_hh")
            given = {"bias_ih": total}
        elif one and "bias_hh" in given and not says_which:
            words = f"{name} (lstm): bias_hh as the one bias, same values"
            self.fold(name, words, "bias_ih", "bias_hh")
        if cell.forget_bias:
            what = f"forget_bias {cell.forget_bias:g}"
            if "forget_bias" in self.permitted:
                target = next(iter(given), "bias_ih")
                zero = np.zeros(4 * cell.hidden_size, np.float32)
                extra = np.zeros(4 * cell.hidden_size)
                extra[cell.hidden_size : 2 * cell.hidden_size] = cell.forget_bias
                start = given.get(target, zero)
                added = ("forget_bias", "bias_ih", "bias_hh") if one else ("forget_bias", target)
                words = f"{what} + {target}"
                given[target] = self.add(name, words, start, extra, *added, loss="forget_bias")
            else:
                self.lose("forget_bias", name, f"layer {name}: {what}", "forget_bias")
        return given

    def zeros(self, name: str, what: str = "bias", *fields: str) -> None:
        """Note that an absent bias of layer `name` is written as zeros."""
        self.lose("bias", name, f"layer {name}: no {what} (written as zeros)", *(fields or (what,)))

    def no_lstm_bias(self, name: str) -> None:
        """Note that the one bias of LSTM layer `name` is written as zeros."""
        self.zeros(name, "bias", "bias_ih", "bias_hh")


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
