"""Writing a target's project to a folder: whole, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ifgo import formats
from ifgo.errors import UsageError
from ifgo.files import atomic_folder
from ifgo.model import Model

TARGETS: Final = ("c99", "cortex_m")


@dataclass(frozen=True)
class Deployed:
    """What was written: folder, file names relative to it, and the facts of the target."""

    folder: Path
    files: tuple[str, ...]
    facts: Any


def deploy(
    model: Model | str | Path,
    out: str | Path,
    *,
    target: str = "c99",
    main: bool = False,
    name: str = "model",
    weights: str = "embedded",
    max_steps: int | None = None,
    board: str | None = None,
) -> Deployed:
    """Write `model` (or the model in that file) as source for `target` into folder `out`.

    main: also a program that runs it on a text file. name: prefix of every symbol. weights:
    "embedded" in the source, or "files": raw tensors read at run time, written to out/weights.
    max_steps: longest sequence, for models that need whole sequences. board: for target
    "cortex_m", which writes a whole firmware project. Raises UsageError or
    UnsupportedError before anything is written.
    """
    from ifgo.targets import c99

    if target not in TARGETS:
        raise UsageError(f"unknown target {target!r}", expected="one of " + ", ".join(TARGETS))
    if weights not in ("embedded", "files"):
        raise UsageError(f"weights is {weights!r}", expected="embedded or files")
    loaded = model if isinstance(model, Model) else formats.load(model)
    if target == "cortex_m":
        emitted, files = _firmware(loaded, board, name, weights, main, max_steps)
    elif board is not None:
        raise UsageError(f"board {board!r} means nothing to target c99", expected="no board")
    else:
        emitted = c99.emit(loaded, name=name, weights=weights, main=main, max_steps=max_steps)
        files = emitted.files
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError("is a file", where=str(folder), expected="a folder, or a new name")

    def fill(place: Path) -> None:
        for file, text in files.items():
            (place / file).write_text(text, encoding="ascii", newline="\n")

    if weights == "files":
        formats.save(loaded, folder / "weights", "raw", layout="A", encoding="bin")
    atomic_folder(folder, fill)
    written = [*files]
    if weights == "files":
        written += sorted(f"weights/{entry.name}" for entry in (folder / "weights").iterdir())
    return Deployed(folder, tuple(written), emitted.facts)


def _firmware(
    model: Model,
    board: str | None,
    name: str,
    weights: str,
    main: bool,
    max_steps: int | None,
) -> tuple[Any, dict[str, str]]:
    from ifgo.targets import cortex_m

    if board is None:
        raise UsageError(
            "target cortex_m needs a board", expected="one of " + ", ".join(cortex_m.BOARDS)
        )
    if weights != "embedded":
        raise UsageError("target cortex_m keeps its weights in flash", expected="weights embedded")
    if main:
        raise UsageError("target cortex_m brings its own main.c", expected="no main")
    project = cortex_m.emit(model, board, name=name, max_steps=max_steps)
    return project.source, project.files
