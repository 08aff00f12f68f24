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
        self._photos = [torch.from_numpy(photo).to(device) for photo in photos]
        self._weights = torch.tensor([float(photo.shape[1] * photo.shape[2]) for photo in photos])

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """`count` patches `(count, 3, side, side)` in [0, 1]; a photograph's chance is its area.

        Photographs that are too small for `side` are never drawn. `generator` is on the CPU.
        """
        large = torch.tensor([min(photo.shape[1:]) >= side for photo in self._photos])
        chosen = torch.multinomial(self._weights * large, count, True, generator=generator)
        corners = torch.rand(count, 2, generator=generator).tolist()
        turns = torch.randint(8, (count,), generator=generator).tolist()
        patches = []
        for index, (row, column), turn in zip(chosen.tolist(), corners, turns, strict=True):
            photo = self._photos[index]
            top = int(row * (photo.shape[1] - side + 1))
            left = int(column * (photo.shape[2] - side + 1))
            patch = photo[:, top : top + side, left : left + side].rot90(turn % 4, (1, 2))
            patches.append(patch.flip(2) if turn >= 4 else patch)
        return torch.stack(patches).float() / 255
