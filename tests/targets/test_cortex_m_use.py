"""Cortex-M as users reach it: run, verify and deploy by the name of a board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cortex_m_cases import require_cross_tools

from ifgo.deployment import deploy
from ifgo.errors import UsageError
from ifgo.model import Dense, FeatureInput, LSTMCell, Model, Recurrent
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
    want, _ = MODEL.run(x)
    got, _ = MODEL.run(x, on="qemu:mps2-an386")
    lengths = [x.shape[1] - 1, 0, 1][: x.shape[0]]
    shorter, _ = MODEL.run(x, lengths=lengths, on="qemu:mps2-an386")
    assert (shorter == MODEL.run(x, lengths=lengths)[0]).all()
    assert (got.view(np.uint32) == want.view(np.uint32)).all()
    found = verify(MODEL, x, against=("qemu:mps2-an386",))
    assert found.ok
    assert [f.verdict for f in found.findings if f.runtime == "qemu:mps2-an386"] == ["EXACT"]


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
