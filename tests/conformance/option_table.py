"""Every option as a model of its own, and what each backend makes of it.

Run, it prints the table of SPEC.md section 9 (PYTHONPATH=src); test_option_table.py holds the
section to it. What the file formats make of them: tests/formats/roundtrip.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from conformance_cases import CASES, Draw, chain

from ifgo.activations import PARAMETERS, SIGMOID, TANH, Activation
from ifgo.errors import UnsupportedError
from ifgo.model import (
    Dropout,
    FeatureInput,
    InitialState,
    LengthsInput,
    Masking,
    Model,
    Recurrent,
    Residual,
    StateInput,
    StateSlot,
    TrainingFacts,
)
from ifgo.targets import c99, cortex_m

HEAD = ("option", "truth", "exact", "c99", "c99, weights as files", "cortex_m")
BOARD = "mps3-an547"


def case(name: str) -> Callable[[Draw], Model]:
    return next(case.make for case in CASES if case.name == name)


def layer(**options: Any) -> Callable[[Draw], Model]:
    return lambda d: chain(3, Recurrent("r", d.cell(3, 5), **options))


def gate(name: str) -> Callable[[Draw], Model]:
    function = Activation(name, **dict.fromkeys(PARAMETERS[name], 0.5))
    return lambda d: chain(3, Recurrent("r", d.cell(3, 5, activations=(SIGMOID, function, TANH))))


def given_state(d: Draw) -> Model:
    slots = (StateInput("h", (StateSlot("r", "h"),)), StateInput("c", (StateSlot("r", "c"),)))
    one = Recurrent("r", d.cell(3, 5), initial=InitialState("input"))
    return Model((FeatureInput(3), *slots), (one,))


def batch_norm(side: str, outside: bool) -> Callable[[Draw], Model]:
    return lambda d: chain(3, Recurrent("r", d.cell(3, 5, **{side: d.norm(5, outside)})))


def layer_norm(d: Draw) -> Model:
    model = case("layer_norm")(d)
    (one,) = model.recurrent
    return chain(3, replace(one, forward=replace(one.cell, peephole=None)))


OPTIONS: dict[str, Callable[[Draw], Model]] = {
    "forward": case("plain_3_5"),
    "one bias": case("bias_ih_only"),
    "reverse (backward cell alone)": case("reverse"),
    **{
        f"bidirectional, {way}": case(f"bidirectional_{way}")
        for way in ("concat", "sum", "mul", "ave")
    },
    "go_backwards": case("go_backwards"),
    "initial state, constant": case("constant_initial_state"),
    "initial state, input": given_state,
    "lengths": lambda d: Model((FeatureInput(3), LengthsInput()), layer()(d).layers),
    "lengths, bidirectional": lambda d: Model(
        (FeatureInput(3), LengthsInput()), (Recurrent("r", d.cell(3, 5), d.cell(3, 5)),)
    ),
    "masking": case("masking_repeats"),
    "masking, zero_masked": case("masking_zeros"),
    "embedding, mask_zero": case("embedding_mask_zero"),
    "stateful": layer(stateful=True),
    "dropout rates of training": layer(training=TrainingFacts(0.1, 0.1, 0.1)),
    "peephole": case("peephole"),
    "projection": case("projection"),
    "projection with bias": case("projection_bias"),
    "coupling f=1-i": case("coupling_f"),
    "coupling i=1-f": case("coupling_i"),
    "clip_z": case("clip_z"),
    "clip_cell": case("clip_cell"),
    "clip_projection": case("clip_projection"),
    "forget_bias": case("forget_bias"),
    "layer norm in the cell": layer_norm,
    "batch norm of W·x": batch_norm("input_norm", True),
    "batch norm of R·h": batch_norm("hidden_norm", False),
    **{f"{name} in a gate": gate(name) for name in PARAMETERS if name != "softmax"},
    "dense": case("dense_before"),
    "dense, softmax": case("dense_softmax"),
    "embedding": case("embedding"),
    "dropout layer": lambda d: chain(3, Recurrent("r", d.cell(3, 5)), Dropout("d", 0.5)),
    "scale, batch_norm layer": case("scale_and_batch_norm"),
    "last_step": case("bidirectional_last_step"),
    "last_step of the state": case("bidirectional_final_state"),
    "hidden_as_sequence": case("hidden_as_sequence"),
    "repeat_vector": case("repeat_vector"),
    "flatten": case("flatten_after_repeat"),
    "residual": lambda d: chain(3, Residual("s", (Recurrent("r", d.cell(3, 3)),), 3)),
    "residual over some channels": case("residual"),
    "residual around a bidirectional layer": case("residual_bidirectional"),
    "residual around a masking": lambda d: chain(
        3, Residual("s", (Masking("m"), Recurrent("r", d.cell(3, 3))), 3)
    ),
}
"""Row → its model."""


def answer(attempt: Callable[[], Any]) -> str:
    """What came of it, or "refused"."""
    try:
        return str(attempt())
    except UnsupportedError:
        return "refused"


def run(model: Model, on: str) -> str:
    tokens = model.input_size == 1 and hasattr(model.input, "vocabulary")
    x: Any = np.ones((2, 4), np.int32) if tokens else np.ones((2, 4, model.input_size), np.float32)
    state = {
        f"{part}{k}": np.zeros((one.directions, 2, width), np.float32)
        for k, one in enumerate(model.recurrent)
        for part, width in (("h", one.cell.output_size), ("c", one.hidden_size))
    }
    y, _ = model.run(x, state, lengths=[4, 2], on=on)
    return "yes" if np.isfinite(y).all() else "not finite"


def offered(source: c99.Emitted) -> str:
    """The function of the C that computes."""
    if source.program.streamable:
        return "step"
    return "padded" if source.program.lengths else "sequence"


def emitted(model: Model, weights: Any) -> str:
    return offered(c99.emit(model, weights=weights, max_steps=4))


def board(model: Model) -> str:
    return offered(cortex_m.emit(model, BOARD, max_steps=4).source)


def row(make: Callable[[Draw], Model]) -> Iterator[str]:
    """The cells of an option, in the order of HEAD."""
    model = make(Draw(1))
    yield answer(lambda: run(model, "truth"))
    yield answer(lambda: run(model, "exact"))
    yield answer(lambda: emitted(model, "embedded"))
    yield answer(lambda: emitted(model, "files"))
    yield answer(lambda: board(model))


def table() -> list[str]:
    """Markdown lines."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    lines += [f"| {name} | {' | '.join(row(make))} |" for name, make in OPTIONS.items()]
    return lines


if __name__ == "__main__":
    print("\n".join(table()))  # noqa: T201
