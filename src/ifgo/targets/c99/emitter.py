"""Prints a Model as model.h, model.c and, on request, main.c.

Only numbers and identifiers made here reach the text; no name from a model file does.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from ifgo import limits
from ifgo.decimals import MAX_CHARS
from ifgo.errors import UnsupportedError, UsageError
from ifgo.gates import CANONICAL, LSTM_LAYOUTS
from ifgo.lower import lower
from ifgo.model import LengthsInput, Model, TokenInput
from ifgo.program import Affine, Differs, Elementwise, Normalise, Program, Softmax
from ifgo.reference import float32
from ifgo.targets.c99.checking import selftest
from ifgo.targets.c99.library import check_library, gather
from ifgo.targets.c99.packing import (
    Tensor,
    constant_arrays,
    raw_suffixes,
    raw_tensors,
    state_fields,
)
from ifgo.targets.c99.schedule import BLOCK, UNROLL, Schedule, function, number
from ifgo.targets.c99.tracing import trace_layout

Weights = Literal["embedded", "files"]

Variant = Literal["exact", "contracted"]
"""exact: the interpreter's bits. contracted: a product and its sum may be rounded once (SPEC.md
section 5.8)."""

_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "tanh": ("reduced_exp",),
    "exp": ("reduced_exp",),
    "sigmoid": ("tanh", "reduced_exp"),
    "scaled_tanh": ("tanh", "reduced_exp"),
    "elu": ("exp", "reduced_exp"),
    "softplus": ("exp", "reduced_exp"),
    "softmax": ("exp", "reduced_exp"),
    "normalise": ("sqrt",),
}
"""C helper → the helpers it calls."""


@dataclass(frozen=True)
class Facts:
    """What the header states. Bytes count float32; state_order: names and widths in state order."""

    weight_bytes: int
    state_bytes: int
    scratch_bytes: int
    macs_per_step: int
    layers: str
    state_order: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Emitted:
    """File name → text, with the facts, the program and how many scratch floats it needs.

    library: what multiplies matrices, None where model.c does (library.py).
    """

    files: dict[str, str]
    facts: Facts
    program: Program
    schedule: Schedule
    name: str
    tensors: tuple[Tensor, ...]
    library: str | None = None
    variant: Variant = "exact"


@cache
def templates() -> Environment:
    """The C templates; undefined names are errors."""
    return Environment(
        loader=PackageLoader("ifgo.targets.c99"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  C, and only numbers and our identifiers reach it
    )


def check_name(name: str) -> str:
    """The prefix of every symbol. Raises UsageError unless it is a short C identifier.

    A keyword is fine, it never stands alone; ifgo is not, its macros are taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name) or name == "ifgo":
        raise UsageError(
            f"{name!r} cannot prefix C symbols",
            expected="1 to 32 characters of a-z, 0-9 and _, a letter first, and not 'ifgo'",
        )
    return name


def check_variant(variant: str) -> Variant:
    """`variant`. Raises UsageError unless it is a Variant."""
    if variant == "exact" or variant == "contracted":
        return variant
    raise UsageError(f"unknown variant {variant!r}", expected="exact or contracted")


def emit(
    model: Model,
    *,
    name: str = "model",
    weights: Weights = "embedded",
    main: bool = False,
    max_steps: int | None = None,
    lengths: bool = False,
    library: str | None = None,
    variant: Variant = "exact",
) -> Emitted:
    """Print `model`. name prefixes every symbol; weights="files" takes raw tensors at run time.

    max_steps bounds the sequences of a model that cannot stream and stores whole sequences.
    lengths: whole sequences are taken, padded, with their length; a model that has a LengthsInput
    and cannot stream always is emitted so.
    library: "cmsis-dsp" computes the matrix products, with other bits (library.py).
    Raises UsageError on a bad name, an unknown library or variant or a missing max_steps,
    UnsupportedError where the model has no exact form (or no raw tensors, or no bound that a
    contracted self-test needs).
    """
    check_name(name)
    if weights not in ("embedded", "files"):
        raise UsageError(f"weights is {weights!r}", expected="embedded or files")
    check_library(library)
    if check_variant(variant) != "exact" and library is not None:
        raise UsageError(f"{library} has a way of its own to fuse", expected="variant exact")
    takes_lengths = any(isinstance(entry, LengthsInput) for entry in model.inputs)
    program = lower(model, lengths=lengths or (takes_lengths and not model.streamable))
    products = frozenset[str]()
    if library is not None:
        program, products = _gathered(program, library, weights)
    steps = _max_steps(model, program, max_steps)
    raw = raw_suffixes(model) if weights == "files" else None
    schedule = Schedule(program, steps or 1, raw, products)
    context = _context(model, program, schedule, name, raw, steps, variant)
    files = {
        "model.h": _render("model.h.j2", context),
        "model.c": _render("model.c.j2", context),
    }
    if main:
        files["main.c"] = _render("main.c.j2", context)
    tensors = tuple(context["tensors"])
    return Emitted(files, context["facts"], program, schedule, name, tensors, library, variant)


def _gathered(program: Program, library: str, weights: str) -> tuple[Program, frozenset[str]]:
    if weights != "embedded":
        raise UsageError(f"{library} needs its weights in the source", expected="weights embedded")
    gathered, products = gather(program)
    if not products:
        raise UnsupportedError(
            f"the model has no matrix product that {library} can compute",
            hint="Emit it without a library",
        )
    return gathered, products


def runner(emitted: Emitted, *, tokens: bool) -> str:
    """The program that `run_model` compiles with model.c: binary in, binary out."""
    schedule, program = emitted.schedule, emitted.program
    return _render(
        "runner.c.j2",
        {
            "p": emitted.name,
            "P": emitted.name.upper(),
            "streamable": program.streamable,
            "lengths": program.lengths,
            "vector": program.vector_output,
            "output_rows": program.output.rows,
            "input_type": "int32_t" if tokens else "float",
            "records": [
                (record, sweep.count)
                for record, sweep in zip(schedule.records, program.sweeps, strict=True)
            ],
        },
    )


def _render(template: str, context: dict[str, Any]) -> str:
    text = templates().get_template(template).render(context)
    return re.sub(r"\n{3,}", "\n\n", text)


def _max_steps(model: Model, program: Program, given: int | None) -> int | None:
    if given is not None and not 1 <= given <= limits.current().steps:
        raise UsageError(
            f"max_steps is {given}", **limits.at_most("steps", form="1 to {}", found=given)
        )
    if program.streamable:
        return None
    if program.required_steps is not None:
        return program.required_steps
    if given is None and any(b.rows is None for b in program.buffers("sequence")):
        raise UsageError(
            f"the model needs whole sequences ({model.not_streamable_because}), so its memory "
            "depends on their length",
            hint="Give the longest one: --max-steps N (max_steps= in Python)",
        )
    return given


# -- context ----------------------------------------------------------------------------------


def _context(
    model: Model,
    program: Program,
    schedule: Schedule,
    name: str,
    raw: dict[str, str] | None,
    max_steps: int | None,
    variant: Variant,
) -> dict[str, Any]:
    tokens = isinstance(model.input, TokenInput)
    found = program.buffers("state")
    library = bool(schedule.products)
    weights = [] if raw is not None else constant_arrays(program, schedule.products)
    tensors = [] if raw is None else raw_tensors(model, raw)
    values = sum(w["count"] for w in weights) + sum(t.count for t in tensors)
    carries = program.buffers("carry")
    state_size = sum(b.width for b in found)
    in_state = schedule.scratch_size if program.streamable else 0
    in_state += sum(b.width for b in carries) if program.streamable else 0
    facts = Facts(
        4 * values,
        4 * (state_size + in_state),
        4 * schedule.scratch_size,
        program.macs_per_step,
        _summary(model),
        tuple((b.name, b.width) for b in found),
    )
    sweeps = _sweeps(program, schedule, name)
    lines = [line for sweep in sweeps for line in sweep["lines"]]
    output = program.output
    return {
        "p": name,
        "P": name.upper(),
        "block": BLOCK,
        "unroll": UNROLL,
        "c": _constants(),
        "facts": facts,
        "files": raw is not None,
        "library": library,
        "tensors": tensors,
        "weights": weights,
        "functions": _functions(program, raw is not None, schedule.products),
        "places": [CANONICAL.index(gate) for gate in LSTM_LAYOUTS["raw_a"].order],
        "states": [state_fields(b) for b in found],
        "carries": [(b.name, schedule.base(b)[1], b.width, program.streamable) for b in carries],
        "state_size": state_size,
        "state_names": ", ".join(f"{b.name}[{b.width}]" for b in found) or "none",
        "empty_state": not found and not in_state and raw is None,
        "scratch_size": schedule.scratch_size,
        "sqrt_seed": f"0x{int(float32.SQRT_SEED):08x}",
        "streamable": program.streamable,
        "lengths": program.lengths,
        "takes_states": any(layer.initial.kind == "input" for layer in model.recurrent),
        "takes_lengths": any(isinstance(entry, LengthsInput) for entry in model.inputs),
        "vector": program.vector_output,
        "output_rows": output.rows,
        "input_size": 1 if tokens else model.input_size,
        "max_chars": MAX_CHARS,
        "output_size": output.width,
        "input_type": "int32_t" if tokens else "float",
        "vocabulary": model.input.vocabulary if isinstance(model.input, TokenInput) else 0,
        "checks_floats": bool(found) or not tokens,
        "max_steps": None if program.required_steps else max_steps,
        "required_steps": program.required_steps,
        "records": schedule.records,
        "trace_layout": trace_layout(program, model),
        "sweeps": sweeps,
        "uses_j": (bool(carries) and not program.streamable)
        or any("++j" in line for line in _untraced(lines)),
        "uses_t": any(sweep["count"] != "1u" or sweep["uses_t"] for sweep in sweeps),
        "traces_j": any("++j" in line for line in lines),
        "uses_m": bool(carries) or any(re.search(r"\bm\b", line) for line in lines),
        "exact": variant == "exact",
        "selftest": None
        if library
        else selftest(model, program, max_steps, exact=variant == "exact"),
    }


def _summary(model: Model) -> str:
    """The chain in words, wrapped as the lines of a C comment."""
    pairs = zip(model.layers, model.sizes(), strict=True)
    kinds = [f"input {model.input_size}", *(f"{layer.kind} {size}" for layer, size in pairs)]
    return "\n * ".join(textwrap.wrap(", ".join(kinds), 96))


def _constants() -> dict[str, Any]:
    scalars = ("LN2_HIGH", "LN2_LOW", "LOG2E", "EXP_LOW", "EXP_HIGH", "TANH_SPLIT", "TANH_LIMIT")
    found: dict[str, Any] = {name: number(getattr(float32, name)) for name in scalars}
    for name in ("EXP", "TANH", "ATANH"):
        found[name] = [number(value) for value in getattr(float32, name)]
    return found


def _functions(program: Program, raw: bool, products: frozenset[str]) -> set[str]:
    found: set[str] = set()
    for sweep in program.sweeps:
        for instruction in sweep.body:
            match instruction:
                case Affine() if instruction.terms[0][0].name in products:
                    found.add("product")
                case Affine() if raw:
                    found.add("gates" if len(instruction.terms) == 2 else "rows")
                case Affine():
                    found |= {"affine"} if instruction.result.size >= BLOCK else set()
                    found |= {"rows"} if instruction.result.size % BLOCK else set()
                case Softmax():
                    found.add("softmax")
                case Differs() if not instruction.source.buffer.tokens:
                    found.add("differs")
                case Normalise():
                    found.add("normalise")
                case Elementwise(op="clip"):
                    found.add("clip")
                case Elementwise() if instruction.activation is not None:
                    found.add(function(instruction.activation))
                case _:
                    pass
    return found | {needed for name in found for needed in _NEEDS.get(name, ())}


def _sweeps(program: Program, schedule: Schedule, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for position, sweep in enumerate(program.sweeps):
        count = "n" if sweep.count is None else f"{sweep.count}u"
        mirror = f"({count} - 1u - t)"
        if program.lengths and sweep.count is None:
            mirror = "(t < length ? length - 1u - t : t)"
        lines = [
            line.replace("@mirror", mirror).replace("@", f"{name}_")
            for line in schedule.sweep(position)
        ]
        if program.streamable:
            lines = [_at_step_zero(line) for line in lines]
        found.append(
            {
                "count": count,
                "reverse": sweep.reverse,
                "lines": lines,
                "record": schedule.records[position],
                "uses_t": any(re.search(r"\bt\b", line) for line in lines),
            }
        )
    return found


def _untraced(lines: list[str]) -> list[str]:
    """The statements that stand outside #ifdef IFGO_TRACE."""
    kept: list[str] = []
    inside = False
    for line in lines:
        inside = line == "#ifdef IFGO_TRACE" or (inside and line != "#endif")
        if not inside:
            kept.append(line)
    return kept


def _at_step_zero(line: str) -> str:
    """A statement of `step`, where x and y hold one row: t is 0."""
    line = re.sub(r"\bt(?: \* \d+u)? \+ ", "", line)
    line = re.sub(r" \+ t(?: \* \d+u)?\b", "", line)
    return re.sub(r"\[t(?: \* \d+u)?\]", "[0]", line)
