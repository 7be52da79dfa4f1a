"""The argument MODEL and the options that say how to read it, alike for every verb."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import click

from ifgo import formats
from ifgo.cli import terminal
from ifgo.cli.terminal import escape
from ifgo.formats.extraction import Listing
from ifgo.model import Model

Function = Callable[..., Any]


@dataclass(frozen=True)
class Source:
    """The path of a model and how to read it; the fields are the arguments of formats.load."""

    path: str
    format: str | None
    layout: str | None
    stack: str | None
    bind: str | None
    select: str | None = None

    def load(self, *, tell: bool = True) -> Model:
        """The model; where layers are selected, what was left out is said on stderr if `tell`.
        Raises what formats.load raises."""
        model = formats.load(self.path, self.format, **self._options, select=self.select)
        if tell and self.select is not None:
            for note in model.provenance.notes:
                terminal.tell(f"note: {escape(note)}")
        return model

    def list_layers(self) -> Listing:
        """The recurrent layers of the file. Raises what formats.list_layers raises."""
        return formats.list_layers(self.path, self.format, **self._options)

    @property
    def _options(self) -> dict[str, str | None]:
        return {"layout": self.layout, "stack": self.stack, "bind": self.bind}


def model_source(metavar: str = "MODEL") -> Callable[[Function], Function]:
    """Gives a command the argument `metavar` and the reading options, as `source: Source`."""
    parameters = (
        click.argument("model", metavar=metavar),
        click.option(
            "--from",
            "format_",
            type=click.Choice(formats.FORMATS),
            help=f"Format of {metavar}; found from its content where not given.",
        ),
        click.option(
            "--layout",
            type=click.Choice(["A", "B"]),
            help="Layout of a raw folder whose model.toml does not say it.",
        ),
        click.option(
            "--stack",
            type=click.Choice(get_args(formats.Stack)),
            help="How a raw folder without model.toml feeds one LSTM into the next.",
        ),
        click.option(
            "--bind",
            metavar="W.npz",
            help="Arrays for ONNX graph inputs that are really weights, by input name.",
        ),
        click.option(
            "--select",
            metavar="NAME[,NAME]",
            help="These recurrent layers alone, out of a larger model; "
            "`ifgo inspect --lstms` lists them.",
        ),
    )

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def command(
            *args: Any,
            model: str,
            format_: str | None,
            layout: str | None,
            stack: str | None,
            bind: str | None,
            select: str | None,
            **rest: Any,
        ) -> Any:
            source = Source(model, format_, layout, stack, bind, select)
            return function(*args, source=source, **rest)

        for parameter in reversed(parameters):
            command = parameter(command)
        return command

    return decorate
