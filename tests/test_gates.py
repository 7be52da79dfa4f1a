"""The gate table: every order into every other and back, against explicit loops."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from core_cases import refused

from ifgo import gates
from ifgo.errors import UsageError
from ifgo.gates import LSTM_LAYOUTS, GateLayout

HIDDEN = 3
PAIRS = list(product(LSTM_LAYOUTS, repeat=2))


def moved(rows: list[Any], source: str, target: str) -> list[Any]:
    """`rows` with its blocks moved one row at a time."""
    width = len(rows) // len(source)
    result: list[Any] = []
    for gate in target:
        for position, letter in enumerate(source):
            if letter == gate:
                for row in range(width):
                    result.append(rows[position * width + row])
    return result


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_layout_into_every_other_and_back(source: str, target: str) -> None:
    first, second = LSTM_LAYOUTS[source].order, LSTM_LAYOUTS[target].order
    matrix = np.arange(4 * HIDDEN * 2, dtype=np.float32).reshape(4 * HIDDEN, 2)
    there = gates.reorder(matrix, first, second)
    assert there.tolist() == moved(matrix.tolist(), first, second)
    columns = gates.reorder(matrix.T, first, second, axis=1)
    assert columns.T.tolist() == there.tolist()
    back = gates.reorder(there, second, first)
    assert back.tobytes() == matrix.tobytes()
    assert (there.dtype, columns.shape) == (np.float32, (2, 4 * HIDDEN))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_peephole_order_into_every_other_and_back(source: str, target: str) -> None:
    first, second = LSTM_LAYOUTS[source].peephole, LSTM_LAYOUTS[target].peephole
    if not first or not second:
        assert "peephole" not in (first, second)
        return
    rows = np.arange(3 * HIDDEN, dtype=np.float64)
    there = gates.reorder(rows, first, second)
    assert there.tolist() == moved(rows.tolist(), first, second)
    assert gates.reorder(there, second, first).tolist() == rows.tolist()


def test_reorder_gives_new_memory() -> None:
    rows = np.arange(8.0)
    same = gates.reorder(rows, "ifgo")
    same[0] = 9
    assert rows[0] == 0


def test_negative_axes_count_from_the_end() -> None:
    stack = np.arange(2 * 4 * 3).reshape(2, 4, 3)
    assert (gates.reorder(stack, "iofg", axis=-2) == gates.reorder(stack, "iofg", axis=1)).all()
    assert (gates.split(stack, axis=-2)["g"] == stack[:, 2:3]).all()


def test_permutation_turns_rows_of_the_source_into_rows_of_the_target() -> None:
    assert gates.permutation("iofg", "ifgo", 2).tolist() == [0, 1, 4, 5, 6, 7, 2, 3]


@pytest.mark.parametrize("order", ["".join(letters) for letters in permutations("ifgo")])
def test_split_names_each_block(order: str) -> None:
    rows = np.arange(4 * HIDDEN)
    blocks = gates.split(rows, order)
    assert list(blocks) == ["i", "f", "g", "o"]
    for gate, block in blocks.items():
        start = order.index(gate) * HIDDEN
        assert block.tolist() == [start, start + 1, start + 2]
        assert np.shares_memory(block, rows)


def test_split_of_a_peephole() -> None:
    blocks = gates.split(np.arange(3), "iof")
    assert {gate: block.tolist() for gate, block in blocks.items()} == {
        "i": [0],
        "f": [2],
        "o": [1],
    }


def test_the_table() -> None:
    """Each order names every gate once; a peephole names all but the candidate."""
    for name, layout in LSTM_LAYOUTS.items():
        assert sorted(layout.order) == sorted("ifgo"), name
        assert sorted(layout.peephole) in ([], sorted("ifo")), name
    # Written down once more, by framework, from the sources that SPEC.md section 2 cites.
    assert {name: layout.order for name, layout in LSTM_LAYOUTS.items()} == {
        "ifgo": "ifgo",
        "pytorch": "ifgo",
        "onnx": "iofg",
        "keras": "ifgo",
        "keras1": "igfo",
        "cudnn_keras": "ifgo",
        "tf1": "igfo",
        "darknet_pjreddie": "ifog",
        "darknet_alexeyab": "figo",
        "dlfs2": "fgio",
        "tflite": "ifgo",
        "coreml_mil": "ifog",
        "raw_a": "iofg",
        "raw_b": "ifgo",
        "stm32_text": "ifgo",
        "haste": "igfo",
        "rtneural": "ifgo",
        "guitarml": "ifgo",
        "nam": "ifgo",
    }
    assert LSTM_LAYOUTS["onnx"] == GateLayout("iofg", "rows", "stacked", "iof")
    assert LSTM_LAYOUTS["keras"] == GateLayout("ifgo", "columns", "one")


@pytest.mark.parametrize(
    ("source", "target"), [("ifg", "ifgo"), ("iifo", "iifo"), ("ifgo", "ifgx")]
)
def test_orders_that_are_no_arrangements(source: str, target: str) -> None:
    with refused(
        UsageError,
        f"gate orders {source!r} and {target!r} are not arrangements of the same gates, "
        "expected each gate letter once, such as 'ifgo' and 'iofg'",
    ):
        gates.reorder(np.zeros(12), source, target)


ROWS = np.zeros((10, 8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gates.reorder(ROWS, "iofg"),
            "axis 0 has 10 entries, expected a multiple of 4, one block per gate of 'iofg'",
        ),
        (
            lambda: gates.split(ROWS.T, "ifo", axis=0),
            "axis 0 has 8 entries, expected a multiple of 3, one block per gate of 'ifo'",
        ),
        (
            lambda: gates.reorder(ROWS, "iofg", axis=2),
            "an array of shape (10, 8) has no axis 2",
        ),
        (lambda: gates.split(np.float32(1)), "an array of shape () has no axis 0"),
        (
            lambda: gates.reorder(ROWS, "", ""),
            "axis 0 has 10 entries, expected a gate order of at least one letter",
        ),
        (
            lambda: gates.split(ROWS, "ifcox"),
            "gate order 'ifcox' does not name gates, expected letters of 'ifgo', each once",
        ),
        (
            lambda: gates.split(ROWS, "iifo", axis=1),
            "gate order 'iifo' does not name gates, expected letters of 'ifgo', each once",
        ),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with refused(UsageError, message):
        call()
