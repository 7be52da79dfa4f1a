"""Losses against sums over plain floats and differences, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from core_cases import refused

from ifgo.errors import UsageError
from ifgo.reference import losses

RNG = np.random.default_rng(4)
Z = RNG.normal(size=(2, 3, 4)) * 2
T = RNG.random((2, 3, 4))
CLASSES = RNG.integers(0, 4, (2, 3))
MASK = np.array([[True, False, True], [True, True, False]])
ROUNDINGS = 64 * 2.0**-53
"""Sums of at most 24 terms near 10, each a few roundings, relative to the sum."""

RELATIVE = 1e-7
STEP = 1e-3


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def one_mse(z: Any, t: Any) -> float:
    return sum((a - b) ** 2 for a, b in zip(z, t, strict=True))


def one_bce(z: Any, t: Any) -> float:
    return -sum(
        b * math.log(sigmoid(a)) + (1 - b) * math.log(1 - sigmoid(a))
        for a, b in zip(z, t, strict=True)
    )


def one_entropy(z: Any, t: Any) -> float:
    return -math.log(math.exp(z[t]) / sum(math.exp(a) for a in z))


EVERY: list[Any] = [
    (losses.mse, one_mse, T, 4),
    (losses.bce_with_logits, one_bce, T, 4),
    (losses.softmax_cross_entropy, one_entropy, CLASSES, 1),
]


@pytest.mark.parametrize(("loss", "one", "target", "per_row"), EVERY)
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_value_and_gradient(
    loss: Any, one: Any, target: Any, per_row: int, mask: Any, reduction: Any
) -> None:
    counted = np.ones((2, 3), dtype=bool) if mask is None else mask
    rows = [(Z[b, t].tolist(), target[b, t].tolist()) for b, t in np.argwhere(counted)]
    wanted = math.fsum(one(z, t) for z, t in rows)
    wanted /= len(rows) * per_row if reduction == "mean" else 1
    found = loss(Z, target, mask=mask, reduction=reduction)
    assert abs(found.value - wanted) <= ROUNDINGS * abs(wanted)
    assert not found.gradient[~counted].any()

    def value(z: Any) -> float:
        return loss(z, target, mask=mask, reduction=reduction).value

    for index in np.ndindex(Z.shape):
        move = np.zeros(Z.shape)
        move[index] = STEP
        coarse = (value(Z + move) - value(Z - move)) / (2 * STEP)
        fine = (value(Z + move / 2) - value(Z - move / 2)) / STEP
        measured = (4 * fine - coarse) / 3
        floor = ROUNDINGS * abs(wanted) / STEP
        assert abs(measured - found.gradient[index]) <= RELATIVE * abs(measured) + floor


def test_extreme_logits_stay_finite() -> None:
    """No probability is rounded to 0 before its logarithm is taken."""
    far = losses.softmax_cross_entropy([[0.0, 1e4, -1e4]], [2])
    assert far.value == 2e4
    assert far.gradient.tolist() == [[0.0, 1.0, -1.0]]
    both = losses.bce_with_logits([[1e4, -1e4]], [[0.0, 1.0]], reduction="sum")
    assert both.value == 2e4
    assert both.gradient.tolist() == [[1.0, -1.0]]


def test_a_class_that_does_not_count_may_be_anything() -> None:
    found = losses.softmax_cross_entropy(Z[0], [1, -100, 2], mask=[True, False, True])
    kept = losses.softmax_cross_entropy(Z[0, [0, 2]], [1, 2])
    assert found.value == pytest.approx(kept.value, rel=ROUNDINGS, abs=0)


def test_refusals() -> None:
    with refused(UsageError, "target has shape (4,), expected (2,), as what the model put out"):
        losses.mse(np.zeros(2), np.zeros(4))
    with refused(
        UsageError,
        "y of dtype float64 holds values that are not finite, expected finite real numbers",
    ):
        losses.mse([math.nan], [0.0])
    with refused(UsageError, "target has dtype bool, expected finite real numbers"):
        losses.mse([0.0], [True])
    with refused(UsageError, "target reaches from 0 to 2, expected probabilities, 0 to 1"):
        losses.bce_with_logits([0.0, 1.0], [0.0, 2.0])
    with refused(
        UsageError,
        "classes have shape (2,) and dtype float64, expected (2,) whole numbers, one class per row "
        "of the logits",
    ):
        losses.softmax_cross_entropy(np.zeros((2, 3)), [0.0, 1.0])
    with refused(UsageError, "classes reach from 0 to 3, expected 0 to 2"):
        losses.softmax_cross_entropy(np.zeros((2, 3)), [0, 3])
    wrong: Any = "max"
    with refused(UsageError, "unknown reduction 'max', expected 'mean' or 'sum'"):
        losses.mse([0.0], [0.0], reduction=wrong)
    with refused(UsageError, "mask has shape (1,) and dtype int64, expected (1,) booleans"):
        losses.mse([[0.0]], [[0.0]], mask=[1])
    with refused(UsageError, "the mean of nothing, expected at least one value that counts"):
        losses.mse([[0.0]], [[0.0]], mask=[False])
