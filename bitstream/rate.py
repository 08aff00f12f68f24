"""A frame rate: a fraction in lowest terms, written as two varints. Knows no chunk and no model."""

from __future__ import annotations

import math
from typing import TypeAlias

from codec.bitstream.wire import Reader
from codec.errors import BitstreamError

__all__ = ["Rate", "check_rate", "unpack_rate"]

Rate: TypeAlias = tuple[int, int]
"""Frames, and the seconds that they take."""

RATE_MAX = (1 << 31) - 1


def check_rate(rate: Rate) -> None:
    """Refuse a rate that is not in lowest terms, or of numbers beyond 1..2**31 - 1."""
    if not all(1 <= part <= RATE_MAX for part in rate) or math.gcd(*rate) != 1:
        raise BitstreamError(f"frame rate {rate}: want 1..{RATE_MAX} in lowest terms")


def unpack_rate(reader: Reader) -> Rate:
    """The next two numbers, within the range of a rate."""
    return reader.varint("frames", RATE_MAX), reader.varint("of so many seconds", RATE_MAX)
