"""Makes tensorflow_models.tar.xz: models that TensorFlow wrote, with what it computes of them.

Run by hand with tensorflow-cpu 2.21.0, keras 3.15.1, tf_keras 2.21.0 and numpy 2.4.6:

    python tests/formats/tensorflow_generate.py

Each model is a SavedModel folder, or a frozen NAME.pb, with NAME.npz: inputs and recorded outputs.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_USE_LEGACY_KERAS": "1"}

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2 as frozen,
)

ARCHIVE = Path(__file__).with_name("tensorflow_models.tar.xz")
v1 = tf.compat.v1
Layers = keras.layers
Older = tf_keras.layers


def drawn(variables: Any, rng: Any) -> None:
    for variable in variables:
        variable.assign(rng.uniform(-0.35, 0.35, variable.shape).astype("f"))


def keras_model(root: Path, name: str, steps: int | None, *layers: Any) -> None:
    """As SavedModel NAME, and frozen with functional loops and with those of TensorFlow 1."""
    rng = np.random.default_rng(len(name))
    kind = tf_keras if isinstance(layers[0], Older.Layer) else keras
    model = kind.Sequential([kind.Input((steps, 3)), *layers])
    drawn(model.weights, rng)
    x = rng.uniform(-1, 1, (2, steps or 5, 3)).astype("f")
    if kind is keras:
        model.export(root / name, verbose=False)
    else:
        tf.saved_model.save(model, root / name)
    signature = [tf.TensorSpec([None, steps, 3])]
    run = tf.function(lambda x: model(x, training=False), input_signature=signature)
    for lower in (False, True):
        graph = frozen(run.get_concrete_function(), lower_control_flow=lower).graph
        ending = "lowered" if lower else "functional"
        path = root / f"{name}_{ending}.pb"
        path.write_bytes(graph.as_graph_def().SerializeToString())
    expected = np.asarray(model(x, training=False))
    for each in (name, f"{name}_functional", f"{name}_lowered"):
        np.savez(root / f"{each}.npz", x=x, y=expected)


def graph_model(root: Path, name: str, resources: bool, cells: Any, way: str = "loop") -> None:
    """tf.nn.dynamic_rnn as SavedModel NAME and frozen, with the outputs and the last c.

    way: "lengths" gives it sequence_length; "directions" both directions with it, without c;
    "unrolled" is tf.nn.static_rnn.
    """
    v1.disable_control_flow_v2()
    rng = np.random.default_rng(len(name))
    graph = tf.Graph()
    with graph.as_default(), v1.variable_scope("", use_resource=resources):
        steps = 5 if way == "unrolled" else None
        x = v1.placeholder(tf.float32, [None, steps, 3], name="x")
        inputs, more = {"x": x}, {"dtype": tf.float32}
        if way in ("lengths", "directions"):
            inputs["lengths"] = more["sequence_length"] = v1.placeholder(
                tf.int32, [None], name="lengths"
            )
        cell = cells(v1.nn.rnn_cell)
        if way == "directions":
            both, _ = v1.nn.bidirectional_dynamic_rnn(cell, cells(v1.nn.rnn_cell), x, **more)
            outputs = {"y": tf.concat(both, -1, name="y")}
        else:
            if way == "unrolled":
                y, state = v1.nn.static_rnn(cell, tf.unstack(x, axis=1), **more)
                y = tf.stack(y, 1)
            else:
                y, state = v1.nn.dynamic_rnn(cell, x, **more)
            state = state[-1] if not hasattr(state, "c") else state
            outputs = {"y": tf.identity(y, name="y"), "c": tf.identity(state.c, name="c")}
        with v1.Session(graph=graph) as session:
            session.run(v1.global_variables_initializer())
            for variable in v1.global_variables():
                variable.load(rng.uniform(-0.35, 0.35, variable.shape).astype("f"), session)
            given = rng.uniform(-1, 1, (2, 5, 3)).astype("f")
            fed, kept = {x: given}, {"x": given}
            if len(inputs) == 2:
                fed[inputs["lengths"]] = kept["lengths"] = np.array([5, 3], np.int32)
            found = session.run(outputs, fed)
            v1.saved_model.simple_save(session, str(root / name), inputs, outputs)
            stored = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), list(outputs)
            )
    (root / f"{name}_frozen.pb").write_bytes(stored.SerializeToString())
    for each in (name, f"{name}_frozen"):
        np.savez(root / f"{each}.npz", **kept, **found)


def main() -> None:
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        keras_model(root, "lstm_last_dense", None, Layers.LSTM(4), Layers.Dense(2))
        keras_model(
            root,
            "bidirectional_between",
            None,
            Layers.LSTM(4, return_sequences=True),
            Layers.Dense(3, activation="tanh"),
            Layers.Bidirectional(Layers.LSTM(3, return_sequences=True)),
            Layers.LSTM(2, return_sequences=True, use_bias=False),
        )
        keras_model(root, "bidirectional_last", 5, Layers.Bidirectional(Layers.LSTM(3)))
        keras_model(
            root,
            "backwards",
            None,
            Layers.LSTM(3, return_sequences=True, go_backwards=True, activation="relu"),
        )
        keras_model(
            root,
            "backwards_twice",
            None,
            Layers.LSTM(3, return_sequences=True, go_backwards=True),
            Layers.LSTM(2, go_backwards=True),
        )
        keras_model(
            root,
            "bidirectional_product",
            None,
            Layers.Bidirectional(Layers.LSTM(3, return_sequences=True), merge_mode="mul"),
            Layers.Bidirectional(Layers.LSTM(2), merge_mode="ave"),
        )
        keras_model(root, "unrolled", 4, Layers.LSTM(3, return_sequences=True, unroll=True))
        keras_model(
            root,
            "keras2_parts",
            None,
            Older.LSTM(3, return_sequences=True, implementation=1, dropout=0.2),
            Older.Bidirectional(Older.LSTM(2, return_sequences=True), merge_mode="ave"),
            Older.Bidirectional(Older.LSTM(2, dropout=0.2), merge_mode="sum"),
        )
        graph_model(root, "lengths", True, lambda n: n.LSTMCell(3, num_proj=2), "lengths")
        graph_model(root, "directions", True, lambda n: n.LSTMCell(2), "directions")
        graph_model(root, "static", True, lambda n: n.LSTMCell(3, use_peepholes=True), "unrolled")
        graph_model(root, "basic", False, lambda n: n.BasicLSTMCell(4, forget_bias=1.5))
        graph_model(
            root,
            "peephole_projection",
            True,
            lambda n: n.MultiRNNCell(
                [n.LSTMCell(4, use_peepholes=True, cell_clip=0.3), n.LSTMCell(5, num_proj=3)]
            ),
        )
        with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
            for path in sorted(root.rglob("*")):
                if path.is_file() and path.name != "fingerprint.pb":
                    entry = tarfile.TarInfo(path.relative_to(root).as_posix())
                    entry.size = path.stat().st_size
                    archive.addfile(entry, io.BytesIO(path.read_bytes()))


if __name__ == "__main__":
    main()
