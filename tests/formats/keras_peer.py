"""Keras 3 itself on the torch backend: where it is not installed, tests that import this skip."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_bounds import float32_bound
from presence import IN_CI

from ifgo import formats
from ifgo.model import Model
from ifgo.reference import truth

for name in ("torch", "keras"):
    if importlib.util.find_spec(name) is None and not IN_CI:  # in CI the import below fails
        pytest.skip(f"{name} is not installed (pip install '.[peers]')", allow_module_level=True)

os.environ["KERAS_BACKEND"] = "torch"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras


def computed(model: Any, x: Any) -> list[Any]:
    """What Keras computes of x, which it would round if it were an array: a list of outputs."""
    import torch

    x = [torch.as_tensor(one) for one in x] if isinstance(x, list) else torch.as_tensor(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model(x, training=False)
    outputs = found if isinstance(found, list | tuple) else [found]
    return [one.detach().cpu().numpy() for one in outputs]


def randomised(model: Any, seed: int, size: float = 0.3) -> Any:
    """Every weight drawn anew, variances positive."""
    rng = np.random.default_rng(seed)
    drawn: list[Any] = []
    for weight in model.weights:
        array = rng.uniform(-size, size, weight.shape)
        drawn.append(np.abs(array) + 0.1 if "variance" in weight.path else array)
    model.set_weights(drawn)
    return model


def save(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


def load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return keras.saving.load_model(path, compile=False)


def save_weights(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_weights(path)
    return path


TWO_PARTS = 2
"""float32_bound takes the larger error of two directions; a sum or product of them has both."""


def agree(model: Any, path: Path, x: Any) -> Model:
    """ifgo reads what Keras saves, and computes what it computes."""
    found = formats.load(save(model, path))
    within(found, x, computed(model, x)[0])
    return found


def within(model: Model, x: Any, expected: Any) -> None:
    """Keras computes parts of a float64 model in float32, so float32's bound is its."""
    result = truth.forward(model, x)
    bound = TWO_PARTS * float32_bound(model, result, x)
    assert np.abs(result.y - expected).max() < bound
    assert np.abs(expected).max() > 100 * bound
