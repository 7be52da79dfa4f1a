"""What Keras 2 leaves in graphs for inference though it is known: weights that a step cuts into its
gates (`implementation=1`), and masks of dropout that are all ones, x · ones_like(x), exactly x.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from numpy.typing import NDArray

from ifgo.formats.tensorflow.file import TFNode
from ifgo.formats.tensorflow.graph import SAME

_MASKS: Final = ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


def folded(nodes: dict[str, TFNode]) -> dict[str, TFNode]:
    """The nodes, with parts of matrices as constants, and an Identity in the place of each product
    with ones."""
    found = dict(nodes)
    for node in nodes.values():
        count = len(node.inputs)
        if node.op == "Mul" and count == 2:
            for value, other in (node.inputs, node.inputs[::-1]):
                mask = nodes.get(_plain(nodes, other))
                ones = mask is not None and mask.op == "OnesLike" and len(mask.inputs) == 1
                if ones and mask and _plain(nodes, mask.inputs[0]) == _plain(nodes, value):
                    found[node.name] = replace(node, op="Identity", inputs=(value,), attributes={})
        elif node.op == "Split" and count == 2:
            for k, part in enumerate(_split(nodes, node)):
                name = f"{node.name}:{k}" if k else node.name
                found[name] = TFNode(name, "Const", (), {}, part)
        elif node.op == "StridedSlice" and count == 4:
            part = _cut(nodes, node)
            if part is not None:
                found[node.name] = TFNode(node.name, "Const", (), {}, part)
    return found


def _plain(nodes: dict[str, TFNode], name: str) -> str:
    for _ in range(64):
        node = nodes.get(name)
        if node is None or node.op not in SAME or not node.inputs:
            break
        name = node.inputs[0]
    return name


def _known(nodes: dict[str, TFNode], name: str) -> NDArray[Any] | None:
    node = nodes.get(_plain(nodes, name))
    return node.constant() if node is not None and node.op == "Const" else None


def _weights(nodes: dict[str, TFNode], name: str) -> NDArray[Any] | None:
    """A matrix or a vector of floats."""
    node = nodes.get(_plain(nodes, name))
    if node is None or node.op != "Const":
        return None
    if node.array is None and node.dtype("dtype") not in ("f2", "f4", "f8"):
        return None
    found = node.constant()
    return found if found.ndim in (1, 2) and found.dtype.kind == "f" else None


def _integers(nodes: dict[str, TFNode], name: str) -> list[int] | None:
    found = _known(nodes, name)
    if found is None or found.dtype.kind not in "iu" or found.size > 2:
        return None
    return [int(n) for n in found.reshape(-1)]


def _split(nodes: dict[str, TFNode], node: TFNode) -> list[NDArray[Any]]:
    """The parts of a weight that is split evenly, [] where it is anything else."""
    matrix, count = _weights(nodes, node.inputs[1]), node.integer("num_split", 1)
    if matrix is None or _integers(nodes, node.inputs[0]) not in ([matrix.ndim - 1], [-1]):
        return []
    size, rest = divmod(matrix.shape[-1], max(count, 1))
    if rest or not 1 <= count <= 8 or not size:
        return []
    return [matrix[..., k * size : (k + 1) * size] for k in range(count)]


def _cut(nodes: dict[str, TFNode], node: TFNode) -> NDArray[Any] | None:
    """Some columns of a weight, None where anything else is taken."""
    matrix = _weights(nodes, node.inputs[0])
    if matrix is None or any(node.integer(name) for name in _MASKS):
        return None
    places = [_integers(nodes, name) for name in node.inputs[1:]]
    begins, ends, steps = (n if n is not None and len(n) == matrix.ndim else None for n in places)
    if begins is None or ends is None or steps != [1] * matrix.ndim:
        return None
    opens, closes = node.integer("begin_mask"), node.integer("end_mask")
    part = matrix[
        tuple(
            slice(
                None if opens >> k & 1 else begins[k],
                None if closes >> k & 1 else ends[k],
            )
            for k in range(matrix.ndim)
        )
    ]
    return part if part.size else None
