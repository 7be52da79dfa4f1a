"""GuitarML files, one attribute at a time, against SimpleRNN written out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from attributes import Attributes, Change, edits, names, signal
from audio_cases import Tree, forward_guitarml, guitarml, store

from ifgo import formats

LEGAL = {
    "unit_type": ["LSTM", "GRU", "RNN"],
    "model": ["SimpleRNN", "GatedConvNet"],
    "skip": [0, 1, 2],
    "num_layers": [1, 2, 3],
}


@pytest.mark.parametrize(
    "tree", [guitarml(1), guitarml(2, layers=2, skip=2, output_size=2), guitarml(3, bias_fl=False)]
)
def test_every_attribute(tmp_path: Path, tree: Tree) -> None:
    found = Attributes(formats.load, store(tmp_path, "guitarml", tree), {}, signal)
    for edit in edits(tree, LEGAL):
        path = store(tmp_path, "guitarml", edit.tree)
        found.judge(Change(edit.name, edit.value, path, partial(forward_guitarml, edit.tree)))
    found.finish(names(tree))
