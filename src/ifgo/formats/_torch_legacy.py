"""What torch.save wrote before PyTorch 1.6, and writes with _use_new_zipfile_serialization=False.

Five pickles one after another (a number, the version 1001, facts of the machine, the object, the
keys of its storages), then each storage: its count as int64, and its numbers. There are no
checksums.
"""

from __future__ import annotations

from typing import Any, Final, cast

from ifgo.errors import FormatError, UnsupportedError
from ifgo.formats._torch_pickle import read_pickle
from ifgo.formats._torch_tensor import itemsize, storage_of
from ifgo.formats._unpickle import parse_at
from ifgo.text import quote

START: Final = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number with which every such file begins."""

_DAMAGED: Final = "The file was changed or cut short after it was written; fetch or write it again"


def unpack(data: bytes) -> tuple[Any, list[str], dict[str, memoryview], str]:
    """The pickled object, the names in it that are no part of a state_dict, its storages by key,
    and the byte order "<" or ">".

    Raises FormatError on damage, UnsupportedError on another version or a view of a storage.
    """
    version = parse_at(data, len(START))
    if version.value != 1001:
        raise UnsupportedError(
            f"is of PyTorch's legacy version {quote(version.value)}",
            expected="1001",
            hint="Save it again: torch.save(torch.load(path), new_path)",
        )
    facts = parse_at(data, version.end)
    said: Any = facts.value
    little = cast("dict[Any, Any]", said).get("little_endian") if type(said) is dict else None
    if type(little) is not bool:
        raise FormatError("does not say its byte order", expected="little_endian", hint=_DAMAGED)
    pickled, names = read_pickle(data, facts.end)
    keys = parse_at(data, pickled.end)
    counts: dict[str, tuple[int, int]] = {}
    for one in pickled.outside:
        given: Any = one.key
        if type(given) is tuple and cast("tuple[Any, ...]", given)[:1] == ("module",):
            continue  # a class with its source, which is not read
        storage = storage_of(one)
        counts[storage.key] = storage.count, itemsize(storage.dtype)
    listed: Any = keys.value
    if type(listed) is not list or sorted(map(str, cast("list[Any]", listed))) != sorted(counts):
        raise FormatError(
            "lists other storages than its tensors use", expected="the same", hint=_DAMAGED
        )
    found: dict[str, memoryview] = {}
    view, at = memoryview(data), keys.end
    for key in cast("list[str]", listed):
        count, size = counts[key]
        stored = int.from_bytes(view[at : at + 8], "little" if little else "big")
        end = at + 8 + count * size
        if stored != count or end > len(data):
            raise FormatError(
                f"storage {quote(key)} has {stored} values, or is cut short",
                expected=f"{count} values of {size} bytes",
                hint=_DAMAGED,
            )
        found[key] = view[at + 8 : end]
        at = end
    if at != len(data):
        raise FormatError(
            f"has {len(data) - at} bytes after the last storage", expected="none", hint=_DAMAGED
        )
    return pickled.value, names, found, "<" if little else ">"
