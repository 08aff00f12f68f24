"""The encoder's search: symbols that the same decoder turns into a better picture for their bits.

Rounding decides for each symbol alone, as if the synthesis were linear. Here each round asks the
synthesis itself (latent refinement at encode time, Yang et al. 2020, in the domain of symbols): its
gradient says where the squared error would be least, a part of a Newton step with its diagonal
curvature moves the latents there, and they are rounded again. Knows a codec by its functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from codec.entropy import IntArray

__all__ = ["Found", "refine"]

PROBES = 2
PART = 0.07  # of a Newton step: neighbouring latents share pixels, and all of it would overshoot


class Found(NamedTuple):
    """Symbols `(M, h, w)` and what they decode to, y_hat `(1, M, h, w)` in steps."""

    symbols: IntArray
    y_hat: Tensor


def refine(
    x: Tensor,
    y: Tensor,
    *,
    quantise: Callable[[Tensor], Found],
    synthesise: Callable[[Tensor], Tensor],
    bits_of: Callable[[IntArray], float],
    worth_of_pixel: float,
    rounds: int,
    seconds: float = math.inf,
) -> Found:
    """The symbols of least bits + distortion that so many rounds find, plain rounding among them.

    Every round goes on from the best so far; one that finds nothing better halves the step.

    Args:
        x: `(1, 3, H, W)` pixels in [0, 1].
        y: `(1, M, h, w)` latents in steps.
        quantise: rounds latents.
        synthesise: y_hat to pixels as x.
        bits_of: symbols.
        worth_of_pixel: bits that a squared error of a pixel's channel is worth.
        rounds: at least 1; each costs a synthesis, its gradient and a walk.
        seconds: after which no round begins.
    """
    started = time.monotonic()
    best = quantise(y)
    worth = _curvature(best.y_hat, synthesise) * worth_of_pixel
    target, least, part, newton = y, math.inf, PART, y
    for left in reversed(range(rounds + 1)):
        moved = torch.lerp(target, newton, part)
        found = quantise(moved)
        y_hat = found.y_hat.detach().requires_grad_(left > 0)
        with torch.enable_grad():
            distortion = (synthesise(y_hat) - x).square().sum() * worth_of_pixel
        cost = bits_of(found.symbols) + float(distortion)
        if cost >= least:
            part /= 2
            continue
        best, target, least = found, moved, cost
        if time.monotonic() - started > seconds:
            break
        if left:
            (slope,) = torch.autograd.grad(distortion, y_hat)
            newton = best.y_hat - slope / (2 * worth)
    return best


def _curvature(y_hat: Tensor, synthesise: Callable[[Tensor], Tensor]) -> Tensor:
    """Squared error in pixels for one of a channel's latents, `(M, 1, 1)`, by random probes.

    The mean over v of (J^T v)^2 is the squared norm of J's columns, J the synthesis's Jacobian.
    """
    generator = torch.Generator().manual_seed(0)  # the same image always gives the same file
    y_hat = y_hat.detach().requires_grad_(True)
    total = torch.zeros_like(y_hat)
    with torch.enable_grad():
        x_hat = synthesise(y_hat)
        for left in reversed(range(PROBES)):
            probe = torch.randn(x_hat.shape, generator=generator).to(x_hat.device)
            (slope,) = torch.autograd.grad(x_hat, y_hat, probe, retain_graph=left > 0)
            total += slope.square()
    return total[0].mean((1, 2), keepdim=True).div(PROBES).clamp(min=1e-9)
