"""Compiling an emitted main.c and running it, as its user would."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ifgo import files
from ifgo.errors import ToolError
from ifgo.targets.c99 import compile_c, find_compiler

FLAGS: Final = ("-std=c99", "-O2")

TIMEOUT_SECONDS: Final = 600


def compile_line(folder: Path, compiler: str = "cc") -> str:
    """The shell command that compiles the emitted program in `folder` to folder/main."""
    return shlex.join(_command([compiler], folder, folder / "main"))


def compile_main(folder: Path, *flags: str) -> Path:
    """Compile the emitted program in `folder` to folder/main, whole or not at all; returns it.

    Raises ToolError where there is no compiler, or it refuses.
    """
    program = folder / "main"
    with tempfile.TemporaryDirectory(prefix="ifgo-") as place:
        built = Path(place) / "main"
        command = _command(find_compiler(), folder, built, *flags)
        compile_c(command, built)
        mode = built.stat().st_mode
        files.atomic_write(program, built.read_bytes())
    program.chmod(mode)
    return program


def run_main(program: Path, text: str) -> str:
    """What `program` prints when it reads `text`. Raises ToolError where it fails."""
    done = subprocess.run(
        [program.resolve(), "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ToolError(
            f"{program.name} ends with status {done.returncode}", hint=done.stderr.strip()
        )
    return done.stdout


def _command(compiler: Sequence[str], folder: Path, program: Path, *flags: str) -> list[str]:
    sources = [str(folder / name) for name in ("main.c", "model.c")]
    return [*compiler, *FLAGS, *flags, "-o", str(program), *sources]
