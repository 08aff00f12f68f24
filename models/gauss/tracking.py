"""Which Gaussian of a frame is which of the frame before. Encoder only; knows no stream.

Files give no numbers to Gaussians and may hold them in any order, so that what something looks like
has to tell: most have not changed at all, and one that moves keeps its size and colour.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.entropy import IntArray
from codec.models.gauss.lattice import ALPHA, CENTRE, COLOUR, SCALES
from codec.models.gauss.plan import BIN_MAX

__all__ = ["NOBODY", "matched"]

NOBODY = -1
ROUNDS = 4
BORN = 60  # bits that a new Gaussian takes, about

Places: TypeAlias = NDArray[np.intp]


def matched(old: IntArray, new: IntArray) -> Places:
    """Of each old row the new one that it becomes, or `NOBODY`; none becomes of two.

    Args:
        old: `(n, 13)` rows of the frame before.
        new: `(m, 13)` rows of this one.
    """
    found = _equal(old, new)
    for _ in range(ROUNDS):
        left = np.flatnonzero(found == NOBODY)
        free = np.setdiff1d(np.arange(len(new)), found)
        if not len(left) or not len(free):
            break
        pairs = _mutual(_features(old[left]), _features(new[free]), old, new)
        pairs = pairs[_bits(old[left[pairs[:, 0]]], new[free[pairs[:, 1]]]) < BORN]
        if not len(pairs):
            break
        found[left[pairs[:, 0]]] = free[pairs[:, 1]]
    return found


def _features(rows: IntArray) -> NDArray[np.float64]:
    """`(n, 10)` what a moving Gaussian keeps, and where it is; not how it is turned."""
    parts = (rows[:, CENTRE], rows[:, SCALES], rows[:, [ALPHA]], rows[:, COLOUR])
    return np.concatenate(parts, 1).astype(np.float64)


def _bits(old: IntArray, new: IntArray) -> NDArray[np.float64]:
    """About what it takes to say how each becomes the other, rotations aside; inf if none can."""
    change = np.abs(_features(new) - _features(old))
    found = (2 * np.log2(1 + change) + (change > 0)).sum(1)
    return np.where(change.max(1, initial=0) < BIN_MAX, found, np.inf)


def _equal(old: IntArray, new: IntArray) -> Places:
    """Those that have not changed, but for how they are turned: this alone is little to go by."""
    found = np.full(len(old), NOBODY)
    both = np.concatenate([_features(old), _features(new)])
    kinds = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
    # Of equal ones, the first old is the first new, and so on.
    a, b = _ranked(kinds[: len(old)]), _ranked(kinds[len(old) :])
    _, at, to = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    found[at] = to
    return found


def _ranked(kinds: NDArray[np.intp]) -> NDArray[np.int64]:
    """Numbers that say of each what kind it is and how many of it come before."""
    order = np.argsort(kinds, kind="stable")
    ordered = kinds[order]
    begins = np.searchsorted(ordered, ordered, "left")
    found = np.empty(len(kinds), np.int64)
    found[order] = ordered.astype(np.int64) << 32 | (np.arange(len(kinds)) - begins)
    return found


def _mutual(
    old: NDArray[np.float64], new: NDArray[np.float64], all_old: IntArray, all_new: IntArray
) -> Places:
    """Pairs of which each is nearest to the other, `(k, 2)`."""
    from scipy.spatial import cKDTree  # no decoder needs it

    spread = np.maximum(_features(np.concatenate([all_old, all_new])).std(0), 1e-9)
    old, new = old / spread, new / spread
    there = cKDTree(new).query(old)[1]
    back = cKDTree(old).query(new)[1]
    mine = np.arange(len(old))
    mutual = back[there] == mine
    return np.stack([mine[mutual], there[mutual]], 1)
