"""Cortex-M as users reach it: run, verify and deploy by the name of a board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cortex_m_cases import require_cross_tools

from ifgo.deployment import deploy
from ifgo.errors import UsageError
from ifgo.model import Dense, FeatureInput, LSTMCell, Model, Recurrent
from ifgo.targets.c99 import packing
from ifgo.verification import verify

RANDOM = np.random.default_rng(3)


def draw(*shape: int) -> np.ndarray:
    return (RANDOM.normal(size=shape) * 0.5).astype(np.float32)


MODEL = Model(
    (FeatureInput(2),),
    (
        Recurrent("a", LSTMCell(draw(20, 2), draw(20, 5), draw(20), draw(20))),
        Dense("y", draw(3, 5), draw(3)),
    ),
)


def test_run_and_verify_on_a_board() -> None:
    require_cross_tools()
    x = draw(2, 6, 2)
    want, _ = MODEL.run(x, on="exact")
    got, _ = MODEL.run(x, on="qemu:mps2-an386")
    lengths = [x.shape[1] - 1, 0, 1][: x.shape[0]]
    shorter, _ = MODEL.run(x, lengths=lengths, on="qemu:mps2-an386")
    assert (shorter == MODEL.run(x, lengths=lengths, on="exact")[0]).all()
    assert (got.view(np.uint32) == want.view(np.uint32)).all()
    found = verify(MODEL, x, against=("qemu:mps2-an386",))
    assert found.ok
    rows = [(f.layer, f.verdict) for f in found.findings if f.runtime == "qemu:mps2-an386"]
    assert rows == [("a", "EXACT"), ("y", "EXACT"), ("output and final state", "EXACT")]


def test_a_difference_on_a_board_is_located(monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of the output gate, unit 2, in the C alone."""
    require_cross_tools()
    pack = packing.pack

    def wrong(matrices: list[np.ndarray]) -> np.ndarray:
        if matrices[0].shape != (20, 2):
            return pack(matrices)
        changed = matrices[0].copy()
        changed[15 + 2, 1] *= np.float32(1.01)
        return pack([changed, *matrices[1:]])

    monkeypatch.setattr(packing, "pack", wrong)
    x = draw(1, 6, 2)
    x[0, :3, 1] = 0.0
    found = verify(MODEL, x, against=("qemu:mps2-an386",))
    assert not found.ok
    first, *rest = [f for f in found.findings if f.runtime == "qemu:mps2-an386"]
    assert (first.layer, first.verdict, first.cause) == ("a", "DIFFERS", "own")
    assert (first.part, first.step, first.unit) == ("z_o", 3, 2)
    assert [f.cause for f in rest] == ["inherited", "inherited"]


def test_a_board_without_room_for_traces_is_compared_at_its_ends() -> None:
    require_cross_tools()
    cells = [LSTMCell(draw(32, 2), draw(32, 8), draw(32)) for _ in range(2)]
    model = Model((FeatureInput(2),), (Recurrent("a", *cells),))
    found = verify(model, draw(1, 40, 2), against=("qemu:microbit",))
    layers, ends = [f for f in found.findings if f.runtime == "qemu:microbit"]
    assert (layers.layer, layers.verdict) == ("every layer", "not compared")
    assert layers.note.startswith("traces: board microbit: the model needs ")
    assert layers.note.endswith(
        " bytes of RAM, nRF51822 has 16384. Choose a board with more memory, or a smaller model"
    )
    assert (ends.layer, ends.verdict) == ("output and final state", "EXACT")
    assert found.ok


def test_deploy_writes_a_project(tmp_path: Path) -> None:
    done = deploy(MODEL, tmp_path / "out", target="cortex_m", board="stm32f405", name="net")
    assert {"model.c", "model.h", "main.c", "Makefile", "README.md"} <= set(done.files)
    assert all((done.folder / file).is_file() for file in done.files)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "cortex_m"}, "target cortex_m needs a board, expected one of "),
        ({"target": "cortex_m", "board": "due"}, "unknown board 'due', expected "),
        ({"board": "microbit"}, "board 'microbit' means nothing to target c99, expected no board"),
        (
            {"target": "cortex_m", "board": "microbit", "weights": "files"},
            "target cortex_m keeps its weights in flash, expected weights embedded",
        ),
        (
            {"target": "cortex_m", "board": "microbit", "main": True},
            "target cortex_m brings its own main.c, expected no main",
        ),
    ],
)
def test_refusals(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        deploy(MODEL, tmp_path / "out", **options)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists()
