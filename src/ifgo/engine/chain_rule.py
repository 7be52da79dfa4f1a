"""From the gradients of a program's weights to those of the model's arrays.

Lowering folds some arrays into one (folding.py): both biases and forget_bias of a cell, a batch
norm and what it normalises. Here each gets its share, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.cell import LSTMCell, MatrixNorm
from ifgo.layers import BatchNorm, Layer, Recurrent, Residual
from ifgo.model import Model

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Found = dict[str, F64]
Folded = Mapping[tuple[str, str], NDArray[Any]]
"""(layer, field) as program.Buffer.source → gradient."""


def model_gradients(model: Model, folded: Folded) -> dict[str, F32]:
    """Gradients by the names of Model.arrays; zeros where the program does not use an array.

    A folded weight that the program lacks (an offset of nothing) counts as zero.
    """
    found: dict[str, NDArray[Any]] = {}
    for path, layer in paths(model.layers):
        shares = _shares(layer, folded)
        for name, array in () if isinstance(layer, Residual) else layer.arrays.items():
            share = shares.get(name)
            with np.errstate(over="ignore"):
                found[f"{path}.{name}"] = (
                    np.zeros(array.shape, np.float32)
                    if share is None
                    else share.reshape(array.shape).astype(np.float32)
                )
    return {name: found[name] for name in model.arrays}


def paths(layers: tuple[Layer, ...], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Every layer with its name as in Model.arrays, inner chains included."""
    for layer in layers:
        yield prefix + layer.name, layer
        if isinstance(layer, Residual):
            yield from paths(layer.layers, f"{prefix}{layer.name}.")


def recurrent_paths(model: Model) -> list[tuple[str, Recurrent]]:
    """The recurrent layers, in the order of their states."""
    return [(path, layer) for path, layer in paths(model.layers) if isinstance(layer, Recurrent)]


def _shares(layer: Layer, folded: Folded) -> Found:
    mine = {
        field: d.astype(np.float64) for (name, field), d in folded.items() if name == layer.name
    }
    if isinstance(layer, BatchNorm):
        return _batch_norm(layer, mine["factor"], mine["offset"])
    if not isinstance(layer, Recurrent):
        return mine
    found: Found = {}
    for direction, cell in layer.cells.items():
        start = f"{direction}."
        own = {name.removeprefix(start): d for name, d in mine.items() if name.startswith(start)}
        found |= {start + name: share for name, share in _cell(cell, own).items()}
    return found


def _cell(cell: LSTMCell, folded: Found) -> Found:
    found = dict(folded)
    bias = found.pop("bias", np.zeros(4 * cell.hidden_size)).reshape(-1)
    for side, name, norm in (
        ("ih", "input_norm", cell.input_norm),
        ("hh", "hidden_norm", cell.hidden_norm),
    ):
        found[f"bias_{side}"] = bias
        if norm is None:
            continue
        weight = getattr(cell, f"weight_{side}").astype(np.float64)
        dweight = found[f"weight_{side}"]
        mean, scale = norm.mean.astype(np.float64), norm.scale.astype(np.float64)
        divisor, slope = divisor_of(norm)
        gain = scale / divisor
        dgain = (dweight * weight).sum(axis=1) - mean * bias
        found[f"weight_{side}"] = dweight * gain[:, None]
        found[f"{name}.scale"] = dgain / divisor
        found[f"{name}.mean"] = -gain * bias
        found[f"{name}.variance"] = -dgain * gain / divisor * slope
    return found


def _batch_norm(layer: BatchNorm, dfactor: F64, doffset: F64) -> Found:
    mean = layer.mean.astype(np.float64)
    weight = np.ones(mean.shape) if layer.weight is None else layer.weight.astype(np.float64)
    divisor, slope = divisor_of(layer)
    dgain = (dfactor - mean * doffset).reshape(-1)
    gain = weight / divisor
    return {
        "mean": -gain * doffset,
        "variance": -dgain * gain / divisor * slope,
        "weight": dgain / divisor,
        "bias": doffset,
    }


def divisor_of(norm: MatrixNorm | BatchNorm) -> tuple[F64, F64]:
    """What a batch norm divides by, and its derivative by the variance."""
    variance = norm.variance.astype(np.float64)
    if norm.epsilon_outside:
        root = np.sqrt(variance)
        return root + norm.epsilon, np.divide(0.5, root, out=np.zeros_like(root), where=root > 0)
    divisor = np.sqrt(variance + norm.epsilon)
    return divisor, 0.5 / divisor
