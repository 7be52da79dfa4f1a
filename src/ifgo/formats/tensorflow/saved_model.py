"""A SavedModel folder: one signature of saved_model.pb as a flat graph, its variables as constants.

Which variable of the checkpoint a handle holds is what the file's own restore operator says: pairs
of RestoreV2 and Assign. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ifgo import files
from ifgo.errors import FormatError, UnsupportedError, UsageError
from ifgo.formats.tensorflow.bundle import Bundle
from ifgo.formats.tensorflow.file import TFNode, decoded, text
from ifgo.formats.tensorflow.functions import Flat, flatten
from ifgo.text import listed, quote

DEFAULT: Final = "serving_default"
_INITIALISE: Final = "__saved_model_init_op"
_ASSIGNS: Final = ("Assign", "AssignVariableOp")
_HANDLES: Final = ("VarHandleOp", "VariableV2", "Variable")


@dataclass(frozen=True)
class SavedModel:
    """One signature. outputs: names of tensors in `flat`, each called as the signature calls it
    unless a node has that name."""

    flat: Flat
    outputs: tuple[str, ...]
    version: str


def parse(folder: Path, signature: str | None) -> SavedModel:
    """The signature, serving_default or the only one where None.

    Raises FormatError on damage, UsageError where the signature is not there, UnsupportedError
    where there is none or several and none is named.
    """
    found = decoded(files.read_bytes(folder / "saved_model.pb"), "SavedModel")
    if found is None or not found.meta_graphs:
        raise FormatError(
            "holds no SavedModel, or a truncated one (its protobuf does not decode)",
            where="saved_model.pb",
            expected="a graph for serving",
            hint="Save the model again: model.export(folder) or tf.saved_model.save",
        )
    meta = _served(found.meta_graphs)
    outputs = _outputs(meta, signature)
    flat = flatten(meta.graph_def, [name.partition(":")[0] for name in outputs.values()])
    _fill(flat, meta, folder)
    names: list[str] = []
    for key, name in outputs.items():
        name = name.removesuffix(":0")
        if key not in flat.nodes:
            flat.nodes[key] = TFNode(key, "Identity", (name,), {})
            name = key
        names.append(name)
    return SavedModel(flat, tuple(names), text(meta.meta_info_def.tensorflow_version))


def _served(graphs: Any) -> Any:
    """The graph for serving."""
    if len(graphs) == 1:
        return graphs[0]
    tags = [tuple(map(text, graph.meta_info_def.tags)) for graph in graphs[:64]]
    if tags.count(("serve",)) != 1:
        raise UnsupportedError(
            f"holds {len(graphs)} graphs, tagged {listed(['+'.join(t) for t in tags])}",
            where="saved_model.pb",
            expected="one, or one tagged serve",
        )
    return graphs[tags.index(("serve",))]


def _outputs(meta: Any, signature: str | None) -> dict[str, str]:
    """Name → tensor, in the order of names."""
    known = {
        text(entry.key): entry.value
        for entry in meta.signature_def
        if text(entry.key) != _INITIALISE and entry.value.outputs
    }
    if not known:
        raise UnsupportedError(
            "has no signature, so nothing says what goes in and what comes out",
            where="saved_model.pb",
            expected="one",
            hint="Save it with model.export(folder), or tf.saved_model.save(..., signatures=...)",
        )
    name = signature
    if name is None:
        name = DEFAULT if DEFAULT in known or len(known) > 1 else next(iter(known))
    if name not in known:
        error = UsageError if signature is not None else UnsupportedError
        raise error(
            f"has no signature {quote(name)}",
            where="saved_model.pb",
            expected="one of " + listed(list(known)),
            hint=None
            if signature is not None
            else "Name one with --signature NAME (signature= in Python)",
        )
    pairs = {text(entry.key): text(entry.value.name) for entry in known[name].outputs}
    return {key: pairs[key] for key in sorted(pairs)}


# -- variables --------------------------------------------------------------------------------


def _fill(flat: Flat, meta: Any, folder: Path) -> None:
    """Puts the arrays of the checkpoint in the place of variables."""
    handles = [node for node in flat.nodes.values() if node.op in _HANDLES]
    if not handles:
        return
    keys = _keys(meta)
    bundle = Bundle(folder / "variables" / "variables")
    for node in handles:
        key = keys.get(_storage(node))
        if key is None or key not in bundle:
            raise FormatError(
                "is a variable that the checkpoint does not restore",
                where=node.where,
                expected="one that is saved and restored",
                hint="Save a Keras 3 model with model.export(folder), not tf.saved_model.save",
            )
        flat.nodes[node.name] = replace(node, op="Const", inputs=(), array=bundle.tensor(key))


def _storage(node: TFNode) -> str:
    """What two handles of one variable have in common."""
    stored = node.attributes.get("shared_name")
    return (text(stored.s) if stored is not None else "") or node.name


def _keys(meta: Any) -> dict[str, str]:
    """Storage of a variable → its name in the checkpoint."""
    graph = meta.graph_def
    assigns = [text(node.name) for node in graph.node if text(node.op) in _ASSIGNS]
    restore = text(meta.saver_def.restore_op_name).partition(":")[0]
    flat = flatten(graph, _existing(graph, [*assigns, restore]))
    found: dict[str, str] = {}
    for node in list(flat.nodes.values()):
        if node.op not in _ASSIGNS or len(node.inputs) != 2:
            continue
        handle, source = (_followed(flat, name) for name in node.inputs)
        maker, _, number = source.partition(":")
        variable, restored = flat.nodes.get(handle), flat.nodes.get(maker)
        if variable is None or restored is None or restored.op != "RestoreV2":
            continue
        names, slices = (_texts(flat, restored, k) for k in (1, 2))
        place = int(number) if number.isdecimal() and len(number) < 8 else 0
        if place >= len(names) or place >= len(slices):
            raise FormatError(
                f"restores {len(names)} variables, but {place} is asked for", where=restored.where
            )
        if slices[place]:
            raise UnsupportedError(
                f"restores a part of variable {quote(names[place])}",
                where=restored.where,
                expected="whole variables",
            )
        found.setdefault(_storage(variable), names[place])
    return found


def _existing(graph: Any, names: Iterable[str]) -> list[str]:
    known = {text(node.name) for node in graph.node}
    return [name for name in dict.fromkeys(names) if name in known]


def _followed(flat: Flat, name: str) -> str:
    for _ in range(64):
        node = flat.nodes.get(name)
        if node is None or node.op != "Identity" or not node.inputs:
            break
        name = node.inputs[0]
    return name


def _texts(flat: Flat, node: TFNode, position: int) -> tuple[str, ...]:
    source = node.inputs[position] if position < len(node.inputs) else ""
    found = flat.nodes.get(_followed(flat, source))
    return () if found is None or found.op != "Const" else found.texts()
