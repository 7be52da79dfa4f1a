"""How one tensor of a file holds recurrent states: the order of its axes, as text like "B 2 H 2".

Inside, packed states are always rows (R, B, H): one row for each direction of each state, in the
order of the slots. A packing says which axes a file makes of them: "B" the batch, "H" the units,
numbers for the rows in row-major order, "2*H" where one axis runs over rows and units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ifgo.errors import ModelError

Atom = int | str
"""A number of rows, "B" or "H"."""

MAX_AXES: Final = 8


@dataclass(frozen=True)
class Packing:
    """Axes of a packed tensor, each a product of atoms. Built by `parse`, `usual` or `find`."""

    axes: tuple[tuple[Atom, ...], ...]

    @staticmethod
    def parse(text: str) -> Packing:
        """Raises ModelError where `text` is no packing: H once, B at most once and alone in its
        axis, sizes from 1."""
        axes: list[tuple[Atom, ...]] = []
        for word in text.split(" "):
            if not re.fullmatch(r"B|(?:H|[1-9]\d{0,8})(?:\*(?:H|[1-9]\d{0,8}))*", word):
                axes = []
                break
            axes.append(tuple(int(atom) if atom.isdecimal() else atom for atom in word.split("*")))
        letters = [atom for axis in axes for atom in axis if isinstance(atom, str)]
        if sorted(letters) not in (["H"], ["B", "H"]) or len(axes) > MAX_AXES:
            raise ModelError(
                f"layout is {text[:80]!r}",
                expected='axes such as "2 B H" or "B 2 H 2": H once, B at most once, row counts',
            )
        return Packing(tuple(axes))

    @staticmethod
    def usual(rows: int, *, batched: bool) -> Packing:
        """Rows along the leading axis: (R, B, H), without B where there is no batch."""
        return Packing(((rows,), *([("B",)] if batched else []), ("H",)))

    @staticmethod
    def find(
        shape: Sequence[int], batch: int | None, rows: Sequence[NDArray[np.intp]]
    ) -> tuple[Packing, list[int]] | None:
        """The packing of a tensor and the order of its slots, None where it has no such form.

        shape: the tensor's axes without the batch. batch: where "B" goes, None if nowhere. rows:
        for each slot the flat places (D, H) of its elements in a tensor of that shape.
        """
        units = rows[0].shape[1]
        total = math.prod(shape)
        stride = int(rows[0][0, 1] - rows[0][0, 0]) if units > 1 else 1
        if any(r.shape[1] != units for r in rows) or stride < 1 or total % (units * stride):
            return None
        places = np.arange(total).reshape(-1, units, stride).swapaxes(1, 2).reshape(-1, units)
        rank = {int(row[0]): k for k, row in enumerate(places)}
        order = sorted(range(len(rows)), key=lambda k: rank.get(int(rows[k][0, 0]), -1))
        if not np.array_equal(np.concatenate([rows[k] for k in order]), places):
            return None
        axes = _split(shape, [total // (units * stride), "H", stride], units)
        if axes is None:
            return None
        if batch is not None:
            axes.insert(batch, ("B",))
        return Packing(tuple(axes)), order

    def __str__(self) -> str:
        return " ".join("*".join(map(str, axis)) for axis in self.axes)

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """All axes taken apart."""
        return tuple(atom for axis in self.axes for atom in axis)

    @property
    def rows(self) -> int:
        """R."""
        return math.prod(atom for atom in self.atoms if isinstance(atom, int))

    @property
    def batched(self) -> bool:
        """Whether the tensor has an axis for the batch."""
        return "B" in self.atoms

    @property
    def order(self) -> list[int]:
        """Positions of the atoms as rows, then B, then H: what a transpose takes to get there."""
        key = {"B": 1, "H": 2}
        return sorted(range(len(self.atoms)), key=lambda k: key.get(str(self.atoms[k]), 0))

    def shape(self, units: int, batch: Any) -> list[Any]:
        """Sizes of the tensor; `batch` stands for B as it is given."""
        return [
            batch if axis == ("B",) else math.prod(units if a == "H" else int(a) for a in axis)
            for axis in self.axes
        ]

    def unpack(self, tensor: NDArray[Any], units: int) -> NDArray[Any]:
        """The rows (R, B, H) of a tensor; B is 1 where it has no batch. Raises ModelError."""
        batch = tensor.shape[self.axes.index(("B",))] if self.batched and tensor.ndim else 1
        if list(tensor.shape) != self.shape(units, batch):
            wanted = ", ".join(map(str, self.shape(units, "B")))
            raise ModelError(f"has shape {tensor.shape}", expected=f"({wanted}), packed as {self}")
        sizes = {"B": batch, "H": units}
        apart = tensor.reshape([sizes.get(str(atom), atom) for atom in self.atoms])
        return apart.transpose(self.order).reshape(self.rows, batch, units)

    def pack(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The tensor that holds the rows (R, B, H)."""
        _, batch, units = rows.shape
        sizes = {"B": batch, "H": units}
        order = self.order
        moved = rows.reshape([sizes.get(str(self.atoms[k]), self.atoms[k]) for k in order])
        return moved.transpose(np.argsort(order)).reshape(self.shape(units, batch))


def _split(shape: Sequence[int], atoms: list[Atom], units: int) -> list[tuple[Atom, ...]] | None:
    """Axes of `shape` as products of `atoms`; row counts may be split, H may not. One unit is put
    on the last axis of length 1."""
    left = [atom for atom in atoms if atom != 1 and not (atom == "H" and units == 1)]
    axes: list[tuple[Atom, ...]] = []
    for extent in shape:
        axis: list[Atom] = []
        while extent > 1:
            atom = left.pop(0) if left else 0
            size = units if atom == "H" else int(atom)
            if size and extent % size == 0:
                axis.append(atom)
                extent //= size
            elif isinstance(atom, int) and size and size % extent == 0:
                axis.append(extent)
                left.insert(0, size // extent)
                extent = 1
            else:
                return None
        axes.append(tuple(axis) or (1,))
    if units == 1 and axes:
        single = [k for k, axis in enumerate(axes) if axis == (1,)]
        place = single[-1] if single else len(axes) - 1
        axes[place] = ("H",) if single else (*axes[place], "H")
    return axes if axes and not left else None
