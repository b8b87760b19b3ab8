"""Numbers as bytes and back, little-endian, for every dtype; no array library is needed."""

from __future__ import annotations

import math
import struct
from typing import Any

# What `struct` calls them. It knows no bfloat16: that is the upper half of a float32.
_FORMATS = {
    "bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q",
    "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip


def pack(dtype: str, value: float) -> bytes:
    """Return a number's bytes, rounded to the nearest, to even in the middle.

    Raises a struct.error or an OverflowError where the number does not fit.

    >>> pack("float32", 1.0).hex(), pack("bfloat16", 1.0).hex()
    ('0000803f', '803f')
    """
    if dtype != "bfloat16":
        return struct.pack("<" + _FORMATS[dtype], value)
    return struct.pack("<f", _rounded(float(value)))[2:]


def unpack(dtype: str, data: bytes) -> tuple[Any, ...]:
    """Return the numbers that bytes hold.

    >>> unpack("bfloat16", bytes.fromhex("803f0040"))
    (1.0, 2.0)
    """
    if dtype != "bfloat16":
        letter = _FORMATS[dtype]
        return struct.unpack(f"<{len(data) // struct.calcsize('<' + letter)}{letter}", data)
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[::2], data[1::2]
    return struct.unpack(f"<{len(data) // 2}f", wide)


def _rounded(value: float) -> float:
    """Return the nearest number of 8 significant bits; below 2⁻¹²⁶ numbers are 2⁻¹³³ apart."""
    if value == 0 or not math.isfinite(value):
        return value
    step = math.ldexp(1.0, max(math.frexp(value)[1] - 8, -133))
    return math.copysign(round(value / step) * step, value)
