"""Where the arrays of each layer lie, and how those of an LSTM become ours.

Two ways to store them. By name (`.h5` of Keras 1 to 3): a group per layer, whose attribute
weight_names gives the order, since HDF5 keeps names in alphabetical order. By path (`.keras`,
`.weights.h5`): groups named by class and counter, arrays by number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from ifgo.cell import Array
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.keras._config import Node
from ifgo.formats.keras._hdf5 import Object
from ifgo.gates import CANONICAL, LSTM_LAYOUTS, reorder, split
from ifgo.text import cut, listed, quote

LSTM_PARTS: Final = ("kernel", "recurrent_kernel", "bias")

_KERAS1: Final = {"W": "kernel", "U": "recurrent_kernel", "b": "bias"}
_KNOWN: Final = re.compile(
    r"(?:.*_)?(?P<old>[WUb](?:_[ifco])?)|(?P<new>kernel|recurrent_kernel|bias|embeddings|gamma|beta"
    r"|moving_mean|moving_variance|mean|variance|count)"
)
"""The last part of an array's name, in Keras 1 and later."""


@dataclass
class Taken:
    """One array and where it came from. old: its gate where Keras 1 stored gate by gate."""

    array: Array
    source: str
    old: str = ""


class Store(Protocol):
    """The arrays of a file."""

    notes: list[str]

    def take(self, node: Node, path: str, parts: Sequence[str]) -> list[Taken]:
        """The next arrays of `node`, which are `parts` by name; path: where inside the layer.
        Raises FormatError where there are others."""
        ...

    def counts(self, node: Node) -> int:
        """How many arrays of the layer are left."""
        ...

    def rest(self) -> list[str]:
        """Layers whose arrays nobody took."""
        ...


def last_part(source: str) -> tuple[str, str]:
    """("kernel", "") of ".../kernel:0"; ("kernel", "i") of Keras 1's "lstm_1_W_i"; ("", "")
    where the name says nothing."""
    found = _KNOWN.fullmatch(source.rsplit("/", 1)[-1].split(":")[0])
    if found is None:
        return "", ""
    if found["new"]:
        return found["new"], ""
    letter, _, gate = found["old"].partition("_")
    return _KERAS1[letter], gate.replace("c", "g")


@dataclass
class ByName:
    """Groups by layer name."""

    groups: dict[str, Object]
    names: dict[str, list[str]]
    """By layer, those that nobody took yet."""
    notes: list[str] = field(default_factory=list[str])

    @staticmethod
    def open(root: Object) -> ByName:
        """What attribute layer_names lists. Raises FormatError where a group is missing."""
        groups: dict[str, Object] = {}
        names: dict[str, list[str]] = {}
        for layer in root.texts("layer_names") or []:
            group = root.children.get(layer) if "/" not in layer else root.at(layer)
            if group is None or layer in groups:
                raise FormatError(f"lists layer {quote(layer)}", expected="one group of that name")
            groups[layer], names[layer] = group, group.texts("weight_names") or []
        return ByName(groups, names)

    def rename(self, owners: Sequence[str]) -> None:
        """Let the layers with arrays be `owners` in this order, where none has its name, as Keras
        does when it loads weights."""
        stored = [layer for layer, names in self.names.items() if names]
        if set(owners) & set(self.groups) or len(owners) != len(stored):
            return
        self.groups = {new: self.groups[old] for new, old in zip(owners, stored, strict=True)}
        self.names = {new: self.names[old] for new, old in zip(owners, stored, strict=True)}
        self.notes.append(
            "layers of the file and of the config matched in order: " + listed(stored)
        )

    def counts(self, node: Node) -> int:
        return len(self.names.get(node.owner, []))

    def take(self, node: Node, path: str, parts: Sequence[str]) -> list[Taken]:
        if not parts:
            return []
        if node.owner not in self.groups:
            raise FormatError("has no arrays in the file", where=node.where, expected="a group")
        left, group = self.names[node.owner], self.groups[node.owner]
        # In a model within the model, those of frozen layers come last.
        own = [n for n in left if node.own in n.split("/")[:-1]] if node.own else []
        names = own or left
        split_gates = bool(names) and bool(last_part(names[0])[1])
        count = 4 * len(parts) if split_gates else len(parts)
        found: list[Taken] = []
        for name in names[:count]:
            held = group.at(name)
            if held is None:
                raise FormatError(f"lists array {quote(name)}", where=node.where, expected="it")
            part, gate = last_part(name)
            found.append(Taken(_read(held, part), held.name, gate))
        wanted = (
            [(part, gate) for gate in "igfo" for part in parts]
            if split_gates
            else [(part, "") for part in parts]
        )
        stored = [last_part(name) for name in names[:count]]
        embedding = list(parts) == ["embeddings"] and stored == [("kernel", "")]
        if stored != wanted and not embedding:
            raise FormatError(
                f"has the arrays {listed(names[:count]) or 'none'}",
                where=node.where,
                expected=", ".join(parts) + " in this order",
                hint="The config is another model's, or the file is damaged",
            )
        taken = set(names[:count])
        self.names[node.owner] = [name for name in left if name not in taken]
        return found

    def rest(self) -> list[str]:
        return [layer for layer, names in self.names.items() if names]


@dataclass
class ByPath:
    """Groups by class and counter, as Keras 3 counts them."""

    root: Object
    used: set[str] = field(default_factory=set[str])
    notes: list[str] = field(default_factory=list[str])

    def counts(self, node: Node) -> int:
        return 0

    def take(self, node: Node, path: str, parts: Sequence[str]) -> list[Taken]:
        if not parts:
            return []
        place = f"{node.path}/{path}/vars" if path else f"{node.path}/vars"
        group = self.root.at(place)
        found = {} if group is None or group.is_array else group.children
        if sorted(found) != sorted(str(k) for k in range(len(parts))):
            raise FormatError(
                f"has {len(found)} arrays at {cut(place, 120)}",
                where=node.where,
                expected=f"{len(parts)}: {', '.join(parts)}",
                hint="The config is another model's, or the file is damaged",
            )
        self.used.add(place)
        held = [found[str(k)] for k in range(len(parts))]
        return [Taken(_read(o, part), o.name) for o, part in zip(held, parts, strict=True)]

    def rest(self) -> list[str]:
        top = self.root.children.get("layers")
        waiting = [] if top is None else [top]
        found: list[str] = []
        while waiting:
            group = waiting.pop()
            for name, child in group.children.items():
                if child.is_array or name == "seed_generator":
                    continue
                if name == "vars":
                    if child.children and child.name not in self.used:
                        found.append(child.name)
                else:
                    waiting.append(child)
        return found


def _read(held: Object, part: str) -> Array:
    """The array; that of a count of training steps, a whole number, is not read."""
    return np.zeros(0, np.float32) if part == "count" else held.array()


def snake(name: str) -> str:
    """A class name as Keras 3 spells it in a file: "BatchNormalization" → "batch_normalization"."""
    return re.sub(
        r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", re.sub(r"\W+", "", name)
    ).lower()


def paths(nodes: Sequence[Node], within: str = "") -> None:
    """Set the path of every node of one model, by class and counter."""
    seen: Counter[str] = Counter()
    for node in nodes:
        base = snake(node.kind)
        number = f"_{seen[base]}" if seen[base] else ""
        node.path = f"{within}layers/{base}{number}"
        seen[base] += 1


# -- the arrays of one cell -------------------------------------------------------------------


def cell_arrays(
    store: Store, node: Node, path: str, units: int, *, bias: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """weight_ih, weight_hh and the biases of one cell in canonical order, and where each lay.

    A bias of 8H is the layout of CuDNNLSTM: two biases, and each gate's block transposed.
    Raises FormatError where shapes do not fit `units`.
    """
    parts = LSTM_PARTS[: 2 + bias]
    taken = store.take(node, path, parts)
    if len(taken) > len(parts):
        found = _gate_by_gate(taken, len(parts), node)
        layout = LSTM_LAYOUTS["keras1"]
        order, sources = layout.order, [t.source for t in taken[: len(parts)]]
    else:
        found, sources = [t.array for t in taken], [t.source for t in taken]
        order = LSTM_LAYOUTS["keras"].order
    kernel, recurrent = found[0], found[1]
    vector = found[2] if bias else None
    if kernel.ndim != 2 or kernel.shape[1] != 4 * units or recurrent.shape != (units, 4 * units):
        raise FormatError(
            f"has a kernel of shape {kernel.shape} and a recurrent kernel of {recurrent.shape}",
            where=node.where,
            expected=f"(I, {4 * units}) and {(units, 4 * units)} for {units} units",
        )
    arrays: dict[str, Array] = {}
    names: dict[str, str] = {}
    for field_name, source in zip(("weight_ih", "weight_hh", "bias_ih"), sources, strict=False):
        names[field_name] = source
    if vector is not None and vector.shape == (8 * units,):
        order = LSTM_LAYOUTS["cudnn_keras"].order
        kernel, recurrent = (_untransposed(a, order) for a in (kernel, recurrent))
        arrays["bias_ih"] = reorder(vector[: 4 * units], order)
        arrays["bias_hh"] = reorder(vector[4 * units :], order)
        names["bias_hh"] = names["bias_ih"]
    elif vector is not None:
        if vector.shape != (4 * units,):
            raise FormatError(
                f"has a bias of shape {vector.shape}",
                where=node.where,
                expected=f"({4 * units},), or ({8 * units},) of CuDNNLSTM",
            )
        arrays["bias_ih"] = reorder(vector, order)
    arrays["weight_ih"] = np.ascontiguousarray(reorder(kernel, order, axis=1).T)
    arrays["weight_hh"] = np.ascontiguousarray(reorder(recurrent, order, axis=1).T)
    return arrays, names


def _gate_by_gate(taken: Sequence[Taken], parts: int, node: Node) -> list[Array]:
    """Keras 1: (W, U, b) for each gate, joined along the gates."""
    found: list[Array] = []
    for k in range(parts):
        blocks = [t.array for t in taken[k::parts]]
        if any(b.shape != blocks[0].shape or not b.ndim for b in blocks):
            raise FormatError(
                "has gates of " + listed([b.shape for b in blocks]),
                where=node.where,
                expected="the same shape for all four",
            )
        found.append(np.concatenate(blocks, axis=-1))
    return found


def _untransposed(matrix: Array, order: str) -> Array:
    """A matrix of CuDNNLSTM as Keras stores others: each gate's block, (rows, H) by shape, holds
    (H, rows) by content."""
    blocks = split(matrix, order, axis=1)
    rows = matrix.shape[0]
    straight = {g: np.ascontiguousarray(b).reshape(-1, rows).T for g, b in blocks.items()}
    assert set(straight) == set(CANONICAL)
    return np.concatenate([straight[g] for g in order], axis=1)


def expect_shape(taken: Taken, shape: tuple[int | None, ...], node: Node, what: str) -> Array:
    """The array, or FormatError where it has another shape; None stands for any size."""
    have: tuple[Any, ...] = taken.array.shape
    fits = len(have) == len(shape) and all(
        w is None or w == h for h, w in zip(have, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if w is None else str(w) for w in shape)
        raise FormatError(f"has {what} of shape {have}", where=node.where, expected=f"({wanted})")
    return taken.array


def refuse_rest(store: Store) -> None:
    """Raises UnsupportedError where the file holds arrays of layers that the config has not."""
    if left := store.rest():
        raise UnsupportedError(
            f"holds arrays of {listed(left)}, which the config has no layer for",
            expected="a layer for every array",
            hint="Give the config of this model, or choose layers with --select",
        )
