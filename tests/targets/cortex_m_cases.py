"""What the tests of the Cortex-M target share: tools, models and the conformance cases."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from presence import missing

from ifgo import states
from ifgo.activations import SOFTMAX
from ifgo.lower import lower
from ifgo.model import (
    Dense,
    Embedding,
    FeatureInput,
    LastStep,
    Model,
    Recurrent,
    TokenInput,
)
from ifgo.reference.interpret import Execution, execute

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from conformance_cases import CASES, Draw

CORES = ("microbit", "mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547")
"""One board for each core: M0, M3, M4, M7, M33, M55."""


def require(*names: str) -> None:
    """Skip where a program is missing on a developer's machine, fail in CI."""
    for name in names:
        if shutil.which(name) is None:
            missing(name, "apt install gcc-arm-none-eabi qemu-system-arm cmake")


def require_cross_tools() -> None:
    """The cross compiler and the emulator."""
    require("arm-none-eabi-gcc", "arm-none-eabi-nm", "qemu-system-arm")


def require_cmsis_dsp() -> None:
    """The sources of CMSIS-DSP, which $CMSIS_DSP names."""
    if not os.environ.get("CMSIS_DSP"):
        missing("CMSIS-DSP", "set CMSIS_DSP to the folder of its sources")


def _draw() -> Draw:
    return Draw(17)


def stream() -> Model:
    """Two layers, a vector at the end, softmax: streamable."""
    d = _draw()
    layers = (
        Recurrent("a", d.cell(3, 5)),
        Recurrent("b", d.cell(5, 4)),
        LastStep("last"),
        Dense("y", d.array(3, 4), d.array(3), SOFTMAX),
    )
    return Model((FeatureInput(3),), layers)


def whole() -> Model:
    """Bidirectional: needs whole sequences."""
    d = _draw()
    layers = (Recurrent("a", d.cell(3, 5), d.cell(3, 5)), Dense("y", d.array(2, 10)))
    return Model((FeatureInput(3),), layers)


def tokens() -> Model:
    """An embedding over nine tokens."""
    d = _draw()
    return Model((TokenInput(9),), (Embedding("e", d.array(9, 4)), Recurrent("a", d.cell(4, 5))))


def every_option() -> Model:
    """Peephole, projection with bias, all three clips, coupling, run-time forget bias."""
    d = _draw()
    cell = d.cell(
        3,
        7,
        4,
        peephole=d.array(3, 7),
        bias_hr=d.array(4),
        clip_z=0.7,
        clip_cell=0.4,
        clip_projection=0.3,
        forget_bias=1.0,
    )
    return Model((FeatureInput(3),), (Recurrent("a", cell), Dense("y", d.array(5, 4))))


def layer(inputs: int, hidden: int) -> Model:
    """One plain layer."""
    return Model((FeatureInput(inputs),), (Recurrent("a", _draw().cell(inputs, hidden)),))


def conformance(name: str) -> Model:
    """A conformance case by its name."""
    return next(case for case in CASES if case.name == name).make(Draw(1))


def drawn_input(model: Model, batch: int, steps: int) -> Any:
    """(B, T, I), the second sequence saturating, or tokens (B, T)."""
    random = np.random.default_rng(7)
    if isinstance(model.input, TokenInput):
        return random.integers(0, model.input.vocabulary, (batch, steps)).astype(np.int32)
    x = random.normal(size=(batch, steps, model.input_size)).astype(np.float32)
    x[0, steps // 2] = 0.0
    x[1:2] *= np.float32(1e4)
    return x


def drawn_state(model: Model, batch: int) -> states.State:
    """A state that is nowhere zero."""
    random = np.random.default_rng(11)
    return {
        key: (random.normal(size=shape) * 0.3).astype(np.float32)
        for key, shape in states.shapes(model, batch).items()
    }


def interpreted(model: Model, x: Any, state: states.State) -> Execution:
    """What the interpreter, the reference of every target, makes of it."""
    return execute(lower(model), x, state, trace=True)


def same_bits(a: Any, b: Any) -> bool:
    """Equal shapes and equal float32 bits."""
    return (
        a.shape == b.shape
        and a.dtype == b.dtype == np.float32
        and bool(
            (
                np.ascontiguousarray(a).view(np.uint32) == np.ascontiguousarray(b).view(np.uint32)
            ).all()
        )
    )
