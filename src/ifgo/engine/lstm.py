"""An LSTM to call and to train on NumPy arrays, with the shapes and names of torch.nn.LSTM.

Letters: B batch, T time, I input_size, H hidden_size, P proj_size or else H, D directions,
L num_layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, sqrt
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import ArrayLike

from ifgo.engine.arguments import is_whole, real, row_lengths
from ifgo.engine.cells import F32, float32, maybe
from ifgo.engine.forward import Forward
from ifgo.engine.loading import native
from ifgo.errors import UnsupportedError, UsageError
from ifgo.model import Dropout, FeatureInput, LSTMCell, Model, Recurrent

if TYPE_CHECKING:
    from ifgo.engine import _native

State = tuple[F32, F32]

_PLAIN: Final = {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"}


class LSTM:
    """torch.nn.LSTM on arrays: lstm(x, (h_0, c_0)) → output, (h_n, c_n).

    x (T, B, I), (B, T, I) where batch_first, or (T, I); output alike with D·P features; h (D·L, B,
    P) and c (D·L, B, H), without B where x has none. lengths: (B,), 1 to T; output is zero beyond,
    and the states are those of each last step. parameters: name → float32 array, torch's names;
    they may be changed in place, which an LSTM in training sees at the next call and one in
    evaluation at the next eval() or load_state_dict(). generator: a numpy Generator, or its seed;
    it makes the weights, uniform within ±1/√H, and the dropout of training.

    Raises UsageError on sizes, arrays and states that do not fit, ToolError where the engine is not
    installed.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        generator: np.random.Generator | int | None = None,
        threads: int | None = None,
    ) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if not is_whole(size) or size < 1:
                raise UsageError(f"{name} is {size!r}", expected="a whole number, at least 1")
        if not is_whole(proj_size) or not 0 <= proj_size < hidden_size:
            raise UsageError(
                f"proj_size is {proj_size!r}", expected=f"0, or less than hidden_size {hidden_size}"
            )
        if isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise UsageError(f"dropout is {dropout!r}", expected="a probability, 0 to 1")
        if threads is not None and (not is_whole(threads) or not 1 <= threads <= 64):
            raise UsageError(f"threads is {threads!r}", expected="1 to 64, or None")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self.training = True
        self.threads = threads or 0
        self._random = np.random.default_rng(generator)
        bound = 1 / sqrt(hidden_size)
        self.parameters: dict[str, F32] = {
            name: self._random.uniform(-bound, bound, shape).astype(np.float32)
            for name, shape in self._shapes().items()
        }
        self._cells: list[_native.Cell] = []
        self._tapes: list[Any] = []

    # -- parameters -------------------------------------------------------------------------------

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """P."""
        return self.proj_size or self.hidden_size

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        gates, width = 4 * self.hidden_size, self.output_size
        found: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            inputs = width * self.directions if layer else self.input_size
            for suffix in self._suffixes(layer):
                found |= {f"weight_ih_{suffix}": (gates, inputs)}
                found |= {f"weight_hh_{suffix}": (gates, width)}
                if self.bias:
                    found |= {f"bias_ih_{suffix}": (gates,), f"bias_hh_{suffix}": (gates,)}
                if self.proj_size:
                    found |= {f"weight_hr_{suffix}": (width, self.hidden_size)}
        return found

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"][: self.directions]

    def state_dict(self) -> dict[str, F32]:
        """A copy of the parameters, as torch names them."""
        return {name: array.copy() for name, array in self.parameters.items()}

    def load_state_dict(self, given: Mapping[str, ArrayLike]) -> None:
        """Take every parameter from `given`: arrays, or tensors of PyTorch on the CPU.

        Raises UsageError on names that are missing or not ours, shapes and values that do not fit;
        the parameters are then as they were.
        """
        shapes = self._shapes()
        missing = [name for name in shapes if name not in given]
        extra = [name for name in given if name not in shapes]
        if missing or extra:
            raise UsageError(
                f"the state_dict lacks {missing}" if missing else f"the state_dict has {extra}",
                expected="exactly " + ", ".join(shapes),
            )
        found = {name: real(given[name], name, shape) for name, shape in shapes.items()}
        self.parameters = {name: array.copy() for name, array in found.items()}
        self._cells = []

    def train(self, mode: bool = True) -> LSTM:
        """Training: dropout between layers, and parameters that change."""
        self.training = mode
        self._cells = []
        return self

    def eval(self) -> LSTM:
        """Evaluation: no dropout, parameters packed once."""
        return self.train(False)

    def _packed(self) -> list[_native.Cell]:
        if self._cells and not self.training:
            return self._cells
        made: list[_native.Cell] = []
        fits = self._shapes()
        for name, array in self.parameters.items():
            if array.shape != fits[name] or array.dtype != np.float32:
                raise UsageError(
                    f"parameter {name} is {array.dtype} of shape {array.shape}",
                    expected=f"float32 of shape {fits[name]}",
                )
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                ih, hh, b_ih, b_hh, hr = (
                    self.parameters.get(f"{kind}_{suffix}")
                    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
                )
                bias = None if b_ih is None or b_hh is None else b_ih + b_hh
                ih, hh, bias, hr = map(maybe, (ih, hh, bias, hr))
                if self._cells:
                    cell = self._cells[len(made)]
                    cell.set(float32(ih), float32(hh), bias, None, hr, None)
                else:
                    cell = native().Cell(ih, hh, bias, None, hr, None, inf, inf, inf, 0, True)
                made.append(cell)
        self._cells = made
        return made

    # -- computing --------------------------------------------------------------------------------

    def __call__(
        self,
        x: ArrayLike,
        state: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        lengths: ArrayLike | None = None,
    ) -> tuple[F32, State]:
        """output, (h_n, c_n)."""
        done = self._run(x, state, lengths, None, keep=False)
        return done.output, (done.h_n, done.c_n)

    def forward(
        self,
        x: ArrayLike,
        state: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        lengths: ArrayLike | None = None,
        masks: Sequence[ArrayLike] | None = None,
    ) -> Forward:
        """As a call, kept so that `Forward.backward` can follow.

        masks: what the output of each layer but the last is multiplied by, 0 or 1 / (1 - dropout),
        each in the shape of output; drawn from the generator where None.
        """
        return self._run(x, state, lengths, masks, keep=True)

    def _run(
        self,
        given: ArrayLike,
        state: tuple[ArrayLike, ArrayLike] | None,
        lengths: ArrayLike | None,
        masks: Sequence[ArrayLike] | None,
        *,
        keep: bool,
    ) -> Forward:
        x = real(given, "x", None)
        order = "(B, T, I)" if self.batch_first else "(T, B, I)"
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size or 0 in x.shape:
            raise UsageError(
                f"x has shape {x.shape}", expected=f"{order} or (T, I), I = {self.input_size}"
            )
        unbatched = x.ndim == 2
        rows = x[None] if unbatched else x if self.batch_first else x.transpose(1, 0, 2)
        batch, steps = rows.shape[:2]
        h_0, c_0 = self._state(state, batch, unbatched)
        counted = None if lengths is None else row_lengths(lengths, batch, steps)
        factors = self._factors(masks, batch, steps, unbatched)
        run = Forward(self, unbatched, counted, factors, h_0, c_0)
        run.compute(rows, keep)
        return run

    def _state(
        self, given: tuple[ArrayLike, ArrayLike] | None, batch: int, unbatched: bool
    ) -> State:
        count = self.num_layers * self.directions
        found: list[F32] = []
        if given is not None and (not _is_pair(given)):
            raise UsageError("the state is no pair", expected="(h_0, c_0)")
        for k, (name, width) in enumerate((("h_0", self.output_size), ("c_0", self.hidden_size))):
            shape = (count, width) if unbatched else (count, batch, width)
            array = np.zeros(shape, np.float32) if given is None else real(given[k], name, shape)
            found.append(np.ascontiguousarray(array.reshape(count, batch, width)))
        return found[0], found[1]

    def _factors(
        self, masks: Sequence[ArrayLike] | None, batch: int, steps: int, unbatched: bool
    ) -> list[F32 | None]:
        """What the output of each layer but the last is multiplied by, (B, T, D·P)."""
        between = self.num_layers - 1
        shape = (batch, steps, self.directions * self.output_size)
        if masks is not None:
            if len(masks) != between:
                raise UsageError(f"{len(masks)} masks", expected=f"{between}, one between layers")
            return [self._rows(real(m, "a mask", None), shape, unbatched) for m in masks]
        if not self.training or not self.dropout:
            return [None] * between
        kept = 1 - self.dropout
        scale = np.float32(1 / kept if kept else 0)
        return [(self._random.random(shape) < kept) * scale for _ in range(between)]

    def _rows(self, array: F32, shape: tuple[int, ...], unbatched: bool) -> F32:
        """An array laid out as output, as (B, T, ·)."""
        batch, steps, width = shape
        rank = (batch, steps, width) if self.batch_first else (steps, batch, width)
        wanted = (steps, width) if unbatched else rank
        if array.shape != wanted:
            raise UsageError(
                f"an array has shape {array.shape}", expected=f"{wanted}, as the output"
            )
        return array[None] if unbatched else array if self.batch_first else array.transpose(1, 0, 2)

    # -- models -----------------------------------------------------------------------------------

    def to_model(self) -> Model:
        """The same network as a Model, over x (B, T, I); layers lstm_l0, lstm_l1, ..."""
        layers: list[Any] = []
        for k in range(self.num_layers):
            cells = [self._cell(suffix) for suffix in self._suffixes(k)]
            layers.append(Recurrent(f"lstm_l{k}", *cells))
            if self.dropout and k + 1 < self.num_layers:
                layers.append(Dropout(f"dropout_l{k}", self.dropout))
        return Model((FeatureInput(self.input_size),), tuple(layers))

    def _cell(self, suffix: str) -> Any:
        arrays: dict[str, Any] = {
            kind: self.parameters[f"{kind}_{suffix}"]
            for kind in _PLAIN
            if f"{kind}_{suffix}" in self.parameters
        }
        return LSTMCell(**arrays)

    @classmethod
    def from_model(cls, model: Model, *, batch_first: bool = True) -> LSTM:
        """The LSTM of a Model whose layers are LSTMs as torch.nn.LSTM computes them.

        Raises UnsupportedError naming the layer that is none, or differs from the first in size.
        """
        layers = [layer for layer in model.layers if not isinstance(layer, Dropout)]
        rates = {layer.rate for layer in model.layers if isinstance(layer, Dropout)}
        for layer in layers:
            if why := _beyond(layer, layers[0]):
                raise UnsupportedError(
                    f"{why} is nothing that torch.nn.LSTM has", where=f"layer {layer.name}"
                )
        if len(rates) > 1:
            raise UnsupportedError("the dropouts have different rates", expected="one rate")
        first = layers[0]
        assert isinstance(first, Recurrent)
        cell = first.cell
        found = cls(
            cell.input_size,
            cell.hidden_size,
            len(layers),
            any(c.bias_ih is not None or c.bias_hh is not None for c in _all_cells(layers)),
            batch_first,
            rates.pop() if rates else 0.0,
            first.directions == 2,
            0 if cell.weight_hr is None else cell.output_size,
            generator=0,
        )
        values: dict[str, Any] = {name: np.zeros(a.shape) for name, a in found.parameters.items()}
        for k, layer in enumerate(layers):
            assert isinstance(layer, Recurrent)
            for suffix, each in zip(found._suffixes(k), layer.cells.values(), strict=True):
                values |= {f"{name}_{suffix}": array for name, array in each.arrays.items()}
        found.load_state_dict(values)
        return found


def _is_pair(given: Any) -> bool:
    return isinstance(given, tuple | list) and len(cast("list[Any]", given)) == 2


def _all_cells(layers: Iterable[Any]) -> list[LSTMCell]:
    return [cell for layer in layers for cell in layer.cells.values()]


def _beyond(layer: Any, first: Any) -> str | None:
    """What `layer` has that torch.nn.LSTM has not."""
    if not isinstance(layer, Recurrent):
        return f"a layer of kind {layer.kind}"
    if layer.forward is None or layer.go_backwards or layer.merge != "concat":
        return "a direction or merge of its own"
    if layer.initial.kind == "constant":
        return "an initial state that is a constant"
    like = (first.directions, first.hidden_size, first.cell.output_size)
    if (layer.directions, layer.hidden_size, layer.cell.output_size) != like:
        return "a size that the first layer has not"
    for cell in layer.cells.values():
        for name in cell.arrays:
            if name not in _PLAIN:
                return name
        for name in ("clip_z", "clip_cell", "clip_projection", "coupling", "forget_bias"):
            if getattr(cell, name):
                return name
        if tuple(a.name for a in cell.activations) != ("sigmoid", "tanh", "tanh"):
            return "activations " + "/".join(map(str, cell.activations))
    return None
