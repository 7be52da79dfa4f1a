"""LSTMs by hand, one number after another, and how each known source dumps them.

Nothing here knows ifgo. A cell is a dict: W, R, b by gate letter (i f g o), P by i f o, projection.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Cell = dict[str, Any]
GATES = "ifgo"


def cell(
    rng: np.random.Generator,
    inputs: int,
    hidden: int,
    *,
    peephole: bool = False,
    projected: int = 0,
) -> Cell:
    """Random weights: W (H, I), R (H, P), b (H,) of each gate."""
    out = projected or hidden
    made: Cell = {
        "W": {g: rng.normal(0, 0.5, (hidden, inputs)).astype("f") for g in GATES},
        "R": {g: rng.normal(0, 0.5, (hidden, out)).astype("f") for g in GATES},
        "b": {g: rng.normal(0, 0.5, hidden).astype("f") for g in GATES},
    }
    if peephole:
        made["P"] = {g: rng.normal(0, 0.5, hidden).astype("f") for g in "ifo"}
    if projected:
        made["proj"] = rng.normal(0, 0.5, (projected, hidden)).astype("f")
    return made


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def run(made: Cell, x: Any, *, forget: float = 0.0) -> Any:
    """The outputs (T, P) for x (T, I), from zero state, in double, scalar by scalar."""
    hidden = len(made["b"]["i"])
    width = len(made["R"]["i"][0])
    h, c, out = [0.0] * width, [0.0] * hidden, []
    for row in np.asarray(x, float).tolist():
        fresh, shown = [0.0] * hidden, [0.0] * hidden
        for u in range(hidden):
            z = {}
            for g in GATES:
                z[g] = float(made["b"][g][u])
                z[g] += sum(float(w) * v for w, v in zip(made["W"][g][u], row, strict=True))
                z[g] += sum(float(w) * v for w, v in zip(made["R"][g][u], h, strict=True))
            z["f"] += forget
            if "P" in made:
                z["i"] += float(made["P"]["i"][u]) * c[u]
                z["f"] += float(made["P"]["f"][u]) * c[u]
            fresh[u] = sigmoid(z["f"]) * c[u] + sigmoid(z["i"]) * math.tanh(z["g"])
            if "P" in made:
                z["o"] += float(made["P"]["o"][u]) * fresh[u]
            shown[u] = sigmoid(z["o"]) * math.tanh(fresh[u])
        c = fresh
        h = shown
        if "proj" in made:
            h = [
                sum(float(w) * v for w, v in zip(weights, shown, strict=True))
                for weights in made["proj"]
            ]
        out.append(h)
    return np.array(out)


def columns(parts: dict[str, Any], order: str) -> Any:
    """(X, 4H): the transposed matrices side by side."""
    return np.concatenate([parts[g].T for g in order], axis=1)


def rows(parts: dict[str, Any], order: str) -> Any:
    """(4H, X), or (4H,) of biases: one below the other."""
    return np.concatenate([parts[g] for g in order])


def tf1(made: Cell, prefix: str = "rnn/basic_lstm_cell") -> dict[str, Any]:
    """kernel [x; h] in the order i j f o, as TensorFlow 1 names its variables."""
    kernel = np.concatenate([columns(made["W"], "igfo"), columns(made["R"], "igfo")])
    found = {f"{prefix}/kernel": kernel, f"{prefix}/bias": rows(made["b"], "igfo")}
    if "P" in made:
        found |= {f"{prefix}/w_{g}_diag": made["P"][g] for g in "ifo"}
    if "proj" in made:
        found[f"{prefix}/projection/kernel"] = made["proj"].T
    return found


def keras(made: Cell) -> list[Any]:
    """kernel, recurrent_kernel, bias in the order i f c o."""
    return [columns(made["W"], "ifgo"), columns(made["R"], "ifgo"), rows(made["b"], "ifgo")]


def keras1(made: Cell) -> dict[str, Any]:
    """Twelve arrays by name: W, U, b of i, c, f, o."""
    theirs = {"i": "i", "g": "c", "f": "f", "o": "o"}
    found: dict[str, Any] = {}
    for g in "igfo":
        found[f"lstm_1_W_{theirs[g]}"] = made["W"][g].T
        found[f"lstm_1_U_{theirs[g]}"] = made["R"][g].T
        found[f"lstm_1_b_{theirs[g]}"] = made["b"][g]
    return found


def numbered(arrays: list[Any]) -> dict[str, Any]:
    """As numpy.savez names what has no name."""
    return {f"arr_{k}": array for k, array in enumerate(arrays)}


def haste(made: Cell) -> dict[str, Any]:
    """Order i g f o."""
    return {
        "kernel": columns(made["W"], "igfo"),
        "recurrent_kernel": columns(made["R"], "igfo"),
        "bias": rows(made["b"], "igfo"),
    }


def equinox(made: Cell) -> dict[str, Any]:
    """Order i f g o, rows."""
    parts = {"weight_ih": "W", "weight_hh": "R", "bias": "b"}
    return {name: rows(made[key], "ifgo") for name, key in parts.items()}


def madmom(made: Cell, layer: int, letters: tuple[str, ...], prefix: str) -> dict[str, Any]:
    """One array for each gate: weights (inputs, units), recurrent weights, bias, peephole."""
    gates = {"i": "input_gate", "f": "forget_gate", "g": "cell", "o": "output_gate"}
    found: dict[str, Any] = {}
    for g, name in gates.items():
        where = f"{prefix}{layer}.{name}"
        found[f"{where}.{letters[0]}"] = made["W"][g].T
        found[f"{where}.{letters[1]}"] = made["R"][g].T
        found[f"{where}.{letters[2]}"] = made["b"][g]
        if g != "g":
            found[f"{where}.{letters[3]}"] = made["P"][g]
    return found


SHEET = """
version = 1

[[layer]]
kind = "lstm"
name = "lstm"
order = "ifgo"
orientation = "rows"
bias = "one"
forget_bias = "stored"

[layer.forward]
weight_ih = "w"
weight_hh = "r"
bias_ih = "b"
"""
"""The smallest sheet."""
