"""What decoded latents say about the rest: means in floats, scales from integer symbols.

The first channels, the core, are coded in a few steps, each with other positions of every 2x2
square; then all other channels at once, given the whole core. Knows no transform.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import silu

from codec.models.layers import BottleneckBlock

__all__ = [
    "MAGNITUDES",
    "AuxiliaryMeans",
    "MeanNetwork",
    "Means",
    "ScaleContext",
    "magnitudes",
]

MAGNITUDES = (0, 256, 406, 512, 594, 662, 719, 768, 812, 850, 886, 918, 947, 975, 1000, 1024)
"""log2(1 + |symbol|) in steps of 1/256; larger symbols count as the last. Part of the format."""


def magnitudes(symbols: Tensor) -> Tensor:
    """What `ScaleContext` sees of symbols, any shape: `MAGNITUDES / 256`, no gradient."""
    sizes = symbols.detach().abs().round().clamp(max=len(MAGNITUDES) - 1)
    return _magnitude_table(symbols.device)[sizes.long()]


@functools.cache  # a CUDA graph may hold no copy from the host
def _magnitude_table(device: torch.device) -> Tensor:
    return torch.tensor(MAGNITUDES, dtype=torch.float32, device=device) / 256


class Means(NamedTuple):
    """What gives means, all latents over their usual size.

    `core(k, features, y_norm, quality)` are the core's at step k, from what is decoded of it;
    `others(features, core_norm, quality)` are those of all other channels.
    """

    core: Callable[[int, Tensor, Tensor, Tensor], Tensor]
    others: Callable[[Tensor, Tensor, Tensor], Tensor]


@final
class MeanNetwork(nn.Module):
    """The features of z_hat for all means, and the core's means step by step, in floats.

    `masks` `(steps, core, 2, 2)` say which positions of each 2x2 square a step codes; its means see
    what the steps before it decoded. Latents go in and out divided by `norm`.
    """

    masks: Tensor

    def __init__(self, masks: Tensor, *, Z: int, width: int, context: int) -> None:
        super().__init__()
        later, core = len(masks) - 1, masks.shape[1]
        self.enter = nn.Conv2d(Z, 4 * width, 1)
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.middle = nn.Conv2d(width, 4 * context, 1)
        self.first = nn.Conv2d(context, core, 1)
        self.adapt = nn.ModuleList(nn.Conv2d(core + context, context, 1) for _ in range(later))
        self.block = BottleneckBlock(context, context)
        self.leave = nn.ModuleList(nn.Conv2d(context, core, 1) for _ in range(later))
        self.near = nn.ModuleList(
            nn.Conv2d(core, core, 3, padding=1, groups=core, bias=False) for _ in range(later)
        )
        for last in (self.first, *self.leave):
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)
        for near in self.near:
            nn.init.zeros_(near.weight)  # type: ignore[arg-type]
        self.register_buffer("masks", masks, persistent=False)

    def features(self, z_hat: Tensor) -> Tensor:
        """z_hat: `(N, Z, h, w)`. Returns `(N, context, 4 h, 4 w)`."""
        hidden = silu(functional.pixel_shuffle(self.enter(z_hat), 2))
        hidden = self.middle(hidden + self.spatial(hidden))
        return silu(functional.pixel_shuffle(hidden, 2))

    def step(self, k: int, features: Tensor, y_norm: Tensor, quality: Tensor) -> Tensor:
        """The core's means at step k from `y_norm`, what is decoded of it (0 elsewhere)."""
        if k == 0:
            return self.first(features)  # type: ignore[no-any-return]
        hidden = self.adapt[k - 1](torch.cat([y_norm, features], dim=1))
        hidden = self.leave[k - 1](self.block(hidden, quality))
        with torch.autocast(y_norm.device.type, enabled=False):
            # The plain average of neighbours wants more digits than half precision has.
            return hidden.float() + self.near[k - 1](y_norm)  # type: ignore[no-any-return]

    def mask(self, k: int, h: int, w: int) -> Tensor:
        """`(1, core, h, w)`: 1 where step k codes."""
        return self.masks[k].repeat(1, -(-h // 2), -(-w // 2))[None, :, :h, :w]


@final
class AuxiliaryMeans(nn.Module):
    """The means of all channels behind the core, from z_hat and the decoded core, at once."""

    def __init__(self, *, core: int, auxiliary: int, context: int) -> None:
        super().__init__()
        self.adapt = nn.Conv2d(core + context, context, 1)
        self.block = BottleneckBlock(context, context)
        self.leave = nn.Conv2d(context, auxiliary, 1)
        nn.init.normal_(self.leave.weight, std=1e-3)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, core_norm: Tensor, quality: Tensor) -> Tensor:
        """features: `(N, context, h, w)`; core_norm: `(N, core, h, w)`, y_hat over `norm`."""
        hidden = self.adapt(torch.cat([core_norm, features], dim=1))
        return self.leave(self.block(hidden, quality))  # type: ignore[no-any-return]


@final
class ScaleContext(nn.Module):
    """What decoded symbols of the core add to the levels of others. Frozen to integer arithmetic.

    Only 1x1 and depthwise 3x3 convolutions and ReLU: what `codec.entropy.fixedpoint` evaluates
    exactly. With `near`, the levels are of the core's own channels, and each looks at its
    neighbours directly.
    """

    def __init__(self, *, core: int, hidden: int, width: int, out: int, near: bool) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(core, core, 3, padding=1, groups=core)
        self.enter = nn.Conv2d(core + hidden, width, 1)
        self.leave = nn.Conv2d(width, out, 1)
        self.near = nn.Conv2d(core, core, 3, padding=1, groups=core) if near else None
        nn.init.dirac_(self.spatial.weight, groups=core)
        nn.init.zeros_(self.spatial.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.leave.weight, std=1e-3)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        if self.near is not None:
            nn.init.zeros_(self.near.weight)
            nn.init.zeros_(self.near.bias)  # type: ignore[arg-type]

    def forward(self, seen: Tensor, hidden: Tensor) -> Tensor:
        """What to add to levels.

        Args:
            seen: `(N, core, h, w)` `magnitudes` of decoded symbols, 0 where nothing is decoded.
            hidden: `(N, hidden, h, w)` of the scale network.
        """
        inner = functional.relu(self.enter(torch.cat([self.spatial(seen), hidden], dim=1)))
        levels: Tensor = self.leave(inner)
        return levels if self.near is None else levels + self.near(seen)
