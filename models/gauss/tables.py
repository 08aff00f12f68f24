"""Where each decision's probability is, and what all of them begin with. Knows no Gaussian.

Everything in a slice is decided bit by bit, and each bit has a context: a probability that follows
the bits it has seen. What a slice's contexts begin with is trained and is what a weight file holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BUCKETS",
    "CONTEXTS",
    "DIGIT",
    "FLAG",
    "GATE",
    "GROUPS",
    "HEAD",
    "LOOK",
    "LOW",
    "MOVE",
    "OPACITY",
    "PROBABILITY_MAX",
    "PROBABILITY_MIN",
    "REGION",
    "REST",
    "SAME",
    "SET",
    "TUNE",
    "check_probabilities",
    "even",
]

SET = 64  # contexts of one kind of number
BUCKETS = 8  # kinds of one number, by how large it is expected to be

GROUPS = (0, 3, 6, 9, 10, 13)
"""Columns of a row that has parts that change together: centre, scales, rotation, opacity, colour;
harmonics are the last part."""

# First contexts of each kind of decision; `walk` says which of them it takes.
HEAD = 0  # the number of Gaussians or births
LOOK = HEAD + SET  # columns 3 to 12 of a new row, less what is expected
MOVE = LOOK + 10 * BUCKETS * SET  # columns of a row that changes
REST = MOVE + 13 * BUCKETS * SET  # harmonics of a new row, of each degree
TUNE = REST + 3 * BUCKETS * SET  # harmonics of a row that changes
SAME = TUNE + 3 * BUCKETS * SET  # whether a digit is the one before
DIGIT = SAME + 16 * 8
LOW = DIGIT + 8 * 8
OPACITY = LOW + 3 * 6 * 6
REGION = OPACITY + 3 * 16 + 64
GATE = REGION + 16
FLAG = GATE + 2 * 32
CONTEXTS = FLAG + 6 * 4

# In 2**-16, as far as contexts move by themselves.
PROBABILITY_MIN, PROBABILITY_MAX = 32, 65504


def even() -> NDArray[np.uint16]:
    """All bits as likely as not, `(CONTEXTS,)`."""
    return np.full(CONTEXTS, 1 << 15, np.uint16)


def check_probabilities(values: NDArray[np.uint16]) -> None:
    """A ValueError if these are not what contexts may begin with."""
    if values.shape != (CONTEXTS,) or values.dtype != np.uint16:
        raise ValueError(f"want {CONTEXTS} of uint16, got {values.shape} of {values.dtype}")
    if values.min() < PROBABILITY_MIN or values.max() > PROBABILITY_MAX:
        raise ValueError(f"want probabilities of {PROBABILITY_MIN}..{PROBABILITY_MAX}")
