"""TFLite as TensorFlow's converter writes keras LSTMs: loops, unrolled steps, reversed sequences.

The files and how they were made: tflite_converted/generate.py.
"""

from __future__ import annotations

import gzip
import importlib.util
import random
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_bounds import float32_bound
from presence import missing
from tflite_cases import run

from ifgo import formats
from ifgo.errors import IfgoError
from ifgo.formats.tflite.file import File, parse, schema
from ifgo.reference import truth

HERE = Path(__file__).parent / "tflite_converted"
RECORDED = np.load(HERE / "expected.npz")

LAYERS = {
    "sequence": ["lstm"],
    "last": ["lstm", "last_step"],
    "open_time": ["lstm"],
    "batch": ["lstm"],
    "backwards": ["lstm go_backwards"],
    "backwards_last": ["lstm reverse", "last_step"],
    "both": ["lstm bidirectional"],
    "both_last": ["lstm bidirectional", "last_step"],
    "both_sum": ["lstm bidirectional sum"],
    "stack": ["lstm", "lstm", "last_step", "dense"],
    "stack_both": ["lstm bidirectional", "lstm go_backwards"],
    "relu": ["lstm sigmoid/relu/relu"],
    "no_bias": ["lstm"],
    "unrolled": ["lstm"],
    "unrolled_last": ["lstm", "last_step", "dense"],
    "unrolled_backwards": ["lstm go_backwards"],
    "unrolled_both": ["lstm bidirectional"],
    "unrolled_stack": ["lstm", "lstm"],
}
"""Name of a file → what it is read as."""

CELL = "expected an LSTM cell: c' = f·c + i·g, h' = o·tanh(c')"
LOOP = "expected a loop over the whole of one sequence, as keras.layers.LSTM is converted"
STEPS = "expected the steps of one LSTM over all rows of one sequence, as unroll=True writes them"

REFUSED = {
    "hard_sigmoid": "operator WHILE #1: node 'MUL #19 of graph 2': the step of a loop has a Mul "
    f"where an activation is expected, {CELL}",
    "masked": f"operator WHILE #6: reads rows of 2 sequences, {LOOP}",
    "stateful": "node 'VAR_HANDLE #1': is a VAR_HANDLE, expected only the operators of an LSTM "
    "chain: LSTM, MatMul, Gemm, Add, Mul, activations, Gather of an embedding, and moves of whole "
    "axes. Take the LSTM layers alone with --select NAME (select= in Python), see ifgo inspect "
    "--lstms",
    "unrolled_once": "node 'MUL #8': is one step from zero, without a forget gate, expected two "
    "steps at least",
    "dynamic_range": "operator WHILE #1: operator FULLY_CONNECTED #1 of graph 2: has INT8 weights, "
    "and quantises its input while it runs, expected float32 weights, ifgo has no integer "
    "arithmetic yet. Convert the model without dynamic range quantisation",
}


def converted(name: str, folder: Path) -> Path:
    path = folder / f"{name}.tflite"
    path.write_bytes(gzip.decompress((HERE / f"{name}.tflite.gz").read_bytes()))
    return path


def litert() -> None:
    if importlib.util.find_spec("ai_edge_litert") is None:
        missing("ai-edge-litert", "pip install -c constraints.txt '.[peers]'")


def test_every_file_is_judged_here() -> None:
    names = {path.name.removesuffix(".tflite.gz") for path in HERE.glob("*.gz")}
    assert names == {*LAYERS, *REFUSED, "half"}


@pytest.mark.parametrize("name", LAYERS)
def test_what_keras_computed(tmp_path: Path, name: str) -> None:
    model = formats.load(converted(name, tmp_path))
    detail = [getattr(layer, "detail", str)() for layer in model.recurrent]
    words = iter(detail)
    found = [f"{la.kind} {next(words)}" if la.kind == "lstm" else la.kind for la in model.layers]
    assert [text.strip() for text in found] == LAYERS[name]
    x, y = RECORDED[f"{name}.x"], RECORDED[f"{name}.y"]
    ours = truth.forward(model, x)
    assert ours.y.shape == y.shape
    assert np.abs(ours.y - y).max() <= float32_bound(model, ours, x)
    assert not any(layer.stateful for layer in model.recurrent)


@pytest.mark.peers
@pytest.mark.parametrize("name", [*LAYERS, "half"])
def test_what_litert_computes(tmp_path: Path, name: str) -> None:
    litert()
    path = converted(name, tmp_path)
    model = formats.load(path)
    x = np.random.default_rng(7).uniform(-1, 1, RECORDED[f"{name}.x"].shape).astype("f")
    ours = truth.forward(model, x)
    assert np.abs(ours.y - run(path, x)).max() <= float32_bound(model, ours, x)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    path = converted(name, tmp_path)
    with pytest.raises(IfgoError) as caught:
        formats.load(path)
    assert str(caught.value) == f"{path}: {REFUSED[name]}"


# -- one change at a time -------------------------------------------------------------------------


class Patch:
    """A file whose numbers are changed where they stand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.whole = path.read_bytes()
        self.file: File = parse(path)
        self.model: Any = schema().Model.GetRootAs(bytearray(self.whole), 0)

    def _operator(self, graph: int, k: int) -> Any:
        return self.model.Subgraphs(graph).Operators(k)._tab

    def code(self, graph: int, k: int) -> int | None:
        """Where the number of the operator's kind stands, None where it is left out for 0."""
        table = self._operator(graph, k)
        offset = table.Offset(4)
        return table.Pos + offset if offset else None

    def inputs(self, graph: int, k: int) -> int:
        """Where the first input stands."""
        table = self._operator(graph, k)
        return table.Vector(table.Offset(6))

    def data(self, graph: int, tensor: int) -> int:
        """Where the data of a constant stands."""
        buffer = self.model.Buffers(self.model.Subgraphs(graph).Tensors(tensor).Buffer())._tab
        return buffer.Vector(buffer.Offset(4))

    def changed(self, *changes: tuple[int, int]) -> Path:
        """The file with 32-bit numbers at places."""
        data = bytearray(self.whole)
        for place, number in changes:
            struct.pack_into("<i", data, place, number)
        self.path.write_bytes(data)
        return self.path

    # -- changes

    def swapped_inputs(self) -> Iterator[Path]:
        for graph in self.file.graphs:
            for operator in graph.operators:
                at = self.inputs(graph.number, operator.position) if operator.inputs else 0
                for a, b in permutations(range(len(operator.inputs)), 2):
                    if a < b and operator.inputs[a] != operator.inputs[b]:
                        one, two = operator.inputs[a], operator.inputs[b]
                        yield self.changed((at + 4 * a, two), (at + 4 * b, one))

    def other_inputs(self) -> Iterator[Path]:
        """Each input is each other tensor before it of the same type and shape."""
        for graph in self.file.graphs:
            made = {*graph.inputs} | {t.index for t in graph.tensors if t.data is not None}
            for operator in graph.operators:
                for a, index in enumerate(operator.inputs):
                    like = graph.tensors[index]
                    for other in graph.tensors:
                        same = (other.type, other.shape) == (like.type, like.shape)
                        if index >= 0 and same and other.index in made - {index}:
                            at = self.inputs(graph.number, operator.position)
                            yield self.changed((at + 4 * a, other.index))
                made |= {*operator.outputs}

    def other_kinds(self) -> Iterator[Path]:
        """Each operator of two inputs or one is each other such operator of the file."""
        kinds = {"ADD", "MUL", "SUB", "LOGISTIC", "TANH", "RELU", "LESS", "LOGICAL_AND"}
        numbers = {
            operator.kind: struct.unpack_from("<i", self.whole, place)[0] if place else 0
            for graph in self.file.graphs
            for operator in graph.operators
            for place in [self.code(graph.number, operator.position)]
        }
        for graph in self.file.graphs:
            for operator in graph.operators:
                place = self.code(graph.number, operator.position)
                if operator.kind in kinds and place is not None:
                    for kind in kinds & numbers.keys() - {operator.kind}:
                        yield self.changed((place, numbers[kind]))

    def other_integers(self) -> Iterator[Path]:
        """Each integer of each constant is one more, one less, and 0."""
        for graph in self.file.graphs:
            for tensor in graph.tensors:
                if tensor.data is None or tensor.type != "INT32":
                    continue
                for k, number in enumerate(tensor.data.reshape(-1).tolist()):
                    for other in {number + 1, number - 1, 0} - {number}:
                        yield self.changed((self.data(graph.number, tensor.index) + 4 * k, other))


CHANGES = ("swapped_inputs", "other_inputs", "other_kinds", "other_integers")


@pytest.mark.peers
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["sequence", "last", "open_time", "both", "unrolled"])
def test_one_change_at_a_time(tmp_path: Path, name: str, change: str) -> None:
    """Another file is refused, or read as what LiteRT computes; never other numbers in silence."""
    litert()
    patch = Patch(converted(name, tmp_path))
    x = RECORDED[f"{name}.x"]
    refused = read = 0
    for path in getattr(patch, change)():
        try:
            model = formats.load(path)
            ours = truth.forward(model, x)
        except IfgoError:
            refused += 1
            continue
        read += 1
        try:
            have = run(path, x)
        except RuntimeError:  # no file that LiteRT runs: there are no other numbers
            continue
        assert have.shape == ours.y.shape
        assert np.abs(ours.y - have).max() <= float32_bound(model, ours, x)
    assert refused > 0
    assert read + refused > 8


@pytest.mark.parametrize("name", ["sequence", "open_time", "unrolled_both", "both_last"])
def test_no_flipped_bit_does_more_than_change_a_number(tmp_path: Path, name: str) -> None:
    """The file loads or is refused with an error of ours."""
    path = converted(name, tmp_path)
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(150):
        changed, bit = bytearray(data), rng.randrange(8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with suppress(IfgoError):
            formats.load(path)


@pytest.mark.parametrize("name", ["sequence", "unrolled"])
def test_every_gate_order(tmp_path: Path, name: str) -> None:
    """The outputs of the split in each of the 23 other orders are other cells, read as such, or
    refused where the first unrolled step then differs."""
    patch = Patch(converted(name, tmp_path))
    splits = [
        (graph.number, operator)
        for graph in patch.file.graphs
        for operator in graph.operators
        if operator.kind == "SPLIT"
    ]
    x, y = RECORDED[f"{name}.x"], RECORDED[f"{name}.y"]
    for order in permutations(range(4)):
        changes: list[tuple[int, int]] = []
        for graph, operator in splits:
            table = patch.model.Subgraphs(graph).Operators(operator.position)._tab
            start = table.Vector(table.Offset(8))
            changes += [(start + 4 * k, operator.outputs[place]) for k, place in enumerate(order)]
        model = formats.load(patch.changed(*changes))
        ours = truth.forward(model, x)
        same = np.abs(ours.y - y).max() <= float32_bound(model, ours, x)
        assert same == (order == (0, 1, 2, 3))
