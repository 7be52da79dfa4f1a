"""The one form every format is read into: a chain of layers with named inputs and outputs.

A Model is validated whole when it is built; what holds a Model holds a consistent one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ifgo import limits
from ifgo.activations import Activation
from ifgo.cell import Array, LayerNorm, LSTMCell, MatrixNorm
from ifgo.errors import ModelError, UnsupportedError
from ifgo.fields import check_fields
from ifgo.interface import (
    Axes,
    FeatureInput,
    LengthsInput,
    Output,
    StateInput,
    StateSlot,
    TokenInput,
)
from ifgo.layers import (
    ActivationLayer,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    HiddenAsSequence,
    InitialState,
    LastStep,
    Layer,
    Masking,
    Recurrent,
    RepeatVector,
    Residual,
    Scale,
    TrainingFacts,
    cast,
)
from ifgo.packing import Packing

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ifgo.states import State

__all__ = [
    "Activation",
    "ActivationLayer",
    "Axes",
    "BatchNorm",
    "Dense",
    "Dropout",
    "Embedding",
    "FeatureInput",
    "Flatten",
    "HiddenAsSequence",
    "InitialState",
    "LSTMCell",
    "LastStep",
    "Layer",
    "LayerNorm",
    "LengthsInput",
    "Masking",
    "MatrixNorm",
    "Model",
    "Output",
    "Provenance",
    "Recurrent",
    "RepeatVector",
    "Residual",
    "Scale",
    "StateInput",
    "StateSlot",
    "TokenInput",
    "TrainingFacts",
]


@dataclass(frozen=True)
class Provenance:
    """Where a model came from and what reading it changed. It never influences a number."""

    framework: str = "ifgo"
    version: str = ""
    path: str = ""
    notes: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Our array name ("lstm.forward.weight_ih") → the source's name for it."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, eq=False)
class Model:
    """inputs → layers → outputs; validated on construction.

    inputs: one FeatureInput or TokenInput first, then optional LengthsInput and StateInputs.
    outputs: defaults to the end of the chain alone.
    Raises ModelError naming the layer where two parts do not fit.
    """

    inputs: tuple[FeatureInput | TokenInput | LengthsInput | StateInput, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[Output, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.outputs:
            role = "last" if self._domains()[-1] == "vector" else "sequence"
            object.__setattr__(self, "outputs", (Output(role),))
        _Check(self).run()

    # -- shape and time ---------------------------------------------------------------------

    @property
    def input(self) -> FeatureInput | TokenInput:
        """The main input."""
        first = self.inputs[0] if self.inputs else None
        if not isinstance(first, FeatureInput | TokenInput):
            raise ModelError(
                "the first input is no feature or token input",
                expected="a FeatureInput or TokenInput first",
            )
        return first

    @property
    def input_size(self) -> int:
        """Features per step, I; 1 where the model reads tokens."""
        return self.input.size if isinstance(self.input, FeatureInput) else 1

    def sizes(self) -> list[int]:
        """Features after each layer, in order."""
        size, sizes = self.input_size, list[int]()
        for layer in self.layers:
            size = layer.output_size(size)
            sizes.append(size)
        return sizes

    @property
    def output_size(self) -> int:
        """Features of the model's main output."""
        return self.sizes()[-1]

    def _domains(self) -> list[Literal["sequence", "vector"]]:
        """Before the first layer and after each: is there a sequence or one vector?"""
        domain: Literal["sequence", "vector"] = "sequence"
        domains: list[Literal["sequence", "vector"]] = [domain]
        for layer in self.layers:
            takes, gives = layer.signature.split("→")
            needs_time = takes != "step" or isinstance(layer, Masking | Recurrent | Residual)
            if needs_time and domain != takes.replace("step", "sequence"):
                raise ModelError(
                    f"takes a {takes.replace('step', 'sequence')} but gets a {domain}",
                    where=f"layer {layer.name}",
                    expected="a LastStep before it"
                    if domain == "sequence"
                    else "a HiddenAsSequence or RepeatVector before it",
                )
            domain = domain if gives == "step" else ("vector" if gives == "vector" else "sequence")
            domains.append(domain)
        return domains

    @property
    def ends_in_vector(self) -> bool:
        """Whether the chain ends in one vector per sequence instead of one per step."""
        return self._domains()[-1] == "vector"

    @property
    def not_streamable_because(self) -> str | None:
        """The first layer that cannot run one step at a time, with its reason; None if none."""
        for layer in self.layers:
            if reason := layer.not_streamable_because:
                return f"layer {layer.name}: {reason}"
        return None

    @property
    def streamable(self) -> bool:
        """Whether the model runs one step per call."""
        return self.not_streamable_because is None

    # -- parts ------------------------------------------------------------------------------

    @property
    def recurrent(self) -> tuple[Recurrent, ...]:
        """Recurrent layers in chain order, those inside residuals included; state k is theirs."""
        return tuple(layer for layer in walk(self.layers) if isinstance(layer, Recurrent))

    @property
    def arrays(self) -> dict[str, Array]:
        """Every array, as "layer.field"."""
        return {f"{layer.name}.{n}": a for layer in self.layers for n, a in layer.arrays.items()}

    @property
    def parameters(self) -> int:
        """Number of stored values."""
        return sum(array.size for array in self.arrays.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one step through every layer."""
        return sum(layer.macs for layer in self.layers)

    def astype(self, dtype: Any) -> Model:
        """The same model with every array as `dtype`; values may round.

        Raises UsageError where `dtype` is no floating-point type or a value lies beyond its range.
        """
        return replace(self, layers=tuple(cast(layer, dtype) for layer in self.layers))

    # -- use --------------------------------------------------------------------------------

    def run(
        self,
        x: ArrayLike,
        state: State | None = None,
        *,
        lengths: Sequence[int] | None = None,
        on: str | None = None,
    ) -> tuple[Any, State]:
        """Compute the model. x: (B, T, I) or (T, I), tokens (B, T) or (T,).

        state: {"h0": (D, B, P), "c0": (D, B, H), ...}, k counting the recurrent layers; None
        starts as the model says. lengths: (B,). on: "engine", "exact", "truth", "c99" or another of
        backends.NAMES; None is engine where it is installed and computes the model, else exact.
        Returns (y, state): y (B, T, ·), or (B, ·) where the chain ends in a vector, without B if
        x had none. Raises UsageError on input that does not fit.
        """
        from ifgo.backends import run

        return run(self, x, state, lengths=lengths, on=on)

    def __str__(self) -> str:
        from ifgo.describe import table

        return table(self)


def walk(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Every layer of a chain in order, inner chains included."""
    for layer in layers:
        yield layer
        if isinstance(layer, Residual):
            yield from walk(layer.layers)


@dataclass(frozen=True)
class _Check:
    """The rules that concern more than one layer."""

    model: Model

    def run(self) -> None:
        self.names()
        self.chain()
        self.states()
        self.results()

    def names(self) -> None:
        layers = list(walk(self.model.layers))
        if not layers:
            raise ModelError("the model has no layers", expected="at least one")
        if len(layers) > limits.current().layers:
            raise ModelError(f"the model has {len(layers)} layers", **limits.at_most("layers"))
        seen: set[str] = set()
        for layer in layers:
            if not layer.name or len(layer.name) > limits.current().name_chars:
                raise ModelError(
                    f"a layer of kind {layer.kind} has a name of {len(layer.name)} characters",
                    **limits.at_most("name_chars", form="1 to {}", found=len(layer.name)),
                )
            if layer.name in seen:
                raise ModelError(f"two layers are named {layer.name!r}", expected="unique names")
            seen.add(layer.name)
        arrays = [f"{layer.name}.{n}" for layer in self.model.layers for n in layer.arrays]
        for name in arrays:
            if arrays.count(name) > 1:
                raise ModelError(
                    f"two arrays are named {name!r}",
                    expected="layer names that no other name continues after a dot",
                )

    def chain(self) -> None:
        model = self.model
        tokens = isinstance(model.input, TokenInput)
        if not 1 <= model.input_size <= limits.current().input_size:
            raise ModelError(
                f"input_size is {model.input_size}",
                **limits.at_most("input_size", form="1 to {}", found=model.input_size),
            )
        for position, layer in enumerate(walk(model.layers)):
            if isinstance(layer, Embedding) != (tokens and position == 0):
                raise ModelError(
                    "an Embedding stands where no tokens arrive"
                    if isinstance(layer, Embedding)
                    else "the model reads tokens, but no Embedding comes first",
                    where=f"layer {layer.name}",
                    expected="a TokenInput and an Embedding as the first layer, or neither",
                )
            vocabulary = model.input.vocabulary if isinstance(model.input, TokenInput) else 0
            if isinstance(layer, Embedding) and layer.vocabulary != vocabulary:
                raise ModelError(
                    f"has {layer.vocabulary} rows for a vocabulary of {vocabulary}",
                    where=f"layer {layer.name}",
                    expected="one row per token",
                )
        model._domains()  # pyright: ignore[reportPrivateUsage]
        model.sizes()
        for before, layer in zip((None, *model.layers), model.layers, strict=False):
            final = isinstance(layer, LastStep) and layer.of == "state"
            if final and not isinstance(before, Recurrent):
                raise ModelError(
                    "takes the final state, but no recurrent layer stands right before it",
                    where=f"layer {layer.name}",
                    expected="LastStep(of='state') right after a Recurrent",
                )

    def states(self) -> None:
        named = {layer.name: layer for layer in self.model.recurrent}
        _require_unique([entry.name for entry in self.model.inputs], "inputs")
        given: set[tuple[str, str]] = set()
        lengths: LengthsInput | None = None
        for entry in self.model.inputs[1:]:
            if isinstance(entry, FeatureInput | TokenInput):
                raise ModelError(
                    f"input {entry.name!r} is a second main input", expected="one main input"
                )
            if isinstance(entry, LengthsInput):
                if lengths is not None:
                    raise ModelError(
                        f"inputs {lengths.name!r} and {entry.name!r} both give the lengths",
                        expected="one LengthsInput at most",
                    )
                lengths = entry
                continue
            if not entry.slots:
                raise ModelError(
                    f"input {entry.name!r} feeds no state",
                    expected="a StateSlot for each state it holds",
                )
            for slot in entry.slots:
                if slot.layer not in named:
                    raise ModelError(
                        f"input {entry.name!r} feeds the state of {slot.layer!r}",
                        expected=_recurrent_words(named),
                    )
                if (slot.layer, slot.part) in given:
                    raise ModelError(
                        f"input {entry.name!r} feeds state {slot.part} of {slot.layer!r}, "
                        "which is fed already",
                        expected="each state in one slot only",
                    )
                given.add((slot.layer, slot.part))
            self.packed(f"input {entry.name!r}", entry.slots, entry.layout)
        for name, layer in named.items():
            fed = sum(owner == name for owner, _ in given)
            if (fed > 0) != (layer.initial.kind == "input"):
                raise ModelError(
                    f"initial state is of kind {layer.initial.kind!r}, but {fed} of its 2 states "
                    f"{'is an input' if fed == 1 else 'are inputs'}",
                    where=f"layer {name}",
                    expected="a StateInput for h, c or both exactly where the kind is 'input'",
                )

    def results(self) -> None:
        named = {layer.name: layer for layer in self.model.recurrent}
        end = "last" if self.model.ends_in_vector else "sequence"
        _require_unique([output.name for output in self.model.outputs], "outputs")
        for output in self.model.outputs:
            what = f"output {output.name!r}"
            if output.layers and output.role not in ("h_n", "c_n"):
                raise ModelError(
                    f"{what} has role {output.role!r} and names layers",
                    expected="layers for the roles 'h_n' and 'c_n' only",
                )
            if output.slots and output.role != "state":
                raise ModelError(
                    f"{what} has role {output.role!r} and names slots",
                    expected="slots for the role 'state' only",
                )
            if output.role in ("sequence", "last"):
                if output.role != end:
                    raise ModelError(
                        f"{what} has role {output.role!r}",
                        expected=f"{end!r}, the chain ends in a {end.replace('last', 'vector')}",
                    )
                if output.layout:
                    raise ModelError(
                        f"{what} has role {output.role!r} and a layout",
                        expected="a layout for final states only",
                    )
                continue
            names = [slot.layer for slot in output.states]
            unknown = [name for name in names if name not in named]
            if unknown or not names:
                raise ModelError(
                    f"{what} gives {output.role} of "
                    + (repr(unknown[0]) if unknown else "no layer"),
                    expected=_recurrent_words(named),
                )
            for k, slot in enumerate(output.states):
                if slot in output.states[:k]:
                    part = f"state {slot.part}" if output.role == "state" else output.role
                    raise ModelError(
                        f"{what} gives {part} of {slot.layer!r} twice", expected="each layer once"
                    )
            self.packed(what, output.states, output.layout)

    def packed(self, what: str, slots: tuple[StateSlot, ...], layout: str) -> None:
        """A layout that is given fits the states it holds."""
        if not layout:
            return
        layers = {layer.name: layer for layer in self.model.recurrent}
        widths = {
            layers[s.layer].cell.output_size if s.part == "h" else layers[s.layer].hidden_size
            for s in slots
        }
        rows = sum(layers[slot.layer].directions for slot in slots)
        packing = Packing.parse(layout)
        if len(widths) > 1:
            raise ModelError(
                f"{what} packs states of widths {sorted(widths)} as {layout!r}",
                expected="one width in one tensor",
            )
        batched = self.model.input.axes != "T"
        if packing.rows != rows or packing.batched != batched:
            raise ModelError(
                f"{what} packs {rows} rows as {layout!r}",
                expected=f"numbers whose product is {rows}, {'with' if batched else 'without'} B",
            )


def _require_unique(names: list[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ModelError(f"two {what} are named {name!r}", expected="unique names")


def _recurrent_words(named: Mapping[str, Recurrent]) -> str:
    return "one of the recurrent layers " + ", ".join(named) if named else "no states, none recurs"


def require_streamable(model: Model) -> None:
    """Raises UnsupportedError naming the layer where `model` cannot run step by step."""
    if reason := model.not_streamable_because:
        raise UnsupportedError(
            f"the model cannot run one step per call: {reason}",
            hint="Give it whole sequences instead (run, or the emitted `sequence` function)",
        )
