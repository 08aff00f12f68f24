"""What is fused equals what is plain: values, gradients, and whatever the number of threads."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier, get_ident
from types import SimpleNamespace

import pytest
import torch

from codec.models.inr import fused, network
from codec.models.inr.layout import HYPER_LEVELS, PRESETS, grid_sizes

# The last is made in several parts.
SIZES = ((1, 1), (1, 7), (9, 1), (33, 50), (64, 48), (151, 230))


def drawn(preset, height, width, batch=1, spread=2.0):
    """Networks that predict something, and latents; float32, with gradients."""
    generator = torch.Generator().manual_seed(0)
    parameters = network.fresh(preset, batch, generator)
    for value in parameters.values():
        value += torch.randn(value.shape, generator=generator) / 20
        value.requires_grad_()
    sizes = grid_sizes(height, width)
    grids = [spread * torch.randn(batch, *size, generator=generator) for size in sizes]
    return parameters, [grid.requires_grad_() for grid in grids]


def stacked(batch, height, width):
    """Upsampled latents, with gradients."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, 7, height, width, generator=generator).requires_grad_()


def outcome(function, tensors, parameters):
    """The value, and the gradients of a sum with random weights; zero where nothing depends."""
    value = function(tensors, parameters)
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    learned = [*([tensors] if torch.is_tensor(tensors) else tensors), *parameters.values()]
    total = (value * weights.to(value)).sum()
    grads = torch.autograd.grad(total, learned, allow_unused=True, materialize_grads=True)
    return [value.detach(), *grads]


def exactly(function, tensors, parameters):
    """The same in float64."""
    double = {name: value.detach().double().requires_grad_() for name, value in parameters.items()}
    if torch.is_tensor(tensors):
        return outcome(function, tensors.detach().double().requires_grad_(), double)
    grids = [grid.detach().double().requires_grad_() for grid in tensors]
    return outcome(function, grids, double)


def assert_close(found, expected):
    """To float32's rounding; an element may be at the other side of a kink for it.

    Where all summands of a gradient cancel, what their rounding leaves is no error.
    """
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert ours.shape == theirs.shape
        error = (ours - theirs).abs() / theirs.abs().max().clamp(min=1e-4)
        assert error.max() < 1e-3
        assert error.mean() < 1e-4


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_bits_and_their_gradients_are_the_plain_ones(preset, height, width):
    parameters, grids = drawn(preset, height, width, batch=2)
    expected = exactly(network.bits, grids, parameters)
    assert_close(outcome(fused.bits, grids, parameters), expected)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_latents_that_nobody_expects_cost_16_bits_and_have_no_gradient(preset):
    parameters, grids = drawn(preset, 33, 50)
    with torch.no_grad():
        parameters["arm.out.bias"][:, 0] = 1e6
    value, *grads = outcome(lambda *x: fused.bits(*x).sum(), grids, parameters)
    assert value == 16 * sum(grid.numel() for grid in grids)
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
@pytest.mark.parametrize("spread", [30.0, 1e4])
def test_bits_of_large_latents_are_the_plain_ones(preset, spread):
    parameters, grids = drawn(preset, 33, 50, spread=spread)
    expected = exactly(network.bits, grids, parameters)
    assert_close(outcome(fused.bits, grids, parameters), expected)


@pytest.mark.parametrize("log_scale", [-50.0, 50.0])
def test_scales_end_where_the_plain_ones_end(log_scale):
    parameters, grids = drawn(PRESETS[0], 33, 50)
    with torch.no_grad():
        parameters["arm.out.bias"][:, 1] = log_scale
    expected = exactly(network.bits, grids, parameters)
    assert_close(outcome(fused.bits, grids, parameters), expected)


def test_bits_without_gradients_are_the_same():
    parameters, grids = drawn(PRESETS[1], 33, 50)
    with torch.no_grad():
        alone = fused.bits(grids, parameters)
    assert not alone.requires_grad
    assert torch.equal(alone, fused.bits(grids, parameters))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_upsampled_latents_and_their_gradients_are_the_plain_ones(height, width):
    parameters, grids = drawn(PRESETS[0], height, width, batch=2)
    grids = grids[len(HYPER_LEVELS) :]
    expected = exactly(network.upsample, grids, parameters)
    assert_close(outcome(fused.upsample, grids, parameters), expected)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pixels_and_their_gradients_are_the_plain_ones(preset, height, width):
    parameters, _ = drawn(preset, height, width, batch=2)
    stack = stacked(2, height, width)
    expected = exactly(network.synthesise, stack, parameters)
    assert_close(outcome(fused.synthesise, stack, parameters), expected)


@pytest.mark.parametrize("temperature", [0.05, 0.35, 3.0])
def test_soft_rounding_and_its_derivative_are_the_plain_functions(temperature):
    generator = torch.Generator().manual_seed(0)
    y = 5 * torch.randn(3, 70, 100, generator=generator)
    y[0, 0, :9] = torch.arange(9) / 2 - 2  # integers, and what is between them
    noise = torch.randn(y.shape, generator=generator) / 5
    warmth = torch.tensor(temperature)
    ours = outcome(lambda x, _: fused.soft_round(x, noise, warmth), y.requires_grad_(), {})
    double = y.detach().double().requires_grad_()
    theirs = outcome(lambda x, _: network.soft_round(x, noise.double(), warmth), double, {})
    assert_close(ours, theirs)


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def works():
    """Each function on a picture of several parts, to be called without arguments."""
    parameters, grids = drawn(PRESETS[1], 200, 300)
    return [
        partial(outcome, fused.bits, grids, parameters),
        partial(outcome, fused.upsample, grids[len(HYPER_LEVELS) :], parameters),
        partial(outcome, fused.synthesise, stacked(1, 200, 300), parameters),
    ]


def same(first, second):
    return all(torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))


@pytest.mark.parametrize("work", works(), ids=["bits", "upsample", "synthesise"])
def test_the_number_of_threads_changes_nothing(work, set_threads):
    found = []
    for threads in (1, 2, 5):
        set_threads(threads)
        with fused.on_all_cores():
            found.append(work())
    assert same(found[0], found[1])
    assert same(found[0], found[2])


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_are_found_on_all_cores(threads, set_threads, monkeypatch):
    met, seen = Barrier(threads, timeout=10), set()
    kernels = SimpleNamespace(**vars(fused._kernels()))

    def soft_rounding(*_):
        met.wait()  # nobody passes before so many are at work at once
        seen.add(get_ident())

    monkeypatch.setattr(kernels, "soft_rounding", soft_rounding)
    monkeypatch.setattr(fused, "_kernels", lambda: kernels)
    set_threads(threads)
    y = torch.zeros(3 * fused.PART)
    with fused.on_all_cores():
        fused.soft_round(y, y, torch.tensor(0.3))
    assert len(seen) == threads


def test_torch_has_its_threads_back_whatever_happens(set_threads):
    set_threads(3)
    during = []

    @fused.on_all_cores()
    def interrupted():
        during.append(torch.get_num_threads())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert during == [1]
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("work", works(), ids=["bits", "upsample", "synthesise"])
def test_many_at_once_give_what_one_alone_gives(work):
    alone = work()
    with ThreadPoolExecutor(4) as pool:
        assert all(same(alone, found) for found in pool.map(lambda _: work(), range(8)))


GRADIENTS = """
import hashlib
from tests.models.test_inr_fused import PRESETS, drawn, fused, outcome, stacked

found = outcome(fused.synthesise, stacked(1, 40, 50), drawn(PRESETS[0], 40, 50)[0])
print(hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in found)).hexdigest())
"""


def test_a_process_that_compiles_finds_what_the_next_one_does(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", GRADIENTS]
    root = Path(__file__).parents[2]
    compiled, kept = (
        subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True).stdout
        for _ in range(2)
    )
    assert compiled == kept
