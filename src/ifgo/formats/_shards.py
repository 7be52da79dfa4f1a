"""Models that were saved in several files: one file of them is no model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ifgo.errors import UnsupportedError

_NUMBERED: Final = re.compile(r"-(\d{1,6})-of-(\d{1,6})(?=\.[^.]*$)")
_JOIN: Final = "Join them first: load each file, and save the union of their tensors as one"


def refuse_shard(path: Path) -> None:
    """Raises UnsupportedError where the name of `path` says that it is one file of several, as
    model-00001-of-00002.safetensors: a layer or a direction of one LSTM may lie in another."""
    found = _NUMBERED.search(path.name)
    if found and int(found[2]) > 1:
        raise UnsupportedError(
            f"is file {int(found[1])} of {int(found[2])} of one model, by its name",
            expected="all tensors in one file: modules may go on in the next",
            hint=_JOIN,
        )


def refuse_index(tree: object) -> None:
    """Raises UnsupportedError where a JSON object is the index of such files."""
    if isinstance(tree, dict) and "weight_map" in tree:
        raise UnsupportedError(
            "is an index (weight_map) of the files of one model, without tensors",
            expected="all tensors in one file",
            hint=_JOIN,
        )
