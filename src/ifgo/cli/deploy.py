"""`ifgo deploy`: a model as source for a target."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ifgo import deployment, files
from ifgo.cli import terminal
from ifgo.cli.compiling import compile_line
from ifgo.cli.options import Source, model_source
from ifgo.cli.terminal import escape, json_option


@click.command("deploy")
@click.option("--target", type=click.Choice(deployment.TARGETS), default="c99", show_default=True)
@click.option("--board", metavar="BOARD", help="For cortex_m: stm32f405, mps2-an386, ...")
@click.option("--out", metavar="DIR", required=True, help="Folder for the source; made if absent.")
@click.option("--main", is_flag=True, help="Also write main.c, which runs it on a text file.")
@click.option(
    "--name", metavar="PREFIX", default="model", show_default=True, help="Prefix of every symbol."
)
@click.option(
    "--weights",
    type=click.Choice(["embedded", "files"]),
    default="embedded",
    show_default=True,
    help="In the source, or raw tensors in DIR/weights that the caller reads at run time.",
)
@click.option(
    "--max-steps",
    type=int,
    metavar="N",
    help="Longest sequence, for models that need whole sequences.",
)
@click.option(
    "--library",
    metavar="NAME",
    help="For cortex_m: cmsis-dsp multiplies the matrices, within a bound but with other bits.",
)
@click.option(
    "--console",
    metavar="NAME",
    help="For cortex_m: where its text goes, semihosting (the default) or uart.",
)
@click.option(
    "--report",
    is_flag=True,
    help="For cortex_m: what it costs on the emulated board, also as report.json and report.html.",
)
@click.option(
    "--variant",
    type=click.Choice(deployment.VARIANTS),
    default="exact",
    show_default=True,
    help="The bits of the reference, or products and sums that may be fused, within its bound.",
)
@model_source()
@json_option
def command(
    source: Source,
    target: str,
    board: str | None,
    out: str,
    main: bool,
    name: str,
    weights: str,
    max_steps: int | None,
    library: str | None,
    console: str | None,
    report: bool,
    variant: str,
    as_json: bool,
) -> None:
    """Write MODEL as C source that computes the bits of the exact reference, on any compiler.

    With --library, or --variant contracted, the bits are not the reference's, and depend on the
    core.
    """
    if weights == "files":
        files.refuse_own_source(Path(source.path), Path(out) / "weights")
    done = deployment.deploy(
        source.load(),
        out,
        target=target,
        main=main,
        name=name,
        weights=weights,
        max_steps=max_steps,
        board=board,
        library=library,
        console=console,
        report=report,
        variant=variant,
    )
    if as_json:
        facts = asdict(done.facts) | {"state_order": dict(done.facts.state_order)}
        if done.report is not None:
            facts["report"] = done.report.to_dict()
        terminal.emit({"target": target, "folder": str(done.folder), "files": done.files, **facts})
    else:
        for file in done.files:
            terminal.say(escape(done.folder / file))
        if done.report is not None:
            terminal.say(f"\n{done.report}")
    facts = done.facts
    terminal.tell(
        f"{facts.weight_bytes} bytes of weights, {facts.state_bytes} of state, "
        f"{facts.scratch_bytes} of scratch, {facts.macs_per_step} MACs per step"
    )
    if main:
        terminal.tell("Compile it: " + escape(compile_line(done.folder)))
