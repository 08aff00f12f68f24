"""Drawing of flat Gaussians in tiles of 16x16 pixels, compiled. Knows arrays only.

Import this module only where it is used: it loads numba. Nothing here depends on how many threads
there are. Inner loops run over the sixteen pixels of a row without a branch, so that they become
vector instructions.

    flat: (N, 9) x, y, conic's a, b, c, opacity, red, green, blue
    cuts: (N,) the exponent from which on a Gaussian is too faint to count
    boxes: (N, 4) int32 first and last column and row of pixels, inside the picture; the first is
        greater than the last where nothing is to be drawn
    starts: (tiles + 1,) int64 where in `members` a tile's Gaussians begin
    members: (S,) int32 numbers of Gaussians, tile after tile, the nearest first
    left: (H, W) what is left of the light behind everything
    last: (H, W) int64 one more than the last of `members` that a pixel shows
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from codec.entropy.kernels import compiled
from codec.models.gauss.raster import ALPHA_MAX, LEFT_MIN, TILE

__all__ = ["count", "draw", "draw_back", "fill", "gather"]

EXPONENT_MAX = 5.6  # above log(255), beyond which nothing is drawn

FREE = {"contract", "reassoc", "nsz"}


def _fast(function: Callable[..., Any]) -> Callable[..., Any]:
    return compiled(function, fastmath=FREE)


@compiled
def count(boxes, columns, counts):  # type: ignore[no-untyped-def]
    """Add to `counts` (tiles,) how many Gaussians each tile shows."""
    for n in range(len(boxes)):
        if boxes[n, 0] <= boxes[n, 1] and boxes[n, 2] <= boxes[n, 3]:
            for row in range(boxes[n, 2] // TILE, boxes[n, 3] // TILE + 1):
                for column in range(boxes[n, 0] // TILE, boxes[n, 1] // TILE + 1):
                    counts[row * columns + column] += 1


@compiled
def fill(boxes, order, columns, free, members):  # type: ignore[no-untyped-def]
    """Write `members`, going through Gaussians in `order`; `free` begins as `starts`, and moves."""
    for n in order:
        if boxes[n, 0] <= boxes[n, 1] and boxes[n, 2] <= boxes[n, 3]:
            for row in range(boxes[n, 2] // TILE, boxes[n, 3] // TILE + 1):
                for column in range(boxes[n, 0] // TILE, boxes[n, 1] // TILE + 1):
                    tile = row * columns + column
                    members[free[tile]] = n
                    free[tile] += 1


@_fast
def _weigh(one, cut, x, y, weights):  # type: ignore[no-untyped-def]
    """Let `weights` be the opacities of a Gaussian along a row of pixels that begins at x, y."""
    dtype = weights.dtype.type
    a, b, c, opacity = one[2], one[3], one[4], one[5]
    dy = one[1] - y
    base, slope, half = c * dy * dy * dtype(0.5), b * dy, a * dtype(0.5)
    most, top, step = dtype(EXPONENT_MAX), dtype(ALPHA_MAX), dtype(-1 / 16)
    c2, c3, c4, c5, c6 = dtype(1 / 2), dtype(1 / 6), dtype(1 / 24), dtype(1 / 120), dtype(1 / 720)
    unit = dtype(1)
    for i in range(TILE):
        dx = one[0] - (x + dtype(i))
        exponent = base + dx * (slope + half * dx)
        # exp(-s) is the sixteenth power of exp(-s / 16), of which six terms are enough.
        u = min(exponent, most) * step
        e = unit + u * (unit + u * (c2 + u * (c3 + u * (c4 + u * (c5 + u * c6)))))
        e *= e
        e *= e
        e *= e
        e *= e
        inside = exponent <= cut and exponent >= 0
        weights[i] = min(opacity * e, top) if inside else dtype(0)


@_fast
def draw(flat, cuts, boxes, starts, members, columns, rgb, left, last):  # type: ignore[no-untyped-def]
    """Fill `rgb` (H, W, 3), `left` and `last`."""
    dtype = left.dtype.type
    height, width = left.shape
    light = np.empty((TILE, TILE), left.dtype)
    open_ = np.empty((TILE, TILE), left.dtype)
    sums = np.empty((3, TILE, TILE), left.dtype)
    ends = np.empty((TILE, TILE), np.int64)
    weights = np.empty(TILE, left.dtype)
    least, unit = dtype(LEFT_MIN), dtype(1)
    for tile in range(len(starts) - 1):
        top, first = tile // columns * TILE, tile % columns * TILE
        light[:] = unit
        open_[:] = unit
        sums[:] = 0
        ends[:] = 0
        for at in range(starts[tile], starts[tile + 1]):
            n = members[at]
            one = flat[n]
            red, green, blue = one[6], one[7], one[8]
            begin, end = max(boxes[n, 2] - top, 0), min(boxes[n, 3] - top, TILE - 1)
            for j in range(begin, end + 1):
                y = dtype(top + j) + dtype(0.5)
                _weigh(one, cuts[n], dtype(first) + dtype(0.5), y, weights)
                for i in range(TILE):
                    weight = weights[i] * open_[j, i]
                    after = light[j, i] * (unit - weight)
                    dark = after < least
                    open_[j, i] = dtype(0) if dark else open_[j, i]
                    weight = dtype(0) if dark else weight
                    share = weight * light[j, i]
                    sums[0, j, i] += share * red
                    sums[1, j, i] += share * green
                    sums[2, j, i] += share * blue
                    light[j, i] -= share
                    ends[j, i] = at + 1 if weight > 0 else ends[j, i]
            if at % 32 == 31 and open_.max() == 0:
                break
        for j in range(min(TILE, height - top)):
            for i in range(min(TILE, width - first)):
                left[top + j, first + i] = light[j, i]
                last[top + j, first + i] = ends[j, i]
                for channel in range(3):
                    rgb[top + j, first + i, channel] = sums[channel, j, i]


@_fast
def draw_back(flat, cuts, boxes, starts, members, columns, left, last, to_rgb, to_left, each):  # type: ignore[no-untyped-def]
    """Fill `each` (S, 9): the gradient of `flat` through each of `members` alone.

    `to_rgb` (H, W, 3) and `to_left` (H, W) are the gradients of the picture and of `left`.
    """
    dtype = left.dtype.type
    height, width = left.shape
    light = np.empty((TILE, TILE), left.dtype)
    behind = np.empty((TILE, TILE), left.dtype)  # what the picture's gradient says of it
    weights = np.empty(TILE, left.dtype)
    unit, top_weight = dtype(1), dtype(ALPHA_MAX)
    for tile in range(len(starts) - 1):
        top, first = tile // columns * TILE, tile % columns * TILE
        rows, wide = min(TILE, height - top), min(TILE, width - first)
        final = 0
        for j in range(rows):
            for i in range(wide):
                light[j, i] = left[top + j, first + i]
                behind[j, i] = light[j, i] * to_left[top + j, first + i]
                final = max(final, last[top + j, first + i])
        for at in range(final - 1, starts[tile] - 1, -1):
            n = members[at]
            one = flat[n]
            a, b, c, opacity = one[2], one[3], one[4], one[5]
            begin, end = max(boxes[n, 2] - top, 0), min(boxes[n, 3] - top, rows - 1)
            g0 = g1 = g2 = g3 = g4 = g5 = g6 = g7 = g8 = dtype(0)
            for j in range(begin, end + 1):
                y = dtype(top + j) + dtype(0.5)
                _weigh(one, cuts[n], dtype(first) + dtype(0.5), y, weights)
                dy = one[1] - y
                for i in range(wide):
                    weight = weights[i] if at < last[top + j, first + i] else dtype(0)
                    through = unit - weight
                    before = light[j, i] / through
                    share = weight * before
                    red, green, blue = (
                        to_rgb[top + j, first + i, 0],
                        to_rgb[top + j, first + i, 1],
                        to_rgb[top + j, first + i, 2],
                    )
                    own = one[6] * red + one[7] * green + one[8] * blue
                    to_weight = before * own - behind[j, i] / through
                    g6 += share * red
                    g7 += share * green
                    g8 += share * blue
                    behind[j, i] += share * own
                    light[j, i] = before
                    inner = to_weight * weight if weight < top_weight else dtype(0)
                    g5 += inner
                    dx = one[0] - (dtype(first + i) + dtype(0.5))
                    g0 -= inner * (a * dx + b * dy)
                    g1 -= inner * (c * dy + b * dx)
                    g2 -= inner * dx * dx
                    g3 -= inner * dx * dy
                    g4 -= inner * dy * dy
            each[at, 0], each[at, 1] = g0, g1
            each[at, 2], each[at, 3], each[at, 4] = g2 * dtype(0.5), g3, g4 * dtype(0.5)
            each[at, 5] = g5 / opacity
            each[at, 6], each[at, 7], each[at, 8] = g6, g7, g8


@compiled
def gather(members, each, total):  # type: ignore[no-untyped-def]
    """Add to `total` (N, 9) what `each` says, in the order of `members`."""
    for at in range(len(members)):
        for k in range(each.shape[1]):
            total[members[at], k] += each[at, k]
