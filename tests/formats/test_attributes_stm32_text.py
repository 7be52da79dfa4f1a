"""Texts and C headers of gate blocks, one field at a time, against the recipe undone by hand."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import arrays_cases as cases
import numpy as np
import pytest
from attributes import Attributes, Change, signal

from ifgo import formats
from ifgo.model import Model

SILENT = {
    "guard": "of the preprocessor",
    "comment": "of the reader",
    "names of arrays": "their order says which they are",
}


def numbers(bias: bool) -> Any:
    """The recipe: blocks i f c o of both kernels, each (in, units) row by row, then the biases."""
    made = cases.cell(np.random.default_rng(1), 2, 3)
    flat = [made[key][g].T.reshape(-1) for key in "WR" for g in "ifgo"]
    return np.concatenate([*flat, *([cases.rows(made["b"], "ifgo")] if bias else [])])


def computed(values: Any, x: Any, inputs: int = 2, hidden: int = 3) -> Any:
    """The numbers undone, block by block."""
    sizes = [hidden * inputs] * 4 + [hidden * hidden] * 4
    rest = len(values) - sum(sizes)
    assert rest in (0, 4 * hidden)
    blocks = np.split(np.asarray(values, "f"), np.cumsum(sizes))
    bias = np.split(blocks[8], 4) if rest else [np.zeros(hidden)] * 4
    made: cases.Cell = {
        "W": {g: blocks[k].reshape(inputs, hidden).T for k, g in enumerate("ifgo")},
        "R": {g: blocks[4 + k].reshape(hidden, hidden).T for k, g in enumerate("ifgo")},
        "b": dict(zip("ifgo", bias, strict=True)),
    }
    return cases.run(made, x)


@pytest.mark.parametrize("bias", [False, True])
def test_every_number_of_a_text(tmp_path: Path, bias: bool) -> None:
    """Its sizes are an option; each number counts, and so does how many there are."""
    given, path = [str(v) for v in numbers(bias)], tmp_path / "w.txt"
    path.write_text("\n".join(given))
    found = Attributes(partial(formats.load, shape="2,3"), path, {}, signal)
    for k in range(len(given)):
        for value in ("0.5", "-0.25", "1e-3", "nan", "inf", "x", "", "1,5", "0x10", "1 2", "1e39"):
            lines = [*given[:k], value, *given[k + 1 :]]
            path.write_text("\n".join(lines))
            tokens = "\n".join(lines).replace(",", " ").split()

            def oracle(x: Any, tokens: list[str] = tokens) -> Any:
                values = [float(token) for token in tokens]
                assert np.isfinite(np.array(values, "f")).all()
                return computed(values, x)

            found.judge(Change(f"number {k}", value, path, oracle))
    found.finish(f"number {k}" for k in range(len(given)))


def test_the_shape_is_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.txt"
    path.write_text("\n".join(map(str, numbers(bias=True))))
    for inputs in range(6):
        for hidden in range(6):

            def read(place: Path, shape: str = f"{inputs},{hidden}") -> Model:
                return formats.load(place, shape=shape)

            found = Attributes(partial(formats.load, shape="2,3"), path, {}, signal)
            found.read = read
            oracle = partial(computed, numbers(bias=True), inputs=inputs, hidden=hidden)
            found.judge(Change("shape", f"{inputs},{hidden}", path, oracle))
            fits = 4 * hidden * (inputs + hidden)
            assert bool(found.refused) == (
                min(inputs, hidden) < 1 or 72 - fits not in (0, 4 * hidden)
            )


def test_every_field_of_a_header(tmp_path: Path) -> None:
    values = numbers(bias=True)
    source = tmp_path / "w.txt"
    source.write_text("\n".join(map(str, values)))
    path = tmp_path / "w.h"
    formats.save(formats.load(source, shape="2,3"), path, "stm32_text")
    text = path.read_text()
    found = Attributes(formats.load, path, SILENT, signal)
    parts = {
        "LSTM_INPUT_SIZE": r"(?<=LSTM_INPUT_SIZE )\d+",
        "LSTM_HIDDEN_SIZE": r"(?<=LSTM_HIDDEN_SIZE )\d+",
        "LSTM_BIASES": r"(?<=LSTM_BIASES )\d+",
        "guard": r"LSTM_WEIGHTS_H",
        "comment": r"Gate blocks [^*]*",
        "names of arrays": r"lstm_w(?=in|rec)",
        "type": r"float(?= lstm)",
        "first number": r"(?<=\{\n    )[-+.e\d]+f",
        "brace": r"\};",
    }
    others = ("0", "1", "2", "3", "4", "12", "-1", "2.0", "x", "", "0.5f", "99", "{ 1 }")
    types = ("double", "const float", "int", "int8_t", "unsigned char", "long", "uint16_t", "bool")
    for name, pattern in parts.items():
        assert re.search(pattern, text)
        for value in types if name == "type" else others:
            changed = re.sub(pattern, value, text, count=1)
            path.write_text(changed)

            def oracle(x: Any, changed: str = changed) -> Any:
                said = re.findall(r"define (\w+) (\S+)", changed)
                assert [int(v) for _, v in said] == [2, 3, 12]
                flat = changed.replace("{ 1 }", "1")  # as C has it: braces around one number
                blocks = re.findall(r"\[\d+\] = \{\n([^{}]*)\};", flat)
                assert [b.count(",") + 1 for b in blocks] == [24, 36, 12]
                kinds = re.findall(r"static const (.*) lstm", changed)
                assert set(kinds) <= {"float", "const float", "double"}
                numbers = re.findall(r"[^\s,]+", " ".join(blocks))
                return computed([float(n.removesuffix("f")) for n in numbers], x)

            found.judge(Change(name, value, path, oracle))
    found.finish(parts)
