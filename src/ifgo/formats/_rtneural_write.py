"""A Model as RTNeural JSON: what fits, what is folded, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ifgo import files
from ifgo.activations import Activation
from ifgo.errors import IfgoError
from ifgo.formats import Report, _json
from ifgo.formats._attributes import Losses
from ifgo.formats._audio_plan import AudioPlan
from ifgo.formats._plan import Floats
from ifgo.gates import CANONICAL, LSTM_LAYOUTS, reorder
from ifgo.layers import ActivationLayer, BatchNorm, Dense, Dropout, Layer, Recurrent, Residual
from ifgo.model import Model

AIDA_X: Final = ".aidax"
"""The ending of files for AIDA-X, which alone computes in_skip."""


def write_file(
    model: Model, path: Path, activations: Mapping[str, Activation], *, allow_lossy: Losses
) -> Report:
    """Write `path`; see ifgo.formats.rtneural.write."""
    plan = _Writer(activations, allow_lossy=allow_lossy)
    try:
        plan.chain(model, skips=path.suffix == AIDA_X)
        plan.judge()
    except IfgoError as error:
        raise error.located(str(path)) from None
    files.atomic_write(path, _json.text(plan.root))
    return plan.report(model)


class _Writer(AudioPlan):
    """The object of one model."""

    def __init__(self, activations: Mapping[str, Activation], *, allow_lossy: Losses) -> None:
        super().__init__("RTNeural JSON", allow_lossy=allow_lossy)
        self.spelling = {ours: theirs for theirs, ours in activations.items()}
        self.root: dict[str, Any] = {}
        self.entries: list[dict[str, Any]] = []

    def chain(self, model: Model, *, skips: bool) -> None:
        """Every part of `model`. skips: in_skip may be written."""
        self.ends(model)
        self.root["in_shape"] = [None, None, model.input_size]
        layers = model.layers
        first = layers[0]
        if len(layers) == 1 and isinstance(first, Residual):
            if not skips:
                self.refused.append(
                    f"layer {first.name}: residual (only AIDA-X adds the input, from .aidax files)"
                )
            elif first.channels != 1 or model.output_size != 1:
                self.refused.append(
                    f"layer {first.name}: residual of {first.channels} channels, "
                    f"{model.output_size} outputs (AIDA-X has one)"
                )
            else:
                self.kept.append(f"{first.name} (residual): in_skip")
            self.root["in_skip"] = 1
            layers = first.layers
        for layer in layers:
            self.layer(layer)
        if not any(isinstance(layer, Recurrent | Dense) for layer in layers):
            self.refused.append("a model without an LSTM or dense layer")
        self.root["layers"] = self.entries

    def layer(self, layer: Layer) -> None:
        """One entry of "layers"."""
        match layer:
            case Recurrent():
                self.recurrent(layer)
            case Dense():
                self.dense(layer)
            case ActivationLayer():
                self.entry(layer, "activation", None, [], self.spelled(layer, layer.activation))
            case BatchNorm():
                self.norm(layer)
            case Dropout():
                self.lose("dropout", layer, f"layer {layer.name}: dropout {layer.rate:g}")
            case _:
                self.refused.append(f"layer {layer.name}: {layer.kind}")

    def entry(
        self, layer: Layer, kind: str, width: int | None, arrays: list[Floats], activation: str
    ) -> dict[str, Any]:
        """Appends an entry; width None is that of the entry before."""
        before = self.entries[-1]["shape"] if self.entries else self.root["in_shape"]
        made = {
            "type": kind,
            "activation": activation,
            "shape": before if width is None else [None, None, width],
            "weights": [_json.numbers(array) for array in arrays],
        }
        self.entries.append(made)
        self.kept.append(f"{layer.name} ({layer.kind}): {kind}")
        return made

    def spelled(self, layer: Layer, activation: Activation) -> str:
        """Their word, or a refusal."""
        if activation not in self.spelling:
            self.refused.append(f"layer {layer.name}: activation {activation}")
        return self.spelling.get(activation, "")

    def dense(self, layer: Dense) -> None:
        rows = len(layer.weight)
        if layer.bias is None:
            self.zeros(layer.name)
        bias = np.zeros(rows, np.float32) if layer.bias is None else layer.bias
        arrays = [
            self.single(layer.name, "weight", layer.weight).T,
            self.single(layer.name, "bias", bias),
        ]
        self.entry(layer, "dense", rows, arrays, self.spelled(layer, layer.activation))

    def recurrent(self, layer: Recurrent) -> None:
        name, cell = layer.name, self.cell(layer)
        if cell is None:
            return
        given = self.biases(name, cell, one=True)
        if not given:
            self.no_lstm_bias(name)
        order = LSTM_LAYOUTS["rtneural"].order
        arrays = [
            reorder(array, CANONICAL, order).T
            for array in (
                self.single(name, "weight_ih", cell.weight_ih),
                self.single(name, "weight_hh", cell.weight_hh),
                next(iter(given.values()), np.zeros(4 * cell.hidden_size, np.float32)),
            )
        ]
        self.entry(layer, "lstm", cell.hidden_size, arrays, "tanh")

    def norm(self, layer: BatchNorm) -> None:
        name = layer.name
        if layer.epsilon_outside:
            self.refused.append(f"layer {name}: batch norm with epsilon outside the root")
        affine = [array for array in (layer.weight, layer.bias) if array is not None]
        if len(affine) == 1:
            words = f"layer {name}: weight or bias alone (the other written too)"
            self.lose("bias", name, words, "weight" if layer.weight is None else "bias")
            ones, zeros = np.ones_like(layer.mean), np.zeros_like(layer.mean)
            affine = [
                ones if layer.weight is None else layer.weight,
                zeros if layer.bias is None else layer.bias,
            ]
        what = ("weight", "bias") if affine else ()
        arrays = [
            self.single(name, word, array)
            for word, array in zip(
                (*what, "mean", "variance"), (*affine, layer.mean, layer.variance), strict=True
            )
        ]
        self.entry(layer, "batchnorm", None, arrays, "")["epsilon"] = layer.epsilon
