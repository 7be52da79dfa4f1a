"""CRC-32C (Castagnoli) of byte strings, many at a time. RFC 3720, appendix B.4.

A long string is cut into lanes that are computed side by side; the register of a whole is then the
sum of those of its halves, the first one pushed through as many zero bytes as the second one has.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL: Final = 0x82F63B78
_MASK: Final = 0xA282EAD8
_BLOCK: Final = 256
"""Bytes of a lane."""


@cache
def _table() -> NDArray[np.uint32]:
    """Byte → what it adds to a register."""
    table: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        odd = np.where(table & np.uint32(1), np.uint32(_POLYNOMIAL), np.uint32(0))
        table = (table >> np.uint32(1)) ^ odd
    return table


@cache
def _zeros(doubled: int) -> NDArray[np.uint32]:
    """What 2^doubled zero bytes make of each single bit of a register (32,)."""
    if doubled == 0:
        bits: NDArray[np.uint32] = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return _table()[bits & np.uint32(0xFF)] ^ (bits >> np.uint32(8))
    half = _zeros(doubled - 1)
    return _through(half, half)


def _through(columns: NDArray[np.uint32], registers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    found = np.zeros_like(registers)
    for bit in range(32):
        found ^= np.where(registers >> np.uint32(bit) & 1, columns[bit], np.uint32(0))
    return found


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of `data`."""
    table, whole = _table(), len(data) // _BLOCK
    # leading zero bytes change nothing in a register of 0: the count of lanes becomes a power of 2
    count = 1 << max(whole - 1, 0).bit_length()
    register = 0xFFFFFFFF
    if whole:
        rows = np.frombuffer(data, np.uint8, whole * _BLOCK).reshape(whole, _BLOCK)
        lanes = np.zeros(whole, np.uint32)
        lanes[0] = register
        columns: Any = np.ascontiguousarray(rows.T)
        for column in columns:
            lanes = table[(lanes ^ column) & 0xFF] ^ (lanes >> np.uint32(8))
        lanes = np.concatenate([np.zeros(count - whole, np.uint32), lanes])
        doubled = _BLOCK.bit_length() - 1
        while lanes.size > 1:
            lanes = _through(_zeros(doubled), lanes[0::2]) ^ lanes[1::2]
            doubled += 1
        register = int(lanes[0])
    for byte in bytes(data[whole * _BLOCK :]):
        register = int(table[(register ^ byte) & 0xFF]) ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum as LevelDB stores it."""
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF
