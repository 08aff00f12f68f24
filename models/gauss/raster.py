"""Flat Gaussians to a picture, with gradients: numba on the CPU, and a dense reference in torch.

Gaussians are drawn from the nearest to the farthest, each over what is behind. Knows no scene and
no camera.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import LimitError

__all__ = ["rasterize", "rasterize_densely"]

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
    rgb, alpha = apply(flat, depths.detach(), width, height)
    return rgb, alpha


class _Raster(torch.autograd.Function):
    """`(N, 9)` of `kernels.py` to a picture; the boundary between torch and compiled code."""

    @staticmethod
    def forward(
        ctx: Any, flat: Tensor, depths: Tensor, width: int, height: int
    ) -> tuple[Tensor, Tensor]:
        from codec.models.gauss import kernels

        values = np.ascontiguousarray(flat.detach().cpu().numpy())
        cuts, boxes = _bounds(values, width, height)
        columns, rows = -(-width // TILE), -(-height // TILE)
        wide, high = (np.diff(boxes[:, axis : axis + 2] // TILE)[:, 0] + 1 for axis in (0, 2))
        drawn = (boxes[:, 0] <= boxes[:, 1]) & (boxes[:, 2] <= boxes[:, 3])
        # Before they are counted tile by tile, which alone would take hours.
        total = int((wide.astype(np.int64) * high)[drawn].sum())
        if total > MEMBERS_MAX:
            raise LimitError(f"{total} Gaussians in tiles are more than {MEMBERS_MAX}")
        counts = np.zeros(columns * rows, np.int64)
        kernels.count(boxes, columns, counts)
        starts = np.concatenate([[0], np.cumsum(counts)])
        order = np.argsort(depths.cpu().numpy(), kind="stable")
        members = np.empty(starts[-1], np.int32)
        kernels.fill(boxes, order, columns, starts[:-1].copy(), members)
        rgb = np.empty((height, width, 3), values.dtype)
        left = np.empty((height, width), values.dtype)
        last = np.empty((height, width), np.int64)
        scene = (values, cuts, boxes, starts, members, columns)
        kernels.draw(*scene, rgb, left, last)
        ctx.drawn = (*scene, left, last)
        return torch.from_numpy(rgb).to(flat.device), torch.from_numpy(1 - left).to(flat.device)

    @staticmethod
    def backward(ctx: Any, *to: Tensor) -> tuple[Tensor | None, ...]:
        from codec.models.gauss import kernels

        values, members = ctx.drawn[0], ctx.drawn[4]
        to_rgb, to_alpha = (np.ascontiguousarray(g.cpu().numpy()) for g in to)
        each = np.zeros((len(members), values.shape[1]), values.dtype)
        kernels.draw_back(*ctx.drawn, to_rgb, -to_alpha, each)
        total = np.zeros_like(values)
        kernels.gather(members, each, total)
        return torch.from_numpy(total).to(to[0].device), None, None, None


def _bounds(
    values: NDArray[Any], width: int, height: int
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """`(N,)` exponents and `(N, 4)` boxes where a Gaussian is not too faint; see `kernels.py`."""
    x, y, a, b, c, opacity = values[:, :6].astype(np.float64).T
    with np.errstate(all="ignore"):  # what comes of it is not drawn
        determinant = a * c - b * b
        cuts = np.log(opacity / ALPHA_MIN)
        fine = np.isfinite(values).all(1) & (a > 0) & (determinant > 0)
        fine &= (cuts >= 0) & (opacity <= 1)
        wide, high = (np.sqrt(2 * cuts * side / determinant) for side in (c, a))
        edges = [np.ceil(x - wide - 0.5), np.floor(x + wide - 0.5)]
        edges += [np.ceil(y - high - 0.5), np.floor(y + high - 0.5)]
    fine &= np.isfinite(edges).all(0)
    boxes = np.tile(np.array([1, 0, 1, 0], np.int32), (len(values), 1))
    low, high_ends = (0, 0), (width - 1, height - 1)
    for axis in (0, 1):
        first, final = (edges[2 * axis + end][fine] for end in (0, 1))
        boxes[fine, 2 * axis] = np.clip(first, low[axis], high_ends[axis] + 1)
        boxes[fine, 2 * axis + 1] = np.clip(final, low[axis] - 1, high_ends[axis])
    return np.where(fine, cuts, -1).astype(values.dtype), boxes


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
