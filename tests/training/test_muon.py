"""Muon against what it must equal: Adam where there is no matrix, an even step where one is."""

import copy

import pytest
import torch

from codec.training.muon import Muon, orthogonal


def test_without_a_matrix_it_is_adam() -> None:
    torch.manual_seed(0)
    start, target = torch.randn(7), torch.randn(7)
    found = []
    for kind in (Muon, torch.optim.Adam):
        x = torch.nn.Parameter(start.clone())
        optimiser = kind([x], lr=0.05, betas=(0.9, 0.98))
        for _ in range(20):
            optimiser.zero_grad()
            (x - target).pow(4).sum().backward()
            optimiser.step()
        found.append(x.detach())
    assert torch.allclose(*found, atol=1e-6)
    assert not torch.allclose(start, found[0], atol=0.1)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_orthogonal_keeps_the_directions_and_levels_their_sizes(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    u, _, v = torch.linalg.svd(torch.randn(2, *shape), full_matrices=False)
    sizes = torch.logspace(0, -1.5, 24)  # of directions: the smallest is 30 times below the largest
    found = orthogonal(u * sizes @ v)
    assert found.shape == (2, *shape)
    seen = u.mT @ found @ v.mT
    levels = seen.diagonal(dim1=1, dim2=2)
    assert levels.min() > 0.6
    assert levels.max() < 1.3
    assert (seen - torch.diag_embed(levels)).abs().max() < 0.1


def test_a_step_along_a_matrix_is_as_large_as_adams() -> None:
    torch.manual_seed(2)
    x = torch.nn.Parameter(torch.zeros(48, 8, 2, 2))
    optimiser = Muon([x], lr=0.1)
    (x * torch.randn_like(x)).sum().backward()
    optimiser.step()
    assert x.detach().square().mean().sqrt().item() == pytest.approx(0.2 * 0.1, rel=0.2)


def test_matrices_of_one_shape_move_as_they_would_alone() -> None:
    torch.manual_seed(3)
    gradients = torch.randn(3, 18, 20, 1, 1)
    together = [torch.nn.Parameter(torch.zeros(18, 20, 1, 1)) for _ in gradients]
    alone = copy.deepcopy(together)
    optimisers = [Muon(together, lr=0.1), *(Muon([x], lr=0.1) for x in alone)]
    for x, y, gradient in zip(together, alone, gradients, strict=True):
        x.grad, y.grad = gradient, gradient.clone()
    for optimiser in optimisers:
        optimiser.step()
    for x, y in zip(together, alone, strict=True):
        assert torch.allclose(x, y, atol=1e-3)
        assert x.abs().max() > 0.01


def test_a_saved_state_goes_on_as_if_nothing_had_been() -> None:
    def step(parameters: list[torch.nn.Parameter], optimiser: Muon) -> None:
        optimiser.zero_grad()
        sum(x.square().sum() * (1 + x.detach().sum().sin()) for x in parameters).backward()
        optimiser.step()

    torch.manual_seed(4)
    parameters = [torch.nn.Parameter(torch.randn(20, 17)), torch.nn.Parameter(torch.randn(5))]
    optimiser = Muon(parameters, lr=0.01)
    for _ in range(5):
        step(parameters, optimiser)
    others = [torch.nn.Parameter(x.detach().clone()) for x in parameters]
    resumed = Muon(others, lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for _ in range(5):
        step(parameters, optimiser)
        step(others, resumed)
    for x, y in zip(parameters, others, strict=True):
        assert torch.equal(x, y)


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="closure"):
        Muon([torch.nn.Parameter(torch.zeros(1))], lr=0.1).step(lambda: 0.0)
