"""How the errors of limits end."""

from __future__ import annotations


def raising(*names: str) -> str:
    """What an error about the limits `names` says last."""
    flags = " ".join(f"--limit {name}=N" for name in names)
    arguments = ", ".join(f"{name}=N" for name in names)
    return f". Raise it with {flags} (limits=Limits({arguments}) in Python) if you trust the file"
