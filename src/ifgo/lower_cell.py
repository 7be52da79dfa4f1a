"""One step of one LSTM cell as exact instructions: SPEC.md 3.2, line by line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifgo.activations import Activation
from ifgo.builder import Builder, constant
from ifgo.folding import exact_float32, folded_cell
from ifgo.model import LSTMCell, Recurrent
from ifgo.program import Affine, Buffer, Normalise, Operand, View

ZERO, ONE = np.float32(0.0), np.float32(1.0)


@dataclass(frozen=True)
class CellInputs:
    """What a step reads: its input, which recurrent layer and direction it is, and the mask.

    mask: one value, 0 where the step is skipped; None where every step counts. inside: one value,
    0 where the step lies in the padding, None where there is none.
    """

    layer: Recurrent
    direction: str
    position: int
    x: View
    mask: View | None = None
    inside: View | None = None

    @property
    def cell(self) -> LSTMCell:
        """The cell of this direction."""
        return self.layer.cells[self.direction]


def lower_cell(build: Builder, given: CellInputs) -> tuple[View, View]:
    """Emit the step; returns views of the state h and of the output (h, but for masked steps)."""
    return _CellStep(build, given).emit()


class _CellStep:
    def __init__(self, build: Builder, given: CellInputs) -> None:
        self.build, self.given = build, given
        self.layer, self.cell = given.layer, given.cell
        self.where = f"layer {given.layer.name}, {given.direction}"
        self.size = self.cell.hidden_size
        self.h = self.state("h", self.cell.output_size)
        self.c = self.state("c", self.size)
        if given.inside is not None:
            build.zero_where_empty(self.h)
            build.zero_where_empty(self.c)
        self.t = build.scratch("t", self.size)
        self.peephole = self.stored("p", "peephole")
        self.norm = None
        if self.cell.layer_norm is not None:
            weight = exact_float32(self.cell.layer_norm.weight, f"{self.where}, layer norm weight")
            self.norm = build.vector("n", weight, self.layer, self.path("layer_norm.weight"))

    def path(self, field: str) -> str:
        return f"{self.given.direction}.{field}"

    def stored(self, stem: str, field: str) -> View | None:
        array = getattr(self.cell, field)
        if array is None:
            return None
        narrow = exact_float32(array, f"{self.where}, {field}")
        return self.build.vector(stem, narrow, self.layer, self.path(field))

    def state(self, part: str, width: int) -> View:
        k, d = self.given.position, list(self.layer.cells).index(self.given.direction)
        start = getattr(self.layer.initial, part)
        initial = (
            np.zeros(width, dtype=np.float32)
            if start is None
            else exact_float32(start[d], f"layer {self.layer.name}, initial {part}")
        )
        name = f"{part}{k}" + ("" if self.layer.directions == 1 else "fb"[d])
        buffer = Buffer(name, "state", width, initial=initial, key=f"{part}{k}", direction=d)
        return View(buffer, 0, width)

    def emit(self) -> tuple[View, View]:
        build, cell, size = self.build, self.cell, self.size
        f_act, g_act, h_act = cell.activations
        z_i, z_f, z_g, z_o = self.pre_activations()
        i, f, g, o = (build.scratch(letter, size) for letter in "ifgo")
        if cell.coupling != "i=1-f":
            self.gate(0, "i", i, z_i, f_act, self.c)
        if cell.coupling != "f=1-i":
            self.gate(1, "f", f, z_f, f_act, self.c)
        if cell.coupling == "f=1-i":
            build.emit("sub", f, ONE, i)
        if cell.coupling == "i=1-f":
            build.emit("sub", i, ONE, f)
        self.gate(2, "g", g, z_g, g_act, None)
        product = build.scratch("m", size)
        masked = self.given.mask is not None or self.given.inside is not None
        c = build.scratch("cn", size) if masked else self.c
        build.emit("mul", self.t, f, self.c)
        build.emit("mul", product, i, g)
        build.emit("add", c, self.t, product)
        build.clip(c, cell.clip_cell)
        self.gate(3, "o", o, z_o, f_act, c)
        build.activate(product, c, h_act)
        projected = cell.weight_hr is not None
        m = build.scratch("q", size) if projected or masked else self.h
        build.emit("mul", m, o, product)
        for part, view in (("i", i), ("f", f), ("g", g), ("o", o), ("c", c), ("m", m)):
            build.probe(self.layer, self.given.direction, part, view)
        h = m
        if projected:
            h = build.scratch("hn", cell.output_size) if masked else self.h
            self.project(m, h)
        build.probe(self.layer, self.given.direction, "h", h)
        return self.h, self.kept(c, h)

    def pre_activations(self) -> tuple[View, View, View, View]:
        """z = bias + W·x + R·h; under layer norm the bias waits until after the norm."""
        build, size = self.build, self.size
        weight_ih, weight_hh, bias = folded_cell(self.cell, self.where)
        self.late_bias: View | None = None
        start: Operand = ZERO
        if bias is not None:
            stored = build.vector("b", bias, self.layer, self.path("bias"))
            if self.norm is None:
                start = stored
            else:
                self.late_bias = stored
        z = build.scratch("z", 4 * size)
        for part, view in (("x", self.given.x), ("h_before", self.h), ("c_before", self.c)):
            build.probe(self.layer, self.given.direction, part, view)
        w = build.matrix("w", weight_ih, self.layer, self.path("weight_ih"))
        r = build.matrix("r", weight_hh, self.layer, self.path("weight_hh"))
        build.open.body.append(Affine(z, start, ((w, self.given.x), (r, self.h))))
        z_i, z_f, z_g, z_o = (z.part(row * size, size) for row in range(4))
        return z_i, z_f, z_g, z_o

    def gate(
        self,
        row: int,
        letter: str,
        out: View,
        z: View,
        activation: Activation,
        seen: View | None,
    ) -> None:
        """Peephole on `seen`, layer norm, clip, activation: one gate from its sums z."""
        build = self.build
        if self.peephole is not None and seen is not None:
            weights = self.peephole.part("ifo".index(letter) * self.size, self.size)
            build.emit("mul", self.t, weights, seen)
            build.emit("add", z, z, self.t)
        if self.norm is not None:
            assert self.cell.layer_norm is not None
            scale = self.norm.part(row * self.size, self.size)
            epsilon = constant(self.cell.layer_norm.epsilon, "a layer norm epsilon")
            build.open.body.append(Normalise(z, z, scale, epsilon))
            if self.late_bias is not None:
                build.emit("add", z, z, self.late_bias.part(row * self.size, self.size))
        build.probe(self.layer, self.given.direction, f"z_{letter}", z)
        build.clip(z, self.cell.clip_z)
        build.activate(out, z, activation)

    def project(self, m: View, h: View) -> None:
        """h = bias_hr + weight_hr·m, clipped."""
        build, cell = self.build, self.cell
        assert cell.weight_hr is not None
        weight = exact_float32(cell.weight_hr, f"{self.where}, weight_hr")
        matrix = build.matrix("proj", weight, self.layer, self.path("weight_hr"))
        start = build.bias(cell.bias_hr, self.layer, self.path("bias_hr"))
        build.open.body.append(Affine(h, start, ((matrix, m),)))
        build.clip(h, cell.clip_projection)

    def kept(self, c: View, h: View) -> View:
        """A skipped step leaves the state alone and repeats the output, or puts out zeros.

        A step in the padding is skipped, and puts out zeros in any case.
        """
        build, mask, inside = self.build, self.given.mask, self.given.inside
        counts = inside if mask is None else mask
        if counts is None:
            return self.h
        if mask is not None and inside is not None:
            counts = build.emit("mul", build.scratch("counts", 1), mask, inside)
        build.select(self.c, counts, c, self.c)
        build.select(self.h, counts, h, self.h)
        if mask is None or self.layer.zero_masked:
            return build.select(build.scratch("out", h.size), counts, h, ZERO)
        carried = build.carry(h.size)
        build.select(carried, counts, h, carried)
        if inside is None:
            return carried
        return build.select(build.scratch("out", h.size), inside, carried, ZERO)
