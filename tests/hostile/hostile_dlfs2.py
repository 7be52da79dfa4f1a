"""What only a pickled list of arrays can suffer: names that would run, recipes that lie."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from corpus import MARK, NAMES, Format, Mutant


def _file(data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "m.pkl").write_bytes(data)
        return folder / "m.pkl"

    return write


def _arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-0.5, 0.5, s).astype("f2") for s in ((3, 8), (2, 8), (8,))]


def intact(folder: Path) -> Path:
    return _file(pickle.dumps(_arrays(), 3))(folder)


WHOLE = pickle.dumps(_arrays(), 3)


def _swap(old: bytes, new: bytes) -> bytes:
    assert old in WHOLE
    return WHOLE.replace(old, new, 1)


def _call(module: str, name: str, argument: str) -> bytes:
    """A list with what calling module.name(argument) gives."""
    said = argument.encode()
    return (
        b"\x80\x03]"
        + f"c{module}\n{name}\n".encode()
        + b"X" + struct.pack("<I", len(said)) + said
        + b"\x85Ra."
    )  # fmt: skip


def _array(shape: bytes, dtype: bytes, content: bytes) -> bytes:
    """A list with one array by its recipe."""
    return (
        b"\x80\x03]cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R("
        b"K\x01" + shape + b"cnumpy\ndtype\nX" + struct.pack("<I", len(dtype)) + dtype
        + b"\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + content + b"tba."
    )  # fmt: skip


CASES: dict[str, bytes] = {
    "os.system": _call("os", "system", f"touch {MARK}"),
    "posix.system": _call("posix", "system", f"touch {MARK}"),
    "eval": _call("builtins", "eval", f"open('{MARK}', 'w')"),
    "exec": _call("builtins", "exec", f"open('{MARK}', 'w')"),
    "import": _call("antigravity", "x", MARK),
    "numpy.load": _call("numpy", "load", "/etc/passwd"),
    "numpy.fromfile": _call("numpy", "fromfile", "/dev/zero"),
    "a name with dots": _call("numpy.core", "os.system", f"touch {MARK}"),
    "an instance": b"\x80\x03](ios\nsystem\nX\x01\x00\x00\x00aoa.",
    "an extension": b"\x80\x03]\x82\x01a.",
    "a persistent id": b"\x80\x03]PX\na.",
    "a buffer outside": b"\x80\x05]\x97a.",
    "shape of 2**62": _array(b"\x8a\x08" + struct.pack("<q", 2**62) + b"\x85", b"f2", b"C\x00"),
    "shape of 10**5 sizes": _array(b"(" + b"K\x01" * 60_000 + b"t", b"f2", b"C\x02\0\0"),
    "shape of a negative size": _array(b"J\xff\xff\xff\xff\x85", b"f2", b"C\x00"),
    "shape of a string": _array(b"X\x01\0\0\0a\x85", b"f2", b"C\x00"),
    "dtype of objects": _array(b"K\x01\x85", b"O8", b"C\x08" + bytes(8)),
    "dtype of objects in a list": _array(b"K\x01\x85", b"O8", b"](Na"),
    "dtype V8": _array(b"K\x01\x85", b"V8", b"C\x08" + bytes(8)),
    "dtype of commas": _array(b"K\x01\x85", b"f4," * 1000, b"C\x04" + bytes(4)),
    "bytes that are none": _array(b"K\x01\x85", b"f2", b"N"),
    "content of itself": b"\x80\x03]q\x00h\x00a.",
    "a tuple of tuples": b"\x80\x03])" + b"\x85" * 120_000 + b"a.",
    "a tuple of tuples as a key": b"\x80\x03})" + b"\x85" * 120_000 + b"Ns.",
    "lists without end": b"\x80\x03" + b"]" * 120_000 + b"a" * 119_999 + b".",
    "doubling lists": b"\x80\x03]" + b"]q\x01(h\x01h\x01e" * 30 + b"a.",
    "steps without end": b"\x80\x03" + b"N0" * 2**20 + b"].",
    "marks without end": b"\x80\x03" + b"(" * 120_000 + b"t" * 60_000 + b".",
    "a number of 10**6 digits": b"\x80\x03]I" + b"9" * 10**6 + b"\na.",
    "a long number": b"\x80\x03]\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b"a.",
    "bytes of 2**31": b"\x80\x03]B\xff\xff\xff\x7fa.",
    "bytes of 2**63": b"\x80\x04]\x8e" + b"\xff" * 7 + b"\x7fa.",
    "a frame of 2**63": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f].",
    "memo 2**31": b"\x80\x03]r\xff\xff\xff\x7fj\xff\xff\xff\x7fa.",
    "protocol 255": b"\x80\xff].",
    "NaN": _swap(WHOLE[-40:-20], np.full(10, np.nan, "f2").tobytes()),
    "infinity": _swap(WHOLE[-40:-20], np.full(10, np.inf, "f2").tobytes()),
    "a dict": pickle.dumps({}, 3),
    "floats": pickle.dumps([0.5] * 100_000, 3),
    "arrays without end": pickle.dumps([np.zeros(1, "f2") for _ in range(20_000)], 3),
    "layers without end": pickle.dumps(
        [np.zeros(s, "f2") for _ in range(400) for s in ((1, 4), (1, 4), (4,))], 3
    ),
}


def crafted() -> Iterator[Mutant]:
    """Everything in this file, and names of what would be called."""
    for name, data in CASES.items():
        yield Mutant(f"dlfs2: {name}", _file(data))
    for name, text in NAMES.items():
        assert MARK in text
        plain = text.encode(errors="surrogatepass").replace(b"\n", b" ")
        yield Mutant(f"dlfs2: called, {name}", _file(b"\x80\x03]cos\n" + plain + b"\n)Ra."))


DLFS2 = Format("dlfs2", intact, crafted)
