"""The user's CMSIS-DSP: where it is, and what the compiler is told about it.

Only its two float functions that model.c calls are built, by cmsis_dsp.c. They need nothing of
CMSIS-Core; __GNUC_PYTHON__ is the library's own name for a build without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ifgo.errors import ToolError

VARIABLE: Final = "CMSIS_DSP"
FOLDERS: Final = ("Include", "PrivateInclude", "Source")
DEFINE: Final = "-D__GNUC_PYTHON__"
HINT: Final = f"Give the folder that holds Include and Source: {VARIABLE}=/path/to/CMSIS-DSP"


def find() -> Path:
    """The folder $CMSIS_DSP names. Raises ToolError where it names none, or another."""
    place = os.environ.get(VARIABLE, "")
    if not place:
        raise ToolError(f"CMSIS-DSP is not found, {VARIABLE} is not set", hint=HINT)
    folder = Path(place).resolve()
    for file in ("Include/dsp/matrix_functions.h", "Source/MatrixFunctions/arm_mat_vec_mult_f32.c"):
        if not (folder / file).is_file():
            raise ToolError(f"no CMSIS-DSP, {file} is missing", where=place, hint=HINT)
    return folder


def flags(library: str | None) -> list[str]:
    """What a build with `library` adds for the compiler: nothing without one. Raises as find."""
    if library is None:
        return []
    folder = find()
    return [DEFINE, *(word for name in FOLDERS for word in ("-isystem", str(folder / name)))]
