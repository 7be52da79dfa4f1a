"""What protobuf would make of a file is bounded before it is asked to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_cases import assert_same, chain, node, one_lstm, refuse_file, save
from raising import raising

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats import onnx as room
from ifgo.formats.onnx.wire import is_affordable


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    more = b""
    while value > 0x7F:
        more, value = more + bytes([value & 0x7F | 0x80]), value >> 7
    return more + bytes([value])


BOMBS = {
    "nodes": field(7, field(1, b"") * 2**22),
    "initializers": field(7, field(5, b"") * 2**22),
    "operator sets": field(8, b"") * 2**22,
    "functions": field(25, b"") * 2**22,
    "attributes": field(7, field(1, field(5, b"") * 2**22)),
    "names": field(7, field(1, field(1, b"") * 2**22)),
    "unknown numbers": b"\x78\x00" * 2**22,
    "dims, each its own field": field(7, field(5, b"\x08\x01" * 2**22)),
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before protobuf sees them."""
    monkeypatch.setattr(onnx.ModelProto, "FromString", None)
    path = tmp_path / "m.onnx"
    path.write_bytes(BOMBS[name])
    refuse_file(
        path,
        FormatError,
        "has more than 524288 fields or 131072 parts, expected an LSTM chain, which has a few "
        "thousand" + raising("fields", "messages"),
    )


def test_packed_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx.ModelProto, "FromString", None)
    path = tmp_path / "m.onnx"
    path.write_bytes(field(7, field(5, field(7, bytes(2**23)))))
    refuse_file(
        path,
        FormatError,
        f"holds packed integers that unpack to more than {2**26} bytes, expected tensors as raw "
        "data. Write them with onnx.numpy_helper.from_array" + raising("packed_bytes"),
    )


@pytest.mark.parametrize(
    "data",
    [b"\x3a", b"\x3a\x05abc", b"\x08", b"\x08" + b"\xff" * 11, b"\x0b\x0c", b"\x0d\0\0", b"\x09\0"],
)
def test_sizes_that_are_not_there(data: bytes) -> None:
    """The same bytes are refused by protobuf, or hold a group, which ONNX has none of."""
    assert not is_affordable(data)


def test_whole_files_are_affordable() -> None:
    assert is_affordable(b"")
    assert is_affordable(one_lstm().SerializeToString())


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT, np.float32),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, None),
        (TensorProto.INT8, np.int8),
        (TensorProto.UINT16, np.uint16),
        (TensorProto.BOOL, np.bool_),
        (TensorProto.INT64, np.int64),
        (TensorProto.UINT32, np.uint32),
    ],
)
def test_numbers_listed_by_type(kind: int, dtype: type | None) -> None:
    """As onnx itself reads them."""
    from ifgo.formats.onnx.file import to_array

    values = [[-2, 0, 1.5], [3, 4, 5]] if dtype is None or np.dtype(dtype).kind == "f" else None
    values = values or ([[1, 0, 1], [0, 1, 1]] if dtype is np.bool_ else [[1, 0, 7], [2, 3, 4]])
    tensor = helper.make_tensor("W", kind, (2, 3), np.array(values).reshape(-1).tolist())
    assert not tensor.HasField("raw_data")
    want = onnx.numpy_helper.to_array(tensor)
    have = to_array(tensor, "W", None)
    assert have.dtype == want.dtype
    assert have.tobytes() == want.tobytes()
    assert have.shape == (2, 3)


def test_listed_numbers_that_lie(tmp_path: Path) -> None:
    made = one_lstm()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([0.0] * 47)
    refuse_file(
        save(made, tmp_path),
        FormatError,
        "node 'n_Y': initializer 'W' declares shape [1, 16, 3], but its data has another size. "
        "The file is damaged: export it again",
    )


# -- counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["input", "output"])
def test_endless_inputs_and_outputs(what: str, tmp_path: Path) -> None:
    made = one_lstm()
    for k in range(limits.DEFAULTS.inputs):
        made.graph.input.add().CopyFrom(made.graph.input[0])
        made.graph.input[-1].name = f"x{k}"
    if what == "output":
        made.graph.output.extend(made.graph.input)
        del made.graph.input[1:]
    count = len(getattr(made.graph, what))
    refuse_file(
        save(made, tmp_path),
        FormatError,
        f"has {count} {what}s, expected at most 1024" + raising("inputs"),
    )


def test_a_long_list_of_operator_sets_is_cut(tmp_path: Path) -> None:
    made = one_lstm()
    made.opset_import.extend(helper.make_opsetid("", 17) for _ in range(1000))
    refuse_file(
        save(made, tmp_path),
        UnsupportedError,
        f"imports operator set {', '.join(['17'] * 8)}, expected one version from 1 to 28. Export "
        "it with a known opset",
    )


def test_a_long_list_of_inputs_is_cut(tmp_path: Path) -> None:
    free = {f"x{k}": ["T", "B", 3] for k in range(500)}
    made = one_lstm(free=free)
    made.graph.node.append(node("Concat", " ".join(free), "z", axis=2))
    made.graph.output.add(name="z")
    with pytest.raises(UnsupportedError) as caught:
        room.read(save(made, tmp_path))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_long_attributes(tmp_path: Path) -> None:
    made = one_lstm({"activation_alpha": [0.5] * 10})
    made.graph.node[0].attribute[0].floats.extend([0.5] * 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "DEFAULTS", limits.Limits(folded_elements=15))
        refuse_file(
            save(made, tmp_path),
            FormatError,
            "node 'n_Y': attribute activation_alpha lists 20 values, expected at most 15. Keep "
            "numbers in a tensor" + raising("folded_elements"),
        )


# -- what the walk allocates ------------------------------------------------------------------


def test_states_of_a_frozen_batch(tmp_path: Path) -> None:
    """Few bytes must not become many element ids."""
    batch = 2**23
    free = {"h": [1, batch, 4], "c": [1, batch, 4]}
    made = one_lstm(inputs="x W R B - h c", free=free)
    refuse_file(
        save(made, tmp_path),
        UnsupportedError,
        f"input 'h' fixes {4 * batch} states, expected about as many as the weights are for. "
        "Export the model with an open batch",
    )


def test_states_of_a_small_frozen_batch(tmp_path: Path) -> None:
    free = {"x": ["T", 64, 3], "h": [1, 64, 4], "c": [1, 64, 4]}
    model = room.read(save(one_lstm(inputs="x W R B - h c", free=free), tmp_path))
    plain = one_lstm(inputs="x W R B - h c", free={"h": [1, "B", 4], "c": [1, "B", 4]})
    assert_same(room.read(save(plain, tmp_path)), model)


def test_one_weight_in_many_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer has its own copy, which counts."""
    monkeypatch.setattr(limits, "DEFAULTS", limits.Limits(folded_bytes=1))
    tail = [node("Squeeze", "Y k1", "y0")]
    tail += [node("MatMul", f"y{k} a", f"y{k + 1}") for k in range(40)]
    constants = {"a": np.eye(4, dtype=np.float32), "k1": np.array([1])}
    made = chain([], tail, constants, {"y40": ["T", "B", 4]})
    with pytest.raises(FormatError, match="folds more constants than the file could need"):
        room.read(save(made, tmp_path))


def test_more_parts_than_outputs(tmp_path: Path) -> None:
    nodes = [node("Split", "a", "b", axis=0, num_outputs=4)]
    tail = [node("Squeeze", "Y k1", "y"), node("Add", "y b", "out")]
    constants = {"a": np.ones(4, np.float32), "k1": np.array([1])}
    made = chain(nodes, tail, constants, {"out": ["T", "B", 4]}, opset=18)
    refuse_file(
        save(made, tmp_path),
        FormatError,
        "node 'n_b': splits into 4 parts, expected 1, one for each output",
    )
