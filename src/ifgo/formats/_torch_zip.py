"""The archive of a .pt file: a zip of members stored as they are, each a view of the file."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Final

from ifgo import limits
from ifgo.errors import FormatError, UnsupportedError
from ifgo.text import quote

_ENTRY: Final = b"PK\x01\x02"
_LOCAL: Final = struct.Struct("<4s22xHH")
_DAMAGED: Final = "The file was changed or cut short after it was written; fetch or write it again"
_AGAIN: Final = "Save it again with torch.save"


class Archive:
    """Members by their name below the one folder that holds them all. Nothing is copied."""

    def __init__(self, data: bytes) -> None:
        """Raises FormatError on a zip that is damaged, repeats itself or names other folders."""
        if data.count(_ENTRY) > limits.current().members:
            raise FormatError(
                f"lists more than {limits.current().members} members",
                **limits.at_most("members", form="one per tensor, and a few"),
            )
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                entries = archive.infolist()
        except Exception as error:  # zipfile passes on what its parts raise
            raise FormatError(
                f"is no whole zip archive ({type(error).__name__})", hint=_DAMAGED
            ) from None
        self._data = memoryview(data)
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            self._add(entry)
        self._lie_apart()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def names(self) -> tuple[str, ...]:
        """Of every member, without the folder."""
        return tuple(self._entries)

    def _add(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename
        parts = name.split("/")
        if "\\" in name or "\0" in name or {"", ".", ".."} & set(parts) or len(parts) < 2:
            raise FormatError(
                f"holds a member {quote(name)}", expected="FOLDER/data.pkl and FOLDER/data/N"
            )
        known = "/".join(parts[1:])
        if known in self._entries:
            raise FormatError(f"holds two members {quote(known)}", expected="each name once")
        self._entries[known] = entry

    def _lie_apart(self) -> None:
        end = 0
        for entry in sorted(self._entries.values(), key=lambda entry: entry.header_offset):
            if entry.header_offset < end:
                raise FormatError(
                    f"member {quote(entry.filename)} lies over another", hint=_DAMAGED
                )
            end = entry.header_offset + _LOCAL.size + entry.compress_size
        if end > len(self._data):
            raise FormatError(f"its members end at byte {end} of {len(self._data)}", hint=_DAMAGED)

    def read(self, name: str) -> memoryview:
        """The bytes of a member. Raises FormatError where it is absent or its checksum differs,
        UnsupportedError where it is compressed or encrypted."""
        entry = self._entries.get(name)
        if entry is None:
            raise FormatError(f"has no member {quote(name)}", hint=_DAMAGED)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UnsupportedError(
                f"member {quote(name)} is compressed",
                expected="members stored as they are, as torch.save writes them",
                hint=_AGAIN,
            )
        if entry.flag_bits & 0x41:
            raise UnsupportedError(f"member {quote(name)} is encrypted", hint=_AGAIN)
        head = self._data[entry.header_offset : entry.header_offset + _LOCAL.size]
        if len(head) < _LOCAL.size or bytes(head[:4]) != b"PK\x03\x04":
            raise FormatError(f"member {quote(name)} does not begin where it should", hint=_DAMAGED)
        _, long, extra = _LOCAL.unpack(head)
        start = entry.header_offset + _LOCAL.size + long + extra
        found = self._data[start : start + entry.file_size]
        if len(found) != entry.file_size or zlib.crc32(found) != entry.CRC:
            raise FormatError(
                f"member {quote(name)} does not match its checksum",
                hint=_DAMAGED + " (with torch.serialization.set_crc32_options(True))",
            )
        return found
