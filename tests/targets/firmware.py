"""Firmware projects of the tests: written to a folder, made, and what their programs print."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from ifgo.model import Model
from ifgo.targets import c99, cortex_m

STRICT = " ".join(c99.STRICT_FLAGS)


def write(folder: Path, model: Model, board: str, **options: Any) -> cortex_m.Project:
    project = cortex_m.emit(model, board, **options)
    for name, text in project.files.items():
        (folder / name).write_text(text, encoding="ascii", newline="\n")
    return project


def make(folder: Path, *arguments: str, status: int = 0) -> str:
    """Output of make in `folder`; it must end with `status`."""
    command = ["make", "--no-print-directory", "--silent", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def printed(text: str) -> Any:
    """The y lines of the program as float32 rows, from their bits."""
    lines = [line for line in text.splitlines() if line.startswith("y ")]
    rows = [[int(word, 16) for word in re.findall(r"0x([0-9a-f]{8})", line)] for line in lines]
    assert [int(line.split()[1]) for line in lines] == list(range(len(lines)))
    return np.array(rows, np.uint32).view(np.float32)
