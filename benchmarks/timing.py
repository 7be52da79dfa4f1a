"""Timing that means something on a shared machine: contenders take turns within one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of one piece of work: the least and the median over the rounds."""

    least: float
    median: float


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, unit: int = 1, seconds: float = 1.0
) -> dict[str, Timing]:
    """Each contender once per round, until each has had `seconds` (at least 7 rounds).

    unit: pieces of work that one call does; timings are per piece.
    """
    for call in contenders.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + seconds * len(contenders)
    while time.perf_counter() < end or min(map(len, taken.values())) < 7:
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            taken[name].append((time.perf_counter() - start) / unit)
    return {name: Timing(min(times), statistics.median(times)) for name, times in taken.items()}
