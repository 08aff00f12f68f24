"""What both fits to views share: how far pictures are apart, and Adam. Knows no Gaussian."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Adam", "apart"]

STRUCTURE = 0.2  # of the loss, as 3D Gaussian splatting has it
WINDOW, SPREAD = 11, 1.5  # pixels, of SSIM
C1, C2 = 0.01**2, 0.03**2
BETAS, TINY = (0.9, 0.999), 1e-15


def apart(x_hat: Tensor, x: Tensor) -> Tensor:
    """0.8 L1 + 0.2 (1 - SSIM) of pictures, `(H, W, 3)` in [0, 1]."""
    absolute = (x_hat - x).abs().mean()
    return (1 - STRUCTURE) * absolute + STRUCTURE * (1 - _ssim(x_hat, x))


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    """The mean over all pixels, black beyond the border (Wang et al. 2004); b has no gradient."""
    a, b = a.permute(2, 0, 1), b.permute(2, 0, 1)
    blur: Any = _Blur.apply
    mean_a, aa, ab = blur(torch.cat([a, a * a, a * b])).chunk(3)
    mean_b, bb = blur(torch.cat([b, b * b])).chunk(2)
    spread = aa - mean_a**2 + bb - mean_b**2 + C2
    both = 2 * (ab - mean_a * mean_b) + C2
    above = (2 * mean_a * mean_b + C1) * both
    found: Tensor = (above / ((mean_a**2 + mean_b**2 + C1) * spread)).mean()
    return found


class _Blur(torch.autograd.Function):
    """The window's mean around each pixel of `(N, H, W)`; torch's own way back takes ten times."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return _blurred(maps)

    @staticmethod
    def backward(ctx: Any, *to: Tensor) -> Tensor:
        return _blurred(to[0])  # the window is even


def _blurred(maps: Tensor) -> Tensor:
    weights = [math.exp(-((k - WINDOW // 2) ** 2) / (2 * SPREAD**2)) for k in range(WINDOW)]
    for axis in (1, 2):
        padded = functional.pad(maps, (0, 0) * (2 - axis) + (WINDOW // 2, WINDOW // 2))
        size = maps.shape[axis]
        maps = torch.zeros_like(maps)
        for k, weight in enumerate(weights):
            maps.add_(padded.narrow(axis, k, size), alpha=weight / sum(weights))
    return maps


@final
class Adam:
    """Kingma and Ba (2015) for tensors whose rows may come and go."""

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self.leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        self._first = [torch.zeros_like(leaf) for leaf in leaves]
        self._second = [torch.zeros_like(leaf) for leaf in leaves]
        self._steps = 0

    @torch.no_grad()
    def step(self, rates: Sequence[float | Tensor]) -> None:
        """Move by the gradients, which are then gone; a rate is a number or one for each column."""
        self._steps += 1
        ahead = [1 - beta**self._steps for beta in BETAS]
        for leaf, first, second, rate in zip(
            self.leaves, self._first, self._second, rates, strict=True
        ):
            if leaf.grad is None:
                continue
            first.lerp_(leaf.grad, 1 - BETAS[0])
            second.lerp_(leaf.grad.square(), 1 - BETAS[1])
            leaf -= rate * (first / ahead[0]) / ((second / ahead[1]).sqrt() + TINY)
            leaf.grad = None

    @torch.no_grad()
    def change(self, kept: Tensor, added: Sequence[Tensor]) -> None:
        """Keep those rows of all leaves, and add others, which have no momentum."""
        for number, more in enumerate(added):
            for parts, new in (
                (self.leaves, more),
                (self._first, torch.zeros_like(more)),
                (self._second, torch.zeros_like(more)),
            ):
                parts[number] = torch.cat([parts[number][kept], new]).detach()
            self.leaves[number].requires_grad_()
