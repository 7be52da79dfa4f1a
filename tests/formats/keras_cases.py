"""Keras by hand: files written as Keras 1 and 2 lay them out, and what an LSTM of Keras computes.

Nothing here knows ifgo. Gate order of Keras: i, f, c, o; of Keras 1, gate by gate: i, c, f, o.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HARD = {1: 0.2, 2: 0.2, 3: 1 / 6}
"""Slope of hard_sigmoid by major version."""

ACTIVATE = {
    "linear": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "softsign": lambda z: z / (1 + np.abs(z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
}


def activate(name: str, z: Any, major: int) -> Any:
    if name == "hard_sigmoid":
        return np.clip(HARD[major] * z + 0.5, 0, 1)
    return ACTIVATE[name](z)


def lstm(
    x: Any,
    weights: list[Any],
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    major: int = 2,
    go_backwards: bool = False,
    mask: Any = None,
    zero: bool = False,
) -> tuple[Any, Any, Any]:
    """One LSTM in float64 from zero state: x (B, T, I) → the sequence as processed, h, c."""
    kernel, recurrent, bias = (np.asarray(w, float) for w in weights)
    x = np.asarray(x, float)
    mask = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask)
    if go_backwards:
        x, mask = x[:, ::-1], mask[:, ::-1]
    units = recurrent.shape[0]
    h = c = repeated = np.zeros((x.shape[0], units))
    rows: list[Any] = []
    for t in range(x.shape[1]):
        z = x[:, t] @ kernel + h @ recurrent + bias
        i, f, g, o = (z[:, k * units : (k + 1) * units] for k in range(4))
        i, f, o = (activate(recurrent_activation, gate, major) for gate in (i, f, o))
        new_c = f * c + i * activate(activation, g, major)
        new_h = o * activate(activation, new_c, major)
        now = mask[:, t, None]
        h, c = np.where(now, new_h, h), np.where(now, new_c, c)
        rows.append(np.where(now, new_h, np.zeros_like(repeated) if zero else repeated))
        repeated = np.where(now, new_h, repeated)
    return np.stack(rows, axis=1), h, c


def draw(rng: np.random.Generator, *shape: int, size: float = 0.5) -> Any:
    return rng.uniform(-size, size, shape).astype("f")


def lstm_weights(rng: np.random.Generator, inputs: int, units: int) -> list[Any]:
    """kernel, recurrent_kernel, bias."""
    return [draw(rng, inputs, 4 * units), draw(rng, units, 4 * units), draw(rng, 4 * units)]


def lstm_layer(name: str, units: int, **changes: Any) -> dict[str, Any]:
    """An LSTM as Keras 2 writes it into a config."""
    config = {
        "name": name,
        "trainable": True,
        "dtype": "float32",
        "return_sequences": True,
        "return_state": False,
        "go_backwards": False,
        "stateful": False,
        "unroll": False,
        "units": units,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "use_bias": True,
        "kernel_initializer": {"class_name": "VarianceScaling", "config": {"scale": 1.0}},
        "unit_forget_bias": True,
        "kernel_regularizer": None,
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "implementation": 1,
        **changes,
    }
    return {"class_name": "LSTM", "config": config}


def sequential(layers: list[Any], shape: list[Any] | None = None) -> dict[str, Any]:
    """A Sequential as Keras 2.0 writes it: a list, the input shape in its first layer."""
    if shape is not None:
        layers[0]["config"]["batch_input_shape"] = shape
    return {"class_name": "Sequential", "config": layers}


def names_of(layer: str, *parts: str) -> list[str]:
    return [f"{layer}/{part}:0" for part in parts]


PARTS = ("kernel", "recurrent_kernel", "bias")


def store(
    path: Path,
    config: Any,
    arrays: dict[str, dict[str, Any]],
    *,
    version: str | None = "2.2.4",
    whole: bool = True,
) -> Path:
    """A .h5 of Keras 1 or 2: with its config, or of weights alone. arrays: layer → name → array."""
    with h5py.File(path, "w") as file:
        held = file.create_group("model_weights") if whole else file
        for place in (file, held):
            if version is not None:
                place.attrs["keras_version"] = version.encode()
                place.attrs["backend"] = b"tensorflow"
        if config is not None and whole:
            file.attrs["model_config"] = json.dumps(config).encode()
        held.attrs["layer_names"] = np.array([name.encode() for name in arrays])
        for layer, named in arrays.items():
            group = held.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in named])
            for name, array in named.items():
                group[name] = array
    return path


def named(layer: str, weights: list[Any], parts: tuple[str, ...] = PARTS) -> dict[str, Any]:
    return dict(zip(names_of(layer, *parts), weights, strict=True))


def keras1(layer: str, weights: list[Any]) -> dict[str, Any]:
    """The twelve arrays of Keras 1: W, U, b of i, then of c, f, o."""
    units = weights[1].shape[0]
    found: dict[str, Any] = {}
    for gate, k in (("i", 0), ("c", 2), ("f", 1), ("o", 3)):
        for letter, array in zip("WUb", weights, strict=True):
            found[f"{layer}_{letter}_{gate}"] = array[..., k * units : (k + 1) * units]
    return found


def cudnn(weights: list[Any], other: Any) -> list[Any]:
    """kernel, recurrent_kernel and the bias of 8H as CuDNNLSTM keeps them; other: the second bias.
    Each gate's block (rows, H) of a matrix holds its transpose (H, rows)."""
    kernel, recurrent, bias = weights
    units = recurrent.shape[0]

    def turned(matrix: Any) -> Any:
        blocks = [matrix[:, k * units : (k + 1) * units] for k in range(4)]
        return np.concatenate([b.T.reshape(b.shape) for b in blocks], axis=1)

    return [turned(kernel), turned(recurrent), np.concatenate([bias, other])]
