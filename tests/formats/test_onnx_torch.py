"""What torch.onnx.export writes, with both exporters: the same bits, numbers within bounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_bounds import float32_bound
from onnx_cases import assert_same, run_onnx
from onnx_torch import (
    BATCH,
    EXPORTERS,
    HIDDEN,
    INPUT,
    OUTPUT,
    STEPS,
    compare,
    dense_bits,
    export,
    given,
    lstm_bits,
    nn,
    quiet,
    shrink,
    torch,
)

from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats import onnx as room
from ifgo.layers import Dense, LastStep, Recurrent
from ifgo.reference import truth

pytestmark = pytest.mark.peers


class Net(nn.Module):
    """nn.LSTM and a Linear on what `head` takes."""

    def __init__(self, head: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(INPUT, HIDDEN, **options)
        self.head = head
        self.linear = nn.Linear(HIDDEN * (2 if options.get("bidirectional") else 1), OUTPUT)

    def forward(self, x: Any) -> Any:
        y, (h, _) = self.lstm(x)
        return self.linear(self.head(y, h))


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_linear_on_sequence(
    num_layers: int, bidirectional: bool, batch_first: bool, exporter: str, tmp_path: Path
) -> None:
    torch.manual_seed(num_layers)
    module = Net(
        lambda y, h: y,
        num_layers=num_layers,
        bidirectional=bidirectional,
        batch_first=batch_first,
        dropout=0.3 if num_layers > 1 else 0.0,
    )
    args = (given((BATCH, STEPS, INPUT) if batch_first else (STEPS, BATCH, INPUT)),)
    path = tmp_path / "m.onnx"
    export(module, args, path, exporter, batch_first)
    model = room.read(path)
    lstm_bits(module.lstm, model)
    dense_bits(module.linear, model.layers[-1])
    assert [type(layer) for layer in model.layers] == [Recurrent] * num_layers + [Dense]
    assert model.input.axes == model.outputs[0].axes == ("BT" if batch_first else "TB")
    assert model.outputs[0].role == "sequence"
    compare(module, args, path, model, tmp_path)


HEADS: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "last": (lambda y, h: y[:, -1], {}, "sequence"),
    "last of three": (lambda y, h: y[:, -1, :], {"num_layers": 3}, "sequence"),
    "last bidirectional": (lambda y, h: y[:, -1], {"bidirectional": True}, "sequence"),
    "h_n": (lambda y, h: h[-1], {"num_layers": 2}, "state"),
    "h_n squeezed": (lambda y, h: h.squeeze(0), {}, "state"),
    "h_n viewed": (lambda y, h: h.reshape(-1, HIDDEN), {}, "state"),
    "h_n both": (
        lambda y, h: torch.cat([h[-2], h[-1]], 1),
        {"num_layers": 2, "bidirectional": True},
        "state",
    ),
    "h_n turned": (
        lambda y, h: h.permute(1, 0, 2).reshape(-1, 2 * HIDDEN),
        {"bidirectional": True},
        "state",
    ),
}


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("head", list(HEADS))
def test_linear_on_vector(head: str, exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    function, options, of = HEADS[head]
    module = Net(function, batch_first=True, **options)
    args = (given((BATCH, STEPS, INPUT)),)
    path = tmp_path / "m.onnx"
    export(module, args, path, exporter)
    model = room.read(path)
    lstm_bits(module.lstm, model)
    dense_bits(module.linear, model.layers[-1])
    last = model.layers[-2]
    assert isinstance(last, LastStep)
    assert last.of == of
    assert [output.role for output in model.outputs] == ["last"]
    compare(module, args, path, model, tmp_path)


@pytest.mark.parametrize("exporter", ["script-frozen", "dynamo"])
def test_last_step_as_slice(exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = Net(lambda y, h: y[:, -1:].squeeze(1), batch_first=True)
    args = (given((BATCH, STEPS, INPUT)),)
    path = tmp_path / "m.onnx"
    export(module, args, path, exporter)
    compare(module, args, path, room.read(path), tmp_path)


def test_branches_are_refused(tmp_path: Path) -> None:
    """torch.jit asks at run time whether the length is 1."""
    module = Net(lambda y, h: y[:, -1:].squeeze(1), batch_first=True)
    path = tmp_path / "m.onnx"
    export(module, (given((BATCH, STEPS, INPUT)),), path, "script-open")
    with pytest.raises(UnsupportedError, match=r"node '/If': is an If, expected only"):
        room.read(path)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_last_step_time_major(exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = Net(lambda y, h: y[-1])
    args = (given((STEPS, BATCH, INPUT)),)
    path = tmp_path / "m.onnx"
    export(module, args, path, exporter, batch_first=False)
    model = room.read(path)
    assert model.input.axes == "TB"
    compare(module, args, path, model, tmp_path)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"num_layers": 2, "batch_first": True},
        {"num_layers": 3, "bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
    ],
    ids=str,
)
def test_bare_module(options: dict[str, Any], exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = nn.LSTM(INPUT, HIDDEN, **options)
    first = options.get("batch_first", False)
    args = (given((BATCH, STEPS, INPUT) if first else (STEPS, BATCH, INPUT)),)
    path = tmp_path / "m.onnx"
    export(module, args, path, exporter, first)
    model = room.read(path)
    lstm_bits(module, model)
    names = tuple(layer.name for layer in model.layers)
    assert [(o.role, o.layers) for o in model.outputs] == [
        ("sequence", ()),
        ("h_n", names),
        ("c_n", names),
    ]
    compare(module, args, path, model, tmp_path)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_states_as_inputs(options: dict[str, Any], exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(4)

    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(INPUT, HIDDEN, batch_first=True, **options)

        def forward(self, x: Any, h: Any, c: Any) -> Any:
            return self.lstm(x, (h, c))

    module = Stateful()
    rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    args = (
        given((BATCH, STEPS, INPUT)),
        given((rows, BATCH, HIDDEN), 1),
        given((rows, BATCH, HIDDEN), 2),
    )
    path = tmp_path / "m.onnx"
    export(module, args, path, exporter)
    model = room.read(path)
    lstm_bits(module.lstm, model)
    names = [layer.name for layer in model.layers]
    assert [layer.initial.kind for layer in model.recurrent] == ["input"] * len(names)
    for entry, part in zip(model.inputs[1:], "hc", strict=True):
        assert [(slot.layer, slot.part) for slot in entry.slots] == [(n, part) for n in names]
    compare(module, args, path, model, tmp_path)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_unbatched(exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    module = nn.LSTM(INPUT, HIDDEN, num_layers=2)
    args = (given((STEPS, INPUT)),)
    path = tmp_path / "m.onnx"
    export(module, args, path, exporter)
    model = room.read(path)
    lstm_bits(module, model)
    assert model.input.axes == "T"
    assert [output.axes for output in model.outputs] == ["T", "T", "T"]
    compare(module, args, path, model, tmp_path)


class Replay(nn.Module):
    """The hidden vector of each LSTM is the sequence of the next."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [16, 16, 16, 1]
        self.layers = nn.ModuleList(nn.LSTM(1, size, batch_first=True) for size in sizes)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            _, (h, _) = layer(x)
            x = h.permute(1, 2, 0)
        return torch.sigmoid(x)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("batch", [1, 2])
def test_hidden_as_sequence(exporter: str, batch: int, tmp_path: Path) -> None:
    torch.manual_seed(6)
    module = Replay()
    shrink(module)  # once more: its three replays are 16 steps each
    args = (given((batch, 8, 1)),)
    path = tmp_path / "m.onnx"
    export(module, args, path, exporter)
    model = room.read(path)
    assert [layer.kind for layer in model.layers] == [
        *["lstm", "last_step", "hidden_as_sequence"] * 3,
        "lstm",
        "last_step",
        "activation",
    ]
    for module_layer, layer in zip(module.layers, model.recurrent, strict=True):
        bits = module_layer.state_dict()["weight_ih_l0"].numpy().tobytes()
        assert layer.cell.weight_ih.tobytes() == bits
    assert any("(B, 1, 1) in the file" in note for note in model.provenance.notes)
    compare(module, args, path, model, tmp_path)


class Language(nn.Module):
    """Embedding, learned initial state, two LSTMs, a Linear over flattened steps."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, INPUT)
        self.lstm = nn.LSTM(INPUT, HIDDEN, 2, batch_first=True)
        self.start = nn.Parameter(torch.rand(2, 1, HIDDEN) - 0.5)
        self.linear = nn.Linear(HIDDEN, 9)

    def forward(self, x: Any) -> Any:
        start = self.start.expand(-1, x.shape[0], -1).contiguous()
        y, _ = self.lstm(self.table(x), (start, start))
        y = self.linear(torch.relu(y).reshape(-1, y.shape[2]))
        return torch.softmax(y, -1).view(x.shape[0], -1, 9)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_language_model(exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    module = Language()
    args = (torch.from_numpy(np.random.default_rng(0).integers(0, 9, (BATCH, STEPS))),)
    path = tmp_path / "m.onnx"
    export(module, args, path, exporter)
    model = room.read(path)
    lstm_bits(module.lstm, model)
    kinds = [layer.kind for layer in model.layers]
    assert kinds == ["embedding", "lstm", "lstm", "activation", "dense"]
    start = module.start.detach().numpy()
    for k, layer in enumerate(model.recurrent):
        assert layer.initial.h is not None
        assert layer.initial.h.tobytes() == start[k].tobytes()
    dense = model.layers[-1]
    assert isinstance(dense, Dense)
    assert str(dense.activation) == "softmax"
    compare(module, args, path, model, tmp_path)


def test_packed_sequences(tmp_path: Path) -> None:
    torch.manual_seed(8)

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(INPUT, HIDDEN, 2, batch_first=True, bidirectional=True)

        def forward(self, x: Any, lengths: Any) -> Any:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            y, (h, _) = self.lstm(packed)
            return nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0], h

    module = Packed()
    shrink(module)
    x, lengths = given((3, STEPS, INPUT)), torch.tensor([STEPS, 4, 2])
    path = tmp_path / "m.onnx"
    with quiet():
        torch.onnx.export(
            module,
            (x, lengths),
            path,
            dynamo=False,
            input_names=["x", "lengths"],
            dynamic_axes={"x": {0: "B", 1: "T"}, "lengths": {0: "B"}},
        )
    model = room.read(path)
    lstm_bits(module.lstm, model)
    assert [entry.name for entry in model.inputs] == ["x", "lengths"]
    result = truth.forward(model, x.numpy(), lengths=lengths.numpy())
    bound = float32_bound(model, result, x.numpy())
    with torch.no_grad():
        y, h = (part.numpy() for part in module(x, lengths))
    assert np.abs(y - result.y).max() <= bound
    finals = np.concatenate([result.state["h0"], result.state["h1"]])
    assert np.abs(h - finals).max() <= bound
    written = tmp_path / "written.onnx"
    assert room.write(model, written).exact
    assert_same(room.read(written), model)
    again = run_onnx(written, x=x.numpy(), lengths=lengths.numpy().astype(np.int32))
    assert np.abs(again[0] - result.y).max() <= bound
    assert np.abs(again[1] - finals).max() <= bound


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    torch.manual_seed(9)
    module = Net(lambda y, h: y, batch_first=True).eval()
    path = tmp_path / "m.onnx"
    with quiet():
        torch.onnx.export(
            module, (given((BATCH, STEPS, INPUT)),), path, dynamo=True, external_data=True
        )
    assert (tmp_path / "m.onnx.data").is_file()
    lstm_bits(module.lstm, room.read(path))


def test_projection_is_refused(tmp_path: Path) -> None:
    """The dynamo exporter writes hidden_size = proj_size and cuts the weights."""
    module = nn.LSTM(INPUT, 6, proj_size=2, batch_first=True)
    path = tmp_path / "m.onnx"
    export(module, (given((BATCH, STEPS, INPUT)),), path, "dynamo")
    with pytest.raises(FormatError) as caught:
        room.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: node 'node_lstm__2': initial_c (")
    assert text.endswith(
        "has shape (1, 2, 6), expected (1, B, 2). A cell state wider than the output is what "
        "torch's exporter writes for proj_size: ONNX LSTM has no projection, and the weights in "
        "this file are cut to the wrong rows. Export a model without proj_size, or read its "
        "state_dict"
    )


def test_provenance(tmp_path: Path) -> None:
    module = nn.LSTM(INPUT, HIDDEN, batch_first=True)
    path = tmp_path / "m.onnx"
    export(module, (given((BATCH, STEPS, INPUT)),), path, "dynamo")
    provenance = room.read(path).provenance
    assert provenance.framework == "onnx"
    assert provenance.version.startswith("pytorch 2.")
    assert provenance.path == str(path)
    assert set(provenance.names) == {
        f"lstm0.{name}"
        for name in (
            "forward.weight_ih",
            "forward.weight_hh",
            "forward.bias_ih",
            "forward.bias_hh",
        )
    }
    assert provenance.notes == ("the file fixes batch 2 and time 6 for input input; ifgo does not",)
