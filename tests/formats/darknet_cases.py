"""Darknet by hand: a .weights file written block by block, and what its C code computes from it.

Nothing here knows ifgo. Names of the eight matrices are Darknet's: w on h(t-1), u on x(t).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

STORED = {
    "pjreddie": ("wi", "wf", "wo", "wg", "ui", "uf", "uo", "ug"),
    "alexeyab": ("wf", "wi", "wg", "wo", "uf", "ui", "ug", "uo"),
}
REVISION = {"pjreddie": 0, "alexeyab": 5}

Block = dict[str, Any]


def block(rng: np.random.Generator, rows: int, columns: int, normed: bool) -> Block:
    """One connected layer: biases, weights (out, in), and batch norm statistics."""
    made = {
        "biases": rng.normal(0, 0.3, rows).astype("f"),
        "weights": rng.normal(0, 0.5, (rows, columns)).astype("f"),
    }
    if normed:
        made["scales"] = rng.uniform(0.5, 1.5, rows).astype("f")
        made["mean"] = rng.normal(0, 0.2, rows).astype("f")
        made["variance"] = rng.uniform(0.01, 2, rows).astype("f")
    return made


def lstm(rng: np.random.Generator, inputs: int, hidden: int, *, normed: bool = False) -> Block:
    """Eight matrices by name."""
    names = STORED["pjreddie"]
    widths = {name: hidden if name[0] == "w" else inputs for name in names}
    blocks = {name: block(rng, hidden, widths[name], normed) for name in names}
    return {"type": "lstm", "output": hidden, "normed": normed, "blocks": blocks}


def connected(
    rng: np.random.Generator, inputs: int, outputs: int, activation: str, *, normed: bool = False
) -> Block:
    """One matrix with its activation."""
    made = block(rng, outputs, inputs, normed)
    return {
        "type": "connected",
        "output": outputs,
        "activation": activation,
        "normed": normed,
        "blocks": {"": made},
    }


def cfg(inputs: int, layers: list[Block]) -> str:
    """The text of the cfg."""
    lines = ["[net]", f"inputs = {inputs}", "batch=1", "time_steps=1", "# a comment"]
    for layer in layers:
        lines += ["", f"[{layer['type']}]"]
        if "output" in layer:
            lines.append(f"output={layer['output']}")
            lines.append(f"batch_normalize={int(layer['normed'])}")
        lines += [f"{key}={layer[key]}" for key in ("activation", "temperature") if key in layer]
    return "\n".join(lines) + "\n"


def payload(layers: list[Block], dialect: str, *, transposed: bool = False) -> bytes:
    """All blocks in the order in which the fork saves them."""
    out = b""
    for layer in layers:
        blocks = layer.get("blocks", {})
        for name in STORED[dialect] if layer["type"] == "lstm" else blocks:
            made = blocks[name]
            matrix = made["weights"].T if transposed else made["weights"]
            out += made["biases"].astype("<f4").tobytes() + matrix.astype("<f4").tobytes()
            for key in ("scales", "mean", "variance"):
                out += made[key].astype("<f4").tobytes() if key in made else b""
    return out


def store(
    folder: Path,
    inputs: int,
    layers: list[Block],
    dialect: str,
    *,
    header: bytes | None = None,
    transposed: bool = False,
) -> Path:
    """NAME.cfg and NAME.weights in `folder`; returns the weights."""
    if header is None:
        header = struct.pack("<iiiQ", 0, 2, REVISION[dialect], 64_000)
    path = folder / "net.weights"
    path.write_bytes(header + payload(layers, dialect, transposed=transposed))
    path.with_suffix(".cfg").write_text(cfg(inputs, layers))
    return path


def _normal(made: Block, z: Any, dialect: str) -> Any:
    if "scales" not in made:
        return z + made["biases"]
    variance = made["variance"].astype(float)
    below = np.sqrt(variance) + 1e-6 if dialect == "pjreddie" else np.sqrt(variance + 1e-5)
    return (z - made["mean"]) / below * made["scales"] + made["biases"]


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


ACTIVATE = {
    "linear": lambda z: z,
    "logistic": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky": lambda z: np.where(z > 0, z, 0.1 * z),
    "elu": lambda z: np.where(z >= 0, z, np.expm1(np.minimum(z, 0))),
    "loggy": lambda z: 2 / (1 + np.exp(-z)) - 1,
}


def forward(layers: list[Block], x: Any, dialect: str) -> Any:
    """What the network computes in float64, x (T, I), from zero state."""
    rows = np.asarray(x, float)
    for layer in layers:
        if layer["type"] == "lstm":
            b, hidden = layer["blocks"], layer["output"]
            h, c, out = np.zeros(hidden), np.zeros(hidden), []

            def gate(letter: str, row: Any, h: Any, b: Block = b) -> Any:
                w, u = b["w" + letter], b["u" + letter]
                return _normal(w, w["weights"] @ h, dialect) + _normal(
                    u, u["weights"] @ row, dialect
                )

            for row in rows:
                f, i, o = (_sigmoid(gate(letter, row, h)) for letter in "fio")
                c = f * c + i * np.tanh(gate("g", row, h))
                h = o * np.tanh(c)
                out.append(h)
            rows = np.stack(out)
        elif layer["type"] == "connected":
            made = layer["blocks"][""]
            z = _normal(made, rows @ made["weights"].astype(float).T, dialect)
            rows = ACTIVATE[layer["activation"]](z)
        elif layer["type"] == "softmax":
            z = rows / layer.get("temperature", 1)
            e = np.exp(z - z.max(axis=-1, keepdims=True))
            rows = e / e.sum(axis=-1, keepdims=True)
    return rows
