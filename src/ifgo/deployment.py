"""Writing a target's project to a folder: whole, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ifgo import files, formats
from ifgo.errors import IfgoError, UnsupportedError, UsageError
from ifgo.formats import raw
from ifgo.model import Model
from ifgo.program import Program

TARGETS: Final = ("c99", "cortex_m")

VARIANTS: Final = ("exact", "contracted")


@dataclass(frozen=True)
class Deployed:
    """What was written: folder, file names relative to it, and the facts of the target.

    report: what the project costs on its board, where that was asked for.
    """

    folder: Path
    files: tuple[str, ...]
    facts: Any
    report: Any = None


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
    library: str | None = None,
    console: str | None = None,
    report: bool = False,
    variant: str = "exact",
) -> Deployed:
    """Write `model` (or the model in that file) as source for `target` into folder `out`.

    main: also a program that runs it on a text file. name: prefix of every symbol. weights:
    "embedded" in the source, or "files": raw tensors read at run time, written to out/weights.
    max_steps: longest sequence, for models that need whole sequences. board: for target
    "cortex_m", which writes a whole firmware project. For this target alone: library, "cmsis-dsp"
    to multiply matrices; console, "semihosting" (the default) or "uart"; report, to measure the
    project in the emulator too (`cortex_m.measure`), into report.json and report.html.
    variant: "exact", the reference's bits, or "contracted", products and sums that may be fused,
    within a bound.
    Raises UsageError, ToolError or UnsupportedError before anything is written.
    """
    from ifgo.targets import c99

    if target not in TARGETS:
        raise UsageError(f"unknown target {target!r}", expected="one of " + ", ".join(TARGETS))
    if weights not in ("embedded", "files"):
        raise UsageError(f"weights is {weights!r}", expected="embedded or files")
    computed = c99.check_variant(variant)
    if report and target != "cortex_m":
        raise UsageError(
            f"a report is measured on a board, and target {target} has none",
            expected="target cortex_m",
        )
    folder = files.as_path(out, "the folder to write to")
    if not isinstance(model, Model) and weights == "files":
        files.refuse_own_source(files.as_path(model, "the model"), folder / "weights")
    loaded = model if isinstance(model, Model) else formats.load(model)
    measured: Any = None
    if target == "cortex_m":
        if weights != "embedded":
            raise UsageError(
                "target cortex_m keeps its weights in flash", expected="weights embedded"
            )
        if main:
            raise UsageError("target cortex_m brings its own main.c", expected="no main")
        options: dict[str, Any] = {
            "name": name,
            "max_steps": max_steps,
            "library": library,
            "variant": computed,
        }
        project = _firmware(loaded, board, console or "semihosting", options)
        emitted, texts = project.source, project.files
        if report:
            from ifgo.targets import cortex_m

            measured = cortex_m.measure(loaded, project.board, **options)
            texts |= {"report.json": measured.to_json(), "report.html": measured.to_html()}
    else:
        for what, given in (("board", board), ("library", library), ("console", console)):
            if given is not None:
                raise UsageError(
                    f"{what} {given!r} means nothing to target c99", expected=f"no {what}"
                )
        emitted = c99.emit(
            loaded, name=name, weights=weights, main=main, max_steps=max_steps, variant=computed
        )
        texts = emitted.files
    _judge_steps(emitted.program, max_steps)
    if folder.exists() and not folder.is_dir():
        raise UsageError("is a file", where=str(folder), expected="a folder, or a new name")

    written = [*texts]

    def fill(place: Path) -> None:
        for file, text in texts.items():
            (place / file).write_text(text, encoding="ascii", newline="\n")
        if weights == "files":
            written.extend(_weights(loaded, place, folder))

    files.atomic_folder(folder, fill)
    return Deployed(folder, tuple(written), emitted.facts, measured)


def _judge_steps(program: Program, max_steps: int | None) -> None:
    """Raises UsageError where max_steps is given and the source would not depend on it."""
    if max_steps is not None and program.streamable:
        raise UsageError(
            "max_steps means nothing to a model that takes one step per call",
            expected="no max_steps (--max-steps)",
        )
    if max_steps is not None and program.required_steps not in (None, max_steps):
        raise UsageError(
            f"max_steps is {max_steps}, and the model takes {program.required_steps} steps alone",
            expected=f"max_steps (--max-steps) {program.required_steps}, or none",
        )


def _weights(model: Model, place: Path, folder: Path) -> list[str]:
    """Raw tensors in place/weights, which go to folder/weights; their names relative to it."""
    try:
        formats.save(model, place / "weights", "raw", layout="A", encoding="bin")
        names = sorted(entry.name for entry in (place / "weights").iterdir())
        raw.refuse_others(folder / "weights", names)
    except IfgoError as error:
        error.where = str(folder / "weights")
        if isinstance(error, UnsupportedError):
            error.hint = "Keep the weights in the source: --weights embedded"
        raise
    return [f"weights/{name}" for name in names]


def _firmware(model: Model, board: str | None, console: str, options: dict[str, Any]) -> Any:
    from ifgo.targets import cortex_m

    if board is None:
        raise UsageError(
            "target cortex_m needs a board", expected="one of " + ", ".join(cortex_m.BOARDS)
        )
    return cortex_m.emit(model, board, console=console, **options)
