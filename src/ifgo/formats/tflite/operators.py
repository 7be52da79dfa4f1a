"""The operators of a TFLite graph as nodes with the meaning of ONNX, one function for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.tflite.file import DTYPES, Operator
from ifgo.formats.tflite.loops import while_loop
from ifgo.text import quote

if TYPE_CHECKING:
    from ifgo.formats.tflite.graph import Translation

_UNARY: Final = {"LOGISTIC": "Sigmoid", "TANH": "Tanh", "RELU": "Relu", "ELU": "Elu"}
_BINARY: Final = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "MINIMUM": "Min", "MAXIMUM": "Max"}

Handler = Callable[["Translation", Operator, str], None]


def _fully_connected(t: Translation, operator: Operator, label: str) -> None:
    options = operator.options
    if options.get("WeightsFormat"):
        raise UnsupportedError("has shuffled weights", expected="weights_format DEFAULT")
    weight = t.tensor(operator, 1)
    if weight.type != "FLOAT32":
        raise UnsupportedError(
            f"has {weight.type} weights, and quantises its input while it runs",
            expected="float32 weights, ifgo has no integer arithmetic yet",
            hint="Convert the model without dynamic range quantisation",
        )
    if len(weight.shape) != 2:
        raise FormatError(f"has weights with {len(weight.shape)} axes", expected="2")
    x = t.input(operator, 0)
    if not options.get("KeepNumDims") and t.rank(operator) != 2:
        shape = t.out.integers(-1, weight.shape[1])
        x = t.out.add("Reshape", (x, shape), name=label, allowzero=1)
    bias = (t.input(operator, 2),) if operator.inputs[2:] and operator.inputs[2] >= 0 else ()
    name = t.input(operator, 1)
    if operator.options.get("KeepNumDims") and t.rank(operator) != 2:
        value = t.out.add("MatMul", (x, t.turned(name, label)), name=label)
        value = t.out.add("Add", (value, *bias), name=label) if bias else value
    else:
        value = t.out.add("Gemm", (x, name, *bias), name=label, transB=1)
    t.activated(operator, value, label)


def _unary(t: Translation, operator: Operator, label: str) -> None:
    t.out.add(_UNARY[operator.kind], (t.input(operator, 0),), t.output(operator), name=label)


def _leaky_relu(t: Translation, operator: Operator, label: str) -> None:
    alpha = float(operator.options.get("Alpha", 0.0))
    t.out.add("LeakyRelu", (t.input(operator, 0),), t.output(operator), name=label, alpha=alpha)


def _binary(t: Translation, operator: Operator, label: str) -> None:
    pair = (t.input(operator, 0), t.input(operator, 1))
    t.activated(operator, t.out.add(_BINARY[operator.kind], pair, name=label), label)


def _softmax(t: Translation, operator: Operator, label: str) -> None:
    x, beta = t.input(operator, 0), float(operator.options.get("Beta", 0.0))
    if beta != 1.0:
        x = t.out.add("Mul", (x, t.out.constant(np.float32(beta))), name=label)
    t.out.add("Softmax", (x,), t.output(operator), name=label, axis=-1)


def _reshape(t: Translation, operator: Operator, label: str) -> None:
    if len(operator.inputs) > 1 and operator.inputs[1] >= 0:
        shape = t.input(operator, 1)
        if t.tensor(operator, 1).data is not None:
            shape = t.out.integers(*t.integers(operator, 1))
    else:
        shape = t.out.integers(*operator.options.get("NewShape", ()))
    t.out.add("Reshape", (t.input(operator, 0), shape), t.output(operator), name=label, allowzero=1)


def _transpose(t: Translation, operator: Operator, label: str) -> None:
    t.out.add(
        "Transpose",
        (t.input(operator, 0),),
        t.output(operator),
        name=label,
        perm=t.integers(operator, 1),
    )


def _squeeze(t: Translation, operator: Operator, label: str) -> None:
    axes = operator.options.get("SqueezeDims", ())
    inputs = (t.input(operator, 0), t.out.integers(*axes)) if axes else (t.input(operator, 0),)
    t.out.add("Squeeze", inputs, t.output(operator), name=label)


def _expand_dims(t: Translation, operator: Operator, label: str) -> None:
    axes = t.out.integers(*t.integers(operator, 1))
    t.out.add("Unsqueeze", (t.input(operator, 0), axes), t.output(operator), name=label)


def _gather(t: Translation, operator: Operator, label: str) -> None:
    if operator.options.get("BatchDims"):
        raise UnsupportedError(
            f"gathers with batch_dims {operator.options['BatchDims']}", expected="batch_dims 0"
        )
    axis = int(operator.options.get("Axis", 0))
    pair = (t.input(operator, 0), t.input(operator, 1))
    t.out.add("Gather", pair, t.output(operator), name=label, axis=axis)


def _embedding_lookup(t: Translation, operator: Operator, label: str) -> None:
    pair = (t.input(operator, 1), t.input(operator, 0))
    t.out.add("Gather", pair, t.output(operator), name=label, axis=0)


def _strided_slice(t: Translation, operator: Operator, label: str) -> None:
    options = operator.options
    for name in ("EllipsisMask", "NewAxisMask", "Offset"):
        if options.get(name):
            raise UnsupportedError(
                f"sets {name}", expected="begin_mask, end_mask and shrink_axis_mask only"
            )
    begin, end, step = (t.integers(operator, k) for k in (1, 2, 3))
    if not len(begin) == len(end) == len(step) <= t.rank(operator):
        raise FormatError("has begins, ends and strides of different lengths")
    masks = [int(options.get(name, 0)) for name in ("BeginMask", "EndMask", "ShrinkAxisMask")]
    value, shrunk = t.input(operator, 0), list[int]()
    cuts: list[tuple[int, int, int, int]] = []
    for axis, (first, last, stride) in enumerate(zip(begin, end, step, strict=True)):
        opens, closes, shrinks = (mask >> axis & 1 for mask in masks)
        if shrinks:
            shrunk.append(axis)
            continue
        first = (2**31 - 1 if stride < 0 else 0) if opens else first
        last = (-(2**31) if stride < 0 else 2**31 - 1) if closes else last
        cuts.append((axis, first, last, stride))
    if cuts:
        lists = (t.out.integers(*(cut[k] for cut in cuts)) for k in (1, 2, 0, 3))
        value = t.out.add("Slice", (value, *lists), name=label)
    for axis in reversed(shrunk):
        place = t.out.constant(np.int64(begin[axis] if not masks[0] >> axis & 1 else 0))
        value = t.out.add("Gather", (value, place), name=label, axis=axis)
    t.out.add("Identity", (value,), t.output(operator), name=label)


def _slice(t: Translation, operator: Operator, label: str) -> None:
    begin, size = t.integers(operator, 1), t.integers(operator, 2)
    if len(begin) != len(size):
        raise FormatError("has begins and sizes of different lengths")
    ends = [2**31 - 1 if n == -1 else k + n for k, n in zip(begin, size, strict=True)]
    inputs = (t.input(operator, 0), t.out.integers(*begin), t.out.integers(*ends))
    t.out.add("Slice", inputs, t.output(operator), name=label)


def _outputs(t: Translation, operator: Operator) -> tuple[str, ...]:
    return tuple(t.names[k] if k >= 0 else "" for k in operator.outputs)


def _split(t: Translation, operator: Operator, label: str) -> None:
    (axis, *rest) = t.integers(operator, 0)
    if rest or len(operator.outputs) != operator.options.get("NumSplits"):
        raise FormatError("has more axes than one, or other outputs than num_splits says")
    t.out.add(
        "Split",
        (t.input(operator, 1),),
        _outputs(t, operator),
        name=label,
        axis=axis,
        num_outputs=len(operator.outputs),
    )


def _split_v(t: Translation, operator: Operator, label: str) -> None:
    (axis, *_) = t.integers(operator, 2)
    parts = t.out.integers(*t.integers(operator, 1))
    t.out.add("Split", (t.input(operator, 0), parts), _outputs(t, operator), name=label, axis=axis)


def _unpack(t: Translation, operator: Operator, label: str) -> None:
    axis = int(operator.options.get("Axis", 0))
    for k, name in enumerate(_outputs(t, operator)):
        if name:
            place = t.out.constant(np.int64(k))
            t.out.add("Gather", (t.input(operator, 0), place), name, name=label, axis=axis)


def _pack(t: Translation, operator: Operator, label: str) -> None:
    axis = int(operator.options.get("Axis", 0))
    place = t.out.integers(axis)
    parts = [
        t.out.add("Unsqueeze", (t.input(operator, k), place), name=label)
        for k in range(len(operator.inputs))
    ]
    t.out.add("Concat", tuple(parts), t.output(operator), name=label, axis=axis)


def _concatenation(t: Translation, operator: Operator, label: str) -> None:
    parts = tuple(t.input(operator, k) for k in range(len(operator.inputs)))
    axis = int(operator.options.get("Axis", 0))
    t.activated(operator, t.out.add("Concat", parts, name=label, axis=axis), label)


def _dequantize(t: Translation, operator: Operator, label: str) -> None:
    tensor, target = t.tensor(operator, 0), t.output(operator)
    if tensor.data is None:
        raise UnsupportedError(
            f"turns {tensor.type} into float32 while the model runs",
            expected="constants only, ifgo has no integer arithmetic yet",
            hint="Convert the model without quantisation",
        )
    if tensor.type == "FLOAT16":
        values = tensor.data.astype(np.float32)
    elif tensor.quantization is not None and tensor.data.dtype.kind in "iu":
        q = tensor.quantization
        shape = [1] * tensor.data.ndim
        if q.scale.size > 1:
            shape[q.axis] = q.scale.size
        point = q.zero_point.reshape(shape if q.zero_point.size > 1 else [1] * len(shape))
        difference = (tensor.data.astype(np.int64) - point).astype(np.float32)
        values = q.scale.reshape(shape) * difference
    else:
        raise UnsupportedError(
            f"dequantises {tensor.type} without a scale", expected="FLOAT16, or integers with one"
        )
    t.out.arrays[target] = values
    t.notes.append(f"{label}: {tensor.type} constants of {quote(tensor.name)} as float32")


def _cast(t: Translation, operator: Operator, label: str) -> None:
    from onnx import helper

    kind = t.subgraph.tensors[operator.outputs[0]].type if operator.outputs else ""
    if kind not in DTYPES:
        raise UnsupportedError(f"casts to {kind}", expected="one of " + ", ".join(DTYPES))
    to = helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[kind]))
    t.out.add("Cast", (t.input(operator, 0),), t.output(operator), name=label, to=int(to))


def _shape(t: Translation, operator: Operator, label: str) -> None:
    t.out.add("Shape", (t.input(operator, 0),), t.output(operator), name=label)


def _reverse(t: Translation, operator: Operator, label: str) -> None:
    """A Slice from the end to the start in steps of -1."""
    axes = t.integers(operator, 1)
    count = len(axes)
    parts = ([2**31 - 1] * count, [-(2**31)] * count, axes, [-1] * count)
    lists = (t.out.integers(*part) for part in parts)
    t.out.add("Slice", (t.input(operator, 0), *lists), t.output(operator), name=label)


def _batch_matmul(t: Translation, operator: Operator, label: str) -> None:
    weight = t.tensor(operator, 1)
    if operator.options.get("AdjX") or weight.type != "FLOAT32" or len(weight.shape) != 2:
        raise UnsupportedError(
            "multiplies other than features by a float32 matrix", expected="a matrix on the right"
        )
    name = t.input(operator, 1)
    if operator.options.get("AdjY"):
        name = t.turned(name, label)
    t.out.add("MatMul", (t.input(operator, 0), name), t.output(operator), name=label)


HANDLERS: Final[dict[str, Handler]] = {
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
    "LEAKY_RELU": _leaky_relu,
    "SOFTMAX": _softmax,
    "RESHAPE": _reshape,
    "TRANSPOSE": _transpose,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand_dims,
    "GATHER": _gather,
    "EMBEDDING_LOOKUP": _embedding_lookup,
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "UNPACK": _unpack,
    "PACK": _pack,
    "CONCATENATION": _concatenation,
    "DEQUANTIZE": _dequantize,
    "CAST": _cast,
    "SHAPE": _shape,
    "REVERSE_V2": _reverse,
    "WHILE": while_loop,
}
"""Operator → its nodes."""
