"""Flat Gaussians to a picture, with gradients, and a dense reference in torch.

What is on a GPU is drawn there by Triton, if it is installed; all else on the CPU by numba.
Gaussians are drawn from the nearest to the farthest, each over what is behind. Knows no scene and
no camera.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from codec.errors import LimitError

__all__ = ["bounds", "rasterize", "rasterize_densely", "tiles_of"]

TILE = 16  # pixels, of a side
ALPHA_MIN, ALPHA_MAX = 1 / 255, 0.99  # of one Gaussian, so that light can be traced back through it
LEFT_MIN = 1e-4  # of the light; less is dark
MEMBERS_MAX = 1 << 28  # Gaussians in tiles, a Gaussian counted once for each of its tiles


def rasterize(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, depths: Tensor,
    width: int, height: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The picture and how opaque it is, float32 or float64 as what is given.

    A Gaussian that is not finite, or that is no ellipse, is not drawn. Depths have no gradient.

    Args:
        means2d: `(N, 2)` pixels; the centre of the first is at (0.5, 0.5).
        conics: `(N, 3)` a, b, c of exp(-(a dx^2 + c dy^2) / 2 - b dx dy).
        colors: `(N, 3)` light of red, green, blue.
        opacities: `(N,)` in [0, 1].
        depths: `(N,)`, of which the least is nearest; of equals the first in order.
        width: pixels, at least 1.
        height: pixels, at least 1.

    Returns:
        `(H, W, 3)` light and `(H, W)` opacity in [0, 1].

    Raises:
        ValueError: shapes or types do not fit.
        LimitError: there are too many Gaussians too large to be held.
    """
    count = len(means2d)
    shapes = [tuple(given.shape) for given in (means2d, conics, colors, opacities, depths)]
    if shapes != [(count, 2), (count, 3), (count, 3), (count,), (count,)] or min(width, height) < 1:
        raise ValueError(f"rasterize: want shapes of N Gaussians, got {shapes}, {width}x{height}")
    if means2d.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"rasterize: want float32 or float64, got {means2d.dtype}")
    flat = torch.cat([means2d, conics, opacities[:, None], colors], 1)
    apply: Any = _Raster.apply
    rgb, alpha = apply(flat, depths.detach(), width, height, _loops(flat.device))
    return rgb, alpha


class _Raster(torch.autograd.Function):
    """`(N, 9)` of `kernels.py` to a picture; the boundary between torch and compiled code."""

    @staticmethod
    def forward(
        ctx: Any, flat: Tensor, depths: Tensor, width: int, height: int, loops: ModuleType
    ) -> tuple[Tensor, Tensor]:
        cuts, boxes = bounds(flat, width, height)
        # Before they are counted tile by tile, which alone would take hours.
        total = int(tiles_of(boxes).sum())
        if total > MEMBERS_MAX:
            raise LimitError(f"{total} Gaussians in tiles are more than {MEMBERS_MAX}")
        ctx.loops = loops
        rgb, left, ctx.drawn = loops.draw(flat.detach(), cuts, boxes, depths, width, height)
        return rgb, 1 - left

    @staticmethod
    def backward(ctx: Any, *to: Tensor) -> tuple[Tensor | None, ...]:
        to_rgb, to_alpha = to
        return ctx.loops.draw_back(ctx.drawn, to_rgb, -to_alpha), None, None, None, None


def _loops(device: torch.device) -> ModuleType:
    """Who draws what is on a device."""
    if device.type == "cuda":
        from codec.entropy.device import has_triton

        if has_triton():
            from codec.models.gauss import device as gpu

            return gpu
    from codec.models.gauss import host

    return host


def bounds(flat: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """`(N,)` exponents and `(N, 4)` int32 boxes beyond which Gaussians are too faint to count.

    See `kernels.py`; what is not to be drawn has an exponent of -1 and an empty box.
    """
    x, y, a, b, c, opacity = flat.detach()[:, :6].double().unbind(1)
    determinant = a * c - b * b
    cuts = torch.log(opacity / ALPHA_MIN)
    wide, high = (torch.sqrt(2 * cuts * side / determinant) for side in (c, a))
    edges = [torch.ceil(x - wide - 0.5), torch.floor(x + wide - 0.5)]
    edges += [torch.ceil(y - high - 0.5), torch.floor(y + high - 0.5)]
    found = torch.stack(edges, 1)
    # The largest is not finite where any is not, and is found sooner than all are looked at.
    fine = flat.detach().abs().amax(1).isfinite() & found.abs().amax(1).isfinite()
    fine &= (a > 0) & (determinant > 0) & (cuts >= 0) & (opacity <= 1)
    low = found.new_tensor([0, -1, 0, -1])
    high_ends = found.new_tensor([width, width - 1, height, height - 1])
    empty = found.new_tensor([1, 0, 1, 0])
    boxes = torch.where(fine[:, None], found.clamp(low, high_ends), empty)
    return torch.where(fine, cuts, -1).to(flat.dtype), boxes.int()


def tiles_of(boxes: Tensor) -> Tensor:
    """`(N,)` int64, in how many tiles each of `(N, 4)` boxes is."""
    first_column, last_column, first_row, last_row = boxes.long().unbind(1)
    count = last_column // TILE - first_column // TILE + 1
    count *= last_row // TILE - first_row // TILE + 1
    return torch.where((first_column <= last_column) & (first_row <= last_row), count, 0)


def rasterize_densely(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, depths: Tensor,
    width: int, height: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What `rasterize` draws, pixel by pixel for every Gaussian: slow, for a few of them."""
    ys, xs = torch.meshgrid(
        torch.arange(height, dtype=means2d.dtype) + 0.5,
        torch.arange(width, dtype=means2d.dtype) + 0.5,
        indexing="ij",
    )
    rgb = torch.zeros(height, width, 3, dtype=means2d.dtype)
    left = torch.ones(height, width, dtype=means2d.dtype)
    open_ = torch.ones(height, width, dtype=torch.bool)
    for n in torch.argsort(depths, stable=True).tolist():
        dx, dy = means2d[n, 0] - xs, means2d[n, 1] - ys
        a, b, c = conics[n]
        alpha = opacities[n] * torch.exp(-(a * dx * dx + c * dy * dy) / 2 - b * dx * dy)
        seen = open_ & (alpha >= ALPHA_MIN)
        alpha = torch.where(seen, alpha.clamp(max=ALPHA_MAX), 0.0)
        after = left * (1 - alpha)
        dark = after < LEFT_MIN
        open_ &= ~dark
        share = torch.where(dark, 0.0, alpha * left)
        rgb = rgb + share[..., None] * colors[n]
        left = left - share
    return rgb, 1 - left
