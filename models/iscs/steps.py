"""In which order the core of `iscs` is coded."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["STEPS", "step_masks"]

STEPS = 4


def step_masks(channels: int) -> Tensor:
    """`(4, channels, 2, 2)`: which of each 2x2 square's positions a channel codes at each step.

    In every quarter of the channels it is another one.
    """
    positions = ((0, 0), (1, 1), (0, 1), (1, 0))
    masks = torch.zeros(STEPS, channels, 2, 2)
    for k in range(STEPS):
        for channel in range(channels):
            row, column = positions[k ^ (channel % 4)]
            masks[k, channel, row, column] = 1
    return masks
