"""Pickles of Deep Learning from Scratch 2, one array at a time, against its layers written out."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attributes import Attributes, Change, Edit, signal
from dlfs2_cases import better, forward, lstm, rnnlm

from ifgo import formats


def array_edits(arrays: list[Any]) -> Iterator[Edit]:
    """Other lists, and each array with another shape, type, layout and other numbers."""
    yield Edit("list", "reversed", arrays[::-1])
    yield Edit("list", "a tuple", tuple(arrays))
    yield Edit("list", "a dict", dict(enumerate(arrays)))
    yield Edit("list", "nested", [arrays])
    yield Edit("list", "twice", arrays + arrays)
    for k, array in enumerate(arrays):
        name = f"array {k}"
        yield Edit(name, "absent", arrays[:k] + arrays[k + 1 :])
        yield Edit(name, "twice", arrays[: k + 1] + arrays[k:])
        swapped = [*arrays]
        swapped[k - 1 : k + 1] = swapped[k - 1 : k + 1][::-1]
        yield Edit(name, "before the one before it", swapped)
        moved = array.copy()
        moved.flat[0] += 0.25
        for what, new in {
            "moved": moved, "float32": array.astype("f4"), "float64": array.astype("f8"),
            "int8": array.astype("i1"), "bool": array > 0, "complex": array.astype("c8"),
            "big-endian": array.astype(">f2"), "by columns": np.asfortranarray(array),
            "transposed": array.T.copy(), "a view": np.repeat(array, 2, 0)[::2],
            "flat": array.reshape(-1), "one axis more": array[None], "a row less": array[:-1],
            "a row more": np.concatenate([array, array[:1]]), "nan": array * np.nan,
            "scalar": array.flat[0], "a list": array.tolist(), "None": None, "text": "x",
            "objects": array.astype(object), "empty": array[:0], "a half": array[..., ::2],
        }.items():  # fmt: skip
            yield Edit(name, what, [*arrays[:k], new, *arrays[k + 1 :]])


def oracle(tree: Any, x: Any) -> Any:
    """The book takes a list of arrays of numbers."""
    assert type(tree) is list
    assert all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in tree)
    shapes = [a.shape for a in tree]
    if x.ndim == 1:
        shapes.pop(0)
    while len(shapes) > 2:
        (inputs, wide), (hidden, other), (biases,), *shapes = shapes
        assert wide == other == biases == 4 * hidden, inputs
    assert len(shapes) in (0, 2)
    assert not shapes or shapes[0][1:] == shapes[1]
    return forward(tree, x)


@pytest.mark.parametrize("kind", ["lstm", "rnnlm", "better"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_every_array(tmp_path: Path, kind: str, protocol: int) -> None:
    rng = np.random.default_rng(1)
    made = {"lstm": lstm(rng, 3, 4), "rnnlm": rnnlm(rng, 7, 3, 4), "better": better(rng, 7, 4)}
    arrays = [array.astype("f2") for array in made[kind]]
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol))
    read = partial(formats.load, format="dlfs2")
    found = Attributes(read, path, {}, signal)
    for edit in array_edits(arrays):
        path.write_bytes(pickle.dumps(edit.tree, protocol))
        found.judge(Change(edit.name, edit.value, path, partial(oracle, edit.tree)))
    found.finish(["list", *(f"array {k}" for k in range(len(arrays)))])
