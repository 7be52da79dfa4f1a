"""PyTorch computes what ifgo writes for GuitarML and NAM, from the files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_cases import guitarml, nam, store

from ifgo import formats
from ifgo.verification import bounds
from ifgo.verification.global_bound import whole

pytestmark = pytest.mark.peers

STEPS = 16


def network(inputs: int, hidden: int, layers: int, outputs: int, bias: bool) -> Any:
    """What both trainers make: rec, batch first, and lin."""
    from torch import nn

    class Simple(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rec = nn.LSTM(inputs, hidden, layers, batch_first=True)
            self.lin = nn.Linear(hidden, outputs, bias=bias)

    return Simple()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("skip", "outputs", "bias"), [(1, 1, True), (0, 2, False), (2, 2, True)])
def test_guitarml(tmp_path: Path, layers: int, skip: int, outputs: int, bias: bool) -> None:
    import torch

    tree = guitarml(1, layers=layers, skip=skip, output_size=outputs, bias_fl=bias)
    model = formats.load(store(tmp_path, "guitarml", tree))
    formats.save(model, tmp_path / "again.json", "guitarml")
    written = json.loads((tmp_path / "again.json").read_text())
    net = network(2, 3, layers, outputs, bias)
    net.load_state_dict({k: torch.tensor(v) for k, v in written["state_dict"].items()})
    x = np.random.default_rng(2).normal(0, 1, (1, STEPS, 2)).astype("f")
    with torch.no_grad():
        given = torch.from_numpy(x)
        y = net.lin(net.rec(given)[0])
        y = (y + given[:, :, :skip] if written["model_data"]["skip"] else y).numpy()
    states = {f"{part}{k}": np.zeros((1, 1, 3), "f") for k in range(layers) for part in ("h", "c")}
    judged = whole(model, x, states, bounds.LIBM)
    assert judged.bound < 1e-3
    assert np.abs(judged.y - y).max() <= judged.bound


@pytest.mark.parametrize("layers", [1, 2])
def test_nam(tmp_path: Path, layers: int) -> None:
    """Weights of the flat list, handed to an nn.LSTM as its trainer took them out of one."""
    import torch

    model = formats.load(store(tmp_path, "nam", nam(2, layers=layers)))
    formats.save(model, tmp_path / "again.nam")
    left = json.loads((tmp_path / "again.nam").read_text())["weights"]

    def take(*shape: int) -> Any:
        count = int(np.prod(shape))
        taken = torch.tensor(left[:count]).reshape(shape)
        del left[:count]
        return taken

    net, starts = network(1, 3, layers, 1, True), []
    with torch.no_grad():
        for k in range(layers):
            width = 3 if k else 1
            both = take(12, width + 3)
            getattr(net.rec, f"weight_ih_l{k}").copy_(both[:, :width])
            getattr(net.rec, f"weight_hh_l{k}").copy_(both[:, width:])
            getattr(net.rec, f"bias_ih_l{k}").copy_(take(12))
            getattr(net.rec, f"bias_hh_l{k}").zero_()
            starts.append((take(1, 1, 3), take(1, 1, 3)))
        net.lin.weight.copy_(take(1, 3))
        net.lin.bias.copy_(take(1))
        assert not left
        x = np.random.default_rng(2).normal(0, 1, (1, STEPS, 1)).astype("f")
        h, c = (torch.cat(parts) for parts in zip(*starts, strict=True))
        y = net.lin(net.rec(torch.from_numpy(x), (h, c))[0]).numpy()
    states = {
        f"{part}{k}": pair[i].numpy()
        for k, pair in enumerate(starts)
        for i, part in enumerate("hc")
    }
    judged = whole(model, x, states, bounds.LIBM)
    assert judged.bound < 1e-3
    assert np.abs(judged.y - y).max() <= judged.bound
