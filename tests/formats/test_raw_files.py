"""Tensor files: their decimals, their names, and their counts."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import within_bounds
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raising import raising
from raw_cases import (
    cell,
    chain,
    fill,
    kinds,
    lstm_files,
    refused,
    same,
    weights,
)

from ifgo import formats, limits
from ifgo.decimals import nearest_float32
from ifgo.errors import FormatError, IfgoError, ModelError, UsageError
from ifgo.formats import raw
from ifgo.model import (
    Recurrent,
)

# -- reading text ---------------------------------------------------------------------------------


LOOKS = "A number looks like -1.5e-3, and has a point, no comma"


def dense_text(folder: Path, text: str | bytes) -> Path:
    return fill(folder, {"tensor_W_1_1.txt": text})


def test_text_takes_what_c_initialisers_look_like(tmp_path: Path) -> None:
    text = "\ufeff{ 1.5f, -2e-3F,\r\n\t+.25; 3. ,4 }\r\n;{-0.0,1E+2}".encode()
    found = raw.read(dense_text(tmp_path, text), layout="A").arrays["dense_1.weight"]
    assert found.tobytes() == np.array([[1.5, -2e-3, 0.25, 3, 4, -0.0, 100]], "f4").tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\nnan\n", "line 2 holds 'nan', expected a finite number"),
        ("1\n-Inf", "line 2 holds '-Inf', expected a finite number"),
        ("1, INFINITYf", "line 1 holds 'INFINITYf', expected a finite number"),
        ("-nan(ind)", "line 1 holds '-nan(ind)', expected a finite number"),
        ("{1.0}\n{2.0, abc}", "line 2 holds 'abc', expected a decimal number"),
        ("1_000", "line 1 holds '1_000', expected a decimal number"),
        ("0x1p3", "line 1 holds '0x1p3', expected a decimal number"),
        ("1e", "line 1 holds '1e', expected a decimal number"),
        ("1ff", "line 1 holds '1ff', expected a decimal number"),
        ("f", "line 1 holds 'f', expected a decimal number"),
        ("--1", "line 1 holds '--1', expected a decimal number"),
        ("٣", "line 1 holds '٣', expected a decimal number"),
        ("// W\n1", "line 1 holds '//', expected a decimal number"),
        ("1" * 201, f"line 1 holds '{'1' * 40}...', expected a decimal number"),
        ("1\x0b2", r"line 1 holds '1\x0b2', expected a decimal number"),
        ("1\xa02", r"line 1 holds '1\xa02', expected a decimal number"),
    ],
)
def test_text_that_is_no_number_is_refused(tmp_path: Path, text: str, message: str) -> None:
    folder = dense_text(tmp_path, text.encode())
    assert refused(folder, layout="A") == f"tensor_W_1_1.txt {message}. {LOOKS}"


def test_text_of_other_kinds_is_refused(tmp_path: Path) -> None:
    folder = dense_text(tmp_path, b"1.0\n\xff\xfe")
    assert refused(folder, layout="A") == (
        "tensor_W_1_1.txt line 2 is no text: it holds the byte 0xff, expected UTF-8"
    )
    dense_text(tmp_path, b"1 2 1e39")
    assert refused(folder, layout="A") == (
        "tensor_W_1_1.txt line 1 holds '1e39', which is infinite in float32, expected a finite "
        "float32. Scale the numbers down"
    )
    dense_text(tmp_path, b"")
    assert refused(folder, layout="A") == "tensor_W_1_1.txt has 0 values, expected a multiple of 1"


def nearest(decimal: str) -> float:
    """The float32 nearest to the exact decimal, ties to the even one, by exact fractions."""
    exact, guess = Fraction(decimal), np.float32(float(decimal))
    with np.errstate(over="ignore"):
        around = [np.nextafter(guess, np.float32(end)) for end in (-np.inf, np.inf)] + [guess]
    return float(
        min(
            (v for v in around if np.isfinite(v)),
            key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.uint32)) & 1),
        )
    )


@settings(max_examples=300, deadline=None)
@given(
    bits=st.integers(0, 0x7F7FFFFE),
    nudge=st.integers(-5, 5),
    place=st.integers(1, 25),
    negative=st.booleans(),
)
@example(bits=0x3F800000, nudge=1, place=25, negative=False)
def test_decimals_round_once(bits: int, nudge: int, place: int, negative: bool) -> None:
    """Decimals at and beside the middle of two float32 numbers, closer than float64 can see."""
    pair = [float(np.uint32(b).view(np.float32)) for b in (bits, bits + 1)]
    middle = (Fraction(pair[0]) + Fraction(pair[1])) / 2
    exponent = int(np.floor(np.log10(float(middle) or 1e-46)))
    unit = Fraction(10) ** (exponent - place - 10)
    scaled = round(middle / unit) + nudge
    text = f"{'-' * negative}{scaled}e{exponent - place - 10}"
    found = nearest_float32([text], np.array([float(text)]))
    assert float(found[0]) == nearest(text)


def test_rounding_twice_would_differ() -> None:
    """A decimal just above the middle, whose nearest float64 is the middle itself."""
    text = "1.00000017881393432617187499"
    assert float(text) == 1 + 3 * 2**-24
    assert np.float32(float(text)) == np.float32(1 + 2**-22)
    assert nearest_float32([text], np.array([float(text)]))[0] == np.float32(1 + 2**-23)


def test_rounded_decimals_are_noted(tmp_path: Path) -> None:
    exact = "0.15129365026950836 0.1 0.100000001 3.40282347e+38 1e-45"
    assert not rounding_notes(dense_text(tmp_path, exact))
    dense_text(tmp_path, "0.1234567890123 0.1 1e-60 0.5")
    assert rounding_notes(tmp_path) == [
        "tensor_W_1_1.txt: 2 of 4 decimals are no float32 number; each was rounded to the nearest"
    ]


def rounding_notes(folder: Path) -> list[str]:
    notes = raw.read(folder, layout="A").provenance.notes
    return [note for note in notes if "rounded" in note]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.binary(max_size=40)
    | st.text("0123456789.eEfFnai+-,;{} \n", max_size=40).map(str.encode)
)
def test_any_text_raises_only_our_errors(tmp_path: Path, data: bytes) -> None:
    dense_text(tmp_path, data)
    with contextlib.suppress(IfgoError):
        raw.read(tmp_path, layout="A")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tensor_R_1_2.bin", bytes(2**20), "has 262144 values, expected 16 = 4·2·2"),
        ("tensor_B_1_2.bin", bytes(2**20), "has 262144 values, expected 16 = 8·2 or 8 = 4·2"),
        ("tensor_R_1_2.txt", "1 " * 2**19, "has more than 16 numbers, expected at most that many"),
        ("tensor_B_1_2.txt", "1 " * 2**19, "has more than 16 numbers, expected at most that many"),
        ("tensor_R_1_2.txt", "1 " * 15, "has 30 bytes, too few for 16 values, expected 16 = 4·2·2"),
    ],
)
def test_wrong_sizes_are_seen_before_all_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Any, message: str
) -> None:
    def read_bytes(path: Path, **_: Any) -> bytes:
        assert path.name != name or path.suffix == ".txt"
        return path.read_bytes()

    folder = fill(tmp_path, lstm_files(1, 1, 2))
    (folder / name).with_suffix(".bin").unlink()
    fill(folder, {name: content})
    monkeypatch.setattr("ifgo.files.read_bytes", read_bytes)
    assert refused(folder) == f"{name} {message}"
    within_bounds(lambda: raw.read(folder), len(content))


def test_a_text_of_too_many_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path, {"tensor_W_1_1.txt": "1 2 3"})
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(text_numbers=2))
    assert refused(folder, layout="A") == (
        "tensor_W_1_1.txt has more than 2 numbers, expected at most that many. "
        "Save them as binary, .npy or a .bin tensor" + raising("text_numbers")
    )


def test_texts_of_too_many_numbers_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path, {"tensor_W_1_1.txt": "1 2 3", "tensor_W_2_1.txt": "4"})
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(text_numbers=4))
    raw.read(folder, layout="A")
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(text_numbers=3))
    assert refused(folder, layout="A") == (
        "tensor_W_2_1.txt has more than 0 numbers after 3 in the texts before it, "
        "expected at most 3 in all. Save them as binary, .npy or a .bin tensor"
        + raising("text_numbers")
    )


@pytest.mark.parametrize("unit", ["1 ", "1.25e-3\n", "7", " ", "1,\n", "{"])
def test_no_text_costs_much(tmp_path: Path, unit: str) -> None:
    text = unit * (2**19 // len(unit))
    folder = fill(tmp_path, {"tensor_W_1_1.txt": text})
    within_bounds(lambda: raw.read(folder, layout="A"), len(text))


# -- files that do not fit ------------------------------------------------------------------------


def test_wrong_counts_name_file_and_formula(tmp_path: Path) -> None:
    good = lstm_files(1, 16, 16) | lstm_files(2, 16, 16)
    folder = fill(tmp_path, good | {"tensor_R_2_16.bin": weights(1000)})
    assert refused(folder) == "tensor_R_2_16.bin has 1000 values, expected 1024 = 4·16·16"
    fill(folder, good | {"tensor_W_2_16.bin": weights(70)})
    assert refused(folder) == "tensor_W_2_16.bin has 70 values, expected a multiple of 64 = 4·16"
    fill(folder, good | {"tensor_B_2_16.bin": weights(100)})
    assert refused(folder) == ("tensor_B_2_16.bin has 100 values, expected 128 = 8·16 or 64 = 4·16")
    assert refused(folder, layout="A") == (
        "tensor_B_2_16.bin has 100 values, expected 128 = 8·16 or 64 = 4·16"
    )
    fill(folder, good)
    assert refused(folder, layout="B") == ("tensor_B_1_16.bin has 128 values, expected 64 = 4·16")


def test_wrong_counts_in_text(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 1, 16))
    (folder / "tensor_R_1_16.bin").unlink()
    fill(folder, {"tensor_R_1_16.txt": "0.5\n" * 1000})
    assert refused(folder) == "tensor_R_1_16.txt has 1000 values, expected 1024 = 4·16·16"


def test_biases_of_a_missing_r_are_explained(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 16, 16))
    (folder / "tensor_R_1_16.bin").unlink()
    assert refused(folder) == (
        "tensor_B_1_16.bin has 128 values, expected 16 = O of a Dense layer, for it has no tensor R"
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no tensor files, expected tensor_W_1_{size}.txt or .bin"),
        (
            {"tensor_W_1_2.npy": b""},
            "tensor_W_1_2.npy is no name of a tensor file, expected "
            "tensor_{W,R,B}_{layer}_{size}.{txt,bin}, layer and size from 1",
        ),
        (
            {"tensor_W_01_2.txt": "1"},
            "tensor_W_01_2.txt is no name of a tensor file, expected "
            "tensor_{W,R,B}_{layer}_{size}.{txt,bin}, layer and size from 1",
        ),
        (
            {"Tensor_W_1_2.TXT": "1"},
            "Tensor_W_1_2.TXT is no name of a tensor file, expected "
            "tensor_{W,R,B}_{layer}_{size}.{txt,bin}, layer and size from 1",
        ),
        (
            {"tensor_W_1_2.txt": "1", "tensor_R_1_4.txt": "1"},
            "layer 1 has two sizes, in tensor_R_1_4.txt and tensor_W_1_2.txt, expected one size "
            "per layer",
        ),
        (
            {"tensor_W_1_2.txt": "1", "tensor_W_3_2.txt": "1"},
            "has tensors of layers 1, 3, expected layers 1, 2, 3, ... unbroken",
        ),
        (
            {f"tensor_W_{k}_1.txt": "1" for k in range(1, 66)},
            "has 65 layers, expected at most 64" + raising("layers"),
        ),
        (
            {"tensor_R_1_2.txt": "1", "tensor_B_1_2.txt": "1"},
            "layer 1 has no tensor_W_1_2, expected one beside tensor_B_1_2",
        ),
        (
            {"tensor_W_1_1.bin": b"12345"},
            "tensor_W_1_1.bin has 5 bytes, expected a multiple of 4, float32 values alone",
        ),
        (
            {"tensor_W_1_1.bin": [1, np.nan]},
            "tensor_W_1_1.bin holds nan as value 2, expected a finite float32",
        ),
        (
            {"tensor_W_1_1.bin": [0.0], "tensor_W_1_1.txt": "-0.0"},
            "tensor_W_1_1.bin and tensor_W_1_1.txt differ, expected the same values bit for bit",
        ),
    ],
)
def test_folders_that_are_no_model_are_refused(
    tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    assert refused(fill(tmp_path, files)) == message


def test_special_files_are_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tensor_W_1_2.txt")
    assert refused(tmp_path) == "tensor_W_1_2.txt is no regular file"
    (tmp_path / "tensor_W_1_2.txt").unlink()
    (tmp_path / "model.toml").mkdir()
    fill(tmp_path, lstm_files(1, 1, 1))
    assert refused(tmp_path) == "model.toml is no regular file. Put the file itself there"


def test_misnamed_tensors_are_still_raw(tmp_path: Path) -> None:
    folder = fill(tmp_path, {"Tensor_W_1_2.TXT": "1"})
    with pytest.raises(FormatError) as caught:
        formats.load(folder)
    assert str(caught.value) == (
        f"{folder}: Tensor_W_1_2.TXT is no name of a tensor file, expected "
        "tensor_{W,R,B}_{layer}_{size}.{txt,bin}, layer and size from 1"
    )


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(UsageError) as caught:
        formats.load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: cannot be read (Permission denied). Check the path and its permissions"
    )


def test_arguments_of_the_wrong_type(tmp_path: Path) -> None:
    wrong: Any = 3
    model = chain(Recurrent("lstm", cell()))
    for call, message in (
        (
            lambda: formats.load(wrong),
            "the model is a int, expected a path, as str or pathlib.Path",
        ),
        (
            lambda: formats.load(""),
            "the model is an empty path, expected the name of a file or folder",
        ),
        (
            lambda: formats.save(model, wrong),
            "the destination is a int, expected a path, as str or pathlib.Path",
        ),
        (
            lambda: formats.save(wrong, tmp_path / "m.ifgo"),
            "the model is a int, expected an ifgo.Model",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value) == message


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    other = {"README": "hello", "converted_tensor_W_1_2.txt": "x", "net.onnx": b"1"}
    assert kinds(raw.read(fill(tmp_path, lstm_files(1, 3, 2) | other))) == ["lstm"]


def test_both_encodings_may_lie_side_by_side(tmp_path: Path) -> None:
    model = chain(Recurrent("lstm", cell()))
    raw.write(model, tmp_path / "a", encoding="txt")
    raw.write(model, tmp_path / "b", encoding="bin")
    for path in (tmp_path / "b").glob("*.bin"):
        path.rename(tmp_path / "a" / path.name)
    same(raw.read(tmp_path / "a"), model)


def test_a_bin_cut_anywhere_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 2))
    for name in ("tensor_W_1_2.bin", "tensor_R_1_2.bin", "tensor_B_1_2.bin"):
        data = (folder / name).read_bytes()
        for size in range(len(data)):
            (folder / name).write_bytes(data[:size])
            if name == "tensor_W_1_2.bin" and size in (32, 64):
                assert raw.read(folder).input_size == size // 32  # I comes from this very count
            elif name == "tensor_B_1_2.bin" and size == 32:
                refused(folder, UsageError)  # the count of layout B
            else:
                refused(folder)
        (folder / name).write_bytes(data)


def test_parts_that_do_not_fit_the_bounds(tmp_path: Path) -> None:
    inputs = limits.DEFAULTS.input_size + 1
    message = refused(fill(tmp_path, lstm_files(1, inputs, 1)), ModelError)
    assert message == f"input_size is {inputs}, expected at most {inputs - 1}" + raising(
        "input_size"
    )


def test_places_that_are_no_folder(tmp_path: Path) -> None:
    assert not raw.sniff(tmp_path)
    assert not raw.sniff(tmp_path / "absent")
    (tmp_path / "file").touch()
    assert not raw.sniff(tmp_path / "file")
    for name in ("absent", "file"):
        message = refused(tmp_path / name, UsageError)
        assert message == "is no folder, expected a folder with tensor files"
