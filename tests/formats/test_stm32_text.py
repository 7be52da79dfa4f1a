"""Gate blocks as text: the recipe by hand, and what comes of its rounding."""

from __future__ import annotations

import shutil
import subprocess
from itertools import permutations
from pathlib import Path
from typing import Any

import arrays_cases as cases
import numpy as np
import pytest
from presence import missing
from raising import raising

from ifgo import formats, gates
from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, UnsupportedError, UsageError
from ifgo.layers import Dense, Recurrent
from ifgo.model import FeatureInput, Model

FLOAT64 = 1e-12
"""Two float64 computations of a few dozen terms each."""


def recipe(made: cases.Cell, *, bias: bool) -> Any:
    """As the recipe has it: slices of kernel and recurrent kernel, concatenated on axis 0."""
    flat: list[Any] = []
    for key in "WR":
        kernel = cases.columns(made[key], "ifgo")
        units = kernel.shape[1] // 4
        w1, w2, w3, w4 = (kernel[:, k * units : (k + 1) * units] for k in range(4))
        flat.append(np.concatenate((w1, w2, w3, w4), axis=0).reshape(-1))
    return np.concatenate([*flat, *([cases.rows(made["b"], "ifgo")] if bias else [])])


def text(path: Path, numbers: Any) -> Path:
    path.write_text("\n".join(map(str, numbers)))
    return path


def made(bias: bool) -> cases.Cell:
    cell = cases.cell(np.random.default_rng(1), 3, 4)
    if not bias:
        cell["b"] = dict.fromkeys("ifgo", np.zeros(4))
    return cell


X = np.random.default_rng(2).normal(0, 1, (5, 3)).astype("f")


@pytest.mark.parametrize("bias", [False, True])
def test_a_text_computes_what_its_numbers_mean(tmp_path: Path, bias: bool) -> None:
    cell = made(bias)
    path = text(tmp_path / "w.txt", recipe(cell, bias=bias))
    model = formats.load(path, shape="3,4")
    assert np.abs(model.run(X, on="truth")[0] - cases.run(cell, X)).max() < FLOAT64
    assert (model.recurrent[0].cell.bias_ih is not None) == bias


def test_wrong_gate_orders_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = made(True)
    path = text(tmp_path / "w.txt", recipe(cell, bias=True))
    expected, seen = cases.run(cell, X), 0
    for order in permutations("ifgo"):
        layout = gates.GateLayout("".join(order), "columns", "none")
        monkeypatch.setitem(gates.LSTM_LAYOUTS, "stm32_text", layout)
        error = np.abs(formats.load(path, shape="3,4").run(X, on="truth")[0] - expected).max()
        assert (error < FLOAT64) == (layout.order == "ifgo")
        seen += error > 1e-3
    assert seen == 23


@pytest.mark.parametrize("ending", ["txt", "h"])
@pytest.mark.parametrize("bias", [False, True])
def test_numbers_come_back(tmp_path: Path, ending: str, bias: bool) -> None:
    numbers = recipe(made(bias), bias=bias)
    model = formats.load(text(tmp_path / "w.txt", numbers), shape="3,4")
    path = tmp_path / f"again.{ending}"
    assert formats.save(model, path, "stm32_text").exact
    again = formats.load(path, shape="3,4" if ending == "txt" else None)
    assert [a.tobytes() for a in again.arrays.values()] == [
        a.tobytes() for a in model.arrays.values()
    ]
    if ending == "txt":
        assert np.array_equal(np.loadtxt(path, np.float32), numbers.astype("f"))


def test_a_header_cut_anywhere(tmp_path: Path) -> None:
    """Biases come last: without them the numbers would still be an LSTM."""
    model = formats.load(text(tmp_path / "w.txt", recipe(made(True), bias=True)), shape="3,4")
    formats.save(model, tmp_path / "w.h", "stm32_text")
    whole = (tmp_path / "w.h").read_bytes()
    for end in range(whole.rindex(b"}")):
        (tmp_path / "w.h").write_bytes(whole[:end])
        with pytest.raises(FormatError):
            formats.load(tmp_path / "w.h", "stm32_text")


def test_a_header_is_c(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or missing("cc", "a C compiler")
    numbers = np.concatenate([recipe(made(True), bias=True)[:-1], [3.0]])
    model = formats.load(text(tmp_path / "w.txt", numbers), shape="3,4")
    formats.save(model, tmp_path / "w.h", "stm32_text")
    (tmp_path / "m.c").write_text(
        '#include <stdio.h>\n#include "w.h"\n#include "w.h"\nint main(void) {\n'
        "    for (int k = 0; k < 4 * LSTM_INPUT_SIZE * LSTM_HIDDEN_SIZE; k++)\n"
        '        printf("%.9g\\n", lstm_win[k]);\n'
        "    for (int k = 0; k < 4 * LSTM_HIDDEN_SIZE * LSTM_HIDDEN_SIZE; k++)\n"
        '        printf("%.9g\\n", lstm_wrec[k]);\n'
        "    for (int k = 0; k < 4 * LSTM_HIDDEN_SIZE; k++)\n"
        '        printf("%.9g\\n", lstm_bias[k]);\n    return 0;\n}\n'
    )
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([compiler, *flags, "m.c", "-o", "m"], cwd=tmp_path, check=True)
    out = subprocess.run([str(tmp_path / "m")], capture_output=True, check=True, text=True).stdout
    assert np.array_equal(np.array(out.split(), np.float32), numbers.astype("f"))


def test_rounding_is_named_with_its_largest_error(tmp_path: Path) -> None:
    numbers = recipe(made(False), bias=False)
    model = formats.load(text(tmp_path / "w.txt", numbers), shape="3,4")
    rounded = np.array([f"{float(v):.4f}" for v in numbers]).astype("f")
    errors = np.abs(rounded.astype(float) - numbers)
    win, wrec = float(errors[:48].max()), float(errors[48:].max())
    target = tmp_path / "out.txt"
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, target, "stm32_text", decimals=4)
    assert str(caught.value) == (
        f"{target}: A text of gate blocks cannot hold layer lstm: weight_ih rounded to 4 decimals, "
        f"off by up to {win:.3g}; layer lstm: weight_hh rounded to 4 decimals, off by up to "
        f"{wrec:.3g}. Permit it with --allow-lossy decimals, or write an .ifgo file, which holds "
        "every model"
    )
    assert not target.exists()
    report = formats.save(model, target, "stm32_text", decimals=4, allow_lossy=True)
    assert max(win, wrec) < 5.1e-5  # half of the last decimal, and a float32 rounding
    assert report.lost == (
        f"layer lstm: weight_ih rounded to 4 decimals, off by up to {win:.3g}",
        f"layer lstm: weight_hh rounded to 4 decimals, off by up to {wrec:.3g}",
    )
    assert np.array_equal(np.loadtxt(target, np.float32), rounded)


def test_numbers_of_a_type_that_cuts_them(tmp_path: Path) -> None:
    path = tmp_path / "w.h"
    path.write_text("static const int8_t w[8] = {0.5, 1, 1, 1, 1, 1, 1, 1};")
    with pytest.raises(FormatError) as caught:
        formats.load(path, "stm32_text", shape="1,1")
    assert str(caught.value) == (
        f"{path}: declares numbers of type int8_t, expected float or double"
    )


def test_all_that_a_text_cannot_hold_stands_in_one_message(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> Any:
        return rng.normal(0, 1, shape).astype("f")

    one = Recurrent("a", LSTMCell(draw(8, 3), draw(8, 2), peephole=draw(3, 2)), stateful=True)
    two = Recurrent("b", LSTMCell(draw(8, 2), draw(8, 2)))
    model = Model((FeatureInput(3),), (one, two, Dense("d", draw(2, 2))))
    target = tmp_path / "w.h"
    with pytest.raises(UnsupportedError) as caught:
        formats.save(model, target, "stm32_text")
    assert str(caught.value) == (
        f"{target}: A text of gate blocks cannot hold layer d: dense; layer b: a second lstm; "
        "layer a: peephole; layer a: stateful. Write an .ifgo file, which holds every model"
    )


def nested(values: Any) -> str:
    """A C initialiser with braces around each row."""
    if values.ndim == 1:
        return "{" + ", ".join(f"{value}f" for value in values) + "}"
    return "{" + ",\n".join(map(nested, values)) + ",}"


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("form", ["const float {}", "static const float {} PROGMEM"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_arrays_in_c_with_braces_around_rows(
    tmp_path: Path, axes: int, form: str, newline: str
) -> None:
    cell = made(True)
    numbers = recipe(cell, bias=True)
    parts = np.split(numbers, [48, 112])
    shapes = {1: ((-1,),) * 3, 2: ((12, 4), (16, 4), (4, 4)), 3: ((4, 3, 4), (4, 4, 4), (4, 4))}
    lines = ["/* {w} and 1.5 */"]
    for name, part, shape in zip("wub", parts, shapes[axes], strict=True):
        lines.append(f"{form.format(name + '[]')} = {nested(part.reshape(shape))}; // {name}")
    path = tmp_path / "w.c"
    path.write_bytes(newline.join("\n".join(lines).split("\n")).encode())
    model = formats.load(path, "stm32_text", shape="3,4")
    assert np.abs(model.run(X, on="truth")[0] - cases.run(cell, X)).max() < FLOAT64


DEFINES = b"#define LSTM_INPUT_SIZE 2\n#define LSTM_HIDDEN_SIZE 5\n#define LSTM_BIASES 0\n"
REFUSED: dict[str, tuple[bytes, str | None, type[Exception], str]] = {
    "no shape": (
        b"1 2",
        None,
        UsageError,
        "does not say its sizes, expected option shape: input_size,hidden_size, such as 16,32",
    ),
    "no numbers in the shape": (
        b"1 2",
        "3x4",
        UsageError,
        "option shape is '3x4', expected input_size,hidden_size, such as 16,32",
    ),
    "too large": (
        b"1",
        "3,9000",
        FormatError,
        "hidden_size is 9000, expected 1 to 8192" + raising("hidden_size"),
    ),
    "a count that does not fit": (
        b"1 2 3",
        "3,4",
        FormatError,
        "has 3 numbers, expected 112 = 4·3·4 + 4·4·4, or 128 with 4·4 biases",
    ),
    "another shape than the file's": (
        DEFINES + b"{1}",
        "3,4",
        UsageError,
        "option shape is '3,4', but the file defines 2,5, expected no option shape, or the same",
    ),
    "half of the sizes": (
        DEFINES[:26] + b"{1}",
        "3,4",
        FormatError,
        "defines LSTM_INPUT_SIZE, expected LSTM_INPUT_SIZE, LSTM_HIDDEN_SIZE, LSTM_BIASES, each "
        "once. Or remove them, and give the sizes by option shape",
    ),
    "four blocks": (
        b"{1} {2} {3} {4}",
        "1,1",
        FormatError,
        "holds 4 C arrays, expected 2 or 3: input, recurrent and perhaps bias numbers of one LSTM. "
        "Join the gates i, f, c, o of each into one array, in that order",
    ),
    "biases before the matrices": (
        b"{1 2 3 4} {1 2 3 4 5 6 7 8} {1 2 3 4}",
        "2,1",
        FormatError,
        "holds C arrays of 4, 8, 4 numbers, expected 8, 4, 4: input, recurrent, bias. Put them in "
        "that order",
    ),
    "recurrent before input": (
        b"{1 2 3 4} {1 2 3 4 5 6 7 8}",
        "2,1",
        FormatError,
        "holds C arrays of 4, 8 numbers, expected 8, 4, 4: input, recurrent, bias. Put them in "
        "that order",
    ),
    "braces that close nothing": (
        b"{1 2 3 4} }",
        "1,1",
        FormatError,
        "has braces that are not closed. The file is cut short",
    ),
    "open braces": (
        b"{1} {2",
        "1,1",
        FormatError,
        "has braces that are not closed. The file is cut short",
    ),
    "biases that are not there": (
        DEFINES.replace(b"SIZE 2", b"SIZE 1").replace(b"SIZE 5", b"SIZE 1").replace(b" 0", b" 4")
        + b"{1 2 3 4} {1 2 3 4}",
        None,
        FormatError,
        "holds 0 biases and defines LSTM_BIASES 4, expected as many as it says",
    ),
    "a word": (
        b"1 2 x",
        "3,4",
        FormatError,
        "line 1 holds 'x', expected a decimal number. A number looks like -1.5e-3, and has a "
        "point, no comma",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_text_that_is_no_lstm(tmp_path: Path, case: str) -> None:
    content, shape, kind, message = REFUSED[case]
    path = tmp_path / "w.txt"
    path.write_bytes(content)
    with pytest.raises(kind) as caught:
        formats.load(path, "stm32_text", shape=shape)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("decimals", [-1, 21, True, "4"])
def test_decimals_that_are_none(tmp_path: Path, decimals: Any) -> None:
    model = formats.load(text(tmp_path / "w.txt", recipe(made(False), bias=False)), shape="3,4")
    with pytest.raises(UsageError) as caught:
        formats.save(model, tmp_path / "o.txt", "stm32_text", decimals=decimals)
    assert str(caught.value) == (
        f"option decimals is {str(decimals)!r}, expected a whole number from 0 to 20"
    )


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ifgo.cli.main import call

    path = text(tmp_path / "w.txt", recipe(made(True), bias=True))
    target = tmp_path / "w.h"
    options = ["--shape", "3,4", "--to", "stm32_text", "--decimals", "3"]
    options += ["--allow-lossy", "decimals"]
    assert call(["convert", str(path), str(target), *options]) == 0
    assert "rounded to 3 decimals, off by up to" in capsys.readouterr().out
    assert call(["inspect", str(target)]) == 0
    assert "from stm32_text" in capsys.readouterr().out
