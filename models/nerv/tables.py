"""Integer tables of weights, embeddings and their sizes; made when weights are exported."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.entropy import Tables, gaussian_pmf
from codec.models.nerv.layout import CHANNELS

__all__ = [
    "PLACE",
    "PREDICTOR",
    "PREDICTORS",
    "SHAPES",
    "STEP",
    "STEPS",
    "TABLE",
    "scale_of",
    "side_tables",
    "value_tables",
]

PRECISION = 16
SCALES = 48  # of each of two shapes
SHAPES = 2 * SCALES
"""Tables that values are coded with: as many Laplaces as Gaussians."""

ZERO = 16  # the index of scale 1
TAIL_LOG2 = -17  # of each side
LAST_MIN, LAST_MAX = 3, 255

# Rows of `side_tables`.
PLACE, STEP, TABLE, PREDICTOR = range(4)
STEPS, PREDICTORS = 128, 17


def scale_of(index: NDArray[np.int64]) -> NDArray[np.float64]:
    """The scale with each index 0..47, 0.14 to 48: b of exp(-|x| / b) / 2b, sigma of a Gaussian."""
    return np.exp((index - ZERO) / 8)


def value_tables() -> Tables:
    """Table i is the Laplace of scale index i, table 48 + i the Gaussian."""
    scales = scale_of(np.arange(SCALES)).tolist()
    pmfs = [_laplace_pmf(b, _last(b * -TAIL_LOG2 * np.log(2))) for b in scales]
    pmfs += [gaussian_pmf(sigma, _last(4.2 * sigma)) for sigma in scales]
    offsets = [1 - len(pmf) // 2 for pmf in pmfs]
    return Tables.from_pmfs(pmfs, offsets, PRECISION)


def side_tables() -> Tables:
    """Of a network's size, a step, the table of a tensor with 0 for none, and a predictor."""
    counts = (len(CHANNELS), STEPS, 1 + SHAPES, PREDICTORS)
    pmfs = [np.append(np.ones(count), 0) for count in counts]
    return Tables.from_pmfs(pmfs, np.zeros(len(pmfs), np.int32), PRECISION)


def _last(reach: float) -> int:
    return int(np.clip(np.ceil(reach), LAST_MIN, LAST_MAX))


def _laplace_pmf(scale: float, last: int) -> NDArray[np.float64]:
    """Probabilities of -last..last and of all other integers, `(2 last + 2,)`."""
    distance = np.abs(np.arange(-last, last + 1))
    pmf = -np.expm1(-1 / scale) / 2 * np.exp(-(distance - 0.5) / scale)
    pmf[last] = -np.expm1(-0.5 / scale)
    return np.append(pmf, np.exp(-(last + 0.5) / scale))
