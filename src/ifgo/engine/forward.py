"""A forward of ifgo.LSTM, kept until its backward. Letters: as in lstm.py."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ifgo.engine.arguments import real
from ifgo.engine.cells import F32
from ifgo.engine.loading import native
from ifgo.errors import UsageError

if TYPE_CHECKING:
    from ifgo.engine import _native
    from ifgo.engine.lstm import LSTM


@dataclass(frozen=True)
class Gradients:
    """Of a loss, by everything that went into a forward; each as what it belongs to.

    parameters: as LSTM.parameters, the same names; x; h_0 and c_0.
    """

    parameters: dict[str, F32]
    x: F32
    h_0: F32
    c_0: F32


class Forward:
    """A computed forward. output; h_n, c_n; backward(...), once."""

    output: F32
    h_n: F32
    c_n: F32

    def __init__(
        self,
        lstm: LSTM,
        unbatched: bool,
        lengths: NDArray[np.int64] | None,
        factors: list[F32 | None],
        h_0: F32,
        c_0: F32,
    ) -> None:
        self._lstm, self._unbatched, self._lengths = lstm, unbatched, lengths
        self._factors, self._h_0, self._c_0 = factors, h_0, c_0
        self._inputs: list[F32] = []
        self._tapes: list[Any] = []
        self._cells: list[_native.Cell] = []

    def compute(self, x: F32, keep: bool) -> None:
        """x (B, T, I)."""
        lstm = self._lstm
        self._cells = lstm._packed()
        batch, steps = x.shape[:2]
        width, directions = lstm.output_size, lstm.directions
        h_n, c_n = np.empty_like(self._h_0), np.empty_like(self._c_0)
        time_first = not (lstm.batch_first or self._unbatched)
        new = np.empty if self._lengths is None else np.zeros
        output = x
        for layer in range(lstm.num_layers):
            shape = (steps, batch) if time_first else (batch, steps)
            whole = new((*shape, width * directions), np.float32)
            output = whole.transpose(1, 0, 2) if time_first else whole
            for d in range(directions):
                k = layer * directions + d
                tape = _take(lstm)
                native().forward(
                    self._cells[k],
                    tape,
                    x,
                    output[:, :, d * width : (d + 1) * width],
                    reverse=d == 1,
                    keep=keep,
                    threads=lstm.threads,
                    lengths=self._lengths,
                    h0=self._h_0[k],
                    c0=self._c_0[k],
                    h_n=h_n[k],
                    c_n=c_n[k],
                )
                self._tapes.append(tape)
            self._inputs.append(x)
            factor = self._factors[layer] if layer + 1 < lstm.num_layers else None
            x = output if factor is None else output * factor
        self.output = self._shown(output)
        self.h_n, self.c_n = (a[:, 0] if self._unbatched else a for a in (h_n, c_n))
        if not keep:
            self._release()

    def _shown(self, rows: F32) -> F32:
        if self._unbatched:
            return rows[0]
        return rows if self._lstm.batch_first else rows.transpose(1, 0, 2)

    def _release(self) -> None:
        self._lstm._tapes.extend(self._tapes)
        self._tapes, self._inputs = [], []

    def backward(
        self,
        d_output: ArrayLike | None = None,
        d_state: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> Gradients:
        """The gradients, from those by output and by (h_n, c_n); what is None is zero.

        May be called once, before the LSTM's parameters change. Raises UsageError on another call
        and on shapes that are not those of the run.
        """
        lstm = self._lstm
        if not self._tapes:
            raise UsageError(
                "backward was called already", expected="one call", hint="Call forward again"
            )
        batch, steps = self._inputs[0].shape[:2]
        width, directions = lstm.output_size, lstm.directions
        shape = (batch, steps, width * directions)
        if d_output is None:
            dy = np.zeros(shape, np.float32)
        else:
            given = real(d_output, "d_output", self.output.shape)
            dy = lstm._rows(given, shape, self._unbatched)
        pair = (None, None) if d_state is None else d_state
        dh_n, dc_n = (
            np.zeros(full.shape, np.float32)
            if d is None
            else np.ascontiguousarray(real(d, name, has.shape).reshape(full.shape))
            for d, name, has, full in (
                (pair[0], "d_h_n", self.h_n, self._h_0),
                (pair[1], "d_c_n", self.c_n, self._c_0),
            )
        )
        dh_0, dc_0 = np.empty_like(self._h_0), np.empty_like(self._c_0)
        found: dict[str, F32] = {}
        dx = dy
        for layer in reversed(range(lstm.num_layers)):
            factor = self._factors[layer] if layer + 1 < lstm.num_layers else None
            dy = np.ascontiguousarray(dx if factor is None else dx * factor)
            dx = np.zeros(self._inputs[layer].shape, np.float32)
            for d, suffix in enumerate(lstm._suffixes(layer)):
                k = layer * directions + d
                gradient = {
                    kind: np.zeros_like(lstm.parameters[f"{kind}_{suffix}"])
                    for kind in ("weight_ih", "weight_hh", "bias_ih", "weight_hr")
                    if f"{kind}_{suffix}" in lstm.parameters
                }
                native().backward(
                    self._cells[k],
                    self._tapes[k],
                    threads=lstm.threads,
                    dy=dy[:, :, d * width : (d + 1) * width],
                    dh_n=dh_n[k],
                    dc_n=dc_n[k],
                    dx=dx,
                    add_dx=d == 1,
                    dh0=dh_0[k],
                    dc0=dc_0[k],
                    weight_ih=gradient["weight_ih"],
                    weight_hh=gradient["weight_hh"],
                    bias=gradient.get("bias_ih"),
                    weight_hr=gradient.get("weight_hr"),
                )
                if "bias_ih" in gradient:
                    gradient["bias_hh"] = gradient["bias_ih"].copy()
                found |= {f"{kind}_{suffix}": array for kind, array in gradient.items()}
        self._release()
        parameters = {name: found[name] for name in lstm.parameters}
        dh_0, dc_0 = (a[:, 0] if self._unbatched else a for a in (dh_0, dc_0))
        return Gradients(parameters, self._shown(dx), dh_0, dc_0)


def _take(lstm: LSTM) -> Any:
    tapes = lstm._tapes
    return tapes.pop() if tapes else native().Tape()
