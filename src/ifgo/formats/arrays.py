"""Arrays that someone dumped, and a sheet that says what they mean: gate order, bias form, layers.

.npz, .npy, pickles, plain numbers, or a folder of such; FORMATS.md lists the keys of a sheet and
the sheets of known sources that come with ifgo.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ifgo.errors import FormatError, IfgoError, UsageError
from ifgo.formats import Report
from ifgo.formats import _arrays_files as containers
from ifgo.formats._arrays_build import Store, build
from ifgo.formats._arrays_sheet import Sheet, find, is_madmom
from ifgo.formats._arrays_sheet import shipped as shipped
from ifgo.formats._arrays_write import write_files
from ifgo.formats._attributes import Losses
from ifgo.layers import Embedding, Layer, Recurrent
from ifgo.model import FeatureInput, Model, Provenance, TokenInput
from ifgo.text import listed, quote

EXTENSIONS = (".npz",)
READ_OPTIONS = ("sheet",)
WRITE_OPTIONS: tuple[str, ...] = ()

_ALWAYS: Final = (".npz", ".npy")
"""Endings that nothing else has; the others need their sheet beside them, or named."""


def sniff(path: Path) -> bool:
    """Whether `path` is a NumPy file, a pickle of madmom, or a dump with its sheet beside it."""
    try:
        if path.is_dir():
            return (path / "sheet.toml").is_file()
        if path.suffix.lower() in _ALWAYS:
            return path.is_file()
        if is_madmom(path):
            return True
        known = path.suffix.lower() in containers.READERS
        return known and path.is_file() and path.with_suffix(".toml").is_file()
    except OSError:
        return False


def read(path: Path, *, sheet: str | None = None) -> Model:
    """The model that `sheet` makes of the arrays at `path`.

    sheet: a file, or the name of a sheet that comes with ifgo; NAME.toml beside NAME.npz (or
    sheet.toml in a folder) where it is not given. Raises UsageError where there is no sheet,
    FormatError naming the key, the array that is missing, unused or of a wrong shape, ModelError
    where layers do not fit each other.
    """
    try:
        described = find(sheet, path)
        found, notes = containers.read(path, described)
        store = Store(found)
        layers, names = build(described, store)
        if not layers:
            raise FormatError(f"{described.file} describes no layers", expected="[[layer]]")
        if described.title:
            notes = (described.title, *notes)
        ignored = store.finish(described)
        if ignored:
            notes += (f"left out {listed(map(quote, ignored))}, as the sheet says",)
        framework = described.file.removesuffix(".toml")
        provenance = Provenance("arrays", f"sheet {framework}", str(path), notes, names)
        if not layers:
            raise UsageError(f"{described.file} describes no layers", expected="[[layer]]")
        return Model((_input(described, layers),), tuple(layers), provenance=provenance)
    except IfgoError as error:
        raise error if str(path) in (error.where or "") else error.located(str(path)) from None


def _input(sheet: Sheet, layers: list[Layer]) -> FeatureInput | TokenInput:
    first = layers[0]
    if isinstance(first, Embedding):
        return TokenInput(first.vocabulary, sheet.input_name, sheet.axes)
    size = sheet.input_size
    if size is None:
        size = _width(first)
    return FeatureInput(size, sheet.input_name, sheet.axes)


def _width(layer: Layer) -> int:
    if isinstance(layer, Recurrent):
        return layer.cell.input_size
    weight = getattr(layer, "weight", None)
    if weight is None:
        raise UsageError(
            "the first layer says no number of inputs", expected="size under [input] in the sheet"
        )
    return int(weight.shape[1])


def write(model: Model, path: Path, *, allow_lossy: Losses = False) -> Report:
    """Write the arrays of `model` as `path` (.npz), with their dtype, and NAME.toml beside it.

    Gates in ifgo's own order, rows, biases as they are. Raises UnsupportedError naming all that a
    sheet cannot say, in one message; allow_lossy permits giving up facts that inference does not
    use. Provenance is not written.
    """
    return write_files(model, path, allow_lossy=allow_lossy)
