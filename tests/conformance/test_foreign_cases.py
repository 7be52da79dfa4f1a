"""Every case on ONNX Runtime and PyTorch: within its local bounds, or refused by name."""

from __future__ import annotations

import pytest
from conformance_cases import CASES, Case, Draw

from ifgo.verification import verify

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@by_name
def test_every_case_that_onnx_holds_lies_within_its_bounds(case: Case) -> None:
    model = case.make(Draw(3))
    rows = [f for f in verify(model, against=("onnxruntime",)).findings if f.judge == "truth"]
    rows = [f for f in rows if f.runtime == "onnxruntime"]
    assert [f for f in rows if not f.holds] == []
    for layer in model.recurrent:
        for row in (f for f in rows if f.layer == layer.name):
            seen = {p.part for p in row.parts}
            refused = row.note.startswith("ONNX cannot hold ")
            assert refused if not row.compared else seen >= {"c", "h", "Y", "Y_h", "Y_c"}
        assert sum(f.layer == layer.name for f in rows) == layer.directions


@pytest.mark.peers
@by_name
def test_every_case_that_torch_computes_lies_within_its_bounds(case: Case) -> None:
    model = case.make(Draw(3))
    rows = [f for f in verify(model, against=("torch",)).findings if f.runtime == "torch"]
    assert len(rows) == sum(layer.directions for layer in model.recurrent)
    assert [f for f in rows if not f.holds] == []
    assert all(f.compared or f.note.startswith("nn.LSTM cannot compute it: ") for f in rows)
