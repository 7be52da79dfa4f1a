"""-DIFGO_TRACE for somebody who has model.h and a buffer: what it says lies where is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ifgo import states
from ifgo.lower import lower
from ifgo.model import Dense, FeatureInput, LSTMCell, Model, Recurrent
from ifgo.reference.interpret import execute
from ifgo.targets import c99

STEPS = 5

CALLER = """
#include <stdio.h>
#include "model.h"
static const float x[] = {@x};
static float y[@steps * MODEL_OUTPUT_SIZE], trace[@steps * MODEL_TRACE + 1];
int main(void) {
    static model_state s;
    @locals
    size_t k;
    if (model_init(&s) != MODEL_OK) return 1;
    s.trace = trace;
    @call
    if (s.trace != trace + @steps * MODEL_TRACE) return 2;
    for (k = 0; k < @steps * MODEL_TRACE; ++k) printf("%a\\n", (double)trace[k]);
    return 0;
}
"""
STREAM = "for (k = 0; k < @steps; ++k) if (model_step(&s, x + 2 * k, y)) return 3;"
SEQUENCE = "if (model_sequence(&s, x, @steps, y, scratch)) return 3;"


def model(both: bool) -> Model:
    random = np.random.default_rng(4)

    def array(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) * 0.5).astype(np.float32)

    first = [LSTMCell(array(12, 2), array(12, 3), array(12)) for _ in range(1 + both)]
    layers = (Recurrent("a", *first), Dense("d", array(2, 3 * (1 + both)), array(2)))
    return Model((FeatureInput(2),), layers)


@pytest.mark.parametrize("both", [False, True])
def test_the_trace_lies_as_the_header_says(both: bool, cc: str, tmp_path: Path) -> None:
    given = model(both)
    x = np.random.default_rng(1).normal(size=(1, STEPS, 2)).astype(np.float32)
    emitted = c99.emit(given, max_steps=STEPS)
    for name, text in emitted.files.items():
        (tmp_path / name).write_text(text)
    text = CALLER.replace("@call", SEQUENCE if both else STREAM)
    text = text.replace("@locals", "static float scratch[MODEL_SCRATCH_SIZE];" if both else "")
    numbers = ", ".join(f"{float(value).hex()}f" for value in x.reshape(-1))
    text = text.replace("@x", numbers).replace("@steps", f"{STEPS}u")
    (tmp_path / "caller.c").write_text(text)
    command = [cc, "-std=c99", "-O2", "-DIFGO_TRACE", "caller.c", "model.c", "-o", "caller"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run([tmp_path / "caller"], capture_output=True, text=True, check=True)
    values = np.array([float.fromhex(line) for line in done.stdout.split()], dtype=np.float32)

    comment = emitted.files["model.h"].partition("#ifdef IFGO_TRACE\n/*")[2].partition("*/")[0]
    sweeps: list[tuple[bool, list[tuple[str, str, str, int]]]] = []
    where = ("", "")
    for line in comment.splitlines():
        if re.search(r"floats( each)?:$", line):
            sweeps.append(("down to 0" in line, []))
        elif found := re.search(r"layer (\d) (?:lstm|dense) ?(\w*):", line):
            where = (given.layers[int(found[1]) - 1].name, found[2])
        for part, width in re.findall(r"(\w+)\[(\d+)\]", line):
            sweeps[-1][1].append((*where, part, int(width)))

    want = execute(lower(given), x, states.initial(given, 1, np.float32), trace=True).traces
    assert sum(len(parts) for _, parts in sweeps) == sum(
        len(parts) for directions in want.values() for parts in directions.values()
    )
    at = 0
    for reverse, parts in sweeps:
        for t in reversed(range(STEPS)) if reverse else range(STEPS):
            for layer, direction, part, width in parts:
                expected = want[layer][direction][part][0, t]
                assert values[at : at + width].tobytes() == expected.tobytes(), (layer, part, t)
                at += width
    assert at == values.size
