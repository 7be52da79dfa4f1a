"""The benchmarks run and say what they compare. Their timings are nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("native")
def test_a_section_runs(tmp_path):
    report = tmp_path / "timings.json"
    peers = [f"--without={name}" for name in ("torch", "onnxruntime", "openvino", "jax")]
    command = [sys.executable, "-m", "benchmarks", "stacked", "--seconds=0.01", *peers]
    done = subprocess.run(
        [*command, f"--json={report}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Not compared: torch, onnxruntime, openvino, jax" in done.stdout
    found = json.loads(report.read_text())
    (row,) = found["rows"]
    assert row["work"] == "1→16→16→16→1, 128 samples"
    assert 0 < row["floor"] < row["seconds"]["ifgo"]["least"] <= row["seconds"]["ifgo"]["median"]
    assert found["machine"]["flops"] > 1e9


def test_contenders_take_turns(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.timing import interleaved

    seen: list[str] = []
    names = ("a", "b")
    found = interleaved({n: lambda n=n: seen.append(n) for n in names}, unit=2, seconds=0.0)
    assert seen == ["a", "b"] * 8  # one round to warm up, seven timed
    assert all(0 <= timing.least <= timing.median for timing in found.values())
