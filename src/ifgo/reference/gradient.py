"""The judge of gradients: every Model differentiated in float64, by hand, from SPEC.md 1 and 10.

Reverse accumulation over the chain of layers: `record` runs the model and keeps what the way back
needs, `Recording.backward` goes back. Knows nothing of programs or targets, and computes its own
forward; on inference that is the one of truth. Letters: B batch, T time, F features, D directions,
H hidden, P output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo import states
from ifgo.errors import UsageError
from ifgo.model import (
    BatchNorm,
    Dropout,
    Layer,
    Model,
    Recurrent,
    Residual,
    TokenInput,
    require_streamable,
)
from ifgo.reference._derivatives import F64, Variance
from ifgo.reference._gradient_layers import Back, Bools, Flow, Pull, chain
from ifgo.text import listed

__all__ = ["Gradients", "Recording", "Variance", "factors", "norms", "record", "windows"]


@dataclass(frozen=True)
class Gradients:
    """Of one number, the loss, by everything that went into a run. All float64.

    arrays: as Model.arrays, the same names and shapes; x (B, T, F), None for tokens; state: by key
    (ifgo.states), (D, B, ·), the state that the run started from. A constant initial state is an
    array of the model too: its gradient is the sum over B where the caller gave no other.
    """

    arrays: dict[str, F64]
    x: F64 | None
    state: states.State


@dataclass(frozen=True)
class Recording:
    """A run that can be differentiated.

    y (B, T, ·) or (B, ·); state: final states by key; statistics: name of each norm that took
    those of the batch → (mean, variance), (F,), or (T, 4H) inside a cell, a row for each step.
    """

    y: F64
    state: states.State
    statistics: dict[str, tuple[F64, F64]]
    _model: Model
    _tokens: bool
    _constant: tuple[tuple[str, str], ...]
    _pulls: tuple[Pull, ...]

    def backward(
        self, y: ArrayLike | None = None, state: Mapping[str, ArrayLike] | None = None
    ) -> Gradients:
        """The gradients of a loss, from its gradients by what the run put out.

        y: as Recording.y, the end of the chain (roles "sequence" and "last"); state: by key, as
        Recording.state (roles "h_n", "c_n" and "state"). What is not given is zero. May be called
        again. Raises UsageError on a shape or a key that is not the run's.
        """
        upstream = {"y": self.y} | self.state
        given = dict(state or {}) | ({} if y is None else {"y": y})
        for name in given:
            if name not in upstream:
                raise UsageError(
                    f"a gradient is given for {name!r}", expected="one of " + listed(upstream)
                )
            have = states.as_array(given[name], f"the gradient of {name}")
            if have.shape != upstream[name].shape or have.dtype.kind not in "fiu":
                raise UsageError(
                    f"the gradient of {name} has shape {have.shape} and dtype {have.dtype}",
                    expected=f"real numbers {upstream[name].shape}",
                )
        start = {
            name: np.array(given.get(name, np.zeros(array.shape)), dtype=np.float64)
            for name, array in upstream.items()
        }
        d = start.pop("y")
        zeros = {name: np.zeros(array.shape) for name, array in self._model.arrays.items()}
        back = Back(zeros, dict(start))
        for pull in reversed(self._pulls):
            d = pull(back, d)
        for key, array in self._constant:
            back.arrays[array] += back.state[key].sum(axis=1)
        return Gradients(back.arrays, None if self._tokens else d, back.state)


def factors(model: Model) -> list[str]:
    """The names `record` takes dropout factors under: each dropout of `model` with a rate above 0.

    A Dropout layer under its name (inside a residual: "residual.name"), those of a recurrent layer
    as "name.input", "name.recurrent" and "name.output".
    """
    found: list[str] = []
    for path, layer in _paths(model.layers):
        if isinstance(layer, Dropout) and layer.rate:
            found.append(path)
        if isinstance(layer, Recurrent):
            parts = ("input", "recurrent", "output")
            found += [f"{path}.{part}" for part in parts if getattr(layer.training, part)]
    return found


def norms(model: Model) -> list[str]:
    """The names of the batch norms of `model`: BatchNorm layers under their own, those of a cell
    as "name.forward.input_norm"."""
    found: list[str] = []
    for path, layer in _paths(model.layers):
        if isinstance(layer, BatchNorm):
            found.append(path)
        if isinstance(layer, Recurrent):
            for direction, cell in layer.cells.items():
                parts = ("input_norm", "hidden_norm")
                found += [f"{path}.{direction}.{part}" for part in parts if getattr(cell, part)]
    return found


def record(
    model: Model,
    x: ArrayLike,
    state: Mapping[str, ArrayLike] | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    dropout: Mapping[str, ArrayLike] | None = None,
    batch_statistics: Mapping[str, Variance] | None = None,
) -> Recording:
    """Run `model` in float64 and keep what its gradients need. x: (B, T, F), or tokens (B, T).

    state, lengths and mask as in truth.forward. dropout: name (see `factors`) → what values are
    multiplied by, so 0 or 1/(1 - rate): of a Dropout layer (B, T, F) or (B, F); of a recurrent
    layer's input (D, B, T, I) and recurrent state (D, B, T, P), by time of the input (under
    go_backwards by order of processing), before the products and not before the peepholes; of its
    output (B, T, ·). An axis of 1 shares them. batch_statistics: name (see `norms`) → "biased" or
    "unbiased": the norm then uses mean and variance of what it gets, over B and T, inside a cell
    over B at each step.

    Raises UsageError on arguments that do not fit the model or each other, UnsupportedError on
    statistics of a batch with lengths or a mask.
    """
    values, counted, masked = _checked(model, x, lengths, mask)
    batch = values.shape[0]
    given = {name: states.as_array(f, f"dropout {name}") for name, f in (dropout or {}).items()}
    _known("dropout factors are", given, factors(model))
    for name, array in given.items():
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise UsageError(
                f"the dropout factors {name} are not all numbers",
                expected="0 or 1 / (1 - rate) each",
            )
    variances: dict[str, Variance] = dict(batch_statistics or {})
    _known("batch statistics are", variances, norms(model))
    for name, how in variances.items():
        if how not in get_args(Variance):
            raise UsageError(
                f"the batch statistics of {name} are {how!r}", expected="'biased' or 'unbiased'"
            )
    positions = {layer.name: k for k, layer in enumerate(model.recurrent)}
    start = states.complete(model, batch, state, np.float64)
    flow = Flow(values, counted, masked, start, given, variances, positions)
    chain(model.layers, "", flow)
    constant = tuple(
        (f"{part}{positions[layer.name]}", f"{path}.initial.{part}")
        for path, layer in _paths(model.layers)
        if isinstance(layer, Recurrent) and layer.initial.kind == "constant"
        for part in "hc"
        if f"{part}{positions[layer.name]}" not in (state or {})
    )
    final = {key: flow.final[key] for key in states.shapes(model, batch)}
    tokens = isinstance(model.input, TokenInput)
    return Recording(flow.value, final, flow.statistics, model, tokens, constant, tuple(flow.pulls))


def windows(
    model: Model,
    x: ArrayLike,
    steps: int,
    state: Mapping[str, ArrayLike] | None = None,
    mask: ArrayLike | None = None,
) -> Iterator[Recording]:
    """Truncated back-propagation: `record` of one window of `steps` steps after the other.

    Each window starts from the final state of the one before, as a constant: its backward stops
    there. The last window may be shorter. Raises UnsupportedError where `model` is not streamable,
    UsageError as `record` and on steps below 1.
    """
    require_streamable(model)
    if steps < 1:
        raise UsageError(f"a window has {steps} steps", expected="at least 1")
    values, _, masked = _checked(model, x, None, mask)
    for first in range(0, values.shape[1], steps):
        span = slice(first, first + steps)
        part = None if masked is None else masked[:, span]
        recording = record(model, values[:, span], state, mask=part)
        yield recording
        state = recording.state


def _known(what: str, given: Mapping[str, Any], names: list[str]) -> None:
    for name in given:
        if name not in names:
            raise UsageError(
                f"{what} given for {name!r}",
                expected="one of " + listed(names) if names else "none, the model has no such part",
            )
        if names.count(name) > 1:
            raise UsageError(
                f"{what} given for {name!r}, which names two parts of the model",
                expected="layers whose names tell them apart",
            )


def _checked(
    model: Model, x: ArrayLike, lengths: ArrayLike | None, mask: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[np.intp] | None, Bools | None]:
    entry, values = model.input, states.as_array(x, "x")
    tokens = isinstance(entry, TokenInput)
    wanted = "(B, T) tokens" if tokens else f"(B, T, {entry.size}) finite real numbers"
    fits = values.ndim == (2 if tokens else 3) and values.size > 0
    fits = fits and values.dtype.kind in ("iu" if tokens else "fiu")
    if not fits or (not tokens and values.shape[2] != entry.size):
        raise UsageError(f"x has shape {values.shape} and dtype {values.dtype}", expected=wanted)
    if tokens and (values.min() < 0 or values.max() >= entry.vocabulary):
        raise UsageError(
            f"x holds tokens from {values.min()} to {values.max()}",
            expected=f"ids from 0 to {entry.vocabulary - 1}",
        )
    if not tokens:
        values = values.astype(np.float64)
        if not np.isfinite(values).all():
            raise UsageError("x holds values that are not finite", expected=wanted)
    batch, steps = values.shape[:2]
    counted = masked = None
    if lengths is not None:
        counted = states.as_array(lengths, "lengths")
        fits = counted.shape == (batch,) and counted.dtype.kind in "iu"
        if not fits or counted.min() < 0 or counted.max() > steps:
            raise UsageError(
                f"lengths are {counted.tolist()}", expected=f"({batch},) integers from 0 to {steps}"
            )
        counted = counted.astype(np.intp)
    if mask is not None:
        masked = states.as_array(mask, "mask")
        if masked.shape != (batch, steps) or masked.dtype.kind != "b":
            raise UsageError(
                f"mask has shape {masked.shape} and dtype {masked.dtype}",
                expected=f"({batch}, {steps}) booleans",
            )
    return values, counted, masked


def _paths(layers: tuple[Layer, ...], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Every layer with its name as in Model.arrays, inner chains included."""
    for layer in layers:
        yield prefix + layer.name, layer
        if isinstance(layer, Residual):
            yield from _paths(layer.layers, f"{prefix}{layer.name}.")
