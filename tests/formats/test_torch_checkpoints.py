"""Checkpoints, whole modules and TorchScript as PyTorch writes them: the bits of the module."""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch_cases as cases
from presence import IN_CI

from ifgo import formats
from ifgo.errors import UnsupportedError

pytestmark = pytest.mark.peers

if importlib.util.find_spec("torch") is None and not IN_CI:  # in CI the import below fails
    pytest.skip("torch is not installed (pip install '.[peers]')", allow_module_level=True)

import torch  # noqa: E402
from torch import nn  # noqa: E402

CHAIN = "lstm:last,fc"


class Net(nn.Module):
    """Two layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True)
        self.fc = nn.Linear(4, 2)
        self.register_buffer("passing", torch.zeros(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


class Settings:
    """A class of its own beside the weights, as training scripts keep one."""

    def __init__(self) -> None:
        self.rate = 0.1


def checkpoint(net: Net) -> dict[str, Any]:
    optimiser = torch.optim.Adam(net.parameters())
    optimiser.zero_grad()
    net(torch.rand(2, 5, 3)).sum().backward()
    optimiser.step()
    return {
        "epoch": 3,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimiser.state_dict(),
        "args": argparse.Namespace(hidden=4),
        "settings": Settings(),
        "random": torch.get_rng_state(),
    }


def lightning(net: Net) -> dict[str, Any]:
    state = {f"model.{key}": value for key, value in net.state_dict().items()}
    hyper = {"act": nn.ReLU(), "loss": nn.MSELoss, "dtype": torch.float32}
    return {
        "epoch": 1,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": state,
        "callbacks": {nn.ReLU: {"best": torch.tensor(1.0)}},
        "hyper_parameters": hyper,
        "optimizer_states": [],
    }


SAVED: dict[str, Callable[[Net], Any]] = {
    "checkpoint": checkpoint,
    "lightning": lightning,
    "whole module": lambda net: net,
    "module in a checkpoint": lambda net: {"model": net, "epoch": 1},
    "module in DataParallel": nn.DataParallel,
    "under another key": lambda net: {"net": net.state_dict(), "loss": torch.tensor(0.5)},
    "two keys deep": lambda net: {"model": {"net": net.state_dict()}},
}


def same(path: Path, net: Net, **options: Any) -> Any:
    model = formats.load(path, **options)
    theirs = [p.detach().numpy().tobytes() for p in net.parameters()]
    assert [a.tobytes() for a in model.arrays.values()] == theirs
    return model


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", SAVED)
def test_saved(tmp_path: Path, name: str, zipped: bool) -> None:
    net, path = Net(), tmp_path / "m.ckpt"
    kept = SAVED[name](net)
    torch.save(kept, path, _use_new_zipfile_serialization=zipped)
    model = same(path, net, layers=CHAIN)
    assert formats.list_layers(path).names == ("lstm",)
    assert any("never imported or called" in n for n in model.provenance.notes) == (
        name not in ("under another key", "two keys deep")
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trace", [True, False])
def test_torchscript(tmp_path: Path, trace: bool) -> None:
    net, path = Net().eval(), tmp_path / "m.pt"
    made: Any = torch.jit.trace(net, torch.rand(2, 5, 3)) if trace else torch.jit.script(net)
    made.save(str(path))
    with pytest.raises(UnsupportedError, match=r"holds 3 modules, but not how .*; lstm \(nn\.LSTM"):
        formats.load(path)
    model = same(path, net, layers=CHAIN)
    notes = model.provenance.notes
    assert notes[0] == "read the tensors of a TorchScript program, whose code is not read"
    frozen: Any = torch.jit.freeze(torch.jit.script(net))
    frozen.save(str(path))
    with pytest.raises(UnsupportedError, match="A frozen program keeps its weights as constants"):
        formats.load(path)


def test_exported_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(Net().eval(), (torch.rand(2, 5, 3),)), path)
    with pytest.raises(UnsupportedError, match=r"m\.pt2: is a program of torch\.export, expected"):
        formats.load(path)


@pytest.mark.parametrize("home", ["rnns.0.module.", ""])
@pytest.mark.parametrize("stale", [True, False])
def test_weight_dropout(tmp_path: Path, home: str, stale: bool) -> None:
    """The matrix without _raw, where it is stored, is one that dropout drew: it does not count."""
    arrays = cases.lstm(home)
    key = f"{home.removesuffix('module.')}weight_hh_l0_raw"
    held = {k: v for k, v in arrays.items() if stale or "hh" not in k or "bias" in k}
    held[key] = arrays[f"{home}weight_hh_l0"]
    if stale:
        held[f"{home}weight_hh_l0"] = held[key] * 0
    model = formats.load(cases.put(tmp_path / "m.pth", cases.state_dict(held)))
    want = {k.rpartition(".")[2].removesuffix("_l0"): a for k, a in arrays.items()}
    for name, array in model.layers[0].arrays.items():
        assert array.tobytes() == want[name.rpartition(".")[2]].tobytes()
    assert model.provenance.notes[0] == (
        f"{key} in the place of the matrix without _raw, which dropout drew from it"
    )
