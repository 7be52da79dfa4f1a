"""The repository's own machinery: tools/bootstrap.sh, the Makefile, and facts stated twice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ifgo

ROOT = Path(__file__).parents[1]

INSTALL_PYTHON = """\
  Debian, Ubuntu   sudo apt-get install python3 python3-venv
  Fedora           sudo dnf install python3 python3-pip
  macOS            brew install python
or name one: make PYTHON=/path/to/python3
"""
INSTALL_VENV = """\
  Debian, Ubuntu   sudo apt-get install python{version}-venv
  Fedora           sudo dnf install python3 python3-pip
  macOS            brew install python
"""
INSTALL_COMPILER = """\
  Debian, Ubuntu   sudo apt-get install gcc libc6-dev
  Fedora           sudo dnf install gcc
  macOS            xcode-select --install
or name one: make CC=/path/to/cc
"""
NO_PYTHON = "No Python 3.11 or newer that runs is on PATH"
NO_COMPILER = "No C compiler that finds <stdio.h> is on PATH"

# Stands for an interpreter: answers what bootstrap.sh asks, and `-m venv` makes a copy of it.
FAKE_PYTHON = """\
#!/bin/sh
case "$*" in
    *"import ensurepip"*) exit {ensurepip} ;;
    *"import pip"*) exit 0 ;;
    "-m venv"*) rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip"*) echo "$*" >>pip.log; exit "${{PIP_EXIT:-0}}" ;;
    *) echo "{version} x86_64 /opt/python{version}"; exit {too_old} ;;
esac
"""


@dataclass
class Machine:
    """A folder with bootstrap.sh and pyproject.toml, on a machine whose PATH is only `bin`."""

    bin: Path
    repository: Path

    def tool(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, name: str, version: str, *, ensurepip: bool = True) -> Path:
        too_old = tuple(map(int, version.split("."))) < (3, 11)
        script = FAKE_PYTHON.format(
            version=version, ensurepip=int(not ensurepip), too_old=int(too_old)
        )
        return self.tool(name, script)

    def bootstrap(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit status and standard error of bootstrap.sh; standard output must stay empty."""
        done = subprocess.run(
            ["tools/bootstrap.sh", *arguments],
            cwd=self.repository,
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    def installed(self) -> list[str]:
        """The pip commands so far, as bootstrap.sh gave them."""
        log = self.repository / "pip.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a C compiler and without Python."""
    made = Machine(tmp_path / "bin", tmp_path.resolve() / "repository")
    made.bin.mkdir()
    (made.repository / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "bootstrap.sh", made.repository / "tools")
    shutil.copy(ROOT / "pyproject.toml", made.repository)
    for name in ("cat", "cksum", "cp", "mkdir", "rm"):
        found = shutil.which(name)
        assert found, name
        (made.bin / name).symlink_to(found)
    made.tool("cc", "#!/bin/sh\nexit 0\n")
    return made


def pip_line(extras: str, constraints: str = "") -> str:
    return f"-m pip install --quiet --disable-pip-version-check {constraints}--editable .[{extras}]"


class TestMissing:
    """What is missing is named, with what to install; nothing is made."""

    def test_python(self, machine: Machine) -> None:
        assert machine.bootstrap("demo") == (1, f"{NO_PYTHON}. Install one:\n{INSTALL_PYTHON}")
        assert not (machine.repository / ".venv").exists()

    def test_python_too_old(self, machine: Machine) -> None:
        machine.python("python3", "3.9")
        assert machine.bootstrap("demo") == (
            1,
            f"{NO_PYTHON} (python3 is 3.9). Install one:\n{INSTALL_PYTHON}",
        )

    def test_python_is_a_failing_shim(self, machine: Machine) -> None:
        machine.tool("python3.13", "#!/bin/sh\necho 'python3.13: not found' >&2\nexit 127\n")
        assert machine.bootstrap("demo") == (1, f"{NO_PYTHON}. Install one:\n{INSTALL_PYTHON}")

    def test_venv(self, machine: Machine) -> None:
        machine.python("python3", "3.11", ensurepip=False)
        assert machine.bootstrap("demo") == (
            1,
            "python3 (Python 3.11) has no venv and ensurepip modules. Install them:\n"
            + INSTALL_VENV.format(version="3.11"),
        )

    def test_venv_of_a_real_python(self, machine: Machine, tmp_path: Path) -> None:
        """A real interpreter understands the questions that bootstrap.sh asks."""
        (tmp_path / "ensurepip.py").write_text("raise ImportError('hidden')\n")
        command = f"PYTHONPATH='{tmp_path}' exec '{sys.executable}' \"$@\""
        machine.tool("python3", f"#!/bin/sh\n{command}\n")
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        assert machine.bootstrap("demo") == (
            1,
            f"python3 (Python {version}) has no venv and ensurepip modules. Install them:\n"
            + INSTALL_VENV.format(version=version),
        )

    def test_named_python(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        assert machine.bootstrap("demo", PYTHON="/nowhere/python3") == (
            1,
            "PYTHON=/nowhere/python3 is no Python 3.11 or newer that runs. "
            "Unset it or name another.\n",
        )

    def test_named_python_too_old(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.python("old", "3.8")
        assert machine.bootstrap("demo", PYTHON="old") == (
            1,
            "PYTHON=old is no Python 3.11 or newer that runs (old is 3.8). "
            "Unset it or name another.\n",
        )

    def test_compiler(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        (machine.bin / "cc").unlink()
        assert machine.bootstrap("demo") == (
            1,
            f"{NO_COMPILER}. Install one:\n{INSTALL_COMPILER}",
        )
        assert not (machine.repository / ".venv").exists()

    def test_headers(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.tool("cc", "#!/bin/sh\nexit 1\n")
        assert machine.bootstrap("demo") == (
            1,
            f"{NO_COMPILER}. Install one:\n{INSTALL_COMPILER}",
        )

    def test_named_compiler(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        assert machine.bootstrap("demo", CC="nocc") == (
            1,
            f"{NO_COMPILER} (CC=nocc). Install one:\n{INSTALL_COMPILER}",
        )

    def test_everything(self, machine: Machine) -> None:
        (machine.bin / "cc").unlink()
        assert machine.bootstrap("demo") == (
            1,
            f"{NO_COMPILER}. Install one:\n{INSTALL_COMPILER}"
            f"{NO_PYTHON}. Install one:\n{INSTALL_PYTHON}",
        )

    def test_package_index(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        assert machine.bootstrap("demo", PIP_EXIT="1") == (
            1,
            "Making .venv with python3.\n"
            "Installing ifgo[demo] into .venv.\n"
            "The installation failed: pip's message is above. It needs a package index.\n",
        )
        assert machine.bootstrap("demo") == (0, "Installing ifgo[demo] into .venv.\n")

    def test_extra(self, machine: Machine) -> None:
        usage = "usage: tools/bootstrap.sh [-c CONSTRAINTS] EXTRA...\n"
        assert machine.bootstrap() == (2, usage)
        assert machine.bootstrap("-c") == (2, usage)


class TestEnvironment:
    """What fits is kept; what does not is made anew."""

    def test_newest_suitable_python_is_taken(self, machine: Machine) -> None:
        machine.tool("python3.14", "#!/bin/sh\nexit 127\n")
        machine.python("python3.13", "3.13", ensurepip=False)
        machine.python("python3.12", "3.12")
        machine.python("python3.11", "3.11")
        assert machine.bootstrap("demo") == (
            0,
            "Making .venv with python3.12.\nInstalling ifgo[demo] into .venv.\n",
        )
        assert machine.installed() == [pip_line("demo")]

    def test_second_run_does_nothing(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.bootstrap("demo")
        machine.python("python3.13", "3.13")
        assert machine.bootstrap("demo") == (0, "")
        assert machine.installed() == [pip_line("demo")]

    def test_each_extra_is_installed_once(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.bootstrap("demo")
        assert machine.bootstrap("demo", "test") == (0, "Installing ifgo[test] into .venv.\n")
        assert machine.bootstrap("test", "demo") == (0, "")

    def test_changed_pyproject(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.bootstrap("demo")
        with (machine.repository / "pyproject.toml").open("a") as stream:
            stream.write("# one more line\n")
        assert machine.bootstrap("demo") == (0, "Installing ifgo[demo] into .venv.\n")
        assert machine.bootstrap("demo") == (0, "")

    def test_constraints(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.bootstrap("test")
        machine.bootstrap("-c", "pins.txt", "test", "peers")
        assert machine.installed() == [
            pip_line("test"),
            pip_line("test,peers", "-c pins.txt "),
        ]
        assert machine.bootstrap("test", "peers") == (0, "")

    def test_another_python_is_named(self, machine: Machine) -> None:
        machine.python("python3.12", "3.12")
        machine.python("python3.13", "3.13")
        machine.bootstrap("demo", PYTHON="python3.12")
        assert machine.bootstrap("demo", PYTHON="python3.12") == (0, "")
        assert machine.bootstrap("demo", PYTHON="python3.13") == (
            0,
            "Making .venv anew: it was not made by PYTHON=python3.13.\n"
            "Installing ifgo[demo] into .venv.\n",
        )

    def test_python_is_gone(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.bootstrap("demo")
        (machine.repository / ".venv" / "bin" / "python").unlink()
        assert machine.bootstrap("demo") == (
            0,
            "Making .venv anew: it does not run, or is older than Python 3.11.\n"
            "Installing ifgo[demo] into .venv.\n",
        )

    def test_python_is_too_old(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.bootstrap("demo")
        old = machine.python("python3.10", "3.10")
        shutil.copy(old, machine.repository / ".venv" / "bin" / "python")
        assert machine.bootstrap("demo") == (
            0,
            "Making .venv anew: it does not run, or is older than Python 3.11.\n"
            "Installing ifgo[demo] into .venv.\n",
        )

    def test_python_was_upgraded(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.bootstrap("demo")
        upgraded = machine.python("python3", "3.13")
        shutil.copy(upgraded, machine.repository / ".venv" / "bin" / "python")
        assert machine.bootstrap("demo") == (
            0,
            "Making .venv anew: it was made by another Python or in another folder "
            f"(3.12 x86_64 /opt/python3.12 {machine.repository}).\n"
            "Installing ifgo[demo] into .venv.\n",
        )

    def test_repository_was_moved(self, machine: Machine) -> None:
        machine.python("python3", "3.12")
        machine.bootstrap("demo")
        moved = Machine(machine.bin, machine.repository.rename(machine.bin / "a new place"))
        assert moved.bootstrap("demo") == (
            0,
            "Making .venv anew: it was made by another Python or in another folder "
            f"(3.12 x86_64 /opt/python3.12 {machine.repository}).\n"
            "Installing ifgo[demo] into .venv.\n",
        )


class TestMakefile:
    """The targets that README and CONTRIBUTING promise."""

    def make(self, *arguments: str) -> str:
        make = shutil.which("make")
        assert make, "GNU make is not on PATH. Install it: apt-get install make"
        return subprocess.run(
            [make, "--no-print-directory", *arguments],
            cwd=ROOT,
            # A `make test` around this test passes its own flags on by these two.
            env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def test_help_lists_the_targets(self) -> None:
        rooms = {"bench": "benchmarks", "docs": "docs"}
        expected = ["help", "demo", "native", "test", "fuzz", "lint", "clean"]
        expected += [target for target, folder in rooms.items() if (ROOT / folder).is_dir()]
        listed = [line.split()[1] for line in self.make().splitlines()]
        assert sorted(listed) == sorted(expected)
        for target in listed:
            assert self.make("--dry-run", target)

    def test_the_two_commands(self) -> None:
        assert self.make("--dry-run", "demo").splitlines() == [
            "tools/bootstrap.sh demo",
            ".venv/bin/ifgo demo",
        ]
        assert self.make("--dry-run", "test", "ARGS=-k onnx").splitlines() == [
            "tools/bootstrap.sh test",
            "PYTHON=.venv/bin/python tools/build_native.sh",
            ".venv/bin/python -m pytest -n auto -k onnx",
        ]


class TestFactsStatedTwice:
    """A fact that stands in two files stands there alike."""

    def test_scripts_can_be_run(self) -> None:
        for name in (".ci/run", "tools/bootstrap.sh", "tools/build_native.sh"):
            assert os.access(ROOT / name, os.X_OK), name

    def test_constraints_pin_what_the_gate_installs(self) -> None:
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        pins = [Requirement(line) for line in lines if not line.startswith("#")]
        versions = {pin.name.lower(): str(pin.specifier).removeprefix("==") for pin in pins}
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        asked = [*project["dependencies"], *extras["demo"], *extras["test"], *extras["peers"]]
        for requirement in map(Requirement, asked):
            version = versions.get(requirement.name.lower())
            assert version, f"{requirement.name} has no pin"
            assert requirement.specifier.contains(version), f"{requirement} excludes its pin"

    def test_version(self) -> None:
        citation = (ROOT / "CITATION.cff").read_text()
        assert f"\nversion: {ifgo.__version__}\n" in citation
        newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
        assert newest
        assert newest[1] == ifgo.__version__


def test_no_two_modules_of_the_tests_share_a_name() -> None:
    """pytest puts each folder on the path: of two of one name, the first imported is everyone's."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert {name for name in names if names.count(name) > 1} <= {"conftest.py"}
