"""`ifgo convert`: the report, what is refused, float64, layouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ifgo as package
from ifgo import formats
from ifgo.cli.new import random_model
from ifgo.errors import UsageError
from ifgo.model import Dense, FeatureInput, LSTMCell, Model, Recurrent


def bits(model):
    return {name: array.tobytes() for name, array in model.arrays.items()}


@pytest.mark.parametrize("linked", [False, True])
def test_onto_its_own_source(ifgo, model, tmp_path, linked):
    path, target = tmp_path / "m.ifgo", tmp_path / ("link.onnx" if linked else "m.ifgo")
    package.save(model, path)
    before = path.read_bytes()
    if linked:
        target.symlink_to(path)
    done = ifgo("convert", path, target)
    assert (done.code, done.error) == (
        2,
        f"{target}: is the model that is read, and would be overwritten, expected another name. "
        "Write it elsewhere first, then move it",
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("ending", ["ifgo", "onnx", "safetensors"])
def test_the_ending_names_the_format(ifgo, model, model_file, tmp_path, ending):
    path = tmp_path / f"copy.{ending}"
    done = ifgo("convert", model_file, path)
    assert (done.code, done.err) == (0, f"{path}: every bit kept\n")
    words = [line.split()[0] for line in done.out.splitlines() if line.startswith("  ")]
    assert {"exact", "and"} <= set(words) <= {"exact", "and", "unsaid"}
    quiet = ifgo("convert", model_file, path, "--quiet")
    assert (quiet.code, quiet.out) == (0, "")
    assert bits(package.load(path)) == bits(model)


def test_a_folder_needs_a_format(ifgo, model, model_file, tmp_path):
    folder = tmp_path / "weights"
    done = ifgo("convert", model_file, folder)
    assert (done.code, done.out) == (2, "")
    endings = [ending for name in formats.FORMATS for ending in formats.get(name).EXTENSIONS]
    assert done.error == (
        f"the ending of 'weights' names no format, expected one of {', '.join(endings)}. "
        "Or name the format with --to FORMAT (format= in Python)"
    )
    assert not folder.exists()
    done = ifgo("convert", model_file, folder, "--to", "raw", "--encoding", "txt")
    assert (done.code, done.err) == (0, f"{folder}: every bit kept\n")
    assert (folder / "tensor_W_1_5.txt").is_file()
    assert bits(package.load(folder)) == bits(model)


def test_report_of_a_lossy_conversion(ifgo, model_file, tmp_path):
    """Layout B has one bias, so two are added up: folded, and not refused."""
    folder = tmp_path / "weights"
    done = ifgo("convert", model_file, folder, "--to", "raw", "--layout", "B")
    assert done.code == 0
    lines = done.out.splitlines()
    assert "layer lstm0 (lstm)" in lines
    folded = [line for line in lines if line.startswith("  folded  ")]
    names = [line.split()[1] for line in folded]
    assert names == ["forward.bias_ih:", "forward.bias_hh:"] * 2
    assert all("bias_ih + bias_hh in one float32, off by up to" in line for line in folded)
    quiet = ifgo("convert", model_file, folder, "--to", "raw", "--layout", "B", "-q").out
    shown = [line for line in quiet.splitlines() if line.startswith("  ")]
    assert shown == folded
    assert done.err == f"{folder}: 2 folded, 0 lost, as reported\n"
    again = ifgo("convert", model_file, folder, "--to", "raw", "--layout", "B", "--json").json
    assert again["source"] == str(model_file)
    assert again["destination"] == str(folder)
    assert again["exact"] is False
    assert len(again["kept"]) == 3
    assert len(again["folded"]) == 2
    assert again["lost"] == []
    rows = again["attributes"]
    assert [row["name"] for row in rows if row["fate"] == "folded"] == [
        "forward.bias_ih",
        "forward.bias_hh",
    ] * 2
    assert {"part": "layer", "of": "dense", "name": "weight", "fate": "kept", "words": ""} in rows


def test_json_of_an_exact_conversion(ifgo, model_file, tmp_path):
    done = ifgo("convert", model_file, tmp_path / "copy.ifgo", "--json")
    tree = done.json
    rows = tree.pop("attributes")
    assert {row["fate"] for row in rows} == {"kept", "unsaid"}
    assert [row["name"] for row in rows if row["fate"] == "unsaid"] == ["merge", "merge"]
    assert tree == {
        "source": str(model_file),
        "destination": str(tmp_path / "copy.ifgo"),
        "exact": True,
        "notes": [],
        "kept": ["lstm0 (lstm)", "lstm1 (lstm)", "dense (dense)"],
        "folded": [],
        "lost": [],
    }


class TestLoss:
    """What the format cannot hold is refused with exit code 3, or given up and reported."""

    @pytest.fixture
    def stateful(self, tmp_path):
        layers = random_model([2], 2, sequence=True).layers
        path = tmp_path / "stateful.ifgo"
        package.save(Model((FeatureInput(2),), (replace(layers[0], stateful=True),)), path)
        return path

    def test_refused(self, ifgo, stateful, tmp_path):
        path = tmp_path / "old.onnx"
        path.write_bytes(b"old")
        done = ifgo("convert", stateful, path)
        assert (done.code, done.out) == (3, "")
        assert "layer lstm0: stateful (give the states as inputs instead)" in done.error
        assert "Permit it with --allow-lossy stateful, or write an .ifgo file" in done.error
        assert path.read_bytes() == b"old"

    def test_allowed(self, ifgo, stateful, tmp_path):
        path = tmp_path / "new.onnx"
        done = ifgo("convert", stateful, path, "--allow-lossy", "stateful")
        assert done.code == 0
        assert "  lost    stateful: stateful (give the states as inputs instead)\n" in done.out
        assert done.err == f"{path}: 0 folded, 1 lost, as reported\n"

    def test_each_is_named(self, ifgo, tmp_path):
        """One of two is not enough; both may stand in one option or in two."""
        first = random_model([2], 2, sequence=True).layers[0]
        cell = replace(first.forward, forget_bias=1.0)
        path, target = tmp_path / "two.ifgo", tmp_path / "two.onnx"
        layer = replace(first, forward=cell, stateful=True)
        package.save(Model((FeatureInput(2),), (layer,)), path)
        done = ifgo("convert", path, target, "--allow-lossy", "stateful")
        assert (done.code, target.exists()) == (3, False)
        assert "layer lstm0: forget_bias 1" in done.error
        assert "stateful (give" not in done.error
        assert "Permit it with --allow-lossy stateful,forget_bias, or write" in done.error
        assert ifgo("convert", path, target, "--allow-lossy", "stateful,forget_bias").code == 0
        twice = ("--allow-lossy", "stateful", "--allow-lossy", "forget_bias")
        assert ifgo("convert", path, target, *twice).code == 0

    def test_an_unknown_name(self, ifgo, stateful, tmp_path):
        done = ifgo("convert", stateful, tmp_path / "m.onnx", "--allow-lossy", "everything")
        assert (done.code, done.error) == (
            2,
            "allow_lossy names 'everything', expected one of " + ", ".join(formats.LOSSES),
        )


class TestFloat64:
    """Rounded only where the target has no float64, or where that is asked for."""

    @pytest.fixture
    def wide(self, tmp_path):
        random = np.random.default_rng(5)
        cell = LSTMCell(random.standard_normal((8, 2)), np.ones((8, 2)))
        path = tmp_path / "wide.ifgo"
        package.save(Model((FeatureInput(2),), (Recurrent("r", cell),)), path)
        return path

    def test_kept(self, ifgo, wide, tmp_path):
        copy = tmp_path / "copy.ifgo"
        assert ifgo("convert", wide, copy).code == 0
        assert package.load(copy).arrays["r.forward.weight_ih"].dtype == np.float64

    def test_what_run_asks_for_works(self, ifgo, wide, x, tmp_path):
        done = ifgo("run", wide, "--input", x, "--output", "-")
        assert done.code == 3
        assert "16 of 16 float64 weights are no float32 values" in done.error
        assert "ifgo convert SRC DST --to-dtype float32 --allow-lossy dtype" in done.error
        single = tmp_path / "single.ifgo"
        asked = ("convert", wide, single, "--to-dtype", "float32")
        done = ifgo(*asked)
        assert (done.code, done.error) == (
            3,
            "float32 cannot hold 16 of 32 weights as they are. Permit it with --allow-lossy dtype, "
            "or leave out --to-dtype",
        )
        done = ifgo(*asked, "--allow-lossy", "dtype", "--quiet")
        assert done.code == 0
        assert done.out.splitlines() == [
            "layer r (lstm)",
            "  lost    forward.weight_ih: float64 as float32, 16 of 16 values rounded",
            "  folded  forward.weight_hh: float64 as float32, same values",
        ]
        assert ifgo("run", single, "--input", x, "--output", "-").code == 0
        for name, array in package.load(single).arrays.items():
            want = package.load(wide).arrays[name].astype(np.float32)
            assert array.dtype == np.float32
            assert array.tobytes() == want.tobytes()

    @pytest.mark.parametrize("name", ["m.ifgo", "m.onnx", "m.npz", "m.safetensors"])
    def test_held_where_the_target_holds_it(self, wide, tmp_path, name):
        """What may be lost is not lost for that: every bit stays where the target has float64."""
        path = tmp_path / name
        report = formats.save(package.load(wide), path, allow_lossy=True)
        assert (report.exact, report.lost) == (True, ())
        back = package.load(path)
        assert list(bits(back).values()) == list(bits(package.load(wide)).values())

    def test_values_of_float32(self, model, tmp_path):
        wide = model.astype(np.float64)
        report = formats.save(wide, tmp_path / "m.ifgo", dtype="float32")
        assert (report.exact, report.lost) == (False, ())
        assert bits(package.load(tmp_path / "m.ifgo")) == bits(model)

    def test_beyond_float32(self, tmp_path):
        cell = LSTMCell(np.full((4, 1), 1e39), np.ones((4, 1)))
        wide = Model((FeatureInput(1),), (Recurrent("r", cell),))
        with pytest.raises(UsageError) as caught:
            formats.save(wide, tmp_path / "m.ifgo", dtype="float32", allow_lossy=True)
        assert str(caught.value) == (
            "layer r: weight_ih holds values beyond the range of float32, expected a dtype that "
            "holds every value"
        )


def test_layout_is_of_the_source_where_that_is_raw(ifgo, tmp_path):
    """B read as B, then A to B and back by --to-layout."""
    model = Model(
        (FeatureInput(2),),
        (Dense("d", np.arange(6, dtype=np.float32).reshape(3, 2), np.ones(3, np.float32)),),
    )
    first, second = tmp_path / "first", tmp_path / "second"
    package.save(model, first, "raw", layout="B")
    (first / "model.toml").unlink()
    convert = ("convert", first, second, "--to", "raw", "--stack", "stacked", "--layout", "B")
    assert ifgo(*convert, "--to-layout", "B").code == 0
    assert (second / "tensor_W_1_3.bin").read_bytes() == (first / "tensor_W_1_3.bin").read_bytes()
    assert ifgo(*convert).code == 0
    assert np.fromfile(second / "tensor_W_1_3.bin", "<f4").tolist() == [0, 1, 2, 3, 4, 5]


def test_options_that_mean_nothing(ifgo, model_file, tmp_path):
    for option, name in (("--layout", "layout"), ("--to-layout", "layout")):
        done = ifgo("convert", model_file, tmp_path / "m.onnx", option, "A")
        assert (done.code, done.error) == (
            2,
            f"option '{name}' means nothing to writing format 'onnx', expected no option",
        )
    done = ifgo("convert", model_file, tmp_path / "m.onnx", "--encoding", "txt")
    assert (done.code, done.error) == (
        2,
        "option 'encoding' means nothing to writing format 'onnx', expected no option",
    )


def test_json_has_what_reading_chose(ifgo, tmp_path):
    """The notes of a reader, here a raw folder that does not say how its LSTMs are joined."""
    model = Model((FeatureInput(2),), random_model([2, 2], 2, sequence=True).layers[:2])
    package.save(model, tmp_path / "raw", "raw")
    (tmp_path / "raw" / "model.toml").unlink()
    done = ifgo("convert", tmp_path / "raw", tmp_path / "m.ifgo", "--stack", "stacked", "--json")
    assert done.code == 0
    notes = done.json["notes"]
    assert notes == list(package.load(tmp_path / "m.ifgo").provenance.notes)
    assert notes
    assert done.err.count("note: ") == len(notes)
