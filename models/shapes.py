"""Integer tables of two shapes and many widths, and which suits some values. Knows no family.

What has no network to predict it (weights of networks, attributes of Gaussians) is coded with the
best of these tables for each group of values that are alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.entropy import IntArray, Tables, code_lengths, gaussian_pmf

__all__ = ["SHAPES", "cheapest", "scale_of", "value_tables"]

PRECISION = 16
SCALES = 48  # of each of two shapes
SHAPES = 2 * SCALES
"""As many Laplaces as Gaussians."""

ZERO = 16  # the index of scale 1
TAIL_LOG2 = -17  # of each side
LAST_MIN, LAST_MAX = 3, 255


def scale_of(index: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The scale with each index 0..47, 0.14 to 48: b of exp(-|x| / b) / 2b, sigma of a Gaussian."""
    return np.exp((index - ZERO) / 8)


def value_tables() -> Tables:
    """Table i is the Laplace of scale index i, table 48 + i the Gaussian; export time only."""
    scales = scale_of(np.arange(SCALES)).tolist()
    pmfs = [_laplace_pmf(b, _last(b * -TAIL_LOG2 * np.log(2))) for b in scales]
    pmfs += [gaussian_pmf(sigma, _last(4.2 * sigma)) for sigma in scales]
    offsets = [1 - len(pmf) // 2 for pmf in pmfs]
    return Tables.from_pmfs(pmfs, offsets, PRECISION)


def cheapest(q: IntArray, tables: Tables) -> tuple[float, int]:
    """The bits of `(K,)` values, and 1 + the table that needs so few; 0 if all are 0."""
    if not q.any():
        return 0.0, 0
    values, counts = np.unique(q, return_counts=True)
    values = values.astype(np.int32)
    every = np.arange(SHAPES, dtype=np.int32)
    lengths = code_lengths(np.tile(values, SHAPES), tables, np.repeat(every, len(values)))
    bits = lengths.reshape(SHAPES, -1) @ counts
    best = int(bits.argmin())
    return float(bits[best]), 1 + best


def _last(reach: float) -> int:
    return int(np.clip(np.ceil(reach), LAST_MIN, LAST_MAX))


def _laplace_pmf(scale: float, last: int) -> NDArray[np.float64]:
    """Probabilities of -last..last and of all other integers, `(2 last + 2,)`."""
    distance = np.abs(np.arange(-last, last + 1))
    pmf = -np.expm1(-1 / scale) / 2 * np.exp(-(distance - 0.5) / scale)
    pmf[last] = -np.expm1(-0.5 / scale)
    return np.append(pmf, np.exp(-(last + 0.5) / scale))
