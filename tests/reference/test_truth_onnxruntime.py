"""float64 truth against ONNX Runtime, for what torch lacks; and what a wrong gate order does.

The graph is written here by hand, so that no writer of ifgo stands between the two. Tolerances are
running float32 error bounds over the very numbers that are compared.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from scalar_lstm import FLOAT32_ONNXRUNTIME, close, numbers, recurrent

from ifgo.activations import SIGMOID, TANH, Activation
from ifgo.model import FeatureInput, LSTMCell, Model, Recurrent
from ifgo.reference import truth

ONE_SIDE = 1 + 2.0**-10
"""The float32 result is off by one bound; the rest covers what the float64 side rounds."""

BATCH, STEPS, INPUTS, HIDDEN = 3, 5, 2, 3

WRONG_ORDERS = ["".join(order) for order in permutations("ifgo") if "".join(order) != "ifgo"]

NOTICED = 1e-3
"""Every wrong order moves some output by more, with weights of ordinary size: a hundred times the
largest bound that the comparison of the right one needs."""


def draw(seed: int, *shape: int, scale: float = 0.5) -> Any:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def onnx_rows(matrix: Any) -> Any:
    """i, f, g, o → i, o, f, g."""
    i, f, g, o = np.split(matrix, 4)
    return np.concatenate([i, o, f, g])


def cell(seed: int, **options: Any) -> LSTMCell:
    return LSTMCell(
        draw(seed, 4 * HIDDEN, INPUTS),
        draw(seed + 1, 4 * HIDDEN, HIDDEN),
        draw(seed + 2, 4 * HIDDEN),
        draw(seed + 3, 4 * HIDDEN),
        **options,
    )


def run_onnx(layer: Recurrent, x: Any, h0: Any, c0: Any, lengths: Any) -> tuple[Any, Any, Any]:
    """Y (B, T, D·H), Y_h and Y_c (D, B, H) of one LSTM node."""
    cells = list(layer.cells.values())
    first = cells[0]
    direction = {("forward",): "forward", ("backward",): "reverse"}.get(
        tuple(layer.cells), "bidirectional"
    )
    feeds: dict[str, Any] = {
        "X": x.transpose(1, 0, 2),
        "W": np.stack([onnx_rows(cell.weight_ih) for cell in cells]),
        "R": np.stack([onnx_rows(cell.weight_hh) for cell in cells]),
        "B": np.stack(
            [np.concatenate([onnx_rows(cell.bias_ih), onnx_rows(cell.bias_hh)]) for cell in cells]
        ),
        "initial_h": h0,
        "initial_c": c0,
    }
    if first.peephole is not None:
        feeds["P"] = np.stack(
            [np.concatenate([c.peephole[0], c.peephole[2], c.peephole[1]]) for c in cells]  # type: ignore[index]
        )
    if lengths is not None:
        feeds["sequence_lens"] = np.array(lengths, np.int32)
    names = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "hard_sigmoid": "HardSigmoid"}
    names |= {"leaky_relu": "LeakyRelu", "affine": "Affine", "elu": "Elu", "softsign": "Softsign"}
    acts = [a for cell in cells for a in cell.activations]
    attributes: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "direction": direction,
        "activations": [names[a.name] for a in acts],
        "input_forget": int(first.coupling == "f=1-i"),
    }
    if alphas := [a.alpha for a in acts if a.alpha is not None]:
        attributes["activation_alpha"] = alphas
    if betas := [a.beta for a in acts if a.beta is not None]:
        attributes["activation_beta"] = betas
    if first.clip_z is not None:
        attributes["clip"] = first.clip_z
    order = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    node = helper.make_node(
        "LSTM",
        [name if name in feeds else "" for name in order],
        ["Y", "Y_h", "Y_c"],
        **attributes,
    )
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info(n, kinds[v.dtype], v.shape) for n, v in feeds.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("Y", "Y_h", "Y_c")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y, y_h, y_c = session.run(None, feeds)
    steps, directions, batch, hidden = y.shape
    return y.transpose(2, 0, 1, 3).reshape(batch, steps, directions * hidden), y_h, y_c


PEEPHOLE = {"peephole": draw(90, 3, HIDDEN)}


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
@pytest.mark.parametrize("lengths", [None, [5, 0, 2]], ids=["full", "lengths"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        PEEPHOLE,
        {"clip_z": 0.25},
        PEEPHOLE | {"clip_z": 0.25},
        {"coupling": "f=1-i"},
        PEEPHOLE | {"coupling": "f=1-i", "clip_z": 0.75},
        {"activations": (TANH, SIGMOID, TANH)},
        {"activations": (Activation("hard_sigmoid", 0.2, 0.5), Activation("softsign"), TANH)},
        {"activations": (SIGMOID, Activation("leaky_relu", 0.1), Activation("elu", 0.7))},
        {"activations": (SIGMOID, Activation("relu"), Activation("affine", 0.8, 0.1))},
    ],
    ids=lambda options: "-".join(map(str, options)) or "plain",
)
def test_options_that_torch_lacks(direction: str, lengths: Any, options: dict[str, Any]) -> None:
    layer = Recurrent(
        "lstm",
        cell(1, **options) if direction != "backward" else None,
        cell(11, **options) if direction != "forward" else None,
    )
    x = draw(50, BATCH, STEPS, INPUTS, scale=1.0)
    h0 = draw(51, layer.directions, BATCH, HIDDEN)
    c0 = draw(52, layer.directions, BATCH, HIDDEN)
    y, y_h, y_c = run_onnx(layer, x, h0, c0, lengths)
    found = truth.forward(
        Model((FeatureInput(INPUTS),), (layer,)), x, {"h0": h0, "c0": c0}, lengths
    )
    bounds = recurrent(FLOAT32_ONNXRUNTIME, layer, numbers(x), h0, c0, lengths=lengths)
    for ours, theirs, wanted in (
        (found.y, y, bounds.y),
        (found.state["h0"], y_h, bounds.h),
        (found.state["c0"], y_c, bounds.c),
    ):
        limits = np.array(wanted)
        limits[..., 0] = theirs
        close(ours, limits, times=ONE_SIDE)


# -- the 23 wrong gate orders ---------------------------------------------------------------------


def reordered(cell: LSTMCell, order: str) -> LSTMCell:
    """The same blocks, as someone would hold them who takes them to lie in `order`."""

    def moved(matrix: Any) -> Any:
        blocks = np.split(matrix, 4)
        return np.concatenate([blocks[order.index(gate)] for gate in "ifgo"])

    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return LSTMCell(**{name: moved(getattr(cell, name)) for name in names})


def model_of(cell: LSTMCell) -> Model:
    return Model((FeatureInput(INPUTS),), (Recurrent("lstm", cell),))


X = draw(50, BATCH, STEPS, INPUTS, scale=1.0)
RIGHT = cell(1)


def test_there_are_23() -> None:
    assert len(set(WRONG_ORDERS)) == 23


@pytest.mark.parametrize("order", WRONG_ORDERS)
@pytest.mark.parametrize("on", ["truth", "exact"])
def test_no_wrong_order_goes_unnoticed(order: str, on: str) -> None:
    """Not in the whole output, and not in any one of its sequences."""
    right, _ = model_of(RIGHT).run(X, on=on)
    wrong, _ = model_of(reordered(RIGHT, order)).run(X, on=on)
    assert np.abs(right - wrong).max(axis=(1, 2)).min() > NOTICED


def test_the_right_order_changes_nothing() -> None:
    for on in ("truth", "exact"):
        right, _ = model_of(RIGHT).run(X, on=on)
        again, _ = model_of(reordered(RIGHT, "ifgo")).run(X, on=on)
        assert (right == again).all()


def test_onnx_runtime_of_the_right_order_is_truth_of_no_wrong_one() -> None:
    layer = Recurrent("lstm", RIGHT)
    zero = np.zeros((1, BATCH, HIDDEN), np.float32)
    y, y_h, y_c = run_onnx(layer, X, zero, zero, None)
    bounds = np.array(recurrent(FLOAT32_ONNXRUNTIME, layer, numbers(X), zero, zero).y)
    assert ONE_SIDE * bounds[..., 1].max() < NOTICED / 100
    close(truth.forward(model_of(RIGHT), X).y, np.stack([y, bounds[..., 1]], -1), times=ONE_SIDE)
    for order in WRONG_ORDERS:
        wrong = truth.forward(model_of(reordered(RIGHT, order)), X)
        assert np.abs(wrong.y - y).max() > NOTICED, order
        assert np.abs(wrong.state["h0"] - y_h).max() > NOTICED, order
        assert np.abs(wrong.state["c0"] - y_c).max() > NOTICED, order
