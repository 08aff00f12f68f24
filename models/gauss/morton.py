"""Places in space as single numbers whose order keeps neighbours together. Knows no slice."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.entropy import IntArray

__all__ = ["morton", "unmorton"]

Codes: TypeAlias = NDArray[np.uint64]

OFFSET = 1 << 20
# Bits of 21 spread out to every third place, and together again, in five steps each.
SPREAD = (
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)
WHOLE = 0x1FFFFF


def morton(bins: IntArray) -> Codes:
    """Codes `(N,)` below 2**63 of places `(N, 3)`, each within +-(2**20 - 1)."""
    codes = np.zeros(len(bins), np.uint64)
    for axis in range(3):
        x = (bins[:, axis].astype(np.int64) + OFFSET).astype(np.uint64)
        for shift, mask in SPREAD:
            x = (x | (x << np.uint64(shift))) & np.uint64(mask)
        codes |= x << np.uint64(axis)
    return codes


def unmorton(codes: Codes) -> IntArray:
    """The inverse of `morton`."""
    axes = []
    masks = [mask for _, mask in SPREAD]
    for axis in range(3):
        x = (codes >> np.uint64(axis)) & np.uint64(masks[-1])
        for (shift, _), mask in zip(SPREAD[::-1], [*masks[-2::-1], WHOLE], strict=True):
            x = (x | (x >> np.uint64(shift))) & np.uint64(mask)
        axes.append(x.astype(np.int64) - OFFSET)
    return np.stack(axes, axis=1).astype(np.int32)
