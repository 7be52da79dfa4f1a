"""Random legal models over every option: interpreter, truth's way through time and C agree to the
bit, each step lies within its local bound, and descriptions and files hold the model.

A failure names its seeds: `draw(seed)` in model_draws.py is the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch import build_all
from glue import glued
from model_draws import Drawn, draw

from ifgo import formats
from ifgo.activations import PARAMETERS
from ifgo.describe import describe, table
from ifgo.errors import UnsupportedError
from ifgo.lower import lower
from ifgo.model import LengthsInput, LSTMCell, Recurrent, Residual, walk
from ifgo.reference.interpret import Execution, execute
from ifgo.verification import compare

CHUNK = 20
DEFAULT = range(0, 160, CHUNK)
LONG = range(1000, 4000, 10 * CHUNK)
FILES = range(60)

PLAIN = (("-O2",), ("-O3", "-march=native"), ("-O1",), ("-Os",))
"""Options of the plain build, by chunk in turn; traced builds are compiled with -O0."""


def bits(array: Any) -> Any:
    """Float32 as integers, every NaN alike (its pattern is outside the promise)."""
    whole = np.ascontiguousarray(array, dtype=np.float32)
    return np.where(np.isnan(whole), np.uint32(0x7FC00000), whole.view(np.uint32))


def same(have: Any, want: Any) -> bool:
    return have.shape == want.shape and bool((bits(have) == bits(want)).all())


def same_ends(y: Any, state: Any, want: Any) -> bool:
    return same(y, want.y) and all(same(state[key], want.state[key]) for key in want.state)


def executed(drawn: Drawn, *, trace: bool = False) -> Execution:
    program = lower(drawn.model, lengths=drawn.lengths is not None)
    return execute(program, drawn.x, drawn.start, drawn.lengths, trace=trace)


def wrong_in_c(
    drawn: list[Drawn], folder: Path, compiler: str, flags: tuple[str, ...], *, trace: bool
) -> Iterator[int]:
    """Seeds whose emitted C differs from the interpreter in an output, a state or a trace."""
    folder.mkdir()
    models = [(d.model, d.x.shape[1], d.lengths is not None) for d in drawn]
    built = build_all(models, folder, compiler=compiler, flags=flags, trace=trace)
    for one, program in zip(drawn, built, strict=True):
        want = executed(one, trace=trace)
        y, state, traces = program.run(one.x, one.start, one.lengths)
        right = same_ends(y, state, want)
        for layer, directions in want.traces.items():
            for direction, parts in directions.items():
                found = traces[layer][direction]
                right = right and all(same(found[part], parts[part]) for part in parts)
        if not right:
            yield one.seed


def hold_in_c(seeds: range, folder: Path, compiler: str, flags: tuple[str, ...]) -> None:
    drawn = [draw(seed) for seed in seeds]
    wrong = {
        "plain": list(wrong_in_c(drawn, folder / "plain", compiler, flags, trace=False)),
        "traced": list(wrong_in_c(drawn, folder / "traced", compiler, ("-O0",), trace=True)),
    }
    assert wrong == {"plain": [], "traced": []}


@pytest.mark.parametrize("first", DEFAULT)
def test_c_has_the_interpreters_bits(first: int, cc: str, tmp_path: Path) -> None:
    flags = PLAIN[first // CHUNK % len(PLAIN)]
    hold_in_c(range(first, first + CHUNK), tmp_path, cc, flags)


@pytest.mark.slow
@pytest.mark.parametrize("first", LONG)
def test_c_has_the_interpreters_bits_long(first: int, compiler: str, tmp_path: Path) -> None:
    flags = PLAIN[first // CHUNK // 10 % len(PLAIN)]
    hold_in_c(range(first, first + LONG.step), tmp_path, compiler, flags)


def hold_in_python(seeds: range) -> None:
    astray: list[int] = []
    unbounded: list[tuple[int, str]] = []
    judged = 0
    for seed in seeds:
        drawn = draw(seed)
        done = executed(drawn, trace=True)
        if not same_ends(
            done.y, done.state, glued(drawn.model, drawn.x, drawn.start, drawn.lengths)
        ):
            astray.append(seed)
        if overflows(done):
            continue
        findings = compare.traced_against_truth(drawn.model, done.traces)
        within = not any("may overflow float32" in f.note for f in findings)
        judged += within
        unbounded += [
            (seed, str(f)) for f in findings if not (f.holds and (f.compared or not within))
        ]
    assert (astray, unbounded) == ([], [])
    assert judged > 0.9 * len(seeds)


def overflows(done: Execution) -> bool:
    """Whether an intermediate left float32; float64 then has another meaning (SPEC.md 3.5)."""
    parts = [p for layer in done.traces.values() for d in layer.values() for p in d.values()]
    return not all(np.isfinite(part).all() for part in parts)


def test_truths_way_through_time_and_the_local_bounds() -> None:
    hold_in_python(range(DEFAULT.start, DEFAULT.stop))


@pytest.mark.slow
def test_truths_way_through_time_and_the_local_bounds_long() -> None:
    hold_in_python(range(LONG.start, LONG.stop))


def test_descriptions_and_files_hold_the_models(tmp_path: Path) -> None:
    exported = Counter[bool]()
    for seed in FILES:
        drawn = draw(seed)
        model = drawn.model
        facts = describe(model)
        assert [row["name"] for row in facts["layers"]] == [la.name for la in model.layers], seed
        assert facts["parameters"] == model.parameters, seed
        assert all(layer.name in table(model, width=200) for layer in model.layers), seed
        first, second = tmp_path / "first.ifgo", tmp_path / "second.ifgo"
        assert formats.save(model, first).exact, seed
        formats.save(formats.load(first), second)
        assert first.read_bytes() == second.read_bytes(), seed
        exported[exports(drawn, tmp_path / "model.onnx")] += 1
    assert exported[False] > 0.5 * len(FILES)


def test_onnx_files_compute_what_the_models_do(tmp_path: Path) -> None:
    held = [exports(draw(seed, onnx=True), tmp_path / "model.onnx") for seed in FILES]
    assert sum(held) > 0.9 * len(FILES)


def exports(drawn: Drawn, path: Path) -> bool:
    """Whether ONNX holds the model: it then computes the same; else the refusal names a part."""
    try:
        report = formats.save(drawn.model, path)
    except UnsupportedError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        named = [
            *(la.name for la in walk(drawn.model.layers)),
            *(e.name for e in drawn.model.inputs),
        ]
        assert any(name in refusal for name in named) or "dtype" in refusal, (drawn.seed, refusal)
        return False
    assert not report.lost, drawn.seed
    if drawn.model.recurrent:  # which is what files are read around
        declared = any(isinstance(entry, LengthsInput) for entry in drawn.model.inputs)
        lengths = drawn.lengths if declared else None
        y, _ = formats.load(path).run(drawn.x, drawn.start, lengths=lengths, on="exact")
        want, _ = drawn.model.run(drawn.x, drawn.start, lengths=lengths, on="exact")
        rounded = np.isfinite(y) & np.isfinite(want)  # an absent peephole is 0, and 0·inf is NaN
        assert (y == want)[rounded].all(), drawn.seed
        assert rounded.mean() > 0.5 or overflows(executed(drawn, trace=True)), drawn.seed
    return True


def test_every_option_is_drawn() -> None:
    """The default seeds reach every field of a cell and of a recurrent layer, and every layer."""
    seen = Counter[str]()
    for seed in range(DEFAULT.start, DEFAULT.stop):
        drawn = draw(seed)
        seen[f"lengths {drawn.lengths is not None}"] += 1
        seen[f"streamable {drawn.model.streamable}"] += 1
        for layer in walk(drawn.model.layers):
            seen[layer.kind] += 1
            if isinstance(layer, Residual):
                seen |= {f"{inner.kind} inside": 1 for inner in layer.layers}
            if not isinstance(layer, Recurrent):
                continue
            seen[f"initial {layer.initial.kind}"] += 1
            for name in ("backward", "go_backwards", "zero_masked", "stateful"):
                seen[f"{name} {bool(getattr(layer, name))}"] += 1
            if layer.directions == 2:
                seen[f"merge {layer.merge}"] += 1
            for cell in layer.cells.values():
                seen[f"coupling {cell.coupling}"] += 1
                for activation in cell.activations:
                    seen[f"gate {activation.name}"] += 1
                for field in fields(LSTMCell):
                    seen[f"{field.name} {getattr(cell, field.name) is not None}"] += 1
    absent = {f"gate {name}" for name in PARAMETERS if name != "softmax"}
    absent |= {"lengths True", "lengths False", "streamable True", "streamable False"}
    absent |= {f"initial {kind}" for kind in ("zero", "constant", "input")}
    absent |= {f"merge {way}" for way in ("concat", "sum", "mul", "ave")}
    absent |= {f"coupling {way}" for way in (None, "f=1-i", "i=1-f")}
    absent |= {f"{name} True" for name in ("backward", "go_backwards", "zero_masked", "stateful")}
    absent |= {f"{field.name} True" for field in fields(LSTMCell)}
    kinds = "lstm dense embedding activation dropout batch_norm scale masking last_step"
    kinds += " hidden_as_sequence repeat_vector flatten residual"
    absent |= {*kinds.split(), "lstm inside", "masking inside", "residual inside"}
    assert absent - set(seen) == set()
