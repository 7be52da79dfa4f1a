"""The compiled engine: the Python face of native/.

Session runs batches of sequences, Stream one step per call; LSTM is called and trained on arrays.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ifgo.engine.lstm import LSTM
    from ifgo.engine.session import Session
    from ifgo.engine.stream import Stream

_PUBLIC = {
    "LSTM": "ifgo.engine.lstm",
    "Session": "ifgo.engine.session",
    "Stream": "ifgo.engine.stream",
}

__all__ = ["LSTM", "Session", "Stream"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ifgo.engine' has no attribute {name!r}")
