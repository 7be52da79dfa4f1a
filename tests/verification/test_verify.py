"""verify passes what is right, and notices what is wrong: gate orders, weights, single bits."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ifgo
from ifgo import gates, lower_cell
from ifgo.errors import ToolError, UsageError
from ifgo.model import (
    Dense,
    FeatureInput,
    LastStep,
    LSTMCell,
    Model,
    Output,
    Provenance,
    Recurrent,
)
from ifgo.targets.c99 import packing
from ifgo.verification import Finding, Verification, onnx_runtime, verify

WRONG_ORDERS = ["".join(p) for p in permutations("ifgo")][1:]


def draw(seed: int) -> Any:
    random = np.random.default_rng(seed)
    return lambda *shape: (random.normal(size=shape) * 0.5).astype(np.float32)


def reordered(cell: LSTMCell, order: str) -> LSTMCell:
    """The cell as a reader would build it who takes `order` for the canonical one."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    arrays = {n: gates.reorder(getattr(cell, n), order, "ifgo") for n in names}
    return replace(cell, **arrays)


def small(seed: int = 3) -> Model:
    d = draw(seed)
    return Model(
        (FeatureInput(2),),
        (
            Recurrent("a", LSTMCell(d(20, 2), d(20, 5), d(20), d(20))),
            LastStep("last"),
            Dense("y", d(3, 5), d(3)),
        ),
    )


def test_a_sound_model_passes_everywhere() -> None:
    found = verify(small(), against=("c99", "onnxruntime"))
    assert found.ok
    verdicts = {(f.runtime, f.layer): f.verdict for f in found.findings}
    assert verdicts == {
        ("exact", "a"): "within local bound",
        ("exact", "y"): "within local bound",
        ("c99", "a"): "EXACT",
        ("c99", "y"): "EXACT",
        ("c99", "output and final state"): "EXACT",
        ("onnxruntime", "a"): "within local bound",
        ("onnxruntime", "output"): "within local bound",
        ("onnxruntime", "whole graph"): "within global bound",
    }
    text = str(found)
    assert text.endswith("PASS: 2 sequence(s) of 32 steps")
    assert found.to_dict()["ok"] is True


@pytest.mark.parametrize("order", WRONG_ORDERS)
def test_each_wrong_gate_order_in_the_lowering_is_noticed(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = lower_cell.folded_cell

    def wrong(cell: LSTMCell, where: str) -> Any:
        return right(reordered(cell, order), where)

    monkeypatch.setattr(lower_cell, "folded_cell", wrong)
    found = verify(small(), against=())
    assert not found.ok
    bad = next(f for f in found.findings if not f.holds)
    assert (bad.runtime, bad.layer, bad.verdict) == ("exact", "a", "OUT OF local bound")


@pytest.mark.parametrize("order", WRONG_ORDERS)
def test_each_wrong_gate_order_in_a_reader_is_noticed(order: str, tmp_path: Path) -> None:
    """The file is right, the model read from it is not: running the file itself shows it."""
    right = small()
    ifgo.save(right, tmp_path / "right.onnx")
    (cell,) = (layer.cell for layer in right.recurrent)
    layers = (replace(right.recurrent[0], forward=reordered(cell, order)), *right.layers[1:])
    source = ifgo.load(tmp_path / "right.onnx")
    misread = replace(source, layers=layers)
    found = verify(misread, against=("onnxruntime",))
    assert [(f.layer, f.cause) for f in found.ranked if not f.holds] == [
        ("a", "own"),
        ("whole graph", "inherited"),
    ]
    moved = next(ours for ours, theirs in zip("ifgo", order, strict=True) if ours != theirs)
    assert found.first is not None
    assert (found.first.part, found.first.step) == (f"z_{moved}", 0)


@pytest.mark.parametrize("order", WRONG_ORDERS)
def test_each_wrong_gate_order_in_the_emitted_c_is_noticed(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = packing.pack

    def wrong(matrices: list[Any]) -> Any:
        moved = [gates.reorder(m, order, "ifgo") if m.shape[0] == 20 else m for m in matrices]
        return right(moved)

    monkeypatch.setattr(packing, "pack", wrong)
    found = verify(small(), against=("c99",))
    bad = next(f for f in found.findings if not f.holds)
    assert (bad.layer, bad.step, bad.verdict) == ("a", 0, "DIFFERS")
    assert bad.part.startswith("z_")


def test_one_changed_bit_of_one_weight_is_located(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last weight of the packed matrix: gate o of unit 4, whose h arrives at step 1."""
    right = packing.pack

    def wrong(matrices: list[Any]) -> Any:
        packed = right(matrices).copy()
        if matrices[0].shape[0] == 20:
            packed[-1:].view(np.uint32)[0] ^= 1 << 20
        return packed

    monkeypatch.setattr(packing, "pack", wrong)
    x = np.random.default_rng(1).normal(size=(1, 6, 2)).astype(np.float32)
    bad = next(f for f in verify(small(), x).findings if not f.holds)
    assert (bad.runtime, bad.layer, bad.part, bad.step, bad.unit) == ("c99", "a", "z_o", 1, 4)


def test_what_onnx_cannot_hold_is_said_and_fails_only_where_nothing_was_compared() -> None:
    d = draw(5)
    cell = LSTMCell(d(20, 2), d(20, 3), d(20), d(20), weight_hr=d(3, 5))
    found = verify(Model((FeatureInput(2),), (Recurrent("a", cell),)), against=("onnxruntime",))
    rows = [f for f in found.findings if f.runtime == "onnxruntime"]
    assert rows
    assert all(f.verdict == "not compared" for f in rows)
    assert {f.note for f in rows} == {"ONNX cannot hold layer a: a projection (proj_size)"}
    assert not found.ok


def test_a_net_of_high_amplification_is_reported_not_asserted() -> None:
    d = draw(6)
    cell = LSTMCell(30 * d(20, 2), 30 * d(20, 5), d(20), d(20))
    model = Model((FeatureInput(2),), (Recurrent("a", cell),))
    x = np.random.default_rng(2).normal(size=(2, 60, 2)).astype(np.float32) * 0.05
    assert onnx_runtime.amplification(model, x, initial(model, 2)) >= 100
    found = verify(model, x, against=("onnxruntime",))
    whole = found.findings[-1]
    assert whole.verdict == "not compared"
    assert "reported only" in whole.note
    assert found.ok


def initial(model: Model, batch: int) -> Any:
    from ifgo import states

    return states.initial(model, batch, np.float32)


def test_time_first_and_two_outputs_run_in_their_own_layout(tmp_path: Path) -> None:
    base = small()
    model = replace(
        base,
        inputs=(FeatureInput(2, axes="TB"),),
        layers=base.layers[:1],
        outputs=(Output("sequence", axes="TB"), Output("h_n", "h", ("a",))),
        provenance=Provenance(),
    )
    ifgo.save(model, tmp_path / "m.onnx")
    found = verify(tmp_path / "m.onnx", against=("onnxruntime",))
    assert found.ok
    assert found.findings[-1].verdict == "within global bound"


KNOWN = "engine, c99, c99:contracted, onnxruntime, torch, qemu:BOARD, qemu:BOARD:contracted"


@pytest.mark.parametrize(
    ("against", "message"),
    [
        (("tract",), f"unknown runtime 'tract', expected one of {KNOWN}"),
        (
            "c99",
            f"against is the string 'c99', expected a list of names of {KNOWN}. Pass ['c99']",
        ),
        (7, f"against is a int, expected a list of names of {KNOWN}"),
        (None, f"against is a NoneType, expected a list of names of {KNOWN}"),
        (["c99", 3], f"against holds a int, expected a list of names of {KNOWN}"),
    ],
)
def test_against_is_checked(against: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        verify(small(), against=against)
    assert str(caught.value) == message


def test_the_model_is_checked() -> None:
    with pytest.raises(UsageError) as caught:
        verify(3)  # type: ignore[arg-type]
    assert str(caught.value) == "the model is a int, expected a Model, or the path of one"


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_missing_runtime(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(ToolError) as caught:
        verify(small(), against=(runtime,))
    assert str(caught.value) == f"{runtime} is not installed. Install it: pip install {runtime}"


def test_nothing_compared_is_no_pass() -> None:
    assert not Verification(1, 1, (Finding("c99", "exact", "a", "", True, note="x"),)).ok


@pytest.mark.parametrize("directions", [1, 2])
def test_lengths(directions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sequence as if it were given alone; a reference that ignores lengths is noticed."""
    d = draw(4)
    cells = [LSTMCell(d(20, 2), d(20, 5), d(20), d(20)) for _ in range(directions)]
    model = Model((FeatureInput(2),), (Recurrent("a", *cells), Dense("y", d(3, 5 * directions))))
    x = d(3, 6, 2)
    found = verify(model, x, lengths=[4, 0, 6])
    assert found.ok
    (alone,) = (f for f in found.findings if f.layer == "lengths")
    assert alone.verdict == "EXACT"

    from ifgo.reference import interpret

    whole = interpret.execute
    deaf = lambda program, x, state, lengths=None, **more: whole(program, x, state, **more)  # noqa: E731
    monkeypatch.setattr(interpret, "execute", deaf)
    wrong = verify(model, x, lengths=[4, 0, 6], against=())
    assert [f.layer for f in wrong.findings if not f.holds] == ["lengths"]
