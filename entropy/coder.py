"""Encoder, decoder and bit counter: one interface. Knows names of streams, no arithmetic.

>>> tables = Tables.from_pmfs([np.array([0.25, 0.5, 0.25, 0.01])], [-1], precision=12)
>>> symbols, indexes = np.array([0, 0, 1, -1, 700], np.int32), np.zeros(5, np.int32)
>>> encoder = Encoder()
>>> encoder.open("y", Method.RANGE).code(symbols, tables, indexes).tolist()
[0, 0, 1, -1, 700]
>>> decoder = Decoder(encoder.finish())
>>> decoder.open("y", Method.RANGE).code(None, tables, indexes).tolist()
[0, 0, 1, -1, 700]
>>> decoder.finish()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import final

import numpy as np
from numpy.typing import NDArray

from codec.entropy import escapes
from codec.entropy.ranges import RangeReader, RangeWriter
from codec.entropy.rans import RansReader, RansWriter
from codec.entropy.stream import (
    AbstractCausalModel,
    AbstractReader,
    AbstractStream,
    AbstractWriter,
    checked,
    operations,
    required,
)
from codec.entropy.tables import IntArray, Tables
from codec.errors import BitstreamError

__all__ = [
    "AbstractCoder",
    "BitCounter",
    "Decoder",
    "Encoder",
    "Method",
    "Silence",
    "code_lengths",
    "prepare",
]


OPERATION_BITS = 16  # an operation of rANS has a frequency in units of 2**-16


class Method(Enum):
    """How a stream is coded; part of a family's syntax, not written in the stream.

    RANGE is for few symbols or wide tables: tables of up to 24 bits, 2 bytes above the ideal.
    RANS is for many symbols: tables of up to 16 bits, at least ten times as fast, 5 bytes above.
    """

    RANGE = "range"
    RANS = "rans"


class AbstractCoder(ABC):
    """What `traverse` is handed: it names its streams and codes, whichever the direction."""

    @abstractmethod
    def open(self, name: str, method: Method) -> AbstractStream:
        """Begin the stream `name`, once.

        Raises:
            BitstreamError: a decoder has no such stream, or it does not begin as it should.
            ValueError: the stream was opened before.
        """


@final
class Encoder(AbstractCoder):
    """Symbols to bytes; `lanes` are those of its streams of rANS, see `RansWriter`."""

    def __init__(self, lanes: int | None = None) -> None:
        self._lanes = lanes
        self._streams: dict[str, AbstractWriter] = {}

    def open(self, name: str, method: Method) -> AbstractStream:
        """See `AbstractCoder.open`."""
        _once(name, self._streams)
        self._streams[name] = RangeWriter() if method is Method.RANGE else RansWriter(self._lanes)
        return self._streams[name]

    def finish(self) -> dict[str, bytes]:
        """The bytes of every stream, in the order they were opened."""
        return {name: stream.finish() for name, stream in self._streams.items()}


@final
class Decoder(AbstractCoder):
    """Bytes to symbols. It never allocates more than the symbols that it is asked for."""

    def __init__(self, payloads: Mapping[str, bytes]) -> None:
        """payloads: what `Encoder.finish` gave."""
        self._payloads = dict(payloads)
        self._streams: dict[str, AbstractReader] = {}

    def open(self, name: str, method: Method) -> AbstractStream:
        """See `AbstractCoder.open`."""
        _once(name, self._streams)
        if name not in self._payloads:
            raise BitstreamError(f"stream {name!r} is missing; there are {sorted(self._payloads)}")
        kind = RangeReader if method is Method.RANGE else RansReader
        self._streams[name] = kind(self._payloads[name])
        return self._streams[name]

    def finish(self) -> None:
        """Check that everything was read.

        Raises:
            BitstreamError: a stream is unread, has bytes left over or ends in a wrong state.
        """
        unread = sorted(set(self._payloads) - set(self._streams))
        if unread:
            raise BitstreamError(f"streams {unread} were not read")
        for stream in self._streams.values():
            stream.finish()


@final
class Silence(AbstractCoder, AbstractStream):
    """A decoder of nothing: where a file is cut, every symbol is 0. All its streams are one."""

    def open(self, name: str, method: Method) -> AbstractStream:
        """See `AbstractCoder.open`."""
        return self

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """See `AbstractStream.code`."""
        return np.zeros(len(indexes), np.int32)

    def code_causal(self, symbols: IntArray | None, model: AbstractCausalModel) -> IntArray:
        """See `AbstractStream.code_causal`."""
        return np.zeros(model.count, np.int32)


@final
class BitCounter(AbstractCoder):
    """Symbols to the bits that an ideal coder would need with the same tables."""

    def __init__(self) -> None:
        self._streams: dict[str, _Count] = {}

    def open(self, name: str, method: Method) -> AbstractStream:
        """See `AbstractCoder.open`."""
        _once(name, self._streams)
        self._streams[name] = _Count()
        return self._streams[name]

    @property
    def bits(self) -> float:
        """Of all streams."""
        return sum(stream.bits for stream in self._streams.values())

    def bits_of(self, name: str) -> float:
        """Of one stream."""
        return self._streams[name].bits


@final
class _Count(AbstractStream):
    """Adds up; writes nothing."""

    def __init__(self) -> None:
        self.bits = 0.0

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        indexes = checked(indexes, 0, len(tables.sizes) - 1, "indexes")
        symbols = required(symbols, indexes)
        self.bits += float(code_lengths(symbols, tables, indexes).sum())
        return symbols

    def code_causal(self, symbols: IntArray | None, model: AbstractCausalModel) -> IntArray:
        symbols, ops = operations(symbols, model)
        freqs = ops & 0xFFFF
        self.bits += float((OPERATION_BITS - np.log2(freqs)).sum())
        return symbols


def code_lengths(symbols: IntArray, tables: Tables, indexes: IntArray) -> NDArray[np.float64]:
    """The bits that each symbol costs, `(K,)`; arguments are those of `AbstractStream.code`."""
    columns = tables.entries(symbols, indexes)
    freqs = tables.cdf[indexes, columns + 1] - tables.cdf[indexes, columns]
    bits: NDArray[np.float64] = tables.precision - np.log2(freqs)
    outside = columns == tables.sizes[indexes] - 1
    lengths, _ = escapes.split(symbols[outside], tables, indexes[outside])
    bits[outside] += escapes.LENGTH_BITS + lengths
    return bits


def prepare() -> None:
    """Load what coding needs on first use, compiled kernels above all (up to a second), now."""
    tables = Tables.from_pmfs([np.array([0.5, 0.4, 0.1])], np.zeros(1, np.int32), precision=8)
    symbols, indexes = np.array([0, 1, 9], np.int32), np.zeros(3, np.int32)
    for method in Method:
        encoder = Encoder()
        encoder.open("", method).code(symbols, tables, indexes)
        decoder = Decoder(encoder.finish())
        decoder.open("", method).code(None, tables, indexes)
        decoder.finish()


def _once(name: str, streams: Mapping[str, object]) -> None:
    if name in streams:
        raise ValueError(f"stream {name!r} was opened before")
