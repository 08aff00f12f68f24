"""Crops are crops: of every photograph, at every place, turned in every way, and nothing else."""

import numpy as np
import pytest
import torch

from codec.training.patches import Patches


def photos() -> list[np.ndarray]:
    """Three photographs of different shapes in which no two samples are equal."""
    shapes = ((3, 5, 7), (3, 6, 4), (3, 3, 9))
    whole = np.arange(sum(np.prod(shape) for shape in shapes), dtype=np.int64)
    assert whole.size > 255  # more than bytes can tell apart: equal ones lie in different planes
    parts = np.split(whole % 251, np.cumsum([np.prod(shape) for shape in shapes])[:-1])
    return [p.reshape(s).astype(np.uint8) for p, s in zip(parts, shapes, strict=True)]


def test_every_turn_of_every_crop_is_drawn_and_nothing_else() -> None:
    made = photos()
    side = 4
    expected = set()
    for photo in made[:2]:  # the third is too low
        for top in range(photo.shape[1] - side + 1):
            for left in range(photo.shape[2] - side + 1):
                crop = photo[:, top : top + side, left : left + side]
                for turned in (crop, crop[:, ::-1]):
                    for quarter in range(4):
                        expected.add(np.rot90(turned, quarter, (1, 2)).tobytes())
    numbers = torch.rand(3000, 4, generator=torch.Generator().manual_seed(0))
    drawn = Patches(made, torch.device("cpu")).draw(numbers, side)
    assert drawn.shape == (3000, 3, side, side)
    found = {(255 * crop).round().byte().numpy().tobytes() for crop in drawn}
    assert found == expected


def test_a_photographs_chance_is_its_area() -> None:
    made = [np.full((3, 10, 10), 10, np.uint8), np.full((3, 10, 30), 30, np.uint8)]
    numbers = torch.rand(4000, 4, generator=torch.Generator().manual_seed(1))
    drawn = Patches(made, torch.device("cpu")).draw(numbers, 8)
    share = (drawn[:, 0, 0, 0] * 255 == 30).float().mean().item()
    assert abs(share - 0.75) < 0.03


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_the_least_and_the_largest_number_draw_what_fits(number: float) -> None:
    made = [np.full((3, 3, 9), 1, np.uint8), np.full((3, 5, 7), 2, np.uint8)]
    made.append(np.full((3, 9, 3), 3, np.uint8))
    drawn = Patches(made, torch.device("cpu")).draw(torch.full((1, 4), number), 4)
    assert torch.equal(torch.full((1, 3, 4, 4), 2 / 255), drawn)
