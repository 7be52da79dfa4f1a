"""What a test does where a tool is missing: skip on a developer's machine, fail in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")


def missing(what: str, install: str) -> NoReturn:
    """Skip on a developer's machine, fail in CI."""
    reason = f"{what} is not installed ({install})"
    if IN_CI:
        pytest.fail(f"{reason}; CI installs everything it tests", pytrace=False)
    pytest.skip(reason)
