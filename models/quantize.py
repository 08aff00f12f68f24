"""Rounding, its training stand-ins, and the bits of a quantised Gaussian. Knows no network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["add_noise", "gaussian_bits", "lower_bound", "round_ste"]


def add_noise(y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """`y` plus noise, uniform on [-0.5, 0.5): rounding's stand-in (Ballé 2017, eq. 7)."""
    return y + torch.rand(y.shape, generator=generator, device=y.device, dtype=y.dtype) - 0.5


def round_ste(y: Tensor) -> Tensor:
    """`y` rounded to integers; its gradient is that of `y` itself ("straight-through")."""
    return y + (torch.round(y) - y).detach()


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x >= bound)
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors  # type: ignore[attr-defined]
        # Below the bound only a step that leads back up may pass; a plain clamp would be stuck.
        return torch.where(inside | (grad < 0), grad, torch.zeros_like(grad)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """`max(x, bound)` whose gradient still lets `x` come back from below the bound."""
    return _LowerBound.apply(x, bound)  # type: ignore[no-any-return]


def gaussian_bits(y: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """Bits of each element of `y` under a Gaussian integrated over unit bins (Ballé 2018, eq. 6).

    Args:
        y: `(N, M, h, w)` latents, rounded or with uniform noise.
        means: `(N, M, h, w)`.
        scales: `(N, M, h, w)`, at least 0.11.

    Returns:
        `(N, M, h, w)` bits, never negative. Stable far from the mean, where the difference of two
        distribution functions is 0.
    """
    distance = (y - means).abs()
    upper = torch.special.log_ndtr((0.5 - distance) / scales)
    lower = torch.special.log_ndtr((-0.5 - distance) / scales)
    return (upper + torch.log1p(-torch.exp(lower - upper))) / -math.log(2)
