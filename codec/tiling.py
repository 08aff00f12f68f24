"""An image as tiles that are coded alone and joined without seams. Knows no symbol and no file.

A filter at a tile's edge looks at the pixels or latents of the neighbours, its halo, so the joined
image is what one large tile would have given, in the memory of a row of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from codec.bitstream import Box, Header
from codec.models.base import SHORT, AbstractFamily, Halo, Search, Symbols, TileGeometry

__all__ = ["TILE", "analyse_tile", "geometry_of", "reconstruct", "tile_side"]

TILE = 1024


def tile_side(width: int, height: int) -> int:
    """The header's `tile` for an image: 0 if it is coded as one."""
    return TILE if max(width, height) > TILE else 0


def geometry_of(header: Header, number: int) -> TileGeometry:
    """What `AbstractFamily` wants to know of tile `number`."""
    box = header.box(number)
    return TileGeometry(height=box.height, width=box.width, quality=header.quality)


def analyse_tile(
    family: AbstractFamily,
    pixels: Callable[[Box], Tensor],
    header: Header,
    number: int,
    search: Search = SHORT,
) -> Symbols:
    """The symbols of one tile.

    Args:
        family: of the codec.
        pixels: gives the `(1, 3, height, width)` of a box inside the image, in [0, 1].
        header: of the image.
        number: of the tile in raster order.
        search: how hard to look for symbols that cost less.
    """
    box = header.box(number)
    below = header.height - box.top - box.height
    beside = header.width - box.left - box.width
    halo = Halo(
        left=min(family.halo, box.left),
        top=min(family.halo, box.top),
        right=min(family.halo, _whole(beside, family.stride)),
        bottom=min(family.halo, _whole(below, family.stride)),
    )
    x = pixels(
        Box(
            box.left - halo.left,
            box.top - halo.top,
            halo.left + box.width + min(halo.right, beside),
            halo.top + box.height + min(halo.bottom, below),
        )
    )
    # A halo is whole latents, also where the neighbour is narrower than one.
    missing = (0, max(0, halo.right - beside), 0, max(0, halo.bottom - below))
    if any(missing):
        x = functional.pad(x, missing, mode="replicate")
    return family.analyse(x, geometry_of(header, number), halo, search)


def reconstruct(
    family: AbstractFamily, latents: Callable[[int], Tensor], header: Header, window: Box
) -> Iterator[tuple[Box, Tensor]]:
    """The pixels of all tiles that touch `window`, in raster order.

    Args:
        family: of the codec.
        latents: gives the `(1, M, h, w)` latents of a tile; asked once for each that is needed, in
            raster order; two rows of tiles and three tiles are kept at most, of one row only these.
        header: of the image.
        window: inside the image.

    Yields:
        A tile's box and its `(1, 3, height, width)` pixels, about [0, 1].
    """
    reach = family.halo // family.stride
    side = header.tile or max(header.width, header.height)
    rows = range(window.top // side, (window.top + window.height - 1) // side + 1)
    columns = range(window.left // side, (window.left + window.width - 1) // side + 1)
    margin = int(reach > 0)
    needed_columns = range(
        max(0, columns.start - margin), min(header.columns, columns.stop + margin)
    )
    needed_rows = range(max(0, rows.start - margin), min(header.rows, rows.stop + margin))
    coming = ((row, column) for row in needed_rows for column in needed_columns)
    kept: dict[tuple[int, int], Tensor] = {}
    for row in rows:
        kept = {place: y_hat for place, y_hat in kept.items() if place[0] >= row - margin}
        for column in columns:
            corner = (
                min(row + margin, needed_rows[-1]),
                min(column + margin, needed_columns[-1]),
            )
            while corner not in kept:
                place = next(coming)
                kept[place] = latents(place[0] * header.columns + place[1])
            box = header.box(row * header.columns + column)
            y_hat, top, left = _with_neighbours(kept, row, column, reach)
            x_hat = family.synthesise(y_hat, header.quality)
            y, x = top * family.stride, left * family.stride
            yield box, x_hat[:, :, y : y + box.height, x : x + box.width]
            # Whoever is left of here and above is done, and in the last row all who are left.
            done = range(row - margin, row + (margin + 1 if row == rows[-1] else 1 - margin))
            for above in done:
                kept.pop((above, column - margin), None)


def _with_neighbours(
    tiles: dict[tuple[int, int], Tensor], row: int, column: int, reach: int
) -> tuple[Tensor, int, int]:
    """A tile's latents inside up to `reach` of the neighbours'; how many are above and left."""
    parts = {-1: slice(-reach, None), 0: slice(None), 1: slice(0, reach)}
    steps = (-1, 0, 1) if reach else (0,)
    bands = []
    for down in steps:
        cells = [
            tiles[row + down, column + right][:, :, parts[down], parts[right]]
            for right in steps
            if (row + down, column + right) in tiles
        ]
        if cells:
            bands.append(torch.cat(cells, dim=3))
    top = min(reach, tiles[row - 1, column].shape[2]) if (row - 1, column) in tiles else 0
    left = min(reach, tiles[row, column - 1].shape[3]) if (row, column - 1) in tiles else 0
    return torch.cat(bands, dim=2), top, left


def _whole(pixels: int, stride: int) -> int:
    """`pixels` rounded up to a multiple of `stride`."""
    return -(-pixels // stride) * stride
