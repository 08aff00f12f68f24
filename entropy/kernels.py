"""The loops of the rANS coder and the range decoder, compiled. Knows arrays, which are checked.

Every operation takes or gives `start` and `freq` in units of 2**-16; operation k belongs to lane
k mod N. A lane's state is within 2**24..2**40 - 1 between operations. Import this module only where
it is used: it loads numba.

    ops: (K,) start << 16 | freq, uint32
    states: (N,) uint64; N is a power of two
    words: uint16; for decoding one more than the stream has, a zero
    entries: symbol << 32 | freq << 16 | start, uint64, tables one after another
    firsts: (T * 1024,) uint32, the entry in which each 64th of a table's range begins

Those of the range decoder are in units of 2**-24.

    stream: uint8; beyond its end it reads as 0
    interval: (3,) uint64, point, size, and bytes that were read
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

__all__ = [
    "BUCKETS_LOG2",
    "advance",
    "compiled",
    "decode",
    "decode_bits",
    "encode",
    "gather",
    "narrow",
    "read",
    "read_bits",
]

# Measured with 64 tables: 512 and 2048 buckets are 5 and 10 % slower, 65536 several times.
BUCKETS_LOG2 = 10

# All arithmetic is unsigned: for numba, signed with unsigned is a float, and a signed index may be
# negative, which costs a fifth of the speed.
U = np.uint64
ONE, U16, U24, MASK16, STATE_MIN = U(1), U(16), U(24), U(0xFFFF), U(1 << 24)
ZERO, EIGHT, U32, SIZE_MIN = U(0), U(8), U(32), U(1 << 32)
TABLE_SHIFT, SLOT_SHIFT = U(BUCKETS_LOG2), U(16 - BUCKETS_LOG2)


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function as numba compiles it: kept on disk where there is a place, free of the GIL."""
    made: Callable[..., Any]
    try:
        made = numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    except RuntimeError:  # numba found no folder that it may write to
        made = numba.njit(nogil=True, error_model="numpy", **options)(function)
    return made


@compiled
def advance(x, start, freq, words, place):  # type: ignore[no-untyped-def]
    """Decode the operation that state `x` is at; returns the next state, the next place in `words`.

    The low 16 bits of `x` lie in start .. start + freq - 1; all arguments but `words` are uint64.
    """
    x = freq * (x >> U16) + (x & MASK16) - start
    # Both outcomes are computed: whether a word is due is a coin that no processor predicts.
    longer = (x << U16) | U(words[min(place, U(len(words)) - ONE)])
    due = x < STATE_MIN
    return (longer if due else x), place + U(due)


@compiled
def gather(symbols, indexes, cdf, offsets, sizes, shift, ops, places):  # type: ignore[no-untyped-def]
    """Fill `ops`, and the front of `places` with where escapes are; returns how many these are."""
    escapes = 0
    for i in range(U(len(symbols))):
        t = U(indexes[i])
        last = np.int64(sizes[t]) - 1
        column = np.int64(symbols[i]) - np.int64(offsets[t])
        if column < 0 or column >= last:
            column = last
            places[escapes] = i
            escapes += 1
        start = U(cdf[t, U(column)])
        freq = U(cdf[t, U(column) + ONE]) - start
        ops[i] = np.uint32((start << (U16 + U(shift))) | (freq << U(shift)))
    return escapes


@compiled
def encode(ops, k, states, words, at):  # type: ignore[no-untyped-def]
    """Encode backwards operations k, k + 1, ... into the words before `at`; returns the new `at`.

    `words` has one place more than all operations together, so that one can always be written.
    """
    mask = U(len(states)) - ONE
    place = U(at)
    count = U(len(ops))
    for back in range(count):
        i = count - ONE - U(back)
        lane = (U(k) + i) & mask
        x = states[lane]
        freq = U(ops[i]) & MASK16
        words[place - ONE] = np.uint16(x & MASK16)
        if x >> U24 >= freq:
            x >>= U16
            place -= ONE
        high = x // freq
        states[lane] = (high << U16) + (x - high * freq) + (U(ops[i]) >> U16)
    return place


@compiled
def decode(words, at, states, k, entries, firsts, indexes, out):  # type: ignore[no-untyped-def]
    """Decode one operation for each index, from operation k; returns the next place in `words`.

    A place beyond the stream's words means that the stream was too short; zeros were read instead.
    """
    mask = U(len(states)) - ONE
    place = U(at)
    for i in range(U(len(indexes))):
        lane = (U(k) + U(i)) & mask
        x = states[lane]
        slot = x & MASK16
        j = U(firsts[(U(indexes[i]) << TABLE_SHIFT) | (slot >> SLOT_SHIFT)])
        entry = entries[j]
        # The last entry of a table ends at 2**16, above every slot: the search stays in the table.
        while (entry & MASK16) + ((entry >> U16) & MASK16) <= slot:
            j += ONE
            entry = entries[j]
        start, freq = entry & MASK16, (entry >> U16) & MASK16
        states[lane], place = advance(x, start, freq, words, place)
        out[i] = np.int32(np.int64(entry) >> 32)
    return place


@compiled
def decode_bits(words, at, states, k, bits, out):  # type: ignore[no-untyped-def]
    """Decode one uniform number of 1..16 bits for each of `bits`; otherwise as `decode`."""
    mask = U(len(states)) - ONE
    place = U(at)
    for i in range(U(len(bits))):
        lane = (U(k) + U(i)) & mask
        x = states[lane]
        rest = U16 - U(bits[i])
        number = (x & MASK16) >> rest
        out[i] = number
        states[lane], place = advance(x, number << rest, ONE << rest, words, place)
    return place


@compiled
def narrow(stream, point, size, at, start, freq):  # type: ignore[no-untyped-def]
    """Go into an entry's part of the interval; returns the next point, size and place."""
    unit = size >> U24
    point -= unit * start
    size = unit * freq
    if size < SIZE_MIN:
        size <<= U32
        for _ in range(4):
            byte = U(stream[at]) if at < U(len(stream)) else ZERO
            point = (point << EIGHT) | byte
            at += ONE
    return point, size, at


@compiled
def read(stream, interval, cdf, sizes, shift, order, indexes, columns):  # type: ignore[no-untyped-def]
    """Decode the entry of each of `indexes` that `order` names; returns how many could be.

    Fewer than there are, and the interval is as it was: no encoder wrote this stream.
    """
    point, size, at = interval[0], interval[1], interval[2]
    left = U(shift)
    for i in range(U(len(order))):
        place = U(order[i])
        t = U(indexes[place])
        slot = point // (size >> U24)
        if slot >= STATE_MIN:
            return i
        low, high = ZERO, U(sizes[t])
        while high - low > ONE:
            middle = (low + high) >> ONE
            if U(cdf[t, middle]) << left <= slot:
                low = middle
            else:
                high = middle
        start = U(cdf[t, low]) << left
        freq = (U(cdf[t, low + ONE]) << left) - start
        point, size, at = narrow(stream, point, size, at, start, freq)
        columns[place] = np.int32(low)
    interval[0], interval[1], interval[2] = point, size, at
    return U(len(order))


@compiled
def read_bits(stream, interval, bits, values):  # type: ignore[no-untyped-def]
    """Decode a number of 1..24 bits for each of `bits`; otherwise as `read`."""
    point, size, at = interval[0], interval[1], interval[2]
    for i in range(U(len(bits))):
        slot = point // (size >> U24)
        if slot >= STATE_MIN:
            return i
        rest = U24 - U(bits[i])
        number = slot >> rest
        point, size, at = narrow(stream, point, size, at, number << rest, ONE << rest)
        values[i] = np.int64(number)
    interval[0], interval[1], interval[2] = point, size, at
    return U(len(bits))
