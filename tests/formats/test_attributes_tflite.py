"""TFLite files, one field of the fused operators at a time, against LiteRT on the changed file."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attributes import Attributes, Change, signal
from presence import missing
from test_tflite_runtime import CHANGES, LITERT
from tflite_cases import bidirectional_file, draw_cell, lstm_file, run, save

from ifgo import formats, states
from ifgo.formats.tflite.build import FlatFile
from ifgo.formats.tflite.guard import OPTIONS
from ifgo.model import Model
from ifgo.verification.global_bound import LARGEST_AMPLIFICATION, whole

pytestmark = pytest.mark.peers

SILENT = {
    "tensor.name": "how a tensor is called",
    "operator.version": "which runtimes know the operator",
}

SAME = ("TimeMajor", "AsymmetricQuantizeInputs")
"""Options that give the same numbers: of the layout of x, which the oracle follows, and of
integers."""

OVERLOOKED = {
    "tensor.variable": "a state that is no variable cannot be kept; one call starts from zero",
    "tensor.shape of y": "the operator says what it gives",
}

FULL = {"outputs": 2, "peephole": True, "norm": True, "proj_bias": True}

GRAPHS: dict[str, Callable[[], tuple[FlatFile, int, int]]] = {
    "plain": lambda: lstm_file(draw_cell(1), CellClip=0.375)[:3],
    "full": lambda: lstm_file(draw_cell(2, **FULL), CellClip=0.375, ProjClip=0.25)[:3],
    "coupled": lambda: lstm_file(draw_cell(3, cifg=True, peephole=True))[:3],
    "bidirectional": lambda: bidirectional_file(draw_cell(4), draw_cell(5), CellClip=0.375)[:3],
}


@pytest.fixture(autouse=True)
def litert() -> None:
    if importlib.util.find_spec("ai_edge_litert") is None:
        missing("ai-edge-litert", "pip install -c constraints.txt '.[peers]'")


def edits(flat: FlatFile) -> Iterator[tuple[str, str, FlatFile]]:
    """(name, value, changed): each field of each tensor and of the operator, and each input."""

    def changed(change: Callable[[FlatFile], None]) -> FlatFile:
        made = FlatFile(flat.package)
        made.tensors = [replace(tensor) for tensor in flat.tensors]
        made.operators = [replace(operator) for operator in flat.operators]
        change(made)
        return made

    def of_tensor(k: int, field: str, value: Any) -> FlatFile:
        return changed(lambda made: setattr(made.tensors[k], field, value))

    def of_operator(field: str, value: Any) -> FlatFile:
        return changed(lambda made: setattr(made.operators[0], field, value))

    for k, tensor in enumerate(flat.tensors):
        called = tensor.name if tensor.data is None else "a constant"
        yield "tensor.name", "x", of_tensor(k, "name", "x")
        for kind in ("FLOAT16", "INT8", "INT32", "FLOAT64", "UINT8", "BOOL"):
            yield f"tensor.type of {called}", kind, of_tensor(k, "type", kind)
        shape = tensor.shape
        for other in (shape[:-1], (*shape, 1), (1, *shape), shape[::-1], (0, *shape[1:]), (),
                      (shape[0] + 1, *shape[1:]), (*shape[:-1], shape[-1] + 1),
                      (*shape[:-1], -1)):  # fmt: skip
            if other != shape:
                yield f"tensor.shape of {called}", str(other), of_tensor(k, "shape", other)
        yield (
            "tensor.variable",
            str(not tensor.variable),
            of_tensor(k, "variable", not tensor.variable),
        )
        if tensor.data is None:
            yield (
                f"tensor.data of {tensor.name}",
                "zeros",
                of_tensor(k, "data", np.zeros([abs(n) for n in shape], "f")),
            )
            continue
        data = tensor.data
        moved = data.copy()
        moved.reshape(-1)[0] += np.float32(0.25)
        for said, array in {"moved": moved, "turned": data[::-1].copy(), "absent": None,
                            "nan": data * np.float32(np.nan), 
                            "short": data.reshape(-1)[:-1]}.items():  # fmt: skip
            yield "tensor.data of a constant", said, of_tensor(k, "data", array)
    (operator,) = flat.operators
    for version in (0, 2, 3, 4, 9):
        yield "operator.version", str(version), of_operator("version", version)
    for kind in ("LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM",
                 "UNIDIRECTIONAL_SEQUENCE_LSTM", "ADD"):  # fmt: skip
        if kind != operator.kind:
            yield "operator.kind", kind, of_operator("kind", kind)
    for place, had in enumerate(operator.inputs):
        for index in range(-1, len(flat.tensors)):
            if index != had:
                inputs = (*operator.inputs[:place], index, *operator.inputs[place + 1 :])
                yield "operator.inputs", f"{place}: {index}", of_operator("inputs", inputs)
    for other in (operator.inputs[:20], operator.inputs[:-1], (*operator.inputs, -1), ()):
        if other != operator.inputs:
            yield "operator.inputs", f"{len(other)} of them", of_operator("inputs", other)
    for outputs in ((), (0,), (*operator.outputs, 0), operator.outputs * 2):
        yield "operator.outputs", str(outputs), of_operator("outputs", outputs)
    yield "operator.table", "absent", of_operator("table", "")
    for name in OPTIONS[operator.table]:
        clip = name in ("CellClip", "ProjClip")
        for value in (*CHANGES.get(name, [False, True]), *((0.0, float("nan")) if clip else ())):
            options = operator.options | {name: value}
            if options != operator.options:
                yield f"options.{name}", str(value), of_operator("options", options)


def judged(name: str, folder: Path, share: float) -> Attributes:
    """The verdicts over a seeded share of all edits of one file."""
    flat, x, y = GRAPHS[name]()
    path = save(flat, folder / "a.tflite", x, y)
    rng = random.Random(name)

    def bound(model: Model, x: Any) -> float:
        start = states.complete(model, 1, None, np.float64)
        found = whole(model, x[None], start, LITERT)
        assert found.amplification < LARGEST_AMPLIFICATION
        return found.bound

    found = Attributes(formats.load, path, SILENT, signal, bound, OVERLOOKED)
    for what, value, changed in edits(flat):
        if rng.random() >= share:
            continue
        turned = bool(changed.operators[0].options.get("TimeMajor"))

        def oracle(steps: Any, turned: bool = turned) -> Any:
            found = run(path, steps[:, None] if turned else steps[None])
            return found[:, 0] if turned else found[0]

        save(changed, path, x, y)
        found.judge(Change(what, value, path, oracle))
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_some_fields(tmp_path: Path, name: str) -> None:
    judged(name, tmp_path, 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_every_field(tmp_path: Path, name: str) -> None:
    found = judged(name, tmp_path, 1.0)
    table = GRAPHS[name]()[0].operators[0].table
    wanted = {f"options.{key}" for key in OPTIONS[table] if key not in SAME} | {
        "operator.kind",
        "operator.inputs",
    }
    found.finish({*wanted, "tensor.type of a constant", "tensor.shape of a constant",
                  "tensor.data of a constant"})  # fmt: skip
