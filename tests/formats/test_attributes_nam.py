"""NAM files, one attribute at a time, against the LSTM of NeuralAmpModelerCore written out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from attributes import Attributes, Change, edits, names, signal
from audio_cases import Tree, forward_nam, nam, store

from ifgo import formats

SILENT = {
    "metadata": "what the author says about the model",
    "metadata.name": "what the author says about the model",
    "metadata.date": "what the author says about the model",
    "metadata.date.year": "what the author says about the model",
    "metadata.gear": "what the author says about the model",
    "sample_rate": "when steps follow each other, not what is computed; kept as a note",
}

LEGAL = {
    "architecture": ["LSTM", "WaveNet", "ConvNet", "Linear"],
    "version": ["0.5.0", "0.6.1", "0.7.0", "0.4.0", "0.8.0", "1.0.0", "0.5", "0.5.4.1"],
}


@pytest.mark.parametrize(
    "tree", [nam(1), nam(2, layers=2, in_channels=1), nam(3, inputs=2, out_channels=2)]
)
def test_every_attribute(tmp_path: Path, tree: Tree) -> None:
    found = Attributes(formats.load, store(tmp_path, "nam", tree), SILENT, signal)
    for edit in edits(tree, LEGAL):
        path = store(tmp_path, "nam", edit.tree)
        found.judge(Change(edit.name, edit.value, path, partial(forward_nam, edit.tree)))
    found.finish(names(tree))
