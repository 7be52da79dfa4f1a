"""ifgo takes a trained LSTM to where it must run, and proves that nothing changed on the way."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ifgo.backends import run
    from ifgo.deployment import deploy
    from ifgo.engine.lstm import LSTM
    from ifgo.errors import (
        FormatError,
        IfgoError,
        ModelError,
        ToolError,
        UnsupportedError,
        UsageError,
    )
    from ifgo.formats import load, save
    from ifgo.limits import Limits
    from ifgo.model import LSTMCell, Model
    from ifgo.verification import verify

__version__ = "0.1.0"

_PUBLIC = {
    "LSTM": "ifgo.engine.lstm",
    "FormatError": "ifgo.errors",
    "IfgoError": "ifgo.errors",
    "LSTMCell": "ifgo.model",
    "Limits": "ifgo.limits",
    "Model": "ifgo.model",
    "ModelError": "ifgo.errors",
    "ToolError": "ifgo.errors",
    "UnsupportedError": "ifgo.errors",
    "UsageError": "ifgo.errors",
    "deploy": "ifgo.deployment",
    "load": "ifgo.formats",
    "run": "ifgo.backends",
    "save": "ifgo.formats",
    "verify": "ifgo.verification",
}

__all__ = [
    "LSTM",
    "FormatError",
    "IfgoError",
    "LSTMCell",
    "Limits",
    "Model",
    "ModelError",
    "ToolError",
    "UnsupportedError",
    "UsageError",
    "deploy",
    "load",
    "run",
    "save",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ifgo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
