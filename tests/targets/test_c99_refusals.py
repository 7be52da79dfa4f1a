"""What the C99 target and `deploy` refuse, word for word, and what never reaches the source."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from c99_cases import STREAM, WHOLE, cell, draw, write

from ifgo.cli.compiling import compile_main
from ifgo.deployment import deploy
from ifgo.errors import ToolError, UnsupportedError, UsageError
from ifgo.model import (
    FeatureInput,
    InitialState,
    Model,
    Recurrent,
    Scale,
    StateInput,
    StateSlot,
)
from ifgo.targets import c99


@pytest.mark.parametrize("name", ["", "1a", "A", "a-b", "a b", "x" * 33, "ifgo", "a\n", "é"])
def test_bad_prefix(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        c99.emit(STREAM, name=name)
    assert str(caught.value) == (
        f"{name!r} cannot prefix C symbols, expected 1 to 32 characters of a-z, 0-9 and _, "
        "a letter first, and not 'ifgo'"
    )


def test_keywords_may_prefix(cc: str, tmp_path: Path) -> None:
    write(STREAM, tmp_path, name="int")
    subprocess.run([cc, "-std=c99", "-c", "model.c"], cwd=tmp_path, check=True)


def test_a_whole_sequence_model_asks_for_max_steps() -> None:
    with pytest.raises(UsageError) as caught:
        c99.emit(WHOLE)
    assert str(caught.value) == (
        "the model needs whole sequences (layer a: its backward direction starts at the last "
        "step), so its memory depends on their length. Give the longest one: --max-steps N "
        "(max_steps= in Python)"
    )


def test_max_steps_out_of_range() -> None:
    with pytest.raises(UsageError) as caught:
        c99.emit(WHOLE, max_steps=0)
    assert str(caught.value) == "max_steps is 0, expected 1 to 10000000"


def test_weight_files_refuse_what_raw_tensors_cannot_hold() -> None:
    model = Model(
        (FeatureInput(3),),
        (
            Scale("s", draw(3), draw(3)),
            Recurrent("a", cell(3, 5, peephole=draw(3, 5), forget_bias=1.0)),
            Recurrent("b", None, cell(5, 4)),
        ),
    )
    with pytest.raises(UnsupportedError) as caught:
        c99.emit(model, weights="files", max_steps=3)
    assert str(caught.value) == (
        "raw weight files cannot hold the model: layer s is a scale; layer a has peephole; "
        "layer a has a run-time forget bias; layer b runs backwards. Use --weights embedded"
    )


def test_unknown_weights_mode() -> None:
    with pytest.raises(UsageError) as caught:
        c99.emit(STREAM, weights="flash")  # type: ignore[arg-type]
    assert str(caught.value) == "weights is 'flash', expected embedded or files"


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ToolError) as caught:
        c99.find_compiler()
    assert str(caught.value) == (
        "no C compiler found (cc, gcc, clang). Install one: apt install gcc (Debian, Ubuntu), "
        "dnf install gcc (Fedora), xcode-select --install (macOS)"
    )
    monkeypatch.setenv("CC", "tcc")
    with pytest.raises(ToolError, match=r"^no C compiler found \(tcc from \$CC\)\. Install"):
        c99.find_compiler()


def test_the_words_of_cc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cc: str) -> None:
    """A wrapper and its compiler, as with ccache; options go along."""
    wrapper = tmp_path / "wrap"
    wrapper.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CC", f"'{wrapper}' {cc} -DX")
    assert c99.find_compiler() == (str(wrapper), cc, "-DX")
    STREAM.run(np.zeros((3, STREAM.input_size), np.float32), on="c99")
    assert (tmp_path / "called").read_text().startswith(f"{cc} -DX -std=c99 -O2 ")
    monkeypatch.setenv("CC", "'gcc")
    with pytest.raises(ToolError) as caught:
        c99.find_compiler()
    assert str(caught.value) == (
        '$CC is "\'gcc", which is no command (No closing quotation). Name one: CC=gcc'
    )


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\n", "says that it compiled the emitted C, and made nothing. Name a compiler"),
        ("#!/bin/sh\nexit 1\n", "does not compile the emitted C. Name another compiler"),
    ],
)
def test_a_compiler_that_makes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, message: str
) -> None:
    path = tmp_path / "cc"
    path.write_text(script)
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    with pytest.raises(ToolError) as caught:
        STREAM.run(np.zeros((3, STREAM.input_size), np.float32), on="c99")
    assert str(caught.value) == f"{path} {message}: CC=gcc"
    deploy(STREAM, tmp_path / "out", main=True)
    with pytest.raises(ToolError) as caught:
        compile_main(tmp_path / "out")
    assert str(caught.value) == f"{path} {message}: CC=gcc"
    assert not (tmp_path / "out" / "main").exists()


def test_unknown_target(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        deploy(STREAM, tmp_path / "o", target="vhdl")
    assert str(caught.value) == "unknown target 'vhdl', expected one of c99, cortex_m"
    assert not (tmp_path / "o").exists()


def test_deploy_leaves_nothing_behind_where_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        deploy(WHOLE, tmp_path / "o")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "f").write_text("kept")
    with pytest.raises(UsageError) as caught:
        deploy(STREAM, tmp_path / "f")
    assert str(caught.value) == f"{tmp_path / 'f'}: is a file, expected a folder, or a new name"
    assert (tmp_path / "f").read_text() == "kept"


def test_no_name_of_the_model_reaches_the_source() -> None:
    hostile = 'x"*/ #error \\ %s'
    model = Model((FeatureInput(3, name=hostile),), (Recurrent(hostile, cell(3, 5)),))
    plain = Model((FeatureInput(3),), (Recurrent("a", model.recurrent[0].cell),))
    assert c99.emit(model, main=True).files == c99.emit(plain, main=True).files


@pytest.mark.parametrize("target", ["c99", "cortex_m"])
def test_unknown_variant(target: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        deploy(STREAM, tmp_path / "o", target=target, board="mps2-an386", variant="fast")
    assert str(caught.value) == "unknown variant 'fast', expected exact or contracted"
    with pytest.raises(UsageError) as caught:
        c99.emit(STREAM, variant="fast")  # type: ignore[arg-type]
    assert str(caught.value) == "unknown variant 'fast', expected exact or contracted"


def test_the_header_says_how_states_that_are_inputs_are_given() -> None:
    """And the program does what it says: zero until model_set_state."""
    slots = (StateSlot("a", "h"), StateSlot("a", "c"))
    given = Model(
        (FeatureInput(2), *(StateInput(f"{slot.part}0", (slot,)) for slot in slots)),
        (Recurrent("a", cell(2, 3), initial=InitialState("input")),),
    )
    said = " * model_set_state, called after this, gives them. */\nint model_reset("
    assert said in c99.emit(given).files["model.h"]
    assert "model_set_state, called" not in c99.emit(STREAM).files["model.h"]
