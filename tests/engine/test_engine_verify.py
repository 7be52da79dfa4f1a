"""The engine under verification: judged against truth, and found out where it errs."""

from __future__ import annotations

import numpy as np
import pytest
from core_cases import cell, chain, dense, lstm, refused, weights

from ifgo import backends, verify
from ifgo.activations import SOFTMAX, TANH
from ifgo.errors import UsageError
from ifgo.model import (
    ActivationLayer,
    BatchNorm,
    Dense,
    InitialState,
    LastStep,
    Recurrent,
    Residual,
    Scale,
)

MODELS = {
    "stream": chain(lstm(), dense()),
    "options": chain(
        Recurrent("a", cell(clip_z=0.8, peephole=weights(9, 3, 3)), go_backwards=True),
        Recurrent("b", cell(3, 5, 2, coupling="f=1-i"), cell(3, 5, 2), merge="mul"),
    ),
    "initial": chain(lstm(initial=InitialState("constant", weights(5, 1, 3), weights(6, 1, 3)))),
    "between": chain(
        Scale("scale", weights(1, 2), weights(2, 2)),
        Residual("skip", (lstm(), BatchNorm("bn", weights(3, 3), weights(4, 3) ** 2)), 2),
        ActivationLayer("tanh", TANH),
        Recurrent("two", cell(3), cell(3), merge="ave"),
        LastStep("last", "state"),
        Dense("d", weights(4, 4, 3), weights(5, 4), SOFTMAX),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_holds(name, native):
    model = MODELS[name]
    found = verify(model, against=["engine"])
    assert found.ok, str(found)
    ours = [finding for finding in found.findings if finding.runtime == "engine"]
    exact = [finding for finding in found.findings if finding.runtime == "exact"]
    assert [finding.layer for finding in ours[:-1]] != []
    assert {f.layer for f in ours} == {f.layer for f in exact} | {"whole model"}
    assert all(finding.compared for finding in ours)


@pytest.mark.parametrize("part", ["y", "h0"])
def test_an_error_is_found(part, native, monkeypatch):
    real = backends.backend("engine")

    def wrong(model, x, state, lengths):
        y, final = real(model, x, state, lengths)
        if part == "y":
            return y + np.float32(2e-5), final
        return y, {key: array + np.float32(2e-5) for key, array in final.items()}

    monkeypatch.setattr(backends, "backend", lambda on: wrong)
    found = verify(MODELS["stream"], against=["engine"])
    assert not found.ok
    assert {f.layer for f in found.findings if not f.holds} >= {"lstm"}


def test_lengths_are_refused(native):
    with refused(
        UsageError,
        "engine with lengths, expected c99, which alone is compared with lengths. "
        "Leave the lengths out, or compare each length by itself",
    ):
        verify(MODELS["stream"], against=["engine"], lengths=[3, 4])
