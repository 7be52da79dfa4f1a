"""tf.tensordot of a sequence with a matrix, as Keras writes a Dense layer over time: one product.

    (B, T, I) → Transpose [0, 1, 2] → Reshape (B·T, I) → MatMul (I, O) → Reshape (B, T, O)

The shapes are computed from Shape of the sequence; each part is checked before it is left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ifgo.formats.tensorflow.file import TFNode
from ifgo.formats.tensorflow.graph import SAME


def plain_products(nodes: dict[str, TFNode]) -> dict[str, TFNode]:
    """The nodes, with one product in the place of each such Reshape."""
    found = dict(nodes)
    for node in nodes.values():
        if node.op == "Reshape" and len(node.inputs) == 2:
            sides = _Tensordot(nodes).sides(node)
            if sides is not None:
                found[node.name] = replace(node, op="BatchMatMulV2", inputs=sides, attributes={})
    return found


class _Tensordot:
    def __init__(self, nodes: dict[str, TFNode]) -> None:
        self._nodes = nodes

    def sides(self, last: TFNode) -> tuple[str, str] | None:
        """(sequence, matrix), None where it is another Reshape."""
        product = self._maker(last.inputs[0], "MatMul", 2)
        if product is None or product.flag("transpose_a") or product.flag("transpose_b"):
            return None
        rows = self._maker(product.inputs[0], "Reshape", 2)
        matrix = self._constant(product.inputs[1])
        turned = None if rows is None else self._maker(rows.inputs[0], "Transpose", 2)
        shape = None if rows is None else self._maker(rows.inputs[1], "Pack", 2)
        order = None if turned is None else self._maker(turned.inputs[1], "ConcatV2", 3)
        target = self._maker(last.inputs[1], "ConcatV2", 3)
        if turned is None or shape is None or order is None or target is None or matrix is None:
            return None
        free, axes = (self._integers(name) for name in order.inputs[:2])
        if free is None or axes is None or not free or axes != [len(free)]:
            return None
        if free != list(range(len(free))) or matrix.ndim != 2:
            return None
        source = turned.inputs[0]
        counts = [self._maker(name, "Prod", 2) for name in shape.inputs]
        sizes = [None if c is None else self._sizes(c.inputs[0]) for c in counts]
        if sizes != [(source, tuple(free)), (source, tuple(axes))]:
            return None
        if any(c is None or self._integers(c.inputs[1]) != [0] for c in counts):
            return None
        if self._sizes(target.inputs[0]) != (source, tuple(free)):
            return None
        ends = [self._integers(name) for name in (target.inputs[1], target.inputs[2])]
        if ends != [[matrix.shape[1]], [0]] or self._integers(order.inputs[2]) != [0]:
            return None
        return source, product.inputs[1]

    def _plain(self, name: str) -> str:
        for _ in range(64):
            node = self._nodes.get(name)
            if node is None or node.op not in SAME or not node.inputs:
                break
            name = node.inputs[0]
        return name

    def _maker(self, name: str, op: str, count: int) -> TFNode | None:
        node = self._nodes.get(self._plain(name))
        return node if node is not None and (node.op, len(node.inputs)) == (op, count) else None

    def _constant(self, name: str) -> Any:
        node = self._maker(name, "Const", 0)
        return None if node is None else node.constant()

    def _integers(self, name: str) -> list[int] | None:
        found = self._constant(name)
        if found is None or found.dtype.kind not in "iu" or found.size > 8:
            return None
        return [int(n) for n in found.reshape(-1)]

    def _sizes(self, name: str) -> tuple[str, tuple[int, ...]] | None:
        """(x, axes) where `name` is GatherV2(Shape(x), axes)."""
        gather = self._maker(name, "GatherV2", 3)
        shape = None if gather is None else self._maker(gather.inputs[0], "Shape", 1)
        if gather is None or shape is None or self._integers(gather.inputs[2]) != [0]:
            return None
        axes = self._integers(gather.inputs[1])
        return None if axes is None else (shape.inputs[0], tuple(axes))
