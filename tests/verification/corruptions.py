"""Single corruptions of a lowered program, each with what verify must say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ifgo import gates
from ifgo.model import Dense, FeatureInput, LayerNorm, LSTMCell, Model, Recurrent, walk
from ifgo.program import Affine, Buffer, Instruction, Probe, Program, Sweep, View


@dataclass(frozen=True)
class Expected:
    """The layer and direction that err by themselves, the part, and the unit where it is one.

    must_show: whether it must show at all (a last bit may drown in the rounding).
    """

    layer: str
    direction: str
    part: str
    unit: int | None = None
    must_show: bool = True


Corruption = Callable[[Program, Model, np.random.Generator], tuple[Program, Expected] | None]
"""None where the model has nothing to corrupt in this way."""


def draw_model(random: np.random.Generator) -> Model:
    """Two or three LSTM layers of one width and a Dense, with options drawn."""
    width = int(random.integers(2, 7))

    def array(*shape: int, scale: float = 0.6) -> Any:
        return (random.normal(size=shape) * scale).astype(np.float32)

    def cell(inputs: int, kind: str) -> LSTMCell:
        units, rows = width, 4 * width
        made = LSTMCell(array(rows, inputs), array(rows, units), array(rows), array(rows))
        if kind == "peephole":
            return replace(made, peephole=array(3, units))
        if kind == "projection":
            return replace(made, weight_hr=array(units, units))
        if kind == "layer_norm":
            return replace(made, layer_norm=LayerNorm(array(4, units), 1e-3))
        return replace(made, forget_bias=1.0) if kind == "forget_bias" else made

    kinds = ("plain", "peephole", "projection", "layer_norm", "forget_bias")
    layers: list[Recurrent] = []
    size = width
    for k in range(int(random.integers(2, 4))):
        kind = kinds[int(random.integers(len(kinds)))]
        if random.random() < 0.25:
            both = (cell(size, kind), cell(size, kind))
            layers.append(Recurrent(f"layer{k}", *both, merge="sum"))
        elif random.random() < 0.25:
            layers.append(Recurrent(f"layer{k}", None, cell(size, kind)))
        else:
            layers.append(Recurrent(f"layer{k}", cell(size, kind)))
    return Model((FeatureInput(width),), (*layers, Dense("head", array(3, width), array(3))))


def _cells(model: Model) -> list[tuple[Recurrent, str]]:
    return [(layer, d) for layer in model.recurrent for d in layer.cells]


def _pick(model: Model, random: np.random.Generator, having: str = "") -> Any:
    found = _cells(model)

    def has(cell: LSTMCell) -> bool:
        return getattr(cell, having) is not None and bool(np.any(getattr(cell, having)))

    if having:
        found = [pair for pair in found if has(pair[0].cells[pair[1]])]
    return found[int(random.integers(len(found)))] if found else None


def _shown(layer: Recurrent, direction: str) -> str:
    return direction if layer.directions == 2 else ""


def _weight(program: Program, layer: Recurrent, field: str) -> Buffer:
    for buffer in program.buffers("weight"):
        if buffer.source == (layer.name, field):
            return buffer
    raise AssertionError(f"no weight {layer.name}.{field}")


def _change(buffer: Buffer, data: Any) -> None:
    object.__setattr__(buffer, "data", np.ascontiguousarray(data, dtype=np.float32))


def gate_swap(program: Program, model: Model, random: np.random.Generator) -> Any:
    layer, direction = _pick(model, random)
    a, b = sorted(random.choice(4, size=2, replace=False))
    order = list("ifgo")
    order[a], order[b] = order[b], order[a]
    buffer = _weight(program, layer, f"{direction}.weight_ih")
    _change(buffer, gates.reorder(np.asarray(buffer.data), "".join(order)))
    return program, Expected(layer.name, _shown(layer, direction), f"z_{'ifgo'[a]}")


def last_bit_of_a_weight(program: Program, model: Model, random: np.random.Generator) -> Any:
    layer, direction = _pick(model, random)
    if layer.cells[direction].layer_norm is not None:
        return None  # every unit of the gate changes
    name = ("weight_ih", "weight_hh")[int(random.integers(2))]
    buffer = _weight(program, layer, f"{direction}.{name}")
    data = np.array(buffer.data)
    row, column = (int(random.integers(n)) for n in data.shape)
    data[row, column] = np.nextafter(data[row, column], np.float32(np.inf))
    _change(buffer, data)
    gate, unit = divmod(row, layer.hidden_size)
    part = f"z_{'ifgo'[gate]}"
    return program, Expected(layer.name, _shown(layer, direction), part, unit, must_show=False)


def bias(program: Program, model: Model, random: np.random.Generator) -> Any:
    layer, direction = _pick(model, random)
    buffer = _weight(program, layer, f"{direction}.bias")
    data = np.array(buffer.data)
    row = int(random.integers(data.size))
    data[row] += np.float32(0.25)
    _change(buffer, data)
    gate, unit = divmod(row, layer.hidden_size)
    return program, Expected(layer.name, _shown(layer, direction), f"z_{'ifgo'[gate]}", unit)


def missing_peephole(program: Program, model: Model, random: np.random.Generator) -> Any:
    if (picked := _pick(model, random, "peephole")) is None:
        return None
    layer, direction = picked
    buffer = _weight(program, layer, f"{direction}.peephole")
    data = np.array(buffer.data).reshape(3, -1)
    row = int(random.integers(3))
    data[row] = 0
    _change(buffer, data.reshape(-1))
    return program, Expected(layer.name, _shown(layer, direction), f"z_{'ifo'[row]}")


def forget_bias_off(program: Program, model: Model, random: np.random.Generator) -> Any:
    if (picked := _pick(model, random, "forget_bias")) is None:
        return None
    layer, direction = picked
    cell = layer.cells[direction]
    _change(_weight(program, layer, f"{direction}.bias"), cell.bias_ih + cell.bias_hh)
    return program, Expected(layer.name, _shown(layer, direction), "z_f")


def wrong_direction(program: Program, model: Model, random: np.random.Generator) -> Any:
    if model.streamable:
        return None
    layer, direction = _pick(model, random)

    def turned(sweep: Sweep) -> Sweep:
        here = {(p.layer, p.direction) for p in sweep.body if isinstance(p, Probe)}
        wrong = (layer.name, direction) in here
        return Sweep(sweep.count, sweep.reverse != wrong, sweep.body)

    sweeps = tuple(turned(sweep) for sweep in program.sweeps)
    sharing = {
        p.layer
        for a, b in zip(program.sweeps, sweeps, strict=True)
        if a.reverse != b.reverse
        for p in a.body
        if isinstance(p, Probe)
    }
    first = next(each.name for each in walk(model.layers) if each.name in sharing)
    if first != layer.name:
        return None  # the sweep turned another layer with it
    return replace(program, sweeps=sweeps), Expected(
        layer.name, _shown(layer, direction), "h_before"
    )


def skipped_layer(program: Program, model: Model, random: np.random.Generator) -> Any:
    """The second of two layers is wired to what the first was given."""
    k = int(random.integers(len(model.recurrent) - 1))
    before, after = model.recurrent[k : k + 2]
    direction = next(iter(after.cells))
    sources = {
        (p.layer, p.direction): p.source
        for sweep in program.sweeps
        for p in sweep.body
        if isinstance(p, Probe) and p.part == "x"
    }
    old = sources[after.name, direction]
    new = sources[before.name, next(iter(before.cells))]
    if new.buffer.storage == "scratch" and not model.streamable:
        return None  # gone when a later sweep runs

    def same(view: View) -> bool:
        return (view.buffer, view.offset, view.size) == (old.buffer, old.offset, old.size)

    def rewired(instruction: Instruction, inside: bool) -> Instruction:
        if isinstance(instruction, Probe) and inside and instruction.part == "x":
            return replace(instruction, source=new)
        if isinstance(instruction, Affine) and inside and len(instruction.terms) == 2:
            terms = tuple((m, new if same(v) else v) for m, v in instruction.terms)
            return replace(instruction, terms=terms)
        return instruction

    for sweep in program.sweeps:
        inside = False
        for place, instruction in enumerate(sweep.body):
            if isinstance(instruction, Probe):
                inside = (instruction.layer, instruction.direction) == (after.name, direction)
            sweep.body[place] = rewired(instruction, inside)
    return program, Expected(after.name, _shown(after, direction), "x")


CORRUPTIONS: tuple[Corruption, ...] = (
    gate_swap,
    last_bit_of_a_weight,
    bias,
    missing_peephole,
    forget_bias_off,
    wrong_direction,
    skipped_layer,
)
