"""The walks over a slice, compiled; each is the same for encoder and decoder. Knows arrays only.

`io` is where a bit goes to or comes from. Values are given by an encoder; a decoder's are
overwritten. Import this module only where it is used: it loads numba.

    data: (...) uint32, an encoder's operations, written, or a stream's words and one more, 0
    now: (4 + N,) uint64, whether it decodes, `K` operations before, the place `AT` of the next
        word, N - 1, and the states of N lanes; see `codec.entropy.kernels`
    chances: (CONTEXTS, 2) uint16, a context's probability of a 1 in 2**-16, as it follows fast
        and as it follows slowly
    plan: `Plan.integers`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from codec.entropy.kernels import compiled
from codec.models.gauss.lattice import STAY
from codec.models.gauss.plan import BIN_MAX, CELL_BITS
from codec.models.gauss.tables import (
    BUCKETS,
    DIGIT,
    FLAG,
    GATE,
    GROUPS,
    HEAD,
    LOOK,
    LOW,
    MOVE,
    OPACITY,
    REGION,
    REST,
    SAME,
    SET,
    TUNE,
)

__all__ = ["AT", "DECODING", "K", "gates", "head", "moves", "new_rests", "new_rows", "tunes"]

DECODING, K, AT, LAST, LANES = (np.uint64(place) for place in range(5))
FAST, SLOW = 4, 7
NONE = -1  # the context of what needs none
UNSURE = 32  # in 2**-16, how likely a bit is at least
PREFIX = 22  # bits of a number's magnitude, at most
REGION_SIZE = 32
WINDOW = 64  # rows before, of which the nearest three tell what to expect
MOVING = 32  # rows that change before, of which the nearest tells how it does
MEMORY = 6  # log2 of the rows that a weight remembers

U = np.uint64
U16, MASK16, ONE, STATE_MIN = U(16), U(0xFFFF), U(1), U(1 << 24)


def _bare(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled without counting who holds an array: it makes none, and a count costs 5 ns."""
    return compiled(function, _nrt=False)


@_bare
def _code(io, c, bits, value):  # type: ignore[no-untyped-def]
    """Code a bit in context c, or, where c is below 0, a number of 1 to 16 bits, all as likely."""
    data, now, chances = io
    fast = slow = likely = np.int64(0)
    if c >= 0:
        fast, slow = np.int64(chances[U(c), 0]), np.int64(chances[U(c), 1])
        likely = (fast + slow) >> 1
    k, at, decoding = now[K], now[AT], now[DECODING]
    lane = LANES + (k & now[LAST])
    x = now[lane]
    if decoding:
        slot = np.int64(x & MASK16)
        value = np.int64(slot < likely) if c >= 0 else slot >> (16 - bits)
    if c >= 0:
        # No branch on the bit: no processor could guess it.
        start = likely & (value - 1)
        freq = (65536 & (value - 1)) + likely * (2 * value - 1)
        aim = value * (65536 - 2 * UNSURE) + UNSURE
        chances[U(c), 0] = fast + ((aim - fast) >> FAST)
        chances[U(c), 1] = slow + ((aim - slow) >> SLOW)
    else:
        freq = np.int64(1) << (16 - bits)
        start = value * freq
    if decoding:  # as `advance` of the kernels does
        x = U(freq) * (x >> U16) + (x & MASK16) - U(start)
        longer = (x << U16) | U(data[min(at, U(len(data)) - ONE)])
        due = x < STATE_MIN
        now[lane] = longer if due else x
        now[AT] = at + U(due)
    else:
        data[k] = np.uint32((start << 16) | freq)
    now[K] = k + ONE
    return value


@_bare
def _number(io, c, value):  # type: ignore[no-untyped-def]
    """Code a number within +-(2**22 - 1) with the set of contexts that begins at c.

    Of the set, 0: it is 0; 1: it is negative; 2 to 23: it has more bits; 24 to 45: its second
    bit, by how many there are; 46 to 63: its third, by how many and the second.
    """
    if _code(io, c, 0, np.int64(value == 0)):
        return np.int64(0)
    negative = _code(io, c + 1, 0, np.int64(value < 0))
    size = abs(value)
    bits = 0
    while bits < PREFIX - 1 and _code(io, c + 2 + bits, 0, np.int64(size >> (bits + 1) != 0)):
        bits += 1
    found = np.int64(1)
    left = bits
    if left:
        left -= 1
        second = _code(io, c + 23 + bits, 0, (size >> left) & 1)
        found = (found << 1) | second
        if left and bits <= 10:
            left -= 1
            third = _code(io, c + 46 + 2 * (bits - 2) + second, 0, (size >> left) & 1)
            found = (found << 1) | third
        if left > 16:
            left -= 16
            found = (found << 16) | _code(io, NONE, 16, (size >> left) & 0xFFFF)
        if left:
            found = (found << left) | _code(io, NONE, left, size & ((1 << left) - 1))
    return -found if negative else found


@_bare
def _bucket(size):  # type: ignore[no-untyped-def]
    """0 to 7: how many bits a size has."""
    found = 0
    while size > 0 and found < BUCKETS - 1:
        size >>= 1
        found += 1
    return found


@_bare
def _within(value):  # type: ignore[no-untyped-def]
    """The value, or a limit that no encoder's exceeds and that is refused later."""
    return min(max(value, -BIN_MAX - 1), BIN_MAX)


@_bare
def _rounder(difference, plan):  # type: ignore[no-untyped-def]
    found = np.int64(0)
    for j in range(2, len(plan)):
        found += np.int64(abs(difference) < plan[j])
    return found


@_bare
def _weight(sums, d):  # type: ignore[no-untyped-def]
    """What a number is of the one it goes with, in 1/256, by those before."""
    return min(max((sums[d, 1] << 8) // (sums[d, 0] + 1), -512), 512)


@_bare
def _learn(sums, d, x, y):  # type: ignore[no-untyped-def]
    x = min(max(x, -65536), 65536)
    y = min(max(y, -65536), 65536)
    sums[d, 0] += x * x - (sums[d, 0] >> MEMORY)
    sums[d, 1] += x * y - (sums[d, 1] >> MEMORY)


@_bare
def head(io, values):  # type: ignore[no-untyped-def]
    """Code how many Gaussians are new, then the level of the lattice at which they part."""
    values[0] = _number(io, HEAD, np.int64(values[0]))
    values[1] = _code(io, NONE, 5, np.int64(values[1])) if values[0] > 1 else 0


# ---- new rows


@_bare
def _digit(x, y, z, level):  # type: ignore[no-untyped-def]
    return ((x >> level) & 1) << 2 | ((y >> level) & 1) << 1 | ((z >> level) & 1)


@_bare
def _centre(io, row, before, top):  # type: ignore[no-untyped-def]
    """Code a centre that follows another in Morton order; both are above 0 here."""
    level = top
    while level >= 0:
        last = _digit(before[0], before[1], before[2], level)
        if last < 7:
            here = _digit(row[0], row[1], row[2], level)
            c = SAME + 8 * min(top - level, 15) + last
            if not _code(io, c, 0, np.int64(here == last)):
                break
        level -= 1
    if level < 0:
        for axis in range(3):
            row[axis] = before[axis]
        return
    last = _digit(before[0], before[1], before[2], level)
    node = 1
    for axis in range(3):
        node = node << 1 | _code(io, DIGIT + 8 * last + node, 0, (row[axis] >> level) & 1)
    for axis in range(3):
        high = (before[axis] >> (level + 1)) << 1 | ((node >> (2 - axis)) & 1)
        side = high - (before[axis] >> level)  # of the one before: 0, or -1 or 1
        for below in range(level):
            low = level - 1 - below
            c = LOW + 36 * axis + 6 * min(below, 5)
            if side == 0:
                c += (
                    2
                    + 2 * ((before[axis] >> low) & 1)
                    + ((before[axis] >> (low - 1)) & 1 if low else 0)
                )
            elif side > 0:
                c += 1
            bit = _code(io, c, 0, (row[axis] >> low) & 1)
            if side == 0:
                side = bit - ((before[axis] >> low) & 1)
            high = high << 1 | bit
        row[axis] = high


@_bare
def _nearest(rows, i, window, near):  # type: ignore[no-untyped-def]
    """Fill `near[i]` with the three rows before i that are nearest, the nearest first."""
    first = second = third = np.int64(1) << 62
    a = b = c = i - 1
    for back in range(1, min(window, i) + 1):
        j = i - back
        x = np.int64(rows[i, 0]) - rows[j, 0]
        y = np.int64(rows[i, 1]) - rows[j, 1]
        z = np.int64(rows[i, 2]) - rows[j, 2]
        away = x * x + y * y + z * z
        if away < third:
            if away < first:
                third, c = second, b
                second, b = first, a
                first, a = away, j
            elif away < second:
                third, c = second, b
                second, b = away, j
            else:
                third, c = away, j
    near[i, 0], near[i, 1], near[i, 2] = a, b, c


@compiled
def new_rows(io, values, known, top, plan, near):  # type: ignore[no-untyped-def]
    """Code the rows of new Gaussians in Morton order.

    values: (n * 13,) int32.
    known: (m, 13) int32, rows that the slice has already.
    top: the level at which the first two new ones may part.
    near: (m + n, 3) int32, filled from m on with the rows that are nearest to each.
    """
    m, n = len(known), len(values) // 13
    rows = np.zeros((m + n, 13), np.int32)
    rows[:m] = known
    rows[m:] = values.reshape(n, 13)
    row, before = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for i in range(m, m + n):
        for axis in range(3):
            row[axis] = rows[i, axis] + BIN_MAX
        if i == m:
            for axis in range(3):
                high = _code(io, NONE, CELL_BITS - 16, row[axis] >> 16)
                row[axis] = high << 16 | _code(io, NONE, 16, row[axis] & 0xFFFF)
        else:
            _centre(io, row, before, top)
        for axis in range(3):
            rows[i, axis] = row[axis] - BIN_MAX
            before[axis] = row[axis]
    sums = np.zeros((13, 2), np.int64)
    window = m + n if m else WINDOW
    for i in range(m, m + n):
        if i:
            _nearest(rows, i, window, near)
        _look(io, rows, i, near, plan, sums)
    values[:] = rows[m:].reshape(-1)


@_bare
def _look(io, rows, i, near, plan, sums):  # type: ignore[no-untyped-def]
    """Code columns 3 to 12 of row i, each less what its neighbours and the column before tell."""
    twist, steps = plan[0], plan[1]
    a, b, c = near[i, 0], near[i, 1], near[i, 2]
    left = np.int64(0)  # of the column before, in single steps
    octaves = 0
    for d in range(3, 13):
        if d == 6:
            octaves = _rounder((np.int64(rows[i, 3]) + rows[i, 4] >> 1) - rows[i, 5], plan)
        elif d == 8:
            octaves = _rounder(np.int64(rows[i, 3]) - rows[i, 4], plan)
        elif d == 9:
            octaves = 0
        one = two = three = np.int64(0)
        bucket = BUCKETS - 1
        if i:
            one, two, three = np.int64(rows[a, d]), np.int64(rows[b, d]), np.int64(rows[c, d])
            bucket = _bucket((abs(one - two) + abs(one - three)) >> octaves)
        contexts = LOOK + ((d - 3) * BUCKETS + bucket) * SET
        if d == 9:
            rows[i, d] = _opacity(io, np.int64(rows[i, d]), one, two, steps)
            left = np.int64(0)
            continue
        mean = (2 * one + two + three + 2) >> 2
        if d == 8:
            # The angle is as good as any other, so that what is coded is within half a turn.
            count = twist >> octaves
            mean = ((one + (1 << octaves >> 1)) >> octaves) % count
            given = (np.int64(rows[i, d]) >> octaves) - mean
            given = (given + count // 2) % count - count // 2
            rows[i, d] = ((mean + _number(io, contexts, given)) % count) << octaves
            continue
        told = (_weight(sums, d) * left) >> 8
        expected = _within(mean + told + (1 << octaves >> 1)) >> octaves
        given = (np.int64(rows[i, d]) >> octaves) - expected
        value = _within((expected + _number(io, contexts, given)) << octaves)
        rows[i, d] = value
        if i:
            _learn(sums, d, left, value - mean)
        left = value - mean


@_bare
def _opacity(io, value, one, two, steps):  # type: ignore[no-untyped-def]
    """Code a number of `steps` bits, the four upper ones as a tree, by two neighbours."""
    low = max(steps - 4, 0)
    half = np.int64(1) << max(steps - 1, 0)
    c = OPACITY + 16 * (np.int64(one >= half) + np.int64(two >= half))
    node = 1
    for level in range(steps - 1, low - 1, -1):
        node = node << 1 | _code(io, c + node, 0, (value >> level) & 1)
    found = node - (1 << (steps - low))
    c = OPACITY + 48 + 4 * min(found, 15)
    for level in range(low - 1, -1, -1):
        bit = (value >> level) & 1
        bit = (
            _code(io, c + low - 1 - level, 0, bit)
            if low - 1 - level < 4
            else _code(io, NONE, 1, bit)
        )
        found = found << 1 | bit
    return found


# ---- rows that change


@_bare
def gates(io, values, active):  # type: ignore[no-untyped-def]
    """Code of each Gaussian whether it stays (0), changes (1) or is no more (2).

    values: (n,) int32.
    active: (n,) int32, not 0 where it changed in the frame before.
    """
    count = len(values)
    region_before = np.int64(0)
    for start in range(0, count, REGION_SIZE):
        end = min(start + REGION_SIZE, count)
        some, were = np.int64(0), np.int64(0)
        for i in range(start, end):
            some |= np.int64(values[i] != 0)
            were += np.int64(active[i] != 0)
        some = _code(io, REGION + 8 * region_before + _bucket(were), 0, some)
        region_before = some
        for i in range(start, end):
            if not some:
                values[i] = 0
                continue
            c = GATE + 32 * np.int64(values[i - 1] == 2 if i else False)
            c += np.int64(active[i] != 0)
            c += 2 * np.int64(values[i - 1] != 0 if i else False)
            c += 4 * np.int64(values[i - 2] != 0 if i > 1 else False)
            c += 8 * np.int64(active[i + 1] != 0 if i + 1 < count else False)
            changes = _code(io, c, 0, np.int64(values[i] != 0))
            if changes:
                changes += _code(
                    io, GATE + 16 + np.int64(active[i] != 0), 0, np.int64(values[i] == 2)
                )
            values[i] = changes


@_bare
def _least(aim):  # type: ignore[no-untyped-def]
    """The whole number nearest to 0 within `STAY` of one that is not whole."""
    size = np.int64(np.ceil(max(abs(aim) - STAY, 0.0)))
    return -size if aim < 0 else size


@compiled
def moves(io, values, rows, motion, active, plan, aims):  # type: ignore[no-untyped-def]
    """Code by how much each column of Gaussians that change does.

    With `aims` an encoder chooses: `values` of groups that change become those that are within
    `STAY` steps of what they should be and the least to be coded.

    values: (n * 13,) int32.
    rows: (n, 13) int32, as they were.
    motion: (n, 13) int32, by how much they changed in the frame before.
    active: (n,) int32, the groups that changed then, as bits.
    aims: (n, 13) float64, by how much columns should change, or (0, 13).
    """
    n = len(rows)
    change = values.reshape(n, 13)
    errors = np.zeros((3, 13), np.int64)  # of three guesses, as they are remembered
    guesses = np.zeros(3, np.int64)
    wrong = np.zeros(13, np.int64)
    flags_before = np.int64(0)
    for i in range(n):
        j, least = i - 1, np.int64(1) << 62
        for back in range(1, min(MOVING, i) + 1):
            x = np.int64(rows[i, 0]) - rows[i - back, 0]
            y = np.int64(rows[i, 1]) - rows[i - back, 1]
            z = np.int64(rows[i, 2]) - rows[i - back, 2]
            away = x * x + y * y + z * z
            if away < least:
                j, least = i - back, away
        flags = np.int64(0)
        octaves = 0
        for group in range(5):
            first, end = GROUPS[group], GROUPS[group + 1]
            some = np.int64(0)
            for d in range(first, end):
                some |= np.int64(change[i, d] != 0)
            c = FLAG + 4 * group + 2 * ((flags_before >> group) & 1) + ((active[i] >> group) & 1)
            some = _code(io, c, 0, some)
            flags |= some << group
            for d in range(first, end):
                if not some:
                    change[i, d] = 0
                    continue
                if d == 6:
                    big = np.int64(rows[i, 3]) + change[i, 3]
                    middle = np.int64(rows[i, 4]) + change[i, 4]
                    small = np.int64(rows[i, 5]) + change[i, 5]
                    octaves = _rounder((big + middle >> 1) - small, plan)
                elif d == 8:
                    big = np.int64(rows[i, 3]) + change[i, 3]
                    middle = np.int64(rows[i, 4]) + change[i, 4]
                    octaves = _rounder(big - middle, plan)
                elif d > 8:
                    octaves = 0
                guesses[0] = change[j, d] if i else 0
                guesses[1] = motion[i, d]
                guesses[2] = guesses[0] + guesses[1] - (motion[j, d] if i else 0)
                best = 0
                for g in range(1, 3):
                    if errors[g, d] < errors[best, d]:
                        best = g
                expected = _within(guesses[best] + (1 << octaves >> 1)) >> octaves
                contexts = MOVE + (d * BUCKETS + _bucket(wrong[d] >> 3)) * SET
                left = (np.int64(change[i, d]) >> octaves) - expected
                if len(aims):
                    left = _least(aims[i, d] / (1 << octaves) - expected)
                left = _number(io, contexts, left)
                value = _within((expected + left) << octaves)
                change[i, d] = value
                wrong[d] += 4 * min(abs(left), 1 << 20) - (wrong[d] >> 2)
                for g in range(3):
                    error = min(abs(value - guesses[g]), 1 << 20)
                    errors[g, d] += 16 * error - (errors[g, d] >> 4)
        flags_before = flags


# ---- harmonics after the first


@_bare
def _degree(d):  # type: ignore[no-untyped-def]
    """0 to 2: of the harmonics that number d of a row belongs to, less 1."""
    return 0 if d < 9 else (1 if d < 24 else 2)


@compiled
def new_rests(io, values, known, near):  # type: ignore[no-untyped-def]
    """Code harmonics of new Gaussians.

    values: (n * R,) int32.
    known: (m, R) int32, those that the slice has already.
    near: (m + n, 3) int32, of `new_rows`.
    """
    m, width = known.shape
    n = len(near) - m
    rows = np.zeros((m + n, width), np.int32)
    rows[:m] = known
    rows[m:] = values.reshape(n, width)
    tells, goes = np.zeros((width, 2), np.int64), np.zeros((width, 2), np.int64)
    for i in range(m, m + n):
        left = np.int64(0)
        for d in range(width):
            mean = size = np.int64(0)
            if i:
                one = np.int64(rows[near[i, 0], d])
                two = np.int64(rows[near[i, 1], d])
                three = np.int64(rows[near[i, 2], d])
                mean = 2 * one + two + three
                size = abs(one) + abs(two) + abs(three)
            if d % 3 == 0:
                left = np.int64(0)
            told = (_weight(tells, d) * mean) >> 10
            expected = _within(told + ((_weight(goes, d) * left) >> 8))
            bucket = _bucket(size + abs(left))
            contexts = REST + (_degree(d) * BUCKETS + bucket) * SET
            value = _within(expected + _number(io, contexts, np.int64(rows[i, d]) - expected))
            rows[i, d] = value
            _learn(tells, d, mean >> 2, value)
            _learn(goes, d, left, value - told)
            left = value - told
    values[:] = rows[m:].reshape(-1)


@_bare
def tunes(io, values, active):  # type: ignore[no-untyped-def]
    """Code by how much harmonics of Gaussians that change do.

    values: (n * R,) int32.
    active: (n,) int32, the groups that changed in the frame before, as bits.
    """
    n = len(active)
    width = len(values) // max(n, 1)
    change = values.reshape(n, width)
    before = np.int64(0)
    for i in range(n):
        some = np.int64(0)
        for d in range(width):
            some |= np.int64(change[i, d] != 0)
        some = _code(io, FLAG + 20 + 2 * before + ((active[i] >> 5) & 1), 0, some)
        before = some
        size = np.int64(0)
        for d in range(width):
            if not some:
                change[i, d] = 0
                continue
            contexts = TUNE + (_degree(d) * BUCKETS + _bucket(size)) * SET
            change[i, d] = _within(_number(io, contexts, np.int64(change[i, d])))
            size = (size >> 1) + abs(change[i, d])
