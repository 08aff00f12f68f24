"""The loops of `kernels.py` for a GPU: one program draws one tile. Knows arrays only.

The arithmetic, the cut-offs and the names are those of `codec.models.gauss.kernels`, and so is the
order of the Gaussians in a tile. All pixels of a tile take a Gaussian at once.

    flat: (N, 9), cuts: (N,), starts: (tiles + 1,) int32, members: (S,) int32, left: (H, W)
    slots: (S,) int32 the row of `each` that is for each of `members`
    last: (H, W) int32

Import this module only where it is used: it needs triton. `TRITON_INTERPRET=1` in the environment
runs it without a GPU, slowly.
"""

from __future__ import annotations

import triton
import triton.language as tl

from codec.models.gauss import raster

__all__ = ["draw", "draw_back"]

TILE = tl.constexpr(raster.TILE)
ALPHA_MAX, LEFT_MIN = tl.constexpr(raster.ALPHA_MAX), tl.constexpr(raster.LEFT_MIN)
ROUND = tl.constexpr(32)  # Gaussians, after which a tile may be found to be dark


@triton.jit
def _pixels(width, height, columns):  # type: ignore[no-untyped-def]
    """Columns, rows and numbers in the picture of a tile's pixels, and whether they are in it."""
    tile, i = tl.program_id(0), tl.arange(0, TILE * TILE)
    x, y = tile % columns * TILE + i % TILE, tile // columns * TILE + i // TILE
    return x, y, y.to(tl.int64) * width + x, (x < width) & (y < height)


@triton.jit
def _weigh(flat, cuts, n, x, y):  # type: ignore[no-untyped-def]
    """Opacities of Gaussian `n` at pixels, and how far its centre is from theirs."""
    one = flat + n * 9
    dx, dy = tl.load(one) - (x + 0.5), tl.load(one + 1) - (y + 0.5)
    a, b, c = tl.load(one + 2), tl.load(one + 3), tl.load(one + 4)
    exponent = c * dy * dy * 0.5 + dx * (b * dy + a * dx * 0.5)
    seen = (exponent <= tl.load(cuts + n)) & (exponent >= 0)
    weight = tl.minimum(tl.load(one + 5) * tl.exp(-exponent), ALPHA_MAX)
    return tl.where(seen, weight, 0), dx, dy


@triton.jit
def draw(  # type: ignore[no-untyped-def]
    flat, cuts, starts, members, rgb, left, last, width, height, columns
):  # fmt: skip
    """`kernels.draw`: fill `rgb` (H, W, 3), `left` and `last`."""
    x, y, pixel, open_ = _pixels(width, height, columns)
    inside = open_
    x, y = x.to(left.dtype.element_ty), y.to(left.dtype.element_ty)
    light = tl.full((TILE * TILE,), 1, left.dtype.element_ty)
    red, green, blue = tl.zeros_like(light), tl.zeros_like(light), tl.zeros_like(light)
    final = tl.zeros((TILE * TILE,), tl.int32)
    begin, end = tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)
    while begin < end:
        for at in range(begin, tl.minimum(begin + ROUND, end)):
            n = tl.load(members + at).to(tl.int64)
            weight, _, _ = _weigh(flat, cuts, n, x, y)
            open_ = open_ & (light * (1 - weight) >= LEFT_MIN)
            weight = tl.where(open_, weight, 0)
            share = weight * light
            red += share * tl.load(flat + n * 9 + 6)
            green += share * tl.load(flat + n * 9 + 7)
            blue += share * tl.load(flat + n * 9 + 8)
            light -= share
            final = tl.where(weight > 0, at + 1, final)
        begin = tl.where(tl.max(open_.to(tl.int32), 0) > 0, begin + ROUND, end)
    tl.store(rgb + pixel * 3, red, mask=inside)
    tl.store(rgb + pixel * 3 + 1, green, mask=inside)
    tl.store(rgb + pixel * 3 + 2, blue, mask=inside)
    tl.store(left + pixel, light, mask=inside)
    tl.store(last + pixel, final, mask=inside)


@triton.jit
def draw_back(  # type: ignore[no-untyped-def]
    flat, cuts, starts, members, slots, left, last, to_rgb, to_left, each, width, height, columns
):  # fmt: skip
    """`kernels.draw_back`: fill `each` (S, 9) but for what no pixel of its tile shows."""
    x, y, pixel, inside = _pixels(width, height, columns)
    x, y = x.to(left.dtype.element_ty), y.to(left.dtype.element_ty)
    light = tl.load(left + pixel, mask=inside, other=1)
    behind = light * tl.load(to_left + pixel, mask=inside, other=0)
    final = tl.load(last + pixel, mask=inside, other=0)
    to_red = tl.load(to_rgb + pixel * 3, mask=inside, other=0)
    to_green = tl.load(to_rgb + pixel * 3 + 1, mask=inside, other=0)
    to_blue = tl.load(to_rgb + pixel * 3 + 2, mask=inside, other=0)
    begin, end = tl.load(starts + tl.program_id(0)), tl.max(final, 0)
    for done in range(begin, end):
        at = begin + end - 1 - done
        n = tl.load(members + at).to(tl.int64)
        one = flat + n * 9
        weight, dx, dy = _weigh(flat, cuts, n, x, y)
        weight = tl.where(at < final, weight, 0)
        through = 1 - weight
        light = light / through  # as it was before
        share = weight * light
        own = tl.load(one + 6) * to_red + tl.load(one + 7) * to_green + tl.load(one + 8) * to_blue
        to_weight = light * own - behind / through
        behind += share * own
        inner = tl.where(weight < ALPHA_MAX, to_weight * weight, 0)
        a, b, c = tl.load(one + 2), tl.load(one + 3), tl.load(one + 4)
        to = each + tl.load(slots + at).to(tl.int64) * 9
        tl.store(to, -tl.sum(inner * (a * dx + b * dy), 0))
        tl.store(to + 1, -tl.sum(inner * (c * dy + b * dx), 0))
        tl.store(to + 2, -0.5 * tl.sum(inner * dx * dx, 0))
        tl.store(to + 3, -tl.sum(inner * dx * dy, 0))
        tl.store(to + 4, -0.5 * tl.sum(inner * dy * dy, 0))
        tl.store(to + 5, tl.sum(inner, 0) / tl.load(one + 5))
        tl.store(to + 6, tl.sum(share * to_red, 0))
        tl.store(to + 7, tl.sum(share * to_green, 0))
        tl.store(to + 8, tl.sum(share * to_blue, 0))
