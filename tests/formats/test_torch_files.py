"""PyTorch files that are damaged, lie, or would run something: refused by name, nothing run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import raising

from ifgo import formats
from ifgo.errors import FormatError, IfgoError, ModelError, UnsupportedError

SAVE = (
    "expected tensors as torch.save writes those of a state_dict. Where you trust the file, load "
    "it with torch and save the dictionary alone: torch.save(model.state_dict(), path)"
)
DAMAGED = "The file was changed or cut short after it was written; fetch or write it again"
ENTRIES, MEMBERS = cases.tensors(cases.lstm())
WHOLE = cases.state_dict(cases.lstm())
STORED = cases.storage("0", "FloatStorage", 24)


def refused(folder: Path, data: bytes, kind: type[IfgoError]) -> str:
    path = cases.put(folder / "m.pt", data)
    with pytest.raises(kind) as caught:
        formats.load(path)
    assert type(caught.value) is kind
    return str(caught.value).removeprefix(f"{path}: ")


def first_as(tensor: bytes) -> bytes:
    """A file whose weight_ih_l0 is described otherwise."""
    return cases.whole(cases.table(ENTRIES | {"weight_ih_l0": tensor}), MEMBERS)


class Runs:
    """Would run a command, were its pickle loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/ifgo_ran",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_a_pickle_would_run_is_named(tmp_path: Path, protocol: int) -> None:
    wanted = "expected a state_dict, or a checkpoint with one under state_dict, model_state_dict, "
    for bad, said in (
        (Runs(), "holds an object of 'posix.system', "),
        ({"epoch": Runs()}, "holds no tensors by name, but epoch, "),
        ({"state_dict": [Runs()]}, "holds no tensors by name, but state_dict, "),
    ):
        data = cases.pack({"data.pkl": pickle.dumps(bad, protocol)} | MEMBERS)
        assert refused(tmp_path, data, UnsupportedError) == (
            f"{said}{wanted}model. torch.save(model.state_dict(), path) writes one"
        )
    assert not Path("/tmp/ifgo_ran").exists()


def test_a_key_that_cannot_be_hashed(tmp_path: Path) -> None:
    assert refused(tmp_path, cases.whole(cases.ORDERED + b"(]Nu", MEMBERS), FormatError) == (
        "is no whole pickle. The file is cut short or damaged: write it again"
    )


def test_what_lies_beside_the_tensors_is_named_and_never_run(tmp_path: Path) -> None:
    runs = cases.call("posix.system", cases.text("touch /tmp/ifgo_ran") + b"\x85")
    table = {"args": runs, "state_dict": cases.table(ENTRIES), "act": b"cnet\nGELU\n)\x81"}
    model = formats.load(cases.put(tmp_path / "m.pt", cases.whole(cases.table(table), MEMBERS)))
    assert [a.tobytes() for a in model.arrays.values()] == list(MEMBERS.values())
    assert model.provenance.notes[:2] == (
        "read state_dict of the checkpoint, left out args, act",
        "data.pkl names posix.system, net.GELU: read as data, never imported or called",
    )
    assert not Path("/tmp/ifgo_ran").exists()


@pytest.mark.parametrize(
    "name",
    ["torch._utils._rebuild_tensor_v3", "torch._tensor._rebuild_from_type_v2",
     "torch.storage._load_from_bytes"],
)  # fmt: skip
def test_tensors_of_kinds_that_are_not_known(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    data = cases.whole(f"c{module}\n{attribute}\n".encode(), {})
    assert refused(tmp_path, data, UnsupportedError) == (
        f"data.pkl names '{name}', which may run code and is never called, {SAVE}"
    )


@pytest.mark.parametrize(
    "name", ["torch.ScriptObject", "torch._utils._rebuild_qtensor", "torch.QInt8Storage"]
)
def test_quantised_models(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    data = cases.whole(f"c{module}\n{attribute}\n".encode(), {})
    assert refused(tmp_path, data, UnsupportedError) == (
        f"data.pkl names '{name}', packed parameters of a quantised model, expected floating-point "
        "tensors. Save the state_dict of the model before quantisation"
    )


@pytest.mark.parametrize(
    ("tensor", "kind", "said"),
    [
        (cases.view(STORED, 1, (8, 3), (3, 1)), FormatError,
         "a tensor of shape (8, 3) ends at element 24 of storage '0', expected at most 23"),
        (cases.view(STORED, 0, (8, 300), (0, 0)), UnsupportedError,
         "a tensor of shape (8, 300) repeats the 24 elements of storage '0'. Save it with "
         ".contiguous()"),
        (cases.view(STORED, -1, (8, 3), (3, 1)), FormatError,
         "data.pkl builds a tensor of storage '0' with sizes that cannot be, expected a whole "
         f"pickle. {DAMAGED}"),
        (cases.view(STORED, 0, (1,) * 9, (1,) * 9), FormatError,
         "data.pkl builds a tensor with something else than at most 8 sizes, expected a whole "
         f"pickle. {DAMAGED}"),
        (cases.view(b"N", 0, (8, 3), (3, 1)), FormatError,
         f"data.pkl builds a tensor without a storage, expected a whole pickle. {DAMAGED}"),
        (cases.view(cases.storage("0", "FloatStorage", 25), 0, (8, 3), (3, 1)), FormatError,
         "data/0 has 96 bytes, expected 100, 25 values of float32"),
        (cases.view(cases.storage("9", "FloatStorage", 24), 0, (8, 3), (3, 1)), FormatError,
         f"has no member 'data/9'. {DAMAGED}"),
    ],
)  # fmt: skip
def test_tensors_that_lie(tmp_path: Path, tensor: bytes, kind: type[IfgoError], said: str) -> None:
    assert refused(tmp_path, first_as(tensor), kind) == said


def test_many_views_of_one_storage(tmp_path: Path) -> None:
    big = cases.storage("big", "FloatStorage", 2**20)
    views = {f"v{k}.weight": cases.view(big, 0, (1024, 1024), (1024, 1)) for k in range(10)}
    data = cases.whole(cases.table(views), {"data/big": bytes(2**22)})
    assert refused(tmp_path, data, FormatError) == (
        f"has {len(data)} bytes and tensors of {10 * 2**22}, expected at most 16777216 more than "
        "it has. Save each tensor with .clone()" + raising("expansion_bytes")
    )


# -- the archive ----------------------------------------------------------------------------------


def test_archives_that_torch_does_not_write(tmp_path: Path) -> None:
    pickled = b"\x80\x02" + cases.table(ENTRIES) + b"."
    members = {"data.pkl": pickled, **MEMBERS}
    data = cases.pack(members, method=zipfile.ZIP_DEFLATED)
    assert refused(tmp_path, data, UnsupportedError) == (
        "member 'data.pkl' is compressed, expected members stored as they are, as torch.save "
        "writes them. Save it again with torch.save"
    )
    program = cases.pack(members | {"models/model.json": b"{}"})
    assert refused(tmp_path, program, UnsupportedError) == (
        "is a program of torch.export, expected a state_dict. Save its tensors: "
        "torch.save(torch.export.load(path).state_dict, new_path)"
    )
    for name in ("../x", "a//x", "./x", "a\\x"):
        assert refused(tmp_path, cases.pack(members | {name: b""}), FormatError) == (
            f"holds a member {f'archive/{name}'!r}, expected FOLDER/data.pkl and FOLDER/data/N"
        )
    data = WHOLE.replace(b"archive/data/1", b"archive/data/0")
    assert refused(tmp_path, data, FormatError) == (
        "holds two members 'data/0', expected each name once"
    )
    assert refused(tmp_path, cases.pack(MEMBERS), FormatError) == (
        f"has no member 'data.pkl'. {DAMAGED}"
    )
    many = cases.pack(members | {f"x/{k}": b"" for k in range(17_000)})
    assert refused(tmp_path, many, FormatError) == (
        "lists more than 16384 members, expected one per tensor, and a few" + raising("members")
    )


def test_what_is_no_archive(tmp_path: Path) -> None:
    assert refused(tmp_path, b"weights", FormatError) == (
        "is no PyTorch file, expected the zip that torch.save writes"
    )
    assert refused(tmp_path, pickle.dumps({}, 2), FormatError) == (
        "is a bare pickle, expected the zip that torch.save writes"
    )
    assert refused(tmp_path, WHOLE[:-30], FormatError) == (
        f"is no whole zip archive (BadZipFile). {DAMAGED}"
    )
    assert refused(tmp_path, bytes(257) + b"ustar", UnsupportedError) == (
        "was saved by PyTorch before 0.2, as a tar, expected a file of torch.save since. Save it "
        "again: torch.save(torch.load(path), new_path)"
    )


def test_every_bit_of_the_numbers_is_checked(tmp_path: Path) -> None:
    start = WHOLE.index(MEMBERS["data/0"])
    for bit in range(0, 8 * 96, 7):
        data = bytearray(WHOLE)
        data[start + bit // 8] ^= 1 << bit % 8
        assert refused(tmp_path, bytes(data), FormatError) == (
            f"member 'data/0' does not match its checksum. {DAMAGED} (with "
            "torch.serialization.set_crc32_options(True))"
        )


def test_cut_anywhere(tmp_path: Path) -> None:
    for end in range(len(WHOLE)):
        refused_or_same(tmp_path, WHOLE[:end])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutations_are_read_alike_or_refused(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Never other numbers: the checksums hold what is stored, and the pickle says what it is."""
    changed = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    refused_or_same(tmp_path_factory.mktemp("m"), bytes(changed))


def refused_or_same(folder: Path, data: bytes) -> None:
    path = cases.put(folder / "m.pt", data)
    try:
        model = formats.load(path)
    except (UnsupportedError, FormatError, ModelError):
        return
    want = [a.tobytes() for a in cases.lstm().values()]
    assert [a.tobytes() for a in model.arrays.values()] == want


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_mutated_pickles(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Under a checksum that is right: a Model or a refusal, and no other error."""
    changed = bytearray(b"\x80\x02" + cases.table(ENTRIES) + b".")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(
            st.sampled_from(b"()0123NKMJXUCGabcdehijloqrstu]}QR.\x80\x93\x94\x00\xff")
        )
    path = tmp_path_factory.mktemp("m") / "m.pt"
    path.write_bytes(cases.pack({"data.pkl": bytes(changed)} | MEMBERS))
    try:
        model = formats.load(path)
    except (UnsupportedError, FormatError, ModelError):
        return
    assert all(np.isfinite(a).all() for a in model.arrays.values())
