"""PyTorch files without PyTorch: what is read, what is said of the rest, and the chain in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_cases as cases
from safetensors.numpy import save_file

from ifgo import formats
from ifgo.activations import Activation
from ifgo.errors import FormatError, IfgoError, ModelError, UnsupportedError, UsageError
from ifgo.formats import torch
from ifgo.formats.extraction import Found, Listing
from ifgo.layers import ActivationLayer, BatchNorm, Dense, Dropout, LastStep, Recurrent
from ifgo.model import Model, TokenInput


def draw(*shape: int) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype("f")


def net() -> dict[str, Any]:
    """Embedding 9 → 3, LSTM 3 → 2, batch norm, two linear layers."""
    statistics = {"bn.running_mean": draw(2), "bn.running_var": draw(2) ** 2}
    return {
        "embed.weight": draw(9, 3),
        **cases.lstm("rec."),
        **statistics,
        "bn.num_batches_tracked": np.array(4),
        "mid.weight": draw(4, 2),
        "lin.weight": draw(2, 4),
        "lin.bias": draw(2),
    }


def saved(folder: Path, arrays: dict[str, Any]) -> Path:
    return cases.put(folder / "m.pt", cases.state_dict(arrays))


def refused(path: Path, kind: type[IfgoError], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        formats.load(path, **options)
    assert type(caught.value) is kind
    return str(caught.value).removeprefix(f"{path}: ")


def same(a: Model, b: Model) -> None:
    assert [type(layer) for layer in a.layers] == [type(layer) for layer in b.layers]
    for mine, theirs in zip(a.arrays.values(), b.arrays.values(), strict=True):
        assert (mine.dtype, mine.tobytes()) == (theirs.dtype, theirs.tobytes())


def test_one_lstm_alone(tmp_path: Path) -> None:
    arrays = cases.lstm("net.rec.")
    model = formats.load(saved(tmp_path, arrays))
    (layer,) = model.layers
    assert (layer.name, model.input_size, model.provenance.framework) == ("rec", 3, "pytorch")
    assert model.provenance.names["rec.forward.bias_ih"] == "net.rec.bias_ih_l0"
    assert model.provenance.notes == ("batch_first is not in the file: input is (B, T, I) here",)
    for name, array in layer.arrays.items():
        key = f"net.rec.{name.partition('.')[2]}_l0"
        assert (array.dtype, array.tobytes()) == (np.dtype("f"), arrays[key].tobytes())


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ckpt"])
def test_files_are_known_by_ending_or_content(tmp_path: Path, name: str) -> None:
    path = cases.put(tmp_path / name, cases.state_dict(cases.lstm()))
    assert torch.sniff(path)
    assert formats.load(path).layers
    assert not torch.sniff(tmp_path)
    assert not torch.sniff(tmp_path / "absent.pt")


def test_the_other_byte_order(tmp_path: Path) -> None:
    arrays = cases.lstm()
    entries, members = cases.tensors(arrays)
    members = {k: np.frombuffer(m, "<f4").astype(">f4").tobytes() for k, m in members.items()}
    first = {"data.pkl": b"\x80\x02" + cases.table(entries) + b".", "byteorder": b"big"}
    path = cases.put(tmp_path / "m.pt", cases.pack(first | members))
    for name, array in formats.load(path).layers[0].arrays.items():
        assert array.tobytes() == arrays[name.partition(".")[2] + "_l0"].tobytes()
    cases.put(path, cases.pack(first | members | {"byteorder": b"middle"}))
    assert refused(path, FormatError) == "its byteorder is unknown, expected little or big"


def test_views_of_one_storage(tmp_path: Path) -> None:
    """Offsets and strides are those of the file: a transposed matrix in the middle of a storage."""
    arrays = cases.lstm()
    entries, members = cases.tensors(arrays)
    weight = arrays["weight_ih_l0"]
    stored = cases.storage("all", "FloatStorage", 5 + weight.size)
    entries["weight_ih_l0"] = cases.view(stored, 5, weight.shape, (1, 8))
    members["data/all"] = bytes(20) + weight.T.tobytes()
    path = cases.put(tmp_path / "m.pt", cases.whole(cases.table(entries), members))
    found = formats.load(path).layers[0].arrays["forward.weight_ih"]
    assert found.tobytes() == weight.tobytes()


# -- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_checkpoint_around_it(tmp_path: Path, key: str) -> None:
    entries, members = cases.tensors(cases.lstm())
    inner = cases.table(entries)
    around = {"epoch": cases.number(3), key: inner, "optimizer": b"}"}
    path = cases.put(tmp_path / "m.pt", cases.whole(cases.table(around, ordered=False), members))
    assert formats.load(path).provenance.notes[0] == (
        f"read {key} of the checkpoint, left out epoch, optimizer"
    )


def test_what_is_no_tensor_is_left_out_and_said(tmp_path: Path) -> None:
    entries, members = cases.tensors(cases.lstm())
    entries |= {"epoch": cases.number(3), "size": cases.call("torch.Size", b"(K\x02t\x85")}
    path = cases.put(tmp_path / "m.pt", cases.whole(cases.table(entries), members))
    assert formats.load(path).provenance.notes[0] == "left out what is no tensor: epoch, size"


@pytest.mark.parametrize(
    ("pickle", "said"),
    [
        (b"]", "holds a list, expected a state_dict, or a checkpoint with one under state_dict, "
         "model_state_dict, model. torch.save(model.state_dict(), path) writes one"),
        (b"}", "holds no tensors by name, but nothing, expected a state_dict, or a checkpoint with "
         "one under state_dict, model_state_dict, model. torch.save(model.state_dict(), path) "
         "writes one"),
    ],
)  # fmt: skip
def test_files_without_a_state_dict(tmp_path: Path, pickle: bytes, said: str) -> None:
    path = cases.put(tmp_path / "m.pt", cases.whole(pickle, {}))
    assert refused(path, UnsupportedError) == said


# -- the chain ------------------------------------------------------------------------------------

WORDS = "embed:embedding,rec:dropout(0.25):last,bn:batch_norm(0.001),mid:relu,lin:softmax"


def test_a_chain_in_words(tmp_path: Path) -> None:
    model = formats.load(saved(tmp_path, net()), layers=WORDS)
    kinds = [(layer.name, layer.kind) for layer in model.layers]
    assert kinds == [
        ("embed", "embedding"),
        ("rec", "lstm"),
        ("rec_dropout", "dropout"),
        ("rec_last", "last_step"),
        ("bn", "batch_norm"),
        ("mid", "dense"),
        ("lin", "dense"),
    ]
    assert model.input == TokenInput(9)
    _, _, dropout, last, norm, mid, lin = model.layers
    assert isinstance(dropout, Dropout)
    assert isinstance(last, LastStep)
    assert isinstance(norm, BatchNorm)
    assert isinstance(mid, Dense)
    assert isinstance(lin, Dense)
    assert (dropout.rate, last.of, norm.epsilon) == (0.25, "sequence", 0.001)
    assert (mid.activation.name, mid.bias, lin.activation.name) == ("relu", None, "softmax")
    assert model.provenance.names["bn.variance"] == "bn.running_var"


def test_words_of_every_activation(tmp_path: Path) -> None:
    path = saved(tmp_path, cases.lstm("rec."))
    words = "rec:leaky_relu(0.1):hard_sigmoid(0.2, 0.5):relu:relu:last"
    _, *steps = formats.load(path, layers=words).layers
    assert steps == [
        ActivationLayer("rec_leaky_relu", Activation("leaky_relu", 0.1)),
        ActivationLayer("rec_hard_sigmoid", Activation("hard_sigmoid", 0.2, 0.5)),
        ActivationLayer("rec_relu", Activation("relu")),
        ActivationLayer("rec_relu_2", Activation("relu")),
        LastStep("rec_last", "sequence"),
    ]
    assert formats.load(path, layers="rec:state").layers[1] == LastStep("rec_state", "state")


def test_modules_by_the_end_of_their_path(tmp_path: Path) -> None:
    arrays = {**cases.lstm("a.enc.rec."), "b.head.lin.weight": draw(2, 2)}
    model = formats.load(saved(tmp_path, arrays), layers="rec,head.lin")
    assert [layer.name for layer in model.layers] == ["a.enc.rec", "b.head.lin"]


def test_what_the_chain_leaves_out_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path, net())
    for options in ({"layers": "rec"}, {"select": "rec"}):
        model = formats.load(path, **options)
        assert [layer.name for layer in model.layers] == ["rec"]
        assert model.provenance.notes[-1] == (
            "left out 4 modules: 2 nn.Embedding or nn.Linear, 1 nn.BatchNorm1d, 1 nn.Linear"
        )


def test_a_first_matrix_is_told_by_its_shape_or_by_the_caller(tmp_path: Path) -> None:
    for shape, kind in (((9, 3), "embedding"), ((3, 9), "dense")):
        arrays = {"a.weight": draw(*shape), **cases.lstm("rec.")}
        assert formats.load(saved(tmp_path, arrays), layers="a,rec").layers[0].kind == kind
    arrays = {"a.weight": draw(3, 3), **cases.lstm("rec.")}
    path = saved(tmp_path, arrays)
    for kind in ("embedding", "dense"):
        assert formats.load(path, layers=f"a:{kind},rec").layers[0].kind == kind
    assert refused(path, UsageError, layers="a,rec") == (
        "module a: is a matrix 3 × 3: an embedding, or a linear layer without bias, expected "
        "a:embedding or a:dense"
    )


def test_modules_without_words_are_listed_with_the_one_order_that_fits(tmp_path: Path) -> None:
    arrays = {"embed.weight": draw(9, 3), **cases.lstm("rec."), "lin.weight": draw(1, 2)}
    path = saved(tmp_path, arrays | {"lin.bias": draw(1)})
    assert refused(path, UnsupportedError) == (
        "holds 3 modules, but not how they follow each other: embed (nn.Embedding or nn.Linear "
        "without bias 3 → 9); rec (nn.LSTM 3 → 2); lin (nn.Linear 2 → 1), expected the chain by "
        "option layers, as embed,rec:last,lin:sigmoid, or one module by option select. Shapes "
        "allow one order: embed:embedding,rec,lin; say also what stands between, as :last, :relu"
    )
    suggested = "embed:embedding,rec,lin"
    assert formats.load(path, layers=suggested).output_size == 1
    more = {f"d{k}.weight": draw(2, 2) for k in range(2)}
    assert refused(saved(tmp_path, arrays | more), UnsupportedError).endswith("by option select")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "option layers is '', expected modules between commas, steps after colons, as "
         "embed,rec:last,lin:sigmoid"),
        ("rec" * 6000, "option layers has 18000 characters, expected at most 16384"),
        ("rec,,lin", "option layers is 'rec,,lin', expected modules between commas, steps after "
         "colons, as embed,rec:last,lin:sigmoid"),
        ("rec:lats", "option layers: 'lats' is no step, expected one of last, state, "
         "hidden_as_sequence, dropout, flatten, repeat_vector, embedding, dense, batch_norm, "
         "sigmoid, tanh, relu, hard_sigmoid, leaky_relu, thresholded_relu, elu, scaled_tanh, "
         "affine, softsign, softplus, softmax. Did you mean 'last'?"),
        ("rec,last", "has no module 'last', expected one of embed, rec, bn, mid, lin. A step "
         "stands after a colon, as embed:last"),
        ("rce", "has no module 'rce', expected one of embed, rec, bn, mid, lin. Did you mean "
         "'rec'?"),
        ("rec:dropout", "option layers: 'dropout' has 0 numbers, expected 1"),
        ("rec:last(1)", "option layers: 'last(1)' has 1 numbers, expected 0"),
        ("rec:flatten(x)", "option layers: 'flatten(x)' holds no number, expected numbers"),
        ("rec,bn", "module bn: is a batch norm, whose epsilon is not in the file, expected "
         "bn:batch_norm(1e-5), 1e-5 being PyTorch's default"),
        ("rec:dense", "module rec: is nn.LSTM 3 → 2, no dense, expected rec without it"),
        ("lin:embedding", "module lin: is nn.Linear 4 → 2, no embedding, expected lin without it"),
        ("rec:relu:dense", "'dense' does not follow a module in 'rec:relu:dense', expected it "
         "right after the name, as NAME:dense"),
        (":relu", "option layers: names no module, expected at least one: embed, rec, bn, mid, "
         "lin"),
    ],
)  # fmt: skip
def test_words_that_mean_nothing(tmp_path: Path, words: str, said: str) -> None:
    assert refused(saved(tmp_path, net()), UsageError, layers=words) == said


def test_a_module_may_stand_twice(tmp_path: Path) -> None:
    norm = "bn:batch_norm(1e-5)"
    model = formats.load(saved(tmp_path, net()), layers=f"embed,rec:last,{norm},{norm}")
    assert [layer.name for layer in model.layers] == ["embed", "rec", "rec_last", "bn", "bn_2"]
    assert model.arrays["bn_2.mean"].tobytes() == model.arrays["bn.mean"].tobytes()
    assert "module bn stands 2 times, a copy of it each time" in model.provenance.notes


def test_sizes_and_time_are_checked(tmp_path: Path) -> None:
    path = saved(tmp_path, net())
    assert refused(path, ModelError, layers="rec,lin") == (
        "layer lin: receives 2 features, expected 4"
    )
    assert refused(path, UsageError, layers="rec", select="rec") == (
        "options layers and select both say the chain, expected one of them"
    )
    arrays = {**cases.lstm("a."), **cases.lstm("b.")}
    assert refused(saved(tmp_path, arrays), UsageError, select="a,b") == (
        "select names 2 modules, whose order is not in the file, expected one of them, or option "
        "layers: a,b"
    )


def test_listing(tmp_path: Path) -> None:
    arrays = net() | {"gru.weight_ih_l0": draw(6, 3), "gru.weight_hh_l0": draw(6, 2)}
    arrays |= {f"cell.{k.removesuffix('_l0')}": v for k, v in cases.lstm().items()}
    arrays |= {"wn.weight_ih_l0_g": draw(2), **cases.lstm("wn.")}
    assert formats.list_layers(saved(tmp_path, arrays)) == Listing(
        "torch",
        (
            Found("rec", 3, 2, ("forward",), "", "not in the file"),
            Found("cell", 3, 2, ("forward",), "", "not in the file"),
            Found("wn", 3, 2, ("forward",), "", "not in the file", refusal="weight_ih_l0 is stored "
                  "as a norm and a direction (weight_norm)"),
        ),
        (("nn.Embedding or nn.Linear", 2), ("nn.BatchNorm1d", 1), ("nn.GRU", 1), ("nn.Linear", 1)),
    )  # fmt: skip


# -- safetensors ----------------------------------------------------------------------------------


def test_safetensors_of_others_are_read(tmp_path: Path) -> None:
    arrays = net()
    save_file(arrays, str(tmp_path / "m.safetensors"))
    found = formats.load(tmp_path / "m.safetensors", layers=WORDS)
    same(found, formats.load(saved(tmp_path, arrays), layers=WORDS))
    assert found.provenance.version == "safetensors"
    listing = formats.list_layers(tmp_path / "m.safetensors")
    assert (listing.format, listing.names) == ("safetensors", ("rec",))
    save_file(arrays, str(tmp_path / "n.bin"))
    assert formats.load(tmp_path / "n.bin", select="rec").layers[0].name == "rec"


def test_safetensors_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({}, str(path))
    assert refused(path, FormatError) == "holds no tensors, expected the tensors of a state_dict"
    save_file(cases.lstm(), str(path), {"ifgo_layers": "rec:what"})
    assert refused(path, FormatError).startswith(
        "says of its layers: option layers: 'what' is no step, expected one of last, state"
    )
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert refused(path, FormatError).startswith("is no whole safetensors file")


def test_a_parameter_that_is_no_tensor(tmp_path: Path) -> None:
    """Left out, it would give the numbers of a module without it."""
    entries, members = cases.tensors(cases.lstm("rec."))
    entries["rec.bias_hh_l0"] = b"N"
    path = cases.put(tmp_path / "m.pt", cases.whole(cases.table(entries), members))
    assert refused(path, FormatError) == "'rec.bias_hh_l0' is a NoneType, expected a tensor"


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_no_other_recurrent_layer_is_guessed(tmp_path: Path, name: str) -> None:
    arrays = {"weight_ih_l0": draw(6, 3), "weight_hh_l0": draw(6, 2)}
    if name == "m.pt":
        saved(tmp_path, arrays)
    else:
        save_file(arrays, str(tmp_path / name))
    assert refused(tmp_path / name, UnsupportedError) == (
        "module gru: is nn.GRU (3 blocks of rows), expected nn.LSTM or nn.LSTMCell"
    )


def test_a_trained_state_dict_of_another_project(tmp_path: Path, shared: Path) -> None:
    """RTNeural's own test model: two LSTMs and a dense layer, with what PyTorch made of a wave."""
    import json

    folder = shared / "models" / "rtneural"
    found = json.loads((folder / "lstm_torch.json").read_text())
    arrays = {key: np.array(value, "f") for key, value in found.items()}
    path = saved(tmp_path, arrays)
    assert refused(path, UnsupportedError).startswith(
        "holds 3 modules, but not how they follow each other: lstm (nn.LSTM 1 → 8); lstm2 (nn.LSTM "
        "8 → 8, 3 layers); dense (nn.Linear 8 → 1)"
    )
    model = formats.load(path, layers="lstm,lstm2,dense")
    assert len(model.recurrent) == 4
    x = np.loadtxt(folder / "lstm_torch_x_python.csv")
    y = np.loadtxt(folder / "lstm_torch_y_python.csv")
    ours, _ = model.run(x.reshape(-1, 1), on="truth")
    # float32 against float64: 4 LSTMs of 8 units and the decimals of the text.
    assert np.abs(ours.reshape(-1) - y.reshape(-1)).max() < 2e-6
    assert isinstance(model.layers[0], Recurrent)
