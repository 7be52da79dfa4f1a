"""Verification: any runtime against the reference, per layer, gate and time step.

`exact` (the interpreter) is judged by float64 truth through local bounds, and so is the contracted
variant of emitted C; `c99` must repeat the interpreter's bits; `engine`, `onnxruntime` and `torch`
are judged layer by layer by local bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo import backends, formats, states
from ifgo.errors import UsageError
from ifgo.model import Model, TokenInput
from ifgo.states import State
from ifgo.verification.findings import Finding
from ifgo.verification.report import Verification

__all__ = ["RUNTIMES", "Finding", "Verification", "verify"]

RUNTIMES: Final = (
    "engine",
    "c99",
    "c99:contracted",
    "onnxruntime",
    "torch",
    "qemu:BOARD",
    "qemu:BOARD:contracted",
)
"""What `--against` takes; `exact` against truth is always checked first."""

DEFAULT_SHAPE: Final = (2, 32)
"""Sequences and steps of the seeded input used where none is given."""


def verify(
    model: Model | str | Path,
    x: ArrayLike | None = None,
    *,
    against: Sequence[str] = ("c99",),
    state: Mapping[str, ArrayLike] | None = None,
    lengths: Sequence[int] | NDArray[Any] | None = None,
) -> Verification:
    """Compare runtimes on `model` (or the model in that file).

    x: as Model.run takes it; a seeded input where None, and then seeded initial states too where
    the model needs them. against: names of RUNTIMES. state: as Model.run takes it. lengths:
    (B,), for exact and c99 alone. Raises UsageError on an unknown runtime, an argument of the wrong
    type or an input that does not fit, ToolError where a runtime is not installed.
    """
    from ifgo.lower import lower
    from ifgo.reference.interpret import execute
    from ifgo.verification import compare

    against = _runtimes(against)
    fused = [name for name in against if name.endswith(backends.CONTRACTED)]
    boards = [name for name in against if name.startswith(backends.EMULATED) and name not in fused]
    if not isinstance(cast("Any", model), Model | str | Path):
        raise UsageError(
            f"the model is a {type(model).__name__}", expected="a Model, or the path of one"
        )
    loaded = model if isinstance(model, Model) else formats.load(model)
    if x is None:
        x = sample_input(loaded, *_declared(loaded, against))
        if state is None:
            state = sample_state(loaded, x.shape[0])
    ready = backends.prepare(loaded, x, lengths)
    if ready.lengths is not None and (others := [name for name in against if name != "c99"]):
        raise UsageError(
            f"{', '.join(others)} with lengths",
            expected="c99, which alone is compared with lengths",
            hint="Leave the lengths out, or compare each length by itself",
        )
    start = states.complete(loaded, ready.x.shape[0], state, np.float32)
    padded = ready.lengths is not None
    done = execute(lower(loaded, lengths=padded), ready.x, start, ready.lengths, trace=True)
    findings = compare.traced_against_truth(loaded, done.traces)
    if ready.lengths is not None:
        findings += compare.lengths_against_alone(loaded, ready.x, start, ready.lengths, done)
    if "c99" in against:
        findings += compare.c99_against_exact(loaded, ready.x, start, done, ready.lengths)
    if "engine" in against:
        from ifgo.verification import engine_runtime

        findings += engine_runtime.against_truth(loaded, ready.x, start, done)
    for name in boards:
        findings += compare.board_against_exact(loaded, ready.x, start, done, name)
    for name in fused:
        from ifgo.verification import contracted

        findings += contracted.against_truth(loaded, ready.x, start, name)
    if "onnxruntime" in against:
        from ifgo.verification import onnx_runtime

        findings += onnx_runtime.against_truth(loaded, ready.x, start, done)
    if "torch" in against:
        from ifgo.verification import torch_runtime

        findings += torch_runtime.against_truth(loaded, ready.x, start, done)
    return Verification(ready.x.shape[0], ready.x.shape[1], tuple(findings))


def _runtimes(against: Any) -> tuple[str, ...]:
    """`against`, checked. Raises UsageError on what is no list of known runtimes."""
    wanted = "a list of names of " + ", ".join(RUNTIMES)
    if isinstance(against, str):
        raise UsageError(
            f"against is the string {against!r}", expected=wanted, hint=f"Pass [{against!r}]"
        )
    if not isinstance(against, Iterable):
        raise UsageError(f"against is a {type(against).__name__}", expected=wanted)
    names = tuple(cast("Iterable[Any]", against))
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"against holds a {type(name).__name__}", expected=wanted)
        if name not in RUNTIMES and not name.startswith(backends.EMULATED):
            raise UsageError(f"unknown runtime {name!r}", expected="one of " + ", ".join(RUNTIMES))
    return names


def _declared(model: Model, against: tuple[str, ...]) -> tuple[int | None, int | None]:
    """B and T where the model's own file, which is to be run, fixes them."""
    if "onnxruntime" not in against:
        return None, None
    from ifgo.verification import onnx_graph

    return onnx_graph.declared(model)


def sample_input(model: Model, batch: int | None = None, steps: int | None = None) -> NDArray[Any]:
    """A seeded input with zeros and saturating values: (B, T, I), or tokens (B, T).

    batch, steps: DEFAULT_SHAPE where None; a model that takes sequences of one length gets that.
    """
    from ifgo.model import Flatten

    batch, steps = batch or DEFAULT_SHAPE[0], steps or DEFAULT_SHAPE[1]
    for layer in model.layers:
        if layer.signature == "vector→sequence":
            break
        if isinstance(layer, Flatten):
            steps = layer.steps
    random = np.random.default_rng(2024)
    if isinstance(model.input, TokenInput):
        return random.integers(0, model.input.vocabulary, (batch, steps))
    x = random.standard_normal((batch, steps, model.input_size)).astype(np.float32)
    x[0, : steps // 4] = 0.0
    x[-1, steps // 2] = 40.0
    return x


def sample_state(model: Model, batch: int) -> State:
    """Seeded initial states for the layers that are given theirs, below 1 in magnitude."""
    random = np.random.default_rng(2025)
    given = {
        f"{part}{k}"
        for k, r in enumerate(model.recurrent)
        for part in "hc"
        if r.initial.kind == "input"
    }
    shapes = states.shapes(model, batch)
    return {
        key: random.uniform(-1, 1, shapes[key]).astype(np.float32) for key in shapes if key in given
    }
