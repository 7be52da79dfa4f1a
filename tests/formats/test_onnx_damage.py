"""Untrusted ONNX files: damaged, lying, greedy; external data; bound inputs. Never a crash."""

from __future__ import annotations

import os
import random as rnd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper
from onnx_cases import assert_same, chain, lstm_weights, node, one_lstm, random, save

import ifgo
from ifgo import limits
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats import onnx as room

SIZE, UNITS = 3, 4


def refuse(path: Path, kind: type[IfgoError], text: str, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        room.read(path, **options)
    assert str(caught.value) == f"{path}: {text}"


# -- bytes ------------------------------------------------------------------------------------

UNDECODABLE = "is no ONNX model, or a truncated one (its protobuf does not decode). Export it again"


@pytest.mark.parametrize("data", [b"garbage", b"\xff" * 100, b"\x08\x08\x3a\xff"])
def test_garbage(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    refuse(path, FormatError, UNDECODABLE)


@pytest.mark.parametrize("data", [b"", b"\x08\x08"])
def test_hollow(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    refuse(path, FormatError, "has no graph with outputs, expected a whole ONNX model")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Cut anywhere, the file is refused, or what is left is the whole graph."""
    whole = one_lstm().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole)
    model = room.read(path)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(IfgoError):
            room.read(path)
    path.write_bytes(whole)
    assert_same(room.read(path), model)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(one_lstm(), tmp_path)
    size = path.stat().st_size
    monkeypatch.setattr("ifgo.files.read_bytes.__kwdefaults__", {"limit": 100})
    refuse(path, FormatError, f"has {size} bytes, expected at most 100 bytes")


@pytest.mark.parametrize("field", ["op_type", "name", "domain", "input", "attribute"])
def test_names_that_are_no_text(field: str, tmp_path: Path) -> None:
    made = one_lstm()
    lstm_node = made.graph.node[0]
    if field == "input":
        lstm_node.input[0] = "NAME"
    elif field == "attribute":
        lstm_node.attribute[0].name = "NAME"
    else:
        setattr(lstm_node, field, "NAME")
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString().replace(b"NAME", b"N\xff\xfeE"))
    refuse(path, FormatError, "holds a name that is no UTF-8 text. The file is damaged")


def test_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    refuse(path, UsageError, "no such file. Check the path")


@pytest.mark.parametrize("versions", [[], [99], [0], [17, 18]])
def test_operator_sets(versions: list[int], tmp_path: Path) -> None:
    made = one_lstm()
    del made.opset_import[:]
    made.opset_import.extend(helper.make_opsetid("", version) for version in versions)
    words = ", ".join(map(str, versions)) or "none"
    refuse(
        save(made, tmp_path),
        UnsupportedError,
        f"imports operator set {words}, expected one version from 1 to 28. Export it with a known "
        "opset",
    )


def test_sniff(tmp_path: Path) -> None:
    path = save(one_lstm(), tmp_path, "model.bin")
    assert room.sniff(path)
    assert room.sniff(save(one_lstm(), tmp_path, "model.ONNX"))
    text = tmp_path / "text"
    text.write_text("hello")
    assert not room.sniff(text)
    assert not room.sniff(tmp_path)
    assert not room.sniff(tmp_path / "none.onnx")
    assert not room.sniff(Path("x" * 5000))
    garbage = tmp_path / "garbage.onnx"
    garbage.write_text("hello")
    assert room.sniff(garbage)
    assert_same(ifgo.load(path), room.read(path))


# -- lies -------------------------------------------------------------------------------------


def lie(change: Callable[[onnx.ModelProto], None]) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        made = one_lstm()
        change(made)
        return made

    return build


def _set(path: str, value: Any) -> Callable[[onnx.ModelProto], None]:
    """Assign, append or extend `value` at a dotted path; numbers index."""

    def change(made: onnx.ModelProto) -> None:
        owner: Any = made
        *parts, last = path.split(".")
        for part in parts:
            owner = owner[int(part)] if part.isdigit() else getattr(owner, part)
        if isinstance(value, list):
            field = getattr(owner, last)
            del field[:]
            field.extend(value)
        else:
            setattr(owner, last, value)

    return change


def _copy(path: str) -> Callable[[onnx.ModelProto], None]:
    def change(made: onnx.ModelProto) -> None:
        getattr(made.graph, path).append(getattr(made.graph, path)[0])

    return change


def _sparse(made: onnx.ModelProto) -> None:
    made.graph.sparse_initializer.add().values.name = "W"


def _sequence(made: onnx.ModelProto) -> None:
    made.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


def _attribute_twice(made: onnx.ModelProto) -> None:
    made.graph.node[0].attribute.append(made.graph.node[0].attribute[0])


def _reference(made: onnx.ModelProto) -> None:
    made.graph.node[0].attribute[0].ref_attr_name = "other"


def _unsorted(made: onnx.ModelProto) -> None:
    made.graph.node[0].input[0] = "later"
    made.graph.node.append(node("Identity", "x", "later"))


def _unknown(made: onnx.ModelProto) -> None:
    made.graph.node[0].input[0] = "nowhere"
    made.graph.node.append(node("Identity", "x", "Y_c2"))


def _dead_input(made: onnx.ModelProto) -> None:
    del made.graph.output[:]


INITIALIZER = "graph.initializer.0"
LIES: dict[str, tuple[Callable[[], onnx.ModelProto], type[IfgoError], str]] = {
    "dims": (
        lie(_set(f"{INITIALIZER}.dims", [1, 16, 300])),
        FormatError,
        "node 'n_Y': initializer 'W' declares shape [1, 16, 300], but its data has another size. "
        "The file is damaged: export it again",
    ),
    "negative": (
        lie(_set(f"{INITIALIZER}.dims", [1, -16, 3])),
        FormatError,
        "initializer 'W' declares shape [1, -16, 3], expected at most 8 sizes of 0 or more",
    ),
    "many axes": (
        lie(_set(f"{INITIALIZER}.dims", [1] * 9)),
        FormatError,
        "initializer 'W' declares shape [1, 1, 1, 1, 1, 1, 1, 1, 1], expected at most 8 sizes of 0 "
        "or more",
    ),
    "huge": (
        lie(_set(f"{INITIALIZER}.dims", [2**40, 2**40])),
        FormatError,
        f"initializer 'W' declares {2**80} elements, expected at most 268435456",
    ),
    "type": (
        lie(_set(f"{INITIALIZER}.data_type", TensorProto.STRING)),
        UnsupportedError,
        "initializer 'W' has element type STRING, expected a float, integer or boolean type of 8 "
        "to 64 bits",
    ),
    "no type": (
        lie(_set(f"{INITIALIZER}.data_type", 12345)),
        UnsupportedError,
        "initializer 'W' has element type 12345, expected a float, integer or boolean type of 8 "
        "to 64 bits",
    ),
    "two initializers": (
        lie(_copy("initializer")),
        FormatError,
        "has two initializers named 'W', expected unique names",
    ),
    "two inputs": (
        lie(_copy("input")),
        FormatError,
        "has two inputs of one name, expected unique names",
    ),
    "sparse": (lie(_sparse), UnsupportedError, "initializer 'W' is sparse, expected dense tensors"),
    "sequence": (
        lie(_sequence),
        UnsupportedError,
        "input 'x' is no tensor of numbers, expected a numeric tensor",
    ),
    "input size": (
        lie(_set("graph.input.0.type.tensor_type.shape.dim.0.dim_value", -5)),
        FormatError,
        "input 'x' declares a size of -5 along axis 0, expected 1 or more, or a name",
    ),
    "input axes": (
        lie(
            _set(
                "graph.input.0.type.tensor_type.shape.dim",
                [onnx.TensorShapeProto.Dimension(dim_value=1)] * 9,
            )
        ),
        FormatError,
        "input 'x' has 9 axes, expected at most 8",
    ),
    "twice": (
        lie(_attribute_twice),
        FormatError,
        "node 'n_Y': has an attribute twice, expected each once",
    ),
    "reference": (
        lie(_reference),
        FormatError,
        "node 'n_Y': attribute hidden_size is of type INT, expected INT",
    ),
    "same result": (
        lie(_copy("node")),
        FormatError,
        "node 'n_Y': makes 'Y' a second time, expected unique names",
    ),
    "unsorted": (
        lie(_unsorted),
        FormatError,
        "node 'n_Y': takes 'later', which no node before it makes, expected nodes in the order of "
        "their computation",
    ),
    "unknown": (
        lie(_unknown),
        UnsupportedError,
        "has no input for the sequence, expected one",
    ),
    "no outputs": (
        lie(_dead_input),
        FormatError,
        "has no graph with outputs, expected a whole ONNX model",
    ),
}


@pytest.mark.parametrize("name", list(LIES))
def test_lies(name: str, tmp_path: Path) -> None:
    build, kind, text = LIES[name]
    refuse(save(build(), tmp_path), kind, text)


def test_nodes_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_NODES", 1)
    made = one_lstm()
    made.graph.node.append(node("Identity", "x", "y"))
    refuse(save(made, tmp_path), FormatError, "has 2 nodes, expected at most 1")


def test_more_constants_than_a_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(one_lstm(), tmp_path)
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 100)
    refuse(path, FormatError, "declares 576 bytes of constants, expected at most 100")


def test_endless_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LAYERS", 1)
    nodes = [node("Relu", "Y" if k == 0 else f"y{k}", f"y{k + 1}") for k in range(40)]
    made = chain([], nodes, {}, {"y40": ["T", 1, "B", UNITS]})
    with pytest.raises(FormatError, match="has too many layers, expected at most 1"):
        room.read(save(made, tmp_path))


def test_endless_folding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node alone stays below the limit, all of them together do not."""
    monkeypatch.setattr(limits, "MAX_FOLDED_ELEMENTS", 1000)
    nodes = [node("Add", "a" if k == 0 else f"a{k}", f"a{k + 1}") for k in range(100)]
    for k, entry in enumerate(nodes):
        entry.input.append("a" if k == 0 else f"a{k}")
    tail = [node("Squeeze", "Y k1", "y"), node("Add", "y a100", "out")]
    constants = {"a": np.ones(500, np.float32), "k1": np.array([1])}
    made = chain(nodes, tail, constants, {"out": ["T", "B", UNITS]})
    with pytest.raises(FormatError) as caught:
        room.read(save(made, tmp_path))
    assert str(caught.value).endswith(
        "folds more constants than the file could need, expected at most 1000 elements beyond its "
        "weights"
    )


def test_bombs_of_joining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ELEMENTS", 1000)
    nodes = [node("Concat", "a " * 300, "b", axis=0)]
    tail = [node("Squeeze", "Y k1", "y"), node("Add", "y b", "out")]
    constants = {"a": np.ones(4, np.float32), "k1": np.array([1])}
    made = chain(nodes, tail, constants, {"out": ["T", "B", UNITS]})
    with pytest.raises(FormatError, match="node 'n_b': folds to 1200 elements, expected at most 1"):
        room.read(save(made, tmp_path))


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
    refuse(
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
    refuse(
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
    refuse(
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
    refuse(unbound, UsageError, text, bind=WEIGHTS | given)


def test_bind_of_text(unbound: Path) -> None:
    with pytest.raises(UsageError) as caught:
        room.read(unbound, bind={"w": "hello"})
    assert str(caught.value) == "bind gives 'w' as <U5, expected numbers"


def test_bind_without_a_file(unbound: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        room.read(unbound, bind=tmp_path / "none.npz")
    assert str(caught.value) == f"{tmp_path / 'none.npz'}: no such file. Check --bind"


def test_bind_of_garbage(unbound: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "pickled.npz", w=objects)
    for data in (b"garbage", (tmp_path / "pickled.npz").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(FormatError) as caught:
            room.read(unbound, bind=path)
        assert str(caught.value) == (
            f"{path}: is no .npz of plain arrays. Write it with numpy.savez"
        )


def test_bind_of_a_bomb(unbound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=np.zeros(10**6, np.float32))
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 10**5)
    with pytest.raises(FormatError) as caught:
        room.read(unbound, bind=path)
    assert str(caught.value) == f"{path}: unpacks to 4000128 bytes, expected at most 100000"


# -- fuzzing ----------------------------------------------------------------------------------


def seeds() -> list[bytes]:
    """Small files with every operator that the reader folds, moves or makes a layer."""
    second = {f"{k}2": v for k, v in lstm_weights(UNITS, UNITS, seed=5).items()}
    constants = second | {
        "k0": np.array([0]),
        "k1": np.array([1]),
        "last": np.array(-1),
        "d": random(UNITS, 2),
        "e": random(5, SIZE),
        "s": np.array([0, 0, -1]),
        "n": np.array([3, 1, 1]),
        "z": np.zeros((1, 1, UNITS), np.float32),
    }
    state = [
        node("Shape", "x", "s0"),
        node("Gather", "s0 k1", "b"),
        node("Concat", "k1 b four", "s1", axis=0),
        node("Expand", "z s1", "h"),
    ]
    first = chain(
        state,
        [
            node("Transpose", "Y", "t", perm=[0, 2, 1, 3]),
            node("Reshape", "t s", "y"),
            node("Gather", "y last", "v", axis=0),
            node("Softmax", "v", "out", axis=1),
        ],
        constants | {"four": np.array([4])},
        {"out": ["B", 8]},
        direction="bidirectional",
        lstm="x W R B - - - -",
        activations=["Sigmoid", "Tanh", "Elu"] * 2,
        activation_alpha=[0.5, 0.5],
    )
    third = chain(
        [node("Cast", "x", "i", to=TensorProto.INT64), node("Gather", "e i", "v")],
        [
            node("Squeeze", "Y_h k0", "h"),
            node("Gemm", "h d", "g", transB=0),
            node("Expand", "Y_h n", "rep"),
            node("LSTM", "rep W2 R2 B2", "Z"),
            node("Squeeze", "Z k1", "z1"),
            node("Flatten", "z1", "out", axis=1),
        ],
        constants,
        {"g": ["B", 2]},
        inputs={"x": ["T", "B"]},
        lstm="v W R B",
        types={"x": TensorProto.INT32},
    )
    return [m.SerializeToString() for m in (first, third, one_lstm({"clip": 0.5, "layout": 1}))]


ROUNDS = 4000 if os.environ.get("IFGO_SLOW") else 600


@pytest.mark.parametrize("which", range(3))
def test_flipped_bytes(which: int, tmp_path: Path) -> None:
    """Whatever byte is changed, removed or repeated: a model, or an error of ours."""
    data = seeds()[which]
    path = tmp_path / "m.onnx"
    rng = rnd.Random(which)
    refused: list[str] = []
    for _ in range(ROUNDS):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(changed))
            match rng.randrange(4):
                case 0:
                    changed[place] = rng.randrange(256)
                case 1:
                    changed[place] ^= 1 << rng.randrange(8)
                case 2:
                    del changed[place : place + rng.randint(1, 4)]
                case _:
                    changed[place:place] = changed[place : place + rng.randint(1, 8)]
        path.write_bytes(changed)
        try:
            room.read(path)
        except IfgoError as error:
            refused.append(str(error))
    for text in refused:
        assert text.startswith(str(path))
        assert len(text) < 1500 + len(str(path))
        assert text.isprintable()
    assert ROUNDS // 50 < len(refused) < ROUNDS - ROUNDS // 50


@pytest.mark.parametrize("which", range(3))
def test_changed_fields(which: int, tmp_path: Path) -> None:
    """Every number, name and list of every node replaced by odd ones: ditto."""
    rng = rnd.Random(which)
    odd = [0, 1, -1, 2, 7, 2**31, -(2**31), 2**62, -(2**63)]
    path = tmp_path / "m.onnx"
    refused: list[str] = []
    for _ in range(ROUNDS // 2):
        made = onnx.ModelProto.FromString(seeds_cached(which))
        for _ in range(rng.randint(1, 3)):
            entry = rng.choice(made.graph.node)
            match rng.randrange(6):
                case 0 if entry.attribute:
                    attribute = rng.choice(entry.attribute)
                    attribute.i = rng.choice(odd)
                    if attribute.ints:
                        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(odd)
                case 1:
                    entry.op_type = rng.choice(made.graph.node).op_type
                case 2:
                    names = [n for other in made.graph.node for n in (*other.input, *other.output)]
                    entry.input[rng.randrange(len(entry.input))] = rng.choice(names)
                case 3:
                    tensor = rng.choice(made.graph.initializer)
                    if tensor.dims:
                        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(odd)
                case 4:
                    tensor = rng.choice(made.graph.initializer)
                    if tensor.data_type == TensorProto.INT64:
                        count = len(tensor.raw_data) // 8
                        values = np.array([rng.choice(odd) for _ in range(count)], np.int64)
                        tensor.raw_data = values.tobytes()
                case _:
                    dims = made.graph.input[0].type.tensor_type.shape.dim
                    rng.choice(dims).dim_value = rng.choice(odd)
        path.write_bytes(made.SerializeToString())
        try:
            room.read(path)
        except IfgoError as error:
            refused.append(str(error))
    assert all(text.isprintable() for text in refused)
    assert ROUNDS // 20 < len(refused) < ROUNDS // 2


_CACHE: list[bytes] = []


def seeds_cached(which: int) -> bytes:
    if not _CACHE:
        _CACHE.extend(seeds())
    return _CACHE[which]
