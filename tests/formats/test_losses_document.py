"""FORMATS.md lists what `allow_lossy` may name."""

from __future__ import annotations

from pathlib import Path

from ifgo.formats import LOSSES

PAGE = Path(__file__).parents[2] / "FORMATS.md"


def test_every_loss_is_documented():
    page = PAGE.read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `")][: len(LOSSES)] == [
        f"| `{name}` | {meaning} |" for name, meaning in LOSSES.items()
    ]
