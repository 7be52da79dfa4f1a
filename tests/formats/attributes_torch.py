"""What PyTorch computes of a state_dict and an architecture file: its own modules, in float64.

Nothing here knows ifgo. A chain is the tree of the file: {"version": 1, "layer": [...]}.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Tree = dict[str, Any]

ACTIVATE: dict[str, Any] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda z: z,
    "hard_sigmoid": lambda z, alpha, beta: torch.clamp(alpha * z + beta, 0, 1),
    "leaky_relu": lambda z, alpha: functional.leaky_relu(z, alpha),
    "elu": lambda z, alpha: functional.elu(z, alpha),
    "softsign": functional.softsign,
    "softplus": lambda z: functional.softplus(z, threshold=700),
    "softmax": lambda z: torch.softmax(z, -1),
}

CHAIN: Tree = {
    "version": 1,
    "layer": [
        {"kind": "embedding", "module": "embed"},
        {"kind": "dropout", "rate": 0.5},
        {"kind": "lstm", "module": "rec", "name": "first"},
        {"kind": "last_step", "of": "sequence"},
        {"kind": "batch_norm", "module": "bn", "epsilon": 0.25},
        {"kind": "dense", "module": "mid", "activation": "leaky_relu", "alpha": 0.125},
        {"kind": "repeat_vector", "steps": 3},
        {"kind": "lstm", "module": "cell"},
        {"kind": "flatten", "steps": 3},
        {"kind": "hidden_as_sequence"},
        {"kind": "dense", "module": "lin"},
        {"kind": "activation", "activation": "hard_sigmoid", "alpha": 0.25, "beta": 0.5},
    ],
}
"""Every kind of layer, with every key that it takes."""


def state_dict() -> dict[str, Any]:
    """Seeded tensors for CHAIN, under one common prefix."""
    torch.manual_seed(3)
    made = nn.Module()
    made.embed = nn.Embedding(7, 3)
    made.rec = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    made.bn = nn.BatchNorm1d(4)
    made.mid = nn.Linear(4, 3, bias=False)
    made.cell = nn.LSTMCell(3, 2)
    made.lin = nn.Linear(1, 2)
    with torch.no_grad():
        made.bn.running_mean = torch.randn(4)
        made.bn.running_var = torch.rand(4) + 0.5
        for p in made.parameters():
            p.normal_(0, 0.5)
    return {f"net.{key}": value.clone() for key, value in made.state_dict().items()}


def run(tensors: dict[str, Any], chain: Tree, x: Any) -> Any:
    """The output of one sequence. Raises where a name, shape or type is none of the module's."""
    assert chain["version"] == 1
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    value = torch.as_tensor(x)
    if value.is_floating_point():
        value = value.double()
    with torch.no_grad():
        for entry in chain["layer"]:
            value = _layer(entry, tensors, value)
    return value.numpy()


def _layer(entry: Tree, tensors: dict[str, Any], value: Any) -> Any:
    kind, time = entry["kind"], value.ndim > 1
    if kind == "dropout":
        assert 0 <= entry["rate"] < 1
        return value
    if kind == "last_step":
        return value[-1] if entry["of"] == "sequence" else value.state
    if kind == "repeat_vector":
        assert not time
        return value.repeat(entry["steps"], 1)
    if kind == "flatten":
        assert time
        assert len(value) == entry["steps"]
        return value.reshape(-1)
    if kind == "hidden_as_sequence":
        assert not time
        return value[:, None]
    if kind == "activation":
        return _activate(entry, value)
    parts = _parts(entry["module"], tensors)
    if kind == "dense":
        weight = parts["weight"]
        value = _loaded(nn.Linear(*weight.shape[::-1], bias="bias" in parts), parts)(value)
        return _activate(entry, value) if "activation" in entry else value
    if kind == "embedding":
        return _loaded(nn.Embedding(*parts["weight"].shape), parts)(value)
    if kind == "batch_norm":
        return _loaded(nn.BatchNorm1d(len(parts["weight"]), entry["epsilon"]), parts)(
            value if time else value[None]
        ).reshape(value.shape)
    assert kind == "lstm"
    assert time
    return _lstm(parts, value)


def _lstm(parts: dict[str, Any], value: Any) -> Any:
    if "weight_ih" in parts:
        hidden, inputs = parts["weight_hh"].shape[1], parts["weight_ih"].shape[1]
        cell = _loaded(nn.LSTMCell(inputs, hidden, bias="bias_ih" in parts), parts)
        state: Any = None
        rows: list[Any] = []
        for row in value:
            state = cell(row[None], state)
            rows.append(state[0])
        made = torch.cat(rows)
        end = state[0][0]
    else:
        size = parts["weight_hr_l0"].shape[0] if "weight_hr_l0" in parts else 0
        module = nn.LSTM(
            parts["weight_ih_l0"].shape[1],
            parts["weight_ih_l0"].shape[0] // 4,
            1 + max(int(re.findall(r"_l(\d+)", key)[0]) for key in parts),
            bias="bias_ih_l0" in parts,
            bidirectional="weight_ih_l0_reverse" in parts,
            proj_size=size,
        )
        made, (h, _) = _loaded(module, parts)(value)
        end = h[-(1 + module.bidirectional) :].reshape(-1)
    made = made.as_subclass(_Sequence)
    made.state = end
    return made


class _Sequence(torch.Tensor):
    """What an LSTM puts out; `state` holds its last h of both directions."""

    state: Any


def _parts(module: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors of the module whose path is `module`, or ends so."""
    paths = {key.rpartition(".")[0] for key in tensors}
    (path,) = [p for p in paths if p == module] or [p for p in paths if p.endswith(f".{module}")]
    return {k[len(path) + 1 :]: v for k, v in tensors.items() if k.rpartition(".")[0] == path}


def _loaded(module: Any, parts: dict[str, Any]) -> Any:
    """In float64, in eval mode; load_state_dict is strict about names and shapes."""
    assert all(part.is_floating_point() or part.ndim == 0 for part in parts.values())
    module = module.double().eval()
    module.load_state_dict(parts)
    return module


def _activate(entry: Tree, value: Any) -> Any:
    given = {key: entry[key] for key in ("alpha", "beta") if key in entry}
    return ACTIVATE[entry["activation"]](value, **given)
