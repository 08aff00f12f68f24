"""What a frozen codec codes of photographs, for tables to be fitted to. Knows no family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from codec.models.base import AbstractFamily, Halo, Symbols, TileGeometry
from codec.models.layers import QUALITY_MAX

__all__ = ["QUALITIES", "coded"]

QUALITIES = range(0, QUALITY_MAX + 1, 10)


def coded(
    codec: AbstractFamily, photos: Sequence[NDArray[np.uint8]]
) -> Iterator[tuple[TileGeometry, Symbols]]:
    """The symbols of photographs `(3, H, W)`, each at every other of `QUALITIES`, in turn."""
    for number, photo in enumerate(photos):
        x = torch.from_numpy(photo)[None].float() / 255
        for quality in QUALITIES[number % 2 :: 2]:
            geometry = TileGeometry(x.shape[2], x.shape[3], quality)
            yield geometry, codec.analyse(x, geometry, Halo())
