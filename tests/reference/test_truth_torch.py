"""float64 truth against torch.nn.LSTM in float64, within bounds that follow from the numbers."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from scalar_lstm import FLOAT64, close, numbers, recurrent

from ifgo.model import FeatureInput, LSTMCell, Model, Recurrent
from ifgo.reference import truth

pytestmark = pytest.mark.peers

BOTH_SIDES = 2
"""Truth and torch are each off from exact arithmetic by one running bound at most."""

AGREEMENT = 1e-12
"""What two float64 implementations are held to. The bounds must lie below it: per step and value
about K·2⁻⁵²·Σ|w||v| with K = I + P + 2 terms, carried through six steps of three layers."""

BATCH, STEPS, INPUTS, HIDDEN = 3, 6, 3, 4


def cell_of(module: Any, layer: int, suffix: str) -> LSTMCell:
    """PyTorch keeps i, f, g, o in rows, as ifgo does: names change, nothing moves."""
    found: dict[str, Any] = {}
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"):
        parameter = getattr(module, f"{name}_l{layer}{suffix}", None)
        if parameter is not None:
            found[name] = parameter.detach().numpy()
    return LSTMCell(**found)


def stack_of(module: Any) -> tuple[Recurrent, ...]:
    return tuple(
        Recurrent(
            f"lstm{k}",
            cell_of(module, k, ""),
            cell_of(module, k, "_reverse") if module.bidirectional else None,
        )
        for k in range(module.num_layers)
    )


def states_of(stack: tuple[Recurrent, ...], h: Any, c: Any) -> dict[str, Any]:
    """torch's (L·D, B, ·), index layer·D + direction, as ours."""
    found: dict[str, Any] = {}
    for k, layer in enumerate(stack):
        rows = slice(k * layer.directions, (k + 1) * layer.directions)
        found |= {f"h{k}": h[rows], f"c{k}": c[rows]}
    return found


def check(module: Any, start: bool, lengths: list[int] | None) -> None:
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    stack = stack_of(module)
    count, width = len(stack) * stack[0].directions, stack[0].cell.output_size
    x = torch.randn(BATCH, STEPS, INPUTS, dtype=torch.float64)
    h0 = torch.randn(count, BATCH, width, dtype=torch.float64) * int(start)
    c0 = torch.randn(count, BATCH, HIDDEN, dtype=torch.float64) * int(start)
    with torch.no_grad():
        if lengths is None:
            y, (h_n, c_n) = module(x, (h0, c0))
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            out, (h_n, c_n) = module(packed, (h0, c0))
            y, _ = pad_packed_sequence(out, batch_first=True, total_length=STEPS)
    given = states_of(stack, h0.numpy(), c0.numpy())
    model = Model((FeatureInput(INPUTS),), stack)
    found = truth.forward(model, x.numpy(), given if start else None, lengths)
    final = states_of(stack, h_n.numpy(), c_n.numpy())
    values = numbers(x.numpy())
    for k, layer in enumerate(stack):
        outcome = recurrent(FLOAT64, layer, values, given[f"h{k}"], given[f"c{k}"], lengths=lengths)
        values = outcome.y
        for key, wanted in ((f"h{k}", outcome.h), (f"c{k}", outcome.c)):
            within(found.state[key], final[key], wanted)
    within(found.y, y.numpy(), values)


def within(ours: Any, theirs: Any, wanted: Any) -> None:
    """Both lie within one bound of the scalar loops, so within two of each other."""
    close(ours, wanted, times=BOTH_SIDES)
    close(theirs, wanted, times=BOTH_SIDES)
    bound = BOTH_SIDES * np.asarray(wanted)[..., 1]
    assert bound.max() <= AGREEMENT
    assert np.abs(ours - theirs).max() <= bound.max()


@pytest.mark.parametrize(
    ("layers", "bidirectional", "proj_size", "bias"),
    list(product([1, 2, 3], [False, True], [0, 2], [True, False])),
)
def test_every_configuration(layers: int, bidirectional: bool, proj_size: int, bias: bool) -> None:
    import torch

    torch.manual_seed(layers)
    module = torch.nn.LSTM(
        INPUTS,
        HIDDEN,
        layers,
        bias=bias,
        batch_first=True,
        bidirectional=bidirectional,
        proj_size=proj_size,
        dtype=torch.float64,
    ).eval()
    for start, lengths in ((False, None), (True, None), (True, [3, 6, 1]), (False, [6, 2, 5])):
        check(module, start, lengths)


def test_dropout_does_nothing_in_inference() -> None:
    import torch

    torch.manual_seed(1)
    module = torch.nn.LSTM(INPUTS, HIDDEN, 2, batch_first=True, dropout=0.5, dtype=torch.float64)
    check(module.eval(), True, None)


def test_one_step_of_an_lstm_cell() -> None:
    import torch

    torch.manual_seed(1)
    module = torch.nn.LSTMCell(INPUTS, HIDDEN, dtype=torch.float64)
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell = LSTMCell(**{name: getattr(module, name).detach().numpy() for name in parts})
    x = torch.randn(BATCH, INPUTS, dtype=torch.float64)
    h = torch.randn(BATCH, HIDDEN, dtype=torch.float64)
    c = torch.randn(BATCH, HIDDEN, dtype=torch.float64)
    with torch.no_grad():
        h_1, c_1 = module(x, (h, c))
    found = truth.step(cell, x.numpy(), h.numpy(), c.numpy())
    layer = Recurrent("cell", cell)
    wanted = recurrent(
        FLOAT64, layer, numbers(x[:, None].numpy()), h.numpy()[None], c.numpy()[None]
    )
    within(found.h[None], h_1.numpy()[None], wanted.h)
    within(found.c[None], c_1.numpy()[None], wanted.c)
