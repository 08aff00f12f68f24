"""Fits of networks and latents to small pictures, and the optimiser of their networks."""

from itertools import count
from threading import Event

import pytest
import torch

from codec.models.inr import fused, network
from codec.models.inr import overfit as overfitting
from codec.models.inr.layout import HYPER_LEVELS, PRESETS, grid_sizes
from codec.models.inr.network import fresh
from codec.models.inr.overfit import overfit
from codec.models.inr.soap import Soap

LOP = PRESETS[0]


def picture(batch=1, height=24, width=32):
    """Smooth ramps, each of its own colours."""
    rows, columns = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    ramp = rows[:, None] * columns
    colours = torch.tensor([[0.9, 0.5, 0.2], [0.1, 0.8, 0.6]])[:batch]
    return ramp * colours[:, :, None, None]


def start(preset=LOP):
    return fresh(preset, 1, torch.Generator().manual_seed(1))


def fitted(x, lmbda=1e-3, steps=120, **options):
    reports = []
    weights = torch.full((len(x),), lmbda)
    fit = overfit(x, weights, start(), iterations=steps, watch=reports.append, **options)
    return fit, reports


def costs(x, fit):
    parameters = {
        name: value.expand(len(x), *value.shape[1:]) for name, value in fit.parameters.items()
    }
    stack = network.upsample(fit.grids[len(HYPER_LEVELS) :], parameters)
    x_hat = network.synthesise(stack, parameters).clamp(0, 1)
    return (x_hat - x).square().mean(1).sum((1, 2)), network.bits(fit.grids, parameters)


def test_a_fit_is_the_best_of_what_was_reported_and_whole_numbers():
    x = picture(2)
    fit, reports = fitted(x)
    error, bits = costs(x, fit)
    least = torch.stack([r.error + 1e-3 * r.bits for r in reports]).amin(0)
    torch.testing.assert_close(error + 1e-3 * bits, least, rtol=1e-3, atol=1e-4)
    assert (least < 0.05 * (reports[0].error + 1e-3 * reports[0].bits)).all()
    assert [tuple(grid.shape[1:]) for grid in fit.grids] == grid_sizes(24, 32)
    assert all(torch.equal(grid, grid.round()) for grid in fit.grids)


def test_a_fit_that_goes_astray_gives_what_it_had(monkeypatch):
    monkeypatch.setattr("codec.models.inr.overfit.RATE_NETWORKS", 0.5)
    monkeypatch.setattr("codec.models.inr.overfit.RATE_ROUNDED", 1.0)
    x = picture()
    fit, reports = fitted(x, steps=150)
    costs_then = [float(r.error + 1e-3 * r.bits) for r in reports]
    error, bits = costs(x, fit)
    assert costs_then[-1] > 1.1 * min(costs_then)
    assert float(error + 1e-3 * bits) == pytest.approx(min(costs_then), rel=1e-3)


def test_a_fit_from_nothing_comes_to_look_at_coarser_grids():
    fit, _ = fitted(torch.rand(1, 3, 24, 32), lmbda=1e-4)
    assert fit.parameters["arm.0.weight"][:, :, LOP.neighbours :].abs().max() > 0.01
    assert any(grid.any() for grid in fit.grids[: len(HYPER_LEVELS)])


def test_a_fit_is_the_same_every_time():
    first, second = (fitted(picture(), steps=30)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.grids, second.grids, strict=True))
    for name, value in first.parameters.items():
        assert torch.equal(value, second.parameters[name])


def test_a_bright_picture_does_not_collapse():
    x = 0.93 + 0.07 * picture()
    error, _ = costs(x, fitted(x, lmbda=1e-4, steps=200)[0])
    assert -10 * torch.log10(error / (24 * 32)) > 35


def test_shared_networks_are_one_for_all_pictures():
    fit, _ = fitted(picture(2), steps=20, shared=True)
    assert {len(value) for value in fit.parameters.values()} == {1}
    assert len(fit.grids[0]) == 2


def test_a_fit_ends_with_its_seconds():
    _, reports = fitted(picture(), steps=10**9, seconds=0.5)
    assert reports[-1].share == 1


def test_the_clock_of_a_fit_starts_when_kernels_are_compiled(monkeypatch):
    told = []

    def watched(name, function):
        def call(*values):
            told.append(name)
            return function(*values)

        return call

    for name in ("upsample", "synthesise", "bits", "soft_round"):
        monkeypatch.setattr(fused, name, watched(name, getattr(fused, name)))
    monkeypatch.setattr(overfitting.time, "monotonic", watched("clock", lambda: 0.0))
    fitted(picture(), steps=1, seconds=1.0)
    before = told[: told.index("clock")]
    assert set(before) == {"upsample", "synthesise", "bits", "soft_round"}


@pytest.mark.parametrize("limit", [{"steps": 120}, {"steps": 10**9, "seconds": 120.0}])
def test_squares_of_gradients_are_forgotten_as_often_in_any_fit(monkeypatch, limit):
    remembered = []

    class Watched(torch.optim.Adam):
        def step(self):
            remembered.append(self.param_groups[0]["betas"][1])
            super().step()

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    monkeypatch.setattr(overfitting.time, "monotonic", count(0.0, 1.0).__next__)  # a step a second
    _, reports = fitted(picture(), **limit)
    assert reports[-1].share == 1
    assert remembered[-1] == pytest.approx(max(0.6, 1 - 12 / (len(remembered) / 0.95)), abs=0.03)


def test_every_other_step_has_the_noise_of_the_one_before_turned(monkeypatch):
    told, rounding = [], fused.soft_round

    def watched(grid, noise, temperature):
        if grid.shape[1:] == (24, 32):
            told.append(torch.sign(noise))
        return rounding(grid, noise, temperature)

    monkeypatch.setattr(fused, "soft_round", watched)
    fitted(picture(), steps=20)
    for first, second, third in zip(told[0:6:2], told[1:6:2], told[2:7:2], strict=True):
        assert torch.equal(first, -second)
        assert not torch.equal(third, -second)


def interrupting(report):
    if report.share < 1:
        raise KeyboardInterrupt


def test_an_interrupt_ends_a_fit_with_what_it_has_and_shortens_the_next():
    x, weights, stop = picture(), torch.full((1,), 1e-3), Event()
    fit = overfit(x, weights, start(), iterations=10**9, interrupted=stop, watch=interrupting)
    assert stop.is_set()
    assert torch.isfinite(costs(x, fit)[0]).all()
    reports = []
    overfit(x, weights, start(), iterations=10**9, interrupted=stop, watch=reports.append)
    assert reports[-1].share == 1


def test_an_interrupt_that_nobody_takes_goes_through():
    with pytest.raises(KeyboardInterrupt):
        overfit(picture(), torch.full((1,), 1e-3), start(), iterations=10, watch=interrupting)


# ---- SOAP


def skewed(parameter, target, generator_seed=3):
    """A quadratic whose axes are not the coordinates', 100 times as steep along some."""
    generator = torch.Generator().manual_seed(generator_seed)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    stretched = torch.logspace(0, -2, 6)[:, None] * (turn @ (parameter - target))
    return stretched.square().sum()


def minimised(batch, turn):
    target = torch.arange(24.0).reshape(6, 4).expand(batch, 6, 4) / 24
    parameter = torch.zeros(batch, 6, 4, requires_grad=True)
    soap = Soap([parameter], torch.tensor(0.02))
    for number in range(300):
        parameter.grad = None
        skewed(parameter, target).backward()
        soap.step()
        if turn and number % 10 == 0:
            soap.turn()
    return parameter.detach(), skewed(parameter, target).item()


def test_soap_descends_along_the_axes_of_the_gradients():
    _, turned = minimised(1, turn=True)
    assert turned < 1e-4


def test_pictures_of_a_batch_have_optimisers_of_their_own():
    alone, _ = minimised(1, turn=True)
    both, _ = minimised(2, turn=True)
    torch.testing.assert_close(both[1], alone[0], rtol=1e-3, atol=1e-3)


def test_gradients_of_low_rank_have_axes_too():
    generator = torch.Generator().manual_seed(0)
    parameter = torch.zeros(1, 3, 48, requires_grad=True)
    soap = Soap([parameter], torch.tensor(0.1))
    gradient = torch.randn(3, 48, generator=generator)
    silent = torch.rand(48, generator=generator) < 0.7  # as behind a relu
    for _ in range(2):
        parameter.grad = gradient.masked_fill(silent, 0)[None]
        soap.step()
    assert parameter.isfinite().all()


def test_what_has_no_gradient_stays():
    parameter = torch.ones(1, 3, 3, requires_grad=True)
    soap = Soap([parameter], torch.tensor(0.1))
    for _ in range(3):
        parameter.grad = torch.zeros_like(parameter)
        soap.step()
        soap.turn()
    assert torch.equal(parameter.detach(), torch.ones(1, 3, 3))


def test_a_gpu_gets_kernels_where_triton_makes_them(monkeypatch):
    plain = overfitting._costs
    monkeypatch.setattr("torch.compile", lambda function, **options: (function, options))
    assert overfitting._costs_on(torch.device("cpu")) is plain
    assert overfitting._costs_on(torch.device("cuda")) == (plain, {"dynamic": False})
    monkeypatch.setattr("codec.entropy.device.has_triton", lambda: False)
    assert overfitting._costs_on(torch.device("cuda")) is plain
