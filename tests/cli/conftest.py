"""The command line called inside the test process, and small models in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ifgo as package
from ifgo.cli.main import call
from ifgo.cli.new import random_model
from ifgo.model import Model


@dataclass
class Result:
    """What one call left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an error."""
        assert self.err.startswith("ifgo: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix("ifgo: ").removesuffix("\n")


Ifgo = Callable[..., Result]


@pytest.fixture
def ifgo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ifgo:
    """Calls `ifgo` with arguments of any type."""
    monkeypatch.delenv("IFGO_TRACEBACK", raising=False)

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = call([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def model() -> Model:
    """Two LSTM layers, 2 features in, one value per step out."""
    return random_model([5, 3], 2, 1, seed=7, sequence=True)


@pytest.fixture(scope="session")
def model_file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.ifgo"
    package.save(model, path)
    return path


@pytest.fixture
def x(tmp_path: Path) -> Path:
    """x.npy: 3 sequences of 8 steps for `model`."""
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(1).standard_normal((3, 8, 2)).astype(np.float32))
    return path
