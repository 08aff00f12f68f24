"""The loops of the rANS decoder for a GPU. Knows arrays; who calls has checked them.

The arithmetic and the names are those of `codec.entropy.kernels`. One program decodes one stream,
with a lane of the stream in each lane of a vector. Words lie in the stream in the order of the
operations, and one round of all lanes is so many operations in a row: who is due takes the word
behind those of the lanes before it, which a prefix sum counts.

Arrays hold the streams of a batch one after another; `P` is their number, `WIDTH` the most lanes
that any has.

    words: uint16, all words
    limits: (P,) int64, the end of each stream's words
    lanes: (P,) int32; a power of two, or 1 for a stream that has no symbols
    places: (P,) int64, each stream's next word; beyond its limit zeros were read instead
    states: (P, WIDTH) int64
    ks: (P,) int64, operations so far
    ends: (P + 1,) int64, where in `out` each stream's symbols begin and end

Import this module only where it is used: it needs triton. `TRITON_INTERPRET=1` in the environment
runs it without a GPU, slowly.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["decode", "decode_bits"]


@triton.jit
def _advance(x, start, freq, todo, words, place, limit):  # type: ignore[no-untyped-def]
    """`kernels.advance` for the lanes in `todo`: their next states, the next place in `words`."""
    state_min: tl.constexpr = 1 << 24
    advanced = freq * (x >> 16) + (x & 0xFFFF) - start
    due = todo & (advanced < state_min)
    before = tl.cumsum(due.to(tl.int32), 0) - due.to(tl.int32)
    at = place + before
    word = tl.load(words + at, mask=due & (at < limit), other=0).to(tl.int64)
    advanced = tl.where(due, (advanced << 16) | word, advanced)
    return tl.where(todo, advanced, x), place + tl.sum(due.to(tl.int32), 0)


@triton.jit  # type: ignore[untyped-decorator]
def _lanes(lanes, places, states, ks, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """A stream's number of lanes and next place; its lanes, where their states are, and these."""
    p = tl.program_id(0)
    n, j = tl.load(lanes + p), tl.arange(0, WIDTH)
    kept = states + p * WIDTH + ((tl.load(ks + p) + j) & (n - 1))
    return n, tl.load(places + p), j, kept, tl.load(kept, mask=j < n, other=0)


@triton.jit
def _keep(places, ks, kept, x, inside, place, done):  # type: ignore[no-untyped-def]
    """Write back what `_lanes` read, so many operations later."""
    p = tl.program_id(0)
    tl.store(kept, x, mask=inside)
    tl.store(places + p, place)
    tl.store(ks + p, tl.load(ks + p) + done)


@triton.jit  # type: ignore[untyped-decorator]
def decode(  # type: ignore[no-untyped-def]
    words,
    limits,
    lanes,
    places,
    states,
    ks,
    entries,
    firsts,
    indexes,
    ends,
    out,
    WIDTH: tl.constexpr,
    BUCKETS_LOG2: tl.constexpr,
):
    """`kernels.decode`: an operation for each of `indexes`, which are in their range."""
    p = tl.program_id(0)
    n, place, j, kept, x = _lanes(lanes, places, states, ks, WIDTH)
    inside = j < n
    limit, first, end = tl.load(limits + p), tl.load(ends + p), tl.load(ends + p + 1)
    for begin in range(first, end, n):
        i = begin + j
        todo = inside & (i < end)
        slot = x & 0xFFFF
        index = tl.load(indexes + i, mask=todo, other=0).to(tl.int64)
        bucket = (index << BUCKETS_LOG2) | (slot >> (16 - BUCKETS_LOG2))
        at = tl.load(firsts + bucket, mask=todo, other=0).to(tl.int64)
        entry = tl.load(entries + at, mask=todo, other=0)
        # The last entry of a table ends at 2**16, above every slot: the search stays in the table.
        below = todo & ((entry & 0xFFFF) + ((entry >> 16) & 0xFFFF) <= slot)
        while tl.max(below.to(tl.int32), 0) > 0:
            at += below.to(tl.int64)
            entry = tl.load(entries + at, mask=todo, other=0)
            below = todo & ((entry & 0xFFFF) + ((entry >> 16) & 0xFFFF) <= slot)
        freq = (entry >> 16) & 0xFFFF
        x, place = _advance(x, entry & 0xFFFF, freq, todo, words, place, limit)
        tl.store(out + i, (entry >> 32).to(tl.int32), mask=todo)
    _keep(places, ks, kept, x, inside, place, end - first)


@triton.jit  # type: ignore[untyped-decorator]
def decode_bits(  # type: ignore[no-untyped-def]
    words,
    limits,
    lanes,
    places,
    states,
    ks,
    bits,
    ends,
    out,
    WIDTH: tl.constexpr,
):
    """`kernels.decode_bits`: a uniform number of 1..16 bits for each of `bits`."""
    p = tl.program_id(0)
    n, place, j, kept, x = _lanes(lanes, places, states, ks, WIDTH)
    inside = j < n
    limit, first, end = tl.load(limits + p), tl.load(ends + p), tl.load(ends + p + 1)
    for begin in range(first, end, n):
        i = begin + j
        todo = inside & (i < end)
        rest = 16 - tl.load(bits + i, mask=todo, other=16).to(tl.int64)
        number = (x & 0xFFFF) >> rest
        one = tl.full((WIDTH,), 1, tl.int64)
        x, place = _advance(x, number << rest, one << rest, todo, words, place, limit)
        tl.store(out + i, number.to(tl.int32), mask=todo)
    _keep(places, ks, kept, x, inside, place, end - first)
