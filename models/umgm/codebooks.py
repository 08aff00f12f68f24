"""A mixture frozen: codewords, and an integer table for each group and level. Knows no network.

`Codebooks` are kept on the CPU, where the encoder searches them; `Codewords` are the same wherever
codes are coded and looked up, for several pictures side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from codec.entropy import IntArray, Tables, code_lengths
from codec.entropy.batch import AbstractBatchStream
from codec.entropy.fixedpoint import FRACTION_BITS
from codec.errors import BitstreamError
from codec.models.umgm.mixture import LEVELS, Mixture, nearest

__all__ = ["PRECISION", "Codebooks", "Codewords"]

PRECISION = 16
RARE = 2.0**-18  # codes at the end of a table that are all rarer share its escape
SILENT = 2.0**-12  # of a table's codes that are not 0: less, and it codes nothing
LEAST_USES = 3  # a codeword that is counted less often is left out
PRIOR_SYMBOLS = 512.0  # what a table was counts for as much as so many symbols
UNIT = 2.0**-FRACTION_BITS

Floats: TypeAlias = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class Codebooks:
    """All groups of some channels. Code 0 is what stands where nothing is coded.

    Attributes:
        banks: codewords `(G, K, d)` float32, of each run of groups alike; 0 behind a group's last.
        sizes: `(groups,)` how many codewords each group has.
        tables: `groups * LEVELS` of them, by group, then level.
        silent: `(groups * LEVELS,)` where no code is written, and all are 0.
    """

    banks: Sequence[Tensor]
    sizes: IntArray
    tables: Tables
    silent: NDArray[np.bool_]
    _made: dict[torch.device, Codewords] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    @torch.no_grad()
    def freeze(cls, mixture: Mixture, *, integer: bool = False) -> Codebooks:
        """A trained mixture's weights and codewords, these in half precision or coarser.

        With `integer`, codewords are whole in steps of 1/256, for the level network to read.
        """
        banks, sizes, pmfs = [], [], []
        for bank, _, _ in mixture.pieces():
            words = bank.codewords.detach().cpu()
            if integer:
                words = words.div(UNIT).round().mul(UNIT)
            banks.append(words.half().float())
            masses = np.exp2(-bank.bits().double().cpu().numpy())
            sizes += [masses.shape[2]] * len(masses)
            pmfs += [row for group in masses for row in group]
        return cls(banks, np.array(sizes, np.int32), *_tables(pmfs))

    def fitted(self, counts: Floats) -> Codebooks:
        """The same with tables that follow `counts`, without the codewords that hardly any used.

        The smallest codeword becomes code 0, the others follow by their use, so that the tables of
        most levels are short.

        Args:
            counts: `(groups * LEVELS, K)` how often each table coded each code.
        """
        banks, sizes, pmfs = [], [], []
        for group, words in enumerate(self._words()):
            own = counts.reshape(-1, LEVELS, counts.shape[1])[group, :, : len(words)]
            used = own.sum(0)
            first = int(words.square().sum(1).argmin())
            falling = np.argsort(-used, kind="stable")
            order = np.append(first, falling[(used[falling] >= LEAST_USES) & (falling != first)])
            banks.append(words[torch.from_numpy(order)])
            sizes.append(len(order))
            for level in range(LEVELS):
                mass = own[level] + PRIOR_SYMBOLS * self._pmf(group * LEVELS + level, len(words))
                pmfs.append(mass[order])
        joined, at = [], 0
        for bank in self.banks:
            parts = banks[at : at + len(bank)]
            joined.append(torch.nn.utils.rnn.pad_sequence(parts, batch_first=True))
            at += len(bank)
        return Codebooks(joined, np.array(sizes, np.int32), *_tables(pmfs))

    @property
    def groups(self) -> int:
        """How many."""
        return len(self.sizes)

    def on(self, device: torch.device) -> Codewords:
        """The same to code with on `device`; made once."""
        if device not in self._made:
            self._made[device] = Codewords(self, device)
        return self._made[device]

    def nearest(self, x: Tensor, levels: Tensor) -> Tensor:
        """The code of each vector that costs least, bits and error; encoder only.

        Args:
            x: `(channels, h, w)` on the CPU.
            levels: `(groups, h, w)` int32, there too.

        Returns:
            `(groups, h, w)` int32.
        """
        level = levels.flatten(1)
        parts, channel, group = [], 0, 0
        for bank, bits in zip(self.banks, self._bits, strict=True):
            groups, _, dimensions = bank.shape
            own = x[channel : channel + groups * dimensions].reshape(groups, dimensions, -1)
            parts.append(nearest(own.transpose(1, 2), bank, bits, level[group : group + groups]))
            channel, group = channel + groups * dimensions, group + groups
        return torch.cat(parts).int().reshape(levels.shape)

    @cached_property
    def _bits(self) -> Sequence[Tensor]:
        """What each code costs in each table, `(G, LEVELS, K)` of each bank."""
        found, group = [], 0
        for bank in self.banks:
            groups, count, _ = bank.shape
            rows = np.arange(group * LEVELS, (group + groups) * LEVELS, dtype=np.int32)
            symbols = np.tile(np.arange(count, dtype=np.int32), len(rows))
            bits = code_lengths(symbols, self.tables, np.repeat(rows, count)).reshape(-1, count)
            bits[self.silent[rows]] = np.where(np.arange(count), np.inf, 0.0)
            known = np.repeat(self.sizes[group : group + groups], LEVELS)
            bits[np.arange(count) >= known[:, None]] = np.inf
            found.append(torch.from_numpy(bits).float().reshape(groups, LEVELS, count))
            group += groups
        return found

    def _words(self) -> Iterator[Tensor]:
        """The codewords of each group, `(K, d)`."""
        sizes = iter(self.sizes)
        return (words[: next(sizes)] for bank in self.banks for words in bank)

    def _pmf(self, row: int, count: int) -> Floats:
        """What a table gives each of `count` codes; the escape's part is shared evenly."""
        freqs = np.diff(self.tables.cdf[row].astype(np.float64))
        last = self.tables.sizes[row] - 1
        pmf = np.append(freqs[:last], np.full(count - last, freqs[last] / max(1, count - last)))
        share: Floats = pmf / pmf.sum()
        return share

    # ---- weight files

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """For a weight file: codewords, which half precision holds exactly, and integers."""
        found = {f"{prefix}bank{n}": bank.half() for n, bank in enumerate(self.banks)}
        inside = np.arange(self.tables.cdf.shape[1] - 1) < self.tables.sizes[:, None]
        freqs = np.diff(self.tables.cdf.astype(np.int64), axis=1)[inside]
        found[f"{prefix}freqs"] = torch.from_numpy(freqs.astype(np.uint16).view(np.int16))
        found[f"{prefix}lengths"] = torch.from_numpy(self.tables.sizes.copy())
        found[f"{prefix}sizes"] = torch.from_numpy(self.sizes)
        found[f"{prefix}silent"] = torch.from_numpy(self.silent.astype(np.uint8))
        return found

    @classmethod
    def load(cls, prefix: str, banks: int, tensors: Mapping[str, Tensor]) -> Codebooks:
        """The inverse of `tensors`, of so many banks.

        Raises:
            KeyError, ValueError: a tensor is missing or out of range.
        """
        lengths = tensors[f"{prefix}lengths"].numpy()
        freqs = tensors[f"{prefix}freqs"].numpy().view(np.uint16)
        inside = np.arange(lengths.max()) < lengths[:, None]
        steps = np.zeros(inside.shape, np.int64)
        steps[inside] = freqs
        cdf = np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0))).astype(np.uint32)
        books = cls(
            [tensors[f"{prefix}bank{n}"].float() for n in range(banks)],
            tensors[f"{prefix}sizes"].numpy(),
            Tables(cdf, np.zeros(len(cdf), np.int32), lengths, PRECISION),
            tensors[f"{prefix}silent"].numpy().astype(bool),
        )
        widths = np.repeat([len(b[0]) for b in books.banks], [len(b) for b in books.banks])
        if books.sizes.shape != widths.shape or (books.sizes > widths).any():
            raise ValueError(f"{prefix}sizes: want {len(widths)} within the banks")
        if not len(cdf) == len(books.silent) == LEVELS * len(widths):
            raise ValueError(f"{prefix}: want {LEVELS} tables for each of {len(widths)} groups")
        return books


@final
class Codewords:
    """`Codebooks` on a device, for P pictures of one size at once: all tensors are there."""

    def __init__(self, books: Codebooks, device: torch.device) -> None:
        self._banks = [bank.to(device) for bank in books.banks]
        self._tables = books.tables
        self._silent = torch.tensor(books.silent, device=device)
        self._sizes = torch.tensor(books.sizes, device=device)[:, None, None]
        self._numbers = torch.arange(books.groups, dtype=torch.int32, device=device)[:, None, None]

    def code(
        self,
        stream: AbstractBatchStream,
        given: Tensor | None,
        levels: Tensor,
        part: slice = slice(None),
        where: Tensor | bool = True,
    ) -> Tensor:
        """Code some groups; the same call in all directions.

        Args:
            stream: of the batch.
            given: their codes `(P, n, h, w)` int32; None when decoding.
            levels: `(P, n, h, w)` int32.
            part: which groups they are.
            where: `(h, w)` bool, which places are coded.

        Returns:
            `(P, n, h, w)` int32 codes, 0 where none is coded.

        Raises:
            BitstreamError: a code has no codeword.
        """
        rows = self._numbers[part] * LEVELS + levels
        codes = stream.code(given, self._tables, rows, ~self._silent[rows] & where)
        wrong = (codes < 0) | (codes >= self._sizes[part])
        if wrong.any():
            raise BitstreamError(f"no codeword has number {int(codes[wrong][0])}")
        return codes

    def values(self, codes: Tensor) -> Tensor:
        """Codes of all groups `(P, groups, h, w)` to codewords `(P, channels, h, w)`, float32."""
        parts, group = [], 0
        for bank in self._banks:
            groups, count, _ = bank.shape
            rows = codes[:, group : group + groups] + count * self._numbers[:groups]
            own = functional.embedding(rows.flatten(2), bank.flatten(0, 1))
            parts.append(own.transpose(2, 3).flatten(1, 2))
            group += groups
        return torch.cat(parts, dim=1).reshape(len(codes), -1, *codes.shape[2:])

    def integers(self, codes: Tensor) -> Tensor:
        """Codewords of steps of 1/256 as whole numbers of them, `(P, channels, h, w)` float64."""
        return self.values(codes).double().div_(UNIT).round_()

    def rounded(self, codes: Tensor) -> Tensor:
        """Codewords to the nearest integers, `(P, channels, h, w)` int32."""
        return self.values(codes).round_().int()


def _tables(pmfs: Sequence[Floats]) -> tuple[Tables, NDArray[np.bool_]]:
    """Tables of what codes weigh, each without its rare end, and which of them are silent."""
    cut = []
    for mass in pmfs:
        pmf = mass / mass.sum()
        kept = int(np.flatnonzero(pmf >= RARE)[-1]) + 1
        cut.append(np.append(pmf[:kept], pmf[kept:].sum()))
    silent = np.array([1 - pmf[0] < SILENT for pmf in cut])
    return Tables.from_pmfs(cut, np.zeros(len(cut), np.int32), PRECISION), silent
