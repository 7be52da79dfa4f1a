"""The layers a Model is a chain of. Each declares its time signature and checks its own shapes.

Letters: B batch, T time, I input features, H hidden_size, P output size of a cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ifgo import limits
from ifgo.activations import LINEAR, Activation
from ifgo.cell import Array, require_epsilon, require_variance
from ifgo.errors import ModelError, UsageError
from ifgo.recurrent import InitialState, Layer, Merge, Recurrent, Signature, TrainingFacts

__all__ = [
    "ActivationLayer",
    "BatchNorm",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "HiddenAsSequence",
    "InitialState",
    "LastStep",
    "Layer",
    "Masking",
    "Merge",
    "Recurrent",
    "RepeatVector",
    "Residual",
    "Scale",
    "Signature",
    "TrainingFacts",
    "cast",
    "floating_dtype",
]


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """y = activation(x·Wᵀ + b), step by step. weight (O, I), bias (O,) or None."""

    weight: Array
    bias: Array | None = None
    activation: Activation = LINEAR

    kind = "dense"

    def __post_init__(self) -> None:
        self._check_fields()
        self._freeze("weight", ("O", "I"))
        self._freeze("bias", (self.weight.shape[0],), optional=True)

    def output_size(self, input_size: int) -> int:
        self._expect_input(input_size, self.weight.shape[1])
        return self.weight.shape[0]

    @property
    def arrays(self) -> dict[str, Array]:
        return self._present("weight", "bias")

    @property
    def macs(self) -> int:
        return self.weight.size

    def detail(self) -> str:
        return "" if self.activation == LINEAR else str(self.activation)


@dataclass(frozen=True, eq=False)
class Embedding(Layer):
    """Row `token` of weight (V, E). Only the first layer of a model that reads tokens.

    mask_zero: token 0 marks padding, later layers skip such steps.
    """

    weight: Array
    mask_zero: bool = False

    kind = "embedding"

    def __post_init__(self) -> None:
        where = self._check_fields()
        self._freeze("weight", ("V", "E"))
        if self.vocabulary > limits.current().vocabulary:
            raise ModelError(
                f"has {self.vocabulary} rows",
                where=where,
                **limits.at_most("vocabulary"),
            )

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.weight.shape[0]

    def output_size(self, input_size: int) -> int:
        return self.weight.shape[1]

    @property
    def arrays(self) -> dict[str, Array]:
        return self._present("weight")

    def detail(self) -> str:
        return f"vocabulary {self.vocabulary}" + (", mask_zero" if self.mask_zero else "")


@dataclass(frozen=True)
class ActivationLayer(Layer):
    """An activation on its own, element by element (softmax: over the features of a step)."""

    activation: Activation

    kind = "activation"

    def __post_init__(self) -> None:
        self._check_fields()

    def detail(self) -> str:
        return str(self.activation)


@dataclass(frozen=True)
class Dropout(Layer):
    """A training fact between layers; inference passes its input through. rate in [0, 1)."""

    rate: float

    kind = "dropout"

    def __post_init__(self) -> None:
        where = self._check_fields()
        if not 0 <= self.rate < 1:
            raise ModelError(
                f"dropout rate is {self.rate}", where=where, expected="a rate in [0, 1)"
            )

    def detail(self) -> str:
        return f"rate {self.rate:g}, identity at inference"


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """y = (x - mean) / sqrt(variance + epsilon) · weight + bias over features, with stored
    statistics. All (F,); weight and bias optional. epsilon_outside divides by
    sqrt(variance) + epsilon instead (Darknet)."""

    mean: Array
    variance: Array
    weight: Array | None = None
    bias: Array | None = None
    epsilon: float = 1e-3
    epsilon_outside: bool = False

    kind = "batch_norm"

    def __post_init__(self) -> None:
        where = self._check_fields()
        self._freeze("mean", ("F",))
        self._freeze("variance", self.mean.shape)
        for name in ("weight", "bias"):
            self._freeze(name, self.mean.shape, optional=True)
        require_variance(self.variance, where=where)
        require_epsilon(self.epsilon, "epsilon", where=where)

    def output_size(self, input_size: int) -> int:
        self._expect_input(input_size, self.mean.shape[0])
        return input_size

    @property
    def arrays(self) -> dict[str, Array]:
        return self._present("mean", "variance", "weight", "bias")


@dataclass(frozen=True)
class Masking(Layer):
    """Steps whose features all equal `value` are skipped by the recurrent layers that follow."""

    value: float = 0.0

    kind = "masking"

    def __post_init__(self) -> None:
        where = self._check_fields()
        if not np.isfinite(self.value):
            raise ModelError(
                f"masks the value {self.value}", where=where, expected="a finite number"
            )

    def detail(self) -> str:
        return f"value {self.value:g}"


@dataclass(frozen=True)
class LastStep(Layer):
    """A sequence becomes one vector.

    of="sequence": the row of the last time step. of="state": the final hidden state of the
    recurrent layer before it, directions merged; they differ for a backward direction only, whose
    final state belongs to the first step.
    """

    of: Literal["sequence", "state"] = "sequence"

    shape_of_time = "sequence→vector"
    kind = "last_step"

    def __post_init__(self) -> None:
        self._check_fields()

    def detail(self) -> str:
        return "" if self.of == "sequence" else "final state"


@dataclass(frozen=True)
class HiddenAsSequence(Layer):
    """A vector of F values becomes a sequence of F steps with one feature each."""

    shape_of_time = "vector→sequence"
    kind = "hidden_as_sequence"

    def output_size(self, input_size: int) -> int:
        return 1

    @property
    def not_streamable_because(self) -> str | None:
        return "it replays a whole hidden vector as a sequence"


@dataclass(frozen=True)
class RepeatVector(Layer):
    """A vector becomes a sequence of `steps` copies."""

    steps: int

    shape_of_time = "vector→sequence"
    kind = "repeat_vector"

    def __post_init__(self) -> None:
        where = self._check_fields()
        if not 1 <= self.steps <= limits.current().steps:
            raise ModelError(
                f"repeats {self.steps} times",
                where=where,
                **limits.at_most("steps", form="1 to {}", found=self.steps),
            )

    @property
    def not_streamable_because(self) -> str | None:
        return "it starts a new sequence"


@dataclass(frozen=True)
class Flatten(Layer):
    """A sequence of exactly `steps` steps becomes one vector of steps·F values."""

    steps: int

    shape_of_time = "sequence→vector"
    kind = "flatten"

    def __post_init__(self) -> None:
        where = self._check_fields()
        if not 1 <= self.steps <= limits.current().steps:
            raise ModelError(
                f"takes {self.steps} steps",
                where=where,
                **limits.at_most("steps", form="1 to {}", found=self.steps),
            )

    def output_size(self, input_size: int) -> int:
        return self.steps * input_size

    @property
    def not_streamable_because(self) -> str | None:
        return "it needs the whole sequence"

    def detail(self) -> str:
        return f"{self.steps} steps"


@dataclass(frozen=True, eq=False)
class Scale(Layer):
    """y = x·factor + offset per feature (a stored normalisation). factor, offset: (F,)."""

    factor: Array
    offset: Array

    kind = "scale"

    def __post_init__(self) -> None:
        self._check_fields()
        self._freeze("factor", ("F",))
        self._freeze("offset", self.factor.shape)

    def output_size(self, input_size: int) -> int:
        self._expect_input(input_size, self.factor.shape[0])
        return input_size

    @property
    def arrays(self) -> dict[str, Array]:
        return self._present("factor", "offset")


@dataclass(frozen=True, eq=False)
class Residual(Layer):
    """y = inner(x), plus the first `channels` features of x added to the first ones of y."""

    layers: tuple[Layer, ...]
    channels: int

    kind = "residual"

    def __post_init__(self) -> None:
        where = self._check_fields()
        if not self.layers:
            raise ModelError("holds no layers", where=where, expected="at least one")
        for layer in self.layers:
            if layer.signature not in ("step→step", "sequence→sequence"):
                raise ModelError(
                    f"holds {layer.kind} {layer.name}",
                    where=where,
                    expected="only layers that keep the sequence",
                )

    def output_size(self, input_size: int) -> int:
        size = input_size
        for layer in self.layers:
            size = layer.output_size(size)
        if not 1 <= self.channels <= min(size, input_size):
            raise ModelError(
                f"adds {self.channels} channels of {input_size} inputs to {size} outputs",
                where=f"layer {self.name}",
                expected=f"1 to {min(size, input_size)} channels",
            )
        return size

    @property
    def signature(self) -> Signature:
        return "sequence→sequence" if self.not_streamable_because else "step→step"

    @property
    def not_streamable_because(self) -> str | None:
        for layer in self.layers:
            if reason := layer.not_streamable_because:
                return f"layer {layer.name} inside it: {reason}"
        return None

    @property
    def arrays(self) -> dict[str, Array]:
        return {f"{layer.name}.{n}": a for layer in self.layers for n, a in layer.arrays.items()}

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    def detail(self) -> str:
        return f"around {', '.join(layer.name for layer in self.layers)}"


def floating_dtype(dtype: Any) -> np.dtype[Any]:
    """`dtype` (a name or a type) as NumPy's; UsageError where it is no floating-point type."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or (found.kind != "f" and found.name != "bfloat16"):
        raise UsageError(
            f"dtype {dtype!r} holds no weights", expected="float64, float32, float16 or bfloat16"
        )
    return found


def cast(layer: Layer, dtype: Any) -> Layer:
    """`layer` with every array as `dtype` (values may round).

    Raises UsageError where `dtype` is no floating-point type or a value lies beyond its range.
    """
    floating = floating_dtype(dtype)

    def convert(owner: Any) -> Any:
        changes: dict[str, Any] = {}
        for name in owner.__dataclass_fields__:
            value = getattr(owner, name)
            if isinstance(value, np.ndarray):
                with np.errstate(over="ignore"):
                    changes[name] = value.astype(floating)
                if not np.isfinite(changes[name].astype(np.float64)).all():
                    raise UsageError(
                        f"{name} holds values beyond the range of {floating}",
                        where=f"layer {layer.name}",
                        expected="a dtype that holds every value",
                    )
            elif isinstance(owner, Residual) and name == "layers":
                changes[name] = tuple(cast(inner, floating) for inner in owner.layers)
            elif hasattr(value, "__dataclass_fields__") and not isinstance(value, Activation):
                changes[name] = convert(value)
        return replace(owner, **changes)

    return convert(layer)
