"""The symbols of a group: sizes, steps, tables, and all weights and embeddings as integers.

Knows no pixel. A weight is `q * step`; a channel of the embeddings is predicted from frame to frame
in integers, so that what is coded is a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from codec.entropy import (
    AbstractCoder,
    AbstractStream,
    IntArray,
    Method,
    Tables,
    code_lengths,
)
from codec.errors import BitstreamError
from codec.models.base import GroupGeometry, Symbols
from codec.models.nerv.layout import CHANNELS, Layout, Variant
from codec.models.nerv.tables import (
    PLACE,
    PREDICTOR,
    PREDICTORS,
    SHAPES,
    STEP,
    STEPS,
    TABLE,
)

__all__ = [
    "PARAMETERS_MAX",
    "Group",
    "code_group",
    "differences",
    "layout_of",
    "step_of",
    "undo_differences",
]

PARAMETERS_MAX = 1 << 24
UNIT_STEP, OCTAVE = 104, 8  # the index of step 1; indexes to a factor of 2
PREDICTOR_BITS = 4


def step_of(index: IntArray) -> NDArray[np.float64]:
    """The step with each index 0..127: 2**-13 to 2**2.9 in eighths of an octave."""
    return np.exp2((index - UNIT_STEP) / OCTAVE)


def layout_of(channels: int, geometry: GroupGeometry, variant: Variant) -> Layout:
    """The layout of a group with so many channels.

    Raises:
        BitstreamError: it has too many parameters.
    """
    layout = Layout(variant, geometry.frames, geometry.height, geometry.width, channels)
    if layout.parameters > PARAMETERS_MAX:
        raise BitstreamError(
            f"network: {layout.parameters} parameters; the limit is {PARAMETERS_MAX}"
        )
    return layout


@final
@dataclass(frozen=True)
class Group:
    """What is said of a group, in integers.

    Attributes:
        layout: sizes.
        steps: `(tensors + embedded)` step indexes 0..127, those of embeddings last.
        weights: `(layout.weights,)` q of all tensors, flattened in their order.
        embeddings: `(embedded, frames, h, w)` q; 0 channels if the variant has none.
    """

    layout: Layout
    steps: IntArray
    weights: IntArray
    embeddings: IntArray

    def symbols(self, tables: Tables) -> Symbols:
        """What `code_group` codes, each tensor with the cheapest of `value_tables`."""
        shapes = self.layout.shapes.values()
        parts = np.split(self.weights, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        count = len(parts)
        chosen = [_cheapest(part, tables)[1] for part in parts]
        head = [CHANNELS.index(self.layout.channels), *self.steps[:count], *chosen]
        found = {"network": np.concatenate([np.array(head, np.int32), self.weights])}
        if self.layout.embedded:
            best = [_predicted_best(channel, tables) for channel in self.embeddings]
            numbers = [*self.steps[count:], *(own[0] for own in best), *(own[1] for own in best)]
            flat = [own[2].reshape(-1) for own in best]
            found["frames"] = np.concatenate([np.array(numbers, np.int32), *flat])
        return found

    def coarser(self, indexes: int) -> Group:
        """All in steps that are larger by so many indexes, so that it costs less."""
        shrink = 2.0 ** (-indexes / OCTAVE)
        return Group(
            self.layout,
            np.minimum(self.steps + indexes, STEPS - 1).astype(np.int32),
            np.rint(self.weights * shrink).astype(np.int32),
            np.rint(self.embeddings * shrink).astype(np.int32),
        )

    @classmethod
    def read(cls, symbols: Symbols, geometry: GroupGeometry, variant: Variant) -> Group:
        """The inverse of `symbols`."""
        network = symbols["network"]
        layout = layout_of(CHANNELS[network[0]], geometry, variant)
        count, embedded = len(layout.shapes), layout.embedded
        steps, embeddings = network[1 : 1 + count], np.zeros((0, *layout.embeddings), np.int32)
        if embedded:
            frames = symbols["frames"]
            steps = np.concatenate([steps, frames[:embedded]])
            residuals = frames[3 * embedded :].reshape(embedded, *layout.embeddings)
            predictors = frames[2 * embedded : 3 * embedded]
            pairs = zip(residuals, predictors, strict=True)
            embeddings = np.stack([undo_differences(r, int(a)) for r, a in pairs])
        return cls(layout, steps, network[1 + 2 * count :], embeddings)


def code_group(
    coder: AbstractCoder,
    symbols: Symbols | None,
    geometry: GroupGeometry,
    variant: Variant,
    *,
    values: Tables,
    side: Tables,
) -> Symbols:
    """Code the symbols of a `Group`; `None` when decoding.

    Args:
        coder: of any direction.
        symbols: of `Group.symbols`.
        geometry: of the group.
        variant: of the network.
        values: of `value_tables`.
        side: of `side_tables`.

    Raises:
        BitstreamError: a number is out of its range, the network is too large, or the stream is
            damaged.
    """
    given = None if symbols is None else symbols["network"]
    stream = coder.open("network", Method.RANGE)
    place = _numbers(stream, None if given is None else given[:1], PLACE, side, len(CHANNELS))
    layout = layout_of(CHANNELS[place[0]], geometry, variant)
    sizes = [math.prod(shape) for shape in layout.shapes.values()]
    known = _Cutter(given, 1)
    steps = _numbers(stream, known.next(len(sizes)), STEP, side, STEPS, len(sizes))
    tables = _numbers(stream, known.next(len(sizes)), TABLE, side, 1 + SHAPES, len(sizes))
    weights = _values(stream, known.next(layout.weights), tables, sizes, values)
    found = {"network": np.concatenate([place, steps, tables, weights])}
    if layout.embedded:
        embedded = layout.embedded
        known = _Cutter(None if symbols is None else symbols["frames"])
        stream = coder.open("frames", Method.RANGE)
        steps = _numbers(stream, known.next(embedded), STEP, side, STEPS, embedded)
        tables = _numbers(stream, known.next(embedded), TABLE, side, 1 + SHAPES, embedded)
        predictors = _numbers(stream, known.next(embedded), PREDICTOR, side, PREDICTORS, embedded)
        sizes = [math.prod(layout.embeddings)] * embedded
        rest = _values(stream, known.next(sum(sizes)), tables, sizes, values)
        found["frames"] = np.concatenate([steps, tables, predictors, rest])
    return found


def differences(q: IntArray, predictor: int) -> IntArray:
    """What is left of `(frames, h, w)` when each frame is predicted from the one before it."""
    before = np.concatenate([np.zeros_like(q[:1]), q[:-1]])
    return q - _predicted(before, predictor)


def undo_differences(residuals: IntArray, predictor: int) -> IntArray:
    """The inverse of `differences`."""
    q = np.empty_like(residuals)
    before = np.zeros_like(residuals[0])
    for number, residual in enumerate(residuals):
        before = q[number] = residual + _predicted(before, predictor)
    return q


def _predicted(before: IntArray, predictor: int) -> IntArray:
    return (before * np.int32(predictor) + np.int32(1 << PREDICTOR_BITS - 1)) >> PREDICTOR_BITS


def _predicted_best(channel: IntArray, tables: Tables) -> tuple[int, int, IntArray]:
    """The table, the predictor and the differences that cost least."""
    found = []
    for predictor in range(PREDICTORS):
        residuals = differences(channel, predictor)
        found.append((*_cheapest(residuals.reshape(-1), tables), predictor, residuals))
    _, table, predictor, residuals = min(found, key=lambda own: own[0])
    return table, predictor, residuals


def _cheapest(q: IntArray, tables: Tables) -> tuple[float, int]:
    """The bits of `(K,)` values and the number of the table that needs so few; 0 if all are 0."""
    if not q.any():
        return 0.0, 0
    values, counts = np.unique(q, return_counts=True)
    values = values.astype(np.int32)
    every = np.arange(SHAPES, dtype=np.int32)
    lengths = code_lengths(np.tile(values, SHAPES), tables, np.repeat(every, len(values))).reshape(
        SHAPES, -1
    )
    bits = lengths @ counts
    best = int(bits.argmin())
    return float(bits[best]), 1 + best


@final
class _Cutter:
    """Takes an encoder's symbols apart, piece by piece; a decoder has none."""

    def __init__(self, symbols: IntArray | None, at: int = 0) -> None:
        self._symbols, self._at = symbols, at

    def next(self, count: int) -> IntArray | None:
        self._at += count
        return None if self._symbols is None else self._symbols[self._at - count : self._at]


def _numbers(
    stream: AbstractStream,
    given: IntArray | None,
    row: int,
    side: Tables,
    below: int,
    count: int = 1,
) -> IntArray:
    """Code `count` numbers of 0 to below - 1."""
    found = stream.code(given, side, np.full(count, row, np.int32))
    if (found < 0).any() or (found >= below).any():
        raise BitstreamError(f"group: want numbers of 0 to {below - 1}, got {found}")
    return found


def _values(
    stream: AbstractStream,
    given: IntArray | None,
    chosen: IntArray,
    sizes: Sequence[int],
    values: Tables,
) -> IntArray:
    """Code tensors of so many values, each with the table chosen for it; table 0 is all zeros."""
    indexes = np.repeat(chosen, sizes) - 1
    coded = indexes >= 0
    q = np.zeros(len(indexes), np.int32)
    q[coded] = stream.code(None if given is None else given[coded], values, indexes[coded])
    return q
