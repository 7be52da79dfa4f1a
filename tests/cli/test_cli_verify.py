"""`ifgo verify`: the table, the verdict as exit code, the choice of runtimes."""

from __future__ import annotations

import numpy as np
import pytest

from ifgo import ToolError, verification
from ifgo.verification import Finding, Verification


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")


def test_seeded_input_and_c99(ifgo, cc, model, model_file):
    done = ifgo("verify", model_file)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{verification.verify(model)}\n"
    assert done.out.endswith("\nPASS: 2 sequence(s) of 32 steps\n")


def test_data_and_states(ifgo, model, model_file, x, tmp_path):
    both = tmp_path / "both.npz"
    values = np.load(x)
    state = model.run(values, on="exact")[1]
    np.savez(both, x=values, **state)
    done = ifgo("verify", model_file, "--input", both, "--against", "c99", "--json")
    assert done.code == 0
    want = verification.verify(model, values, state=state).to_dict()
    assert done.json == {"model": str(model_file), "input": str(both), **want}
    assert want != verification.verify(model, values).to_dict()


def test_several_runtimes(ifgo, cc, model_file):
    done = ifgo("verify", model_file, "--on", "c99, onnxruntime", "--json")
    assert done.code == 0
    assert {row["runtime"] for row in done.json["findings"]} == {"exact", "c99", "onnxruntime"}


def test_a_difference_is_exit_code_1(ifgo, model_file, monkeypatch):
    bad = Finding("c99", "exact", "lstm0", "EXACT", False, float("inf"), 0.0, "h", 3, 1)
    monkeypatch.setattr(verification, "verify", lambda *_, **__: Verification(1, 4, (bad,)))
    done = ifgo("verify", model_file, "--against", "c99")
    assert (done.code, done.err) == (1, "")
    assert "DIFFERS" in done.out
    assert done.out.endswith("\nFAIL: 1 sequence(s) of 4 steps\n")
    done = ifgo("verify", model_file, "--against", "c99", "--json")
    assert done.code == 1
    assert done.json["ok"] is False
    assert done.json["findings"][0]["difference"] is None
    assert done.json["findings"][0]["verdict"] == "DIFFERS"


def test_without_a_compiler_exact_alone_is_checked(ifgo, no_compiler, model_file):
    done = ifgo("verify", model_file, "--json")
    assert done.code == 0
    assert {row["runtime"] for row in done.json["findings"]} == {"exact"}
    assert done.err.startswith(
        "c99 is left out: no C compiler found (no-such-compiler from $CC). Install one: "
    )


def test_a_missing_runtime_that_was_asked_for(ifgo, no_compiler, model_file):
    done = ifgo("verify", model_file, "--against", "c99")
    assert (done.code, done.out) == (3, "")
    assert done.error.startswith("no C compiler found (no-such-compiler from $CC). Install one: ")


@pytest.mark.parametrize("runtime", ["tensorflow", ""])
def test_unknown_runtime(ifgo, model_file, runtime):
    done = ifgo("verify", model_file, "--against", runtime)
    assert (done.code, done.error) == (
        2,
        f"unknown runtime '{runtime}', expected one of engine, c99, c99:contracted, onnxruntime, "
        "torch, qemu:BOARD, qemu:BOARD:contracted",
    )


def test_lengths(ifgo, model_file, x, tmp_path):
    both = tmp_path / "both.npz"
    np.savez(both, x=np.load(x), lengths=np.array([1, 2, 3]))
    done = ifgo("verify", model_file, "--input", both, "--json")
    assert done.code == 0
    compared = {(f["runtime"], f["judge"]) for f in done.json["findings"]}
    assert compared >= {("exact", "truth"), ("exact", "exact"), ("c99", "exact")}
    again = ifgo("verify", model_file, "--input", x, "--lengths", "1, 2,3", "--json")
    assert again.json["findings"] == done.json["findings"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--lengths", "5,x"],
            "--lengths is '5,x', expected whole numbers with commas, such as 5,3",
        ),
        (
            ["--lengths", "5,3", "--against", "torch"],
            "torch with lengths, expected c99, which alone is compared with lengths. Leave the "
            "lengths out, or compare each length by itself",
        ),
    ],
)
def test_lengths_that_do_not_do(ifgo, model_file, options, message):
    done = ifgo("verify", model_file, *options)
    assert (done.code, done.error) == (2, message)


def test_lengths_twice(ifgo, model_file, x, tmp_path):
    both = tmp_path / "both.npz"
    np.savez(both, x=np.load(x), lengths=np.array([1, 2, 3]))
    done = ifgo("verify", model_file, "--input", both, "--lengths", "1,2,3")
    assert (done.code, done.error) == (
        2,
        f"{both}: gives lengths, and so does --lengths, expected them once",
    )


def test_onnxruntime_is_not_installed(ifgo, model_file, monkeypatch):
    def against_truth(*_: object) -> None:
        raise ToolError("onnxruntime is not installed", hint="Install it")

    monkeypatch.setattr("ifgo.verification.onnx_runtime.against_truth", against_truth)
    done = ifgo("verify", model_file, "--against", "onnxruntime", "--json")
    assert (done.code, done.error) == (3, "onnxruntime is not installed. Install it")
    assert done.json["error"]["exit_code"] == 3


def test_the_page_cannot_replace_the_model(ifgo, model_file):
    before = model_file.read_bytes()
    done = ifgo("verify", model_file, "--html", model_file)
    assert (done.code, done.out) == (2, "")
    assert done.error.endswith("expected .html")
    assert model_file.read_bytes() == before
