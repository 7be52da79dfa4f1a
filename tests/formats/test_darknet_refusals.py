"""Darknet: what is refused, by section and key, with the message a user reads."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from darknet_cases import connected, lstm, store
from raising import raising

from ifgo import formats
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats import _darknet_cfg
from ifgo.model import (
    Activation,
    ActivationLayer,
    Dense,
    FeatureInput,
    InitialState,
    LastStep,
    LSTMCell,
    MatrixNorm,
    Model,
    Recurrent,
    Scale,
)

RNG = np.random.default_rng(0)
GATES = ", ".join(("linear", "logistic", "tanh", "relu", "leaky", "elu", "loggy"))


def pair(folder: Path, *, layers: list[Any] | None = None) -> Path:
    """Intact files; 20 + 4·(4(H + H²) + 4(H + H·I)) bytes with I = 2, H = 3 by default."""
    return store(folder, 2, layers or [lstm(np.random.default_rng(1), 2, 3)], "pjreddie")


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(IfgoError) as caught:
        formats.load(path, **options)
    return str(caught.value)


KNOWN = "[net], [lstm], [connected], [softmax], [dropout], [cost]"


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "[lstm]",
            "[lstm]\noutputs=3",
            "layer 0 [lstm]: key 'outputs' is none that Darknet reads there, expected one of "
            + ", ".join(_darknet_cfg.KEYS["lstm"])
            + ". Correct its spelling, or remove the line",
        ),
        (
            "[lstm]",
            "[gru]",
            "line 7: section '[gru]' is none that ifgo reads, and what it stores would shift all "
            f"that follows, expected {KNOWN}",
        ),
        (
            "output=3",
            "output=3\noutput=3",
            "layer 0 [lstm]: sets output twice, expected each key once",
        ),
        ("output=3", "output=x", "layer 0 [lstm]: output is 'x', expected a whole number from 1"),
        ("output=3", "output=0", "layer 0 [lstm]: output is '0', expected a whole number from 1"),
        (
            "output=3",
            "output=9000",
            "layer 0 [lstm]: output is 9000, expected at most 8192" + raising("hidden_size"),
        ),
        ("output=3", "output", "line 8: is 'output', expected key=value"),
        (
            "[net]",
            "batch=1\n[net]",
            "line 1: sets 'batch' before any section, expected [net] first",
        ),
        (
            "[net]",
            "[cost]\n[net]",
            "line 1: [cost] stands first, expected one [net], before all layers",
        ),
        (
            "[lstm]",
            "[net]\n[lstm]",
            "line 7: [net] stands among the layers, expected one [net], before all layers",
        ),
        ("inputs = 2", "inputs = 0", "[net]: inputs is 0, expected 1 to 65536"),
        (
            "output=3",
            "output=3\ndontload=1",
            "layer 0 [lstm]: sets dontload, so its numbers are not in the file",
        ),
        (
            "output=3",
            "output=4",
            "has 356 bytes, expected 532 = a header of 20 and what the cfg adds up to. "
            "The cfg is another model's, or the file was cut short",
        ),
    ],
)
def test_cfg(tmp_path: Path, before: str, after: str, says: str) -> None:
    path = pair(tmp_path)
    layout = path.with_suffix(".cfg")
    text = layout.read_text()
    assert text.count(before) == 1
    layout.write_text(text.replace(before, after))
    place = path if says.startswith("has ") else f"{path}, its net.cfg"
    assert refusal(path) == f"{place}: {says}"


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (
            connected(RNG, 3, 2, "hardtan"),
            f"activation is 'hardtan', expected one of {GATES}",
        ),
        (
            connected(RNG, 3, 2, "tanh", normed=True) | {"activation": "tanh\ndontloadscales=1"},
            "sets dontloadscales, so its batch norm is not in the file",
        ),
        (
            {"type": "softmax\ngroups=2"},
            "groups is 2, expected groups=1: one softmax over all features",
        ),
        (
            {"type": "softmax\nspatial=1"},
            "spatial is 1, expected spatial=0: one softmax over all features",
        ),
        ({"type": "softmax\ntree=t.txt"}, "has a tree, expected a plain softmax"),
        ({"type": "softmax", "temperature": -1}, "temperature is -1, expected a number above 0"),
        (
            {"type": "softmax", "temperature": "1_0"},
            "temperature is '1_0', expected a finite number",
        ),
        ({"type": "dropout\nprobability=1"}, "probability is 1, expected a rate in [0, 1)"),
    ],
)
def test_layers(tmp_path: Path, layer: Any, says: str) -> None:
    path = pair(tmp_path, layers=[lstm(RNG, 2, 3), layer])
    layout = path.with_suffix(".cfg")
    kind, _, rest = layer["type"].partition("\n")
    layout.write_text(layout.read_text().replace(f"[{layer['type']}]", f"[{kind}]\n{rest}"))
    assert refusal(path) == f"{path}, its net.cfg: layer 1 [{kind}]: {says}"
    assert refusal(layout) == f"{layout}: layer 1 [{kind}]: {says}"


def test_options(tmp_path: Path) -> None:
    path = pair(tmp_path)
    assert refusal(path, dialect="x") == (
        f"{path}: option dialect is 'x', expected one of 'pjreddie', 'alexeyab'"
    )
    layout = path.with_suffix(".cfg")
    assert refusal(layout, cfg="y.cfg") == (
        f"{layout}: is a cfg, and option cfg names 'y.cfg', expected one cfg"
    )
    layout.rename(tmp_path / "other.cfg")
    assert refusal(path) == (
        f"{path}: has no cfg beside it, expected net.cfg. "
        "Give the .weights as the model, and its layers by --cfg FILE"
    )
    assert refusal(tmp_path / "other.cfg") == (
        f"{tmp_path / 'other.cfg'}: has no weights beside it, expected other.weights. "
        "Give the .weights as the model, and its layers by --cfg FILE"
    )


def test_headers(tmp_path: Path) -> None:
    path = pair(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:15])
    assert refusal(path) == (
        f"{path}: has 15 bytes, expected a header of 16 or 20 bytes: major, minor, revision, "
        "images seen"
    )
    path.write_bytes(struct.pack(">iii", 0, 2, 0) + data[12:])
    assert refusal(path) == (
        f"{path}: its header says version 0.33554432.0, expected small numbers, little-endian. "
        "It is no .weights file, or written on a big-endian machine"
    )


def test_every_truncation_and_every_byte_too_many(tmp_path: Path) -> None:
    path = pair(tmp_path)
    data = path.read_bytes()
    for changed in [data[:size] for size in range(len(data))] + [data + b"\0", data + data]:
        path.write_bytes(changed)
        with pytest.raises(FormatError):
            formats.load(path)
    path.write_bytes(data)
    assert formats.load(path).recurrent


def test_damaged_cfgs_are_read_or_refused(tmp_path: Path) -> None:
    """One byte of the cfg changed: an intact model or one of our errors."""
    path = pair(tmp_path, layers=[lstm(RNG, 2, 3), connected(RNG, 3, 2, "tanh")])
    layout = path.with_suffix(".cfg")
    text, rng, refused = layout.read_bytes(), random.Random(1), 0
    for _ in range(400):
        data = bytearray(text)
        data[rng.randrange(len(data))] = rng.choice(b"\0\n#;[]=0129abc\xff ")
        layout.write_bytes(bytes(data))
        try:
            assert isinstance(formats.load(path), Model)
        except IfgoError:
            refused += 1
    assert 100 < refused < 400


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_never_compute(tmp_path: Path, bad: float) -> None:
    path = pair(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-4] + np.float32(bad).tobytes())
    assert "finite values" in refusal(path)


# -- writing --------------------------------------------------------------------------------------


def cell(**options: Any) -> LSTMCell:
    rng = np.random.default_rng(2)
    parts: dict[str, Any] = {
        "weight_ih": rng.normal(size=(12, 2)).astype("f"),
        "weight_hh": rng.normal(size=(12, 3)).astype("f"),
        "bias_ih": rng.normal(size=12).astype("f"),
        "bias_hh": rng.normal(size=12).astype("f"),
    }
    return LSTMCell(**(parts | options))


def written(folder: Path, *layers: Any, **options: Any) -> str:
    with pytest.raises(UnsupportedError) as caught:
        formats.save(Model((FeatureInput(2),), layers), folder / "m.weights", **options)
    assert not list(folder.iterdir())
    return str(caught.value).removeprefix(f"{folder / 'm.weights'}: Darknet cannot hold ")


NORM = MatrixNorm(*(np.ones(12, "f"),) * 3, 1e-5, False)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([Recurrent("l", cell(), cell())], "layer l: backward"),
        ([Recurrent("l", None, cell())], "layer l: backward; layer l: no forward direction"),
        ([Recurrent("l", cell(peephole=np.ones((3, 3), "f")))], "layer l: peephole"),
        ([Recurrent("l", cell(clip_z=1.0))], "layer l: clip_z 1.0"),
        ([Recurrent("l", cell(coupling="f=1-i"))], "layer l: coupling f=1-i"),
        (
            [Recurrent("l", cell(activations=(Activation("relu"),) * 3))],
            "layer l: activations relu/relu/relu",
        ),
        (
            [
                Recurrent(
                    "l",
                    cell(),
                    initial=InitialState("constant", np.ones((1, 3), "f"), np.ones((1, 3), "f")),
                )
            ],
            "layer l: initial state of kind constant",
        ),
        (
            [Recurrent("l", cell(input_norm=NORM))],
            "layer l: batch norm of one of the two products; layer l: batch norm with epsilon "
            "1e-05 inside the root in dialect pjreddie",
        ),
        ([Recurrent("l", cell()), LastStep("e")], "output 'y' of role last; layer e: last_step"),
        (
            [Dense("d", np.ones((2, 2), "f"), np.ones(2, "f"), Activation("softsign"))],
            "layer d: activation softsign",
        ),
        ([ActivationLayer("a", Activation("tanh"))], "layer a: activation"),
        (
            [
                Dense("d", np.ones((2, 2), "f"), np.ones(2, "f")),
                Scale("s", np.array([1, 2], "f"), np.zeros(2, "f")),
                ActivationLayer("a", Activation("softmax")),
            ],
            "layer s: scale other than the 1/t of a softmax",
        ),
    ],
)
def test_models_that_darknet_cannot_hold(tmp_path: Path, layers: Any, says: str) -> None:
    whole = f"{says}. Write an .ifgo file, which holds every model"
    assert written(tmp_path, *layers) == whole
    assert written(tmp_path, *layers, allow_lossy=True) == whole


def test_absent_biases_become_zeros_on_request(tmp_path: Path) -> None:
    layer = Recurrent("l", cell(bias_ih=None, bias_hh=None), stateful=True)
    assert written(tmp_path, layer) == (
        "layer l: no bias_hh (written as zeros); layer l: no bias_ih (written as zeros). "
        "Permit it with --allow-lossy bias, or write an .ifgo file, which holds every model"
    )
    model = Model((FeatureInput(2),), (layer,))
    report = formats.save(model, tmp_path / "m.weights", allow_lossy=True)
    assert report.lost == (
        "layer l: no bias_hh (written as zeros)",
        "layer l: no bias_ih (written as zeros)",
    )
    x = np.random.default_rng(1).normal(size=(4, 2)).astype("f")
    assert np.array_equal(
        formats.load(tmp_path / "m.weights").run(x, on="exact")[0], model.run(x, on="exact")[0]
    )


def test_the_ending_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        formats.save(
            Model((FeatureInput(2),), (Recurrent("l", cell()),)), tmp_path / "m", "darknet"
        )
    assert str(caught.value) == (
        f"{tmp_path / 'm'}: does not end in .weights, expected NAME.weights, beside NAME.cfg"
    )
