"""The operators that become layers, or that mean something for time: one handler for each.

A handler is called where at least one input is a signal. SPEC.md 2.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, cast

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ifgo.activations import LINEAR, Activation
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.onnx.arguments import Arguments, numbers
from ifgo.formats.onnx.chain import Chain, Stream
from ifgo.formats.onnx.file import quoted
from ifgo.formats.onnx.fold import cast_type, legacy_operand
from ifgo.formats.onnx.pairs import averaged, combined, concat
from ifgo.formats.onnx.reduce import clip_bounds
from ifgo.formats.onnx.states import finite
from ifgo.formats.onnx.time import TIME, Handler
from ifgo.formats.onnx.value import Value, is_real, transpose
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Residual,
    Scale,
)


def _float32(value: float) -> float:
    """A default as the runtimes hold it, like attributes that are written out."""
    return float(np.float32(value))


ACTIVATIONS: Final[dict[str, tuple[str, dict[str, float]]]] = {
    "Sigmoid": ("sigmoid", {}),
    "Tanh": ("tanh", {}),
    "Relu": ("relu", {}),
    "HardSigmoid": ("hard_sigmoid", {"alpha": _float32(0.2), "beta": 0.5}),
    "LeakyRelu": ("leaky_relu", {"alpha": _float32(0.01)}),
    "ThresholdedRelu": ("thresholded_relu", {"alpha": 1.0}),
    "Elu": ("elu", {"alpha": 1.0}),
    "Softsign": ("softsign", {}),
    "Softplus": ("softplus", {}),
}
"""Operator → our activation and the operator's defaults. The writer reads it the other way."""

# -- dense, scale, batch norm -----------------------------------------------------------------


def _weight(value: Value, dtype: np.dtype[Any], rank: int | None = None) -> NDArray[Any]:
    """A constant of the signal's type. Raises FormatError on NaN and infinity."""
    name = f"weight {quoted(value.name)}"
    if value.signal or any(value.axes):
        raise UnsupportedError(f"{name} depends on the model's input", expected="a constant")
    if value.data.dtype != dtype:
        raise FormatError(
            f"{name} is {value.data.dtype.name}, its input {dtype.name}", expected="one type"
        )
    if rank is not None and value.data.ndim != rank:
        raise UnsupportedError(f"{name} has {value.data.ndim} axes", expected=str(rank))
    finite(value.data, name)
    return value.data


def _per_feature(value: Value, width: int, dtype: np.dtype[Any], rank: int) -> NDArray[Any]:
    """A constant that varies along the last axis only, as (width,)."""
    data = _weight(value, dtype)
    if data.size == 1 and data.ndim <= rank:
        return np.full(width, data.reshape(-1)[0], dtype=dtype)
    if data.size != width or data.shape[-1] != width or data.ndim > rank:
        raise UnsupportedError(
            f"weight {quoted(value.name)} has shape {data.shape}",
            expected=f"one number, or one for each of {width} features on the last axis",
        )
    return data.reshape(width)


def _dense(chain: Chain, x: Value, layer: Dense, names: dict[str, str]) -> Value:
    outputs, width = layer.weight.shape
    stream, x = chain.features(x, width)
    if stream.width != width:
        raise FormatError(
            f"multiplies {stream.width} features by a weight for {width}", expected=str(width)
        )
    return chain.step(x, layer, outputs, names)


def _matmul(chain: Chain, a: Arguments) -> list[Value]:
    x, w = a.value(0), a.value(1)
    if not x.signal:
        raise UnsupportedError("has a constant on its left", expected="features · weight")
    weight = _weight(w, chain.stream(x).dtype, 2)
    return [_dense(chain, x, Dense("dense", weight.T), {"weight": w.name})]


def _gemm(chain: Chain, a: Arguments) -> list[Value]:
    x, w, c = a.value(0), a.value(1), a.optional(2)
    alpha, beta = (a.attributes.number(name, 1.0) or 0.0 for name in ("alpha", "beta"))
    from_rows, to_rows = (a.attributes.flag(name) for name in ("transA", "transB"))
    if a.opset < 7:
        a.attributes.integer("broadcast")
    if not x.signal or from_rows or x.rank != 2:
        raise UnsupportedError(
            "does not have its features as rows on the left", expected="A (B, features), transA 0"
        )
    dtype = chain.stream(x).dtype
    weight = _weight(w, dtype, 2)
    weight = weight if to_rows else weight.T
    if alpha != 1.0:
        if abs(float(np.frexp(alpha)[0])) != 0.5:
            raise UnsupportedError(
                f"alpha is {alpha:g}", expected="1, or a power of two, which folds exactly"
            )
        with np.errstate(over="ignore", under="ignore"):
            folded = weight * dtype.type(alpha)
            if not (folded / dtype.type(alpha) == weight).all():
                raise UnsupportedError(
                    f"alpha is {alpha:g}, which takes weights out of the range of {dtype}",
                    expected="1, or a power of two, which folds exactly",
                )
        weight = folded
        chain.notes.append(f"folded alpha {alpha:g} into a dense weight, exactly")
    names, bias = {"weight": w.name}, None
    if c is not None and beta != 0.0:
        names["bias"] = c.name
        bias = _per_feature(c, weight.shape[0], dtype, 2)
        if beta != 1.0:
            bias = bias * dtype.type(beta)
            chain.notes.append(f"folded beta {beta:g} into a dense bias, rounded as at run time")
    return [_dense(chain, x, Dense("dense", weight, bias), names)]


def _add(chain: Chain, a: Arguments) -> list[Value]:
    x, y = a.value(0), a.value(1)
    if x.signal and y.signal:
        legacy_operand(a, x, y)
        return [combined(chain, x, y, "sum") or _residual(chain, x, y)]
    x, y = (x, y) if x.signal else (y, x)
    return _offset(chain, x, legacy_operand(a, x, y), +1)


def _sub(chain: Chain, a: Arguments) -> list[Value]:
    x, y = a.value(0), a.value(1)
    if x.signal and y.signal:
        raise UnsupportedError("subtracts two signals", expected="a constant on one side")
    if x.signal:
        return _offset(chain, x, legacy_operand(a, x, y), -1)
    stream, y = chain.features(y)
    offset = _per_feature(x, stream.width, stream.dtype, y.rank)
    layer = Scale("scale", -np.ones_like(offset), offset)
    return [chain.step(y, layer, stream.width, {"offset": x.name})]


def _offset(chain: Chain, x: Value, y: Value, sign: int) -> list[Value]:
    stream, x = chain.features(x)
    offset = sign * _per_feature(y, stream.width, stream.dtype, x.rank)
    layer = stream.layer
    if isinstance(layer, Dense) and layer.bias is None and layer.activation == LINEAR:
        return [chain.instead(x, replace(layer, bias=offset), {"bias": y.name})]
    if isinstance(layer, Scale) and not layer.offset.any():
        return [chain.instead(x, replace(layer, offset=offset), {"offset": y.name})]
    layer = Scale("scale", np.ones_like(offset), offset)
    return [chain.step(x, layer, stream.width, {"offset": y.name})]


def _mul(chain: Chain, a: Arguments) -> list[Value]:
    x, y = a.value(0), a.value(1)
    if x.signal and y.signal:
        legacy_operand(a, x, y)
        pair = combined(chain, x, y, "mul")
        if pair is None:
            raise UnsupportedError("multiplies two signals", expected="a constant factor")
        return [pair]
    x, y = (x, y) if x.signal else (y, x)
    y = legacy_operand(a, x, y)
    return [_scaled(chain, x, y)]


def _div(chain: Chain, a: Arguments) -> list[Value]:
    """A factor, the reciprocal of the constant; noted where that rounds."""
    x, y = a.value(0), a.value(1)
    if y.signal:
        raise UnsupportedError("divides by a signal", expected="a signal divided by a constant")
    y = legacy_operand(a, x, y)
    if not is_real(y.data.dtype):
        return [_scaled(chain, x, y)]
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        factor: NDArray[Any] = np.asarray(1 / y.data)
    least = float(cast("Any", ml_dtypes.finfo(factor.dtype)).smallest_normal)
    lost: NDArray[np.bool_] = ~np.isfinite(factor) | (np.abs(factor) < least)
    if lost.any():
        raise UnsupportedError(
            f"divides by {float(y.data[lost][0]):.9g}",
            expected=f"divisors whose reciprocals {factor.dtype.name} holds",
        )
    if (np.abs(np.frexp(y.data.astype(np.float64))[0]) != 0.5).any():
        chain.notes.append(
            f"a division by {quoted(y.name)} became a factor: off by up to 1.5 ulp, where a "
            "division is off by 0.5"
        )
    return [_scaled(chain, x, replace(y, data=factor))]


def _scaled(chain: Chain, x: Value, y: Value) -> Value:
    half = averaged(chain, x, y)
    if half is not None:
        return half
    stream, x = chain.features(x)
    factor = _per_feature(y, stream.width, stream.dtype, x.rank)
    layer = Scale("scale", factor, np.zeros_like(factor))
    return chain.step(x, layer, stream.width, {"factor": y.name})


def _residual(chain: Chain, x: Value, y: Value) -> Value:
    """Inner layers plus the first features of what goes into them."""
    if len(chain.stream(x).path) > len(chain.stream(y).path):
        x, y = y, x
    if chain.stream(x).kind == "entry":
        x = chain.features(x)[1]
    skipped, (stream, y) = chain.stream(x), chain.features(y)
    if stream.kind == "vector":
        raise UnsupportedError(
            "adds two vectors", expected="a residual over a sequence, before its last step is taken"
        )
    path = stream.path
    after = path.index(skipped) + 1 if skipped in path else len(path)
    inner = tuple(s for s in path[after:] if s.layer is not None)
    first = np.arange(skipped.start, skipped.start + stream.width)
    if not inner or not np.array_equal(x.data.reshape(-1), first) or x.axes != y.axes:
        raise UnsupportedError(
            "adds two signals",
            expected="the output of some layers plus their own input (a residual), or a bias",
        )
    layers = tuple(s.layer for s in inner if s.layer is not None)
    layer = Residual("residual", layers, stream.width)
    made = chain.open(
        "sequence", stream.width, stream.dtype, parent=skipped, layer=layer, inside=inner
    )
    return chain.laid_out(made, y.data.shape, y.axes)


def _batch_norm(chain: Chain, a: Arguments) -> list[Value]:
    epsilon = a.attributes.number("epsilon", 1e-5) or 0.0
    a.attributes.number("momentum")
    learns = a.opset < 7 and not a.attributes.flag("is_test")
    if a.opset >= 14:
        learns = a.attributes.flag("training_mode")
    if learns or (a.opset < 9 and a.attributes.integer("spatial", 1) != 1):
        raise UnsupportedError("is in training mode", expected="stored statistics per feature")
    value = a.value(0)
    order = [k for k in range(value.rank) if k != 1]
    order.append(1)
    if value.rank < 2:
        raise FormatError(f"has an input of {value.rank} axes", expected="features on axis 1")
    stream, moved = chain.features(transpose(value, order))
    parts = [_per_feature(a.value(k), stream.width, stream.dtype, 1) for k in range(1, 5)]
    weight, bias, mean, variance = parts
    names = {n: a.value(k).name for k, n in enumerate(("weight", "bias", "mean", "variance"), 1)}
    layer = BatchNorm("batch_norm", mean, variance, weight, bias, epsilon)
    done = chain.step(moved, layer, stream.width, names)
    return [transpose(done, [int(k) for k in np.argsort(order)])]


# -- element by element -----------------------------------------------------------------------


def _activated(chain: Chain, stream: Stream, value: Value, activation: Activation) -> Value:
    layer = stream.layer
    if isinstance(layer, Dense) and layer.activation == LINEAR:
        return chain.instead(value, replace(layer, activation=activation), {})
    return chain.elementwise(stream, value, ActivationLayer("activation", activation))


def _activation(op: str) -> Callable[[Chain, Arguments], list[Value]]:
    name, defaults = ACTIVATIONS[op]

    def handle(chain: Chain, a: Arguments) -> list[Value]:
        given = {key: a.attributes.number(key, value) for key, value in defaults.items()}
        stream, value = chain.layout(a.value(0))
        return [_activated(chain, stream, value, Activation(name, **given))]

    return handle


def _softmax(chain: Chain, a: Arguments) -> list[Value]:
    axis = a.attributes.integer("axis", -1 if a.opset >= 13 else 1)
    stream, value = chain.features(a.value(0))
    if value.position(-1 if axis is None else axis) != value.rank - 1:
        raise UnsupportedError(f"normalises along axis {axis}", expected="the last axis, features")
    return [_activated(chain, stream, value, Activation("softmax"))]


def _dropout(chain: Chain, a: Arguments) -> list[Value]:
    rate, ratio, training = 0.5, None, None
    if a.opset < 12:
        rate = a.attributes.number("ratio", 0.5) or 0.0
    else:
        a.attributes.integer("seed")
        ratio, training = a.optional(1), a.optional(2)
    if ratio is not None and numbers(ratio).size == 1:
        rate = float(numbers(ratio).reshape(-1)[0])
    learns = training is not None and numbers(training).any()
    if learns or (a.opset < 7 and not a.attributes.flag("is_test")):
        raise UnsupportedError("is in training mode", expected="a model exported for inference")
    stream, value = chain.layout(a.value(0))
    return [chain.elementwise(stream, value, Dropout("dropout", rate))]


def _clip(chain: Chain, a: Arguments) -> list[Value]:
    """Without bounds nothing, from 0 up the activation relu; no layer has other bounds."""
    low, high = clip_bounds(a)
    stream, value = chain.layout(a.value(0))
    if (low, high) == (None, None):
        return [value]
    if (low, high) == (0.0, None):
        return [_activated(chain, stream, value, Activation("relu"))]
    ends = ("-inf" if low is None else f"{low:g}", "inf" if high is None else f"{high:g}")
    raise UnsupportedError(
        f"clips the sequence to [{', '.join(ends)}]",
        expected="no bounds, or 0 below and none above (relu)",
    )


def _cast(chain: Chain, a: Arguments) -> list[Value]:
    value = a.value(0)
    have, want = chain.stream(value).dtype, cast_type(a)
    wider = have.kind in "iu" and want.kind in "iu" and want.itemsize >= 4
    if have != want and not wider:
        raise UnsupportedError(
            f"casts {have.name} to {want.name}", expected="one type throughout, or wider tokens"
        )
    return [value]


LAYERS: Final[dict[str, Handler]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "BatchNormalization": _batch_norm,
    "Softmax": _softmax,
    "Dropout": _dropout,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": concat,
    **TIME,
    **{op: _activation(op) for op in ACTIVATIONS},
}
"""Operator → handler, called where an input is a signal."""
