"""Graphs changed at random: what is still read computes what ONNX Runtime computes, the rest is
refused. A wrong reading of axes, orders or operators shows here as a different number."""

from __future__ import annotations

import os
import random as rnd
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx_bounds import cell_bound, float32_bound
from onnx_models import expected, feed, random_model, tokens_or_features

from ifgo.errors import IfgoError
from ifgo.formats import onnx as room
from ifgo.model import Model
from ifgo.reference import truth

B, T = 2, 4
ODD = [0, 1, -1, 2, 3, 4, 5, 8, -2]
ROUNDS = 400 if os.environ.get("IFGO_SLOW") else 40


def mutate(made: onnx.ModelProto, rng: rnd.Random) -> None:
    """One change: an attribute, an operator, an input, a shape constant, an output, a size."""
    entry = rng.choice(made.graph.node)
    results = [name for other in made.graph.node for name in other.output if name]
    match rng.randrange(7):
        case 0 if entry.attribute:
            attribute = rng.choice(entry.attribute)
            if attribute.type == AttributeProto.INT:
                attribute.i = rng.choice(ODD)
            elif attribute.type == AttributeProto.INTS:
                values = list(attribute.ints)
                rng.shuffle(values)
                attribute.ints[:] = values
            elif attribute.type == AttributeProto.FLOAT:
                attribute.f = rng.choice([0.5, 2.0, -1.0, 0.0])
        case 1:
            others = [other.op_type for other in made.graph.node]
            entry.op_type = rng.choice([*others, "Identity", "Relu", "Sigmoid", "Neg"])
        case 2 if entry.input:
            names = [*results, *(t.name for t in made.graph.initializer)]
            entry.input[rng.randrange(len(entry.input))] = rng.choice(names)
        case 3:
            shapes = [t for t in made.graph.initializer if t.data_type == TensorProto.INT64]
            if shapes:
                tensor = rng.choice(shapes)
                values = numpy_helper.to_array(tensor).copy().reshape(-1)
                values[rng.randrange(values.size)] = rng.choice(ODD)
                changed = numpy_helper.from_array(values.reshape(tuple(tensor.dims)), tensor.name)
                tensor.CopyFrom(changed)
        case 4:
            made.graph.output[rng.randrange(len(made.graph.output))].name = rng.choice(results)
        case 5:
            made.graph.output.add().CopyFrom(made.graph.output[0])
            made.graph.output[-1].name = rng.choice(results)
        case _:
            dim = rng.choice(made.graph.input[0].type.tensor_type.shape.dim)
            dim.dim_value = rng.choice([1, 2, 4, 5])
    for output in made.graph.output:
        output.type.tensor_type.ClearField("shape")


def runtime(path: Path, name: str, value: Any) -> list[Any] | None:
    """What ONNX Runtime computes, None where it refuses the file or the input."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, {name: value})
    except Exception:
        return None


def sizes(made: onnx.ModelProto, model: Model) -> tuple[int, int]:
    """Batch and time that the file allows."""
    dims = [dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim]
    batch, time = {"BT": (0, 1), "TB": (1, 0), "T": (None, 0)}[model.input.axes]
    return (1 if batch is None else dims[batch] or B), dims[time] or T


@pytest.mark.parametrize("seed", range(20))
def test_read_as_computed(seed: int, tmp_path: Path) -> None:
    rng = rnd.Random(seed)
    original, path = tmp_path / "original.onnx", tmp_path / "m.onnx"
    room.write(random_model(seed), original)
    read = compared = 0
    for _ in range(ROUNDS):
        made = onnx.load(original)
        for _ in range(rng.randint(1, 2)):
            mutate(made, rng)
        path.write_bytes(made.SerializeToString())
        try:
            model = room.read(path)
        except IfgoError:
            continue
        read += 1
        numbers = np.random.default_rng(seed)
        x = tokens_or_features(model, numbers, *sizes(made, model))
        fed = feed(model, x)
        if len(made.graph.input[0].type.tensor_type.shape.dim) < fed.ndim:
            fed = fed[..., 0]
        outputs = runtime(path, made.graph.input[0].name, np.ascontiguousarray(fed))
        if outputs is None:
            continue
        result = truth.forward(model, x)
        limits = {"c_n": cell_bound(model, result, x), "h_n": cell_bound(model, result, x)}
        bound = float32_bound(model, result, x)
        notes = " ".join(model.provenance.notes)
        for output, have, want in zip(model.outputs, outputs, expected(model, result), strict=True):
            if f"output {output.name} has shape" not in notes:
                assert have.shape == want.shape, (path.read_bytes(), output)
                assert np.abs(have - want).max() <= limits.get(output.role, bound), output
                compared += 1
    assert read >= ROUNDS // 10
    assert compared
