"""Modules of PyTorch out of names and arrays: what each tensor belongs to, and the layers it makes.

Knows no file and no order: a state_dict says neither which module feeds which nor what stands
between them. Readers of .pt, safetensors and JSON state_dicts share it. PyTorch keeps gates as
i, f, g, o in rows (gates.LSTM_LAYOUTS["pytorch"]), which is the canonical form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from numpy.typing import NDArray

from ifgo import limits
from ifgo.activations import LINEAR, Activation
from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.gates import LSTM_LAYOUTS, reorder
from ifgo.layers import BatchNorm, Dense, Embedding, Layer, Recurrent
from ifgo.text import cut, quote

Tensors = Mapping[str, NDArray[Any]]
Built = tuple[tuple[Layer, ...], dict[str, str]]
"""Layers, and our array name → the key it came from."""

Kind = Literal["lstm", "lstm_cell", "gru", "rnn", "linear", "matrix", "batch_norm", "other"]

_TITLES: Final[dict[str, str]] = {
    "lstm": "nn.LSTM",
    "lstm_cell": "nn.LSTMCell",
    "gru": "nn.GRU",
    "rnn": "nn.RNN",
    "linear": "nn.Linear",
    "matrix": "nn.Embedding or nn.Linear without bias",
    "batch_norm": "nn.BatchNorm1d",
}
_RECURRENT: Final = re.compile(r"(?:weight_(?:ih|hh|hr)|bias_(?:ih|hh))(?:_l\d{1,4}(?:_reverse)?)?")
_LAYERED: Final = re.compile(r"(.*)_l(\d+)(_reverse)?")
_RECURRENT_KINDS: Final = ("lstm", "lstm_cell", "gru", "rnn")
_PARTS: Final = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
_WRAPPERS: Final = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_CHANGED: Final = (
    (
        re.compile(r"parametrizations\.([^.]+)\..*"),
        "is stored through a parametrization",
        "torch.nn.utils.parametrize.remove_parametrizations(module, {!r})",
    ),
    (
        re.compile(r"(weight\w*|bias\w*)_[gv]"),
        "is stored as a norm and a direction (weight_norm)",
        "torch.nn.utils.remove_weight_norm(module, {!r})",
    ),
    (
        re.compile(r"(weight\w*|bias\w*)_(?:orig|mask|u)"),
        "is stored as an original and a mask (pruning) or vector (spectral_norm)",
        "torch.nn.utils.prune.remove(module, {0!r}), or remove_spectral_norm",
    ),
    (
        re.compile(r"(_packed_params\w*|_all_weight_values)\b.*"),
        "holds quantised parameters in a packed form",
        "the state_dict of the model before quantisation",
    ),
)
"""Parameters of modules that compute their weights, what that is, and the call that ends it."""


@dataclass(frozen=True, eq=False)
class Module:
    """One module of a state_dict.

    path: its place, "" for the root. name: the path without the parts that all modules share.
    tensors: its parameters by their own names. refusal: why no layer can be made of it, "" if one
    can; remedy: what to do about that.
    """

    path: str
    name: str
    kind: Kind
    tensors: dict[str, NDArray[Any]] = field(repr=False)
    refusal: str = ""
    remedy: str = ""

    def key(self, parameter: str) -> str:
        """The full key of a parameter."""
        return f"{self.path}.{parameter}" if self.path else parameter

    @property
    def layers(self) -> int:
        """Layers of an nn.LSTM, 1 of anything else."""
        numbers = {int(m[2]) for key in self.tensors if (m := _LAYERED.fullmatch(key))}
        return len(numbers) or 1

    @property
    def directions(self) -> tuple[str, ...]:
        """Of the recurrent kinds."""
        both = any(key.endswith("_reverse") for key in self.tensors)
        return ("forward", "backward") if both else ("forward",)

    @property
    def sizes(self) -> tuple[int, int] | None:
        """Features in and out; None where the kind or the shapes do not say them."""
        tensors = self.tensors
        if self.kind in ("lstm", "lstm_cell"):
            end = "_l0" if self.kind == "lstm" else ""
            first, inner = tensors.get(f"weight_ih{end}"), tensors.get(f"weight_hh{end}")
            if first is None or inner is None or first.ndim != 2 or inner.ndim != 2:
                return None
            return first.shape[1], inner.shape[1] * len(self.directions)
        if self.kind in ("linear", "matrix"):
            return tensors["weight"].shape[1], tensors["weight"].shape[0]
        if self.kind == "batch_norm":
            width = tensors["running_mean"].size
            return width, width
        return None

    @property
    def words(self) -> str:
        """What it is: "nn.LSTM 3 → 8, 2 layers, bidirectional"."""
        if self.kind == "other":
            shown = [f"{cut(key)} {value.shape}" for key, value in list(self.tensors.items())[:4]]
            more = len(self.tensors) - len(shown)
            return "tensors " + ", ".join(shown) + (f" and {more} more" if more else "")
        words = _TITLES[self.kind]
        if self.sizes is not None:
            words += f" {self.sizes[0]} → {self.sizes[1]}"
        if self.layers > 1:
            words += f", {self.layers} layers"
        if len(self.directions) > 1:
            words += ", bidirectional"
        if any(key.startswith("weight_hr") for key in self.tensors):
            words += ", proj_size"
        return words

    def require(self, *kinds: Kind) -> None:
        """Raises UnsupportedError unless a layer of one of `kinds` can be made of the module."""
        if self.refusal:
            raise UnsupportedError(
                self.refusal, where=f"module {self.name}", hint=f"Before saving: {self.remedy}"
            )
        if self.kind in kinds:
            return
        blocks = {"gru": " (3 blocks of rows)", "rnn": " (1 block of rows)"}.get(self.kind, "")
        raise UnsupportedError(
            f"is {self.words}{blocks}",
            where=f"module {self.name}",
            expected=" or ".join(dict.fromkeys(_TITLES[kind] for kind in kinds)),
            hint="Option select takes one recurrent module alone" if self.kind == "other" else None,
        )


def modules(tensors: Tensors) -> tuple[Module, ...]:
    """Every module of a state_dict, in the order of its keys. Refuses nothing: see `require`."""
    groups: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}
    for key, value in tensors.items():
        path, parameter = _split(key)
        family = "recurrent" if _RECURRENT.fullmatch(parameter) else "plain"
        groups.setdefault((path, family), {})[parameter] = value
    found: list[Module] = []
    for (path, _), members in groups.items():
        kind = _kind(members)
        refusal, remedy = _refusal(members)
        twin = groups.get((path, "recurrent"), {})
        if kind == "other" and refusal and twin:  # a half of the recurrent module beside it
            continue
        if members is twin and not refusal:
            refusal, remedy = _refusal(groups.get((path, "plain"), {}))
        found.append(Module(path, "", kind, members, refusal, remedy))
    return tuple(_named(found))


def _split(key: str) -> tuple[str, str]:
    """Path of the module and name of the parameter in it."""
    path, mark, rest = key.partition(".parametrizations.")
    if mark:
        return path, mark[1:] + rest
    if key.startswith("parametrizations."):
        return "", key
    path, mark, rest = key.partition("._all_weight_values.")
    if mark:
        return path, mark[1:] + rest
    path, _, parameter = key.rpartition(".")
    return path, parameter


def _kind(members: Tensors) -> Kind:
    names = set(members)
    if all(_RECURRENT.fullmatch(name) for name in names):
        return _recurrent_kind(members)
    ranks = {name: members[name].ndim for name in names}
    if names == {"weight", "bias"} and ranks == {"weight": 2, "bias": 1}:
        return "linear"
    if ranks == {"weight": 2}:
        return "matrix"
    norm = names - {"num_batches_tracked"}
    statistics = {"running_mean", "running_var"}
    if norm in (statistics, statistics | {"weight", "bias"}) and all(
        ranks[name] == 1 for name in norm
    ):
        return "batch_norm"
    return "other"


def _recurrent_kind(members: Tensors) -> Kind:
    """By the rows of the recurrent matrix: 4H, 3H or H for H columns."""
    layered = any(_LAYERED.fullmatch(name) for name in members)
    inner = members.get("weight_hh_l0" if layered else "weight_hh")
    projected = any(name.startswith("weight_hr") for name in members)
    if inner is not None and inner.ndim == 2 and not projected:
        rows, columns = inner.shape
        if rows == 3 * columns:
            return "gru"
        if rows == columns:
            return "rnn"
    return "lstm" if layered else "lstm_cell"


def _refusal(members: Tensors) -> tuple[str, str]:
    for name in members:
        for pattern, what, call in _CHANGED:
            if match := pattern.fullmatch(name):
                return f"{cut(match[1])} {what}", call.format(cut(match[1]))
    return "", ""


def _named(found: list[Module]) -> list[Module]:
    """With names: the parts of the path that tell modules apart, or all of it where they do not.

    What lies beside a recurrent module in one path (learned states, say) is named by its tensor.
    """
    homes = {m.path for m in found if m.kind in _RECURRENT_KINDS}
    paths = [[part for part in m.path.split(".") if part and part not in _WRAPPERS] for m in found]
    for module, parts in zip(found, paths, strict=True):
        if module.path in homes and module.kind not in _RECURRENT_KINDS:
            parts.append(next(iter(module.tensors)))
    if all(p[:1] == ["module"] for p in paths):  # nn.DataParallel
        paths = [p[1:] for p in paths]
    while paths and all(len(p) > 1 for p in paths) and len({p[0] for p in paths}) == 1:
        paths = [p[1:] for p in paths]
    names = [".".join(p) or module.kind for p, module in zip(paths, found, strict=True)]
    if len(set(names)) < len(names):
        names = [m.path or m.kind for m in found]
    names = [cut(name, limits.current().name_chars - 8) for name in names]
    return [replace(module, name=name) for module, name in zip(found, names, strict=True)]


# -- layers ---------------------------------------------------------------------------------------


def lstm(module: Module, name: str = "") -> Built:
    """The layers of an nn.LSTM (name_l0, name_l1, ... where it has several), or of an nn.LSTMCell.

    name: of the layer, the module's where not given. Raises FormatError naming the tensor that is
    missing, too much or of a shape that does not fit; UnsupportedError where it is no LSTM.
    """
    module.require("lstm", "lstm_cell")
    name, count = name or module.name, module.layers
    if count > limits.current().layers:
        raise FormatError(
            f"has {count} layers",
            where=f"module {module.name}",
            **limits.at_most("layers"),
        )
    left = dict(module.tensors)
    biased = any(key.startswith("bias") for key in left)
    projected = any(key.startswith("weight_hr") for key in left)
    parts = [p for p in _PARTS if (biased or p[0] != "b") and (projected or p != "weight_hr")]
    layers: list[Layer] = []
    names: dict[str, str] = {}
    for k in range(count):
        own = name if count == 1 else f"{name}_l{k}"
        cells: dict[str, LSTMCell] = {}
        for direction in module.directions:
            end = "_reverse" if direction == "backward" else ""
            end = f"_l{k}{end}" if module.kind == "lstm" else ""
            arrays = {part: _taken(module, left, part + end) for part in parts}
            cells[direction] = _cell(module, arrays, end)
            names |= {f"{own}.{direction}.{part}": module.key(part + end) for part in parts}
        try:
            layers.append(Recurrent(own, cells["forward"], cells.get("backward")))
        except IfgoError as error:
            raise error.located(f"module {module.name}") from None
    if left:
        raise FormatError(
            f"holds {quote(next(iter(left)))}",
            where=f"module {module.name}",
            expected=f"tensors of layers 0 to {count - 1} only",
        )
    _joined(module, layers)
    return tuple(layers), names


def _taken(module: Module, left: dict[str, NDArray[Any]], key: str) -> NDArray[Any]:
    if key not in left:
        raise FormatError(
            f"has no {key}",
            where=f"module {module.name}",
            expected="it beside " + ", ".join(sorted(module.tensors)[:4]),
            hint="The state_dict was saved in part, or edited",
        )
    return left.pop(key)


def _cell(module: Module, arrays: dict[str, NDArray[Any]], end: str) -> LSTMCell:
    """Raises FormatError naming the first tensor of another shape than weight_hh (4H, P) asks."""

    def want(part: str, *shape: int) -> None:
        have = arrays[part].shape
        fits = len(have) == len(shape) and all(
            n == wanted or (wanted < 0 < n) for n, wanted in zip(have, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if n < 0 else str(n) for n in shape)
            raise FormatError(
                f"{module.key(part + end)} has shape {have}",
                where=f"module {module.name}",
                expected=f"({wanted}{',' if len(shape) == 1 else ''})",
                hint="4 blocks of H rows make an LSTM, 3 a GRU, 1 a vanilla RNN",
            )

    hidden, projected = arrays["weight_hh"].shape[-1:], "weight_hr" in arrays
    if projected:
        want("weight_hr", -1, -1)
        rows, inner = 4 * arrays["weight_hr"].shape[1], arrays["weight_hr"].shape[0]
    else:
        inner = hidden[0] if hidden else 1
        rows = 4 * inner
    want("weight_hh", rows, inner)
    want("weight_ih", rows, -1)
    for part in arrays.keys() & {"bias_ih", "bias_hh"}:
        want(part, rows)
    order = LSTM_LAYOUTS["pytorch"].order
    moved = {k: a if k == "weight_hr" else reorder(a, order) for k, a in arrays.items()}
    try:
        return LSTMCell(**cast("dict[str, Any]", moved))
    except IfgoError as error:
        raise error.located(f"module {module.name}, {end[1:] or 'cell'}") from None


def _joined(module: Module, layers: list[Layer]) -> None:
    """Raises FormatError where a layer does not take what the one before it gives."""
    width = None
    for k, layer in enumerate(layers):
        have = cast(Recurrent, layer).cell.input_size
        if width not in (None, have):
            raise FormatError(
                f"{module.key(f'weight_ih_l{k}')} takes {have} features",
                where=f"module {module.name}",
                expected=f"{width}, what layer {k - 1} gives",
            )
        width = layer.output_size(have)


def dense(module: Module, name: str = "", activation: Activation = LINEAR) -> Built:
    """The layer of an nn.Linear. activation: the caller's, no state_dict holds one.

    Raises UnsupportedError where it is none, ModelError on shapes and values that cannot be.
    """
    module.require("linear", "matrix")
    name, bias = name or module.name, module.tensors.get("bias")
    layer = Dense(name, cast(Any, module.tensors["weight"]), cast(Any, bias), activation)
    return (layer,), _names(module, name)


def embedding(module: Module, name: str = "") -> Built:
    """The layer of an nn.Embedding; raises as `dense`."""
    module.require("matrix")
    name = name or module.name
    return (Embedding(name, cast(Any, module.tensors["weight"])),), _names(module, name)


def batch_norm(module: Module, epsilon: float, name: str = "") -> Built:
    """The layer of an nn.BatchNorm1d. epsilon: the caller's, no state_dict holds it; raises as
    `dense`."""
    module.require("batch_norm")
    name = name or module.name
    arrays = {k: cast(Any, a) for k, a in module.tensors.items() if k != "num_batches_tracked"}
    mean, variance = arrays.pop("running_mean"), arrays.pop("running_var")
    layer = BatchNorm(name, mean, variance, **arrays, epsilon=epsilon)
    spelled = {"running_mean": "mean", "running_var": "variance"}
    names = {
        f"{name}.{spelled.get(k, k)}": module.key(k)
        for k in module.tensors
        if k != "num_batches_tracked"
    }
    return (layer,), names


def _names(module: Module, name: str) -> dict[str, str]:
    return {f"{name}.{parameter}": module.key(parameter) for parameter in module.tensors}
