"""Keras configs with values changed at random: a Model, or an error of ours."""

from __future__ import annotations

import contextlib
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from keras_cases import draw, lstm_layer, lstm_weights, named, store

from ifgo import formats
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.model import Dense, FeatureInput, LastStep, LSTMCell, Model, Recurrent

VALUES: tuple[Any, ...] = (None, True, -1, 0, 1.5, 2**70, "x", "", [], {}, [1], {"a": 1}, "relu")
ROUNDS = 250


def changed(config: Any, seed: int) -> Any:
    """`config` with one or two of its values replaced, anywhere in it."""
    rng, found = random.Random(seed), json.loads(json.dumps(config))
    for _ in range(rng.randrange(1, 3)):
        node = found
        while keys := list(node) if isinstance(node, dict) else list(range(len(node))):
            key = rng.choice(keys)
            if node[key] and isinstance(node[key], dict | list) and rng.random() < 0.85:
                node = node[key]
                continue
            node[key] = rng.choice(VALUES)
            break
    return found


def tried(path: Path) -> bool:
    """Whether it loads; anything but a Model or a refusal fails the test."""
    loaded = False
    with contextlib.suppress(FormatError, UnsupportedError):
        formats.load(path, "keras")
        loaded = True
    with contextlib.suppress(IfgoError):
        formats.list_layers(path, "keras")
    return loaded


def test_configs_of_keras_3(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cells = [LSTMCell(draw(rng, 8, 3), draw(rng, 8, 2), draw(rng, 8)) for _ in "fb"]
    layers = (Recurrent("r", *cells), LastStep("l", "state"), Dense("d", draw(rng, 2, 4)))
    formats.save(Model((FeatureInput(3),), layers), tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config, path, loaded = json.loads(parts["config.json"]), tmp_path / "c.keras", 0
    for seed in range(ROUNDS):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                new = json.dumps(changed(config, seed)).encode()
                archive.writestr(name, new if name == "config.json" else data)
        loaded += tried(path)
    assert 0 < loaded < ROUNDS


def test_functional_configs_of_keras_2(tmp_path: Path) -> None:
    first = {"class_name": "InputLayer", "name": "in", "inbound_nodes": []}
    first["config"] = {"name": "in", "batch_input_shape": [None, 5, 3], "dtype": "float32"}
    second = lstm_layer("rnn", 4, return_state=True) | {"name": "rnn"}
    second["inbound_nodes"] = [[["in", 0, 0, {}]]]
    config = {
        "class_name": "Model",
        "config": {
            "name": "m",
            "layers": [first, second],
            "input_layers": [["in", 0, 0]],
            "output_layers": [["rnn", 0, 0], ["rnn", 0, 2]],
        },
    }
    arrays = {"in": {}, "rnn": named("rnn", lstm_weights(np.random.default_rng(2), 3, 4))}
    model = formats.load(store(tmp_path / "m.h5", config, arrays))
    assert [output.role for output in model.outputs] == ["sequence", "c_n"]
    loaded = 0
    for seed in range(ROUNDS):
        loaded += tried(store(tmp_path / "c.h5", changed(config, seed), arrays))
    assert 0 < loaded < ROUNDS
