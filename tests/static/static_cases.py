"""What the tests of tests/static/ share: models that between them emit all there is, and tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from presence import missing

from ifgo.model import Dense, Model, Recurrent
from ifgo.targets import c99
from ifgo.targets.c99.emitter import Weights

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from conformance_cases import CASES, Draw, chain

PACKAGES = {
    "clang": "clang",
    "clang-tidy": "clang-tidy",
    "cppcheck": "cppcheck",
    "frama-c": "frama-c-base",
    "gcc": "gcc",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64-win32",
    "i686-w64-mingw32-gcc": "gcc-mingw-w64-i686-win32",
}
"""Program → its Debian package."""

STRICT = (
    *("-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wdouble-promotion", "-Wshadow"),
    *("-Wundef", "-Wvla", "-Wstrict-prototypes", "-Wmissing-prototypes", "-pedantic", "-Werror"),
)
"""What GCC and clang must both find nothing with."""


def require(program: str, version: str = "") -> None:
    """Skip where a program, or the version its answers are known for (a regular expression on
    what --version says), is missing on a developer's machine; fail in CI."""
    found = shutil.which(program)
    said = call(program, "--version", folder=Path.cwd()).stdout if found and version else ""
    if found is None or re.search(version, said) is None:
        missing(f"{program} {version}".rstrip(), f"apt install {PACKAGES[program]}, on Debian 12")


def two_layers() -> Model:
    """Two plain layers and a dense one."""
    d = Draw(21)
    return chain(
        3,
        Recurrent("a", d.cell(3, 5)),
        Recurrent("b", d.cell(5, 4)),
        Dense("y", d.array(2, 4), d.array(2)),
    )


def every_clip() -> Model:
    """Peephole, projection with bias, all three clips."""
    d = Draw(22)
    cell = d.cell(
        3,
        6,
        4,
        peephole=d.array(3, 6),
        bias_hr=d.array(4),
        clip_z=8.0,
        clip_cell=3.0,
        clip_projection=0.9,
    )
    return chain(3, Recurrent("a", cell), Dense("y", d.array(2, 4), d.array(2)))


def both_directions() -> Model:
    """Bidirectional: needs whole sequences."""
    d = Draw(23)
    return chain(
        2,
        Recurrent("a", d.cell(2, 3), d.cell(2, 3)),
        Dense("y", d.array(2, 6), d.array(2)),
    )


@dataclass(frozen=True)
class Emission:
    """A model and how it is emitted; max_steps is ignored where the model streams."""

    name: str
    model: Model
    weights: Weights = "embedded"
    max_steps: int = 20
    variant: c99.Variant = "exact"

    def write(self, folder: Path) -> c99.Emitted:
        """Emit model.h, model.c and main.c into `folder`."""
        steps = None if self.model.streamable else self.max_steps
        emitted = c99.emit(
            self.model,
            weights=self.weights,
            main=True,
            max_steps=steps,
            variant=self.variant,
        )
        for name, text in emitted.files.items():
            (folder / name).write_text(text)
        return emitted


def conformance(name: str) -> Model:
    """The conformance case of that name."""
    return next(case for case in CASES if case.name == name).make(Draw(24))


ALL = [
    *(Emission(case.name, case.make(Draw(24))) for case in CASES),
    Emission("stacked_from_files", conformance("stacked_16_16_16_dense"), "files"),
    Emission("softmax_from_files", conformance("dense_softmax"), "files"),
    Emission("contracted", conformance("layer_norm"), variant="contracted"),
]
"""Every conformance case, what takes its weights at run time, and the contracted variant."""

FEW = [
    emission
    for emission in ALL
    if emission.name
    in {
        "layer_norm",
        "embedding_mask_zero",
        "elu",
        "softplus",
        "clip_projection",
        "repeat_vector",
        "masking_bidirectional",
        "sequence_of_one_step",
        "softmax_from_files",
        "contracted",
    }
]
"""A selection that reaches every template and every helper that has a loop or a union."""


def call(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool in `folder` and hand back what it said, whatever its status.

    PWD too: Frama-C believes it, and breaks lines of its log where paths are long.
    """
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "PWD": str(folder)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
