"""`ifgo run`: shapes, backends, states, and what a failing run leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

import ifgo as package
from ifgo.cli import data
from ifgo.cli.new import random_model
from ifgo.engine import loading
from ifgo.model import Embedding, FeatureInput, Model, Output, Recurrent, TokenInput


@pytest.fixture
def y(tmp_path):
    return tmp_path / "y.npy"


@pytest.mark.parametrize("on", ["engine", "exact"])
def test_the_engine_is_the_default_where_it_is(
    native, ifgo, model, model_file, x, y, on, monkeypatch
):
    monkeypatch.setattr(loading, "available", lambda: on == "engine")
    done = ifgo("run", model_file, "--input", x, "--output", y)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"{y}: float32 (3, 8, 1), computed on {on}\n"
    have, want = np.load(y), model.run(np.load(x), on=on)[0]
    assert have.dtype == np.float32
    assert have.tobytes() == want.tobytes()


def test_truth_is_rounded_to_float32(ifgo, model, model_file, x, y):
    assert ifgo("run", model_file, "--input", x, "--output", y, "--on", "truth").code == 0
    wide = model.run(np.load(x), on="truth")[0]
    assert wide.dtype == np.float64
    assert np.load(y).tobytes() == wide.astype(np.float32).tobytes()


def test_c99_gives_the_bits_of_exact(ifgo, cc, model_file, x, y, tmp_path):
    exact = tmp_path / "exact.npy"
    assert ifgo("run", model_file, "--input", x, "--output", y, "--on", "c99").code == 0
    assert ifgo("run", model_file, "--input", x, "--output", exact, "--on", "exact").code == 0
    assert y.read_bytes() == exact.read_bytes()


def test_one_sequence_keeps_the_batch_axis(ifgo, model_file, x, y, tmp_path):
    one = tmp_path / "one.npy"
    np.save(one, np.load(x)[0])
    assert ifgo("run", model_file, "--input", one, "--output", y).code == 0
    assert np.load(y).shape == (1, 8, 1)


def test_a_vector_per_sequence(ifgo, x, y, tmp_path):
    vector = tmp_path / "vector.onnx"
    package.save(random_model([4], 2, 3), vector)
    assert ifgo("run", vector, "--input", x, "--output", y).code == 0
    assert np.load(y).shape == (3, 3)
    np.save(x, np.load(x)[0])
    assert ifgo("run", vector, "--input", x, "--output", y).code == 0
    assert np.load(y).shape == (1, 3)


def test_lengths(ifgo, model, model_file, x, y, tmp_path):
    both = tmp_path / "both.npz"
    values, lengths = np.load(x), np.array([8, 3, 5])
    np.savez(both, x=values, lengths=lengths)
    assert ifgo("run", model_file, "--input", both, "--output", y).code == 0
    want = model.run(values, lengths=lengths)[0]
    assert np.load(y).tobytes() == want.tobytes()
    assert want.tobytes() != model.run(values)[0].tobytes()


def test_tokens(ifgo, y, tmp_path):
    random = np.random.default_rng(3)
    lstm = random_model([4], 3).layers[0]
    assert isinstance(lstm, Recurrent)
    table = Embedding("table", random.standard_normal((9, 3)).astype(np.float32))
    model = Model((TokenInput(9),), (table, lstm))
    path = tmp_path / "tokens.ifgo"
    package.save(model, path)
    tokens = np.array([3, 0, 8, 8])
    want = model.run(tokens[None])[0]
    files = {"t.txt": "3 0\n8, 8", "t.csv": "token\n3\n0\n8\n8\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    np.save(tmp_path / "t.npy", tokens)
    for name in (*files, "t.npy"):
        assert ifgo("run", path, "--input", tmp_path / name, "--output", y).code == 0, name
        assert np.load(y).tobytes() == want.tobytes()
    wide = tmp_path / "wide.csv"
    wide.write_text("3,0\n")
    done = ifgo("run", path, "--input", wide, "--output", y)
    assert done.code == 2
    assert done.error == f"{wide}: has 2 columns, expected one, for the model reads tokens"


def test_text_on_stdout(ifgo, model, model_file, x):
    done = ifgo("run", model_file, "--input", x, "--output", "-")
    assert (done.code, done.err) == (0, "")
    blocks = done.out.removesuffix("\n").split("\n\n")
    have = np.array([[float(line) for line in block.split("\n")] for block in blocks], np.float32)
    assert have[..., None].tobytes() == model.run(np.load(x))[0].tobytes()


def test_text_of_vectors():
    y = np.array([[1, 0.1], [-2.5e-9, 3]], np.float32)
    assert data.as_text(y) == "1 0.100000001\n-2.49999998e-09 3"


def test_json(ifgo, model_file, x, y, tmp_path):
    state = tmp_path / "s.npz"
    files = ("--input", x, "--output", y, "--state-out", state)
    done = ifgo("run", model_file, *files, "--on", "exact", "--json")
    assert done.json == {
        "model": str(model_file),
        "on": "exact",
        "input": {"file": str(x), "shape": [3, 8, 2]},
        "output": {"file": str(y), "shape": [3, 8, 1], "dtype": "float32"},
        "state": {
            "file": str(state),
            "shapes": {"h0": [1, 3, 5], "c0": [1, 3, 5], "h1": [1, 3, 3], "c1": [1, 3, 3]},
        },
    }
    assert done.err == (f"{state}: h0, c0, h1, c1\n{y}: float32 (3, 8, 1), computed on exact\n")


@pytest.mark.parametrize("on", ["exact", "c99"])
def test_two_runs_with_carried_state_equal_one(ifgo, cc, model_file, x, y, tmp_path, on):
    whole = np.load(x)
    parts = [tmp_path / f"{name}.npy" for name in ("a", "b", "ya", "yb")]
    np.save(parts[0], whole[:, :3])
    np.save(parts[1], whole[:, 3:])
    s1, s2, s = (tmp_path / f"{name}.npz" for name in ("s1", "s2", "s"))
    run = ("run", model_file, "--on", on)
    assert ifgo(*run, "--input", x, "--output", y, "--state-out", s).code == 0
    assert ifgo(*run, "--input", parts[0], "--output", parts[2], "--state-out", s1).code == 0
    end = ("--state-in", s1, "--state-out", s2)
    assert ifgo(*run, "--input", parts[1], "--output", parts[3], *end).code == 0
    joined = np.concatenate([np.load(parts[2]), np.load(parts[3])], axis=1)
    assert joined.tobytes() == np.load(y).tobytes()
    assert s2.read_bytes() == s.read_bytes()


class TestState:
    """Initial states: from X.npz or --state-in, each key once."""

    @pytest.fixture
    def state(self, model, x):
        return model.run(np.load(x))[1]

    def test_inside_the_input(self, ifgo, model, model_file, x, y, tmp_path, state):
        both = tmp_path / "both.npz"
        np.savez(both, x=np.load(x), **state)
        assert ifgo("run", model_file, "--input", both, "--output", y).code == 0
        assert np.load(y).tobytes() == model.run(np.load(x), state)[0].tobytes()

    def test_split_over_both(self, ifgo, model, model_file, x, y, tmp_path, state):
        both, rest = tmp_path / "both.npz", tmp_path / "rest.npz"
        np.savez(both, x=np.load(x), h0=state["h0"], c0=state["c0"])
        np.savez(rest, h1=state["h1"], c1=state["c1"])
        run = ("run", model_file, "--input", both, "--output", y, "--state-in", rest)
        assert ifgo(*run).code == 0
        assert np.load(y).tobytes() == model.run(np.load(x), state)[0].tobytes()

    def test_given_twice(self, ifgo, model_file, x, y, tmp_path, state):
        both, rest = tmp_path / "both.npz", tmp_path / "rest.npz"
        np.savez(both, x=np.load(x), **state)
        np.savez(rest, h1=state["h1"])
        run = ("run", model_file, "--input", both, "--output", y, "--state-in", rest)
        done = ifgo(*run)
        assert done.code == 2
        assert done.error == (
            f"{rest}: gives h1, and so does {both}, expected each state once. "
            "Leave it out of one of the two"
        )

    def test_wrong_shape(self, ifgo, model_file, x, y, tmp_path, state):
        path = tmp_path / "s.npz"
        np.savez(path, h0=state["h0"][:, :2])
        done = ifgo("run", model_file, "--input", x, "--output", y, "--state-in", path)
        assert (done.code, done.error) == (
            2,
            f"{path}: state h0 (layer lstm0) has shape (1, 2, 5), "
            "expected (1, 3, 5): directions, batch, width",
        )

    def test_of_no_layer(self, ifgo, model_file, x, y, tmp_path):
        path = tmp_path / "s.npz"
        np.savez(path, h2=np.zeros((1, 3, 5)))
        done = ifgo("run", model_file, "--input", x, "--output", y, "--state-in", path)
        assert (done.code, done.error) == (
            2,
            f"{path}: the state has an array 'h2', expected only h0, c0, h1, c1",
        )

    def test_with_a_foreign_array(self, ifgo, model_file, x, y, tmp_path):
        path = tmp_path / "s.npz"
        np.savez(path, hidden=np.zeros((1, 3, 5)))
        done = ifgo("run", model_file, "--input", x, "--output", y, "--state-in", path)
        assert (done.code, done.error) == (
            2,
            f"{path}: holds an array 'hidden', expected h0, c0, h1 and so on. "
            "Leave it out, or give it one of these names",
        )

    def test_with_another_ending(self, ifgo, model_file, x, y):
        done = ifgo("run", model_file, "--input", x, "--output", y, "--state-in", x)
        assert (done.code, done.error) == (2, f"{x}: has the ending '.npy', expected .npz")


class TestDestinations:
    """Nothing is overwritten by a run that fails, and nothing half."""

    def test_old_results_survive_a_failing_run(self, ifgo, model_file, x, y, tmp_path):
        state = tmp_path / "s.npz"
        y.write_bytes(b"old y")
        state.write_bytes(b"old state")
        values = np.load(x)
        values[1, 5, 0] = np.nan
        np.save(x, values)
        done = ifgo("run", model_file, "--input", x, "--output", y, "--state-out", state)
        assert (done.code, done.out) == (2, "")
        assert done.error == (
            f"{x}: x[1, 5, 0] is nan, expected finite float32 values. "
            "Clean the data first; a network spreads one NaN over everything after it"
        )
        assert y.read_bytes() == b"old y"
        assert state.read_bytes() == b"old state"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["s.npz", "x.npy", "y.npy"]

    def test_old_results_survive_a_failing_write(self, ifgo, model_file, x, y, monkeypatch):
        def replace(*_: object) -> None:
            raise OSError(28, "No space left on device")

        y.write_bytes(b"old")
        monkeypatch.setattr("os.replace", replace)
        done = ifgo("run", model_file, "--input", x, "--output", y)
        assert (done.code, done.error) == (
            2,
            f"{y}: cannot be written (No space left on device). "
            "Check that the folder exists and is writable",
        )
        assert y.read_bytes() == b"old"
        assert sorted(path.name for path in y.parent.iterdir()) == ["x.npy", "y.npy"]

    def test_wrong_endings(self, ifgo, model_file, x, tmp_path):
        wrong = tmp_path / "y.csv"
        done = ifgo("run", model_file, "--input", x, "--output", wrong)
        assert (done.code, done.error) == (2, f"{wrong}: has the ending '.csv', expected .npy")
        run = ("run", model_file, "--input", x, "--output", "-", "--state-out", wrong)
        done = ifgo(*run)
        assert (done.code, done.error) == (2, f"{wrong}: has the ending '.csv', expected .npz")

    def test_no_folder(self, ifgo, model_file, x, tmp_path):
        done = ifgo("run", model_file, "--input", x, "--output", tmp_path / "no" / "y.npy")
        assert (done.code, done.error) == (
            2,
            f"{tmp_path / 'no'}: no such folder. Make it first, or check the path",
        )

    def test_stdout_is_asked_twice(self, ifgo, model_file, x):
        done = ifgo("run", model_file, "--input", x, "--output", "-", "--json")
        assert done.code == 2
        assert done.error == (
            "--output - and --json both write to stdout. Write the results to a file"
        )


def test_reading_options_reach_the_reader(ifgo, model_file, x, y, tmp_path):
    """Tensors of hidden_size 1 without model.toml: neither layout nor stack can be told."""
    folder = tmp_path / "raw"
    plain = random_model([1, 1], 2, sequence=True)
    package.save(plain, folder, "raw", layout="B", allow_lossy=True)
    (folder / "model.toml").unlink()
    run = ("run", folder, "--from", "raw", "--input", x, "--output", y)
    assert "expected --layout A or --layout B" in ifgo(*run).error
    assert "--stack" in ifgo(*run, "--layout", "B").error
    assert ifgo(*run, "--layout", "B", "--stack", "stacked").code == 0
    whole = package.load(folder, "raw", layout="B", stack="stacked")
    assert np.load(y).tobytes() == whole.run(np.load(x))[0].tobytes()
    done = ifgo("run", model_file, "--input", x, "--output", y, "--bind", "w.npz")
    assert (done.code, done.error) == (
        2,
        f"{model_file}: option 'bind' means nothing to reading format 'native', expected no option",
    )


def test_a_model_that_puts_out_states_alone_says_what_y_is(ifgo, x, y, tmp_path):
    layer = random_model([4], 2, None).layers[0]
    only = Model((FeatureInput(2),), (layer,), (Output("c_n", layers=(layer.name,)),))
    file = tmp_path / "states.ifgo"
    package.save(only, file)
    assert ifgo("run", file, "--input", x, "--output", y, "--on", "exact").err == (
        f"{y}: float32 (3, 8, 4), computed on exact\n"
        "the outputs of the model are final states alone (--state-out); these are the values at "
        "the end of its layers\n"
    )
