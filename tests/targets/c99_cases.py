"""Models of every kind of input and domain for the tests of the C99 target, and their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ifgo.activations import SOFTMAX
from ifgo.model import (
    Dense,
    Embedding,
    FeatureInput,
    LastStep,
    LSTMCell,
    Model,
    Recurrent,
    TokenInput,
)
from ifgo.targets import c99

RANDOM = np.random.default_rng(5)


def draw(*shape: int) -> Any:
    return (RANDOM.normal(size=shape) * 0.5).astype(np.float32)


def cell(inputs: int, hidden: int, **options: Any) -> LSTMCell:
    h = 4 * hidden
    return LSTMCell(draw(h, inputs), draw(h, hidden), draw(h), draw(h), **options)


STREAM = Model(
    (FeatureInput(3),),
    (
        Recurrent("a", cell(3, 5)),
        Recurrent("b", cell(5, 4)),
        LastStep("last"),
        Dense("y", draw(3, 4), draw(3), SOFTMAX),
    ),
)
WHOLE = Model((FeatureInput(3),), (Recurrent("a", cell(3, 5), cell(3, 5)), Dense("y", draw(2, 10))))
TOKENS = Model((TokenInput(9),), (Embedding("e", draw(9, 4)), Recurrent("a", cell(4, 5))))


def write(model: Model, folder: Path, **options: Any) -> c99.Emitted:
    emitted = c99.emit(model, **options)
    for name, text in emitted.files.items():
        (folder / name).write_text(text)
    return emitted
