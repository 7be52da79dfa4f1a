"""A Model as a Darknet .cfg and .weights: what fits, what is folded, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from ifgo import files
from ifgo.activations import LINEAR, SOFTMAX, Activation
from ifgo.cell import LSTMCell, MatrixNorm
from ifgo.errors import IfgoError, UsageError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats._plan import Floats, Plan
from ifgo.gates import LSTM_LAYOUTS, split
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Layer,
    Recurrent,
    Scale,
)
from ifgo.model import FeatureInput, Model

EPSILONS: Final = {"pjreddie": (1e-6, True), "alexeyab": (1e-5, False)}
"""Dialect → epsilon of its batch norm, and whether it stands outside the root."""

_REVISIONS: Final = {"pjreddie": 0, "alexeyab": 5}
_BIASES = ("bias_ih", "bias_hh")
_CELL_HANDLED = ("weight_ih", "weight_hh", *_BIASES, "forget_bias", "input_norm", "hidden_norm")
_LAYER_HANDLED = ("name", "forward", "initial", "stateful")
_LAYER_LOSABLE = ("merge", "zero_masked", "training")
"""They mean nothing to one forward direction without masks, or to inference."""


def write_files(
    model: Model,
    path: Path,
    dialect: str,
    activations: Mapping[str, Activation],
    *,
    allow_lossy: Losses,
) -> Report:
    """Write `path` and the .cfg beside it, both or neither; see ifgo.formats.darknet.write."""
    if path.suffix != ".weights":
        raise UsageError(
            "does not end in .weights", where=str(path), expected="NAME.weights, beside NAME.cfg"
        )
    pair = _Pair(dialect, activations, allow_lossy=allow_lossy)
    try:
        pair.chain(model)
        pair.judge()
    except IfgoError as error:
        raise error.located(str(path)) from None
    version = np.array([0, 2, _REVISIONS[dialect]], "<i4").tobytes() + bytes(8)
    payload = version + b"".join(part.astype("<f4").tobytes() for part in pair.numbers)
    text = "\n".join(pair.lines) + "\n"

    def fill(folder: Path) -> None:
        (folder / path.name).write_bytes(payload)
        (folder / path.with_suffix(".cfg").name).write_text(text, encoding="utf-8")

    files.atomic_folder(path.parent, fill)
    return pair.report(model)


class _Pair(Plan):
    """The lines of the cfg and the numbers of the weights, layer by layer."""

    def __init__(
        self, dialect: str, activations: Mapping[str, Activation], *, allow_lossy: Losses
    ) -> None:
        super().__init__("Darknet", allow_lossy=allow_lossy)
        self.dialect = dialect
        self.order = LSTM_LAYOUTS[f"darknet_{dialect}"].order
        self.spelling = {ours: theirs for theirs, ours in activations.items()}
        self.lines: list[str] = []
        self.numbers: list[Floats] = []

    def chain(self, model: Model) -> None:
        """Every part of `model`."""
        for entry in model.inputs:
            if not isinstance(entry, FeatureInput):
                self.refused.append(f"{type(entry).__name__} {entry.name!r}")
        for output in model.outputs:
            if output.role != "sequence":
                self.refused.append(f"output {output.name!r} of role {output.role}")
        # The two things that a user sets, for one stream of single steps.
        self.lines += ["[net]", "batch=1", "time_steps=1", f"inputs={model.input_size}"]
        left = list(model.layers)
        while left:
            self.layer(left.pop(0), left)

    def layer(self, layer: Layer, following: list[Layer]) -> None:
        """One section; takes what belongs to it from `following`."""
        match layer:
            case Recurrent():
                self.recurrent(layer)
            case Dense():
                self.dense(layer, following)
            case Scale() if following and following[0] == ActivationLayer(
                following[0].name, SOFTMAX
            ):
                self.temperature(layer, following)
            case ActivationLayer(activation=activation) if activation == SOFTMAX:
                self.section(layer, "softmax")
            case Dropout():
                self.section(layer, "dropout", f"probability={layer.rate!r}")
            case _:
                self.refused.append(f"layer {layer.name}: {layer.kind}")

    def section(self, layer: Layer, name: str, *lines: str) -> None:
        self.lines += ["", f"[{name}]", *lines]
        self.kept.append(f"{layer.name} ({layer.kind}): [{name}]")

    def temperature(self, layer: Scale, following: list[Layer]) -> None:
        """A scale by 1/t before a softmax, where a written t gives the same factor back."""
        factors = np.unique(self.single(layer.name, "factor", layer.factor))
        whole = len(factors) == 1 and factors[0] > 0 and not layer.offset.any()
        temperature = float(1 / factors[0].astype(np.float64)) if whole else 0.0
        if not whole or np.float32(1 / temperature) != factors[0]:
            self.refused.append(f"layer {layer.name}: scale other than the 1/t of a softmax")
            return
        self.section(following.pop(0), "softmax", f"temperature={temperature!r}")

    def dense(self, layer: Dense, following: list[Layer]) -> None:
        """[connected]; with the batch norm and activation after it where it stands bare."""
        name, norm, activation = layer.name, None, layer.activation
        bare = layer.bias is None and activation == LINEAR
        if bare and following and isinstance(following[0], BatchNorm):
            norm = following.pop(0)
            assert isinstance(norm, BatchNorm)
        if activation == LINEAR and following and isinstance(following[0], ActivationLayer):
            after = following[0].activation
            if after in self.spelling:
                following.pop(0)
                activation = after
        if activation not in self.spelling:
            self.refused.append(f"layer {name}: activation {activation}")
        rows = layer.weight.shape[0]
        bias = layer.bias if norm is None else norm.bias
        self.numbers.append(
            self.bias(name, None if bias is None else self.single(name, "bias", bias), rows)
        )
        self.numbers.append(self.single(name, "weight", layer.weight).reshape(-1))
        if norm is not None:
            self.norm(norm.name, norm, norm.weight)
        self.section(
            layer,
            "connected",
            f"output={rows}",
            f"activation={self.spelling.get(activation, '')}",
            *["batch_normalize=1"] * (norm is not None),
        )

    def recurrent(self, layer: Recurrent) -> None:
        name, cell = layer.name, layer.forward
        self.beyond(name, layer, _LAYER_HANDLED, _LAYER_LOSABLE)
        if layer.initial.kind != "zero":
            self.refused.append(f"layer {name}: initial state of kind {layer.initial.kind}")
        if cell is None:
            self.refused.append(f"layer {name}: no forward direction")
            return
        self.beyond(name, cell, _CELL_HANDLED)
        norms = (cell.hidden_norm, cell.input_norm)
        if (norms[0] is None) != (norms[1] is None):
            self.refused.append(f"layer {name}: batch norm of one of the two products")
        self.persists(layer)
        self.matrices(name, cell)
        self.section(
            layer,
            "lstm",
            f"output={cell.hidden_size}",
            f"batch_normalize={int(norms[0] is not None)}",
        )

    def matrices(self, name: str, cell: LSTMCell) -> None:
        """The eight blocks: bias, weight, norm of each gate, on h first."""
        biases = self.biases(name, cell, one=False)
        size = cell.hidden_size
        for side, norm in (("hh", cell.hidden_norm), ("ih", cell.input_norm)):
            key = f"bias_{side}"
            bias = split(self.bias(name, biases.get(key), 4 * size, key))
            weight = split(self.single(name, f"weight_{side}", getattr(cell, f"weight_{side}")))
            for gate in self.order:
                self.numbers += [bias[gate].astype(np.float32), weight[gate].reshape(-1)]
                if norm is not None:
                    parts = {
                        part: split(getattr(norm, part))[gate]
                        for part in ("scale", "mean", "variance")
                    }
                    self.norm(
                        name,
                        MatrixNorm(
                            **parts, epsilon=norm.epsilon, epsilon_outside=norm.epsilon_outside
                        ),
                        parts["scale"],
                    )

    def bias(self, name: str, bias: Floats | None, rows: int, what: str = "bias") -> Floats:
        """`bias`, or the zeros that Darknet needs in its place."""
        if bias is None:
            self.zeros(name, what)
            return np.zeros(rows, np.float32)
        return bias

    def norm(self, name: str, norm: MatrixNorm | BatchNorm, scale: Floats | None) -> None:
        """scales, rolling_mean, rolling_variance."""
        if (norm.epsilon, norm.epsilon_outside) != EPSILONS[self.dialect]:
            root = "outside" if norm.epsilon_outside else "inside"
            self.refused.append(
                f"layer {name}: batch norm with epsilon {norm.epsilon:g} {root} the root "
                f"in dialect {self.dialect}"
            )
        if scale is None:
            self.lose("bias", name, f"layer {name}: no weight (written as ones)", "weight")
            scale = np.ones(norm.mean.shape, np.float32)
        for what, array in (("scale", scale), ("mean", norm.mean), ("variance", norm.variance)):
            field = "weight" if (isinstance(norm, BatchNorm) and what == "scale") else what
            self.numbers.append(self.single(name, what, array, field))
