"""Integer tables of an overfitted picture's symbols; made when weights are exported.

Latents are coded with Laplaces whose mean lies between two integers: a table for each of 17 phases,
in 1/32, and each of 64 scales. Means below the nearest integer use a table mirrored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.entropy import Tables

__all__ = [
    "EMPTY",
    "EXPONENT",
    "PHASES",
    "PRECISION",
    "PRIOR",
    "SCALE",
    "SCALES",
    "laplace_pmf",
    "laplace_tables",
    "scale_of",
    "side_tables",
]

PRECISION = 16
PHASES, SCALES = 17, 64
ZERO = 24  # the index of scale 1
TAIL_LOG2 = -17  # of each side
# Narrow tables reach further than their Laplace: pictures have outliers, an escape takes 28 bits,
# and on a photograph a reach of 1 cost 0.24 % more. Wider tables would be large and little used.
LAST_MIN, LAST_MAX = 5, 255

# Rows of `side_tables`.
PRIOR, EMPTY, EXPONENT, SCALE = range(4)
EXPONENT_MAX = 16


def scale_of(index: NDArray[np.int64]) -> NDArray[np.float64]:
    """The scale b of the Laplace exp(-|x| / b) / 2b with each index 0..63, 0.05 to 131."""
    return np.exp((index - ZERO) / 8)


def laplace_tables() -> Tables:
    """The table of phase p, a mean of p / 32, and scale index i is number 64 p + i."""
    pmfs, offsets = [], []
    for phase in range(PHASES):
        for scale in scale_of(np.arange(SCALES)):
            mean = phase / 32
            reach = -scale * np.log(2) * (TAIL_LOG2 + 1) - 0.5
            first, last = (
                int(np.clip(np.ceil(reach + side), LAST_MIN, LAST_MAX)) for side in (-mean, mean)
            )
            pmfs.append(laplace_pmf(mean, float(scale), -first, last))
            offsets.append(-first)
    return Tables.from_pmfs(pmfs, offsets, PRECISION)


def side_tables(priors: int) -> Tables:
    """Tables of the number of a prior, of an empty grid, an exponent, and a tensor's scale.

    A grid is empty once in 4 times, and so is a tensor skipped; all else is as likely as another.
    """
    pmfs = [
        np.append(np.ones(priors), 0),
        np.array([3.0, 1.0, 0.0]),
        np.append(np.ones(EXPONENT_MAX + 1), 0),
        np.concatenate([[(SCALES - 1) / 3], np.ones(SCALES - 1), [0]]),
    ]
    return Tables.from_pmfs(pmfs, np.zeros(len(pmfs), np.int32), PRECISION)


def laplace_pmf(mean: float, scale: float, first: int, last: int) -> NDArray[np.float64]:
    """Probabilities of first..last and of all other integers, `(last - first + 2,)`.

    Args:
        mean: of a Laplace that is integrated over unit bins, 0 to 0.5.
        scale: above 0.
        first: at most -1.
        last: at least 1.
    """
    distance = np.abs(np.arange(first, last + 1) - mean)
    pmf = -np.expm1(-1 / scale) / 2 * np.exp(-(distance - 0.5) / scale)
    pmf[-first] = -np.expm1(-(0.5 - mean) / scale) / 2 - np.expm1(-(0.5 + mean) / scale) / 2
    below, above = np.exp(-(mean - first + 0.5) / scale), np.exp(-(last - mean + 0.5) / scale)
    return np.append(pmf, (below + above) / 2)
