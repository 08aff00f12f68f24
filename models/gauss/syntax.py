"""The symbols of a slice and their one order. Knows integers, no step and no Gaussian.

    key frame: head, order, raw, base | rest
    any other: head, dead, region, gate, base, born | rest, born_rest

`head` says how many there are and which table each column has. Of a key frame, Gaussians lie in
the order of their Morton codes: `order` is how many bits the difference of each to the one before
has, less the middle of all, `raw` all bits behind the first of these differences, packed. Of any
other, flags say who dies, in which regions of 64 anything changes, and who changes there; `base`
and `rest` are the changes of those, `born` and `born_rest` the values of those that are new, less
the middle one of the slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.entropy import AbstractCoder, AbstractStream, IntArray, Method, Tables
from codec.errors import BitstreamError
from codec.models.base import SliceState, Symbols
from codec.models.gauss.lattice import BASE, BIN_MAX
from codec.models.gauss.morton import morton, unmorton
from codec.models.gauss.tables import BYTE, CHANCES, FLAG, MODE, TABLE
from codec.models.shapes import cheapest

__all__ = [
    "COUNT_MAX",
    "Change",
    "Coding",
    "after_change",
    "after_key",
    "change_symbols",
    "code_slice",
    "key_symbols",
]

COUNT_MAX = (1 << 16) - 1  # Gaussians of a slice
REGION = 64
NEAR = 4  # how many of a Gaussian and its two neighbours changed in the frame before: 0 to 3

Bits: TypeAlias = NDArray[np.bool_]


@final
@dataclass(frozen=True, eq=False)
class Coding:
    """The integers that ship: `values` of `value_tables`, `side` and `spreads` of `tables`."""

    values: Tables
    side: Tables
    spreads: IntArray


# ---- what an encoder says


def key_symbols(bins: IntArray, coding: Coding) -> dict[str, IntArray]:
    """The symbols of a slice of a key frame; `bins` `(N, columns)` in the order of Morton codes."""
    codes = morton(bins[:, :3])
    steps = np.diff(codes, prepend=np.uint64(0))
    order = _bit_lengths(steps)
    columns = bins[:, 3:]
    modes, tables, centres, left = [], [], [], []
    for column in columns.T:
        ways = [_plain(column), _differences(column)]
        costs = [cheapest(values, coding.values) for _, values in ways]
        mode = int(costs[1][0] < costs[0][0])
        modes.append(mode)
        tables.append(costs[mode][1])
        centres.append(ways[mode][0])
        left.append(ways[mode][1])
    middle = int(np.median(order)) if len(order) else 0
    table = cheapest(order - np.int32(middle), coding.values)[1]
    head = [*_two(len(bins)), middle, table, *modes, *tables, *_zigzag_bytes(centres)]
    split = BASE - 3
    return {
        "head": np.array(head, np.int32),
        "order": order - np.int32(middle),
        "raw": _packed(steps, order),
        "base": np.concatenate([*left[:split], np.zeros(0, np.int32)]),
        "rest": np.concatenate([*left[split:], np.zeros(0, np.int32)]),
    }


@final
@dataclass(frozen=True, eq=False)
class Change:
    """What turns a slice of N into that of the next frame.

    Attributes:
        dead: `(N,)` who goes.
        moved: `(N, columns)` what is added to bins, 0 of those that go.
        born: `(B, columns)` bins of those that come.
    """

    dead: Bits
    moved: IntArray
    born: IntArray


def change_symbols(change: Change, before: SliceState, coding: Coding) -> dict[str, IntArray]:
    """The symbols of a slice of a frame that is no key."""
    gate = np.asarray(change.moved.any(axis=1))
    region = _regions(gate)
    inside = np.repeat(region, REGION)[: len(gate)]
    near = _near(before)
    moved = change.moved[gate].T
    tables = [cheapest(column, coding.values)[1] for column in moved]
    middle = _middle(before["bins"])
    born = (change.born - middle).T
    chances = [_chance(change.dead), _chance(region)]
    chances += [_chance(gate[inside & (near == k)]) for k in range(NEAR)]
    head = [int(change.dead.any()), *chances, *_two(len(change.born)), *tables]
    return {
        "head": np.array(head, np.int32),
        "dead": change.dead.astype(np.int32) if change.dead.any() else np.zeros(0, np.int32),
        "region": region.astype(np.int32),
        "gate": gate[inside].astype(np.int32),
        "base": moved[:BASE].reshape(-1),
        "born": born[:BASE].reshape(-1),
        "rest": moved[BASE:].reshape(-1),
        "born_rest": born[BASE:].reshape(-1),
    }


# ---- all directions


def code_slice(
    coder: AbstractCoder,
    symbols: Symbols | None,
    before: SliceState | None,
    columns: int,
    coding: Coding,
    *,
    rest: bool,
) -> dict[str, IntArray]:
    """Code the symbols of a slice; None when decoding.

    Args:
        coder: of any direction.
        symbols: of `key_symbols` or `change_symbols`.
        before: the slice in the frame before; None in a key frame.
        columns: of bins.
        coding: the tables.
        rest: whether the columns of the higher harmonics are coded; else they are 0.

    Raises:
        BitstreamError: a number is out of its range, or the stream is damaged.
    """
    walk = _Walk(coder, symbols, coding)
    if before is None:
        _code_key(walk, columns, rest=rest)
    else:
        _code_change(walk, before, columns, rest=rest)
    return walk.found


@final
class _Walk:
    """Codes one piece after another and keeps what was found."""

    def __init__(self, coder: AbstractCoder, symbols: Symbols | None, coding: Coding) -> None:
        self.coder, self.coding = coder, coding
        self._symbols = symbols
        self.found: dict[str, IntArray] = {}

    def head(self, stream: AbstractStream, rows: list[int]) -> list[int]:
        """More numbers of the head, each below what its row of the side tables has."""
        known = self.found.get("head", np.zeros(0, np.int32))
        given = None
        if self._symbols is not None:
            given = self._symbols["head"][len(known) : len(known) + len(rows)]
        side = self.coding.side
        indexes = np.array(rows, np.int32)
        found = stream.code(given, side, indexes)
        if (found < 0).any() or (found >= side.sizes[indexes] - 1).any():
            raise BitstreamError("slice: a number of its head is out of range")
        self.found["head"] = np.concatenate([known, found])
        return [int(number) for number in found]

    def piece(
        self, stream: AbstractStream, name: str, tables: Tables, indexes: IntArray
    ) -> IntArray:
        """One of the other pieces; an index of -1 codes nothing and means 0."""
        coded = indexes >= 0
        found = np.zeros(len(indexes), np.int32)
        given = None if self._symbols is None else self._symbols[name][coded]
        found[coded] = stream.code(given, tables, indexes[coded])
        self.found[name] = found
        return found

    def flags(self, stream: AbstractStream, name: str, chances: IntArray) -> Bits:
        """Flags, each of its chance."""
        found = self.piece(stream, name, self.coding.side, (FLAG + chances).astype(np.int32))
        if (found >> 1).any():
            raise BitstreamError(f"slice: {name} is no flag")
        return found.astype(bool)


def _code_key(walk: _Walk, columns: int, *, rest: bool) -> None:
    stream = walk.coder.open("head", Method.RANGE)
    high, low, middle, table = walk.head(stream, [BYTE, BYTE, BYTE, TABLE])
    count = high << 8 | low
    own = columns - 3
    walk.head(stream, [MODE] * own)
    tables = walk.head(stream, [TABLE] * own)
    walk.head(stream, [BYTE] * (3 * own))

    stream = walk.coder.open("base", Method.RANS)
    values = walk.coding.values
    order = walk.piece(stream, "order", values, np.full(count, table - 1, np.int32)) + middle
    if count and (order.min() < 0 or order.max() > 63):
        raise BitstreamError("slice: a place has 0 to 63 bits")
    raw = -(-int(np.maximum(order - 1, 0).sum()) // 8)
    found = walk.piece(stream, "raw", walk.coding.side, np.full(raw, BYTE, np.int32))
    if raw and (found.min() < 0 or found.max() > 255):
        raise BitstreamError("slice: a byte is out of range")
    split = BASE - 3
    walk.piece(stream, "base", values, _repeated(tables[:split], count))
    _code_rest(walk, "rest", tables[split:], count, rest=rest)


def _code_change(walk: _Walk, before: SliceState, columns: int, *, rest: bool) -> None:
    count, near = len(before["bins"]), _near(before)
    stream = walk.coder.open("head", Method.RANGE)
    (dying,) = walk.head(stream, [MODE])
    chances = walk.head(stream, [BYTE] * (2 + NEAR))
    if max(chances) >= CHANCES:
        raise BitstreamError(f"slice: chances are below {CHANCES}")
    high, low = walk.head(stream, [BYTE, BYTE])
    tables = walk.head(stream, [TABLE] * columns)
    born = high << 8 | low

    stream = walk.coder.open("base", Method.RANS)
    of = np.array(chances, np.int32)
    walk.flags(stream, "dead", np.full(count if dying else 0, of[0], np.int32))
    region = walk.flags(stream, "region", np.full(-(-count // REGION), of[1], np.int32))
    inside = np.repeat(region, REGION)[:count]
    gate = walk.flags(stream, "gate", of[2 + near[inside]])
    changed = int(gate.sum())
    walk.piece(stream, "base", walk.coding.values, _repeated(tables[:BASE], changed))
    spread = _spread(before["bins"], columns, walk.coding.spreads)
    walk.piece(stream, "born", walk.coding.values, _repeated(spread[:BASE], born))
    found = _code_rest(walk, "rest", tables[BASE:], changed, rest=rest)
    if found is not None:
        walk.piece(found, "born_rest", walk.coding.values, _repeated(spread[BASE:], born))
    else:
        walk.found["born_rest"] = np.zeros(born * (columns - BASE), np.int32)


def _code_rest(
    walk: _Walk, name: str, tables: list[int], count: int, *, rest: bool
) -> AbstractStream | None:
    """The columns of the higher harmonics, in a stream of their own, if there are any."""
    if not tables or not rest:
        walk.found[name] = np.zeros(len(tables) * count, np.int32)
        return None
    stream = walk.coder.open("rest", Method.RANS)
    walk.piece(stream, name, walk.coding.values, _repeated(tables, count))
    return stream


# ---- what they come to


def after_key(symbols: Symbols, columns: int) -> IntArray:
    """The bins `(N, columns)` of a slice of a key frame.

    Raises:
        BitstreamError: a place or a value is out of its range.
    """
    order, own = symbols["order"] + symbols["head"][2], columns - 3
    steps = _unpacked(symbols["raw"], order)
    codes = np.cumsum(steps, dtype=np.uint64)
    if len(codes) and (codes[-1] >> np.uint64(63) or (codes[1:] < codes[:-1]).any()):
        raise BitstreamError("slice: a place is out of range")
    head = symbols["head"]
    modes, centres = head[4 : 4 + own], _from_bytes(head[4 + 2 * own :])
    left = np.concatenate([symbols["base"], symbols["rest"]]).reshape(own, len(order))
    found = np.empty((len(order), columns), np.int64)
    found[:, :3] = unmorton(codes)
    for number, (mode, centre, values) in enumerate(zip(modes, centres, left, strict=True)):
        whole = np.cumsum(values, dtype=np.int64) if mode else values
        found[:, 3 + number] = whole + centre
    return _bounded(found)


def after_change(symbols: Symbols, before: SliceState, columns: int) -> dict[str, IntArray]:
    """The slice of the frame that follows; see `after_key`."""
    bins = before["bins"].astype(np.int64)
    count, rest = len(bins), columns - BASE
    inside = np.repeat(symbols["region"].astype(bool), REGION)[:count]
    gate = np.zeros(count, bool)
    gate[inside] = symbols["gate"].astype(bool)
    changed = int(gate.sum())
    moved = np.concatenate(
        [symbols["base"].reshape(BASE, changed), symbols["rest"].reshape(rest, changed)]
    )
    bins[gate] += moved.T
    kept = np.ones(count, bool)
    if len(symbols["dead"]):
        kept = ~symbols["dead"].astype(bool)
    number = len(symbols["born"]) // BASE
    born = np.concatenate(
        [symbols["born"].reshape(BASE, number), symbols["born_rest"].reshape(rest, number)]
    )
    born = born.T + _middle(before["bins"])
    if kept.sum() + number > COUNT_MAX:
        raise BitstreamError(f"slice: more than {COUNT_MAX} Gaussians")
    active = np.concatenate([gate[kept], np.ones(number, bool)])
    return {
        "bins": _bounded(np.concatenate([bins[kept], born])),
        "active": active.astype(np.int32),
    }


def _bounded(bins: NDArray[np.int64]) -> IntArray:
    if len(bins) and np.abs(bins).max() > BIN_MAX:
        raise BitstreamError(f"slice: a value is above {BIN_MAX}")
    return bins.astype(np.int32)


# ---- numbers


def _two(count: int) -> list[int]:
    return [count >> 8, count & 255]


def _zigzag_bytes(values: list[int]) -> list[int]:
    """Three bytes of each, the sign lowest."""
    folded = [2 * value if value >= 0 else -2 * value - 1 for value in values]
    return [number >> shift & 255 for number in folded for shift in (16, 8, 0)]


def _from_bytes(numbers: IntArray) -> IntArray:
    three = numbers.reshape(-1, 3)
    folded = (three[:, 0] << 16) | (three[:, 1] << 8) | three[:, 2]
    return np.where(folded & 1, -(folded >> 1) - 1, folded >> 1)


def _plain(column: IntArray) -> tuple[int, IntArray]:
    """The middle value, and what is left without it."""
    middle = int(np.median(column)) if len(column) else 0
    return middle, column - np.int32(middle)


def _differences(column: IntArray) -> tuple[int, IntArray]:
    """The first value, and how much each is above the one before."""
    first = int(column[0]) if len(column) else 0
    return first, np.diff(column, prepend=np.int32(first)).astype(np.int32)


def _bit_lengths(values: NDArray[np.uint64]) -> IntArray:
    """How many bits each has, 0 of 0; below 2**63."""
    lengths = np.zeros(len(values), np.int32)
    left = values.copy()
    for shift in (32, 16, 8, 4, 2, 1):
        large = left >> np.uint64(shift) > 0
        lengths += np.int32(shift) * large
        left = np.where(large, left >> np.uint64(shift), left)
    return lengths + (values > 0)


def _packed(values: NDArray[np.uint64], lengths: IntArray) -> IntArray:
    """All bits behind the first of each value, lowest first, as bytes."""
    widths = np.maximum(lengths - 1, 0)
    begins = np.cumsum(widths) - widths
    bits = np.zeros(int(widths.sum()), np.uint8)
    for place in range(int(widths.max(initial=0))):
        own = widths > place
        bits[begins[own] + place] = (values[own] >> np.uint64(place)) & np.uint64(1)
    return np.packbits(bits).astype(np.int32)


def _unpacked(raw: IntArray, lengths: IntArray) -> NDArray[np.uint64]:
    """The inverse of `_packed`."""
    widths = np.maximum(lengths - 1, 0)
    begins = np.cumsum(widths) - widths
    bits = np.unpackbits(raw.astype(np.uint8))
    values = (lengths > 0).astype(np.uint64) << widths.astype(np.uint64)
    for place in range(int(widths.max(initial=0))):
        own = widths > place
        values[own] |= bits[begins[own] + place].astype(np.uint64) << np.uint64(place)
    return values


def _repeated(tables: list[int], count: int) -> IntArray:
    """The table of each value of columns of `count`; -1 where all are 0."""
    return np.repeat(np.array(tables, np.int32) - 1, count)


def _regions(gate: Bits) -> Bits:
    """Whether any of each 64 is set."""
    padded = np.pad(gate, (0, -len(gate) % REGION))
    return np.asarray(padded.reshape(-1, REGION).any(axis=1))


def _near(before: SliceState) -> IntArray:
    """How many of each Gaussian and its neighbours changed last."""
    active = before["active"]
    padded = np.pad(active, 1)
    return padded[:-2] + active + padded[2:]


def _chance(flags: Bits) -> int:
    """The number of the chance that is nearest to how often they are set; encoder only."""
    share = (flags.sum() + 0.01) / (len(flags) + 0.02)
    return int(np.clip(round(16 + 2 * float(np.log(share / (1 - share)))), 0, CHANCES - 1))


def _middle(bins: IntArray) -> IntArray:
    """The middle value of each column, `(columns,)`; 0 of none."""
    if not len(bins):
        return np.zeros(bins.shape[1], np.int32)
    half = len(bins) // 2
    found: IntArray = np.partition(bins, half, axis=0)[half]
    return found


def _spread(bins: IntArray, columns: int, spreads: IntArray) -> list[int]:
    """1 + the Laplace that suits how far each column is from its middle value; all in integers."""
    if not len(bins):
        return [len(spreads) + 1] * columns
    away = np.abs(bins.astype(np.int64) - _middle(bins)).sum(0)
    return [1 + int(n) for n in np.searchsorted(spreads, 16 * away // len(bins), side="right")]
