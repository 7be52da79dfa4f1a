"""The entry point: finds the verb, turns every error into one line and one exit code.

Exit codes: 0 ok, 1 a check failed, 2 usage, 3 unsupported or a tool is missing, 4 bad file,
70 a bug in ifgo, 130 interrupted, 141 the reader of stdout has gone.
Imports nothing heavy: a verb's module is imported when the verb is called.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from ifgo import __version__
from ifgo.cli import terminal
from ifgo.errors import IfgoError, UsageError

VERBS: Final = {
    "demo": "Deploy a bundled model as C, prove its numbers, draw a page.",
    "doctor": "Check what this machine has, and say what to install.",
    "new": "Make a model with random weights.",
    "inspect": "Show the layers, sizes and gates of a model.",
    "convert": "Write a model in another format.",
    "run": "Compute a model on data.",
    "verify": "Compare runtimes with the reference, layer by layer.",
    "deploy": "Write a model as C source.",
}
"""Verb → what it does; module ifgo.cli.<verb> holds its `command`."""

INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141


class Verbs(click.Group):
    """A group that imports a verb when it is called, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order of VERBS."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, or None where there is no such verb."""
        if cmd_name not in VERBS:
            return None
        return import_module(f"ifgo.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="VERB ...",
    epilog="Exit codes: 0 ok, 1 a check failed, 2 usage, 3 unsupported, 4 bad file.",
)
@click.version_option(__version__, prog_name="ifgo", message="%(prog)s %(version)s")
def group() -> None:
    """Take a trained LSTM to where it must run, and prove that nothing changed on the way."""


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")
    try:
        code = call(sys.argv[1:])
        if sys.stdout:
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = PIPE_CLOSED
    except OSError as error:
        code = _complain(_unexpected(error))
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            # What cannot be written would be tried again at exit, and complained about.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def call(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    KeyboardInterrupt and BrokenPipeError pass, and an OSError of writing the JSON of an error;
    every other error is printed.
    """
    try:
        if not arguments:
            settings: dict[str, Any] = {**group.context_settings}
            terminal.tell(group.get_help(click.Context(group, info_name="ifgo", **settings)))
            return UsageError.exit_code
        with group.make_context("ifgo", list(arguments)) as context:
            return group.invoke(context) or 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        raise
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        place = context.command_path if context else "ifgo"
        text = error.format_message().replace("(Did you mean", "Did you mean").replace("?)", "?")
        what, meant, name = text.rstrip(".").partition(" Did you mean ")
        hint = f"See '{place} --help'"
        found = UsageError(what.rstrip("."), hint=f"{meant.strip()} {name} {hint}".strip())
    except IfgoError as error:
        found = error
    except Exception as error:
        found = _unexpected(error)
        if os.environ.get("IFGO_TRACEBACK"):
            for line in traceback.format_exc().splitlines():
                terminal.tell(terminal.escape(line))
    _complain(found)
    if "--json" in arguments:
        terminal.emit({"error": terminal.error_facts(found)})
    return found.exit_code


def _complain(error: IfgoError) -> int:
    """Print one error, where stderr can be written; its exit code."""
    with suppress(OSError):
        terminal.complain(error)
    return error.exit_code


def _unexpected(error: Exception) -> IfgoError:
    """What to say of an error that nobody raised on purpose."""
    if isinstance(error, OSError) and error.strerror:
        where = None if error.filename is None else str(error.filename)
        return UsageError(
            f"the system refuses ({error.strerror})",
            where=where,
            hint="Check the permissions and the free space",
        )
    if isinstance(error, MemoryError):
        return UsageError("not enough memory", hint="Take a smaller model, or less data at a time")
    return IfgoError(
        f"sorry, this is a bug in ifgo: {type(error).__name__}: {error}",
        hint="Run it again with IFGO_TRACEBACK=1 to see where, and report that",
    )
