"""The argument MODEL and the options that say how to read it, alike for every verb."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, get_args

import click

from ifgo import formats, limits
from ifgo.cli import terminal
from ifgo.cli.terminal import escape
from ifgo.formats.extraction import Listing
from ifgo.limits import Limits
from ifgo.model import Model

Function = Callable[..., Any]


_READING: Final[dict[str, dict[str, Any]]] = {
    "layout": {
        "type": click.Choice(["A", "B"]),
        "help": "Layout of a raw folder whose model.toml does not say it.",
    },
    "stack": {
        "type": click.Choice(get_args(formats.Stack)),
        "help": "How a raw folder without model.toml feeds one LSTM into the next.",
    },
    "bind": {
        "metavar": "W.npz",
        "help": "Arrays for ONNX graph inputs that are really weights, by input name.",
    },
    "config": {
        "metavar": "MODEL.json",
        "help": "Layers of a Keras file of weights alone, as model.to_json() writes them.",
    },
    "cfg": {"metavar": "FILE", "help": "Layers of a Darknet .weights [default: the same name]."},
    "dialect": {
        "type": click.Choice(["pjreddie", "alexeyab"]),
        "help": "Fork that wrote a Darknet .weights [default: as its header says].",
    },
    "sheet": {
        "metavar": "FILE|NAME",
        "help": "What dumped arrays mean: a TOML sheet, or the name of one that comes with ifgo "
        "[default: MODEL with the ending .toml].",
    },
    "layers": {
        "metavar": "CHAIN",
        "help": "Modules of a state_dict in order, and the steps that it does not store, as "
        "embed,rec:last,lin:sigmoid.",
    },
    "start": {
        "metavar": "TENSOR",
        "help": "Tensor of a TensorFlow graph that is the model's input, behind a front end.",
    },
    "end": {
        "metavar": "TENSOR",
        "help": "Tensor of a TensorFlow graph that is the model's output.",
    },
    "signature": {
        "metavar": "NAME",
        "help": "Signature of a SavedModel, serving_default where none is given.",
    },
    "shape": {
        "metavar": "I,H",
        "help": "Sizes of a text of gate blocks (stm32_text): input_size,hidden_size.",
    },
    "architecture": {
        "metavar": "NET.toml",
        "help": "A file that says the chain of a state_dict instead of --layers.",
    },
    "select": {
        "metavar": "NAME[,NAME]",
        "help": "These recurrent layers alone, out of a larger model; "
        "`ifgo inspect --lstms` lists them.",
    },
}
"""Option of formats.load → how the command line offers it, as --option."""

_WRITING: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "layout": (
        "--to-layout",
        {
            "type": click.Choice(["A", "B"]),
            "help": "Layout of a raw DST [default: A]. --layout means it too where SRC is not raw.",
        },
    ),
    "encoding": (
        "--encoding",
        {"type": click.Choice(["txt", "bin"]), "help": "Tensors of a raw DST [default: bin]."},
    ),
    "dialect": (
        "--to-dialect",
        {
            "type": click.Choice(["pjreddie", "alexeyab"]),
            "help": "Fork that shall read a Darknet DST [default: pjreddie].",
        },
    ),
    "decimals": (
        "--decimals",
        {
            "type": click.IntRange(0, 20),
            "help": "Digits after the point in an stm32_text DST [default: all that matter].",
        },
    ),
    "dtype": (
        "--to-dtype",
        {
            "type": click.Choice(["float16", "bfloat16", "float32", "float64"]),
            "help": "Numbers of DST [default: as SRC has them, where DST holds those; dlfs2: "
            "float16, as the book saves them].",
        },
    ),
}
"""Option of formats.save → its name on the command line, and how it is offered."""


@dataclass(frozen=True)
class Source:
    """The path of a model and how to read it: the arguments of formats.load."""

    path: str
    format: str | None
    options: dict[str, Any]

    @property
    def select(self) -> str | None:
        """The layers asked for, None for the whole model."""
        return self.options["select"]

    def load(self, *, tell: bool = True) -> Model:
        """The model; where layers are selected, what was left out is said on stderr if `tell`.
        Raises what formats.load raises."""
        model = formats.load(self.path, self.format, **self.options)
        if tell and self.select is not None:
            tell_notes(model)
        return model

    def list_layers(self) -> Listing:
        """The recurrent layers of the file. Raises what formats.list_layers raises."""
        options = {name: value for name, value in self.options.items() if name != "select"}
        return formats.list_layers(self.path, self.format, **options)


def tell_notes(model: Model) -> None:
    """What reading chose, changed or left out, on stderr."""
    for note in model.provenance.notes:
        terminal.tell(f"note: {escape(note)}")


def _limits(_context: click.Context, _option: Any, entries: tuple[str, ...]) -> Limits | None:
    return limits.parse(entries) if entries else None


_LIMIT: Final = click.option(
    "--limit",
    "raised",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_limits,
    help="Hold MODEL and data to another limit, as --limit layers=100 for a file that is trusted. "
    "Repeatable. An error that a limit causes names it.",
)


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
        *(click.option(f"--{name}", f"read_{name}", **how) for name, how in _READING.items()),
        _LIMIT,
    )

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def command(
            *args: Any, model: str, format_: str | None, raised: Limits | None, **rest: Any
        ) -> Any:
            options = {name: rest.pop(f"read_{name}") for name in _READING}
            with limits.using(raised):
                return function(*args, source=Source(model, format_, options), **rest)

        return _decorated(command, parameters)

    return decorate


def writing_options(function: Function) -> Function:
    """Gives a command the options of formats.save, as `writing`: name → value or None."""

    @functools.wraps(function)
    def command(*args: Any, **rest: Any) -> Any:
        writing = {name: rest.pop(f"write_{name}") for name in _WRITING}
        return function(*args, writing=writing, **rest)

    return _decorated(
        command,
        tuple(click.option(flag, f"write_{name}", **how) for name, (flag, how) in _WRITING.items()),
    )


def _decorated(command: Function, parameters: tuple[Function, ...]) -> Function:
    """`command` with `parameters`, which its help lists in this order."""
    for parameter in reversed(parameters):
        command = parameter(command)
    return command
