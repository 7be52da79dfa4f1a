"""Neural Amp Modeler `.nam` with architecture LSTM: one flat list of weights (FORMATS.md).

    per layer   W (4H, I+H) row by row, gates i f g o; b (4H); h0 (H); c0 (H)
    head        W (O, H) row by row; b (O)

Every layer starts from its stored h0 and c0. NAM's players first run half a second of silence; a
Model does not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from ifgo import files
from ifgo.activations import LINEAR
from ifgo.cell import Array, LSTMCell
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats import Report, _json
from ifgo.formats._attributes import Losses
from ifgo.formats._audio_plan import AudioPlan
from ifgo.formats._plan import Floats
from ifgo.gates import CANONICAL, LSTM_LAYOUTS, reorder
from ifgo.layers import Dense, InitialState, Layer, Recurrent
from ifgo.model import FeatureInput, Model, Provenance

EXTENSIONS = (".nam",)
READ_OPTIONS: tuple[str, ...] = ()
WRITE_OPTIONS: tuple[str, ...] = ()

VERSION: Final = "0.5.4"
"""What is written: the oldest version line, which every player of LSTMs reads."""
_TOLD: Final = ("name", "input_level_dbu", "output_level_dbu")
"""What of the metadata a user of the numbers needs: what it models, and at which levels."""
_MINORS: Final = (5, 7)
"""Versions 0.5.x to 0.7.x store an LSTM alike, and are what NAM's own core reads."""


def sniff(path: Path) -> bool:
    """Whether `path` starts like a JSON object, and ends in .nam or names an "architecture"."""
    start = _json.head(path)
    return bool(start) and (path.suffix == ".nam" or b'"architecture"' in start)


def read(path: Path) -> Model:
    """The model in `path`, float32. Raises FormatError where the count of weights is not what the
    config adds up to, UnsupportedError naming another architecture or version."""
    try:
        return _model(_json.Fields(_json.read(path)), path)
    except IfgoError as error:
        raise error.located(str(path)) from None


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write `model` to `path`. Raises UnsupportedError naming, in one message, all that the format
    cannot hold. allow_lossy permits zeros for absent biases and rounding to float32."""
    plan = _Writer(allow_lossy=allow_lossy)
    try:
        plan.chain(model)
        plan.judge()
    except IfgoError as error:
        raise error.located(str(path)) from None
    tree = {
        "version": VERSION,
        "metadata": {},
        "architecture": "LSTM",
        "config": plan.config,
        "weights": _json.numbers(np.concatenate([part.reshape(-1) for part in plan.flat])),
    }
    files.atomic_write(path, _json.text(tree))
    return plan.report(model)


def _model(root: _json.Fields, path: Path) -> Model:
    architecture = root.text("architecture")
    if architecture != "LSTM":
        raise UnsupportedError(
            f"architecture is {_json.shown(architecture)}",
            expected="'LSTM'",
            hint="ifgo reads LSTM networks",
        )
    root.only("version", "metadata", "architecture", "config", "weights", "sample_rate")
    version = _version(root)
    config = root.fields("config")
    config.only("input_size", "hidden_size", "num_layers", "in_channels", "out_channels")
    inputs = config.size("input_size", "input_size")
    hidden = config.size("hidden_size", "hidden_size")
    count = config.size("num_layers", "layers", less=1)
    outputs = 1
    if "out_channels" in config.values:
        outputs = config.size("out_channels", "input_size")
    if "in_channels" in config.values and config.need("in_channels") != inputs:
        raise config.wrong("in_channels", f"input_size, {inputs}")
    flat = root.list("weights")
    sizes = [4 * hidden * (width + hidden) + 6 * hidden for width in (inputs, hidden)]
    wanted = sizes[0] + (count - 1) * sizes[1] + outputs * (hidden + 1)
    if len(flat) != wanted:
        terms = [f"4·{hidden}·({w}+{hidden}) + 6·{hidden}" for w in (inputs, hidden)]
        more = f" + {count - 1}·({terms[1]})" if count > 1 else ""
        raise FormatError(
            f"weights has {len(flat)} numbers",
            expected=f"{wanted} = {terms[0]}{more} + {outputs}·({hidden}+1)",
            hint="The config is another model's, or the list was cut short",
        )
    numbers = _json.Numbers()
    payload = _Payload(numbers.take(flat, (wanted,), "weights"))
    layers: list[Layer] = [
        payload.lstm(f"lstm_{k}", inputs if k == 0 else hidden, hidden) for k in range(count)
    ]
    weight = payload.take(outputs, hidden)
    layers.append(Dense("head", weight, payload.take(outputs)))
    notes = list(numbers.notes)
    if root.values.get("sample_rate") is not None:
        notes.append(f"sample_rate: {root.number('sample_rate'):g}")
    if root.values.get("metadata") is not None:
        said = root.fields("metadata").values
        notes += _json.notes_of({key: said[key] for key in _TOLD if key in said})
    names = {name: "weights" for layer in layers for name in _names(layer)}
    provenance = Provenance("nam", version, str(path), tuple(notes), names)
    return Model((FeatureInput(inputs),), tuple(layers), provenance=provenance)


def _names(layer: Layer) -> list[str]:
    return [f"{layer.name}.{array}" for array in layer.arrays]


def _version(root: _json.Fields) -> str:
    """The version, if it is one whose LSTM is known."""
    version = root.text("version")
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", version, re.ASCII)
    if found is None:
        raise root.wrong("version", "a version such as 0.5.4")
    if int(found[1]) != 0 or not _MINORS[0] <= int(found[2]) <= _MINORS[1]:
        raise UnsupportedError(
            f"is of version {version}",
            expected=f"0.{_MINORS[0]}.x to 0.{_MINORS[1]}.x",
            hint="Convert it with the trainer that wrote it, or install a newer ifgo",
        )
    return version


class _Payload:
    """The weights, handed out in order."""

    def __init__(self, values: Array) -> None:
        self.values = values
        self.at = 0

    def take(self, *shape: int) -> Array:
        """The next numbers as an array of `shape`."""
        start = self.at
        self.at += int(np.prod(shape))
        return self.values[start : self.at].reshape(shape)

    def lstm(self, name: str, width: int, hidden: int) -> Recurrent:
        """The next layer."""
        order = LSTM_LAYOUTS["nam"].order
        both = reorder(self.take(4 * hidden, width + hidden), order)
        bias = reorder(self.take(4 * hidden), order)
        h, c = self.take(1, hidden), self.take(1, hidden)
        cell = LSTMCell(both[:, :width], both[:, width:], bias)
        return Recurrent(name, cell, stateful=True, initial=InitialState("constant", h, c))


class _Writer(AudioPlan):
    """The config and the weights of one model."""

    def __init__(self, *, allow_lossy: Losses) -> None:
        super().__init__("a NAM file", allow_lossy=allow_lossy)
        self.config: dict[str, Any] = {}
        self.flat: list[Floats] = []

    def chain(self, model: Model) -> None:
        """Every part of `model`."""
        self.ends(model)
        stack, head = self.stack_and_head(model.layers)
        if head is None or not stack:
            return
        for layer in stack:
            self.recurrent(layer)
        if head.activation != LINEAR:
            self.refused.append(f"layer {head.name}: activation {head.activation}")
        weight = self.single(head.name, "weight", head.weight)
        bias = np.zeros(len(weight), np.float32)
        if head.bias is not None:
            bias = self.single(head.name, "bias", head.bias)
        else:
            self.zeros(head.name)
        self.flat += [weight, bias]
        self.kept.append(f"{head.name} (dense): head")
        self.config = {
            "input_size": model.input_size,
            "hidden_size": stack[0].hidden_size,
            "num_layers": len(stack),
        }
        if len(weight) > 1:
            self.config["out_channels"] = len(weight)

    def recurrent(self, layer: Recurrent) -> None:
        """W, b, h0 and c0 of one layer."""
        name, cell = layer.name, self.cell(layer, constant=True)
        if cell is None:
            return
        order, zeros = LSTM_LAYOUTS["nam"].order, np.zeros(cell.hidden_size, np.float32)
        parts = [self.single(name, key, getattr(cell, key)) for key in ("weight_ih", "weight_hh")]
        self.flat.append(reorder(np.concatenate(parts, axis=1), CANONICAL, order))
        given = self.biases(name, cell, one=True)
        if not given:
            self.no_lstm_bias(name)
        bias = next(iter(given.values()), np.zeros(4 * cell.hidden_size, np.float32))
        self.flat.append(reorder(bias, CANONICAL, order))
        if layer.initial.kind == "zero":
            self.unsaid(layer, "initial", words="stored as zeros")
        for key in ("h", "c"):
            start: Array | None = getattr(layer.initial, key)
            spelled = (f"initial {key}", f"initial.{key}")
            self.flat.append(
                zeros if start is None else self.single(name, spelled[0], start, spelled[1])
            )
        self.kept.append(f"{name} (lstm): weights")
