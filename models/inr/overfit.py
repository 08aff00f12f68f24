"""Fitting latents and networks to pictures by gradient descent. Knows no integers and no stream.

Cool-chic 5's schedule: latents pass through soft rounding, noise, and soft rounding again, harder
and with less noise as time goes on; at last they are rounded, and only the networks still learn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from codec.models.inr import fused, network
from codec.models.inr.layout import HYPER_LEVELS, grid_sizes
from codec.models.inr.soap import Soap
from codec.models.replay import Replay

__all__ = ["Fit", "Report", "overfit"]

RATE_LATENTS, RATE_NETWORKS = 0.16, 1e-2  # per step, in quantisation steps and as weights
RATE_END = 1e-3  # of either, at the end
RATE_ROUNDED = 1e-2  # of the networks' after that
TEMPERATURE = (0.35, 0.08)
NOISE = (0.22, 0.15)
ROUNDED = 0.05  # of the time
CHECK_STEPS = 100
TURN_STEPS = 10
LATENT_MAX = 2047


@final
@dataclass(frozen=True)
class Fit:
    """What was found: rounded latents in the order of `GRIDS`, `(B, h, w)` each, and networks."""

    grids: list[Tensor]
    parameters: dict[str, Tensor]


@final
@dataclass(frozen=True)
class Report:
    """How far a fit is: the share of its time, bits of latents and squared error of each picture.

    Attributes:
        share: 0 to 1.
        steps: done.
        bits: `(B,)`
        error: `(B,)` sums over pixels of the mean over channels, pixels in [0, 1].
    """

    share: float
    steps: int
    bits: Tensor
    error: Tensor


def overfit(
    x: Tensor,
    lmbda: Tensor,
    start: Mapping[str, Tensor],
    *,
    iterations: int,
    seconds: float = math.inf,
    seed: int = 0,
    shared: bool = False,
    watch: Callable[[Report], None] = lambda report: None,
) -> Fit:
    """Minimise `error + lambda bits` of each picture, the error in squared pixel values.

    Args:
        x: `(B, 3, H, W)` in [0, 1].
        lmbda: `(B,)` what a bit is worth.
        start: networks to begin with, `(1, ...)` or `(B, ...)` each.
        iterations: steps that the schedule is spread over.
        seconds: if they are over before, the schedule ends with them.
        seed: of the noise.
        shared: one network for all pictures, its tensors `(1, ...)`.
        watch: is told every hundred steps; what it raises ends the fit.

    Returns:
        The best of the states that were looked at, of every picture by itself.
    """
    device = x.device
    batch, _, height, width = x.shape
    generator = torch.Generator(device).manual_seed(seed)
    copies = 1 if shared else batch
    grids = [torch.zeros(batch, *size, device=device) for size in grid_sizes(height, width)]
    parameters = {
        name: value.detach().to(device).expand(copies, *value.shape[1:]).clone().requires_grad_()
        for name, value in start.items()
    }
    for grid in grids:
        grid.requires_grad_()
    draws = [torch.empty_like(grid) for grid in grids]
    lmbda = lmbda.to(device)
    rate_latents, rate_networks, temperature, noise = (
        torch.zeros((), device=device) for _ in range(4)
    )
    walk = torch.optim.Adam(grids, lr=rate_latents, fused=True, capturable=device.type == "cuda")
    soap = Soap(list(parameters.values()), rate_networks)

    def own() -> dict[str, Tensor]:
        return {
            name: value.expand(batch, *value.shape[1:]).contiguous()
            for name, value in parameters.items()
        }

    def soft(y: Tensor) -> Tensor:
        low = y.floor()
        steep = torch.tanh((y - low - 0.5) / temperature) / torch.tanh(0.5 / temperature)
        return low + 0.5 * steep + 0.5

    descend = torch.compile(_costs, dynamic=False) if device.type == "cuda" else _costs

    def step(rounded: bool) -> Tensor:
        if rounded:
            latents = [grid.detach().round().requires_grad_() for grid in grids]
        else:
            latents = [
                soft(soft(grid) + noise * draw) for grid, draw in zip(grids, draws, strict=True)
            ]
        error, bits = descend(x, latents, own())
        walk.zero_grad()
        for value in parameters.values():
            value.grad = None
        (error + lmbda * bits).sum().backward()
        soap.step()
        if not rounded:
            walk.step()
        return error

    steps = {rounded: (lambda rounded=rounded: step(rounded)) for rounded in (False, True)}
    if device.type == "cuda":
        steps = {rounded: Replay(work) for rounded, work in steps.items()}
    best = Fit(
        [torch.zeros_like(grid) for grid in grids],
        {name: value.detach().clone() for name, value in parameters.items()},
    )
    least = torch.full((batch,), math.inf, device=device)
    started = time.monotonic()
    for number in range(iterations + 1):
        share = max(number / iterations, (time.monotonic() - started) / seconds)
        if number % CHECK_STEPS == 0 or share >= 1:
            with torch.no_grad():
                rounded = [grid.round().clamp(-LATENT_MAX, LATENT_MAX) for grid in grids]
                error, bits = _costs(x, rounded, own())
                loss = error + lmbda * bits
                if shared:
                    loss = loss.sum().expand(batch)
                _keep(best, rounded, parameters, loss < least)
                least = torch.minimum(least, loss)
            watch(Report(min(share, 1.0), number, bits, error))
        if share >= 1:
            break
        main = min(1.0, share / (1 - ROUNDED))
        decay = RATE_END + (1 - RATE_END) * (1 + math.cos(math.pi * main)) / 2
        rate_latents.fill_(RATE_LATENTS * decay)
        rate_networks.fill_(RATE_NETWORKS * (decay if main < 1 else RATE_ROUNDED))
        temperature.fill_(TEMPERATURE[0] + (TEMPERATURE[1] - TEMPERATURE[0]) * main)
        noise.fill_(NOISE[0] + (NOISE[1] - NOISE[0]) * main)
        for draw in draws:
            draw.normal_(generator=generator)
        steps[main == 1]()
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # or the clock would tell when steps were asked for
        if number % TURN_STEPS == 0:
            soap.turn()
    return best


def _costs(
    x: Tensor, latents: list[Tensor], parameters: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Squared error and bits of each picture, `(B,)`."""
    quick = fused if x.device.type == "cpu" else network
    stack = network.upsample(latents[len(HYPER_LEVELS) :], parameters)
    x_hat = quick.synthesise(stack, parameters)
    # A straight-through clamp: what is too bright must still find back.
    x_hat = x_hat + (x_hat.clamp(0, 1) - x_hat).detach()
    return (x_hat - x).square().mean(1).sum((1, 2)), quick.bits(latents, parameters)


def _keep(best: Fit, grids: list[Tensor], parameters: Mapping[str, Tensor], better: Tensor) -> None:
    """Take the pictures that are better over into `best`."""
    pairs = [*zip(best.grids, grids, strict=True)]
    pairs += [(best.parameters[name], value.detach()) for name, value in parameters.items()]
    for kept, value in pairs:
        chosen = better[: len(kept)].reshape(-1, *[1] * (kept.dim() - 1))
        kept.copy_(torch.where(chosen, value, kept))
