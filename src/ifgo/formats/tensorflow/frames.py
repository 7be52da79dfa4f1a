"""While loops of TensorFlow 1, written in Enter, Merge, Switch, NextIteration and Exit.

A state of the loop is what Merge takes from Enter first and from NextIteration then; Switch hands
it to the body, Exit gives the last one.
"""

from __future__ import annotations

from ifgo.formats.tensorflow.file import TFNode
from ifgo.formats.tensorflow.functions import Flat, Loop, Variable


def unframed(flat: Flat) -> Flat:
    """The graph whose framed loops are among its loops; what every step is given unchanged is taken
    from outside."""
    nodes, loops, ends = dict(flat.nodes), list(flat.loops), set(flat.kept)
    for loop in _framed(flat.nodes):
        kept: list[Variable] = []
        for v in loop.variables:
            if _followed(nodes, v.made) == v.given:
                for same in filter(None, (v.given, v.tested, v.end)):
                    nodes[same] = TFNode(same, "Identity", (v.start,), {})
                ends.update((v.given, v.tested, v.end))
            else:
                kept.append(v)
        loop.variables = kept
        loops.append(loop)
    return Flat(nodes, loops, ends)


def _framed(nodes: dict[str, TFNode]) -> list[Loop]:
    found: dict[str, Loop] = {}
    switches = {n.inputs[0]: n for n in _of(nodes, "Switch") if len(n.inputs) == 2}
    exits = {node.inputs[0]: node for node in _of(nodes, "Exit") if node.inputs}
    for merge in _of(nodes, "Merge"):
        sources = [nodes.get(name) for name in merge.inputs]
        enter = next((n for n in sources if n is not None and n.op == "Enter"), None)
        step = next((n for n in sources if n is not None and n.op == "NextIteration"), None)
        switch = switches.get(merge.name)
        if enter is None or step is None or switch is None:
            continue
        if not (enter.inputs and step.inputs):
            continue
        stored = enter.attributes.get("frame_name")
        frame = "" if stored is None else stored.s.decode("utf-8", "replace")
        loop = found.setdefault(frame, Loop(frame))
        decision = nodes.get(switch.inputs[1])
        if decision is not None and decision.op == "LoopCond" and decision.inputs:
            loop.condition = decision.inputs[0]
        end = exits.get(switch.name)
        loop.variables.append(
            Variable(
                enter.inputs[0],
                f"{switch.name}:1",
                step.inputs[0],
                "" if end is None else end.name,
                merge.name,
            )
        )
    return list(found.values())


def _of(nodes: dict[str, TFNode], op: str) -> list[TFNode]:
    return [node for node in nodes.values() if node.op == op]


def _followed(nodes: dict[str, TFNode], name: str) -> str:
    for _ in range(64):
        node = nodes.get(name)
        if node is None or node.op != "Identity" or not node.inputs:
            break
        name = node.inputs[0]
    return name
