"""Darknet pairs of files, one key of the cfg and one field of the header at a time.

The oracle reads the changed files by Darknet's own rules, and computes what its C code does.
"""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attributes import Attributes, Change, edits, names, signal
from darknet_cases import ACTIVATE, REVISION, STORED, connected, forward, lstm, payload

from ifgo import formats
from ifgo.formats._darknet_cfg import KEYS

MEANS = {
    "net": {"inputs", "height", "width", "channels"},
    "lstm": {"output", "batch_normalize", "dontload"},
    "connected": {"output", "batch_normalize", "activation", "dontload", "dontloadscales"},
    "softmax": {"groups", "temperature", "tree", "spatial", "dontload"},
    "dropout": {"dontload"},
    "cost": {"dontload"},
}
"""Section → keys that change what it computes, or what the file stores; the others are of training,
of saving, or of images."""

NUMBERS = ("0", "1", "2", "3", "4", "-1", "0.25", "x", "1_0", "nan", "1e400", "0x10", "\u0663")
LEGAL: dict[str, Any] = {key: NUMBERS for keys in MEANS.values() for key in keys}
SILENT = {key for keys in KEYS.values() for key in keys} - set(LEGAL)
LEGAL |= dict.fromkeys(SILENT, ("1", "-0.5", "x", ""))
LEGAL |= {"activation": (*ACTIVATE, "ramp", "selu", "hardtan"), "temperature": (*NUMBERS, "0.5")}
LEGAL |= {"section": [*KEYS, "network", "conn", "soft", "gru", "rnn", "LSTM"]}
LEGAL |= {"major": [1, 1001, 100_001], "minor": [0, 1, 3, 1001], "revision": [0, 1, 4, 5, 6]}

Tree = dict[str, Any]


def cfg(sections: Any) -> str:
    """The text of what stands for a cfg, whatever it is."""
    lines: list[str] = []
    for section in sections if isinstance(sections, list) else [sections]:
        if not isinstance(section, dict):
            lines.append(str(section))
            continue
        lines.append(f"[{section.get('section', '')}]")
        lines += [f"{key}={value}" for key, value in section.items() if key != "section"]
    return "\n".join(lines)


def store(folder: Path, tree: Tree, numbers: bytes) -> Path | None:
    """The two files, or nothing where a field has no bytes of its kind."""
    path = folder / "net.weights"
    try:
        fields = [tree["header"][key] for key in ("major", "minor", "revision", "seen")]
        start, text = struct.pack("<iiiQ", *fields), cfg(tree["cfg"])
    except (struct.error, KeyError, TypeError):
        return None
    path.write_bytes(start + numbers)
    path.with_suffix(".cfg").write_text(text)
    return path


def section(kind: str, **given: Any) -> Tree:
    """Every key that Darknet reads there; those not given are 0, or what means nothing."""
    neutral = {"temperature": "1", "groups": "1", "probability": "0.5"}
    made: Tree = {"section": kind} | {key: neutral.get(key, "0") for key in KEYS[kind]}
    made.pop("tree", None)
    return made | {key: str(value) for key, value in given.items()}


def bare(text: str) -> str:
    """As Darknet has every line: without its spaces."""
    return text.replace(" ", "")


class Numbers:
    """The floats of a payload, handed out in order."""

    def __init__(self, data: bytes, transposed: bool) -> None:
        self.left, self.transposed = np.frombuffer(data, "<f4"), transposed

    def take(self, count: int) -> Any:
        assert len(self.left) >= count
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def block(self, rows: int, columns: int, normed: bool) -> Any:
        made = {"biases": self.take(rows)}
        flat = self.take(rows * columns)
        made["weights"] = (
            flat.reshape(columns, rows).T if self.transposed else flat.reshape(rows, -1)
        )
        if normed:
            made |= {key: self.take(rows) for key in ("scales", "mean", "variance")}
        return made


def oracle(tree: Tree, data: bytes, dialect: str | None, x: Any) -> Any:
    """What Darknet computes of the files: parsed, loaded and run by its rules."""
    major, minor, revision = (tree["header"][key] for key in ("major", "minor", "revision"))
    dialect = dialect or ("alexeyab" if revision == 5 else "pjreddie")
    wide = major * 10 + minor >= 2
    narrow = dialect == "pjreddie" and (major >= 1000 or minor >= 1000)
    assert wide, "4 bytes of seen"
    assert not narrow, "4 bytes of seen"
    numbers = Numbers(data, major > 1000 or minor > 1000)
    first, *rest = tree["cfg"]
    assert bare(first["section"]) in ("net", "network")
    sides = (int(first.get(key, 0)) for key in ("height", "width", "channels"))
    size = int(first["inputs"]) if "inputs" in first else int(np.prod(list(sides)))
    assert size == x.shape[1]
    layers: list[Any] = []
    for made in rest:
        kind = {"conn": "connected", "soft": "softmax"}.get(*2 * [bare(made["section"])])
        assert int(made.get("dontload", 0)) == 0
        normed = int(made.get("batch_normalize", 0)) != 0
        if kind in ("lstm", "connected"):
            rows = int(made.get("output", 1))
            widths = {"w": rows, "u": size}
            stored = STORED[dialect] if kind == "lstm" else ("",)
            blocks = {n: numbers.block(rows, widths[n[0]] if n else size, normed) for n in stored}
            layers.append({"type": kind, "output": rows, "blocks": blocks})
            layers[-1]["activation"] = bare(made.get("activation", "logistic"))
            assert not (kind == "connected" and normed and int(made.get("dontloadscales", 0)))
            size = rows
        elif kind == "softmax":
            assert int(made.get("groups", 1)) == 1
            assert int(made.get("spatial", 0)) == 0
            factor = np.float32(1 / float(made.get("temperature", 1)))  # a note says that it rounds
            layers.append({"type": kind, "temperature": 1 / float(factor)})
        else:
            assert kind in ("dropout", "cost")
    assert not len(numbers.left)
    return forward(layers, x, dialect)


@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize("dialect", list(STORED))
def test_every_attribute(tmp_path: Path, dialect: str, said: bool) -> None:
    rng = np.random.default_rng(1)
    numbers = [lstm(rng, 2, 3, normed=True), lstm(rng, 3, 3), connected(rng, 3, 2, "", normed=True)]
    data = payload(numbers, dialect)
    sections = [
        section("net", inputs=2, height=1, width=1, channels=2),
        section("lstm", output=3, batch_normalize=1),
        section("lstm", output=3),
        section("dropout"),
        section("connected", output=2, activation="leaky", batch_normalize=1),
        section("softmax", temperature=2),
        section("cost"),
    ]
    header = {"major": 0, "minor": 2, "revision": REVISION[dialect], "seen": 64_000}
    tree = {"cfg": sections, "header": header}
    base = store(tmp_path, tree, data)
    assert base is not None
    given = dialect if said else None
    silent = {f"cfg[].{key}": "not of inference" for key in SILENT}
    silent["header.seen"] = "images seen in training"
    found = Attributes(partial(formats.load, dialect=given), base, silent, signal)
    for edit in edits(tree, LEGAL, SILENT):
        path = store(tmp_path, edit.tree, data)
        if path is not None:
            run = partial(oracle, edit.tree, data, given)
            found.judge(Change(edit.name, edit.value, path, run))
    found.finish(names(tree) - {"file", "header"})
