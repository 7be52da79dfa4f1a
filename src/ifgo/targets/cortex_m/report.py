"""What a model costs on a board: flash, RAM, stack, instructions; measured, not modelled.

Only the cycles are an estimate, and say so.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from ifgo.backends import prepare
from ifgo.errors import UsageError
from ifgo.lower import lower
from ifgo.model import Model
from ifgo.program import Affine, Program
from ifgo.targets import c99
from ifgo.targets.cortex_m import cycles, stack, toolchain
from ifgo.targets.cortex_m.boards import Board, find_board
from ifgo.targets.cortex_m.builder import compile_files
from ifgo.targets.cortex_m.counting import Recipe, by_function, count, default_recipe
from ifgo.targets.cortex_m.disassembly import disassemble
from ifgo.targets.cortex_m.emitter import emit, example_input

STEPS: Final = 16
"""Length of the input that is run where the caller gives none."""


@dataclass(frozen=True)
class Part:
    """One tensor or function in flash. what: the fields of the model a tensor holds, else ""."""

    name: str
    kind: str
    bytes: int
    what: str = ""


@dataclass(frozen=True)
class Stack:
    """Worst stack of one call of the model, two ways: seen while running, and by call graph."""

    painted: int
    call_graph: int


@dataclass(frozen=True)
class Instructions:
    """Executed per call: one call is one step, or the whole sequence of `steps` steps.

    recipe: what counted. functions: mean per step, the most first; empty without the plugin.
    """

    recipe: str
    steps: int
    calls: int
    per_step: float
    least_call: int
    most_call: int
    functions: dict[str, float]


@dataclass(frozen=True)
class Report:
    """Cost of `model` on a board, in bytes and executed instructions.

    flash: the example program without its self-test; parts: what of it the model brings, library
    functions that it calls included. ram: that program's variables without the stack; state: of
    them the model's state. cycles: estimate per step, None where assumptions say why.
    """

    board: str
    core: str
    compiler: str
    flags: str
    emulator: str
    flash: int
    flash_available: int
    parts: tuple[Part, ...]
    ram: int
    ram_available: int
    state: int
    scratch: int
    stack: Stack
    instructions: Instructions
    macs: int
    cycles: float | None
    assumptions: str

    @property
    def model_flash(self) -> int:
        """Flash that the model takes in any program, without alignment between its parts."""
        return sum(part.bytes for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"model_flash": self.model_flash}

    def __str__(self) -> str:
        return _text(self)


def measure(
    model: Model,
    board: str | Board,
    *,
    x: NDArray[Any] | None = None,
    recipe: Recipe | None = None,
) -> Report:
    """Build `model` for `board`, run x (T, I), or tokens (T,), and report what it costs.

    x: by default seeded noise of 16 steps, or as many as the model takes. recipe: "timer", or
    "plugin", which counts both ways, compares, and adds the profile; by default "plugin" where
    this machine has a C compiler. Raises UsageError, ToolError or UnsupportedError.
    """
    found = find_board(board)
    rows = example_input(model, _steps(model)) if x is None else prepare(model, x).x
    if rows.shape[0] != 1:
        raise UsageError(f"x holds {rows.shape[0]} sequences", expected="one, (T, I) or (T,)")
    chosen = recipe or default_recipe()
    with tempfile.TemporaryDirectory(prefix="ifgo-") as place:
        counted, shipped = Path(place) / "counted", Path(place) / "shipped"
        counted.mkdir()
        shipped.mkdir()
        counts = count(model, found, rows[0], counted, recipe=chosen)
        project = emit(model, found, max_steps=rows.shape[1])
        source = project.source
        program = compile_files(shipped, found, project.files)
        frames = _frames(shipped, program, found)
        entry = "step" if source.program.streamable else "sequence"
        worst = stack.deepest(frames, f"{source.name}_{entry}")
        sections = toolchain.section_sizes(program)
        flash = toolchain.addresses(program)["ifgo_data_source"] - found.flash.origin
        flash += sections.get(".data", 0)
        parts = _parts(program, shipped, source, frames)
    runs = counts.runs
    total = None if runs is None else cycles.estimate(found.core, runs)
    published = found.core in cycles.TIMINGS
    if not published:
        assumptions = cycles.UNPUBLISHED
    elif runs is None:
        assumptions = "only the plugin recipe knows which instructions ran: no estimate"
    else:
        assumptions = cycles.ASSUMPTIONS
    return Report(
        found.name,
        found.core,
        _version(toolchain.PREFIX + "gcc"),
        " ".join([*found.flags, *toolchain.FLAGS]),
        _version(toolchain.EMULATOR),
        flash,
        found.flash.size,
        parts,
        sum(sections.get(name, 0) for name in (".data", ".bss")),
        found.ram.size,
        source.facts.state_bytes,
        0 if source.program.streamable else source.facts.scratch_bytes,
        Stack(counts.stack, worst),
        Instructions(
            "timer" if runs is None else "timer and plugin, which agree",
            counts.steps,
            len(counts.calls),
            counts.per_step,
            min(counts.calls),
            max(counts.calls),
            {} if runs is None else {k: n / counts.steps for k, n in by_function(runs).items()},
        ),
        model.macs,
        None if total is None else total / counts.steps,
        assumptions,
    )


def _steps(model: Model) -> int:
    return lower(model).required_steps or STEPS


def _frames(folder: Path, program: Path, board: Board) -> dict[str, stack.Frame]:
    """Of the model by the compiler's own account, of the rest by the program's disassembly."""
    toolchain.compile_object(folder, board, "model.c", stack.FLAGS)
    frames = stack.disassembled_frames(disassemble(program), toolchain.addresses(program))
    return frames | stack.compiled_frames((folder / "model.ci").read_text("utf-8"))


def _parts(
    program: Path, folder: Path, source: c99.Emitted, frames: dict[str, stack.Frame]
) -> tuple[Part, ...]:
    """Tensors and functions of the model in the program, and the library functions they call."""
    tensors = _tensors(source.program)
    own = {symbol.name for symbol in toolchain.symbols(folder / "model.o")}
    needed = stack.reachable(frames, own)
    found: dict[int, Part] = {}
    for symbol in toolchain.symbols(program):
        if symbol.kind != "memory" and symbol.name in own | needed:
            kind = _KINDS[symbol.kind] if symbol.name in own else "library"
            part = Part(symbol.name, kind, symbol.bytes, tensors.get(symbol.name, ""))
            found.setdefault(symbol.address, part)
    return tuple(found.values())


_KINDS: Final = {"code": "function", "constant": "tensor"}


def _tensors(program: Program) -> dict[str, str]:
    """Array of model.c → the layers' fields it holds."""
    found: dict[str, str] = {}
    for storage in ("weight", "state"):
        for buffer in program.buffers(storage):
            found[buffer.name] = ".".join(part for part in buffer.source if part)
    for sweep in program.sweeps:
        for instruction in sweep.body:
            if isinstance(instruction, Affine):
                matrices = [matrix for matrix, _ in instruction.terms]
                found[matrices[0].name] = ", ".join(".".join(m.source) for m in matrices)
    return found


def _version(tool: str) -> str:
    return toolchain.execute([toolchain.find_tool(tool), "--version"]).splitlines()[0]


def _text(report: Report) -> str:
    counted, name = report.instructions, report.board
    rows = [
        ("board", f"{name} ({report.core}), {report.emulator}"),
        ("compiler", f"{report.compiler}, {report.flags}"),
        (
            "flash",
            f"{report.flash} of {report.flash_available} bytes, {report.model_flash} the model",
        ),
        ("RAM", f"{report.ram} of {report.ram_available} bytes, {report.state} of them state"),
        ("stack", f"{report.stack.painted} bytes painted, at most {report.stack.call_graph}"),
        ("instructions", f"{counted.per_step:.1f} per step ({counted.recipe})"),
        ("", f"{counted.least_call} to {counted.most_call} per call, {counted.calls} call(s)"),
        ("MACs", f"{report.macs} per step"),
        ("cycles", "none" if report.cycles is None else f"about {report.cycles:.0f} per step"),
        ("", report.assumptions),
    ]
    lines = [f"{label:<13} {value}" for label, value in rows]
    lines += ["", "bytes of flash"]
    lines += [f"{part.bytes:>8}  {part.kind:<9} {part.name}  {part.what}" for part in report.parts]
    if counted.functions:
        lines += ["", "instructions per step"]
        lines += [f"{value:>10.1f}  {name}" for name, value in counted.functions.items()]
    return "\n".join(line.rstrip() for line in lines)
