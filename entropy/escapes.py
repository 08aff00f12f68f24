"""How a symbol outside its table's support is written: a length, then that many bits.

Knows tables, no coder. Distances alternate between above the support and below it, 1, 2, 3, ...;
`value = 2**length + rest` is such a distance. A length is 5 bits and at most `LENGTH_MAX`, so an
escape never takes more than 27 bits.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.entropy.tables import SYMBOL_MAX, IntArray, Tables
from codec.errors import BitstreamError

__all__ = ["LENGTH_BITS", "LENGTH_MAX", "check_lengths", "join", "split"]

LENGTH_BITS = 5
LENGTH_MAX = 22

Integers: TypeAlias = NDArray[np.int64]


def split(symbols: IntArray, tables: Tables, indexes: IntArray) -> tuple[Integers, Integers]:
    """Symbols outside their tables' supports as lengths 0..22 and rests 0..2**length - 1."""
    below = tables.offsets[indexes].astype(np.int64)
    above = below + tables.sizes[indexes] - 1
    wide = symbols.astype(np.int64)
    values = np.where(wide < below, 2 * (below - wide), 2 * (wide - above) + 1)
    lengths = np.frexp(values)[1].astype(np.int64) - 1
    return lengths, values - (1 << lengths)


def join(lengths: Integers, rests: Integers, tables: Tables, indexes: IntArray) -> IntArray:
    """The inverse of `split`.

    Raises:
        BitstreamError: a symbol is not within +-2**20.
    """
    below = tables.offsets[indexes].astype(np.int64)
    above = below + tables.sizes[indexes] - 1
    values = (1 << lengths) + rests
    symbols = np.where(values & 1, above + (values >> 1), below - (values >> 1))
    if np.abs(symbols).max(initial=0) > SYMBOL_MAX:
        raise BitstreamError(f"escape: want a symbol within +-{SYMBOL_MAX}")
    return symbols.astype(np.int32)


def check_lengths(lengths: Integers) -> None:
    """Refuse lengths that no encoder writes; from then on an escape is at most 27 bits."""
    if lengths.max(initial=0) > LENGTH_MAX:
        raise BitstreamError(f"escape: want at most {LENGTH_MAX} bits, got {lengths.max()}")
