"""Random crops of photographs that live on the training device. Knows no network and no file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Patches"]


@final
class Patches:
    """Photographs as uint8 on one device; crops, flips and the conversion to float happen there."""

    def __init__(self, photos: Sequence[NDArray[np.uint8]], device: torch.device) -> None:
        self._pixels = torch.from_numpy(np.concatenate([p.ravel() for p in photos])).to(device)
        sizes = torch.tensor([photo.shape[1:] for photo in photos], device=device)
        self._heights, self._widths = sizes.unbind(1)
        self._areas = self._heights * self._widths
        self._starts = 3 * (self._areas.cumsum(0) - self._areas)

    def draw(self, numbers: Tensor, side: int) -> Tensor:
        """Patches `(N, 3, side, side)` in [0, 1]; a photograph's chance is its area.

        A pure function without a word from the host, so that a CUDA graph can hold it. Photographs
        that are too small for `side` are never drawn.

        Args:
            numbers: `(N, 4)` in [0, 1), on the photographs' device: which photograph, row, column
                and turn or flip.
            side: of the patches, in pixels.
        """
        which, row, column, turn = numbers.double().unbind(1)
        fits = (self._heights >= side) & (self._widths >= side)
        shares = (self._areas * fits).cumsum(0).double()
        photo = torch.searchsorted(shares, which * shares[-1], right=True)
        height, width = self._heights[photo], self._widths[photo]
        top = (row * (height - side + 1)).long()
        left = (column * (width - side + 1)).long()

        turn = (turn * 8).long()[:, None, None]
        along = torch.arange(side, device=numbers.device)
        down, right = torch.where((turn & 4) > 0, side - 1 - along, along), along.expand(1, 1, -1)
        down = down.mT
        right = torch.where((turn & 2) > 0, side - 1 - right, right)
        swap = (turn & 1) > 0
        down, right = torch.where(swap, right, down), torch.where(swap, down, right)
        places = (top[:, None, None] + down) * width[:, None, None] + left[:, None, None] + right
        planes = self._starts[photo, None] + self._areas[photo, None] * torch.arange(
            3, device=numbers.device
        )
        return self._pixels[planes[:, :, None, None] + places[:, None]].float() / 255
