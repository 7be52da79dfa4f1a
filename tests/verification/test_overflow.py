"""Where no bound holds, because float32 or the bound itself overflows: said, and judged neither
right nor wrong; what has a bound is judged as ever."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ifgo.activations import Activation
from ifgo.model import Dense, FeatureInput, LSTMCell, Model, Recurrent
from ifgo.reference import truth
from ifgo.verification import Finding, Verification, bounds, verify
from ifgo.verification.foreign import Whole, judge, subjects

RELU, SIGMOID = Activation("relu"), Activation("sigmoid")


def growing() -> Model:
    """A row whose first x is 1 has the sum 10^(6t) in gate g at step t; a row of zeros stays 0."""
    weight = np.zeros((8, 1), np.float32)
    weight[4:6] = 1.0
    recurrent = np.zeros((8, 2), np.float32)
    recurrent[4:6] = np.eye(2) * 4e6
    cell = LSTMCell(weight, recurrent, activations=(SIGMOID, RELU, RELU))
    return Model((FeatureInput(1),), (Recurrent("a", cell),))


def one_row_overflows() -> Any:
    x = np.zeros((2, 12, 1), np.float32)
    x[1, 0] = 1.0
    return x


def named(found: Verification, runtime: str, layer: str) -> Finding:
    (row,) = (f for f in found.findings if (f.runtime, f.layer) == (runtime, layer))
    return row


OVERFLOWS = (
    "the network may overflow float32 at step 7, row 1: nothing is judged from there in such a row"
)


def test_a_network_that_overflows_float32_is_named_and_nobody_blamed(cc: str) -> None:
    """Warnings are errors here: none of NumPy's gets out."""
    found = verify(growing(), one_row_overflows(), against=("c99", "onnxruntime"))
    assert [f.where for f in found.findings if not f.holds] == []
    assert named(found, "exact", "a").note == OVERFLOWS
    assert OVERFLOWS in named(found, "onnxruntime", "a").note
    assert named(found, "c99", "output and final state").verdict == "EXACT"
    whole = named(found, "onnxruntime", "whole graph")
    assert (whole.verdict, whole.note) == (
        "not compared",
        "no global bound: the network may overflow float32",
    )


def test_an_output_that_overflows_is_said_to_be_unjudged() -> None:
    cell = LSTMCell(np.ones((8, 1), np.float32), np.ones((8, 2), np.float32))
    dense = Dense("d", np.full((1, 2), 3e38, np.float32))
    model = Model((FeatureInput(1),), (Recurrent("a", cell), dense))
    found = verify(model, one_row_overflows(), against=("onnxruntime",))
    assert found.ok
    assert named(found, "onnxruntime", "output").note.endswith(
        "not judged where float32 may overflow, first at step 0, row 1"
    )
    assert named(found, "onnxruntime", "whole graph").note == (
        "no global bound: the network may overflow float32"
    )


def test_a_difference_before_the_overflow_and_in_other_rows_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ifgo.verification import compare

    model, x = growing(), one_row_overflows()
    right = compare.observed
    for row, step in ((1, 4), (0, 11)):

        def wrong(*given: Any, row: int = row, step: int = step) -> Any:
            for subject, layer, trace in right(*given):
                h = trace["h"].copy()
                h[row, step] += 1 + abs(h[row, step])
                yield subject, layer, {**trace, "h": h}

        monkeypatch.setattr(compare, "observed", wrong)
        first = verify(model, x, against=()).first
        assert first is not None
        assert (first.part, first.step, first.row) == ("h", step, row)


def test_a_layer_that_overflows_throughout_is_not_compared() -> None:
    dense = Dense("d", np.full((1, 1), 3e38, np.float32), activation=Activation("linear"))
    x = np.full((1, 2, 1), 9.0, np.float32)
    (row,) = verify(Model((FeatureInput(1),), (dense,)), x, against=()).findings
    assert (row.verdict, row.note) == (
        "not compared",
        OVERFLOWS.replace("step 7, row 1", "step 0, row 0"),
    )


# -- a bound that overflows -------------------------------------------------------------------

STEPS = 12


def jumping(position: int = STEPS - 1, off: float = 0.0) -> Finding:
    """A sound runtime, its Y off at one step, of a layer whose c is carried under a bound that
    passes float64's range while c itself is 0: the factor of f·δc is the size of f."""
    big = Activation("affine", 1.0, 1e30)
    rows = np.zeros((4, 1), np.float32)
    cell = LSTMCell(rows, rows, activations=(big, Activation("thresholded_relu", 1.0), RELU))
    layer = Recurrent("a", cell)
    model = Model((FeatureInput(1),), (layer,))
    x = np.zeros((1, STEPS, 1))
    trace = truth.forward(model, x).traces["a"]["forward"]
    zero = np.zeros((1, STEPS, 1))
    traces = {"forward": {**trace, "x": x, "h_before": zero, "c_before": zero}}
    y = np.zeros((1, STEPS, 1, 1))
    y[0, position] += off

    def run(x: Any, h: Any, c: Any) -> Whole:
        return Whole(x, np.zeros((len(x), 1, 1, 1)), np.zeros_like(h), np.zeros_like(c))

    start = (np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))
    whole = Whole(x, y, np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))
    (found,) = judge(
        layer, subjects(model, layer, "other"), traces, start, run, whole, bounds.LIBM
    ).findings
    return found


NO_BOUND = "Y, Y_h, Y_c: no bound from step 10, row 0, not judged there"


@pytest.mark.parametrize("off", [0.0, 5.0])
def test_under_a_bound_that_overflows_nothing_is_judged_and_that_is_said(off: float) -> None:
    found = jumping(off=off)
    assert (found.verdict, found.note) == ("within local bound", NO_BOUND)
    assert all(np.isfinite((part.difference, part.bound, part.used)).all() for part in found.parts)


def test_a_difference_where_there_still_is_a_bound_fails() -> None:
    found = jumping(0, 1e16)
    assert (found.verdict, found.place) == ("OUT OF local bound", "Y, step 0, row 0, unit 0")
    assert found.note == NO_BOUND
