"""Keras 3 files, one key of the config at a time, against Keras itself on the changed file.

Keras computes parts of a float64 model in float32, so float32's bound is its.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attributes import Attributes, Change, edits, names, signal
from keras_peer import computed, keras, load, randomised, save

from ifgo import formats, states
from ifgo.model import Model
from ifgo.verification import bounds
from ifgo.verification.global_bound import whole

pytestmark = pytest.mark.peers

NOT_OF_INFERENCE = (
    "trainable", "optional", "kernel_initializer", "recurrent_initializer", "bias_initializer",
    "kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "activity_regularizer",
    "kernel_constraint", "recurrent_constraint", "bias_constraint", "unit_forget_bias", "dropout",
    "recurrent_dropout", "seed", "unroll", "compile_config", "stateful",
)  # fmt: skip
"""Keys that name how weights began, how they are trained, or how the loop is laid out."""

HOW_IT_LOADS = (
    "file", "module", "config", "config.name", "config.layers[].module",
    "config.layers[].registered_name", "registered_name", "config.layers[].build_config",
    "config.layers[].build_config.input_shape", "config.layers[].build_config.input_shape[]",
    "config.layers[].config.name", "config.layers[].config.dtype",
    "config.layers[].config.dtype.module", "config.layers[].config.dtype.class_name",
    "config.layers[].config.dtype.config", "config.layers[].config.dtype.config.name",
    "config.layers[].config.dtype.registered_name", "config.dtype", "config.dtype.module",
    "config.dtype.class_name", "config.dtype.config", "config.dtype.config.name",
    "config.dtype.registered_name", "config.layers[].config.batch_shape[]",
    "config.build_input_shape", "config.build_input_shape[]", "build_config",
    "build_config.input_shape", "build_config.input_shape[]", "config.layers[].config.return_state",
    "config.layers[].config.sparse", "config.layers[].config.ragged",
)  # fmt: skip
"""Which class of Python is made, how it is called and built, and in what precision it computes:
the arrays say their own sizes and values. Keras may refuse there; the numbers are the same."""

LEGAL = {
    "activation": ["linear", "relu", "softmax", "gelu", "hard_sigmoid", "TANH"],
    "recurrent_activation": ["tanh", "hard_sigmoid", "linear", "swish"],
    "class_name": ["LSTM", "GRU", "Dense", "SimpleRNN", "Sequential", "Functional"],
    "dtype": ["float32", "float16"],
    "units": [1, 3, 4, 12],
}


def float32(model: Model, x: Any) -> float:
    start = states.complete(model, 1, None, np.float64)
    return 2 * whole(model, np.asarray(x)[None], start, bounds.LIBM).bound


def test_every_key_of_a_config(tmp_path: Path) -> None:
    layers = [
        keras.Input((None, 2), dtype="float64"),
        keras.layers.LSTM(3, return_sequences=True, dropout=0.5, dtype="float64"),
        keras.layers.Dense(2, activation="tanh", dtype="float64"),
    ]
    model = randomised(keras.Sequential(layers), 3)
    model.set_weights([w.value.detach().numpy().astype("f") for w in model.weights])
    path = save(model, tmp_path / "m.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    tree = json.loads(members["config.json"])

    def oracle(x: Any) -> Any:
        return computed(load(path), x[None])[0][0]

    silent = {
        name: "not of inference"
        for name in names(tree)
        if set(name.replace("[]", "").split(".")) & set(NOT_OF_INFERENCE)
    }
    names_of_python: dict[str, str] = {n: "how Keras makes its objects" for n in HOW_IT_LOADS}
    found = Attributes(formats.load, path, silent, signal, float32, names_of_python)
    for edit in edits(tree, LEGAL, NOT_OF_INFERENCE):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                text = json.dumps(edit.tree) if name == "config.json" else data
                archive.writestr(name, text)
        found.judge(Change(edit.name, edit.value, path, oracle))
    found.finish(names(tree) - set(HOW_IT_LOADS))
