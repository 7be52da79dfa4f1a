"""Limits: what is beyond one is refused by its name, and is read where an argument raises it."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_arrays
import hostile_graphs
import numpy as np
import pytest
from hostile_cases import FORMATS
from onnx import numpy_helper
from raising import raising

import ifgo
from ifgo import limits
from ifgo.cell import LSTMCell
from ifgo.cli.main import call
from ifgo.errors import IfgoError, UsageError
from ifgo.formats import list_layers
from ifgo.layers import Dropout, LastStep, Recurrent, RepeatVector
from ifgo.limits import Limits
from ifgo.model import FeatureInput, Model

Write = Callable[[Path], Path]

CELL = LSTMCell(np.ones((4, 2), "f"), np.ones((4, 1), "f"), np.ones(4, "f"))
LSTM = Recurrent("lstm", CELL)
PAIR = FeatureInput(2)


def refusal(path: Path, **how: Any) -> str:
    with pytest.raises(IfgoError) as caught:
        ifgo.load(path, **how)
    return str(caught.value).replace(str(path), "FILE").replace(str(path.parent), "FOLDER")


def native(build: Callable[[], Model]) -> Write:
    """An .ifgo file that only raised limits let be made."""

    def write(folder: Path) -> Path:
        every = {name: 2**30 for name in limits.NAMES}
        with limits.using(Limits(**every)):
            ifgo.save(build(), folder / "m.ifgo")
        return folder / "m.ifgo"

    return write


def projected() -> Model:
    shapes = ((4 * 8193, 1), (4 * 8193, 1))
    weights = [np.zeros(shape, "f") for shape in shapes]
    cell = LSTMCell(*weights, weight_hr=np.zeros((1, 8193), "f"))
    return Model((FeatureInput(1),), (Recurrent("lstm", cell),))


def wide() -> Model:
    cell = LSTMCell(np.zeros((4, 65537), "f"), np.ones((4, 1), "f"))
    return Model((FeatureInput(65537),), (Recurrent("lstm", cell),))


def intact(name: str) -> Write:
    return next(form.intact for form in FORMATS if form.name == name)


def padded(name: str, place: str, comment: bytes) -> Write:
    """The intact model with a file of it made longer by a comment."""

    def write(folder: Path) -> Path:
        path = intact(name)(folder)
        file = folder / place
        file.write_bytes(file.read_bytes() + comment)
        return path

    return write


def _with_arrays(count: int) -> Write:
    def write(folder: Path) -> Path:
        extra = {f"x{k}": np.zeros(1, "f") for k in range(count - 3)}
        arrays = hostile_arrays._arrays() | extra
        sheet = 'ignore = ["x*"]\n' + hostile_arrays.SHEET
        return hostile_arrays._pair(sheet, hostile_arrays._npz(arrays))(folder)

    return write


BROKEN: dict[str, tuple[Write, str]] = {
    "layers": (
        native(lambda: Model((PAIR,), (*(Dropout(f"d{k}", 0.5) for k in range(64)), LSTM))),
        "FILE: the model has 65 layers, expected at most 64",
    ),
    "name_chars": (
        native(lambda: Model((PAIR,), (Recurrent("n" * 257, CELL),))),
        "FILE: a layer of kind lstm has a name of 257 characters, expected 1 to 256",
    ),
    "hidden_size": (
        native(projected),
        "FILE: layers[0].forward: hidden_size is 8193, expected at most 8192",
    ),
    "input_size": (
        native(wide),
        "FILE: layers[0].forward: input_size is 65537, expected at most 65536",
    ),
    "steps": (
        native(
            lambda: Model(
                (PAIR,), (LSTM, LastStep("last", "sequence"), RepeatVector("r", 10**7 + 1))
            )
        ),
        "FILE: layers[2]: layer r: repeats 10000001 times, expected 1 to 10000000",
    ),
    "toml_bytes": (
        padded("raw", "m/model.toml", b"#" * 2**17),
        "FILE/model.toml: has 131510 bytes, expected at most 131072 bytes",
    ),
    "cfg_bytes": (
        padded("darknet", "m.cfg", b"#" * 2**20),
        "FILE, its m.cfg: has 1048661 bytes, expected at most 1048576 bytes",
    ),
    "nodes": (
        hostile_graphs.saved(hostile_graphs._chain("Identity", 20_000)),
        "FILE: has 20007 nodes, expected at most 20000",
    ),
    "arrays": (
        _with_arrays(1025),
        "FILE: holds more than 1024 arrays, expected at most 1024. Split the file",
    ),
}
"""Limit → a file beyond it, and the message."""


@pytest.mark.parametrize("name", list(BROKEN))
def test_beyond_a_limit(name: str, tmp_path: Path) -> None:
    write, says = BROKEN[name]
    path = write(tmp_path)
    assert refusal(path) == says + raising(name)
    assert ifgo.load(path, limits=Limits(**{name: 2**27})).layers
    assert refusal(path) == says + raising(name)


def _compressed(folder: Path) -> Path:
    path = hostile_arrays._pair('ignore = ["x"]\n' + hostile_arrays.SHEET)(folder)
    np.savez_compressed(path, **hostile_arrays._arrays() | {"x": np.zeros(10_000, "f")})
    return path


def _packed(made: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(0, np.int64), "spare")
    tensor.ClearField("raw_data")
    tensor.int64_data.extend([0] * 5000)
    tensor.dims[:] = [5000]
    made.graph.initializer.append(tensor)


def _nested(folder: Path) -> Path:
    data = pickle.dumps({"p": {"q": hostile_arrays._arrays()}}, 3)
    sheet = hostile_arrays.SHEET
    for key in "wrb":
        sheet = sheet.replace(f'"{key}"', f'"p.q.{key}"')
    return hostile_arrays._pair(sheet, data, "m.pkl")(folder)


FEW = ", expected an LSTM chain, which has a few thousand"
LOWERED: dict[str, tuple[Write, dict[str, int], str]] = {
    "file_bytes": (intact("onnx"), {}, "FILE: has 821 bytes, expected at most 1 bytes"),
    "elements": (
        intact("onnx"),
        {},
        "FILE: initializer 'lstm0.W' declares 24 elements, expected at most 1",
    ),
    "vocabulary": (
        intact("darknet"),
        {},
        "FILE, its m.cfg: layer 1 [connected]: output is 2, expected at most 1",
    ),
    "json_bytes": (
        intact("safetensors"),
        {},
        "FILE: its header has 496 bytes, expected at most 1",
    ),
    "json_file_bytes": (intact("nam"), {}, "FILE: has 1378 bytes, expected at most 1 bytes"),
    "json_values": (
        intact("nam"),
        {"json_bytes": 1},
        "FILE: it holds 63 commas, expected at most 1",
    ),
    "json_lists": (
        intact("rtneural"),
        {"json_bytes": 1},
        "FILE: it holds 18 lists, expected at most 1",
    ),
    "json_keys": (intact("nam"), {"json_bytes": 1}, "FILE: it holds 13 colons, expected at most 1"),
    "toml_depth": (
        intact("arrays"),
        {},
        "FILE: m.toml line 11 holds 'layer.', expected keys of at most 1 parts. "
        "In a string, write each dot as \\u002E",
    ),
    "text_numbers": (
        intact("stm32_text"),
        {},
        "FILE: has more than 1 numbers, expected at most that many. "
        "Save them as binary, .npy or a .bin tensor",
    ),
    "text_bytes": (intact("stm32_text"), {}, "FILE: has 998 bytes, expected at most 1 bytes"),
    "expansion_bytes": (
        _compressed,
        {},
        "FILE: has 994 bytes and unpacks to 40704, expected at most 1 more than it has. "
        "Write it with numpy.savez, which does not compress",
    ),
    "members": (
        intact("torch"),
        {},
        "FILE: lists more than 1 members, expected one per tensor, and a few",
    ),
    "folded_elements": (
        intact("onnx"),
        {},
        "FILE: node 'transpose': attribute perm lists 3 values, expected at most 1. "
        "Keep numbers in a tensor",
    ),
    "folded_bytes": (
        hostile_graphs.saved(hostile_graphs._folding("Add", 1, 2**10)),
        {},
        "FILE: node #8: folds more constants than the file could need, expected at most 1 bytes, "
        "and 4 times those of its weights",
    ),
    "inputs": (
        hostile_graphs.saved(hostile_graphs._states(1)),
        {},
        "FILE: has 3 inputs, expected at most 1",
    ),
    "fields": (intact("onnx"), {}, "FILE: has more than 1 fields or 131072 parts" + FEW),
    "messages": (intact("onnx"), {}, "FILE: has more than 524288 fields or 1 parts" + FEW),
    "packed_bytes": (
        hostile_graphs.saved(_packed),
        {},
        "FILE: holds packed integers that unpack to more than 40000 bytes, expected tensors as raw "
        "data. Write them with onnx.numpy_helper.from_array",
    ),
    "tables": (
        intact("tflite"),
        {},
        "FILE: Model, field 1 lists 3 tables, expected at most 1 in all",
    ),
    "pickle_steps": (
        intact("dlfs2"),
        {},
        "FILE: is a pickle of more than 1 steps, expected arrays, and little beside them",
    ),
    "pickle_depth": (
        _nested,
        {},
        "FILE: is a pickle of too many or too deep parts, expected at most 1024 arrays, "
        "65536 parts, 1 levels deep",
    ),
    "parts": (
        _nested,
        {},
        "FILE: is a pickle of too many or too deep parts, expected at most 1024 arrays, "
        "1 parts, 32 levels deep",
    ),
    "hdf5_steps": (
        intact("keras h5"),
        {},
        "FILE: is damaged, or holds more objects than any model, expected at most 1. "
        "Save it again with Keras, or with h5py and its default options",
    ),
}
"""Limit → a file beyond it once it is 1, the other limits that show it, and the message. A file
beyond the limit as it is would take gigabytes, or minutes to write."""

SEVERAL = {
    "fields": ("fields", "messages"),
    "messages": ("fields", "messages"),
    "pickle_depth": ("arrays", "parts", "pickle_depth"),
    "parts": ("arrays", "parts", "pickle_depth"),
}
"""Limits that one message names together."""


@pytest.mark.parametrize("name", list(LOWERED))
def test_beyond_a_lower_limit(name: str, tmp_path: Path) -> None:
    write, others, says = LOWERED[name]
    path = write(tmp_path)
    assert refusal(path, limits=Limits(**{name: 1}, **others)) == says + raising(
        *SEVERAL.get(name, (name,))
    )
    assert ifgo.load(path, limits=Limits(**others)).layers


def test_every_limit() -> None:
    assert sorted((*BROKEN, *LOWERED)) == sorted(limits.NAMES)


def test_raised_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = BROKEN["layers"][0](tmp_path)
    assert call(["inspect", str(path)]) == 4
    assert raising("layers")[2:] in " ".join(capsys.readouterr().err.split())
    assert call(["inspect", str(path), "--limit", "layers=65"]) == 0
    out = tmp_path / "copy.ifgo"
    assert call(["convert", str(path), str(out), "--limit", "layers=65"]) == 0
    assert len(ifgo.load(out, limits=Limits(layers=65)).layers) == 65


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (("depth=3",), "no limit is named 'depth', expected one of " + ", ".join(limits.NAMES)),
        (("layers=1", "layers=2"), "limit layers is given twice, expected each limit once"),
        (("layers",), "limit layers is '', expected a whole number, as 1000"),
        (("layers=x",), "limit layers is 'x', expected a whole number, as 1000"),
        (("layers=-1",), "limit layers is '-1', expected a whole number, as 1000"),
        (("layers=0",), "limit layers is 0, expected a whole number from 1 to 2147483647"),
        (
            ("file_bytes=9223372036854775808",),
            "limit file_bytes is 9223372036854775808, expected a whole number from 1 to "
            "4611686018427387904",
        ),
    ],
)
def test_limits_that_are_none(
    entries: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        limits.parse(entries)
    assert str(caught.value) == says
    assert call(["inspect", "x", *(f"--limit={entry}" for entry in entries)]) == 2
    assert says[:30] in capsys.readouterr().err


def test_limits_that_are_no_limits(tmp_path: Path) -> None:
    path = intact("native")(tmp_path)
    with pytest.raises(UsageError) as caught:
        ifgo.load(path, limits={"layers": 1})  # type: ignore[arg-type]
    assert str(caught.value) == "limits is a dict, expected ifgo.Limits, as Limits(layers=100)"
    with pytest.raises(UsageError, match="limit layers is True, expected a whole number"):
        Limits(layers=True)


def test_only_an_argument_raises_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment, nor another thread, nor an earlier call."""
    path = BROKEN["layers"][0](tmp_path)
    for name in ("LAYERS", "IFGO_LAYERS", "IFGO_LIMIT_LAYERS", "IFGO_LIMITS"):
        monkeypatch.setenv(name, "layers=100")
    seen: list[int] = []
    with limits.using(Limits(layers=100)):
        thread = threading.Thread(target=lambda: seen.append(limits.current().layers))
        thread.start()
        thread.join()
        assert limits.current().layers == 100
        assert list_layers(path).names
    assert seen == [64]
    with pytest.raises(IfgoError):
        ifgo.load(path, limits=Limits(layers=64))
    assert limits.current() is limits.DEFAULTS
    assert refusal(path).startswith("FILE: the model has 65 layers")
    assert list_layers(path, limits=Limits(layers=65)).names
