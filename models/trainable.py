"""What the networks that are trained for all rates share. Knows no family and no loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.models.hyper import HyperAnalysis
from codec.models.layers import QUALITY_MAX, RateTable
from codec.models.transforms import Analysis, Synthesis

__all__ = ["AbstractTrainable", "Output", "Rates"]


class Output(NamedTuple):
    """What training needs: `x_hat` `(N, 3, H, W)`, unclipped; `bits` of each sample `(N,)`."""

    x_hat: Tensor
    bits: Tensor


@dataclass(frozen=True)
class Rates:
    """What qualities 0 and 100 weigh 255^2 MSE at against bits per pixel.

    Between them lambda is log-linear in quality.
    """

    lmbda_min: float = 0.001
    lmbda_max: float = 0.16

    def lmbda_of(self, quality: Tensor) -> Tensor:
        """Weight of 255^2 MSE against bits per pixel, at qualities of any shape."""
        return self.lmbda_min * (self.lmbda_max / self.lmbda_min) ** (quality / QUALITY_MAX)

    def quality_of(self, lmbda: Tensor) -> Tensor:
        """The inverse of `lmbda_of`, unbounded."""
        span = math.log(self.lmbda_max / self.lmbda_min)
        return QUALITY_MAX * (lmbda / self.lmbda_min).log() / span


class AbstractTrainable(nn.Module, ABC):
    """A network of one of the families; `config` is a dataclass of its sizes."""

    config: Rates
    g_a: Analysis
    h_a: HyperAnalysis
    g_s: Synthesis
    gain: RateTable  # natural logarithms; y is coded in steps of exp(-gain)
    inverse_gain: RateTable
    std: Tensor  # `(M,)` each latent's usual size

    @abstractmethod
    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """x: `(N, 3, H, W)` in [0, 1], H and W multiples of 64; quality: `(N,)` in [0, 100]."""

    def encoder(self, x: Tensor, quality: Tensor) -> Tensor:
        """What of `forward` no decoder runs: z."""
        return self.h_a(self.g_a(x, quality), torch.ones(1))  # type: ignore[no-any-return]

    @abstractmethod
    def cost(self, x: Tensor, quality: Tensor) -> Tensor:
        """What stage `entropy` makes small, in bits, `(N,)`; arguments as of `forward`.

        No gradient reaches g_a.
        """

    @abstractmethod
    def entropy_parameters(self) -> list[nn.Parameter]:
        """What stage `entropy` trains: everything that gives bits and moves no pixel."""
