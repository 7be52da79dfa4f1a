"""Darknet: a .cfg with the layers and a .weights with their numbers (SPEC.md 2.6).

Two forks write the same bytes in two gate orders, the dialects: "pjreddie" and "alexeyab". A
.weights file has no magic, sizes or checksum; its byte count is held against the cfg. The state of
an LSTM persists between calls there, so its layers are read as stateful.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ifgo import files, limits
from ifgo.activations import LINEAR, RELU, SIGMOID, SOFTMAX, TANH, Activation
from ifgo.cell import Array, LSTMCell, MatrixNorm
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats._darknet_cfg import Section, parse
from ifgo.formats._darknet_write import EPSILONS, write_files
from ifgo.gates import LSTM_LAYOUTS, reorder
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Layer,
    Recurrent,
    Scale,
)
from ifgo.model import FeatureInput, Model, Output, Provenance
from ifgo.text import quote

EXTENSIONS = (".weights",)
READ_OPTIONS = ("cfg", "dialect")
WRITE_OPTIONS = ("dialect",)

DIALECTS: Final = ("pjreddie", "alexeyab")

ACTIVATIONS: Final = {
    "linear": LINEAR,
    "logistic": SIGMOID,
    "tanh": TANH,
    "relu": RELU,
    "leaky": Activation("leaky_relu", 0.1),
    "elu": Activation("elu", 1.0),
    "loggy": Activation("scaled_tanh", 1.0, 0.5),
}
"""activation= of [connected] → ours; loggy is 2σ(x) − 1 = tanh(x/2). The others are refused."""

_FLOAT: Final = np.dtype("<f4")


def sniff(path: Path) -> bool:
    """Whether `path` ends in .weights, or in .cfg and begins with a [net] section."""
    try:
        if not path.is_file():
            return False
        if path.suffix == ".weights":
            return True
        if path.suffix != ".cfg":
            return False
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError:
        return False
    return any(mark in head for mark in (b"[net]", b"[network]"))


def read(path: Path, *, cfg: str | None = None, dialect: str | None = None) -> Model:
    """The model in a pair of files, in float32, as Darknet computes it at inference.

    path: the .weights, with `cfg` beside it under the same name or given; or the .cfg, with the
    .weights under the same name. dialect: gate order, header and batch norm of one of the forks;
    the header's revision decides where it is not given, and a note says so. Raises UsageError on a
    missing file or unknown option, FormatError where the byte count or a key contradicts the cfg,
    UnsupportedError naming a section, key or activation that ifgo does not read.
    """
    if dialect not in (None, *DIALECTS):
        raise UsageError(
            f"option dialect is {dialect!r}", expected="one of " + ", ".join(map(repr, DIALECTS))
        )
    layout, weights = _pair(path, cfg)
    try:
        sections = parse(files.read_bytes(layout, limit="cfg_bytes"))
        size, shapes = _sizes(sections)
    except IfgoError as error:
        raise _placed(error, path, layout) from None
    try:
        payload = _Payload(files.read_bytes(weights), dialect, shapes)
    except IfgoError as error:
        raise _placed(error, path, weights) from None
    layers: list[Layer] = []
    try:
        for section in sections[1:]:
            layers += _BUILD[section.name](section, payload)
        provenance = Provenance(
            f"darknet_{payload.dialect}",
            ".".join(map(str, payload.version)),
            str(path),
            tuple(payload.notes),
            payload.names,
        )
        ends = (Output("sequence", axes="TB"),)
        entry = FeatureInput(size, axes="TB")
        return Model((entry,), tuple(layers), ends, provenance=provenance)
    except IfgoError as error:
        raise _placed(error, path, layout) from None


def write(
    model: Model, path: Path, *, allow_lossy: Losses = False, dialect: str | None = None
) -> Report:
    """Write `model` as `path` (.weights) and the .cfg of the same name beside it.

    dialect: "pjreddie" (default) or "alexeyab". Raises UnsupportedError naming all that Darknet
    cannot hold, in one message. allow_lossy permits zeros for absent biases, rounding to float32
    and adding a run-time forget bias to the bias.
    """
    if dialect not in (None, *DIALECTS):
        raise UsageError(
            f"option dialect is {dialect!r}", expected="one of " + ", ".join(map(repr, DIALECTS))
        )
    return write_files(model, path, dialect or "pjreddie", ACTIVATIONS, allow_lossy=allow_lossy)


def _placed(error: IfgoError, path: Path, file: Path) -> IfgoError:
    """The error said of `path`, and of `file` where that is the other of the pair."""
    where = error.where or ""
    place = str(path) if file == path else f"{path}, its {file.name}"
    if where.startswith(str(file)):
        error = type(error)(
            error.what,
            where=where.removeprefix(str(file)).removeprefix(": ") or None,
            expected=error.expected,
            hint=error.hint,
        )
    return error.located(place)


def _pair(path: Path, cfg: str | None) -> tuple[Path, Path]:
    """The .cfg and the .weights."""
    if path.suffix == ".cfg":
        if cfg is not None:
            raise UsageError(
                f"is a cfg, and option cfg names {quote(cfg)}", where=str(path), expected="one cfg"
            )
        layout, weights = path, path.with_suffix(".weights")
    else:
        layout, weights = Path(cfg) if cfg else path.with_suffix(".cfg"), path
    for wanted, what in ((layout, "cfg"), (weights, "weights")):
        if not wanted.is_file():
            raise UsageError(
                f"has no {what} beside it",
                where=str(path),
                expected=wanted.name,
                hint="Give the .weights as the model, and its layers by --cfg FILE",
            )
    return layout, weights


@dataclass(frozen=True)
class _Shape:
    """What a layer stores, blocks of (outputs, inputs), and how many features it gives."""

    width: int
    blocks: tuple[tuple[int, int], ...] = ()
    normed: bool = False

    @property
    def floats(self) -> int:
        extra = 4 if self.normed else 1
        return sum(rows * (columns + extra) for rows, columns in self.blocks)


def _sizes(sections: list[Section]) -> tuple[int, list[_Shape]]:
    """I of the network, and what each layer stores, from the cfg alone."""
    net = sections[0]
    picture = [net.integer(key, 0) for key in ("height", "width", "channels")]
    size = first = net.integer("inputs", picture[0] * picture[1] * picture[2])
    if not 1 <= size <= limits.current().input_size:
        raise FormatError(
            f"inputs is {size}",
            where="[net]",
            **limits.at_most("input_size", form="1 to {}", found=size),
        )
    shapes: list[_Shape] = []
    for section in sections[1:]:
        if section.flag("dontload"):
            raise UnsupportedError(
                "sets dontload, so its numbers are not in the file", where=section.where
            )
        if section.name not in ("lstm", "connected"):
            shapes.append(_Shape(size))
            continue
        rows = section.integer("output", 1, least=1)
        limit = "hidden_size" if section.name == "lstm" else "vocabulary"
        if rows > limits.value(limit):
            raise FormatError(f"output is {rows}", where=section.where, **limits.at_most(limit))
        if rows * size > limits.current().elements:
            what = f"has {rows * size} weights"
            raise FormatError(what, where=section.where, **limits.at_most("elements"))
        into = (rows, size)
        blocks = ((rows, rows),) * 4 + (into,) * 4 if section.name == "lstm" else (into,)
        shapes.append(_Shape(rows, blocks, section.flag("batch_normalize")))
        size = rows
    if not any(shape.blocks for shape in shapes):
        raise FormatError("has no [lstm] or [connected]", expected="at least one")
    if len(shapes) > limits.current().layers:
        raise FormatError(f"has {len(shapes)} layers", **limits.at_most("layers"))
    return first, shapes


@dataclass
class _Block:
    """One connected matrix: weight (rows, columns), bias (rows,), norm arrays or None."""

    weight: Array
    bias: Array
    norm: tuple[Array, Array, Array] | None


class _Payload:
    """The numbers of a .weights file, handed out in the order of the cfg."""

    def __init__(self, data: bytes, dialect: str | None, shapes: list[_Shape]) -> None:
        if len(data) < 16:
            raise FormatError(
                f"has {len(data)} bytes",
                expected="a header of 16 or 20 bytes: major, minor, revision, images seen",
            )
        major, minor, revision = (int(n) for n in np.frombuffer(data, "<i4", 3))
        self.version = (major, minor, revision)
        if not (0 <= major <= 100_000 and 0 <= minor <= 100_000 and 0 <= revision <= 100_000):
            raise FormatError(
                f"its header says version {major}.{minor}.{revision}",
                expected="small numbers, little-endian",
                hint="It is no .weights file, or written on a big-endian machine",
            )
        self.notes: list[str] = []
        self.names: dict[str, str] = {}
        self.dialect = dialect or self._guess()
        self.transposed = major > 1000 or minor > 1000
        wide = major * 10 + minor >= 2
        if self.dialect == "pjreddie":
            wide = wide and major < 1000 and minor < 1000
        self.at = 20 if wide else 16
        wanted = self.at + 4 * sum(shape.floats for shape in shapes)
        if len(data) != wanted:
            raise FormatError(
                f"has {len(data)} bytes",
                expected=f"{wanted} = a header of {self.at} and what the cfg adds up to",
                hint="The cfg is another model's, or the file was cut short",
            )
        self.data = data
        self.shapes = shapes

    def _guess(self) -> str:
        """The dialect that the header speaks for, with a note."""
        chosen = "alexeyab" if self.version[2] == 5 else "pjreddie"
        written = {(0, 2, 0): "pjreddie", (0, 2, 5): "alexeyab"}.get(self.version)
        said = ".".join(map(str, self.version))
        other = DIALECTS[chosen == "pjreddie"]
        self.notes.append(
            f"gate order of {chosen}, "
            + (
                f"which writes version {said}; other writers copy that number"
                if written
                else f"by default: neither fork writes version {said}"
            )
            + f". Option dialect {other} reads the other order"
        )
        return chosen

    def blocks(self, section: Section) -> list[_Block]:
        """What layer `section` stores."""
        shape = self.shapes[section.number]
        return [self._block(rows, columns, shape.normed) for rows, columns in shape.blocks]

    def _block(self, rows: int, columns: int, normed: bool) -> _Block:
        bias = self._take(rows)
        weight = self._take(rows * columns)
        weight = weight.reshape(columns, rows).T if self.transposed else weight.reshape(rows, -1)
        norm = (self._take(rows), self._take(rows), self._take(rows)) if normed else None
        return _Block(weight, bias, norm)

    def _take(self, count: int) -> Array:
        values = np.frombuffer(self.data, _FLOAT, count, self.at).astype(np.float32)
        self.at += 4 * count
        return values


def _lstm(section: Section, payload: _Payload) -> list[Layer]:
    """Eight matrices: four on h(t−1), four on x(t), each block in the dialect's gate order."""
    name = f"lstm_{section.number}"
    order = LSTM_LAYOUTS[f"darknet_{payload.dialect}"].order
    blocks = payload.blocks(section)
    parts: dict[str, Any] = {}
    for side, letter, four in (("hh", "w", blocks[:4]), ("ih", "u", blocks[4:])):
        stored = ", ".join(letter + gate for gate in order)
        for field in ("weight", "bias"):
            stack = np.concatenate([getattr(block, field) for block in four])
            parts[f"{field}_{side}"] = reorder(stack, order)
            payload.names[f"{name}.forward.{field}_{side}"] = f"{section.where} {stored}"
        norms = [block.norm for block in four if block.norm is not None]
        if norms:
            scale, mean, variance = (
                reorder(np.concatenate(part), order) for part in zip(*norms, strict=True)
            )
            key = "hidden_norm" if side == "hh" else "input_norm"
            parts[key] = MatrixNorm(scale, mean, variance, *EPSILONS[payload.dialect])
    return [Recurrent(name, LSTMCell(**parts), stateful=True)]


def _connected(section: Section, payload: _Payload) -> list[Layer]:
    name = f"connected_{section.number}"
    spelled = section.values.get("activation", "logistic")
    activation = ACTIVATIONS.get(spelled)
    if activation is None:
        raise UnsupportedError(
            f"activation is {quote(spelled)}",
            where=section.where,
            expected="one of " + ", ".join(ACTIVATIONS),
        )
    if section.flag("batch_normalize") and section.flag("dontloadscales"):
        raise UnsupportedError(
            "sets dontloadscales, so its batch norm is not in the file", where=section.where
        )
    (block,) = payload.blocks(section)
    if block.norm is None:
        payload.names |= {f"{name}.{field}": section.where for field in ("weight", "bias")}
        return [Dense(name, block.weight, block.bias, activation)]
    scale, mean, variance = block.norm
    norm = BatchNorm(f"{name}_norm", mean, variance, scale, block.bias, *EPSILONS[payload.dialect])
    layers: list[Layer] = [Dense(name, block.weight), norm]
    return layers + [ActivationLayer(f"{name}_{spelled}", activation)] * (activation != LINEAR)


def _softmax(section: Section, payload: _Payload) -> list[Layer]:
    for key, neutral in (("groups", 1), ("spatial", 0)):
        if section.integer(key, neutral) != neutral:
            raise UnsupportedError(
                f"{key} is {section.integer(key, neutral)}",
                where=section.where,
                expected=f"{key}={neutral}: one softmax over all features",
            )
    if "tree" in section.values:
        raise UnsupportedError("has a tree", where=section.where, expected="a plain softmax")
    temperature = section.real("temperature", 1.0)
    layers: list[Layer] = [ActivationLayer(f"softmax_{section.number}", SOFTMAX)]
    if temperature == 1:
        return layers
    if temperature <= 0:
        raise FormatError(
            f"temperature is {temperature:g}", where=section.where, expected="a number above 0"
        )
    factor = np.full(payload.shapes[section.number].width, 1 / temperature, np.float32)
    if factor[0] * np.float64(temperature) != 1:
        payload.notes.append(
            f"{section.where} divides by {temperature:g}: here times {factor[0]}, "
            "rounded to float32"
        )
    return [Scale(f"temperature_{section.number}", factor, np.zeros_like(factor)), *layers]


def _dropout(section: Section, payload: _Payload) -> list[Layer]:
    rate = section.real("probability", 0.5)
    if not 0 <= rate < 1:
        raise FormatError(
            f"probability is {rate:g}", where=section.where, expected="a rate in [0, 1)"
        )
    return [Dropout(f"dropout_{section.number}", rate)]


def _cost(section: Section, payload: _Payload) -> list[Layer]:
    payload.notes.append(f"{section.where} is left out: it only trains")
    return []


_BUILD: Final = {
    "lstm": _lstm,
    "connected": _connected,
    "softmax": _softmax,
    "dropout": _dropout,
    "cost": _cost,
}
