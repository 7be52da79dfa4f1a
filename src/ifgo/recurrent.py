"""What every layer has, and the recurrent layer. ifgo.layers holds the others and names them all.

Letters: B batch, T time, I input features, H hidden_size, P output size of a cell, D directions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ifgo.cell import Array, LSTMCell, frozen_array
from ifgo.errors import ModelError
from ifgo.fields import check_fields

Signature = Literal["step→step", "sequence→sequence", "sequence→vector", "vector→sequence"]
Merge = Literal["concat", "sum", "mul", "ave"]


@dataclass(frozen=True)
class Layer:
    """What every layer has: a name (unique in its model), a time signature, an output size."""

    name: str

    kind: ClassVar[str] = "layer"
    shape_of_time: ClassVar[Signature] = "step→step"

    @property
    def signature(self) -> Signature:
        """What the layer does to time."""
        return self.shape_of_time

    def output_size(self, input_size: int) -> int:
        """Features per step out of the layer; raises ModelError where input_size does not fit."""
        return input_size

    @property
    def arrays(self) -> dict[str, Array]:
        """Every array the layer holds, by field name."""
        return {}

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one step (of one application, outside sequences)."""
        return 0

    @property
    def not_streamable_because(self) -> str | None:
        """Why the layer cannot run one step at a time, or None where it can."""
        return None

    def detail(self) -> str:
        """What the table of a model says about the layer beyond shapes."""
        return ""

    def _expect_input(self, have: int, want: int) -> None:
        if have != want:
            raise ModelError(
                f"receives {have} features", where=f"layer {self.name}", expected=str(want)
            )

    def _check_fields(self) -> str:
        """Raises ModelError on a field of the wrong type. Returns how errors name the layer."""
        check_fields(self, where=f"layer {self.name}")
        return f"layer {self.name}"

    def _freeze(self, name: str, shape: tuple[int | str, ...], *, optional: bool = False) -> None:
        value = getattr(self, name)
        if value is not None or not optional:
            where = f"layer {self.name}"
            object.__setattr__(self, name, frozen_array(value, shape, name, where=where))

    def _present(self, *names: str) -> dict[str, Array]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True, eq=False)
class InitialState:
    """Where a recurrent layer starts.

    kind: "zero"; "constant" with h (D, P) and c (D, H), D directions; or "input": the caller
    gives h, c or both (StateInputs of the model name them; what none names starts at zero).
    """

    kind: Literal["zero", "constant", "input"] = "zero"
    h: Array | None = None
    c: Array | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        given = [name for name in ("h", "c") if getattr(self, name) is not None]
        if given != (["h", "c"] if self.kind == "constant" else []):
            raise ModelError(
                f"initial state of kind {self.kind!r} carries {' and '.join(given) or 'nothing'}",
                expected="h and c for 'constant', nothing otherwise",
            )


@dataclass(frozen=True)
class TrainingFacts:
    """Dropout that the source applied in training; inference ignores it, formats may keep it.

    input, recurrent, output: rates in [0, 1).
    """

    input: float = 0.0
    recurrent: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("input", "recurrent", "output"):
            rate: float = getattr(self, name)
            if not 0 <= rate < 1:
                raise ModelError(f"{name} dropout is {rate}", expected="a rate in [0, 1)")


@dataclass(frozen=True, eq=False)
class Recurrent(Layer):
    """One LSTM layer in one or two directions.

    forward runs t = 0..T-1, backward t = T-1..0 with its output stored at the time of its input.
    Exactly one may be None. merge joins two directions. go_backwards (forward only): the whole
    input is reversed and the output stays in processing order. zero_masked: a masked step puts
    out zeros instead of repeating the last output. stateful: state outlives a sequence.
    (T, I) → (T, P), or (T, 2P) where two directions are concatenated.
    """

    forward: LSTMCell | None
    backward: LSTMCell | None = None
    merge: Merge = "concat"
    go_backwards: bool = False
    zero_masked: bool = False
    stateful: bool = False
    initial: InitialState = field(default_factory=InitialState)
    training: TrainingFacts = field(default_factory=TrainingFacts)

    kind = "lstm"

    def __post_init__(self) -> None:
        where = self._check_fields()
        if not self.cells:
            raise ModelError("has no cell", where=where, expected="forward, backward or both")
        if self.go_backwards and self.backward is not None:
            raise ModelError(
                "go_backwards is set on a layer with a backward cell",
                where=where,
                expected="go_backwards on a forward cell only",
            )
        first = next(iter(self.cells.values()))
        for cell in self.cells.values():
            for what in ("input_size", "hidden_size", "output_size"):
                if getattr(cell, what) != getattr(first, what):
                    raise ModelError(
                        f"directions have {what} {getattr(first, what)} and {getattr(cell, what)}",
                        where=where,
                        expected="the same sizes in both directions",
                    )
        if self.initial.kind == "constant":
            count = len(self.cells)
            frozen = InitialState(
                "constant",
                frozen_array(self.initial.h, (count, first.output_size), "initial h", where=where),
                frozen_array(self.initial.c, (count, first.hidden_size), "initial c", where=where),
            )
            object.__setattr__(self, "initial", frozen)

    @property
    def cells(self) -> dict[str, LSTMCell]:
        """Direction ("forward", "backward") → cell, in state order."""
        pairs = (("forward", self.forward), ("backward", self.backward))
        return {direction: cell for direction, cell in pairs if cell is not None}

    @property
    def cell(self) -> LSTMCell:
        """The first cell; sizes are the same in both directions."""
        return next(iter(self.cells.values()))

    @property
    def directions(self) -> int:
        """D: 1 or 2."""
        return len(self.cells)

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.cell.hidden_size

    def output_size(self, input_size: int) -> int:
        """P, or 2P where two directions are concatenated; ModelError where I does not fit."""
        self._expect_input(input_size, self.cell.input_size)
        return self.cell.output_size * (self.directions if self.merge == "concat" else 1)

    @property
    def signature(self) -> Signature:
        """step→step where it runs forward only."""
        return "sequence→sequence" if self.not_streamable_because else "step→step"

    @property
    def not_streamable_because(self) -> str | None:
        """A backward direction, or go_backwards."""
        if self.backward is not None:
            return "its backward direction starts at the last step"
        if self.go_backwards:
            return "go_backwards starts at the last step"
        return None

    @property
    def arrays(self) -> dict[str, Array]:
        """As "forward.weight_ih", "backward.weight_ih", "initial.h" and so on."""
        found = {
            f"{direction}.{name}": array
            for direction, cell in self.cells.items()
            for name, array in cell.arrays.items()
        }
        if self.initial.h is not None and self.initial.c is not None:
            found |= {"initial.h": self.initial.h, "initial.c": self.initial.c}
        return found

    @property
    def macs(self) -> int:
        """Those of both directions."""
        return sum(cell.macs for cell in self.cells.values())

    def detail(self) -> str:
        """Every option that is not the default."""
        cell = self.cell
        words: list[str] = []
        if self.directions == 2:
            words.append("bidirectional" + ("" if self.merge == "concat" else f" {self.merge}"))
        elif self.backward is not None:
            words.append("reverse")
        if self.go_backwards:
            words.append("go_backwards")
        if cell.weight_hr is not None:
            words.append(f"proj_size {cell.output_size}")
        if cell.peephole is not None:
            words.append("peephole")
        if cell.coupling:
            words.append(cell.coupling)
        words += [
            f"{name} {value:g}"
            for name in ("clip_z", "clip_cell", "clip_projection")
            if (value := getattr(cell, name)) is not None
        ]
        if [a.name for a in cell.activations] != ["sigmoid", "tanh", "tanh"]:
            words.append("/".join(map(str, cell.activations)))
        if cell.forget_bias:
            words.append(f"forget_bias {cell.forget_bias:g}")
        words += [n for n in ("layer_norm", "input_norm", "hidden_norm") if getattr(cell, n)]
        if self.initial.kind != "zero":
            words.append(f"initial state: {self.initial.kind}")
        if self.zero_masked:
            words.append("zero_masked")
        if self.stateful:
            words.append("stateful")
        return ", ".join(words)
