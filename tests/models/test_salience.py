"""ISCS: order and groups from parameters, folded into the weights so that nothing else changes."""

import pytest
import torch

from codec.models.iscs import IscsConfig, IscsNetwork
from codec.models.iscs.salience import (
    correlations,
    partition,
    product_score,
    regroup,
    reorder,
    strict_score,
)

TINY = IscsConfig(M=16, inner=8, encoder_blocks=1, decoder_blocks=1, Z=4, hyper=8, context=8)


def network() -> IscsNetwork:
    torch.manual_seed(7)
    made = IscsNetwork(TINY)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        made.std.uniform_(0.5, 2.0)
    return made


def test_the_core_is_the_most_salient_and_every_channel_has_one_place() -> None:
    score = torch.tensor([0.1, 0.9, 0.3, 0.9, 0.2, 0.0, 0.8])
    order, sizes = partition(score, torch.eye(7), core=3, groups=2)
    assert order[:3] == (1, 3, 6)  # equal scores keep their order
    assert sizes == (3, 2, 2)
    assert sorted(order) == list(range(7))


def test_channels_that_correlate_share_a_group() -> None:
    correlation = torch.eye(7)
    for one, other in ((1, 6), (2, 5), (3, 4)):
        correlation[one, other] = correlation[other, one] = 0.9
    score = torch.linspace(1, 0, 7)
    order, sizes = partition(score, correlation, core=1, groups=3)
    assert sizes == (1, 2, 2, 2)
    assert order == (0, 1, 6, 2, 5, 3, 4)


@pytest.mark.parametrize("score", [strict_score, product_score])
def test_scores_and_correlations_come_from_parameters_alone(score: object) -> None:
    found = score(network())  # type: ignore[operator]
    assert found.shape == (16,)
    assert torch.equal(found, score(network()))  # type: ignore[operator]
    assert found.min() >= 0
    assert torch.allclose(torch.ones(16), correlations(network()).diagonal(), atol=1e-5)


def test_the_product_score_does_not_depend_on_the_scale_of_a_latent() -> None:
    plain, scaled = network(), network()
    with torch.no_grad():
        scaled.g_a.down.weight[5] *= 3
        scaled.g_s.up.weight[:, 5] /= 3
    assert torch.allclose(product_score(plain), product_score(scaled), atol=1e-5)
    assert not torch.allclose(strict_score(plain), strict_score(scaled), atol=1e-2)


def test_reordering_the_channels_changes_no_pixel_and_no_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In float64, where the order of a sum moves no latent across the border of its rounding.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    plain, permuted = network().double(), network().double()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1)).tolist()
    reorder(permuted, order)
    x, quality = torch.rand(2, 3, 64, 64).double(), torch.tensor([20.0, 80.0]).double()
    with torch.no_grad():
        y, y_permuted = (n.g_a(x, quality) for n in (plain, permuted))
        assert torch.allclose(y[:, order], y_permuted, rtol=1e-12)
        torch.manual_seed(0)
        one = plain(x, quality)
        torch.manual_seed(0)
        other = permuted(x, quality)
    levels = [(255 * found.x_hat.clamp(0, 1)).round() for found in (one, other)]
    assert torch.equal(*levels)
    # The noise in place of rounding belongs to places, not to channels.
    assert torch.allclose(one.bits, other.bits, rtol=0.05)


def test_only_a_permutation_is_an_order() -> None:
    with pytest.raises(ValueError, match="permutation"):
        reorder(network(), [0] * 16)


def test_regrouping_keeps_the_transforms_and_starts_from_the_old_context() -> None:
    plain = network()
    made = regroup(plain, (4, 6, 6))
    assert made.config.groups == (4, 6, 6)
    x, quality = torch.rand(1, 3, 64, 64), torch.tensor([50.0])
    with torch.no_grad():
        y = plain.g_a(x, quality)
        assert torch.equal(y, made.g_a(x, quality))
        assert torch.equal(plain.g_s(y, quality), made.g_s(y, quality))
        features = plain.h_s_mean.features(torch.ones(1, 4, 1, 1))
        core = plain.h_s_mean.step(0, features, y, quality)[:, :4]
        assert torch.allclose(core, made.h_s_mean.step(0, features, y[:, :4], quality))
