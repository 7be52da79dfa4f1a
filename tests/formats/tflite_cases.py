"""TFLite by hand: files put together input by input, what the operator computes, and the runtime.

Inputs of the LSTM are placed by their number in TensorFlow's kernel, not by ifgo's tables. A cell
is a dict of arrays: W_i W_f W_c W_o (H, I), R_i.. (H, P), b_i.. (H,), p_i p_f p_o, n_i.., proj,
proj_b; what is left out is not in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ifgo.formats.tflite.build import FlatFile
from ifgo.formats.tflite.file import schema

Cell = dict[str, Any]

PLACES = {
    **{f"W_{g}": 1 + k for k, g in enumerate("ifco")},
    **{f"R_{g}": 5 + k for k, g in enumerate("ifco")},
    **{f"p_{g}": 9 + k for k, g in enumerate("ifo")},
    **{f"b_{g}": 12 + k for k, g in enumerate("ifco")},
    "proj": 16,
    "proj_b": 17,
    **{f"n_{g}": 20 + k for k, g in enumerate("ifco")},
}
"""Input numbers of UNIDIRECTIONAL_SEQUENCE_LSTM; 18 and 19 are h and c."""

NONE, RELU, RELU6, TANH = 0, 1, 3, 4
ACTIVATE = {RELU: lambda z: np.maximum(z, 0), TANH: np.tanh}


def draw_cell(
    seed: int,
    inputs: int = 3,
    hidden: int = 4,
    *,
    outputs: int = 0,
    cifg: bool = False,
    peephole: bool = False,
    norm: bool = False,
    proj_bias: bool = False,
    scale: float = 0.6,
) -> Cell:
    """Random weights with what is asked for; outputs: P of a projection, 0 for none."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return rng.uniform(-scale, scale, shape).astype("f")

    cell: Cell = {}
    for gate in "fco" if cifg else "ifco":
        cell[f"W_{gate}"] = draw(hidden, inputs)
        cell[f"R_{gate}"] = draw(hidden, outputs or hidden)
        cell[f"b_{gate}"] = draw(hidden)
        if norm:
            cell[f"n_{gate}"] = draw(hidden) + 1
        if peephole and gate != "c":
            cell[f"p_{gate}"] = draw(hidden)
    if outputs:
        cell["proj"] = draw(outputs, hidden)
        if proj_bias:
            cell["proj_b"] = draw(outputs)
    return cell


def sizes(cell: Cell) -> tuple[int, int, int]:
    """I, H, P."""
    return cell["W_f"].shape[1], cell["W_f"].shape[0], cell["R_f"].shape[1]


def place(flat: FlatFile, x: int, cell: Cell, prefix: str = "") -> tuple[list[int], list[int]]:
    """The 24 inputs of the operator; the states are new variables, also given apart."""
    _, hidden, outputs = sizes(cell)
    found = [x] + [-1] * 23
    for name, array in cell.items():
        found[PLACES[name]] = flat.constant(prefix + name, array)
    states = [
        flat.tensor(f"{prefix}state_{part}", (1, size), variable=True)
        for part, size in (("h", outputs), ("c", hidden))
    ]
    found[18:20] = states
    return found, states


def lstm_file(
    cell: Cell,
    *,
    steps: int = -1,
    activation: int = TANH,
    time_major: bool = False,
    **options: Any,
) -> tuple[FlatFile, int, int, list[int]]:
    """One operator: (file, tensor of the input, of the output, of the states)."""
    flat = FlatFile(schema())
    inputs, _, outputs = sizes(cell)

    def shape(width: int) -> tuple[int, int, int]:
        return (steps, 1, width) if time_major else (1, steps, width)

    x = flat.tensor("x", shape(inputs))
    places, states = place(flat, x, cell)
    y = flat.tensor("y", shape(outputs))
    flat.operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        tuple(places),
        y,
        "UnidirectionalSequenceLSTMOptions",
        FusedActivationFunction=activation,
        TimeMajor=time_major,
        **options,
    )
    return flat, x, y, states


def save(flat: FlatFile, path: Path, x: int | Sequence[int], y: int | Sequence[int]) -> Path:
    """The file in `path`."""
    ends = [(k,) if isinstance(k, int) else tuple(k) for k in (x, y)]
    path.write_bytes(flat.bytes(ends[0], ends[1], "by hand"))
    return path


# -- what the operator computes ------------------------------------------------------------------


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def forward(
    cell: Cell, x: Any, activation: int = TANH, cell_clip: float = 0.0, proj_clip: float = 0.0
) -> Any:
    """float64, x (T, I) → (T, P), from zero state."""
    _, hidden, outputs = sizes(cell)
    act = ACTIVATE[activation]
    wide = {name: array.astype(float) for name, array in cell.items()}
    h, c, found = np.zeros(outputs), np.zeros(hidden), []

    def gate(letter: str, row: Any, h: Any, peep: Any) -> Any:
        z = wide[f"W_{letter}"] @ row + wide[f"R_{letter}"] @ h
        z = z + wide.get(f"p_{letter}", 0.0) * peep
        if f"n_{letter}" in wide:
            z = (z - z.mean()) / np.sqrt(z.var() + 1e-8) * wide[f"n_{letter}"]
        return z + wide[f"b_{letter}"]

    for row in np.asarray(x, float):
        f = _sigmoid(gate("f", row, h, c))
        i = _sigmoid(gate("i", row, h, c)) if "W_i" in cell else 1 - f
        g = act(gate("c", row, h, 0.0))
        c = f * c + i * g
        c = np.clip(c, -cell_clip, cell_clip) if cell_clip else c
        o = _sigmoid(gate("o", row, h, c))
        h = o * act(c)
        if "proj" in wide:
            h = wide["proj"] @ h + wide.get("proj_b", 0.0)
            h = np.clip(h, -proj_clip, proj_clip) if proj_clip else h
        found.append(h)
    return np.stack(found)


class Runtime:
    """LiteRT's interpreter with its built-in kernels."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.interpreter: Any = Interpreter(
            model_path=str(path), experimental_op_resolver_type=kernels
        )
        (self.entry,) = self.interpreter.get_input_details()
        self.interpreter.resize_tensor_input(self.entry["index"], shape)
        self.interpreter.allocate_tensors()
        self.interpreter.reset_all_variables()

    def __call__(self, x: Any) -> Any:
        """The first output; the state stays."""
        self.interpreter.set_tensor(self.entry["index"], x)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.interpreter.get_output_details()[0]["index"])

    def tensor(self, index: int) -> Any:
        """A tensor of the file, as a state after the call."""
        return self.interpreter.get_tensor(index).copy()


def run(path: Path, x: Any) -> Any:
    """One call from zero state."""
    return Runtime(path, x.shape)(x)


def bidirectional_file(
    forward: Cell,
    backward: Cell,
    *,
    activation: int = TANH,
    time_major: bool = False,
    **options: Any,
) -> tuple[FlatFile, int, int]:
    """One BIDIRECTIONAL_SEQUENCE_LSTM: 17 inputs for each direction, then the states."""
    flat = FlatFile(schema())
    inputs, _, outputs = sizes(forward)
    order = (-1, 1) if time_major else (1, -1)
    x = flat.tensor("x", (*order, inputs))
    (one, states), (two, others) = place(flat, x, forward, "f."), place(flat, x, backward, "b.")
    y = flat.tensor("y", (*order, outputs + sizes(backward)[2]))
    places = (x, *one[1:18], *two[1:18], *states, *others, *[-1] * 9)
    flat.operator(
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        places,
        y,
        "BidirectionalSequenceLSTMOptions",
        **{
            "FusedActivationFunction": activation,
            "TimeMajor": time_major,
            "MergeOutputs": True,
            **options,
        },
    )
    return flat, x, y
