"""The entry point: help, exit codes, errors as one line and as JSON, interrupts, closed pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

import ifgo as package
from ifgo.cli import main, terminal
from ifgo.formats import FORMATS

HEAVY = {"numpy", "rich", "onnx", "onnxruntime", "h5py", "safetensors", "jinja2", "torch"}


def process(*arguments: str, code: str | None = None, **environment: str):
    start = ["-m", "ifgo"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_lists_every_verb(ifgo):
    done = ifgo("--help")
    assert (done.code, done.err) == (0, "")
    listed = done.out.split("Verbs:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(main.VERBS)
    assert "Exit codes: 0 ok, 1 a check failed, 2 usage, 3 unsupported, 4 bad file." in done.out
    assert ifgo("-h").out == done.out


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_has_its_module_and_help(ifgo, verb):
    assert isinstance(import_module(f"ifgo.cli.{verb}").command, click.Command)
    done = ifgo(verb, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: ifgo {verb} [OPTIONS]")
    assert "--json" in done.out


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ifgo", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert {"click", "ifgo.cli.main"} <= imported
    roots = {name.split(".")[0] for name in imported}
    assert not roots & HEAVY
    assert not imported & {f"ifgo.cli.{verb}" for verb in main.VERBS}


def test_version(ifgo):
    assert ifgo("--version").out == f"ifgo {package.__version__}\n"


def test_without_arguments_it_helps_on_stderr(ifgo):
    done = ifgo()
    assert (done.code, done.out) == (2, "")
    assert done.err == ifgo("--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "No such command 'rnu'. See 'ifgo --help'"),
        (["--frobnicate"], "No such option '--frobnicate'. See 'ifgo --help'"),
        (["--versio"], "No such option '--versio'. Did you mean '--version'? See 'ifgo --help'"),
        (
            ["run", "m", "--outpu", "y"],
            "No such option '--outpu'. Did you mean one of: '--layout', '--output'? "
            "See 'ifgo run --help'",
        ),
        (["inspect"], "Missing argument 'MODEL'. See 'ifgo inspect --help'"),
        (["run", "m"], "Missing option '--input'. See 'ifgo run --help'"),
        (
            ["inspect", "m", "--from", "matlab"],
            f"Invalid value for '--from': 'matlab' is not one of {', '.join(map(repr, FORMATS))}. "
            "See 'ifgo inspect --help'",
        ),
    ],
)
def test_wrong_calls(ifgo, arguments, message):
    done = ifgo(*arguments)
    assert (done.code, done.out, done.error) == (2, "", message)


def test_exit_codes_of_errors(ifgo, tmp_path, model_file):
    """2 usage, 4 bad file; 3 is in test_cli_convert."""
    missing = tmp_path / "no.ifgo"
    done = ifgo("inspect", missing)
    assert (done.code, done.error) == (2, f"{missing}: no such file or folder. Check the path")

    damaged = tmp_path / "damaged.ifgo"
    damaged.write_bytes(model_file.read_bytes()[:-4])
    done = ifgo("inspect", damaged)
    assert (done.code, done.out) == (4, "")
    assert done.error.startswith(f"{damaged}: is no whole safetensors file")

    unknown = tmp_path / "notes.txt"
    unknown.write_text("no model")
    done = ifgo("inspect", unknown)
    assert (done.code, done.error) == (
        4,
        f"{unknown}: is in no format that ifgo knows, expected one of {', '.join(FORMATS)}. "
        "Name it with --from FORMAT (format= in Python) if its ending is unusual",
    )


def test_errors_as_json(ifgo, tmp_path):
    missing = tmp_path / "no.ifgo"
    done = ifgo("inspect", missing, "--json")
    assert done.code == 2
    assert done.error == f"{missing}: no such file or folder. Check the path"
    assert done.json == {
        "error": {
            "type": "UsageError",
            "message": done.error,
            "where": str(missing),
            "what": "no such file or folder",
            "expected": None,
            "hint": "Check the path",
            "exit_code": 2,
        }
    }


def test_wrong_calls_as_json(ifgo):
    done = ifgo("run", "--json")
    assert done.code == 2
    assert done.json["error"] == {
        "type": "UsageError",
        "message": "Missing argument 'MODEL'. See 'ifgo run --help'",
        "where": None,
        "what": "Missing argument 'MODEL'",
        "expected": None,
        "hint": "See 'ifgo run --help'",
        "exit_code": 2,
    }


@pytest.fixture
def bug(monkeypatch):
    """Reading a model fails in a way that nobody thought of."""

    def load(*_: object, **__: object) -> None:
        raise KeyError("gone\x1b[31m\nPASS")

    monkeypatch.setattr("ifgo.formats.load", load)


APOLOGY = (
    r"sorry, this is a bug in ifgo: KeyError: 'gone\x1b[31m\nPASS'. "
    "Run it again with IFGO_TRACEBACK=1 to see where, and report that"
)


def test_a_bug_is_one_line(ifgo, bug):
    done = ifgo("inspect", "m")
    assert (done.code, done.out, done.error) == (70, "", APOLOGY)


def test_a_bug_with_its_traceback(ifgo, bug, monkeypatch):
    monkeypatch.setenv("IFGO_TRACEBACK", "1")
    done = ifgo("inspect", "m", "--json")
    lines = done.err.splitlines()
    assert done.code == 70
    assert lines[0] == "Traceback (most recent call last):"
    assert any("in load" in line for line in lines)
    assert lines[-1] == f"ifgo: {APOLOGY}"
    assert "\x1b" not in done.err
    assert done.json["error"]["exit_code"] == 70


def test_ctrl_c(monkeypatch, capsys):
    def load(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ifgo.formats.load", load)
    monkeypatch.setattr(sys, "argv", ["ifgo", "inspect", "m"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [["--help"], ["inspect"]])
def test_closed_pipe(arguments, model_file):
    if arguments == ["inspect"]:
        arguments = ["inspect", str(model_file), "--gates"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "ifgo", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


FULL = (
    "ifgo: the system refuses (No space left on device). Check the permissions and the free space\n"
)
has_full = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="no /dev/full: only Linux has it"
)


@has_full
@pytest.mark.parametrize(
    ("arguments", "stream", "code", "said"),
    [
        (["--version"], "stdout", 2, FULL),
        (["--help"], "stdout", 2, FULL),
        ([], "stderr", 2, ""),
        (["rnu"], "stderr", 2, ""),
        (["inspect", "no-magic.onnx", "--from", "native"], "stderr", 4, ""),
        (
            ["inspect", "gone", "--json"],
            "stdout",
            2,
            "ifgo: gone: no such file or folder. Check the path\n" + FULL,
        ),
    ],
)
def test_a_full_disk_is_one_line_and_a_code(tmp_path, arguments, stream, code, said):
    (tmp_path / "no-magic.onnx").write_bytes(b"no model")
    with open("/dev/full", "w") as full:
        other = {"stdout": "stderr", "stderr": "stdout"}[stream]
        done = subprocess.run(
            [sys.executable, "-m", "ifgo", *arguments],
            **{stream: full, other: subprocess.PIPE},
            text=True,
            check=False,
            cwd=tmp_path,
        )
    assert (done.returncode, getattr(done, other)) == (code, said)


def test_help_without_a_verb_is_as_wide_as_with_h():
    assert process(COLUMNS="120").stderr == process("-h", COLUMNS="120").stdout


def test_too_little_memory(ifgo, monkeypatch):
    def load(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ifgo.formats.load", load)
    done = ifgo("inspect", "m")
    assert (done.code, done.error) == (
        2,
        "not enough memory. Take a smaller model, or less data at a time",
    )


@has_full
def test_nowhere_to_write(model_file):
    """A full disk is nobody's bug, and stdout may be closed from the start."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ifgo", "inspect", str(model_file)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == FULL
    command = f"'{sys.executable}' -m ifgo inspect '{model_file}' >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_system_refuses(ifgo, monkeypatch):
    def load(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/a/folder")

    monkeypatch.setattr("ifgo.formats.load", load)
    done = ifgo("inspect", "m")
    assert (done.code, done.error) == (
        2,
        "/a/folder: the system refuses (Permission denied). "
        "Check the permissions and the free space",
    )


def test_as_a_process(model_file, tmp_path):
    """`python -m ifgo` and the script `ifgo` are the same, exit code included."""
    script = Path(sys.executable).with_name("ifgo")
    for arguments in (["inspect", str(model_file)], ["inspect", str(tmp_path / "no.ifgo")]):
        module = process(*arguments)
        direct = subprocess.run([script, *arguments], capture_output=True, text=True, check=False)
        assert (module.returncode, module.stdout, module.stderr) == (
            direct.returncode,
            direct.stdout,
            direct.stderr,
        )
    assert module.returncode == 2
    assert (
        module.stderr == f"ifgo: {tmp_path / 'no.ifgo'}: no such file or folder. Check the path\n"
    )


def test_a_terminal_without_unicode(model_file):
    done = process("inspect", str(model_file), PYTHONIOENCODING="latin-1")
    assert done.returncode == 0
    assert "\\u2500" in done.stdout


def test_no_color(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.paint("ifgo:", "red") == "\x1b[31mifgo:\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "")
    assert terminal.paint("ifgo:", "red") == "\x1b[31mifgo:\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.paint("ifgo:", "red") == "ifgo:"


def test_json_without_numbers_that_json_lacks(capsys):
    terminal.emit({"a": float("nan"), "b": [float("inf"), 1.5], "c": ("é",)})
    assert capsys.readouterr().out == (
        '{\n  "a": null,\n  "b": [\n    null,\n    1.5\n  ],\n  "c": [\n    "\\u00e9"\n  ]\n}\n'
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name, ünïcode 字", "plain name, ünïcode 字"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x07\x9b", r"\x1b[2J\x07\x9b"),
        ("abc\u202egnp\u200b\u2028", r"abc\u202egnp\u200b\u2028"),
        ("\udc80", r"\udc80"),
    ],
)
def test_escape(text, shown):
    assert terminal.escape(text) == shown


def test_a_tool_may_speak_in_lines(capsys):
    terminal.complain(package.ToolError("cc fails", hint="a.c:1: error\n\x1b[31mb"))
    assert capsys.readouterr().err == "ifgo: cc fails. a.c:1: error\n  \\x1b[31mb\n"
    terminal.complain(package.UsageError("one\ntwo"))
    assert capsys.readouterr().err == "ifgo: one\\ntwo\n"
