"""Names and arrays of a state_dict become modules, and modules become layers or are refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from raising import raising

from ifgo.errors import FormatError, IfgoError, ModelError, UnsupportedError
from ifgo.formats import _state_dict as state_dict
from ifgo.layers import BatchNorm, Dense, Embedding, Recurrent


def lstm(
    prefix: str = "",
    inputs: int = 3,
    hidden: int = 4,
    layers: int = 1,
    *,
    both: bool = False,
    proj: int = 0,
    bias: bool = True,
) -> dict[str, Any]:
    """The tensors of an nn.LSTM, in PyTorch's order."""
    rng = np.random.default_rng(layers)
    found: dict[str, Any] = {}
    width, inner = inputs, proj or hidden
    for k, end in product(range(layers), ["", "_reverse"] if both else [""]):
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (4 * hidden, width),
            "weight_hh": (4 * hidden, inner),
        }
        shapes |= {"bias_ih": (4 * hidden,), "bias_hh": (4 * hidden,)} if bias else {}
        shapes |= {"weight_hr": (proj, hidden)} if proj else {}
        for name, shape in shapes.items():
            found[f"{prefix}{name}_l{k}{end}"] = rng.normal(size=shape).astype("f")
        if end or not both:
            width = inner * (1 + both)
    return found


def draw(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype("f")


def only(tensors: dict[str, Any]) -> state_dict.Module:
    (module,) = state_dict.modules(tensors)
    return module


def refused(tensors: dict[str, Any], kind: type[IfgoError] = FormatError) -> str:
    with pytest.raises(kind) as caught:
        state_dict.lstm(state_dict.modules(tensors)[0])
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize(
    ("layers", "both", "proj", "bias"), list(product([1, 3], [False, True], [0, 2], [True, False]))
)
def test_every_tensor_lands_in_its_place(layers: int, both: bool, proj: int, bias: bool) -> None:
    tensors = lstm("net.rec.", layers=layers, both=both, proj=proj, bias=bias)
    module = only(tensors)
    assert (module.name, module.kind, module.layers) == ("rec", "lstm", layers)
    assert module.sizes == (3, (proj or 4) * (1 + both))
    built, names = state_dict.lstm(module)
    assert sorted(names.values()) == sorted(tensors)
    for layer in built:
        assert isinstance(layer, Recurrent)
        for name, array in layer.arrays.items():
            assert array.tobytes() == tensors[names[f"{layer.name}.{name}"]].tobytes()
        assert layer.cells.keys() == ({"forward", "backward"} if both else {"forward"})
        for cell in layer.cells.values():
            assert (cell.bias_ih is not None, cell.weight_hr is not None) == (bias, bool(proj))
    assert [layer.name for layer in built] == (
        ["rec"] if layers == 1 else [f"rec_l{k}" for k in range(layers)]
    )


def test_a_cell() -> None:
    tensors = {key.removesuffix("_l0"): value for key, value in lstm().items()}
    module = only(tensors)
    assert (module.kind, module.name, module.words) == (
        "lstm_cell",
        "lstm_cell",
        "nn.LSTMCell 3 → 4",
    )
    ((layer,), names) = state_dict.lstm(module, "step")
    assert names["step.forward.bias_hh"] == "bias_hh"
    assert layer.arrays["forward.weight_hh"].tobytes() == tensors["weight_hh"].tobytes()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["", "lin."], ["lstm", "lin"]),
        (["module.", "module.lin."], ["lstm", "lin"]),
        (["module."], ["lstm"]),
        (["_orig_mod."], ["lstm"]),
        (["_orig_mod.module.rec."], ["rec"]),
        (["module._orig_mod.net.rec.", "module._orig_mod.net.lin."], ["rec", "lin"]),
        (["rec._orig_mod.", "head.lin."], ["rec", "head.lin"]),
        (["rec.", "rec._orig_mod."], ["rec", "rec._orig_mod"]),
        (["a.b.c.", "a.b."], ["b.c", "b"]),
    ],
)
def test_names_leave_out_what_all_share(paths: list[str], names: list[str]) -> None:
    tensors: dict[str, Any] = {}
    for k, path in enumerate(paths):
        tensors |= lstm(path) if k == 0 else {f"{path}weight": draw(2, 4), f"{path}bias": draw(2)}
    assert [module.name for module in state_dict.modules(tensors)] == names


def test_kinds_of_modules() -> None:
    tensors = {
        "embed.weight": draw(9, 3),
        **lstm("rec."),
        "rec.h0": draw(1, 1, 4),
        "lin.weight": draw(2, 4),
        "lin.bias": draw(2),
        "bn.weight": draw(2),
        "bn.bias": draw(2),
        "bn.running_mean": draw(2),
        "bn.running_var": np.ones(2, "f"),
        "bn.num_batches_tracked": np.array(7),
        "norm.weight": draw(2),
        "norm.bias": draw(2),
        "conv.weight": draw(2, 3, 5),
        **{f"gru.{k.removesuffix('_l0')}": v[: v.shape[0] * 3 // 4] for k, v in lstm().items()},
        "rnn.weight_ih_l0": draw(4, 3),
        "rnn.weight_hh_l0": draw(4, 4),
    }
    found = [(m.name, m.kind, m.words) for m in state_dict.modules(tensors)]
    assert found == [
        ("embed", "matrix", "nn.Embedding or nn.Linear without bias 3 → 9"),
        ("rec", "lstm", "nn.LSTM 3 → 4"),
        ("rec.h0", "other", "tensors h0 (1, 1, 4)"),
        ("lin", "linear", "nn.Linear 4 → 2"),
        ("bn", "batch_norm", "nn.BatchNorm1d 2 → 2"),
        ("norm", "other", "tensors weight (2,), bias (2,)"),
        ("conv", "other", "tensors weight (2, 3, 5)"),
        ("gru", "gru", "nn.GRU"),
        ("rnn", "rnn", "nn.RNN"),
    ]


def test_an_empty_dict_has_no_modules() -> None:
    assert state_dict.modules({}) == ()


def test_dense_embedding_and_batch_norm() -> None:
    ((layer,), names) = state_dict.dense(only({"a.weight": draw(2, 4), "a.bias": draw(2)}))
    assert isinstance(layer, Dense)
    assert layer.arrays["weight"].tobytes() == draw(2, 4).tobytes()
    assert names == {"a.weight": "a.weight", "a.bias": "a.bias"}
    matrix = only({"net.a.weight": draw(9, 4)})
    ((layer,), names) = state_dict.embedding(matrix, "tokens")
    assert isinstance(layer, Embedding)
    assert (layer.vocabulary, names) == (9, {"tokens.weight": "net.a.weight"})
    statistics = {"b.running_mean": draw(2), "b.running_var": draw(2) ** 2}
    affine = {"b.weight": draw(2) + 1, "b.bias": draw(2) + 2}
    for more in ({}, affine):
        tensors = statistics | more | {"b.num_batches_tracked": np.array(3)}
        ((layer,), names) = state_dict.batch_norm(only(tensors), 1e-5)
        assert isinstance(layer, BatchNorm)
        assert (layer.epsilon, layer.epsilon_outside) == (1e-5, False)
        for name, array in layer.arrays.items():
            assert array.tobytes() == tensors[names[f"b.{name}"]].tobytes()
        assert len(names) == 2 + len(more)


# -- refusals -------------------------------------------------------------------------------------


def test_other_recurrent_networks_are_named() -> None:
    parts = {key: value[:12] for key, value in lstm("rec.").items()}
    assert refused(parts, UnsupportedError) == (
        "module rec: is nn.GRU (3 blocks of rows), expected nn.LSTM or nn.LSTMCell"
    )
    parts = {key.removesuffix("_l0"): value[:4] for key, value in lstm().items()}
    assert refused(parts, UnsupportedError) == (
        "module rnn: is nn.RNN (1 block of rows), expected nn.LSTM or nn.LSTMCell"
    )
    with pytest.raises(UnsupportedError) as caught:
        state_dict.dense(only(lstm()))
    assert str(caught.value) == (
        "module lstm: is nn.LSTM 3 → 4, expected nn.Linear or nn.Embedding or nn.Linear without "
        "bias"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "rec.weight_hh_l0",
            ("rec.weight_hh_l0_g", "rec.weight_hh_l0_v"),
            "weight_hh_l0 is stored as a norm and a direction (weight_norm). Before saving: "
            "torch.nn.utils.remove_weight_norm(module, 'weight_hh_l0')",
        ),
        (
            "rec.weight_hh_l0",
            (
                "rec.parametrizations.weight_hh_l0.original0",
                "rec.parametrizations.weight_hh_l0.original1",
            ),
            "weight_hh_l0 is stored through a parametrization. Before saving: "
            "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight_hh_l0')",
        ),
        (
            "rec.weight_ih_l0",
            ("rec.weight_ih_l0_orig", "rec.weight_ih_l0_mask"),
            "weight_ih_l0 is stored as an original and a mask (pruning) or vector (spectral_norm). "
            "Before saving: torch.nn.utils.prune.remove(module, 'weight_ih_l0'), or "
            "remove_spectral_norm",
        ),
    ],
)
def test_weights_that_are_computed_are_refused(old: str, new: tuple[str, str], said: str) -> None:
    tensors = lstm("rec.")
    value = tensors.pop(old)
    tensors |= dict.fromkeys(new, value)
    assert refused(tensors, UnsupportedError) == f"module rec: {said}"


def test_quantised_parameters_are_refused() -> None:
    tensors = {"rec._all_weight_values.0.param": draw(4)}
    assert refused(tensors, UnsupportedError) == (
        "module rec: _all_weight_values holds quantised parameters in a packed form. Before "
        "saving: the state_dict of the model before quantisation"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rec.weight_hh_l1": None},
            "has no weight_hh_l1, expected it beside bias_hh_l0, bias_hh_l1, bias_ih_l0, "
            "bias_ih_l1. The state_dict was saved in part, or edited",
        ),
        (
            {"rec.bias_ih_l0": None},
            "has no bias_ih_l0, expected it beside bias_hh_l0, bias_hh_l1, bias_ih_l1, "
            "weight_hh_l0. The state_dict was saved in part, or edited",
        ),
        (
            {"rec.bias_ih_l0": draw(15)},
            "rec.bias_ih_l0 has shape (15,), expected (16,). 4 blocks of H rows make an LSTM, 3 a "
            "GRU, 1 a vanilla RNN",
        ),
        (
            {"rec.weight_hh_l0": draw(15, 4)},
            "rec.weight_hh_l0 has shape (15, 4), expected (16, 4). 4 blocks of H rows make an "
            "LSTM, 3 a GRU, 1 a vanilla RNN",
        ),
        (
            {"rec.weight_ih_l0": draw(16, 3, 1)},
            "rec.weight_ih_l0 has shape (16, 3, 1), expected (16, any). 4 blocks of H rows make "
            "an LSTM, 3 a GRU, 1 a vanilla RNN",
        ),
        ({"rec.weight_ih_l1": draw(16, 5)}, "rec.weight_ih_l1 takes 5 features, expected 4, what "
         "layer 0 gives"),
        (
            {"rec.weight_hr_l0": draw(2, 4), "rec.weight_hh_l0": draw(16, 2)},
            "has no weight_hr_l1, expected it beside bias_hh_l0, bias_hh_l1, bias_ih_l0, "
            "bias_ih_l1. The state_dict was saved in part, or edited",
        ),
        (
            {"rec.weight_ih_l0_reverse": draw(16, 3)},
            "has no weight_hh_l0_reverse, expected it beside bias_hh_l0, bias_hh_l1, bias_ih_l0, "
            "bias_ih_l1. The state_dict was saved in part, or edited",
        ),
        ({"rec.weight_ih": draw(16, 3)}, "holds 'weight_ih', expected tensors of layers 0 to 1 "
         "only"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(changes: dict[str, Any], said: str) -> None:
    tensors = lstm("rec.", layers=2) | changes
    left = {key: value for key, value in tensors.items() if value is not None}
    assert refused(left).startswith(f"module rec: {said}")


def test_layer_numbers_have_no_holes() -> None:
    tensors = {key.replace("_l1", "_l2"): value for key, value in lstm("rec.", layers=2).items()}
    assert refused(tensors).startswith("module rec: has no weight_ih_l1, expected it beside ")
    tensors = {f"weight_ih_l{k}": draw(16, 3) for k in range(70)}
    assert refused(tensors) == "module lstm: has 70 layers, expected at most 64" + raising("layers")


def test_values_no_weight_may_have() -> None:
    for value, said in (
        (np.full((16, 4), np.nan, "f"), "weight_hh[0, 0] is nan, expected finite values. Train or "
         "export the model again: a NaN or infinity never computes"),
        (np.ones((16, 4), "c8"), "weight_hh has dtype complex64, expected a floating-point array"),
        (np.ones((16, 4), "i1"), "weight_hh has dtype int8, expected a floating-point array"),
    ):  # fmt: skip
        text = refused(lstm("rec.") | {"rec.weight_hh_l0": value}, ModelError)
        assert text == f"module rec, l0: {said}"


def test_huge_names_are_cut() -> None:
    module = only(lstm("n" * 5000 + "."))
    assert len(module.name) < 256
    assert state_dict.lstm(module)[0][0].name == module.name
