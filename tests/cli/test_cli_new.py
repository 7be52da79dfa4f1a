"""`ifgo new`: the shapes, the distribution, the same bytes again."""

from __future__ import annotations

import numpy as np
import pytest

import ifgo as package
from ifgo.cli.new import random_model
from ifgo.describe import describe
from ifgo.errors import UsageError
from ifgo.model import LastStep


def new(ifgo, path, *options):
    return ifgo("new", "--layers", "6,4", "--input", 3, "--seed", 5, "--out", path, *options)


@pytest.mark.parametrize("name", ["m.ifgo", "m.onnx"])
def test_the_same_options_give_the_same_bytes(ifgo, tmp_path, name):
    one, two = tmp_path / name, tmp_path / f"again.{name}"
    done = new(ifgo, one, "--dense", 2)
    assert (done.code, done.out, done.err) == (0, "", f"{one}: 466 random weights, seed 5\n")
    assert new(ifgo, two, "--dense", 2).code == 0
    assert one.read_bytes() == two.read_bytes()
    other = ("new", "--layers", "6,4", "--input", 3, "--seed", 6, "--out", two, "--dense", 2)
    assert ifgo(*other).code == 0
    assert one.read_bytes() != two.read_bytes()


def test_layers(ifgo, tmp_path):
    path = tmp_path / "m.ifgo"
    kinds = {
        (): ["lstm", "lstm"],
        ("--dense", 2): ["lstm", "lstm", "last_step", "dense"],
        ("--dense", 2, "--sequence"): ["lstm", "lstm", "dense"],
    }
    for options, want in kinds.items():
        assert new(ifgo, path, *options).code == 0
        assert [layer.kind for layer in package.load(path).layers] == want
    assert new(ifgo, path, "--bidirectional", "--dense", 2).code == 0
    model = package.load(path)
    assert [layer.directions for layer in model.recurrent] == [2, 2]
    assert model.sizes() == [12, 8, 8, 2]
    assert isinstance(model.layers[2], LastStep)


def test_weights_are_those_pytorch_would_draw_from(ifgo, tmp_path):
    """Uniform in ±1/sqrt(H) for the LSTM, ±1/sqrt(I) for Dense: bound, mean and variance."""
    model = random_model([100], 80, 50, seed=1)
    for name, array in model.arrays.items():
        bound = 0.1  # 1/sqrt(H), and 1/sqrt(I) of the dense layer: both 100
        values = array.astype(np.float64)
        assert array.dtype == np.float32, name
        assert abs(values).max() <= np.float32(bound), name
        # Six standard deviations of the mean and of the mean square of N uniform values.
        assert abs(values.mean()) < 6 * bound / np.sqrt(3 * values.size), name
        square = (values**2).mean() / bound**2
        assert abs(square - 1 / 3) < 6 * np.sqrt(4 / 45 / values.size), name
    cell = model.recurrent[0].cell
    assert cell.bias_ih is not None
    assert cell.bias_hh is not None
    assert not np.array_equal(cell.bias_ih, cell.bias_hh)


def test_the_stream_of_numbers():
    """weight_ih first, from the doubles of default_rng(seed)."""
    cell = random_model([4], 1, seed=9).recurrent[0].cell
    doubles = np.random.default_rng(9).random(16)
    want = ((2 * doubles - 1) / 2).astype(np.float32)
    assert cell.weight_ih.reshape(-1).tobytes() == want.tobytes()


def test_json(ifgo, tmp_path):
    path = tmp_path / "m.ifgo"
    done = new(ifgo, path, "--dense", 2, "--json")
    model = random_model([6, 4], 3, 2, seed=5)
    assert done.json == {"file": str(path), "seed": 5, **describe(model)}


def test_a_raw_folder(ifgo, tmp_path):
    path = tmp_path / "weights"
    assert new(ifgo, path).error.startswith("the ending of 'weights' names no format")
    assert new(ifgo, path, "--to", "raw").code == 0
    assert package.load(path).recurrent[1].hidden_size == 4


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("16,x", "--layers is '16,x', expected sizes between commas, such as 16,16"),
        ("1_6", "--layers is '1_6', expected sizes between commas, such as 16,16"),
        (" 16", "--layers is ' 16', expected sizes between commas, such as 16,16"),
        ("16,", "--layers is '16,', expected sizes between commas, such as 16,16"),
        ("16,0", "--layers is '16,0', expected 1 to 62 sizes of 1 or more"),
        (",".join("1" * 63), f"--layers is '{','.join('1' * 30)},...', expected 1 to 62 sizes"),
        (
            "8193",
            "a weight matrix of 32772 x 8193 is too large, expected at most 268435456 values",
        ),
    ],
)
def test_wrong_sizes(ifgo, tmp_path, layers, message):
    path = tmp_path / "m.ifgo"
    done = ifgo("new", "--layers", layers, "--out", path)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith(message)
    assert not path.exists()


@pytest.mark.parametrize("option", ["--dense", "--input"])
def test_wrong_widths(ifgo, tmp_path, option):
    for value in ("0", "65537"):
        done = ifgo("new", "--layers", "2", option, value, "--out", tmp_path / "m.ifgo")
        assert (done.code, done.error) == (
            2,
            f"Invalid value for '{option}': {value} is not in the range 1<=x<=65536. "
            "See 'ifgo new --help'",
        )


def test_nothing_is_drawn_for_a_matrix_too_large():
    with pytest.raises(UsageError):
        random_model([2**20], 1)
