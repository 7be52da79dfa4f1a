"""`ifgo inspect`: the table, the gates, and names that would like to reach the terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import ifgo as package
from ifgo.cli.inspect import storage
from ifgo.cli.new import random_model
from ifgo.describe import describe
from ifgo.model import (
    FeatureInput,
    LSTMCell,
    Model,
    Output,
    Provenance,
    Recurrent,
)

HOSTILE = "a\nPASS\x1b[31m\u202e"
SHOWN = r"a\nPASS\x1b[31m\u202e"


def test_table_and_origin(ifgo, model, model_file):
    done = ifgo("inspect", model_file)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{model}\nfrom ifgo\nnote: random weights, seed 7\n"


def test_version_of_the_source(ifgo, model, tmp_path):
    path = tmp_path / "m.ifgo"
    origin = Provenance("keras", "3.9\x1b", "m.h5", ("bias\ndoubled",))
    package.save(replace(model, provenance=origin), path)
    done = ifgo("inspect", path)
    assert done.out == f"{model}\nfrom keras (3.9\\x1b)\nnote: bias\\ndoubled\n"


def test_json(ifgo, model, model_file):
    done = ifgo("inspect", model_file, "--json")
    assert done.err == ""
    assert done.json == {
        "model": str(model_file),
        **describe(model),
        "version": "",
        "gate_storage": "ifgo: i f g o, rows, biases two",
    }


def test_gates_as_json(ifgo, model, model_file):
    rows = ifgo("inspect", model_file, "--gates", "--json").json["gates"]
    assert len(rows) == 2 * 4 * 4
    cell = model.recurrent[1].cell
    want = cell.weight_hh[3:6].astype(np.float64)  # H is 3, f the second block
    (row,) = [r for r in rows if (r["layer"], r["gate"], r["array"]) == ("lstm1", "f", "weight_hh")]
    assert row["l2"] == pytest.approx(np.linalg.norm(want), rel=1e-12)
    assert {key: value for key, value in row.items() if key != "l2"} == {
        "layer": "lstm1",
        "direction": "forward",
        "gate": "f",
        "array": "weight_hh",
        "shape": [3, 3],
        "min": want.min(),
        "max": want.max(),
        "mean": want.mean(),
    }
    assert [(r["gate"], r["array"]) for r in rows[:5]] == [
        ("i", "weight_ih"),
        ("i", "weight_hh"),
        ("i", "bias_ih"),
        ("i", "bias_hh"),
        ("f", "weight_ih"),
    ]


def test_gates_as_a_table(ifgo, tmp_path):
    weights = np.arange(8, dtype=np.float32).reshape(8, 1)
    cell = LSTMCell(weights, np.zeros((8, 2), np.float32))
    path = tmp_path / "m.ifgo"
    package.save(Model((FeatureInput(1),), (Recurrent("both", cell, cell),)), path)
    done = ifgo("inspect", path, "--gates")
    head, table = done.out.split("\n\ngates ")[1].split("\n\n")
    assert head == "in order i f g o; the source stores ifgo: i f g o, rows, biases two"
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["layer", "gate", "array", "shape", "min", "max", "mean", "L2"]
    assert lines[2:6] == [
        ["both", "forward", "i", "input", "weight_ih", "2", "x", "1", "0", "1", "0.5", "1"],
        ["weight_hh", "2", "x", "2", "0", "0", "0", "0"],
        ["f", "forget", "weight_ih", "2", "x", "1", "2", "3", "2.5", "3.606"],
        ["weight_hh", "2", "x", "2", "0", "0", "0", "0"],
    ]
    assert lines[10][:4] == ["both", "backward", "i", "input"]


def test_how_sources_store_gates(ifgo, model, tmp_path):
    package.save(model, tmp_path / "m.onnx")
    package.save(model, tmp_path / "raw", "raw", layout="B", allow_lossy=True)
    stored = {
        "m.onnx": "onnx: i o f g, rows, biases stacked",
        "raw": "raw_b: i f g o, columns, biases one",
    }
    for name, text in stored.items():
        assert ifgo("inspect", tmp_path / name, "--json").json["gate_storage"] == text
        text = f"\ngates in order i f g o; the source stores {text}\n"
        assert text in ifgo("inspect", tmp_path / name, "--gates").out
    assert storage(Provenance("a framework of tomorrow")) is None


@pytest.fixture
def hostile(tmp_path):
    """A file whose every name is hostile."""
    layers = random_model([4], 2, 1, sequence=True).layers
    renamed = tuple(replace(layer, name=HOSTILE + layer.name) for layer in layers)
    path = tmp_path / "hostile.ifgo"
    origin = Provenance(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,))
    entry, output = FeatureInput(2, HOSTILE), Output("sequence", HOSTILE)
    package.save(Model((entry,), renamed, (output,), origin), path)
    return path


def safe(*texts: str) -> None:
    for text in texts:
        assert all(char.isprintable() or char == "\n" for char in text)
        assert not any(line.startswith("PASS\\x1b") for line in text.splitlines())


def test_hostile_names(ifgo, hostile, x, tmp_path):
    shown = ifgo("inspect", hostile, "--gates")
    assert shown.code == 0
    assert f"{SHOWN}lstm0" in "".join(shown.out.split())
    assert f"from {SHOWN} ({SHOWN})\nnote: {SHOWN}\n" in shown.out
    report = ifgo("convert", hostile, tmp_path / "copy.ifgo")
    assert f"layer {SHOWN}lstm0 (lstm)\n" in report.out
    verdict = ifgo("verify", hostile, "--against", "c99")
    assert "".join(SHOWN.split()) in "".join(verdict.out.split())
    for done in (shown, report, verdict):
        assert done.code == 0
        safe(done.out, done.err)


def test_hostile_names_in_json_are_themselves(ifgo, hostile):
    done = ifgo("inspect", hostile, "--json")
    assert done.out.isascii()
    assert "\x1b" not in done.out
    assert [layer["name"] for layer in done.json["layers"]] == [
        f"{HOSTILE}lstm0",
        f"{HOSTILE}dense",
    ]


def test_hostile_names_in_errors(ifgo, hostile, x, tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, h0=np.zeros(7))
    run = ("run", hostile, "--input", x, "--output", "-", "--state-in", path)
    done = ifgo(*run)
    assert done.code == 2
    assert f"(layer {SHOWN}lstm0) has shape (7,)" in done.error
    safe(done.out, done.err)


def test_lstms_of_a_file(ifgo, model_file):
    done = ifgo("inspect", model_file, "--lstms")
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["name", "input", "hidden", "directions", "input", "from", "options"]
    assert lines[2] == ["lstm0", "2", "5", "forward", "input", "'x'"]
    assert lines[3] == ["lstm1", "5", "3", "forward", "layer", "'lstm0'", "(lstm)"]
    assert done.out.endswith("\n\nbeside them 1: 1 dense\n")
    tree = ifgo("inspect", model_file, "--lstms", "--json").json
    assert tree["model"] == str(model_file)
    assert [layer["name"] for layer in tree["lstms"]] == ["lstm0", "lstm1"]
    assert (tree["format"], tree["others"]) == ("native", {"dense": 1})


def test_lstms_of_a_graph_that_is_no_chain(ifgo, model, tmp_path):
    path = tmp_path / "m.onnx"
    package.save(model, path)
    made = onnx.load(path)
    made.graph.node.append(onnx.helper.make_node("Abs", ["y"], ["abs"], name="\x1babs"))
    made.graph.output.append(onnx.helper.make_tensor_value_info("abs", 1, ["T", "B", 1]))
    path.write_bytes(made.SerializeToString())
    done = ifgo("inspect", path, "--lstms")
    assert "\x1b" not in done.out
    assert "1 Abs" in done.out.splitlines()[-1]
    refused = ifgo("inspect", path)
    assert refused.code == 3
    assert refused.error.endswith(
        "Take the LSTM layers alone with --select NAME (select= in Python), see ifgo inspect "
        "--lstms"
    )
    done = ifgo("inspect", path, "--select", "lstm1")
    assert (done.code, done.err) == (0, "")
    assert "note: selected 'lstm1'" in done.out
    assert "note: left out " in done.out


def test_lstms_that_are_refused_say_why(ifgo, tmp_path):
    path = tmp_path / "m.onnx"
    named = onnx.helper.make_tensor_value_info
    entries = [named("x", 1, ["T", "B", 2]), named("w", 1, [1, 12, 2]), named("r", 1, [1, 12, 3])]
    node = onnx.helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="cell", hidden_size=3)
    graph = onnx.helper.make_graph([node], "g", entries, [named("y", 1, ["T", 1, "B", 3])])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    done = ifgo("inspect", path, "--lstms")
    assert done.code == 0
    words = " ".join(done.out.split())
    assert words.startswith("name input hidden directions input from options ")
    assert "cell ? ? ? input 'x' cannot be selected:" in words
    assert words.endswith("nothing beside them")


def test_a_list_excludes_what_needs_a_model(ifgo, model_file):
    for option in (["--gates"], ["--select", "lstm0"]):
        done = ifgo("inspect", model_file, "--lstms", *option)
        assert done.code == 2
        assert done.error == (
            f"--lstms and {option[0]} exclude each other. List the layers first, then select some "
            "of them"
        )


def test_select_reaches_every_verb(ifgo, model, model_file, tmp_path):
    x, y = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(x, np.ones((4, 2), np.float32))
    said = "note: random weights, seed 7\nnote: left out 2 layers: 1 dense, 1 lstm\n"
    calls = {
        "run": ("run", model_file, "--input", x, "--output", y),
        "convert": ("convert", model_file, tmp_path / "part.ifgo"),
        "deploy": ("deploy", model_file, "--out", tmp_path / "c"),
        "verify": ("verify", model_file, "--against", ""),
    }
    for verb, arguments in calls.items():
        done = ifgo(*arguments, "--select", "lstm0")
        assert said in done.err, (verb, done.err)
    assert np.load(y).shape == (1, 4, 5)
    assert [layer.name for layer in package.load(tmp_path / "part.ifgo").layers] == ["lstm0"]


def test_sheets_are_listed_with_a_line_each(ifgo):
    """No model is needed, and each name is one that --sheet takes."""
    done = ifgo("inspect", "--sheets")
    assert (done.code, done.err) == (0, "")
    lines = [line.split("  ", 1) for line in done.out.splitlines()]
    folder = Path(package.__file__).parent / "formats" / "sheets"
    assert [name for name, _ in lines] == sorted(path.stem for path in folder.glob("*.toml"))
    assert all(title.strip() for _, title in lines)


def test_a_pickle_of_unknown_classes_needs_a_sheet(ifgo, tmp_path):
    path = tmp_path / "net.pkl"
    path.write_bytes(b"\x80\x02}q\x00.")
    done = ifgo("inspect", path)
    assert done.code == 4
    assert done.error.endswith(
        "It is a pickle of arrays: say what they mean with --sheet FILE or NAME (sheet= in "
        "Python); ifgo inspect --sheets lists the sheets of known sources"
    )
