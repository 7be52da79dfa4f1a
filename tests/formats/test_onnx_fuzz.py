"""Files changed at random: a model, or an error of ours with a message that prints."""

from __future__ import annotations

import os
import random as rnd
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_cases import SIZE, UNITS, chain, lstm_weights, node, one_lstm, random

from ifgo.errors import IfgoError
from ifgo.formats import onnx as room

# -- fuzzing ----------------------------------------------------------------------------------


def seeds() -> list[bytes]:
    """Small files with every operator that the reader folds, moves or makes a layer."""
    second = {f"{k}2": v for k, v in lstm_weights(UNITS, UNITS, seed=5).items()}
    constants = second | {
        "k0": np.array([0]),
        "k1": np.array([1]),
        "last": np.array(-1),
        "d": random(UNITS, 2),
        "e": random(5, SIZE),
        "s": np.array([0, 0, -1]),
        "n": np.array([3, 1, 1]),
        "z": np.zeros((1, 1, UNITS), np.float32),
    }
    state = [
        node("Shape", "x", "s0"),
        node("Gather", "s0 k1", "b"),
        node("Concat", "k1 b four", "s1", axis=0),
        node("Expand", "z s1", "h"),
    ]
    first = chain(
        state,
        [
            node("Transpose", "Y", "t", perm=[0, 2, 1, 3]),
            node("Reshape", "t s", "y"),
            node("Gather", "y last", "v", axis=0),
            node("Softmax", "v", "out", axis=1),
        ],
        constants | {"four": np.array([4])},
        {"out": ["B", 8]},
        direction="bidirectional",
        lstm="x W R B - - - -",
        activations=["Sigmoid", "Tanh", "Elu"] * 2,
        activation_alpha=[0.5, 0.5],
    )
    third = chain(
        [node("Cast", "x", "i", to=TensorProto.INT64), node("Gather", "e i", "v")],
        [
            node("Squeeze", "Y_h k0", "h"),
            node("Gemm", "h d", "g", transB=0),
            node("Expand", "Y_h n", "rep"),
            node("LSTM", "rep W2 R2 B2", "Z"),
            node("Squeeze", "Z k1", "z1"),
            node("Flatten", "z1", "out", axis=1),
        ],
        constants,
        {"g": ["B", 2]},
        inputs={"x": ["T", "B"]},
        lstm="v W R B",
        types={"x": TensorProto.INT32},
    )
    return [m.SerializeToString() for m in (first, third, one_lstm({"clip": 0.5, "layout": 1}))]


ROUNDS = 4000 if os.environ.get("IFGO_SLOW") else 600


@pytest.mark.parametrize("which", range(3))
def test_flipped_bytes(which: int, tmp_path: Path) -> None:
    """Whatever byte is changed, removed or repeated: a model, or an error of ours."""
    data = seeds()[which]
    path = tmp_path / "m.onnx"
    rng = rnd.Random(which)
    refused: list[str] = []
    for _ in range(ROUNDS):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(changed))
            match rng.randrange(4):
                case 0:
                    changed[place] = rng.randrange(256)
                case 1:
                    changed[place] ^= 1 << rng.randrange(8)
                case 2:
                    del changed[place : place + rng.randint(1, 4)]
                case _:
                    changed[place:place] = changed[place : place + rng.randint(1, 8)]
        path.write_bytes(changed)
        try:
            room.read(path)
        except IfgoError as error:
            refused.append(str(error))
    for text in refused:
        assert text.startswith(str(path))
        assert len(text) < 1500 + len(str(path))
        assert text.isprintable()
    assert ROUNDS // 50 < len(refused) < ROUNDS - ROUNDS // 50


@pytest.mark.parametrize("which", range(3))
def test_changed_fields(which: int, tmp_path: Path) -> None:
    """Every number, name and list of every node replaced by odd ones: ditto."""
    rng = rnd.Random(which)
    odd = [0, 1, -1, 2, 7, 2**31, -(2**31), 2**62, -(2**63)]
    path = tmp_path / "m.onnx"
    said: list[str] = []
    refused: list[str] = []
    for _ in range(ROUNDS // 2):
        made = onnx.ModelProto.FromString(seeds_cached(which))
        for _ in range(rng.randint(1, 3)):
            entry = rng.choice(made.graph.node)
            match rng.randrange(6):
                case 0 if entry.attribute:
                    attribute = rng.choice(entry.attribute)
                    attribute.i = rng.choice(odd)
                    if attribute.ints:
                        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(odd)
                case 1:
                    entry.op_type = rng.choice(made.graph.node).op_type
                case 2:
                    names = [n for other in made.graph.node for n in (*other.input, *other.output)]
                    entry.input[rng.randrange(len(entry.input))] = rng.choice(names)
                case 3:
                    tensor = rng.choice(made.graph.initializer)
                    if tensor.dims:
                        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(odd)
                case 4:
                    tensor = rng.choice(made.graph.initializer)
                    if tensor.data_type == TensorProto.INT64:
                        count = len(tensor.raw_data) // 8
                        values = np.array([rng.choice(odd) for _ in range(count)], np.int64)
                        tensor.raw_data = values.tobytes()
                case _:
                    dims = made.graph.input[0].type.tensor_type.shape.dim
                    rng.choice(dims).dim_value = rng.choice(odd)
        path.write_bytes(made.SerializeToString())
        try:
            room.read(path)
        except IfgoError as error:
            refused.append(str(error))
        said += cut_out(path)
    assert all(text.isprintable() for text in said)
    assert all(text.isprintable() for text in refused)
    assert ROUNDS // 20 < len(refused) < ROUNDS // 2


def cut_out(path: Path) -> list[str]:
    """The refusals of the listing, and of every layer and pair that it names."""
    said: list[str] = []
    try:
        names = room.list_layers(path).names
    except IfgoError as error:
        return [str(error)]
    for select in [*([name] for name in names), list(names[:2])]:
        try:
            room.read(path, select=select)
        except IfgoError as error:
            said.append(str(error))
    return said


_CACHE: list[bytes] = []


def seeds_cached(which: int) -> bytes:
    if not _CACHE:
        _CACHE.extend(seeds())
    return _CACHE[which]
