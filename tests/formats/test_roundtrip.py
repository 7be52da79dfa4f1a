"""Every feature through every format: what a report says is what happened, and what is published.

A failure of the published matrix: run the command that it names and read what changed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from presence import missing
from roundtrip import (
    Matrix,
    _outcome,
    columns,
    matrix,
    pairs,
    singles,
    stated_ulps,
    travel,
    usual,
)
from roundtrip_features import BODIES, FEATURES, Feature
from roundtrip_table import COMMAND, PAGE, letter, pair_lines, published, single_lines

from ifgo import formats
from ifgo.formats import Report
from ifgo.model import Model

AGAIN = f"read what changed, then run {COMMAND}"

PLAIN = FEATURES["forward"].model(BODIES[0])


def page(part: str) -> list[str]:
    """The lines of a generated part of FORMATS.md."""
    return published(part, PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def alone() -> Matrix:
    return matrix(singles())


def test_every_report_says_what_happened(alone: Matrix) -> None:
    """Equal bits, stated ulps that are true, losses and refusals that name the feature."""
    assert alone.faults == []


def test_what_is_published_of_each_format(alone: Matrix) -> None:
    if alone.absent:
        missing("; ".join(alone.absent), "; ".join(alone.absent.values()))
    assert published("formats alone", PAGE.read_text(encoding="utf-8")) == single_lines(alone), (
        AGAIN
    )


def test_no_cell_is_empty(alone: Matrix) -> None:
    routes = {str(route) for route in singles()} - set(alone.absent) - set(alone.unwritten)
    assert {name: set(row) for name, row in alone.legs.items()} == dict.fromkeys(FEATURES, routes)


def _published_letters() -> dict[str, dict[str, str]]:
    """Route → feature → letter, as FORMATS.md has it."""
    names = [str(column) for column in usual()]
    found: dict[str, dict[str, str]] = {}
    for line in page("formats in pairs")[2:]:
        feature, *cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        for one, cell in zip(names, cells, strict=True):
            for two, mark in zip(names, cell, strict=True):
                found.setdefault(f"{one} → {two}", {})[feature] = mark
    return found


def test_pairs_reduced() -> None:
    """Each format into its neighbours, each pair with some of the features; the letters are those
    that are published. The whole is behind slow."""
    count, letters, routes = len(usual()), _published_letters(), pairs()
    chosen = [routes[k * count + (k + step) % count] for k in range(count) for step in (1, 3)]
    assert set(letters) == {str(route) for route in routes}, AGAIN
    for place, route in enumerate(chosen):
        some = list(FEATURES)[place :: len(chosen)]
        made = matrix([route], some)
        assert made.faults == []
        for name, row in made.legs.items():
            for leg in row.values():
                assert letters[str(route)][name] == letter(leg), f"{name}, {route}: {AGAIN}"


@pytest.mark.slow
def test_what_is_published_of_every_pair() -> None:
    made = matrix(pairs())
    assert made.faults == []
    if made.absent:
        missing("; ".join(made.absent), "; ".join(made.absent.values()))
    assert published("formats in pairs", PAGE.read_text(encoding="utf-8")) == pair_lines(made), (
        AGAIN
    )


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_says_whose_meaning_it_takes(name: str) -> None:
    """A section of its own, with its name or an ending of its files in the heading."""
    words = (name, *formats.get(name).EXTENSIONS)
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    own = [text for text in sections if any(w in text.split("\n")[0].lower() for w in words)]
    assert own, f"FORMATS.md has no section on {name}"
    assert any("**Whose meaning**" in text for text in own)


# -- the judge can fail ---------------------------------------------------------------------------


def changed(**parts: object) -> Model:
    """PLAIN with other parts in its cell."""
    (layer,) = PLAIN.recurrent
    return replace(PLAIN, layers=(replace(layer, forward=replace(layer.cell, **parts)),))


def judged(back: Model, *folded: str, lost: tuple[str, ...] = ()) -> str:
    report = Report((), folded, lost)
    return _outcome(PLAIN, back, report, stated_ulps(report))


def test_a_change_in_silence_is_noticed() -> None:
    with pytest.raises(AssertionError, match="something changed in silence"):
        judged(changed(clip_z=50.0))
    assert judged(changed(clip_z=50.0), "clip_z 50 is added") == "same"


def test_other_numbers_need_an_ulp() -> None:
    bias = PLAIN.recurrent[0].cell.bias_ih
    assert bias is not None
    with pytest.raises(AssertionError, match="other outputs, no ulp stated"):
        judged(changed(bias_ih=np.nextafter(bias, np.float32(9))), "bias_ih is rounded")
    assert judged(changed(bias_ih=bias + np.float32(1)), lost=("bias_ih",)) == "other"


def test_an_ulp_that_is_too_small_is_noticed() -> None:
    cell = PLAIN.recurrent[0].cell
    moved = changed(weight_ih=np.nextafter(cell.weight_ih, np.float32(9)))
    with pytest.raises(AssertionError, match=r"weight_ih off by 1 ulp, said 0\.5"):
        judged(moved, "weight_ih, off by up to 0.5 ulp")
    assert judged(moved, "weight_ih, off by up to 1 ulp") == "1 ulp"


def test_a_refusal_that_does_not_name_the_feature_is_noticed() -> None:
    (onnx,) = (route for route in singles() if str(route) == "onnx")
    feature = Feature(FEATURES["projection"].make, ("peephole",))
    with pytest.raises(AssertionError, match=r"none of \('peephole',\) in: .*projection"):
        onnx.leg(feature, BODIES[0])


def test_a_writer_that_drops_a_part_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer of native files, made to forget the peepholes."""
    native, model = formats.get("native"), FEATURES["peephole"].model(BODIES[0])
    (column,) = (c for c in columns() if c.format == "native")
    assert travel(model, column).outcome == "equal"
    whole = native.write

    def forgetful(model: Model, path: object, **options: object) -> Report:
        (layer,) = model.recurrent
        bare = replace(layer, forward=replace(layer.cell, peephole=None))
        return whole(replace(model, layers=(bare,)), path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(native, "write", forgetful)
    with pytest.raises(AssertionError, match="something changed in silence"):
        travel(model, column)
