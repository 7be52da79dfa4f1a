"""`ifgo demo`: the whole of it once, and what it does where something is missing or differs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ifgo as package
from ifgo import demo
from ifgo.cli import demo as verb

IFGO = Path(sys.executable).with_name("ifgo")

FILES = [
    "heartbeat.onnx",
    "weights",
    "beats.npy",
    "beat.txt",
    "c99/model.h",
    "c99/model.c",
    "c99/main.c",
    "c99/main",
    "index.html",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("a place")


@pytest.fixture(scope="module")
def whole(cc, place):
    """`ifgo demo` as a process of its own in an empty folder."""
    return subprocess.run(
        [IFGO, "demo"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": f"{IFGO.parent}:{os.environ['PATH']}"},
    )


def test_the_whole_story(whole, place):
    assert (whole.returncode, whole.stderr) == (0, "")
    beats = len(demo.beats().label)
    for text in (
        str(package.load(demo.model_path())),
        "  LSTM             accuracy ",
        "  linear baseline  accuracy ",
        f"against the exact reference: EXACT\n    logits and final states of all {beats} beats, ",
        "main, text in and text out, against the exact reference: EXACT\n"
        f"    logits of all {beats} beats, bit by bit\n",
        "exact reference against float64 truth: within local bound, nearest to it ",
        "ONNX Runtime against float64 truth: within local bound, nearest to it ",
    ):
        assert text in whole.stdout
    assert "✗" not in whole.stdout
    written = whole.stdout.split("Written to ifgo-demo:\n\n")[1].split("\n\n")[0]
    assert written.split() == [f"ifgo-demo/{name}" for name in FILES]
    folder = place / "ifgo-demo"
    assert all((folder / name).exists() for name in FILES)
    assert (folder / "heartbeat.onnx").read_bytes() == demo.model_path().read_bytes()
    assert np.load(folder / "beats.npy").tobytes() == demo.beats().x.tobytes()
    assert (folder / "weights" / "model.toml").is_file()


def test_the_page_shows_the_proof(whole, place):
    page = (place / "ifgo-demo" / "index.html").read_text()
    assert "One LSTM, the same numbers wherever it ran" in page
    assert "main, text in and text out, against the exact reference" in page
    for name in ("lstm0", "lstm1", "lstm2"):
        assert f"Layer {name}" in page


def test_the_commands_work_when_pasted(whole, place):
    lines = whole.stdout.split("Try next:\n\n")[1].splitlines()
    commands = [line.strip() for line in lines]
    called = [shlex.split(command)[:2] for command in commands]
    assert called == [
        ["ifgo", "inspect"],
        ["ifgo", "run"],
        ["ifgo-demo/c99/main", "ifgo-demo/beat.txt"],
        ["ifgo", "deploy"],
        ["ifgo", "verify"],
    ]
    outputs = []
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PATH": f"{IFGO.parent}:{os.environ['PATH']}"},
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[1] == outputs[2]
    assert (place / "ifgo-demo" / "c99-files" / "weights").is_dir()
    assert outputs[4].endswith(" of 128 steps\n")


@pytest.fixture
def few(monkeypatch):
    """16 beats of each class, half of them of the test minutes, in the place of all."""
    beats = demo.beats()
    chosen = np.sort(
        np.concatenate(
            [
                np.flatnonzero((beats.label == label) & (beats.in_test == in_test))[:8]
                for label in (0, 1)
                for in_test in (False, True)
            ]
        )
    )
    parts = (beats.x, beats.label, beats.peak, beats.in_test)
    small = demo.Beats(*(part[chosen] for part in parts))
    monkeypatch.setattr(demo, "beats", lambda: small)
    return small


def test_json(ifgo, cc, few, tmp_path):
    folder = tmp_path / "out"
    done = ifgo("demo", "--out", folder, "--json")
    assert done.code == 0
    assert "Try next:" in done.err
    tree = done.json
    assert set(tree) == {"ok", "folder", "scores", "proof", "files", "skipped", "next"}
    assert tree["ok"] is True
    assert tree["folder"] == str(folder)
    assert tree["files"] == [str(folder / name) for name in FILES]
    assert set(tree["scores"]) == {"LSTM", "linear baseline"}
    assert tree["scores"]["LSTM"]["beats"] == 16
    assert [row["holds"] for row in tree["proof"]] == [True] * 4
    assert tree["skipped"] == []


def test_it_can_be_run_again(ifgo, cc, few, tmp_path):
    for _ in range(2):
        assert ifgo("demo", "--out", tmp_path).code == 0


def test_without_plotly(ifgo, cc, few, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    done = ifgo("demo", "--out", tmp_path)
    assert done.code == 3
    assert done.error == (
        "the page is drawn with plotly, which is not installed. Install it: pip install plotly"
    )
    assert done.out.count("EXACT") == 2
    assert "Try next:" in done.out
    assert not (tmp_path / "index.html").exists()
    done = ifgo("demo", "--out", tmp_path, "--json")
    assert done.code == 3
    assert done.json["ok"] is False
    assert done.json["skipped"] == [done.json["error"]["message"]]
    assert done.json["error"]["exit_code"] == 3
    assert len(done.json["proof"]) == 4


def test_without_a_compiler(ifgo, few, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    done = ifgo("demo", "--out", tmp_path)
    assert done.code == 3
    assert done.error.startswith("no C compiler found (no-such-compiler from $CC). Install one: ")
    assert "EXACT" not in done.out
    assert (tmp_path / "index.html").is_file()
    assert "c99/main " not in done.out.split("Try next:")[1]
    assert "run " in done.out.split("Try next:")[1]


def test_without_onnxruntime(ifgo, cc, few, tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "find_spec", lambda _: None)
    done = ifgo("demo", "--out", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.count("ONNX Runtime") == 1
    assert (
        "  - ONNX Runtime is not installed; to compare with it: pip install onnxruntime\n"
        in done.out
    )


def test_a_difference_is_exit_code_1(ifgo, cc, few, tmp_path, monkeypatch):
    """One printed logit off by one unit in its last place."""
    run_main, last = verb.run_main, verb._text(few.x[-1])

    def off(program, text):
        printed = float(run_main(program, text))
        return str(np.nextafter(np.float32(printed), np.float32(9))) if text == last else printed

    monkeypatch.setattr(verb, "run_main", off)
    done = ifgo("demo", "--out", tmp_path)
    assert done.code == 1
    assert "✗ main, text in and text out, against the exact reference: 1 values differ" in done.out
    assert "1 of 4 comparisons failed" in (tmp_path / "index.html").read_text()


def test_how_to_call_ifgo(monkeypatch, tmp_path):
    """By name where the shell finds this installation, else by what was called."""
    monkeypatch.setattr(sys, "argv", [str(IFGO), "demo"])
    monkeypatch.setenv("PATH", str(IFGO.parent))
    assert verb._program() == "ifgo"
    other = tmp_path / "ifgo"
    shutil.copy(IFGO, other)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert verb._program() == shlex.quote(str(IFGO))
    monkeypatch.setattr(sys, "argv", ["/somewhere/ifgo/__main__.py", "demo"])
    assert verb._program() == f"{shlex.quote(sys.executable)} -m ifgo"


def test_commands_are_quoted(tmp_path):
    commands = verb.next_commands(Path("my demo; rm"), compiled=True)
    assert commands[2] == "'my demo; rm/c99/main' 'my demo; rm/beat.txt'"
    assert len(verb.next_commands(Path("x"), compiled=False)) == len(commands) - 1


def test_nothing_is_asked_of_the_network(cc, tmp_path):
    """Every socket of the process refuses, and the story stays the same."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*_, **__):\n"
        "    raise RuntimeError('the network was asked')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "ifgo", "demo", "--out", tmp_path / "out", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
