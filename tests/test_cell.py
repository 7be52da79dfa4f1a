"""One cell: what it holds, what it counts, and every combination that it refuses."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from core_cases import cell, ones, refused, weights
from raising import raising

from ifgo import limits
from ifgo.activations import SIGMOID, SOFTMAX, TANH
from ifgo.errors import ModelError, UsageError
from ifgo.model import LayerNorm, LSTMCell, MatrixNorm


def norm(rows: int = 12, **options: Any) -> MatrixNorm:
    parts: dict[str, Any] = {"scale": ones(rows), "mean": ones(rows), "variance": ones(rows)}
    return MatrixNorm(**(parts | {"epsilon": 1e-6, "epsilon_outside": True} | options))


# -- what it holds --------------------------------------------------------------------------------


def test_sizes() -> None:
    plain, projected = cell(2, 3), cell(5, 3, 2)
    assert (plain.input_size, plain.hidden_size, plain.output_size) == (2, 3, 3)
    assert (projected.input_size, projected.hidden_size, projected.output_size) == (5, 3, 2)


def test_counts() -> None:
    """4H(I+P) multiply-accumulates, plus P·H; parameters by the lengths of the arrays."""
    assert (cell(2, 3).macs, cell(2, 3).parameters) == (4 * 3 * (2 + 3), 12 * 2 + 12 * 3 + 24)
    projected = cell(5, 3, 2, bias_hr=ones(2), peephole=ones(3, 3))
    assert projected.macs == 4 * 3 * (5 + 2) + 2 * 3
    assert projected.parameters == 12 * 5 + 12 * 2 + 24 + 6 + 2 + 9


def test_arrays_by_name() -> None:
    full = cell(2, 3, 2, bias_hr=ones(2), peephole=ones(3, 3), layer_norm=LayerNorm(ones(4, 3)))
    assert {name: array.shape for name, array in full.arrays.items()} == {
        "weight_ih": (12, 2),
        "weight_hh": (12, 2),
        "bias_ih": (12,),
        "bias_hh": (12,),
        "weight_hr": (2, 3),
        "bias_hr": (2,),
        "peephole": (3, 3),
        "layer_norm.weight": (4, 3),
    }
    darknet = cell(2, 3, bias_ih=None, bias_hh=None, input_norm=norm(), hidden_norm=norm())
    assert list(darknet.arrays) == [
        "weight_ih",
        "weight_hh",
        "input_norm.scale",
        "input_norm.mean",
        "input_norm.variance",
        "hidden_norm.scale",
        "hidden_norm.mean",
        "hidden_norm.variance",
    ]


def test_arrays_are_copies_that_cannot_change() -> None:
    source = weights(0, 12, 2)
    made = cell(weight_ih=source)
    source[0, 0] = 9
    assert made.weight_ih[0, 0] != 9
    for array in cell(2, 3, 2, peephole=ones(3, 3), bias_hr=ones(2)).arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_arrays_are_in_c_order() -> None:
    made = cell(weight_ih=np.asfortranarray(weights(0, 12, 2)))
    assert made.weight_ih.flags.c_contiguous
    assert (made.weight_ih == weights(0, 12, 2)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_dtypes_are_kept(dtype: Any) -> None:
    made = LSTMCell(ones(4, 1, dtype=dtype), ones(4, 1, dtype=dtype))
    assert made.weight_ih.dtype == dtype


def test_gates_by_letter() -> None:
    made = cell(2, 3, peephole=weights(9, 3, 3))
    for row, letter in enumerate("ifgo"):
        block = slice(3 * row, 3 * row + 3)
        found = made.gate(letter)
        assert (found["weight_ih"] == made.weight_ih[block]).all()
        assert (found["weight_hh"] == made.weight_hh[block]).all()
        assert made.bias_ih is not None
        assert made.bias_hh is not None
        assert (found["bias_ih"] == made.bias_ih[block]).all()
        assert (found["bias_hh"] == made.bias_hh[block]).all()
        assert ("peephole" in found) == (letter != "g")
    assert made.peephole is not None
    assert (made.gate("o")["peephole"] == made.peephole[2]).all()
    assert list(LSTMCell(ones(4, 1), ones(4, 1)).gate("i")) == ["weight_ih", "weight_hh"]


def test_values_on_the_edge_are_kept() -> None:
    """Zeros of both signs, denormals, a clip next to 0, a forget bias below 0."""
    edge = np.array([[0.0], [-0.0], [1e-45], [-1e-45]], np.float32)
    made = LSTMCell(edge, edge, clip_z=5e-324, forget_bias=-1, clip_cell=np.float32(2.5))  # type: ignore[arg-type]
    assert made.weight_ih.tobytes() == edge.tobytes()
    assert (made.clip_z, made.forget_bias, made.clip_cell) == (5e-324, -1.0, 2.5)
    assert type(made.clip_cell) is float


def test_lists_do_for_arrays_and_tuples() -> None:
    made = LSTMCell([[0.5]] * 4, [[0.25]] * 4, activations=[SIGMOID, TANH, TANH])  # type: ignore[arg-type]
    assert made.weight_ih.dtype == np.float64
    assert made.activations == (SIGMOID, TANH, TANH)


# -- what it refuses ------------------------------------------------------------------------------

BAD = np.array([[0.0, 1.0], [2.0, np.nan], [3.0, 4.0], [5.0, np.inf]])


def ragged() -> str:
    try:
        np.array([[1.0], [1.0, 2.0]])
    except ValueError as error:
        return str(error)
    raise AssertionError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # arrays
        ({"weight_ih": None}, "weight_ih is None, expected an array (4H, I)"),
        (
            {"weight_ih": [[1.0], [1.0, 2.0]]},
            f"weight_ih cannot become an array ({ragged()}), expected an array (4H, I)",
        ),
        (
            {"weight_ih": np.ones((12, 2), int)},
            "weight_ih has dtype int64, expected a floating-point array",
        ),
        (
            {"bias_ih": np.ones(12, bool)},
            "bias_ih has dtype bool, expected a floating-point array",
        ),
        (
            {"weight_hh": np.ones((12, 3), complex)},
            "weight_hh has dtype complex128, expected a floating-point array",
        ),
        ({"weight_ih": [["a"]]}, "weight_ih has dtype <U1, expected a floating-point array"),
        ({"weight_ih": ones(12)}, "weight_ih has shape (12,), expected (4H, I)"),
        (
            {"weight_ih": ones(12, 0)},
            "weight_ih has shape (12, 0), expected (4H, I), every size at least 1",
        ),
        (
            {"weight_ih": ones(0, 2)},
            "weight_ih has shape (0, 2), expected (4H, I), every size at least 1",
        ),
        (
            {"weight_ih": ones(9, 2)},
            "weight_ih has 9 rows, expected a multiple of 4, one block of H rows per gate. "
            "3 blocks would be a GRU, 1 a vanilla RNN; ifgo reads LSTM cells",
        ),
        ({"weight_hh": ones(12, 2)}, "weight_hh has shape (12, 2), expected (12, 3)"),
        ({"weight_hh": None}, "weight_hh is None, expected an array (12, 3)"),
        ({"bias_ih": ones(11)}, "bias_ih has shape (11,), expected (12,)"),
        ({"bias_hh": ones(2, 12)}, "bias_hh has shape (2, 12), expected (12,)"),
        ({"peephole": ones(4, 3)}, "peephole has shape (4, 3), expected (3, 3)"),
        ({"weight_hr": ones(2, 4)}, "weight_hr has shape (2, 4), expected (P, 3)"),
        (
            {"weight_hr": ones(4, 3)},
            "weight_hr projects to 4 values, expected at most hidden_size, 3",
        ),
        ({"weight_hr": ones(2, 3)}, "weight_hh has shape (12, 3), expected (12, 2)"),
        (
            {"weight_hr": ones(2, 3), "weight_hh": ones(12, 2), "bias_hr": ones(3)},
            "bias_hr has shape (3,), expected (2,)",
        ),
        (
            {"weight_ih": BAD, "weight_hh": ones(4, 1)},
            "weight_ih[1, 1] is nan, expected finite values. "
            "Train or export the model again: a NaN or infinity never computes",
        ),
        (
            {"bias_ih": np.array([0.0] * 11 + [-np.inf])},
            "bias_ih[11] is -inf, expected finite values. "
            "Train or export the model again: a NaN or infinity never computes",
        ),
        # sizes
        (
            {"weight_ih": ones(4 * 8193, 1, dtype=np.float16)},
            "hidden_size is 8193, expected at most 8192" + raising("hidden_size"),
        ),
        (
            {"weight_ih": ones(4, 65537, dtype=np.float16)},
            "input_size is 65537, expected at most 65536" + raising("input_size"),
        ),
        # rules
        ({"clip_z": 0.0}, "clip_z is 0.0, expected a finite number above 0, or None"),
        ({"clip_cell": -1.0}, "clip_cell is -1.0, expected a finite number above 0, or None"),
        ({"clip_z": math.nan}, "clip_z is nan, expected a finite number above 0, or None"),
        ({"clip_z": math.inf}, "clip_z is inf, expected a finite number above 0, or None"),
        ({"clip_z": "50"}, "clip_z is '50', expected a number or None"),
        ({"clip_cell": True}, "clip_cell is True, expected a number or None"),
        ({"forget_bias": math.inf}, "forget_bias is inf, expected a finite number"),
        ({"forget_bias": None}, "forget_bias is None, expected a number"),
        (
            {"forget_bias": ones(3)},
            "forget_bias is array([1., 1....dtype=float32), expected a number",
        ),
        ({"coupling": "f=i"}, "coupling is 'f=i', expected one of 'f=1-i', 'i=1-f' or None"),
        ({"coupling": True}, "coupling is True, expected one of 'f=1-i', 'i=1-f' or None"),
        (
            {"clip_projection": 1.0},
            "clip_projection is set without weight_hr, expected a projection, or none",
        ),
        ({"bias_hr": ones(3)}, "bias_hr is set without weight_hr, expected a projection, or none"),
        (
            {"activations": (SIGMOID, SOFTMAX, TANH)},
            "softmax cannot be a gate's activation, expected one of sigmoid, tanh, relu, linear, "
            "hard_sigmoid, leaky_relu, thresholded_relu, elu, scaled_tanh, affine, softsign, "
            "softplus",
        ),
        (
            {"activations": (SIGMOID, TANH)},
            "activations has 2 entries, expected a tuple (Activation, Activation, Activation)",
        ),
        (
            {"activations": (SIGMOID, "tanh", TANH)},
            "activations[1] is 'tanh', expected Activation",
        ),
        (
            {"activations": None},
            "activations is None, expected a tuple (Activation, Activation, Activation)",
        ),
        # norms
        (
            {"layer_norm": LayerNorm(ones(4, 3)), "hidden_norm": norm()},
            "layer norm and batch norm are both set, expected at most one kind of norm",
        ),
        (
            {"layer_norm": LayerNorm(ones(4, 2))},
            "layer norm weight has shape (4, 2), expected (4, 3)",
        ),
        ({"input_norm": norm(8)}, "batch norm scale has shape (8,), expected (12,)"),
        ({"hidden_norm": norm(16)}, "batch norm scale has shape (16,), expected (12,)"),
    ],
)
def test_refusals(options: Any, message: str) -> None:
    with refused(ModelError, message):
        cell(**options)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("layer_norm", "ones", "LayerNorm or None"),
        ("input_norm", "ones", "MatrixNorm or None"),
        ("hidden_norm", 1.0, "MatrixNorm or None"),
    ],
)
def test_norms_of_another_type(field: str, value: Any, expected: str) -> None:
    with refused(ModelError, f"{field} is {value!r}, expected {expected}"):
        cell(**{field: value})


def test_a_norm_of_the_other_kind() -> None:
    with refused(ModelError, "input_norm is of type LayerNorm, expected MatrixNorm or None"):
        cell(input_norm=LayerNorm(ones(4, 3)))


def test_the_largest_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.DEFAULTS.elements == 4 * limits.DEFAULTS.hidden_size**2
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(elements=23))
    with refused(
        ModelError, "weight_ih has 24 elements, expected at most 23" + raising("elements")
    ):
        cell(2, 3)


def test_gates_that_do_not_exist() -> None:
    for letter in ("c", "", "if"):
        with refused(UsageError, f"unknown gate {letter!r}, expected i, f, g or o"):
            cell().gate(letter)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": ones(3, 3)}, "weight has shape (3, 3), expected (4, H)"),
        ({"weight": None}, "weight is None, expected an array (4, H)"),
        ({"epsilon": 0.0}, "layer norm epsilon is 0.0, expected a finite number above 0"),
        ({"epsilon": -1e-8}, "layer norm epsilon is -1e-08, expected a finite number above 0"),
        ({"epsilon": math.nan}, "layer norm epsilon is nan, expected a finite number above 0"),
        ({"epsilon": math.inf}, "layer norm epsilon is inf, expected a finite number above 0"),
        ({"epsilon": "1e-8"}, "epsilon is '1e-8', expected a number"),
    ],
)
def test_layer_norm_refusals(options: Any, message: str) -> None:
    with refused(ModelError, message):
        LayerNorm(**({"weight": ones(4, 3)} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": ones(12, 1)}, "scale has shape (12, 1), expected (4H,)"),
        ({"mean": None}, "mean is None, expected an array (4H,)"),
        ({"variance": ones(0)}, "variance has shape (0,), expected (4H,), every size at least 1"),
        (
            {"mean": ones(8)},
            "scale (12,), mean (8,) and variance (12,) differ in shape, "
            "expected (4H,) for all three",
        ),
        (
            {"variance": np.array([1.0] * 7 + [-0.5] * 5)},
            "variance[7] is -0.5, expected 0 or more",
        ),
        ({"epsilon": 0.0}, "batch norm epsilon is 0.0, expected a finite number above 0"),
        ({"epsilon": math.nan}, "batch norm epsilon is nan, expected a finite number above 0"),
        ({"epsilon": None}, "epsilon is None, expected a number"),
        ({"epsilon_outside": 1}, "epsilon_outside is 1, expected True or False"),
    ],
)
def test_matrix_norm_refusals(options: Any, message: str) -> None:
    with refused(ModelError, message):
        norm(**options)


def test_variance_of_zero_is_legal() -> None:
    assert norm(variance=np.zeros(12, np.float32)).variance[0] == 0
