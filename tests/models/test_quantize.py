"""Laws of rounding, noise and bits."""

import math

import pytest
import torch

from codec.models.quantize import (
    WORTH,
    add_noise,
    bits_of_one,
    dead_zone,
    gaussian_bits,
    lower_bound,
    round_ste,
    round_towards_zero,
)


def test_noise_stays_within_half_a_step_and_comes_from_the_generator() -> None:
    y = torch.zeros(1000)
    first = add_noise(y, generator=torch.Generator().manual_seed(1))
    again = add_noise(y, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert -0.5 <= first.min() < -0.4
    assert 0.4 < first.max() < 0.5


def test_rounding_has_the_gradient_of_the_identity() -> None:
    y = torch.tensor([0.2, 0.7, -1.6], requires_grad=True)
    rounded = round_ste(y)
    rounded.sum().backward()
    assert rounded.tolist() == [0, 1, -2]
    assert y.grad is not None
    assert y.grad.tolist() == [1, 1, 1]


def test_bits_of_all_integers_are_the_bits_of_one() -> None:
    y = torch.arange(-400.0, 401)
    for scale in (0.11, 1.0, 37.0):
        bits = gaussian_bits(y, torch.tensor(0.3), torch.tensor(scale))
        assert bits.min() >= 0
        assert (2**-bits).sum().item() == pytest.approx(1, abs=1e-5)


def test_bits_are_finite_and_grow_far_from_the_mean() -> None:
    far = gaussian_bits(torch.tensor([10.0, 20.0, 40.0]), torch.tensor(0.0), torch.tensor(0.5))
    assert far.isfinite().all()
    # -log2 of the Gaussian's tail, x^2 / (2 s^2 ln 2), leads at 79 standard deviations.
    assert far[2].item() == pytest.approx(39.5**2 / (2 * 0.25 * math.log(2)), rel=0.01)
    assert far[0] < far[1] < far[2]


def test_a_value_below_the_bound_can_come_back_but_sinks_no_further() -> None:
    x = torch.tensor([-1.0, -1.0, 2.0], requires_grad=True)
    (lower_bound(x, 0.0) * torch.tensor([1.0, -1.0, 1.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, -1.0, 1.0]


def test_rounding_towards_zero_keeps_the_smaller_magnitude_within_its_offset() -> None:
    y = torch.tensor([0.49, 0.6, 0.71, -0.6, -0.71, 1.69, -1.71])
    assert round_towards_zero(y, torch.tensor(0.2)).tolist() == [0, 0, 1, 0, -1, 1, -2]
    assert round_towards_zero(y, torch.tensor(0.0)).tolist() == [0, 1, 1, -1, -1, 2, -2]


def test_the_dead_zone_is_where_a_one_starts_to_pay_for_its_bits() -> None:
    for scale in (0.9, 2.0, 10.0):
        scales = torch.tensor([scale])
        offset = dead_zone(bits_of_one(scales)).item()
        assert 0 < offset < 0.45
        value = 0.5 + offset
        costs = [
            gaussian_bits(torch.tensor([symbol]), torch.zeros(1), scales).item()
            + WORTH * (value - symbol) ** 2
            for symbol in (0.0, 1.0)
        ]
        assert costs[0] == pytest.approx(costs[1], abs=1e-4)
    assert dead_zone(bits_of_one(torch.tensor([0.11]))).item() == pytest.approx(0.45)
