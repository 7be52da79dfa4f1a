"""The general path forward: every layer within its local bound, steps skipped and counted right."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from general_cases import draw, run, run_traced

from ifgo import engine, limits
from ifgo.activations import GATE_ACTIVATIONS, PARAMETERS, Activation
from ifgo.engine.general import General
from ifgo.engine.session import beyond_stages
from ifgo.engine.tables import ACTIVATIONS, OPERATIONS
from ifgo.errors import UnsupportedError, UsageError
from ifgo.model import (
    ActivationLayer,
    FeatureInput,
    Flatten,
    LastStep,
    LSTMCell,
    Masking,
    Model,
    Recurrent,
    RepeatVector,
)
from ifgo.program import require_steps
from ifgo.reference import truth
from ifgo.verification import bounds, compare
from ifgo.verification.global_bound import LARGEST_AMPLIFICATION, whole

pytestmark = pytest.mark.usefixtures("native")

ACCURACY = bounds.CONTRACTED
"""The functions are the exact ones, in C that may fuse products and sums: measured over every
float32."""

SEEDS = range(150)

HEADER = Path(__file__).parents[2] / "native" / "include" / "ifgo_engine.h"


def same(have: Any, want: Any) -> bool:
    """Equal bits, any NaN for any other."""
    return have.shape == want.shape and bool(
        ((have == want) | (have != have) & (want != want)).all()
    )


def test_every_layer_within_its_local_bound() -> None:
    """Random models over every option, weights and inputs of every size."""
    wrong, judged, parts = [], 0, set()
    for seed in SEEDS:
        one = draw(seed)
        model = one.model.astype(np.float32)
        with np.errstate(all="ignore"):
            y, state, traces = run_traced(model, one.x, one.start, one.lengths)
            findings = compare.traced_against_truth(model, traces, "engine", ACCURACY)
        wrong += [(seed, finding) for finding in findings if not finding.holds]
        judged += sum(finding.compared for finding in findings)
        parts |= {part.part for finding in findings for part in finding.parts}
        plain, end = run(model, one.x, one.start, one.lengths)
        if not same(plain, y) or not all(same(end[key], state[key]) for key in end):
            wrong.append((seed, "another result without traces"))
    assert wrong == []
    assert judged > 2 * len(SEEDS)
    assert parts == {*truth.TRACED, "y"}


def test_whole_models_within_their_global_bound() -> None:
    """What the local bounds do not see: where steps, states and layers come from and go to."""
    compared = 0
    for seed in SEEDS:
        one = draw(seed, tame=True)
        model = one.model.astype(np.float32)
        try:
            known = whole(model, one.x, one.start, ACCURACY)
        except UnsupportedError:
            continue
        if known.amplification >= LARGEST_AMPLIFICATION or not np.isfinite(known.bound):
            continue
        y, _ = run(model, one.x, one.start)
        assert np.abs(y - known.y).max() <= known.bound, seed
        compared += 1
    assert compared > len(SEEDS) / 4


def test_lengths_count_as_sequences_alone() -> None:
    """Each row of a batch with lengths has the bits of its own sequence, cut and run alone."""
    compared = 0
    for seed in SEEDS:
        one = draw(seed)
        if one.lengths is None:
            continue
        model = one.model.astype(np.float32)
        y, state = run(model, one.x, one.start, one.lengths)
        for row, length in enumerate(one.lengths):
            own = {key: array[:, row : row + 1] for key, array in one.start.items()}
            ends = {key: array[:, row : row + 1] for key, array in state.items()}
            if length == 0:
                first = next(iter(model.recurrent), None)
                if first is model.layers[0]:
                    assert not ends["h0"].any()
                    assert not ends["c0"].any()
                continue
            try:
                require_steps(General(model).form(lengths=False).program, length)
            except UnsupportedError:
                continue
            alone, end = run(model, one.x[row : row + 1, :length], own)
            if model.ends_in_vector:
                assert same(y[row : row + 1], alone), seed
            elif y.shape[1] == one.x.shape[1]:
                assert same(y[row : row + 1, :length], alone), seed
                outside = [layer for layer in model.layers if isinstance(layer, Recurrent)]
                if outside and model.layers[-1] is outside[-1]:
                    assert not y[row, length:].any()
            assert all(same(ends[key], end[key]) for key in end), seed
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("name", GATE_ACTIVATIONS)
def test_activations_over_their_range(name: str) -> None:
    """Dense grids of floats of both signs and every exponent."""
    activation = Activation(
        name, **{p: v for p, v in zip(PARAMETERS[name], (0.7, 1.3), strict=False)}
    )
    grid = np.arange(0, 0x7F800000, 65_521, dtype=np.uint32).view(np.float32)
    near = np.linspace(-20, 20, 200_001, dtype=np.float32)
    x = np.concatenate([grid, -grid, near])
    x = x[np.abs(x) < 1e38]
    model = Model((FeatureInput(1),), (ActivationLayer("a", activation), Masking("m", 1e30)))
    assert beyond_stages(model)
    y, _ = engine.Session(model).run(x[:, None, None])
    with np.errstate(over="ignore"):
        true = truth.activate(activation, x.astype(np.float64))
        zero = np.zeros(x.shape)
        allowed = bounds.activation_bound(activation, x.astype(np.float64), true, zero, ACCURACY)
    assert (np.abs(y[:, 0, 0] - true) <= allowed).all()


def test_the_tables_name_what_the_header_names() -> None:
    """In the same order, so that a number means the same on both sides."""
    names = [f"IFGO_OP_{name.upper()}" for name in OPERATIONS]
    functions = [f"IFGO_ACT_{name.upper()}" for name in ACTIVATIONS]
    found = re.findall(r"^    (IFGO_(?:OP|ACT)_\w+),", HEADER.read_text(), re.MULTILINE)
    assert found == names + functions


def cell(rng: Any, inputs: int, hidden: int, **options: Any) -> LSTMCell:
    rows = 4 * hidden
    arrays = [rng.normal(size=shape) for shape in ((rows, inputs), (rows, hidden), rows)]
    return LSTMCell(*(array.astype(np.float32) for array in arrays), **options)


def masked(seed: int = 0) -> Model:
    rng = np.random.default_rng(seed)
    return Model((FeatureInput(3),), (Masking("m"), Recurrent("r", cell(rng, 3, 17))))


def test_rows_do_not_depend_on_each_other() -> None:
    model, rng = masked(), np.random.default_rng(1)
    x = rng.normal(size=(33, 9, 3)).astype(np.float32)
    session = engine.Session(model)
    together, _ = session.run(x)
    for row in range(0, 33, 8):
        alone, _ = session.run(x[row])
        assert same(alone, together[row])


def test_a_session_takes_batches_of_every_size_in_turn() -> None:
    model, rng = masked(), np.random.default_rng(1)
    session = engine.Session(model)
    for shape in ((2, 5, 3), (7, 1, 3), (1, 30, 3), (2, 5, 3)):
        x = rng.normal(size=shape).astype(np.float32)
        again, end = engine.Session(model).run(x)
        y, state = session.run(x)
        assert same(y, again)
        assert all(same(state[key], end[key]) for key in end)


def test_denormals_keep_their_values() -> None:
    """A feature of 1e-40 is none that Masking skips, whatever another library set in the FPU."""
    x = np.full((1, 2, 3), 1e-40, np.float32)
    y, _ = engine.Session(masked()).run(x)
    assert y.all()


def test_batches_beyond_memory_are_refused() -> None:
    layers = (*masked().layers, LastStep("l"), RepeatVector("v", limits.current().steps))
    with pytest.raises(UsageError) as caught:
        engine.Session(Model((FeatureInput(3),), layers)).run(np.zeros((64, 2, 3)))
    assert str(caught.value) == (
        "x has 64 sequences of 2 steps, more than memory holds at once. "
        "Pass fewer sequences or shorter windows per call"
    )


def test_a_flatten_that_gets_other_steps_is_refused() -> None:
    model = Model((FeatureInput(3),), (Masking("m"), Flatten("f", 4)))
    with pytest.raises(UnsupportedError) as caught:
        engine.Session(model).run(np.zeros((1, 5, 3)))
    assert str(caught.value) == (
        "x has 5 steps, expected exactly 4, the number a Flatten layer takes"
    )


def test_weights_beyond_float32_are_refused() -> None:
    fine = LSTMCell(np.full((4, 1), 0.1), np.ones((4, 1)))
    model = Model((FeatureInput(1),), (Masking("m"), Recurrent("r", fine)))
    with pytest.raises(UnsupportedError) as caught:
        engine.Session(model)
    assert str(caught.value) == (
        "layer r, forward, weight_ih: 4 of 4 float64 weights are no float32 values. "
        "Round them once and knowingly: ifgo convert SRC DST --to-dtype float32 "
        "--allow-lossy dtype (model.astype('float32') in Python)"
    )


def test_a_constant_beyond_float32_is_refused() -> None:
    gates = (Activation("scaled_tanh", 1e300, 1.0), Activation("tanh"), Activation("tanh"))
    model = Model(
        (FeatureInput(1),),
        (Recurrent("r", cell(np.random.default_rng(0), 1, 2, activations=gates)),),
    )
    with pytest.raises(UnsupportedError) as caught:
        engine.Session(model)
    assert str(caught.value) == (
        "a parameter of activation scaled_tanh(1e+300, 1) is 1e+300, which is inf in float32, "
        "expected a value that float32 can hold. Run the model on truth instead"
    )


def test_threads_share_a_session() -> None:
    rng = np.random.default_rng(3)
    session = engine.Session(masked())
    xs = [rng.normal(size=(3, 6, 3)).astype(np.float32) for _ in range(16)]
    want = [session.run(x)[0] for x in xs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: session.run(x)[0], xs))
    assert all(same(a, b) for a, b in zip(found, want, strict=True))
