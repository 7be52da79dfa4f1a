"""Gradients against torch.autograd in float64: nn.LSTM, nn.LSTMCell, layers around, training."""

from __future__ import annotations

import sys
import types
import unittest
from itertools import product
from typing import Any

import numpy as np
import pytest

from ifgo.model import (
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    LSTMCell,
    Model,
    Recurrent,
    TokenInput,
    TrainingFacts,
)
from ifgo.reference import gradient, losses

pytestmark = pytest.mark.peers

BATCH, STEPS, INPUTS, HIDDEN = 3, 6, 3, 4
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")

TERMS = 2 * (BATCH * STEPS + 4 * HIDDEN + 2 * HIDDEN)
"""At most so many roundings lie in one sum of the backward, on both sides together: over the batch
and time for a weight, over the gates for dx and dh."""

DEPTH = 3 * STEPS
"""Sums that follow on one another: back through the steps of three layers."""

AGREEMENT = TERMS * DEPTH * 2.0**-53
"""Relative to the largest entry of the same gradient, 1.7e-13. Every product on the way back has a
factor below 1 (slopes, gates) but the weights, whose rows sum to at most about 1 here
(uniform within 1/sqrt(H))."""


def cell_of(module: Any, suffix: str) -> LSTMCell:
    found = {part: getattr(module, part + suffix, None) for part in PARTS}
    return LSTMCell(**{k: v.detach().numpy() for k, v in found.items() if v is not None})


def stack_of(module: Any, training: TrainingFacts | None = None) -> tuple[Recurrent, ...]:
    return tuple(
        Recurrent(
            f"lstm{k}",
            cell_of(module, f"_l{k}"),
            cell_of(module, f"_l{k}_reverse") if module.bidirectional else None,
            training=training or TrainingFacts(),
        )
        for k in range(module.num_layers)
    )


def rows_of(stack: tuple[Recurrent, ...], h: Any, c: Any) -> dict[str, Any]:
    """torch's (L·D, B, ·), index layer·D + direction, by our keys."""
    found: dict[str, Any] = {}
    for k, layer in enumerate(stack):
        rows = slice(k * layer.directions, (k + 1) * layer.directions)
        found |= {f"h{k}": h[rows].detach().numpy(), f"c{k}": c[rows].detach().numpy()}
    return found


def near(ours: Any, theirs: Any) -> None:
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= AGREEMENT * np.abs(theirs).max()


def same_weights(found: gradient.Gradients, module: Any, prefix: str = "lstm") -> None:
    """Every parameter of an nn.LSTM."""
    count = 0
    for name, parameter in module.named_parameters():
        part, _, end = name.rpartition("_l")
        number, _, reverse = end.partition("_")
        direction = "backward" if reverse else "forward"
        near(found.arrays[f"{prefix}{number}.{direction}.{part}"], parameter.grad.numpy())
        count += 1
    assert count == sum(name.startswith(prefix) for name in found.arrays)


def tensors(*shapes: tuple[int, ...]) -> list[Any]:
    import torch

    return [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes]


def check(module: Any, x: Any, hx: Any = None, lengths: Any = None) -> None:
    """Every gradient of an nn.LSTM, from random gradients of its three outputs."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    unbatched, time_axis = x.ndim == 2, int(module.batch_first)
    x = x.detach().requires_grad_()
    hx = None if hx is None else tuple(one.detach().requires_grad_() for one in hx)
    if lengths is None:
        y, (h_n, c_n) = module(x, hx)
    else:
        how = {"batch_first": module.batch_first}
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False, **how)
        out, (h_n, c_n) = module(packed, hx)
        y, _ = pad_packed_sequence(out, total_length=x.shape[time_axis], **how)
    dy, dh, dc = (torch.randn_like(one) for one in (y, h_n, c_n))
    module.zero_grad()
    torch.autograd.backward([y, h_n, c_n], [dy, dh, dc])

    def ours(value: Any) -> Any:
        value = value.detach()
        if unbatched:
            return value.numpy()[None]
        return value.numpy() if module.batch_first else value.numpy().swapaxes(0, 1)

    def state(h: Any, c: Any) -> dict[str, Any]:
        return rows_of(stack, *(one.unsqueeze(1) if unbatched else one for one in (h, c)))

    stack = stack_of(module)
    model = Model((FeatureInput(module.input_size),), stack)
    run = gradient.record(model, ours(x), None if hx is None else state(*hx), lengths)
    near(run.y, ours(y))
    found = run.backward(ours(dy), state(dh, dc))
    near(found.x, ours(x.grad))
    same_weights(found, module)
    for key, wanted in ({} if hx is None else state(*(one.grad for one in hx))).items():
        near(found.state[key], wanted)


@pytest.mark.parametrize(
    ("layers", "bidirectional", "proj_size", "bias"),
    list(product([1, 2, 3], [False, True], [0, 2], [True, False])),
)
def test_every_configuration(layers: int, bidirectional: bool, proj_size: int, bias: bool) -> None:
    import torch

    torch.manual_seed(layers)
    both = 1 + bidirectional
    for batch_first in (True, False):
        module = torch.nn.LSTM(
            INPUTS,
            HIDDEN,
            layers,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            proj_size=proj_size,
            dtype=torch.float64,
        )
        shape = (BATCH, STEPS) if batch_first else (STEPS, BATCH)
        (x,) = tensors((*shape, INPUTS))
        hx = tensors((layers * both, BATCH, proj_size or HIDDEN), (layers * both, BATCH, HIDDEN))
        check(module, x)
        check(module, x, hx)
        check(module, x, hx, [3, 6, 1])
        check(module, x, None, [6, 2, 5])
        check(module, x[0], [one[:, 0] for one in hx])
        check(module, x[0])


def infos() -> Any:
    """(class, constructor, forward) of PyTorch's own inputs of its modules, in float64."""
    import torch

    if "expecttest" not in sys.modules:  # its test tools want a package for their messages
        stub = types.ModuleType("expecttest")
        stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stub
    from torch.testing._internal.common_modules import module_db

    for info in module_db:
        if info.module_cls in (torch.nn.LSTM, torch.nn.LSTMCell):
            how = {"device": "cpu", "dtype": torch.float64, "requires_grad": True}
            for given in info.module_inputs_func(info, training=True, **how):
                yield info.module_cls, given.constructor_input, given.forward_input


@pytest.mark.filterwarnings("ignore")
def test_the_inputs_that_pytorch_tests_itself_with() -> None:
    import torch

    torch.manual_seed(0)
    counts = {torch.nn.LSTM: 0, torch.nn.LSTMCell: 0}
    for kind, made, said in infos():
        module = kind(*made.args, **made.kwargs).double()
        x, hx = [*said.args, said.kwargs.get("hx")][:2]
        (check if kind is torch.nn.LSTM else one_step)(module, x, hx)
        counts[kind] += 1
    assert list(counts.values()) == [32, 2]


def one_step(module: Any, x: Any, hx: Any) -> None:
    """An nn.LSTMCell: a sequence of one step."""
    import torch

    unbatched = x.ndim == 1
    x = (x[None] if unbatched else x).detach().requires_grad_()
    shape = (len(x), module.hidden_size)
    given = tensors(shape, shape) if hx is None else [o[None] if unbatched else o for o in hx]
    h, c = (one.detach().requires_grad_() for one in given)
    squeeze = (lambda one: one[0]) if unbatched else lambda one: one
    h_1, c_1 = module(squeeze(x), (squeeze(h), squeeze(c)))
    dh, dc = torch.randn_like(h), torch.randn_like(c)
    module.zero_grad()
    torch.autograd.backward([h_1, c_1], [squeeze(dh), squeeze(dc)])
    model = Model((FeatureInput(x.shape[1]),), (Recurrent("cell", cell_of(module, "")),))
    start = {"h0": h.detach().numpy(), "c0": c.detach().numpy()}
    run = gradient.record(model, x.detach().numpy()[:, None], start)
    found = run.backward(state={"h0": dh.numpy()[None], "c0": dc.numpy()[None]})
    near(found.x, x.grad.numpy()[:, None])
    near(found.state["h0"], h.grad.numpy()[None])
    near(found.state["c0"], c.grad.numpy()[None])
    for part, parameter in module.named_parameters():
        near(found.arrays[f"cell.forward.{part}"], parameter.grad.numpy())


@pytest.mark.parametrize("batch", [(), (5,)])
@pytest.mark.parametrize("bias", [True, False])
def test_one_step_of_an_lstm_cell(batch: tuple[int, ...], bias: bool) -> None:
    import torch

    torch.manual_seed(2)
    module = torch.nn.LSTMCell(INPUTS, HIDDEN, bias=bias, dtype=torch.float64)
    (x,) = tensors((*batch, INPUTS))
    one_step(module, x, None)
    one_step(module, x, tensors((*batch, HIDDEN), (*batch, HIDDEN)))


# -- around, in training --------------------------------------------------------------------------


def linear(name: str, module: Any) -> Dense:
    return Dense(name, module.weight.detach().numpy(), module.bias.detach().numpy())


@pytest.mark.parametrize("last", [False, True])
def test_a_language_model(last: bool) -> None:
    """Embedding, LSTM, Linear and softmax cross-entropy over padded sequences."""
    import torch

    torch.manual_seed(5)
    embed = torch.nn.Embedding(7, INPUTS, dtype=torch.float64)
    module = torch.nn.LSTM(INPUTS, HIDDEN, 2, batch_first=True, dtype=torch.float64)
    head = torch.nn.Linear(HIDDEN, 5, dtype=torch.float64)
    tokens = torch.randint(0, 7, (BATCH, STEPS))
    classes = torch.randint(0, 5, (BATCH, STEPS))
    classes[1, 4:] = -100
    logits = head(module(embed(tokens))[0])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), classes.flatten())
    loss.backward()
    layers = (
        Embedding("embed", embed.weight.detach().numpy()),
        *stack_of(module),
        linear("head", head),
    )
    run = gradient.record(Model((TokenInput(7),), layers), tokens.numpy())
    ours = losses.softmax_cross_entropy(run.y, classes.numpy(), mask=(classes >= 0).numpy())
    assert abs(ours.value - loss.item()) <= AGREEMENT * loss.item()
    found = run.backward(ours.gradient)
    assert found.x is None
    near(found.arrays["embed.weight"], embed.weight.grad.numpy())
    near(found.arrays["head.weight"], head.weight.grad.numpy())
    near(found.arrays["head.bias"], head.bias.grad.numpy())
    same_weights(found, module)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses(reduction: Any) -> None:
    import torch
    from torch.nn import functional

    torch.manual_seed(3)
    (z,) = tensors((4, 5))
    target, classes = torch.rand(4, 5, dtype=torch.float64), torch.randint(0, 5, (4,))
    pairs: list[Any] = [
        (losses.mse, functional.mse_loss, target),
        (losses.bce_with_logits, functional.binary_cross_entropy_with_logits, target),
        (losses.softmax_cross_entropy, functional.cross_entropy, classes),
    ]
    for ours, theirs, wanted in pairs:
        value = theirs(z, wanted, reduction=reduction)
        (grad,) = torch.autograd.grad(value, z)
        found = ours(z.detach().numpy(), wanted.numpy(), reduction=reduction)
        assert abs(found.value - value.item()) <= AGREEMENT * abs(value.item())
        near(found.gradient, grad.numpy())


def test_truncated_windows_are_detached_states() -> None:
    import torch

    torch.manual_seed(6)
    module = torch.nn.LSTM(INPUTS, HIDDEN, 2, batch_first=True, dtype=torch.float64)
    (x,) = tensors((BATCH, STEPS, INPUTS))
    dy = torch.randn(BATCH, STEPS, HIDDEN, dtype=torch.float64)
    hx: Any = None
    for first in range(0, STEPS, 2):
        y, hx = module(x[:, first : first + 2], hx)
        y.backward(dy[:, first : first + 2])
        hx = tuple(one.detach() for one in hx)
    model = Model((FeatureInput(INPUTS),), stack_of(module))
    total: dict[str, Any] = {}
    dx: list[Any] = []
    for k, window in enumerate(gradient.windows(model, x.detach().numpy(), 2)):
        found = window.backward(dy[:, 2 * k : 2 * k + 2].numpy())
        total = {name: total.get(name, 0) + array for name, array in found.arrays.items()}
        dx.append(found.x)
    whole = gradient.Gradients(total, np.concatenate(dx, axis=1), {})
    near(whole.x, x.grad.numpy())
    same_weights(whole, module)


def test_dropout_between_layers() -> None:
    """nn.LSTM's own dropout, drawn by hand: on the output of a layer, not on its state."""
    import torch

    torch.manual_seed(7)
    kept = (torch.rand(BATCH, STEPS, HIDDEN) < 0.5).double() * 2
    (x,) = tensors((BATCH, STEPS, INPUTS))
    lower = torch.nn.LSTM(INPUTS, HIDDEN, batch_first=True, dtype=torch.float64)
    upper = torch.nn.LSTM(HIDDEN, HIDDEN, batch_first=True, dtype=torch.float64)
    y1, (h1, _) = lower(x)
    y2, _ = upper(y1 * kept)
    dy, dh = torch.randn_like(y2), torch.randn_like(h1)
    torch.autograd.backward([y2, h1], [dy, dh])
    cells = cell_of(lower, "_l0"), cell_of(upper, "_l0")
    facts = TrainingFacts(output=0.5)
    as_fact = (Recurrent("a", cells[0], training=facts), Recurrent("b", cells[1]))
    as_layer = (Recurrent("a", cells[0]), Dropout("d", 0.5), Recurrent("b", cells[1]))
    for layers, name in ((as_fact, "a.output"), (as_layer, "d")):
        model = Model((FeatureInput(INPUTS),), layers)
        run = gradient.record(model, x.detach().numpy(), dropout={name: kept.numpy()})
        found = run.backward(dy.numpy(), {"h0": dh.numpy()})
        near(found.x, x.grad.numpy())
        for one, module in (("a", lower), ("b", upper)):
            for part in PARTS[:4]:
                wanted = getattr(module, f"{part}_l0").grad.numpy()
                near(found.arrays[f"{one}.forward.{part}"], wanted)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training: bool) -> None:
    """BatchNorm1d in training (biased statistics of the batch) and in evaluation."""
    import torch

    torch.manual_seed(8)
    module = torch.nn.LSTM(INPUTS, HIDDEN, batch_first=True, dtype=torch.float64)
    norm = torch.nn.BatchNorm1d(HIDDEN, dtype=torch.float64).train(training)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    stored = norm.running_mean.numpy().copy(), norm.running_var.numpy().copy()
    (x,) = tensors((BATCH, STEPS, INPUTS))
    y = norm(module(x)[0].transpose(1, 2)).transpose(1, 2)
    dy = torch.randn_like(y)
    y.backward(dy)
    weights = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    layers = (*stack_of(module), BatchNorm("bn", *stored, *weights, epsilon=norm.eps))
    model = Model((FeatureInput(INPUTS),), layers)
    how: Any = {"bn": "biased"} if training else None
    run = gradient.record(model, x.detach().numpy(), batch_statistics=how)
    near(run.y, y.detach().numpy())
    found = run.backward(dy.numpy())
    near(found.x, x.grad.numpy())
    near(found.arrays["bn.weight"], norm.weight.grad.numpy())
    near(found.arrays["bn.bias"], norm.bias.grad.numpy())
    same_weights(found, module)
    if training:
        mean, variance = run.statistics["bn"]
        count = BATCH * STEPS
        near(0.9 * stored[0] + 0.1 * mean, norm.running_mean.numpy())
        near(0.9 * stored[1] + 0.1 * variance * count / (count - 1), norm.running_var.numpy())
