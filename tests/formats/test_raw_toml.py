"""model.toml: what it decides, and everything in it that is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from bounds import within_bounds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raising import raising
from raw_cases import SHEET, chain, dense_files, described, fill, refused, same, weights

from ifgo import limits
from ifgo.errors import FormatError, IfgoError, ModelError, UnsupportedError, UsageError
from ifgo.formats import raw
from ifgo.model import Dense


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return described(tmp_path)


def test_the_sheet_decides(folder: Path) -> None:
    model = raw.read(folder, layout="A", stack="stacked")
    assert [layer.name for layer in model.layers] == ["lstm", "drop", "head"]
    assert model.provenance.notes == ()


def test_options_that_contradict_the_sheet(folder: Path) -> None:
    assert refused(folder, UsageError, layout="B") == (
        "option layout is 'B', but model.toml says 'A', expected no option layout, or the same"
    )
    assert refused(folder, UsageError, stack="hidden-as-sequence") == (
        "option stack is 'hidden-as-sequence', but model.toml says 'stacked', expected no option "
        "stack, or the same"
    )


KINDS = (
    "one of 'lstm', 'dense', 'activation', 'dropout', 'last_step', 'hidden_as_sequence', "
    "'repeat_vector', 'flatten'"
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'layout = "A"',
            'layot = "A"',
            "model.toml: unknown key 'layot', expected one of version, layout, encoding, input, "
            "layer, output. Did you mean 'layout'?",
        ),
        (
            "activation =",
            "activaton =",
            "model.toml: unknown key 'layer[2].activaton', expected one of kind, name, activation, "
            "alpha, beta. Did you mean 'activation'?",
        ),
        (
            "rate = 0.5",
            "rate = 0.5\nof = 'state'",
            "model.toml: unknown key 'layer[1].of', expected one of kind, name, rate. Did you mean "
            "'rate'?",
        ),
        (
            'axes = "BT"\n\n[[layer]]',
            'axes = "BT"\nsise = 3\n\n[[layer]]',
            "model.toml: unknown key 'input.sise', expected one of name, size, axes. Did you mean "
            "'size'?",
        ),
        ('layout = "A"\n', "", "model.toml: layout is missing, expected one of 'A', 'B'"),
        ('layout = "A"', "layout = 1", "model.toml: layout is '1', expected one of 'A', 'B'"),
        ('layout = "A"', 'layout = "C"', "model.toml: layout is 'C', expected one of 'A', 'B'"),
        ("version = 1", "version = 0", "model.toml: version is 0, expected 1"),
        (
            "version = 1",
            "version = true",
            "model.toml: version is 'True', expected a whole number",
        ),
        ("size = 3", "size = 3.0", "model.toml: input.size is '3.0', expected a whole number"),
        ('name = "drop"', "name = 1", "model.toml: layer[1].name is '1', expected a string"),
        ("rate = 0.5", "rate = '0'", "model.toml: layer[1].rate is '0', expected a number"),
        (
            "rate = 0.5",
            "rate = 1" + "0" * 400,
            f"model.toml: layer[1].rate is '1{'0' * 59}...', expected a number",
        ),
        (
            'kind = "dense"',
            'kind = "Dense"',
            f"model.toml: layer[2].kind is 'Dense', expected {KINDS}",
        ),
        ('kind = "lstm"\n', "", f"model.toml: layer[0].kind is missing, expected {KINDS}"),
        (
            'kind = "lstm"',
            'kind = "lstm"\nbiases = ["bias"]',
            "model.toml: layer[0].biases holds 'bias', expected one of 'bias_ih', 'bias_hh'",
        ),
        (
            'kind = "lstm"',
            'kind = "lstm"\nbiases = ["bias_hh", "bias_ih"]',
            "model.toml: layer[0].biases is ['bias_hh', 'bias_ih'], expected each name once, in "
            "the order 'bias_ih', 'bias_hh'",
        ),
        (
            'role = "sequence"',
            'role = "h_n"\nlayers = [1]',
            "model.toml: output[0].layers holds '1', expected strings",
        ),
        (
            "[[output]]",
            "[output]",
            "model.toml: output is \"{'role': 'sequence', 'name': 'y', 'axes': 'BT'}\", expected "
            "[[output]] tables",
        ),
        ("[[layer]]", "[[layer", "model.toml is no TOML (Expected ']]' at the end of an array "),
        (
            'layout = "A"',
            "layout = 0x1" + "0" * 5000,
            "model.toml: layout is 'a huge number', expected one of 'A', 'B'",
        ),
        (
            "version = 1",
            "v" * 100_000 + " = 1\nversion = 1",
            f"model.toml: unknown key '{'v' * 60}...', expected one of version, layout, encoding, "
            "input, layer, output. Did you mean 'version'?",
        ),
        (
            "version = 1",
            'version = 1\na.b. c . \'d\'.e."\\"".g.h.i = 1',
            "model.toml line 2 holds 'a.b. c . \\'d\\'.e.\"\\\\\"\".g.h.', expected keys of at "
            "most 8 parts. In a string, write each dot as \\u002E" + raising("toml_depth"),
        ),
        ("version = 1", "x = " + "[" * 5000, "model.toml is no TOML ("),
        ("version = 1", "version = 1\nversion = 1", "model.toml is no TOML (Cannot overwrite"),
    ],
)
def test_sheets_that_are_wrong_are_refused(folder: Path, old: str, new: str, message: str) -> None:
    assert old in SHEET
    fill(folder, {"model.toml": SHEET.replace(old, new, 1)})
    said = refused(folder)
    assert said == message or (said.startswith(message) and message[-1] in "(e ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "rate = 0.5",
            "rate = 2",
            "model.toml: layer[1]: layer drop: dropout rate is 2.0, expected a rate in [0, 1)",
        ),
        (
            'activation = "tanh"',
            'activation = "tanh"\nalpha = 1.0',
            "model.toml: layer[2]: activation tanh has alpha=1.0, expected no alpha, "
            "tanh takes none",
        ),
        ("size = 3", "size = 4", "layer lstm: receives 4 features, expected 3"),
        (
            'role = "sequence"',
            'role = "last"',
            "output 'y' has role 'last', expected 'sequence', the chain ends in a sequence",
        ),
    ],
)
def test_sheets_of_no_model_are_refused(folder: Path, old: str, new: str, message: str) -> None:
    fill(folder, {"model.toml": SHEET.replace(old, new, 1)})
    assert refused(folder, ModelError) == message


def test_a_newer_sheet_is_refused(folder: Path) -> None:
    fill(folder, {"model.toml": SHEET.replace("version = 1", "version = 2\nnew = 1")})
    assert refused(folder, UnsupportedError) == (
        "model.toml has version 2, expected version 1, all that this ifgo reads. "
        "Install a newer ifgo"
    )


def test_a_sheet_that_is_no_text_is_refused(folder: Path) -> None:
    fill(folder, {"model.toml": b"a\xff"})
    assert refused(folder) == "model.toml is no text: byte 1 is 0xff, expected UTF-8"
    fill(folder, {"model.toml": b"#" * (limits.DEFAULTS.toml_bytes + 1)})
    assert refused_path(folder / "model.toml") == (
        f"has {SIZE + 1} bytes, expected at most {SIZE} bytes" + raising("toml_bytes")
    )


def three(number: int) -> str:
    """A key of three letters, another for each number."""
    return "".join(chr(97 + number // 26**place % 26) for place in range(3))


SIZE = limits.DEFAULTS.toml_bytes


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * (SIZE // 2 - 2)) + "=1",
        "".join(f"[{three(k)}.a.a.a.a.a.a.a]\n" for k in range(SIZE // 20)),
        "".join(f"{three(k)}.a.a.a.a.a.a.a=1\n" for k in range(SIZE // 20)),
        "".join(f"[{three(k)}.a]\n" for k in range(SIZE // 8)),
        "".join(f"[{three(k)}]\n" for k in range(SIZE // 6)),
        "\n".join(f"{three(k)}=" + "{a=" * 150 + "1" + "}" * 150 for k in range(SIZE // 610)),
        "x = [" + "{}," * (SIZE // 3 - 5) + "]",
        "x = " + "[" * (SIZE - 10),
        "a" * SIZE,
        '"' * SIZE,
        '"\\"' * (SIZE // 3),
        '"a".' * (SIZE // 4),
    ],
    ids=lambda text: text[:12].replace("\n", " "),
)
def test_no_sheet_costs_much(folder: Path, text: str) -> None:
    assert len(text) <= SIZE
    fill(folder, {"model.toml": text})
    within_bounds(lambda: raw.read(folder), len(text))


def test_names_of_many_dots(tmp_path: Path) -> None:
    model = chain(
        Dense("a.b.c.d.e.f.g.h.i", weights(1, 3)), Dense("a.b.c.d.e.f.g.h", weights(1, 1))
    )
    raw.write(model, tmp_path / "n")
    text = (tmp_path / "n" / "model.toml").read_text()
    assert r'name = "a\u002Eb\u002Ec\u002Ed\u002Ee\u002Ef\u002Eg\u002Eh\u002Ei"' in text
    assert 'name = "a.b.c.d.e.f.g.h"' in text
    same(raw.read(tmp_path / "n"), model)


def test_a_sheet_that_could_not_be_read_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(toml_bytes=200))
    with pytest.raises(UnsupportedError) as caught:
        raw.write(chain(Dense("d" * 100, weights(1, 3))), tmp_path / "n")
    assert str(caught.value) == (
        f"{tmp_path / 'n'}: model.toml would have 437 bytes, expected at most 200. "
        "Give the layers shorter names, or write an .ifgo file"
    )
    assert list(tmp_path.iterdir()) == []


def refused_path(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        raw.read(path.parent)
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_sheet_of_other_layers_is_refused(folder: Path) -> None:
    fill(folder, dense_files(3, 1, 1))
    assert refused(folder) == (
        "has tensors of 3 layers, but model.toml describes 2, expected one lstm or dense in "
        "model.toml per layer number"
    )


def test_a_sheet_of_other_kinds_is_refused(folder: Path) -> None:
    dense = 'kind = "dense"\nname = "head"\nactivation = "tanh"'
    fill(folder, {"model.toml": SHEET.replace(dense, 'kind = "lstm"\nname = "head"')})
    assert refused(folder) == (
        "layer 2 has no tensor_R_2_1, but model.toml says lstm, expected R for an lstm, none for a "
        "dense layer"
    )
    other = SHEET.replace('kind = "lstm"', 'kind = "dense"\nactivation = "tanh"')
    fill(folder, {"model.toml": other})
    assert refused(folder) == (
        "layer 1 has tensor_R_1_2, but model.toml says dense, expected R for an lstm, none for a "
        "dense layer"
    )


def test_a_sheet_of_another_encoding_is_refused(folder: Path) -> None:
    fill(folder, {"model.toml": SHEET.replace('"bin"', '"txt"')})
    assert refused(folder) == (
        "tensor_B_1_2.txt is missing, but model.toml says encoding 'txt', expected it beside "
        "tensor_B_1_2.bin"
    )


def test_biases_that_the_sheet_denies(folder: Path) -> None:
    def sheet(biases: str) -> None:
        changed = SHEET.replace('kind = "lstm"', f'kind = "lstm"\nbiases = {biases}')
        fill(folder, {"model.toml": changed})

    sheet('["bias_ih"]')
    assert refused(folder) == (
        "tensor_B_1_2.bin holds a bias_hh other than 0, but model.toml says the layer has none, "
        "expected zeros"
    )
    fill(folder, {"tensor_B_1_2.bin": weights(8)})
    sheet('["bias_ih", "bias_hh"]')
    assert refused(folder) == (
        "tensor_B_1_2.bin has 8 values, but model.toml says two biases, expected 16 = 8·2"
    )
    sheet('["bias_hh"]')
    found = raw.read(folder).recurrent[0].cell
    assert found.bias_ih is None
    assert found.bias_hh is not None
    (folder / "tensor_B_1_2.bin").unlink()
    assert refused(folder) == (
        "tensor_B_1_2 is missing, but model.toml says biases bias_hh, expected the file, or "
        "biases = []"
    )
    sheet("[]")
    assert raw.read(folder).recurrent[0].cell.bias_ih is None


def test_negative_zero_is_a_bias(folder: Path) -> None:
    changed = SHEET.replace('kind = "lstm"', 'kind = "lstm"\nbiases = []')
    fill(folder, {"model.toml": changed, "tensor_B_1_2.bin": np.full(16, -0.0)})
    assert refused(folder).startswith("tensor_B_1_2.bin holds a bias_ih other than 0")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_sheets_raise_only_our_errors(folder: Path, data: st.DataObject) -> None:
    text = SHEET.encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    junk = st.binary(max_size=4) | st.text("[]{}=\"\n.#'0123456789einfatrulsb-_", max_size=8).map(
        str.encode
    )
    fill(folder, {"model.toml": text[:start] + data.draw(junk) + text[end:]})
    with contextlib.suppress(IfgoError):
        raw.read(folder)
