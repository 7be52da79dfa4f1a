"""`ifgo demo`: the bundled model from ONNX to C, with proof that its numbers stayed the same."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from ifgo import backends, demo, deployment, files, formats, states
from ifgo.cli import data, terminal
from ifgo.cli.compiling import compile_main, run_main
from ifgo.cli.terminal import escape, json_option
from ifgo.demo import Beats, Proof, View
from ifgo.errors import ToolError
from ifgo.lower import lower
from ifgo.model import Model
from ifgo.reference.interpret import execute
from ifgo.targets.c99 import find_compiler
from ifgo.verification import Finding, verify


@dataclass
class Story:
    """What happened so far: the rows of the proof, the files, and what could not be done."""

    proof: list[Proof] = field(default_factory=list[Proof])
    files: list[Path] = field(default_factory=list[Path])
    skipped: list[ToolError] = field(default_factory=list[ToolError])

    @property
    def ok(self) -> bool:
        """Whether every comparison holds."""
        return all(row.holds for row in self.proof)


@click.command("demo")
@click.option("--out", metavar="DIR", default="ifgo-demo", show_default=True)
@json_option
def command(out: str, as_json: bool) -> int:
    """Deploy a bundled LSTM as C, run it on real heartbeats, and prove that nothing changed.

    Works without a network and writes into DIR. Exit code 1 where a comparison fails, 3 where a
    compiler or plotly is missing.
    """
    tell: Callable[[str], None] = terminal.tell if as_json else terminal.say
    folder = Path(out)
    story = Story()
    beats = demo.beats()
    model = formats.load(demo.model_path())
    tell("The model, as its framework exported it to ONNX:\n")
    tell(f"{model}\n")

    y, final = backends.run(model, beats.x, on="exact")
    logits = y[:, 0]
    test, label = beats.in_test, beats.label[beats.in_test]
    scores = {
        "LSTM": demo.score(logits[test], label),
        "linear baseline": demo.score(demo.linear_baseline(beats)[test], label),
    }
    tell("Heartbeats of the last two minutes, which it was not trained on:\n")
    for name, result in scores.items():
        tell(f"  {name:<16} {result}")
    tell("\n  The classes are easy to tell apart: this is about the numbers, not the diagnosis.")

    _write(story, folder, model, beats, logits)
    tell("\nThe same numbers wherever it ran:\n")
    _prove_c(story, folder, model, beats, y, final)
    _prove_bounds(story, model, beats)
    for row in story.proof:
        mark = terminal.paint("✓" if row.holds else "✗", "green" if row.holds else "red")
        tell(f"  {mark} {escape(row.what)}: {escape(row.verdict)}\n    {escape(row.compared)}")
    if find_spec("onnxruntime") is None:
        tell("  - ONNX Runtime is not installed; to compare with it: pip install onnxruntime")

    _draw(story, folder, model, beats, logits)
    tell(f"\nWritten to {escape(folder)}:\n")
    for path in story.files:
        tell(f"  {escape(path)}")
    commands = next_commands(folder, compiled=folder / "c99" / "main" in story.files)
    tell("\nTry next:\n")
    for line in commands:
        tell(f"  {escape(line)}")
    for error in story.skipped:
        terminal.complain(error)
    if as_json:
        tree = {
            "ok": story.ok and not story.skipped,
            "folder": str(folder),
            "scores": {name: asdict(result) for name, result in scores.items()},
            "proof": [asdict(row) for row in story.proof],
            "files": [str(path) for path in story.files],
            "skipped": [str(error) for error in story.skipped],
            "next": commands,
        }
        if story.skipped:
            tree["error"] = terminal.error_facts(story.skipped[0])
        terminal.emit(tree)
    if not story.ok:
        return 1
    return ToolError.exit_code if story.skipped else 0


def _write(
    story: Story, folder: Path, model: Model, beats: Beats, logits: NDArray[np.float32]
) -> None:
    """The model as ONNX and as raw weights, its C source, and data to try them on."""
    formats.save(model, folder / "weights", "raw")
    files.atomic_write(folder / "heartbeat.onnx", demo.model_path().read_bytes())
    done = deployment.deploy(model, folder / "c99", main=True)
    data.write_array(folder / "beats.npy", beats.x)
    _, beat = demo.typical_beats(beats, logits)
    files.atomic_write(folder / "beat.txt", _text(beats.x[beat]).encode())
    story.files += [folder / "heartbeat.onnx", folder / "weights", folder / "beats.npy"]
    story.files += [folder / "beat.txt", *(folder / "c99" / name for name in done.files)]


def _prove_c(
    story: Story,
    folder: Path,
    model: Model,
    beats: Beats,
    y: NDArray[np.float32],
    final: states.State,
) -> None:
    """EXACT: the c99 backend, and the program in DIR as its user compiles and calls it."""
    try:
        compiler = Path(find_compiler()[0]).name
        have, end = backends.run(model, beats.x, on="c99")
        program = compile_main(folder / "c99")
        printed = [float(run_main(program, _text(beat))) for beat in beats.x]
    except ToolError as error:
        story.skipped.append(error)
        return
    story.files.append(program)
    pairs = {"y": (y, have)} | {key: (array, end[key]) for key, array in final.items()}
    values = sum(array.size for array, _ in pairs.values())
    differing = sum(_differing(*pair) for pair in pairs.values())
    story.proof.append(
        Proof(
            f"emitted C99 ({compiler} -O2) against the exact reference",
            f"logits and final states of all {len(y)} beats, {values} float32 values, bit by bit",
            f"{differing} values differ" if differing else "EXACT",
            not differing,
        )
    )
    differing = _differing(y[:, 0], np.array(printed, np.float32))
    story.proof.append(
        Proof(
            f"{program.name}, text in and text out, against the exact reference",
            f"logits of all {len(y)} beats, bit by bit",
            f"{differing} values differ" if differing else "EXACT",
            not differing,
        )
    )


def _differing(a: NDArray[np.float32], b: NDArray[np.float32]) -> int:
    return int((a.view(np.uint32) != np.ascontiguousarray(b).view(np.uint32)).sum())


def _prove_bounds(story: Story, model: Model, beats: Beats) -> None:
    """Local bounds: the exact reference, and ONNX Runtime where it is installed."""
    against = ["onnxruntime"] if find_spec("onnxruntime") else []
    found = verify(model, beats.x[beats.in_test], against=against)
    what = {
        "exact": ("exact reference", "every gate of every step"),
        "onnxruntime": ("ONNX Runtime", "every step of each LSTM, then the whole graph,"),
    }
    for runtime in ("exact", *against):
        findings = [f for f in found.findings if f.runtime == runtime]
        worst = max((f for f in findings if f.compared), key=_share)
        holds = all(f.holds for f in findings)
        story.proof.append(
            Proof(
                f"{what[runtime][0]} against float64 truth",
                f"{what[runtime][1]} over {found.batch} beats of the last two minutes",
                f"{worst.verdict}, nearest to it {worst.difference:.2g} of {worst.bound:.2g}"
                + ("" if holds else f" (layer {worst.layer})"),
                holds,
            )
        )


def _share(finding: Finding) -> float:
    """How much of its bound a finding uses."""
    return finding.difference / finding.bound if finding.bound else 0.0


def _draw(
    story: Story, folder: Path, model: Model, beats: Beats, logits: NDArray[np.float32]
) -> None:
    """The page, with the gates of the two typical beats."""
    chosen = demo.typical_beats(beats, logits)
    x = beats.x[list(chosen)]
    start = states.complete(model, len(chosen), None, np.float32)
    traces = execute(lower(model), x, start, trace=True).traces
    views = [
        View(
            beat,
            {
                layer.name: {part: traces[layer.name]["forward"][part][k] for part in demo.TRACED}
                for layer in model.recurrent
            },
        )
        for k, beat in enumerate(chosen)
    ]
    try:
        html = demo.page(beats, logits, story.proof, views)
    except ToolError as error:
        story.skipped.append(error)
        return
    files.atomic_write(folder / "index.html", html.encode())
    story.files.append(folder / "index.html")


def _text(beat: NDArray[np.float32]) -> str:
    """One beat (T, 1) as text that reads back to the same float32 numbers."""
    return "".join(f"{value:.9g}\n" for value in beat[:, 0].tolist())


def next_commands(folder: Path, *, compiled: bool) -> list[str]:
    """Shell commands that work on the files the demo wrote, from the folder it was called in."""

    def path(name: str) -> str:
        return shlex.quote(str(folder / name))

    ifgo = _program()
    return [
        f"{ifgo} inspect {path('weights')} --gates",
        f"{ifgo} run {path('heartbeat.onnx')} --input {path('beat.txt')} --output -",
        *([f"{path('c99/main')} {path('beat.txt')}"] if compiled else []),
        f"{ifgo} deploy {path('weights')} --target c99 --weights files --main "
        f"--out {path('c99-files')}",
        f"{ifgo} verify {path('heartbeat.onnx')} --input {path('beats.npy')}",
    ]


def _program() -> str:
    """How to call this ifgo from a shell: by name where that finds this installation."""
    called = Path(sys.argv[0])
    found = shutil.which("ifgo")
    if found and Path(found).parent.samefile(Path(sys.executable).parent):
        return "ifgo"
    if called.stem == "ifgo" and called.is_file():
        return shlex.quote(str(called))
    return f"{shlex.quote(sys.executable)} -m ifgo"
