"""Interleaved rANS: for many symbols. Knows tables and arrays, no names of streams.

    lanes   1 byte     log2 of the number N of lanes, 0..10
    states  5 N bytes  little-endian, each at least 2**24
    words   the rest   16 bits each, little-endian

Without any symbol a stream has no bytes at all. docs/format/entropy.md specifies the arithmetic.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.entropy import escapes
from codec.entropy.stream import (
    AbstractCausalModel,
    AbstractReader,
    AbstractWriter,
    checked,
    operations,
    required,
)
from codec.entropy.tables import IntArray, Tables
from codec.errors import BitstreamError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["ESCAPE", "LANES", "Lookup", "RansReader", "RansWriter", "lookup", "opened", "rest_bits"]

PRECISION = 16
LANES_LOG2_MAX = 10
LANES = tuple(1 << log2 for log2 in range(LANES_LOG2_MAX + 1))
STATE_MIN = 1 << 24
STATE_BYTES = 5
# What our encoder does: enough lanes to keep a processor or a warp busy, each of which costs five
# bytes at most, and therefore none without 8 kB to spread it over.
WRITTEN_LANES_LOG2_MAX = 5
BYTES_PER_LANE = 8192
ESCAPE = np.iinfo(np.int32).min

Integers: TypeAlias = NDArray[np.int64]


@final
class RansWriter(AbstractWriter):
    """Collects operations; encodes them backwards in the end.

    Args:
        lanes: of the stream, a power of two up to 1024; None for as many as cost little.

    Raises:
        ValueError: `lanes` is none of these.
    """

    def __init__(self, lanes: int | None = None) -> None:
        if lanes is not None and lanes not in LANES:
            raise ValueError(f"lanes: want a power of two from 1 to {LANES[-1]}, got {lanes}")
        self._lanes = lanes
        self._ops: list[NDArray[np.uint32]] = []

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """See `AbstractStream.code`."""
        shift = _shift(tables)
        indexes = checked(indexes, 0, len(tables.sizes) - 1, "indexes")
        symbols = required(symbols, indexes)
        ops = np.empty(len(symbols), np.uint32)
        places = np.empty(len(symbols), np.int64)
        found = _kernels().gather(
            _frozen(symbols),
            _frozen(indexes),
            tables.cdf,
            tables.offsets,
            tables.sizes,
            shift,
            ops,
            places,
        )
        self._ops.append(ops)
        if found:
            outside = places[:found]
            lengths, rests = escapes.split(symbols[outside], tables, indexes[outside])
            self._bits(np.full_like(lengths, escapes.LENGTH_BITS), lengths)
            bits, chosen = rest_bits(lengths)
            self._bits(bits, np.stack([rests >> 16, rests & 0xFFFF], axis=1)[chosen])
        return symbols

    def code_causal(self, symbols: IntArray | None, model: AbstractCausalModel) -> IntArray:
        """See `AbstractStream.code_causal`."""
        symbols, ops = operations(symbols, model)
        self._ops.append(ops)
        return symbols

    def finish(self) -> bytes:
        """See `AbstractWriter.finish`."""
        if not any(len(ops) for ops in self._ops):
            return b""
        if self._lanes is not None:
            return _encoded(self._ops, self._lanes.bit_length() - 1)
        stream = _encoded(self._ops, WRITTEN_LANES_LOG2_MAX)
        lanes_log2 = max(0, (len(stream) // BYTES_PER_LANE).bit_length() - 1)
        if lanes_log2 < WRITTEN_LANES_LOG2_MAX:
            stream = _encoded(self._ops, lanes_log2)
        return stream

    def _bits(self, bits: Integers, values: Integers) -> None:
        rest = PRECISION - bits
        self._ops.append(((values << rest << 16) | (1 << rest)).astype(np.uint32))


@final
class RansReader(AbstractReader):
    """Decodes as it is asked to."""

    def __init__(self, stream: bytes) -> None:
        """Raises BitstreamError as `opened` does."""
        self._states, words = opened(stream)
        self._words = np.append(words, 0).astype(np.uint16)
        self._at = 0
        self._k = 0

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """See `AbstractStream.code`."""
        entries, firsts = lookup(tables)
        indexes = checked(indexes, 0, len(tables.sizes) - 1, "indexes")
        self._want_lanes(len(indexes))
        found = np.empty(len(indexes), np.int32)
        self._at = _kernels().decode(
            self._words,
            self._at,
            self._states,
            self._k,
            entries,
            firsts,
            _frozen(indexes),
            found,
        )
        self._advance(len(indexes))
        places = np.flatnonzero(found == ESCAPE)
        if len(places):
            lengths = self._bits(np.full(len(places), escapes.LENGTH_BITS))
            escapes.check_lengths(lengths)
            bits, chosen = rest_bits(lengths)
            halves = np.zeros((len(places), 2), np.int64)
            halves[chosen] = self._bits(bits)
            rests = (halves[:, 0] << 16) | halves[:, 1]
            found[places] = escapes.join(lengths, rests, tables, indexes[places])
        return found

    def code_causal(self, symbols: IntArray | None, model: AbstractCausalModel) -> IntArray:
        """See `AbstractStream.code_causal`."""
        self._want_lanes(model.count)
        found, self._at, k = model.decode(self._words, self._at, self._states, self._k)
        self._advance(k - self._k)
        return found

    def finish(self) -> None:
        """See `AbstractReader.finish`."""
        left = len(self._words) - 1 - self._at
        if left:
            raise BitstreamError(f"rANS stream: {2 * left} bytes are left over")
        if (self._states != STATE_MIN).any():
            raise BitstreamError("rANS stream: damaged, it does not end where an encoder begins")

    def _bits(self, bits: Integers) -> Integers:
        values = np.empty(len(bits), np.int64)
        self._at = _kernels().decode_bits(
            self._words, self._at, self._states, self._k, bits, values
        )
        self._advance(len(bits))
        return values

    def _want_lanes(self, count: int) -> None:
        if count and not len(self._states):
            raise BitstreamError(f"rANS stream: empty, {count} symbols are wanted")

    def _advance(self, count: int) -> None:
        self._k += count
        if self._at > len(self._words) - 1:
            missing = 2 * (self._at - len(self._words) + 1)
            raise BitstreamError(f"rANS stream: truncated, {missing} bytes more are wanted")


def opened(stream: bytes) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
    """The states `(N,)` that a stream begins with, and its words; N is 0 of one without bytes.

    Raises:
        BitstreamError: the lanes are not there, or half a word is.
    """
    lanes = 0
    if stream:
        if stream[0] > LANES_LOG2_MAX:
            raise BitstreamError(f"rANS lanes: want 2**0..2**{LANES_LOG2_MAX}, got 2**{stream[0]}")
        lanes = 1 << stream[0]
    head = 1 + STATE_BYTES * lanes if stream else 0
    if len(stream) < head or (len(stream) - head) % 2:
        raise BitstreamError(
            f"rANS stream: want {head} bytes and an even number more, got {len(stream)}"
        )
    states = _unpack_states(stream[1:head])
    if states.min(initial=STATE_MIN) < STATE_MIN:
        raise BitstreamError(f"rANS state: want at least {STATE_MIN}, got {states.min()}")
    return states, np.frombuffer(stream[head:], "<u2")


class Lookup(NamedTuple):
    """What a decoder searches a slot in; `codec.entropy.kernels` says what it is."""

    entries: NDArray[np.uint64]
    firsts: NDArray[np.uint32]


@lru_cache(maxsize=8)
def lookup(tables: Tables) -> Lookup:
    """The tables at 16 bits, as the kernels want them; kept because calls may be many and short.

    Raises:
        ValueError: the tables have more than 16 bits.
    """
    scaled = tables.cdf.astype(np.int64) << _shift(tables)
    columns = np.arange(scaled.shape[1] - 1)
    symbols = tables.offsets[:, None] + columns
    symbols[np.arange(len(symbols)), tables.sizes - 1] = ESCAPE
    entries = (symbols << 32) | (np.diff(scaled, axis=1) << 16) | (scaled[:, :-1] & 0xFFFF)
    buckets = np.arange(1 << _kernels().BUCKETS_LOG2) << 16 - _kernels().BUCKETS_LOG2
    bases = np.cumsum(tables.sizes, dtype=np.int64) - tables.sizes
    firsts = [
        base + np.searchsorted(row[1 : size + 1], buckets, side="right")
        for base, row, size in zip(bases, scaled, tables.sizes, strict=True)
    ]
    inside = columns < tables.sizes[:, None]
    return Lookup(entries[inside].astype(np.uint64), np.concatenate(firsts).astype(np.uint32))


def _shift(tables: Tables) -> int:
    if tables.precision > PRECISION:
        raise ValueError(f"rANS: want tables of at most {PRECISION} bits, got {tables.precision}")
    return PRECISION - tables.precision


def rest_bits(lengths: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """An escape's rest as numbers of at most 16 bits, the upper one first; which of both exist."""
    halves = np.stack([np.maximum(lengths - 16, 0), np.minimum(lengths, 16)], axis=1)
    chosen = halves > 0
    return halves[chosen], chosen


def _encoded(blocks: list[NDArray[np.uint32]], lanes_log2: int) -> bytes:
    states = np.full(1 << lanes_log2, STATE_MIN, np.uint64)
    k = sum(len(ops) for ops in blocks)
    words = np.empty(k + 1, np.uint16)
    at = len(words)
    for ops in reversed(blocks):
        k -= len(ops)
        at = _kernels().encode(ops, k, states, words, at)
    head = states.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :STATE_BYTES]
    return b"".join([bytes([lanes_log2]), head.tobytes(), words[at:].astype("<u2").tobytes()])


def _unpack_states(head: bytes) -> NDArray[np.uint64]:
    padded = np.zeros((len(head) // STATE_BYTES, 8), np.uint8)
    padded[:, :STATE_BYTES] = np.frombuffer(head, np.uint8).reshape(-1, STATE_BYTES)
    return padded.view("<u8").reshape(-1).astype(np.uint64)


def _frozen(values: IntArray) -> IntArray:
    """A read-only view; numba compiles again for arrays of another kind."""
    view = values[:]
    view.flags.writeable = False
    return view


def _kernels() -> ModuleType:
    from codec.entropy import kernels  # numba takes half a second to import

    return kernels
