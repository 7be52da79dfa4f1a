"""The engine's tanh and sigmoid against the true ones: every float32, on every instruction set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from presence import missing

from ifgo.engine import loading
from ifgo.errors import ToolError
from ifgo.verification.bounds import ENGINE

SWEEP = """
import numpy as np
from ifgo.engine.loading import native

STRIDE = {stride}
one = np.ones((1, 1), np.float32)
worst = dict(tanh=0.0, sigmoid=0.0)
for exponent in range(-24, 6):
    for first in range(0, 2**23, 2**20):
        mantissa = np.arange(first + exponent % STRIDE, first + 2**20, STRIDE, dtype=np.uint32)
        bits = np.uint32((exponent + 127) << 23) + mantissa
        half = bits.view(np.float32).reshape(-1, 1)
        for x in (half, -half):
            wide = x.astype(np.float64)
            for code, name, true in (
                (1, "tanh", np.tanh(wide)),
                (2, "sigmoid", 1 / (1 + np.exp(-wide))),
            ):
                y = np.empty_like(x)
                native().Dense(one, None, code).run(x, y)
                worst[name] = max(worst[name], float(np.abs(y - true).max()))
far = np.array([[2.0**-30], [-1e-38], [0.0], [64.0], [-65.0], [3e38], [-3e38]], np.float32)
for code, true in ((1, np.tanh(far)), (2, 0.5 + 0.5 * np.tanh(far / 2))):
    y = np.empty_like(far)
    native().Dense(one, None, code).run(far, y)
    name = "tanh" if code == 1 else "sigmoid"
    worst[name] = max(worst[name], float(np.abs(y - true).max()))
print(native().isa(), worst["tanh"], worst["sigmoid"])
"""


def isas() -> list[str]:
    try:
        return loading.native().isas()
    except ToolError:
        return ["none"]


def swept(isa: str, stride: int) -> tuple[float, float]:
    if isa == "none":
        missing("the compiled engine", "tools/build_native.sh")
    done = subprocess.run(
        [sys.executable, "-c", SWEEP.format(stride=stride)],
        env={**os.environ, "IFGO_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    name, tanh, sigmoid = done.stdout.split()
    assert name == isa
    return float(tanh), float(sigmoid)


@pytest.mark.parametrize("isa", isas())
def test_a_sample_lies_within_the_constants(isa):
    tanh, sigmoid = swept(isa, 97)
    assert 0.5 * ENGINE.tanh < tanh <= ENGINE.tanh
    assert 0.5 * ENGINE.sigmoid < sigmoid <= ENGINE.sigmoid


@pytest.mark.slow
@pytest.mark.parametrize("isa", isas())
def test_every_float32_lies_within_the_constants(isa):
    tanh, sigmoid = swept(isa, 1)
    assert tanh <= ENGINE.tanh
    assert sigmoid <= ENGINE.sigmoid
