"""Files of torch.save and of ours: the same numbers as the module, within bounds that follow."""

from __future__ import annotations

import sys
import types
import unittest
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scalar_lstm import FLOAT64, close, numbers, recurrent

from ifgo import formats, gates
from ifgo.model import Model, Recurrent
from ifgo.reference import truth

pytestmark = pytest.mark.peers

BOTH_SIDES = 2
"""Truth and torch are each off from exact arithmetic by one running bound at most."""


def compare(model: Model, x: Any, h: Any, c: Any, y: Any, h_n: Any, c_n: Any) -> None:
    """x (B, T, I), states (L·D, B, ·), y (B, T, ·): float64, states None for zeros."""
    layers = [layer for layer in model.layers if isinstance(layer, Recurrent)]
    assert len(layers) == len(model.layers)
    rows, batch = layers[0].directions, x.shape[0]
    cell, count = layers[0].cell, len(layers) * layers[0].directions
    h = np.zeros((count, batch, cell.output_size)) if h is None else h
    c = np.zeros((count, batch, cell.hidden_size)) if c is None else c
    state = {}
    for k in range(len(layers)):
        state |= {f"{n}{k}": s[k * rows : (k + 1) * rows] for n, s in (("h", h), ("c", c))}
    found = truth.forward(model, x, state)
    values = numbers(x)
    for k, layer in enumerate(layers):
        outcome = recurrent(FLOAT64, layer, values, state[f"h{k}"], state[f"c{k}"])
        values = outcome.y
        for final, wanted in ((h_n, outcome.h), (c_n, outcome.c)):
            close(final[k * rows : (k + 1) * rows], wanted, times=BOTH_SIDES)
    close(y, values, times=BOTH_SIDES)
    bound = BOTH_SIDES * np.asarray(values)[..., 1].max()
    assert np.abs(found.y - y).max() <= bound


def run(module: Any, path: Path, x: Any, given: Any) -> None:
    """One nn.LSTM against what is read of `path`; x in the module's own layout."""
    import torch

    with torch.no_grad():
        y, (h_n, c_n) = module(x, given) if given is not None else module(x)
    h, c = given if given is not None else (None, None)
    if x.ndim == 2:
        x, y, h_n, c_n = x[None], y[None], h_n[:, None], c_n[:, None]
        h, c = (None if s is None else s[:, None] for s in (h, c))
    elif not module.batch_first:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
    arrays = [None if s is None else s.numpy() for s in (x, h, c, y, h_n, c_n)]
    compare(formats.load(path), *arrays)


def both(module: Any, folder: Path) -> list[Path]:
    """The module as torch.save and the safetensors package write it, and as we write it again."""
    import torch
    from safetensors.torch import save_file

    torch.save(module.state_dict(), folder / "a.pt")
    save_file(module.state_dict(), str(folder / "b.safetensors"))
    model = formats.load(folder / "a.pt")
    assert formats.save(model, folder / "c.pt").exact
    assert formats.save(model, folder / "d.safetensors").exact
    again = torch.load(folder / "c.pt", weights_only=True)
    assert list(again) == list(module.state_dict())
    module.load_state_dict(again)
    return [folder / name for name in ("a.pt", "b.safetensors", "c.pt", "d.safetensors")]


OPTIONS = list(product([1, 2, 3], [False, True], [0, 2], [True, False]))


@pytest.mark.parametrize(("layers", "bidirectional", "proj_size", "bias"), OPTIONS)
def test_every_option_of_the_module(
    tmp_path: Path, layers: int, bidirectional: bool, proj_size: int, bias: bool
) -> None:
    import torch

    torch.manual_seed(layers)
    module = torch.nn.LSTM(
        3,
        4,
        layers,
        bias=bias,
        batch_first=True,
        bidirectional=bidirectional,
        proj_size=proj_size,
        dtype=torch.float64,
    ).eval()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    count = layers * (1 + bidirectional)
    states = [torch.randn(count, 2, n, dtype=torch.float64) for n in (proj_size or 4, 4)]
    files = both(module, tmp_path)
    run(module, files[0], x, tuple(states))
    first = formats.load(files[0]).arrays
    for file in files[1:]:
        found = formats.load(file).arrays
        assert found.keys() == first.keys()
        assert all(found[name].tobytes() == array.tobytes() for name, array in first.items())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_dtypes_are_kept(tmp_path: Path, dtype: str) -> None:
    import torch

    torch.manual_seed(3)
    module = torch.nn.LSTM(3, 4, 2, bidirectional=True).to(getattr(torch, dtype))
    for file in both(module, tmp_path):
        for layer in formats.load(file).recurrent:
            for name, array in layer.arrays.items():
                direction, _, part = name.partition(".")
                end = "_reverse" if direction == "backward" else ""
                theirs = getattr(module, f"{part}_l{layer.name[-1]}{end}").detach()
                assert array.dtype.name == dtype
                assert array.astype("f8").tobytes() == theirs.double().numpy().tobytes()


def infos() -> dict[str, list[Any]]:
    """PyTorch's own inputs of its modules, in both dtypes, of training and of evaluation.

    Its test tools want a package for messages of their own.
    """
    import torch

    if "expecttest" not in sys.modules:
        stub = types.ModuleType("expecttest")
        stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stub
    from torch.testing._internal.common_modules import module_db

    wanted = {torch.nn.LSTM: "LSTM", torch.nn.LSTMCell: "LSTMCell"}
    found: dict[str, list[Any]] = {name: [] for name in wanted.values()}
    for info in module_db:
        for dtype, training in product(info.dtypes, [False, True]):
            if info.module_cls in wanted and dtype in (torch.float32, torch.float64):
                how = {"device": "cpu", "dtype": dtype, "requires_grad": False}
                every = info.module_inputs_func(info, training=training, **how)
                found[wanted[info.module_cls]] += [(dtype, given) for given in every]
    return found


@pytest.mark.filterwarnings("ignore")
def test_the_inputs_that_pytorch_tests_itself_with(tmp_path: Path) -> None:
    import torch

    found = infos()
    assert (len(found["LSTM"]), len(found["LSTMCell"])) == (128, 8)
    torch.manual_seed(0)
    for name, every in found.items():
        for dtype, given in every:
            made, said = given.constructor_input, given.forward_input
            kind = getattr(torch.nn, name)
            module = kind(*made.args, **made.kwargs, dtype=dtype).eval()
            torch.save(module.state_dict(), tmp_path / "m.pt")
            assert not said.kwargs.keys() - {"hx"}
            x, hx = [*said.args, said.kwargs.get("hx")][:2]
            hx = None if hx is None else tuple(state.double() for state in hx)
            (run if name == "LSTM" else step)(module.double(), tmp_path / "m.pt", x.double(), hx)


def step(module: Any, path: Path, x: Any, hx: Any) -> None:
    """One call of an nn.LSTMCell: a sequence of one step."""
    import torch

    with torch.no_grad():
        h_1, c_1 = module(x, hx)
    h, c = hx if hx is not None else (None, None)
    if x.ndim == 1:
        x, h_1, c_1 = x[None], h_1[None], c_1[None]
        h, c = (None if s is None else s[None] for s in (h, c))
    h, c = (None if s is None else s.numpy()[None] for s in (h, c))
    model = formats.load(path)
    wide = x.numpy()[:, None]
    compare(model, wide, h, c, h_1.numpy()[:, None], h_1.numpy()[None], c_1.numpy()[None])


def test_wrong_gate_orders_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 23 other orders in the table gives other numbers."""
    import torch

    torch.manual_seed(1)
    module = torch.nn.LSTM(3, 4, batch_first=True, dtype=torch.float64)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    x = torch.randn(1, 5, 3, dtype=torch.float64)
    right = gates.LSTM_LAYOUTS["pytorch"]
    seen = 0
    for order in permutations("ifgo"):
        layout = gates.GateLayout("".join(order), right.orientation, right.bias)
        monkeypatch.setitem(gates.LSTM_LAYOUTS, "pytorch", layout)
        if layout.order == right.order:
            run(module, tmp_path / "m.pt", x, None)
            continue
        with pytest.raises(AssertionError):
            run(module, tmp_path / "m.pt", x, None)
        seen += 1
    assert seen == 23


class Net:
    """Built inside tests, where torch is at hand."""

    def __new__(cls) -> Any:
        import torch

        class Whole(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = torch.nn.Embedding(9, 3)
                self.rec = torch.nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)
                self.bn = torch.nn.BatchNorm1d(8)
                self.lin = torch.nn.Linear(8, 2)

            def forward(self, tokens: Any) -> Any:
                y, _ = self.rec(self.embed(tokens))
                return torch.sigmoid(self.lin(self.bn(y[:, -1])))

        torch.manual_seed(4)
        net = Whole().double().eval()
        with torch.no_grad():
            net.bn.running_mean.normal_()
            net.bn.running_var.uniform_(0.5, 2)
        return net


CHAIN = "embed:embedding,rec:last,bn:batch_norm(1e-5),lin:sigmoid"
AGREEMENT = 1e-12
"""Two float64 computations of a few dozen terms each."""


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "DataParallel", "lightning"])
def test_a_network_around_it(tmp_path: Path, wrap: str) -> None:
    import torch

    net = Net()
    saved: Any = net.state_dict()
    if wrap == "DataParallel":
        saved = {f"module.{key}": value for key, value in saved.items()}
    if wrap == "lightning":
        saved = {f"net._orig_mod.{key}": value for key, value in saved.items()}
    if wrap in ("state_dict", "lightning"):
        optimizer = torch.optim.Adam(net.parameters())
        net(torch.zeros(2, 3, dtype=torch.long)).sum().backward()
        optimizer.step()
        saved = {
            "epoch": 3,
            "state_dict": net.state_dict() if wrap == "state_dict" else saved,
            "optimizer_states": [optimizer.state_dict()],
            "pytorch-lightning_version": "2.5",
            "best": torch.tensor(0.5),
        }
    torch.save(saved, tmp_path / "m.pt")
    model = formats.load(tmp_path / "m.pt", layers=CHAIN)
    tokens = torch.randint(0, 9, (3, 6))
    with torch.no_grad():
        wanted = net(tokens).numpy()
    y, _ = model.run(tokens.numpy(), on="truth")
    assert np.abs(y - wanted).max() < AGREEMENT
    for name in ("again.pt", "again.safetensors"):
        report = formats.save(model, tmp_path / name)
        assert report.exact
        again, _ = formats.load(tmp_path / name).run(tokens.numpy(), on="truth")
        assert again.tobytes() == y.tobytes()
    net.load_state_dict(torch.load(tmp_path / "again.pt", weights_only=True))
    notes = " / ".join(model.provenance.notes)
    assert ("left out epoch, optimizer_states" in notes) == (wrap in ("state_dict", "lightning"))


def test_parameters_views_and_protocols(tmp_path: Path) -> None:
    """All weights in one storage, transposed, as nn.Parameter, in every protocol torch takes."""
    import torch

    torch.manual_seed(2)
    module = torch.nn.LSTM(3, 4)
    flat = torch.cat([p.detach().t().reshape(-1) for p in module.parameters()])
    views, at = {}, 0
    for name, p in module.named_parameters():
        shape = tuple(p.t().shape)
        part = flat[at : at + p.numel()].reshape(shape).t()
        views[name] = torch.nn.Parameter(part) if name == "bias_ih_l0" else part
        at += p.numel()
    for protocol in (2, 3, 4, 5):
        torch.save(views, tmp_path / "m.pt", pickle_protocol=protocol)
        for name, array in formats.load(tmp_path / "m.pt").layers[0].arrays.items():
            theirs = getattr(module, name.partition(".")[2] + "_l0").detach().numpy()
            assert array.tobytes() == theirs.tobytes()


def test_what_pytorch_saves_otherwise_is_refused(tmp_path: Path) -> None:
    import torch

    from ifgo.errors import UnsupportedError

    module = torch.nn.LSTM(3, 4)
    path = tmp_path / "m.pt"

    def refused() -> str:
        with pytest.raises(UnsupportedError) as caught:
            formats.load(path)
        return str(caught.value).removeprefix(f"{path}: ")

    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    torch.save(module.state_dict(), path)
    assert refused().startswith(
        "module lstm: weight_hh_l0 is stored through a parametrization. Before saving: "
        "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight_hh_l0')"
    )


@pytest.mark.filterwarnings("ignore")
def test_quantised_models_are_refused(tmp_path: Path) -> None:
    import torch

    from ifgo.errors import UnsupportedError

    path = tmp_path / "m.pt"
    quantised = torch.ao.quantization.quantize_dynamic(
        torch.nn.Sequential(torch.nn.LSTM(3, 4)), {torch.nn.LSTM}
    )
    torch.save(quantised.state_dict(), path)
    with pytest.raises(UnsupportedError, match="packed parameters of a quantised model"):
        formats.load(path)
