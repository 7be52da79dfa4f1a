"""What an ONNX model takes from outside its file: external data, bound inputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, helper
from onnx_cases import SIZE, UNITS, assert_same, lstm_weights, one_lstm, random, refuse_file, save
from raising import raising

import ifgo
from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError, UsageError
from ifgo.formats import onnx as room

# -- external data ----------------------------------------------------------------------------


def outside(folder: Path, **entry: Any) -> Path:
    """A model whose W lies in weights.bin, as `entry` describes it."""
    made = one_lstm()
    tensor = made.graph.initializer[0]
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    external_data_helper.set_external_data(tensor, **({"location": "weights.bin"} | entry))
    tensor.ClearField("raw_data")
    return save(made, folder)


@pytest.mark.parametrize("entry", [{}, {"offset": 0, "length": 192}])
def test_external_data(entry: dict[str, int], tmp_path: Path) -> None:
    model = room.read(outside(tmp_path, **entry))
    assert_same(model, room.read(save(one_lstm(), tmp_path, "inside.onnx")))


def test_external_data_at_an_offset(tmp_path: Path) -> None:
    path = outside(tmp_path, offset=64)
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(b"x" * 64 + data + b"y" * 7)
    assert_same(room.read(path), room.read(save(one_lstm(), tmp_path, "inside.onnx")))


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "/etc/passwd",
        "sub/../../secret.bin",
        "link.bin",
        "none.bin",
        "",
        ".",
        "a\0b",
    ],
)
def test_external_data_elsewhere(location: str, tmp_path: Path) -> None:
    """Nothing outside the folder is read, also not through a link."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 192)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    refuse_file(
        outside(folder, location=location),
        FormatError,
        f"node 'n_Y': initializer 'W' keeps its data in {location!r}, expected a file inside the "
        "model's own folder. Keep the data file beside the model",
    )


def test_external_data_through_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bin")
    with pytest.raises(FormatError, match=r"keeps its data in 'pipe\.bin'"):
        room.read(outside(tmp_path, location="pipe.bin"))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"offset": 1}, "'' bytes from '1'"),
        ({"length": 100}, "'100' bytes from '0'"),
        ({"length": 2**60}, f"'{2**60}' bytes from '0'"),
        ({"offset": -1}, "'' bytes from '-1'"),
    ],
)
def test_external_data_that_lies(entry: dict[str, int], words: str, tmp_path: Path) -> None:
    refuse_file(
        outside(tmp_path, **entry),
        FormatError,
        f"node 'n_Y': initializer 'W' says it has {words} of 'weights.bin', expected 192 bytes "
        "that are there. The data file does not belong to this model",
    )


def test_external_offset_that_is_no_number(tmp_path: Path) -> None:
    path = outside(tmp_path, offset=1)
    made = onnx.load(path, load_external_data=False)
    for entry in made.graph.initializer[0].external_data:
        if entry.key == "offset":
            entry.value = "one"
    with pytest.raises(FormatError, match=r"bytes from 'one' of 'weights\.bin'"):
        room.read(save(made, tmp_path))


def test_external_data_of_a_node(tmp_path: Path) -> None:
    made = one_lstm()
    tensor = made.graph.initializer.pop(0)
    external_data_helper.set_external_data(tensor, location="weights.bin")
    tensor.ClearField("raw_data")
    made.graph.node.insert(0, helper.make_node("Constant", [], ["W"], "n_W", value=tensor))
    refuse_file(
        save(made, tmp_path),
        UnsupportedError,
        "node 'n_W': attribute value of node 'n_W' keeps its data outside, expected it in the node",
    )


# -- bind -------------------------------------------------------------------------------------


@pytest.fixture
def unbound(tmp_path: Path) -> Path:
    """W and R are graph inputs."""
    free = {"w": [1, 16, SIZE], "r": [1, "G", UNITS]}
    return save(one_lstm(inputs="x w r B", free=free), tmp_path)


WEIGHTS = {"w": lstm_weights()["W"], "r": lstm_weights()["R"]}


def test_bind(unbound: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "w.npz", **WEIGHTS)
    plain = room.read(save(one_lstm(), tmp_path, "plain.onnx"))
    for bind in (WEIGHTS, tmp_path / "w.npz", str(tmp_path / "w.npz")):
        assert_same(room.read(unbound, bind=bind), plain)
        assert_same(ifgo.load(unbound, bind=bind), plain)


BINDS: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"z": 1}, "bind names 'z', expected one of the inputs 'x', 'w', 'r'"),
    "type": (
        {"w": random(1, 16, SIZE, dtype=np.float64)},
        "bind gives 'w' as float64, expected float32",
    ),
    "shape": ({"w": random(1, 16, 9)}, "bind gives 'w' with shape (1, 16, 9), expected (1, 16, 3)"),
    "axes": ({"r": random(16, UNITS)}, "bind gives 'r' with shape (16, 4), expected (1, ?, 4)"),
}


@pytest.mark.parametrize("name", list(BINDS))
def test_bind_refused(name: str, unbound: Path) -> None:
    given, text = BINDS[name]
    refuse_file(unbound, UsageError, text, bind=WEIGHTS | given)


def test_bind_of_text(unbound: Path) -> None:
    with pytest.raises(UsageError) as caught:
        room.read(unbound, bind={"w": "hello"})
    assert str(caught.value) == "bind gives 'w' as <U5, expected numbers"


def test_bind_without_a_file(unbound: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        room.read(unbound, bind=tmp_path / "none.npz")
    assert str(caught.value) == f"{tmp_path / 'none.npz'}: no such file. Check the path"


def test_bind_of_garbage(unbound: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(b"garbage")
    with pytest.raises(FormatError) as caught:
        room.read(unbound, bind=path)
    assert str(caught.value) == f"{path}: is no .npz. Write it with numpy.savez"


def test_bind_of_a_bomb(unbound: Path, tmp_path: Path) -> None:
    """An .npz is weighed before it is unpacked; tests/test_arrays.py has all of what is refused."""
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=np.zeros(10**7, np.float32))
    size = path.stat().st_size
    with pytest.raises(FormatError) as caught:
        room.read(unbound, bind=path)
    assert str(caught.value) == (
        f"{path}: has {size} bytes and unpacks to 40000128, expected at most "
        f"{limits.DEFAULTS.expansion_bytes} more than it has. Write it with numpy.savez, which "
        "does not compress" + raising("expansion_bytes")
    )


def test_bind_of_truth_values(unbound: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, w=np.ones(3, bool))
    with pytest.raises(UsageError) as caught:
        room.read(unbound, bind=path)
    assert str(caught.value) == "bind gives 'w' as bool, expected numbers"


@pytest.mark.parametrize(("flag", "method"), [(1, 0), (0, 77)])
def test_bind_of_encrypted_and_unknown_members(
    flag: int, method: int, unbound: Path, tmp_path: Path
) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, **WEIGHTS)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(mark) + offset
        data[at] |= flag
        data[at + 2] = method
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        room.read(unbound, bind=path)
    assert str(caught.value) == f"{path}: w: " + (
        "is encrypted. Write the file with numpy.savez"
        if flag
        else "is compressed by method 77, expected deflate (8) or none (0). Write the file with "
        "numpy.savez"
    )


def test_bind_of_the_other_byte_order(unbound: Path, tmp_path: Path) -> None:
    swapped = {name: array.astype(">f4") for name, array in WEIGHTS.items()}
    np.savez(tmp_path / "w.npz", **swapped)
    plain = room.read(save(one_lstm(), tmp_path, "plain.onnx"))
    for bind in (swapped, tmp_path / "w.npz"):
        assert_same(room.read(unbound, bind=bind), plain)


def test_bind_of_columns(unbound: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{n: np.asfortranarray(a) for n, a in WEIGHTS.items()})
    plain = room.read(save(one_lstm(), tmp_path, "plain.onnx"))
    assert_same(room.read(unbound, bind=tmp_path / "w.npz"), plain)
