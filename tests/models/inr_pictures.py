"""Pictures of `inr` that nobody fitted: random networks and latents."""

import numpy as np
import torch

from codec.models.inr.layout import grid_sizes, shapes
from codec.training.export_inr import freeze


def zeros(preset):
    return {name: torch.zeros(shape) for name, shape in shapes(preset).items()}


def random_networks(preset, seed, spread=0.1):
    rng = torch.Generator().manual_seed(seed)
    return {
        name: spread * torch.randn(shape, generator=rng) for name, shape in shapes(preset).items()
    }


def random_grids(height, width, seed, scale=1.0):
    """Latents in the order of coding, `(1, h, w)` each; the fourth is empty."""
    rng = np.random.default_rng(seed)
    grids = [
        torch.from_numpy(np.rint(rng.laplace(size=(1, *size)) * scale)).float()
        for size in grid_sizes(height, width)
    ]
    grids[3] *= 0
    return grids


def codec_of(*priors):
    """The codec with priors of (preset, tensors), from the lowest rate to the highest."""
    lambdas = [2e-3 * 0.05**number for number in range(len(priors))]
    described = zip(priors, lambdas, strict=True)
    return freeze([(preset.name, lmbda, tensors) for (preset, tensors), lmbda in described])
