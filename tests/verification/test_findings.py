"""Findings and reports: places, ranks, the JSON form, the page."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from ifgo.verification import Finding, Verification
from ifgo.verification.findings import SLICES, Errors, Subject, bits, first_wrong, within
from ifgo.verification.report import level

SUBJECT = Subject("c99", "exact", "lstm", "", 2)
NAN = float("nan")


def flat(*values: float) -> Any:
    """One row, one unit, a value per step."""
    return np.array(values, dtype=np.float64).reshape(1, -1, 1)


def test_the_first_step_comes_before_the_first_part_and_the_largest_size() -> None:
    errors = {
        "z_i": within(flat(0, 0, 9), flat(1, 1, 1)),
        "z_f": within(flat(0, 2, 0), flat(1, 1, 1)),
        "h": within(flat(0, 5, 5), flat(1, 1, 1)),
    }
    forward = first_wrong(errors, False)
    backward = first_wrong(errors, True)
    assert forward is not None
    assert backward is not None
    assert (forward.part, forward.step, forward.done, forward.rank) == ("z_f", 1, 1, 1)
    assert (backward.part, backward.step, backward.done, backward.rank) == ("z_i", 2, 0, 0)


def test_of_the_rows_and_units_of_one_step_the_farthest_beyond_its_bound_is_named() -> None:
    difference, bound = np.zeros((2, 3, 2)), np.ones((2, 3, 2))
    difference[0, 1] = [3.0, 2.0]
    difference[1, 1], bound[1, 1] = [4.0, 2.0], [2.0, 0.5]
    found = SUBJECT.finding({"c": within(difference, bound)}, "local bound")
    assert (found.row, found.step, found.unit) == (1, 1, 1)
    assert (found.difference, found.bound, found.order) == (2.0, 0.5, (2, 1, 0))
    assert found.place == "c, step 1, row 1, unit 1"


def test_what_holds_names_the_place_nearest_its_bound() -> None:
    errors = {
        "z_i": within(flat(0, 1, 2), flat(4, 4, 4)),
        "h": within(flat(0, 3, 0), flat(4, 4, 4)),
    }
    found = SUBJECT.finding(errors, "local bound")
    assert (found.verdict, found.part, found.step, found.cause) == (
        "within local bound",
        "h",
        1,
        "",
    )
    assert [(p.part, p.used, p.heat) for p in found.parts] == [
        ("z_i", 0.5, (0.0, 0.25, 0.5)),
        ("h", 0.75, (0.0, 0.75, 0.0)),
    ]


@pytest.mark.parametrize("wrong", [NAN, float("inf")])
def test_what_is_no_number_is_wrong(wrong: float) -> None:
    found = SUBJECT.finding({"h": within(flat(0, wrong), flat(1, 1))}, "local bound")
    assert (found.holds, found.step, found.used) == (False, 1, np.inf)
    without_bound = within(flat(0.0), flat(NAN))
    assert without_bound.wrong.all()
    assert np.isinf(without_bound.used).all()


def test_bits_tell_zeros_and_nans_apart() -> None:
    want = np.array([0.0, 1.0, NAN, NAN], dtype=np.float32).reshape(1, 4, 1)
    have = np.array([-0.0, 1.0, NAN, 2.0], dtype=np.float32).reshape(1, 4, 1)
    errors = bits(want, have)
    assert errors.wrong.reshape(-1).tolist() == [True, False, False, True]
    found = SUBJECT.finding({"h": errors}, "EXACT")
    assert (found.step, found.difference, found.bound, found.verdict) == (0, 0.0, 0.0, "DIFFERS")
    assert np.isnan(found.parts[0].difference)


def test_a_strip_has_a_cell_for_each_slice_of_time() -> None:
    difference = np.zeros((1, 1000, 1))
    difference[0, 999] = 0.5
    errors = Errors(difference, np.ones_like(difference), np.zeros(difference.shape, bool))
    heat = SUBJECT.finding({"h": errors}, "local bound").parts[0].heat
    assert heat == (0.0,) * (SLICES - 1) + (0.5,)
    assert [level(share) for share in (0.0, 1e-9, 0.25, 0.5, 1.0, 1.01, np.inf)] == [
        0,
        1,
        1,
        2,
        4,
        5,
        5,
    ]


def failing(runtime: str, layer: str, depth: int, step: int, **more: Any) -> Finding:
    return Finding(
        runtime,
        "truth" if runtime == "exact" else "exact",
        layer,
        "local bound" if runtime == "exact" else "EXACT",
        False,
        1.0,
        0.5,
        "z_f",
        step,
        0,
        row=1,
        order=(depth, step, 4),
        **({"cause": "own"} | more),
    )


def test_ranks() -> None:
    rows = (
        Finding("c99", "exact", "fine", "EXACT", True),
        failing("c99", "follows", 0, 0, cause="inherited"),
        failing("c99", "deep", 3, 0),
        failing("c99", "late", 1, 7),
        failing("c99", "early", 1, 2),
        failing("exact", "reference", 5, 9),
        Finding("c99", "exact", "also fine", "EXACT", True),
    )
    found = Verification(1, 9, rows)
    order = ["reference", "early", "late", "deep", "follows", "fine", "also fine"]
    assert [f.layer for f in found.ranked] == order
    assert [row["layer"] for row in found.to_dict()["findings"]] == order
    assert [row["rank"] for row in found.to_dict()["findings"]] == [1, 2, 3, 4, 5, 6, 7]
    assert found.summary() == (
        "First difference: exact against truth, reference, sum of gate f (z_f, step 9, row 1, "
        "unit 0): off by 1, 0.5 allowed. Differences of their own besides: 3. Inherited from what "
        "came before: 1."
    )
    assert Verification(1, 9, rows[:1]).summary() == ""


def test_the_larger_of_two_at_the_same_place_comes_first() -> None:
    small, large = failing("c99", "a", 1, 1), failing("c99", "b", 1, 1)
    large = Finding(**(large.__dict__ | {"difference": 9.0}))
    assert [f.layer for f in Verification(1, 1, (small, large)).ranked] == ["b", "a"]


def test_json_is_as_the_specification_says() -> None:
    errors = {"z_i": within(flat(0, NAN), flat(1, 1))}
    found = Verification(1, 2, (SUBJECT.finding(errors, "local bound"),)).to_dict()
    json.dumps(found, allow_nan=False)
    (row,) = found.pop("findings")
    (part,) = row.pop("parts")
    assert found == {"schema": 1, "ok": False, "batch": 1, "steps": 2}
    assert row == {
        "rank": 1,
        "runtime": "c99",
        "judge": "exact",
        "layer": "lstm",
        "direction": "",
        "basis": "local bound",
        "holds": False,
        "verdict": "OUT OF local bound",
        "cause": "own",
        "difference": None,
        "bound": 1.0,
        "used": None,
        "part": "z_i",
        "step": 1,
        "row": 0,
        "unit": 0,
        "place": "z_i, step 1, row 0, unit 0",
        "order": [2, 1, 0],
        "note": "",
    }
    assert part == {
        "part": "z_i",
        "holds": False,
        "difference": None,
        "bound": 1.0,
        "used": None,
        "row": 0,
        "step": 1,
        "unit": 0,
        "heat": [0.0, None],
    }


HOSTILE = "<b>&\x1b[31m\u202e\n"
"""Markup, an escape sequence, a change of direction, a line break."""


def test_the_page_is_whole_and_escapes_names() -> None:
    errors = {"z_i": within(flat(0, 2), flat(1, 1))}
    rows = (
        Subject("c99", "exact", "fine").finding({"h": bits(flat(0), flat(0))}, "EXACT"),
        Subject("exact", "truth", HOSTILE).finding(errors, "local bound", note=HOSTILE),
        Subject("c99", "exact", HOSTILE).silent(HOSTILE),
    )
    page = Verification(1, 2, rows).to_html(f"a < b\n{HOSTILE}c")
    assert "<b>" not in page
    assert not set(page) & set("\x1b\u202e")
    assert page.count("&lt;b&gt;&amp;\\x1b[31m\\u202e") >= 5
    assert "<pre>a &lt; b\n&lt;b&gt;&amp;\\x1b[31m\\u202e\nc\n</pre>" in page
    assert "z_i, step 1, row 0, unit 0" in page
    assert '<i class="h0"></i><i class="h5"></i>' in page
    assert not re.search(r"(src|href)=|https?:|url\(|@import", page)
    assert "default-src 'none'" in page


def test_the_text_escapes_names() -> None:
    found = Verification(1, 2, (Subject("c99", "exact", HOSTILE).missing("EXACT", HOSTILE),))
    text = str(found)
    assert "First difference: c99 against exact, <b>&\\x1b[31m\\u202e\\n: <b>&" in text
    assert not set(text) & set("\x1b\u202e")
