"""One LSTM cell: the superset of what every known framework computes, validated on construction.

SPEC.md section 1 holds the equations. Letters: I input_size, H hidden_size, P output size
(P = H unless projected), gates in canonical order i, f, g, o.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ifgo import gates, limits
from ifgo.activations import GATE_ACTIVATIONS, SIGMOID, TANH, Activation
from ifgo.errors import ModelError, UsageError
from ifgo.fields import check_fields

Array = NDArray[np.floating[Any]]
Coupling = Literal["f=1-i", "i=1-f"]


def frozen_array(
    value: Any, shape: tuple[int | str, ...], what: str, *, where: str | None = None
) -> Array:
    """A read-only C-ordered copy of `value`, refused unless real, finite and of `shape`.

    shape: sizes, or a letter where any size ≥ 1 will do.
    """
    wanted = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
    if value is None:
        raise ModelError(f"{what} is None", where=where, expected=f"an array {wanted}")
    try:
        array: NDArray[Any] = np.array(value, order="C")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{what} cannot become an array ({error})", where=where, expected=f"an array {wanted}"
        ) from None
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise ModelError(
            f"{what} has dtype {array.dtype}", where=where, expected="a floating-point array"
        )
    if array.ndim == len(shape) and 0 in array.shape:
        wanted += ", every size at least 1"
    matches = array.ndim == len(shape) and all(
        have == want if isinstance(want, int) else have >= 1
        for have, want in zip(array.shape, shape, strict=True)
    )
    if not matches:
        raise ModelError(f"{what} has shape {array.shape}", where=where, expected=wanted)
    if array.size > limits.current().elements:
        raise ModelError(
            f"{what} has {array.size} elements",
            where=where,
            **limits.at_most("elements"),
        )
    finite = np.isfinite(array.astype(np.float64) if array.dtype.kind != "f" else array)
    if not finite.all():
        bad = np.unravel_index(int(np.argmin(finite)), array.shape)
        index = ", ".join(str(int(i)) for i in bad)
        raise ModelError(
            f"{what}[{index}] is {float(array[bad])}",
            where=where,
            expected="finite values",
            hint="Train or export the model again: a NaN or infinity never computes",
        )
    array.setflags(write=False)
    return array


def require_epsilon(epsilon: float, what: str, *, where: str | None = None) -> None:
    """Raises ModelError unless `epsilon` is finite and above 0."""
    if not 0 < epsilon < np.inf:
        raise ModelError(f"{what} is {epsilon}", where=where, expected="a finite number above 0")


def require_variance(variance: Array, *, where: str | None = None) -> None:
    """Raises ModelError naming the first negative entry of `variance`."""
    if (variance < 0).any():
        index = int(np.argmax(variance < 0))
        raise ModelError(
            f"variance[{index}] is {float(variance[index])}", where=where, expected="0 or more"
        )


def _freeze(
    owner: object, name: str, shape: tuple[int | str, ...], *, optional: bool = False
) -> None:
    value = getattr(owner, name)
    if value is not None or not optional:
        object.__setattr__(owner, name, frozen_array(value, shape, name))


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """Layer normalisation of each gate's pre-activation before its bias (TFLite; SPEC.md 1.6).

    weight: (4, H), rows i, f, g, o. epsilon is added to the biased variance.
    """

    weight: Array
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_fields(self)
        _freeze(self, "weight", (4, "H"))
        require_epsilon(self.epsilon, "layer norm epsilon")


@dataclass(frozen=True, eq=False)
class MatrixNorm:
    """Batch normalisation of one matrix product inside a cell (Darknet; SPEC.md 1.6).

    scale, mean, variance: (4H,) in gate order i, f, g, o. The divisor is sqrt(variance) + epsilon
    where epsilon_outside, else sqrt(variance + epsilon).
    """

    scale: Array
    mean: Array
    variance: Array
    epsilon: float
    epsilon_outside: bool

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("scale", "mean", "variance"):
            _freeze(self, name, ("4H",))
        if len({self.scale.shape, self.mean.shape, self.variance.shape}) != 1:
            raise ModelError(
                f"scale {self.scale.shape}, mean {self.mean.shape} and variance "
                f"{self.variance.shape} differ in shape",
                expected="(4H,) for all three",
            )
        require_variance(self.variance)
        require_epsilon(self.epsilon, "batch norm epsilon")


@dataclass(frozen=True, eq=False)
class LSTMCell:
    """Weights and rules of one LSTM cell.

    weight_ih (4H, I), weight_hh (4H, P); bias_ih, bias_hh (4H,), each optional and kept apart;
    weight_hr (P, H) and bias_hr (P,): projection; peephole (3, H): rows i, f, o;
    activations: of the gates i, f, o; of the candidate g; of the cell at the output.
    clip_z bounds the pre-activations, clip_cell the new cell state (before the output peephole),
    clip_projection the projected output; None is off. forget_bias is added to the f rows at run
    time. input_norm and hidden_norm normalise x·Wᵀ and h·Rᵀ on their own.
    Raises ModelError on types and shapes that do not fit, values that are not finite, or rules
    that contradict each other.
    """

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None = None
    bias_hh: Array | None = None
    weight_hr: Array | None = None
    bias_hr: Array | None = None
    peephole: Array | None = None
    activations: tuple[Activation, Activation, Activation] = (SIGMOID, TANH, TANH)
    clip_z: float | None = None
    clip_cell: float | None = None
    clip_projection: float | None = None
    coupling: Coupling | None = None
    forget_bias: float = 0.0
    layer_norm: LayerNorm | None = None
    input_norm: MatrixNorm | None = None
    hidden_norm: MatrixNorm | None = None

    kind = "lstm"

    def __post_init__(self) -> None:
        check_fields(self)
        _freeze(self, "weight_ih", ("4H", "I"))
        rows = self.weight_ih.shape[0]
        if rows % 4:
            raise ModelError(
                f"weight_ih has {rows} rows",
                expected="a multiple of 4, one block of H rows per gate",
                hint="3 blocks would be a GRU, 1 a vanilla RNN; ifgo reads LSTM cells",
            )
        hidden = rows // 4
        for what, size in (
            ("hidden_size", hidden),
            ("input_size", self.weight_ih.shape[1]),
        ):
            if size > limits.value(what):
                raise ModelError(f"{what} is {size}", **limits.at_most(what))
        if self.weight_hr is not None:
            _freeze(self, "weight_hr", ("P", hidden))
            if self.weight_hr.shape[0] > hidden:
                raise ModelError(
                    f"weight_hr projects to {self.weight_hr.shape[0]} values",
                    expected=f"at most hidden_size, {hidden}",
                )
        _freeze(self, "weight_hh", (rows, self.output_size))
        for name in ("bias_ih", "bias_hh"):
            _freeze(self, name, (rows,), optional=True)
        _freeze(self, "bias_hr", (self.output_size,), optional=True)
        _freeze(self, "peephole", (3, hidden), optional=True)
        self._check_rules()

    def _check_rules(self) -> None:
        for activation in self.activations:
            if activation.name not in GATE_ACTIVATIONS:
                raise ModelError(
                    f"{activation} cannot be a gate's activation",
                    expected="one of " + ", ".join(GATE_ACTIVATIONS),
                )
        for name in ("clip_z", "clip_cell", "clip_projection"):
            bound: float | None = getattr(self, name)
            if bound is not None and not (0 < bound < np.inf):
                raise ModelError(f"{name} is {bound}", expected="a finite number above 0, or None")
        if not np.isfinite(self.forget_bias):
            raise ModelError(f"forget_bias is {self.forget_bias}", expected="a finite number")
        if self.weight_hr is None and (self.bias_hr is not None or self.clip_projection):
            given = "bias_hr" if self.bias_hr is not None else "clip_projection"
            raise ModelError(f"{given} is set without weight_hr", expected="a projection, or none")
        norms = [norm for norm in (self.input_norm, self.hidden_norm) if norm is not None]
        if self.layer_norm is not None and norms:
            raise ModelError(
                "layer norm and batch norm are both set", expected="at most one kind of norm"
            )
        if self.layer_norm is not None and self.layer_norm.weight.shape[1] != self.hidden_size:
            raise ModelError(
                f"layer norm weight has shape {self.layer_norm.weight.shape}",
                expected=f"(4, {self.hidden_size})",
            )
        for norm in norms:
            if norm.scale.shape[0] != 4 * self.hidden_size:
                raise ModelError(
                    f"batch norm scale has shape {norm.scale.shape}",
                    expected=f"({4 * self.hidden_size},)",
                )

    @property
    def input_size(self) -> int:
        """I."""
        return self.weight_ih.shape[1]

    @property
    def hidden_size(self) -> int:
        """H, the width of the cell state."""
        return self.weight_ih.shape[0] // 4

    @property
    def output_size(self) -> int:
        """P: proj_size where projected, else H."""
        return self.hidden_size if self.weight_hr is None else self.weight_hr.shape[0]

    @property
    def arrays(self) -> dict[str, Array]:
        """Every array the cell holds, by field name (norms as `layer_norm.weight` and so on)."""
        found: dict[str, Array] = {}
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "bias_hr"):
            value: Array | None = getattr(self, name)
            if value is not None:
                found[name] = value
        if self.peephole is not None:
            found["peephole"] = self.peephole
        if self.layer_norm is not None:
            found["layer_norm.weight"] = self.layer_norm.weight
        for name in ("input_norm", "hidden_norm"):
            norm: MatrixNorm | None = getattr(self, name)
            if norm is not None:
                found |= {f"{name}.{part}": getattr(norm, part) for part in MATRIX_NORM_ARRAYS}
        return found

    @cached_property
    def parameters(self) -> int:
        """Number of stored values."""
        return sum(array.size for array in self.arrays.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one step: 4H(I+P), plus P·H where projected."""
        projection = 0 if self.weight_hr is None else self.weight_hr.size
        return self.weight_ih.size + self.weight_hh.size + projection

    def gate(self, letter: str) -> dict[str, Array]:
        """One gate (i, f, g, o): weight_ih (H, I), weight_hh (H, P), biases and peephole (H,).

        Raises UsageError on another letter.
        """
        if letter not in tuple(gates.CANONICAL):
            raise UsageError(f"unknown gate {letter!r}", expected="i, f, g or o")
        found: dict[str, Array] = {}
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            value: Array | None = getattr(self, name)
            if value is not None:
                found[name] = gates.split(value)[letter]
        if self.peephole is not None and letter != "g":
            found["peephole"] = self.peephole["ifo".index(letter)]
        return found


MATRIX_NORM_ARRAYS = ("scale", "mean", "variance")
