"""The emitted C under AddressSanitizer and UndefinedBehaviorSanitizer: cases, traces, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from static_cases import ALL, FEW, Emission, call

from ifgo import states
from ifgo.lower import lower
from ifgo.model import TokenInput
from ifgo.reference.interpret import execute
from ifgo.targets import c99

FLAGS = (
    *("-std=c99", "-O1", "-g", "-fno-sanitize-recover=all"),
    "-fsanitize=address,undefined,float-cast-overflow,float-divide-by-zero",
)


def check(emission: Emission, folder: Path, compiler: str) -> None:
    """With traces, on ordinary, saturating and zero input, the interpreter's bits."""
    model = emission.model
    built = c99.build(model, folder, compiler=compiler, flags=FLAGS, max_steps=9, trace=True)
    random = np.random.default_rng(5)
    if isinstance(model.input, TokenInput):
        x = random.integers(0, model.input.vocabulary, (3, 9)).astype(np.int32)
    else:
        x = random.normal(size=(3, 9, model.input_size)).astype(np.float32)
        x[1], x[2] = x[1] * np.float32(1e3), 0.0
    start = states.initial(model, 3, np.float32)
    y, _, _ = built.run(x, start)
    assert y.tobytes() == execute(lower(model), x, start).y.tobytes()


by_embedded = pytest.mark.parametrize(
    "emission",
    [emission for emission in FEW if emission.weights == "embedded"],
    ids=lambda emission: emission.name,
)


@by_embedded
def test_cases_and_traces(emission: Emission, compiler: str, tmp_path: Path) -> None:
    check(emission, tmp_path, compiler)


@pytest.mark.slow
@pytest.mark.parametrize(
    "emission",
    [emission for emission in ALL if emission.weights == "embedded"],
    ids=lambda emission: emission.name,
)
def test_every_case_and_its_traces(emission: Emission, compiler: str, tmp_path: Path) -> None:
    check(emission, tmp_path, compiler)


# -- refusals, with memory of exactly the stated size -------------------------------------------

STREAM = """
    expect(model_step(NULL, x, y), MODEL_E_NULL);
    expect(model_step(s, NULL, y), MODEL_E_NULL);
    expect(model_step(s, x, NULL), MODEL_E_NULL);
    BAD;
    expect(model_step(s, x, y), BAD_STATUS);
    GOOD;
    expect(model_step(s, x, y), MODEL_OK);
"""

SEQUENCE = """
    expect(model_sequence(NULL, x, 1u, y, m), MODEL_E_NULL);
    expect(model_sequence(s, NULL, 1u, y, m), MODEL_E_NULL);
    expect(model_sequence(s, x, 1u, NULL, m), MODEL_E_NULL);
    expect(model_sequence(s, x, 1u, y, NULL), MODEL_E_NULL);
    expect(model_sequence(s, x, 0u, y, m), MODEL_E_STEPS);
    expect(model_sequence(s, x, (size_t)-1, y, m), MODEL_E_STEPS);
    BAD;
    expect(model_sequence(s, x, 1u, y, m), BAD_STATUS);
    GOOD;
    expect(model_sequence(s, x, 1u, y, m), MODEL_OK);
"""

DRIVER = """
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "model.h"
#ifndef MODEL_SCRATCH_SIZE
#define MODEL_SCRATCH_SIZE 0u
#endif
static void expect(int status, int wanted) {{
    if (status != wanted) {{
        printf("status %d, expected %d\\n", status, wanted);
        exit(1);
    }}
}}
int main(void) {{
    model_state *s = malloc(sizeof *s);
    {kind} *x = calloc(MODEL_INPUT_SIZE, sizeof *x);
    float *y = malloc({rows} * MODEL_OUTPUT_SIZE * sizeof *y);
    float *m = malloc(MODEL_SCRATCH_SIZE * sizeof *m + 1u);
    float *kept = malloc(MODEL_STATE_SIZE * sizeof *kept);
    expect(model_init(NULL), MODEL_E_NULL);
    expect(model_init(s), MODEL_OK);
    expect(model_selftest(s), MODEL_OK);
    expect(model_reset(NULL), MODEL_E_NULL);
    expect(model_get_state(NULL, kept), MODEL_E_NULL);
    expect(model_get_state(s, NULL), MODEL_E_NULL);
    expect(model_get_state(s, kept), MODEL_OK);
    expect(model_set_state(NULL, kept), MODEL_E_NULL);
    expect(model_set_state(s, NULL), MODEL_E_NULL);
    expect(model_set_state(s, kept), MODEL_OK);
    kept[MODEL_STATE_SIZE - 1u] = NAN;
    expect(model_set_state(s, kept), MODEL_E_NONFINITE);
    {calls}
    free(s); free(x); free(y); free(m); free(kept);
    return 0;
}}
"""


@by_embedded
def test_refusals_touch_nothing_outside(emission: Emission, compiler: str, tmp_path: Path) -> None:
    model = emission.model
    emitted = emission.write(tmp_path)
    tokens = isinstance(model.input, TokenInput)
    calls = STREAM if model.streamable else SEQUENCE
    bad = ("x[0] = -1", "MODEL_E_TOKEN") if tokens else ("x[0] = INFINITY", "MODEL_E_NONFINITE")
    calls = calls.replace("BAD_STATUS", bad[1]).replace("BAD", bad[0]).replace("GOOD", "x[0] = 0")
    rows = emitted.program.output.rows or 1
    kind = "int32_t" if tokens else "float"
    (tmp_path / "driver.c").write_text(DRIVER.format(kind=kind, rows=f"{rows}u", calls=calls))
    command = (compiler, *FLAGS, "-DIFGO_SELFTEST", "driver.c", "model.c", "-o", "driver")
    built = call(*command, folder=tmp_path)
    assert built.returncode == 0, built.stderr
    ran = call(tmp_path / "driver", folder=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_an_output_of_the_wrong_size_is_found(compiler: str, tmp_path: Path) -> None:
    emission = FEW[0]
    emission.write(tmp_path)
    text = DRIVER.format(kind="float", rows="0u", calls="(void)model_step(s, x, y);")
    (tmp_path / "driver.c").write_text(text)
    command = (compiler, *FLAGS, "-DIFGO_SELFTEST", "driver.c", "model.c", "-o", "driver")
    assert call(*command, folder=tmp_path).returncode == 0
    ran = call(tmp_path / "driver", folder=tmp_path)
    assert ran.returncode != 0
    assert "heap-buffer-overflow" in ran.stderr
