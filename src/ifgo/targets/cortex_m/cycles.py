"""A cycle estimate from counted instructions, for the cores whose timing Arm has published.

Source: instruction timing tables of the technical reference manuals (Cortex-M0 DDI 0432, M3
DDI 0337, M4 DDI 0439). No board has confirmed an estimate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ifgo.targets.cortex_m.disassembly import Instruction, registers


@dataclass(frozen=True)
class Runs:
    """An instruction, how often it ran, and how often it did not go on to the next one."""

    instruction: Instruction
    count: int
    taken: int


@dataclass(frozen=True)
class Timing:
    """Cycles of one core. refill: added by every taken branch; link: by every call and return on
    top of that; multiply_add and multiply_long: integer ones; divide: an integer division."""

    load: int = 2
    store: int = 2
    refill: int = 2
    link: int = 0
    multiply_add: int = 1
    multiply_long: int = 1
    divide: int = 12

    def cycles(self, runs: Runs) -> int:
        """Cycles of all runs of one instruction."""
        return runs.count * self._once(runs.instruction) + runs.taken * self.refill

    def _once(self, one: Instruction) -> int:
        name = one.mnemonic.split(".")[0]
        if name == "bl" or (name == "pop" and "pc" in one.operands):
            return 1 + self.link + (registers(one.operands) if name == "pop" else 0)
        if re.match(r"v?(push|pop|ldm|stm)", name):
            return 1 + registers(one.operands) * (2 if re.search(r"\bd\d", one.operands) else 1)
        if name.startswith(("ldrd", "strd")):
            return 3
        if name.startswith(("ldr", "vldr")):
            return self.load
        if name.startswith(("str", "vstr")):
            return self.store
        if name.startswith(("vdiv", "vsqrt")):
            return 14
        if re.match(r"v(n?ml[as]|fn?m[as])", name):
            return 3
        if re.match(r"[us]m(ul|la)l", name):
            return self.multiply_long
        if re.match(r"ml[as]", name):
            return self.multiply_add
        if name.startswith(("udiv", "sdiv")):
            return self.divide
        return 1


TIMINGS: Final = {
    "cortex-m0": Timing(link=1),
    "cortex-m3": Timing(multiply_add=2, multiply_long=4),
    "cortex-m4": Timing(),
}

ASSUMPTIONS: Final = (
    "the clock is the part's highest, which the emitted start-up does not set; no wait states, no "
    "caches; loads and stores take 2 cycles each, without the overlap of "
    "neighbours; a taken branch adds 2 (the manuals say 1 to 3); a float division takes 14, an "
    "integer one 12, a long multiplication 4 on Cortex-M3; the multiplier of Cortex-M0 is the "
    "one-cycle kind"
)

UNPUBLISHED: Final = "Arm publishes no instruction timing for this core: no estimate"


def estimate(core: str, runs: Iterable[Runs]) -> int | None:
    """Cycles of all runs on `core`, or None where its timing is not published."""
    timing = TIMINGS.get(core)
    return None if timing is None else sum(timing.cycles(one) for one in runs)
