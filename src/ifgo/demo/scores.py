"""How well a score separates the two classes, and the linear floor an LSTM is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo.demo.data import Beats
from ifgo.errors import UsageError

RIDGE: Final = 1.0
"""Penalty of the linear baseline, in mV²; fixed beforehand, not searched for."""


@dataclass(frozen=True)
class Scores:
    """Judgement of N scores, where a score above 0 says ventricular.

    recall: share of the ventricular beats that were found. precision: share of the beats called
    ventricular that are; NaN where none was called so. auc: probability that a ventricular beat
    scores higher than a normal one, ties counting half.
    """

    beats: int
    mistakes: int
    accuracy: float
    recall: float
    precision: float
    auc: float

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.4f}, ventricular recall {self.recall:.4f}, "
            f"precision {self.precision:.4f}, AUC {self.auc:.4f}, "
            f"{self.mistakes} of {self.beats} beats wrong"
        )


def score(values: ArrayLike, label: ArrayLike) -> Scores:
    """Scores of `values` (N,) against `label` (N,), 0 normal and 1 ventricular.

    Raises UsageError where the lengths differ, a value is not finite, or a class is absent.
    """
    value, truth = np.asarray(values, np.float64), np.asarray(label) == 1
    if value.ndim != 1 or value.shape != truth.shape:
        raise UsageError(
            f"values have shape {value.shape}, labels {truth.shape}",
            expected="one value per beat, (N,) and (N,)",
        )
    if not np.isfinite(value).all():
        raise UsageError("values hold NaN or infinity", expected="finite scores")
    high, low = value[truth], value[~truth]
    if not high.size or not low.size:
        raise UsageError(
            f"{high.size} ventricular and {low.size} normal beats", expected="some of each"
        )
    called = value > 0
    found = int((called & truth).sum())
    wins = (high[:, np.newaxis] > low).sum() + 0.5 * (high[:, np.newaxis] == low).sum()
    return Scores(
        beats=value.size,
        mistakes=int((called != truth).sum()),
        accuracy=float((called == truth).mean()),
        recall=found / high.size,
        precision=found / int(called.sum()) if called.any() else float("nan"),
        auc=float(wins / (high.size * low.size)),
    )


def linear_baseline(beats: Beats) -> NDArray[np.float64]:
    """Score (N,) of every beat by ridge regression of ±1 on its T samples; above 0: ventricular.

    Fitted on the training minutes alone, with RIDGE as the penalty and a free constant.
    """
    samples: NDArray[np.float64] = beats.x[:, :, 0].astype(np.float64)
    train = ~beats.in_test
    target = 2.0 * beats.label[train] - 1.0
    mean = samples[train].mean(axis=0)
    centred = samples[train] - mean
    normal_matrix: NDArray[np.float64] = centred.T @ centred + RIDGE * np.eye(samples.shape[1])
    moment: NDArray[np.float64] = centred.T @ (target - target.mean())
    weight = np.linalg.solve(normal_matrix, moment)
    return (samples - mean) @ weight + target.mean()
