"""Rounding, its training stand-ins, and the bits of a quantised Gaussian. Knows no network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "WORTH",
    "add_noise",
    "bits_of_one",
    "dead_zone",
    "gaussian_bits",
    "lower_bound",
    "round_ste",
    "round_towards_zero",
]


def add_noise(y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """`y` plus noise, uniform on [-0.5, 0.5): rounding's stand-in (Ballé 2017, eq. 7)."""
    return y + torch.rand(y.shape, generator=generator, device=y.device, dtype=y.dtype) - 0.5


def round_ste(y: Tensor, offset: float | Tensor = 0.0) -> Tensor:
    """`round_towards_zero` with the gradient of `y` itself ("straight-through")."""
    return y + (round_towards_zero(y, torch.as_tensor(offset)) - y).detach()


def round_towards_zero(y: Tensor, offset: Tensor) -> Tensor:
    """`y` rounded to integers, the smaller magnitude up to `offset` beyond the half.

    Args:
        y: any shape.
        offset: broadcast to `y`, in [0, 0.5); 0 is ordinary rounding.
    """
    return y.sign() * torch.floor(y.abs() + (0.5 - offset))


WORTH = 6 / math.log(2)
"""Bits that a squared error of one step is worth, if steps are those of reverse water-filling.

Distortion d costs d / (2 ln 2 d') bits at slope d' = step^2 / 12.
"""


def bits_of_one(scales: Tensor) -> Tensor:
    """How many bits more a 1 costs than a 0 under zero-mean Gaussians of `scales`, any shape."""
    zero = torch.zeros_like(scales)
    return gaussian_bits(zero + 1, zero, scales) - gaussian_bits(zero, zero, scales)


def dead_zone(dearer: Tensor) -> Tensor:
    """The offset of `round_towards_zero` that a symbol's bits are worth, at most 0.45.

    A value u is rounded to 1 instead of 0 if WORTH u^2 - WORTH (1 - u)^2 > dearer, that is from
    u = 1/2 + dearer / (2 WORTH) on.

    Args:
        dearer: `bits_of_one` of each value's scale, any shape.
    """
    return (dearer / (2 * WORTH)).clamp(0, 0.45)


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
    return _LowerBound.apply(x, bound)  # type: ignore[no-any-return, no-untyped-call]


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
    bits: Tensor = (upper + torch.log1p(-torch.exp(lower - upper))) / -math.log(2)
    return bits
