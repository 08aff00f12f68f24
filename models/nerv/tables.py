"""Integer tables of a network's size, steps and predictors; made when weights are exported."""

from __future__ import annotations

import numpy as np

from codec.entropy import Tables
from codec.models.nerv.layout import CHANNELS
from codec.models.shapes import SHAPES

__all__ = ["PLACE", "PREDICTOR", "PREDICTORS", "STEP", "STEPS", "TABLE", "side_tables"]

PRECISION = 16

# Rows of `side_tables`.
PLACE, STEP, TABLE, PREDICTOR = range(4)
STEPS, PREDICTORS = 128, 17


def side_tables() -> Tables:
    """Of a network's size, a step, the table of a tensor with 0 for none, and a predictor."""
    counts = (len(CHANNELS), STEPS, 1 + SHAPES, PREDICTORS)
    pmfs = [np.append(np.ones(count), 0) for count in counts]
    return Tables.from_pmfs(pmfs, np.zeros(len(pmfs), np.int32), PRECISION)
