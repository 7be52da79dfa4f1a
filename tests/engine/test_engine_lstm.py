"""ifgo.LSTM: shapes and numbers of torch.nn.LSTM, gradients of torch.autograd, refusals."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import unittest
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from core_cases import cell, chain, lstm, refused

import ifgo
from ifgo.errors import UnsupportedError, UsageError
from ifgo.model import Recurrent

GRADIENTS = 5e-6
"""Relative to the largest gradient of the array; both sides compute in float32 or better."""

VALUES = 2e-6
"""Absolute: outputs below 1 after up to seven steps, against float64."""

OPTIONS = [
    {"num_layers": n, "bias": b, "batch_first": f, "bidirectional": two, "proj_size": p}
    for n, b, f, two, p in itertools.product(
        (1, 2), (True, False), (True, False), (True, False), (0, 3)
    )
]


@pytest.fixture(autouse=True)
def engine(native):
    """Every test here computes."""


def draw(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def theirs(ours: Any) -> Any:
    import torch

    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional")
    made = torch.nn.LSTM(
        **{name: getattr(ours, name) for name in names}, proj_size=ours.proj_size
    ).double()
    made.load_state_dict({k: torch.from_numpy(v).double() for k, v in ours.state_dict().items()})
    return made


def near(have: Any, want: Any, relative: float) -> bool:
    want = np.asarray(want)
    return bool(np.abs(have - want).max() <= relative * max(np.abs(want).max(), 1e-3))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batch", [None, 1, 4])
def test_values_and_gradients_are_those_of_torch(options, batch):
    import torch

    ours = ifgo.LSTM(5, 7, **options, generator=1)
    peer = theirs(ours)
    steps, two = 6, 2 if options["bidirectional"] else 1
    shape = (steps, 5) if batch is None else (steps, batch, 5)
    if batch is not None and options["batch_first"]:
        shape = (batch, steps, 5)
    count = two * options["num_layers"]
    rows = () if batch is None else (batch,)
    x, h, c = draw(1, *shape), draw(2, count, *rows, ours.output_size), draw(3, count, *rows, 7)
    done = ours.forward(x, (h, c))
    called, (h_n, c_n) = ours(x, (h, c))
    given = [torch.from_numpy(a).double().requires_grad_() for a in (x, h, c)]
    y, (hy, cy) = peer(given[0], (given[1], given[2]))
    for have, want in ((done.output, y), (done.h_n, hy), (done.c_n, cy)):
        assert have.shape == tuple(want.shape)
        assert np.abs(have - want.detach().numpy()).max() <= VALUES
    for have, again in ((done.output, called), (done.h_n, h_n), (done.c_n, c_n)):
        assert np.abs(have - again).max() <= VALUES
    dy, dh, dc = draw(4, *y.shape), draw(5, *hy.shape), draw(6, *cy.shape)
    back = done.backward(dy, (dh, dc))
    loss = sum((a * torch.from_numpy(d)).sum() for a, d in ((y, dy), (hy, dh), (cy, dc)))
    loss.backward()
    for name, parameter in peer.named_parameters():
        assert near(back.parameters[name], parameter.grad, GRADIENTS), name
    for have, want in zip((back.x, back.h_0, back.c_0), given, strict=True):
        assert have.shape == tuple(want.shape)
        assert near(have, want.grad, GRADIENTS)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:.*")
def test_the_inputs_that_torch_tests_itself_with(monkeypatch):
    import torch

    stands = ModuleType("expecttest")  # what torch.testing imports and this does not use
    stands.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    if importlib.util.find_spec("expecttest") is None:
        monkeypatch.setitem(sys.modules, "expecttest", stands)
    from torch.testing._internal.common_modules import module_db

    (info,) = [i for i in module_db if i.module_cls is torch.nn.LSTM]
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=False, training=False
    )
    seen = 0
    for given in inputs:
        args, kwargs = given.constructor_input.args, given.constructor_input.kwargs
        peer = torch.nn.LSTM(*args, **kwargs, dtype=torch.float64)
        ours = ifgo.LSTM(*args, **kwargs)
        ours.load_state_dict({k: v.detach().numpy() for k, v in peer.state_dict().items()})
        x, *state = given.forward_input.args
        state = [*state, *given.forward_input.kwargs.values()]
        pair = tuple(a.numpy() for a in state[0]) if state else None
        with torch.no_grad():
            y, (hy, cy) = peer.eval()(x, *state)
        have, (h_n, c_n) = ours.eval()(x.numpy(), pair)
        for one, other in ((have, y), (h_n, hy), (c_n, cy)):
            assert one.shape == tuple(other.shape)
            assert np.abs(one - other.numpy()).max() <= VALUES
        seen += 1
    assert seen


@pytest.mark.parametrize("bidirectional", [False, True])
def test_each_length_is_as_if_alone(bidirectional):
    ours = ifgo.LSTM(3, 9, 2, batch_first=True, bidirectional=bidirectional, generator=2)
    x, lengths = draw(1, 4, 6, 3), [6, 1, 3, 4]
    done = ours.forward(x, lengths=lengths)
    back = done.backward(np.ones_like(done.output), (done.h_n, done.c_n))
    total = {name: np.zeros_like(a) for name, a in ours.parameters.items()}
    for row, length in enumerate(lengths):
        alone = ours.forward(x[row, :length])
        assert np.abs(done.output[row, :length] - alone.output).max() <= VALUES
        assert not done.output[row, length:].any()
        assert np.abs(done.h_n[:, row] - alone.h_n).max() <= VALUES
        one = alone.backward(np.ones_like(alone.output), (alone.h_n, alone.c_n))
        assert near(back.x[row, :length], one.x, GRADIENTS)
        assert not back.x[row, length:].any()
        total = {name: total[name] + one.parameters[name] for name in total}
    for name, want in total.items():
        assert near(back.parameters[name], want, GRADIENTS), name


def test_dropout_between_layers():
    ours = ifgo.LSTM(3, 8, 3, dropout=0.5, generator=3)
    x = draw(1, 5, 2, 3)
    one, two = ours(x)[0], ours(x)[0]
    assert np.abs(one - two).max() > 1e-3
    ours.eval()
    assert (ours(x)[0] == ours(x)[0]).all()
    masks = [np.full((5, 2, 8), 2.0) * (draw(k, 5, 2, 8) > 0) for k in (1, 2)]
    done = ours.forward(x, masks=masks)
    again = ours.forward(x, masks=[np.zeros((5, 2, 8))] * 2)
    assert np.abs(done.output - again.output).max() > 1e-3
    back = again.backward(np.ones_like(again.output))
    assert not back.x.any()
    assert not back.parameters["weight_ih_l2"].any()
    assert back.parameters["weight_hh_l2"].any()
    with refused(UsageError, "1 masks, expected 2, one between layers"):
        ours.forward(x, masks=masks[:1])


def test_weights_follow_the_seed_and_lie_within_the_bound():
    one, two, other = (ifgo.LSTM(3, 16, generator=seed) for seed in (1, 1, 2))
    for name, array in one.parameters.items():
        assert (array == two.parameters[name]).all()
        assert (array != other.parameters[name]).any()
        assert 0.2 < np.abs(array).max() <= 0.25


def test_a_step_of_training_is_seen_at_the_next_call():
    ours, x = ifgo.LSTM(2, 4, generator=1), draw(1, 3, 2, 2)
    before = ours(x)[0]
    ours.parameters["bias_ih_l0"] += 0.5
    assert np.abs(ours(x)[0] - before).max() > 1e-2
    ours.eval()
    after = ours(x)[0]
    assert (
        np.abs(
            after - ours.to_model().run(x.transpose(1, 0, 2), on="truth")[0].transpose(1, 0, 2)
        ).max()
        <= VALUES
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_to_a_model_and_back(options):
    ours = ifgo.LSTM(5, 7, **options, dropout=0.25, generator=4).eval()
    model = ours.to_model()
    again = ifgo.LSTM.from_model(model)
    assert {k: v.tobytes() for k, v in again.state_dict().items()} == {
        k: v.tobytes() for k, v in ours.state_dict().items()
    }
    assert again.dropout == (0.25 if options["num_layers"] > 1 else 0.0)
    x = draw(1, 2, 6, 5)
    y = again.eval()(x)[0]
    assert np.abs(y - model.run(x, on="truth")[0]).max() <= VALUES


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            chain(Recurrent("r", cell(clip_z=1.0))),
            "layer r: clip_z is nothing that torch.nn.LSTM has",
        ),
        (
            chain(lstm("a"), lstm("b", 3, 4)),
            "layer b: a size that the first layer has not is nothing that torch.nn.LSTM has",
        ),
        (
            chain(lstm("a", go_backwards=True)),
            "layer a: a direction or merge of its own is nothing that torch.nn.LSTM has",
        ),
    ],
)
def test_models_that_are_none(model, message):
    with refused(UnsupportedError, message):
        ifgo.LSTM.from_model(model)


X = np.ones((4, 2, 3), np.float32)
PAIR = (np.zeros((1, 2, 5)), np.zeros((1, 2, 5)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ifgo.LSTM(0, 5), "input_size is 0, expected a whole number, at least 1"),
        (lambda: ifgo.LSTM(3, 2.5), "hidden_size is 2.5, expected a whole number, at least 1"),  # type: ignore[arg-type]
        (
            lambda: ifgo.LSTM(3, 5, proj_size=5),
            "proj_size is 5, expected 0, or less than hidden_size 5",
        ),
        (lambda: ifgo.LSTM(3, 5, dropout=1.5), "dropout is 1.5, expected a probability, 0 to 1"),
        (lambda: ifgo.LSTM(3, 5, threads=0), "threads is 0, expected 1 to 64, or None"),
        (
            lambda: ifgo.LSTM(3, 5)(X[..., :2]),
            "x has shape (4, 2, 2), expected (T, B, I) or (T, I), I = 3",
        ),
        (
            lambda: ifgo.LSTM(3, 5, batch_first=True)(X[0, 0]),
            "x has shape (3,), expected (B, T, I) or (T, I), I = 3",
        ),
        (lambda: ifgo.LSTM(3, 5)(X > 0), "x has dtype bool, expected real numbers"),
        (
            lambda: ifgo.LSTM(3, 5)(X * np.nan),
            "x holds values that are not finite, expected finite float32",
        ),
        (lambda: ifgo.LSTM(3, 5)(X, PAIR[0]), "the state is no pair, expected (h_0, c_0)"),  # type: ignore[arg-type]
        (
            lambda: ifgo.LSTM(3, 5)(X, (PAIR[0][0], PAIR[1])),
            "h_0 has shape (2, 5), expected (1, 2, 5)",
        ),
        (
            lambda: ifgo.LSTM(3, 5)(X[:, 0], PAIR),
            "h_0 has shape (1, 2, 5), expected (1, 5)",
        ),
        (
            lambda: ifgo.LSTM(3, 5)(X, lengths=[0, 4]),
            "lengths reach from 0 to 4, expected 1 to 4",
        ),
        (
            lambda: ifgo.LSTM(3, 5)(X, lengths=[4]),
            "lengths has shape (1,) and dtype int64, "
            "expected (2,) integers, one length per sequence",
        ),
        (
            lambda: ifgo.LSTM(3, 5).forward(X).backward(X),
            "d_output has shape (4, 2, 3), expected (4, 2, 5)",
        ),
        (
            lambda: ifgo.LSTM(1, 1, bias=False).load_state_dict({"weight_ih_l0": np.ones((4, 1))}),
            "the state_dict lacks ['weight_hh_l0'], expected exactly weight_ih_l0, weight_hh_l0",
        ),
        (
            lambda: ifgo.LSTM(1, 1, bias=False).load_state_dict(
                {"weight_ih_l0": np.ones((4, 2)), "weight_hh_l0": np.ones((4, 1))}
            ),
            "weight_ih_l0 has shape (4, 2), expected (4, 1)",
        ),
    ],
)
def test_refusals_of_the_lstm(call, message):
    with refused(UsageError, message):
        call()


def test_backward_is_called_once():
    done = ifgo.LSTM(3, 5).forward(X)
    done.backward()
    with refused(UsageError, "backward was called already, expected one call. Call forward again"):
        done.backward()


def test_a_parameter_that_was_replaced_by_another_shape():
    ours = ifgo.LSTM(3, 5)
    ours.parameters["weight_hh_l0"] = np.zeros((20, 4), np.float32)
    with refused(
        UsageError,
        "parameter weight_hh_l0 is float32 of shape (20, 4), expected float32 of shape (20, 5)",
    ):
        ours(X)
