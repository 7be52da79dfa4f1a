"""The compiled engine (native/python/module.cc, stream.cc).

Arrays are float32; where a docstring says contiguous, C order without gaps. Arguments that do not
fit raise ValueError with the argument's name alone: ifgo.engine checks and words them first.
Letters: N rows, T steps, I input_size, H hidden_size, P output size.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

__version__: str
"""The version of ifgo that it was built for."""

wanted_isa: str
"""What the environment variable IFGO_ISA held when the module was loaded; empty where nothing."""

def isa() -> str | None:
    """The instruction set in use; None where IFGO_ISA names one that cannot be."""

def isas() -> list[str]:
    """The instruction sets that are built in and run on this CPU, narrowest vectors first."""

def built_isas() -> list[str]:
    """The instruction sets that are built in."""

class Cell:
    """The weights of one cell, packed; contiguous arrays, rows of gates i, f, g, o.

    coupling: 0 none, 1 f=1-i, 2 i=1-f. Clips are inf where there are none. with_back: `backward`
    can follow.
    """

    def __init__(
        self,
        weight_ih: Array,
        weight_hh: Array,
        bias: Array | None,
        peephole: Array | None,
        weight_hr: Array | None,
        bias_hr: Array | None,
        clip_z: float,
        clip_cell: float,
        clip_projection: float,
        coupling: int,
        with_back: bool,
    ) -> None: ...
    def set(
        self,
        weight_ih: Array,
        weight_hh: Array,
        bias: Array | None,
        peephole: Array | None,
        weight_hr: Array | None,
        bias_hr: Array | None,
    ) -> None:
        """Other weights of the same sizes."""

class Dense:
    """activation(W·x + b), packed. activation: 0 none, 1 tanh, 2 sigmoid, 3 relu, 4 softmax."""

    def __init__(self, weight: Array, bias: Array | None, activation: int) -> None: ...
    def run(self, x: Array, y: Array, threads: int = 1) -> None:
        """Contiguous (N, K) → contiguous (N, outputs)."""

class Trainer:
    """What dense_train works in; one call at a time."""

def dense_train(
    trainer: Trainer,
    weight: Array,
    bias: Array | None,
    x: Array,
    *,
    dy: Array | None = None,
    target: NDArray[np.int64] | None = None,
    row_weight: Array | None = None,
    loss: Array | None = None,
    dx: Array | None = None,
    d_weight: Array | None = None,
    d_bias: Array | None = None,
    threads: int = 1,
) -> None:
    """Gradients of W·x + b, x (N, K), weight (V, K), all contiguous: those of dy (N, V); or with
    target (N,) those of row_weight · softmax cross-entropy, whose values go to loss (N,)."""

class Tape:
    """What calls work in; one call at a time."""

def forward(
    cell: Cell,
    tape: Tape,
    x: Array,
    y: Array | None,
    *,
    reverse: bool = False,
    keep: bool = False,
    threads: int = 1,
    lengths: NDArray[np.int64] | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    h_n: Array | None = None,
    c_n: Array | None = None,
) -> None:
    """x (N, T, I), y (N, T, P): strides as they come, features side by side. States contiguous.

    keep: `backward` may follow once, while x is unchanged.
    """

def backward(
    cell: Cell,
    tape: Tape,
    *,
    threads: int = 1,
    dy: Array | None = None,
    dh_n: Array | None = None,
    dc_n: Array | None = None,
    dx: Array | None = None,
    add_dx: bool = False,
    dh0: Array | None = None,
    dc0: Array | None = None,
    weight_ih: Array | None = None,
    weight_hh: Array | None = None,
    bias: Array | None = None,
    peephole: Array | None = None,
    weight_hr: Array | None = None,
    bias_hr: Array | None = None,
) -> None:
    """Writes the gradients that are given an array."""

class Program:
    """A step program (native/include/ifgo_engine.h), its matrices packed; tables are contiguous.

    with_back: gradients can follow a run. ValueError where the tables contradict each other.
    """

    def __init__(
        self,
        buffers: NDArray[np.int64],
        views: NDArray[np.int64],
        instructions: NDArray[np.int64],
        parameters: Array,
        terms: NDArray[np.int64],
        sweeps: NDArray[np.int64],
        weights: Array,
        lengths: bool,
        with_back: bool,
    ) -> None: ...

class Machine:
    """The memory that a program runs in; one call at a time.

    given and wanted: pairs of a buffer's number and an array of its size, read or overwritten.
    MemoryError where the batch is too large.
    """

    def __init__(self, program: Program) -> None: ...
    def run(
        self,
        rows: int,
        steps: int,
        lengths: NDArray[np.int64] | None,
        keep: bool,
        given: list[tuple[int, Array]],
        wanted: list[tuple[int, Array]],
    ) -> None:
        """From the start of a sequence. keep: `back` can follow."""

    def back(self, given: list[tuple[int, Array]], wanted: list[tuple[int, Array]]) -> None:
        """Gradients of the last kept run, once: given those of outputs and final states."""

class Stream:
    """A chain with its state. `_refuse` and `_new_output` are the subclass's."""

    def __init__(self, links: tuple[Cell | Dense, ...], threads: int, work: int) -> None: ...
    def step(self, x: Any, out: Any = None, /) -> Array:
        """One step: (I,) → out."""

    def run(self, x: Array, out: Array, steps: int, /) -> Array:
        """steps: (steps, I) → out (steps, O)."""

    def bind(self, x: Array, out: Array, /) -> None:
        """What `tick` reads and writes."""

    def tick(self) -> None:
        """One step from and to the bound arrays."""

    def reset(self) -> None:
        """The state becomes zero."""

    def state_io(self, index: int, h: Array, c: Array, write: bool, /) -> None:
        """The state of link `index`, read or written."""
