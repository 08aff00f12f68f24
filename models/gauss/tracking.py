"""Which Gaussian of a frame is which of the next. Knows no bit; encoder only.

A Gaussian that is coded keeps its row; what has no row before is born, what finds none dies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from codec.entropy import IntArray
from codec.gaussians import Gaussians

__all__ = ["followers", "nearest_rows"]

Rows = NDArray[np.intp]

APART = 3.0  # of their sizes that one may move and be believed to be the same
STAY = 2.0  # times farther may the same number be than the nearest, and is still the same


def followers(before: Gaussians, source: IntArray | None, after: Gaussians) -> Rows:
    """Of each Gaussian of `before`, its number in `after`, or -1.

    Args:
        before: as it was decoded.
        source: its numbers in the frame that it was coded from, as far as known.
        after: the next frame.

    Files of a sequence that was tracked have the same Gaussian under the same number. Whether these
    do is seen by how far each would have moved; if not, the nearest of like colour is the same.
    """
    if not len(before) or not len(after):
        return np.full(len(before), -1)
    size = float(np.exp(np.median(after.scales.mean(1))))
    there, places = _places(after, size), _places(before, size)
    away, near = cKDTree(there).query(places)
    if source is not None and len(source) == len(after) and _permutation(source):
        own = np.linalg.norm(there[source] - places, axis=1)
        if np.median(own) <= STAY * np.median(away) + 1e-9 or (own <= APART).mean() > 0.5:
            return source.astype(np.intp)
    found = np.full(len(before), -1)
    order = np.argsort(away, kind="stable")
    order = order[away[order] <= APART]
    _, first = np.unique(near[order], return_index=True)  # of several, the nearest one
    found[order[first]] = near[order[first]]
    return found


def nearest_rows(before: Gaussians, after: Gaussians) -> Rows:
    """Of each of `after`, the nearest of `before`, which has one at least."""
    found: Rows = cKDTree(before.means).query(after.means)[1]
    return found


def _permutation(source: IntArray) -> bool:
    return np.array_equal(np.sort(source), np.arange(len(source)))


def _places(gaussians: Gaussians, size: float) -> NDArray[np.float64]:
    """Means in units of a typical size, and colours, `(N, 6)`."""
    return np.concatenate([gaussians.means / max(size, 1e-9), gaussians.sh[:, 0]], axis=1)
