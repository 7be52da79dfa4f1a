"""The options that say how a file is read, alike for every verb: a use and a refusal of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ifgo as package
from ifgo.cli.new import random_model
from ifgo.formats import arrays

NET = """
version = 1
[[layer]]
kind = "lstm"
module = "lstm0"
[[layer]]
kind = "dense"
module = "dense"
"""
VERBS = ("inspect", "convert", "run", "verify")

USES = {
    "--layers": ("m.safetensors", "--layers", "lstm0,dense"),
    "--architecture": ("m.safetensors", "--architecture", "net.toml"),
    "--sheet": ("dump.npz", "--sheet", "sheet.toml"),
    "--select": ("m.npz", "--select", "lstm0"),
    "--dialect": ("alexeyab.weights", "--dialect", "alexeyab"),
    "--cfg": ("alone.weights", "--cfg", "alexeyab.cfg"),
}
REFUSALS = {
    "--layers": (
        ("m.safetensors", "--layers", "lstm0:nonsense,dense"),
        2,
        "m.safetensors: option layers: 'nonsense' is no step, expected one of last, state, "
        "hidden_as_sequence, dropout, flatten, repeat_vector, embedding, dense, batch_norm, "
        "sigmoid, tanh, relu, hard_sigmoid, leaky_relu, thresholded_relu, elu, scaled_tanh, "
        "affine, softsign, softplus, softmax",
    ),
    "--architecture": (
        ("m.safetensors", "--architecture", "no.toml"),
        2,
        "m.safetensors: no.toml: no such file. Check the path",
    ),
    "--sheet": (
        ("dump.npz", "--sheet", "no.toml"),
        2,
        "dump.npz: option sheet is 'no.toml', and there is no such file, expected a file, or one "
        "of " + ", ".join(sorted(arrays.shipped())),
    ),
    "--select": (
        ("m.npz", "--select", "attention"),
        2,
        "m.npz: has no recurrent layer 'attention', expected one of 'lstm0'",
    ),
    "--dialect": (
        ("m.npz", "--dialect", "alexeyab"),
        2,
        "m.npz: option 'dialect' means nothing to reading format 'arrays', expected one of sheet",
    ),
    "--cfg": (
        ("m.npz", "--cfg", "alexeyab.cfg"),
        2,
        "m.npz: option 'cfg' means nothing to reading format 'arrays', expected one of sheet",
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One model in files of several formats, in the current folder."""
    monkeypatch.chdir(tmp_path)
    model = random_model([5], 2, 1, seed=7, sequence=True)
    for name in ("m.ifgo", "m.safetensors", "m.npz", "dump.npz"):
        package.save(model, name)
    package.save(model, "alexeyab.weights", dialect="alexeyab", allow_lossy=True)
    Path("dump.toml").rename("sheet.toml")
    Path("alone.weights").write_bytes(Path("alexeyab.weights").read_bytes())
    Path("net.toml").write_text(NET)
    np.save("x.npy", np.random.default_rng(1).standard_normal((3, 4, 2)).astype(np.float32))
    return tmp_path


def line(verb: str, source: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments of one call."""
    rest = {
        "inspect": (),
        "convert": ("y.ifgo",),
        "run": ("--input", "x.npy", "--output", "y.npy", "--on", "exact"),
        "verify": ("--against", "c99"),
    }
    return (verb, source[0], *rest[verb], *source[1:])


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("option", USES)
def test_an_option_is_taken(ifgo, cc, folder, option, verb):
    done = ifgo(*line(verb, USES[option]))
    assert done.code == 0, done.err
    whole = package.load("m.ifgo")
    if option == "--select":
        whole = package.load("m.npz", select="lstm0")
    x = np.load("x.npy")
    if verb == "run":
        np.testing.assert_array_equal(np.load("y.npy"), whole.run(x, on="exact")[0])
    if verb == "convert":
        np.testing.assert_array_equal(
            package.load("y.ifgo").run(x, on="exact")[0], whole.run(x, on="exact")[0]
        )
    if verb == "inspect":
        assert f"{whole.parameters} parameters" in done.out


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("option", REFUSALS)
def test_an_option_is_refused(ifgo, folder, option, verb):
    source, code, message = REFUSALS[option]
    done = ifgo(*line(verb, source))
    assert (done.code, done.error.partition(". Did you mean")[0]) == (code, message)
    assert not (folder / "y.ifgo").exists()
    assert not (folder / "y.npy").exists()


def test_to_dialect(ifgo, folder):
    """The fork that shall read the file: its order of the gates."""
    assert ifgo("convert", "m.ifgo", "o.weights", "--to-dialect", "alexeyab").code == 0
    assert (folder / "o.weights").read_bytes() == (folder / "alexeyab.weights").read_bytes()
    done = ifgo("convert", "m.ifgo", "o.npz", "--to-dialect", "alexeyab")
    assert (done.code, done.error) == (
        2,
        "option 'dialect' means nothing to writing format 'arrays', expected no option",
    )


def test_pickles_of_madmom_need_no_sheet(ifgo, tmp_path):
    """The class that they name says what they are: an empty one lacks the arrays of madmom's."""
    path = tmp_path / "net.pkl"
    path.write_bytes(b"\x80\x02cmadmom.ml.nn\nNeuralNetwork\n.")
    done = ifgo("inspect", path)
    assert done.code == 4
    assert done.error.startswith(
        f"{path}: madmom_lstm: layer[0]: weight_hh of layer lstm0 is array "
        "'layers.0.input_gate.recurrent_weights', which is not there, expected one array of that "
        "name"
    )
