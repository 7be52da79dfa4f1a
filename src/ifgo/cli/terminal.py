"""What reaches the terminal: data on stdout, narration on stderr, no text of a file unescaped."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, cast

import click

from ifgo.errors import IfgoError, ToolError
from ifgo.text import escape as escape

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)


def say(text: str = "") -> None:
    """Data: `text` on stdout. Names from files are escaped by the caller."""
    click.echo(text)


def tell(text: str) -> None:
    """Narration: `text` on stderr. Names from files are escaped by the caller."""
    click.echo(text, err=True)


def emit(tree: Mapping[str, Any]) -> None:
    """The one JSON object of a verb, on stdout; ASCII, so no terminal acts on it."""
    click.echo(json.dumps(_finite(tree), indent=2, allow_nan=False))


def _finite(tree: Any) -> Any:
    """`tree` with null for numbers that JSON does not have."""
    if isinstance(tree, Mapping):
        return {key: _finite(value) for key, value in cast("Mapping[str, Any]", tree).items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in cast("list[Any]", tree)]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def paint(text: str, colour: str) -> str:
    """`text` in a colour where a terminal shows it; plain where NO_COLOR is set (no-color.org)."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour)


def complain(error: IfgoError) -> None:
    """One error on stderr."""
    # Only what a tool said spans lines, indented so that none of them looks like ours.
    lines = str(error).splitlines() if isinstance(error, ToolError) else [str(error)]
    tell(f"{paint('ifgo:', 'red')} " + "\n  ".join(escape(line) for line in lines))


def error_facts(error: IfgoError) -> dict[str, Any]:
    """What --json says under "error"."""
    facts: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    parts = ("where", "what", "expected", "hint", "exit_code")
    return facts | {part: getattr(error, part) for part in parts}
