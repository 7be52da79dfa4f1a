"""The contracted variant: every case within the bounds of truth, fused and not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance_cases import CASES, Case, Draw
from test_conformance import inputs, start_of

from ifgo.errors import UnsupportedError
from ifgo.model import Activation, FeatureInput, LSTMCell, Model, Recurrent
from ifgo.targets import c99
from ifgo.verification import bounds, compare, verify

FLAGS = ("-std=c99", "-O3", "-march=native", *c99.STRICT_FLAGS)

HAS_FMA = "fma" in Path("/proc/cpuinfo").read_text()

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
needs_fma = pytest.mark.skipif(not HAS_FMA, reason="this CPU has no fused multiply-add")


def assert_within(findings: list[Any]) -> None:
    assert [finding for finding in findings if not finding.holds] == []
    assert all(finding.compared for finding in findings)


@by_name
def test_every_layer_lies_within_its_local_bound_of_truth(
    case: Case, compiler: str, tmp_path: Path
) -> None:
    model = case.make(Draw(4))
    built = c99.build(
        model,
        tmp_path,
        compiler=compiler,
        flags=FLAGS,
        max_steps=9,
        trace=True,
        variant="contracted",
    )
    for label, x in inputs(case, model):
        if label != "zero tail":
            _, _, traces = built.run(x, start_of(model, x.shape[0]))
            findings = compare.traced_against_truth(
                model, traces, "c99:contracted", bounds.CONTRACTED
            )
            assert_within(findings)
            assert {finding.layer.split()[0] for finding in findings} >= set(traces)


@by_name
def test_its_selftest_passes_fused_and_not(case: Case, compiler: str, tmp_path: Path) -> None:
    """Not fused is the exact variant's arithmetic, which a contracted build may have too."""
    for name, text in c99.emit(case.make(Draw(4)), max_steps=9, variant="contracted").files.items():
        (tmp_path / name).write_text(text)
    body = """#include "model.h"
int main(void) { static model_state s; return model_init(&s) * 16 + model_selftest(&s); }
"""
    (tmp_path / "t.c").write_text(body)
    for flags in (FLAGS, ("-std=c99", "-O1")):
        command = [compiler, *flags, "-DIFGO_SELFTEST", "t.c", "model.c", "-o", "t"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert subprocess.run([tmp_path / "t"], check=False).returncode == 0


@needs_fma
def test_contracted_fuses_and_exact_does_not(compiler: str, tmp_path: Path) -> None:
    model = CASES[0].make(Draw(4))
    fused: dict[str, int] = {}
    for variant in ("exact", "contracted"):
        for name, text in c99.emit(model, variant=variant).files.items():
            (tmp_path / name).write_text(text)
        command = [compiler, "-std=c99", "-O2", "-mfma", "-S", "model.c", "-o", "-"]
        text = subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout
        fused[variant] = text.count("vfmadd") + text.count("vfnmadd")
    assert fused["exact"] == 0
    assert fused["contracted"] > 20


@pytest.mark.parametrize("variant", ["exact", "contracted"])
def test_only_exact_minds_a_compiler_that_fuses(variant: Any, tmp_path: Path) -> None:
    """-ffp-contract=fast wins over every pragma in clang alone."""
    import shutil

    from presence import missing

    if shutil.which("clang") is None:
        missing("clang", "apt install clang")
    if not HAS_FMA:
        pytest.skip("this CPU has no fused multiply-add")
    for name, text in c99.emit(CASES[0].make(Draw(4)), variant=variant).files.items():
        (tmp_path / name).write_text(text)
    body = '#include "model.h"\nint main(void) { static model_state s; return model_init(&s); }\n'
    (tmp_path / "t.c").write_text(body)
    command = ["clang", "-O2", "-mfma", "-ffp-contract=fast", "t.c", "model.c", "-o", "t"]
    subprocess.run(command, cwd=tmp_path, check=True)
    status = subprocess.run([tmp_path / "t"], check=False).returncode
    assert status == {"exact": 7, "contracted": 0}[variant]


def test_a_selftest_notices_a_changed_weight(compiler: str, tmp_path: Path) -> None:
    """1 % of one weight is far outside the bound, as a wrong gate order or layout would be."""
    model = CASES[0].make(Draw(4))
    emitted = c99.emit(model, variant="contracted")
    source = emitted.files["model.c"]
    weights = source[source.index("w0[") :]
    first = weights[weights.index("{") + 1 : weights.index(",")].strip()
    changed = f"{float(first.rstrip('f')) * 1.01:.9g}f"
    (tmp_path / "model.h").write_text(emitted.files["model.h"])
    (tmp_path / "model.c").write_text(source.replace(first + ",", changed + ",", 1))
    body = "static model_state s; int main(void) { return model_selftest(&s); }"
    (tmp_path / "t.c").write_text(f'#include "model.h"\n{body}\n')
    command = [compiler, "-std=c99", "-DIFGO_SELFTEST", "t.c", "model.c", "-o", "t"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "t"], check=False).returncode == 6


def test_verify_takes_it_and_notices_what_is_out_of_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = CASES[0].make(Draw(4))
    found = verify(model, against=("c99:contracted",))
    assert found.ok
    ours = [finding for finding in found.findings if finding.runtime == "c99:contracted"]
    assert [finding.basis for finding in ours] == ["local bound", "global bound"]
    other = CASES[0].make(Draw(5))
    build = c99.build
    monkeypatch.setattr(c99, "build", lambda _, *args, **options: build(other, *args, **options))
    assert not verify(model, against=("c99:contracted",)).ok


def test_run_computes_on_it() -> None:
    model = CASES[0].make(Draw(4))
    x = np.random.default_rng(3).normal(size=(2, 5, 3)).astype(np.float32)
    exact, _ = model.run(x, on="exact")
    y, _ = model.run(x, on="c99:contracted")
    assert 0 <= np.abs(y - exact).max() < 1e-5


def test_no_bound_no_contracted_variant() -> None:
    """Weights whose sums leave float32 on the input of the self-test."""
    huge = np.full((8, 3), 3e38, np.float32)
    cell = LSTMCell(huge, np.zeros((8, 2), np.float32), activations=(Activation("relu"),) * 3)
    model = Model((FeatureInput(3),), (Recurrent("l", cell),))
    with pytest.raises(UnsupportedError) as caught:
        c99.emit(model, variant="contracted")
    assert str(caught.value) == (
        "the network may overflow float32 on the input of the self-test, so a contracted build has "
        "no bound to be judged by. Deploy the exact variant"
    )
