"""Frama-C Eva on the emitted C: from every state and input in a range, one call of the model.

Eva follows intervals, not relations. Where a proof needs the cases told apart, a `split` comment is
put between two statements of model.c; the statements stay what was emitted. Its reads of a volatile
are any value at all, so `volatile` is defined away: the start-up checks of the FPU then yield what
IEEE 754 arithmetic yields.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from static_cases import call

from ifgo.model import Model
from ifgo.reference import float32
from ifgo.targets import c99
from ifgo.targets.c99.schedule import number

BOUNDS = {"h": 1.0, "c": 1000.0}
"""|state| by the first letter of its name, before the call."""

INPUT_BOUND = 100.0
STEPS = 3
"""Length of the sequence where the model needs whole ones."""

FLAGS = (
    *("-eva", "-eva-no-show-progress", "-eva-auto-loop-unroll", "200"),
    *("-eva-slevel-function", "model_affine:5000,model_tanh:5000"),
    *("-warn-signed-downcast", "-warn-unsigned-downcast", "-cpp-extra-args=-Dvolatile="),
)


@dataclass(frozen=True)
class Verdict:
    """What Eva found. alarms: kind → number. reached: some path runs to the end of main().
    proved, unproved: the harness's own assertions, as a number and by name."""

    alarms: dict[str, int]
    reached: bool
    proved: int
    unproved: set[str]
    log: str


def annotated(source: str) -> str:
    """model.c with the cases of tanh told apart.

    The sign of x; pieces (p, q] of |x| below the polynomial's end with q^3 / 3 < p, so that the
    sum keeps its sign; above it half octaves of e^2|x|, and then its exponent n. `compared` says
    what `a < limit` means and Eva 25 does not see: a is no NaN there.
    """
    pieces = [f"0x1p-{power}" for power in (4, 13, 40, 118)]
    octaves = [f"{(k + 0.5) * math.log(2) / 2:.8f}" for k in range(2, 29)]
    marks = {
        "    b.f = x;\n    sign = ": ["x < 0.0f", "x > 0.0f"],
        f"    if (a < {number(float32.TANH_SPLIT)}) {{\n": [f"a < {v}" for v in pieces + octaves],
        "        v = model_reduced_exp(a, (float)n)": ["n"],
    }
    for mark, cases in marks.items():
        source = _before(source, mark, "".join(f"/*@ split {case}; */\n" for case in cases))
    return _before(source, "        a = 2.0f * a;\n", "/*@ assert compared: \\is_finite(a); */\n")


def _before(source: str, mark: str, comments: str) -> str:
    assert source.count(mark) == 1, f"model.c has no single {mark!r} to put a comment before"
    return source.replace(mark, comments + mark)


def _fill(array: str, width: int, bound: float | None) -> str:
    value = "any_bits()" if bound is None else f"Frama_C_float_interval(-{bound}f, {bound}f)"
    return f"    for (k = 0; k < {width}u; ++k) {{\n        {array}[k] = {value};\n    }}\n"


def harness(model: Model, emitted: c99.Emitted, *, finite: bool) -> str:
    """A main() that calls the model once from every state and input of the range, or from every
    bit pattern there is, and then asserts what each function returns and, if finite, |h| <= 1."""
    program, order = emitted.program, emitted.facts.state_order
    steps = 1 if program.streamable else STEPS
    inputs, outputs = model.input_size * steps, program.output.width * steps
    parts = [
        '#include "model.c"\n#include "__fc_builtin.h"\n',
        "static float any_bits(void) {\n    model_bits b;\n",
        "    b.u = Frama_C_unsigned_int_interval(0u, 0xffffffffu);\n    return b.f;\n}\n",
        f"static model_state s;\nstatic float x[{inputs}], y[{outputs}];\n",
        "static float copy[MODEL_STATE_SIZE];\n",
    ]
    call_it = "model_step(&s, x, y)"
    if not program.streamable:
        parts.append("static float scratch[MODEL_SCRATCH_SIZE];\n")
        call_it = f"model_sequence(&s, x, {steps}u, y, scratch)"
    parts.append("int main(void) {\n    size_t k;\n    int status = model_init(&s);\n")
    parts.append("    /*@ assert init: status == 0; */\n")
    for name, width in order:
        parts.append(_fill(f"s.{name}", width, BOUNDS[name[0]] if finite else None))
    parts.append(_fill("x", inputs, INPUT_BOUND if finite else None))
    parts.append(f"    status = {call_it};\n")
    parts.append("    /*@ assert call: status == 0 || status == MODEL_E_NONFINITE; */\n")
    if finite:
        outside = [
            f"-1.0f <= s.{n}[{i}] <= 1.0f" for n, w in order if n[0] == "h" for i in range(w)
        ]
        parts.append(f"    /*@ assert bounded: {' && '.join(outside)}; */\n")
    parts.append("    status = model_get_state(&s, copy);\n    /*@ assert get: status == 0; */\n")
    parts.append("    status = model_set_state(&s, copy);\n")
    parts.append("    /*@ assert set: status == 0 || status == MODEL_E_NONFINITE; */\n")
    parts.append("    Frama_C_show_each_end(status);\n    return 0;\n}\n")
    return "".join(parts)


def analyse(folder: Path, *, finite: bool) -> Verdict:
    """Eva's verdict on folder/harness.c. finite: an infinite or NaN result is an alarm too."""
    special = ("-warn-special-float", "non-finite" if finite else "none")
    done = call("frama-c", *FLAGS, *special, "harness.c", folder=folder)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    summary = log[log.index("ANALYSIS SUMMARY") :]
    counted = re.search(r"(\d+) alarms? generated by the analysis(:(?:\n {5,}\d+ .*)*)?", summary)
    assert counted is not None, log
    kinds = re.findall(r"\n +(\d+) (.*)", counted[2] or "")
    alarms = {kind: int(count) for count, kind in kinds}
    assert sum(alarms.values()) == int(counted[1]), summary
    held = re.search(r"Assertions +(\d+) valid +(\d+) unknown +(\d+) invalid", summary)
    unproved = re.findall(r"assertion\s+'(\w+)'\s+got\s+status\s+(?:unknown|invalid)", log)
    assert held is not None, log
    assert len(set(unproved)) == int(held[2]) + int(held[3]), summary
    return Verdict(alarms, "show_each_end" in log, int(held[1]), set(unproved), log)
