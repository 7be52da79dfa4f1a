"""RTNeural JSON, and AIDA-X files, which are RTNeural's with a skip and gains (FORMATS.md).

{"in_shape": [...], "layers": [{"type", "activation", "shape", "weights", ...}]} with weights as
Keras lays them out; or a state_dict of PyTorch as JSON (_json_state.py). What RTNeural computes
counts, not what was trained: every layer runs once a sample, an LSTM has tanh and sigmoid and keeps
its state from call to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from ifgo import limits
from ifgo.activations import LINEAR, RELU, SIGMOID, SOFTMAX, TANH, Activation
from ifgo.cell import Array, LSTMCell
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats import Report, _json, _json_state
from ifgo.formats._attributes import Losses
from ifgo.formats._rtneural_write import write_file
from ifgo.formats.extraction import (
    Found,
    Listing,
    chosen,
    counted,
    left_out,
    listing_of,
    part_of,
)
from ifgo.gates import LSTM_LAYOUTS, reorder
from ifgo.layers import ActivationLayer, BatchNorm, Dense, Layer, Recurrent, Residual, Scale
from ifgo.model import FeatureInput, Model, Provenance
from ifgo.text import cut

EXTENSIONS = (".json", ".aidax")
READ_OPTIONS = ("layers", "select")
WRITE_OPTIONS: tuple[str, ...] = ()

ACTIVATIONS: Final = {
    "": LINEAR,
    "tanh": TANH,
    "relu": RELU,
    "sigmoid": SIGMOID,
    "softmax": SOFTMAX,
    "elu": Activation("elu", 1.0),
}
"""activation → ours; RTNeural knows no others."""

_ROOT: Final = (
    "in_shape",
    "layers",
    "in_skip",
    "in_gain",
    "out_gain",
    "metadata",
    "input_batch",
    "output_batch",
)
"""All after the first two are AIDA-X's; its plug-ins leave the last three alone."""

_KEYED: Final = frozenset(("in_shape", "layers"))
"""An object without either is a state_dict."""

_KEYS: Final = ("type", "activation", "shape", "weights")
_SILENT: Final = -90.0
"""A gain of so many dB or fewer is 0 in AIDA-X."""


def sniff(path: Path) -> bool:
    """Whether `path` starts like a JSON object with "in_shape", or with tensors of an nn.LSTM."""
    start = _json.head(path)
    if b'"model_data"' in start or b'"state_dict"' in start:  # GuitarML has such tensors too
        return False
    return b'"in_shape"' in start or b"weight_ih" in start


def read(
    path: Path, *, layers: str | None = None, select: str | Sequence[str] | None = None
) -> Model:
    """The model in `path`, float32; `select` takes recurrent layers of it alone.

    layers: for a state_dict of PyTorch as JSON the chain of its modules, as "lstm,dense:tanh"; one
    nn.LSTM alone needs none. Raises FormatError where weights have another shape than the layer
    declares, UnsupportedError naming a type, activation or key that ifgo does not read, UsageError
    on names that the file does not hold.
    """
    try:
        tree = _json.read(path)
        if not _KEYED.intersection(tree):
            return _json_state.read(tree, path, layers, select)
        if layers is not None:
            raise UsageError(
                f"option layers is {layers!r}, and the file says its layers itself",
                expected="it for a state_dict only",
            )
        root = _json.Fields(tree)
        if select is not None and _strangers(root):
            return _selected(root, path, select)
        model = _model(root, path)
        return model if select is None else part_of(model, select)
    except IfgoError as error:
        raise error.located(str(path)) from None


def list_layers(path: Path, *, layers: str | None = None) -> Listing:
    """The recurrent layers. Raises what `read` raises."""
    tree = _json.read(path)
    if not _KEYED.intersection(tree):
        return _json_state.listing(tree)
    root = _json.Fields(tree)
    try:
        if _strangers(root):
            return _listing(root)
    except IfgoError as error:
        raise error.located(str(path)) from None
    return listing_of(read(path, layers=layers), "rtneural")


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write `model` to `path`; a residual, AIDA-X's in_skip, into .aidax files alone.

    Raises UnsupportedError naming, in one message, all that the format cannot hold. allow_lossy
    permits zeros for absent biases and rounding to float32.
    """
    return write_file(model, path, ACTIVATIONS, allow_lossy=allow_lossy)


def _model(root: _json.Fields, path: Path, first: int = 0) -> Model:
    """The chain of `layers`, whose numbers start at `first`."""
    root.only(*_ROOT)
    size = inputs = _width(root, "in_shape", "input_size")
    numbers = _json.Numbers()
    names: dict[str, str] = {}
    notes: list[str] = []
    layers: list[Layer] = []
    entries = root.list("layers")
    if not 1 <= len(entries) <= limits.current().layers:
        raise FormatError(
            f"has {len(entries)} layers",
            **limits.at_most("layers", form="1 to {} of them", found=len(entries)),
        )
    for k, values in enumerate(entries, first):
        if not isinstance(values, dict):
            raise FormatError(
                f"layers holds {_json.shown(values)}", expected="objects in braces only"
            )
        made, last_only = _layer(k, _json.Fields(cast("dict[str, Any]", values)), size, numbers)
        for layer in made:
            size = layer.output_size(size)
            names |= {f"{layer.name}.{array}": f"layers[{k}]" for array in layer.arrays}
        layers += made
        if last_only:
            notes.append(
                f"layer {k} (lstm) gave its last step alone in training; RTNeural gives every "
                "step, and so does this model"
            )
    layers, prefix = _around(root, layers, inputs, size)
    names = {prefix + ours: theirs for ours, theirs in names.items()}
    if root.values.get("metadata") is not None:
        notes += _json.notes_of(root.values["metadata"])
    notes += [f"{key} is left out: a recording" for key in _ROOT[-2:] if key in root.values]
    provenance = Provenance("rtneural", "", str(path), (*numbers.notes, *notes), names)
    return Model((FeatureInput(inputs),), tuple(layers), provenance=provenance)


# -- LSTM layers between others -------------------------------------------------------------------


def _kinds(root: _json.Fields) -> list[str]:
    """The type of each of `layers`, "" where it says none."""
    found: list[str] = []
    for entry in root.list("layers"):
        kind = cast("dict[str, Any]", entry).get("type") if isinstance(entry, dict) else None
        found.append(kind if isinstance(kind, str) else "")
    return found


def _strangers(root: _json.Fields) -> bool:
    """Whether there are layers that ifgo does not compute, and no more than the limit of any."""
    kinds = _kinds(root)
    return len(kinds) <= limits.current().layers and not set(kinds) <= _BUILD.keys()


def _entry(root: _json.Fields, k: int) -> _json.Fields:
    """Entry `k` of `layers`; -1 is the input."""
    if k >= 0 and not isinstance(root.list("layers")[k], dict):
        raise FormatError(
            f"layers holds {_json.shown(root.list('layers')[k])}", expected="objects in braces only"
        )
    if k < 0:
        return _json.Fields({"shape": root.need("in_shape")})
    return _json.Fields(cast("dict[str, Any]", root.list("layers")[k]), f"layer {k}")


def _listing(root: _json.Fields) -> Listing:
    """Every LSTM with the sizes that the shapes say."""
    found: list[Found] = []
    kinds = _kinds(root)
    for k, kind in enumerate(kinds):
        if kind == "lstm":
            sizes = (_width(_entry(root, k - 1), "shape", "input_size"),)
            sizes += (_width(_entry(root, k), "shape", "hidden_size"),)
            source = f"layer {k - 1} ({cut(kinds[k - 1])})" if k else "input 'x'"
            after = found[-1].name if found else ""
            found.append(Found(f"lstm_{k}", *sizes, ("forward",), "stateful", source, after))
    others = counted(kind or "?" for kind in kinds if kind != "lstm")
    return Listing("rtneural", tuple(found), others)


def _selected(root: _json.Fields, path: Path, select: str | Sequence[str]) -> Model:
    """The chain from the first to the last chosen LSTM, numbered as in the file."""
    kinds = _kinds(root)
    names = chosen(select, [f"lstm_{k}" for k, kind in enumerate(kinds) if kind == "lstm"])
    places = sorted(int(name.removeprefix("lstm_")) for name in names)
    first, last = places[0], places[-1]
    shape = _entry(root, first - 1).need("shape")
    inner = _json.Fields({"in_shape": shape, "layers": root.list("layers")[first : last + 1]})
    model = _model(inner, path, first)
    part = part_of(model, select)
    around = [key for key in ("in_skip", "in_gain", "out_gain") if root.values.get(key)]
    rest = counted([*(kind or "?" for kind in kinds[:first] + kinds[last + 1 :]), *around])
    notes = (*model.provenance.notes, left_out(rest, "layer"))
    return replace(part, provenance=replace(part.provenance, notes=notes))


def _around(
    root: _json.Fields, layers: list[Layer], inputs: int, outputs: int
) -> tuple[list[Layer], str]:
    """The layers within AIDA-X's skip and gains, and the prefix their names got by it."""
    prefix = ""
    given = {key for key in ("in_skip", "in_gain", "out_gain") if root.values.get(key) is not None}
    if given and outputs != 1:
        raise UnsupportedError(
            f"sets {' and '.join(sorted(given))}, and {outputs} values come out",
            expected="one output, as AIDA-X has",
        )
    if "in_skip" in given and root.whole("in_skip", 0, 1):
        whole: list[Layer] = [Residual("in_skip", tuple(layers), 1)]
        layers, prefix = whole, "in_skip."
    for key, width in (("in_gain", inputs), ("out_gain", 1)):
        decibels = root.number(key) if key in given else 0.0
        if decibels > 300:
            raise root.wrong(key, "decibels, at most 300")
        if decibels:
            factor = np.ones(width, np.float32)
            factor[0] = 10 ** (decibels / 20) if decibels > _SILENT else 0
            scale = Scale(key, factor, np.zeros(width, np.float32))
            layers = [scale, *layers] if key == "in_gain" else [*layers, scale]
    return layers, prefix


def _width(fields: _json.Fields, key: str, limit: str) -> int:
    """The last of [null, null, N], up to the limit of that name; the others are batch and time."""
    most = limits.value(limit)
    shape = fields.list(key)
    width = shape[-1] if shape else None
    form = f"[null, null, N] with N from 1 to {most}"
    if len(shape) in (2, 3) and type(width) is int and width > most:
        raise FormatError(
            f"{key} is {_json.spelled(shape)}",
            where=fields.where or None,
            **limits.at_most(limit, form=form),
        )
    if len(shape) not in (2, 3) or type(width) is not int or width < 1:
        raise FormatError(
            f"{key} is {_json.spelled(shape)}",
            where=fields.where or None,
            expected=form,
        )
    return width


def _layer(
    k: int, entry: _json.Fields, size: int, numbers: _json.Numbers
) -> tuple[list[Layer], bool]:
    """What entry number k of "layers" computes on `size` features, and whether it is an LSTM that
    declares no time axis."""
    where = f"layer {k}"
    kind = _json.Fields(entry.values, where).text("type")
    if kind not in _BUILD:
        raise UnsupportedError(
            f"type is {_json.shown(kind)}",
            where=where,
            expected="one of " + ", ".join(_BUILD),
            hint="Take the LSTM layers alone with --select NAME (select= in Python), see ifgo "
            "inspect --lstms",
        )
    entry = _json.Fields(entry.values, f"{where} ({kind})")
    entry.only(*_KEYS, *(["epsilon"] if kind == "batchnorm" else []))
    spelled = entry.text("activation") if "activation" in entry.values else ""
    if spelled not in ACTIVATIONS:
        raise entry.wrong("activation", "one of " + ", ".join(map(repr, ACTIVATIONS)))
    width = _width(entry, "shape", "hidden_size" if kind == "lstm" else "input_size")
    made = _BUILD[kind](f"{kind.replace('-', '_')}_{k}", entry, (size, width), numbers, spelled)
    return made, kind == "lstm" and len(entry.list("shape")) == 2


def _arrays(
    entry: _json.Fields, numbers: _json.Numbers, shapes: dict[str, tuple[int, ...]]
) -> list[Array]:
    """The arrays of "weights", named in order, of these shapes."""
    stored = entry.list("weights")
    if len(stored) != len(shapes):
        raise FormatError(
            f"weights holds {len(stored)} arrays",
            where=entry.where,
            expected=f"{len(shapes)}" + (": " if shapes else "") + ", ".join(shapes),
        )
    return [
        numbers.take(value, shape, f"{name} of weights", entry.where)
        for value, (name, shape) in zip(stored, shapes.items(), strict=True)
    ]


def _lstm(
    name: str, entry: _json.Fields, sizes: tuple[int, int], numbers: _json.Numbers, spelled: str
) -> list[Layer]:
    inputs, hidden = sizes
    if spelled not in ("", "tanh"):
        raise UnsupportedError(
            f"activation is {spelled!r}, and RTNeural computes tanh all the same",
            where=entry.where,
            expected="'tanh' or ''",
            hint="Train it with tanh; or say 'tanh' in the file, if that is what you run",
        )
    shapes = {"kernel": (inputs, 4 * hidden), "recurrent": (hidden, 4 * hidden)}
    arrays = _arrays(entry, numbers, {**shapes, "bias": (4 * hidden,)})
    order = LSTM_LAYOUTS["rtneural"].order
    kernel, recurrent, bias = (reorder(array.T, order) for array in arrays)
    return [Recurrent(name, LSTMCell(kernel, recurrent, bias), stateful=True)]


def _dense(
    name: str, entry: _json.Fields, sizes: tuple[int, int], numbers: _json.Numbers, spelled: str
) -> list[Layer]:
    kernel, bias = _arrays(entry, numbers, {"kernel": sizes, "bias": sizes[1:]})
    return [Dense(name, kernel.T, bias, ACTIVATIONS[spelled])]


def _activation(
    name: str, entry: _json.Fields, sizes: tuple[int, int], numbers: _json.Numbers, spelled: str
) -> list[Layer]:
    _same(entry, sizes)
    _arrays(entry, numbers, {})
    return [ActivationLayer(name, ACTIVATIONS[spelled])] if spelled else []


def _batch_norm(
    name: str, entry: _json.Fields, sizes: tuple[int, int], numbers: _json.Numbers, spelled: str
) -> list[Layer]:
    _same(entry, sizes)
    if spelled:
        raise entry.wrong("activation", "none: RTNeural computes none after a batch norm")
    parts = ("gamma", "beta", "mean", "variance")
    affine = len(entry.list("weights")) != 2
    arrays = _arrays(entry, numbers, dict.fromkeys(parts if affine else parts[2:], sizes[1:]))
    gamma, beta = arrays[:2] if affine else (None, None)
    mean, variance = arrays[-2:]
    return [BatchNorm(name, mean, variance, gamma, beta, entry.number("epsilon"))]


def _same(entry: _json.Fields, sizes: tuple[int, int]) -> None:
    if sizes[0] != sizes[1]:
        raise FormatError(
            f"shape declares {sizes[1]} features",
            where=entry.where,
            expected=f"{sizes[0]}, what reaches it",
        )


_BUILD: Final = {
    "lstm": _lstm,
    "dense": _dense,
    "time-distributed-dense": _dense,
    "activation": _activation,
    "batchnorm": _batch_norm,
}
"""type → what reads it. RTNeural's others (gru, conv1d, conv2d, prelu, batchnorm2d) are refused."""
