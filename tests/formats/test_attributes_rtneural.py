"""RTNeural and AIDA-X files, one attribute at a time, against RTNeural sample by sample."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from attributes import Attributes, Change, edits, names, signal
from audio_cases import ELSE, forward_rtneural, rt_dense, rt_lstm, rt_norm, rtneural, store

from ifgo import formats

SILENT = {
    "metadata": "what the author says about the model",
    "metadata.name": "what the author says about the model",
    "input_batch": "a recording, for the plug-in to test itself with",
    "output_batch": "a recording, for the plug-in to test itself with",
}

LEGAL = {
    "activation": [*ELSE, "prelu", "hard_sigmoid"],
    "type": ["lstm", "gru", "dense", "time-distributed-dense", "activation", "batchnorm", "prelu"],
    "in_gain": [6.0, -90, -91.0, 1000],
    "out_gain": [-7.5],
}


def test_every_attribute(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = [rt_lstm(rng, 2, 3), rt_norm(rng, 3), rt_dense(rng, 3, 1, "tanh")]
    tree = rtneural(2, *layers, in_skip=1, in_gain=1.5, out_gain=-3.0)
    tree |= {"metadata": {"name": "amp"}, "input_batch": [0.5], "output_batch": [0.25]}
    base = store(tmp_path, "rtneural", tree)
    found = Attributes(formats.load, base, SILENT, signal)
    for edit in edits(tree, LEGAL):
        path = store(tmp_path, "rtneural", edit.tree)
        found.judge(Change(edit.name, edit.value, path, partial(forward_rtneural, edit.tree)))
    found.finish(names(tree))
