"""Integer probability tables. Knows no coder, no network and no file.

What coding needs is made once, when a network is exported, and shipped as integers: the functions
here that take probabilities never run while a stream is read or written.

    >>> tables = Tables.from_pmfs([np.array([0.25, 0.5, 0.25, 0.0])], [-1], precision=8)
    >>> tables.cdf
    array([[  0,  64, 191, 255, 256]], dtype=uint32)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRECISION_MAX", "SYMBOL_MAX", "IntArray", "Tables", "gaussian_pmf", "gaussian_tables"]

IntArray: TypeAlias = NDArray[np.int32]

PRECISION_MAX = 24
SYMBOL_MAX = 2**20


@final
@dataclass(frozen=True, eq=False)
class Tables:
    """T tables of integer frequencies over `precision` bits; arrays are own copies and read-only.

    A coder may rely on this: every entry has a frequency of at least 1, a table's frequencies sum
    to exactly 2**precision, and a table has at least two entries, the last of which is the escape
    that stands for every symbol outside the support.

    Attributes:
        cdf: `(T, L + 2)`; row t is 0 = c0 < c1 < ... = 2**precision, padded with 2**precision.
        offsets: `(T,)` the symbol that the first entry of each table codes.
        sizes: `(T,)` number of entries with the escape, 2..L + 1.
        precision: bits, 1..24; the rANS coder wants at most 16.

    Raises:
        ValueError: the integers do not make such tables.
    """

    cdf: NDArray[np.uint32]
    offsets: IntArray
    sizes: IntArray
    precision: int

    def __post_init__(self) -> None:
        for name, dtype, dimensions in (
            ("cdf", np.uint32, 2),
            ("offsets", np.int32, 1),
            ("sizes", np.int32, 1),
        ):
            given = getattr(self, name)
            if given.dtype != dtype or given.ndim != dimensions:
                raise ValueError(
                    f"{name}: want {dimensions}-d {dtype.__name__}, "
                    f"got {given.ndim}-d {given.dtype}"
                )
            own = np.array(given, order="C")
            own.flags.writeable = False
            object.__setattr__(self, name, own)
        _check(self.cdf, self.offsets, self.sizes, self.precision)

    @classmethod
    def from_pmfs(
        cls, pmfs: Sequence[NDArray[np.float64]], offsets: Sequence[int] | IntArray, precision: int
    ) -> Tables:
        """Round probabilities to the frequencies that cost the fewest bits; export time only.

        Args:
            pmfs: of each table, the probabilities of `offset, offset + 1, ...` and, last, of the
                escape; at least 0, of any sum.
            offsets: `(T,)` the first symbol of each.
            precision: bits of the frequencies, 1..24.

        Raises:
            ValueError: a probability is negative or not finite, or the entries are too many.
        """
        sizes = np.array([len(pmf) for pmf in pmfs], np.int32)
        cdf = np.full((len(pmfs), int(sizes.max(initial=0)) + 1), 1 << precision, np.uint32)
        for row, pmf in zip(cdf, pmfs, strict=True):
            row[0] = 0
            row[1 : len(pmf) + 1] = np.cumsum(_frequencies(pmf, precision))
        return cls(cdf, np.array(offsets, np.int32), sizes, precision)

    def entries(self, symbols: IntArray, indexes: IntArray) -> IntArray:
        """Which entry of its table codes each symbol: `(S,)`, the escape where there is no other.

        Args:
            symbols: `(S,)` int32.
            indexes: `(S,)` int32 tables, in [0, T).
        """
        escape = self.sizes[indexes] - 1
        found = symbols - self.offsets[indexes]
        return np.where((found < 0) | (found > escape), escape, found)


def gaussian_tables(
    scales: NDArray[np.float64], precision: int, tail_mass: float = 2.0**-16
) -> Tables:
    """Tables of zero-mean Gaussians integrated over unit bins; export time only.

    Args:
        scales: `(T,)` standard deviations, above 0.
        precision: bits of the frequencies.
        tail_mass: the support is symmetric, reaches at least from -1 to 1, and leaves at most this
            probability to the escape.
    """
    from scipy.special import ndtri

    reach = -float(ndtri(tail_mass / 2))
    lasts = [max(1, math.ceil(reach * scale - 0.5)) for scale in scales]
    pmfs = [gaussian_pmf(scale, last) for scale, last in zip(scales, lasts, strict=True)]
    return Tables.from_pmfs(pmfs, [-last for last in lasts], precision)


def gaussian_pmf(scale: float, last: int) -> NDArray[np.float64]:
    """Probabilities of -last..last and of all other integers, `(2 last + 2,)`; export time only.

    Args:
        scale: standard deviation of a zero-mean Gaussian, integrated over unit bins; above 0.
        last: at least 1.
    """
    from scipy.special import ndtr

    distance = np.abs(np.arange(-last, last + 1))
    # Both ends of a bin in the lower tail, where a difference of small numbers is accurate.
    inside = ndtr((0.5 - distance) / scale) - ndtr((-0.5 - distance) / scale)
    return np.append(inside, 2 * ndtr(-(last + 0.5) / scale))


def _check(cdf: NDArray[np.uint32], offsets: IntArray, sizes: IntArray, precision: int) -> None:
    if not 1 <= precision <= PRECISION_MAX:
        raise ValueError(f"precision: want 1..{PRECISION_MAX} bits, got {precision}")
    if len(cdf) < 1 or not len(cdf) == len(offsets) == len(sizes):
        raise ValueError(
            f"want as many tables in all, and one at least; "
            f"got {len(cdf)} rows, {len(offsets)} offsets, {len(sizes)} sizes"
        )
    if sizes.min() < 2 or sizes.max() > cdf.shape[1] - 1:
        raise ValueError(f"sizes: want 2..{cdf.shape[1] - 1}, got {sizes.min()}..{sizes.max()}")
    if offsets.min() < -SYMBOL_MAX or (offsets.astype(np.int64) + sizes).max() > SYMBOL_MAX:
        raise ValueError(f"the support of a table leaves +-{SYMBOL_MAX}")
    steps = np.diff(cdf.astype(np.int64), axis=1)
    inside = np.arange(cdf.shape[1] - 1) < sizes[:, None]
    if cdf[:, 0].any() or (cdf[:, -1] != 1 << precision).any() or ((steps > 0) != inside).any():
        raise ValueError(f"cdf: want rows that rise from 0 to 2**{precision} and stay there")


def _frequencies(pmf: NDArray[np.float64], precision: int) -> NDArray[np.int64]:
    """Counts of at least 1 that sum to 2**precision and minimise the expected code length."""
    total, size = 1 << precision, len(pmf)
    pmf = np.asarray(pmf, np.float64)
    if not np.isfinite(pmf).all() or pmf.min(initial=0) < 0 or not pmf.sum() > 0:
        raise ValueError("probabilities: want finite numbers, at least 0 and not all 0")
    if not 2 <= size <= total:
        raise ValueError(f"a table has 2..2**{precision} entries, got {size}")
    p = np.maximum(pmf / pmf.sum(), 1e-300)
    # The code length is convex in each count: where it is least, no further count saves more than
    # the last count of any entry does. Bisection finds the saving that divides them.
    low, high = 2.0**-30, 64.0
    for _ in range(100):
        middle = math.sqrt(low * high)
        if _counts_worth(middle, p).sum() <= total:
            high = middle
        else:
            low = middle
    counts = _counts_worth(high, p)
    saving = p * np.log2(1 + 1 / counts)
    counts[np.argsort(-saving, kind="stable")[: total - int(counts.sum())]] += 1
    return counts


def _counts_worth(saving: float, p: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many counts of each entry save at least so many bits each, and 1 at least."""
    counts: NDArray[np.int64] = np.floor(-1 / np.expm1(-saving * math.log(2) / p)).astype(np.int64)
    return counts
