"""Latents of random patches, made once, for ablations that leave the transforms as they are."""

import torch
from torch import Tensor

from codec.models.trainable import AbstractTrainable
from codec.training.patches import Patches


@torch.no_grad()
def cached_latents(
    network: AbstractTrainable, patches: Patches, *, count: int, batch: int
) -> tuple[Tensor, Tensor]:
    """Latents `(count, M, 16, 16)` of patches of 256x256, and the rate of each, `(count,)`."""
    generator = torch.Generator().manual_seed(0)
    quality = 100 * torch.rand(count, generator=generator)
    numbers = torch.rand(count, 4, generator=generator)
    parts = [
        network.g_a(patches.draw(some, 256), rates)
        for some, rates in zip(numbers.split(batch), quality.split(batch), strict=True)
    ]
    return torch.cat(parts), quality
