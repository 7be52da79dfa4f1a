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
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2 as frozen,
)

ARCHIVE = Path(__file__).with_name("tensorflow_models.tar.xz")
v1 = tf.compat.v1
Layers = keras.layers


def drawn(variables: Any, rng: Any) -> None:
    for variable in variables:
        variable.assign(rng.uniform(-0.35, 0.35, variable.shape).astype("f"))


def keras_model(root: Path, name: str, steps: int | None, *layers: Any) -> None:
    """As SavedModel NAME, and frozen with functional loops and with those of TensorFlow 1."""
    rng = np.random.default_rng(len(name))
    model = keras.Sequential([keras.Input((steps, 3)), *layers])
    drawn(model.weights, rng)
    x = rng.uniform(-1, 1, (2, steps or 5, 3)).astype("f")
    model.export(root / name, verbose=False)
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


def graph_model(root: Path, name: str, resources: bool, cells: Any) -> None:
    """tf.nn.dynamic_rnn as SavedModel NAME and frozen, with the outputs and the last c."""
    v1.disable_control_flow_v2()
    rng = np.random.default_rng(len(name))
    graph = tf.Graph()
    with graph.as_default(), v1.variable_scope("", use_resource=resources):
        x = v1.placeholder(tf.float32, [None, None, 3], name="x")
        y, state = v1.nn.dynamic_rnn(cells(v1.nn.rnn_cell), x, dtype=tf.float32)
        state = state[-1] if not hasattr(state, "c") else state
        outputs = {"y": tf.identity(y, name="y"), "c": tf.identity(state.c, name="c")}
        with v1.Session(graph=graph) as session:
            session.run(v1.global_variables_initializer())
            for variable in v1.global_variables():
                variable.load(rng.uniform(-0.35, 0.35, variable.shape).astype("f"), session)
            given = rng.uniform(-1, 1, (2, 5, 3)).astype("f")
            found = session.run(outputs, {x: given})
            v1.saved_model.simple_save(session, str(root / name), {"x": x}, outputs)
            stored = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), list(outputs)
            )
    (root / f"{name}_frozen.pb").write_bytes(stored.SerializeToString())
    for each in (name, f"{name}_frozen"):
        np.savez(root / f"{each}.npz", x=given, **found)


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
