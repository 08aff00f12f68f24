"""What a stream of symbols is, in either direction. Knows no method of coding."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from codec.entropy.tables import SYMBOL_MAX, IntArray, Tables

__all__ = [
    "AbstractCausalModel",
    "AbstractReader",
    "AbstractStream",
    "AbstractWriter",
    "checked",
    "operations",
    "required",
]


class AbstractCausalModel(ABC):
    """What predicts each of `count` symbols from those before it, too many to ask one by one.

    So it turns symbols into the operations of rANS by itself, `start << 16 | freq` in units of
    2**-16, and back; docs/format/entropy.md says what an operation is.
    """

    count: int

    @abstractmethod
    def operations(self, symbols: IntArray) -> NDArray[np.uint32]:
        """All operations of `(count,)` symbols, in the order in which they are decoded.

        Raises:
            ValueError: the symbols are none of this model's.
        """

    @abstractmethod
    def decode(
        self, words: NDArray[np.uint16], at: int, states: NDArray[np.uint64], k: int
    ) -> tuple[IntArray, int, int]:
        """The inverse: decode from place `at` of `words`, from operation `k` on.

        Args:
            words: of the stream and one more, 0, which is read for all that are missing.
            at: the place of the next word.
            states: `(N,)` of the lanes, which move on; operation k is of lane k mod N.
            k: operations before.

        Returns:
            `(count,)` symbols, the next place, beyond the end if words were missing, the next k.

        Raises:
            BitstreamError: no symbols of this model have these operations.
        """


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

    def code_causal(self, symbols: IntArray | None, model: AbstractCausalModel) -> IntArray:
        """Code a block of symbols each of which the model predicts from those before it.

        Args:
            symbols: `(model.count,)`; a decoder does not look at them.
            model: says how.

        Returns:
            `(model.count,)` the symbols.

        Raises:
            BitstreamError: a decoder's stream is damaged.
            ValueError: the stream is not of rANS, or the symbols are none of the model's.
        """
        raise ValueError("only rANS codes with causal models")


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


def operations(
    symbols: IntArray | None, model: AbstractCausalModel
) -> tuple[IntArray, NDArray[np.uint32]]:
    """An encoder's symbols, and the operations that the model makes of them."""
    if symbols is None:
        raise ValueError("symbols: an encoder wants them, got None")
    if symbols.shape != (model.count,) or symbols.dtype != np.int32:
        raise ValueError(
            f"symbols: want {model.count} of int32, got {symbols.shape} of {symbols.dtype}"
        )
    return symbols, model.operations(symbols)
