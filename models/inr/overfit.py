"""Fitting latents and networks to pictures by gradient descent. Knows no integers and no stream.

Cool-chic 5's schedule: latents pass through soft rounding, noise, and soft rounding again, harder
and with less noise as time goes on; at last they are rounded, and only the networks still learn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Event
from types import ModuleType
from typing import final

import torch
from torch import Tensor

from codec.models.base import ended_by
from codec.models.inr import fused, network
from codec.models.inr.layout import GRIDS, HYPER_LEVELS, grid_sizes
from codec.models.inr.soap import Soap
from codec.models.replay import Replay

__all__ = ["Fit", "Report", "overfit"]

RATE_LATENTS, RATE_NETWORKS = 0.16, 2e-2  # per step, in quantisation steps and as weights
COARSER = 1.3  # times as fast go the latents of each coarser level, in fits that are short:
SHORT = 120  # steps; the longer a fit, the more alike the levels
BETA = 0.6  # Adam's, of gradients of latents, which soon mislead
FORGOTTEN = 12  # times in a fit: Adam's squares of gradients; averages of fewer favour zeros
RAMP = 0.5  # of the time, until networks go at full speed: latents must first fit the prior
RATE_END = 1e-3  # of either, at the end
RATE_ROUNDED = 1e-2  # of the networks' after that
TEMPERATURE = (0.35, 0.08)
NOISE = (0.22, 0.15)
ROUNDED = 0.05  # of the time
CHECK_STEPS = 100
TURN_STEPS = 10
LATENT_MAX = 2047
HURRIED = 30  # steps of a fit that is asked for after an interrupt


@final
@dataclass(frozen=True)
class Fit:
    """What was found.

    Attributes:
        grids: rounded latents in the order of `GRIDS`, `(B, h, w)` each.
        parameters: of the networks.
        steps: that were made.
    """

    grids: list[Tensor]
    parameters: dict[str, Tensor]
    steps: int


@final
@dataclass(frozen=True)
class Report:
    """How far a fit is, and how good.

    Attributes:
        share: of its time, 0 to 1.
        bits: `(B,)` of the rounded latents.
        error: `(B,)` sums over pixels of the mean over channels, pixels in [0, 1].
    """

    share: float
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
    learn: bool = True,
    interrupted: Event | None = None,
    watch: Callable[[Report], None] = lambda report: None,
) -> Fit:
    """Minimise `error + lambda bits` of each picture, the error in squared pixel values.

    Args:
        x: `(B, 3, H, W)` in [0, 1].
        lmbda: `(B,)` what a bit is worth.
        start: networks to begin with, `(1, ...)` or `(B, ...)` each.
        iterations: steps that the schedule is spread over, at least 1.
        seconds: if they are over before, the schedule ends with them.
        seed: of the noise.
        shared: one network for all pictures, its tensors `(1, ...)`.
        learn: whether networks move at all, or only latents.
        interrupted: see `Search`.
        watch: is told every hundred steps.

    Returns:
        The best of the states that were looked at, of every picture by itself.
    """
    fit = _Descent(x, lmbda, start, seed=seed, shared=shared, learn=learn)
    if interrupted is not None and interrupted.is_set():
        iterations = min(iterations, HURRIED)
    steps = 0
    with ended_by(interrupted):
        if x.device.type == "cpu":
            # Kernels compile in a machine's first fit, for longer than some fits may take.
            pixel = _Descent(x[:, :, :1, :1].contiguous(), lmbda, start, seed=seed, shared=shared)
            pixel.check(0.0)
            pixel.step(0.0, 1.0)
        started = time.monotonic()
        for number in range(iterations):
            share = max(number / iterations, (time.monotonic() - started) / seconds)
            if share >= 1:
                break
            if number % CHECK_STEPS == 0:
                watch(fit.check(share))
            pace = share / number if number else 1 / iterations
            fit.step(min(1.0, share / (1 - ROUNDED)), pace)
            if learn and number % TURN_STEPS == 0:
                fit.networks.turn()
            steps += 1
    watch(fit.check(1.0))
    return replace(fit.best, steps=steps)


@final
class _Descent:
    """The state of a fit; `best` is what was best whenever `check` looked."""

    def __init__(
        self,
        x: Tensor,
        lmbda: Tensor,
        start: Mapping[str, Tensor],
        *,
        seed: int,
        shared: bool = False,
        learn: bool = True,
    ) -> None:
        device, batch = x.device, len(x)
        copies = 1 if shared else batch
        self._x, self._lmbda = x, lmbda.to(device)
        self._shared, self._learn = shared, learn
        self._generator = torch.Generator(device).manual_seed(seed)
        self._grids = [
            torch.zeros(batch, *size, device=device) for size in grid_sizes(*x.shape[2:])
        ]
        self._noise = [torch.empty_like(grid) for grid in self._grids]
        self._mirrors = False  # the noise before, turned, in every other step: less of it is left
        self._parameters = {
            name: value.detach().to(device, copy=True).expand(copies, *value.shape[1:]).clone()
            for name, value in start.items()
        }
        for leaf in (*self._grids, *self._parameters.values()):
            leaf.requires_grad_()
        zeros = (torch.zeros((), device=device) for _ in range(3))
        self._rate_networks, self._temperature, self._spread = zeros
        on_gpu = device.type == "cuda"
        groups = [{"params": [grid], "lr": torch.zeros((), device=device)} for grid in self._grids]
        self._latents = torch.optim.Adam(groups, fused=True, capturable=on_gpu)
        self.networks = Soap(list(self._parameters.values()), self._rate_networks)
        self._quick = network if on_gpu else fused
        self._costs = _costs_on(device)
        self._soft, self._hard = self._descend_noisy, self._descend_rounded
        if on_gpu:
            self._soft, self._hard = Replay(self._soft), Replay(self._hard)
        self.best = Fit(
            [torch.zeros_like(grid) for grid in self._grids],
            {name: value.detach().clone() for name, value in self._parameters.items()},
            steps=0,
        )
        self._least = torch.full((batch,), math.inf, device=device)

    def step(self, share: float, pace: float) -> None:
        """One step at `share` of the schedule, `pace` of it long; at 1 latents are rounded."""
        decay = RATE_END + (1 - RATE_END) * (1 + math.cos(math.pi * share)) / 2
        coarser = 1 + (COARSER - 1) * min(1.0, SHORT * pace)
        for group, place in zip(self._latents.param_groups, GRIDS, strict=True):
            group["lr"].fill_(RATE_LATENTS * decay * coarser**place.level)
            group["betas"] = (BETA, max(BETA, 1 - FORGOTTEN * pace))  # a CUDA graph keeps its first
        decay_networks = decay * min(1.0, share / RAMP) if share < 1 else RATE_ROUNDED
        self._rate_networks.fill_(RATE_NETWORKS * decay_networks)
        if share == 1:
            self._hard()
        else:
            self._temperature.fill_(TEMPERATURE[0] + (TEMPERATURE[1] - TEMPERATURE[0]) * share)
            self._spread.fill_(NOISE[0] + (NOISE[1] - NOISE[0]) * share)
            for noise in self._noise:
                if self._mirrors:
                    noise.neg_()
                else:
                    noise.normal_(generator=self._generator)
            self._mirrors = not self._mirrors
            self._soft()
        if self._x.device.type == "cuda":
            torch.cuda.synchronize(self._x.device)  # or clocks tell when steps were asked for

    @torch.no_grad()
    def check(self, share: float) -> Report:
        """Look at the state as a decoder would have it, and keep what is best."""
        rounded = [grid.round().clamp(-LATENT_MAX, LATENT_MAX) for grid in self._grids]
        error, bits = _costs(self._quick, self._x, rounded, self._own())
        loss = error + self._lmbda * bits
        if self._shared:
            loss = loss.sum().expand(len(loss))
        better = loss < self._least
        self._least = torch.where(better, loss, self._least)
        pairs = [*zip(self.best.grids, rounded, strict=True)]
        pairs += [(self.best.parameters[name], own) for name, own in self._parameters.items()]
        for kept, value in pairs:
            chosen = better[: len(kept)].reshape(-1, *[1] * (kept.dim() - 1))
            kept.copy_(torch.where(chosen, value, kept))
        return Report(share, bits, error)

    def _descend_noisy(self) -> Tensor:
        latents = [
            self._quick.soft_round(grid, self._spread * noise, self._temperature)
            for grid, noise in zip(self._grids, self._noise, strict=True)
        ]
        loss = self._descend(latents)
        self._latents.step()
        return loss

    def _descend_rounded(self) -> Tensor:
        return self._descend([grid.detach().round().requires_grad_() for grid in self._grids])

    def _descend(self, latents: list[Tensor]) -> Tensor:
        """Find all gradients, and move the networks."""
        error, bits = self._costs(self._quick, self._x, latents, self._own())
        loss = (error + self._lmbda * bits).sum()
        for leaf in (*self._grids, *self._parameters.values()):
            leaf.grad = None
        torch.autograd.backward(loss)
        if self._learn:
            self.networks.step()
        return loss

    def _own(self) -> dict[str, Tensor]:
        """Each picture's networks."""
        batch = len(self._x)
        return {
            name: value.expand(batch, *value.shape[1:]).contiguous()
            for name, value in self._parameters.items()
        }


def _costs_on(device: torch.device) -> Callable[..., tuple[Tensor, Tensor]]:
    """`_costs`, as kernels made for it where there is a GPU and what makes them."""
    if device.type == "cuda":
        from codec.entropy.device import has_triton

        if has_triton():
            return torch.compile(_costs, dynamic=False)
    return _costs


def _costs(
    quick: ModuleType, x: Tensor, latents: list[Tensor], parameters: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Squared error and bits of each picture, `(B,)`; `quick` is `network` or `fused`."""
    stack = quick.upsample(latents[len(HYPER_LEVELS) :], parameters)
    x_hat = quick.synthesise(stack, parameters)
    # A straight-through clamp: what is too bright must still find back.
    x_hat = x_hat + (x_hat.clamp(0, 1) - x_hat).detach()
    return (x_hat - x).square().mean(1).sum((1, 2)), quick.bits(latents, parameters)
