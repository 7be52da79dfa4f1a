"""What refusing or loading a file may cost: the bound that SECURITY.md states."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable

from ifgo.errors import IfgoError

MEMORY = 64 * 2**20
"""Bytes beyond four times the size of the file."""

SECONDS = 2.0
"""CPU time, which a busy machine does not stretch."""


def within_bounds(call: Callable[[], object], file_bytes: int) -> None:
    """Asserts that `call`, which may raise our errors alone, keeps to the bound."""
    start = time.process_time()
    with contextlib.suppress(IfgoError):
        call()
    assert time.process_time() - start < SECONDS
    tracemalloc.start()
    try:
        with contextlib.suppress(IfgoError):
            call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY + 4 * file_bytes, f"{peak / 2**20:.0f} MiB for {file_bytes} bytes"
