"""What the construction of each layer refuses, one case per message."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from core_cases import batch_norm, cell, dense, lstm, ones, refused
from raising import raising

from ifgo import limits
from ifgo.errors import ModelError
from ifgo.layers import Layer
from ifgo.model import (
    ActivationLayer,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Masking,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    TrainingFacts,
)

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
            lambda: Recurrent("lstm", cell(), cell(), go_backwards=True),
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
        (
            lambda: RepeatVector("r", 10**7 + 1),
            "layer r: repeats 10000001 times" + STEPS + raising("steps"),
        ),
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
        (lambda: Flatten("f", 2.0), "layer f: steps is 2.0, expected a whole number"),  # type: ignore[arg-type]
        (lambda: Masking("m", "0"), "layer m: value is '0', expected a number"),  # type: ignore[arg-type]
        (lambda: Masking("m", math.nan), "layer m: masks the value nan, expected a finite number"),
        (
            lambda: LastStep("l", "first"),  # type: ignore[arg-type]
            "layer l: of is 'first', expected one of 'sequence', 'state'",
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
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(vocabulary=4))
    assert Embedding("e", ones(4, 1)).vocabulary == 4
    with refused(ModelError, "layer e: has 5 rows, expected at most 4" + raising("vocabulary")):
        Embedding("e", ones(5, 1))
