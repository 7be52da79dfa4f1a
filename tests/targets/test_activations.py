"""The exact activations: over every float32 in C, and NumPy against C bit for bit."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifgo.activations import PARAMETERS, Activation
from ifgo.model import ActivationLayer, FeatureInput, Model, Recurrent
from ifgo.reference import float32
from ifgo.targets import c99
from ifgo.verification import bounds

BOUND = 1.2e-7
"""What the specification promises of tanh and sigmoid, absolute."""

RANGES = (
    ("0", "3f000000"),
    ("3f000000", "40000000"),
    ("40000000", "41000000"),
    ("41000000", "7f800000"),
)
"""Bits of the non-negative floats, infinity included; neighbours share an end."""


def layer(activation: Activation) -> Model:
    return Model((FeatureInput(1),), (ActivationLayer("a", activation),))


@pytest.mark.parametrize("variant", ["exact", "contracted"])
def test_tanh_and_sigmoid_over_every_float32(variant: Any, cc: str, tmp_path: Path) -> None:
    """Contracted: with every product and sum fused that this compiler and CPU can."""
    source = Path(__file__).with_name("every_float.c.in").read_text()
    model = Model(
        (FeatureInput(1),),
        (ActivationLayer("t", Activation("tanh")), ActivationLayer("s", Activation("sigmoid"))),
    )
    for name, text in c99.emit(model, variant=variant).files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "every.c").write_text(source)
    program = tmp_path / "every"
    native = ["-march=native"] if variant == "contracted" else []
    build = [cc, "-std=c99", "-O2", *native, "-o", program, tmp_path / "every.c", "-lm"]
    subprocess.run(build, check=True, cwd=tmp_path)

    def run(ends: tuple[str, str]) -> str:
        done = subprocess.run([program, *ends], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout

    with ThreadPoolExecutor(2) as pool:
        rows = [[float(v) for v in out.split()] for out in pool.map(run, RANGES)]
    tanh_error, sigmoid_error = np.max(rows, axis=0)
    allowed = {"exact": bounds.IFGO, "contracted": bounds.CONTRACTED}[variant]
    assert tanh_error <= allowed.tanh <= BOUND
    assert sigmoid_error <= allowed.sigmoid <= BOUND


PARAMETER_VALUES = {"alpha": 0.7, "beta": 0.3}


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "softmax"])
def test_numpy_and_c_agree_on_floats_of_every_size(name: str, cc: str, tmp_path: Path) -> None:
    values = {parameter: PARAMETER_VALUES[parameter] for parameter in PARAMETERS[name]}
    activation = Activation(name, **values)
    x = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    built = c99.build(layer(activation), tmp_path, compiler=cc)
    y, _, _ = built.run(x.reshape(1, -1, 1), {})
    with np.errstate(over="ignore", invalid="ignore"):
        want = float32.apply(activation, x)
    assert (same(y.reshape(-1)) == same(want)).all()


def test_exp_is_accurate_and_reaches_the_denormals() -> None:
    x = np.linspace(-87, 88, 400_001).astype(np.float32)
    error = np.abs(float32.exp(x) / np.exp(x.astype(np.float64)) - 1)
    assert error.max() <= 2 * 2.0**-24 * 1.2
    assert float32.exp(np.float32([-100.0]))[0] == np.exp(-100.0).astype(np.float32)
    assert float32.exp(np.float32([-200.0]))[0] == 0.0


def same(array: Any) -> Any:
    return np.where(np.isnan(array), np.uint32(0x7FC00000), array.view(np.uint32))


def test_a_cell_of_overflowing_weights_has_no_undefined_conversion(
    compiler: str, tmp_path: Path
) -> None:
    """Sums that overflow to infinity, or cancel to NaN, never become integers."""
    from ifgo.model import LSTMCell

    huge = np.full((8, 1), 3e38, dtype=np.float32)
    cell = LSTMCell(huge, np.full((8, 2), -3e38, dtype=np.float32))
    model = Model((FeatureInput(1),), (Recurrent("r", cell),))
    flags = (
        "-std=c99",
        "-O1",
        "-g",
        "-fsanitize=undefined,float-cast-overflow",
        "-fno-sanitize-recover=all",
    )
    built = c99.build(model, tmp_path, compiler=compiler, flags=flags)
    state = {"h0": np.full((1, 1, 2), 2.0), "c0": np.ones((1, 1, 2))}
    y, _, _ = built.run(np.full((1, 1, 1), 1e3, np.float32), state)
    assert np.isnan(y).all()
