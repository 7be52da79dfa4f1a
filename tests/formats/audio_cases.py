"""RTNeural, GuitarML and NAM files by hand, and what their players compute, unit by unit.

Nothing here knows ifgo. A file is the tree that json.dumps writes; forward takes that tree.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

FLOAT64 = 1e-12
"""Two float64 computations of some ten terms a step."""

Tree = dict[str, Any]
STEPS = {"rtneural": "r.json", "guitarml": "g.json", "nam": "m.nam"}
"""Format → name of the file that `store` writes."""


def store(folder: Path, form: str, tree: Tree) -> Path:
    path = folder / STEPS[form]
    path.write_text(json.dumps(tree))
    return path


def draw(rng: np.random.Generator, *shape: int) -> Any:
    """Nested lists of float32 values, as frameworks save them."""
    return rng.normal(0, 0.6, shape).astype("f").tolist()


# -- trees ----------------------------------------------------------------------------------------


def entry(kind: str, width: int, weights: Any, activation: str = "", **more: Any) -> Tree:
    shape = [None, None, width]
    return {"type": kind, "activation": activation, "shape": shape, "weights": weights, **more}


def rt_lstm(rng: np.random.Generator, inputs: int, hidden: int) -> Tree:
    weights = [draw(rng, inputs, 4 * hidden), draw(rng, hidden, 4 * hidden), draw(rng, 4 * hidden)]
    return entry("lstm", hidden, weights, "tanh")


def rt_dense(
    rng: np.random.Generator, inputs: int, outputs: int, activation: str = "", kind: str = "dense"
) -> Tree:
    return entry(kind, outputs, [draw(rng, inputs, outputs), draw(rng, outputs)], activation)


def rt_norm(rng: np.random.Generator, width: int, *, affine: bool = True) -> Tree:
    spread = rng.uniform(0.2, 2, width).astype("f").tolist()
    more = [draw(rng, width), draw(rng, width)] if affine else []
    return entry("batchnorm", width, [*more, draw(rng, width), spread], epsilon=0.001)


def rtneural(inputs: int, *layers: Tree, **more: Any) -> Tree:
    return {"in_shape": [None, None, inputs], "layers": list(layers), **more}


def guitarml(seed: int, inputs: int = 2, hidden: int = 3, layers: int = 1, **facts: Any) -> Tree:
    rng = np.random.default_rng(seed)
    sizes = {"skip": 1, "output_size": 1, "bias_fl": True} | facts
    tensors: Tree = {}
    for k in range(layers):
        width = hidden if k else inputs
        tensors[f"rec.weight_ih_l{k}"] = draw(rng, 4 * hidden, width)
        tensors[f"rec.weight_hh_l{k}"] = draw(rng, 4 * hidden, hidden)
        tensors[f"rec.bias_ih_l{k}"] = draw(rng, 4 * hidden)
        tensors[f"rec.bias_hh_l{k}"] = draw(rng, 4 * hidden)
    tensors["lin.weight"] = draw(rng, sizes["output_size"], hidden)
    if sizes["bias_fl"]:
        tensors["lin.bias"] = draw(rng, sizes["output_size"])
    data = {"model": "SimpleRNN", "unit_type": "LSTM", "input_size": inputs}
    data |= {"num_layers": layers, "hidden_size": hidden} | sizes
    return {"model_data": data, "state_dict": tensors}


def nam(seed: int, inputs: int = 1, hidden: int = 3, layers: int = 1, **config: Any) -> Tree:
    rng = np.random.default_rng(seed)
    count = 0
    for k in range(layers):
        count += 4 * hidden * ((hidden if k else inputs) + hidden) + 6 * hidden
    count += config.get("out_channels", 1) * (hidden + 1)
    return {
        "version": "0.5.4",
        "metadata": {"name": "a pedal", "date": {"year": 2024}, "gear": None},
        "architecture": "LSTM",
        "config": {"input_size": inputs, "hidden_size": hidden, "num_layers": layers} | config,
        "weights": draw(rng, count),
        "sample_rate": 48000,
    }


# -- what is computed -----------------------------------------------------------------------------


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def step(z: list[float], c: list[float]) -> tuple[list[float], list[float]]:
    """One step from 4H sums in blocks i, f, g, o: h and c."""
    size = len(c)
    new: list[float] = []
    for k in range(size):
        i, f, g = sigmoid(z[k]), sigmoid(z[size + k]), math.tanh(z[2 * size + k])
        new.append(f * c[k] + i * g)
    return [sigmoid(z[3 * size + k]) * math.tanh(new[k]) for k in range(size)], new


def by_rows(weight: Any, x: list[float]) -> list[float]:
    """weight (O, I) times x."""
    return [math.fsum(w * v for w, v in zip(row, x, strict=True)) for row in weight]


def by_columns(weight: Any, x: list[float]) -> list[float]:
    """x times weight (I, O)."""
    return by_rows(list(zip(*weight, strict=True)), x)


def added(*parts: Any) -> list[float]:
    return [math.fsum(values) for values in zip(*parts, strict=True)]


ELSE: dict[str, Any] = {
    "": lambda v: v,
    "tanh": lambda v: [math.tanh(x) for x in v],
    "relu": lambda v: [max(x, 0.0) for x in v],
    "sigmoid": lambda v: [sigmoid(x) for x in v],
    "elu": lambda v: [x if x > 0 else math.expm1(x) for x in v],
    "softmax": lambda v: [math.exp(x) / math.fsum(map(math.exp, v)) for x in v],
}


def gain(decibels: float) -> float:
    """The factor as AIDA-X has it: in float32, silent from -90 dB down."""
    return float(np.float32(10 ** (decibels / 20))) if decibels > -90 else 0.0


def forward_rtneural(tree: Tree, x: Any) -> Any:
    """RTNeural sample by sample, within the skip and gains of AIDA-X."""
    state = [([0.0] * e["shape"][-1], [0.0] * e["shape"][-1]) for e in tree["layers"]]
    gain_in, gain_out = (gain(tree.get(key) or 0) for key in ("in_gain", "out_gain"))
    rows: list[list[float]] = []
    for sample in x.astype(float).tolist():
        v = first = [sample[0] * gain_in, *sample[1:]]
        for k, e in enumerate(tree["layers"]):
            parts = e["weights"]
            if e["type"] == "lstm":
                h, c = state[k]
                z = added(by_columns(parts[0], v), by_columns(parts[1], h), parts[2])
                state[k] = step(z, c)
                v = state[k][0]
            elif e["type"] == "batchnorm":
                gamma, beta = parts[:2] if len(parts) == 4 else ([1.0] * len(v), [0.0] * len(v))
                moved = zip(v, gamma, beta, *parts[-2:], strict=True)
                v = [(a - m) / math.sqrt(s + e["epsilon"]) * g + b for a, g, b, m, s in moved]
            elif e["type"] == "activation":
                v = ELSE[e.get("activation", "")](v)
            else:
                v = ELSE[e.get("activation", "")](added(by_columns(parts[0], v), parts[1]))
        if tree.get("in_skip"):
            v = [v[0] + first[0]]
        rows.append([value * gain_out for value in v])
    return np.array(rows)


def forward_guitarml(tree: Tree, x: Any) -> Any:
    """SimpleRNN of Automated-GuitarAmpModelling."""
    data, tensors = tree["model_data"], tree["state_dict"]
    size = data["hidden_size"]
    state = [([0.0] * size, [0.0] * size) for _ in range(data["num_layers"])]
    rows: list[list[float]] = []
    for sample in x.astype(float).tolist():
        v = sample
        for k in range(data["num_layers"]):
            h, c = state[k]
            z = added(
                by_rows(tensors[f"rec.weight_ih_l{k}"], v),
                tensors[f"rec.bias_ih_l{k}"],
                by_rows(tensors[f"rec.weight_hh_l{k}"], h),
                tensors[f"rec.bias_hh_l{k}"],
            )
            state[k] = step(z, c)
            v = state[k][0]
        y = by_rows(tensors["lin.weight"], v)
        y = added(y, tensors["lin.bias"]) if data["bias_fl"] else y
        skip = data["skip"]
        rows.append(added(y[:skip], sample[:skip]) + y[skip:])
    return np.array(rows)


def forward_nam(tree: Tree, x: Any) -> Any:
    """The LSTM of NeuralAmpModelerCore, without the silence that it is warmed with."""
    config, left = tree["config"], list(tree["weights"])
    size = config["hidden_size"]

    def take(count: int) -> list[float]:
        taken = left[:count]
        del left[:count]
        return taken

    cells: list[Any] = []
    for k in range(config["num_layers"]):
        width = size + (size if k else config["input_size"])
        rows = [take(width) for _ in range(4 * size)]
        cells.append([rows, take(4 * size), take(size), take(size)])
    head = [take(size) for _ in range(config.get("out_channels", 1))]
    bias = take(len(head))
    assert not left
    out: list[list[float]] = []
    for sample in x.astype(float).tolist():
        v = sample
        for cell in cells:
            cell[2:] = step(added(by_rows(cell[0], v + cell[2]), cell[1]), cell[3])
            v = cell[2]
        out.append(added(by_rows(head, v), bias))
    return np.array(out)


FORWARD: dict[str, Any] = {
    "rtneural": forward_rtneural,
    "guitarml": forward_guitarml,
    "nam": forward_nam,
}
"""Format → what its player computes of a tree over x (T, I)."""
