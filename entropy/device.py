"""Decoding on a GPU: many streams in one pass. Knows tensors, no family.

`RansBatch` reads the bytes that `RansReader` reads and gives the same symbols; `DeviceDecoder` is
`Decoder` for several pictures. Nothing here is loaded with the package: it needs torch, and triton,
which torch for CUDA brings along.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from codec.entropy import escapes
from codec.entropy.batch import AbstractBatch, AbstractBatchStream
from codec.entropy.coder import Method
from codec.entropy.kernels import BUCKETS_LOG2
from codec.entropy.ranges import RangeReader
from codec.entropy.rans import ESCAPE, STATE_MIN, RansReader, lookup, opened, rest_bits
from codec.entropy.stream import AbstractReader
from codec.entropy.tables import IntArray, Tables
from codec.errors import BitstreamError

__all__ = ["DeviceDecoder", "RansBatch", "has_triton"]

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Whether kernels for a GPU can run; said once if not."""
    if find_spec("triton"):
        return True
    logger.warning("there is no Triton here: a GPU takes longer, or the CPU does what it would")
    return False


@final
class DeviceDecoder(AbstractBatch):
    """The sub-streams of P pictures or tiles: indexes come and symbols go on `device`.

    Args:
        payloads: of each picture, by the names of its sub-streams.
        device: of all tensors.
        kernel: whether rANS runs there too; if not, the cores of the CPU read the pictures side by
            side, as they always do what is of ranges.
    """

    def __init__(
        self, payloads: Sequence[Mapping[str, bytes]], device: torch.device, *, kernel: bool
    ) -> None:
        self.count, self.device = len(payloads), device
        self._payloads, self._kernel = payloads, kernel
        self._opened: dict[str, _OnDevice | _OnHost] = {}

    def open(self, name: str, method: Method) -> AbstractBatchStream:
        """See `AbstractBatch.open`; a name is opened once."""
        missing = [number for number, own in enumerate(self._payloads) if name not in own]
        if missing:
            raise BitstreamError(f"picture {missing[0]}: there is no sub-stream {name!r}")
        streams = [own[name] for own in self._payloads]
        if method is Method.RANS and self._kernel:
            self._opened[name] = _OnDevice(RansBatch(streams, self.device))
        else:
            kind = RansReader if method is Method.RANS else RangeReader
            self._opened[name] = _OnHost([kind(stream) for stream in streams])
        return self._opened[name]

    def finish(self) -> None:
        """Check that every stream was opened and ends here; see `AbstractReader.finish`."""
        for number, own in enumerate(self._payloads):
            unread = sorted(own.keys() - self._opened.keys())
            if unread:
                raise BitstreamError(f"picture {number}: streams {unread} were not read")
        for stream in self._opened.values():
            stream.finish()


@final
class _OnDevice(AbstractBatchStream):
    def __init__(self, batch: RansBatch) -> None:
        self._batch = batch

    def code(
        self, symbols: Tensor | None, tables: Tables, indexes: Tensor, where: Tensor
    ) -> Tensor:
        """See `AbstractBatchStream.code`."""
        found = torch.zeros_like(indexes)
        counts = where.flatten(1).sum(1).tolist()
        found[where] = self._batch.code(tables, indexes[where], counts)
        return found

    def finish(self) -> None:
        """See `RansBatch.finish`."""
        self._batch.finish()


@final
class _OnHost(AbstractBatchStream):
    def __init__(self, readers: Sequence[AbstractReader]) -> None:
        self._readers = readers

    def code(
        self, symbols: Tensor | None, tables: Tables, indexes: Tensor, where: Tensor
    ) -> Tensor:
        """See `AbstractBatchStream.code`."""
        ends = np.cumsum(where.flatten(1).sum(1).tolist())
        blocks = np.split(indexes[where].cpu().numpy(), ends[:-1])

        def read(reader: AbstractReader, block: IntArray) -> IntArray:
            return reader.code(None, tables, block)

        with ThreadPoolExecutor() as pool:
            read_all = np.concatenate(list(pool.map(read, self._readers, blocks)))
        found = torch.zeros_like(indexes)
        found[where] = torch.from_numpy(read_all).to(indexes.device)
        return found

    def finish(self) -> None:
        """See `AbstractReader.finish`."""
        for reader in self._readers:
            reader.finish()


@final
class RansBatch:
    """The streams of P pictures or tiles, decoded side by side on one device."""

    def __init__(self, streams: Sequence[bytes], device: torch.device) -> None:
        """streams: at least one. Raises BitstreamError if the lanes of one are not there."""
        heads, bodies = zip(*map(opened, streams), strict=True)
        self._device = device
        self._empty = [not len(head) for head in heads]
        width = max(1, *(len(head) for head in heads))
        states = np.full((len(heads), width), STATE_MIN, np.int64)
        for row, head in zip(states, heads, strict=True):
            row[: len(head)] = head.astype(np.int64)
        limits = np.cumsum([len(body) for body in bodies])
        # One word more, so that there is an address even of no words at all.
        words = np.concatenate([*bodies, np.zeros(1, np.uint16)]).astype(np.uint16)
        self._words = torch.from_numpy(words.view(np.int16)).to(device).view(torch.uint16)
        self._limits = self._moved(limits)
        self._places = self._moved(limits - [len(body) for body in bodies])
        self._lanes = self._moved(np.array([max(1, len(head)) for head in heads], np.int32))
        self._states = self._moved(states)
        self._ks = torch.zeros(len(heads), dtype=torch.int64, device=device)

    def code(self, tables: Tables, indexes: Tensor, counts: Sequence[int]) -> Tensor:
        """Decode a block of each stream, as one call of `AbstractStream.code` does.

        Args:
            tables: any of up to 16 bits.
            indexes: `(K,)` int32 on the device, the table of each symbol, stream after stream.
            counts: how many of them each stream has; they sum to K.

        Returns:
            `(K,)` int32 symbols, stream after stream.

        Raises:
            BitstreamError: one of the streams is damaged.
            ValueError: an argument is not as above.
        """
        entries, firsts = _resident(tables, self._device)
        if len(counts) != len(self._empty) or min(counts) < 0 or sum(counts) != len(indexes):
            raise ValueError(
                f"counts: want {len(self._empty)} that sum to {len(indexes)}, got {list(counts)}"
            )
        self._check_indexes(indexes, len(tables.sizes))
        for number, (empty, count) in enumerate(zip(self._empty, counts, strict=True)):
            if empty and count:
                raise BitstreamError(f"rANS stream {number}: empty, {count} symbols are wanted")
        found = torch.empty(len(indexes), dtype=torch.int32, device=self._device)
        given = entries, firsts, indexes.contiguous()
        self._run(_kernels().decode, counts, given, found, BUCKETS_LOG2=BUCKETS_LOG2)
        places = torch.nonzero(found == ESCAPE)[:, 0]
        if len(places):
            found[places] = self._escaped(places, tables, indexes, counts)
        return found

    def finish(self) -> None:
        """Check that every stream ends here.

        Raises:
            BitstreamError: one has bytes left over, or does not end where an encoder began.
        """
        left = (self._limits - self._places).tolist()
        whole = (self._states == STATE_MIN).all(dim=1).tolist()
        for number, (words, ends_well) in enumerate(zip(left, whole, strict=True)):
            if words:
                raise BitstreamError(f"rANS stream {number}: {2 * words} bytes are left over")
            if not ends_well:
                raise BitstreamError(
                    f"rANS stream {number}: damaged, it does not end where an encoder begins"
                )

    def _escaped(
        self, places: Tensor, tables: Tables, indexes: Tensor, counts: Sequence[int]
    ) -> Tensor:
        """The symbols at `places`; so few that the host puts them together."""
        at = places.cpu().numpy()
        of_stream = np.searchsorted(np.cumsum(counts), at, side="right")
        streams = len(counts)
        lengths = self._bits(
            np.full(len(at), escapes.LENGTH_BITS), np.bincount(of_stream, minlength=streams)
        )
        escapes.check_lengths(lengths)
        bits, chosen = rest_bits(lengths)
        halves = np.zeros((len(at), 2), np.int64)
        halves[chosen] = self._bits(
            bits, np.bincount(of_stream, weights=chosen.sum(axis=1), minlength=streams)
        )
        rests = (halves[:, 0] << 16) | halves[:, 1]
        symbols = escapes.join(lengths, rests, tables, indexes[places].cpu().numpy())
        return self._moved(symbols)

    def _bits(self, bits: escapes.Integers, counts: np.ndarray[Any, Any]) -> escapes.Integers:
        values = torch.empty(len(bits), dtype=torch.int32, device=self._device)
        self._run(_kernels().decode_bits, counts, (self._moved(bits.astype(np.int32)),), values)
        return values.cpu().numpy().astype(np.int64)

    def _run(
        self,
        kernel: Any,
        counts: Sequence[int] | np.ndarray[Any, Any],
        given: tuple[Tensor, ...],
        out: Tensor,
        **sizes: int,
    ) -> None:
        """One program for each stream; all of them have moved on afterwards."""
        ends = self._moved(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        kernel[(len(self._empty),)](
            self._words,
            self._limits,
            self._lanes,
            self._places,
            self._states,
            self._ks,
            *given,
            ends,
            out,
            WIDTH=self._states.shape[1],
            **sizes,
            num_warps=max(1, self._states.shape[1] // 32),
        )
        missing = (self._places - self._limits).tolist()
        for number, words in enumerate(missing):
            if words > 0:
                raise BitstreamError(
                    f"rANS stream {number}: truncated, {2 * words} bytes more are wanted"
                )

    def _check_indexes(self, indexes: Tensor, tables: int) -> None:
        if indexes.dtype != torch.int32 or indexes.dim() != 1:
            raise ValueError(f"indexes: want 1-d int32, got {indexes.dim()}-d {indexes.dtype}")
        if len(indexes):
            low, high = torch.stack(torch.aminmax(indexes)).tolist()
            if low < 0 or high >= tables:
                raise ValueError(f"indexes: want 0..{tables - 1}, got {low}..{high}")

    def _moved(self, values: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


@lru_cache(maxsize=8)
def _resident(tables: Tables, device: torch.device) -> tuple[Tensor, Tensor]:
    """What `lookup` gives, on the device."""
    entries, firsts = lookup(tables)
    return (
        torch.from_numpy(entries.view(np.int64)).to(device),
        torch.from_numpy(firsts.view(np.int32)).to(device),
    )


def _kernels() -> ModuleType:
    from codec.entropy import triton_kernels  # which only Linux has

    return triton_kernels
