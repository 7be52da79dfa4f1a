"""Each layer on its own: sizes, signatures, words, and what its construction refuses."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from core_cases import batch_norm, cell, dense, lstm, ones, refused, weights

from ifgo.activations import RELU, SOFTMAX, TANH, Activation
from ifgo.errors import UsageError
from ifgo.layers import Layer, cast, floating_dtype
from ifgo.model import (
    ActivationLayer,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    LayerNorm,
    Masking,
    MatrixNorm,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    TrainingFacts,
)

BACK = "its backward direction starts at the last step"


def both(name: str = "bi", **options: Any) -> Recurrent:
    return Recurrent(name, cell(), cell(), **options)


def constant() -> InitialState:
    return InitialState("constant", weights(1, 1, 3), weights(2, 1, 3))


# -- sizes, signatures, words ---------------------------------------------------------------------

STEP = "step→step"
SEQUENCE = "sequence→sequence"

TABLE: list[tuple[Layer, int, int, str, int, str | None, str]] = [
    # layer, features in, features out, signature, MACs, why not streamable, words
    (lstm(), 2, 3, STEP, 60, None, ""),
    (both(), 2, 6, SEQUENCE, 120, BACK, "bidirectional"),
    (both(merge="sum"), 2, 3, SEQUENCE, 120, BACK, "bidirectional sum"),
    (Recurrent("r", None, cell()), 2, 3, SEQUENCE, 60, BACK, "reverse"),
    (
        lstm(go_backwards=True),
        2,
        3,
        SEQUENCE,
        60,
        "go_backwards starts at the last step",
        "go_backwards",
    ),
    (
        Recurrent("p", cell(2, 3, 2, peephole=ones(3, 3), coupling="f=1-i", clip_z=50)),
        2,
        2,
        STEP,
        54,
        None,
        "proj_size 2, peephole, f=1-i, clip_z 50",
    ),
    (
        Recurrent(
            "p",
            cell(
                2,
                3,
                2,
                clip_cell=0.5,
                clip_projection=0.25,
                activations=(Activation("hard_sigmoid", 0.2, 0.5), RELU, TANH),
                forget_bias=1.0,
                layer_norm=LayerNorm(ones(4, 3)),
            ),
            stateful=True,
            initial=InitialState("input"),
        ),
        2,
        2,
        STEP,
        54,
        None,
        "proj_size 2, clip_cell 0.5, clip_projection 0.25, hard_sigmoid(0.2, 0.5)/relu/tanh, "
        "forget_bias 1, layer_norm, initial state: input, stateful",
    ),
    (
        Recurrent(
            "d",
            cell(
                input_norm=MatrixNorm(ones(12), ones(12), ones(12), 1e-5, False),
                hidden_norm=MatrixNorm(ones(12), ones(12), ones(12), 1e-5, False),
            ),
            initial=constant(),
            zero_masked=True,
        ),
        2,
        3,
        STEP,
        60,
        None,
        "input_norm, hidden_norm, initial state: constant, zero_masked",
    ),
    (dense(), 3, 1, STEP, 3, None, ""),
    (Dense("d", ones(4, 3), None, SOFTMAX), 3, 4, STEP, 12, None, "softmax"),
    (Embedding("e", ones(10, 4)), 1, 4, STEP, 0, None, "vocabulary 10"),
    (Embedding("e", ones(10, 4), mask_zero=True), 1, 4, STEP, 0, None, "vocabulary 10, mask_zero"),
    (ActivationLayer("a", RELU), 5, 5, STEP, 0, None, "relu"),
    (Dropout("d", 0.25), 5, 5, STEP, 0, None, "rate 0.25, identity at inference"),
    (batch_norm(), 2, 2, STEP, 0, None, ""),
    (Masking("m", -1.0), 5, 5, STEP, 0, None, "value -1"),
    (LastStep("l"), 5, 5, "sequence→vector", 0, None, ""),
    (LastStep("l", "state"), 5, 5, "sequence→vector", 0, None, "final state"),
    (
        HiddenAsSequence("h"),
        5,
        1,
        "vector→sequence",
        0,
        "it replays a whole hidden vector as a sequence",
        "",
    ),
    (RepeatVector("r", 7), 5, 5, "vector→sequence", 0, "it starts a new sequence", ""),
    (Flatten("f", 7), 5, 35, "sequence→vector", 0, "it needs the whole sequence", "7 steps"),
    (Scale("s", ones(2), ones(2)), 2, 2, STEP, 0, None, ""),
    (
        Residual("r", (dense("in", 2, 4), Dropout("out", 0.5)), 2),
        2,
        4,
        STEP,
        8,
        None,
        "around in, out",
    ),
    (
        Residual("r", (both("in"),), 1),
        2,
        6,
        SEQUENCE,
        120,
        f"layer in inside it: {BACK}",
        "around in",
    ),
]


@pytest.mark.parametrize(
    ("layer", "size", "out", "signature", "macs", "why", "words"),
    TABLE,
    ids=[f"{row[0].kind}-{n}" for n, row in enumerate(TABLE)],
)
def test_facts(
    layer: Layer, size: int, out: int, signature: str, macs: int, why: str | None, words: str
) -> None:
    assert layer.output_size(size) == out
    assert layer.signature == signature
    assert layer.macs == macs
    assert layer.not_streamable_because == why
    assert layer.detail() == words


def test_every_kind_of_layer_is_in_the_table() -> None:
    def kinds(base: type[Layer]) -> set[type[Layer]]:
        own = {base} if base.__module__.startswith("ifgo.") else set()
        return own.union(*(kinds(sub) for sub in base.__subclasses__()))

    assert {type(row[0]) for row in TABLE} == kinds(Layer) - {Layer}


def test_arrays_by_name() -> None:
    full = Recurrent("bi", cell(), cell(), initial=InitialState("constant", ones(2, 3), ones(2, 3)))
    parts = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    assert list(full.arrays) == [
        *(f"forward.{part}" for part in parts),
        *(f"backward.{part}" for part in parts),
        "initial.h",
        "initial.c",
    ]
    assert list(Residual("r", (dense("in", 2, 2),), 1).arrays) == ["in.weight", "in.bias"]
    assert list(batch_norm(bias=ones(2)).arrays) == ["mean", "variance", "bias"]
    assert list(Scale("s", ones(2), ones(2)).arrays) == ["factor", "offset"]
    assert Dropout("d", 0.0).arrays == {}


def test_arrays_cannot_change() -> None:
    layers = [row[0] for row in TABLE]
    arrays = [array for layer in layers for array in layer.arrays.values()]
    assert len(arrays) > 40
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_directions() -> None:
    one, two = lstm(), both()
    assert (one.directions, list(one.cells), one.hidden_size) == (1, ["forward"], 3)
    assert (two.directions, list(two.cells)) == (2, ["forward", "backward"])
    assert list(Recurrent("r", None, cell()).cells) == ["backward"]


def test_numbers_become_the_declared_type() -> None:
    steps = RepeatVector("r", np.int64(3)).steps  # type: ignore[arg-type]
    assert (steps, type(steps)) == (3, int)
    stateful = lstm(stateful=np.True_).stateful
    assert stateful is True
    inner = Residual("r", [dense("in", 2, 2)], np.int32(2))  # type: ignore[arg-type]
    assert (type(inner.layers), type(inner.channels)) == (tuple, int)


# -- another dtype --------------------------------------------------------------------------------


def test_cast_reaches_every_array() -> None:
    for row in TABLE:
        narrow = cast(row[0], np.float16)
        assert type(narrow) is type(row[0])
        assert list(narrow.arrays) == list(row[0].arrays)
        for name, array in narrow.arrays.items():
            assert array.dtype == np.float16, (row[0].kind, name)
            assert (array == row[0].arrays[name].astype(np.float16)).all()


def test_cast_keeps_everything_else() -> None:
    layer = Recurrent(
        "p",
        cell(2, 3, 2, coupling="i=1-f", clip_z=3.0, layer_norm=LayerNorm(ones(4, 3), 1e-5)),
        stateful=True,
        initial=InitialState("constant", ones(1, 2), ones(1, 3)),
        training=TrainingFacts(0.5, 0.25, 0.125),
    )
    wide = cast(layer, "float64")
    assert isinstance(wide, Recurrent)
    assert (wide.name, wide.stateful, wide.training) == ("p", True, layer.training)
    assert (wide.cell.coupling, wide.cell.clip_z) == ("i=1-f", 3.0)
    assert wide.cell.layer_norm is not None
    assert wide.cell.layer_norm.epsilon == 1e-5
    assert wide.detail() == layer.detail()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16, np.float32])
def test_floating_dtypes(dtype: Any) -> None:
    assert floating_dtype(dtype) == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["int8", "complex64", "bool", "f33", "object", "U4"])
def test_dtypes_that_hold_no_weights(dtype: str) -> None:
    with refused(
        UsageError,
        f"dtype {dtype!r} holds no weights, expected float64, float32, float16 or bfloat16",
    ):
        cast(dense(), dtype)


def test_values_beyond_the_range_of_a_dtype() -> None:
    inner = Dense("inner", np.array([[70000.0]]))
    with refused(
        UsageError,
        "layer inner: weight holds values beyond the range of float16, "
        "expected a dtype that holds every value",
    ):
        cast(Residual("r", (inner,), 1), "float16")
    assert cast(inner, "float32").arrays["weight"][0, 0] == 70000
