"""Sheets of frameworks, each against the framework's own equations; the keys that they need."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import arrays_cases as cases
import numpy as np
import pytest
from arrays_frameworks import FRAMEWORKS
from double import double_bound

from ifgo import formats
from ifgo.errors import FormatError
from ifgo.formats import _arrays_sheet

SHEETS = Path(_arrays_sheet.__file__).with_name("sheets")


def stored(folder: Path, arrays: dict[str, Any], sheet: str | None = None) -> Path:
    path = folder / "w.npz"
    np.savez(path, **arrays)
    if sheet is not None:
        path.with_suffix(".toml").write_text(sheet)
    return path


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_framework_by_its_sheet(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    framework = FRAMEWORKS[name]
    arrays = framework.arrays(rng)
    model = formats.load(stored(tmp_path, arrays), sheet=name)
    x = rng.normal(0, 1, (6, 3)).astype("f")
    found = model.run(x, on="truth")[0]
    assert np.abs(found - framework.run(arrays, x)).max() < double_bound(model, x)
    assert len(model.recurrent) == framework.layers
    assert set(model.arrays) == set(model.provenance.names)
    assert all(model.provenance.names.values())


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_each_number_of_a_framework_counts(tmp_path: Path, name: str) -> None:
    """Every gate of every array: one number changed gives what the framework computes of it."""
    rng = np.random.default_rng(2)
    framework = FRAMEWORKS[name]
    arrays = framework.arrays(rng)
    x = rng.normal(0, 1, (4, 3)).astype("f")
    for key, array in arrays.items():
        if key in ("Wemb", "U", "b", "train_err", "history_errs"):
            continue
        for _ in range(3):
            changed = array.copy()
            changed.reshape(-1)[rng.integers(array.size)] += 0.75
            every = arrays | {key: changed}
            model = formats.load(stored(tmp_path, every), sheet=name)
            found = model.run(x, on="truth")[0]
            assert np.abs(found - framework.run(every, x)).max() < double_bound(model, x)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_framework_with_an_array_missing(tmp_path: Path, name: str) -> None:
    arrays = FRAMEWORKS[name].arrays(np.random.default_rng(3))
    for key in arrays:
        if key in ("Wemb", "U", "b", "train_err", "history_errs"):
            continue
        rest = {k: v for k, v in arrays.items() if k != key}
        with pytest.raises(FormatError, match=r"which is not there|which fits|has no use"):
            formats.load(stored(tmp_path, rest), sheet=name)


def test_wrong_gate_orders_of_interleaved_gates_show(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    framework = FRAMEWORKS["chainer"]
    arrays = framework.arrays(rng)
    x = rng.normal(0, 1, (6, 3)).astype("f")
    expected, seen = framework.run(arrays, x), 0
    text = (SHEETS / "chainer.toml").read_text()
    for order in map("".join, permutations("ifgo")):
        sheet = text.replace('"gifo"', f'"{order}"')
        model = formats.load(stored(tmp_path, arrays, sheet))
        error = np.abs(model.run(x, on="truth")[0] - expected).max()
        assert (error < double_bound(model, x)) == (order == "gifo")
        seen += error > 1e-3
    assert seen == 23


@pytest.mark.parametrize("form", ["two", "stacked"])
@pytest.mark.parametrize("orientation", ["rows", "columns"])
def test_interleaved_in_every_form(tmp_path: Path, form: str, orientation: str) -> None:
    """Gate k of unit u is number 4u + k of the gates' axis; a second bias too."""
    rng = np.random.default_rng(5)
    made = cases.cell(rng, 3, 4)

    def woven(parts: dict[str, Any]) -> Any:
        return np.stack([parts[g] for g in "ofig"], axis=1).reshape(16, *parts["i"].shape[1:])

    arrays = {"w": woven(made["W"]), "r": woven(made["R"])}
    if orientation == "columns":
        arrays = {key: array.T for key, array in arrays.items()}
    half = rng.normal(0, 0.5, 16).astype("f")
    rest = (woven(made["b"]) - half).astype("f")
    text = cases.SHEET.replace('"ifgo"', '"ofig"\ninterleaved = true').replace("rows", orientation)
    if form == "two":
        arrays |= {"b": half, "b2": rest}
        text = text.replace('"one"', '"two"') + 'bias_hh = "b2"\n'
    else:
        arrays["b"] = np.concatenate([half, rest])
        text = text.replace('"one"', '"stacked"').replace("bias_ih", "bias")
    total = half.astype(float) + rest
    made["b"] = {g: total[k::4] for k, g in enumerate("ofig")}
    x = rng.normal(0, 1, (5, 3)).astype("f")
    model = formats.load(stored(tmp_path, arrays, text))
    found = model.run(x, on="truth")[0]
    assert np.abs(found - cases.run(made, x)).max() < double_bound(model, x)


def plain() -> dict[str, Any]:
    made = cases.cell(np.random.default_rng(6), 3, 4)
    return {key.lower(): cases.rows(made[key], "ifgo") for key in "WRb"}


REFUSED = {
    "gates apart": (
        ("rows", 'blocks"\ninterleaved = "no'),
        "w.toml: layer[0].interleaved is 'no', expected true or false",
    ),
    "blocks": (
        ('"rows"', '"blocks"\ninterleaved = true'),
        "w.toml: layer[0].interleaved is true, expected false for blocks, which keep gates apart",
    ),
    "a gate each": (
        (
            '"rows"',
            '"rows"\ninterleaved = true',
            'weight_ih = "w"',
            'weight_ih = ["a","b","c","d"]',
        ),
        "w.toml: layer[0].forward.weight_ih is \"['a', 'b', 'c', 'd']\", expected the name of an "
        "array",
    ),
    "one state alone": (
        ('bias_ih = "b"', 'bias_ih = "b"\ninitial_h = "h"'),
        "w.toml: layer[0].forward names bias_ih, initial_h, weight_hh, weight_ih, expected "
        "bias_ih, initial_c, initial_h, weight_hh, weight_ih, as bias = 'one' and peephole = '' "
        "say; weight_xh or weight_hx alone may stand for weight_ih and weight_hh",
    ),
    "a state of another size": (
        ('bias_ih = "b"', 'bias_ih = "b"\ninitial_h = "h"\ninitial_c = "c"'),
        "w.toml: layer[0]: h has shape (3,), expected (output_size,) = (4,)",
    ),
    "states of one direction": (
        (
            'bias_ih = "b"',
            'bias_ih = "b"\ninitial_h = "c"\ninitial_c = "c2"\n[layer.backward]\n'
            'weight_ih = "w2"\nweight_hh = "r2"\nbias_ih = "b2"',
        ),
        "w.toml: layer[0]: names initial states of one direction, expected those of both "
        "directions, or none",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(tmp_path: Path, case: str) -> None:
    changes, message = REFUSED[case]
    text = cases.SHEET
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text
        text = text.replace(old, new, 1)
    arrays = plain() | {"h": np.zeros(3, "f"), "c": np.zeros(4, "f")}
    arrays |= {f"{key}2": arrays[key] for key in "wrbc"}
    path = stored(tmp_path, arrays, text)
    with pytest.raises(FormatError) as caught:
        formats.load(path)
    assert str(caught.value) == f"{path}: {message}"


def test_states_of_both_directions(tmp_path: Path) -> None:
    """The backward direction starts from its own h and c, at the last step."""
    rng = np.random.default_rng(7)
    arrays = plain() | {key: rng.normal(0, 0.5, 4).astype("f") for key in ("h", "c", "h2", "c2")}
    text = cases.SHEET + 'initial_h = "h"\ninitial_c = "c"\n'
    one = formats.load(stored(tmp_path, arrays, 'ignore = ["h2", "c2"]\n' + text))
    x = rng.normal(0, 1, (5, 3)).astype("f")
    forward = one.run(x, on="truth")[0]
    both = text + '[layer.backward]\nweight_ih = "w2"\nweight_hh = "r2"\nbias_ih = "b2"\n'
    both += 'initial_h = "h2"\ninitial_c = "c2"\n'
    every = arrays | {f"{key}2": arrays[key] for key in "wrb"}
    model = formats.load(stored(tmp_path, every, both))
    turned = arrays | {"h": arrays["h2"], "c": arrays["c2"]}
    other = formats.load(stored(tmp_path, turned, 'ignore = ["h2", "c2"]\n' + text))
    backward = other.run(x[::-1].copy(), on="truth")[0][::-1]
    found = model.run(x, on="truth")[0]
    assert np.array_equal(found, np.concatenate([forward, backward], axis=1))
    assert np.abs(forward - backward).max() > 1e-3
