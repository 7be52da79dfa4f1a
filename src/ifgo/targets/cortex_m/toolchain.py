"""The cross compiler, its binary tools and the emulator: found, run, and believed only when they
succeed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ifgo.errors import ToolError, UnsupportedError
from ifgo.targets.cortex_m.boards import Board

PREFIX: Final = "arm-none-eabi-"
EMULATOR: Final = "qemu-system-arm"
PACKAGES: Final = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
INSTALL: Final = f"Install the cross compiler and the emulator: apt install {PACKAGES}"
NO_NEWLIB: Final = "the library newlib is not installed"
TIMEOUT_SECONDS = 600

FLAGS: Final = ("-mthumb", "-std=c99", "-O2", "-ffunction-sections", "-fdata-sections")
LINK_FLAGS: Final = ("-specs=nano.specs", "-nostartfiles", "-Wl,--gc-sections")
"""newlib gives memcpy and memset; nothing else of it is used."""


def find_tool(name: str) -> str:
    """Path of a program. Raises ToolError naming the packages that bring it."""
    found = shutil.which(name)
    if found is None:
        raise ToolError(
            f"{name} is not installed",
            hint=INSTALL,
        )
    return found


def find_newlib() -> str:
    """Path of nano.specs. Raises ToolError where the cross compiler comes without it."""
    compiler = find_tool(PREFIX + "gcc")
    try:
        place = execute([compiler, "-print-file-name=nano.specs"]).strip()
    except (OSError, ToolError):
        place = ""
    if "/" not in place:
        raise ToolError(NO_NEWLIB, hint=INSTALL)
    return place


def newlib_version() -> str:
    """Of the newlib beside nano.specs, by its own header. Raises ToolError where that is absent."""
    source = ["-include", "_newlib_version.h", "-xc", os.devnull]
    macros = execute([find_tool(PREFIX + "gcc"), "-E", "-dM", *source])
    found = re.search(r'_NEWLIB_VERSION "(.+)"', macros)
    return found[1] if found else "of no stated version"


def execute(command: Sequence[str], folder: Path | None = None) -> str:
    """Standard output of a command. Raises ToolError where it fails or takes too long."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ToolError(
            f"{name} does not end within {TIMEOUT_SECONDS} s",
            hint="Give it less to do: fewer or shorter sequences",
        ) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[:2000]
        raise ToolError(f"{name} ends with status {done.returncode}", hint=said)
    return done.stdout


def compile_object(
    folder: Path, board: Board, source: str, flags: Sequence[str] = (), defines: Sequence[str] = ()
) -> Path:
    """folder/source → its object file beside it."""
    target = (folder / source).with_suffix(".o")
    command = [find_tool(PREFIX + "gcc"), *board.flags, *FLAGS, *flags, *defines]
    execute([*command, "-c", source, "-o", target.name], folder)
    return target


def link(folder: Path, board: Board, objects: Sequence[Path], name: str) -> Path:
    """Objects and folder/link.ld → folder/name.

    Raises UnsupportedError where a memory of the board is too small, saying by how much, ToolError
    where newlib is missing.
    """
    command = [find_tool(PREFIX + "gcc"), *board.flags, *FLAGS, *LINK_FLAGS, "-Wl,-T,link.ld"]
    try:
        execute([*command, *(path.name for path in objects), "-o", name], folder)
    except ToolError as error:
        if "cannot read spec file" in (error.hint or ""):
            raise ToolError(NO_NEWLIB, hint=INSTALL) from None
        overflow = re.search(r"region `(FLASH|RAM)' overflowed by (\d+) bytes", error.hint or "")
        if overflow is None:
            raise
        memory = board.flash if overflow[1] == "FLASH" else board.ram
        raise too_small(board, overflow[1], memory.size + int(overflow[2])) from None
    return folder / name


def too_small(board: Board, region: str, needed: int, *, least: bool = False) -> UnsupportedError:
    """The refusal of a model that does not fit. least: `needed` is a lower bound."""
    memory, name = (board.flash, "flash") if region == "FLASH" else (board.ram, "RAM")
    return UnsupportedError(
        f"the model needs {'at least ' if least else ''}{needed} bytes of {name}, "
        f"{board.part} has {memory.size}",
        where=f"board {board.name}",
        hint="Choose a board with more memory, or a smaller model",
    )


def emulate(board: Board, program: Path, arguments: Sequence[str] = ()) -> str:
    """Run a program in its folder until it exits; returns what it prints.

    Raises ToolError with that text where its status is not 0.
    """
    command = [
        find_tool(EMULATOR),
        *("-M", board.machine, "-display", "none", "-monitor", "none", "-serial", "none"),
        *("-chardev", "stdio,id=text"),
        *("-semihosting-config", "enable=on,target=native,chardev=text"),
        *arguments,
        *("-kernel", program.name),
    ]
    return execute(command, program.parent)


@dataclass(frozen=True)
class Symbol:
    """One function or object of a program. kind: "code", "constant" or "memory" (RAM)."""

    name: str
    bytes: int
    kind: str
    address: int


_KINDS: Final = {"t": "code", "w": "code", "r": "constant", "d": "memory", "b": "memory"}


def symbols(path: Path) -> list[Symbol]:
    """Symbols of an object file or program that have a size, the largest first."""
    listing = execute([find_tool(PREFIX + "nm"), "-S", "--size-sort", "-r", str(path)])
    found: list[Symbol] = []
    for line in listing.splitlines():
        address, size, letter, name = line.split()
        kind = _KINDS.get(letter.lower())
        if kind:
            found.append(Symbol(name, int(size, 16), kind, int(address, 16) & ~1))
    return found


def addresses(program: Path) -> dict[str, int]:
    """Every symbol → its address; several names may share one."""
    listing = execute([find_tool(PREFIX + "nm"), str(program)])
    rows = re.findall(r"^([0-9a-f]+) \S (\S+)$", listing, re.MULTILINE)
    return {name: int(address, 16) & ~1 for address, name in rows}


def section_sizes(program: Path) -> dict[str, int]:
    """Section name → bytes, for the sections that occupy memory."""
    listing = execute([find_tool(PREFIX + "size"), "-A", str(program)])
    rows = re.findall(r"^(\.\S+)\s+(\d+)\s+\d+$", listing, re.MULTILINE)
    return {name: int(size) for name, size in rows}
