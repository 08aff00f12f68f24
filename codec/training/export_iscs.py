"""Fit the tables of a frozen `iscs` to what it really codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from codec.entropy import (
    AbstractCoder,
    AbstractStream,
    IntArray,
    Method,
    Tables,
    gaussian_pmf,
)
from codec.models.iscs import Iscs
from codec.models.iscs.network import scale_of
from codec.training.coded import QUALITIES, coded

__all__ = ["fit_tables"]

PRIOR_SYMBOLS = 4096.0  # a table's Gaussian counts for as much as so many symbols
PRIOR_SYMBOLS_Z = 32.0  # the same of z, which has a table for each channel and rate


@final
class _Histogram(AbstractCoder, AbstractStream):
    """A coder that only counts: which symbols of y each table was asked to code."""

    def __init__(self, tables: Tables) -> None:
        self.counts = np.zeros((len(tables.sizes), tables.cdf.shape[1] - 1))
        self._counting = False

    def open(self, name: str, method: Method) -> AbstractStream:
        """Every stream is this one; those of y count."""
        self._counting = name != "z"
        return self

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """Count `symbols` by table and entry; what has no entry is an escape, the last one."""
        if symbols is None:
            raise ValueError("a histogram has nothing to decode")
        if self._counting:
            np.add.at(self.counts, (indexes, tables.entries(symbols, indexes)), 1.0)
        return symbols


def fit_tables(codec: Iscs, photos: Sequence[NDArray[np.uint8]]) -> Iscs:
    """`codec` with tables that follow what it really codes.

    Each table of y becomes its counts over `photos` at all qualities plus its own Gaussian, worth
    4096 symbols, the same in both directions of sign: no Gaussian is exactly what is left after
    rounding and prediction. z gets a table for each channel and every tenth quality, made likewise.
    """
    tables = codec.coding.tables
    histogram = _Histogram(tables)
    symbols_z: list[list[IntArray]] = [[] for _ in QUALITIES]
    Z = codec.coding.prior_z.shape[1]
    for geometry, symbols in coded(codec, photos):
        codec.traverse(histogram, symbols, geometry)
        place = QUALITIES.index(geometry.quality)
        symbols_z[place].append(symbols["z"].reshape(Z, -1))
    gaussians = np.diff(tables.cdf.astype(np.float64), axis=1) / 2**tables.precision
    pmfs = []
    for size, counts, gaussian in zip(tables.sizes, histogram.counts, gaussians, strict=True):
        total = (counts + PRIOR_SYMBOLS * gaussian)[:size]
        total[:-1] = (total[:-1] + total[-2::-1]) / 2
        pmfs.append(total / total.sum())
    fitted = Tables.from_pmfs(pmfs, tables.offsets, tables.precision)
    tables_z = _tables_of_z(codec.coding.prior_z, symbols_z, tables.precision)
    coding = dataclasses.replace(codec.coding, tables=fitted, tables_z=tables_z)
    return Iscs(codec.network, coding)


def _tables_of_z(prior: IntArray, symbols: Sequence[Sequence[IntArray]], precision: int) -> Tables:
    """A table for each of `QUALITIES` and each channel of z.

    Args:
        prior: `(101, Z)` level of each channel's Gaussian.
        symbols: for each quality some arrays `(Z, S)`.
        precision: of the tables, bits.
    """
    last = max(int(np.abs(part).max()) for parts in symbols for part in parts) + 1
    scales = scale_of(torch.from_numpy(prior[QUALITIES]).double()).numpy()
    pmfs = []
    for parts, row in zip(symbols, scales, strict=True):
        for channel, scale in zip(np.concatenate(parts, axis=1), row, strict=True):
            counts = np.bincount(channel + last, minlength=2 * last + 2)
            pmfs.append(counts + PRIOR_SYMBOLS_Z * gaussian_pmf(scale, last))
    return Tables.from_pmfs(pmfs, [-last] * len(pmfs), precision)
