"""Damaged RTNeural, GuitarML and NAM files: refused, or a whole model; at no great cost."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from audio_cases import Tree, guitarml, nam, rt_dense, rt_lstm, rtneural, store
from bounds import within_bounds
from numpy.random import default_rng

from ifgo import formats
from ifgo.errors import FormatError, IfgoError
from ifgo.model import Model

RNG = default_rng(0)
TREES: dict[str, Tree] = {
    "rtneural": rtneural(1, rt_lstm(RNG, 1, 1), rt_dense(RNG, 1, 1), in_skip=1),
    "guitarml": guitarml(1, 1, 1),
    "nam": nam(1, 1, 1),
}
EVERY = pytest.mark.parametrize("form", list(TREES))


@EVERY
def test_every_truncation_is_refused(tmp_path: Path, form: str) -> None:
    path = store(tmp_path, form, TREES[form])
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError):
            formats.load(path, form)
    path.write_bytes(data + b" \n")
    assert formats.load(path, form).recurrent


@EVERY
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, form: str) -> None:
    """One to three bytes changed: a whole model, or one of our errors with the file's name."""
    path = store(tmp_path, form, TREES[form])
    text, rng, refused = path.read_bytes(), random.Random(1), 0
    for _ in range(1000):
        data = bytearray(text)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice(b'\0"[]{},:0129-.eE nt\xff\\')
        path.write_bytes(bytes(data))
        try:
            assert isinstance(formats.load(path, form), Model)
        except IfgoError as error:
            refused += str(error).startswith(str(path)) and error.exit_code > 2
    assert 300 < refused < 1000


@EVERY
def test_a_large_file_keeps_to_the_bound(tmp_path: Path, form: str) -> None:
    """A hidden_size of 300, and one that the file does not have."""
    if form == "rtneural":
        tree = rtneural(1, rt_lstm(RNG, 1, 300), rt_dense(RNG, 300, 1))
    else:
        tree = guitarml(1, 1, 300) if form == "guitarml" else nam(1, 1, 300)
    path = store(tmp_path, form, tree)
    within_bounds(lambda: formats.load(path, form), path.stat().st_size)
    text = json.dumps(tree)
    assert "300" in text
    path.write_text(text.replace("300", "8192"))
    within_bounds(lambda: formats.load(path, form), path.stat().st_size)
    with pytest.raises(IfgoError):
        formats.load(path, form)
