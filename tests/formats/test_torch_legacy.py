"""Files of PyTorch before 1.6, whole and damaged: the same arrays, or a refusal by name."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest
import torch_cases as cases

from ifgo import formats
from ifgo.errors import FormatError, IfgoError, UnsupportedError
from ifgo.formats._torch_legacy import START

DAMAGED = "The file was changed or cut short after it was written; fetch or write it again"
ARRAYS = cases.lstm("rec.")
ENTRIES, MEMBERS = cases.tensors(ARRAYS)
FACTS = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
VERSION = pickle.dumps(1001, 2)
BODY = b"\x80\x02" + cases.table(ENTRIES) + b"."


def legacy(
    *,
    version: bytes = VERSION,
    facts: object = FACTS,
    keys: tuple[str, ...] = (),
    tail: bytes = b"",
) -> bytes:
    order = keys or tuple(key.removeprefix("data/") for key in MEMBERS)
    numbers = b"".join(
        struct.pack("<q", len(MEMBERS[f"data/{key}"]) // 4) + MEMBERS[f"data/{key}"]
        for key in order
    )
    return (
        START + version + pickle.dumps(facts, 2) + BODY + pickle.dumps([*order], 2) + numbers + tail
    )


def refused(folder: Path, data: bytes, kind: type[IfgoError]) -> str:
    path = cases.put(folder / "m.pt", data)
    with pytest.raises(kind) as caught:
        formats.load(path)
    assert type(caught.value) is kind
    return str(caught.value).removeprefix(f"{path}: ")


def test_whole_in_any_order_of_storages(tmp_path: Path) -> None:
    for keys in (("0", "1", "2", "3"), ("2", "0", "3", "1")):
        model = formats.load(cases.put(tmp_path / "m.bin", legacy(keys=keys)))
        assert [a.tobytes() for a in model.arrays.values()] == [
            a.tobytes() for a in ARRAYS.values()
        ]


def test_damage_is_named(tmp_path: Path) -> None:
    whole = legacy()
    assert refused(tmp_path, legacy(version=pickle.dumps(1000, 2)), UnsupportedError) == (
        "is of PyTorch's legacy version '1000', expected 1001. Save it again: "
        "torch.save(torch.load(path), new_path)"
    )
    assert refused(tmp_path, legacy(facts={}), FormatError) == (
        f"does not say its byte order, expected little_endian. {DAMAGED}"
    )
    assert refused(tmp_path, whole + b"x", FormatError) == (
        f"has 1 bytes after the last storage, expected none. {DAMAGED}"
    )
    assert refused(tmp_path, whole[:-1], FormatError) == (
        f"storage '3' has 8 values, or is cut short, expected 8 values of 4 bytes. {DAMAGED}"
    )
    assert refused(tmp_path, legacy(keys=("0", "1", "2")), FormatError) == (
        f"lists other storages than its tensors use, expected the same. {DAMAGED}"
    )


def test_cut_anywhere(tmp_path: Path) -> None:
    whole = legacy()
    for end in range(len(whole)):
        with pytest.raises((FormatError, UnsupportedError)):
            formats.load(cases.put(tmp_path / "m.pt", whole[:end]))
