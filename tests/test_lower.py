"""What lowering refuses, what folding rounds, and that the interpreter guards its arithmetic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifgo.activations import SIGMOID, SOFTMAX, TANH, Activation
from ifgo.errors import UnsupportedError, UsageError
from ifgo.folding import exact_float32, folded_cell
from ifgo.lower import lower
from ifgo.model import (
    Dense,
    FeatureInput,
    Flatten,
    LastStep,
    LSTMCell,
    Masking,
    Model,
    Recurrent,
    RepeatVector,
)
from ifgo.program import Affine
from ifgo.reference import float32

RANDOM = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


def cell(**options: Any) -> LSTMCell:
    arrays = {"weight_ih": draw(8, 3), "weight_hh": draw(8, 2), "bias_ih": draw(8)}
    return LSTMCell(**(arrays | options))


def chain(*layers: Any) -> Model:
    return Model((FeatureInput(3),), layers)


def test_unknown_numerics() -> None:
    with pytest.raises(UsageError) as caught:
        lower(chain(Recurrent("r", cell())), "bfloat16")
    assert str(caught.value) == "unknown numerics 'bfloat16', expected exact"


def test_float64_weights_that_are_float32_values_are_taken() -> None:
    wide = cell(weight_ih=draw(8, 3).astype(np.float64))
    x = draw(1, 4, 3)
    narrow = chain(Recurrent("r", cell(weight_ih=wide.weight_ih.astype(np.float32))))
    assert lower(chain(Recurrent("r", wide))).sweeps
    assert narrow.run(x, on="exact")[0].dtype == np.float32


def test_float64_weights_that_would_round_are_refused() -> None:
    weight = draw(8, 3).astype(np.float64)
    weight[0, :2] += 1e-12
    with pytest.raises(UnsupportedError) as caught:
        lower(chain(Recurrent("r", cell(weight_ih=weight))))
    assert str(caught.value) == (
        "layer r, forward, weight_ih: 2 of 24 float64 weights are no float32 values. Round them "
        "once and knowingly: ifgo convert SRC DST --to-dtype float32 --allow-lossy dtype "
        "(model.astype('float32') in Python)"
    )


def test_float16_and_negative_zero_are_exact() -> None:
    half = np.array([-0.0, 1.5, 6e-8], dtype=np.float16)
    narrow = exact_float32(half, "x")
    assert narrow.dtype == np.float32
    assert np.signbit(narrow[0])
    assert (narrow.astype(np.float64) == half.astype(np.float64)).all()


def test_flatten_of_a_fixed_sequence_of_another_length() -> None:
    model = chain(
        Recurrent("r", cell()), LastStep("l"), RepeatVector("again", 4), Flatten("flat", 5)
    )
    with pytest.raises(UnsupportedError) as caught:
        lower(model)
    assert str(caught.value) == "layer flat: gets 4 steps, expected exactly 5"


def test_flatten_of_the_input_fixes_its_length() -> None:
    program = lower(chain(Recurrent("r", cell()), Flatten("flat", 5), Dense("d", draw(1, 10))))
    assert program.required_steps == 5


def test_biases_are_added_first_then_the_forget_bias() -> None:
    one, two = draw(8), draw(8)
    _, _, bias = folded_cell(cell(bias_ih=one, bias_hh=two, forget_bias=0.1), "r")
    want = one + two
    want[2:4] += np.float32(0.1)
    assert bias is not None
    assert (bias == want).all()


def test_no_bias_starts_from_zero_and_a_forget_bias_alone_is_one() -> None:
    assert folded_cell(cell(bias_ih=None), "r")[2] is None
    bias = folded_cell(cell(bias_ih=None, forget_bias=1.0), "r")[2]
    assert bias is not None
    assert bias.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_sums_run_in_ascending_order_without_fusing() -> None:
    """1e8 + 1 − 1e8 is 0 in ascending float32 order, 1 in any other."""
    weight = np.array([[1e8, 1.0, -1e8]], dtype=np.float32)
    y, _ = Model((FeatureInput(3),), (Dense("d", weight),)).run(np.ones((1, 1, 3)), on="exact")
    assert y.item() == 0.0
    assert any(isinstance(i, Affine) for i in lower(chain(Dense("d", weight))).sweeps[0].body)


def test_constants_that_leave_float32_are_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        lower(chain(Recurrent("r", cell(clip_z=1e-50))))
    assert str(caught.value) == (
        "a clip is 1e-50, which is 0 in float32, expected a value that float32 can hold. "
        "Run the model on truth instead"
    )
    steep = Activation("leaky_relu", 1e39)
    with pytest.raises(UnsupportedError, match=r"^a parameter of activation leaky_relu\(1e\+39\)"):
        lower(chain(Recurrent("r", cell(activations=(SIGMOID, steep, TANH)))))


@pytest.mark.parametrize("on", ["engine", "exact", "c99"])
def test_a_flatten_takes_one_length_only(on: str) -> None:
    model = chain(Recurrent("r", cell()), Flatten("flat", 5))
    for steps in (4, 6):
        with pytest.raises(UnsupportedError) as caught:
            model.run(draw(1, steps, 3), on=on)
        assert str(caught.value) == (
            f"x has {steps} steps, expected exactly 5, the number a Flatten layer takes"
        )


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_masking_compares_float32_values(value: float) -> None:
    x = draw(1, 6, 3)
    x[0, 2] = x[0, 4] = np.float32(value)
    model = chain(Masking("m", value), Recurrent("r", cell()))
    y, truth = (model.run(x, on=on)[0] for on in ("exact", "truth"))
    assert (y[0, 2] == y[0, 1]).all()
    assert np.abs(y - truth).max() < 1e-5


@pytest.mark.parametrize("on", ["exact", "c99"])
def test_a_nan_is_never_hidden(on: str) -> None:
    """Sums that overflow and cancel end in NaN, not in a plausible number."""
    huge = np.full((8, 3), 3e38, dtype=np.float32)
    hidden = np.full((8, 2), -3e38, dtype=np.float32)
    state = {"h0": np.full((1, 1, 2), 2.0), "c0": np.ones((1, 1, 2))}
    head = Dense("d", np.ones((2, 2), np.float32), None, SOFTMAX)
    model = chain(Recurrent("r", cell(weight_ih=huge, weight_hh=hidden)), head)
    y, _ = model.run(np.full((1, 1, 3), 2, np.float32), state, on=on)
    assert np.isnan(y).all()


def test_sqrt_is_within_one_ulp() -> None:
    x = np.exp(np.linspace(np.log(1e-37), np.log(1e37), 300_001)).astype(np.float32)
    root = float32.sqrt(x)
    true = np.sqrt(x.astype(np.float64))
    assert (np.abs(root - true) <= np.spacing(true.astype(np.float32)).astype(np.float64)).all()


def test_a_process_that_flushes_denormals_is_refused(cc: str, tmp_path: Path) -> None:
    """Loading any library linked with -ffast-math sets the mode for the whole process."""
    (tmp_path / "fast.c").write_text("int ifgo_nothing(void) { return 0; }\n")
    library = tmp_path / "fast.so"
    gcc = [cc, "-shared", "-fPIC", "-O2", "-ffast-math", "-o", library, tmp_path / "fast.c"]
    subprocess.run(gcc, check=True)
    script = f"""
import ctypes, numpy as np
import ifgo
from ifgo.model import Dense, FeatureInput, Model
model = Model((FeatureInput(1),), (Dense("d", np.ones((1, 1), np.float32)),))
model.run(np.ones((1, 1, 1)), on="exact")
ctypes.CDLL({str(library)!r})
try:
    model.run(np.ones((1, 1, 1)), on="exact")
except ifgo.ToolError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        "this process flushes denormals to zero, so exact float32 cannot be computed. Some "
        "imported library was linked with -ffast-math; run ifgo without it"
    )
