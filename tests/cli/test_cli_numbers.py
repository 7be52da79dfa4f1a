"""Numbers in text: `ifgo run`, tensor files and the emitted main.c read one grammar.

SPEC.md 2.11 is it.
"""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

import ifgo as package
from ifgo.cli.compiling import compile_main
from ifgo.model import Dense, FeatureInput, Model

NUMBERS = [
    (b"1", [1.0]),
    (b"\xef\xbb\xbf1.5f -2e-3F\r\n\t+.25; 3. ,4", [1.5, -2e-3, 0.25, 3.0, 4.0]),
    (b"{1, 2},{3}\n", [1.0, 2.0, 3.0]),
    (b"1.000000059604644775390625000000000001", [1 + 2**-23]),
    (b"3.4028235e38 1e-46", [3.4028235e38, 0.0]),
    (b"0." + b"0" * 148 + b"1" + b"0" * 49, [1e-149]),
    (b"1E+2 1e02", [100.0, 100.0]),
]
REFUSED = [
    b"0x1p3",
    b"nan",
    b"-inf",
    b"INFINITY",
    b"nan(1)",
    b"1e39",
    b"-1e400",
    b"1ff",
    b"1f.",
    b"f",
    b".",
    b"+",
    b"-.e1",
    b"1e",
    b"1e+",
    b"1_000",
    b"1 two",
    b"--1",
    b"1\x002",
    b"1\x0b2",
    b"1\xc2\xa02",
    b"\xef\xbb1",
    b"\xef",
    b"1 \xef\xbb\xbf2",
    b"\xff",
    b"1" * 201,
    b"",
    b" ,;{}\n",
]


@pytest.fixture(scope="module")
def program(cc, tmp_path_factory):
    """main.c of a model that gives back what it reads; its weight is a text file too."""
    folder = tmp_path_factory.mktemp("echo")
    model = Model((FeatureInput(1),), (Dense("same", np.ones((1, 1), np.float32)),))
    package.save(model, folder / "m.ifgo")
    package.deploy(model, folder, weights="files", main=True)
    (folder / "weights" / "tensor_W_1_1.bin").unlink()
    (folder / "weights" / "tensor_W_1_1.txt").write_text("1")
    compile_main(folder, "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-pedantic")
    return folder


@pytest.fixture
def both(program, ifgo, tmp_path):
    """The exit codes and outputs of `ifgo run` and of main.c on one text."""

    def run(text):
        path = tmp_path / "x.txt"
        path.write_bytes(text)
        done = ifgo("run", program / "m.ifgo", "--input", path, "--output", "-")
        c = subprocess.run(
            [program / "main", program / "weights", path],
            capture_output=True,
            text=True,
            check=False,
        )
        return (done.code, done.out), (c.returncode, c.stdout)

    return run


@pytest.mark.parametrize(("text", "values"), NUMBERS)
def test_numbers(both, text, values):
    ours, theirs = both(text)
    assert ours == theirs
    assert ours[0] == 0
    printed = np.array([np.float32(word) for word in ours[1].split()])
    assert printed.tobytes() == np.array(values, np.float32).tobytes()


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_number(both, text):
    ours, theirs = both(text)
    assert ours[0] == theirs[0] == 4
    assert ours[1] == ""


@pytest.mark.parametrize(("text", "code"), [(b"\xef\xbb\xbf{1.0f}", 0), (b"0x1", 4), (b"nan", 4)])
def test_tensors(program, tmp_path, text, code):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "tensor_W_1_1.txt").write_bytes(text)
    (tmp_path / "x.txt").write_text("5")
    done = subprocess.run(
        [program / "main", weights, tmp_path / "x.txt"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "" if code else "5\n")
    if code:
        with pytest.raises(package.FormatError):
            package.load(weights, layout="A")
    else:
        assert package.load(weights, layout="A").arrays["dense_1.weight"] == 1
