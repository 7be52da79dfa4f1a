"""Gradients against central differences of truth, at 1e-7 relative, and models to hold them to.

The derivative along a direction is taken from four steps, h, h/2, h/4 with their leading errors
eliminated (Richardson), so what is left of truncation is of order h⁶. The direction is that of
the gradient in sign, with random sizes, so nothing cancels in the sum: 1e-7 is relative to the
derivative itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ifgo.model import Activation, BatchNorm, LayerNorm, Masking, MatrixNorm, Model
from ifgo.reference import gradient, truth

RELATIVE = 1e-7
"""What the differences and the gradient agree to."""

STEP = 4e-4

ROUNDING = 64 * 2.0**-53 / (STEP / 4)
"""Times the sum of the loss's terms: what rounding moves a difference by at its smallest step,
where every term is off by 64 roundings."""

SMOOTH = 1e-9
"""Two extrapolations of a smooth function differ by less, relative to it: h⁴ and a constant. Where
they differ by more a kink lies within the steps, and there is nothing to compare with."""

Run = Callable[[], tuple[Any, dict[str, Any]]]


@dataclass
class Tally:
    """How many derivatives were compared at 1e-7, how many are zero on both sides, how many were
    compared only to the rounding of a loss whose terms are far larger than they, and how many lie
    at a kink."""

    sharp: int = 0
    zero: int = 0
    blunt: int = 0
    kinked: int = 0
    names: set[str] = field(default_factory=set[str])
    wrong: list[str] = field(default_factory=list[str])


@dataclass
class Problem:
    """A model, what it runs on, and the weights of the loss: Σ weight·output over everything."""

    model: Model
    x: Any
    state: dict[str, Any]
    rng: Any
    lengths: Any = None
    mask: Any = None
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    weights: dict[str, Any] = field(default_factory=dict[str, Any])

    def record(self) -> gradient.Recording:
        return gradient.record(
            self.model, self.x, self.state, self.lengths, self.mask, **self.training
        )

    def outputs(self) -> dict[str, Any]:
        """Of truth; of the recording where truth has no such thing as training."""
        if self.training:
            found = self.record()
            return {"y": found.y} | found.state
        done = truth.forward(self.model, self.x, self.state, self.lengths, self.mask)
        return {"y": done.y} | done.state

    def loss(self) -> float:
        found = self.outputs()
        return float(sum((self.weights[name] * value).sum() for name, value in found.items()))

    def size(self) -> float:
        """The sum of the sizes of the loss's terms."""
        found = self.outputs()
        return float(sum(np.abs(self.weights[name] * v).sum() for name, v in found.items()))


def problem(model: Model, x: Any, state: Any, rng: Any, **options: Any) -> Problem:
    """With arrays that can be moved in place."""
    model = model.astype(np.float64)
    for array in model.arrays.values():
        array.setflags(write=True)
    made = Problem(model, x, dict(state), rng, **options)
    outputs = made.outputs()
    made.weights = {name: rng.normal(size=value.shape) for name, value in outputs.items()}
    return made


def differentiate(made: Problem) -> gradient.Gradients:
    upstream = dict(made.weights)
    return made.record().backward(upstream.pop("y"), upstream)


def along(made: Problem, array: Any, direction: Any) -> tuple[float, bool]:
    """The derivative of the loss along `direction` in `array`, and whether it is smooth there."""
    base = array.copy()

    def central(h: float) -> float:
        array[...] = base + h * direction
        up = made.loss()
        array[...] = base - h * direction
        down = made.loss()
        array[...] = base
        return (up - down) / (2 * h)

    coarse, middle, fine = (central(STEP / k) for k in (1, 2, 4))
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    smooth = abs(first - second) <= SMOOTH * abs(second) + 4 * ROUNDING * made.size()
    return (16 * second - first) / 15, smooth


def parts(made: Problem, found: gradient.Gradients) -> dict[str, tuple[Any, Any]]:
    """Name → (array to move, its gradient)."""
    every = {name: (array, found.arrays[name]) for name, array in made.model.arrays.items()}
    every |= {key: (array, found.state[key]) for key, array in made.state.items()}
    if found.x is not None:
        every["x"] = (made.x, found.x)
    return every


def towards(found: Any, rng: Any) -> Any:
    """A direction with the signs of a gradient, random where it is 0."""
    signs = np.where(found == 0, rng.choice([-1.0, 1.0], found.shape), np.sign(found))
    return signs * rng.uniform(0.5, 1.5, found.shape)


def compare(made: Problem, *, fixed: Any = None, tally: Tally | None = None) -> Tally:
    """Every array, the input and the initial states. fixed (B, T): steps of x that may not move."""
    tally = tally or Tally()
    for name, (array, found) in parts(made, differentiate(made)).items():
        assert found.shape == array.shape, name
        direction = towards(found, made.rng)
        if name == "x" and fixed is not None:
            assert not found[fixed].any()
            direction[fixed] = 0.0
        judge(made, name, array, direction, float((found * direction).sum()), tally)
    return tally


def agree(wanted: float, measured: float, floor: float) -> bool:
    return abs(measured - wanted) <= max(RELATIVE * max(abs(wanted), abs(measured)), floor)


def judge(
    made: Problem, name: str, array: Any, direction: Any, wanted: float, tally: Tally
) -> None:
    measured, smooth = along(made, array, direction)
    if not smooth:
        tally.kinked += 1
        return
    sharp, floor = RELATIVE * max(abs(wanted), abs(measured)), ROUNDING * made.size()
    if not agree(wanted, measured, floor):
        tally.wrong.append(f"{name}: {wanted!r} against {measured!r} by differences")
    if sharp >= floor:
        tally.sharp += 1
        tally.names.add(name.rpartition(".")[2])
    elif wanted == 0:
        tally.zero += 1
    else:
        tally.blunt += 1


def ordinary(thing: Any, rng: Any) -> Any:
    """The same structure with ordinary numbers: arrays in float64, parameters near 1."""
    if isinstance(thing, Activation):
        named = {
            n: rng.uniform(0.3, 1.2) for n in ("alpha", "beta") if getattr(thing, n) is not None
        }
        return dataclasses.replace(thing, **named)
    if isinstance(thing, tuple):
        return tuple(ordinary(one, rng) for one in thing)
    if not dataclasses.is_dataclass(thing):
        return thing
    changes: dict[str, Any] = {}
    for f in dataclasses.fields(thing):
        value = getattr(thing, f.name)
        if isinstance(value, np.ndarray):
            drawn = rng.normal(size=value.shape) * 0.6
            changes[f.name] = np.abs(drawn) + 0.3 if f.name == "variance" else drawn
        elif isinstance(value, float):
            size = rng.uniform(0.1, 0.6) if f.name.startswith("clip") else rng.uniform(0.3, 1.5)
            changes[f.name] = value if f.name in ("rate", "input", "recurrent", "output") else size
        elif dataclasses.is_dataclass(value) or isinstance(value, tuple):
            changes[f.name] = ordinary(value, rng)
    if isinstance(thing, LayerNorm | MatrixNorm | BatchNorm):
        changes["epsilon"] = rng.uniform(0.05, 0.5)
    if isinstance(thing, MatrixNorm | BatchNorm):
        changes["epsilon_outside"] = bool(rng.integers(2))
    if isinstance(thing, Masking):
        changes["value"] = 0.25
    return dataclasses.replace(thing, **changes)
