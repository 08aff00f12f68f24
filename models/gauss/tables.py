"""Integer tables of what is said of a slice besides its values; made when weights are exported."""

from __future__ import annotations

import numpy as np

from codec.entropy import IntArray, Tables
from codec.models.shapes import SHAPES, scale_of

__all__ = ["BYTE", "CHANCES", "FLAG", "MODE", "SPREADS", "TABLE", "side_tables", "spreads"]

PRECISION = 16
CHANCES = 32  # that a flag is set, from 0.0003 to 0.9995
SPREADS = 47  # bounds between the scales of 48 Laplaces

# Rows of `side_tables`: of the first chance on, one for each.
BYTE, TABLE, MODE, FLAG = range(4)
MODES = 2


def side_tables() -> Tables:
    """Of a byte, a table with 0 for none, how a column is predicted, and flags by their chance."""
    pmfs = [np.append(np.ones(count), 0) for count in (256, 1 + SHAPES, MODES)]
    chances = 1 / (1 + np.exp(-(np.arange(CHANCES) - 16) / 2.0))
    pmfs += [np.array([1 - chance, chance, 0]) for chance in chances]
    return Tables.from_pmfs(pmfs, np.zeros(len(pmfs), np.int32), PRECISION)


def spreads() -> IntArray:
    """`(47,)` from which sum of 16 |x| / N on the next Laplace is for N values."""
    return np.rint(16 * scale_of(np.arange(SPREADS, dtype=np.float64) + 0.5)).astype(np.int32)
