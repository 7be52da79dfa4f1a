"""Model → Program: the one place where the exact float32 arithmetic of a layer is written down.

Normative text: SPEC.md sections 1 and 3. Targets and the interpreter add nothing to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ifgo.activations import LINEAR, SOFTMAX, Activation
from ifgo.errors import UnsupportedError, UsageError
from ifgo.folding import exact_float32, folded_batch_norm, folded_cell
from ifgo.model import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    LSTMCell,
    Masking,
    Model,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    TokenInput,
)
from ifgo.program import (
    F32,
    Affine,
    Buffer,
    Elementwise,
    ElementwiseOp,
    Gather,
    Operand,
    Probe,
    Program,
    Softmax,
    Storage,
    Sweep,
    View,
)

ZERO, HALF, ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)


def lower(model: Model, numerics: str = "exact") -> Program:
    """The program of `model`. numerics: "exact" (float32, SPEC.md section 3).

    Raises UnsupportedError naming the layer whose arithmetic has no exact form yet, or whose
    float64 weights are no float32 values.
    """
    if numerics != "exact":
        raise UsageError(f"unknown numerics {numerics!r}", expected="exact")
    return _Lowering(model).program()


class _Lowering:
    """Walks the chain; `value` is the current value, valid inside the open sweep."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.states = {layer.name: k for k, layer in enumerate(model.recurrent)}
        self.names: dict[str, int] = {}
        self.sweeps: list[Sweep] = [Sweep(None)]
        self.required_steps: int | None = None
        tokens = isinstance(model.input, TokenInput)
        self.input = Buffer("x", "input", model.input_size, None, tokens=tokens)
        self.value = View(self.input, 0, model.input_size, model.input_size)
        self.finals: tuple[Recurrent, list[View]] | None = None

    def program(self) -> Program:
        model = self.model
        self.chain(model.layers)
        vector = model.ends_in_vector
        rows = 1 if vector else self.open.count
        output = Buffer("y", "output", self.value.size, rows)
        self.emit_copy(View(output, 0, output.width, 0 if vector else output.width), self.value)
        sweeps = tuple(sweep for sweep in self.sweeps if sweep.body)
        return Program(
            sweeps,
            self.input,
            output,
            model.streamable,
            self.required_steps,
            model.macs,
        )

    # -- building blocks --------------------------------------------------------------------

    @property
    def open(self) -> Sweep:
        return self.sweeps[-1]

    def buffer(self, stem: str, storage: Storage, width: int, **facts: Any) -> Buffer:
        number = self.names.get(stem, 0)
        self.names[stem] = number + 1
        return Buffer(f"{stem}{number}", storage, width, **facts)

    def scratch(self, stem: str, size: int) -> View:
        return View(self.buffer(stem, "scratch", size), 0, size)

    def weight(self, stem: str, array: F32, layer: str, field: str) -> Buffer:
        rows = array.shape[0] if array.ndim == 2 else 1
        return self.buffer(
            stem, "weight", array.shape[-1], rows=rows, data=array, source=(layer, field)
        )

    def vector(self, stem: str, array: F32, layer: str, field: str) -> View:
        buffer = self.weight(stem, array, layer, field)
        return View(buffer, 0, buffer.width)

    def emit(
        self,
        op: ElementwiseOp,
        result: View,
        a: Operand,
        b: Operand | None = None,
        activation: Activation | None = None,
    ) -> View:
        self.open.body.append(Elementwise(op, result, a, b, activation))
        return result

    def emit_copy(self, result: View, a: Operand) -> View:
        return self.emit("copy", result, a)

    def emit_activation(self, result: View, a: View, activation: Activation) -> View:
        if activation == SOFTMAX:
            self.open.body.append(Softmax(result, a))
            return result
        if activation == LINEAR:
            return self.emit_copy(result, a)
        return self.emit("activate", result, a, activation=activation)

    def emit_clip(self, value: View, bound: float | None) -> None:
        if bound is not None:
            self.emit("clip", value, value, np.float32(bound))

    def materialise(self) -> View:
        """The current value as rows of a sequence that outlives the open sweep."""
        if self.value.stride:
            return self.value
        sweep, size = self.open, self.value.size
        stored = self.buffer("seq", "sequence", size, rows=sweep.count)
        view = View(stored, 0, size, size)
        self.emit_copy(view, self.value)
        self.value = view
        return view

    def new_sweep(self, count: int | None, *, reverse: bool = False) -> Sweep:
        self.sweeps.append(Sweep(count, reverse))
        return self.open

    # -- layers -----------------------------------------------------------------------------

    def chain(self, layers: tuple[Layer, ...]) -> None:
        for layer in layers:
            observed = bool(layer.arrays) or isinstance(layer, ActivationLayer)
            observed = observed and not isinstance(layer, Recurrent | Residual | Embedding)
            if observed:
                self.probe(layer, "", "x", self.value)
            self.layer(layer)
            if observed:
                self.probe(layer, "", "y", self.value)

    def layer(self, layer: Layer) -> None:
        match layer:
            case Recurrent():
                self.recurrent(layer)
            case Dense():
                self.dense(layer)
            case ActivationLayer():
                out = self.scratch("a", self.value.size)
                self.value = self.emit_activation(out, self.value, layer.activation)
            case Dropout():
                pass
            case Scale():
                factor = exact_float32(layer.factor, f"layer {layer.name}, factor")
                offset = exact_float32(layer.offset, f"layer {layer.name}, offset")
                self.scale(layer, factor, offset)
            case BatchNorm():
                self.scale(layer, *folded_batch_norm(layer))
            case Embedding():
                self.embedding(layer)
            case LastStep():
                self.last_step(layer)
            case HiddenAsSequence():
                source = self.value
                self.new_sweep(source.size)
                self.value = View(source.buffer, source.offset, 1, 1)
            case RepeatVector():
                self.new_sweep(layer.steps)
            case Flatten():
                self.flatten(layer)
            case Residual():
                self.residual(layer)
            case Masking():
                raise UnsupportedError(
                    "masks have no exact form yet",
                    where=f"layer {layer.name}",
                    hint="Run it on truth, or pass lengths instead of padding",
                )
            case _:
                raise UnsupportedError(f"{layer.kind} has no exact form", where=layer.name)

    def scale(self, layer: Layer, factor: F32, offset: F32) -> None:
        out = self.scratch("a", self.value.size)
        self.emit("mul", out, self.value, self.vector("factor", factor, layer.name, "factor"))
        self.emit("add", out, out, self.vector("offset", offset, layer.name, "offset"))
        self.value = out

    def dense(self, layer: Dense) -> None:
        where = f"layer {layer.name}"
        matrix = self.weight(
            "w", exact_float32(layer.weight, f"{where}, weight"), layer.name, "weight"
        )
        start: Operand = ZERO
        if layer.bias is not None:
            bias = exact_float32(layer.bias, f"{where}, bias")
            start = self.vector("b", bias, layer.name, "bias")
        out = self.scratch("d", layer.weight.shape[0])
        self.open.body.append(Affine(out, start, ((matrix, self.value),)))
        if layer.activation != LINEAR:
            self.emit_activation(out, out, layer.activation)
        self.value = out

    def embedding(self, layer: Embedding) -> None:
        if layer.mask_zero:
            raise UnsupportedError(
                "mask_zero has no exact form yet",
                where=f"layer {layer.name}",
                hint="Run it on truth, or pass lengths instead of padding",
            )
        table = self.weight(
            "table",
            exact_float32(layer.weight, f"layer {layer.name}, weight"),
            layer.name,
            "weight",
        )
        out = self.scratch("e", table.width)
        self.open.body.append(Gather(out, table, self.value))
        self.value = out

    def last_step(self, layer: LastStep) -> None:
        if self.model.streamable:
            return
        if layer.of == "state" and self.finals is not None:
            self.new_sweep(1)
            self.value = self.merged_finals(*self.finals)
            return
        if self.value.stride:
            out = self.scratch("last", self.value.size)
            self.value = self.emit_copy(out, self.value)
        self.new_sweep(1)

    def flatten(self, layer: Flatten) -> None:
        count = self.open.count
        if count is None:
            self.required_steps = layer.steps
        elif count != layer.steps:
            raise UnsupportedError(
                f"gets {count} steps",
                where=f"layer {layer.name}",
                expected=f"exactly {layer.steps}",
            )
        rows = self.materialise()
        self.new_sweep(1)
        self.value = View(rows.buffer, rows.offset, layer.steps * rows.size)

    def residual(self, layer: Residual) -> None:
        if layer.not_streamable_because:
            self.materialise()
        skipped = self.value
        self.chain(layer.layers)
        out = self.scratch("r", self.value.size)
        n = layer.channels
        self.emit("add", out.part(0, n), self.value.part(0, n), skipped.part(0, n))
        if n < out.size:
            self.emit_copy(out.part(n, out.size - n), self.value.part(n, out.size - n))
        self.value = out

    # -- the cell ---------------------------------------------------------------------------

    def recurrent(self, layer: Recurrent) -> None:
        if layer.not_streamable_because is None and layer.forward is not None:
            self.value = self.cell(layer, "forward", self.value)
            self.finals = (layer, [self.value])
            return
        source = self.materialise()
        count = self.open.count
        parts = layer.directions
        size = layer.cell.output_size
        width = size * (parts if layer.merge == "concat" else 1)
        stored = self.buffer("seq", "sequence", width, rows=count)
        finals: list[View] = []
        for d, direction in enumerate(layer.cells):
            self.new_sweep(count, reverse=direction == "backward")
            read = View(
                source.buffer, source.offset, source.size, source.stride, layer.go_backwards
            )
            hidden = self.cell(layer, direction, read)
            finals.append(hidden)
            row = View(stored, 0, width, width)
            if layer.merge == "concat":
                self.emit_copy(row.part(d * size, size), hidden)
            elif d == 0:
                self.emit_copy(row, hidden)
            else:
                self.emit("mul" if layer.merge == "mul" else "add", row, row, hidden)
                if layer.merge == "ave":
                    self.emit("mul", row, row, HALF)
        self.new_sweep(count)
        self.value = View(stored, 0, width, width)
        self.finals = (layer, finals)

    def merged_finals(self, layer: Recurrent, finals: list[View]) -> View:
        """The final states of both directions as one vector."""
        if len(finals) == 1:
            return finals[0]
        size = finals[0].size
        if layer.merge == "concat":
            out = self.scratch("final", 2 * size)
            for d, final in enumerate(finals):
                self.emit_copy(out.part(d * size, size), final)
            return out
        out = self.scratch("final", size)
        self.emit("mul" if layer.merge == "mul" else "add", out, finals[0], finals[1])
        return self.emit("mul", out, out, HALF) if layer.merge == "ave" else out

    def state(self, layer: Recurrent, part: str, direction: str, width: int) -> View:
        k, d = self.states[layer.name], list(layer.cells).index(direction)
        start = getattr(layer.initial, part)
        initial = (
            np.zeros(width, dtype=np.float32)
            if start is None
            else exact_float32(start[d], f"layer {layer.name}, initial {part}")
        )
        suffix = "" if layer.directions == 1 else "fb"[d]
        name = f"{part}{k}{suffix}"
        buffer = Buffer(name, "state", width, initial=initial, key=f"{part}{k}", direction=d)
        return View(buffer, 0, width)

    def cell(self, layer: Recurrent, direction: str, x: View) -> View:
        """One step of one direction on x; returns the view of its output h. SPEC.md 3.2."""
        cell = layer.cells[direction]
        where = f"layer {layer.name}, {direction}"
        if cell.layer_norm is not None:
            raise UnsupportedError("layer norm has no exact form yet", where=where)
        size = cell.hidden_size
        weight_ih, weight_hh, bias = folded_cell(cell, where)
        path = f"{direction}."
        h = self.state(layer, "h", direction, cell.output_size)
        c = self.state(layer, "c", direction, size)
        z = self.scratch("z", 4 * size)
        self.probe(layer, direction, "x", x)
        start: Operand = ZERO
        if bias is not None:
            start = self.vector("b", bias, layer.name, path + "bias")
        w = self.weight("w", weight_ih, layer.name, path + "weight_ih")
        r = self.weight("r", weight_hh, layer.name, path + "weight_hh")
        self.open.body.append(Affine(z, start, ((w, x), (r, h))))
        z_i, z_f, z_g, z_o = (z.part(gate * size, size) for gate in range(4))
        peephole = None
        if cell.peephole is not None:
            peephole = self.vector(
                "p",
                exact_float32(cell.peephole, f"{where}, peephole").reshape(-1),
                layer.name,
                path + "peephole",
            )
        i, f, g, o = (self.scratch(gate, size) for gate in "ifgo")
        t, hidden = self.scratch("t", size), self.scratch("m", size)
        f_act, g_act, h_act = cell.activations

        def peep(pre: View, row: int, state: View) -> None:
            if peephole is not None:
                self.emit("mul", t, peephole.part(row * size, size), state)
                self.emit("add", pre, pre, t)

        def gate(out: View, pre: View, letter: str, activation: Activation) -> None:
            self.probe(layer, direction, f"z_{letter}", pre)
            self.emit_clip(pre, cell.clip_z)
            self.emit_activation(out, pre, activation)

        if cell.coupling != "i=1-f":
            peep(z_i, 0, c)
            gate(i, z_i, "i", f_act)
        if cell.coupling != "f=1-i":
            peep(z_f, 1, c)
            gate(f, z_f, "f", f_act)
        if cell.coupling == "f=1-i":
            self.emit("sub", f, ONE, i)
        if cell.coupling == "i=1-f":
            self.emit("sub", i, ONE, f)
        gate(g, z_g, "g", g_act)
        self.emit("mul", t, f, c)
        self.emit("mul", hidden, i, g)
        self.emit("add", c, t, hidden)
        self.emit_clip(c, cell.clip_cell)
        peep(z_o, 2, c)
        gate(o, z_o, "o", f_act)
        self.emit_activation(hidden, c, h_act)
        plain = cell.weight_hr is None
        m = h if plain else self.scratch("q", size)
        self.emit("mul", m, o, hidden)
        for part, view in (("i", i), ("f", f), ("g", g), ("o", o), ("c", c), ("m", m)):
            self.probe(layer, direction, part, view)
        if cell.weight_hr is not None:
            self.projection(layer, direction, cell, m, h)
        self.probe(layer, direction, "h", h)
        return h

    def projection(
        self, layer: Recurrent, direction: str, cell: LSTMCell, m: View, h: View
    ) -> None:
        where = f"layer {layer.name}, {direction}"
        assert cell.weight_hr is not None
        matrix = self.weight(
            "proj",
            exact_float32(cell.weight_hr, f"{where}, weight_hr"),
            layer.name,
            f"{direction}.weight_hr",
        )
        start: Operand = ZERO
        if cell.bias_hr is not None:
            bias = exact_float32(cell.bias_hr, f"{where}, bias_hr")
            start = self.vector("b", bias, layer.name, f"{direction}.bias_hr")
        self.open.body.append(Affine(h, start, ((matrix, m),)))
        self.emit_clip(h, cell.clip_projection)

    def probe(self, layer: Layer, direction: str, part: str, view: View) -> None:
        self.open.body.append(Probe(layer.name, direction, part, view))
