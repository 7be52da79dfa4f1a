"""What only PyTorch's files can suffer: pickles that would run, zips that lie, chains that do."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch_cases as cases
from corpus import MARK, NAMES, Format, Mutant
from safetensors.numpy import save as to_safetensors

CHAIN = "lstm0:last,dense:sigmoid"
ARRAYS = {
    **cases.lstm("lstm0."),
    "dense.weight": np.full((2, 2), 0.5, "f"),
    "dense.bias": np.zeros(2, "f"),
}
ENTRIES, MEMBERS = cases.tensors(ARRAYS)

Write = Callable[[Path], Path]


def _chain(words: str) -> bytes:
    """The _metadata in which a file says its chain."""
    return cases.table({"": cases.table({"ifgo_layers": cases.text(words)}, ordered=False)})


def _file(data: bytes, name: str = "m.pt") -> Write:
    def write(folder: Path) -> Path:
        return cases.put(folder / name, data)

    return write


def intact(folder: Path) -> Path:
    return cases.put(folder / "m.pt", _whole(ENTRIES))


def _whole(entries: dict[str, bytes], words: str = CHAIN) -> bytes:
    return cases.whole(cases.table(entries, metadata=_chain(words)), MEMBERS)


def _pickle(pickle: bytes) -> bytes:
    return cases.whole(pickle, MEMBERS)


def _beside(value: bytes) -> bytes:
    """A state_dict with one entry more."""
    return _whole(ENTRIES | {"more": value})


def _one(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """The first matrix as another view."""
    return _whole(ENTRIES | {"lstm0.weight_ih_l0": cases.view(stored, offset, shape, strides)})


def _nested(times: int) -> bytes:
    """A list of two of the same list, again and again: 2**times leaves in a few bytes."""
    return b"]q\x01" + b"".join(b"0](h\x01h\x01eq\x01" for _ in range(times))


def _module(inside: bytes, memo: bytes = b"") -> bytes:
    """A pickled nn.Module that holds others."""
    held = {"_parameters": b"}", "_modules": inside}
    return b"cnet\nNet\n)\x81" + memo + cases.table(held, ordered=False) + b"b"


def _modules(times: int) -> bytes:
    """Modules of two of the same module each, again and again."""
    found = _module(b"}")
    for k in range(times):
        first = found + b"q" + bytes([k])
        pair = b"}(" + cases.text("a") + first + cases.text("b") + b"h" + bytes([k]) + b"u"
        found = _module(pair)
    return found


def _keys(times: int) -> bytes:
    """A dict whose key is such a tuple, which would be hashed for ever."""
    return b"}" + b")q\x01" + b"".join(b"0h\x01h\x01\x86q\x01" for _ in range(times)) + b"Ns"


def _tables(times: int) -> bytes:
    """Tables of the same table twice, again and again."""
    found = cases.table(ENTRIES, ordered=False)
    for k in range(times):
        pair = cases.text("a") + found + b"q" + bytes([k]) + cases.text("b") + b"h" + bytes([k])
        found = b"}(" + pair + b"u"
    return found


STORED = cases.storage("0", "FloatStorage", 24)
MANY = {f"m{k}.weight_ih_l0": cases.view(STORED, 0, (8, 3), (3, 1)) for k in range(3000)}
BIG = cases.storage("big", "FloatStorage", 2**20)
VIEWS = {f"v{k}.weight": cases.view(BIG, 0, (1024, 1024), (1024, 1)) for k in range(200)}
RUNS = {
    "os.system": cases.call("os.system", cases.text("touch " + MARK) + b"\x85"),
    "posix.system": cases.call("posix.system", cases.text("touch " + MARK) + b"\x85"),
    "eval": cases.call("builtins.eval", cases.text("1") + b"\x85"),
    "nested": cases.call("builtins.getattr", b"cos\nsystem\n" + cases.text("x") + b"\x86"),
    "stack global": cases.text("os") + cases.text("system") + b"\x93",
    "stack global of nothing": b"NN\x93",
    "stack global of a nest": _nested(40) + cases.text("x") + b"\x93",
    "a dotted name": b"ctorch\nos.system\n",
    "instance": b"(ios\nsystem\n",
    "object": b"(cos\nsystem\no",
    "new object": b"cos\nsystem\n)\x81",
    "extension": b"\x82\x01",
    "no arguments": b"ccollections\nOrderedDict\nNR",
    "a storage is called": b"ctorch\nFloatStorage\n)R",
    "a tensor is called": cases.view(STORED, 0, (8, 3), (3, 1)) + b")R",
    "state of a tensor": cases.view(STORED, 0, (8, 3), (3, 1)) + b"}b",
    "a parameter of a parameter": cases.call(
        "torch._utils._rebuild_parameter", b"N" * 3 + b"\x87"
    ),
}  # fmt: skip
PICKLES: dict[str, bytes] = {
    **{f"runs {name}": _beside(value) for name, value in RUNS.items()},
    **{f"runs {name} as the file": _pickle(value) for name, value in RUNS.items()},
    "a list as a key": _pickle(cases.ORDERED + b"(]Nu"),
    "memo of 2**32": _pickle(b"]r\xff\xff\xff\xff."),
    "memo that is not there": _pickle(b"h\x01"),
    "a frame of 2**63": _pickle(b"\x95" + b"\xff" * 7 + b"\x7f" + b"]"),
    "text of 2**31": _pickle(b"X\xff\xff\xff\x7f"),
    "bytes of 2**63": _pickle(b"\x8e" + b"\xff" * 7 + b"\x7f"),
    "a number of 2**31 bytes": _pickle(b"\x8b\xff\xff\xff\x7f"),
    "a long number": _pickle(b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6),
    "lists without end": _pickle(b"]" * 10**6),
    "marks without end": _pickle(b"(" * 10**6),
    "deep lists": _pickle(b"]" * 50_000 + b"a" * 49_999),
    "deep tuples": _pickle(b")" + b"\x85" * 100_000),
    "a list in itself": _pickle(b"]q\x01h\x01a"),
    "a dict in itself": _pickle(b"}q\x01" + cases.text("state_dict") + b"h\x01s"),
    "2**40 lists": _pickle(_nested(40)),
    "2**40 lists beside": _beside(_nested(40)),
    "2**40 tuples as a key": _pickle(_keys(40)),
    "a module in itself": _pickle(_module(b"}(" + cases.text("a") + b"h\x01u", memo=b"q\x01")),
    "2**30 modules": _pickle(_modules(30)),
    "60 modules in each other": _pickle(_modules(60)),
    "a checkpoint of 2**20 tables": _pickle(_tables(20)),
    "a chain that is a nest": cases.whole(
        cases.table(
            ENTRIES,
            metadata=cases.table({"": cases.table({"ifgo_layers": _nested(40)}, ordered=False)}),
        ),
        MEMBERS,
    ),
    "shape of 2**40": _one(STORED, 0, (2**20, 2**20), (0, 0)),
    "shape of 2**20, one number": _one(STORED, 0, (2**20,), (0,)),
    "beyond the storage": _one(STORED, 1, (8, 3), (3, 1)),
    "negative offset": _one(STORED, -1, (8, 3), (3, 1)),
    "negative stride": _one(STORED, 23, (8, 3), (-3, -1)),
    "huge stride": _one(STORED, 0, (8, 3), (2**31 - 1, 2**31 - 1)),
    "rank 40": _one(STORED, 0, (1,) * 40, (1,) * 40),
    "another storage": _one(cases.storage("99", "FloatStorage", 24), 0, (8, 3), (3, 1)),
    "a storage elsewhere": _one(cases.storage("../m", "FloatStorage", 24), 0, (8, 3), (3, 1)),
    "a larger storage": _one(cases.storage("0", "FloatStorage", 10**9), 0, (8, 3), (3, 1)),
    "storage of doubles": _one(cases.storage("0", "DoubleStorage", 24), 0, (8, 3), (3, 1)),
    "storage of quantised": _one(cases.storage("0", "QInt8Storage", 24), 0, (8, 3), (3, 1)),
    "storage of int": _one(cases.storage("0", "IntStorage", 24), 0, (8, 3), (3, 1)),
    "empty": _one(STORED, 0, (0, 3), (3, 1)),
    "3000 modules": _whole(ENTRIES | MANY),
    "200 views of 4 MiB": cases.whole(
        cases.table(ENTRIES | VIEWS), MEMBERS | {"data/big": bytes(2**22)}
    ),
}
WORDS = {
    "no chain": "",
    "another module": "rec",
    "another step": "lstm0:what",
    "flatten": "lstm0:flatten(99999999999)",
    "repeat": "lstm0:last:repeat_vector(99999999999)",
    "numbers": "lstm0:dropout(" + "9" * 5000 + ")",
    "colons": "lstm0" + ":relu" * 5000,
    "commas": "lstm0," * 5000,
    "open": "lstm0:relu" + "(" * 50_000,
    "long": "l" * 10**6,
}


def _zips() -> Iterator[tuple[str, bytes]]:
    whole = _whole(ENTRIES)
    pickle = b"\x80\x02" + cases.table(ENTRIES, metadata=_chain(CHAIN)) + b"."
    members = {"data.pkl": pickle, **MEMBERS}
    yield "compressed", cases.pack(members, method=zipfile.ZIP_DEFLATED)
    yield "bzip2", cases.pack(members, method=zipfile.ZIP_BZIP2)
    yield "lzma", cases.pack(members, method=zipfile.ZIP_LZMA)
    yield "a bomb", cases.pack({"data.pkl": bytes(2**27)}, method=zipfile.ZIP_DEFLATED)
    yield "a bomb beside", cases.pack(members | {"x": bytes(10)}, method=zipfile.ZIP_DEFLATED)
    for name in ("../x", "/x", "a/../../x", "..\\x", "x\n", MARK * 500):
        yield f"member {name[:10]!r}", cases.pack(members | {name: b"x"})
    yield "no folder", cases.pack(members).replace(b"archive/", b"archive_")
    yield "no pickle", cases.pack(MEMBERS)
    yield "no storage", cases.pack({"data.pkl": pickle})
    yield "a script", cases.pack(members | {"code/x.py": b"import os"})
    yield "constants", cases.pack(members | {"constants.pkl": b"\x80\x02)."})
    yield "order", cases.pack(members | {"byteorder": b"middle"})
    yield "40000 members", cases.pack(members | {f"x/{k}": b"" for k in range(40_000)})
    yield "twice", whole.replace(b"archive/data/1", b"archive/data/0")
    yield "other sizes", whole.replace(struct.pack("<II", 96, 96), struct.pack("<II", 9600, 9600))
    yield (
        "encrypted",
        whole.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    )
    old = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    facts = old + b"\x80\x02}" + cases.text("little_endian") + b"\x88s."
    yield "legacy without end", facts + pickle
    yield (
        "legacy of lies",
        facts
        + pickle
        + b"\x80\x02]("
        + b"".join(cases.text(str(k)) for k in range(len(MEMBERS)))
        + b"e."
        + b"\xff" * 400,
    )
    yield "legacy", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + bytes(100)
    yield "a bare pickle", pickle
    yield "a tar", bytes(257) + b"ustar" + bytes(1000)
    yield "text", b"weights"


def crafted() -> Iterator[Mutant]:
    """Everything in this file, and names of modules."""
    for name, data in (*PICKLES.items(), *_zips()):
        yield Mutant(f"torch: {name}", _file(data))
    for name, words in WORDS.items():
        yield Mutant(f"torch: chain of {name}", _file(_whole(ENTRIES, words)))
    for name, said in NAMES.items():
        yield Mutant(f"torch: module, {name}", _file(cases.state_dict(cases.lstm(f"{said}."))))
        yield Mutant(f"torch: names {name}", _file(_beside(b"c" + said.encode(errors="replace")
                     .replace(b"\n", b" ") + b"\nx\n")))  # fmt: skip


def named(folder: Path, name: str) -> Path:
    """The module called `name`."""
    arrays = {key.replace("lstm0", name.replace(".", "_")): a for key, a in ARRAYS.items()}
    return cases.put(
        folder / "m.pt", cases.state_dict({k: a for k, a in arrays.items() if "l0" in k})
    )


def _safe(words: str = CHAIN) -> bytes:
    return to_safetensors(ARRAYS, {"format": "pt", "ifgo_layers": words})


def safe_named(folder: Path, name: str) -> Path:
    """The module called `name`, in a header as Python would write it."""
    data = to_safetensors(cases.lstm("lstm0."))
    size = int.from_bytes(data[:8], "little")
    said = {k.replace("lstm0", name): v for k, v in json.loads(data[8 : 8 + size]).items()}
    header = json.dumps(said).encode()
    header += b" " * (-len(header) % 8)
    whole = struct.pack("<Q", len(header)) + header + data[8 + size :]
    return cases.put(folder / "m.safetensors", whole)


def safe_intact(folder: Path) -> Path:
    return cases.put(folder / "m.safetensors", _safe())


def safe_crafted() -> Iterator[Mutant]:
    """Headers are damaged with native's; what is left are chains, names and types."""
    name = "m.safetensors"
    for what, words in WORDS.items():
        yield Mutant(f"safetensors: chain of {what}", _file(_safe(words), name))
    for what, said in NAMES.items():
        if "\udcff" not in said:
            data = to_safetensors(cases.lstm(f"{said}."))
            yield Mutant(f"safetensors: module, {what}", _file(data, name))
    whole = _safe()
    for kind in (b"F64", b"I32", b"U32", b"F8_E4M3", b"BOOL", b"what"):
        data = whole.replace(b'"F32"', b'"' + kind + b'"')
        length = struct.unpack("<Q", whole[:8])[0] + len(data) - len(whole)
        yield Mutant(f"safetensors: {kind!r}", _file(struct.pack("<Q", length) + data[8:], name))
    views = {f"m{k}.weight": np.zeros((1, 1), "f") for k in range(2000)}
    yield Mutant("safetensors: 2000 modules", _file(to_safetensors(views), name))


TORCH = Format("torch", intact, crafted)
SAFETENSORS = Format("safetensors", safe_intact, safe_crafted)
