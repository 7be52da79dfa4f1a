"""Every format has its test of one attribute at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifgo.formats import FORMATS

HERE = Path(__file__).parent

ELSEWHERE = {
    "native": ("test_native_damage", "test_every_flipped_bit_is_refused"),
    "raw": ("test_raw_toml", "test_mutated_sheets_raise_only_our_errors"),
}
"""Format → module and test, where it is not in test_attributes_NAME.py. An .ifgo file has a
checksum, so any change of it is refused."""


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_one(name: str) -> None:
    module, test = ELSEWHERE.get(name, (f"test_attributes_{name}", "test_every_"))
    text = (HERE / f"{module}.py").read_text()
    assert f"def {test}" in text
    if name not in ELSEWHERE:
        assert "found.judge(" in text
        assert "found.finish(" in text


@pytest.mark.parametrize(("module", "test"), ELSEWHERE.values())
def test_no_other_stands_beside_it(module: str, test: str) -> None:
    """A table of exceptions that holds no format with a module of its own."""
    (name,) = (key for key, value in ELSEWHERE.items() if value == (module, test))
    assert name in FORMATS
    assert not (HERE / f"test_attributes_{name}.py").exists()
