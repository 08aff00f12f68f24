"""What the trainable `iscs` promises before any training, on a tiny one."""

import dataclasses

import numpy as np
import pytest
import torch

from codec.entropy import BitCounter
from codec.models.base import Halo, TileGeometry
from codec.models.iscs import IscsConfig, IscsNetwork
from codec.models.iscs.klt import start_from_klt
from codec.models.iscs.steps import step_masks

TINY = IscsConfig(M=16, inner=8, encoder_blocks=1, decoder_blocks=1, Z=4, hyper=8, context=8)


GROUPED = IscsConfig(**{**vars(TINY), "groups": (6, 5, 5)})


def smooth_patches(count: int, side: int) -> torch.Tensor:
    """Low frequencies only, so that few principal axes hold nearly everything."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, side // 16, side // 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def test_every_latent_is_coded_at_exactly_one_step() -> None:
    masks = step_masks(12)
    assert torch.equal(torch.ones(12, 2, 2), masks.sum(0))
    assert torch.equal(torch.ones(4, 12), masks.sum((2, 3)))


def test_the_klt_start_reconstructs_smooth_patches_and_spends_less_at_lower_quality() -> None:
    patches = smooth_patches(64, 64)
    torch.manual_seed(0)
    network = IscsNetwork(IscsConfig(**{**vars(TINY), "M": 64}))
    start_from_klt(network, patches)
    results = []
    with torch.no_grad():
        for quality in (0.0, 50.0, 100.0):
            x_hat, bits = network(patches[:8], torch.full((8,), quality))
            results.append((bits.mean().item(), (x_hat - patches[:8]).square().mean().item()))
    (low, worst), (middle, fair), (high, best) = results
    assert low < middle < high
    assert worst > fair > best
    assert best < 2e-4


def test_the_klt_start_knows_the_size_of_every_latent() -> None:
    patches = smooth_patches(64, 64)
    network = IscsNetwork(TINY)
    start_from_klt(network, patches)
    with torch.no_grad():
        y = network.g_a(patches, torch.full((64,), 50.0))
    measured = y.transpose(0, 1).flatten(1).std(1)
    # The residual branches are near zero at the start, not zero.
    assert torch.allclose(network.std, measured, rtol=0.05, atol=0.02)
    assert network.std[0] > 2 * network.std[-1]


@pytest.mark.parametrize("config", [TINY, GROUPED])
def test_the_stages_train_what_they_say(config: IscsConfig) -> None:
    network = IscsNetwork(config)
    x = torch.rand(2, 3, 64, 64)
    network.cost(x, torch.tensor([10.0, 90.0])).sum().backward()
    moved = {id(p) for p in network.entropy_parameters() if p.grad is not None}
    assert moved == {id(p) for p in network.entropy_parameters()}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not name.startswith("gain."):
            assert id(parameter) in moved, name


def test_means_of_a_step_see_nothing_that_is_decoded_later() -> None:
    torch.manual_seed(1)
    means = IscsNetwork(TINY).h_s_mean
    for weight in means.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    features, quality = torch.randn(1, 8, 4, 4), torch.tensor([50.0])
    y = torch.randn(1, 16, 4, 4)
    known = torch.zeros_like(y)
    for k in range(3):
        known = known + y * means.mask(k, 4, 4)
        seen = means.step(k + 1, features, known, quality)
        assert not torch.equal(seen, means.step(k + 1, features, torch.zeros_like(y), quality))


def test_lambda_is_log_linear_between_its_ends() -> None:
    lmbda = IscsConfig().lmbda_of(torch.tensor([0.0, 50.0, 100.0])).double().numpy()
    np.testing.assert_allclose([0.001, np.sqrt(0.001 * 0.16), 0.16], lmbda, rtol=1e-5)


def test_frozen_weights_do_not_follow_the_network() -> None:
    network = IscsNetwork(TINY)
    frozen = network.freeze()
    before = {name: value.clone() for name, value in frozen.tensors().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    for name, value in frozen.tensors().items():
        assert torch.equal(before[name], value), name
    with pytest.raises(RuntimeError, match="grad"):
        next(iter(frozen.network.parameters())).sum().backward()


def shaken(config: IscsConfig) -> IscsNetwork:
    """A network whose every parameter says something."""
    torch.manual_seed(2)
    network = IscsNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        network.h_s_scale.level.knots.add_(25.0)
        network.prior_z.knots.add_(10.0)
    return network


@pytest.mark.parametrize("config", [TINY, GROUPED])
def test_thawing_undoes_freezing(config: IscsConfig) -> None:
    network = shaken(config)
    frozen = network.freeze(skip=3)
    thawed = frozen.thaw()
    for name, value in network.state_dict().items():
        assert torch.allclose(value, thawed.state_dict()[name], rtol=0.01, atol=0.06), name
    again = thawed.freeze(skip=3)
    for name, value in frozen.tensors().items():
        largest = (value.double() - again.tensors()[name].double()).abs().max()
        assert largest <= (1 if name in ("prior_z", "scales.levels") else 0), name


def test_another_range_of_rates_keeps_what_lies_in_both() -> None:
    network = shaken(TINY)
    with torch.no_grad():  # linear over the rates, so that knots elsewhere say the same
        ramp = torch.linspace(0, 1, len(network.gain.knots))[:, None]
        network.gain.knots.copy_(ramp * torch.linspace(-1, 1, TINY.M))
    wider = network.respan(0.0005, 0.2)
    lmbda = torch.tensor([0.001, 0.01, 0.16, 0.0005])
    old = network.gain(TINY.quality_of(lmbda))
    new = wider.gain(wider.config.quality_of(lmbda))
    assert torch.allclose(old, new, atol=1e-5)
    assert wider.config.lmbda_of(torch.tensor(0.0)).item() == pytest.approx(0.0005)
    assert network.config == TINY


@pytest.mark.parametrize("config", [TINY, GROUPED])
def test_a_grown_network_is_the_same_function_and_all_of_it_can_learn(config: IscsConfig) -> None:
    network = shaken(config)
    larger = dataclasses.replace(
        config, inner=12, hyper=12, context=20, encoder_blocks=2, decoder_blocks=3
    )
    torch.manual_seed(1)
    grown = network.grow(larger)
    assert grown.config == larger
    x, quality = smooth_patches(2, 64), torch.tensor([30.0, 80.0])
    found = []
    for n in (network, grown):
        torch.manual_seed(2)
        found.append(n(x, quality))
    assert torch.allclose(found[0].x_hat, found[1].x_hat, atol=1e-4)
    assert torch.allclose(found[0].bits, found[1].bits, rtol=1e-3)
    (found[1].x_hat.square().sum() + found[1].bits.sum()).backward()
    idle = {name for name, p in grown.named_parameters() if p.grad is None or not p.grad.any()}
    assert not {name for name in idle if name.endswith(("leave.weight", "narrow.weight"))}


@pytest.mark.parametrize("wrong", [{"inner": 7}, {"M": 20}, {"Z": 8}, {"lmbda_min": 0.01}])
def test_a_network_grows_in_some_ways_only(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cannot grow"):
        shaken(TINY).grow(dataclasses.replace(TINY, **wrong))


def test_the_groups_hold_all_channels() -> None:
    with pytest.raises(ValueError, match="groups"):
        IscsConfig(M=16, groups=(4, 5))


@pytest.mark.parametrize("config", [TINY, GROUPED])
def test_the_loss_counts_what_the_codec_writes(config: IscsConfig) -> None:
    network = shaken(config)
    with torch.no_grad():
        network.h_a.leave.weight.mul_(30)
        network.gain.knots.add_(3.0)
        network.h_s_scale.level.knots.add_(12.0)  # wide enough that hardly a symbol escapes
    codec = network.freeze()
    x = smooth_patches(1, 128)
    geometry, quality = TileGeometry(128, 128, 60), torch.tensor([60.0])
    counter = BitCounter()
    codec.traverse(counter, codec.analyse(x, geometry, Halo()), geometry)
    with torch.no_grad():
        bits = torch.stack([network(x, quality).bits for _ in range(20)]).mean().item()
    # z is counted with noise, tables end somewhere and scales are rounded.
    assert counter.bits == pytest.approx(bits, rel=0.03)
