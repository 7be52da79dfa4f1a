"""Every message with which the reader refuses to fold a constant or a shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_cases import AXES, INT64, UNITS, chain, ints, node, random, save
from onnx_refusals import ALONE, MANY, SQUEEZED, Case, F, U, after, refuse
from raising import raising

from ifgo.errors import IfgoError
from ifgo.formats import onnx as room

CASES: dict[str, Case] = {
    # -- folding --------------------------------------------------------------------------------
    "shape from data": (
        after(SQUEEZED, node("Cast", "y", "s", to=INT64), node("Reshape", "y s", "out")),
        U,
        "node 'n_s': casts float32 to int64, expected one type throughout, or wider tokens" + ALONE,
    ),
    "shape that is a table": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": np.zeros((2, 2), np.int64)}),
        U,
        "node 'n_out': takes a shape that is computed from the data, expected a shape known in the "
        "file" + ALONE,
    ),
    "shape of many numbers": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": np.ones(70000, np.int64)}),
        F,
        "node 'n_out': takes a shape of 70000 numbers, expected at most 8",
    ),
    "shape of many axes": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": np.ones(9, np.int64)}),
        F,
        "node 'n_out': folds to 1 elements in 9 axes, expected at most 1048576 in 8"
        + raising("folded_elements"),
    ),
    "impossible shape": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(-1, -1, 4)}),
        F,
        "node 'n_out': takes an impossible shape, expected sizes of 0 or more and one -1",
    ),
    "condition that is none": (
        after(
            SQUEEZED,
            node("Where", "s s s", "s2"),
            node("Reshape", "y s2", "out"),
            constants={"s": ints(0, 0, 4)},
        ),
        F,
        "node 'n_s2': chooses by int64, expected a condition of type bool",
    ),
    "flag that is none": (
        after(
            SQUEEZED,
            node("Reshape", "y s", "out", allowzero=2),
            constants={"s": ints(0, 0, 4)},
        ),
        F,
        "node 'n_out': attribute allowzero is 2, expected 0 or 1",
    ),
    "copied axis": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(0, 0, 4, 0)}),
        F,
        "node 'n_out': copies axis 3 of a tensor with 3 axes",
    ),
    "too few elements": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(0, 0, 4, 2)}),
        F,
        "node 'n_out': reshapes to more elements than there are",
    ),
    "too many elements": (
        after(SQUEEZED, node("Reshape", "y s", "out"), constants={"s": ints(0, 0, 2)}),
        F,
        "node 'n_out': reshapes (?, ?, 4) to (0, 0, 2): the sizes differ",
    ),
    "constant reshaped": (
        after(
            SQUEEZED,
            node("Reshape", "d s", "e"),
            node("MatMul", "y e", "out"),
            constants={"d": random(UNITS, 2), "s": ints(3, 3)},
        ),
        F,
        "node 'n_e': reshapes (4, 2) to (3, 3)",
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_refused(name: str, tmp_path: Path) -> None:
    refuse(CASES[name], tmp_path)


def folding(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """A constant `out` computed by nodes and used as the bias of a chain."""
    tail = [SQUEEZED, node("Add", "y out", "end")]
    return chain([*nodes], tail, AXES | constants, {"end": ["T", "B", UNITS]})


ABC = np.ones((2, 3), np.float32)
FOLDING: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], type[IfgoError], str]] = {
    "perm": (
        [node("Transpose", "a", "out", perm=[0, 0])],
        {"a": ABC},
        F,
        "perm is [0, 0], expected each of 0 to 1 once",
    ),
    "unsqueeze": (
        [node("Unsqueeze", "a b", "out")],
        {"a": ABC, "b": ints(0, 0)},
        F,
        "axes are [0, 0], expected distinct axes of 4",
    ),
    "unsqueeze where": (
        [node("Unsqueeze", "a", "out")],
        {"a": ABC},
        F,
        "has no axes, expected where to put new ones",
    ),
    "squeeze": (
        [node("Squeeze", "a k0", "out")],
        {"a": ABC},
        F,
        "squeezes axis 0 of length 2, expected 1",
    ),
    "axis": (
        [node("Squeeze", "a b", "out")],
        {"a": ABC, "b": ints(5)},
        F,
        "names axis 5, expected an axis of 2",
    ),
    "gather": (
        [node("Gather", "a b", "out")],
        {"a": ABC, "b": ints(0, 2)},
        F,
        "picks entries 0 to 2, expected entries of an axis of length 2",
    ),
    "gather by floats": (
        [node("Gather", "a a", "out")],
        {"a": ABC},
        U,
        "picks open entries, expected integers known in the file",
    ),
    "slice at an open place": (
        [
            node("Shape", "x", "s"),
            node("Slice", "s k0 k1 k0", "t"),
            node("Slice", "a k0 t k0", "out"),
        ],
        {"a": ABC},
        U,
        "cuts an axis at an open place, expected known starts and ends",
    ),
    "slice lengths": (
        [node("Slice", "a k0 b", "out")],
        {"a": ABC, "b": ints(1, 1)},
        F,
        "has starts, ends, axes and steps of different lengths",
    ),
    "slice twice": (
        [node("Slice", "a b b b", "out")],
        {"a": ABC, "b": ints(0, 0)},
        F,
        "cuts an axis twice, expected each axis once",
    ),
    "slice in no steps": (
        [node("Slice", "a k0 k1 k0 k0", "out")],
        {"a": ABC},
        F,
        "cuts in steps of 0, expected steps other than 0",
    ),
    "open axes": (
        [
            node("Shape", "x", "s"),
            node("Slice", "s k0 k1 k0", "t"),
            node("Unsqueeze", "a t", "out"),
        ],
        {"a": ABC},
        U,
        "takes open axes, expected integers known in the file",
    ),
    "split": (
        [node("Split", "a b", "out other")],
        {"a": ABC, "b": ints(5, -3)},
        F,
        "splits into [5, -3], expected parts of 2 entries",
    ),
    "concat rank": (
        [node("Concat", "a b", "out", axis=0)],
        {"a": ABC, "b": np.ones(1, np.float32)},
        F,
        "joins tensors of 2 and 1 axes",
    ),
    "concat size": (
        [node("Concat", "a b", "out", axis=0)],
        {"a": ABC, "b": ABC.T.copy()},
        F,
        "joins tensors of sizes 3 and 2 along axis 1",
    ),
    "concat axis": (
        [node("Concat", "a a", "out")],
        {"a": ABC},
        F,
        "has no axis or no input, expected both",
    ),
    "expand": (
        [node("Expand", "a b", "out")],
        {"a": ABC, "b": ints(4, 3)},
        F,
        "expands axis 0 of length 2 to 4",
    ),
    "expand to much": (
        [node("Expand", "a b", "out")],
        {"a": ABC, "b": ints(2**40, 2, 3)},
        F,
        "folds to 6597069766656 elements in 3 axes, expected at most 1048576 in 8"
        + raising("folded_elements"),
    ),
    "constant of nothing": (
        [helper.make_node("Constant", [], ["out"], name="n_out", value_string="x")],
        {},
        U,
        "holds no dense numbers, expected value, value_int(s), ...",
    ),
    "fill": (
        [
            helper.make_node(
                "ConstantOfShape",
                ["k1"],
                ["out"],
                name="n_out",
                value=helper.make_tensor("", TensorProto.FLOAT, [2], [1, 2]),
            )
        ],
        {},
        F,
        "fills with 2 values, expected 1",
    ),
    "negative size": (
        [node("ConstantOfShape", "b", "out")],
        {"b": ints(-1)},
        F,
        "has a negative size, expected sizes of 0 or more",
    ),
    "range": (
        [node("Range", "a b b", "out")],
        {"a": np.float32(0), "b": np.float32(1)},
        U,
        "counts over an open range, expected integers known in the file",
    ),
    "huge range": (
        [node("Range", "a b c", "out")],
        {"a": np.int64(0), "b": np.int64(2**40), "c": np.int64(1)},
        F,
        "folds to 1099511627776 elements in 1 axes, expected at most 1048576 in 8"
        + raising("folded_elements"),
    ),
    "open length as a float": (
        [node("Shape", "x", "s"), node("Cast", "s", "out", to=TensorProto.FLOAT)],
        {},
        U,
        "casts an open length to float32, expected an integer type",
    ),
    "open constant": (
        [
            node("Shape", "x", "s"),
            node("ConstantOfShape", "s", "c"),
            node("Add", "c a", "out"),
        ],
        {"a": np.float32(1)},
        U,
        "computes with a constant of open length, expected a shape known in the file",
    ),
    "division by zero": (
        [node("Div", "k1 k0", "out")],
        {},
        F,
        "divides by 0, expected another divisor",
    ),
    "division with a rest": (
        [node("Shape", "x", "s"), node("Div", "s k2", "out")],
        {},
        U,
        "divides an open length by 2, expected a division without a rest",
    ),
    "division by a sum": (
        [node("Shape", "x", "s"), node("Add", "s k1", "t"), node("Div", "s t", "out")],
        {},
        U,
        "divides an open length by ?, expected a division without a rest",
    ),
    "types": (
        [node("Add", "a k0", "out")],
        {"a": ABC},
        F,
        "takes float32 and int64, expected one type",
    ),
    "types joined": (
        [node("Concat", "a b", "out", axis=0)],
        {"a": ABC, "b": ABC.astype(np.float64)},
        F,
        "takes float32 and float64, expected one type",
    ),
    "shapes": (
        [node("Add", "a b", "out")],
        {"a": ABC, "b": np.ones(2, np.float32)},
        F,
        "computes with shapes (2, 3), (2,), expected shapes that broadcast",
    ),
    "powers": (
        [
            node("Shape", "x", "s0"),
            *(node("Mul", f"s{k} s{k}", f"s{k + 1}") for k in range(8)),
            node("Identity", "s8", "out"),
        ],
        {},
        U,
        MANY,
    ),
    "huge integers": (
        [
            node("Shape", "x", "s"),
            node("Where", "c s b", "s0"),
            *(node("Mul", f"s{k} s0", f"s{k + 1}") for k in range(8)),
            node("Identity", "s8", "out"),
        ],
        {"c": np.array([True, False, False]), "b": ints(2**40, 2**40, 2**40)},
        U,
        MANY,
    ),
    "huge coefficients": (
        [
            node("Shape", "x", "s0"),
            *(node("Mul", f"s{k} b", f"s{k + 1}") for k in range(8)),
            node("Identity", "s8", "out"),
        ],
        {"b": ints(2**40)},
        U,
        MANY,
    ),
    "flatten": (
        [node("Flatten", "a", "out", axis=5)],
        {"a": ABC},
        F,
        "flattens at axis 5, expected 0 to 2",
    ),
}


@pytest.mark.parametrize("name", list(FOLDING))
def test_folding_refused(name: str, tmp_path: Path) -> None:
    nodes, constants, kind, text = FOLDING[name]
    path = save(folding(*nodes, **constants), tmp_path)
    with pytest.raises(kind) as caught:
        room.read(path)
    prefix, _, found = str(caught.value).partition("': ")
    assert found == text
    assert prefix.startswith(f"{path}: node 'n_")
