"""Keras without Keras: files of versions 1 and 2 by hand, and files that other people trained."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_cases import (
    PARTS,
    activate,
    cudnn,
    draw,
    keras1,
    lstm,
    lstm_layer,
    lstm_weights,
    named,
    sequential,
    store,
)

from ifgo import formats, gates
from ifgo.model import Dropout, FeatureInput, LastStep, Model, Recurrent

MODELS = Path(__file__).parents[2].parent / "shared" / "models"
VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors"
needs_shared = pytest.mark.skipif(
    not MODELS.is_dir(), reason="models that others trained are not at ../shared/models"
)
FLOAT64 = 1e-12
"""Two float64 computations of a few dozen terms each."""

RNG = np.random.default_rng


def run(model: Model, x: Any) -> Any:
    return model.run(x, on="truth")[0]


def float32_sums(model: Model) -> float:
    """A float32 sum of K products of values below 1 is off by K half ulps of 2^-24 at most; what
    the recurrence carries on, gates below 1 damp."""
    terms = [layer.cell.input_size + layer.hidden_size for layer in model.recurrent]
    return sum(terms) * 2.0**-24


def replayed_sums(model: Model) -> float:
    """`float32_sums` where every layer's last vector is the next one's sequence, step by step."""
    return float32_sums(model) * len(model.recurrent)


def one_lstm(path: Path, weights: list[Any], version: str, **config: Any) -> Model:
    layer = lstm_layer("rnn", weights[1].shape[0], **config)
    shape = [None, None, weights[0].shape[0]]
    return formats.load(store(path, sequential([layer], shape), {"rnn": named("rnn", weights)},
                              version=version))  # fmt: skip


# -- versions and layouts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "major"), [("2.0.5", 2), ("2.2.4-tf", 2), ("2.15.0", 2), ("3.4.1", 3)]
)
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "relu"])
@pytest.mark.parametrize("backwards", [False, True])
def test_an_lstm(tmp_path: Path, version: str, major: int, gate: str, backwards: bool) -> None:
    weights = lstm_weights(RNG(1), 3, 4)
    options = {"recurrent_activation": gate, "activation": "softsign", "go_backwards": backwards}
    model = one_lstm(tmp_path / "m.h5", weights, version, **options)
    x = draw(RNG(2), 2, 6, 3, size=3)
    assert np.abs(run(model, x) - lstm(x, weights, major=major, **options)[0]).max() < FLOAT64
    assert model.provenance.version == version
    assert model.provenance.names["rnn.forward.weight_ih"] == "model_weights/rnn/rnn/kernel:0"


def test_the_two_hard_sigmoids_differ(tmp_path: Path) -> None:
    weights = lstm_weights(RNG(3), 3, 4)
    x = draw(RNG(4), 1, 6, 3, size=3)
    old, new = (
        run(one_lstm(tmp_path / "m.h5", weights, v, recurrent_activation="hard_sigmoid"), x)
        for v in ("2.3.1", "3.0.0")
    )
    assert np.abs(old - new).max() > 1e-2


def test_cudnn_keeps_both_biases_and_turns_each_block(tmp_path: Path) -> None:
    """Every input size around H, so that a block's shape cannot show which way it lies."""
    for inputs in (1, 3, 4, 7):
        weights, other = lstm_weights(RNG(5), inputs, 4), draw(RNG(6), 16)
        layer = {"class_name": "CuDNNLSTM", "config": {"name": "rnn", "units": 4,
                 "return_sequences": True}}  # fmt: skip
        config = sequential([layer], [None, None, inputs])
        arrays = {"rnn": named("rnn", cudnn(weights, other))}
        model = formats.load(store(tmp_path / "m.h5", config, arrays))
        x = draw(RNG(7), 2, 5, inputs)
        whole = [*weights[:2], weights[2].astype(float) + other]
        assert np.abs(run(model, x) - lstm(x, whole)[0]).max() < FLOAT64
        cell = model.recurrent[0].cell
        assert np.array_equal(np.sort(cell.bias_ih), np.sort(weights[2]))
        assert np.array_equal(np.sort(cell.bias_hh), np.sort(other))


def test_keras_1(tmp_path: Path) -> None:
    """Twelve arrays, inner_activation, and hard_sigmoid as its default spelled out."""
    rng = RNG(8)
    weights, dense = lstm_weights(rng, 3, 4), [draw(rng, 4, 2), draw(rng, 2)]
    layer = {
        "class_name": "LSTM",
        "config": {
            "name": "lstm_1",
            "output_dim": 4,
            "activation": "tanh",
            "inner_activation": "hard_sigmoid",
            "init": "glorot_uniform",
            "inner_init": "orthogonal",
            "forget_bias_init": "one",
            "W_regularizer": None,
            "dropout_W": 0.25,
            "dropout_U": 0.5,
            "return_sequences": False,
            "go_backwards": False,
            "stateful": False,
            "unroll": False,
            "consume_less": "cpu",
            "input_dim": 3,
            "input_length": None,
        },
    }
    final = {"class_name": "Dense", "config": {"name": "dense_1", "output_dim": 2, "bias": True,
             "activation": "linear"}}  # fmt: skip
    drop = {"class_name": "Dropout", "config": {"name": "dropout_1", "p": 0.5}}
    arrays = {
        "lstm_1": keras1("lstm_1", weights),
        "dropout_1": {},
        "dense_1": {"dense_1_W": dense[0], "dense_1_b": dense[1]},
    }
    path = store(tmp_path / "m.h5", sequential([layer, drop, final]), arrays, version="1.2.2")
    model = formats.load(path)
    x = draw(rng, 2, 6, 3, size=3)
    _, h, _ = lstm(x, weights, recurrent_activation="hard_sigmoid", major=1)
    assert np.abs(run(model, x) - (h @ dense[0].astype(float) + dense[1])).max() < FLOAT64
    facts = model.recurrent[0].training
    assert (facts.input, facts.recurrent) == (0.25, 0.5)
    assert model.layers[2] == Dropout("dropout_1", 0.5)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize(("version", "zero"), [("2.2.4", False), ("2.11.0", True)])
def test_bidirectional_of_keras_2(
    tmp_path: Path, merge: str, sequences: bool, version: str, zero: bool
) -> None:
    """No backward_layer in the config; masked steps give zeros since TensorFlow has its own."""
    rng = RNG(9)
    both = [lstm_weights(rng, 3, 4), lstm_weights(rng, 3, 4)]
    inner = lstm_layer("lstm", 4, return_sequences=sequences)
    wrapper = {"class_name": "Bidirectional", "config": {"name": "bi", "layer": inner,
               "merge_mode": merge}}  # fmt: skip
    masking = {"class_name": "Masking", "config": {"name": "mask", "mask_value": -1.0}}
    arrays = {
        "mask": {},
        "bi": named("bi/forward_lstm", both[0]) | named("bi/backward_lstm", both[1]),
    }
    config = sequential([masking, wrapper], [None, 6, 3])
    model = formats.load(store(tmp_path / "m.h5", config, arrays, version=version))
    x = draw(rng, 2, 6, 3)
    x[0, 2] = x[1, 4:] = -1
    kept = (x != -1).any(-1)
    clean = np.where(kept[..., None], x, 0)
    rows, h, _ = lstm(clean, both[0], mask=kept, zero=zero)
    back, h_back, _ = lstm(clean, both[1], mask=kept, zero=zero, go_backwards=True)
    parts = (rows, back[:, ::-1]) if sequences else (h, h_back)
    merged = {
        "concat": np.concatenate(parts, axis=-1),
        "sum": parts[0] + parts[1],
        "mul": parts[0] * parts[1],
        "ave": (parts[0] + parts[1]) / 2,
    }[merge]
    assert np.abs(run(model, x) - merged).max() < FLOAT64


def test_time_major_and_stateful(tmp_path: Path) -> None:
    weights = lstm_weights(RNG(10), 3, 4)
    model = one_lstm(tmp_path / "m.h5", weights, "2.11.0", time_major=True, stateful=True)
    assert model.input.axes == model.outputs[0].axes == "TB"
    assert model.recurrent[0].stateful


def test_wrong_gate_orders_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 23 other orders gives other numbers, in each of the three layouts."""
    weights, other = lstm_weights(RNG(11), 2, 3), draw(RNG(12), 12)
    x = draw(RNG(13), 2, 5, 2)
    whole = [*weights[:2], weights[2].astype(float) + other]
    for table, arrays, expected in (
        ("keras", named("rnn", weights), weights),
        ("keras1", keras1("rnn", weights), weights),
        ("cudnn_keras", named("rnn", cudnn(weights, other)), whole),
    ):
        config = sequential([lstm_layer("rnn", 3)], [None, None, 2])
        path = store(tmp_path / "m.h5", config, {"rnn": arrays})
        right, seen = gates.LSTM_LAYOUTS[table], 0
        for order in permutations("ifgo"):
            layout = gates.GateLayout("".join(order), right.orientation, right.bias)
            monkeypatch.setitem(gates.LSTM_LAYOUTS, table, layout)
            error = np.abs(run(formats.load(path), x) - lstm(x, expected)[0]).max()
            assert (error < FLOAT64) == (layout.order == right.order)
            seen += error > 1e-3
        monkeypatch.undo()
        assert seen == 23


# -- weights alone --------------------------------------------------------------------------------


def test_weights_alone_take_a_config(tmp_path: Path) -> None:
    """A JSON file, its content, or a list of layers; by name, or in order as Keras loads them."""
    weights = lstm_weights(RNG(14), 3, 4)
    path = store(tmp_path / "w.h5", None, {"rnn": named("rnn", weights)}, whole=False)
    x = draw(RNG(15), 1, 5, 3)
    expected = lstm(x, weights)[0]
    layers = [lstm_layer("rnn", 4)]
    written = tmp_path / "model.json"
    written.write_text(json.dumps(sequential(layers)))
    renamed = [lstm_layer("other", 4)]
    for config in (str(written), sequential(layers), layers, renamed):
        model = formats.load(path, config=config)
        assert np.abs(run(model, x) - expected).max() < FLOAT64
    assert model.provenance.notes == ("layers of the file and of the config matched in order: rnn",)


def test_weights_alone_are_listed(tmp_path: Path) -> None:
    weights, other = lstm_weights(RNG(16), 3, 4), draw(RNG(17), 16)
    arrays = {
        "plain": named("plain", weights),
        "fast": named("fast", cudnn(weights, other)),
        "dense": named("dense", [draw(RNG(1), 4, 2), draw(RNG(1), 2)], ("kernel", "bias")),
    }
    path = store(tmp_path / "w.h5", None, arrays, whole=False)
    found = formats.list_layers(path)
    assert found.names == ("plain", "fast")
    assert [(f.input_size, f.hidden_size) for f in found.layers] == [(3, 4)] * 2
    assert dict(found.others) == {"layer": 1}
    assert found.layers[0].refusal == (
        "its file holds weights alone, which do not say its activations, merge mode or direction"
    )
    model = formats.load(path, select="fast")
    x = draw(RNG(18), 1, 5, 3)
    whole = [*weights[:2], weights[2].astype(float) + other]
    assert np.abs(run(model, x) - lstm(x, whole)[0]).max() < FLOAT64
    assert model.provenance.notes == (
        "left out 2 layers: 2 named",
        "fast gives its whole sequence: the file does not say return_sequences",
    )


# -- files that other people trained --------------------------------------------------------------


@needs_shared
def test_pdm_binary() -> None:
    """Keras 2.0.5 with its hard_sigmoid: 0.9785 of 93 windows, and every output within the bound
    of float32."""
    expected = np.load(MODELS / "pdm_binary" / "expected.npz")
    model = formats.load(MODELS / "pdm_binary" / "binary_model.h5")
    found = run(model, expected["x"])
    assert np.abs(found - expected["y"]).max() < float32_sums(model)
    right = ((found[:, 0] > 0.5) == (expected["label"] > 0.5)).mean()
    assert round(float(right), 4) == 0.9785


@needs_shared
@pytest.mark.parametrize(
    "name", ["DEH_epoch1_128_model0", "lstm_dehs_epoch1_hidden128", "lstm_test_tf"]
)
def test_hidden_vectors_read_as_sequences(name: str) -> None:
    folder = MODELS / "seed_lstm16161_keras"
    expected = np.load(folder / "expected.npz")
    model = formats.load(folder / f"{name}.h5")
    for kind in ("normal", "anormal"):
        x = expected[f"x_{kind}"].astype(np.float32).reshape(1, 128, 1)
        found = run(model, x)
        wanted = expected[f"y_{name}__{kind}"]
        assert np.abs(found - wanted).max() < replayed_sums(model), kind


@needs_shared
def test_textgenrnn_layer_by_layer() -> None:
    """Weights alone in the layout of CuDNNLSTM; embedding and attention are left out."""
    folder = MODELS / "textgenrnn"
    path, expected = folder / "textgenrnn_weights.hdf5", np.load(folder / "expected.npz")
    assert formats.list_layers(path).names == ("rnn_1", "rnn_2")
    table = {"class_name": "Embedding", "config": {"name": "embedding", "input_dim": 465,
             "output_dim": 100}}  # fmt: skip
    fast = {"return_sequences": True, "units": 128}
    two = [{"class_name": "CuDNNLSTM", "config": {"name": f"rnn_{k}", **fast}} for k in (1, 2)]
    arrays = formats.load(path, select="rnn_1", config=[*two])
    first = formats.load(path, select="rnn_1")
    second = formats.load(path, select="rnn_2")
    both = formats.load(path, select="rnn_1,rnn_2", config=[table, *two])
    assert [layer.name for layer in both.recurrent] == ["rnn_1", "rnn_2"]
    assert all(np.array_equal(a, first.arrays[n]) for n, a in arrays.arrays.items())
    import h5py

    with h5py.File(path) as file:
        words = file["embedding/embedding/embeddings:0"][()][expected["x"].astype(int)]
    for model, x, key in (
        (first, words, "lstm1"),
        (second, expected["lstm1"], "lstm2"),
        (both, words, "lstm2"),
    ):
        assert np.abs(run(model, x) - expected[key]).max() < float32_sums(model)


@needs_shared
def test_dtln_is_the_same_net_as_its_onnx() -> None:
    """Four LSTMs of a net with convolutions; stage 1 computes the masks that its ONNX gave."""
    folder = MODELS / "dtln"
    path = folder / "model.h5"
    listing = formats.list_layers(path)
    assert listing.names == ("lstm", "lstm_1", "lstm_2", "lstm_3")
    chosen = [lstm_layer("lstm", 128, dropout=0.25), lstm_layer("lstm_1", 128)]
    model = formats.load(path, select="lstm,lstm_1", config=chosen)
    assert model.recurrent[0].training.input == 0.25
    graph = formats.load(folder / "model_1.onnx", select=formats.list_layers(
        folder / "model_1.onnx").names)  # fmt: skip
    x = draw(RNG(1), 1, 20, 257)
    zero = {k: np.zeros((1, 1, 128)) for k in ("h0", "c0", "h1", "c1")}
    found = model.run(x, on="truth")[0]
    wanted = graph.run(x, zero, on="truth")[0]
    assert np.abs(found - wanted).max() < FLOAT64


@pytest.mark.skipif(not VECTORS.is_dir(), reason="test vectors are not at ../shared/vectors")
def test_goldens_of_keras_3(tmp_path: Path) -> None:
    """Keras's own lstm_test.py: config, weights, input and expected output as recorded there."""
    checked = 0
    for case in json.loads((VECTORS / "keras3_lstm_golden.json").read_text()):
        config = {"zero_output_for_mask": False, **case["config"]}
        if case["initial_state"] is not None:
            continue
        arrays = [np.array(w, np.float32) for w in case["weights"]]
        layer = lstm_layer("rnn", **config)
        x = np.array(case["input"], np.float32)
        if case["mask"] is not None:
            # A mask of its own: a value that nothing else has says the same.
            x[~np.array(case["mask"], bool)] = -77
        mask = {"class_name": "Masking", "config": {"name": "mask", "mask_value": -77.0}}
        used = [layer] if case["mask"] is None else [mask, layer]
        path = store(
            tmp_path / "m.h5",
            sequential(used, [None, *x.shape[1:]]),
            {"mask": {}, "rnn": named("rnn", arrays, PARTS[: len(arrays)])},
            version="3.15.1",
        )
        model = formats.load(path)
        found = run(model, x)
        expected = np.array(case["expected"])
        # Of masked sequences the test looks at the first alone.
        found = found[0] if config["return_sequences"] else found
        assert found.shape == expected.shape
        # Keras's own tests hold it to 1e-6; what they expect is written with as many digits.
        assert np.abs(found - expected).max() < 1e-6, case["test"]
        checked += 1
    assert checked >= 12


def test_what_is_no_recurrent_layer(tmp_path: Path) -> None:
    """Dense, activations, batch norm, reshapes and repeats, one after another."""
    rng = RNG(20)
    weights, table = lstm_weights(rng, 2, 3), draw(rng, 5, 2)
    dense = [draw(rng, 3, 4), draw(rng, 4)]
    norm = [draw(rng, 4), draw(rng, 4), draw(rng, 4), np.abs(draw(rng, 4))]

    def layer(kind: str, **config: Any) -> dict[str, Any]:
        return {"class_name": kind, "config": {"name": kind.lower(), **config}}

    config = sequential(
        [
            layer("Embedding", input_dim=5, output_dim=2, mask_zero=False, input_length=6),
            layer("SpatialDropout1D", rate=0.1),
            lstm_layer("rnn", 3),
            layer("GaussianNoise", stddev=0.1),
            layer("TimeDistributed", layer=layer("Dense", units=4, activation="elu")),
            layer("BatchNormalization", axis=[2], epsilon=0.01),
            layer("LeakyReLU", alpha=0.3),
            layer("Flatten"),
            layer("Reshape", target_shape=[24, 1]),
            layer("Reshape", target_shape=[-1, 1]) | {"name": "again"},
        ],
        [None, 6],
    )
    config["config"][-1]["config"]["name"] = "again"
    arrays = {
        "embedding": named("embedding", [table], ("embeddings",)),
        "rnn": named("rnn", weights),
        "timedistributed": named("dense", dense, ("kernel", "bias")),
        "batchnormalization": named(
            "bn", norm, ("gamma", "beta", "moving_mean", "moving_variance")
        ),
    }
    model = formats.load(store(tmp_path / "m.h5", config, arrays))
    tokens = rng.integers(0, 5, (2, 6))
    y = lstm(table[tokens], weights)[0] @ dense[0].astype(float) + dense[1]
    y = activate("elu", y, 2)
    gamma, beta, mean, variance = (n.astype(float) for n in norm)
    y = (y - mean) / np.sqrt(variance + 0.01) * gamma + beta
    y = np.where(y < 0, 0.3 * y, y).reshape(2, 24, 1)
    assert np.abs(run(model, tokens) - y).max() < FLOAT64
    assert model.provenance.notes == (
        "layer gaussiannoise (GaussianNoise) is left out: it only trains",
    )


def test_a_nested_sequential(tmp_path: Path) -> None:
    rng = RNG(21)
    one, two = lstm_weights(rng, 3, 4), lstm_weights(rng, 4, 2)
    inner = {"class_name": "Sequential", "config": {"name": "encoder", "layers": [
        lstm_layer("a", 4), lstm_layer("b", 2)]}}  # fmt: skip
    dense = {"class_name": "Dense", "config": {"name": "d", "units": 1, "activation": "linear"}}
    arrays = {
        "encoder": named("a", one) | named("b", two),
        "d": named("d", [np.ones((2, 1), "f"), np.zeros(1, "f")], ("kernel", "bias")),
    }
    path = store(tmp_path / "m.h5", {"class_name": "Sequential", "config": {"layers": [
        inner, dense]}}, arrays)  # fmt: skip
    x = draw(rng, 1, 4, 3)
    expected = lstm(lstm(x, one)[0], two)[0].sum(-1, keepdims=True)
    assert np.abs(run(formats.load(path), x) - expected).max() < FLOAT64


def test_sequences_end_where_the_config_says(tmp_path: Path) -> None:
    weights = lstm_weights(RNG(22), 3, 4)
    model = one_lstm(tmp_path / "m.h5", weights, "2.3.1", return_sequences=False)
    assert model.layers[1] == LastStep("rnn_last")
    assert isinstance(model.layers[0], Recurrent)
    assert isinstance(model.input, FeatureInput)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--config reads weights alone; a .keras comes out."""
    from ifgo.cli.main import call

    weights = lstm_weights(RNG(23), 3, 4)
    path = store(tmp_path / "w.h5", None, {"rnn": named("rnn", weights)}, whole=False)
    (tmp_path / "c.json").write_text(json.dumps(sequential([lstm_layer("rnn", 4)])))
    target = tmp_path / "out.keras"
    assert call(["convert", str(path), str(target), "--config", str(tmp_path / "c.json")]) == 0
    assert capsys.readouterr().err.endswith(f"{target}: every bit kept\n")
    assert call(["inspect", str(target), "--lstms"]) == 0
    assert "rnn" in capsys.readouterr().out
