"""Each layer of a Model as a layer of Keras 3: its config and its arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ifgo.activations import Activation
from ifgo.cell import LSTMCell
from ifgo.formats._attributes import Losses
from ifgo.formats._plan import Floats, Plan
from ifgo.formats.keras._config import ACTIVATIONS
from ifgo.gates import CANONICAL, LSTM_LAYOUTS, reorder
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    Masking,
    Recurrent,
    RepeatVector,
    Scale,
)
from ifgo.model import FeatureInput, LengthsInput, Model, TokenInput

_CELL_HANDLED: Final = (
    "weight_ih",
    "weight_hh",
    "bias_ih",
    "bias_hh",
    "forget_bias",
    "activations",
)
_LAYER_HANDLED: Final = (
    "name",
    "forward",
    "backward",
    "merge",
    "go_backwards",
    "zero_masked",
    "stateful",
    "initial",
    "training",
)
_POLICY: Final = "float32"
_SIXTH: Final = np.float32(1 / 6)
"""The slope of Keras 3's hard_sigmoid as float32 knows it, so that one rounded before will do."""


@dataclass
class Built:
    """One layer of Keras. arrays: place inside the layer → array by name, in Keras's order."""

    kind: str
    name: str
    config: dict[str, Any]
    arrays: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict[str, dict[str, Floats]])


class Chain(Plan):
    """The layers of Keras that a Model becomes."""

    def __init__(self, *, allow_lossy: Losses) -> None:
        super().__init__("Keras", allow_lossy=allow_lossy)
        self.order = LSTM_LAYOUTS["keras"].order
        self.built: list[Built] = []
        self.taken: set[str] = set()
        self.input: dict[str, Any] = {}
        self.masked = False

    # -- the whole ----------------------------------------------------------------------------

    def read(self, model: Model) -> None:
        """Every part of `model`."""
        self.inputs(model)
        for output in model.outputs:
            if output.role not in ("sequence", "last"):
                self.refused.append(f"output {output.name!r} of role {output.role}")
        left = list(model.layers)
        while left:
            layer, count = left.pop(0), len(self.built)
            self.layer(layer, left)
            for built in self.built[count:]:
                self.kept.append(f"{layer.name} ({layer.kind}): {built.kind}")

    def inputs(self, model: Model) -> None:
        """The InputLayer, with a batch of one where a state outlives a call."""
        main = model.input
        if main.axes != "BT":
            self.kept.append(f"input {main.name}: batch first, it was {main.axes}")
        for entry in model.inputs[1:]:
            kind = "lengths" if isinstance(entry, LengthsInput) else "states as inputs"
            self.refused.append(f"{kind} ({entry.name!r})")
        batch = 1 if any(layer.stateful for layer in model.recurrent) else None
        if batch:
            self.kept.append("stateful: Keras needs a batch size, written as 1")
        shape: list[int | None] = [batch, _steps(model)]
        if isinstance(main, FeatureInput):
            shape.append(main.size)
        self.input = {
            "batch_shape": shape,
            "dtype": "int32" if isinstance(main, TokenInput) else "float32",
            "sparse": False,
            "name": self.unique(main.name),
        }

    def config(self) -> dict[str, Any]:
        """The model as Keras serialises it."""
        every = [Built("InputLayer", self.input["name"], self.input), *self.built]
        layers = [_serialised(layer.kind, layer.config) for layer in every]
        return _serialised("Sequential", {"name": "sequential", "layers": layers}, "keras")

    def unique(self, name: str) -> str:
        """`name` as Keras and HDF5 take it, not used before."""
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".") or "layer"
        found, k = plain, 1
        while found in self.taken:
            found, k = f"{plain}_{k}", k + 1
        self.taken.add(found)
        if found != name:
            self.kept.append(f"{name}: named {found}")
        return found

    def push(
        self,
        kind: str,
        name: str,
        arrays: Mapping[str, Mapping[str, Floats]] | None = None,
        **config: Any,
    ) -> None:
        """The next layer of Keras."""
        spelled = self.unique(name)
        whole = {"name": spelled, "trainable": True, "dtype": _POLICY, **config}
        self.built.append(Built(kind, spelled, whole, arrays or {}))

    # -- layers -------------------------------------------------------------------------------

    def layer(self, layer: Layer, following: list[Layer]) -> None:
        """One layer; a LastStep that belongs to it is taken from `following`."""
        match layer:
            case Recurrent():
                self.recurrent(layer, following)
            case Dense():
                self.dense(layer)
            case Embedding():
                weight = self.single(layer.name, "weight", layer.weight)
                rows, width = weight.shape
                self.push(
                    "Embedding",
                    layer.name,
                    {"": {"embeddings": weight}},
                    input_dim=rows,
                    output_dim=width,
                    mask_zero=layer.mask_zero,
                )
                self.masked = layer.mask_zero
            case ActivationLayer():
                self.activation(layer.name, layer.activation)
            case Dropout():
                self.push("Dropout", layer.name, rate=layer.rate)
            case BatchNorm():
                self.batch_norm(layer)
            case Masking():
                self.push("Masking", layer.name, mask_value=layer.value)
                self.masked = True
            case HiddenAsSequence():
                self.push("Reshape", layer.name, target_shape=[-1, 1])
            case RepeatVector():
                self.push("RepeatVector", layer.name, n=layer.steps)
            case Flatten():
                self.push("Flatten", layer.name, data_format="channels_last")
                self.masked = False
            case Scale():
                self.scale(layer)
            case LastStep():
                self.refused.append(
                    f"layer {layer.name}: the last step of what is no recurrent layer"
                )
                self.masked = False
            case _:
                self.refused.append(f"layer {layer.name}: {layer.kind}")

    def dense(self, layer: Dense) -> None:
        weight = self.single(layer.name, "weight", layer.weight)
        arrays = {"kernel": np.ascontiguousarray(weight.T)}
        if layer.bias is not None:
            arrays["bias"] = self.single(layer.name, "bias", layer.bias)
        spelled = self.spelled(layer.activation)
        self.push(
            "Dense",
            layer.name,
            {"": arrays},
            units=weight.shape[0],
            activation=spelled or "linear",
            use_bias=layer.bias is not None,
        )
        if spelled is None:
            self.activation(f"{layer.name}_activation", layer.activation)

    def spelled(self, activation: Activation) -> str | None:
        """The name by which Keras 3 knows `activation`, None where it has none."""
        if activation.name == "hard_sigmoid":
            alpha = np.float32(activation.alpha or 0.0)
            return "hard_sigmoid" if (alpha, activation.beta) == (_SIXTH, 0.5) else None
        return next((name for name, ours in ACTIVATIONS.items() if ours == activation), None)

    def activation(self, name: str, activation: Activation) -> None:
        """A layer for one activation."""
        spelled = self.spelled(activation)
        alpha = activation.alpha
        if spelled is not None:
            self.push("Activation", name, activation=spelled)
        elif activation.name == "leaky_relu":
            self.push("LeakyReLU", name, negative_slope=alpha)
        elif activation.name == "elu":
            self.push("ELU", name, alpha=alpha)
        elif activation.name == "thresholded_relu" and alpha:
            self.push("ReLU", name, max_value=None, negative_slope=0.0, threshold=alpha)
        else:
            self.refused.append(f"layer {name}: activation {activation}")

    def batch_norm(self, layer: BatchNorm) -> None:
        if layer.epsilon_outside:
            self.refused.append(f"layer {layer.name}: batch norm with epsilon outside the root")
        given = {
            "gamma": "weight",
            "beta": "bias",
            "moving_mean": "mean",
            "moving_variance": "variance",
        }
        arrays = {
            theirs: self.single(layer.name, theirs, getattr(layer, ours), ours)
            for theirs, ours in given.items()
            if getattr(layer, ours) is not None
        }
        self.push(
            "BatchNormalization",
            layer.name,
            {"": arrays},
            axis=-1,
            epsilon=layer.epsilon,
            scale=layer.weight is not None,
            center=layer.bias is not None,
        )

    def scale(self, layer: Scale) -> None:
        """One factor and one offset for all features is a Rescaling."""
        factor = self.single(layer.name, "factor", layer.factor)
        offset = self.single(layer.name, "offset", layer.offset)
        if len(np.unique(factor)) > 1 or len(np.unique(offset)) > 1:
            self.refused.append(f"layer {layer.name}: scale that differs between features")
        self.push("Rescaling", layer.name, scale=float(factor[0]), offset=float(offset[0]))

    # -- recurrent ----------------------------------------------------------------------------

    def recurrent(self, layer: Recurrent, following: list[Layer]) -> None:
        """An LSTM, or a Bidirectional around two."""
        name, backwards = layer.name, layer.go_backwards
        self.beyond(name, layer, _LAYER_HANDLED)
        if layer.initial.kind != "zero":
            self.refused.append(f"layer {name}: initial state of kind {layer.initial.kind}")
        if layer.training.output:
            words = f"layer {name}: output dropout {layer.training.output:g}"
            self.lose("training", layer, words, "training.output")
        last = None
        if following and isinstance(following[0], LastStep):
            last = following.pop(0)
            assert isinstance(last, LastStep)
        both = layer.directions == 2
        if layer.forward is None:
            backwards = True
            if last is None or last.of != "state":
                self.refused.append(
                    f"layer {name}: a backward direction alone, whose sequence Keras would turn"
                )
        elif both and last is not None and last.of != "state":
            self.refused.append(f"layer {name}: the last step, not state, of two directions")
        zero = layer.zero_masked
        if self.masked:
            if both and last is None and not zero:
                self.refused.append(f"layer {name}: masked steps of two directions that repeat")
            if zero and last is not None and (both or last.of == "state"):
                self.refused.append(f"layer {name}: the final state where masked steps give zero")
        else:
            self.unsaid(layer, "zero_masked", words="nothing masks steps")
        if last is not None:
            if layer.forward is not None and not both:
                self.unsaid(last, "of", words="the same of a forward direction")
            self.masked = False
        options = {
            "return_sequences": last is None,
            "return_state": False,
            "stateful": layer.stateful,
            "unroll": False,
            "zero_output_for_mask": (last is None) if both else zero,
            "dropout": layer.training.input,
            "recurrent_dropout": layer.training.recurrent,
        }
        if not both:
            config, arrays = self.cell(name, layer.cell, options, go_backwards=backwards)
            self.push("LSTM", name, {"cell": arrays}, **config)
            return
        inner: dict[str, Any] = {}
        stored: dict[str, dict[str, Floats]] = {}
        for direction, cell in layer.cells.items():
            self.side = direction
            config, arrays = self.cell(name, cell, options, go_backwards=direction == "backward")
            self.side = ""
            config = {"name": f"{direction}_{name}", "dtype": _POLICY, **config}
            key = "layer" if direction == "forward" else "backward_layer"
            inner[key] = _serialised("LSTM", config)
            stored[f"{direction}_layer/cell"] = arrays
        self.push("Bidirectional", name, stored, merge_mode=layer.merge, **inner)

    def cell(
        self, name: str, cell: LSTMCell, options: dict[str, Any], *, go_backwards: bool
    ) -> tuple[dict[str, Any], dict[str, Floats]]:
        """The config of one LSTM and its arrays."""
        self.beyond(name, cell, _CELL_HANDLED)
        gates, inside, output = (self.spelled(a) for a in cell.activations)
        if cell.activations[1] != cell.activations[2]:
            self.refused.append(
                f"layer {name}: activations {cell.activations[1]} of the candidate and "
                f"{cell.activations[2]} of the output, which Keras has as one"
            )
        for found, activation in zip((gates, inside, output), cell.activations, strict=True):
            if found is None:
                self.refused.append(f"layer {name}: activation {activation} in the cell")
        arrays = {
            theirs: np.ascontiguousarray(
                reorder(self.single(name, ours, getattr(cell, ours)), CANONICAL, self.order).T
            )
            for theirs, ours in (("kernel", "weight_ih"), ("recurrent_kernel", "weight_hh"))
        }
        biases = self.biases(name, cell, one=True)
        for bias in biases.values():
            arrays["bias"] = reorder(bias, CANONICAL, self.order)
        config = {
            **options,
            "go_backwards": go_backwards,
            "units": cell.hidden_size,
            "activation": inside,
            "recurrent_activation": gates,
            "use_bias": bool(biases),
        }
        return config, arrays


def _serialised(kind: str, config: dict[str, Any], module: str = "keras.layers") -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def _steps(model: Model) -> int | None:
    """How many steps the input must have for the first Flatten, None where any number will do."""
    for layer in model.layers:
        if isinstance(layer, Flatten):
            return layer.steps
        if layer.signature == "sequence→vector":
            return None
    return None
