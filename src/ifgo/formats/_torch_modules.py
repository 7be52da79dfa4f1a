"""Tensors by name in whatever torch.save or torch.jit.save pickled: a state_dict, a checkpoint
around one, a whole module, a TorchScript program. Their classes are names here, nothing is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats._torch_pickle import table_of, tensor_of
from ifgo.formats._torch_tensor import Tensor
from ifgo.formats._unpickle import Made, kind_of
from ifgo.text import listed, quote

NESTED: Final = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep the state_dict; the first that is there."""

_WANTED: Final = "a state_dict, or a checkpoint with one under " + ", ".join(NESTED)
_SAVE: Final = "torch.save(model.state_dict(), path) writes one"
_PARAMETER: Final = re.compile(
    r"(?:weight|bias)(?:_(?:ih|hh|hr)(?:_l\d+(?:_reverse)?)?)?|running_(?:mean|var)", re.ASCII
)
"""Names of what modules compute with: an entry of such a name that is no tensor is not left out."""


def state_dict_of(root: Any) -> tuple[Any, list[str]]:
    """The state_dict or module in what was pickled, and notes on what lies around it."""
    notes: list[str] = []
    for _ in range(3):  # a checkpoint in a checkpoint in a checkpoint
        table = table_of(root) or {}
        inner = [k for k in NESTED if table_of(table.get(k)) is not None or is_module(table.get(k))]
        if not inner:
            break
        others = [key for key in table if key != inner[0]]
        if others:
            notes.append(f"read {inner[0]} of the checkpoint, left out {listed(others)}")
        root = table[inner[0]]
    return root, notes


def _require_no_parameter(table: dict[Any, Any], rest: list[Any], found: dict[str, Any]) -> None:
    """A module without a parameter that it has would compute other numbers."""
    paths = {key.rpartition(".")[0] for key in found}
    for key in rest:
        path, _, last = key.rpartition(".") if type(key) is str else ("", "", "")
        if path in paths and _PARAMETER.fullmatch(last):
            raise FormatError(f"{quote(key)} is {kind_of(table[key])}", expected="a tensor")


def is_module(value: Any) -> bool:
    """Whether `value` is the recipe of a whole nn.Module."""
    state = _state(value)
    return "_parameters" in state and "_modules" in state


def named_tensors(chosen: Any, notes: list[str], *, scripted: bool = False) -> dict[str, Tensor]:
    """The tensors of a state_dict or module by key; a note is added where there is more in it.

    scripted: modules keep tensors and modules as plain attributes, as TorchScript does.
    Raises UnsupportedError where there is none, FormatError where it refers to itself.
    """
    found: dict[str, Tensor] = {}
    if is_module(chosen) or (scripted and isinstance(chosen, Made)):
        for key, tensor in _Visit(scripted).module(chosen, "", 0):
            found[key] = tensor
        if found:
            notes.append(
                "read the tensors of a TorchScript program, whose code is not read"
                if scripted
                else "read the tensors of a whole pickled module, whose code is not in it"
            )
            return found
        raise UnsupportedError(
            f"holds {kind_of(chosen)} without tensors",
            expected=_WANTED,
            hint="A frozen program keeps its weights as constants: save it before torch.jit.freeze"
            if scripted
            else _SAVE,
        )
    table = table_of(chosen)
    if table is None:
        raise UnsupportedError(f"holds {kind_of(chosen)}", expected=_WANTED, hint=_SAVE)
    for key, value in table.items():
        tensor = tensor_of(value)
        if tensor is None:
            continue
        if type(key) is not str:
            raise FormatError(f"names a tensor {quote(key)}", expected="text, as rec.weight_ih_l0")
        found[key] = tensor
    if not any("." in key or key.startswith(("weight", "bias")) for key in found):
        inner = dict(_Visit(scripted).tables(table, "", 0))
        if any("weight" in key for key in inner):
            tops = {key for key in table for name in inner if name.startswith(f"{key}.")}
            rest = [key for key in table if key not in tops]
            notes.append(f"read {listed(tops)} of the checkpoint")
            if rest:
                notes.append(f"left out {listed(rest)}")
            return inner
    if not found:
        rest = listed(table) or "nothing"
        raise UnsupportedError(
            f"holds no tensors by name, but {rest}", expected=_WANTED, hint=_SAVE
        )
    if rest := [key for key in table if key not in found]:
        _require_no_parameter(table, rest, found)
        notes.append(f"left out what is no tensor: {listed(rest)}")
    return found


def _state(value: Any) -> dict[Any, Any]:
    state = value.state if isinstance(value, Made) else None
    return cast("dict[Any, Any]", state) if type(state) is dict else {}


def _under(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class _Visit:
    """Modules in modules, tables in tables; counted, since a pickle may repeat itself."""

    def __init__(self, scripted: bool) -> None:
        self.scripted = scripted
        self.visits = 0

    def enter(self, depth: int) -> None:
        self.visits += 1
        if depth > limits.current().pickle_depth or self.visits > limits.current().members:
            raise FormatError(
                "holds modules in modules without end",
                **limits.at_most(
                    "members", "pickle_depth", form="{} modules, {} levels at most", hint=_SAVE
                ),
            )

    def module(self, value: Any, path: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers of a module, then those of the modules in it."""
        self.enter(depth)
        state = _state(value)
        if is_module(value):
            passing = state.get("_non_persistent_buffers_set")
            skipped: list[Any] = passing.args[0] if isinstance(passing, Made) else []
            held: dict[Any, Any] = {}
            for part in ("_parameters", "_buffers"):
                entries = table_of(state.get(part)) or {}
                held |= {k: v for k, v in entries.items() if k not in skipped}
            held |= table_of(state["_modules"]) or {}
        else:
            held = state if self.scripted else {}
        for key, inner in held.items():
            if type(key) is not str:
                continue
            tensor = tensor_of(inner)
            if tensor is not None:
                yield _under(path, key), tensor
            elif isinstance(inner, Made):
                yield from self.module(inner, _under(path, key), depth + 1)

    def tables(self, table: dict[Any, Any], path: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        """Tensors of the tables in a table; state of optimizers, under numbers, is left out."""
        self.enter(depth)
        for key, value in table.items():
            if type(key) is not str or "optim" in key.lower():
                continue
            inner = table_of(value)
            tensor = tensor_of(value)
            if tensor is not None and depth:
                yield _under(path, key), tensor
            elif inner is not None:
                yield from self.tables(inner, _under(path, key), depth + 1)
            elif is_module(value):
                yield from self.module(value, _under(path, key), depth + 1)
