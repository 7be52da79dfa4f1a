"""The JSON that readers share: what is refused before and while it is parsed, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import within_bounds
from raising import raising

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats import _json

DAMAGED = "The file was changed or cut short after it was written; fetch or write it again"
LONG = limits.DEFAULTS.json_bytes + 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[]", "it is no JSON object, expected an object in braces"),
        (b"", f"it is no JSON (Expecting value: line 1 column 1 (char 0)). {DAMAGED}"),
        (b"{1:2}", "it is no JSON (Expecting property name enclosed in double quotes: line 1 "
         f"column 2 (char 1)). {DAMAGED}"),
        (b'{"a": 1} x', f"it is no JSON (Extra data: line 1 column 10 (char 9)). {DAMAGED}"),
        (b'{"a": "\xff"}', f"it is no JSON (byte 7 is no UTF-8). {DAMAGED}"),
        ('{"a": 1}'.encode("utf-16"), f"it is no JSON (byte 0 is no UTF-8). {DAMAGED}"),
        (b'{"a": 1, "a": 2}', "it has two keys 'a', expected each key once"),
        (b'{"b": [{"a": 1, "c": 0, "a": 2}]}', "it has two keys 'a', expected each key once"),
        (b'{"a": NaN}', "it holds nan, expected finite numbers"),
        (b'{"a": Infinity}', "it holds Infinity, expected finite numbers"),
        (b'{"a": -Infinity}', "it holds -Infinity, expected finite numbers"),
        (b'{"a": 1e999}', "it holds 1e999, expected finite numbers"),
        (b'{"a": ' + b"[" * 100_000, "it nests too deep"),
    ],
)  # fmt: skip
def test_refused(text: bytes, says: str) -> None:
    with pytest.raises(FormatError) as caught:
        _json.parse(text, "it")
    assert str(caught.value).replace("NaN", "nan") == says


@pytest.mark.parametrize(
    ("part", "limit", "named"),
    [
        (b"0,", "json_values", "commas"),
        (b"[],", "json_lists", "lists"),
        (b'{"a":0},', "json_keys", "colons"),
        (b'"\\n",', "json_keys", "backslashes"),
    ],
)
def test_counted_before_they_are_parsed(part: bytes, limit: str, named: str) -> None:
    most = getattr(limits.DEFAULTS, limit)
    text = b'{"":[' + part * most + b"0]}"
    text += b" " * max(0, LONG - len(text))
    if named in ("lists", "colons"):  # one stands around them
        text = text.replace(part, b"", 1)
    assert len(_json.parse(text, "it")[""]) >= most
    with pytest.raises(FormatError) as caught:
        _json.parse(text.replace(part, part + part, 1), "it")
    what = f"it holds {most + 1} {named}, expected at most {most}"
    assert str(caught.value) == what + raising(limit)


FULL = {
    "numbers": b"0.5," * (limits.DEFAULTS.json_values - 9),
    "long numbers": b"-1.0123456789012345e-10,\n          " * (limits.DEFAULTS.json_values - 9),
    "lists": b"[]," * (limits.DEFAULTS.json_lists - 9),
    "keys": b'{"a":0},' * (limits.DEFAULTS.json_keys - 9),
    "escapes": b'"\\u0100",' * (limits.DEFAULTS.json_keys - 9),
    "one key": b'{"' + b"k" * LONG + b'":0},',
    "one number": b"0." + b"9" * LONG + b",",
    "one integer": b"9" * LONG + b",",
    "spaces": b" " * (limits.DEFAULTS.json_file_bytes - 99),
}


@pytest.mark.parametrize("name", list(FULL))
def test_the_most_that_is_parsed_keeps_to_the_bound(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(b'{"":[' + FULL[name] + b"0]}")
    within_bounds(lambda: _json.read(path), path.stat().st_size)


def test_longer_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(b" " * (limits.DEFAULTS.json_file_bytes + 1))
    with pytest.raises(FormatError) as caught:
        _json.read(path)
    assert str(caught.value) == (
        f"{path}: has {limits.DEFAULTS.json_file_bytes + 1} bytes, "
        f"expected at most {limits.DEFAULTS.json_file_bytes} bytes" + raising("json_file_bytes")
    )


def test_a_byte_order_mark_is_no_part() -> None:
    assert _json.parse(b'\xef\xbb\xbf{"a": 1}', "it") == {"a": 1}


@pytest.mark.parametrize(
    ("start", "found"),
    [(b'{"a"', True), (b'\xef\xbb\xbf \n{"a"', True), (b"[{", False), (b"", False)],
)
def test_head(tmp_path: Path, start: bytes, found: bool) -> None:
    (tmp_path / "m").write_bytes(start)
    assert bool(_json.head(tmp_path / "m")) == found
    assert _json.head(tmp_path) == b""
    assert _json.head(tmp_path / "none") == b""


def test_fields() -> None:
    fields = _json.Fields({"a": 1, "b": "text", "c": {}, "d": None}, "here")
    assert (fields.whole("a", 0, 1), fields.text("b"), fields.flag("a")) == (1, "text", True)
    assert fields.fields("c").where == "here, c"
    for call, kind, says in (
        (lambda: fields.only("a", "b"), UnsupportedError,
         "here: key 'c', 'd' is none that ifgo reads there, expected one of a, b. Correct its "
         "spelling, or remove it if it changes no number"),
        (lambda: fields.need("e"), FormatError,
         "here: has no e. The file is no whole model of this format"),
        (lambda: fields.text("d"), FormatError, "here: d is null, expected a string"),
        (lambda: fields.list("b"), FormatError, 'here: b is "text", expected a list'),
        (lambda: fields.fields("a"), FormatError, "here: a is 1, expected an object in braces"),
        (lambda: fields.flag("b"), FormatError, 'here: b is "text", expected true or false'),
    ):  # fmt: skip
        with pytest.raises(kind) as caught:
            call()
        assert str(caught.value) == says


@pytest.mark.parametrize(
    "value", [0.1, 1 / 3, 3.4028234663852886e38, 1.401298464324817e-45, -0.0, 16777217.0]
)
def test_float32_is_written_exactly(value: float) -> None:
    single = np.array([[value]], "f")
    text = _json.text({"a": _json.numbers(single)})
    numbers = _json.Numbers()
    again = numbers.take(_json.parse(text, "it")["a"], (1, 1), "a")
    assert again.tobytes() == single.tobytes()
    assert numbers.notes == ()


def test_rounding_is_noted() -> None:
    numbers = _json.Numbers()
    assert numbers.take([0.1, 0.5, 16777217], (3,), "a").tolist() == [np.float32(0.1), 0.5, 2**24]
    assert numbers.notes == ("2 numbers are rounded to float32, as the format's own reader does",)


def test_notes_are_few_and_short() -> None:
    deep: Any = "x" * 500
    for _ in range(300):
        deep = {"d": deep}
    many = {f"key {k}": k for k in range(200)}
    notes = _json.notes_of({"deep": deep, "list": [1, 2], "none": None, **many})
    assert len(notes) == 33
    assert max(map(len, notes)) <= 2 * limits.DEFAULTS.name_chars
    assert notes[1] == "metadata list: a list of 2"
    assert notes[-1] == "metadata: 170 more values"
    assert json.dumps(notes)
