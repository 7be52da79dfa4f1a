"""Raw tensor folders: both layouts and encodings come back, the original files load."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_cases import cell, chain, fill, kinds, lstm_files, models, same, weights

from ifgo import formats
from ifgo.formats import raw
from ifgo.model import (
    Activation,
    Dense,
    LastStep,
    Output,
    Recurrent,
)
from ifgo.reference import truth

SEED = Path(__file__).parents[2].parent / "shared" / "models" / "seed_lstm16161_keras"
needs_seed = pytest.mark.skipif(
    not SEED.is_dir(), reason="the original tensor files are not at ../shared/models"
)
BOTH = pytest.mark.parametrize("layout", ["A", "B"])
EACH = pytest.mark.parametrize("encoding", ["txt", "bin"])


# -- what comes back ------------------------------------------------------------------------------


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
    same(formats.load(folder), model)
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
        same(formats.load(tmp_path / encoding), model)
    for path in (SEED / "Weight_txt").iterdir():
        floats = np.array(path.read_text().split(), np.float64).astype("<f4")
        assert (tmp_path / "bin" / f"{path.stem}.bin").read_bytes() == floats.tobytes()


@needs_seed
@pytest.mark.parametrize(("name", "printed"), [("normal", "-0.840013"), ("anormal", "0.074057")])
def test_the_original_files_give_the_printed_results(name: str, printed: str) -> None:
    model = formats.load(SEED / "Weight_txt")
    x = np.array((SEED / f"{name}.txt").read_text().split(), np.float64).reshape(1, 128, 1)
    assert f"{truth.forward(model, x).y.item():.6f}" == printed
