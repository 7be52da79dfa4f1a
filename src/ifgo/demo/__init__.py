"""What `ifgo demo` shows: heartbeats, a model trained on them, a linear floor, and a page."""

from __future__ import annotations

from ifgo.demo.data import (
    BEFORE,
    CLASSES,
    RATE,
    RECORD_RATE,
    RECORD_START,
    STEPS,
    TRAIN_MINUTES,
    Beats,
    beats,
    data_path,
    model_path,
    standardise,
)
from ifgo.demo.page import TRACED, Proof, View, page, typical_beats
from ifgo.demo.scores import Scores, linear_baseline, score

__all__ = [
    "BEFORE",
    "CLASSES",
    "RATE",
    "RECORD_RATE",
    "RECORD_START",
    "STEPS",
    "TRACED",
    "TRAIN_MINUTES",
    "Beats",
    "Proof",
    "Scores",
    "View",
    "beats",
    "data_path",
    "linear_baseline",
    "model_path",
    "page",
    "score",
    "standardise",
    "typical_beats",
]
