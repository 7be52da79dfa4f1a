"""SPEC.md section 9 says what every backend makes of every option; here it is found out."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from option_table import OPTIONS, table

from ifgo.model import LSTMCell, Recurrent

SPEC = Path(__file__).resolve().parents[2] / "SPEC.md"

PLAIN = {"name", "forward", "weight_ih", "weight_hh"}
ROWS = {
    "activations": "in a gate",
    "backward": "reverse",
    "bias_hh": "one bias",
    "bias_hr": "projection with bias",
    "bias_ih": "one bias",
    "hidden_norm": "batch norm of R·h",
    "initial": "initial state",
    "input_norm": "batch norm of W·x",
    "layer_norm": "layer norm",
    "merge": "bidirectional",
    "training": "dropout rates of training",
    "weight_hr": "projection",
}
"""Field → words of its row, where they are not the field's name."""


@pytest.fixture(scope="module")
def made() -> list[str]:
    return table()


def test_the_specification_holds_the_table_that_the_code_makes(made: list[str]) -> None:
    section = SPEC.read_text().split("\n## 9 ")[1].split("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("|")]
    assert found == made, "paste what PYTHONPATH=src tests/conformance/option_table.py prints"


def test_no_backend_refuses_an_option(made: list[str]) -> None:
    """Raw tensors as weights hold fewer models; all else runs everything."""
    for line in made[2:]:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        truth, exact, c99, _, cortex_m = cells
        assert (truth, exact) == ("yes", "yes"), name
        assert c99 == cortex_m, name
        assert c99 in ("step", "sequence", "padded"), name


def test_every_field_of_a_cell_and_of_a_recurrent_layer_has_a_row() -> None:
    names = {field.name for of in (LSTMCell, Recurrent) for field in fields(of)} - PLAIN
    rows = " / ".join(OPTIONS)
    assert {name for name in names if ROWS.get(name, name) not in rows} == set()
