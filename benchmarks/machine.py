"""The machine's own ceilings, and the least time that a piece of work can take by them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("ceilings.c")


@dataclass(frozen=True)
class Ceilings:
    """One core: flops per second, and bytes per second read from a working set of so many bytes."""

    flops: float
    read: dict[int, float]

    def reading(self, size: int) -> float:
        """Bytes per second from a working set of `size` bytes."""
        fits = [rate for bytes_, rate in sorted(self.read.items()) if bytes_ >= size]
        return fits[0] if fits else min(self.read.values())

    def floor(self, *, flops: float = 0.0, weights: int = 0) -> float:
        """Seconds: the arithmetic at full rate, or the weights read once, whichever takes longer.

        A model, not a law: what a step finds still cached from the step before is read faster.
        """
        return max(flops / self.flops, weights / self.reading(weights) if weights else 0.0)


def measure() -> Ceilings:
    """Compile and run ceilings.c on one core."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or "cc"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "ceilings"
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-mprefer-vector-width=512"]
        subprocess.run([compiler, *flags, str(SOURCE), "-o", str(program)], check=True)
        found = json.loads(subprocess.run([program], check=True, capture_output=True).stdout)
    return Ceilings(found["flops"], {int(size): rate for size, rate in found["read"].items()})


def describe() -> dict[str, object]:
    """What a reader must know of the machine that was measured."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if "model name" in line), model)
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform()}
