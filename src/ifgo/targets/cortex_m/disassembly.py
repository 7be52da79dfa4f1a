"""A program as instructions, read from objdump: whose they are, what they cost, what they push."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ifgo.targets.cortex_m.toolchain import PREFIX, execute, find_tool


@dataclass(frozen=True)
class Instruction:
    """One instruction. mnemonic without width and condition suffixes of `.n` and `.w`."""

    address: int
    function: str
    mnemonic: str
    operands: str


def disassemble(program: Path) -> list[Instruction]:
    """Every instruction of the code sections, ascending."""
    text = execute([find_tool(PREFIX + "objdump"), "-d", "--no-show-raw-insn", str(program)])
    found: list[Instruction] = []
    function = ""
    for line in text.splitlines():
        if label := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            function = label[1]
        elif row := re.match(r"\s*([0-9a-f]+):\t(\S+)(?:\s+(.*))?$", line):
            mnemonic = re.sub(r"\.[nw]$", "", row[2])
            operands = re.split(r"\s*[@;]", row[3] or "")[0]
            found.append(Instruction(int(row[1], 16), function, mnemonic, operands))
    return found


def registers(operands: str) -> int:
    """How many registers the list in braces names: {r4-r7, lr} is 5."""
    inside = re.search(r"\{(.*)\}", operands)
    count = 0
    for item in (inside[1] if inside else operands).split(","):
        ends = re.fullmatch(r"\s*[a-z](\d+)-[a-z](\d+)\s*", item)
        count += int(ends[2]) - int(ends[1]) + 1 if ends else 1
    return count


_MOVES_SP: Final = re.compile(r"\bsp\b.*,\s*#(-?\d+)")


def pushed(instruction: Instruction) -> int:
    """Bytes by which an instruction lowers the stack pointer."""
    name, operands = instruction.mnemonic, instruction.operands
    if name == "push" or (name in ("stmdb", "stmfd") and operands.startswith("sp!")):
        return 4 * registers(operands)
    if name == "vpush" or (name == "vstmdb" and operands.startswith("sp!")):
        return (8 if "d" in operands else 4) * registers(operands)
    moved = _MOVES_SP.search(operands)
    if moved and name in ("sub", "subs", "subw") and operands.startswith("sp"):
        return int(moved[1])
    if moved and name.startswith(("str", "vstr")) and operands.rstrip().endswith("]!"):
        return max(-int(moved[1]), 0)
    return 0


def branch_target(instruction: Instruction) -> int | None:
    """The address that a branch or a call names, None for everything else.

    bf*: bit fields, or the branches that objdump takes Helium's vctp for; neither leads anywhere.
    """
    name = instruction.mnemonic
    if name.startswith("bf") or not name.startswith(("b", "cb")):
        return None
    found = re.search(r"\b([0-9a-f]+) <", instruction.operands)
    return int(found[1], 16) if found else None
