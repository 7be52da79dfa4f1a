"""Makes the files beside this one: small keras LSTMs through TensorFlow's own TFLite converter.

    python3 -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0
    venv/bin/python tests/formats/tflite_converted/generate.py

Each NAME.tflite.gz is what the converter wrote; expected.npz holds NAME.x and NAME.y, an input and
what keras computes from it. The weights are drawn, so that every gate matters.
"""

from __future__ import annotations

import gzip
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
HERE = Path(__file__).parent
STEPS, INPUTS = 4, 3


def sequential(layers: Any, *parts: Any, batch: int = 1, steps: int | None = STEPS) -> Any:
    """A model of `parts` whose batch is known, as the converter needs it."""
    keras = import_module("keras")
    entry = layers.Input((steps, INPUTS), batch_size=batch)
    return keras.Sequential([entry, *parts])


def models(k: Any) -> dict[str, Any]:
    """Name → model. k: keras.layers."""
    whole = {"return_sequences": True}
    return {
        "sequence": sequential(k, k.LSTM(2, **whole)),
        "last": sequential(k, k.LSTM(2)),
        "open_time": sequential(k, k.LSTM(2, **whole), steps=None),
        "batch": sequential(k, k.LSTM(2, **whole), batch=2),
        "backwards": sequential(k, k.LSTM(2, go_backwards=True, **whole)),
        "backwards_last": sequential(k, k.LSTM(2, go_backwards=True)),
        "both": sequential(k, k.Bidirectional(k.LSTM(2, **whole))),
        "both_last": sequential(k, k.Bidirectional(k.LSTM(2))),
        "both_sum": sequential(k, k.Bidirectional(k.LSTM(2, **whole), merge_mode="sum")),
        "stack": sequential(k, k.LSTM(2, **whole), k.LSTM(3), k.Dense(2, activation="softmax")),
        "stack_both": sequential(
            k, k.Bidirectional(k.LSTM(2, **whole)), k.LSTM(3, go_backwards=True, **whole)
        ),
        "relu": sequential(k, k.LSTM(2, activation="relu", **whole)),
        "no_bias": sequential(k, k.LSTM(2, use_bias=False, **whole)),
        "hard_sigmoid": sequential(k, k.LSTM(2, recurrent_activation="hard_sigmoid", **whole)),
        "masked": sequential(k, k.Masking(), k.LSTM(2, **whole)),
        "stateful": sequential(k, k.LSTM(2, stateful=True, **whole)),
        "unrolled": sequential(k, k.LSTM(2, unroll=True, **whole)),
        "unrolled_last": sequential(k, k.LSTM(2, unroll=True), k.Dense(2)),
        "unrolled_backwards": sequential(k, k.LSTM(2, unroll=True, go_backwards=True, **whole)),
        "unrolled_both": sequential(k, k.Bidirectional(k.LSTM(2, unroll=True, **whole))),
        "unrolled_stack": sequential(
            k, k.LSTM(2, unroll=True, **whole), k.LSTM(3, unroll=True, **whole)
        ),
        "unrolled_once": sequential(k, k.LSTM(2, unroll=True, **whole), steps=1),
        "dynamic_range": sequential(k, k.LSTM(40, **whole)),
        "half": sequential(k, k.LSTM(2, **whole)),
    }


def main() -> None:
    """Writes every file."""
    tf, layers = import_module("tensorflow"), import_module("keras").layers
    rng, expected = np.random.default_rng(1), dict[str, Any]()
    for name, model in models(layers).items():
        model.set_weights([rng.uniform(-0.6, 0.6, w.shape) for w in model.get_weights()])
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if name in ("dynamic_range", "half"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "half":
            converter.target_spec.supported_types = [tf.float16]
        data = converter.convert()
        (HERE / f"{name}.tflite.gz").write_bytes(gzip.compress(data, 9, mtime=0))
        shape = [n or 6 for n in model.input_shape]
        x = expected[f"{name}.x"] = rng.uniform(-1, 1, shape).astype("f")
        expected[f"{name}.y"] = model(x).numpy()
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
