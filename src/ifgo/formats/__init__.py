"""Formats: one module each, with `sniff`, `read` and `write`. Nothing here knows a target.

A reader maps every attribute onto a field of the Model or refuses it by name. A writer returns a
Report of what it kept, folded and lost; without `allow_lossy` a loss is refused instead.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

from ifgo import limits as bounds
from ifgo.errors import FormatError, IfgoError, UsageError
from ifgo.files import as_path
from ifgo.formats._attributes import LOSSES as LOSSES
from ifgo.formats._attributes import Attribute, Losses, Mark, permitted, with_marks
from ifgo.formats._narrow import narrow
from ifgo.formats._unpickle import starts_pickle
from ifgo.formats.extraction import Listing, listing_of, part_of
from ifgo.limits import Limits
from ifgo.model import Model
from ifgo.text import escape, quote

FORMATS: Final = (
    "native",
    "raw",
    "onnx",
    "darknet",
    "dlfs2",
    "tflite",
    "tensorflow",
    "rtneural",
    "guitarml",
    "nam",
    "keras",
    "arrays",
    "torch",
    "safetensors",
    "stm32_text",
)
"""Names as `--from` and `--to` take them; module ifgo.formats.<name> holds each."""

_MEANING: Final = {"sheet": "arrays", "shape": "stm32_text"}
"""Reading option → the format that it is given for, where the content alone would not say it."""

Stack = Literal["stacked", "hidden-as-sequence"]


@dataclass(frozen=True)
class Report:
    """What writing did: exactly kept, folded (with its largest error), or lost on request."""

    kept: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    """Every attribute of every input, layer and output, with what became of it."""

    @property
    def exact(self) -> bool:
        """Whether reading the result gives the same bits."""
        return not self.folded and not self.lost

    def after(self, lost: tuple[str, ...], marks: tuple[Mark, ...]) -> Report:
        """This report of a model to which something was done before."""
        folded = ("the type of arrays, same values",) if marks and not lost else ()
        told = with_marks(self.attributes, marks)
        return Report(self.kept, folded + self.folded, lost + self.lost, told)


class Format(Protocol):
    """What a format module offers."""

    EXTENSIONS: tuple[str, ...]
    """File endings that `save` recognises; empty for a format that is a folder."""
    READ_OPTIONS: tuple[str, ...]
    WRITE_OPTIONS: tuple[str, ...]

    def sniff(self, path: Path) -> bool:
        """Whether `path` looks like this format. Never raises, reads a few bytes at most."""
        ...

    def read(self, path: Path, **options: Any) -> Model:
        """The model in `path`."""
        ...

    def write(self, model: Model, path: Path, *, allow_lossy: Losses, **options: Any) -> Report:
        """Write `model` to `path`, whole or not at all."""
        ...


def get(name: str) -> Format:
    """The format module called `name`. Raises UsageError on an unknown name."""
    if name not in FORMATS:
        raise UsageError(f"unknown format {quote(name)}", expected="one of " + ", ".join(FORMATS))
    return cast(Format, import_module(f"ifgo.formats.{name}"))


def _options(given: dict[str, Any], known: tuple[str, ...], name: str, verb: str) -> dict[str, Any]:
    present = {key: value for key, value in given.items() if value is not None}
    for key in present:
        if key not in known:
            raise UsageError(
                f"option {key!r} means nothing to {verb} format {name!r}",
                expected="one of " + ", ".join(known) if known else "no option",
            )
    return present


def load(
    path: str | Path,
    format: str | None = None,
    *,
    limits: Limits | None = None,
    **options: Any,
) -> Model:
    """Read a model. `format` is found from the content where it is not given.

    limits: what a file is held to, as Limits(layers=100) for one that is trusted to have more.

    options: layout ("A"|"B") and stack for raw folders; bind (path of an npz, or a mapping) for
    ONNX weights that are graph inputs; sheet (a file, or the name of one of ifgo's) for dumped
    arrays; layers (the chain of modules) for state_dicts; select (names as `list_layers` gives
    them, or one string with commas) for recurrent layers out of something larger. Raises
    UsageError, FormatError or UnsupportedError, each naming the file.
    """
    place = as_path(path, "the model")
    with bounds.using(limits):
        name = _found(place, format, options)
        chosen = get(name)
        select = None if "select" in chosen.READ_OPTIONS else options.pop("select", None)
        with _located(place):
            model = chosen.read(place, **_options(options, chosen.READ_OPTIONS, name, "reading"))
            return model if select is None else part_of(model, select)


def list_layers(
    path: str | Path,
    format: str | None = None,
    *,
    limits: Limits | None = None,
    **options: Any,
) -> Listing:
    """The recurrent layers of a file, each by the name that `load(select=)` takes, and the rest.

    limits and options as for `load`, but select. Raises what `load` raises; a layer that cannot be
    read alone is listed with the reason.
    """
    place = as_path(path, "the model")
    with bounds.using(limits):
        name = _found(place, format, options)
        chosen = get(name)
        lister = getattr(chosen, "list_layers", None)
        known = tuple(option for option in chosen.READ_OPTIONS if option != "select")
        with _located(place):
            given = _options(options, known, name, "listing")
            if lister is not None:
                return lister(place, **given)
            return listing_of(chosen.read(place, **given), name)


def _found(place: Path, format: str | None, options: dict[str, Any]) -> str:
    """The format of a file that exists; some options belong to one format alone."""
    _require_readable(place)
    meant = next((_MEANING[key] for key in _MEANING if options.get(key) is not None), None)
    name = format or meant or next((n for n in FORMATS if get(n).sniff(place)), None)
    if name is None:
        raise FormatError(
            "is in no format that ifgo knows",
            where=str(place),
            expected="one of " + ", ".join(FORMATS),
            hint=_remedy(place),
        )
    return name


def _remedy(place: Path) -> str:
    """What to try with a file that is in no format."""
    if place.is_file():
        with place.open("rb") as stream:
            if starts_pickle(stream.read(2)):
                return (
                    "It is a pickle of arrays: say what they mean with --sheet FILE or NAME "
                    "(sheet= in Python); ifgo inspect --sheets lists the sheets of known sources"
                )
    return "Name it with --from FORMAT (format= in Python) if its ending is unusual"


def _require_readable(place: Path) -> None:
    """Raises UsageError where nothing lies at `place`, or the system does not let it be read."""
    try:
        if not place.exists():
            raise UsageError("no such file or folder", where=str(place), hint="Check the path")
        if place.is_dir():
            next(place.iterdir(), None)
        elif place.is_file():
            place.open("rb").close()
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror})",
            where=str(place),
            hint="Check the path and its permissions",
        ) from None


@contextmanager
def _located(place: Path) -> Generator[None]:
    """Errors name the file, and what they quote from it prints on one line."""
    try:
        yield
    except IfgoError as error:
        named = bool(error.where and str(place) in error.where)
        found = error if named else error.located(str(place))
        if str(found).isprintable():
            raise found from None
        parts = (found.what, found.where, found.expected, found.hint)
        what, where, expected, hint = (part and escape(part) for part in parts)
        raise type(found)(what or "", where=where, expected=expected, hint=hint) from None


def save(
    model: Model,
    path: str | Path,
    format: str | None = None,
    *,
    allow_lossy: Losses = False,
    **options: Any,
) -> Report:
    """Write a model. `format` is found from the ending of `path` where it is not given.

    options: layout ("A"|"B") and encoding ("txt"|"bin") for raw folders; dtype, in which every
    array is written. allow_lossy: names of the
    losses that are permitted, keys of ifgo.formats.LOSSES; True permits every one. Raises
    UnsupportedError naming what the format cannot hold and is not permitted, all in one message.
    """
    place = as_path(path, "the destination")
    permitted(allow_lossy)
    if not isinstance(cast("Any", model), Model):
        raise UsageError(f"the model is a {type(model).__name__}", expected="an ifgo.Model")
    name = format or next((n for n in FORMATS if place.suffix in get(n).EXTENSIONS), None)
    if name is None:
        endings = [ending for n in FORMATS for ending in get(n).EXTENSIONS]
        raise UsageError(
            f"the ending of {place.name!r} names no format",
            expected="one of " + ", ".join(endings),
            hint="Or name the format with --to FORMAT (format= in Python)",
        )
    chosen = get(name)
    dtype = None if "dtype" in chosen.WRITE_OPTIONS else options.pop("dtype", None)
    known = _options(options, chosen.WRITE_OPTIONS, name, "writing")
    if dtype is None:
        return chosen.write(model, place, allow_lossy=allow_lossy, **known)
    narrowed, lost, marks = narrow(model, dtype, allow_lossy)
    report = chosen.write(narrowed, place, allow_lossy=allow_lossy, **known)
    return report.after(lost, marks)
