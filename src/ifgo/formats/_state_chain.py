"""What a state_dict leaves open: which module follows which, and what stands between them.

A caller says it in words, modules by name and steps that no file stores after a colon:

    embed,rec:last,lin:sigmoid

Nothing is guessed: one LSTM alone needs no words, and anything more is refused without them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from ifgo.activations import LINEAR, PARAMETERS, Activation
from ifgo.errors import FormatError, IfgoError, UnsupportedError, UsageError
from ifgo.formats import _state_dict as state_dict
from ifgo.formats._state_dict import Built, Module, Tensors
from ifgo.formats._state_raw import undropped
from ifgo.formats.extraction import Found, Listing, chosen, counted, left_out
from ifgo.layers import (
    ActivationLayer,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    LastStep,
    Layer,
    RepeatVector,
)
from ifgo.model import FeatureInput, Model, Provenance, TokenInput
from ifgo.text import cut, escape, listed, quote

MAX_CHARS: Final = 16 * 1024
"""Longest chain in words: 64 layers with the longest names."""

MAX_SUGGESTED: Final = 7
"""Most modules whose orders are tried for a suggestion."""


@dataclass(frozen=True)
class Use:
    """A module's place in the chain. kind: what a module is that its tensors leave open; epsilon:
    of a batch norm. name: of the layer, the module's where empty."""

    module: str
    kind: Literal["", "lstm", "embedding", "dense"] = ""
    epsilon: float | None = None
    name: str = ""


Step = Use | Layer

_STEPS: Final[dict[str, tuple[Callable[[str], Any] | None, Callable[..., Layer]]]] = {
    "last": (None, partial(LastStep, of="sequence")),
    "state": (None, partial(LastStep, of="state")),
    "hidden_as_sequence": (None, HiddenAsSequence),
    "dropout": (float, Dropout),
    "flatten": (int, Flatten),
    "repeat_vector": (int, RepeatVector),
}
"""Word → what stands in its parentheses, and the layer it makes."""

_OWN: Final = "Name the chain with option layers"
_KINDS: Final = ("embedding", "dense", "batch_norm")
WORDS: Final = (*_STEPS, *_KINDS, *(name for name in PARAMETERS if name != "linear"))
_ITEM: Final = re.compile(r"(?:[^,()]|\([^()]*\))+")
_WORD: Final = re.compile(r"([a-z_]+)(?:\(([^()]*)\))?")


# -- words ----------------------------------------------------------------------------------------


def parse(text: str) -> tuple[Step, ...]:
    """The steps that `text` names. Raises UsageError quoting the part that means nothing."""
    steps: list[Step] = []
    if len(text) > MAX_CHARS:
        raise UsageError(
            f"option layers has {len(text)} characters", expected=f"at most {MAX_CHARS}"
        )
    items = _ITEM.findall(text)
    if ",".join(items) != text or not text.strip():
        raise UsageError(
            f"option layers is {quote(text, 120)}",
            expected="modules between commas, steps after colons, as embed,rec:last,lin:sigmoid",
        )
    for item in items:
        module, *words = (part.strip() for part in item.split(":"))
        use: list[Use] = [Use(module)] if module else []
        for word in words:
            step = _step(module, word)
            if isinstance(step, Layer):
                steps += [*use, step]
                use = []
            elif not use:
                raise UsageError(
                    f"{word!r} does not follow a module in {quote(item)}",
                    expected=f"it right after the name, as NAME:{word}",
                )
            else:
                use = [replace(use[0], **step)]
        steps += use
    return tuple(steps)


def _step(module: str, text: str) -> Layer | dict[str, Any]:
    """A layer, or what the word says about the module before it."""
    match = _WORD.fullmatch(text)
    word = match[1] if match else ""
    if not match or word not in WORDS:
        near = difflib.get_close_matches(text, WORDS, n=1)
        raise UsageError(
            f"{quote(text)} is no step",
            where="option layers",
            expected="one of " + ", ".join(WORDS),
            hint=f"Did you mean {near[0]!r}?" if near else None,
        )
    given = [part.strip() for part in (match[2] or "").split(",") if part.strip()]
    name = f"{module}_{word}" if module else word
    try:
        if word in _STEPS:
            kind, make = _STEPS[word]
            _count(text, given, int(kind is not None))
            return make(name, *(kind(value) for value in given if kind))
        if word in PARAMETERS:
            _count(text, given, len(PARAMETERS[word]))
            values = dict(zip(PARAMETERS[word], map(float, given), strict=True))
            return ActivationLayer(name, Activation(word, **values))
        _count(text, given, int(word == "batch_norm"))
        return {"epsilon": float(given[0])} if word == "batch_norm" else {"kind": word}
    except ValueError:
        raise UsageError(
            f"{quote(text)} holds no number", where="option layers", expected="numbers"
        ) from None


def _count(text: str, given: Sequence[str], wanted: int) -> None:
    if len(given) != wanted:
        raise UsageError(
            f"{quote(text)} has {len(given)} numbers", where="option layers", expected=str(wanted)
        )


# -- assembling -----------------------------------------------------------------------------------


def assemble(
    found: Sequence[Module], steps: Sequence[Step] | None, provenance: Provenance
) -> Model:
    """The Model of `steps`; None where the file says it all: one LSTM, and nothing else.

    Notes say what was left out. Raises UnsupportedError naming a module that no layer can be made
    of, or all modules where `steps` are missing; UsageError where a step names no module;
    ModelError where layers do not fit each other.
    """
    if steps is None:
        steps = [_alone(found)]
    layers: list[Layer] = []
    names: dict[str, str] = {}
    used: list[Module] = []
    places = [(step, _find(found, step)) for step in steps if isinstance(step, Use)]
    modules = [module for _, module in places]
    for step in steps:
        if isinstance(step, Layer):
            _attach(layers, step)
            continue
        module = modules[len(used)]
        following = modules[len(used) + 1] if len(used) + 1 < len(modules) else None
        built, origin = _built(step, module, following, first=not layers)
        used.append(module)
        layers += built
        names |= origin
    if not used:
        raise UsageError(
            "names no module", where="option layers", expected="at least one: " + _names(found)
        )
    rest = counted(_title(module) for module in found if module not in used)
    notes = [*provenance.notes, "batch_first is not in the file: input is (B, T, I) here"]
    notes += [left_out(rest, "module")] if rest else []
    shared = {m.name: n for m in used if (n := used.count(m)) > 1}
    notes += [f"module {m} stands {n} times, a copy of it each time" for m, n in shared.items()]
    first = layers[0]
    if isinstance(first, Embedding):
        entry = TokenInput(first.vocabulary)
    else:
        sizes = used[0].sizes
        entry = FeatureInput(sizes[0] if sizes else 1)
    provenance = replace(provenance, notes=tuple(notes), names=names)
    return Model((entry,), tuple(_unique(layers)), provenance=provenance)


def _alone(found: Sequence[Module]) -> Use:
    """The only module, if it is an LSTM."""
    if not found:
        raise FormatError("holds no tensors", expected="the tensors of a state_dict")
    if len(found) == 1:
        found[0].require("lstm", "lstm_cell")
        return Use(found[0].name)
    every = "; ".join(f"{module.name} ({module.words})" for module in found[:12])
    more = f"; and {len(found) - 12} more" if len(found) > 12 else ""
    order = suggestion(found)
    raise UnsupportedError(
        f"holds {len(found)} modules, but not how they follow each other: {every}{more}",
        expected="the chain by option layers, as embed,rec:last,lin:sigmoid, or one module by "
        "option select",
        hint=f"Shapes allow one order: {order}; say also what stands between, as :last, :relu"
        if order
        else None,
    )


def _find(found: Sequence[Module], step: Use) -> Module:
    """By name, by path, or by the end of a path that only one has."""
    for key in ("name", "path"):
        if match := [module for module in found if getattr(module, key) == step.module]:
            return match[0]
    match = [module for module in found if f".{module.path}".endswith(f".{step.module}")]
    if len(match) == 1:
        return match[0]
    near = difflib.get_close_matches(step.module, [module.name for module in found], n=1)
    hint = f"Did you mean {quote(near[0])}?" if near else None
    if step.module in WORDS:
        hint = f"A step stands after a colon, as {found[0].name}:{step.module}"
    many = "more than one module" if match else "no module"
    raise UsageError(
        f"has {many} {quote(step.module)}", expected="one of " + _names(found), hint=hint
    )


def _names(found: Sequence[Module]) -> str:
    return listed((module.name for module in found), 24)


def _title(module: Module) -> str:
    return module.words.split(" ")[0] if module.kind != "matrix" else "nn.Embedding or nn.Linear"


def _built(step: Use, module: Module, following: Module | None, *, first: bool) -> Built:
    try:
        return _made(step, module, following, first=first)
    except IfgoError as error:
        if (error.where or "").startswith("module "):
            raise
        raise error.located(f"module {module.name}") from None


def _made(step: Use, module: Module, following: Module | None, *, first: bool) -> Built:
    if module.kind == "batch_norm":
        if step.epsilon is None:
            raise UsageError(
                "is a batch norm, whose epsilon is not in the file",
                expected=f"{module.name}:batch_norm(1e-5), 1e-5 being PyTorch's default",
            )
        return state_dict.batch_norm(module, step.epsilon, step.name)
    kinds = {"linear": ("", "dense"), "matrix": ("", "dense", "embedding")}.get(
        module.kind, ("", "lstm")
    )
    if step.kind not in kinds or step.epsilon is not None:
        said = step.kind or "batch_norm"
        raise UsageError(f"is {module.words}, no {said}", expected=f"{module.name} without it")
    if module.kind == "matrix":
        kind = step.kind or (_matrix(module, following) if first else "dense")
        build = state_dict.embedding if kind == "embedding" else state_dict.dense
        return build(module, step.name)
    if module.kind == "linear":
        return state_dict.dense(module, step.name)
    return state_dict.lstm(module, step.name)


def _matrix(module: Module, following: Module | None) -> str:
    """What one first matrix is, by the features that the module after it takes."""
    rows, columns = module.tensors["weight"].shape
    sizes = following.sizes if following else None
    width = sizes[0] if sizes else None
    fits = [kind for kind, n in (("embedding", columns), ("dense", rows)) if n == width]
    if len(fits) != 1:
        raise UsageError(
            f"is a matrix {rows} × {columns}: an embedding, or a linear layer without bias",
            expected=f"{module.name}:embedding or {module.name}:dense",
        )
    return fits[0]


def _attach(layers: list[Layer], step: Layer) -> None:
    """Adds `step`; an activation right after a Dense becomes its own."""
    last = layers[-1] if layers else None
    if isinstance(step, ActivationLayer) and isinstance(last, Dense) and last.activation == LINEAR:
        layers[-1] = replace(last, activation=step.activation)
    else:
        layers.append(step)


def _unique(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Steps whose names are taken get a number."""
    seen: set[str] = set()
    for layer in layers:
        name, k = layer.name, 2
        while name in seen:
            name, k = f"{layer.name}_{k}", k + 1
        seen.add(name)
        yield layer if name == layer.name else replace(layer, name=name)


def suggestion(found: Sequence[Module]) -> str:
    """The words of the only order in which every module takes what the one before it gives; ""
    where there is none, more than one, or a module that no layer can be made of."""
    known = ("lstm", "lstm_cell", "linear", "matrix", "batch_norm")
    if len(found) > MAX_SUGGESTED or any(m.refusal or m.kind not in known for m in found):
        return ""
    orders: list[list[str]] = []

    def extend(order: list[str], left: Sequence[Module], width: int | None) -> None:
        if not left:
            orders.append(order)
        for module in left:
            if len(orders) > 1:
                return
            sizes = module.sizes
            if sizes is None:
                continue
            rest = [other for other in left if other is not module]
            word = ":batch_norm(1e-5)" if module.kind == "batch_norm" else ""
            if module.kind == "matrix" and width is None:
                extend([*order, f"{module.name}:embedding"], rest, sizes[0])
                word = ":dense"
            if width in (None, sizes[0]):
                extend([*order, module.name + word], rest, sizes[1])

    extend([], found, None)
    return ",".join(orders[0]) if len(orders) == 1 else ""


# -- choosing -------------------------------------------------------------------------------------


def listing(tensors: Tensors, format: str) -> Listing:
    """The recurrent modules, an nn.LSTM of several layers as one."""
    found = state_dict.modules(undropped(tensors)[0])
    lstms = [module for module in found if module.kind in ("lstm", "lstm_cell")]
    rows = [
        Found(
            module.name,
            module.sizes[0] if module.sizes else None,
            _hidden(module),
            module.directions,
            module.words.partition(", ")[2],
            "not in the file",
            refusal=module.refusal,
        )
        for module in lstms
    ]
    others = counted(_title(module) for module in found if module not in lstms)
    return Listing(format, tuple(rows), others)


def _hidden(module: Module) -> int | None:
    first = module.tensors.get("weight_ih_l0" if module.kind == "lstm" else "weight_ih")
    return None if first is None or not first.ndim else first.shape[0] // 4


def read(
    tensors: Tensors,
    provenance: Provenance,
    *,
    layers: str | Sequence[Step] | None,
    select: str | Sequence[str] | None,
    own: Any = None,
) -> Model:
    """The Model in the tensors of a file: of the chain `layers`, of the one module `select`, of
    the chain that the file itself says (`own`), or of its only module.

    Raises what `assemble` raises; FormatError where `own` means nothing.
    """
    tensors, raw = undropped(tensors)
    provenance = replace(provenance, notes=(*provenance.notes, *raw))
    found = state_dict.modules(tensors)
    if layers is not None and select is not None:
        raise UsageError("options layers and select both say the chain", expected="one of them")
    if select is not None:
        name, *more = chosen(select, [m.name for m in found if m.kind in ("lstm", "lstm_cell")])
        if more:
            raise UsageError(
                f"select names {1 + len(more)} modules, whose order is not in the file",
                expected="one of them, or option layers: " + ",".join([name, *more]),
            )
        return assemble(found, (Use(name),), provenance)
    if layers is not None:
        steps = parse(layers) if isinstance(layers, str) else layers
        return assemble(found, steps, provenance)
    if own is None:
        return assemble(found, None, provenance)
    if type(own) is not str:
        raise FormatError("says its layers in something else than text", hint=_OWN)
    try:
        return assemble(found, parse(own), provenance)
    except UsageError as error:
        raise FormatError(f"says of its layers: {cut(escape(error), 300)}", hint=_OWN) from None
