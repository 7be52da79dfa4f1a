"""Small parts that the tests of the core form share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ifgo.errors import IfgoError
from ifgo.model import BatchNorm, Dense, FeatureInput, LSTMCell, Model, Recurrent


@contextmanager
def refused(error: type[IfgoError], message: str) -> Iterator[None]:
    """The block raises exactly `error` with exactly `message`."""
    with pytest.raises(error) as caught:
        yield
    assert type(caught.value) is error
    assert str(caught.value) == message


def ones(*shape: int, dtype: Any = np.float32) -> Any:
    return np.ones(shape, dtype)


def weights(seed: int, *shape: int, scale: float = 0.5) -> Any:
    """Float32 weights of ordinary size, none of them zero."""
    values = np.random.default_rng(seed).normal(size=shape) * scale
    return np.where(np.abs(values) < 0.01, 0.1, values).astype(np.float32)


def cell(inputs: int = 2, hidden: int = 3, output: int | None = None, **options: Any) -> LSTMCell:
    arrays: dict[str, Any] = {
        "weight_ih": weights(1, 4 * hidden, inputs),
        "weight_hh": weights(2, 4 * hidden, output or hidden),
        "bias_ih": weights(3, 4 * hidden),
        "bias_hh": weights(4, 4 * hidden),
    }
    if output is not None:
        arrays["weight_hr"] = weights(5, output, hidden)
    return LSTMCell(**(arrays | options))


def lstm(name: str = "lstm", inputs: int = 2, hidden: int = 3, **options: Any) -> Recurrent:
    return Recurrent(name, cell(inputs, hidden), **options)


def dense(name: str = "dense", inputs: int = 3, outputs: int = 1) -> Dense:
    return Dense(name, weights(6, outputs, inputs), weights(7, outputs))


def batch_norm(**options: Any) -> BatchNorm:
    parts: dict[str, Any] = {"name": "bn", "mean": ones(2), "variance": ones(2)}
    return BatchNorm(**(parts | options))


def chain(*layers: Any, size: int = 2) -> Model:
    """A model over `size` features."""
    return Model((FeatureInput(size),), layers)
