import weakref

import numpy as np
import pytest
import torch

from codec.bitstream import Box, Header
from codec.models.base import TileGeometry
from codec.tiling import TILE, analyse_tile, geometry_of, reconstruct, tile_side
from tests.codec.toy import STRIDE, Toy

# (height, width): whole tiles, a last tile narrower than a latent or than the halo, one row, one
# column, one tile.
SIZES = ((128, 192), (129, 65), (70, 193), (64, 200), (200, 33), (60, 60))


def header(height, width, tile):
    tile = tile if tile < max(height, width) else 0
    return Header(family=250, model_id=bytes(8), width=width, height=height, quality=100, tile=tile)


def picture(height, width):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(3))


def crop(x):
    def pixels(box):
        part = x[:, :, box.top : box.top + box.height, box.left : box.left + box.width]
        assert part.shape[2:] == (box.height, box.width)
        return part

    return pixels


def grid(family, symbols, geometry):
    return family.dequantise(symbols, geometry)[0].numpy()


def through(family, x, head, window):
    """What `reconstruct` gives for a window, as one image with holes where it gave nothing."""

    def latents(number):
        asked.append(number)
        return family.dequantise(
            analyse_tile(family, crop(x), head, number), geometry_of(head, number)
        )

    asked = []
    found = torch.full_like(x, torch.nan)
    for box, part in reconstruct(family, latents, head, window):
        found[:, :, box.top : box.top + box.height, box.left : box.left + box.width] = part
    return found, asked


def test_small_images_are_one_tile():
    assert tile_side(TILE, TILE) == 0
    assert tile_side(TILE + 1, 1) == tile_side(1, TILE + 1) == TILE


@pytest.mark.parametrize("radius", [0, 2])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_have_the_latents_of_the_whole(height, width, radius):
    family, x = Toy(radius), picture(height, width)
    whole = grid(
        family,
        analyse_tile(family, crop(x), header(height, width, 1 << 16), 0),
        TileGeometry(height, width, 100),
    )
    head = header(height, width, 64)
    for number in range(head.tiles):
        box = head.box(number)
        part = grid(family, analyse_tile(family, crop(x), head, number), geometry_of(head, number))
        top, left = box.top // STRIDE, box.left // STRIDE
        wanted = whole[:, top : top + part.shape[1], left : left + part.shape[2]]
        assert np.allclose(part, wanted, atol=1.01 / 255)  # a tie may round the other way
        assert (part != wanted).mean() < 0.001


@pytest.mark.parametrize("radius", [0, 2])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_joined_tiles_are_the_whole_without_a_seam(height, width, radius):
    family, x = Toy(radius), picture(height, width)
    window = Box(0, 0, width, height)
    whole, _ = through(family, x, header(height, width, 1 << 16), window)
    joined, asked = through(family, x, header(height, width, 64), window)
    assert torch.allclose(joined, whole, atol=1.01 / 255)
    assert asked == list(range(header(height, width, 64).tiles))


@pytest.mark.parametrize(
    ("window", "radius", "needed"),
    [
        (Box(0, 0, 64, 64), 0, [0]),
        (Box(0, 0, 64, 64), 2, [0, 1, 5, 6]),
        (Box(63, 0, 2, 1), 0, [0, 1]),
        (Box(130, 130, 1, 1), 2, [6, 7, 8, 11, 12, 13, 16, 17, 18]),
        (Box(319, 319, 1, 1), 2, [18, 19, 23, 24]),
    ],
)
def test_a_window_asks_for_its_tiles_and_their_neighbours_only(window, radius, needed):
    family, x = Toy(radius), picture(320, 320)
    head = header(320, 320, 64)
    part, asked = through(family, x, head, window)
    assert asked == needed
    whole, _ = through(family, x, head, Box(0, 0, 320, 320))
    here = np.s_[
        :, :, window.top : window.top + window.height, window.left : window.left + window.width
    ]
    assert torch.equal(part[here], whole[here])


@pytest.mark.parametrize("radius", [0, 2])
@pytest.mark.parametrize(("height", "width", "most"), [(1, 1300, 3), (500, 1, 3), (200, 640, 23)])
def test_no_more_latents_are_kept_than_the_tiles_to_come_need(height, width, most, radius):
    family, head = Toy(radius), header(height, width, 64)
    alive, counts = weakref.WeakSet(), []

    def latents(number):
        geometry = geometry_of(head, number)
        y_hat = torch.zeros(1, 3 * STRIDE**2, -(-geometry.height // 16), -(-geometry.width // 16))
        alive.add(y_hat)
        return y_hat

    for _ in reconstruct(family, latents, head, Box(0, 0, width, height)):
        counts.append(len(alive))
    assert len(counts) == head.tiles
    assert max(counts) <= (most if radius else 1)
