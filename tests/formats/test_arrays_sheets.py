"""Dumped arrays and the sheets that come with ifgo: what each source computes, number by number."""

from __future__ import annotations

import json
import pickle
from itertools import permutations
from pathlib import Path
from typing import Any

import arrays_cases as cases
import numpy as np
import pytest
from arrays_frameworks import FRAMEWORKS

from ifgo import formats
from ifgo.errors import FormatError
from ifgo.formats import _arrays_sheet
from ifgo.model import Model

MODELS = Path(__file__).parents[2].parent / "shared" / "models"
SHEETS = sorted(f.stem for f in Path(_arrays_sheet.__file__).with_name("sheets").glob("*.toml"))
FORMATS_MD = Path(__file__).parents[2] / "FORMATS.md"
FLOAT64 = 1e-12
"""Two float64 computations of a few dozen terms each."""

U = 2.0**-24


def given(name: str) -> Path:
    if not (MODELS / name).is_dir():
        pytest.skip(f"{name} is not at ../shared/models")
    return MODELS / name


def stored(folder: Path, arrays: dict[str, Any], sheet: str | None = None) -> Path:
    path = folder / "w.npz"
    np.savez(path, **arrays)
    if sheet is not None:
        path.with_suffix(".toml").write_text(sheet)
    return path


def truth(model: Model, x: Any) -> Any:
    return model.run(x, on="truth")[0]


def drawn(rng: np.random.Generator, inputs: int = 3) -> Any:
    return rng.normal(0, 1, (5, inputs)).astype("f")


# -- known sources --------------------------------------------------------------------------------


def two(rng: np.random.Generator, **options: Any) -> list[cases.Cell]:
    return [cases.cell(rng, 3, 4, **options), cases.cell(rng, 4, 2, **options)]


def case(sheet: str, rng: np.random.Generator) -> tuple[dict[str, Any], list[cases.Cell], float]:
    """The arrays of a source, its cells in order, and what it adds to the forget gate."""
    one = [cases.cell(rng, 3, 4)]
    match sheet:
        case "tf1_basic_lstm":
            return cases.tf1(one[0]), one, 1.0
        case "tf1_lstm_stack":
            both = two(rng)
            names = [f"rnn/multi_rnn_cell/cell_{k}/lstm_cell" for k in range(2)]
            return cases.tf1(both[0], names[0]) | cases.tf1(both[1], names[1]), both, 1.0
        case "tf1_lstm_peepholes":
            one = [cases.cell(rng, 3, 4, peephole=True)]
            return cases.tf1(one[0], "rnn/lstm_cell"), one, 1.0
        case "tf1_lstm_projection":
            one = [cases.cell(rng, 3, 4, projected=2)]
            arrays = cases.tf1(one[0], "rnn/lstm_cell")
            return arrays, one, 1.0
        case "keras_get_weights":
            both = two(rng)
            return cases.numbered([*cases.keras(both[0]), *cases.keras(both[1])]), both, 0.0
        case "keras1":
            return cases.keras1(one[0]), one, 0.0
        case "keras1_get_weights":
            both = two(rng)
            twelve = [list(cases.keras1(made).values()) for made in both]
            return cases.numbered(twelve[0] + twelve[1]), both, 0.0
        case "haste":
            return cases.haste(one[0]), one, 0.0
        case "equinox":
            return cases.equinox(one[0]), one, 0.0
        case "pytorch":
            both = two(rng)
            arrays: dict[str, Any] = {}
            for k, made in enumerate(both):
                halves = rng.normal(0, 1, 4 * len(made["b"]["i"])).astype("f")
                arrays[f"rnn.weight_ih_l{k}"] = cases.rows(made["W"], "ifgo")
                arrays[f"rnn.weight_hh_l{k}"] = cases.rows(made["R"], "ifgo")
                arrays[f"rnn.bias_ih_l{k}"] = halves
                arrays[f"rnn.bias_hh_l{k}"] = cases.rows(made["b"], "ifgo")
                for g, half in zip("ifgo", np.split(halves.astype(float), 4), strict=True):
                    made["b"][g] = made["b"][g] + half
            return arrays, both, 0.0
        case _:
            raise AssertionError(f"no case for sheet {sheet}")


TRAINED = {"kws_basic_lstm", "lstm_word_segmentation", "lstm_word_segmentation_npy"}
TRAINED |= {"madmom_lstm", "madmom_lstm_npz"}
"""Held to recorded outputs below."""

MADE = [name for name in SHEETS if name not in {*TRAINED, *FRAMEWORKS}]
"""The others are held to their framework's equations in test_arrays_frameworks.py."""


@pytest.mark.parametrize("sheet", MADE)
def test_a_source_by_its_sheet(tmp_path: Path, sheet: str) -> None:
    rng = np.random.default_rng(1)
    arrays, cells, forget = case(sheet, rng)
    model = formats.load(stored(tmp_path, arrays), sheet=sheet)
    x = drawn(rng)
    expected: Any = x
    for made in cells:
        expected = cases.run(made, expected, forget=forget)
    assert np.abs(truth(model, x) - expected).max() < FLOAT64
    assert len(model.recurrent) == len(cells)
    assert {one.cell.forget_bias for one in model.recurrent} == {forget}
    assert model.provenance.version == f"sheet {sheet}"
    assert set(model.arrays) == set(model.provenance.names)
    assert all(model.provenance.names.values())


@pytest.mark.parametrize("sheet", MADE)
def test_the_number_of_layers_is_that_of_the_arrays(tmp_path: Path, sheet: str) -> None:
    """A repeated layer stands for one layer too; an array more is refused."""
    arrays, cells, _ = case(sheet, np.random.default_rng(1))
    with pytest.raises(FormatError, match=r"has no use for 1 of \d+ arrays: 'more'"):
        formats.load(stored(tmp_path, arrays | {"more": np.zeros(1, "f")}), sheet=sheet)
    if len(cells) == 2:
        half = dict(list(arrays.items())[: len(arrays) // 2])
        assert len(formats.load(stored(tmp_path, half), sheet=sheet).recurrent) == 1


@pytest.mark.parametrize("name", SHEETS)
def test_every_sheet_is_described(name: str) -> None:
    parsed = _arrays_sheet.find(name, Path("w.npz"))
    assert parsed.title
    assert f"| `{name}` | {parsed.title} |" in FORMATS_MD.read_text()


def test_wrong_gate_orders_show(tmp_path: Path) -> None:
    """Each of the 23 other orders in a sheet gives other numbers, in every orientation."""
    rng = np.random.default_rng(2)
    made = cases.cell(rng, 3, 4)
    x = drawn(rng)
    expected = cases.run(made, x)
    dumps = {
        "rows": {k: cases.rows(made[k.upper()], "fgio") for k in "wr"},
        "columns": {k: cases.columns(made[k.upper()], "fgio") for k in "wr"},
        "blocks": {k: np.stack([made[k.upper()][g].T for g in "fgio"]) for k in "wr"},
    }
    for orientation, arrays in dumps.items():
        arrays["b"] = cases.rows(made["b"], "fgio")
        seen = 0
        for order in map("".join, permutations("ifgo")):
            text = cases.SHEET.replace('"ifgo"', f'"{order}"').replace("rows", orientation)
            error = np.abs(truth(formats.load(stored(tmp_path, arrays, text)), x) - expected).max()
            assert (error < FLOAT64) == (order == "fgio")
            seen += error > 1e-3
        assert seen == 23


def test_wrong_peephole_orders_show(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    made = cases.cell(rng, 3, 4, peephole=True)
    x = drawn(rng)
    expected = cases.run(made, x)
    arrays = {"w": cases.rows(made["W"], "ifgo"), "r": cases.rows(made["R"], "ifgo")}
    arrays |= {"b": cases.rows(made["b"], "ifgo"), "p": cases.rows(made["P"], "iof")}
    for order in map("".join, permutations("ifo")):
        text = (
            cases.SHEET.replace("\n[layer.f", f'peephole = "{order}"\n[layer.f') + 'peephole = "p"'
        )
        error = np.abs(truth(formats.load(stored(tmp_path, arrays, text)), x) - expected).max()
        assert (error < FLOAT64) == (order == "iof")


# -- models that other people trained -------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "sheet"),
    [("beats_lstm_1.pkl", "madmom_lstm"), ("weights_extracted.npz", "madmom_lstm_npz")],
)
def test_madmom(file: str, sheet: str) -> None:
    """Peepholes; outputs of every layer recorded from its own code, in float32."""
    folder = given("madmom_beats_lstm")
    expected = np.load(folder / "expected.npz")
    model = formats.load(folder / file, sheet=sheet)
    assert np.abs(truth(model, expected["x"]) - expected["layer3"]).max() < (25 + 3) * U
    x = expected["x"]
    for k, inputs in enumerate((162, 25, 25)):
        one = formats.load(folder / file, sheet=sheet, select=f"lstm{k}")
        # A sum of I + H + 2 terms is off by U for each of what it adds up to, |x| here.
        bound = (inputs + 25 + 5) * U * max(1.0, float(np.abs(x).max()))
        assert np.abs(truth(one, x) - expected[f"layer{k}"]).max() < bound
        x = expected[f"layer{k}"]


def test_kws() -> None:
    """The forget bias of 1 that TensorFlow adds at run time."""
    folder = given("kws_basic_lstm_s")
    expected = np.load(folder / "expected.npz")
    model = formats.load(folder / "weights_extracted.npz", sheet="kws_basic_lstm")
    assert model.recurrent[0].cell.forget_bias == 1.0
    names = [name[5:] for name in expected.files if name.startswith("feat_")]
    assert len(names) == 7
    for name in names:
        x = expected[f"feat_{name}"]
        # Features of up to 75 enter sums of 130 terms; the softmax passes on twice the error.
        bound = 2 * 130 * U * max(1.0, float(np.abs(x).max()) / 10)
        assert np.abs(truth(model, x) - expected[f"prob_{name}"]).max() < bound


@pytest.mark.parametrize(
    ("file", "sheet"),
    [
        ("weights.json", "lstm_word_segmentation"),
        ("weights.npy", "lstm_word_segmentation_npy"),
    ],
)
def test_word_segmentation(file: str, sheet: str) -> None:
    """Nine variables of a JSON, and of a .npy with objects that is read as data; two directions."""
    folder = given("wordseg_thai")
    expected = np.load(folder / "expected.npz")
    model = formats.load(folder / file, sheet=sheet)
    assert np.abs(truth(model, expected["ids"]) - expected["y"]).max() < 300 * U


# -- containers -----------------------------------------------------------------------------------


def plain(rng: np.random.Generator) -> tuple[cases.Cell, dict[str, Any]]:
    made = cases.cell(rng, 3, 4)
    arrays = {
        name: cases.rows(made[key], "ifgo") for name, key in (("w", "W"), ("r", "R"), ("b", "b"))
    }
    return made, arrays


DECLARED = """
[[array]]
name = "w"
shape = [16, 3]
[[array]]
name = "r"
shape = [16, 4]
[[array]]
name = "b"
shape = [16]
"""


@pytest.mark.parametrize(
    "kind", ["npz", "npy", "bin", "txt", "pkl", "json", "npys", "bins", "txts"]
)
def test_containers(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(4)
    made, arrays = plain(rng)
    x = drawn(rng)
    flat = np.concatenate([a.reshape(-1) for a in arrays.values()])
    path = tmp_path / (f"w.{kind}" if not kind.endswith("s") else "folder")
    sheet = path.with_suffix(".toml")
    if kind.endswith("s"):
        path.mkdir()
        sheet = path / "sheet.toml"
    sheet.write_text(cases.SHEET + (DECLARED if kind not in ("npz", "pkl", "json", "npys") else ""))
    match kind:
        case "npz":
            np.savez(path, **arrays)
        case "npy":
            np.save(path, flat)
        case "bin":
            path.write_bytes(flat.astype("<f4").tobytes())
        case "txt":
            path.write_text("\n".join(map(str, flat)))
        case "json":
            path.write_text(json.dumps({k: a.tolist() for k, a in arrays.items()} | {"n": 1}))
        case "pkl":
            path.write_bytes(pickle.dumps(arrays))
        case _:
            for name, array in arrays.items():
                file = path / f"{name}.{kind[:3]}"
                if kind == "npys":
                    np.save(file, array)
                elif kind == "bins":
                    file.write_bytes(array.astype("<f4").tobytes())
                else:
                    file.write_text(" ".join(map(str, array.reshape(-1))))
    assert np.abs(truth(formats.load(path), x) - cases.run(made, x)).max() < FLOAT64


def test_other_dtypes(tmp_path: Path) -> None:
    """float64 and float16 stay what they are; whole numbers become float32."""
    _, arrays = plain(np.random.default_rng(5))
    for dtype, kept in (("f8", "float64"), ("f2", "float16"), ("i4", "float32")):
        changed = {name: a.astype(dtype) for name, a in arrays.items()}
        model = formats.load(stored(tmp_path, changed, cases.SHEET))
        assert {a.dtype.name for a in model.arrays.values()} == {kept}
    (tmp_path / "w.bin").write_bytes(
        np.concatenate([a.reshape(-1) for a in arrays.values()]).astype("<f8").tobytes()
    )
    (tmp_path / "w.toml").write_text('dtype = "float64"\n' + cases.SHEET + DECLARED)
    model = formats.load(tmp_path / "w.bin")
    assert {a.dtype.name for a in model.arrays.values()} == {"float64"}


@pytest.mark.parametrize("joined", ["weight_xh", "weight_hx"])
@pytest.mark.parametrize("form", ["rows", "columns"])
def test_one_matrix_for_input_and_state(tmp_path: Path, joined: str, form: str) -> None:
    rng = np.random.default_rng(6)
    made = cases.cell(rng, 3, 4)
    pair = [cases.columns(made[key], "ifgo") for key in ("WR" if joined == "weight_xh" else "RW")]
    kernel = np.concatenate(pair)
    arrays = {"k": kernel if form == "columns" else kernel.T, "b": cases.rows(made["b"], "ifgo")}
    text = cases.SHEET.replace('weight_ih = "w"\nweight_hh = "r"', f'{joined} = "k"')
    model = formats.load(stored(tmp_path, arrays, text.replace("rows", form)))
    x = drawn(rng)
    assert np.abs(truth(model, x) - cases.run(made, x)).max() < FLOAT64


def test_stacked_biases_and_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    made, arrays = plain(rng)
    x = drawn(rng)
    zeros = np.zeros(16, "f")
    text = cases.SHEET.replace('"one"', '"stacked"').replace("bias_ih", "bias")
    both = stored(tmp_path, arrays | {"b": np.concatenate([arrays["b"], zeros])}, text)
    model = formats.load(both)
    assert np.abs(truth(model, x) - cases.run(made, x)).max() < FLOAT64
    assert model.recurrent[0].cell.bias_hh is not None
    assert not model.recurrent[0].cell.bias_hh.any()
    made["b"] = dict.fromkeys("ifgo", np.zeros(4))
    text = cases.SHEET.replace('"one"', '"none"').replace('bias_ih = "b"', "")
    arrays.pop("b")
    model = formats.load(stored(tmp_path, arrays, text))
    assert np.abs(truth(model, x) - cases.run(made, x)).max() < FLOAT64


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ifgo.cli.main import call

    made = cases.cell(np.random.default_rng(8), 3, 4)
    path = stored(tmp_path, cases.haste(made))
    assert call(["convert", str(path), str(tmp_path / "m.ifgo"), "--sheet", "haste"]) == 0
    assert "note: haste: one LSTM layer by its parameters" in capsys.readouterr().err
    capsys.readouterr()
    assert call(["inspect", str(path)]) == 2
    said = "".join(capsys.readouterr().err.split())
    wanted = (
        f"{path}: needs a sheet that says what its arrays mean, expected w.toml, or option sheet: "
        f"a file, or one of {', '.join(SHEETS)}. FORMATS.md describes sheets"
    )
    assert "".join(wanted.split()) in said
