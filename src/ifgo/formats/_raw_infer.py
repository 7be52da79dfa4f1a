"""What a raw folder without model.toml still says about layout and topology, and what it does not.

Nothing is guessed: where sizes allow two meanings, the caller must choose by option.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, get_args

from ifgo.errors import FormatError, UsageError
from ifgo.formats import Stack
from ifgo.formats._raw_files import Tensors
from ifgo.formats._raw_toml import Layout, Sheet, Weighted
from ifgo.layers import HiddenAsSequence, LastStep, Layer
from ifgo.model import FeatureInput

STACKS: Final = get_args(Stack)


def infer(
    tensors: list[Tensors], layout: Layout | None, stack: Stack | None
) -> tuple[Sheet, list[str]]:
    """The sheet of a folder that has none, and notes saying what was assumed.

    Raises UsageError naming the option that settles an ambiguity, FormatError where no meaning
    fits the sizes.
    """
    layout = layout or _layout(tensors)
    stack = stack or _stack(tensors)
    _fits(tensors, stack)
    notes = [
        "no model.toml: LSTM layers taken as forward with sigmoid and tanh, Dense layers as linear",
        "no model.toml: every layer taken to give a whole sequence, Dense layers step by step"
        if stack == "stacked"
        else "no model.toml: final hidden states taken as the next LSTM's input sequence",
    ]
    entry = FeatureInput(tensors[0].input_size)
    return Sheet(layout, None, entry, tuple(_chain(tensors, stack))), notes


def _chain(tensors: list[Tensors], stack: Stack) -> list[Layer | Weighted]:
    layers: list[Layer | Weighted] = []
    vector = False
    for layer in tensors:
        number = layer.number
        if not layer.recurrent:
            layers.append(Weighted("dense", f"dense_{number}"))
            continue
        if vector:
            layers.append(HiddenAsSequence(f"sequence_{number}"))
        layers.append(Weighted("lstm", f"lstm_{number}"))
        vector = stack == "hidden-as-sequence"
        if vector:
            layers.append(LastStep(f"last_{number}", "state"))
    return layers


def _layout(tensors: list[Tensors]) -> Layout:
    """A where every LSTM has the 8H biases that only A has."""
    how = "--layout A or --layout B (layout= in Python)"
    recurrent = [layer for layer in tensors if layer.recurrent]
    for layer in recurrent:
        size = layer.size
        if "B" not in layer.values:
            raise UsageError(
                f"layer {layer.number} has no biases, so nothing tells the gate order i, o, f, g "
                "of layout A from i, f, g, o of layout B",
                expected=how,
            )
        layer.expect("B", (8 * size, f"8·{size}"), (4 * size, f"4·{size}"))
        if layer.values["B"].size == 4 * size:
            raise UsageError(
                f"{layer.names['B']} has {4 * size} values = 4·{size}, which layout B has and "
                "layout A with its two biases summed",
                expected=how,
            )
    if not recurrent:
        raise UsageError(
            "has Dense layers alone, so nothing tells W (O, I) of layout A from W (I, O) of B",
            expected=how,
        )
    return "A"


def _stack(tensors: list[Tensors]) -> Stack:
    found: dict[Stack, int] = {}
    for (before, layer), choices in zip(pairwise(tensors), _choices(tensors), strict=True):
        if layer.recurrent and len(choices) == 2:
            raise UsageError(
                f"layer {before.number} puts out 1 value and layer {layer.number} takes 1, which "
                "is a stack of sequences or a hidden state as sequence",
                expected="--stack stacked or --stack hidden-as-sequence (stack= in Python)",
            )
        if not choices:
            either = f"{before.size} (stacked) or 1 (hidden as sequence)"
            raise FormatError(
                f"{layer.names['W']} gives layer {layer.number} {layer.input_size} inputs, but "
                f"layer {before.number} puts out {before.size}",
                expected=either if layer.recurrent else str(before.size),
            )
        if layer.recurrent:
            found.setdefault(choices[0], layer.number)
    if len(found) == 2:
        raise FormatError(
            f"layer {found['stacked']} reads a sequence of outputs, layer "
            f"{found['hidden-as-sequence']} a hidden state as sequence",
            expected="one way through the folder",
            hint="Say the topology in a model.toml beside the tensors",
        )
    return "hidden-as-sequence" if "hidden-as-sequence" in found else "stacked"


def _choices(tensors: list[Tensors]) -> list[tuple[Stack, ...]]:
    """For each layer but the first: the topologies in which it fits onto the one before it."""
    result: list[tuple[Stack, ...]] = []
    seen = False
    for before, layer in pairwise(tensors):
        seen |= before.recurrent
        width = layer.input_size
        stacked: tuple[Stack, ...] = ("stacked",) if width == before.size else ()
        replayed: tuple[Stack, ...] = ("hidden-as-sequence",) if width == 1 and seen else ()
        result.append(stacked + replayed if layer.recurrent else stacked)
    return result


def _fits(tensors: list[Tensors], stack: Stack) -> None:
    for (before, layer), choices in zip(pairwise(tensors), _choices(tensors), strict=True):
        if not choices or (layer.recurrent and stack not in choices):
            raise UsageError(
                f"stack {stack!r} does not fit: layer {layer.number} takes {layer.input_size} "
                f"values per step, layer {before.number} puts out {before.size}",
                expected="the other stack" if choices else "layers that fit each other",
            )
