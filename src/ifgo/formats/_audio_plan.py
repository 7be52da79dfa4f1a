"""What the three audio formats hold alike: one feature input, forward LSTMs from zero, a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ifgo.cell import LSTMCell
from ifgo.formats._plan import Plan
from ifgo.layers import Dense, Layer, Recurrent
from ifgo.model import FeatureInput, Model

_CELL_HANDLED: Final = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "forget_bias")
_LAYER_HANDLED: Final = ("name", "forward", "initial", "stateful")
_LAYER_LOSABLE: Final = ("merge", "zero_masked", "training")
"""They mean nothing to one forward direction without masks, or to inference."""


class AudioPlan(Plan):
    """A Plan with the parts that RTNeural, GuitarML and NAM files share."""

    def ends(self, model: Model) -> None:
        """Inputs and outputs: features in, one row per step out."""
        for entry in model.inputs:
            if not isinstance(entry, FeatureInput):
                self.refused.append(f"{type(entry).__name__} {entry.name!r}")
        for output in model.outputs:
            if output.role != "sequence":
                self.refused.append(f"output {output.name!r} of role {output.role}")

    def cell(self, layer: Recurrent, *, constant: bool = False) -> LSTMCell | None:
        """The forward cell of `layer`, with all else noted. constant: an initial state is held."""
        name = layer.name
        self.beyond(name, layer, _LAYER_HANDLED, _LAYER_LOSABLE)
        if layer.initial.kind != "zero" and not (constant and layer.initial.kind == "constant"):
            self.refused.append(f"layer {name}: initial state of kind {layer.initial.kind}")
        if layer.forward is None:
            self.refused.append(f"layer {name}: no forward direction")
            return None
        self.beyond(name, layer.forward, _CELL_HANDLED)
        self.persists(layer)
        return layer.forward

    def stack_and_head(self, layers: Sequence[Layer]) -> tuple[list[Recurrent], Dense | None]:
        """LSTM layers of one hidden_size and the dense layer after them; the rest is refused."""
        stack = [layer for layer in layers if isinstance(layer, Recurrent)]
        last = layers[-1]
        head = last if isinstance(last, Dense) else None
        for layer in layers:
            if layer is not head and not isinstance(layer, Recurrent):
                self.refused.append(f"layer {layer.name}: {layer.kind} (only LSTMs, then a dense)")
        if head is None:
            self.refused.append(f"a chain that ends in {last.kind} (only LSTMs, then a dense)")
        if not stack:
            self.refused.append("a model without an LSTM")
        sizes = sorted({layer.hidden_size for layer in stack})
        if len(sizes) > 1:
            self.refused.append("LSTMs of different hidden_size, " + " and ".join(map(str, sizes)))
        return stack, head
