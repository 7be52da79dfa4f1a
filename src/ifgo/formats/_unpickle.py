"""A pickle read as data: what it names is neither imported nor called, so nothing in it can run.

Objects come back as the recipe that the pickle holds for them; readers recognise the few they know.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ifgo import limits
from ifgo.errors import FormatError, IfgoError
from ifgo.text import cut, quote


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names, "module.attribute"; only its name."""

    path: str


@dataclass(eq=False)
class Made:
    """What calling `maker` with `args` would have made, and the state it would have been given.

    `items` and `pairs`: what would have been appended to it, or set in it.
    """

    maker: Any
    args: Any
    state: Any = None
    items: list[Any] = field(default_factory=list[Any])
    pairs: list[tuple[Any, Any]] = field(default_factory=list[tuple[Any, Any]])

    @property
    def path(self) -> str:
        """The name of its class or function, "" where the maker is no name."""
        maker = self.maker
        if isinstance(maker, Name) and maker.path in _NEW and _is_tuple(self.args) and self.args:
            maker = self.args[0]
        return maker.path if isinstance(maker, Name) else ""


@dataclass(frozen=True, eq=False)
class Outside:
    """An object that lies outside the pickle, by its persistent id."""

    key: Any


_NEW: Final = ("copy_reg._reconstructor", "copyreg._reconstructor", "copyreg.__newobj__")
_MARK: Final = object()
_PLAIN: Final = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
)
_FIXED: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "MARK": lambda: _MARK,
}
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Pickled:
    """A pickle and what follows it. outside: the objects it names by persistent id, in order.
    end: where the next byte after it lies."""

    value: Any
    outside: tuple[Outside, ...]
    end: int


def parse(data: bytes, admit: Callable[[str], None] = lambda path: None) -> Any:
    """What a pickle of protocol 0 to 5 holds: plain values, lists, tuples, dicts, and Name, Made
    and Outside for all else. admit: called with each name, may raise an error of its own.

    Raises FormatError on anything that is no whole pickle, or takes more than
    the limit pickle_steps.
    """
    return parse_at(data, 0, admit).value


def parse_at(data: bytes, start: int, admit: Callable[[str], None] = lambda path: None) -> Pickled:
    """The pickle that begins at byte `start`; raises as `parse`."""
    machine = _Machine(admit)
    steps = 0
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        for opcode, argument, at in pickletools.genops(stream):
            steps += 1
            if steps > limits.current().pickle_steps:
                raise FormatError(
                    f"is a pickle of more than {limits.current().pickle_steps} steps",
                    **limits.at_most("pickle_steps", form="arrays, and little beside them"),
                )
            if opcode.name == "STOP":
                return Pickled(machine.result(), tuple(machine.outside), cast(int, at) + 1)
            machine.step(opcode.name, argument)
    except (IfgoError, MemoryError):
        raise
    # The parser raises whatever the bytes provoke.
    except Exception:
        raise _damaged() from None
    raise _damaged()


def starts_pickle(head: bytes) -> bool:
    """Whether a file that starts with `head` may be a pickle of protocol 2 or later."""
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def _damaged() -> FormatError:
    return FormatError(
        "is no whole pickle", hint="The file is cut short or damaged: write it again"
    )


def _is_tuple(value: Any) -> bool:
    return isinstance(value, tuple)


class _Machine:
    """The stack and memo of one pickle."""

    def __init__(self, admit: Callable[[str], None]) -> None:
        self.admit = admit
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.outside: list[Outside] = []

    def result(self) -> Any:
        (value,) = self.stack
        return value

    def marked(self) -> list[Any]:
        """What lies above the last mark, which goes."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise _damaged()
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PLAIN:
            stack.append(argument)
        elif name in _FIXED:
            stack.append(_FIXED[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [self.tuple(stack[-count:], count)]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            self.build(name, argument)

    @staticmethod
    def tuple(values: list[Any], count: int) -> tuple[Any, ...]:
        if len(values) != count:
            raise _damaged()
        return tuple(values)

    def build(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "TUPLE":
                stack.append(tuple(self.marked()))
            case "LIST" | "FROZENSET":
                stack.append(self.marked())
            case "DICT":
                values = self.marked()
                stack.append(self.paired({}, values))
            case "APPEND":
                value = stack.pop()
                self.extend(stack[-1], [value])
            case "APPENDS" | "ADDITEMS":
                values = self.marked()
                self.extend(stack[-1], values)
            case "SETITEM":
                pair = stack[-2:]
                del stack[-2:]
                self.paired(stack[-1], pair)
            case "SETITEMS":
                values = self.marked()
                self.paired(stack[-1], values)
            case "GLOBAL":
                module, _, attribute = cast(str, argument).partition(" ")
                self.name(module, attribute)
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                self.name(module, attribute)
            case "REDUCE" | "NEWOBJ":
                args, maker = stack.pop(), stack.pop()
                stack.append(Made(maker, args))
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], Made):
                    raise _damaged()
                stack[-1].state = state
            case "BINPERSID" | "PERSID":
                self.outside.append(Outside(stack.pop() if name == "BINPERSID" else argument))
                stack.append(self.outside[-1])
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.marked()
            case "DUP":
                stack.append(stack[-1])
            case _:
                raise FormatError(
                    f"is a pickle with the instruction {name}", expected="arrays alone"
                )

    def name(self, module: Any, attribute: Any) -> None:
        """Pushes a name; the text of anything but text may be longer than the memory."""
        if type(module) is not str or type(attribute) is not str:
            raise _damaged()
        self.admit(f"{module}.{attribute}")
        self.stack.append(Name(f"{module}.{attribute}"))

    def extend(self, owner: Any, values: list[Any]) -> None:
        (owner.items if isinstance(owner, Made) else owner).extend(values)

    def paired(self, owner: Any, values: list[Any]) -> Any:
        if len(values) % 2:
            raise _damaged()
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if not all(_is_key(key) for key, _ in pairs):
            raise _damaged()
        if isinstance(owner, Made):
            owner.pairs += pairs
        else:
            owner.update(pairs)
        return owner


def _is_key(value: Any) -> bool:
    """Whether it may be hashed: a tuple of tuples may be deeper than the C stack."""
    if _is_tuple(value):
        return all(isinstance(part, _PLAIN_KEYS) for part in value)
    return isinstance(value, (*_PLAIN_KEYS, Name, Made, Outside))


_PLAIN_KEYS: Final = (str, int, float, bytes, type(None))


# -- arrays ---------------------------------------------------------------------------------------

_RECONSTRUCT: Final = tuple(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core"))
_FROM_BUFFER: Final = tuple(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core"))


def is_array(value: Any) -> bool:
    """Whether `value` is the recipe of a NumPy array, which `array` reads."""
    return isinstance(value, Made) and value.path in (*_RECONSTRUCT, *_FROM_BUFFER)


def array(value: Made, what: str) -> NDArray[Any] | list[Any]:
    """The numbers of an array's recipe, or the list that an array of objects holds.

    Raises FormatError naming `what` where its parts do not fit each other.
    """
    try:
        if value.path in _FROM_BUFFER:
            buffer, kind, shape, order = value.args
        else:
            _, shape, kind, fortran, buffer = value.state
            order = "F" if fortran else "C"
        dtype = _dtype(kind)
        shape = tuple(shape)
        if any(
            type(size) is not int or not 0 <= size <= limits.current().elements for size in shape
        ):
            raise ValueError
        count = math.prod(shape)
        if dtype is None:
            if type(buffer) is not list or len(cast("list[Any]", buffer)) != count:
                raise ValueError
            return cast("list[Any]", buffer)
        raw = _bytes(buffer)
        if len(raw) == count * dtype.itemsize and order in ("C", "F"):
            return np.frombuffer(raw, dtype).reshape(shape, order=order)
    except (TypeError, ValueError, AttributeError, KeyError):
        raise FormatError(
            f"{what} is an array whose parts make no sense", hint="Write the file again"
        ) from None
    raise FormatError(
        f"{what} has {len(raw)} bytes for shape {cut(shape)} of {dtype}",
        expected=cut(count * dtype.itemsize),
        hint="Write the file again",
    )


def _bytes(value: Any) -> bytes:
    """Bytes as protocols 2 to 5 and Python 2 write them."""
    if isinstance(value, Made) and value.path == "_codecs.encode":
        value = value.args[0]
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise ValueError


def _dtype(value: Any) -> np.dtype[Any] | None:
    """A dtype of real numbers; None for objects."""
    if not isinstance(value, Made) or value.path != "numpy.dtype" or value.args[0] not in _DTYPES:
        raise ValueError
    name, order = value.args[0], "|" if value.state is None else value.state[1]
    if name == "O8" or name == "O":
        return None
    if order not in ("<", ">", "|", "="):
        raise ValueError
    return np.dtype(f"{order}{name}")


_DTYPES: Final = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "O8", "O")


def kind_of(value: Any) -> str:
    """What `value` is, in words for a message."""
    if isinstance(value, Made):
        return f"an object of {quote(value.path)}" if value.path else "an object"
    if isinstance(value, Name):
        return f"the name {quote(value.path)}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
