"""Graphs that are refused, built in a line each, and the words that messages share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_cases import AXES, SIZE, UNITS, chain, lstm_weights, node, one_lstm, save

from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats import onnx as room

F64 = np.float64
DOUBLE = TensorProto.DOUBLE
HIDDEN = {"out": ["B", UNITS]}
TIMED = {"out": ["T", "B", UNITS]}
SECOND = {f"{k}2": v for k, v in lstm_weights(UNITS, UNITS, seed=5).items()}
SQUEEZED = node("Squeeze", "Y k1", "y")


def after(*nodes: onnx.NodeProto, out: Any = None, **options: Any) -> Callable[[], Any]:
    """Nodes after an LSTM, whose last one gives `out`."""
    constants = AXES | SECOND | options.pop("constants", {})
    first = options.pop("before", [])
    return lambda: chain(first, list(nodes), constants, out or TIMED, **options)


def before(*nodes: onnx.NodeProto, **options: Any) -> Callable[[], Any]:
    """Nodes between x and an LSTM that takes `v`."""
    constants = AXES | options.pop("constants", {})
    options.setdefault("lstm", "v W R B")
    return lambda: chain(list(nodes), [], constants, {"Y": ["T", 1, "B", UNITS]}, **options)


def plain(attributes: dict[str, Any] | None = None, **options: Any) -> Callable[[], Any]:
    return lambda: one_lstm(attributes, **options)


def frozen(made: Callable[[], Any], *sizes: int | str) -> Callable[[], Any]:
    """The same graph with the sizes of x declared."""

    def build() -> Any:
        model = made()
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim, size in zip(dims, sizes, strict=False):
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = size
        return model

    return build


def small(name: str, value: Any, index: tuple[int, ...] = (0, 0, 0)) -> dict[str, Any]:
    """The weights with one entry changed."""
    array = lstm_weights(SIZE, UNITS)[name].copy()
    array[index[: array.ndim]] = value
    return {name: array}


U, F = UnsupportedError, FormatError
FINITE = (
    ", expected finite weights. Train or export the model again: a NaN or infinity never computes"
)
ALONE = (
    ". Take the LSTM layers alone with --select NAME (select= in Python), see ifgo inspect --lstms"
)
BRANCH = ". ifgo has no graphs with branches"
BIND = (
    ", expected weights in the file and one input for the sequence. Bind inputs that are constants "
    "with --bind FILE.npz (bind= in Python)"
)
KNOWN = (
    ", expected only the operators of an LSTM chain: LSTM, MatMul, Gemm, Add, Mul, activations, "
    "Gather of an embedding, and moves of whole axes. Take the LSTM layers alone with --select "
    "NAME (select= in Python), see ifgo inspect --lstms"
)
LAST_AXIS = (
    "does not get its features along the last axis, expected (batch, time, features) in any order "
    "of batch and time"
)
FROZEN = (
    ", expected axes that stay whole. A length that the exporter froze in one place and left open "
    "in another cannot be followed"
)
MANY = "computes a length beyond 64-bit integers or of too many terms, expected at most 8 terms"


def without_shape(made: onnx.ModelProto) -> onnx.ModelProto:
    made.graph.input[0].type.tensor_type.ClearField("shape")
    return made


def other_domain(made: onnx.ModelProto, op: str = "LSTM") -> onnx.ModelProto:
    made.graph.node[0].domain = "com.microsoft"
    made.graph.node[0].op_type = op
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


Case = tuple[Callable[[], Any], type[IfgoError], str]
"""A graph, the error it raises, and the whole message after the path."""


def refuse(case: Case, tmp_path: Path) -> None:
    """The graph is refused with exactly this message and the exit code of its kind."""
    build, kind, text = case
    path = save(build(), tmp_path)
    with pytest.raises(kind) as caught:
        room.read(path)
    assert str(caught.value) == f"{path}: {text}"
    assert caught.value.exit_code == (3 if isinstance(caught.value, U) else 4)
