"""The range coder over integer tables: for few symbols, wide tables, many table sets.

Knows tables and arrays, no names of streams. The symbols of one call are coded table by table.
constriction writes; what reads is docs/format/entropy.md compiled, since constriction takes
longer to build a table than to decode all symbols that it is for, and holds up other threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeAlias, final

import constriction
import numpy as np
from numpy.typing import NDArray

from codec.entropy import escapes
from codec.entropy.stream import AbstractReader, AbstractWriter, checked, required
from codec.entropy.tables import IntArray, Tables
from codec.errors import BitstreamError

__all__ = ["RangeReader", "RangeWriter"]

PRECISION = 24
# Uniform over 8 bits, last in every stream. Beyond its end a stream reads as 0, never as this.
MARK = 128
MARK_BITS = 8
_UNIFORM = constriction.stream.model.Uniform()

Integers: TypeAlias = NDArray[np.int64]


@final
class RangeWriter(AbstractWriter):
    """Encodes as it is called."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """See `AbstractStream.code`."""
        indexes = checked(indexes, 0, len(tables.sizes) - 1, "indexes")
        symbols = required(symbols, indexes)
        columns = tables.entries(symbols, indexes)
        for t, places in _groups(indexes):
            self._encoder.encode(columns[places], _model(tables, t))
        outside = np.flatnonzero(columns == tables.sizes[indexes] - 1)
        if len(outside):
            lengths, rests = escapes.split(symbols[outside], tables, indexes[outside])
            self._bits(np.full_like(lengths, escapes.LENGTH_BITS), lengths)
            self._bits(lengths[lengths > 0], rests[lengths > 0])
        return symbols

    def finish(self) -> bytes:
        """The shortest bytes that, continued by zeros, lie in the coder's final interval."""
        if self._encoder.is_empty():
            return b""
        self._bits(np.array([MARK_BITS]), np.array([MARK]))
        words: NDArray[np.uint32] = self._encoder.get_compressed()
        settled, (lower, size) = self._encoder.pos()
        # constriction ends on the first multiple of 2**32 that is not below the interval.
        last = int.from_bytes(words[settled:].astype(">u4").tobytes().ljust(8, b"\0"), "big")
        above = _up_to_shortest(lower, size) - (last - lower) % 2**64
        whole = words[:settled].astype(">u4").tobytes() + last.to_bytes(8, "big")
        value: int = int.from_bytes(whole, "big") + above
        return value.to_bytes(len(whole), "big").rstrip(b"\0")

    def _bits(self, bits: Integers, values: Integers) -> None:
        if len(bits):
            self._encoder.encode(values.astype(np.int32), _UNIFORM, (1 << bits).astype(np.int32))


@final
class RangeReader(AbstractReader):
    """Decodes as it is asked to."""

    def __init__(self, stream: bytes) -> None:
        self._stream = np.frombuffer(stream, np.uint8)
        begin = int.from_bytes(stream[:8].ljust(8, b"\0"), "big")
        self._interval = np.array([begin, 2**64 - 1, 8], np.uint64)
        self._begun = False

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """See `AbstractStream.code`."""
        indexes = checked(indexes, 0, len(tables.sizes) - 1, "indexes")
        if not len(indexes):
            return np.zeros(0, np.int32)
        order = np.argsort(indexes, kind="stable")
        columns = np.empty(len(indexes), np.int32)
        shift = PRECISION - tables.precision
        given = tables.cdf, tables.sizes, shift, order, indexes, columns
        self._must_be(_kernels().read(self._stream, self._interval, *given), len(indexes))
        found = columns + tables.offsets[indexes]
        outside = np.flatnonzero(columns == tables.sizes[indexes] - 1)
        if len(outside):
            lengths = self._bits(np.full(len(outside), escapes.LENGTH_BITS))
            escapes.check_lengths(lengths)
            rests = np.zeros(len(outside), np.int64)
            rests[lengths > 0] = self._bits(lengths[lengths > 0])
            found[outside] = escapes.join(lengths, rests, tables, indexes[outside])
        return found

    def finish(self) -> None:
        """See `AbstractReader.finish`: the stream must be the one that its symbols give.

        It lies in the last interval. What is asked is whether it is the shortest that does.
        """
        stream = self._stream.tobytes()
        if not self._begun and not stream:
            return
        marked = self._begun and self._bits(np.array([MARK_BITS]))[0] == MARK
        point, size, at = self._interval.tolist()
        window = int.from_bytes(stream[at - 8 : at].ljust(8, b"\0"), "big")
        shortest = _up_to_shortest((window - point) % 2**64, size) == point
        if not marked or not shortest or len(stream) > at or stream[-1:] == b"\0":
            raise BitstreamError("range coder: damaged, not the bytes that its symbols give")

    def _bits(self, bits: Integers) -> Integers:
        values = np.zeros(len(bits), np.int64)
        self._must_be(_kernels().read_bits(self._stream, self._interval, bits, values), len(bits))
        return values

    def _must_be(self, read: int, wanted: int) -> None:
        self._begun = self._begun or wanted > 0
        if read < wanted:
            raise BitstreamError("range coder: damaged, no symbol has this code")


def _up_to_shortest(low: int, size: int) -> int:
    """From the interval's `low`, modulo 2**64, to the number in it of the fewest bytes."""
    return next(up for bits in range(64, -1, -8) if (up := -low % (1 << bits)) < size)


def _groups(indexes: IntArray) -> Iterator[tuple[int, Integers]]:
    """Each table that occurs, in ascending order, and where."""
    order = np.argsort(indexes, kind="stable")
    ordered = indexes[order]
    found = np.unique(ordered)
    begins, ends = (np.searchsorted(ordered, found, side) for side in ("left", "right"))
    for t, begin, end in zip(found, begins, ends, strict=True):
        yield int(t), order[begin:end]


def _model(tables: Tables, t: int) -> Any:
    """A table in constriction's form, exact: that adds 1 to each of the numbers it is given."""
    cdf = tables.cdf[t, : tables.sizes[t] + 1].astype(np.int64) << (PRECISION - tables.precision)
    free = (np.diff(cdf) - 1).astype(np.float64)
    return constriction.stream.model.Categorical(free, perfect=False, lazy=False)


def _kernels() -> ModuleType:
    from codec.entropy import kernels  # numba takes half a second to import

    return kernels
