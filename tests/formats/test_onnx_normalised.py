"""Features normalised before an LSTM and outputs brought back after it, as exporters write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_bounds import compare
from onnx_cases import AXES, SIZE, UNITS, chain, node, random, run_onnx, save

from ifgo.formats import onnx as room
from ifgo.layers import Dense, Scale

FACTOR = random(SIZE, seed=1)
MEAN = random(SIZE, seed=2)
STD = np.abs(random(SIZE, seed=3)) + np.float32(0.3)
ROUNDED = (
    "a division by 'std' became a factor: off by up to 1.5 ulp, where a division is off by 0.5"
)

FORMS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], list[tuple[Any, Any]], list[str]]] = {
    "Sub Div": (
        [node("Sub", "x mean", "a"), node("Div", "a std", "v")],
        {"mean": MEAN, "std": STD},
        [(1, -MEAN), (1 / STD, 0)],
        [ROUNDED],
    ),
    "Sub Div, one number each": (
        [node("Sub", "x mean", "a"), node("Div", "a std", "v")],
        {"mean": np.float32(0.3), "std": np.float32(0.7)},
        [(1, -np.float32(0.3)), (1 / np.float32(0.7), 0)],
        [ROUNDED],
    ),
    "Sub Div, shaped like the sequence": (
        [node("Sub", "x mean", "a"), node("Div", "a std", "v")],
        {"mean": MEAN.reshape(1, 1, SIZE), "std": STD.reshape(1, SIZE)},
        [(1, -MEAN), (1 / STD, 0)],
        [ROUNDED],
    ),
    "Div by a power of two": (
        [node("Div", "x std", "v")],
        {"std": np.float32(8)},
        [(np.float32(0.125), 0)],
        [],
    ),
    "Sub Mul": (
        [node("Sub", "x mean", "a"), node("Mul", "factor a", "v")],
        {"mean": MEAN, "factor": FACTOR},
        [(1, -MEAN), (FACTOR, 0)],
        [],
    ),
    "Mul Add": (
        [node("Mul", "x factor", "a"), node("Add", "mean a", "v")],
        {"mean": MEAN, "factor": FACTOR},
        [(FACTOR, MEAN)],
        [],
    ),
    "Div Add": (
        [node("Div", "x std", "a"), node("Add", "a mean", "v")],
        {"mean": MEAN, "std": STD},
        [(1 / STD, MEAN)],
        [ROUNDED],
    ),
    "Add": ([node("Add", "x mean", "v")], {"mean": MEAN}, [(1, MEAN)], []),
    "from a constant": ([node("Sub", "mean x", "v")], {"mean": MEAN}, [(-1, MEAN)], []),
}
"""Nodes, their constants, factor and offset of each Scale that they become, notes."""


def scales(layers: Any) -> list[Scale]:
    return [layer for layer in layers if isinstance(layer, Scale)]


def assert_scales(found: list[Scale], want: list[tuple[Any, Any]], width: int) -> None:
    assert len(found) == len(want)
    for layer, (factor, offset) in zip(found, want, strict=True):
        np.testing.assert_array_equal(layer.factor, np.full(width, factor, np.float32))
        np.testing.assert_array_equal(layer.offset, np.full(width, offset, np.float32))


@pytest.mark.parametrize("name", FORMS)
def test_before_the_lstm(name: str, tmp_path: Path) -> None:
    nodes, constants, want, notes = FORMS[name]
    shape = {"Y": ["T", 1, "B", UNITS]}
    path = save(chain(nodes, [], constants, shape, lstm="v W R B"), tmp_path)
    model = room.read(path)
    assert model.layers[: len(want)] == tuple(scales(model.layers))
    assert_scales(scales(model.layers), want, SIZE)
    whole = "output Y has shape (T, 1, B, 4) in the file"
    assert list(model.provenance.notes) == [*notes, whole]
    compare(path, model, random(5, 2, SIZE, scale=1.0))


@pytest.mark.parametrize("exact", [False, True], ids=["rounded", "exact"])
def test_numbers_before_the_lstm(exact: bool, tmp_path: Path) -> None:
    """Division by powers of two gives the runtime's own bits, any other at most 2 ulp from them."""
    std = np.array([0.5, 4, 2.0**-20], np.float32) if exact else STD
    nodes = [node("Sub", "x mean", "a"), node("Div", "a std", "v")]
    made = chain(nodes, [], {"mean": MEAN, "std": std}, {"Y": ["T", 1, "B", UNITS]}, lstm="v W R B")
    first, second = scales(room.read(save(made, tmp_path)).layers)
    made.graph.output.append(onnx.helper.make_tensor_value_info("v", 1, ["T", "B", SIZE]))
    x = random(200, 3, SIZE, seed=9, scale=3.0)
    theirs = run_onnx(save(made, tmp_path, "both.onnx"), x=x)[1]
    ours = (x * first.factor + first.offset) * second.factor + second.offset
    distance = np.abs(ours.view(np.int32) - theirs.view(np.int32)).max()
    assert distance == 0 if exact else 0 < distance <= 2


@pytest.mark.parametrize("axis", ["sequence", "vector"])
def test_after_the_lstm(axis: str, tmp_path: Path) -> None:
    """y·std + mean, after a dense layer or straight from the last state."""
    steps = [node("Mul", "u std", "a"), node("Add", "a mean", "out")]
    if axis == "sequence":
        front = [node("Squeeze", "Y k1", "y"), node("MatMul", "y d", "u")]
        constants = {"d": random(UNITS, 2), "std": STD[:2], "mean": MEAN[:2]}
        want, shape = [(STD[:2], MEAN[:2])], {"out": ["T", "B", 2]}
    else:
        front = [node("Squeeze", "Y_h k0", "u")]
        constants = {"std": np.float32(1.7), "mean": np.float32(-0.4)}
        want, shape = [(np.float32(1.7), np.float32(-0.4))], {"out": ["B", UNITS]}
    path = save(chain([], [*front, *steps], AXES | constants, shape), tmp_path)
    model = room.read(path)
    assert isinstance(model.layers[-2], Dense) == (axis == "sequence")
    assert_scales(scales(model.layers), want, 2 if axis == "sequence" else UNITS)
    assert model.provenance.notes == ()
    compare(path, model, random(5, 2, SIZE, scale=1.0))
