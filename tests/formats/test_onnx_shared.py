"""Outside models: what loads computes the published outputs, the rest is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_cases import assert_same, random, run_onnx

from ifgo import states
from ifgo.formats import onnx as room
from ifgo.model import StateInput, StateSlot


@pytest.mark.parametrize("on", ["truth", "exact"])
def test_dtln(on: str, shared: Path) -> None:
    """h and c of two layers in one tensor, in and out; the recorded masks come out."""
    check_dtln(on, shared)


@pytest.mark.usefixtures("cc")
def test_dtln_in_c(shared: Path) -> None:
    check_dtln("c99", shared)


def check_dtln(on: str, shared: Path) -> None:
    folder = shared / "models" / "dtln"
    model = room.read(folder / "model_1.onnx")
    assert [layer.kind for layer in model.layers] == ["lstm", "lstm", "dense"]
    slots = [StateSlot(f"lstm{k}", part) for k in range(2) for part in ("h", "c")]  # type: ignore[arg-type]
    assert model.inputs[1:] == (StateInput("input_3", tuple(slots), "B 2 H 2"),)
    assert model.outputs[1].states == tuple(slots)
    assert (model.outputs[1].role, model.outputs[1].layout) == ("state", "B 2 H 2")
    stored = np.load(folder / "expected.npz")
    packed = np.zeros((1, 2, 128, 2), np.float32)
    y, final = model.run(stored["mag"], states.from_inputs(model, {"input_3": packed}), on=on)
    # README: two float32 runtimes differ by 1.4e-6 on these frames; twice that separates any.
    assert np.abs(y - stored["mask"]).max() <= 2 * 1.4e-6
    assert states.to_outputs(model, final)["tf_op_layer_stack_2"].shape == packed.shape


def test_dtln_frame_by_frame(shared: Path, tmp_path: Path) -> None:
    """Both files in ONNX Runtime, each fed its own packed states: bit for bit."""
    path = shared / "models" / "dtln" / "model_1.onnx"
    written = tmp_path / "w.onnx"
    model = room.read(path)
    assert room.write(model, written).exact
    assert_same(room.read(written), model)
    state = random(1, 2, 128, 2, seed=3)
    for frame in np.load(path.with_name("expected.npz"))["mag"][:8]:
        x = frame[None, None]
        have = run_onnx(written, input_2=x, input_3=state)
        want = run_onnx(path, input_2=x, input_3=state)
        for a, b in zip(have, want, strict=True):
            np.testing.assert_array_equal(a, b)
        state = want[1]
