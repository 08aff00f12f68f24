"""One walk over pictures of one size, side by side: symbols in tensors. Knows no way of coding.

`AbstractBatch` is to P pictures what `AbstractCoder` is to one. `Single` makes one of the other,
so that a walk is stated once; `codec.entropy.device` has the one for a GPU. Needs torch, so nothing
here is loaded with `codec.entropy`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from codec.entropy.coder import AbstractCoder, Method
from codec.entropy.stream import AbstractStream
from codec.entropy.tables import Tables

__all__ = ["AbstractBatch", "AbstractBatchStream", "Single", "SingleStream"]


class AbstractBatchStream(ABC):
    """A stream of each of P pictures; every call of `code` continues all of them."""

    @abstractmethod
    def code(
        self, symbols: Tensor | None, tables: Tables, indexes: Tensor, where: Tensor
    ) -> Tensor:
        """Code a block of symbols of each picture, in the order in which they lie.

        Args:
            symbols: `(P, ...)` int32; a decoder does not look at them.
            tables: any, also others than in the call before.
            indexes: `(P, ...)` int32, the table of each symbol.
            where: `(P, ...)` which of them are coded.

        Returns:
            `(P, ...)` int32 symbols, 0 where none is coded.

        Raises:
            BitstreamError: a stream is damaged.
            ValueError: symbols or indexes are out of their range.
        """


class AbstractBatch(ABC):
    """What a walk over P pictures is handed. All tensors are on `device`."""

    count: int
    device: torch.device

    @abstractmethod
    def open(self, name: str, method: Method) -> AbstractBatchStream:
        """Begin the stream `name` of each picture; see `AbstractCoder.open`."""


@final
class Single(AbstractBatch):
    """A batch of one picture, on the CPU, that any coder codes."""

    count = 1
    device = torch.device("cpu")

    def __init__(self, coder: AbstractCoder) -> None:
        self._coder = coder

    def open(self, name: str, method: Method) -> SingleStream:
        """See `AbstractBatch.open`."""
        return SingleStream(self._coder.open(name, method))


@final
class SingleStream(AbstractBatchStream):
    """The stream of one picture."""

    def __init__(self, stream: AbstractStream) -> None:
        self.stream = stream

    def code(
        self, symbols: Tensor | None, tables: Tables, indexes: Tensor, where: Tensor
    ) -> Tensor:
        """See `AbstractBatchStream.code`."""
        block = None if symbols is None else symbols[where].numpy()
        found = torch.zeros_like(indexes)
        found[where] = torch.from_numpy(self.stream.code(block, tables, indexes[where].numpy()))
        return found
