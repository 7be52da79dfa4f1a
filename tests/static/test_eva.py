"""Proofs about the emitted C by abstract interpretation (Frama-C Eva), for whole ranges at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from eva_harness import Verdict, analyse, annotated, harness
from static_cases import both_directions, conformance, every_clip, require, two_layers

from ifgo.model import Model
from ifgo.targets import c99

MODELS: dict[str, Callable[[], Model]] = {
    "two_layers": two_layers,
    "every_clip": every_clip,
    "both_directions": both_directions,
}

by_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@pytest.fixture(autouse=True)
def _frama_c() -> None:
    require("frama-c")


def prove(
    model: Model, folder: Path, *, finite: bool, seed: tuple[str, str] | None = None
) -> Verdict:
    """Emit, annotate and analyse; seed: a text of model.c and what to put in its first place."""
    emitted = c99.emit(model, max_steps=None if model.streamable else 3)
    source = annotated(emitted.files["model.c"])
    if seed is not None:
        assert seed[0] in source
        source = source.replace(*seed, 1)
    (folder / "model.h").write_text(emitted.files["model.h"])
    (folder / "model.c").write_text(source)
    (folder / "harness.c").write_text(harness(model, emitted, finite=finite))
    return analyse(folder, finite=finite)


@by_model
def test_no_undefined_behaviour_and_nothing_infinite(
    make: Callable[[], Model], tmp_path: Path
) -> None:
    """For |h| <= 1, |c| <= 1000, |x| <= 100; |h| <= 1 holds after the call again."""
    found = prove(make(), tmp_path, finite=True)
    assert found.alarms == {}, found.log
    assert found.reached
    assert (found.proved, found.unproved) == (6, set())


@by_model
def test_no_undefined_behaviour_whatever_the_bits(
    make: Callable[[], Model], tmp_path: Path
) -> None:
    """Every pattern in state and input, NaN and infinities included."""
    found = prove(make(), tmp_path, finite=False)
    assert found.alarms == {}, found.log
    assert found.reached
    assert (found.proved, found.unproved) == (4, {"compared"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["coupling_f", "masking_repeats", "residual", "scaled_tanh", "stacked_16_16_16_dense"],
)
def test_conformance_cases_are_proved_too(name: str, tmp_path: Path) -> None:
    for finite, proved, given in ((True, 6, set()), (False, 4, {"compared"})):
        found = prove(conformance(name), tmp_path, finite=finite)
        assert found.alarms == {}, found.log
        assert found.reached
        assert (found.proved, found.unproved) == (proved, given)


@pytest.mark.parametrize("name", ["layer_norm", "dense_softmax"])
def test_what_divides_by_a_sum_is_not_proved_finite(name: str, tmp_path: Path) -> None:
    """DEVIATIONS.md says so; intervals do not see that the divisor is not 0."""
    assert prove(conformance(name), tmp_path, finite=True).alarms


# -- a wrong program is not proved ------------------------------------------------------------

SEEDS = {
    "a column too many": (
        "for (k = 0; k < nx; ++k)",
        "for (k = 0; k <= nx; ++k)",
        "invalid memory access",
    ),
    "a row too many": (
        "j < 5u; ++j) {\n        const float v0 = m[j]",
        "j <= 5u; ++j) {\n        const float v0 = m[j]",
        "access out of bounds index",
    ),
    "a stride too long": ("w += 8", "w += 9", "invalid memory access"),
    "no value": ("int32_t n;", "int32_t n; n = n;", "access to uninitialized left-value"),
    "a limit too high": ("a < 10.0f", "a < 100.0f", "nan or infinite floating-point value"),
    "a pole": ("/ (v + 1.0f)", "/ (v - 4.0f)", "nan or infinite floating-point value"),
}
"""Name → the text of model.c, what takes its place, the kind of alarm it must raise."""


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
def test_a_seeded_bug_raises_an_alarm(seed: tuple[str, str, str], tmp_path: Path) -> None:
    text, bug, kind = seed
    found = prove(two_layers(), tmp_path, finite=True, seed=(text, bug))
    assert any(alarm.startswith(kind) for alarm in found.alarms), found.alarms


def test_an_output_past_its_range_is_noticed(tmp_path: Path) -> None:
    """Finite and well defined, but |h| <= 1 is lost."""
    seed = ("return 0.5f + 0.5f * model_tanh", "return 0.5f + 0.6f * model_tanh")
    found = prove(two_layers(), tmp_path, finite=True, seed=seed)
    assert found.alarms == {}
    assert found.unproved == {"bounded"}
