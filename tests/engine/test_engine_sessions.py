"""Sessions: every size on every instruction set, threads that share one, shapes drawn at random."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from core_cases import cell, chain, dense, lstm, refused

from ifgo import states
from ifgo.engine import Session
from ifgo.errors import UsageError
from ifgo.model import LastStep, Recurrent
from ifgo.verification import bounds
from ifgo.verification.global_bound import whole

SCRIPT = Path(__file__).with_name("engine_sizes.py")
CALLS = 1_000_000 if os.environ.get("IFGO_SLOW") else 2000


def test_every_size_on_every_instruction_set(native):
    for isa in native.isas():
        done = subprocess.run(
            [sys.executable, SCRIPT],
            env={**os.environ, "IFGO_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout.strip()) == (0, isa), done.stderr


def both_ways(rng, hidden, inputs, output=None):
    cells = [cell(inputs, hidden, output), cell(inputs, hidden, output)]
    return Recurrent("a", *cells, merge=rng.choice(["concat", "sum", "mul", "ave"]))


@pytest.mark.parametrize("hidden", [5, 33, 70])
def test_bits_do_not_depend_on_the_number_of_threads(hidden, native):
    rng = np.random.default_rng(hidden)
    model = chain(both_ways(rng, hidden, 9), size=9)
    x = rng.normal(size=(7, 11, 9)).astype(np.float32)
    lengths = rng.integers(0, 12, 7)
    alone, final = Session(model, threads=1).run(x, lengths=lengths)
    for threads in (2, 3, 8):
        y, state = Session(model, threads=threads).run(x, lengths=lengths)
        assert y.tobytes() == alone.tobytes()
        assert {k: v.tobytes() for k, v in state.items()} == {
            k: v.tobytes() for k, v in final.items()
        }


def test_threads_share_a_session(native):
    rng = np.random.default_rng(1)
    session = Session(chain(lstm("a", 3, 40), lstm("b", 40, 20), dense("d", 20), size=3))
    given = [rng.normal(size=(n % 5 + 1, n % 7 + 1, 3)).astype(np.float32) for n in range(40)]
    wanted = [session.run(x)[0].tobytes() for x in given]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert [y.tobytes() for y, _ in pool.map(session.run, given)] == wanted


def test_shapes_drawn_at_random(native):
    """Nothing crashes, nothing is not finite, a sequence's own length decides its output."""
    rng = np.random.default_rng(2)
    sessions = []
    for _ in range(40):
        hidden, inputs = (int(rng.integers(1, 40)) for _ in range(2))
        output = int(rng.integers(1, hidden + 1)) if rng.random() < 0.3 else None
        layers = [both_ways(rng, hidden, inputs, output)]
        layers += [LastStep("last", "state")] if rng.random() < 0.3 else []
        sessions.append((Session(chain(*layers, size=inputs)), inputs, len(layers) == 1))
    for _ in range(CALLS):
        session, inputs, is_sequence = sessions[rng.integers(len(sessions))]
        batch, steps = (int(rng.integers(1, 9)) for _ in range(2))
        x = rng.normal(size=(batch, steps, inputs)).astype(np.float32)
        lengths = rng.integers(0, steps + 1, batch) if rng.random() < 0.5 else None
        y, state = session.run(x, lengths=lengths)
        assert np.isfinite(y).all()
        assert all(np.isfinite(part).all() for part in state.values())
        if lengths is not None and is_sequence:
            padding = np.arange(steps)[None, :] >= lengths[:, None]
            assert not y[padding].any()


def test_a_row_alone_lies_within_the_bound_of_both(native):
    """A whole network's bound from truth, once for each (SPEC.md 6.2)."""
    rng = np.random.default_rng(3)
    weights = cell(9, 33)
    small = replace(weights, weight_hh=weights.weight_hh * np.float32(0.02))
    model = chain(Recurrent("a", small), size=9)
    session = Session(model)
    x = rng.normal(size=(6, 4, 9)).astype(np.float32)
    together, _ = session.run(x)
    alone = np.concatenate([session.run(row[None])[0] for row in x])
    known = whole(model, x, states.initial(model, 6, np.float32), bounds.ENGINE)
    assert known.bound < 1e-3
    assert np.abs(together - alone).max() <= 2 * known.bound


def test_another_precision(native):
    with refused(UsageError, "unknown precision 'int8', expected float32"):
        Session(chain(lstm()), precision="int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, 65])
def test_threads_out_of_range(threads, native):
    with refused(UsageError, f"threads is {threads}, expected 1 to 64, or None"):
        Session(chain(lstm()), threads=threads)
