"""How long a tensor is along an axis, as far as the nodes say it: a number or a place.

Two lengths that are equal here are equal in every run; different ones may be equal all the same.
"""

from __future__ import annotations

from typing import Final

from ifgo.formats.onnx.file import Node
from ifgo.formats.tensorflow.file import TFNode, shape_of
from ifgo.formats.tensorflow.graph import SAME, Translation

Extent = int | tuple[str, int]
"""A number, or an axis of a tensor."""

_ALIKE: Final = ("ReverseV2", "ReverseSequence", "Tanh", "Sigmoid", "Relu", "Cast")
_DEPTH: Final = 64


class Extents:
    """Lengths in one graph. stacked: the list of a loop's results → how many there are."""

    def __init__(self, t: Translation, makers: dict[str, Node]) -> None:
        self._t = t
        self._makers = makers
        self.stacked: dict[str, Extent] = {}

    def plain(self, name: str) -> str:
        """`name` without the nodes that hand on what they are given."""
        for _ in range(_DEPTH):
            node = self._t.nodes.get(name)
            if node is None or node.op not in SAME or not node.inputs:
                break
            name = node.inputs[0]
        return name

    def along(self, name: str, axis: int, depth: int = 0) -> Extent:
        """The length of a tensor along `axis`, 0 or more."""
        while depth < _DEPTH:
            depth += 1
            name = self.plain(name)
            node = self._t.nodes.get(name)
            if node is None:
                break
            known = self._t.known(name)
            if known is not None and axis < known.ndim:
                return known.shape[axis]
            if node.op == "Transpose" and len(node.inputs) == 2:
                order = self._order(node)
                if order is None or axis >= len(order):
                    break
                name, axis = node.inputs[0], order[axis]
            elif node.op in _ALIKE and node.inputs:
                name = node.inputs[0]
            elif node.op in ("TensorListStack", "TensorArrayGatherV3") and axis == 0:
                position = 0 if node.op == "TensorListStack" else -1
                source = self.plain(node.inputs[position]) if node.inputs else ""
                return self.stacked.get(source, (name, axis))
            elif node.op == "Placeholder":
                stored = node.attributes.get("shape")
                sizes = None if stored is None else shape_of(stored.shape)
                if sizes is not None and axis < len(sizes) and sizes[axis] > 0:
                    return sizes[axis]
                break
            else:
                break
        return name, axis

    def number(self, name: str, depth: int = 0) -> Extent:
        """What a single integer is."""
        name = self.plain(name)
        node = self._t.nodes.get(name)
        known = self._t.known(name)
        if known is not None and known.size == 1 and known.dtype.kind in "iu":
            return int(known.reshape(-1)[0])
        if node is None or depth >= _DEPTH:
            return name, -1
        if node.op == "StridedSlice" and len(node.inputs) == 4 and node.integer("shrink_axis_mask"):
            shape = self._t.nodes.get(self.plain(node.inputs[0]))
            sizes, begin = self._t.known(node.inputs[0]), self._t.known(node.inputs[1])
            place = int(begin.reshape(-1)[0]) if begin is not None and begin.size == 1 else -1
            if sizes is not None and sizes.ndim == 1 and 0 <= place < sizes.size:
                return int(sizes[place])
            if shape is not None and shape.op == "Shape" and shape.inputs and place >= 0:
                return self.along(shape.inputs[0], place, depth + 1)
        if node.op == "Max" and node.inputs:
            values = self._t.known(node.inputs[0])
            if values is not None and values.size and values.dtype.kind in "iu":
                return int(values.max())
        if node.op in ("Minimum", "Maximum") and len(node.inputs) == 2:
            one, two = (self.number(source, depth + 1) for source in node.inputs)
            # min(T, max(1, T)) is how dynamic_rnn bounds its loop: T, also where it is 0
            if one == two or (node.op == "Maximum" and one == 1):
                return two
        return name, -1

    def _order(self, node: TFNode) -> list[int] | None:
        made = self._makers.get(node.name)
        if made is None or "perm" not in made.attributes:
            return None
        return [int(n) for n in made.attributes["perm"].ints]
