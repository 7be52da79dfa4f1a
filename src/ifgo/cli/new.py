"""`ifgo new`: a model with random weights, to try things on."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import click
import numpy as np

from ifgo import formats, limits
from ifgo.cli import terminal
from ifgo.cli.terminal import escape, json_option
from ifgo.describe import describe
from ifgo.errors import UsageError
from ifgo.model import (
    Dense,
    FeatureInput,
    LastStep,
    Layer,
    LSTMCell,
    Model,
    Provenance,
    Recurrent,
)
from ifgo.text import quote

MOST_LAYERS: Final = limits.DEFAULTS.layers - 2
"""Room for the LastStep and the Dense layer."""

SIZE: Final = click.IntRange(1, limits.DEFAULTS.input_size)


@click.command("new")
@click.option("--layers", metavar="H,H,...", required=True, help="hidden_size of each LSTM layer.")
@click.option("--dense", type=SIZE, metavar="N", help="Dense layer at the end.")
@click.option(
    "--input",
    "input_",
    type=SIZE,
    default=1,
    show_default=True,
    metavar="I",
    help="Features per time step.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N")
@click.option("--bidirectional", is_flag=True, help="Every LSTM layer in both directions.")
@click.option(
    "--sequence", is_flag=True, help="The dense layer at every step, not at the last alone."
)
@click.option("--out", metavar="MODEL", required=True, help="Where the model goes.")
@click.option(
    "--to",
    type=click.Choice(formats.FORMATS),
    help="Format; found from the ending of MODEL where not given. A folder needs --to raw.",
)
@json_option
def command(
    layers: str,
    dense: int | None,
    input_: int,
    seed: int,
    bidirectional: bool,
    sequence: bool,
    out: str,
    to: str | None,
    as_json: bool,
) -> None:
    """Make an LSTM stack with random weights, initialised as PyTorch does.

    The same options give the same bytes.
    """
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", layers):
        raise UsageError(
            f"--layers is {quote(layers)}", expected="sizes between commas, such as 16,16"
        )
    sizes = [int(size) for size in layers.split(",")]
    if min(sizes) < 1 or len(sizes) > MOST_LAYERS:
        raise UsageError(
            f"--layers is {quote(layers)}", expected=f"1 to {MOST_LAYERS} sizes of 1 or more"
        )
    model = random_model(
        sizes, input_, dense, seed=seed, bidirectional=bidirectional, sequence=sequence
    )
    formats.save(model, out, to)
    if as_json:
        terminal.emit({"file": out, "seed": seed, **describe(model)})
    terminal.tell(f"{escape(out)}: {model.parameters} random weights, seed {seed}")


def random_model(
    sizes: list[int],
    input_size: int = 1,
    dense: int | None = None,
    *,
    seed: int = 0,
    bidirectional: bool = False,
    sequence: bool = False,
) -> Model:
    """LSTM layers of `sizes`, then LastStep (unless `sequence`) and Dense where `dense` is given.

    Weights and biases are uniform in ±1/sqrt(H), in ±1/sqrt(I) for Dense, as PyTorch draws them.
    """
    random = np.random.default_rng(seed)

    def uniform(fan: int, *shape: int) -> Any:
        if math.prod(shape) > limits.DEFAULTS.elements:
            raise UsageError(
                f"a weight matrix of {' x '.join(map(str, shape))} is too large",
                expected=f"at most {limits.DEFAULTS.elements} values",
            )
        # Written out, so that no fused multiply-add makes other bits on another machine.
        return ((2.0 * random.random(shape) - 1.0) / np.sqrt(fan)).astype(np.float32)

    def cell(inputs: int, hidden: int) -> LSTMCell:
        shapes = ((4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
        return LSTMCell(*(uniform(hidden, *shape) for shape in shapes))

    layers: list[Layer] = []
    width = input_size
    for k, hidden in enumerate(sizes):
        forward = cell(width, hidden)
        backward = cell(width, hidden) if bidirectional else None
        layers.append(Recurrent(f"lstm{k}", forward, backward))
        width = 2 * hidden if bidirectional else hidden
    if dense is not None:
        if not sequence:
            layers.append(LastStep("last"))
        layers.append(Dense("dense", uniform(width, dense, width), uniform(width, dense)))
    notes = (f"random weights, seed {seed}",)
    return Model((FeatureInput(input_size),), tuple(layers), provenance=Provenance(notes=notes))
