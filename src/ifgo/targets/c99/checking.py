"""What the self-test of model.c runs, and what it expects (SPEC.md section 5.5)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo import states
from ifgo.errors import UnsupportedError
from ifgo.model import Model, TokenInput
from ifgo.program import Program
from ifgo.reference.interpret import execute
from ifgo.targets.c99.packing import columns
from ifgo.targets.c99.schedule import number

STEPS: Final = 8
"""Most steps of a self-test, unless the model takes one length alone."""


def selftest(
    model: Model, program: Program, max_steps: int | None, *, exact: bool
) -> dict[str, Any]:
    """A seeded input with zeros and saturating values, and what comes out of it.

    exact: the interpreter's bits. Else truth, and how far a contracted build may lie from it, over
    as many steps as that says something: raises UnsupportedError where there is no bound.
    """
    steps = program.required_steps or min(STEPS, max_steps or STEPS)
    start = states.initial(model, 1, np.float32)
    x = _input(model, steps)
    if exact:
        y = np.concatenate(
            [execute(program, part, start).y.reshape(-1) for part in _runs(program, x)]
        )
        return _facts(x, [f"0x{int(word):08x}u" for word in y.view(np.uint32)])
    from ifgo.verification.global_bound import LARGEST_AMPLIFICATION, whole

    found = [whole(model, part, start) for part in _runs(program, x)]
    while steps > 1 and not program.required_steps:
        if max(one.amplification for one in found) < LARGEST_AMPLIFICATION:
            break
        steps //= 2
        x = _input(model, steps)
        found = [whole(model, part, start) for part in _runs(program, x)]
    y = np.concatenate([one.y.reshape(-1) for one in found])
    bound = max(one.bound for one in found)
    if not (np.isfinite(bound) and np.isfinite(y).all()):
        raise UnsupportedError(
            "the network may overflow float32 on the input of the self-test, so a contracted build "
            "has no bound to be judged by",
            hint="Deploy the exact variant",
        )
    return _facts(x, [number(value) for value in y]) | {"bound": number(bound)}


def _runs(program: Program, x: NDArray[Any]) -> list[NDArray[Any]]:
    """The sequences whose outputs, one after the other, the self-test sees."""
    if program.streamable and program.vector_output:
        return [x[:, : t + 1] for t in range(x.shape[1])]
    return [x]


def _input(model: Model, steps: int) -> NDArray[Any]:
    random = np.random.default_rng(2024)
    if isinstance(model.input, TokenInput):
        return random.integers(0, model.input.vocabulary, (1, steps)).astype(np.int32)
    x = random.standard_normal((1, steps, model.input_size)).astype(np.float32)
    x[0, steps // 2] = 0.0
    x[0, steps - 1, 0] = -40.0
    return x


def _facts(x: NDArray[Any], outputs: list[str]) -> dict[str, Any]:
    inputs = [str(int(v)) if x.dtype.kind == "i" else number(v) for v in x.reshape(-1)]
    return {
        "x_count": len(inputs),
        "x": columns(inputs),
        "y_count": len(outputs),
        "y": columns(outputs),
        "steps": x.shape[1],
    }
