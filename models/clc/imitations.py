"""For a training sample, a picture that a dictionary might have had for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["imitations"]

STRANGERS = 0.15  # of all samples get a picture that has nothing to do with them


def imitations(x: Tensor) -> Tensor:
    """One picture like each of `x` `(N, 3, H, W)`, or not at all like it; the same shape.

    Moved, of other brightness, blurred, noisy, and with parts of the next sample: each by chance.
    """
    strangers = x.roll(1, 0)
    altered = [_altered(own, other) for own, other in zip(x, strangers, strict=True)]
    strange = torch.rand(len(x), 1, 1, 1, device=x.device) < STRANGERS
    return torch.where(strange, strangers, torch.stack(altered)).clamp(0, 1)


def _altered(own: Tensor, other: Tensor) -> Tensor:
    """`own` `(3, H, W)`, altered."""
    chances = torch.rand(6)
    found = own
    if chances[0] < 0.2:
        found = functional.avg_pool2d(found, 3, stride=1, padding=1, count_include_pad=False)
    if chances[1] < 0.5:
        found = found * (1 + 0.2 * torch.randn(1).item()) + 0.05 * torch.randn(1).item()
    if chances[2] < 0.3:
        found = found + 0.03 * torch.rand(1).item() * torch.randn_like(found)
    for _ in range(int(6 * chances[3] * chances[4])):
        top, left = (int(torch.randint(side, ())) for side in own.shape[1:])
        height, width = (int(side * torch.rand(())) + 1 for side in own.shape[1:])
        part = (slice(None), slice(top, top + height), slice(left, left + width))
        found = found.clone()
        found[part] = other[part]
    if chances[5] < 0.2:  # by any number of pixels, few
        found = found.roll(torch.randint(-6, 7, (2,)).tolist(), (1, 2))
    elif chances[5] < 0.45:  # by whole latents
        found = found.roll((16 * torch.randint(-4, 5, (2,))).tolist(), (1, 2))
    return found
