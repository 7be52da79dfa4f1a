"""Builds the emitted C with the machine's own compiler and runs it as a program of its own.

A separate process: neither a crash nor an FPU mode set by a library can reach the numbers.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import ToolError
from ifgo.model import Model, TokenInput
from ifgo.program import Probe, require_steps
from ifgo.states import State
from ifgo.targets.c99.emitter import Emitted, Variant, emit, runner
from ifgo.text import quote

DEFAULT_FLAGS: Final = ("-std=c99", "-O2")
STRICT_FLAGS: Final = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-pedantic")
TIMEOUT_SECONDS: Final = 600

Traces = dict[str, dict[str, dict[str, NDArray[np.float32]]]]


def find_compiler() -> tuple[str, ...]:
    """The words that start the compiler: those of $CC ("ccache gcc"), else cc, gcc or clang.

    Raises ToolError saying what to install.
    """
    wanted = os.environ.get("CC", "").strip()
    try:
        named = [shlex.split(wanted)] if wanted else [["cc"], ["gcc"], ["clang"]]
    except ValueError as error:
        raise ToolError(
            f"$CC is {quote(wanted)}, which is no command ({error})", hint="Name one: CC=gcc"
        ) from None
    for program, *options in named:
        if found := shutil.which(program):
            return found, *options
    raise ToolError(
        f"no C compiler found ({wanted + ' from $CC' if wanted else 'cc, gcc, clang'})",
        hint="Install one: apt install gcc (Debian, Ubuntu), dnf install gcc (Fedora), "
        "xcode-select --install (macOS)",
    )


@dataclass(frozen=True)
class Built:
    """A compiled runner and what it was compiled from."""

    executable: Path
    emitted: Emitted
    model: Model
    traced: bool

    def run(
        self, x: NDArray[Any], state: State, lengths: NDArray[Any] | None = None
    ) -> tuple[NDArray[np.float32], State, Traces]:
        """x (B, T, I) or tokens (B, T), a complete state → y, final state, traces.

        lengths: (B,), where the program takes them; T each where None.
        """
        program = self.emitted.program
        batch, steps = x.shape[:2]
        require_steps(program, steps)
        buffers = program.buffers("state")
        parts = [struct.pack("=II", batch, steps)]
        kind = np.int32 if isinstance(self.model.input, TokenInput) else np.float32
        for b in range(batch):
            if program.lengths:
                parts.append(struct.pack("=I", steps if lengths is None else int(lengths[b])))
            parts += [
                state[buffer.key][buffer.direction][b].astype(np.float32).tobytes()
                for buffer in buffers
            ]
            parts.append(np.ascontiguousarray(x[b], dtype=kind).tobytes())
        done = subprocess.run(
            [self.executable],
            input=b"".join(parts),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise ToolError(
                f"the compiled model failed with status {done.returncode}",
                hint=done.stderr.decode(errors="replace").strip(),
            )
        return self._decode(done.stdout, batch, steps)

    def _decode(
        self, data: bytes, batch: int, steps: int
    ) -> tuple[NDArray[np.float32], State, Traces]:
        program = self.emitted.program
        buffers = program.buffers("state")
        rows = 1 if program.vector_output else (program.output.rows or steps)
        y_size, state_size = rows * program.output.width, sum(b.width for b in buffers)
        traced = trace_size(self.emitted, steps) if self.traced else 0
        words = np.frombuffer(data, dtype=np.float32).reshape(
            batch, 1 + y_size + state_size + traced
        )
        statuses = words[:, 0].copy().view(np.int32)
        if statuses.any():
            raise ToolError(f"the compiled model returns status {int(statuses[statuses != 0][0])}")
        y = words[:, 1 : 1 + y_size].reshape(batch, rows, program.output.width)
        state: dict[str, list[NDArray[np.float32]]] = {}
        at = 1 + y_size
        for buffer in buffers:
            state.setdefault(buffer.key, []).append(words[:, at : at + buffer.width])
            at += buffer.width
        final = {key: np.stack(parts) for key, parts in state.items()}
        traces = decode_traces(self.emitted, words[:, at:], steps) if self.traced else {}
        return (y[:, 0] if program.vector_output else y).copy(), final, traces


def trace_size(emitted: Emitted, steps: int) -> int:
    """Floats that one sequence of `steps` steps traces."""
    return sum(record * count for record, count in _records(emitted, steps))


def _records(emitted: Emitted, steps: int) -> list[tuple[int, int]]:
    """Per sweep: floats of one step, number of steps."""
    sweeps = zip(emitted.schedule.records, emitted.program.sweeps, strict=True)
    return [(record, steps if sweep.count is None else sweep.count) for record, sweep in sweeps]


def decode_traces(emitted: Emitted, words: NDArray[np.float32], steps: int) -> Traces:
    """words (B, trace_size) as -DIFGO_TRACE writes them → layer → direction → part → (B, T, ·)."""
    traces: Traces = {}
    at = 0
    for sweep, (record, count) in zip(
        emitted.program.sweeps, _records(emitted, steps), strict=True
    ):
        rows = words[:, at : at + record * count].reshape(words.shape[0], count, record)
        at += record * count
        if sweep.reverse:
            rows = rows[:, ::-1]
        column = 0
        for probe in (i for i in sweep.body if isinstance(i, Probe)):
            size = probe.source.size
            parts = traces.setdefault(probe.layer, {}).setdefault(probe.direction, {})
            parts[probe.part] = rows[:, :, column : column + size].copy()
            column += size
    return traces


def build(
    model: Model,
    folder: Path,
    *,
    max_steps: int | None = None,
    lengths: bool = False,
    compiler: str | None = None,
    flags: Sequence[str] = DEFAULT_FLAGS,
    trace: bool = False,
    variant: Variant = "exact",
) -> Built:
    """Emit `model` with embedded weights into `folder` and compile it with its runner.

    max_steps, lengths and variant as in emit.
    """
    emitted = emit(model, max_steps=max_steps, lengths=lengths, variant=variant)
    for name, text in emitted.files.items():
        (folder / name).write_text(text)
    tokens = isinstance(model.input, TokenInput)
    (folder / "runner.c").write_text(runner(emitted, tokens=tokens))
    executable = folder / "runner"
    command = [
        *((compiler,) if compiler else find_compiler()),
        *flags,
        *(["-DIFGO_TRACE"] if trace else []),
        "-o",
        str(executable),
        str(folder / "runner.c"),
        str(folder / "model.c"),
    ]
    compile_c(command, executable)
    return Built(executable, emitted, model, trace)


def compile_c(command: Sequence[str], made: Path) -> None:
    """Run the compiler line `command`, which is to leave `made`. Raises ToolError where it does
    not: no such program, an error in it, more than TIMEOUT_SECONDS."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else f"for {TIMEOUT_SECONDS} seconds"
        raise ToolError(
            f"the C compiler {command[0]} does not run ({why})", hint="Name one that does: CC=gcc"
        ) from None
    if done.returncode:
        raise ToolError(
            f"{command[0]} does not compile the emitted C",
            hint=done.stderr.strip()[:2000] or "Name another compiler: CC=gcc",
        )
    if not made.is_file():
        raise ToolError(
            f"{command[0]} says that it compiled the emitted C, and made nothing",
            hint="Name a compiler: CC=gcc",
        )


def run_model(
    model: Model,
    x: NDArray[Any],
    state: State,
    lengths: NDArray[Any] | None = None,
    *,
    variant: Variant = "exact",
) -> tuple[NDArray[np.float32], State]:
    """Emit, compile and run: the `c99` backend."""
    with tempfile.TemporaryDirectory(prefix="ifgo-") as folder:
        given, longest = lengths is not None, max(x.shape[1], 1)
        built = build(model, Path(folder), max_steps=longest, lengths=given, variant=variant)
        y, final, _ = built.run(x, state, lengths)
        return y, final
