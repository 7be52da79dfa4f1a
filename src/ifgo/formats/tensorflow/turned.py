"""Sequences that a loop reads from the last step to the first, and what turns its outputs back.

Keras and bidirectional_dynamic_rnn turn the sequence, run a loop over it, and turn its outputs. The
two turns are those of a backward direction; without the second one the outputs stay in the order of
processing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ifgo.errors import UnsupportedError
from ifgo.formats.tensorflow.file import TFNode

if TYPE_CHECKING:
    from ifgo.formats.tensorflow.loops import Loops

Use = Literal["turn", "last", "order"]

TURNS = ("ReverseV2", "ReverseSequence")

_DEPTH = 8
"""Most moves between a loop and a turn."""


def order_of(loops: Loops, node: TFNode) -> list[int] | None:
    """The permutation of a Transpose, None where it is none that is known."""
    made = loops.makers.get(node.name)
    if node.op != "Transpose" or made is None or "perm" not in made.attributes:
        return None
    return [int(n) for n in made.attributes["perm"].ints]


def _turn(loops: Loops, node: TFNode, axis: int) -> str | None:
    """The lengths within which a node turns sequences along `axis`, "" where it turns the whole of
    them; None where it does not turn them."""
    if node.op == "ReverseV2" and len(node.inputs) == 2:
        axes = loops.t.known(node.inputs[1])
        return "" if axes is not None and axes.reshape(-1).tolist() == [axis] else None
    if node.op == "ReverseSequence" and len(node.inputs) == 2:
        places = (node.integer("seq_dim"), node.integer("batch_dim"))
        return loops.followed(node.inputs[1]) if places == (axis, 1 - axis) else None
    return None


def straight(loops: Loops, name: str, axis: int = 0, depth: int = 0) -> tuple[str, str] | None:
    """(sequence, lengths as `_turn` gives them) where `name` is the sequence turned along `axis`,
    None where it is not."""
    node = loops.t.nodes.get(loops.extents.plain(name))
    if node is None or depth > _DEPTH or not node.inputs:
        return None
    if node.op in TURNS and node.name not in loops.turned_back:
        lengths = _turn(loops, node, axis)
        if lengths is None and node.op == "ReverseSequence":
            raise UnsupportedError(
                "is a ReverseSequence along another axis than time",
                where=node.where,
                expected="each sequence of the batch turned within its length",
            )
        if lengths is None:
            return None
        loops.read_turned.add(node.name)
        return node.inputs[0], lengths
    if node.op in TURNS:
        return straight(loops, node.inputs[0], axis, depth + 1)
    order = order_of(loops, node)
    if order is None or not 0 <= axis < len(order):
        return None
    found = straight(loops, node.inputs[0], order[axis], depth + 1)
    if found is None:
        return None
    moved = loops.t.out.add("Transpose", (found[0],), name=node.name, kind=node.op, perm=order)
    return moved, found[1]


def uses(
    loops: Loops, name: str, lengths: str, axis: int = 0, depth: int = 0
) -> list[tuple[Use, TFNode]]:
    """What takes outputs whose time is `axis`: turns them within `lengths`, takes the last, or
    their order."""
    found: list[tuple[Use, TFNode]] = []
    for node in loops.users(name):
        order = order_of(loops, node)
        if node.op in TURNS:
            turns = _turn(loops, node, axis) == lengths and node.name not in loops.read_turned
            found.append(("turn" if turns else "order", node))
        elif ((order is not None and axis in order) or node.op == "Identity") and depth < _DEPTH:
            place = axis if order is None else order.index(axis)
            # what nothing takes is a result of the graph
            found += uses(loops, node.name, lengths, place, depth + 1) or [("order", node)]
        elif node.op == "StridedSlice" and _takes_last(loops, node, axis):
            found.append(("last", node))
        elif node.op != "Shape":
            found.append(("order", node))
    return found


def _takes_last(loops: Loops, node: TFNode, axis: int) -> bool:
    begin = loops.t.known(node.inputs[1]) if len(node.inputs) == 4 else None
    shrinks = axis == 0 and node.integer("shrink_axis_mask") == 1
    return shrinks and begin is not None and begin.reshape(-1).tolist() == [-1]
