"""The `.pkl` of Deep Learning from Scratch 2: a pickled list of float16 arrays without names.

TimeLSTM (Wx, Wh, b), Rnnlm (embed_W, Wx, Wh, b, affine_W, affine_b), BetterRnnlm (two LSTMs, the
affine matrix tied to the embedding), and any number of LSTMs between the two. Orders stand in
gates.LSTM_LAYOUTS; the pickle is read as data, so nothing in it runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from ifgo import files
from ifgo.cell import LSTMCell
from ifgo.errors import FormatError, UsageError
from ifgo.formats import Report
from ifgo.formats._attributes import Losses
from ifgo.formats._dlfs2_write import DTYPES, lay_out
from ifgo.formats._unpickle import array, is_array, kind_of, parse, starts_pickle
from ifgo.gates import LSTM_LAYOUTS, reorder
from ifgo.layers import Dense, Embedding, Layer, Recurrent
from ifgo.model import FeatureInput, Model, Provenance, TokenInput

EXTENSIONS = (".pkl",)
READ_OPTIONS: tuple[str, ...] = ()
WRITE_OPTIONS = ("dtype",)

Array = NDArray[Any]

_SHAPES: Final = re.compile(r"(2(?=2))??((?:221)+)(21)?")
"""The numbers of dimensions, array by array: an embedding, LSTMs, an affine layer."""


def sniff(path: Path) -> bool:
    """Whether `path` is a pickle whose outermost object is a list."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError:
        return False
    if path.suffix in EXTENSIONS and head[:3] in (b"(lp", b"]q\x00"):  # protocols 0 and 1
        return True
    return starts_pickle(head) and (head[2:3] == b"]" or head[2:3] + head[11:12] == b"\x95]")


def read(path: Path) -> Model:
    """The model in a list of arrays, in float32, as `load_params` of the book makes it.

    Raises FormatError naming the array that does not fit, with the shape that would. LSTMs beside
    an embedding are stateful, as Rnnlm and BetterRnnlm make them; alone they are not, the default
    of TimeLSTM.
    """
    found = parse(files.read_bytes(path))
    if type(found) is not list:
        raise FormatError(f"holds {kind_of(found)}", expected="a list of arrays")
    items = cast("list[Any]", found)
    for k, item in enumerate(items):
        if not is_array(item):
            raise FormatError(f"entry {k} of the list is {kind_of(item)}", expected="an array")
    arrays = [_single(array(item, f"array {k}"), k) for k, item in enumerate(items)]
    return _Parts(arrays).model(str(path))


def write(
    model: Model, path: Path, *, allow_lossy: Losses = False, dtype: str | None = None
) -> Report:
    """Write `model` as `save_params` of the book does: "float16" (dtype's default), or "float32",
    which `load_params` reads as well.

    Raises UnsupportedError naming all that the list cannot hold. allow_lossy permits rounding to
    float16 (the report gives its largest error), zeros for an absent bias, and adding a run-time
    forget bias to the bias.
    """
    if dtype not in (None, *DTYPES):
        raise UsageError(
            f"option dtype is {dtype!r}", expected="one of " + ", ".join(map(repr, DTYPES))
        )
    data, report = lay_out(model, dtype or "float16", allow_lossy=allow_lossy, where=str(path))
    files.atomic_write(path, data)
    return report


def _single(values: Array | list[Any], k: int) -> Array:
    """Array `k` in float32: float16 and float32 keep every value."""
    if isinstance(values, list) or values.dtype.kind != "f":
        kind = "objects" if isinstance(values, list) else f"{values.dtype}"
        raise FormatError(f"array {k} holds {kind}", expected="float16 or float32")
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if (single != values).any() and np.isfinite(values).all():
        raise FormatError(
            f"array {k} is {values.dtype} and holds values that are no float32",
            expected="float16 or float32",
            hint="Save params as float32: params = [p.astype('f') for p in params]",
        )
    return single


@dataclass(frozen=True)
class _Parts:
    """The arrays of a file, in float32."""

    arrays: list[Array]

    def model(self, path: str) -> Model:
        arrays = self.arrays
        match = _SHAPES.fullmatch("".join(str(a.ndim) for a in arrays))
        if match is None:
            raise FormatError(
                f"holds {len(arrays)} arrays of "
                f"{', '.join(str(a.ndim) for a in arrays[:24]) or 'no'} dimensions",
                expected="[embed_W], then Wx, Wh, b of each LSTM, then [affine_W, affine_b]: "
                "2, 2, 1 for each LSTM",
            )
        embedded, affine = match[1] is not None, match[3] is not None
        layers: list[Layer] = []
        names: dict[str, str] = {}
        at = 0
        if embedded:
            layers.append(Embedding("embedding", arrays[0]))
            names["embedding.weight"] = "array 0 (embed_W)"
            at = 1
        count = len(match[2]) // 3
        for k in range(count):
            name = "lstm" if count == 1 else f"lstm{k}"
            layers.append(Recurrent(name, self.cell(at), stateful=embedded))
            for field, theirs in (("weight_ih", "Wx"), ("weight_hh", "Wh"), ("bias_ih", "b")):
                names[f"{name}.forward.{field}"] = f"array {at} ({theirs})"
                at += 1
        if affine:
            layers.append(self.affine(at))
            names |= {"affine.weight": f"array {at} (affine_W)", "affine.bias": f"array {at + 1}"}
        dtypes = "dropout and whether state persists are not in the file"
        provenance = Provenance("dlfs2", "", path, (dtypes,), names)
        first = TokenInput(arrays[0].shape[0]) if embedded else FeatureInput(arrays[0].shape[0])
        return Model((first,), tuple(layers), provenance=provenance)

    def cell(self, at: int) -> LSTMCell:
        """The LSTM of the three arrays from `at`."""
        wx, wh, b = self.arrays[at : at + 3]
        hidden = wh.shape[0]
        wanted: dict[str, tuple[str, tuple[int, ...]]] = {
            "Wx": ("(input_size, 4·hidden_size)", (wx.shape[0], 4 * hidden)),
            "Wh": ("(hidden_size, 4·hidden_size)", (hidden, 4 * hidden)),
            "b": ("(4·hidden_size,)", (4 * hidden,)),
        }
        for k, (name, have) in enumerate((("Wx", wx), ("Wh", wh), ("b", b))):
            words, shape = wanted[name]
            if have.shape != shape:
                raise FormatError(
                    f"array {at + k}, {name} of an LSTM with hidden_size {hidden}, has shape "
                    f"{have.shape}",
                    expected=f"{words} = {shape}",
                    hint="An RNN of 1 or a GRU of 3 blocks is no LSTM"
                    if have.shape[-1] in (hidden, 3 * hidden)
                    else None,
                )
        layout = LSTM_LAYOUTS["dlfs2"]
        return LSTMCell(
            reorder(wx.T, layout.order), reorder(wh.T, layout.order), reorder(b, layout.order)
        )

    def affine(self, at: int) -> Dense:
        weight, bias = self.arrays[at : at + 2]
        if bias.shape != weight.shape[1:]:
            raise FormatError(
                f"array {at + 1}, affine_b, has shape {bias.shape}",
                expected=f"(outputs,) = {weight.shape[1:]}, as affine_W has columns",
            )
        return Dense("affine", weight.T, bias)
