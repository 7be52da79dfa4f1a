"""Every error ifgo raises on purpose: a closed hierarchy, one exit code each.

A message is built from four parts so that no part is forgotten: where (file, layer, node),
what happened, what was expected, and what to do next.
"""

from __future__ import annotations


class IfgoError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 70

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected:
            text += f", expected {self.expected}"
        if self.hint:
            text += f". {self.hint}"
        return text

    def located(self, where: str) -> IfgoError:
        """The same error, said of `where` (a reader adds its file to a model's complaint), once."""
        if self.where and self.where.startswith(where):
            return self
        place = f"{where}: {self.where}" if self.where else where
        return type(self)(self.what, where=place, expected=self.expected, hint=self.hint)


class UsageError(IfgoError):
    """An argument, an input array or a combination of options that cannot be meant."""

    exit_code = 2


class UnsupportedError(IfgoError):
    """Legal, but ifgo (or this target, or this format) cannot represent it: refused by name."""

    exit_code = 3


class ToolError(IfgoError):
    """An outside program (a compiler, a runtime) is missing or failed."""

    exit_code = 3


class FormatError(IfgoError):
    """A file is damaged, lies about itself, or holds values no model may have."""

    exit_code = 4


class ModelError(IfgoError):
    """The parts of a model do not fit each other."""

    exit_code = 4
