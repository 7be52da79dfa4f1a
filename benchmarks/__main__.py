"""python -m benchmarks: time the engine against its peers; a table, and JSON with --json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import machine, peers
from benchmarks.timing import Timing, interleaved
from benchmarks.work import WORK, Row

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pinned(rows: str) -> None:
    """Keep this process on one core, but for the rows about two."""
    if CORES:
        os.sched_setaffinity(0, CORES if rows == "two-cores" else CORES[-1:])


def words(seconds: float) -> str:
    """Seconds with a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def verdict(row: Row, timings: dict[str, Timing]) -> str:
    """Ratios against every peer by the least times, with what is reached for."""
    ours = timings[next(iter(timings))].least
    ratios = []
    for name, timing in timings.items():
        if name.startswith("ifgo"):
            continue
        ratio, reach = timing.least / ours, row.reach.get(name)
        wanted = (
            "" if reach is None else f" (reach {reach:g}{'' if ratio >= reach else ', missed'})"
        )
        ratios.append(f"{name} {ratio:.3g}×{wanted}")
    return "\n".join(ratios)


@click.command()
@click.argument("work", nargs=-1, type=click.Choice(list(WORK)))
@click.option("--seconds", default=1.0, help="Time for each contender of a row.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all timings to it.")
@click.option("--without", multiple=True, type=click.Choice(peers.NAMES), help="Leave a peer out.")
def main(
    work: tuple[str, ...], seconds: float, path: Path | None, without: tuple[str, ...]
) -> None:
    """Contenders take turns within one process; ratios are of the least times."""
    console = Console()
    pinned("ceilings")
    ceilings = machine.measure()
    names = [name for name in peers.installed() if name not in without]
    about = machine.describe()
    absent = [name for name in peers.NAMES if name not in names]
    console.print(f"{about['cpu']}: {ceilings.flops / 1e9:.0f} Gflop/s on one core")
    if absent:
        console.print(f"Not compared: {', '.join(absent)}")
    found: list[dict[str, Any]] = []
    for section in work or WORK:
        pinned(section)
        table = Table("work", "ifgo", "median", "floor", "against", title=section)
        for row in WORK[section](ceilings, names):
            timings = interleaved(row.contenders, unit=row.unit, seconds=seconds)
            ours = timings[next(iter(timings))]
            table.add_row(
                row.title,
                words(ours.least),
                words(ours.median),
                words(row.floor),
                verdict(row, timings),
            )
            each = {name: vars(timing) for name, timing in timings.items()}
            found.append(
                {"work": row.title, "floor": row.floor, "reach": row.reach, "seconds": each}
            )
        console.print(table)
    if path is not None:
        read = {str(size): rate for size, rate in ceilings.read.items()}
        report = {"machine": about | {"flops": ceilings.flops, "read": read}, "rows": found}
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
