"""Fit the tables of a frozen `umgm` to what it really codes; drop codewords that it never uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from codec.entropy import AbstractCoder, AbstractStream, IntArray, Method, Tables
from codec.models.umgm import Umgm
from codec.models.umgm.codebooks import Codebooks
from codec.training.coded import coded

__all__ = ["fit_codebooks"]


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
    """`codec` with tables from its own codes over `photos` `(3, H, W)`.

    One round: with fitted tables other codewords are chosen, but a second one gained nothing.
    """
    coding = codec.coding
    books = {name: getattr(coding, name) for name in ("z", "core", "rest")}
    census = _Census(list(books.values()))
    for geometry, symbols in coded(codec, photos):
        codec.traverse(census, symbols, geometry)
    fitted = {name: book.fitted(census.of(book)) for name, book in books.items()}
    return Umgm(codec.network, dataclasses.replace(coding, **fitted))
