"""A Model as an .npz and the sheet that reads it back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np

from ifgo import files, limits
from ifgo.activations import LINEAR, SIGMOID, TANH, Activation
from ifgo.cell import LSTMCell
from ifgo.errors import IfgoError, UnsupportedError, UsageError
from ifgo.formats import Report
from ifgo.formats._arrays_sheet import VERSION
from ifgo.formats._attributes import Losses
from ifgo.formats._plan import Plan
from ifgo.formats._toml import pairs
from ifgo.gates import LSTM_LAYOUTS
from ifgo.layers import (
    ActivationLayer,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    Recurrent,
    RepeatVector,
)
from ifgo.model import FeatureInput, LengthsInput, Model, Output, TokenInput

_LAYER_HANDLED = ("name", "forward", "backward", "initial", "stateful", "merge")
_LAYER_LOSABLE = ("training",)
_RULES: Final = ("clip_z", "clip_cell", "clip_projection", "coupling")
_ARRAYS: Final = (
    "weight_ih",
    "weight_hh",
    "bias_ih",
    "bias_hh",
    "peephole",
    "weight_hr",
    "bias_hr",
)
_CELL_HANDLED = (*_ARRAYS, *_RULES, "forget_bias", "activations")


def write_files(model: Model, path: Path, *, allow_lossy: Losses) -> Report:
    """`path` and its sheet, both or neither; see ifgo.formats.arrays.write."""
    if path.suffix != ".npz":
        raise UsageError("does not end in .npz", where=str(path), expected="NAME.npz")
    plan = _Dump(allow_lossy=allow_lossy)
    try:
        plan.chain(model)
        plan.judge()
        sheet = ("\n".join(plan.lines) + "\n").encode()
        if len(sheet) > limits.current().toml_bytes:
            raise UnsupportedError(
                f"its sheet would have {len(sheet)} bytes",
                expected=f"at most {limits.current().toml_bytes}",
                hint="Give the layers shorter names, or write an .ifgo file",
            )
    except IfgoError as error:
        raise error.located(str(path)) from None
    buffer = io.BytesIO()
    np.savez(buffer, **plan.arrays)

    def fill(folder: Path) -> None:
        (folder / path.name).write_bytes(buffer.getvalue())
        (folder / path.with_suffix(".toml").name).write_bytes(sheet)

    files.atomic_folder(path.parent, fill)
    return plan.report(model)


class _Dump(Plan):
    """The arrays and the lines of the sheet, layer by layer."""

    def __init__(self, *, allow_lossy: Losses) -> None:
        super().__init__("A sheet", allow_lossy=allow_lossy)
        self.arrays: dict[str, Any] = {}
        self.lines: list[str] = []

    def chain(self, model: Model) -> None:
        """Every part of `model`."""
        first = model.input
        size = None if isinstance(first, TokenInput) else first.size
        self.lines += [
            "# What the arrays mean; FORMATS.md describes sheets.",
            *pairs(version=VERSION),
        ]
        self.lines += ["", "[input]", *pairs(name=first.name, size=size, axes=first.axes)]
        for entry in model.inputs:
            if isinstance(entry, LengthsInput):
                self.lose("lengths", entry, f"lengths input {entry.name!r}")
            elif not isinstance(entry, FeatureInput | TokenInput):
                self.refused.append(f"{type(entry).__name__} {entry.name!r}")
        end = "last" if model.ends_in_vector else "sequence"
        for output in model.outputs:
            if output.role != end:
                self.refused.append(f"output {output.name!r} of role {output.role}")
            elif output != Output(end):
                words = f"name or axes of output {output.name!r}"
                self.lose("outputs", output, words, "name", "axes")
        for entry in (first, *model.layers):
            if any("\ud800" <= char <= "\udfff" for char in entry.name):
                self.refused.append(f"name {entry.name!r}, which is no Unicode text")
        for number, layer in enumerate(model.layers):
            self.layer(f"layer{number}", layer)

    def layer(self, key: str, layer: Layer) -> None:
        facts: dict[str, Any] = {}
        match layer:
            case Recurrent():
                self.recurrent(key, layer)
                return
            case Embedding():
                facts = {"weight": self.store(layer, f"{key}.weight", layer.weight)}
                facts["mask_zero"] = layer.mask_zero or None
            case Dense():
                facts = {"orientation": "rows"}
                facts["weight"] = self.store(layer, f"{key}.weight", layer.weight)
                if layer.bias is not None:
                    facts["bias"] = self.store(layer, f"{key}.bias", layer.bias)
                facts |= {} if layer.activation == LINEAR else _spelled(layer.activation)
            case ActivationLayer():
                facts = _spelled(layer.activation)
            case Dropout():
                facts = {"rate": layer.rate}
            case LastStep():
                facts = {"of": layer.of}
            case RepeatVector() | Flatten():
                facts = {"steps": layer.steps}
            case HiddenAsSequence():
                pass
            case _:
                self.refused.append(f"layer {layer.name}: {layer.kind}")
        self.section(layer, facts)
        self.kept.append(f"{layer.name} ({layer.kind})")

    def section(self, layer: Layer, facts: dict[str, Any]) -> None:
        self.lines += ["", "[[layer]]", *_toml(kind=layer.kind, name=layer.name, **facts)]

    def store(self, layer: Layer, name: str, values: Any) -> str:
        """Takes an array under `name`, which it gives back."""
        if values.dtype.kind != "f":
            self.refused.append(f"layer {layer.name}: {values.dtype}, which an .npz does not hold")
        self.arrays[name] = values
        return name

    def recurrent(self, key: str, layer: Recurrent) -> None:
        name = layer.name
        self.beyond(name, layer, _LAYER_HANDLED, _LAYER_LOSABLE)
        if layer.initial.kind == "input":
            self.refused.append(f"layer {name}: initial state of kind {layer.initial.kind}")
        cells = layer.cells
        for cell in cells.values():
            self.beyond(name, cell, _CELL_HANDLED)
        if len({_form(cell) for cell in cells.values()}) > 1:
            self.refused.append(f"layer {name}: directions of different forms")
        cell = next(iter(cells.values()))
        order, peephole = LSTM_LAYOUTS["ifgo"].order, LSTM_LAYOUTS["ifgo"].peephole
        bias, _ = _biases(cell)
        facts: dict[str, Any] = {"order": order, "orientation": "rows", "bias": bias}
        facts["forget_bias"] = cell.forget_bias or "stored"
        facts["peephole"] = None if cell.peephole is None else peephole
        if cell.activations != (SIGMOID, TANH, TANH):
            facts["activations"] = cell.activations
        facts |= {rule: getattr(cell, rule) for rule in _RULES}
        facts["stateful"] = layer.stateful or None
        facts["merge"] = layer.merge if len(cells) == 2 else None
        self.section(layer, facts)
        for number, (side, one) in enumerate(cells.items()):
            names = {
                field if (field != "bias_hh" or bias == "two") else "bias_ih": self.store(
                    layer, f"{key}.{side}.{field}", getattr(one, field)
                )
                for field in _ARRAYS
                if getattr(one, field) is not None
            }
            for state in ("h", "c"):
                if (whole := getattr(layer.initial, state)) is not None:
                    field = f"initial_{state}"
                    names[field] = self.store(layer, f"{key}.{side}.{field}", whole[number])
            self.lines += [f"[layer.{side}]", *pairs(**names)]
        if _biases(cell)[1]:
            words = f"{name} (lstm): bias_hh as the one bias, same values"
            self.fold(name, words, "bias_ih", "bias_hh")
        self.kept.append(f"{name} (lstm): {', '.join(cells)}")


def _biases(cell: LSTMCell) -> tuple[str, bool]:
    """The bias form, and whether the one bias is bias_hh."""
    given = (cell.bias_ih is not None, cell.bias_hh is not None)
    return ("none", "one", "two")[sum(given)], given == (False, True)


def _form(cell: LSTMCell) -> tuple[Any, ...]:
    """What one [[layer]] says for both directions."""
    rules = tuple(getattr(cell, rule) for rule in (*_RULES, "forget_bias", "activations"))
    return (_biases(cell), cell.peephole is None, *rules)


def _spelled(activation: Activation) -> dict[str, Any]:
    return {"activation": activation.name, "alpha": activation.alpha, "beta": activation.beta}


def _toml(**values: Any) -> list[str]:
    """pairs(), and activations as a list of names and inline tables."""
    lines: list[str] = []
    for key, value in values.items():
        if key == "activations":
            tables = ("{ " + ", ".join(pairs(**_spelled(one))) + " }" for one in value)
            lines.append(f"activations = [{', '.join(tables)}]")
        else:
            lines += pairs(**{key: value})
    return lines
