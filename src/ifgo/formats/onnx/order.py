"""Layers that give a sequence from its last step to its first, as keras does with go_backwards."""

from __future__ import annotations

from dataclasses import replace

from ifgo.errors import UnsupportedError
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Layer,
    Recurrent,
    Scale,
)

_STEPWISE = (ActivationLayer, BatchNorm, Dense, Dropout, Embedding, Scale)
"""Layers to which the order of the steps is nothing."""


def processing_order(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """`layers` with their result reversed in time, where the first LSTM is a backward one: it
    reverses its whole input instead, and those behind it run the other way. Raises
    UnsupportedError where that is not so."""
    found: list[Layer] = []
    turned = False
    for layer in layers:
        if isinstance(layer, Recurrent) and layer.directions == 1:
            if not turned and layer.backward is None:
                break
            forward, backward = layer.backward, layer.forward
            first, turned = not turned, True
            layer = replace(layer, forward=forward, backward=backward, go_backwards=first)
        elif not isinstance(layer, _STEPWISE):
            break
        found.append(layer)
    if len(found) != len(layers):
        raise UnsupportedError(
            "gives its result from the last step to the first",
            expected="the order of time, or a chain that begins with a backward LSTM",
        )
    return tuple(found)


def turned_sources(sources: dict[str, str]) -> dict[str, str]:
    """Where the arrays of such layers come from, by the names of their new directions."""
    other = {"forward": "backward", "backward": "forward"}
    return {
        ".".join(other.get(part, part) for part in name.split(".")): source
        for name, source in sources.items()
    }
