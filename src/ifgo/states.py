"""Recurrent states as every backend passes them: {"h0": (D, B, P), "c0": (D, B, H), "h1": ...}.

k counts the recurrent layers of a model in chain order (Model.recurrent), those inside residuals
included; D is the number of directions, forward first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo.errors import ModelError, UsageError
from ifgo.layers import Recurrent
from ifgo.model import Model, StateInput, StateSlot
from ifgo.packing import Packing
from ifgo.text import cut, listed

State = dict[str, NDArray[Any]]


def shapes(model: Model, batch: int) -> dict[str, tuple[int, int, int]]:
    """Key → (D, B, width) of every state array, in order."""
    found: dict[str, tuple[int, int, int]] = {}
    for k, layer in enumerate(model.recurrent):
        found[f"h{k}"] = (layer.directions, batch, layer.cell.output_size)
        found[f"c{k}"] = (layer.directions, batch, layer.hidden_size)
    return found


def initial(model: Model, batch: int, dtype: Any) -> State:
    """The state a fresh sequence starts from: zeros, or the constants a layer carries. A state
    that is an input is zero here."""
    state: State = {}
    for k, layer in enumerate(model.recurrent):
        for part, width in (("h", layer.cell.output_size), ("c", layer.hidden_size)):
            array = np.zeros((layer.directions, batch, width), dtype=dtype)
            constant = getattr(layer.initial, part)
            if constant is not None:
                with np.errstate(over="ignore"):
                    array[:] = constant.astype(dtype)[:, None, :]
            state[f"{part}{k}"] = array
    return state


def complete(model: Model, batch: int, given: Mapping[str, ArrayLike] | None, dtype: Any) -> State:
    """`initial`, overwritten by what the caller gives.

    Each given array is (D, B, width); (B, width) and, for B = 1, (width,) do where D = 1.
    Raises UsageError on an unknown key, a wrong shape, a value that is not finite in `dtype`, or a
    layer whose initial state is an input that was not given.
    """
    if not isinstance(cast(Any, given), Mapping | None):
        raise UsageError(
            f"the state is a {type(given).__name__}", expected="a mapping of keys to arrays"
        )
    state, wanted = initial(model, batch, dtype), shapes(model, batch)
    names = {key: layer.name for key, layer in _owners(model)}
    for name, value in (given or {}).items():
        what = f"state {name} (layer {names.get(name)})"
        array = as_array(value, what)
        check_shape(model, batch, name, array.shape)
        if array.dtype.kind not in "fiu":
            raise UsageError(f"{what} has dtype {array.dtype}", expected="real numbers")
        with np.errstate(over="ignore"):
            state[name] = array.astype(dtype).reshape(wanted[name])
        if not np.isfinite(state[name]).all():
            raise UsageError(
                f"{what} holds values that are not finite",
                expected=f"finite {np.dtype(dtype)} values",
            )
    entries = [entry for entry in model.inputs if isinstance(entry, StateInput)]
    fed = {key(model, slot) for entry in entries for slot in entry.slots}
    for name, layer in _owners(model):
        if name in fed and name not in (given or {}):
            raise UsageError(
                f"layer {layer.name} takes its initial state as an input, and {name} is missing",
                expected=f"{name} of shape {wanted[name]}",
                hint="Pass it in the state (--state-in), zeros if it starts at rest",
            )
    return state


def check_shape(model: Model, batch: int, key: str, shape: tuple[int, ...]) -> None:
    """Raises UsageError where `model` has no state `key`, or none of that shape (`complete`)."""
    wanted = shapes(model, batch)
    if key not in wanted:
        raise UsageError(
            f"the state has an array {cut(repr(key))}",
            expected="only " + listed(wanted) if wanted else "no state, nothing recurs",
        )
    directions, _, width = wanted[key]
    short = ((batch, width), (width,)) if batch == 1 else ((batch, width),)
    if shape != wanted[key] and not (directions == 1 and shape in short):
        raise UsageError(
            f"state {key} (layer {dict(_owners(model))[key].name}) has shape {shape}",
            expected=f"{wanted[key]}: directions, batch, width",
        )


def from_inputs(model: Model, tensors: Mapping[str, ArrayLike]) -> State:
    """The state that tensors hold which are laid out as the StateInputs of those names say.

    Raises UsageError on a name that is no StateInput, or a tensor of another shape.
    """
    entries = {entry.name: entry for entry in model.inputs if isinstance(entry, StateInput)}
    found: State = {}
    for name, tensor in tensors.items():
        if name not in entries:
            raise UsageError(
                f"the model has no state input {name!r}",
                expected="one of " + ", ".join(map(repr, entries)) if entries else "no tensor",
            )
        entry = entries[name]
        counts, units, packing = _packing(model, entry.slots, entry.layout)
        try:
            rows = packing.unpack(as_array(tensor, f"state input {name!r}"), units)
        except ModelError as error:
            raise UsageError(
                f"state input {name!r} {error.what}", expected=error.expected
            ) from None
        start = 0
        for slot, count in zip(entry.slots, counts, strict=True):
            found[key(model, slot)] = rows[start : start + count]
            start += count
    return found


def to_outputs(model: Model, state: State) -> dict[str, NDArray[Any]]:
    """Name → tensor of every output that holds final states, laid out as the output says."""
    found: dict[str, NDArray[Any]] = {}
    for output in model.outputs:
        if output.states:
            _, _, packing = _packing(model, output.states, output.layout)
            rows = np.concatenate([state[key(model, slot)] for slot in output.states])
            found[output.name] = packing.pack(rows)
    return found


def key(model: Model, slot: StateSlot) -> str:
    """The key of one state: "h0" for part h of the first recurrent layer."""
    names = [layer.name for layer in model.recurrent]
    return f"{slot.part}{names.index(slot.layer)}"


def _packing(
    model: Model, slots: tuple[StateSlot, ...], layout: str
) -> tuple[list[int], int, Packing]:
    """Directions of each slot, their width, and how one tensor holds them."""
    layers = {layer.name: layer for layer in model.recurrent}
    counts = [layers[slot.layer].directions for slot in slots]
    first = layers[slots[0].layer]
    units = first.cell.output_size if slots[0].part == "h" else first.hidden_size
    if layout:
        return counts, units, Packing.parse(layout)
    return counts, units, Packing.usual(sum(counts), batched=model.input.axes != "T")


def as_array(value: ArrayLike, what: str) -> NDArray[Any]:
    """`value` as an array; UsageError naming `what` where it is ragged or cannot be one."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{what} cannot become an array ({error})") from None


def _owners(model: Model) -> list[tuple[str, Recurrent]]:
    return [(f"{p}{k}", layer) for k, layer in enumerate(model.recurrent) for p in "hc"]
