"""What a sheet may not say, and arrays that do not fit it: each message whole."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arrays_cases import SHEET

from ifgo import formats
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError

ARRAYS: dict[str, Any] = {
    "w": np.ones((8, 3), "f"),
    "r": np.ones((8, 2), "f"),
    "b": np.ones(8, "f"),
}
COLUMNS = SHEET.replace("rows", "columns")
KERNEL = COLUMNS.replace('weight_ih = "w"\nweight_hh = "r"', 'weight_xh = "k"')


def said(folder: Path, sheet: str, arrays: dict[str, Any] | None = None) -> str:
    """The message, without the path."""
    np.savez(folder / "w.npz", **(ARRAYS if arrays is None else arrays))
    (folder / "w.toml").write_text(sheet)
    with pytest.raises(IfgoError) as caught:
        formats.load(folder / "w.npz")
    text = str(caught.value)
    assert text.startswith(f"{folder / 'w.npz'}: ")
    return text.removeprefix(f"{folder / 'w.npz'}: ")


def changed(old: str, new: str) -> str:
    assert old in SHEET
    return SHEET.replace(old, new, 1)


F = "[layer.f"
SHEETS = {
    "unknown key": (
        changed('order = "ifgo"', 'orders = "ifgo"'),
        "w.toml: unknown key 'layer[0].orders', expected one of kind, name, repeat, step, "
        "optional, order, orientation, bias, forget_bias, peephole, activations, forward, "
        "interleaved, backward, "
        "merge, stateful, clip_z, clip_cell, clip_projection, coupling. Did you mean 'order'?",
    ),
    "no order": (
        changed('order = "ifgo"\n', ""),
        "w.toml: layer[0].order is missing, expected a string"),
    "wrong order": (
        changed('"ifgo"', '"ifco"'),
        "w.toml: layer[0].order is 'ifco', expected each of the letters i, f, g, o once, g the "
        "candidate",
    ),
    "wrong peephole": (
        changed(F, 'peephole = "ifg"\n' + F),
        "w.toml: layer[0].peephole is 'ifg', expected each of the letters i, f, o once",
    ),
    "no forget bias": (
        changed('forget_bias = "stored"\n', ""),
        "w.toml: layer[0].forget_bias is missing, expected \"stored\" where the bias holds it or "
        "there is none, or the number that is added to the forget gate at run time",
    ),
    "forget bias": (
        changed('"stored"', '"yes"'),
        "w.toml: layer[0].forget_bias is 'yes', expected \"stored\" where the bias holds it or "
        "there is none, or the number that is added to the forget gate at run time",
    ),
    "orientation": (
        changed('"rows"', '"row"'),
        "w.toml: layer[0].orientation is 'row', expected one of 'rows', 'columns', 'blocks'",
    ),
    "bias": (
        changed('"one"', '"1"'),
        "w.toml: layer[0].bias is '1', expected one of 'two', 'stacked', 'one', 'none'",
    ),
    "a bias too few": (
        changed('"one"', '"two"'),
        "w.toml: layer[0].forward names bias_ih, weight_hh, weight_ih, expected bias_hh, bias_ih, "
        "weight_hh, weight_ih, as bias = 'two' and peephole = '' say; weight_xh or weight_hx alone "
        "may stand for weight_ih and weight_hh",
    ),
    "both kernels": (
        changed('weight_ih = "w"\nweight_hh = "r"', 'weight_xh = "w"\nweight_hx = "r"'),
        "w.toml: layer[0].forward names bias_ih, weight_hx, weight_xh, expected bias_ih, "
        "weight_hh, weight_ih, as bias = 'one' and peephole = '' say; weight_xh or weight_hx "
        "alone may stand "
        "for weight_ih and weight_hh",
    ),
    "no cell": (
        SHEET[: SHEET.index(F)],
        "w.toml: layer[0] names no arrays, expected [layer.forward] or [….backward] with "
        "weight_ih, …",
    ),
    "a name that is none": (
        changed('"w"', "3"),
        "w.toml: layer[0].forward.weight_ih is '3', expected the name of an array, or a list of 4, "
        "one for each gate in order",
    ),
    "three names": (
        changed('"w"', '["w", "w", "w"]'),
        "w.toml: layer[0].forward.weight_ih is \"['w', 'w', 'w']\", expected the name of an array, "
        "or a list of 4, one for each gate in order",
    ),
    "two activations": (
        changed(F, 'activations = ["tanh", "tanh"]\n' + F),
        "w.toml: layer[0].activations has 2 entries, expected 3: of the gates, the candidate, the "
        "output",
    ),
    "a number as activation": (
        changed(F, 'activations = ["tanh", 1, "tanh"]\n' + F),
        "w.toml: layer[0].activations holds '1', expected the name of an activation, or a table: "
        "activation, alpha, beta",
    ),
    "unknown activation": (
        changed(F, 'activations = ["swish", "tanh", "tanh"]\n' + F),
        "w.toml: layer[0]: unknown activation 'swish', expected one of sigmoid, tanh, relu, "
        "linear, "
        "hard_sigmoid, leaky_relu, thresholded_relu, elu, scaled_tanh, affine, softsign, softplus, "
        "softmax",
    ),
    "no {n}": (
        changed('name = "lstm"', 'name = "lstm"\nrepeat = 0'),
        "w.toml: layer[0]: forward.weight_ih holds no {n}, expected {n} in the names of arrays "
        "of a "
        "repeated layer, and only there",
    ),
    "{n} alone": (
        changed('"w"', '"w{n}"'),
        "w.toml: layer[0]: forward.weight_ih holds {n}, expected {n} in the names of arrays of a "
        "repeated layer, and only there",
    ),
    "step alone": (
        changed('name = "lstm"', 'name = "lstm"\nstep = 3'),
        "w.toml: layer[0] has repeat None and step 3, expected repeat 0 or more, the first number; "
        "step 1 or more, with repeat only",
    ),
    "kind": (
        changed('"lstm"', '"gru"'),
        "w.toml: layer[0].kind is 'gru', expected one of 'lstm', 'embedding', 'dense', "
        "'activation', 'dropout', 'last_step', 'hidden_as_sequence', 'repeat_vector', 'flatten'",
    ),
    "version": (
        changed("version = 1", "version = 2"),
        "w.toml has version 2, expected version 1, all that this ifgo reads. Install a newer ifgo",
    ),
    "no layer": ("version = 1", "w.toml: layer is missing, expected [[layer]] tables"),
    "no layers": ("version = 1\nlayer = []", "w.toml describes no layers, expected [[layer]]"),
    "input": (
        "input = 3\n" + SHEET,
        "w.toml: input is '3', expected a table",
    ),
    "shape of an array": (
        SHEET + '[[array]]\nname = "w"\nshape = [0]',
        "w.toml: array[0].shape is [0], expected sizes of 1 or more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SHEETS))
def test_a_sheet_that_makes_no_sense(tmp_path: Path, name: str) -> None:
    sheet, message = SHEETS[name]
    assert said(tmp_path, sheet) == message


PLACE = "w.toml: layer[0]: "
DROPOUT = '[[layer]]\nkind = "dropout"\nname = "d"\nrate = 0.5\n'
SHAPES: dict[str, tuple[str, dict[str, Any], str]] = {
    "missing": (
        SHEET,
        {"w": ARRAYS["w"], "b": ARRAYS["b"]},
        PLACE + "weight_hh of layer lstm is array 'r', which is not there, expected one array of "
        "that name. There are 'w', 'b'",
    ),
    "two of a name": (
        SHEET.replace('"r"', '"r*"'),
        ARRAYS | {"r2": ARRAYS["r"]},
        PLACE + "weight_hh of layer lstm is array 'r*', which fits 'r', 'r2', expected one "
        "array of "
        "that name",
    ),
    "used twice": (
        SHEET.replace('"b"', '"r"'),
        ARRAYS,
        PLACE + "bias_ih of layer lstm is array 'r', which is weight_hh of layer lstm already, "
        "expected each array once",
    ),
    "unused": (
        SHEET,
        ARRAYS | {"x": np.zeros(1)},
        "w.toml has no use for 1 of 4 arrays: 'x', expected a layer for each. Name them in the "
        "sheet, or under ignore if they are no part of the model",
    ),
    "no zeros": (
        'zeros = ["x"]\n' + SHEET,
        ARRAYS | {"x": np.ones(1)},
        "array 'x' holds other values than 0, expected zeros, as w.toml says: it has no place in "
        "the model",
    ),
    "r, rows": (
        SHEET,
        ARRAYS | {"r": np.ones((2, 8), "f")},
        PLACE + "r has shape (2, 8), expected (4·hidden_size, hidden_size)",
    ),
    "r, width": (
        SHEET,
        ARRAYS | {"r": np.ones((8, 3), "f")},
        PLACE + "r has shape (8, 3), expected (4·hidden_size, output_size) = (8, 2)",
    ),
    "w, rows": (
        SHEET,
        ARRAYS | {"w": np.ones((12, 3), "f")},
        PLACE + "w has shape (12, 3), expected (4·hidden_size, input_size) = (8, 3)",
    ),
    "w, columns": (
        COLUMNS,
        {"w": np.ones((3, 12), "f"), "r": np.ones((2, 8), "f"), "b": ARRAYS["b"]},
        PLACE + "w has shape (3, 12), expected (input_size, 4·hidden_size) = (3, 8)",
    ),
    "w, blocks": (
        SHEET.replace("rows", "blocks"),
        {"w": np.ones((4, 3, 3), "f"), "r": np.ones((4, 2, 2), "f"), "b": ARRAYS["b"]},
        PLACE + "w has shape (4, 3, 3), expected (4, input_size, hidden_size) = (4, 3, 2)",
    ),
    "b": (
        SHEET,
        ARRAYS | {"b": np.ones(9, "f")},
        PLACE + "b has shape (9,), expected (4·hidden_size,) = (8,)",
    ),
    "kernel of three dimensions": (
        KERNEL,
        {"k": np.ones((3, 8, 1), "f"), "b": ARRAYS["b"]},
        PLACE + "k has shape (3, 8, 1), expected (input_size + hidden_size, 4·hidden_size)",
    ),
    "kernel of 3 blocks": (
        KERNEL,
        {"k": np.ones((5, 6), "f"), "b": ARRAYS["b"]},
        PLACE + "k has shape (5, 6), expected (input_size + hidden_size, 4·hidden_size)",
    ),
    "kernel without inputs": (
        KERNEL,
        {"k": np.ones((16, 64), "f"), "b": ARRAYS["b"]},
        PLACE + "k has shape (16, 64), expected (input_size + output_size, 4·hidden_size)",
    ),
    "a gate of another shape": (
        COLUMNS.replace('"w"', '["w", "x", "w2", "w3"]'),
        ARRAYS | {name: np.ones((3, 2 + (name == "x")), "f") for name in ("w", "x", "w2", "w3")}
        | {"r": np.ones((2, 8), "f")},
        PLACE + "x has shape (3, 3), expected (input_size, hidden_size) = (3, 2)",
    ),
    "gates of another shape": (
        COLUMNS.replace('"w"', '["w", "w1", "w2", "w3"]'),
        ARRAYS | {name: np.ones((3, 5), "f") for name in ("w", "w1", "w2", "w3")}
        | {"r": np.ones((2, 8), "f")},
        PLACE + "w, w1, w2, w3 has shape (3, 5), expected (input_size, hidden_size) = (3, 2)",
    ),
    "NaN": (
        SHEET,
        ARRAYS | {"b": np.full(8, np.nan, "f")},
        PLACE + "bias_ih[0] is nan, expected finite values. Train or export the model again: a NaN "
        "or infinity never computes",
    ),
    "no number of inputs": (
        SHEET.replace("[[layer]]", f"{DROPOUT}[[layer]]"),
        ARRAYS,
        "the first layer says no number of inputs, expected size under [input] in the sheet",
    ),
    "another number of inputs": (
        SHEET.replace("[[layer]]", "[input]\nsize = 5\n[[layer]]"),
        ARRAYS,
        "layer lstm: receives 5 features, expected 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SHAPES))
def test_arrays_that_do_not_fit(tmp_path: Path, name: str) -> None:
    sheet, arrays, message = SHAPES[name]
    assert said(tmp_path, sheet, arrays) == message


def test_a_dense_layer_that_does_not_fit(tmp_path: Path) -> None:
    dense = (
        '\n[[layer]]\nkind = "dense"\nname = "o"\norientation = "columns"\nweight = "d"\nbias = "e"'
    )
    place = "w.toml: layer[1]: "
    arrays = ARRAYS | {"d": np.ones((2, 5), "f"), "e": np.ones(4, "f")}
    assert said(tmp_path, SHEET + dense, arrays) == (
        place + "e has shape (4,), expected (outputs,) = (5,)"
    )
    arrays = ARRAYS | {"d": np.ones(5, "f"), "e": np.ones(4, "f")}
    assert said(tmp_path, SHEET + dense, arrays) == (
        place + "d has shape (5,), expected (inputs, outputs)"
    )


# -- files ----------------------------------------------------------------------------------------

DECLARED = '\n[[array]]\nname = "w"\nshape = [8, 3]\n'


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    sheet = tmp_path / "s.toml"

    def load(name: str, content: bytes, text: str = SHEET) -> str:
        sheet.write_text(text)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(IfgoError) as caught:
            formats.load(tmp_path / name, sheet=str(sheet))
        return str(caught.value).removeprefix(f"{tmp_path / name}: ")

    assert load("w.h5", b"") == (
        "ends in '.h5', expected one of .npz, .npy, .json, .pkl, .bin, .txt, or a folder"
    )
    assert load("w.bin", bytes(8)) == (
        "w.bin has no header, and s.toml declares no arrays, expected [[array]] with name and "
        "shape for each, in the order of the file"
    )
    assert load("w.bin", bytes(7), SHEET + DECLARED) == (
        "w.bin has 7 bytes, expected a multiple of 4, the size of float32"
    )
    assert load("w.bin", bytes(8), SHEET + DECLARED) == (
        "w.bin has 2 numbers, expected 24 = 8·3, as s.toml declares"
    )
    assert load("w.bin", bytes(192), SHEET + DECLARED * 2) == (
        "s.toml declares array 'w' twice, expected each once"
    )
    assert load("w.json", b'{"w": {"dim": [2, 3], "data": [1, 2]}}') == (
        "w has 2 numbers for dim [2, 3], expected as many as that shape has"
    )
    assert load("w.json", b'{"w": [1e39]}') == (
        "w holds a number that is infinite in float32, expected finite float32 numbers"
    )
    assert load("w.txt", b"1 2 x", SHEET + DECLARED) == (
        "w.txt: line 1 holds 'x', expected a decimal number. A number looks like -1.5e-3, and has "
        "a point, no comma"
    )


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "sheet.toml").write_text(SHEET)

    def load() -> str:
        with pytest.raises(FormatError) as caught:
            formats.load(tmp_path)
        return str(caught.value).removeprefix(f"{tmp_path}: ")

    (tmp_path / "w.bin").write_bytes(bytes(4))
    assert load() == (
        "w.bin has no header, and sheet.toml no [[array]] 'w', expected its name and shape there"
    )
    np.save(tmp_path / "w.npy", ARRAYS["w"])
    (tmp_path / "sheet.toml").write_text(SHEET + '\n[[array]]\nname = "w"\nshape = [1]\n')
    assert load() == "holds array 'w' twice, expected one file for each"


def test_sheets_that_are_not_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **ARRAYS)
    with pytest.raises(UsageError) as caught:
        formats.load(tmp_path / "w.npz", sheet="tf2")
    text = str(caught.value)
    assert text.startswith(
        f"{tmp_path / 'w.npz'}: option sheet is 'tf2', and there is no such file, expected a file, "
        "or one of burn, chainer, chainer_nstep, "
    )


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("kind", ["pkl", "npy"])
def test_a_pickle_that_runs_code_runs_none(tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / f"w.{kind}"
    tree = ARRAYS | {"bomb": _Bomb(mark)}
    if kind == "pkl":
        path.write_bytes(pickle.dumps(tree))
    else:
        np.save(path, np.array([tree], object), allow_pickle=True)
    text = SHEET if kind == "pkl" else SHEET.replace('"w"', '"0.w"').replace('"r"', '"0.r"')
    (tmp_path / "w.toml").write_text(text.replace('"b"', '"0.b"' if kind == "npy" else '"b"'))
    assert formats.load(path).recurrent[0].hidden_size == 2
    assert not mark.exists()


def test_objects_in_an_npz(tmp_path: Path) -> None:
    text = said(tmp_path, SHEET, ARRAYS | {"b": np.array([None], object)})
    assert text == (
        "b: holds Python objects (a pickle), which could run code, expected real numbers. Convert "
        "it with numpy.asarray(x, dtype=float) and save that"
    )


def test_a_newer_sheet_is_unsupported(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **ARRAYS)
    (tmp_path / "w.toml").write_text("version = 9")
    with pytest.raises(UnsupportedError):
        formats.load(tmp_path / "w.npz")
