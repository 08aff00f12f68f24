"""What a stream of symbols is, in either direction. Knows no method of coding."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from codec.entropy.tables import SYMBOL_MAX, IntArray, Tables

__all__ = ["AbstractReader", "AbstractStream", "AbstractWriter", "checked", "required"]


class AbstractStream(ABC):
    """One sequence of symbols; every call of `code` continues it, with any tables."""

    @abstractmethod
    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """Code a block of symbols.

        Args:
            symbols: `(K,)` within +-2**20; a decoder does not look at them.
            tables: any, also others than in the call before.
            indexes: `(K,)` the table of each symbol, 0..T - 1.

        Returns:
            `(K,)` the symbols.

        Raises:
            BitstreamError: a decoder's stream is damaged.
            ValueError: symbols or indexes are not as above.
        """


class AbstractWriter(AbstractStream):
    """A stream that becomes bytes."""

    @abstractmethod
    def finish(self) -> bytes:
        """The bytes of all symbols; the stream is over."""


class AbstractReader(AbstractStream):
    """A stream that comes from bytes."""

    @abstractmethod
    def finish(self) -> None:
        """Check that the stream ends here.

        Raises:
            BitstreamError: bytes are left over, or the coder is not where an encoder began.
        """


def checked(values: IntArray, low: int, high: int, what: str) -> IntArray:
    """`(K,)` int32 within `low..high`, in contiguous memory."""
    if values.dtype != np.int32 or values.ndim != 1:
        raise ValueError(f"{what}: want 1-d int32, got {values.ndim}-d {values.dtype}")
    if len(values) and not (low <= values.min() and values.max() <= high):
        raise ValueError(f"{what}: want {low}..{high}, got {values.min()}..{values.max()}")
    return np.ascontiguousarray(values)


def required(symbols: IntArray | None, indexes: IntArray) -> IntArray:
    """An encoder's symbols, checked as `checked` does."""
    if symbols is None:
        raise ValueError("symbols: an encoder wants them, got None")
    if len(symbols) != len(indexes):
        raise ValueError(
            f"symbols: want one for each of {len(indexes)} indexes, got {len(symbols)}"
        )
    return checked(symbols, -SYMBOL_MAX, SYMBOL_MAX, "symbols")
