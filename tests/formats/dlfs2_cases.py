"""Deep Learning from Scratch 2 by hand: its parameters, its pickle, and what its layers compute.

Nothing here knows ifgo.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

Arrays = list[Any]


def lstm(rng: np.random.Generator, inputs: int, hidden: int) -> Arrays:
    """Wx, Wh, b in the order f, g, i, o."""
    shapes = ((inputs, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,))
    return [rng.normal(0, 0.5, shape).astype("f") for shape in shapes]


def rnnlm(rng: np.random.Generator, words: int, wide: int, hidden: int) -> Arrays:
    """Rnnlm: embed_W, one LSTM, affine_W, affine_b."""
    embed = rng.normal(0, 0.5, (words, wide)).astype("f")
    affine = [rng.normal(0, 0.5, shape).astype("f") for shape in ((hidden, words), (words,))]
    return [embed, *lstm(rng, wide, hidden), *affine]


def better(rng: np.random.Generator, words: int, hidden: int) -> Arrays:
    """BetterRnnlm: two LSTMs, the affine matrix is the embedding transposed."""
    embed = rng.normal(0, 0.5, (words, hidden)).astype("f")
    both = [*lstm(rng, hidden, hidden), *lstm(rng, hidden, hidden)]
    return [embed, *both, embed.T, rng.normal(0, 0.5, words).astype("f")]


def store(path: Path, arrays: Arrays, *, protocol: int = 4, dtype: str = "f2") -> Path:
    """As save_params does."""
    path.write_bytes(pickle.dumps([a.astype(dtype) for a in arrays], protocol))
    return path


def run_lstm(x: Any, wx: Any, wh: Any, b: Any) -> Any:
    """TimeLSTM in float64, x (T, D), from zero state."""
    size = len(wh)
    h, c, out = np.zeros(size), np.zeros(size), []
    for row in x:
        a = row @ wx.astype(float) + h @ wh.astype(float) + b
        f, g, i, o = a[:size], a[size : 2 * size], a[2 * size : 3 * size], a[3 * size :]
        c = sigmoid(f) * c + np.tanh(g) * sigmoid(i)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out)


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def forward(arrays: Arrays, x: Any) -> Any:
    """Scores of the network: tokens (T,) where the first array is an embedding, else x (T, D)."""
    left = [a.astype("f2").astype(float) for a in arrays]
    rows = np.asarray(x)
    if rows.ndim == 1:
        rows = left.pop(0)[rows]
    while len(left) > 2:
        wx, wh, b, *left = left
        rows = run_lstm(rows, wx, wh, b)
    return rows @ left[0] + left[1] if left else rows
