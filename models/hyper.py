"""The hyperprior: what is sent of the latents at a quarter of their resolution, and what it says.

The means that it gives are in `codec.models.context`. Knows no quantiser.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import silu

from codec.models.layers import RateTable

__all__ = ["HyperAnalysis", "ScaleNetwork"]


@final
class HyperAnalysis(nn.Module):
    """h_a: normalised and quantised-scale latents to `(N, Z, h/4, w/4)`."""

    def __init__(self, *, M: int, hyper: int, Z: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2 * M, hyper, 1)
        self.middle = nn.Conv2d(4 * hyper, hyper, 1)
        self.spatial = nn.Conv2d(hyper, hyper, 3, padding=1, groups=hyper)
        self.leave = nn.Conv2d(4 * hyper, Z, 1)

    def forward(self, y: Tensor, norm: Tensor) -> Tensor:
        """y: `(N, M, h, w)`, h and w multiples of 4; norm: `(N, M, 1, 1)`, its usual size."""
        # Tables follow the magnitude in steps of quantisation, means the value itself.
        hidden = silu(self.enter(torch.cat([torch.log1p(y.abs()), y / norm], dim=1)))
        hidden = silu(self.middle(functional.pixel_unshuffle(hidden, 2)))
        hidden = hidden + self.spatial(hidden)
        return self.leave(functional.pixel_unshuffle(hidden, 2))  # type: ignore[no-any-return]


@final
class ScaleNetwork(nn.Module):
    """Half of h_s: z_hat to the levels of y's scales. Frozen to integer arithmetic.

    Only 1x1 and depthwise 3x3 convolutions, ReLU and pixel shuffles: what
    `codec.entropy.fixedpoint` evaluates exactly.
    """

    def __init__(self, *, Z: int, hyper: int, out: int) -> None:
        super().__init__()
        width = hyper
        self.enter = nn.Conv2d(Z, 4 * width, 1)
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.middle = nn.Conv2d(width, 4 * width, 1)
        self.spatial2 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.leave = nn.Conv2d(width, out, 1)
        self.level = RateTable(out)
        for conv in (self.spatial, self.spatial2):
            nn.init.dirac_(conv.weight, groups=width)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.leave.weight, std=1e-2)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def hidden(self, z_hat: Tensor) -> Tensor:
        """z_hat: `(N, Z, h, w)`. Returns `(N, hyper, 4 h, 4 w)`."""
        hidden = functional.relu(functional.pixel_shuffle(self.enter(z_hat), 2))
        hidden = self.middle(self.spatial(hidden))
        hidden = functional.relu(functional.pixel_shuffle(hidden, 2))
        return self.spatial2(hidden)  # type: ignore[no-any-return]

    def forward(self, hidden: Tensor, quality: Tensor) -> Tensor:
        """What z alone says: real levels `(N, out, 4 h, 4 w)` of `hidden`."""
        return self.leave(hidden) + self.level(quality)  # type: ignore[no-any-return]
