"""The encoder's search, with the shipped weights: it pays, and it is the same each time."""

import numpy as np
import pytest
import torch
from skimage import data

from codec.entropy import BitCounter
from codec.models.base import Halo, Search, Symbols, TileGeometry
from codec.models.iscs import Iscs
from codec.weights import SHIPPED

GEOMETRY = TileGeometry(90, 120, 50)


@pytest.fixture(scope="module")
def codec() -> Iscs:
    family = SHIPPED.load(SHIPPED.find("iscs"))
    assert isinstance(family, Iscs)
    return family


def picture(top: int, left: int) -> torch.Tensor:
    piece = data.astronaut()[top : top + 154, left : left + 184]
    return torch.from_numpy(piece.transpose(2, 0, 1).copy())[None].float() / 255


def cost(codec: Iscs, x: torch.Tensor, symbols: Symbols) -> float:
    """Bits + lambda 255^2 MSE pixels: what the search is to make small."""
    counter = BitCounter()
    codec.traverse(counter, symbols, GEOMETRY)
    x_hat = codec.synthesise(codec.dequantise(symbols, GEOMETRY), GEOMETRY.quality)
    squares = (x_hat[:, :, :90, :120] - x).square().sum().item() / 3
    lmbda = codec.network.config.lmbda_of(torch.tensor(float(GEOMETRY.quality))).item()
    return counter.bits + lmbda * 255**2 * squares


@pytest.mark.parametrize("halo", [Halo(), Halo(left=32, top=32, right=32, bottom=32)])
def test_each_round_of_search_costs_less_or_as_much(codec: Iscs, halo: Halo) -> None:
    whole = picture(100, 150)
    x = whole[:, :, 32 : 32 + 90, 32 : 32 + 120]
    given = x if halo == Halo() else whole
    costs = [
        cost(codec, x, codec.analyse(given, GEOMETRY, halo, Search(effort=effort)))
        for effort in range(7)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.995 * costs[0]
    in_vain = next(k for k in range(6) if costs[k] == costs[k + 1])
    assert costs[-1] < costs[in_vain]  # by a smaller step


def test_the_search_finds_the_same_each_time(codec: Iscs) -> None:
    x = picture(0, 0)[:, :, :90, :120]
    one, other = (codec.analyse(x, GEOMETRY, Halo(), Search(effort=2)) for _ in range(2))
    np.testing.assert_array_equal(one["y"], other["y"])
    assert (one["y"] != codec.analyse(x, GEOMETRY, Halo())["y"]).any()
