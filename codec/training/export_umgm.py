"""Fit the tables of a frozen `umgm` to what it really codes; drop codewords that it never uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from codec.entropy import AbstractCoder, AbstractStream, IntArray, Method, Tables
from codec.models.base import Halo, TileGeometry
from codec.models.layers import QUALITY_MAX
from codec.models.umgm import Umgm
from codec.models.umgm.codebooks import Codebooks

__all__ = ["fit_codebooks"]

QUALITIES = range(0, QUALITY_MAX + 1, 10)
ROUNDS = 1


@final
class _Census(AbstractCoder, AbstractStream):
    """A coder that only counts: how often each table was asked to code each symbol."""

    def __init__(self, books: Sequence[Codebooks]) -> None:
        self._counts = {
            book.tables: np.zeros((len(book.tables.sizes), int(book.sizes.max()))) for book in books
        }

    def of(self, book: Codebooks) -> NDArray[np.float64]:
        """`(tables, codewords)`."""
        return self._counts[book.tables]

    def open(self, name: str, method: Method) -> AbstractStream:
        """Every stream is this one."""
        return self

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """Count `symbols`."""
        if symbols is None:
            raise ValueError("a census has nothing to decode")
        np.add.at(self._counts[tables], (indexes, symbols), 1.0)
        return symbols


def fit_codebooks(codec: Umgm, photos: Sequence[NDArray[np.uint8]]) -> Umgm:
    """`codec` with tables from its own codes over `photos`, each at every other of 11 qualities."""
    for _ in range(ROUNDS):
        coding = codec.coding
        books = {name: getattr(coding, name) for name in ("z", "core", "rest")}
        census = _Census(list(books.values()))
        for number, photo in enumerate(photos):
            x = torch.from_numpy(photo)[None].float() / 255
            for quality in QUALITIES[number % 2 :: 2]:
                geometry = TileGeometry(x.shape[2], x.shape[3], quality)
                codec.traverse(census, codec.analyse(x, geometry, Halo()), geometry)
        fitted = {name: book.fitted(census.of(book)) for name, book in books.items()}
        codec = Umgm(codec.network, dataclasses.replace(coding, **fitted))
    return codec
