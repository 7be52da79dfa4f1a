"""Networks that other people trained for RTNeural, GuitarML and NAM, with recorded outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_cases import FORWARD

from ifgo import formats
from ifgo.model import Model
from ifgo.verification import bounds
from ifgo.verification.global_bound import whole

MODELS = Path(__file__).parents[2].parent / "shared" / "models"
pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="the trained audio models are not at ../shared/models"
)

LARGEST_BOUND = 0.05
"""Of outputs near 1; a bound adds up over steps, so each recording is judged as far as it says
something."""

FLOAT64 = 1e-11
"""Two float64 computations, amplified 43 times by the most sensitive of these networks."""

GUITARML = {
    "neuralpi/BluesJr.json": 500,
    "neuralpi/TS9_FullD.json": 200,
    "ts_m1n3_cond/model_ts9_cond2.json": 500,
}
NAM = {"nam_lstm/lstm.nam": 2000, "nam_boss_1x16/BossLSTM-1x16.nam": 4}
RTNEURAL = {"rtneural/lstm.json": 100, "rtneural/lstm_1d.json": 100}
FILES = {
    **dict.fromkeys(RTNEURAL, "rtneural"),
    **dict.fromkeys(GUITARML, "guitarml"),
    **dict.fromkeys(NAM, "nam"),
}
STEPS = {**RTNEURAL, **GUITARML, **NAM}
"""File → how many steps of its recording are judged."""


def recording(file: str) -> tuple[Any, Any]:
    """x (T, I) and y (T, O) of the framework that trained the network."""
    path = MODELS / file
    if file in RTNEURAL:
        x, y = (
            np.loadtxt(path.with_name(f"{path.stem}_{what}_python.csv"), ndmin=2) for what in "xy"
        )
        return x.reshape(-1, 1).astype("f"), y.reshape(-1, 1)
    found = np.load(path.with_suffix(".expected.npz"))
    return found["x"].reshape(len(found["x"]), -1), found["y"].reshape(len(found["y"]), -1)


def start(model: Model) -> dict[str, Any]:
    """The states that the model starts from."""
    zeros = {k: np.zeros((1, 1, one.hidden_size), "f") for k, one in enumerate(model.recurrent)}
    return {
        f"{part}{k}": zeros[k] if (given := getattr(one.initial, part)) is None else given[:, None]
        for k, one in enumerate(model.recurrent)
        for part in "hc"
    }


@pytest.mark.parametrize("file", list(FILES))
def test_every_number_stands_where_the_format_says(file: str) -> None:
    """Against an implementation of the format on the file's own numbers."""
    form = FILES[file]
    model = formats.load(MODELS / file)
    assert model.provenance.framework == form
    x = recording(file)[0][:1000]
    tree = json.loads((MODELS / file).read_text())
    assert np.abs(model.run(x, on="truth")[0] - FORWARD[form](tree, x)).max() < FLOAT64


@pytest.mark.parametrize("file", list(FILES))
def test_recorded_outputs(file: str) -> None:
    """Within what float32 may do over the first steps."""
    model = formats.load(MODELS / file)
    x, y = recording(file)
    steps = STEPS[file]
    judged = whole(model, x[None, :steps], start(model), bounds.LIBM)
    assert judged.bound < LARGEST_BOUND
    assert np.abs(judged.y[0] - y[:steps]).max() <= judged.bound


def test_a_state_dict_of_pytorch() -> None:
    """Two nn.LSTM, one of three layers, and a Linear; recorded by PyTorch."""
    path = MODELS / "rtneural" / "lstm_torch.json"
    model = formats.load(path, layers="lstm,lstm2,dense")
    x, y = (np.loadtxt(path.with_name(f"lstm_torch_{what}_python.csv"), ndmin=2) for what in "xy")
    x = x.reshape(-1, 1).astype("f")
    judged = whole(model, x[None], start(model), bounds.LIBM)
    assert judged.bound < LARGEST_BOUND
    assert np.abs(judged.y[0] - y.reshape(-1, 1)).max() <= judged.bound


@pytest.mark.parametrize("file", list(FILES))
def test_they_come_back(tmp_path: Path, file: str) -> None:
    form = FILES[file]
    model = formats.load(MODELS / file)
    target = tmp_path / Path(file).name
    assert formats.save(model, target, form).exact
    again = formats.load(target)
    assert [a.tobytes() for a in again.arrays.values()] == [
        a.tobytes() for a in model.arrays.values()
    ]
