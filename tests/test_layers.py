"""Each layer on its own: sizes, signatures, words, and what its construction refuses."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from core_cases import cell, dense, lstm, ones, refused, weights

from ifgo import limits
from ifgo.activations import RELU, SOFTMAX, TANH, Activation
from ifgo.errors import ModelError, UsageError
from ifgo.layers import Layer, cast, floating_dtype
from ifgo.model import (
    ActivationLayer,
    BatchNorm,
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


def batch_norm(**options: Any) -> BatchNorm:
    parts: dict[str, Any] = {"name": "bn", "mean": ones(2), "variance": ones(2)}
    return BatchNorm(**(parts | options))


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


# -- refusals -------------------------------------------------------------------------------------

LSTM = "layer lstm: "
SAME = ", expected the same sizes in both directions"
STEPS = ", expected 1 to 10000000"
RATE = ", expected a rate in [0, 1)"
NAN = "expected finite values. Train or export the model again: a NaN or infinity never computes"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        # recurrent
        (lambda: Recurrent("lstm", None), LSTM + "has no cell, expected forward, backward or both"),
        (
            lambda: lstm(merge="mean"),
            LSTM + "merge is 'mean', expected one of 'concat', 'sum', 'mul', 'ave'",
        ),
        (
            lambda: both("lstm", go_backwards=True),
            LSTM + "go_backwards is set on a layer with a backward cell, expected go_backwards on "
            "a forward cell only",
        ),
        (
            lambda: Recurrent("lstm", None, cell(), go_backwards=True),
            LSTM + "go_backwards is set on a layer with a backward cell, expected go_backwards on "
            "a forward cell only",
        ),
        (
            lambda: Recurrent("lstm", cell(2, 3), cell(3, 3)),
            LSTM + "directions have input_size 2 and 3" + SAME,
        ),
        (
            lambda: Recurrent("lstm", cell(2, 3), cell(2, 4)),
            LSTM + "directions have hidden_size 3 and 4" + SAME,
        ),
        (
            lambda: Recurrent("lstm", cell(2, 3), cell(2, 3, 2)),
            LSTM + "directions have output_size 3 and 2" + SAME,
        ),
        (lambda: lstm(go_backwards=1), LSTM + "go_backwards is 1, expected True or False"),
        (lambda: lstm(zero_masked="no"), LSTM + "zero_masked is 'no', expected True or False"),
        (lambda: lstm(stateful=None), LSTM + "stateful is None, expected True or False"),
        (
            lambda: Recurrent("lstm", "cell"),  # type: ignore[arg-type]
            LSTM + "forward is 'cell', expected LSTMCell or None",
        ),
        (lambda: lstm(initial="zero"), LSTM + "initial is 'zero', expected InitialState"),
        (lambda: lstm(training=0.5), LSTM + "training is 0.5, expected TrainingFacts"),
        (
            lambda: lstm(initial=InitialState("constant", ones(2, 3), ones(1, 3))),
            LSTM + "initial h has shape (2, 3), expected (1, 3)",
        ),
        (
            lambda: lstm(initial=InitialState("constant", ones(1, 3), ones(3))),
            LSTM + "initial c has shape (3,), expected (1, 3)",
        ),
        (
            lambda: lstm(initial=InitialState("constant", ones(1, 3), ones(1, 3) * np.inf)),
            LSTM + "initial c[0, 0] is inf, " + NAN,
        ),
        # initial states and training facts
        (
            lambda: InitialState("constant"),
            "initial state of kind 'constant' carries nothing, expected h and c for 'constant', "
            "nothing otherwise",
        ),
        (
            lambda: InitialState("constant", ones(1, 3)),
            "initial state of kind 'constant' carries h, expected h and c for 'constant', "
            "nothing otherwise",
        ),
        (
            lambda: InitialState("zero", c=ones(1, 3)),
            "initial state of kind 'zero' carries c, expected h and c for 'constant', "
            "nothing otherwise",
        ),
        (
            lambda: InitialState("input", ones(1, 3), ones(1, 3)),
            "initial state of kind 'input' carries h and c, expected h and c for 'constant', "
            "nothing otherwise",
        ),
        (
            lambda: InitialState("learned"),  # type: ignore[arg-type]
            "kind is 'learned', expected one of 'zero', 'constant', 'input'",
        ),
        (lambda: TrainingFacts(1.0), "input dropout is 1.0" + RATE),
        (lambda: TrainingFacts(recurrent=-0.1), "recurrent dropout is -0.1" + RATE),
        (lambda: TrainingFacts(output=math.nan), "output dropout is nan" + RATE),
        (lambda: TrainingFacts("0.5"), "input is '0.5', expected a number"),  # type: ignore[arg-type]
        # dense
        (lambda: Dense("d", ones(3)), "layer d: weight has shape (3,), expected (O, I)"),
        (lambda: Dense("d", None), "layer d: weight is None, expected an array (O, I)"),  # type: ignore[arg-type]
        (
            lambda: Dense("d", ones(0, 3)),
            "layer d: weight has shape (0, 3), expected (O, I), every size at least 1",
        ),
        (lambda: Dense("d", ones(2, 3), ones(3)), "layer d: bias has shape (3,), expected (2,)"),
        (
            lambda: Dense("d", np.ones((2, 3), np.int8)),
            "layer d: weight has dtype int8, expected a floating-point array",
        ),
        (
            lambda: Dense("d", np.array([[1.0, np.nan]])),
            "layer d: weight[0, 1] is nan, " + NAN,
        ),
        (
            lambda: Dense("d", ones(2, 3), None, "relu"),  # type: ignore[arg-type]
            "layer d: activation is 'relu', expected Activation",
        ),
        # the others
        (lambda: Embedding("e", ones(5)), "layer e: weight has shape (5,), expected (V, E)"),
        (
            lambda: Embedding("e", ones(5, 2), "yes"),  # type: ignore[arg-type]
            "layer e: mask_zero is 'yes', expected True or False",
        ),
        (
            lambda: ActivationLayer("a", "relu"),  # type: ignore[arg-type]
            "layer a: activation is 'relu', expected Activation",
        ),
        (lambda: Dropout("d", 1.0), "layer d: dropout rate is 1.0" + RATE),
        (lambda: Dropout("d", -0.5), "layer d: dropout rate is -0.5" + RATE),
        (lambda: Dropout("d", math.nan), "layer d: dropout rate is nan" + RATE),
        (lambda: Dropout("d", "half"), "layer d: rate is 'half', expected a number"),  # type: ignore[arg-type]
        (lambda: batch_norm(mean=ones(2, 2)), "layer bn: mean has shape (2, 2), expected (F,)"),
        (lambda: batch_norm(variance=ones(3)), "layer bn: variance has shape (3,), expected (2,)"),
        (lambda: batch_norm(variance=None), "layer bn: variance is None, expected an array (2,)"),
        (lambda: batch_norm(weight=ones(1)), "layer bn: weight has shape (1,), expected (2,)"),
        (lambda: batch_norm(bias=ones(2, 1)), "layer bn: bias has shape (2, 1), expected (2,)"),
        (
            lambda: batch_norm(variance=np.array([0.0, -1.0])),
            "layer bn: variance[1] is -1.0, expected 0 or more",
        ),
        (
            lambda: batch_norm(epsilon=0),
            "layer bn: epsilon is 0.0, expected a finite number above 0",
        ),
        (
            lambda: batch_norm(epsilon=math.nan),
            "layer bn: epsilon is nan, expected a finite number above 0",
        ),
        (
            lambda: batch_norm(epsilon=math.inf),
            "layer bn: epsilon is inf, expected a finite number above 0",
        ),
        (lambda: batch_norm(epsilon="small"), "layer bn: epsilon is 'small', expected a number"),
        (lambda: RepeatVector("r", 0), "layer r: repeats 0 times" + STEPS),
        (lambda: RepeatVector("r", 10**7 + 1), "layer r: repeats 10000001 times" + STEPS),
        (lambda: RepeatVector("r", 2.0), "layer r: steps is 2.0, expected a whole number"),  # type: ignore[arg-type]
        (lambda: RepeatVector("r", True), "layer r: steps is True, expected a whole number"),
        (lambda: Flatten("f", 0), "layer f: takes 0 steps" + STEPS),
        (lambda: Flatten("f", -3), "layer f: takes -3 steps" + STEPS),
        (lambda: Scale("s", ones(2), ones(3)), "layer s: offset has shape (3,), expected (2,)"),
        (lambda: Scale("s", None, ones(3)), "layer s: factor is None, expected an array (F,)"),  # type: ignore[arg-type]
        (
            lambda: Scale("s", ones(2, 2), ones(2)),
            "layer s: factor has shape (2, 2), expected (F,)",
        ),
        # residual
        (lambda: Residual("r", (), 1), "layer r: holds no layers, expected at least one"),
        (
            lambda: Residual("r", dense(), 1),  # type: ignore[arg-type]
            "layer r: layers is of type Dense, expected a tuple (Layer, ...)",
        ),
        (
            lambda: Residual("r", (dense(), "relu"), 1),  # type: ignore[arg-type]
            "layer r: layers[1] is 'relu', expected Layer",
        ),
        (
            lambda: Residual("r", (dense(),), 1.0),  # type: ignore[arg-type]
            "layer r: channels is 1.0, expected a whole number",
        ),
        (
            lambda: Residual("r", (LastStep("last"),), 1),
            "layer r: holds last_step last, expected only layers that keep the sequence",
        ),
        (
            lambda: Residual("r", (HiddenAsSequence("again"),), 1),
            "layer r: holds hidden_as_sequence again, expected only layers that keep the sequence",
        ),
        (
            lambda: Residual("r", (Flatten("flat", 2),), 1),
            "layer r: holds flatten flat, expected only layers that keep the sequence",
        ),
        # names
        (lambda: Dropout(3, 0.5), "layer 3: name is 3, expected a string"),  # type: ignore[arg-type]
        (lambda: dense(None), "layer None: name is None, expected a string"),  # type: ignore[arg-type]
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with refused(ModelError, message):
        make()


@pytest.mark.parametrize(
    ("layer", "size", "message"),
    [
        (lstm(), 3, "layer lstm: receives 3 features, expected 2"),
        (dense(), 2, "layer dense: receives 2 features, expected 3"),
        (batch_norm(), 1, "layer bn: receives 1 features, expected 2"),
        (Scale("s", ones(2), ones(2)), 5, "layer s: receives 5 features, expected 2"),
        (
            Residual("r", (dense("in", 2, 4),), 3),
            2,
            "layer r: adds 3 channels of 2 inputs to 4 outputs, expected 1 to 2 channels",
        ),
        (
            Residual("r", (dense("in", 4, 2),), 0),
            4,
            "layer r: adds 0 channels of 4 inputs to 2 outputs, expected 1 to 2 channels",
        ),
        (
            Residual("r", (dense("in", 2, 4), dense("next", 3)), 1),
            2,
            "layer next: receives 4 features, expected 3",
        ),
    ],
)
def test_sizes_that_do_not_fit(layer: Layer, size: int, message: str) -> None:
    with refused(ModelError, message):
        layer.output_size(size)


def test_the_largest_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_VOCABULARY", 4)
    assert Embedding("e", ones(4, 1)).vocabulary == 4
    with refused(ModelError, "layer e: has 5 rows, expected at most 4"):
        Embedding("e", ones(5, 1))


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
