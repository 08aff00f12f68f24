"""constriction's range coder over integer tables: for few symbols, wide tables, many table sets.

Knows tables and arrays, no names of streams. The symbols of one call are coded table by table, so
a call with few tables is few calls of constriction. docs/format/entropy.md has the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
        window = words[settled:].astype(">u4").tobytes().ljust(8, b"\0")
        point = int.from_bytes(window, "big")
        left = size - (point - lower) % 2**64
        bits: int = next(bits for bits in range(64, 31, -8) if -point % 2**bits < left)
        whole = words[:settled].astype(">u4").tobytes() + window
        value: int = int.from_bytes(whole, "big") + -point % 2**bits
        return value.to_bytes(len(whole), "big").rstrip(b"\0")

    def _bits(self, bits: Integers, values: Integers) -> None:
        if len(bits):
            self._encoder.encode(values.astype(np.int32), _UNIFORM, (1 << bits).astype(np.int32))


@final
class RangeReader(AbstractReader):
    """Decodes as it is asked to, and encodes what it decoded: the bytes must be the same."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream
        words = np.frombuffer(stream + bytes(-len(stream) % 4), ">u4").astype(np.uint32)
        with _translated():
            self._decoder = constriction.stream.queue.RangeDecoder(words)
        self._twin = RangeWriter()

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """See `AbstractStream.code`."""
        indexes = checked(indexes, 0, len(tables.sizes) - 1, "indexes")
        columns = np.empty(len(indexes), np.int32)
        with _translated():
            for t, places in _groups(indexes):
                columns[places] = self._decoder.decode(_model(tables, t), len(places))
        found = columns + tables.offsets[indexes]
        outside = np.flatnonzero(columns == tables.sizes[indexes] - 1)
        if len(outside):
            lengths = self._bits(np.full(len(outside), escapes.LENGTH_BITS))
            escapes.check_lengths(lengths)
            rests = np.zeros(len(outside), np.int64)
            rests[lengths > 0] = self._bits(lengths[lengths > 0])
            found[outside] = escapes.join(lengths, rests, tables, indexes[outside])
        return self._twin.code(found, tables, indexes)

    def finish(self) -> None:
        """See `AbstractReader.finish`."""
        if self._twin.finish() != self._stream:
            raise BitstreamError("range coder: damaged, not the bytes that its symbols give")

    def _bits(self, bits: Integers) -> Integers:
        if not len(bits):
            return np.zeros(0, np.int64)
        with _translated():
            values = self._decoder.decode(_UNIFORM, (1 << bits).astype(np.int32))
        return values.astype(np.int64)  # type: ignore[no-any-return]


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


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except AssertionError as error:  # constriction's word for a stream it cannot follow
        raise BitstreamError("range coder: damaged, no symbol has this code") from error
    except BaseException as error:  # Rust's panics are no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise BitstreamError("range coder: damaged, the decoder gave up") from error
