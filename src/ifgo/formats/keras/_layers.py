"""Keras layers one after another as layers of a Model, by what flows between them.

A tensor of Keras is (batch, time, features), a sequence; (batch, features), a vector; or (batch,
time) of tokens before an Embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import numpy as np

from ifgo.activations import LINEAR, SOFTMAX, Activation
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats.keras import _recurrent
from ifgo.formats.keras._config import SELECT_HINT, Node
from ifgo.formats.keras._stepwise import STEPWISE
from ifgo.formats.keras._weights import Store, expect_shape
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    Masking,
    RepeatVector,
)
from ifgo.text import cut, quote


@dataclass
class Chain:
    """The layers so far. steps: T where the config fixes it. width: features, None where only the
    first layer's arrays say. masked: whether a mask may travel with the sequence."""

    store: Store
    layers: list[Layer] = field(default_factory=list[Layer])
    notes: list[str] = field(default_factory=list[str])
    names: dict[str, str] = field(default_factory=dict[str, str])
    domain: Literal["sequence", "vector"] = "sequence"
    steps: int | None = None
    width: int | None = None
    input_width: int | None = None
    started: bool = False
    masked: bool = False
    time_major: bool | None = None

    def start(self, shape: list[int | None]) -> None:
        """What an InputLayer or the first layer says of the input, (B, T, F) or (B, T)."""
        self.started = True
        if len(shape) == 3:
            self.steps, self.width = shape[1], shape[2]
            self.input_width = self.width
        elif len(shape) == 2:
            self.steps = shape[1]
            self.domain = "vector"

    def read(self, node: Node) -> None:
        """One layer of Keras onto the chain. Raises UnsupportedError where it has no place."""
        if not self.started and node.kind != "InputLayer":
            self._first_shape(node)
        build = _BUILD.get(node.kind)
        if build is None:
            raise UnsupportedError(
                "computes by Python code that the file holds, which is never run"
                if node.kind == "Lambda"
                else f"is a layer of class {quote(node.kind)}",
                where=node.where,
                expected="LSTM, Bidirectional, RNN, Dense, Embedding and what goes with them",
                hint=SELECT_HINT,
            )
        try:
            build(self, node)
        except IfgoError as error:
            if error.where is not None and node.where in error.where:
                raise
            plain = type(error)(error.what, expected=error.expected, hint=error.hint)
            raise plain.located(node.where) from None

    def _first_shape(self, node: Node) -> None:
        inner = node.values
        if node.kind in ("Bidirectional", "TimeDistributed") and "batch_input_shape" not in inner:
            layer = node.values.get("layer")
            config = cast("Any", layer).get("config") if isinstance(layer, dict) else None
            inner = cast("dict[str, Any]", config) if isinstance(config, dict) else inner
        shape = inner.get("batch_input_shape", inner.get("batch_shape"))
        if shape is None and node.kind != "Embedding":
            width = inner.get("input_dim")
            shape = [None, inner.get("input_length"), width]
        self.start(_shape(shape if shape is not None else [None, None], node))
        if node.kind == "Embedding":
            self.domain = "sequence"

    def push(self, layer: Layer) -> None:
        """The next layer."""
        self.layers.append(layer)

    def need(self, node: Node, domain: str) -> None:
        """Raises UnsupportedError where `node` gets something else than a `domain`."""
        if self.domain != domain:
            raise UnsupportedError(
                f"gets a {self.domain}", where=node.where, expected=f"a {domain}", hint=SELECT_HINT
            )

    def features(self, node: Node, width: int) -> None:
        """`node` takes `width` features, by its arrays."""
        if self.width is None:
            self.width = width
            if not self.layers or self.input_width is None:
                self.input_width = width
        if self.width != width:
            raise FormatError(
                f"takes {width} features and gets {self.width}",
                where=node.where,
                expected="the same",
                hint="The config is another model's, or the file is damaged",
            )

    def end_sequence(self) -> None:
        """What follows gets a vector, without a mask."""
        self.domain, self.steps, self.masked = "vector", None, False


def _shape(given: Any, node: Node) -> list[int | None]:
    """A batch shape of the config."""
    found = cast("list[Any]", given) if isinstance(given, list) else []
    sizes = [size for size in found[1:] if size is not None]
    if 2 <= len(found) <= 3 and all(isinstance(n, int) and 0 < n < 2**31 for n in sizes):
        return found
    raise UnsupportedError(
        f"takes an input of shape {cut(cast('Any', given))}",
        where=node.where,
        expected="(batch, time, features), or (batch, time) of tokens",
        hint=SELECT_HINT,
    )


def _input(chain: Chain, node: Node) -> None:
    for key in ("sparse", "ragged", "optional"):
        if node.raw(key, False):
            raise UnsupportedError(f"is {key}", where=node.where, expected="a dense input")
    shape = _shape(node.raw("batch_shape", node.raw("batch_input_shape")), node)
    node.close()
    chain.start(shape)


def _embedding(chain: Chain, node: Node) -> None:
    rows, width = node.integer("input_dim"), node.integer("output_dim")
    masks = node.flag("mask_zero")
    if node.rate("dropout"):
        chain.notes.append(f"{node.name}: dropout of words in training is left out")
    node.close()
    if chain.layers:
        raise UnsupportedError("stands after another layer", where=node.where, hint=SELECT_HINT)
    (taken,) = chain.store.take(node, "", ("embeddings",))
    weight = expect_shape(taken, (rows, width), node, "embeddings")
    chain.push(Embedding(node.name, weight, masks))
    chain.names[f"{node.name}.weight"] = taken.source
    chain.width, chain.domain, chain.masked = width, "sequence", masks


def _dense(chain: Chain, node: Node, path: str = "") -> None:
    units = node.integer("units", "output_dim")
    activation = node.activation("activation")
    bias = node.flag("use_bias", node.flag("bias", True))
    node.close()
    taken = chain.store.take(node, path, ("kernel", "bias")[: 1 + bias])
    kernel = expect_shape(taken[0], (None, units), node, "a kernel")
    chain.features(node, kernel.shape[0])
    vector = expect_shape(taken[1], (units,), node, "a bias") if bias else None
    chain.push(Dense(node.name, np.ascontiguousarray(kernel.T), vector, activation))
    sources = zip(("weight", "bias"), taken, strict=False)
    chain.names |= {f"{node.name}.{key}": t.source for key, t in sources}
    chain.width = units


def _activation(chain: Chain, node: Node) -> None:
    found = node.activation("activation", required=True)
    node.close()
    _push_activation(chain, node, found)


def _push_activation(chain: Chain, node: Node, found: Activation) -> None:
    if found == SOFTMAX and chain.width == 1:
        chain.notes.append(f"{node.name}: softmax of one feature is 1")
    if found != LINEAR:
        chain.push(ActivationLayer(node.name, found))


def _softmax(chain: Chain, node: Node) -> None:
    axis = node.raw("axis", -1)
    node.close()
    last = 2 if chain.domain == "sequence" else 1
    if axis not in (-1, last, [-1], [last]):
        raise node.wrong("axis", axis, "-1, the features")
    if chain.masked:
        raise UnsupportedError(
            "gets a mask, which it would apply to features",
            where=node.where,
            expected="no mask",
            hint="An Activation('softmax') ignores masks",
        )
    chain.push(ActivationLayer(node.name, SOFTMAX))


def _dropout(chain: Chain, node: Node) -> None:
    rate = node.rate("rate", "p")
    node.raw("noise_shape")
    node.close()
    chain.push(Dropout(node.name, rate))


def _noise(chain: Chain, node: Node) -> None:
    for key in ("stddev", "rate", "noise_shape", "l1", "l2", "sigma", "p"):
        node.raw(key)
    node.close()
    chain.notes.append(f"{node.where} is left out: it only trains")


def _batch_norm(chain: Chain, node: Node, path: str = "", last: int = 0) -> None:
    axis = node.raw("axis", -1)
    last = last or (2 if chain.domain == "sequence" else 1)
    if axis not in (-1, last, [-1], [last]):
        raise node.wrong("axis", axis, "-1, the features")
    if node.version.major == 1:
        raise UnsupportedError("is of Keras 1", where=node.where, expected="Keras 2 or 3")
    for key in ("renorm", "virtual_batch_size", "adjustment"):
        if node.raw(key):
            raise UnsupportedError(f"sets {key}", where=node.where, expected="it unset")
    for key in ("momentum", "fused", "synchronized", "renorm_clipping", "renorm_momentum"):
        node.raw(key)
    epsilon = node.real("epsilon", 1e-3)
    parts = [
        *["gamma"] * node.flag("scale", True),
        *["beta"] * node.flag("center", True),
        "moving_mean",
        "moving_variance",
    ]
    node.close()
    taken = dict(zip(parts, chain.store.take(node, path, parts), strict=True))
    mean = expect_shape(taken["moving_mean"], (None,), node, "a mean")
    chain.features(node, mean.shape[0])
    ours = {"moving_mean": "mean", "moving_variance": "variance", "gamma": "weight", "beta": "bias"}
    arrays: dict[str, Any] = {
        ours[key]: expect_shape(t, mean.shape, node, key) for key, t in taken.items()
    }
    chain.push(BatchNorm(node.name, **arrays, epsilon=epsilon))
    chain.names |= {f"{node.name}.{ours[k]}": t.source for k, t in taken.items()}


def _masking(chain: Chain, node: Node) -> None:
    value = node.real("mask_value", 0.0)
    node.close()
    chain.need(node, "sequence")
    chain.push(Masking(node.name, value))
    chain.masked = True


def _flatten(chain: Chain, node: Node) -> None:
    node.raw("data_format")
    node.close()
    if chain.domain == "sequence":
        _flattened(chain, node, node.name)


def _flattened(chain: Chain, node: Node, name: str) -> None:
    if chain.steps is None or chain.width is None:
        raise UnsupportedError(
            "flattens a sequence whose length is not in the config",
            where=node.where,
            expected="an input of a fixed number of steps",
        )
    chain.push(Flatten(name, chain.steps))
    width = chain.steps * chain.width
    chain.end_sequence()
    chain.width = width


def _reshape(chain: Chain, node: Node) -> None:
    """Between a vector and a sequence of one feature or of one step; anything else moves values
    across time."""
    given = node.raw("target_shape")
    node.close()
    target = cast("list[Any]", given) if isinstance(given, list) else []
    if chain.domain == "vector" and not chain.layers and chain.steps is not None:
        _folded(chain, node, target, chain.steps)
        return
    if not all(isinstance(n, int) and (n > 0 or n == -1) for n in target) or target.count(-1) > 1:
        raise node.wrong("target_shape", given, "whole numbers")
    steps, width = chain.steps if chain.domain == "sequence" else 1, chain.width
    if width is None or steps is None:
        raise UnsupportedError("reshapes what has no fixed size", where=node.where)
    total = steps * width
    known = int(np.prod([n for n in target if n != -1], dtype=object))
    if total % known or (-1 not in target and known != total):
        raise node.wrong("target_shape", given, f"{total} values")
    shape = tuple(total // known if n == -1 else n for n in target)
    have = (steps, width) if chain.domain == "sequence" else (width,)
    if shape == have:
        return
    if shape not in ((total,), (total, 1), (1, total)):
        raise UnsupportedError(
            f"makes {shape} out of {have}",
            where=node.where,
            expected=f"({total},), ({total}, 1) or (1, {total})",
            hint=SELECT_HINT,
        )
    if chain.domain == "sequence":
        _flattened(chain, node, node.name if len(shape) == 1 else f"{node.name}_flat")
    if len(shape) == 2:
        column = shape[1] == 1
        chain.push(HiddenAsSequence(node.name) if column else RepeatVector(node.name, 1))
        chain.domain, chain.steps, chain.width = "sequence", shape[0], shape[1]


def _folded(chain: Chain, node: Node, target: list[Any], total: int) -> None:
    """An input of (batch, values) that is a sequence from here on, as it is in ifgo from the
    start."""
    known = [n for n in target if n != -1]
    wrong = not all(isinstance(n, int) and n > 0 for n in known) or len(target) != 2
    if wrong or not known or total % int(np.prod(known, dtype=object)):
        raise node.wrong("target_shape", target, f"(time, features) of {total} values")
    steps, width = (n if n != -1 else total // known[0] for n in target)
    if steps * width != total:
        raise node.wrong("target_shape", target, f"{total} values")
    chain.domain, chain.steps = "sequence", steps
    chain.width = chain.input_width = width
    chain.notes.append(
        f"{node.name} folds an input of {total} values: it is ({steps}, {width}) from the start"
    )


def _repeat(chain: Chain, node: Node) -> None:
    count = node.integer("n")
    node.close()
    chain.need(node, "vector")
    if not any(layer.signature == "sequence→vector" for layer in chain.layers):
        raise UnsupportedError(
            "repeats the input, which is one vector and no sequence",
            where=node.where,
            expected="a model that takes sequences",
            hint=SELECT_HINT,
        )
    chain.push(RepeatVector(node.name, count))
    chain.domain, chain.steps = "sequence", count


def _distributed(chain: Chain, node: Node) -> None:
    """A layer for each step, which these do in any case."""
    chain.need(node, "sequence")
    inner = node.inner("layer")
    node.close()
    if inner.kind not in _EACH_STEP:
        raise UnsupportedError(
            f"wraps a {quote(inner.kind)}",
            where=node.where,
            expected="one of " + ", ".join(_EACH_STEP),
            hint=SELECT_HINT,
        )
    inner.name, inner.path = node.name, node.path
    if inner.kind == "Dense":
        _dense(chain, inner, "layer")
    elif inner.kind == "BatchNormalization":
        _batch_norm(chain, inner, "layer", last=1)
    else:
        _BUILD[inner.kind](chain, inner)


def recurrent(chain: Chain, node: Node) -> None:
    """One of the LSTM family, and LastStep where it gives the last step alone."""
    chain.need(node, "sequence")
    built, rnn = _recurrent.build(node, chain.store)
    _check_masks(chain, node, rnn, len(built.layers))
    if chain.time_major not in (None, rnn.time_major):
        raise UnsupportedError("differs in time_major from others", where=node.where)
    chain.time_major = rnn.time_major
    chain.features(node, built.layers[0].cell.input_size)
    for layer in built.layers:
        chain.push(layer)
        chain.width = layer.output_size(layer.cell.input_size)
    chain.names |= built.names
    if not rnn.sequences:
        both = built.layers[-1].directions == 2
        chain.push(LastStep(f"{node.name}_last", "state" if both else "sequence"))
        chain.end_sequence()


def _check_masks(chain: Chain, node: Node, rnn: _recurrent.Rnn, count: int) -> None:
    """Under a mask, versions of Keras differ, and a stack that goes backwards would need its mask
    turned once for all its cells."""
    if not chain.masked:
        return
    version = node.version
    if rnn.zero is None:
        raise UnsupportedError(
            f"gets a mask, and keras_version {version.text or 'unknown'} does not tell whether its "
            "masked steps give zeros",
            where=node.where,
            expected="Keras 3, or TensorFlow 2.2 and later",
            hint="Load it in such a Keras and save it again",
        )
    if rnn.go_backwards and count > 1:
        raise UnsupportedError(
            "stacks cells, goes backwards and gets a mask",
            where=node.where,
            expected="two of these",
        )
    old = version.major == 1 or (version.major == 2 and version.minor < 3)
    if rnn.stateful and old:
        raise UnsupportedError(
            f"is stateful and gets a mask in Keras {version.text}, which puts out its state there",
            where=node.where,
            expected="Keras 2.3 or later",
        )


_EACH_STEP: Final = (
    "Dense",
    "Activation",
    "Dropout",
    "BatchNormalization",
    "LeakyReLU",
    "ReLU",
    "ELU",
    "ThresholdedReLU",
)

_BUILD: Final[Mapping[str, Callable[[Chain, Node], None]]] = {
    "InputLayer": _input,
    "Embedding": _embedding,
    "Dense": _dense,
    "Activation": _activation,
    "Softmax": _softmax,
    "Dropout": _dropout,
    "SpatialDropout1D": _dropout,
    "GaussianNoise": _noise,
    "GaussianDropout": _noise,
    "AlphaDropout": _noise,
    "ActivityRegularization": _noise,
    "BatchNormalization": _batch_norm,
    "Masking": _masking,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "RepeatVector": _repeat,
    "TimeDistributed": _distributed,
    **STEPWISE,
    **dict.fromkeys(_recurrent.FAMILY, recurrent),
}
"""Class → what becomes of it; all others are refused."""
