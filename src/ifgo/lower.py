"""Model → Program: the one place where the exact float32 arithmetic of a layer is written down.

Normative text: SPEC.md sections 1 and 3. Targets and the interpreter add nothing to it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ifgo.activations import LINEAR
from ifgo.builder import Builder, constant
from ifgo.errors import UnsupportedError, UsageError
from ifgo.folding import exact_float32, folded_batch_norm
from ifgo.lower_cell import CellInputs, lower_cell
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
    Masking,
    Model,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    TokenInput,
)
from ifgo.program import F32, Affine, Buffer, Differs, Gather, Inside, Program, View

ZERO, HALF = np.float32(0.0), np.float32(0.5)


def lower(model: Model, numerics: str = "exact", *, lengths: bool = False) -> Program:
    """The program of `model`. numerics: "exact" (float32, SPEC.md section 3).

    lengths: the program takes the length of each sequence (SPEC.md 7.2) and is never streamable.
    Raises UnsupportedError naming the layer where float64 weights are no float32 values or a
    Flatten gets another number of steps.
    """
    if numerics != "exact":
        raise UsageError(f"unknown numerics {numerics!r}", expected="exact")
    return _Lowering(model, lengths).program()


class _Lowering:
    """Walks the chain; `value` (and `mask`) are what the open sweep has computed so far.

    padded: steps may lie in the padding, until a vector ends time.
    """

    def __init__(self, model: Model, lengths: bool) -> None:
        self.model = model
        self.streamable = model.streamable and not lengths
        self.lengths = lengths
        self.padded = lengths
        self.positions = {layer.name: k for k, layer in enumerate(model.recurrent)}
        self.build = Builder()
        self.required_steps: int | None = None
        tokens = isinstance(model.input, TokenInput)
        self.input = Buffer("x", "input", model.input_size, None, tokens=tokens)
        self.value = View(self.input, 0, model.input_size, model.input_size)
        self.mask: View | None = None
        self.finals: tuple[Recurrent, list[View]] | None = None

    def program(self) -> Program:
        model, build = self.model, self.build
        self.chain(model.layers)
        vector = model.ends_in_vector
        output = Buffer("y", "output", self.value.size, 1 if vector else build.open.count)
        build.copy(View(output, 0, output.width, 0 if vector else output.width), self.value)
        sweeps = tuple(sweep for sweep in (build.start, *build.sweeps) if sweep.body)
        return Program(
            sweeps,
            self.input,
            output,
            self.streamable,
            vector,
            self.lengths,
            self.required_steps,
            model.macs,
        )

    # -- time -------------------------------------------------------------------------------

    def stored(self, view: View) -> View:
        """A value as rows of a sequence that outlives the open sweep."""
        return view if view.stride else self.build.copy(self.build.sequence(view.size), view)

    def materialise(self) -> None:
        """Store the value, and the mask, for sweeps to come."""
        self.value = self.stored(self.value)
        if self.mask is not None:
            self.mask = self.stored(self.mask)

    def inside(self) -> View | None:
        """Under lengths, whether the step of the open sweep belongs to the sequence."""
        if not self.padded:
            return None
        found = self.build.scratch("in", 1)
        self.build.open.body.append(Inside(found))
        return found

    def start_vector(self, value: View) -> None:
        """From here on one vector per sequence: a sweep of one step, without a mask."""
        self.value, self.mask, self.padded = value, None, False
        if not self.streamable:
            self.build.new_sweep(1)

    # -- layers -----------------------------------------------------------------------------

    def chain(self, layers: tuple[Layer, ...]) -> None:
        for layer in layers:
            observed = bool(layer.arrays) or isinstance(layer, ActivationLayer)
            observed = observed and not isinstance(layer, Recurrent | Residual | Embedding)
            if observed:
                self.build.probe(layer, "", "x", self.value)
            self.layer(layer)
            if observed:
                self.build.probe(layer, "", "y", self.value)

    def layer(self, layer: Layer) -> None:
        match layer:
            case Recurrent():
                self.recurrent(layer)
            case Dense():
                self.dense(layer)
            case ActivationLayer():
                out = self.build.scratch("a", self.value.size)
                self.value = self.build.activate(out, self.value, layer.activation)
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
            case Masking():
                self.masking(layer)
            case LastStep():
                self.last_step(layer)
            case HiddenAsSequence():
                units = self.value.size
                self.value = View(self.value.buffer, self.value.offset, 1, 1)
                self.build.new_sweep(units)
            case RepeatVector():
                self.build.new_sweep(layer.steps)
            case Flatten():
                self.flatten(layer)
            case Residual():
                self.residual(layer)
            case _:
                raise UnsupportedError(f"{layer.kind} has no exact form", where=layer.name)

    def scale(self, layer: Layer, factor: F32, offset: F32) -> None:
        build = self.build
        out = build.scratch("a", self.value.size)
        build.emit("mul", out, self.value, build.vector("factor", factor, layer, "factor"))
        self.value = build.emit("add", out, out, build.vector("offset", offset, layer, "offset"))

    def dense(self, layer: Dense) -> None:
        build = self.build
        weight = exact_float32(layer.weight, f"layer {layer.name}, weight")
        matrix = build.matrix("w", weight, layer, "weight")
        out = build.scratch("d", layer.weight.shape[0])
        start = build.bias(layer.bias, layer, "bias")
        build.open.body.append(Affine(out, start, ((matrix, self.value),)))
        if layer.activation != LINEAR:
            build.activate(out, out, layer.activation)
        self.value = out

    def embedding(self, layer: Embedding) -> None:
        build = self.build
        weight = exact_float32(layer.weight, f"layer {layer.name}, weight")
        table = build.matrix("table", weight, layer, "weight")
        out = build.scratch("e", table.width)
        build.open.body.append(Gather(out, table, self.value))
        if layer.mask_zero:
            self.mask = build.scratch("mask", 1)
            build.open.body.append(Differs(self.mask, self.value, ZERO))
        self.value = out

    def masking(self, layer: Masking) -> None:
        build = self.build
        kept = build.scratch("mask", 1)
        value = constant(layer.value, "a masking value")
        build.open.body.append(Differs(kept, self.value, value))
        self.value = build.select(build.scratch("a", self.value.size), kept, self.value, ZERO)
        self.mask = kept if self.mask is None else build.emit("mul", kept, kept, self.mask)

    def last_step(self, layer: LastStep) -> None:
        if self.streamable:
            final = self.finals[1][0] if layer.of == "state" and self.finals else self.value
            self.start_vector(final)
        elif layer.of == "state" and self.finals is not None:
            self.start_vector(self.value)
            self.value = self.merged_finals(*self.finals)
        elif (inside := self.inside()) is not None:
            out = self.build.carry(self.value.size)
            self.start_vector(self.build.select(out, inside, self.value, out))
        elif self.value.stride:
            out = self.build.scratch("last", self.value.size)
            self.start_vector(self.build.copy(out, self.value))
        else:
            self.start_vector(self.value)

    def flatten(self, layer: Flatten) -> None:
        count = self.build.open.count
        if count is None:
            self.required_steps = layer.steps
        elif count != layer.steps:
            raise UnsupportedError(
                f"gets {count} steps",
                where=f"layer {layer.name}",
                expected=f"exactly {layer.steps}",
            )
        self.materialise()
        rows = self.value
        self.start_vector(View(rows.buffer, rows.offset, layer.steps * rows.size))

    def residual(self, layer: Residual) -> None:
        if layer.not_streamable_because:
            self.materialise()
        skipped = self.value
        self.chain(layer.layers)
        build, n = self.build, layer.channels
        out = build.scratch("r", self.value.size)
        build.emit("add", out.part(0, n), self.value.part(0, n), skipped.part(0, n))
        if n < out.size:
            build.copy(out.part(n, out.size - n), self.value.part(n, out.size - n))
        self.value = out

    def recurrent(self, layer: Recurrent) -> None:
        if layer.not_streamable_because is None and layer.forward is not None:
            state, self.value = self.cell(layer, "forward", self.value, self.mask)
            self.finals = (layer, [state])
            return
        self.materialise()
        build, source, mask = self.build, self.value, self.mask
        count, size = build.open.count, layer.cell.output_size
        width = size * (layer.directions if layer.merge == "concat" else 1)
        row = build.sequence(width)
        finals: list[View] = []
        for d, direction in enumerate(layer.cells):
            build.new_sweep(count, reverse=direction == "backward")
            x = replace(source, mirrored=layer.go_backwards)
            kept = None if mask is None else replace(mask, mirrored=layer.go_backwards)
            state, out = self.cell(layer, direction, x, kept)
            finals.append(state)
            if layer.merge == "concat":
                build.copy(row.part(d * size, size), out)
            elif d == 0:
                build.copy(row, out)
            else:
                build.emit("mul" if layer.merge == "mul" else "add", row, row, out)
                if layer.merge == "ave":
                    build.emit("mul", row, row, HALF)
        build.new_sweep(count)
        self.value = row
        self.finals = (layer, finals)

    def cell(
        self, layer: Recurrent, direction: str, x: View, mask: View | None
    ) -> tuple[View, View]:
        """One step in the open sweep: views of the state h and of the output."""
        position = self.positions[layer.name]
        given = CellInputs(layer, direction, position, x, mask, self.inside())
        return lower_cell(self.build, given)

    def merged_finals(self, layer: Recurrent, finals: list[View]) -> View:
        """The final states of both directions as one vector."""
        if len(finals) == 1:
            return finals[0]
        build, size = self.build, finals[0].size
        if layer.merge == "concat":
            out = build.scratch("final", 2 * size)
            for d, final in enumerate(finals):
                build.copy(out.part(d * size, size), final)
            return out
        out = build.scratch("final", size)
        build.emit("mul" if layer.merge == "mul" else "add", out, finals[0], finals[1])
        return build.emit("mul", out, out, HALF) if layer.merge == "ave" else out
