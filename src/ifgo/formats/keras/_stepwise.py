"""Keras layers that work step by step: activations, scales, normalisation, 1-wide convolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ifgo.activations import RELU, SIGMOID, TANH, Activation
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats.keras._config import SELECT_HINT, Node
from ifgo.formats.keras._weights import expect_shape
from ifgo.layers import ActivationLayer, Dense, Scale
from ifgo.text import quote

if TYPE_CHECKING:
    from ifgo.formats.keras._layers import Chain

_LEAST_DEVIATION: Final = 1e-7
"""What Normalization divides by at least: Keras's epsilon."""


def _leaky(chain: Chain, node: Node) -> None:
    slope = node.real("negative_slope" if "negative_slope" in node.values else "alpha", 0.3)
    node.close()
    chain.push(ActivationLayer(node.name, Activation("leaky_relu", slope)))


def _elu(chain: Chain, node: Node) -> None:
    alpha = node.real("alpha", 1.0)
    node.close()
    chain.push(ActivationLayer(node.name, Activation("elu", alpha)))


def _relu(chain: Chain, node: Node) -> None:
    slope = 0.0 if node.raw("negative_slope") is None else node.real("negative_slope")
    threshold = 0.0 if node.raw("threshold") is None else node.real("threshold")
    if node.raw("max_value") is not None:
        raise UnsupportedError(
            f"max_value is {quote(node.raw('max_value'))}",
            where=node.where,
            expected="null",
            hint=SELECT_HINT,
        )
    node.close()
    if threshold and slope:
        raise UnsupportedError(
            f"has threshold {threshold:g} and negative_slope {slope:g}",
            where=node.where,
            expected="one of them",
        )
    found = RELU
    if threshold:
        found = Activation("thresholded_relu", threshold)
    elif slope:
        found = Activation("leaky_relu", slope)
    chain.push(ActivationLayer(node.name, found))


def _thresholded(chain: Chain, node: Node) -> None:
    theta = node.real("theta", 1.0)
    node.close()
    chain.push(ActivationLayer(node.name, Activation("thresholded_relu", theta)))


def _rescaling(chain: Chain, node: Node) -> None:
    scale, offset = node.real("scale"), node.real("offset", 0.0)
    node.close()
    if chain.width is None:
        raise UnsupportedError("stands before any size is known", where=node.where)
    ones = np.ones(chain.width, np.float32)
    chain.push(Scale(node.name, ones * np.float32(scale), ones * np.float32(offset)))


def _normalization(chain: Chain, node: Node) -> None:
    """(x - mean) / max(sqrt(variance), 1e-7) per feature: two scales, so that x - mean is rounded
    where Keras rounds it. invert: x · max(sqrt(variance), 1e-7) + mean."""
    axis = node.raw("axis", -1)
    invert = node.flag("invert")
    given = node.raw("mean"), node.raw("variance")
    node.close()
    last = 2 if chain.domain == "sequence" else 1
    if axis not in (-1, last, [-1], [last], None, []):
        raise UnsupportedError(
            f"axis is {quote(axis)}",
            where=node.where,
            expected="-1, the features, or null",
            hint=SELECT_HINT,
        )
    if given == (None, None):
        taken = chain.store.take(node, "", ("mean", "variance", "count"))[:2]
        mean, variance = (t.array for t in taken)
    else:
        mean, variance = (_constant(node, value) for value in given)
    if chain.width is None and mean.size > 1:
        chain.features(node, mean.size)
    width = chain.width
    sizes = {mean.size, variance.size}
    if width is None or not sizes <= {1, width}:
        raise FormatError(
            f"has {mean.size} means and {variance.size} variances",
            where=node.where,
            expected=f"{width}, one for each feature" if width else "a known number of features",
        )
    if (variance < 0).any():
        raise FormatError("has a variance below 0", where=node.where, expected="0 or more")
    mean = np.broadcast_to(mean.reshape(-1), (width,)).astype(mean.dtype)
    deviation = np.broadcast_to(np.sqrt(variance.reshape(-1)), (width,))
    deviation = np.maximum(deviation, _LEAST_DEVIATION).astype(mean.dtype)
    if invert:
        chain.push(Scale(node.name, deviation, mean))
        return
    inverse = (1 / deviation.astype(np.float64)).astype(mean.dtype)
    chain.push(Scale(f"{node.name}_mean", np.ones_like(mean), -mean))
    chain.push(Scale(node.name, inverse, np.zeros_like(mean)))


def _constant(node: Node, value: Any) -> Any:
    """The numbers that a config holds."""
    try:
        found = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        found = np.zeros(0, np.float32)
    if not found.size or not np.isfinite(found).all():
        raise node.wrong("mean or variance", value, "numbers, or both null")
    return found


def _convolution(chain: Chain, node: Node) -> None:
    """A Conv1D that sees one step at a time is a Dense."""
    one: dict[str, tuple[Any, ...]] = {
        "kernel_size": (1, [1]),
        "strides": (1, [1]),
        "dilation_rate": (1, [1]),
        "groups": (1,),
    }
    one["data_format"] = ("channels_last", None)
    for key, known in one.items():
        value = node.raw(key, known[0])
        if value not in known:
            raise UnsupportedError(
                f"{key} is {quote(value)}",
                where=node.where,
                expected=f"{known[0]}, a convolution within a step",
                hint=SELECT_HINT,
            )
    node.raw("padding")
    units = node.integer("filters")
    activation = node.activation("activation")
    bias = node.flag("use_bias", True)
    node.close()
    chain.need(node, "sequence")
    taken = chain.store.take(node, "", ("kernel", "bias")[: 1 + bias])
    kernel = expect_shape(taken[0], (1, None, units), node, "a kernel")[0]
    chain.features(node, kernel.shape[0])
    vector = expect_shape(taken[1], (units,), node, "a bias") if bias else None
    chain.push(Dense(node.name, np.ascontiguousarray(kernel.T), vector, activation))
    sources = zip(("weight", "bias"), taken, strict=False)
    chain.names |= {f"{node.name}.{key}": t.source for key, t in sources}
    chain.width = units


def _identity(chain: Chain, node: Node) -> None:
    node.close()


def _operation(found: Activation) -> Callable[[Chain, Node], None]:
    """keras.ops called on a tensor of a functional model."""

    def build(chain: Chain, node: Node) -> None:
        node.close()
        chain.push(ActivationLayer(node.name, found))

    return build


STEPWISE: Final[Mapping[str, Callable[[Chain, Node], None]]] = {
    "LeakyReLU": _leaky,
    "ELU": _elu,
    "ReLU": _relu,
    "ThresholdedReLU": _thresholded,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "Conv1D": _convolution,
    "Identity": _identity,
    "Relu": _operation(RELU),
    "Tanh": _operation(TANH),
    "Sigmoid": _operation(SIGMOID),
    "Softplus": _operation(Activation("softplus")),
    "Softsign": _operation(Activation("softsign")),
}
"""Class → what becomes of it."""
