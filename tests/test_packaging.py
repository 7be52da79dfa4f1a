"""What pip makes of the source: with the engine, and without it where nothing compiles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from presence import missing

ROOT = Path(__file__).parents[1]

COMPILERS = ("CC", "CXX", "CMAKE_ARGS", "SKBUILD_CMAKE_ARGS")
NO_COMPILER = {"CC": "/nowhere/cc", "CXX": "/nowhere/c++"}


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """What a command says that must succeed, without this process's own ifgo."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", *COMPILERS)}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{command}\n{said}"
    return said


def pip_wheel(source: Path, to: Path, *options: str, **environment: str) -> Path:
    """The wheel that pip builds of a folder or an sdist."""
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", *options)
    run(*pip, "--wheel-dir", to, source, folder=to, **environment)
    (wheel,) = to.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The files of the repository that git has, as somebody else gets them."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing("git, with a clone", "apt install git")
    folder = tmp_path_factory.mktemp("source")
    for name in run("git", "ls-files", "-z", "-co", "--exclude-standard", folder=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def doctor(python: Path | str, folder: Path, **environment: str) -> dict[str, str]:
    """The line of `ifgo doctor` about the engine."""
    done = subprocess.run(
        [python, "-m", "ifgo", "doctor", "--json"],
        cwd=folder,
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "engine"]
    return line


def unpacked(wheel: Path, to: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(to)
    return to


WITHOUT = {
    "name": "engine",
    "state": "missing",
    "detail": "the compiled engine is not installed",
    "fix": "It needs a C and a C++ compiler (apt install g++; xcode-select --install). "
    "Install ifgo anew, from its source: pip install --force-reinstall --no-deps .",
}


def test_a_wheel_with_the_engine(source, tmp_path):
    wheel = pip_wheel(source, tmp_path, "--no-build-isolation")
    assert not wheel.stem.endswith("-any")
    package = unpacked(wheel, tmp_path / "package")
    assert len(list((package / "ifgo" / "engine").glob("_native.*.so"))) == 1
    line = doctor(sys.executable, tmp_path, PYTHONPATH=str(package))
    assert (line["state"], line["fix"]) == ("ok", "")
    assert str(package) in run(
        sys.executable,
        "-c",
        "from ifgo.engine.loading import native; print(native().__file__)",
        folder=tmp_path,
        PYTHONPATH=str(package),
    )


def test_a_wheel_where_nothing_compiles(source, tmp_path):
    wheel = pip_wheel(source, tmp_path, "--no-build-isolation", **NO_COMPILER)
    assert wheel.stem.endswith("-py3-none-any")
    package = unpacked(wheel, tmp_path / "package")
    assert doctor(sys.executable, tmp_path, PYTHONPATH=str(package)) == WITHOUT


def test_pip_says_that_the_engine_is_left_out(source, tmp_path):
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-v")
    said = run(*command, "--wheel-dir", tmp_path, source, folder=tmp_path, **NO_COMPILER)
    assert (
        "Built without the compiled engine (the reason is above): ifgo doctor says what to do"
        in said
    )


def test_an_sdist_holds_what_the_build_needs(source, tmp_path):
    code = "import sys; from scikit_build_core.build import build_sdist as b; b(sys.argv[1])"
    run(sys.executable, "-c", code, tmp_path, folder=source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = ["CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md"]
    needed += [str(p.relative_to(source)) for p in (source / "native").rglob("*") if p.is_file()]
    needed += [str(p.relative_to(source)) for p in (source / "src").rglob("*") if p.is_file()]
    assert set(needed) <= held
    assert not [name for name in held if name.endswith((".so", ".pyd"))]


def test_the_build_requirements_are_those_of_the_tests():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["test"]
    assert set(project["build-system"]["requires"]) <= set(extra)
