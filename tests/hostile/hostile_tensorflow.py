"""What only a GraphDef can suffer: loops that never end, constants that lie, names of nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from corpus import NAMES, Format, Mutant

sys.path.append(str(Path(__file__).resolve().parents[1] / "formats"))
from tensorflow_cases import Def, draw_cell, dynamic_rnn


def _whole(name: str = "x") -> Def:
    d = Def()
    x = d.node(name, "Placeholder", dtype=1, shape=(-1, -1, 3))
    outputs, _ = dynamic_rnn(d, [draw_cell(0)], x)
    d.node("y", "Identity", outputs)
    return d


def intact(folder: Path) -> Path:
    return _whole().save(folder / "m.pb")


def _changed(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        d = _whole()
        change(d)
        return d.save(folder / "m.pb")

    return write


def _find(d: Any, name: str) -> Any:
    return next(node for node in d.graph.node if node.name == name.encode())


def _input(name: str, *inputs: str) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        node = _find(d, name)
        del node.input[:]
        node.input.extend(i.encode() for i in inputs)

    return change


def _shape(name: str, *sizes: int) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        tensor = _find(d, name).attr[0].value.tensor
        del tensor.shape.dim[:]
        for size in sizes:
            tensor.shape.dim.add(size=size)

    return change


def _repeated(count: int, size: int) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        for k in range(count):
            d.constant(f"k{k}", 1.0)
            _shape(f"k{k}", size)(d)
            tensor = _find(d, f"k{k}").attr[0].value.tensor
            tensor.content = b""
            tensor.float_val.append(1.0)

    return change


def _chain(op: str, count: int) -> Callable[[Any], None]:
    """What a gate takes is `count` operators long."""

    def change(d: Any) -> None:
        before = "w/cell0/split"
        for k in range(count):
            inputs = (before,) if op == "Identity" else (before, before)
            before = d.node(f"deep{k}", op, *inputs)
        _input("w/cell0/i", before)(d)

    return change


def _many(count: int) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        for k in range(count):
            d.node(f"n{k}", "Sigmoid", "y")

    return change


def _frames(count: int) -> Callable[[Any], None]:
    def change(d: Any) -> None:
        zero = d.constant("z", np.zeros(1, "f"))
        for k in range(count):
            enter = d.node(f"e{k}", "Enter", zero, frame_name=b"rnn/while")
            merge = d.node(f"m{k}", "Merge", enter, f"t{k}")
            switch = d.node(f"s{k}", "Switch", merge, "w/LoopCond")
            d.node(f"t{k}", "NextIteration", d.node(f"g{k}", "Identity", f"{switch}:1"))

    return change


CASES: dict[str, Callable[[Any], None]] = {
    "takes itself": _input("y", "y"),
    "takes nothing": _input("y"),
    "takes a stranger": _input("y", "nobody"),
    "a step without a sum": _input("w/cell0/add_1", "w/cell0/mul"),
    "two nodes that take each other": _input("w/cell0/mul_2", "w/cell0/o", "w/h0/Next"),
    "an empty constant": _shape("w/cell0/bias", 0),
    "a huge constant": _shape("w/cell0/bias", 2**31, 2**31),
    "a negative constant": _shape("w/cell0/bias", -5),
    "repeated constants": _repeated(2000, 2**18),
    "one repeated constant": _repeated(1, 2**27),
    "identities without end": _chain("Identity", 5000),
    "sums without end": _chain("Add", 5000),
    "products without end": _chain("Mul", 5000),
    "nodes without end": _many(30_000),
    "nodes almost without end": _many(15_000),
    "states in one loop": _frames(60),
    "states without end": _frames(3000),
}


def crafted() -> Iterator[Mutant]:
    for name, change in CASES.items():
        yield Mutant(f"tensorflow: {name}", _changed(change))
    for name, text in NAMES.items():
        safe = text.encode(errors="surrogatepass").decode("utf-8", "replace")
        yield Mutant(
            f"tensorflow: input, {name}", lambda folder, n=safe: _whole(n).save(folder / "m.pb")
        )


TENSORFLOW = Format("tensorflow", intact, crafted)
