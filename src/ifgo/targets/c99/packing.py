"""How weights and states lie in model.c: packed constant arrays, or raw tensors from the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import UnsupportedError
from ifgo.model import Dense, Layer, Model, Recurrent
from ifgo.program import Affine, Buffer, Program
from ifgo.targets.c99.library import PADDING
from ifgo.targets.c99.schedule import BLOCK, number


@dataclass(frozen=True)
class Tensor:
    """One raw tensor the caller supplies: field name in the struct, number of values."""

    name: str
    count: int


def raw_suffixes(model: Model) -> dict[str, str]:
    """Layer name → "1_16". Raises UnsupportedError listing what raw tensors cannot hold."""
    suffixes: dict[str, str] = {}
    reasons: list[str] = []
    for layer in model.layers:
        if layer.arrays:
            reasons += [f"layer {layer.name} {reason}" for reason in _no_raw_form(layer)]
            width = layer.hidden_size if isinstance(layer, Recurrent) else 0
            width = layer.weight.shape[0] if isinstance(layer, Dense) else width
            suffixes[layer.name] = f"{len(suffixes) + 1}_{width}"
    if reasons:
        raise UnsupportedError(
            "raw weight files cannot hold the model: " + "; ".join(reasons),
            hint="Use --weights embedded",
        )
    return suffixes


def _no_raw_form(layer: Layer) -> list[str]:
    if isinstance(layer, Dense):
        return []
    if not isinstance(layer, Recurrent):
        return [f"is a {layer.kind}"]
    reasons: list[str] = []
    cell = layer.cell
    if layer.backward is not None or layer.go_backwards:
        reasons.append("runs backwards")
    allowed = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}
    reasons += [f"has {name}" for name in cell.arrays if name not in allowed]
    if cell.forget_bias:
        reasons.append("has a run-time forget bias")
    if layer.initial.kind == "constant":
        reasons.append("has a constant initial state")
    return reasons


def state_fields(buffer: Buffer) -> dict[str, Any]:
    """Name, width and initial value (a literal, or an element of a constant) of a state array."""
    assert buffer.initial is not None
    first = buffer.initial[0]
    uniform = bool((buffer.initial.view(np.uint32) == first.view(np.uint32)).all())
    initial = number(first) if uniform else f"{buffer.name}_initial[j]"
    return {"name": buffer.name, "width": buffer.width, "initial": initial}


def constant_arrays(
    program: Program, products: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """Constant arrays of model.c, matrices packed as `affine` walks them.

    products: those that a vendor's library multiplies lie row by row.
    """
    found: list[dict[str, Any]] = []
    for sweep in program.sweeps:
        for instruction in sweep.body:
            if isinstance(instruction, Affine):
                matrices = [matrix for matrix, _ in instruction.terms]
                data = [m.data for m in matrices if m.data is not None]
                what = " and ".join(f"{m.rows} x {m.width}" for m in matrices)
                if matrices[0].name in products:
                    rows = np.concatenate(data, axis=1).reshape(-1)
                    padded = np.concatenate([rows, np.zeros(PADDING, np.float32)])
                    found.append(_array(matrices[0].name, padded, f"{what}, row by row"))
                else:
                    found.append(_array(matrices[0].name, pack(data), f"{what}, packed"))
    packed_names = {
        matrix.name
        for sweep in program.sweeps
        for instruction in sweep.body
        if isinstance(instruction, Affine)
        for matrix, _ in instruction.terms
    }
    for buffer in program.buffers("weight"):
        if buffer.name not in packed_names and buffer.data is not None:
            found.append(_array(buffer.name, buffer.data.reshape(-1), f"{buffer.data.size} values"))
    for buffer in program.buffers("state"):
        if buffer.initial is not None and state_fields(buffer)["initial"].endswith("[j]"):
            found.append(_array(f"{buffer.name}_initial", buffer.initial, "initial state"))
    return found


def _array(name: str, values: NDArray[np.float32], what: str) -> dict[str, Any]:
    return {
        "name": name,
        "count": values.size,
        "what": what,
        "text": columns([number(v) for v in values]),
    }


def columns(items: list[str], per_line: int = 8) -> str:
    """The items of an initialiser, a few to a line."""
    rows = [items[at : at + per_line] for at in range(0, len(items), per_line)]
    return ",\n".join("    " + ", ".join(row) for row in rows)


def pack(matrices: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """[W R] side by side: blocks of BLOCK rows column by column, then the rows left over."""
    joined = np.concatenate(matrices, axis=1)
    full = joined.shape[0] - joined.shape[0] % BLOCK
    blocks = joined[:full].reshape(-1, BLOCK, joined.shape[1]).transpose(0, 2, 1)
    return np.concatenate([blocks.reshape(-1), joined[full:].reshape(-1)])


def raw_tensors(model: Model, raw: dict[str, str]) -> list[Tensor]:
    """The tensors the caller supplies, in layer order: W, R, B."""
    found: list[Tensor] = []
    for layer in model.layers:
        if isinstance(layer, Recurrent):
            cell, tail = layer.cell, raw[layer.name]
            found += [
                Tensor(f"W_{tail}", cell.weight_ih.size),
                Tensor(f"R_{tail}", cell.weight_hh.size),
            ]
            if cell.bias_ih is not None or cell.bias_hh is not None:
                found.append(Tensor(f"B_{tail}", 8 * cell.hidden_size))
        elif isinstance(layer, Dense):
            found.append(Tensor(f"W_{raw[layer.name]}", layer.weight.size))
            if layer.bias is not None:
                found.append(Tensor(f"B_{raw[layer.name]}", layer.bias.size))
    return found
