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


def processing_order(layers: tuple[Layer, ...]) -> tuple[tuple[Layer, ...], str]:
    """`layers` with their result reversed in time, where the last LSTM is a backward one: it
    reverses its whole input instead. Also gives the name of that LSTM. Raises UnsupportedError
    where there is none."""
    for k in reversed(range(len(layers))):
        layer = layers[k]
        if isinstance(layer, _STEPWISE):
            continue
        if not isinstance(layer, Recurrent) or layer.forward is not None:
            break
        turned = replace(layer, forward=layer.backward, backward=None, go_backwards=True)
        return (*layers[:k], turned, *layers[k + 1 :]), layer.name
    raise UnsupportedError(
        "gives its result from the last step to the first",
        expected="the order of time, or a backward LSTM whose result stands so",
    )
