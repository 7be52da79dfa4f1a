"""Arrays and sheets, one key at a time: every shipped sheet, and one that uses every key."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import arrays_cases as cases
import numpy as np
import pytest
from attributes import Attributes, Change, edits, names, signal, toml

from ifgo import formats
from ifgo.formats import _arrays_sheet

SHIPPED = Path(_arrays_sheet.__file__).with_name("sheets")

SILENT = {
    "title": "one line about the source",
    "layer[].name": "how ifgo's layer is called",
    "input.name": "how ifgo's input is called",
    "layer[].stateful": "whether state is kept from call to call; one call starts from zero",
}

LEGAL = {
    "order": ["ifgo", "igfo", "fgio", "iofg"],
    "orientation": ["rows", "columns", "blocks"],
    "bias": ["one", "two", "stacked", "none", "b", "w"],
    "forget_bias": ["stored", 0, 1.0, 2],
    "peephole": ["ifo", "iof", "fio", "p"],
    "weight_ih": ["w", "r"],
    "weight_hh": ["w", "r"],
    "bias_ih": ["b", "p", "*"],
    "kind": ["lstm", "dense", "embedding", "activation"],
    "coupling": ["f=1-i", "i=1-f"],
}


def oracle(tree: Any, arrays: dict[str, Any], x: Any) -> Any:
    """The one LSTM that the sheet describes, gate by gate; names are exact here."""
    assert tree["version"] == 1
    (layer,) = tree["layer"]
    assert layer["kind"] == "lstm"
    assert set(layer) <= {"kind", "name", "order", "orientation", "bias", "forget_bias",
                          "peephole", "forward", "stateful"}  # fmt: skip
    named, order = layer["forward"], layer["order"]
    used = set(named.values())
    assert used == set(arrays)

    def split(array: Any, matrix: bool) -> Any:
        if matrix and layer["orientation"] == "blocks":
            parts = [block.T for block in array]
        elif matrix and layer["orientation"] == "columns":
            parts = [block.T for block in np.split(array, 4, 1)]
        else:
            parts = np.split(array, 4)
        return dict(zip(order, parts, strict=True))

    made = {"W": split(arrays[named["weight_ih"]], True)}
    made["R"] = split(arrays[named["weight_hh"]], True)
    hidden, width = made["R"]["i"].shape
    assert hidden == width == len(made["W"]["i"])
    biases = [arrays[named[key]] for key in ("bias_ih", "bias_hh") if key in named]
    assert layer["bias"] == {0: "none", 1: "one", 2: "two"}[len(biases)]
    total = sum((b.astype(float) for b in biases), np.zeros(4 * hidden))
    assert total.shape == (4 * hidden,)
    made["b"] = split(total, False)
    if "peephole" in layer:
        made["P"] = dict(
            zip(layer["peephole"], np.split(arrays[named["peephole"]], 3), strict=True)
        )
    forget = layer["forget_bias"]
    return cases.run(made, x, forget=0.0 if forget == "stored" else forget)


@pytest.mark.parametrize("orientation", ["rows", "columns"])
def test_every_key_of_a_sheet(tmp_path: Path, orientation: str) -> None:
    cell = cases.cell(np.random.default_rng(1), 4, 4, peephole=True)
    turned = cases.rows if orientation == "rows" else cases.columns
    arrays = {"w": turned(cell["W"], "ifgo"), "r": turned(cell["R"], "ifgo")}
    arrays |= {"b": cases.rows(cell["b"], "ifgo"), "p": cases.rows(cell["P"], "ifo")}
    arrays["b2"] = cases.rows(cell["b"], "ogfi")
    forward = {"weight_ih": "w", "weight_hh": "r", "bias_ih": "b", "bias_hh": "b2", "peephole": "p"}
    layer = {"kind": "lstm", "name": "lstm", "order": "ifgo", "orientation": orientation,
             "bias": "two", "forget_bias": 1.0, "peephole": "ifo", "stateful": False,
             "forward": forward}  # fmt: skip
    tree = {"version": 1, "title": "a dump", "input": {"name": "x", "size": 4}, "layer": [layer]}
    path, sheet = tmp_path / "w.npz", tmp_path / "w.toml"
    np.savez(path, **arrays)
    sheet.write_text(toml(tree) or "")
    found = Attributes(formats.load, path, SILENT, signal)
    for edit in edits(tree, LEGAL):
        text = toml(edit.tree)
        if text is not None:
            sheet.write_text(text)
            found.judge(Change(edit.name, edit.value, path, partial(oracle, edit.tree, arrays)))
    found.finish(names(tree) - {"file", "input"})
