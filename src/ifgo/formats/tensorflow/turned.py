"""Sequences that a loop reads from the last step to the first, and what turns its outputs back.

Keras and bidirectional_dynamic_rnn turn the sequence, run a loop over it, and turn its outputs. The
two turns are those of a backward direction; without the second one the outputs stay in the order of
processing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ifgo.formats.tensorflow.file import TFNode

if TYPE_CHECKING:
    from ifgo.formats.tensorflow.loops import Loops

Use = Literal["turn", "last", "order"]

_DEPTH = 8
"""Most moves between a loop and a turn."""


def order_of(loops: Loops, node: TFNode) -> list[int] | None:
    """The permutation of a Transpose, None where it is none that is known."""
    made = loops.makers.get(node.name)
    if node.op != "Transpose" or made is None or "perm" not in made.attributes:
        return None
    return [int(n) for n in made.attributes["perm"].ints]


def _turns(loops: Loops, node: TFNode, axis: int) -> bool:
    axes = loops.t.known(node.inputs[1]) if len(node.inputs) == 2 else None
    return axes is not None and axes.reshape(-1).tolist() == [axis]


def straight(loops: Loops, name: str, axis: int = 0, depth: int = 0) -> str | None:
    """The sequence that `name` is when it is turned along `axis`, None where it is not."""
    node = loops.t.nodes.get(loops.extents.plain(name))
    if node is None or depth > _DEPTH:
        return None
    if node.op == "ReverseV2" and node.name not in loops.turned_back:
        if not _turns(loops, node, axis):
            return None
        loops.read_turned.add(node.name)
        return node.inputs[0]
    if node.op in ("ReverseV2", "Identity"):
        return straight(loops, node.inputs[0], axis, depth + 1)
    order = order_of(loops, node)
    if order is None or not 0 <= axis < len(order):
        return None
    found = straight(loops, node.inputs[0], order[axis], depth + 1)
    if found is None:
        return None
    return loops.t.out.add("Transpose", (found,), name=node.name, kind=node.op, perm=order)


def uses(loops: Loops, name: str, axis: int = 0, depth: int = 0) -> list[tuple[Use, TFNode]]:
    """What takes outputs whose time is `axis`: turns them, takes the last, or their order."""
    found: list[tuple[Use, TFNode]] = []
    for node in loops.users(name):
        order = order_of(loops, node)
        if node.op == "ReverseV2":
            turns = _turns(loops, node, axis) and node.name not in loops.read_turned
            found.append(("turn" if turns else "order", node))
        elif ((order is not None and axis in order) or node.op == "Identity") and depth < _DEPTH:
            place = axis if order is None else order.index(axis)
            # what nothing takes is a result of the graph
            found += uses(loops, node.name, place, depth + 1) or [("order", node)]
        elif node.op == "StridedSlice" and _takes_last(loops, node, axis):
            found.append(("last", node))
        elif node.op != "Shape":
            found.append(("order", node))
    return found


def _takes_last(loops: Loops, node: TFNode, axis: int) -> bool:
    begin = loops.t.known(node.inputs[1]) if len(node.inputs) == 4 else None
    shrinks = axis == 0 and node.integer("shrink_axis_mask") == 1
    return shrinks and begin is not None and begin.reshape(-1).tolist() == [-1]
