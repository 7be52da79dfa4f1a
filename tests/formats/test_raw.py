"""Raw tensor folders: both layouts and encodings, what sizes leave open, and every refusal."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ifgo import formats, limits
from ifgo.activations import PARAMETERS
from ifgo.errors import FormatError, IfgoError, ModelError, UnsupportedError, UsageError
from ifgo.formats import _raw_files, raw
from ifgo.model import (
    Activation,
    ActivationLayer,
    Dense,
    Dropout,
    Embedding,
    FeatureInput,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Layer,
    LengthsInput,
    LSTMCell,
    Masking,
    Model,
    Output,
    Recurrent,
    RepeatVector,
    Residual,
    StateInput,
    StateSlot,
    TokenInput,
    TrainingFacts,
)
from ifgo.reference import truth

SEED = Path(__file__).parents[2].parent / "shared" / "models" / "seed_lstm16161_keras"
needs_seed = pytest.mark.skipif(
    not SEED.is_dir(), reason="the original tensor files are not at ../shared/models"
)
BOTH = pytest.mark.parametrize("layout", ["A", "B"])
EACH = pytest.mark.parametrize("encoding", ["txt", "bin"])


def identical(have: Any, want: Any, place: str = "model") -> None:
    """Asserts the same classes, fields and array bits; provenance is each reader's own."""
    assert type(have) is type(want), place
    if dataclasses.is_dataclass(want):
        for field in dataclasses.fields(want):
            if field.name != "provenance":
                name = field.name
                identical(getattr(have, name), getattr(want, name), f"{place}.{name}")
    elif isinstance(want, np.ndarray):
        assert (have.dtype, have.shape) == (want.dtype, want.shape), place
        assert have.tobytes() == want.tobytes(), place
    elif isinstance(want, tuple):
        assert len(have) == len(want), place
        for i, (a, b) in enumerate(zip(have, want, strict=True)):
            identical(a, b, f"{place}[{i}]")
    else:
        assert have == want, place


def weights(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def cell(inputs: int = 3, hidden: int = 2, biases: str = "both", **rules: Any) -> LSTMCell:
    return LSTMCell(
        weights(4 * hidden, inputs),
        weights(4 * hidden, hidden),
        weights(4 * hidden, seed=1) if biases in ("both", "bias_ih") else None,
        weights(4 * hidden, seed=2) if biases in ("both", "bias_hh") else None,
        **rules,
    )


def chain(*layers: Layer, size: int = 3, **more: Any) -> Model:
    return Model((FeatureInput(size),), layers, **more)


def fill(folder: Path, files: dict[str, Any]) -> Path:
    """Writes tensor files: numbers as bytes, text as it is."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_text(content, newline="")
        elif isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).write_bytes(np.asarray(content, "<f4").tobytes())
    return folder


def lstm_files(number: int, inputs: int, hidden: int, biases: int | None = 8) -> dict[str, Any]:
    name = f"{number}_{hidden}.bin"
    found = {
        f"tensor_W_{name}": weights(4 * hidden * inputs, seed=number),
        f"tensor_R_{name}": weights(4 * hidden * hidden, seed=number),
    }
    return found | ({f"tensor_B_{name}": weights(biases * hidden)} if biases else {})


def dense_files(number: int, inputs: int, outputs: int) -> dict[str, Any]:
    return {f"tensor_W_{number}_{outputs}.bin": weights(outputs * inputs, seed=number)}


def kinds(model: Model) -> list[str]:
    return [layer.kind for layer in model.layers]


def refused(folder: Path, error: type[IfgoError] = FormatError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        raw.read(folder, **options)
    prefix = f"{folder}: "
    assert str(caught.value).startswith(prefix)
    assert str(caught.value).count(str(folder)) == 1
    return str(caught.value).removeprefix(prefix)


# -- what comes back ------------------------------------------------------------------------------


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def array(draw: st.DrawFn, *shape: int) -> Any:
    size = int(np.prod(shape))
    return np.array(draw(st.lists(numbers, min_size=size, max_size=size)), "f4").reshape(shape)


@st.composite
def activations(draw: st.DrawFn) -> Activation:
    name = draw(st.sampled_from(sorted(PARAMETERS)))
    return Activation(name, **{parameter: draw(finite) for parameter in PARAMETERS[name]})


@st.composite
def models(draw: st.DrawFn, layout: str) -> Model:
    size = first = draw(st.integers(1, 3))
    names = draw(st.lists(st.text(min_size=1, max_size=6), min_size=5, max_size=5, unique=True))
    layers: list[Layer] = []
    vector = False
    for name in names[: draw(st.integers(1, 5))]:
        kind = draw(st.integers(0, 4 if not vector else 3)) if layers else 0
        if kind == 0 and vector:
            kind = 1
        if kind == 0:
            hidden = draw(st.integers(1, 3))
            given = draw(st.sampled_from([0, 1, 2, 3] if layout == "A" else [0, 1, 2]))
            biases = [draw(array(4 * hidden)) if given & bit else None for bit in (1, 2)]
            w, r = draw(array(4 * hidden, size)), draw(array(4 * hidden, hidden))
            layers.append(Recurrent(name, LSTMCell(w, r, *biases)))
        elif kind == 1:
            out = draw(st.integers(1, 3))
            bias = draw(st.none() | array(out))
            layers.append(Dense(name, draw(array(out, size)), bias, draw(activations())))
        elif kind == 2:
            layers.append(ActivationLayer(name, draw(activations())))
        elif kind == 3 and vector:
            steps = st.builds(RepeatVector, st.just(name), st.integers(1, 9))
            layers.append(draw(st.just(HiddenAsSequence(name)) | steps))
        elif kind == 3:
            layers.append(Dropout(name, draw(st.floats(0, 1, exclude_max=True))))
        else:
            of = ["sequence", "state"] if isinstance(layers[-1], Recurrent) else ["sequence"]
            steps = st.builds(Flatten, st.just(name), st.integers(1, 3))
            layers.append(draw(st.builds(LastStep, st.just(name), st.sampled_from(of)) | steps))
        vector = layers[-1].signature.endswith("vector") or (
            vector and layers[-1].signature == "step→step"
        )
        size = layers[-1].output_size(size)
    axes = st.sampled_from(["BT", "TB", "T"])
    recurrent = tuple(layer.name for layer in layers if isinstance(layer, Recurrent))
    outputs = (
        Output("last" if vector else "sequence", draw(st.text()), (), draw(axes)),
        Output(draw(st.sampled_from(["h_n", "c_n"])), draw(st.text()), recurrent, draw(axes)),
    )
    return Model((FeatureInput(first, draw(st.text()), draw(axes)),), tuple(layers), outputs)


@BOTH
@EACH
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_models_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, layout: str, encoding: str, data: st.DataObject
) -> None:
    model = data.draw(models(layout))
    folder = tmp_path_factory.mktemp("raw") / "net"
    report = formats.save(model, folder, "raw", layout=layout, encoding=encoding)
    assert report.exact
    assert raw.sniff(folder)
    identical(formats.load(folder), model)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    raw.write(raw.read(folder), folder, layout=layout, encoding=encoding)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@EACH
def test_layout_a_by_hand(tmp_path: Path, encoding: str) -> None:
    """Blocks i, o, f, g of rows; B: input biases, then recurrent ones."""
    made = cell(inputs=3, hidden=2)
    raw.write(chain(Recurrent("lstm", made)), tmp_path / "n", layout="A", encoding=encoding)

    def stored(letter: str) -> list[float]:
        path = tmp_path / "n" / f"tensor_{letter}_1_2.{encoding}"
        if encoding == "txt":
            return [float(np.float32(line)) for line in path.read_text().splitlines()]
        return np.fromfile(path, "<f4").astype(float).tolist()

    at = {"i": 0, "f": 2, "g": 4, "o": 6}
    rows = [at[gate] + unit for gate in "iofg" for unit in range(2)]
    assert stored("W") == [float(made.weight_ih[row, k]) for row in rows for k in range(3)]
    assert stored("R") == [float(made.weight_hh[row, k]) for row in rows for k in range(2)]
    assert made.bias_ih is not None
    assert made.bias_hh is not None
    both = [float(made.bias_ih[row]) for row in rows] + [float(made.bias_hh[row]) for row in rows]
    assert stored("B") == both


def test_layout_b_by_hand(tmp_path: Path) -> None:
    """Blocks i, f, g, o of columns; Dense is (I, O)."""
    made, dense = cell(3, 2, "bias_ih"), Dense("d", weights(5, 2))
    raw.write(chain(Recurrent("lstm", made), dense), tmp_path / "n", layout="B")
    w, r = (np.fromfile(tmp_path / "n" / f"tensor_{x}_1_2.bin", "<f4") for x in "WR")
    assert w.tolist() == [float(made.weight_ih[row, k]) for k in range(3) for row in range(8)]
    assert r.tolist() == [float(made.weight_hh[row, k]) for k in range(2) for row in range(8)]
    d = np.fromfile(tmp_path / "n" / "tensor_W_2_5.bin", "<f4")
    assert d.tolist() == [float(dense.weight[o, k]) for k in range(2) for o in range(5)]
    assert np.fromfile(tmp_path / "n" / "tensor_B_1_2.bin", "<f4").tolist() == made.bias_ih.tolist()  # type: ignore[union-attr]


def test_text_is_one_shortest_decimal_per_line(tmp_path: Path) -> None:
    bias = np.array([0.1, -0.0, 1e-45, 1e20], "f4")
    raw.write(
        chain(Dense("d", np.ones((4, 1), "f4"), bias), size=1), tmp_path / "n", encoding="txt"
    )
    assert (tmp_path / "n" / "tensor_B_1_4.txt").read_bytes() == b"0.1\n-0.0\n1e-45\n1e+20\n"


def test_summed_biases_of_layout_a(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 2, biases=4))
    found = raw.read(folder, layout="A").recurrent[0].cell
    values = np.fromfile(folder / "tensor_B_1_2.bin", "<f4")
    assert found.bias_ih is not None
    assert found.bias_ih.tolist() == values[[0, 1, 4, 5, 6, 7, 2, 3]].tolist()
    assert found.bias_hh is None


def test_the_sheet_is_plain_toml(tmp_path: Path) -> None:
    model = chain(
        Recurrent("lstm", cell(biases="bias_ih")),
        LastStep("last", "state"),
        Dense('a "name"\n\x7f→', weights(1, 2), None, Activation("leaky_relu", 0.01)),
    )
    raw.write(model, tmp_path / "n")
    assert tomllib.loads((tmp_path / "n" / "model.toml").read_text("utf-8")) == {
        "version": 1,
        "layout": "A",
        "encoding": "bin",
        "input": {"name": "x", "size": 3, "axes": "BT"},
        "layer": [
            {"kind": "lstm", "name": "lstm", "biases": ["bias_ih"]},
            {"kind": "last_step", "name": "last", "of": "state"},
            {
                "kind": "dense",
                "name": 'a "name"\n\x7f→',
                "activation": "leaky_relu",
                "alpha": 0.01,
            },
        ],
        "output": [{"role": "last", "name": "y", "axes": "BT"}],
    }


def test_provenance_names_the_files(tmp_path: Path) -> None:
    raw.write(chain(Recurrent("lstm", cell()), Dense("d", weights(1, 2))), tmp_path / "n")
    found = formats.load(tmp_path / "n").provenance
    assert (found.framework, found.version, found.notes) == ("raw", "layout A", ())
    assert found.path == str(tmp_path / "n")
    assert found.names == {
        "lstm.forward.weight_ih": "tensor_W_1_2.bin",
        "lstm.forward.weight_hh": "tensor_R_1_2.bin",
        "lstm.forward.bias_ih": "tensor_B_1_2.bin",
        "lstm.forward.bias_hh": "tensor_B_1_2.bin",
        "d.weight": "tensor_W_2_1.bin",
    }


# -- the original files ---------------------------------------------------------------------------


@needs_seed
def test_the_original_files_load_as_hidden_as_sequence() -> None:
    model = formats.load(SEED / "Weight_txt")
    between = ["lstm", "last_step", "hidden_as_sequence"]
    assert kinds(model) == between * 3 + ["lstm", "last_step"]
    assert [layer.hidden_size for layer in model.recurrent] == [16, 16, 16, 1]
    assert all(layer.cell.input_size == 1 for layer in model.recurrent)
    assert model.provenance.version == "layout A"
    assert not any("rounded" in note for note in model.provenance.notes)
    assert model.outputs == (Output("last"),)


@needs_seed
def test_the_original_decimals_come_back_as_the_same_floats(tmp_path: Path) -> None:
    model = formats.load(SEED / "Weight_txt")
    for encoding in ("txt", "bin"):
        formats.save(model, tmp_path / encoding, "raw", encoding=encoding)
        identical(formats.load(tmp_path / encoding), model)
    for path in (SEED / "Weight_txt").iterdir():
        floats = np.array(path.read_text().split(), np.float64).astype("<f4")
        assert (tmp_path / "bin" / f"{path.stem}.bin").read_bytes() == floats.tobytes()


@needs_seed
@pytest.mark.parametrize(("name", "printed"), [("normal", "-0.840013"), ("anormal", "0.074057")])
def test_the_original_files_give_the_printed_results(name: str, printed: str) -> None:
    model = formats.load(SEED / "Weight_txt")
    x = np.array((SEED / f"{name}.txt").read_text().split(), np.float64).reshape(1, 128, 1)
    assert f"{truth.forward(model, x).y.item():.6f}" == printed


# -- reading text ---------------------------------------------------------------------------------


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
        ("1" * 201, f"line 1 holds {'1' * 40!r}, expected a decimal number"),
    ],
)
def test_text_that_is_no_number_is_refused(tmp_path: Path, text: str, message: str) -> None:
    folder = dense_text(tmp_path, text.encode())
    assert refused(folder, layout="A") == f"tensor_W_1_1.txt {message}"


def test_text_of_other_kinds_is_refused(tmp_path: Path) -> None:
    folder = dense_text(tmp_path, b"1.0\n\xff\xfe")
    assert refused(folder, layout="A") == (
        "tensor_W_1_1.txt is no text: byte 4 is 0xff, expected UTF-8"
    )
    dense_text(tmp_path, b"1 2 1e39")
    assert refused(folder, layout="A") == (
        "tensor_W_1_1.txt holds inf as value 3, expected a finite float32"
    )
    dense_text(tmp_path, b"")
    assert refused(folder, layout="A") == "tensor_W_1_1.txt has 0 values, expected a multiple of 1"


def nearest(decimal: str) -> float:
    """The float32 nearest to the exact decimal, ties to the even one, by exact fractions."""
    exact, guess = Fraction(decimal), np.float32(float(decimal))
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
    found = _raw_files.nearest_float32([text], np.array([float(text)]))
    assert float(found[0]) == nearest(text)


def test_rounding_twice_would_differ() -> None:
    """A decimal just above the middle, whose nearest float64 is the middle itself."""
    text = "1.00000017881393432617187499"
    assert float(text) == 1 + 3 * 2**-24
    assert np.float32(float(text)) == np.float32(1 + 2**-22)
    assert _raw_files.nearest_float32([text], np.array([float(text)]))[0] == np.float32(1 + 2**-23)


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
        "tensor_B_1_16.bin has 128 values, expected 16, as of a Dense layer, for there is no "
        "tensor_R_1_16"
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
            "has 65 layers, expected at most 64",
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
    assert refused(tmp_path) == "model.toml is no regular file"


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    other = {"README": "hello", "converted_tensor_W_1_2.txt": "x", "net.onnx": b"1"}
    assert kinds(raw.read(fill(tmp_path, lstm_files(1, 3, 2) | other))) == ["lstm"]


def test_both_encodings_may_lie_side_by_side(tmp_path: Path) -> None:
    model = chain(Recurrent("lstm", cell()))
    raw.write(model, tmp_path / "a", encoding="txt")
    raw.write(model, tmp_path / "b", encoding="bin")
    for path in (tmp_path / "b").glob("*.bin"):
        path.rename(tmp_path / "a" / path.name)
    identical(raw.read(tmp_path / "a"), model)


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
    inputs = limits.MAX_INPUT_SIZE + 1
    message = refused(fill(tmp_path, lstm_files(1, inputs, 1)), ModelError)
    assert message == f"input_size is {inputs}, expected at most {inputs - 1}"


def test_places_that_are_no_folder(tmp_path: Path) -> None:
    assert not raw.sniff(tmp_path)
    assert not raw.sniff(tmp_path / "absent")
    (tmp_path / "file").touch()
    assert not raw.sniff(tmp_path / "file")
    for name in ("absent", "file"):
        message = refused(tmp_path / name, UsageError)
        assert message == "is no folder, expected a folder with tensor files"


# -- what sizes leave open ------------------------------------------------------------------------

HOW = "expected --layout A or --layout B (layout= in Python)"


def test_layout_is_never_guessed(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 16, biases=4))
    assert refused(folder, UsageError) == (
        "tensor_B_1_16.bin has 64 values = 4·16, which layout B has and layout A with its two "
        f"biases summed, {HOW}"
    )
    fill(folder, lstm_files(1, 3, 16) | lstm_files(2, 16, 2, biases=4))
    assert refused(folder, UsageError).startswith("tensor_B_2_2.bin has 8 values = 4·2, which")
    (folder / "tensor_B_1_16.bin").unlink()
    assert refused(folder, UsageError) == (
        "layer 1 has no biases, so nothing tells the gate order i, o, f, g of layout A from "
        f"i, f, g, o of layout B, {HOW}"
    )
    assert raw.read(folder, layout="A").recurrent[0].cell.bias_ih is None
    assert raw.read(folder, layout="B").recurrent[0].cell.bias_ih is None


def test_layout_of_dense_layers_alone_is_never_guessed(tmp_path: Path) -> None:
    folder = fill(tmp_path, dense_files(1, 3, 2))
    assert refused(folder, UsageError) == (
        "has Dense layers alone, so nothing tells W (O, I) of layout A from W (I, O) of B, " + HOW
    )
    a, b = (raw.read(folder, layout=x).arrays["dense_1.weight"] for x in "AB")
    flat = np.fromfile(folder / "tensor_W_1_2.bin", "<f4")
    assert a.tolist() == flat.reshape(2, 3).tolist()
    assert b.tolist() == flat.reshape(3, 2).T.tolist()


def test_options_that_are_none(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 2))
    message = "option layout is 'a', expected one of 'A', 'B'"
    assert refused(folder, UsageError, layout="a") == message
    assert refused(folder, UsageError, stack="flat") == (
        "option stack is 'flat', expected one of 'stacked', 'hidden-as-sequence'"
    )


FORWARD = (
    "no model.toml: LSTM layers taken as forward with sigmoid and tanh, Dense layers as linear"
)
WHOLE = "no model.toml: every layer taken to give a whole sequence, Dense layers step by step"
REPLAY = "no model.toml: final hidden states taken as the next LSTM's input sequence"


def test_a_stack_of_sequences(tmp_path: Path) -> None:
    files = lstm_files(1, 3, 4) | lstm_files(2, 4, 2) | dense_files(3, 2, 1)
    model = raw.read(fill(tmp_path, files))
    assert kinds(model) == ["lstm", "lstm", "dense"]
    assert [layer.name for layer in model.layers] == ["lstm_1", "lstm_2", "dense_3"]
    assert model.provenance.notes == (FORWARD, WHOLE)
    assert not model.ends_in_vector


def test_hidden_states_as_sequences(tmp_path: Path) -> None:
    files = lstm_files(1, 3, 4) | lstm_files(2, 1, 2) | dense_files(3, 2, 5)
    model = raw.read(fill(tmp_path, files))
    assert kinds(model) == ["lstm", "last_step", "hidden_as_sequence", "lstm", "last_step", "dense"]
    assert [layer.name for layer in model.layers][1:3] == ["last_1", "sequence_2"]
    assert all(layer.of == "state" for layer in model.layers if isinstance(layer, LastStep))
    assert model.provenance.notes == (FORWARD, REPLAY)


def test_a_dense_layer_between_hidden_sequences(tmp_path: Path) -> None:
    files = lstm_files(1, 3, 4) | dense_files(2, 4, 6) | lstm_files(3, 1, 2)
    model = raw.read(fill(tmp_path, files))
    between = ["lstm", "last_step", "dense", "hidden_as_sequence", "lstm", "last_step"]
    assert kinds(model) == between


def test_one_value_after_one_value_is_never_guessed(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 1) | lstm_files(2, 1, 4))
    assert refused(folder, UsageError) == (
        "layer 1 puts out 1 value and layer 2 takes 1, which is a stack of sequences or a hidden "
        "state as sequence, expected --stack stacked or --stack hidden-as-sequence (stack= in "
        "Python)"
    )
    assert kinds(raw.read(folder, stack="stacked")) == ["lstm", "lstm"]
    replayed = ["lstm", "last_step", "hidden_as_sequence", "lstm", "last_step"]
    assert kinds(raw.read(folder, stack="hidden-as-sequence")) == replayed


def test_one_lstm_is_a_sequence_unless_asked(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 1, 4))
    assert kinds(raw.read(folder)) == ["lstm"]
    assert kinds(raw.read(folder, stack="hidden-as-sequence")) == ["lstm", "last_step"]


def test_layers_that_fit_no_topology(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", lstm_files(1, 3, 16) | lstm_files(2, 3, 16))
    assert refused(folder) == (
        "tensor_W_2_16.bin gives layer 2 3 inputs, but layer 1 puts out 16, expected 16 (stacked) "
        "or 1 (hidden as sequence)"
    )
    assert refused(folder, UsageError, stack="stacked") == (
        "stack 'stacked' does not fit: layer 2 takes 3 values per step, layer 1 puts out 16, "
        "expected layers that fit each other"
    )
    folder = fill(tmp_path / "b", lstm_files(1, 3, 16) | dense_files(2, 1, 4))
    assert refused(folder) == (
        "tensor_W_2_4.bin gives layer 2 1 inputs, but layer 1 puts out 16, expected 16"
    )
    folder = fill(tmp_path / "c", dense_files(1, 3, 16) | lstm_files(2, 1, 4))
    assert refused(folder) == (
        "tensor_W_2_4.bin gives layer 2 1 inputs, but layer 1 puts out 16, expected 16 (stacked) "
        "or 1 (hidden as sequence)"
    )


def test_two_topologies_in_one_folder_are_refused(tmp_path: Path) -> None:
    files = lstm_files(1, 3, 16) | lstm_files(2, 1, 8) | lstm_files(3, 8, 4)
    assert refused(fill(tmp_path, files)) == (
        "layer 3 reads a sequence of outputs, layer 2 a hidden state as sequence, expected one way "
        "through the folder. Say the topology in a model.toml beside the tensors"
    )


def test_a_stack_option_that_sizes_contradict(tmp_path: Path) -> None:
    folder = fill(tmp_path, lstm_files(1, 3, 16) | lstm_files(2, 16, 8))
    assert refused(folder, UsageError, stack="hidden-as-sequence") == (
        "stack 'hidden-as-sequence' does not fit: layer 2 takes 16 values per step, layer 1 puts "
        "out 16, expected the other stack"
    )


# -- model.toml -----------------------------------------------------------------------------------

SHEET = """version = 1
layout = "A"
encoding = "bin"

[input]
name = "x"
size = 3
axes = "BT"

[[layer]]
kind = "lstm"
name = "lstm"

[[layer]]
kind = "dropout"
name = "drop"
rate = 0.5

[[layer]]
kind = "dense"
name = "head"
activation = "tanh"

[[output]]
role = "sequence"
name = "y"
axes = "BT"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(
        tmp_path / "net", lstm_files(1, 3, 2) | dense_files(2, 2, 1) | {"model.toml": SHEET}
    )


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
            f"model.toml: layer[1].rate is '1{'0' * 59}', expected a number",
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
            "layer drop: dropout rate is 2.0, expected a rate in [0, 1)",
        ),
        (
            'activation = "tanh"',
            'activation = "tanh"\nalpha = 1.0',
            "activation tanh has alpha=1.0, expected no alpha, tanh takes none",
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
    assert refused(folder) == "model.toml is no UTF-8 text: byte 1"
    fill(folder, {"model.toml": b"#" * (limits.MAX_JSON_BYTES + 1)})
    assert refused_path(folder / "model.toml") == (
        f"has {limits.MAX_JSON_BYTES + 1} bytes, expected at most {limits.MAX_JSON_BYTES} bytes"
    )


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


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.binary(max_size=40)
    | st.text("0123456789.eEfFnai+-,;{} \n", max_size=40).map(str.encode)
)
def test_any_text_raises_only_our_errors(tmp_path: Path, data: bytes) -> None:
    dense_text(tmp_path, data)
    with contextlib.suppress(IfgoError):
        raw.read(tmp_path, layout="A")


# -- writing --------------------------------------------------------------------------------------


def refused_write(
    model: Model, folder: Path, error: type[IfgoError] = UnsupportedError, **options: Any
) -> str:
    before = sorted(folder.iterdir()) if folder.is_dir() else None
    with pytest.raises(error) as caught:
        raw.write(model, folder, **options)
    assert (sorted(folder.iterdir()) if folder.is_dir() else None) == before
    assert str(caught.value).startswith(f"{folder}: ")
    return str(caught.value).removeprefix(f"{folder}: ")


CANNOT = "raw tensors cannot hold "
NATIVE = ". Write an .ifgo file, which holds every model"
ALLOW = ". Set allow_lossy, or write an .ifgo file, which holds every model"


def lstm(**more: Any) -> Recurrent:
    rules = {key: more.pop(key) for key in list(more) if key in LSTMCell.__dataclass_fields__}
    return Recurrent("lstm", more.pop("forward", cell(**rules)), **more)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lstm(backward=cell()), "layer lstm: backward"),
        (Recurrent("lstm", None, cell()), "layer lstm: backward; layer lstm: no forward direction"),
        (lstm(go_backwards=True), "layer lstm: go_backwards"),
        (lstm(peephole=weights(3, 2)), "layer lstm: peephole"),
        (
            Recurrent("lstm", LSTMCell(weights(8, 3), weights(8, 1), weight_hr=weights(1, 2))),
            "layer lstm: weight_hr",
        ),
        (lstm(clip_z=50.0), "layer lstm: clip_z 50.0"),
        (lstm(clip_cell=3.0), "layer lstm: clip_cell 3.0"),
        (lstm(coupling="f=1-i"), "layer lstm: coupling f=1-i"),
        (
            lstm(activations=(Activation("hard_sigmoid", 0.2, 0.5),) + (Activation("tanh"),) * 2),
            "layer lstm: activations hard_sigmoid(0.2, 0.5)/tanh/tanh",
        ),
        (
            lstm(initial=InitialState("constant", weights(1, 2), weights(1, 2))),
            "layer lstm: initial state of kind constant",
        ),
        (Masking("m"), "layer m: masking; a model without weights"),
        (
            Residual("skip", (Dense("in", weights(3, 3)),), 1),
            "layer skip: residual",
        ),
        (Dropout("d", 0.5), "a model without weights"),
        (
            Dense("\ud800", weights(1, 3)),
            "name '\\ud800', which is no Unicode text",
        ),
        (
            Dense("d", np.full((1, 3), 1e39)),
            "layer d: weight, beyond float32",
        ),
    ],
)
@pytest.mark.parametrize("allow_lossy", [False, True])
def test_what_raw_cannot_hold(tmp_path: Path, layer: Layer, reason: str, allow_lossy: bool) -> None:
    message = refused_write(chain(layer), tmp_path / "n", allow_lossy=allow_lossy)
    assert message == CANNOT + reason + NATIVE


def test_inputs_that_raw_cannot_hold(tmp_path: Path) -> None:
    tokens = Model((TokenInput(4, "ids"),), (Embedding("e", weights(4, 3)), lstm()))
    assert refused_write(tokens, tmp_path / "n") == (
        f"{CANNOT}TokenInput 'ids'; layer e: embedding{NATIVE}"
    )
    slots = (StateSlot("lstm", "h"), StateSlot("lstm", "c"))
    stateful = Model(
        (FeatureInput(3), StateInput("s", slots)), (lstm(initial=InitialState("input")),)
    )
    assert refused_write(stateful, tmp_path / "n") == (
        f"{CANNOT}StateInput 's'; layer lstm: initial state of kind input{NATIVE}"
    )


def test_all_reasons_stand_in_one_message(tmp_path: Path) -> None:
    model = Model(
        (FeatureInput(3), LengthsInput("len")),
        (lstm(backward=cell(), clip_z=1.0, stateful=True), Masking("m")),
    )
    assert refused_write(model, tmp_path / "n") == (
        f"{CANNOT}layer lstm: backward; layer lstm: clip_z 1.0; layer m: masking; "
        f"lengths input 'len'; layer lstm: stateful{NATIVE}"
    )


def losable() -> Model:
    facts = TrainingFacts(0.1, 0.2, 0.0)
    layer = lstm(stateful=True, zero_masked=True, merge="sum", training=facts)
    return Model((FeatureInput(3), LengthsInput("len")), (layer,))


def test_losses_are_refused_or_named(tmp_path: Path) -> None:
    reasons = [
        "lengths input 'len'",
        "layer lstm: merge sum",
        "layer lstm: zero_masked",
        "layer lstm: stateful",
        "layer lstm: training",
    ]
    assert refused_write(losable(), tmp_path / "n") == CANNOT + "; ".join(reasons) + ALLOW
    report = raw.write(losable(), tmp_path / "n", allow_lossy=True)
    assert report.lost == tuple(reasons)
    identical(raw.read(tmp_path / "n"), chain(lstm()))


def test_report_says_where_everything_went(tmp_path: Path) -> None:
    model = chain(lstm(), Dropout("drop", 0.5), Dense("head", weights(1, 2), weights(1)))
    report = raw.write(model, tmp_path / "n")
    assert report.kept == (
        "lstm (lstm): tensor_W_1_2, tensor_R_1_2, tensor_B_1_2",
        "drop (dropout): model.toml",
        "head (dense): tensor_W_2_1, tensor_B_2_1",
    )
    assert report.exact


@pytest.mark.parametrize(
    ("layout", "biases", "absent"),
    [
        ("A", "bias_ih", "bias_hh"),
        ("A", "bias_hh", "bias_ih"),
        ("A", "none", "bias_ih and bias_hh"),
        ("B", "none", "bias_ih"),
    ],
)
def test_absent_biases_are_zeros_that_stay_absent(
    tmp_path: Path, layout: str, biases: str, absent: str
) -> None:
    model = chain(Recurrent("lstm", cell(biases=biases)))
    report = raw.write(model, tmp_path / "n", layout=layout)
    assert report.kept[0] == f"lstm (lstm): no {absent}; zeros in B, and model.toml says so"
    assert report.exact
    identical(raw.read(tmp_path / "n"), model)


def test_layout_b_adds_two_biases(tmp_path: Path) -> None:
    one, tiny = np.ones(4, "f4"), np.full(4, 2**-24, "f4")
    made = LSTMCell(weights(4, 3), weights(4, 1), one, tiny)
    report = raw.write(chain(Recurrent("lstm", made)), tmp_path / "n", layout="B")
    assert report.folded == ("lstm (lstm): bias_ih + bias_hh in one float32, off by up to 0.5 ulp",)
    assert not report.exact
    found = raw.read(tmp_path / "n").recurrent[0].cell
    assert found.bias_hh is None
    assert found.bias_ih is not None
    assert found.bias_ih.tolist() == [1.0] * 4


def test_biases_whose_sum_is_beyond_float32_are_refused(tmp_path: Path) -> None:
    big = np.full(4, 3e38, "f4")
    model = chain(Recurrent("lstm", LSTMCell(weights(4, 3), weights(4, 1), big, big)))
    assert refused_write(model, tmp_path / "n", layout="B") == (
        f"{CANNOT}layer lstm: bias_ih + bias_hh, beyond float32{NATIVE}"
    )


@pytest.mark.parametrize(
    ("layout", "biases", "target"),
    [
        ("A", "both", "bias_ih"),
        ("A", "bias_hh", "bias_hh"),
        ("A", "none", "bias_ih"),
        ("B", "both", "bias_ih"),
        ("B", "none", "bias_ih"),
    ],
)
def test_a_forget_bias_is_refused_or_folded(
    tmp_path: Path, layout: str, biases: str, target: str
) -> None:
    made = cell(biases=biases, forget_bias=1.0)
    model = chain(Recurrent("lstm", made))
    assert refused_write(model, tmp_path / "n", layout=layout) == (
        f"{CANNOT}layer lstm: forget_bias 1{ALLOW}"
    )
    report = raw.write(model, tmp_path / "n", layout=layout, allow_lossy=True)
    assert report.folded[-1].startswith(f"lstm (lstm): forget_bias 1 + {target} in one float32, ")
    assert report.lost == ()
    found = raw.read(tmp_path / "n").recurrent[0].cell
    zero = np.zeros(8, "f4")
    want = {"bias_ih": made.bias_ih, "bias_hh": made.bias_hh}
    if layout == "B" and biases == "both":
        want = {"bias_ih": made.bias_ih + made.bias_hh, "bias_hh": None}  # type: ignore[operator]
    raised = (zero if want[target] is None else want[target]) + np.repeat([0, 1, 0, 0], 2)
    want[target] = raised.astype("f4")
    assert found.forget_bias == 0
    for name, values in want.items():
        have = getattr(found, name)
        assert (have is None) == (values is None)
        assert values is None or have.tobytes() == values.tobytes()


def as_dtype(dtype: Any) -> Model:
    return chain(Dense("d", np.array([[0.5, -0.0, 0.25]]).astype(dtype)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.longdouble])
def test_dtypes_whose_values_are_float32_are_folded(tmp_path: Path, dtype: Any) -> None:
    report = raw.write(as_dtype(dtype), tmp_path / "n")
    assert report.folded == (f"d: {np.dtype(dtype).name} weight as float32, same values",)
    identical(raw.read(tmp_path / "n"), as_dtype(np.float32))


def test_float64_values_are_refused_or_rounded(tmp_path: Path) -> None:
    weight = np.array([[0.1, 1 + 2**-24, 0.5]])
    reason = "layer d: float64 weight, in float32 off by up to 0.5 ulp"
    assert refused_write(chain(Dense("d", weight)), tmp_path / "n") == CANNOT + reason + ALLOW
    report = raw.write(chain(Dense("d", weight)), tmp_path / "n", allow_lossy=True)
    assert report.lost == (reason,)
    identical(raw.read(tmp_path / "n"), chain(Dense("d", weight.astype("f4"))))


def test_big_endian_float32_is_float32(tmp_path: Path) -> None:
    model = chain(Dense("d", weights(2, 3).astype(">f4")))
    assert raw.write(model, tmp_path / "n").exact
    assert raw.read(tmp_path / "n").arrays["d.weight"].tobytes() == weights(2, 3).tobytes()


def test_options_of_writing_that_are_none(tmp_path: Path) -> None:
    assert refused_write(chain(lstm()), tmp_path / "n", UsageError, layout="C") == (
        "option layout is 'C', expected one of 'A', 'B'"
    )
    assert refused_write(chain(lstm()), tmp_path / "n", UsageError, encoding="npy") == (
        "option encoding is 'npy', expected one of 'txt', 'bin'"
    )


def test_tensors_of_another_model_are_not_mixed_in(tmp_path: Path) -> None:
    folder = tmp_path / "n"
    raw.write(chain(lstm(), Dense("d", weights(1, 2))), folder)
    assert refused_write(chain(lstm()), folder, UsageError) == (
        "already holds tensor_W_2_1.bin, which is no part of this model, expected a folder without "
        "other tensors. Remove them, or write to another folder"
    )
    message = refused_write(
        chain(lstm(), Dense("d", weights(1, 2))), folder, UsageError, encoding="txt"
    )
    assert message.startswith("already holds tensor_B_1_2.bin, which is no part of this model")


def test_text_that_could_not_be_read_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_TEXT_BYTES", 20)
    message = refused_write(chain(Dense("d", weights(3, 3))), tmp_path / "n", encoding="txt")
    assert message.startswith("tensor_W_1_3.txt would have ")
    assert message.endswith(" bytes, expected at most 20. Write it with encoding bin")
    raw.write(chain(Dense("d", weights(3, 3))), tmp_path / "n", encoding="bin")


def test_a_failed_write_leaves_the_old_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = chain(lstm(), Dense("d", weights(1, 2, seed=9)))
    original, written = Path.write_bytes, list[str]()

    def fails_late(self: Path, data: bytes) -> int:
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(self.name)
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", fails_late)
    with pytest.raises(UsageError) as caught:
        raw.write(model, folder)
    assert str(caught.value) == (
        f"{folder}: cannot be written (No space left on device). "
        "Check that the folder exists and is writable"
    )
    monkeypatch.undo()
    assert len(written) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("mine")
    with pytest.raises(UsageError) as caught:
        raw.write(chain(lstm()), tmp_path / "n")
    assert "cannot be written (File exists)" in str(caught.value)
    assert (tmp_path / "n").read_text() == "mine"
