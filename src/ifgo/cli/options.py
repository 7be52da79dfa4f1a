"""The argument MODEL and the options that say how to read it, alike for every verb."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import click

from ifgo import formats
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

    def load(self) -> Model:
        """The model. Raises what formats.load raises."""
        options = {"layout": self.layout, "stack": self.stack, "bind": self.bind}
        return formats.load(self.path, self.format, **options)


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
            **rest: Any,
        ) -> Any:
            return function(*args, source=Source(model, format_, layout, stack, bind), **rest)

        for parameter in reversed(parameters):
            command = parameter(command)
        return command

    return decorate
