"""The bytes of a flatbuffer, checked before anything follows an offset in them.

The generated accessors trust every offset and length. This pass visits what the reader visits and
holds it against the bytes that are there, as the verifier of the C++ library does. It follows the
schema, which has no cycles, and counts its visits, since many offsets may name one table.
"""

from __future__ import annotations

import struct
from typing import Final

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.text import cut

IDENTIFIER: Final = b"TFL3"

Fields = tuple[str, ...]
"""The kind of each field in the order of the schema: a width in bytes ("1", "2", "4", "8") for a
scalar, "s" a string, "v" and a width a vector, "t" and a name a table, "T" and a name a vector of
tables, "u" the options of the operator, "skip" an offset that nobody follows."""

TABLES: Final[dict[str, Fields]] = {
    "Model": ("4", "TOperatorCode", "TSubGraph", "s", "TBuffer", "skip", "skip", "skip"),
    "OperatorCode": ("1", "s", "4", "4"),
    "SubGraph": ("TTensor", "v4", "v4", "TOperator", "s", "skip"),
    "Tensor": ("v4", "1", "4", "s", "tQuantizationParameters", "1", "skip", "v4", "1", "skip"),
    "QuantizationParameters": ("v4", "v4", "v4", "v8", "1", "skip", "4"),
    "Operator": ("4", "v4", "v4", "1", "u", "v1", "1", "v1", "v4", "8", "8", "1", "skip"),
    "Buffer": ("v1", "8", "8"),
}

OPTIONS: Final[dict[str, dict[str, str]]] = {
    "FullyConnectedOptions": {
        "FusedActivationFunction": "1",
        "WeightsFormat": "1",
        "KeepNumDims": "1",
        "AsymmetricQuantizeInputs": "1",
        "QuantizedBiasType": "1",
    },
    "SoftmaxOptions": {"Beta": "4"},
    "ConcatenationOptions": {"Axis": "4", "FusedActivationFunction": "1"},
    "AddOptions": {"FusedActivationFunction": "1", "PotScaleInt16": "1"},
    "SubOptions": {"FusedActivationFunction": "1", "PotScaleInt16": "1"},
    "MulOptions": {"FusedActivationFunction": "1"},
    "ReshapeOptions": {"NewShape": "v4"},
    "GatherOptions": {"Axis": "4", "BatchDims": "4"},
    "TransposeOptions": {},
    "SqueezeOptions": {"SqueezeDims": "v4"},
    "ExpandDimsOptions": {},
    "StridedSliceOptions": {
        "BeginMask": "4",
        "EndMask": "4",
        "EllipsisMask": "4",
        "NewAxisMask": "4",
        "ShrinkAxisMask": "4",
        "Offset": "1",
    },
    "SliceOptions": {},
    "SplitOptions": {"NumSplits": "4"},
    "SplitVOptions": {"NumSplits": "4"},
    "PackOptions": {"ValuesCount": "4", "Axis": "4"},
    "UnpackOptions": {"Num": "4", "Axis": "4"},
    "LeakyReluOptions": {"Alpha": "4"},
    "DequantizeOptions": {},
    "CastOptions": {"InDataType": "1", "OutDataType": "1"},
    "ShapeOptions": {"OutType": "1"},
    "BatchMatMulOptions": {"AdjX": "1", "AdjY": "1", "AsymmetricQuantizeInputs": "1"},
    "ReverseV2Options": {},
    "WhileOptions": {"CondSubgraphIndex": "4", "BodySubgraphIndex": "4"},
    "UnidirectionalSequenceLSTMOptions": {
        "FusedActivationFunction": "1",
        "CellClip": "4",
        "ProjClip": "4",
        "TimeMajor": "1",
        "AsymmetricQuantizeInputs": "1",
        "DiagonalRecurrentTensors": "1",
    },
    "BidirectionalSequenceLSTMOptions": {
        "FusedActivationFunction": "1",
        "CellClip": "4",
        "ProjClip": "4",
        "MergeOutputs": "1",
        "TimeMajor": "1",
        "AsymmetricQuantizeInputs": "1",
    },
}
"""Options of the operators that are read, by the names of the schema's accessors."""


class Guard:
    """One pass over `data`. option_names: builtin_options_type → table of OPTIONS."""

    def __init__(self, data: bytes, option_names: dict[int, str]) -> None:
        self.data = data
        self._option_names = option_names
        self._left = limits.current().tables

    def run(self) -> None:
        """Raises FormatError where an offset or a length leaves the file."""
        if len(self.data) < 8 or self.data[4:8] != IDENTIFIER:
            raise FormatError(
                "does not begin as a TFLite flatbuffer does",
                expected=f"the identifier {IDENTIFIER.decode()} in bytes 4 to 8",
                hint="Convert it again",
            )
        self._table(self._offset(0, "the root"), "Model", TABLES["Model"])

    def _fail(self, what: str, why: str) -> FormatError:
        return FormatError(
            f"{cut(what, 80)} {why}",
            expected="offsets and lengths inside the file",
            hint="The file is damaged: convert it again",
        )

    def _offset(self, at: int, what: str) -> int:
        """Where the offset at `at` leads, 4 bytes at least before the end."""
        if not 0 <= at <= len(self.data) - 4:
            raise self._fail(what, f"has an offset at {at} of {len(self.data)} bytes")
        target = at + int(struct.unpack_from("<I", self.data, at)[0])
        if target > len(self.data) - 4 or target == at:
            raise self._fail(what, f"leads to {target} of {len(self.data)} bytes")
        return target

    def _vector(self, at: int, what: str, width: int) -> tuple[int, int]:
        """(first entry, count) of the vector that the offset at `at` names."""
        start = self._offset(at, what)
        count = int(struct.unpack_from("<I", self.data, start)[0])
        if start + 4 + count * width > len(self.data):
            raise self._fail(what, f"lists {count} entries in {len(self.data)} bytes")
        return start + 4, count

    def _table(self, at: int, what: str, kinds: Fields) -> None:
        self._left -= 1
        if self._left < 0:
            raise FormatError(
                f"has more than {limits.current().tables} tables", **limits.at_most("tables")
            )
        table = at - int(struct.unpack_from("<i", self.data, at)[0])
        if not 0 <= table <= len(self.data) - 4:
            raise self._fail(what, f"has its fields described at {table}")
        size, width = struct.unpack_from("<HH", self.data, table)
        if size < 4 or size % 2 or table + size > len(self.data):
            raise self._fail(what, f"describes its fields in {size} bytes at {table}")
        if width < 4 or at + width > len(self.data):
            raise self._fail(what, f"has {width} bytes at {at}")
        places = struct.unpack_from(f"<{size // 2 - 2}H", self.data, table + 4)
        for k, place in enumerate(places[len(kinds) :], len(kinds)):
            if place:
                raise UnsupportedError(
                    f"{what} has a field {k}",
                    expected=f"the {len(kinds)} fields of the schema that ifgo knows",
                    hint="Convert the model with an older converter",
                )
        for k, (place, kind) in enumerate(zip(places, kinds, strict=False)):
            if place:
                self._field(at, place, width, f"{what}, field {k}", kind)
        if "u" in kinds:
            self._options(at, places, width)

    def _field(self, at: int, place: int, width: int, what: str, kind: str) -> None:
        extent = int(kind) if kind.isdigit() else 4
        if place < 4 or place + extent > width:
            raise self._fail(what, f"lies at {place} of {width} bytes")
        if kind.isdigit() or kind in ("u", "skip"):
            return
        if kind == "s":
            self._vector(at + place, what, 1)
        elif kind[0] == "v":
            self._vector(at + place, what, int(kind[1:]))
        elif kind[0] == "t":
            self._table(self._offset(at + place, what), kind[1:], TABLES[kind[1:]])
        else:
            start, count = self._vector(at + place, what, 4)
            if count > self._left:
                raise FormatError(
                    f"{what} lists {count} tables",
                    **limits.at_most("tables", form="at most {} in all"),
                )
            for k in range(count):
                target = self._offset(start + 4 * k, f"{kind[1:]} #{k}")
                self._table(target, f"{kind[1:]} #{k}", TABLES[kind[1:]])

    def _options(self, at: int, places: tuple[int, ...], width: int) -> None:
        """Options whose kind is read; those of other operators are never followed."""
        if len(places) <= 4 or not places[4]:
            return
        kind = self.data[at + places[3]] if places[3] else 0
        name = self._option_names.get(kind)
        if name is not None:
            target = self._offset(at + places[4], name)
            self._table(target, name, tuple(OPTIONS[name].values()))
