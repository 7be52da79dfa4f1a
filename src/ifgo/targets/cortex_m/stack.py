"""The deepest stack of a function by its call graph: no path can need more.

Frames and calls of model.c come from the compiler (-fstack-usage, -fcallgraph-info); those of the
compiler's library (soft float, memset), which bring no such files, from the disassembly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from ifgo.errors import ToolError
from ifgo.targets.cortex_m.disassembly import Instruction, branch_target, pushed

FLAGS = ("-fstack-usage", "-fcallgraph-info=su,da")


@dataclass
class Frame:
    """Bytes of a function's own frame, and the names of those it calls."""

    size: int = 0
    calls: set[str] = field(default_factory=set[str])


def compiled_frames(callgraph: str) -> dict[str, Frame]:
    """Function → frame, from the text of a .ci file.

    Raises ToolError where a frame has no fixed size.
    """
    frames: dict[str, Frame] = {}
    for title, label in re.findall(r'^node: \{ title: "([^"]+)" label: "([^"]*)"', callgraph, re.M):
        size = re.search(r"(\d+) bytes \((\w+)", label)
        if size is None:
            continue
        if size[2] != "static":
            raise ToolError(f"the compiler gives {_plain(title)} a stack frame of no fixed size")
        frames[_plain(title)] = Frame(int(size[1]))
    pattern = r'^edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"'
    for caller, called in re.findall(pattern, callgraph, re.M):
        frames[_plain(caller)].calls.add(_plain(called))
    return frames


def _plain(title: str) -> str:
    """model.c:model_tanh → model_tanh."""
    return title.rsplit(":", 1)[-1]


def disassembled_frames(
    instructions: Iterable[Instruction], names: Mapping[str, int]
) -> dict[str, Frame]:
    """Function → frame: all that it pushes, and every other function it branches or falls into.

    names: symbol → address, which adds the other names of a function.
    """
    code = list(instructions)
    owner = {one.address: one.function for one in code}
    frames: dict[str, Frame] = {}
    falls: str | None = None
    for name, members in groupby(code, key=lambda one: one.function):
        frame = frames.setdefault(name, Frame())
        if falls is not None:
            frames[falls].calls.add(name)
        last = None
        for one in members:
            frame.size += pushed(one)
            if (target := branch_target(one)) is not None:
                frame.calls |= {owner.get(target, f"address {target:#x}")} - {name}
            if not one.mnemonic.startswith(".") and one.mnemonic != "nop":
                last = one
        falls = name if last is not None and not _leaves(last) else None
    for name, address in names.items():
        if address in owner:
            frames.setdefault(name, frames[owner[address]])
    return frames


def _leaves(last: Instruction) -> bool:
    """Whether nothing runs on from here into the next function."""
    if last.mnemonic in ("b", "bx", "udf"):
        return True
    return last.mnemonic.startswith(("pop", "ldm", "ldr", "mov")) and "pc" in last.operands


def reachable(frames: Mapping[str, Frame], functions: Iterable[str]) -> set[str]:
    """The functions, and all that they call."""
    found: set[str] = set()
    waiting = list(functions)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += frames[name].calls if name in frames else ()
    return found


def deepest(frames: Mapping[str, Frame], function: str) -> int:
    """Bytes that a call of `function` can take at most, its own frame included.

    Raises ToolError on a function without a frame and on recursion.
    """
    known: dict[str, int] = {}

    def visit(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ToolError(f"{name} calls itself: its stack has no bound")
        if name not in frames:
            if not above:
                raise ToolError(f"{name} has no known stack")
            raise ToolError(f"{above[-1]} calls {name}, of unknown stack")
        if name not in known:
            below = [visit(called, (*above, name)) for called in sorted(frames[name].calls)]
            known[name] = frames[name].size + max(below, default=0)
        return known[name]

    return visit(function, ())
