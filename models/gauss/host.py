"""The rasteriser on the CPU: compiled loops, which want arrays. Knows no autograd.

Import this module only where it is used: it loads numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.models.gauss import kernels
from codec.models.gauss.raster import TILE

__all__ = ["draw", "draw_back"]


def draw(
    flat: Tensor, cuts: Tensor, boxes: Tensor, depths: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Any]:
    """What `rasterize` draws.

    Args:
        flat: `(N, 9)`, see `kernels.py`.
        cuts: `(N,)`, and
        boxes: `(N, 4)`, as `raster.bounds` gives them.
        depths: `(N,)`.
        width: pixels.
        height: pixels.

    Returns:
        `(H, W, 3)` light, `(H, W)` what is left of the light behind, and what `draw_back` wants.
    """
    values = np.ascontiguousarray(flat.cpu().numpy())
    columns, rows = -(-width // TILE), -(-height // TILE)
    bounds = (cuts.cpu().numpy(), boxes.cpu().numpy())
    counts = np.zeros(columns * rows, np.int64)
    kernels.count(bounds[1], columns, counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    order = np.argsort(depths.cpu().numpy(), kind="stable")
    members = np.empty(starts[-1], np.int32)
    kernels.fill(bounds[1], order, columns, starts[:-1].copy(), members)
    rgb = np.empty((height, width, 3), values.dtype)
    left = np.empty((height, width), values.dtype)
    last = np.empty((height, width), np.int64)
    scene = (values, *bounds, starts, members, columns)
    kernels.draw(*scene, rgb, left, last)
    pictures = [torch.from_numpy(array).to(flat.device) for array in (rgb, left)]
    return pictures[0], pictures[1], (*scene, left, last)


def draw_back(drawn: Any, to_rgb: Tensor, to_left: Tensor) -> Tensor:
    """`(N, 9)` the gradient of `flat`, from those of the two pictures."""
    values, members = drawn[0], drawn[4]
    to = (np.ascontiguousarray(given.cpu().numpy()) for given in (to_rgb, to_left))
    each = np.zeros((len(members), values.shape[1]), values.dtype)
    kernels.draw_back(*drawn, *to, each)
    total = np.zeros_like(values)
    kernels.gather(members, each, total)
    return torch.from_numpy(total).to(to_rgb.device)
