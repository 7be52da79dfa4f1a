"""`ifgo run`: compute a model on data from a file."""

from __future__ import annotations

import click
import numpy as np

from ifgo import backends
from ifgo.cli import data, terminal
from ifgo.cli.options import Source, model_source
from ifgo.cli.terminal import escape, json_option
from ifgo.errors import UsageError


@click.command("run")
@click.option(
    "--input",
    "input_",
    metavar="X",
    required=True,
    help=".npy; .npz (x, lengths, h0, c0, ...); .csv (rows are time steps); .txt (one sequence).",
)
@click.option(
    "--output", metavar="Y.npy", required=True, help="Where results go; - prints them as text."
)
@click.option(
    "--on",
    metavar="BACKEND",
    help="engine: compiled, fast. truth: float64. exact: the float32 reference, to the bit. c99: "
    "emitted, compiled and run. "
    "qemu:BOARD: on an emulated Cortex-M board. c99:contracted, qemu:BOARD:contracted: their "
    "variant with fused products and sums. [default: engine where it is installed and computes the "
    "model, else exact]",
)
@click.option("--state-in", metavar="S.npz", help="Initial states h0, c0, h1, ...")
@click.option("--state-out", metavar="S.npz", help="Where the final states go.")
@model_source()
@json_option
def command(
    source: Source,
    input_: str,
    output: str,
    on: str | None,
    state_in: str | None,
    state_out: str | None,
    as_json: bool,
) -> None:
    """Compute MODEL on the sequences in X.

    X holds (B, T, features) or (T, features); token ids (B, T) or (T). Y is float32 (B, T, size),
    or (B, size) where the model ends in one vector per sequence.
    """
    if output == "-" and as_json:
        raise UsageError(
            "--output - and --json both write to stdout", hint="Write the results to a file"
        )
    if output != "-":
        data.check_destination(output, ".npy")
    if state_out is not None:
        data.check_destination(state_out, ".npz")
    model = source.load()
    given = data.read(input_, model, state_in)
    on = backends.usual(model) if on is None else on
    result, final = backends.run(model, given.x, given.state, lengths=given.lengths, on=on)
    with np.errstate(over="ignore"):
        y = result.astype(np.float32)
    if state_out is not None:
        data.write_state(state_out, final)
        terminal.tell(f"{escape(state_out)}: {', '.join(final) or 'no states'}")
    if output == "-":
        terminal.say(data.as_text(y))
        return
    data.write_array(output, y)
    terminal.tell(f"{escape(output)}: {y.dtype} {y.shape}, computed on {on}")
    if all(entry.role not in ("sequence", "last") for entry in model.outputs):
        terminal.tell(
            "the outputs of the model are final states alone (--state-out); these are the values "
            "at the end of its layers"
        )
    if as_json:
        terminal.emit(
            {
                "model": source.path,
                "on": on,
                "input": {"file": input_, "shape": given.x.shape},
                "output": {"file": output, "shape": y.shape, "dtype": str(y.dtype)},
                "state": {
                    "file": state_out,
                    "shapes": {key: array.shape for key, array in final.items()},
                },
            }
        )
