"""SOAP against what it must equal: Adam where nothing is rotated, itself in any rotated space."""

import copy

import pytest
import torch

from codec.training.soap import Soap


def test_without_a_matrix_it_is_adam() -> None:
    torch.manual_seed(0)
    start, target = torch.randn(7), torch.randn(7)
    found = []
    for kind in ("soap", "adam"):
        x = torch.nn.Parameter(start.clone())
        optimiser = (
            Soap([x], lr=0.05, betas=(0.9, 0.98))
            if kind == "soap"
            else torch.optim.Adam([x], lr=0.05, betas=(0.9, 0.98))
        )
        for _ in range(20):
            optimiser.zero_grad()
            (x - target).pow(4).sum().backward()
            optimiser.step()
        found.append(x.detach())
    assert torch.allclose(*found, atol=1e-5)
    assert not torch.allclose(start, found[0], atol=0.1)


def losses(left: torch.Tensor, right: torch.Tensor) -> list[float]:
    """A run in the space whose axes are the rows of `left` and `right`."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(40, 18, generator=generator, dtype=torch.float64)
    b = torch.randn(18, 40, generator=generator, dtype=torch.float64)
    target = torch.randn(18, 18, generator=generator, dtype=torch.float64)
    x = torch.nn.Parameter(torch.zeros(18, 18, dtype=torch.float64))
    optimiser = Soap([x], lr=0.02, frequency=3)
    found = []
    for _ in range(30):
        optimiser.zero_grad()
        noise = torch.randn(18, 18, generator=generator, dtype=torch.float64)
        there = left.T @ x @ right
        loss = (a @ (there - target) @ b).square().mean()
        (loss + 10 * (noise * there).sum()).backward()
        optimiser.step()
        found.append(loss.item())
    return found


def test_rotating_the_parameters_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    left, right = (
        torch.linalg.qr(torch.randn(18, 18, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    plain = losses(torch.eye(18).double(), torch.eye(18).double())
    rotated = losses(left, right)
    assert plain[-1] < 0.8 * plain[0]
    assert rotated == pytest.approx(plain, rel=1e-3)


def test_a_saved_state_goes_on_as_if_nothing_had_been() -> None:
    def step(x: torch.nn.Parameter, optimiser: Soap) -> None:
        optimiser.zero_grad()
        (x.square().sum() * (1 + x.detach().sum().sin())).backward()
        optimiser.step()

    torch.manual_seed(1)
    x = torch.nn.Parameter(torch.randn(20, 17))
    optimiser = Soap([x], lr=0.01, frequency=2)
    for _ in range(5):
        step(x, optimiser)
    other = torch.nn.Parameter(x.detach().clone())
    resumed = Soap([other], lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for _ in range(5):
        step(x, optimiser)
        step(other, resumed)
    assert torch.equal(x, other)


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="closure"):
        Soap([torch.nn.Parameter(torch.zeros(1))], lr=0.1).step(lambda: 0.0)
