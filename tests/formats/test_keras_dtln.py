"""The second stage of DTLN, out of a net with convolutions, against Keras on the same arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_cases import lstm_layer
from keras_peer import computed, keras
from recorded import follow

from ifgo import formats

pytestmark = pytest.mark.peers


@pytest.mark.parametrize(("name", "inputs"), [("lstm_2", 256), ("lstm_3", 128)])
def test_every_step_is_within_its_local_bound(shared: Path, name: str, inputs: int) -> None:
    path = shared / "models" / "dtln" / "model.h5"
    stored: dict[str, Any] = {}
    with h5py.File(path) as file:

        def take(place: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and f"/{name}/" in f"/{place}":
                stored[place.rpartition("/")[2].removesuffix(":0")] = item[()]

        file.visititems(take)
    layer = keras.layers.LSTM(128, return_sequences=True, dtype="float64")
    original = keras.Sequential([keras.Input((None, inputs), dtype="float64"), layer])
    layer.set_weights([stored[key] for key in ("kernel", "recurrent_kernel", "bias")])
    x = np.random.default_rng(1).normal(0, 1, (1, 12, inputs)).astype("f")
    (h,) = computed(original, x.astype(float))[0]
    model = formats.load(path, select=name, config=[lstm_layer(name, 128)])
    assert follow(model.recurrent[0].cell, x[0], h) < 0.01 * np.abs(h).max()
