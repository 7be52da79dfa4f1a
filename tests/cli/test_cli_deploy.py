"""`ifgo deploy`: the files, the facts, and the numbers that a compiler makes of them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import asdict

import numpy as np
import pytest
from presence import missing

import ifgo as package
from ifgo.cli.compiling import compile_line, compile_main, run_main
from ifgo.cli.new import random_model
from ifgo.errors import ToolError, UsageError
from ifgo.model import FeatureInput, Flatten, Model
from ifgo.targets import c99
from ifgo.targets.cortex_m import toolchain


def test_files_and_facts(ifgo, model, model_file, tmp_path):
    folder = tmp_path / "out"
    done = ifgo("deploy", model_file, "--target", "c99", "--out", folder)
    assert (done.code, done.out) == (0, f"{folder}/model.h\n{folder}/model.c\n")
    facts = package.deploy(model, tmp_path / "again").facts
    assert done.err == (
        f"{facts.weight_bytes} bytes of weights, {facts.state_bytes} of state, "
        f"{facts.scratch_bytes} of scratch, {facts.macs_per_step} MACs per step\n"
    )
    assert sorted(path.name for path in folder.iterdir()) == ["model.c", "model.h"]
    for name in ("model.c", "model.h"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_json(ifgo, model_file, tmp_path):
    folder = tmp_path / "out"
    done = ifgo("deploy", model_file, "--out", folder, "--main", "--name", "ecg", "--json")
    facts = package.deploy(package.load(model_file), tmp_path / "again").facts
    assert done.json == {
        "target": "c99",
        "folder": str(folder),
        "files": ["model.h", "model.c", "main.c"],
        **asdict(facts),
        "state_order": {"h0": 5, "c0": 5, "h1": 3, "c1": 3},
    }
    assert "int ecg_step(" in (folder / "model.h").read_text()


def test_the_printed_command_compiles(ifgo, cc, tmp_path):
    path, folder = tmp_path / "m.ifgo", tmp_path / "a folder"
    model = random_model([4], 1, 2)
    package.save(model, path)
    done = ifgo("deploy", path, "--out", folder, "--main")
    command = done.err.splitlines()[-1].removeprefix("Compile it: ")
    assert command == (f"cc -std=c99 -O2 -o '{folder}/main' '{folder}/main.c' '{folder}/model.c'")
    subprocess.run(shlex.split(command), check=True)
    text = tmp_path / "x.txt"
    text.write_text("0.5\n-1\n2\n")
    printed = subprocess.run(
        [folder / "main", text], capture_output=True, text=True, check=True
    ).stdout
    assert ifgo("run", path, "--input", text, "--output", "-", "--on", "exact").out == printed
    assert len(printed.split()) == 2


def test_weights_as_files(ifgo, model_file, tmp_path):
    folder = tmp_path / "out"
    done = ifgo("deploy", model_file, "--out", folder, "--weights", "files", "--json")
    assert done.code == 0
    weights = [name for name in done.json["files"] if name.startswith("weights/")]
    assert "weights/tensor_W_1_5.bin" in weights
    assert all((folder / name).is_file() for name in done.json["files"])


@pytest.fixture
def whole(tmp_path):
    """A model that needs whole sequences."""
    path = tmp_path / "whole.ifgo"
    package.save(random_model([4], 1, bidirectional=True), path)
    return path


def test_max_steps(ifgo, whole, tmp_path):
    folder = tmp_path / "out"
    done = ifgo("deploy", whole, "--out", folder, "--max-steps", 50)
    assert done.code == 0
    assert "_MAX_STEPS 50u" in (folder / "model.h").read_text()


def test_max_steps_of_a_model_that_streams(ifgo, model_file, tmp_path):
    done = ifgo("deploy", model_file, "--out", tmp_path / "out", "--max-steps", 50)
    assert (done.code, done.error) == (
        2,
        "max_steps means nothing to a model that takes one step per call, "
        "expected no max_steps (--max-steps)",
    )
    assert not (tmp_path / "out").exists()


def test_max_steps_of_a_model_of_one_length(ifgo, tmp_path):
    path = tmp_path / "flat.ifgo"
    layers = (*random_model([2], 1, sequence=True).layers, Flatten("flat", 4))
    package.save(Model((FeatureInput(1),), layers), path)
    done = ifgo("deploy", path, "--out", tmp_path / "out", "--max-steps", 50)
    assert (done.code, done.error) == (
        2,
        "max_steps is 50, and the model takes 4 steps alone, "
        "expected max_steps (--max-steps) 4, or none",
    )
    assert ifgo("deploy", path, "--out", tmp_path / "out", "--max-steps", 4).code == 0


def test_all_or_nothing(ifgo, model_file, tmp_path):
    """Seen before the weights are written."""
    folder = tmp_path / "out"
    (folder / "model.c").mkdir(parents=True)
    done = ifgo("deploy", model_file, "--out", folder, "--weights", "files")
    assert (done.code, done.error) == (
        2,
        f"{folder / 'model.c'}: is a folder, expected a file or a new name. Write to another name",
    )
    assert [entry.name for entry in folder.iterdir()] == ["model.c"]


def test_weights_of_another_model_stay_alone(ifgo, model_file, tmp_path):
    folder = tmp_path / "out"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "tensor_W_9_9.bin").write_bytes(b"")
    done = ifgo("deploy", model_file, "--out", folder, "--weights", "files")
    assert (done.code, done.error) == (
        2,
        f"{folder / 'weights'}: already holds tensor_W_9_9.bin, which is no part of this model, "
        "expected a folder without other tensors. Remove them, or write to another folder",
    )
    assert [entry.name for entry in folder.iterdir()] == ["weights"]


def test_onto_its_own_source(ifgo, model_file, tmp_path):
    weights = tmp_path / "out" / "weights"
    assert ifgo("convert", model_file, weights, "--to", "raw", "--encoding", "txt").code == 0
    before = {entry: entry.read_bytes() for entry in weights.iterdir()}
    message = (
        f"{weights}: is the model that is read, and would be overwritten, expected another name. "
        "Write it elsewhere first, then move it"
    )
    done = ifgo("deploy", weights, "--out", tmp_path / "out", "--weights", "files")
    assert (done.code, done.error) == (2, message)
    with pytest.raises(UsageError) as caught:
        package.deploy(weights, tmp_path / "out", weights="files")
    assert str(caught.value) == message
    assert {entry: entry.read_bytes() for entry in weights.iterdir()} == before
    assert ifgo("deploy", weights, "--out", tmp_path / "out").code == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_report(ifgo, model, model_file, tmp_path, as_json):
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(tool) is None:
            missing(tool, f"apt install {toolchain.PACKAGES}")
    folder = tmp_path / "out"
    options = ["--target", "cortex_m", "--board", "mps2-an386", "--report", "--out", folder]
    done = ifgo("deploy", model_file, *options, *(["--json"] if as_json else []))
    assert done.code == 0
    data = json.loads((folder / "report.json").read_text())
    assert (folder / "report.html").is_file()
    if as_json:
        assert done.json["report"] == data
        assert done.json["files"][-2:] == ["report.json", "report.html"]
    else:
        files, report = done.out.split("\n\n", 1)
        assert files.splitlines()[-1] == f"{folder}/report.html"
        assert f"{data['instructions']['per_step']:.1f} per step on average" in report
        assert "model_step" in report


def test_library_and_console(ifgo, model_file, tmp_path):
    target = ["--target", "cortex_m", "--board", "mps3-an547", "--out", tmp_path / "out"]
    done = ifgo("deploy", model_file, *target, "--library", "cmsis-dsp", "--console", "uart")
    assert done.code == 0
    assert f"{tmp_path}/out/cmsis_dsp.c" in done.out.splitlines()
    assert "arm_mat_vec_mult_f32" in (tmp_path / "out" / "model.c").read_text()
    assert "UART ?= 1\n" in (tmp_path / "out" / "Makefile").read_text()
    done = ifgo("deploy", model_file, *target, "--library", "mkl")
    assert (done.code, done.error) == (2, "unknown library 'mkl', expected one of cmsis-dsp")
    done = ifgo("deploy", model_file, *target, "--console", "lcd")
    assert (done.code, done.error) == (
        2,
        "unknown console 'lcd', expected one of semihosting, uart",
    )


def test_report_of_c99(ifgo, model_file, tmp_path):
    done = ifgo("deploy", model_file, "--out", tmp_path / "out", "--report")
    assert (done.code, done.error) == (
        2,
        "a report is measured on a board, and target c99 has none, expected target cortex_m",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "9lives"], "'9lives' cannot prefix C symbols"),
        (["--max-steps", "0"], "max_steps is 0, expected 1 to"),
        (["--weights", "disk"], "Invalid value for '--weights': 'disk' is not one of"),
        (
            ["--target", "cobol"],
            "Invalid value for '--target': 'cobol' is not one of 'c99', 'cortex_m'",
        ),
    ],
)
def test_wrong_calls(ifgo, model_file, tmp_path, options, message):
    folder = tmp_path / "out"
    done = ifgo("deploy", model_file, "--out", folder, *options)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith(message)
    assert not folder.exists()


def test_max_steps_is_missing(ifgo, whole, tmp_path):
    done = ifgo("deploy", whole, "--out", tmp_path / "out")
    assert done.code == 2
    assert "Give the longest one: --max-steps N" in done.error
    assert not (tmp_path / "out").exists()


def test_no_folder_to_write_to(ifgo, model_file):
    done = ifgo("deploy", model_file, "--out", model_file)
    assert (done.code, done.error) == (
        2,
        f"{model_file}: is a file, expected a folder, or a new name",
    )


class TestCompiling:
    """compile_main and run_main, which doctor and demo use."""

    @pytest.fixture
    def folder(self, model, tmp_path):
        package.deploy(model, tmp_path, main=True)
        return tmp_path

    def test_it_runs(self, cc, model, folder):
        program = compile_main(folder)
        assert program == folder / "main"
        want = model.run(np.ones((1, 2, 2)), on="exact")[0].reshape(-1)
        printed = [float(word) for word in run_main(program, "1 1 1 1").split()]
        assert np.array(printed, np.float32).tobytes() == want.tobytes()

    def test_a_compiler_that_refuses(self, cc, folder):
        (folder / "main").write_bytes(b"old")
        (folder / "model.c").write_text("#error no\n")
        with pytest.raises(ToolError) as caught:
            compile_main(folder)
        assert caught.value.what.endswith(" does not compile the emitted C")
        assert "#error no" in (caught.value.hint or "")
        assert (folder / "main").read_bytes() == b"old"

    def test_a_program_that_fails(self, cc, folder):
        program = compile_main(folder)
        with pytest.raises(ToolError) as caught:
            run_main(program, "1 two")
        assert str(caught.value) == (
            "main ends with status 4. main: value 2 of the input is no number"
        )

    def test_the_line_names_the_files(self, folder):
        assert compile_line(folder).split()[0] == "cc"
        assert compile_line(folder, "clang").split()[-1] == str(folder / "model.c")


@pytest.mark.parametrize("target", ["c99", "cortex_m"])
def test_variant(target, ifgo, model, model_file, tmp_path):
    board = [] if target == "c99" else ["--board", "stm32f405"]
    for variant in ("exact", "contracted"):
        folder = tmp_path / variant
        options = ["--target", target, *board, "--variant", variant]
        assert ifgo("deploy", model_file, *options, "--out", folder).code == 0
        source = c99.emit(model, variant=variant).files
        assert {name: (folder / name).read_text() for name in source} == source
    said = (tmp_path / "contracted" / "model.h").read_text()
    assert said.startswith("/* model.h: an LSTM network as self-contained C99, contracted float32.")
    assert "E_FUSED" not in said


def test_a_library_has_no_variant(ifgo, model_file, tmp_path):
    options = ["--target", "cortex_m", "--board", "stm32f405", "--library", "cmsis-dsp"]
    done = ifgo("deploy", model_file, *options, "--variant", "contracted", "--out", tmp_path / "o")
    said = "cmsis-dsp has a way of its own to fuse, expected variant exact"
    assert (done.code, done.error) == (2, said)
