"""The rasteriser on a GPU: torch sorts Gaussians into tiles, Triton draws. Knows no autograd.

Tensors stay where they are. Import this module only where it is used: it needs triton, which torch
for CUDA brings along on Linux.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from codec.models.gauss import triton_kernels
from codec.models.gauss.raster import TILE, tiles_of

__all__ = ["draw", "draw_back"]

WARPS, WARPS_BACK = 4, 1  # of a tile; one adds up its pixels without waiting for others


def draw(
    flat: Tensor, cuts: Tensor, boxes: Tensor, depths: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Any]:
    """See `host.draw`."""
    flat, counts = flat.contiguous(), tiles_of(boxes)
    columns, rows = -(-width // TILE), -(-height // TILE)
    numbers = torch.arange(len(flat), device=flat.device)
    ranks = torch.empty_like(numbers)
    ranks[torch.argsort(depths, stable=True)] = numbers
    owners, tiles = _intersections(boxes, counts, columns)
    # Tile after tile, the nearest first; no two keys are equal.
    keys, slots = torch.sort(tiles << 32 | ranks[owners])
    edges = torch.arange(columns * rows + 1, device=flat.device) << 32
    starts = torch.searchsorted(keys, edges, out_int32=True)
    scene = (flat, cuts, starts, owners[slots].int())
    rgb, left = flat.new_empty(height, width, 3), flat.new_empty(height, width)
    last = torch.empty(height, width, dtype=torch.int32, device=flat.device)
    with torch.cuda.device(flat.get_device()):  # -1, which is the CPU, is none
        triton_kernels.draw[columns * rows,](
            *scene, rgb, left, last, width, height, columns, num_warps=WARPS
        )
    return rgb, left, (scene, slots.int(), left, last, columns, counts)


def draw_back(drawn: Any, to_rgb: Tensor, to_left: Tensor) -> Tensor:
    """See `host.draw_back`."""
    scene, slots, left, last, columns, counts = drawn
    flat, starts = scene[0], scene[2]
    # Rows are those of one Gaussian after another, added in order: the same bits each time.
    each = flat.new_zeros(len(slots), flat.shape[1])
    to = (to_rgb.contiguous(), to_left.contiguous())
    height, width = left.shape
    with torch.cuda.device(flat.get_device()):
        triton_kernels.draw_back[len(starts) - 1,](
            *scene, slots, left, last, *to, each, width, height, columns, num_warps=WARPS_BACK
        )
    return torch.segment_reduce(each, "sum", lengths=counts, initial=0, unsafe=True)


def _intersections(boxes: Tensor, counts: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """`(S,)` numbers of Gaussians, ascending, and of the tiles that these are in, ascending too."""
    owners = torch.repeat_interleave(counts)
    number = torch.arange(len(owners), device=boxes.device) - (counts.cumsum(0) - counts)[owners]
    first, final, top, _ = (boxes.long() // TILE)[owners].unbind(1)
    wide = final - first + 1
    return owners, (top + number // wide) * columns + first + number % wide
