"""Changes to a file that keep its container whole, so that they reach what a reader makes of it.

`mutate` knows a container by its content: zips get right checksums, JSON and protobuf right
lengths, pickles whole instructions. What it does not know is changed byte by byte.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any, Final

from corpus import NAMES
from hostile_protobuf import varint
from hostile_tensorflow import entries_of, table_of

NUMBERS: Final = (0, 1, 2, 3, 127, 128, 255, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
"""Sizes, counts and offsets that attackers write."""
HUGE: Final = (2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TOKENS: Final = ("0", "-1", "1e999", "nan", "9" * 400, "2", "65537", '"', "[", "]", "{", "}", "=")
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, -1, 0, 1, 1.5, 2**31, 2**70, 1e308, "", "x", [], {}, [1], [[]], {"a": 1}),
    *("relu", "LSTM", *NAMES.values()),
)
DEPTH: Final = 12

Wire = list[tuple[int, int, Any]]
"""Fields of a protobuf message: number, wire type, and a number, bytes or a Wire."""


def mutate(data: bytes, rng: Random, name: str = "") -> bytes:
    """`data` with one to three changes, mostly such as leave its container readable."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kinds = [change for known, change in _KINDS if known(data, name)]
        structural = kinds and rng.random() < 0.8
        data = rng.choice(kinds)(data, rng) if structural else raw(data, rng)
    return data


def raw(data: bytes, rng: Random) -> bytes:
    """A few bytes changed, put in, left out, repeated, or a number put over them."""
    place = rng.randrange(len(data) + 1)
    length = rng.choice((1, 1, 2, 4, 8, 16))
    head, tail = data[:place], data[place + length :]
    match rng.randrange(6):
        case 0:
            return head + rng.randbytes(length) + tail
        case 1:
            return head + tail
        case 2:
            return head + data[place:][:length] + data[place:]
        case 3:
            other = rng.randrange(len(data) + 1)
            return head + data[other : other + length] + tail
        case 4 if place < len(data):
            return head + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        case _:
            kind = rng.choice("BHIQ")
            place -= place % struct.calcsize(kind)
            value = rng.choice(NUMBERS + HUGE) % 256 ** struct.calcsize(kind)
            said = struct.pack(rng.choice("<>") + kind, value)
            return data[:place] + said + data[place + len(said) :]


# -- zip --------------------------------------------------------------------------------------


def _is_zip(data: bytes, name: str) -> bool:
    return data[:4] == b"PK\3\4" and zipfile.is_zipfile(io.BytesIO(data))


def _zip(data: bytes, rng: Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return raw(data, rng)
    if not members:
        return raw(data, rng)
    sizes = [len(content) + 1 for _, content in members]
    place = rng.randrange(sum(sizes))
    which = next(k for k in range(len(sizes)) if place < sum(sizes[: k + 1]))
    name, content = members[which]
    match rng.randrange(12):
        case 0:
            del members[which]
        case 1:
            members.append((f"../{name}", content))
        case 2:
            members.append((name, mutate(content, rng, name)))
        case _:
            members[which] = (name, mutate(content, rng, name))
    made = io.BytesIO()
    method = rng.choice((0, 0, 0, 8))
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(made, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


# -- JSON -------------------------------------------------------------------------------------


def _is_json(data: bytes, name: str) -> bool:
    return data[:1] in (b"{", b"[") and _parsed(data) is not None


def _parsed(data: bytes | str) -> Any:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) and found else None


def _json(data: bytes, rng: Random) -> bytes:
    return json.dumps(_tree(_parsed(data), rng)).encode(errors="surrogatepass")


def _tree(root: Any, rng: Random) -> Any:
    """One value anywhere replaced, left out, or doubled under another name."""
    node = root
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = rng.choice(keys)
        value = node[key]
        if isinstance(value, dict | list) and value and rng.random() < 0.9:
            node = value
            continue
        inner = _parsed(value) if isinstance(value, str) else None
        if inner is not None:
            node[key] = json.dumps(_summed(_tree(inner, rng)))
            return root
        break
    match rng.randrange(6):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[rng.choice((f"{key}_", "", *NAMES.values()))] = value
        case 1:
            node.append(value)
        case 2 if isinstance(value, int | float):
            node[key] = rng.choice((value + 1, -value, value * 2, float(value), str(value)))
        case _:
            node[key] = rng.choice(VALUES)
    return root


def _summed(tree: Any) -> Any:
    """A native file's description with the checksum that fits it."""
    if isinstance(tree, dict) and {"sha256", "model"} <= set(tree):
        text = json.dumps(tree["model"], sort_keys=True, separators=(",", ":"))
        tree["sha256"] = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return tree


def _is_safetensors(data: bytes, name: str) -> bool:
    size = int.from_bytes(data[:8], "little")
    return size < len(data) and data[8:9] == b"{" and _parsed(data[8 : 8 + size]) is not None


def _safetensors(data: bytes, rng: Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = _json(data[8 : 8 + size], rng)
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


# -- protobuf ---------------------------------------------------------------------------------


def _is_protobuf(data: bytes, name: str) -> bool:
    return name.endswith((".onnx", ".pb")) and wire(data) is not None


def _protobuf(data: bytes, rng: Random) -> bytes:
    fields = wire(data)
    assert fields is not None
    _message(fields, rng)
    return encoded(fields)


def wire(data: bytes, depth: int = DEPTH) -> Wire | None:
    """The fields of a message, None where it is none."""
    found: Wire = []
    place = 0
    while place < len(data):
        tag, place = _number(data, place)
        number, kind = tag >> 3, tag & 7
        value: Any
        if kind == 0:
            value, place = _number(data, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, place = data[place : place + size], place + size
        elif kind == 2:
            size, place = _number(data, place)
            value, place = data[place : place + size], place + size
            inner = wire(value, depth - 1) if depth and 2 <= size < 2**16 else None
            value = value if inner is None else inner
        else:
            return None
        if not number or place > len(data):
            return None
        found.append((number, kind, value))
    return found


def _number(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place] if place < len(data) else 0
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    return value, len(data) + 1


def encoded(fields: Wire) -> bytes:
    """The bytes of a message, each length that of its content."""
    out = bytearray()
    for number, kind, value in fields:
        out += varint(number << 3 | kind)
        if kind == 0:
            out += varint(value)
            continue
        content = encoded(value) if isinstance(value, list) else value
        out += (varint(len(content)) if kind == 2 else b"") + content
    return bytes(out)


def _message(fields: Wire, rng: Random) -> None:
    while True:
        if not fields:
            return
        which = rng.randrange(len(fields))
        number, kind, value = fields[which]
        if isinstance(value, list) and rng.random() < 0.9:
            fields = value
            continue
        break
    match rng.randrange(6):
        case 0:
            del fields[which]
        case 1:
            fields.insert(which, fields[which])
        case 2:
            other = rng.randrange(len(fields))
            fields[which], fields[other] = fields[other], fields[which]
        case 3:
            fields[which] = (rng.randrange(1, 20), kind, value)
        case _ if kind == 0:
            fields[which] = (number, 0, rng.choice((value + 1, *NUMBERS, *HUGE)) % 2**64)
        case _:
            content = encoded(value) if isinstance(value, list) else value
            name = rng.choice(list(NAMES.values())).encode(errors="surrogatepass")
            new = rng.choice((name, raw(content, rng))) if kind == 2 else raw(content, rng)
            fields[which] = (number, kind, new if kind == 2 else new[: len(content)])


# -- pickle -----------------------------------------------------------------------------------


def _is_pickle(data: bytes, name: str) -> bool:
    return data[:1] == b"\x80" and len(_instructions(data)) > 2


def _instructions(data: bytes) -> list[bytes]:
    try:
        places = [place for _, _, place in pickletools.genops(data)]
    except Exception:
        return []
    ends = [*places[1:], places[-1] + 1]
    return [data[start:end] for start, end in zip(places, ends, strict=True)] + [data[ends[-1] :]]


def _pickle(data: bytes, rng: Random) -> bytes:
    """One instruction left out, doubled, put elsewhere, or another of its argument."""
    steps = _instructions(data)
    which, other = rng.randrange(1, len(steps) - 1), rng.randrange(1, len(steps) - 1)
    step = steps[which]
    match rng.randrange(7):
        case 0:
            del steps[which]
        case 1:
            steps.insert(which, step)
        case 2:
            steps[which], steps[other] = steps[other], step
        case 3:
            steps[which] = steps[other]
        case 4:
            steps[which] = rng.choice((b"]", b"}", b")", b"(", b"N", b"0", b"2", b"R", b"b", b"s"))
        case 5 if step[:1] == b"c":
            steps[which] = rng.choice(
                (b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\nndarray\n")
            )
        case _:
            steps[which] = step[:1] + raw(step[1:], rng)[: max(1, len(step) - 1)]
    return b"".join(steps)


# -- text, arrays, checkpoints ----------------------------------------------------------------

_WORD: Final = re.compile(r"[\w.+-]+|[^\w\s]|\n")


def _is_text(data: bytes, name: str) -> bool:
    return bool(data) and data.isascii() and sum(b < 32 for b in data[:1000]) * 5 < len(data[:1000])


def _text(data: bytes, rng: Random) -> bytes:
    """One word replaced, doubled, left out, or swapped for another of the text; or a line."""
    if rng.random() < 0.25:
        lines = data.split(b"\n")
        which, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[which : which + rng.randrange(2)] = [lines[other]] * rng.randrange(3)
        return b"\n".join(lines)
    text = data.decode("latin-1")
    words = list(_WORD.finditer(text))
    if not words:
        return raw(data, rng)
    word = rng.choice(words)
    others = (*TOKENS, rng.choice(words).group(), rng.choice(list(NAMES.values())), "")
    new = rng.choice(others).encode(errors="surrogatepass")
    return data[: word.start()] + new + data[word.end() :]


def _is_npy(data: bytes, name: str) -> bool:
    return data[:8] == b"\x93NUMPY\1\0" and len(data) > 20


def _npy(data: bytes, rng: Random) -> bytes:
    end = 10 + int.from_bytes(data[8:10], "little")
    header = _text(data[10:end] or b"{}", rng)[:65535]
    return data[:8] + struct.pack("<H", len(header)) + header + data[end:]


def _is_index(data: bytes, name: str) -> bool:
    return name.endswith(".index") and bool(entries_of(data))


def _index(data: bytes, rng: Random) -> bytes:
    """An index of TensorFlow variables with one entry changed and checksums that fit."""
    entries = entries_of(data)
    key = rng.choice(sorted(entries))
    match rng.randrange(6):
        case 0:
            del entries[key]
        case 1:
            entries[raw(key, rng)] = entries.pop(key)
        case _:
            fields = wire(entries[key])
            if fields:
                _message(fields, rng)
                entries[key] = encoded(fields)
    return table_of(entries)


_KINDS: Final[tuple[tuple[Callable[[bytes, str], bool], Callable[[bytes, Random], bytes]], ...]] = (
    (_is_zip, _zip),
    (_is_json, _json),
    (_is_safetensors, _safetensors),
    (_is_protobuf, _protobuf),
    (_is_pickle, _pickle),
    (_is_text, _text),
    (_is_npy, _npy),
    (_is_index, _index),
)
"""How content is known, and what changes it."""
