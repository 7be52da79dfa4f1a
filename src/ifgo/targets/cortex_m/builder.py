"""Builds a model for a board and runs it in the emulator, input and output through files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import ToolError
from ifgo.model import Model, TokenInput
from ifgo.states import State
from ifgo.targets import c99
from ifgo.targets.cortex_m import cmsis_dsp, toolchain
from ifgo.targets.cortex_m.boards import Board, find_board
from ifgo.targets.cortex_m.emitter import check_fit, context, render, support_files


@dataclass(frozen=True)
class Built:
    """A firmware that runs sequences of up to max_steps steps, and what it was made from."""

    program: Path
    board: Board
    source: c99.Emitted
    model: Model
    traced: bool = False

    def run(
        self, x: NDArray[Any], state: State, lengths: NDArray[Any] | None = None
    ) -> tuple[NDArray[np.float32], State]:
        """x (B, T, I) or tokens (B, T), a complete state → y, final state; one emulator start.

        lengths: (B,), where the program takes them; T each where None.
        """
        y, final, _ = self.run_traced(x, state, lengths)
        return y, final

    def run_traced(
        self, x: NDArray[Any], state: State, lengths: NDArray[Any] | None = None
    ) -> tuple[NDArray[np.float32], State, c99.Traces]:
        """run, and what every layer computed on the way; empty where built without traces."""
        batch, steps = x.shape[:2]
        buffers = self.source.program.buffers("state")
        parts = [np.array([batch, steps], "<u4").tobytes()]
        for b in range(batch):
            if self.source.program.lengths:
                length = steps if lengths is None else lengths[b]
                parts.append(np.array(length, "<u4").tobytes())
            parts += [state[buffer.key][buffer.direction][b].astype("<f4") for buffer in buffers]
            parts.append(input_words(self.model, x[b]))
        folder = self.program.parent
        (folder / "input").write_bytes(b"".join(bytes(part) for part in parts))
        toolchain.emulate(self.board, self.program)
        y, final = self._decode((folder / "output").read_bytes(), batch, steps)
        if not self.traced:
            return y, final, {}
        size = c99.trace_size(self.source, steps)
        words = np.frombuffer((folder / "trace").read_bytes(), "<f4").reshape(batch, size)
        return y, final, c99.decode_traces(self.source, words.astype(np.float32), steps)

    def _decode(self, data: bytes, batch: int, steps: int) -> tuple[NDArray[np.float32], State]:
        program = self.source.program
        buffers = program.buffers("state")
        rows = 1 if program.vector_output else (program.output.rows or steps)
        at = rows * program.output.width
        words = np.frombuffer(data, "<f4").astype(np.float32).reshape(batch, -1)
        statuses = np.ascontiguousarray(words[:, -1]).view(np.int32)
        if statuses.any():
            raise ToolError(
                f"the model on board {self.board.name} returns status "
                f"{int(statuses[statuses != 0][0])}"
            )
        y = words[:, :at].reshape(batch, rows, program.output.width)
        final: dict[str, list[NDArray[np.float32]]] = {}
        for buffer in buffers:
            final.setdefault(buffer.key, []).append(words[:, at : at + buffer.width])
            at += buffer.width
        end = {key: np.stack(parts) for key, parts in final.items()}
        return (y[:, 0] if program.vector_output else y), end


def input_words(model: Model, rows: NDArray[Any]) -> bytes:
    """One sequence as the firmware reads it: float32 or int32, little-endian."""
    kind = "<i4" if isinstance(model.input, TokenInput) else "<f4"
    return np.ascontiguousarray(rows).astype(kind).tobytes()


def compile_files(
    folder: Path, board: Board, files: Mapping[str, str], flags: Sequence[str] = ()
) -> Path:
    """Write the files of a program to `folder`, compile and link those in C; returns the program.

    flags come after, and so win over, our own. Raises UnsupportedError where it does not fit the
    board, ToolError where the compiler is missing or refuses.
    """
    for name, text in files.items():
        (folder / name).write_text(text, encoding="ascii", newline="\n")
    sources = [name for name in files if name.endswith(".c")]
    objects = [toolchain.compile_object(folder, board, name, flags) for name in sources]
    return toolchain.link(folder, board, objects, "firmware.elf")


def compile_with(
    folder: Path,
    model: Model,
    board: Board,
    main: str,
    *,
    max_steps: int,
    lengths: bool = False,
    flags: Sequence[str] = (),
    name: str = "model",
    library: str | None = None,
    variant: c99.Variant = "exact",
) -> tuple[Path, c99.Emitted]:
    """compile_files of the model with the template `main`.

    max_steps: rows of x and y that the program holds, unless the model takes one length alone.
    lengths, name, library and variant: as in c99.emit.
    """
    source = c99.emit(
        model, name=name, max_steps=max_steps, lengths=lengths, library=library, variant=variant
    )
    check_fit(board, source)
    values = context(model, board, source, source.program.required_steps or max_steps)
    support = {name: render(name, values) for name in (*support_files(source), main)}
    flags = [*flags, *cmsis_dsp.flags(library)]
    return compile_files(folder, board, source.files | support, flags), source


def build(
    model: Model,
    folder: Path,
    board: str | Board,
    *,
    max_steps: int = 1,
    lengths: bool = False,
    flags: Sequence[str] = (),
    trace: bool = False,
    library: str | None = None,
    variant: c99.Variant = "exact",
) -> Built:
    """Compile `model` for `board` into `folder`, with a program that runs batches from a file.

    max_steps matters only to models that need whole sequences, or take lengths, as in c99.emit.
    flags are further compiler flags. trace: with what every layer computes, which takes RAM: one
    step of it, or one whole sequence. variant and library: as in c99.emit, this
    found by cmsis_dsp.find.
    """
    found = find_board(board)
    defines = ["-DIFGO_TRACE"] if trace else []
    program, source = compile_with(
        folder,
        model,
        found,
        "runner.c",
        max_steps=max_steps,
        lengths=lengths,
        flags=[*flags, *defines],
        library=library,
        variant=variant,
    )
    return Built(program, found, source, model, trace)


def run_model(
    model: Model,
    x: NDArray[Any],
    state: State,
    board: str | Board,
    lengths: NDArray[Any] | None = None,
    *,
    variant: c99.Variant = "exact",
) -> tuple[NDArray[np.float32], State]:
    """Emit, cross-compile and run in the emulator: the backend of one board."""
    with tempfile.TemporaryDirectory(prefix="ifgo-") as folder:
        given, longest = lengths is not None, max(x.shape[1], 1)
        place = Path(folder)
        built = build(model, place, board, max_steps=longest, lengths=given, variant=variant)
        return built.run(x, state, lengths)


def trace_model(
    model: Model,
    x: NDArray[Any],
    state: State,
    board: str | Board,
    *,
    variant: c99.Variant = "exact",
) -> c99.Traces:
    """What every layer computes in the emulator.

    Raises UnsupportedError where the board has no room for it.
    """
    with tempfile.TemporaryDirectory(prefix="ifgo-") as folder:
        longest, place = max(x.shape[1], 1), Path(folder)
        built = build(model, place, board, max_steps=longest, trace=True, variant=variant)
        return built.run_traced(x, state)[2]
