"""Codewords, their bits and the search for them, against slow references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from codec.models.quantize import WORTH
from codec.models.umgm.kernels import search
from codec.models.umgm.mixture import (
    LEVEL_STEP,
    LEVEL_UNIT,
    LEVELS,
    Mixture,
    likely_integers,
    nearest,
)

SHAPES = ((2, 1, 16), (1, 3, 11), (3, 2, 7))


def varied(shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> Mixture:
    """A mixture whose every parameter says something."""
    generator = torch.Generator().manual_seed(4)
    mixture = Mixture(shapes)
    with torch.no_grad():
        for bank, _, _ in mixture.pieces():
            for parameter, scale in ((bank.codewords, 2.0), (bank.bias, 0.7), (bank.spread, 0.4)):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return mixture


def inputs(mixture: Mixture, n: int = 2, h: int = 3, w: int = 5) -> tuple[Tensor, Tensor]:
    """Vectors and levels that are no integers, both with gradients."""
    generator = torch.Generator().manual_seed(6)
    x = 2 * torch.randn(n, mixture.channels, h, w, generator=generator)
    levels = LEVEL_UNIT + 3 * torch.randn(n, mixture.groups, h, w, generator=generator)
    return x.requires_grad_(), levels.requires_grad_()


def by_group(mixture: Mixture, x: Tensor) -> list[Tensor]:
    """`(N, channels, h, w)` as the vectors `(N, h, w, d)` of each group."""
    return [part.movedim(1, 3) for part in torch.split(x, mixture.sizes, dim=1)]


def words_of(mixture: Mixture) -> list[Tensor]:
    return [words for bank, _, _ in mixture.pieces() for words in bank.codewords.detach()]


def tables_of(mixture: Mixture) -> list[Tensor]:
    return [table for bank, _, _ in mixture.pieces() for table in bank.bits().detach()]


# ---- the search


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 6), st.integers(1, 8),
    st.integers(1, 40),
)  # fmt: skip
def test_the_compiled_search_is_an_argmin_and_takes_the_first_of_equals(
    seed: int, groups: int, count: int, dimensions: int, words: int
) -> None:
    rng = np.random.default_rng(seed)
    # Small integers: every sum is exact in any order, and equal costs are common.
    x = rng.integers(-3, 4, (groups, count, dimensions)).astype(np.float32)
    by = rng.integers(-3, 4, (groups, dimensions, words)).astype(np.float32)
    costs = rng.integers(0, 9, (groups, 4, words)).astype(np.float32)
    costs[rng.random(costs.shape) < 0.1] = np.inf
    levels = rng.integers(0, 4, (groups, count))
    codes = np.full((groups, count), -1)
    search(x, by, costs, levels, codes)
    expected = (costs[np.arange(groups)[:, None], levels] + x @ by).argmin(2)
    np.testing.assert_array_equal(expected, codes)


class Place(str):
    """A name of memory here that says it is a GPU's."""

    type = "cuda"


class Elsewhere(torch.Tensor):
    """A tensor here that says it is on a GPU: what is done with it there is done here."""

    @property
    def device(self) -> Place:  # type: ignore[override]
        return Place("cpu")


@pytest.mark.parametrize("kind", [torch.Tensor, Elsewhere])
@given(
    seed=st.integers(0, 2**32 - 1),
    dimensions=st.integers(1, 8),
    count=st.sampled_from([1, 2, 3, 5, 8, 13, 31, 64]),
)
def test_the_nearest_codeword_costs_least_bits_and_error(
    kind: type[Tensor], seed: int, dimensions: int, count: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(2, 9, dimensions, generator=generator)
    codewords = 3 * torch.randn(2, count, dimensions, generator=generator)
    bits = 30 * torch.rand(2, LEVELS, count, generator=generator)
    levels = (LEVELS - 1) * torch.rand(2, 9, generator=generator)
    found = nearest(x.as_subclass(kind), codewords, bits, levels).as_subclass(Tensor)
    errors = (x[:, :, None] - codewords[:, None]).double().square().sum(3)
    rates = torch.stack([bits[g, level] for g, level in enumerate(levels.round().long())])
    costs = rates + WORTH * errors
    assert found.shape == (2, 9)
    assert found.dtype == torch.long
    lost = costs.gather(2, found[..., None])[..., 0] - costs.amin(2)
    assert lost.max() < 1e-2  # float32 tells no smaller difference of sums in the thousands


# ---- bits


def test_bits_are_those_of_the_mixture_at_every_level() -> None:
    for bank, _, _ in varied().pieces():
        words, bias = bank.codewords.detach().double(), bank.bias.detach().double()
        for level, found in enumerate(bank.bits().double().unbind(1)):
            spread = (bank.spread.detach().double() + LEVEL_STEP * (level - LEVEL_UNIT)).exp()
            logits = bias - (words / spread[:, None]).square().sum(2) / 2
            expected = -logits.log_softmax(1) / math.log(2)
            assert torch.allclose(expected, found, rtol=1e-4, atol=1e-4)


def test_bits_are_code_lengths_and_a_larger_level_spreads_more() -> None:
    mixture = varied()
    for words, table in zip(words_of(mixture), tables_of(mixture), strict=True):
        masses = torch.exp2(-table.double())
        assert table.shape == (LEVELS, len(words))
        assert torch.allclose(masses.sum(1), torch.ones(LEVELS).double(), atol=1e-5)
    for bank, _, _ in mixture.pieces():
        scaled = bank.codewords.detach() * (-bank.spread.detach()).exp()[:, None]
        energy = (torch.exp2(-bank.bits()) * scaled.square().sum(2)[:, None]).sum(2)
        assert (energy.diff(dim=1) >= -1e-5).all()
        assert (energy[:, -1] > 1.5 * energy[:, 0]).all()


# ---- quantising


def test_what_is_quantised_are_codewords_and_each_the_best() -> None:
    mixture = varied()
    x, levels = inputs(mixture)
    found = mixture(x, levels)
    parts = zip(
        by_group(mixture, x.detach()),
        by_group(mixture, found.x_hat.detach()),
        levels.detach().round().clamp(0, LEVELS - 1).long().unbind(1),
        words_of(mixture),
        tables_of(mixture),
        strict=True,
    )
    total = torch.zeros(len(x))
    for own, own_hat, level, words, table in parts:
        costs = table[level] + WORTH * (own[..., None, :] - words).square().sum(4)
        best = words[costs.argmin(3)]
        assert torch.allclose(best, own_hat, atol=1e-5)
        total += WORTH * (own - best).square().sum((1, 2, 3))
    assert torch.allclose(total, found.error, rtol=1e-4)


def test_bits_lie_between_those_of_the_levels_around() -> None:
    mixture = varied()
    x, levels = inputs(mixture)
    with torch.no_grad():
        levels[0, 0], levels[1, 0], levels[1, 1] = -4.0, 40.0, LEVELS - 1  # bounded, and the last
    x_hat = mixture(x, levels).x_hat.detach()
    expected = torch.zeros(len(x))
    for own, level, words, table in zip(
        by_group(mixture, x_hat), levels.detach().unbind(1), words_of(mixture), tables_of(mixture),
        strict=True,
    ):  # fmt: skip
        codes = (own[..., None, :] - words).square().sum(4).argmin(3)
        bounded = level.clamp(0, LEVELS - 1)
        low = bounded.floor().long()
        high = bounded.ceil().long()
        share = bounded - low
        bits = table[low, codes] * (1 - share) + table[high, codes] * share
        expected += bits.sum((1, 2))
    assert torch.allclose(expected, mixture(x, levels).bits, rtol=1e-4)


def test_at_a_whole_level_bits_are_exactly_those_of_the_bank() -> None:
    bank = list(varied().pieces())[1].bank
    x = torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(1))
    for level in range(LEVELS):
        found, bits, _ = bank(x, torch.full((1, 40), float(level)))
        codes = (found[0, :, None] - bank.codewords[0]).abs().sum(2).argmin(1)
        assert torch.equal(bank.bits()[0, level, codes], bits[0])


def test_the_gradient_of_what_is_quantised_is_that_of_the_input() -> None:
    mixture = varied()
    x, levels = inputs(mixture)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    (mixture(x, levels).x_hat * weight).sum().backward()
    assert torch.equal(weight, x.grad)
    assert levels.grad is None
    assert all(parameter.grad is None for parameter in mixture.parameters())


def test_bits_move_levels_tables_and_input() -> None:
    mixture = varied()
    x, levels = inputs(mixture)
    mixture(x, levels).bits.sum().backward()
    inside = (levels > 0) & (levels < LEVELS - 1)
    assert x.grad is not None
    assert levels.grad is not None
    assert (x.grad != 0).float().mean() > 0.99
    assert (levels.grad[inside] != 0).float().mean() > 0.99
    for name, parameter in mixture.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name
    # Noise in place of codewords: values far from 0 cost more than those near it.
    assert (x.grad * x.sign()).mean() > 0


def test_a_level_moves_by_the_difference_of_its_neighbours_bits_alone() -> None:
    mixture = varied()
    x, levels = inputs(mixture)
    found = mixture(x, levels)
    found.bits.sum().backward()
    assert levels.grad is not None
    for own, level, grad, words, table in zip(
        by_group(mixture, found.x_hat.detach()),
        levels.detach().unbind(1),
        levels.grad.unbind(1),
        words_of(mixture),
        tables_of(mixture),
        strict=True,
    ):
        codes = (own[..., None, :] - words).square().sum(4).argmin(3)
        inside = (level > 0) & (level < LEVELS - 1)
        low = level.floor().clamp(0, LEVELS - 2).long()
        expected = table[low + 1, codes] - table[low, codes]
        assert torch.allclose(expected[inside], grad[inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("level", "end", "x", "pulled"),
    [
        (-3.0, 0, 6.0, -1),  # gradients: what is far wants more, what is near wants less
        (-3.0, 0, 0.0, 0),
        (40.0, LEVELS - 1, 0.0, 1),
        (40.0, LEVELS - 1, 8.0, 0),
    ],
)
def test_levels_beyond_the_ends_can_come_back_and_go_no_further(
    level: float, end: int, x: float, pulled: int
) -> None:
    mixture = Mixture(((1, 1, 16),))
    with torch.no_grad():
        next(mixture.pieces()).bank.codewords.copy_(torch.arange(-7.0, 9.0)[:, None])
        next(mixture.pieces()).bank.spread.fill_(LEVEL_STEP * (LEVEL_UNIT - end))
    levels = torch.full((1, 1, 1, 1), level, requires_grad=True)
    mixture(torch.full((1, 1, 1, 1), x), levels).bits.sum().backward()
    assert levels.grad is not None
    assert pulled == np.sign(levels.grad.item())


def test_the_error_moves_codewords_alone() -> None:
    mixture = varied()
    x, levels = inputs(mixture)
    mixture(x, levels).error.sum().backward()
    still = [x, levels]
    for bank, _, _ in mixture.pieces():
        still += [bank.bias, bank.spread]
        assert bank.codewords.grad is not None
        assert bank.codewords.grad.flatten(1).any(1).all()
    assert not any(tensor.grad is not None and tensor.grad.any() for tensor in still)


def test_bits_and_errors_count_where_the_mask_is_one() -> None:
    mixture = varied()
    x, levels = inputs(mixture, h=4, w=6)
    mask = (torch.rand(4, 6, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    parts = [mixture(x, levels, m) for m in (mask, 1 - mask, None)]
    inside, outside, whole = parts
    assert torch.equal(inside.x_hat, whole.x_hat)
    for key in ("bits", "error"):
        both = getattr(inside, key) + getattr(outside, key)
        assert torch.allclose(getattr(whole, key), both, rtol=1e-4)
    one = torch.zeros(4, 6)
    one[2, 3] = 1
    alone = mixture(x[:, :, 2:3, 3:4], levels[:, :, 2:3, 3:4])
    found = mixture(x, levels, one)
    assert torch.allclose(alone.bits, found.bits, rtol=1e-4)
    assert torch.allclose(alone.error, found.error, rtol=1e-4)


def test_samples_do_not_see_each_other() -> None:
    mixture = varied()
    x, levels = inputs(mixture, n=3)
    whole = mixture(x, levels)
    for n in range(3):
        alone = mixture(x[n : n + 1], levels[n : n + 1])
        assert torch.allclose(alone.x_hat[0], whole.x_hat[n], atol=1e-6)
        assert torch.allclose(alone.bits[0], whole.bits[n], rtol=1e-4)
        assert torch.allclose(alone.error[0], whole.error[n], rtol=1e-4)


# ---- the start


def probability(vectors: Tensor, std: Tensor) -> Tensor:
    """Of each `(count, d)` under rounded Laplacians."""
    scale = std.double() / math.sqrt(2)
    inside = 1 - (-0.5 / scale).exp()
    side = (-vectors.double().abs() / scale).exp() * (0.5 / scale).sinh()
    return torch.where(vectors == 0, inside, side).prod(1)


@pytest.mark.parametrize(
    ("std", "count"),
    [
        ([0.7], 1),
        ([0.7], 12),
        ([1.0, 2.0], 60),
        ([0.2, 1.0, 0.4, 0.6], 100),
        ([1e-3, 1e-3], 9),  # nothing but 0 is likely
        ([0.05, 1e-4, 0.05], 30),
        ([0.5] * 8, 40),
    ],
)
def test_the_likeliest_integers_are_so_many_different_ones_from_zero_on(
    std: list[float], count: int
) -> None:
    found = likely_integers(torch.tensor(std), count, torch.Generator().manual_seed(0))
    assert found.shape == (count, len(std))
    assert not found[0].any()
    assert torch.equal(found, found.round())
    assert len({tuple(row) for row in found.tolist()}) == count
    again = likely_integers(torch.tensor(std), count, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)


def test_the_likeliest_integers_are_in_order_and_none_that_is_likelier_is_left_out() -> None:
    std = torch.tensor([1.0, 1.5])
    found = likely_integers(std, 25, torch.Generator().manual_seed(0))
    grid = torch.cartesian_prod(*[torch.arange(-9.0, 10.0)] * 2)
    best = probability(grid, std).sort(descending=True).values[:25]
    own = probability(found, std)
    assert torch.allclose(best.log(), own.log(), atol=0.3)  # neighbours may change places
    assert own.sum() > 0.99 * best.sum()


def test_a_mixture_starts_with_the_likeliest_integers_and_the_spread_it_was_told() -> None:
    mixture = Mixture(SHAPES)
    std = torch.linspace(0.3, 2.5, mixture.channels)
    mixture.start(std, torch.Generator().manual_seed(0))
    assert torch.allclose(std.log(), mixture.spread())
    for words in words_of(mixture):
        assert not words[0].any()
        assert torch.equal(words, words.round())
        assert len(words.unique(dim=0)) == len(words)
    wide, narrow = words_of(mixture)[-1], words_of(mixture)[2]
    assert wide.abs().max() >= narrow.abs().max()


def test_channels_that_never_move_start_like_others() -> None:
    mixture = Mixture(((1, 2, 9),))
    mixture.start(torch.zeros(2))
    assert torch.equal(mixture.banks[0].codewords[0, 0], torch.zeros(2))
    assert mixture.spread().isfinite().all()


def test_more_codewords_than_there_are_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        likely_integers(torch.ones(2), 127**2 + 1)


def test_wide_spreads_do_not_pile_up_at_the_end() -> None:
    vectors = likely_integers(torch.full((2,), 30.0), 64, torch.Generator().manual_seed(1))
    assert vectors.abs().max() < 40
