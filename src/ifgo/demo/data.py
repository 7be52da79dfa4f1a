"""The heartbeats of the demo and the path of the model trained on them. Source: NOTICE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RECORD_RATE: Final = 360
"""Samples per second of the record; `Beats.peak` counts these."""

RECORD_START: Final = 422_820
"""Sample of record 208 at which the five minutes begin (19:34.5)."""

TRAIN_MINUTES: Final = 3
"""The model and the linear baseline are fitted on the first three of the five minutes."""

RATE: Final = 128
"""Samples per second of the beats."""

STEPS: Final = 128
"""Time steps per beat, T: one second."""

BEFORE: Final = 48
"""Time steps before the peak."""

UNITS_PER_MILLIVOLT: Final = 200
"""What one millivolt is in the stored integers, as in the record itself."""

CLASSES: Final = ("normal", "ventricular")
"""Names of labels 0 and 1."""


@dataclass(frozen=True, eq=False)
class Beats:
    """Beats in the order they were recorded; N of them.

    x: float32 (N, T, 1), millivolt, each beat less its own mean.
    label: int8 (N,), 0 normal, 1 ventricular, named by the rule of examples/heartbeat.
    peak: int32 (N,), sample of the beat's peak in the record (360 per second).
    in_test: bool (N,), the beat lies in the last two minutes.
    """

    x: NDArray[np.float32]
    label: NDArray[np.int8]
    peak: NDArray[np.int32]
    in_test: NDArray[np.bool_]


def standardise(stored: NDArray[Any]) -> NDArray[np.float32]:
    """What the model reads of beats (N, T) in 1/200 mV: millivolt less the beat's mean, (N, T, 1).

    Removing the mean takes out the drift of the electrodes. The scale is fixed, so that a large
    beat stays large.
    """
    values = np.asarray(stored, np.float64)
    centred = values - values.mean(axis=1, keepdims=True)
    return (centred / UNITS_PER_MILLIVOLT).astype(np.float32)[:, :, np.newaxis]


def data_path() -> Path:
    """The beats as stored: x int16 (N, T) in 1/200 mV, label, peak, in_test."""
    return Path(__file__).with_name("beats.npz")


def model_path() -> Path:
    """The trained model, ONNX: x (B, T, 1) as `standardise` gives it → one logit per beat (B, 1).

    A logit above 0 says ventricular.
    """
    return Path(__file__).with_name("heartbeat.onnx")


def beats() -> Beats:
    """All beats of the demo."""
    with np.load(data_path(), allow_pickle=False) as stored:
        return Beats(standardise(stored["x"]), stored["label"], stored["peak"], stored["in_test"])
