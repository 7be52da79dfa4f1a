"""Shared fixtures. In CI (CI set in the environment) a missing tool is a failure, never a skip."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from presence import missing

from ifgo.engine import loading
from ifgo.errors import ToolError

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("peers") and importlib.util.find_spec("torch") is None:
        missing("torch", "pip install -c constraints.txt '.[peers]'")
    slow = item.get_closest_marker("slow")
    if slow and not os.environ.get("IFGO_SLOW"):
        pytest.skip("minutes long; set IFGO_SLOW=1 to run it")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of outside models, vectors and data; no part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` beside the repository: outside models and data are absent")
    return SHARED


@pytest.fixture(scope="session")
def native() -> ModuleType:
    """The compiled engine's module."""
    try:
        return loading.native()
    except ToolError as error:
        missing("the compiled engine", str(error))


@pytest.fixture(scope="session", params=["gcc", "clang"])
def compiler(request: pytest.FixtureRequest) -> str:
    """Each of the two compilers in turn."""
    found = shutil.which(request.param)
    if found is None:
        missing(request.param, f"apt install {request.param}")
    return found


@pytest.fixture(scope="session")
def cc() -> str:
    """The machine's own C compiler."""
    found = shutil.which("cc")
    if found is None:
        missing("a C compiler named cc", "apt install gcc")
    return found


@pytest.fixture(scope="session")
def cpp() -> str:
    """A C++ compiler."""
    found = shutil.which("g++")
    if found is None:
        missing("g++", "apt install g++")
    return found
