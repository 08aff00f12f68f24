"""The loops of the rANS coder, compiled. Knows arrays; who calls has checked them.

Every operation takes or gives `start` and `freq` in units of 2**-16; operation k belongs to lane
k mod N. A lane's state is within 2**24..2**40 - 1 between operations. Import this module only where
it is used: it loads numba.

    ops: start << 16 | freq, uint32     words: uint16, one more than the stream has (a zero)
    states: (N,) int64
    entries: symbol << 32 | freq << 16 | start, int64, tables one after another
    firsts: (T, 256) uint16, the entry of a table in which each 256th of the range begins
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

__all__ = ["decode", "decode_bits", "encode", "gather"]

STATE_MIN = 1 << 24
# A numba expression of signed and unsigned integers is a float: shifts and masks have to agree.
MASK16, U16, U24 = np.uint64(0xFFFF), np.uint64(16), np.uint64(24)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no folder that it may write to
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return compiled


@_compiled
def gather(symbols, indexes, cdf, offsets, sizes, shift, ops):  # type: ignore[no-untyped-def]
    """Fill `ops` for symbols; returns how many of them are escapes."""
    escapes = 0
    for i in range(len(symbols)):
        t = np.int64(indexes[i])
        last = np.int64(sizes[t]) - 1
        column = np.int64(symbols[i]) - np.int64(offsets[t])
        if column < 0 or column >= last:
            column = last
            escapes += 1
        start = np.int64(cdf[t, column])
        freq = np.int64(cdf[t, column + 1]) - start
        ops[i] = np.uint32((start << (16 + shift)) | (freq << shift))
    return escapes


@_compiled
def encode(ops, states, words):  # type: ignore[no-untyped-def]
    """Encode backwards into the end of `words`, one more than `ops`; returns where they begin."""
    mask = len(states) - 1
    at = len(words)
    for i in range(len(ops) - 1, -1, -1):
        x = np.uint64(states[i & mask])
        freq = np.uint64(ops[i] & 0xFFFF)
        words[at - 1] = np.uint16(x & MASK16)
        if x >> U24 >= freq:
            at -= 1
            x >>= U16
        high = x // freq
        states[i & mask] = np.int64((high << U16) + (x - high * freq) + (np.uint64(ops[i]) >> U16))
    return at


@_compiled
def decode(words, at, states, k, entries, bases, firsts, indexes, out):  # type: ignore[no-untyped-def]
    """Decode one operation for each index, from operation k; returns the next place in `words`.

    A place beyond the stream's words means that the stream was too short; zeros were read instead.
    """
    mask = len(states) - 1
    end = len(words) - 1
    for i in range(len(indexes)):
        lane = (k + i) & mask
        x = states[lane]
        slot = x & 0xFFFF
        t = np.int64(indexes[i])
        j = bases[t] + np.int64(firsts[t, slot >> 8])
        entry = entries[j]
        # The last entry of a table ends at 2**16, above every slot: the search stays in the table.
        while (entry & 0xFFFF) + ((entry >> 16) & 0xFFFF) <= slot:
            j += 1
            entry = entries[j]
        x = ((entry >> 16) & 0xFFFF) * (x >> 16) + slot - (entry & 0xFFFF)
        if x < STATE_MIN:
            x = (x << 16) | np.int64(words[min(at, end)])
            at += 1
        states[lane] = x
        out[i] = np.int32(entry >> 32)
    return at


@_compiled
def decode_bits(words, at, states, k, bits, out):  # type: ignore[no-untyped-def]
    """Decode one uniform number of 1..16 bits for each of `bits`; otherwise as `decode`."""
    mask = len(states) - 1
    end = len(words) - 1
    for i in range(len(bits)):
        lane = (k + i) & mask
        x = states[lane]
        rest = 16 - bits[i]
        slot = x & 0xFFFF
        out[i] = slot >> rest
        x = ((x >> 16) << rest) | (slot & ((1 << rest) - 1))
        if x < STATE_MIN:
            x = (x << 16) | np.int64(words[min(at, end)])
            at += 1
        states[lane] = x
    return at
