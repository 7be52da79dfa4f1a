"""Every case on every backend: emitted C has the interpreter's bits, the interpreter lies within
its local bound of float64 truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance_cases import CASES, Case, Draw
from glue import glued

from ifgo import states
from ifgo.lower import lower
from ifgo.model import Model, TokenInput
from ifgo.reference.interpret import execute
from ifgo.targets import c99
from ifgo.verification import compare

TAIL = 2000
"""Zero steps after the signal: long enough for a decaying state to pass the denormals."""

FLAGS: dict[str, tuple[str, ...]] = {
    "O0": ("-std=c99", "-O0", *c99.STRICT_FLAGS),
    "O2": ("-std=c99", "-O2", *c99.STRICT_FLAGS),
    "O3-native": ("-std=c99", "-O3", "-march=native", *c99.STRICT_FLAGS),
    "O3-without-our-flags": ("-O3",),
    "O3-native-without-our-flags": ("-O3", "-march=native"),
}

STREAMABLE = [
    case for case in CASES if case.make(Draw(2)).streamable and case.name != "embedding_mask_zero"
]
"""The others need whole sequences and cannot be cut into calls. A call that begins with a masked
step puts out zeros, not what the call before put out, and the one excluded by name does."""

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def inputs(case: Case, model: Model) -> Iterator[tuple[str, Any]]:
    """Named inputs (B, T, I): ordinary, one step, saturating, and with the zero tail."""
    random = np.random.default_rng(7)
    if isinstance(model.input, TokenInput):
        yield "ordinary", random.integers(0, model.input.vocabulary, (3, 9)).astype(np.int32)
        yield "one step", random.integers(0, model.input.vocabulary, (2, 1)).astype(np.int32)
        return
    size = model.input_size
    ordinary = random.normal(size=(3, 9, size)).astype(np.float32)
    ordinary[0, [0, 3]] = ordinary[1, 8] = 0.0
    yield "ordinary", ordinary
    yield "one step", random.normal(size=(2, 1, size)).astype(np.float32)
    large = np.float32(1e4 if case.bounded else 3.0)
    yield "saturating", ordinary * large
    tail = np.zeros((1, 12 + TAIL, size), dtype=np.float32)
    tail[:, :12] = random.normal(size=(1, 12, size))
    yield "zero tail", tail


def bits(array: Any) -> Any:
    """Float32 as integers, every NaN alike (its pattern is outside the promise)."""
    whole = np.ascontiguousarray(array, dtype=np.float32)
    return np.where(np.isnan(whole), np.uint32(0x7FC00000), whole.view(np.uint32))


def start_of(model: Model, batch: int) -> states.State:
    """A state that is nowhere zero."""
    random = np.random.default_rng(11)
    return {
        key: (random.normal(size=shape) * 0.3).astype(np.float32)
        for key, shape in states.shapes(model, batch).items()
    }


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, str], Any]:
    """Interpreter results by case and input, computed once."""
    return {}


def reference(
    cache: dict[tuple[str, str], Any], case: Case, model: Model, label: str, x: Any
) -> Any:
    key = (case.name, label)
    if key not in cache:
        cache[key] = execute(lower(model), x, start_of(model, x.shape[0]))
    return cache[key]


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@by_name
def test_c99_has_the_interpreters_bits(
    case: Case,
    flags: tuple[str, ...],
    compiler: str,
    expected: dict[tuple[str, str], Any],
    tmp_path: Path,
) -> None:
    model = case.make(Draw(1))
    built = c99.build(model, tmp_path, compiler=compiler, flags=flags, max_steps=12 + TAIL)
    for label, x in inputs(case, model):
        want = reference(expected, case, model, label, x)
        y, final, _ = built.run(x, start_of(model, x.shape[0]))
        assert (bits(y) == bits(want.y)).all(), label
        for key in want.state:
            assert (bits(final[key]) == bits(want.state[key])).all(), (label, key)


def lengths_of(batch: int, steps: int) -> Any:
    """Whole, empty, and something between."""
    return np.array([steps, 0, steps // 2, 1][:batch])


@by_name
def test_truths_way_through_time_leads_to_the_interpreters_bits(case: Case) -> None:
    model = case.make(Draw(1))
    for label, x in inputs(case, model):
        for lengths in (None, lengths_of(*x.shape[:2])) if label != "zero tail" else ():
            program = lower(model, lengths=lengths is not None)
            start = start_of(model, x.shape[0])
            have, want = execute(program, x, start, lengths), glued(model, x, start, lengths)
            assert (bits(have.y) == bits(want.y)).all(), label
            for key in want.state:
                assert (bits(have.state[key]) == bits(want.state[key])).all(), (label, key)


@by_name
def test_c99_keeps_lengths(case: Case, cc: str, tmp_path: Path) -> None:
    model = case.make(Draw(1))
    built = c99.build(model, tmp_path, compiler=cc, flags=FLAGS["O2"], max_steps=9, lengths=True)
    for label, x in list(inputs(case, model))[:2]:
        start, lengths = start_of(model, x.shape[0]), lengths_of(*x.shape[:2])
        for given in (None, lengths):
            want = execute(built.emitted.program, x, start, given)
            y, final, _ = built.run(x, start, given)
            assert (bits(y) == bits(want.y)).all(), label
            for key in want.state:
                assert (bits(final[key]) == bits(want.state[key])).all(), (label, key)


@pytest.mark.parametrize("case", STREAMABLE, ids=lambda case: case.name)
def test_two_calls_with_carried_state_are_one_call(case: Case, cc: str, tmp_path: Path) -> None:
    model = case.make(Draw(2))
    _, x = next(inputs(case, model))
    start = start_of(model, x.shape[0])
    whole = execute(lower(model), x, start)
    built = c99.build(model, tmp_path, compiler=cc)
    for run in (lambda part, state: execute(lower(model), part, state), None):
        carried, pieces = start, []
        for part in (x[:, :4], x[:, 4:5], x[:, 5:]):
            if run is not None:
                done = run(part, carried)
                y, carried = done.y, done.state
            else:
                y, carried, _ = built.run(part, carried)
            pieces.append(y)
        end = pieces[-1] if model.ends_in_vector else np.concatenate(pieces, axis=1)
        assert (bits(end) == bits(whole.y)).all()
        for key in whole.state:
            assert (bits(carried[key]) == bits(whole.state[key])).all()


@by_name
def test_traced_c99_shows_the_interpreters_intermediates(case: Case, cc: str) -> None:
    model = case.make(Draw(3))
    _, x = next(inputs(case, model))
    start = start_of(model, x.shape[0])
    done = execute(lower(model), x, start, trace=True)
    findings = compare.c99_against_exact(model, x, start, done)
    assert [f for f in findings if not f.holds] == []
    assert {f.layer.split()[0] for f in findings} >= set(done.traces)


@by_name
def test_interpreter_lies_within_its_local_bound_of_truth(case: Case) -> None:
    model = case.make(Draw(4))
    for label, x in inputs(case, model):
        if label == "zero tail":
            continue
        start = start_of(model, x.shape[0])
        done = execute(lower(model), x, start, trace=True)
        findings = compare.traced_against_truth(model, done.traces)
        assert [f for f in findings if not f.holds] == [], label
        assert all(f.compared for f in findings), label


def test_the_decaying_case_does_pass_the_denormals() -> None:
    case = next(case for case in CASES if case.name == "decaying")
    model = case.make(Draw(1))
    x = dict(inputs(case, model))["zero tail"]
    done = execute(lower(model), x, start_of(model, 1), trace=True)
    c = np.abs(done.traces["r"]["forward"]["c"])
    assert ((c > 0) & (c < np.finfo(np.float32).tiny)).any()
