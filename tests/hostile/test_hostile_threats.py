"""Which crafted file stands for which threat in which format. No cell is empty without a reason.

Cut files, trailing bytes, flipped bits, links, pipes and devices are made for every format by
corpus.damaged, so they have no rows here.
"""

from __future__ import annotations

import re
from typing import Final

import pytest
from hostile_cases import OWN

ZIP: Final = "is no zip archive"
PICKLE: Final = "holds no pickle"
HDF5: Final = "is no HDF5 file"
PROTOBUF: Final = "is no protobuf message"
JSON: Final = "holds no JSON, and nothing else that nests"
OUTSIDE: Final = "names no other file or place within itself"
FIXED: Final = "has one byte order, and nothing in it says which"
PLAIN: Final = "compresses nothing"

THREATS: Final[dict[str, tuple[dict[str, str], str]]] = {
    # threat: ({format: what its mutant's name holds}, why the other formats have none)
    "zip bombs": (
        {"torch": "a bomb", "keras": "a zip bomb", "arrays": "a zip bomb"},
        ZIP,
    ),
    "other compression bombs": (
        {"keras h5": "a compression bomb", "torch": "(bzip2|lzma|compressed)"},
        PLAIN,
    ),
    "duplicate members": (
        {"torch": "twice", "keras": "weights twice", "arrays": "all names alike"},
        ZIP,
    ),
    "traversing members": ({"torch": r"member 'a/\.\./"}, "takes members by the names it expects"),
    "malicious pickles": (
        {"torch": "runs os.system", "dlfs2": "os.system", "arrays": "os.system"},
        PICKLE,
    ),
    "external places": (
        {
            "onnx": "outside: upwards",
            "keras h5": "an external link",
            "saved_model": "a variable of another part",
            "torch": "a storage elsewhere",
        },
        OUTSIDE,
    ),
    "shape bombs": (
        {
            "native": "shape of 2[*][*]63",
            "raw": "size 2[*][*]62",
            "onnx": "dims of 2[*][*]40",
            "darknet": "output 10[*][*]9",
            "dlfs2": "shape of 2[*][*]62",
            "keras": "units 2[*][*]30",
            "keras h5": "a huge shape",
            "tflite": "0x7fffffff",
            "tensorflow": "a huge constant",
            "saved_model": "a huge variable",
            "rtneural": "shape 9223372036854775808",
            "guitarml": "hidden_size 9223372036854775808",
            "nam": "hidden_size 9223372036854775808",
            "arrays": "shape of 2[*][*]62",
            "torch": "shape of 2[*][*]40",
            "stm32_text": "hidden size 999999",
        },
        "says its sizes in a header that damaged() rewrites, or in none",
    ),
    "nesting": (
        {
            "native": "lists in lists",
            "raw": "lists in lists",
            "onnx": "graphs beyond any stack",
            "dlfs2": "a tuple of tuples",
            "keras": "a deep config",
            "saved_model": "functions that call themselves",
            "rtneural": "lists in lists",
            "guitarml": "lists in lists",
            "nam": "lists in lists",
            "arrays": "lists in lists",
            "torch": "deep lists",
            "safetensors": "chain of open",
            "stm32_text": "braces without end",
        },
        JSON,
    ),
    "NaN": (
        {
            "native": "NaN",
            "raw": "NaN",
            "raw as text": "NaN",
            "onnx": "NaN",
            "darknet": "NaN",
            "dlfs2": "NaN",
            "keras h5": "NaN",
            "rtneural": "NaN",
            "guitarml": "NaN",
            "nam": "NaN",
            "arrays": "NaN",
            "stm32_text": "NaN",
        },
        "puts its weights through the same Model, which refuses them (tests/test_cell.py)",
    ),
    "wrong byte order": (
        {
            "native": "the other byte order",
            "raw": "the other byte order",
            "onnx": "other byte order",
            "darknet": "the other byte order",
            "torch": "order",
        },
        FIXED,
    ),
}


@pytest.fixture(scope="module")
def crafted() -> dict[str, list[str]]:
    return {form.name: [mutant.name for mutant in form.crafted()] for form in OWN}


@pytest.mark.parametrize("threat", THREATS)
def test_each_cell_has_its_file(threat: str, crafted: dict[str, list[str]]) -> None:
    cells, reason = THREATS[threat]
    assert set(cells) <= set(crafted), "a format that the corpus does not have"
    for form, names in crafted.items():
        wanted = cells.get(form)
        if wanted is None:
            assert reason
            continue
        assert any(re.search(wanted, name) for name in names), f"{threat}: none in {form}"
