"""Untrusted ONNX files: damaged, lying, greedy; external data; bound inputs. Never a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_cases import UNITS, assert_same, chain, node, one_lstm, refuse_file, save
from raising import raising

import ifgo
from ifgo import limits
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats import onnx as room

# -- bytes ------------------------------------------------------------------------------------

UNDECODABLE = "is no ONNX model, or a truncated one (its protobuf does not decode). Export it again"


@pytest.mark.parametrize("data", [b"garbage", b"\xff" * 100, b"\x08\x08\x3a\xff"])
def test_garbage(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    refuse_file(path, FormatError, UNDECODABLE)


@pytest.mark.parametrize("data", [b"", b"\x08\x08"])
def test_hollow(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    refuse_file(path, FormatError, "has no graph with outputs, expected a whole ONNX model")


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
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(file_bytes=100))
    refuse_file(
        path, FormatError, f"has {size} bytes, expected at most 100 bytes" + raising("file_bytes")
    )


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
    refuse_file(path, FormatError, "holds a name that is no UTF-8 text. The file is damaged")


def test_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    refuse_file(path, UsageError, "no such file. Check the path")


@pytest.mark.parametrize("versions", [[], [99], [0], [17, 18]])
def test_operator_sets(versions: list[int], tmp_path: Path) -> None:
    made = one_lstm()
    del made.opset_import[:]
    made.opset_import.extend(helper.make_opsetid("", version) for version in versions)
    words = ", ".join(map(str, versions)) or "none"
    refuse_file(
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
        f"initializer 'W' declares {2**80} elements, expected at most 268435456"
        + raising("elements"),
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
        "node 'n_Y': attribute hidden_size refers to 'other' of a function, expected a value. "
        "Export it without functions",
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
    refuse_file(save(build(), tmp_path), kind, text)


def test_nodes_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(nodes=1))
    made = one_lstm()
    made.graph.node.append(node("Identity", "x", "y"))
    refuse_file(
        save(made, tmp_path), FormatError, "has 2 nodes, expected at most 1" + raising("nodes")
    )


def test_more_constants_than_a_file_holds(tmp_path: Path) -> None:
    made = one_lstm()
    for k in range(3):
        made.graph.initializer.add(name=f"big{k}", dims=[2**28], data_type=TensorProto.FLOAT)
    refuse_file(
        save(made, tmp_path),
        FormatError,
        f"declares {3 * 2**30 + 576} bytes of constants, expected at most {2**31}"
        + raising("file_bytes"),
    )


def test_endless_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(layers=1))
    nodes = [node("Relu", "Y" if k == 0 else f"y{k}", f"y{k + 1}") for k in range(40)]
    made = chain([], nodes, {}, {"y40": ["T", 1, "B", UNITS]})
    with pytest.raises(FormatError, match="has too many layers, expected at most 1"):
        room.read(save(made, tmp_path))


def test_endless_folding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node alone stays below the limit, all of them together do not."""
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(folded_bytes=4000))
    nodes = [node("Add", "a" if k == 0 else f"a{k}", f"a{k + 1}") for k in range(100)]
    for k, entry in enumerate(nodes):
        entry.input.append("a" if k == 0 else f"a{k}")
    tail = [node("Squeeze", "Y k1", "y"), node("Add", "y a100", "out")]
    constants = {"a": np.ones(500, np.float32), "k1": np.array([1])}
    made = chain(nodes, tail, constants, {"out": ["T", "B", UNITS]})
    with pytest.raises(FormatError) as caught:
        room.read(save(made, tmp_path))
    assert str(caught.value).endswith(
        "folds more constants than the file could need, expected at most 4000 bytes, and 4 times "
        "those of its weights" + raising("folded_bytes")
    )


def test_bombs_of_joining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before the tensors are joined."""
    nodes = [node("Concat", "a " * 10**5, "b", axis=0)]
    tail = [node("Squeeze", "Y k1", "y"), node("Add", "y b", "out")]
    constants = {"a": np.ones(64, np.float32), "k1": np.array([1])}
    made = chain(nodes, tail, constants, {"out": ["T", "B", UNITS]})
    path = save(made, tmp_path)
    monkeypatch.setattr(np, "concatenate", None)
    with pytest.raises(FormatError, match="node 'n_b': folds more constants than the file could"):
        room.read(path)
