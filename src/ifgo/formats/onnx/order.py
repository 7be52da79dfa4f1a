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
            forward, backward = layer.backward, layer.forward
            if not turned and forward is None:
                break
            turned_now = not turned
            found.append(
                replace(layer, forward=forward, backward=backward, go_backwards=turned_now)
            )
            turned = True
        elif isinstance(layer, _STEPWISE):
            found.append(layer)
        else:
            break
    if len(found) != len(layers):
        raise UnsupportedError(
            "gives its result from the last step to the first",
            expected="the order of time, or a chain that begins with a backward LSTM",
        )
    return tuple(found)
