"""From the calls of a whole model to a Model: one path, with states beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, cast

from ifgo.errors import UnsupportedError
from ifgo.formats.keras._config import SELECT_HINT, Node
from ifgo.formats.keras._container import Contents
from ifgo.formats.keras._graph import Call, Graph, Ref
from ifgo.formats.keras._layers import Chain
from ifgo.formats.keras._recurrent import is_recurrent
from ifgo.formats.keras._weights import ByName, ByPath, Store, refuse_rest
from ifgo.layers import InitialState, LastStep, Layer, Masking, Recurrent
from ifgo.model import (
    Embedding,
    FeatureInput,
    LengthsInput,
    Model,
    Output,
    Provenance,
    StateInput,
    StateSlot,
    TokenInput,
)
from ifgo.text import quote

_SLICES = {"GetItem": ("argument 0",), "SlicingOpLambda": ("slice_spec",)}
"""x[...] of a functional model in Keras 3 and in TensorFlow's Keras, and where it is written."""


def _is_whole(part: Any) -> bool:
    """Whether it is the slice `:`."""
    config: Any = part
    if isinstance(part, dict) and "config" in part:
        config = cast("dict[str, Any]", part)["config"]
    return isinstance(config, dict) and not any(
        cast("dict[str, Any]", config).get(key) is not None for key in ("start", "stop", "step")
    )


_MASK_OPS = ("NotEqual", "Any")
"""How Keras 3 spells the mask of Embedding and Masking in a functional model."""


def store_of(contents: Contents, nodes: tuple[Node, ...] = ()) -> Store:
    """The arrays of the file."""
    if contents.by_path:
        return ByPath(contents.root)
    found = ByName.open(contents.root)
    if contents.given:
        found.rename([n.owner for n in nodes if n.kind in _WITH_ARRAYS or is_recurrent(n)])
    return found


_WITH_ARRAYS = (
    *("Dense", "Embedding", "BatchNormalization", "TimeDistributed"),
    *("Normalization", "Conv1D"),
)


class Walk:
    """Follows the calls of a graph. Raises UnsupportedError naming the layer that is no part of
    one path."""

    def __init__(self, graph: Graph, contents: Contents) -> None:
        self.graph = graph
        self.contents = contents
        self.chain = Chain(store_of(contents, graph.nodes))
        self.end: Ref = ("", 0)
        self.states: dict[Ref, StateSlot] = {}
        self.inputs: list[StateInput] = []
        self.masks: set[Ref] = set()
        self.input_name = "x"
        self.uses = Counter(
            ref
            for call in graph.calls.values()
            if call.node.kind not in _MASK_OPS
            for ref in call.inputs
        )

    def run(self) -> Model:
        """Every call once all it takes is there, then the Model."""
        left = dict(self.graph.calls)
        done: set[str] = set()
        while left:
            ready = [n for n, call in left.items() if all(r[0] in done for r in call.needs)]
            if not ready:
                where = next(iter(left.values())).node.where
                raise UnsupportedError("takes what depends on it", where=where)
            for name in ready:
                self.call(left.pop(name))
                done.add(name)
        refuse_rest(self.chain.store)
        return self.model()

    # -- calls ------------------------------------------------------------------------------

    def call(self, call: Call) -> None:
        """One layer."""
        node = call.node
        call.refuse_arguments(
            "initial_state" if is_recurrent(node) else "argument 0", *_SLICES.get(node.kind, ())
        )
        if node.kind in _MASK_OPS:
            self.mask(call)
            return
        if node.kind == "InputLayer" and self.feeds_states(node):
            return
        before = len(self.chain.layers)
        if not call.inputs:
            if self.end[0]:
                raise self.branch(node, "is a second input")
            self.input_name = node.name if node.kind == "InputLayer" else f"{node.name}_input"
        elif self.joins_states(call):
            self.last_state(call)
            self.end = (node.name, 0)
            return
        else:
            self.advance(call)
        if node.kind in _SLICES:
            self.last_step(call)
        else:
            self.chain.read(node)
        if is_recurrent(node):
            self.recurrent(call, self.chain.layers[before:])
        self.end = (node.name, 0)

    def branch(self, node: Node, what: str) -> UnsupportedError:
        """A layer off the path."""
        return UnsupportedError(
            what, where=node.where, expected="one path from input to output", hint=SELECT_HINT
        )

    def feeds_states(self, node: Node) -> bool:
        """Whether an InputLayer gives nothing but initial states."""
        users = [
            call
            for call in self.graph.calls.values()
            if any(ref[0] == node.name for ref in call.needs)
        ]
        return bool(users) and all(
            is_recurrent(call.node) and call.inputs[:1] != ((node.name, 0),) for call in users
        )

    def advance(self, call: Call) -> None:
        """The input of `call` must be where the path has come to, and only its."""
        first = call.inputs[0]
        slot = self.states.get(first)
        if slot is not None and slot.part == "h" and self.end == (first[0], 0):
            self.last_state(call)
        elif first != self.end:
            raise self.branch(call.node, f"takes the output {first[1]} of layer {quote(first[0])}")
        if self.uses[first] > 1 or (first[1] and self.uses[self.end]):
            users = [c.node.name for c in self.graph.calls.values() if first in c.inputs]
            raise self.branch(
                call.node, f"shares its input with {', '.join(map(quote, users[:8]))}"
            )
        if len(call.inputs) > 1 and not is_recurrent(call.node):
            raise self.branch(call.node, f"takes {len(call.inputs)} inputs")
        mask = call.kwargs.get("mask")
        if mask is not None and not self.masks.issuperset(mask):
            raise UnsupportedError(
                "takes a mask that is not that of its input",
                where=call.node.where,
                expected="the mask of an Embedding or Masking before it",
            )

    def last_state(self, call: Call) -> None:
        """The path goes on from the final h of the layer before, not from its sequence."""
        chain = self.chain
        if isinstance(chain.layers[-1], LastStep):
            chain.layers.pop()
        assert isinstance(chain.layers[-1], Recurrent)
        chain.push(LastStep(f"{chain.layers[-1].name}_last", "state"))
        chain.end_sequence()

    def joins_states(self, call: Call) -> bool:
        """Whether it puts the final h of both directions together, and nothing else is used of
        the layer before."""
        node, chain = call.node, self.chain
        name = self.end[0]
        if node.kind != "Concatenate" or call.inputs != ((name, 1), (name, 3)):
            return False
        given = self.graph.calls[name].node
        layers = [layer for layer in chain.layers if isinstance(layer, Recurrent)]
        merged = bool(layers) and layers[-1].directions == 2 and layers[-1].merge == "concat"
        alone = all(self.uses[name, k] == (k in (1, 3)) for k in range(5))
        shown = any(ref[0] == name for ref in self.graph.outputs)
        known = node.raw("axis", -1) in (-1, 1) and given.kind == "Bidirectional"
        return known and merged and alone and not shown and is_recurrent(given)

    def last_step(self, call: Call) -> None:
        """x[:, -1], or the number of the last step."""
        node, chain = call.node, self.chain
        given = call.plain.get("argument 0", call.plain.get("slice_spec"))
        parts: list[Any] = cast("list[Any]", given) if isinstance(given, list) else []
        whole = [_is_whole(part) for part in parts]
        last = parts[1] if len(parts) > 1 and isinstance(parts[1], int) else None
        fits = last == -1 or (chain.steps is not None and last == chain.steps - 1)
        if not fits or not whole[0] or not all(whole[2:]) or len(parts) > 3:
            raise UnsupportedError(
                "takes a part of its input other than the last step",
                where=node.where,
                expected="x[:, -1]",
                hint=SELECT_HINT,
            )
        chain.need(node, "sequence")
        chain.push(LastStep(node.name, "sequence"))
        chain.end_sequence()

    def mask(self, call: Call) -> None:
        """NotEqual(x, value) of the input of an Embedding or Masking, and Any over it."""
        node = call.node
        first = call.inputs[0] if len(call.inputs) == 1 else ("", 0)
        if first in self.masks:
            self.masks.add((node.name, 0))
            return
        for other in self.graph.calls.values():
            wanted = {"Embedding": 0, "Masking": other.node.values.get("mask_value", 0.0)}
            same = other.inputs == call.inputs and other.node.kind in wanted
            if same and list(call.plain.values())[:1] == [wanted[other.node.kind]]:
                self.masks.add((node.name, 0))
                return
        raise self.branch(node, "compares values")

    def recurrent(self, call: Call, added: list[Layer]) -> None:
        """States in and out of a recurrent layer."""
        node = call.node
        layers = [layer for layer in added if isinstance(layer, Recurrent)]
        single = len(layers) == 1 and layers[0].directions == 1
        if single and node.values.get("return_state"):
            for k, part in enumerate("hc", 1):
                self.states[node.name, k] = StateSlot(layers[0].name, "h" if part == "h" else "c")
        given = call.kwargs.get("initial_state") or call.inputs[1:]
        if not given:
            return
        if not single or len(given) != 2:
            raise self.branch(node, "takes initial states that are not h and c")
        old = node.version.major in (1, 2) and node.version.minor < 3
        if self.chain.masked and (old or node.version.major is None):
            raise UnsupportedError(
                "takes an initial state and a mask",
                where=node.where,
                expected="Keras 2.3 or later, where masked steps before the first give zeros",
            )
        if self.chain.masked and "mask" not in call.kwargs and node.version.major == 3:
            raise UnsupportedError(
                "takes an initial state, for which Keras 3 forgets the mask of its input",
                where=node.where,
                expected="a call with mask=, or no mask",
            )
        for ref, part in zip(given, ("h", "c"), strict=True):
            source = self.graph.calls[ref[0]].node
            if source.kind != "InputLayer" or any(i.name == source.name for i in self.inputs):
                raise self.branch(node, f"takes its initial state from layer {quote(ref[0])}")
            slot = StateSlot(layers[0].name, part)
            self.inputs.append(StateInput(source.name, (slot,), "B H"))
        at = self.chain.layers.index(layers[0])
        self.chain.layers[at] = replace(layers[0], initial=InitialState("input"))

    # -- the result -------------------------------------------------------------------------

    def model(self) -> Model:
        """The chain with its inputs and outputs."""
        chain = self.chain
        axes = "TB" if chain.time_major else "BT"
        role = "last" if chain.domain == "vector" else "sequence"
        outputs: list[Output] = []
        for ref in self.graph.outputs:
            slot = self.states.get(ref)
            if ref == self.end:
                outputs.append(Output(role, ref[0], axes=axes))
            elif slot is not None:
                kind = "h_n" if slot.part == "h" else "c_n"
                name = f"{ref[0]}_{slot.part}"
                outputs.append(Output(kind, name, (slot.layer,), axes=axes, layout="B H"))
            else:
                node = self.graph.calls[ref[0]].node
                raise self.branch(node, f"gives output {ref[1]} of the model")
        if self.uses[self.end] == 0 and self.end not in self.graph.outputs and not self.states:
            raise self.branch(self.graph.calls[self.end[0]].node, "ends beside the outputs")
        return assemble(chain, self.contents, self.input_name, self.inputs, tuple(outputs))


def assemble(
    chain: Chain,
    contents: Contents,
    name: str,
    states: list[StateInput],
    outputs: tuple[Output, ...],
    notes: tuple[str, ...] = (),
) -> Model:
    """The Model of a chain. Raises UnsupportedError where it takes vectors."""
    axes = "TB" if chain.time_major else "BT"
    first = chain.layers[0] if chain.layers else None
    if isinstance(first, Embedding):
        main: FeatureInput | TokenInput = TokenInput(first.vocabulary, name, axes)
    else:
        width = chain.input_width
        if first is None or width is None:
            raise UnsupportedError(
                "has no layer that says how many features it takes",
                expected="an InputLayer with (batch, time, features), or arrays",
            )
        main = FeatureInput(width, name, axes)
    if axes == "TB" and any(isinstance(layer, Embedding | Masking) for layer in chain.layers):
        raise UnsupportedError("is time-major and has a mask or tokens", expected="batch first")
    backend = "tf_keras" if contents.version.tensorflow else "keras"
    every: tuple[FeatureInput | TokenInput | LengthsInput | StateInput, ...] = (main, *states)
    provenance = Provenance(
        backend,
        contents.version.text,
        "",
        (*chain.store.notes, *chain.notes, *notes),
        chain.names,
    )
    return Model(every, tuple(chain.layers), outputs, provenance)
