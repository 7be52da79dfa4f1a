"""Builds a model for a board, runs it in the emulator, and reports what it costs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from ifgo.backends import prepare
from ifgo.errors import UsageError
from ifgo.lower import lower
from ifgo.model import Model
from ifgo.program import Affine, Program
from ifgo.targets import c99
from ifgo.targets.cortex_m import cmsis_dsp, cycles, stack, toolchain
from ifgo.targets.cortex_m.boards import Board, find_board
from ifgo.targets.cortex_m.builder import compile_files
from ifgo.targets.cortex_m.counting import Recipe, by_function, count, default_recipe
from ifgo.targets.cortex_m.disassembly import disassemble
from ifgo.targets.cortex_m.emitter import emit, example_input
from ifgo.targets.cortex_m.report import Instructions, Part, Report, Stack

STEPS: Final = 16
"""Length of the input that is run where the caller gives none."""


def measure(
    model: Model,
    board: str | Board,
    *,
    x: NDArray[Any] | None = None,
    recipe: Recipe | None = None,
    name: str = "model",
    max_steps: int | None = None,
    library: str | None = None,
    variant: c99.Variant = "exact",
) -> Report:
    """Build `model` for `board`, run x (T, I), or tokens (T,), and report what it costs.

    x: by default seeded noise of 16 steps, or as many as the model takes. recipe: "timer", or
    "plugin", which counts both ways, compares, and adds the profile; by default "plugin" where
    this machine has a C compiler. The other options are those of emit; a model that needs whole
    sequences runs one of max_steps steps. Raises UsageError, ToolError or UnsupportedError.
    """
    found = find_board(board)
    rows = example_input(model, _steps(model, max_steps)) if x is None else prepare(model, x).x
    if rows.shape[0] != 1:
        raise UsageError(f"x holds {rows.shape[0]} sequences", expected="one, (T, I) or (T,)")
    chosen = recipe or default_recipe()
    with tempfile.TemporaryDirectory(prefix="ifgo-") as place:
        counted, shipped = Path(place) / "counted", Path(place) / "shipped"
        counted.mkdir()
        shipped.mkdir()
        options: dict[str, Any] = {"name": name, "library": library, "variant": variant}
        counts = count(model, found, rows[0], counted, recipe=chosen, **options)
        project = emit(model, found, max_steps=rows.shape[1], **options)
        source = project.source
        program = compile_files(shipped, found, project.files, cmsis_dsp.flags(library))
        frames = _frames(shipped, program, found, library)
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
        found.hertz,
        _version(toolchain.PREFIX + "gcc"),
        " ".join([*found.flags, *toolchain.FLAGS]),
        library or "",
        "" if library else variant,
        _version(toolchain.EMULATOR),
        flash,
        found.flash.size,
        {name: sections[name] for name in IN_FLASH if sections.get(name)},
        parts,
        flash - sum(part.bytes for part in parts),
        sum(sections.get(name, 0) for name in (".data", ".bss")),
        found.ram.size,
        sections.get(".stack", 0),
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


def _steps(model: Model, max_steps: int | None) -> int:
    longest = None if model.streamable else max_steps
    return lower(model).required_steps or longest or STEPS


def _frames(
    folder: Path, program: Path, board: Board, library: str | None
) -> dict[str, stack.Frame]:
    """Of the model by the compiler's own account, of the rest by the program's disassembly."""
    toolchain.compile_object(folder, board, "model.c", [*stack.FLAGS, *cmsis_dsp.flags(library)])
    frames = stack.disassembled_frames(disassemble(program), toolchain.addresses(program))
    return frames | stack.compiled_frames((folder / "model.ci").read_text("utf-8"))


def _parts(
    program: Path, folder: Path, source: c99.Emitted, frames: dict[str, stack.Frame]
) -> tuple[Part, ...]:
    """Everything in flash that has a name, by address; of several names for one place the first.

    A function that runs on into the next one ends where that begins.
    """
    tensors = _tensors(source.program)
    own = {symbol.name for symbol in toolchain.symbols(folder / "model.o")}
    needed = stack.reachable(frames, own)
    places: dict[int, list[toolchain.Symbol]] = {}
    for symbol in toolchain.symbols(program):
        if symbol.kind != "memory":
            places.setdefault(symbol.address, []).append(symbol)
    found: list[Part] = []
    for address, after in zip(sorted(places), [*sorted(places)[1:], None], strict=True):
        named = sorted(places[address], key=lambda one: (one.name not in own, one.name))
        first = named[0]
        size = max(one.bytes for one in named)
        size = size if after is None else min(size, after - address)
        if first.name in own:
            found.append(Part(first.name, _KINDS[first.kind], size, tensors.get(first.name, "")))
        else:
            library = any(one.name in needed for one in named)
            found.append(Part(first.name, "library" if library else "project", size))
    return tuple(found)


_KINDS: Final = {"code": "function", "constant": "tensor"}

IN_FLASH: Final = (".text", ".rodata", ".ARM.exidx", ".data")
"""Sections of link.ld that lie in flash; .data is copied to RAM from there."""


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
