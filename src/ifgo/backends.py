"""Running a Model: checks the input once, then hands it to a backend by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo import limits, states
from ifgo.errors import UsageError
from ifgo.model import FeatureInput, Model, TokenInput
from ifgo.states import State

if TYPE_CHECKING:
    from ifgo.targets.c99 import Variant

Lengths = NDArray[np.intp] | None
Backend = Callable[[Model, NDArray[Any], State, Lengths], tuple[NDArray[Any], State]]
"""(model, x (B, T, I) or tokens (B, T), complete state, lengths (B,) or None: T each) →
(y, final state)."""


def _exact(
    model: Model, x: NDArray[Any], state: State, lengths: Lengths
) -> tuple[NDArray[Any], State]:
    from ifgo.lower import lower
    from ifgo.reference.interpret import execute

    done = execute(lower(model, lengths=lengths is not None), x, state, lengths)
    return done.y, dict(done.state)


def _engine(
    model: Model, x: NDArray[Any], state: State, lengths: Lengths
) -> tuple[NDArray[Any], State]:
    from ifgo.engine.session import Session

    return Session(model).compute(x, state, lengths)


NAMES: Final = (
    "engine",
    "truth",
    "exact",
    "c99",
    "c99:contracted",
    "qemu:BOARD",
    "qemu:BOARD:contracted",
)
"""What `on` takes. "engine" is the compiled one; "truth" stands apart, it computes in float64;
qemu:BOARD runs the emitted C on the emulated board of that name; contracted is the variant of the
emitted C that may fuse."""

EMULATED: Final = "qemu:"

CONTRACTED: Final = ":contracted"


def split_variant(on: str) -> tuple[str, Variant]:
    """("c99" or "qemu:BOARD", variant of the C it runs)."""
    if on.endswith(CONTRACTED):
        return on.removesuffix(CONTRACTED), "contracted"
    return on, "exact"


def usual(model: Model) -> str:
    """The backend where none is named: "engine" where it is installed and computes `model`, else
    "exact". Raises UsageError or UnsupportedError where IFGO_ISA names what cannot be."""
    from ifgo.engine.loading import available

    if not available():
        return "exact"
    from ifgo.engine.session import beyond_stages

    return "engine" if beyond_stages(model) is None else "exact"


def backend(on: str) -> Backend:
    """The float32 backend called `on`. Raises UsageError on an unknown name or board."""
    if on == "exact":
        return _exact
    if on == "engine":
        return _engine
    base, variant = split_variant(on)
    if base == "c99":
        from ifgo.targets import c99

        return lambda model, x, state, lengths: c99.run_model(
            model, x, state, lengths, variant=variant
        )
    if base.startswith(EMULATED):
        from ifgo.targets import cortex_m

        board = cortex_m.find_board(base.removeprefix(EMULATED))
        return lambda model, x, state, lengths: cortex_m.run_model(
            model, x, state, board, lengths, variant=variant
        )
    raise UsageError(f"unknown backend {on!r}", expected="one of " + ", ".join(NAMES))


@dataclass(frozen=True)
class Prepared:
    """Checked input. x: (B, T, I) float32, or tokens (B, T); unbatched: the caller gave no B."""

    x: NDArray[Any]
    lengths: Lengths
    unbatched: bool


def run(
    model: Model,
    x: ArrayLike,
    state: Mapping[str, ArrayLike] | None = None,
    *,
    lengths: Sequence[int] | NDArray[Any] | None = None,
    on: str | None = None,
) -> tuple[NDArray[Any], State]:
    """Compute `model`; the arguments and results are those of Model.run.

    on: one of NAMES, or None for `usual`. y and the state are float32 (float64 on truth). Raises
    UsageError where x, state, lengths or on do not fit, UnsupportedError where the backend cannot
    compute the model, ToolError where what it needs is not installed.
    """
    on = usual(model) if on is None else str(on)
    chosen = None if on == "truth" else backend(on)
    ready = prepare(model, x, lengths)
    batch = ready.x.shape[0]
    if chosen is None:
        from ifgo.reference import truth

        result = truth.forward(model, ready.x, state, ready.lengths)
        y, final = result.y, result.state
    else:
        start = states.complete(model, batch, state, np.float32)
        y, final = chosen(model, ready.x, start, ready.lengths)
    return (y[0] if ready.unbatched else y), final


def prepare(
    model: Model, x: ArrayLike, lengths: Sequence[int] | NDArray[Any] | None = None
) -> Prepared:
    """Check x and lengths against `model`. Raises UsageError naming what does not fit."""
    array = states.as_array(x, "x")
    entry = model.input
    check_shape(model, array.shape)
    unbatched = array.ndim == (1 if isinstance(entry, TokenInput) else 2)
    array = _tokens(array, entry) if isinstance(entry, TokenInput) else _features(array)
    array = array[None] if unbatched else array
    return Prepared(array, _lengths(lengths, array), unbatched)


def check_shape(model: Model, have: tuple[int, ...]) -> int:
    """B of an x of shape `have`. Raises UsageError where it is no shape for `model`."""
    entry = model.input
    tokens = isinstance(entry, TokenInput)
    shape = "(B, T) or (T,)" if tokens else f"(B, T, {entry.size}) or (T, {entry.size})"
    rank = 2 if tokens else 3
    if len(have) not in (rank - 1, rank) or 0 in have:
        raise UsageError(f"x has shape {have}", expected=shape)
    if isinstance(entry, FeatureInput) and have[-1] != entry.size:
        raise UsageError(
            f"x has shape {have}, {have[-1]} features per step",
            expected=shape,
            hint="The last axis holds the features",
        )
    batch, steps = (1, *have)[-rank:][:2]
    if steps > limits.current().steps:
        raise UsageError(
            f"x has {steps} steps",
            **limits.at_most("steps", hint="Cut it into shorter sequences"),
        )
    return batch


def check_lengths(shape: tuple[int, ...], dtype: np.dtype[Any], batch: int) -> None:
    """Raises UsageError unless lengths of that shape and dtype are integers for B = `batch`."""
    if shape != (batch,) or dtype.kind not in "iu":
        raise UsageError(
            f"lengths has shape {shape} and dtype {dtype}",
            expected=f"({batch},) integers, one length per sequence",
        )


def _features(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiu":
        raise UsageError(f"x has dtype {array.dtype}", expected="real numbers")
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    if not np.isfinite(narrow).all():
        bad = np.unravel_index(int(np.argmin(np.isfinite(narrow))), narrow.shape)
        index = ", ".join(str(int(i)) for i in bad)
        raise UsageError(
            f"x[{index}] is {array[bad]}",
            expected="finite float32 values",
            hint="Clean the data first; a network spreads one NaN over everything after it",
        )
    return narrow


def _tokens(array: NDArray[Any], entry: TokenInput) -> NDArray[np.int32]:
    if array.dtype.kind not in "fiu":
        raise UsageError(f"x has dtype {array.dtype}", expected="whole numbers, token ids")
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.trunc(array))).all():
        raise UsageError("x holds values that are no whole numbers", expected="token ids")
    low, high = array.min(), array.max()
    if low < 0 or high >= entry.vocabulary:
        raise UsageError(
            f"x holds token {int(low if low < 0 else high)}",
            expected=f"ids from 0 to {entry.vocabulary - 1}",
        )
    return array.astype(np.int32)


def _lengths(lengths: Sequence[int] | NDArray[Any] | None, x: NDArray[Any]) -> Lengths:
    if lengths is None:
        return None
    array = states.as_array(lengths, "lengths")
    batch, steps = x.shape[:2]
    check_lengths(array.shape, array.dtype, batch)
    if (array < 0).any() or (array > steps).any():
        raise UsageError(
            f"lengths reach from {array.min()} to {array.max()}", expected=f"0 to {steps}"
        )
    return array.astype(np.intp)
