"""The transforms of CompressAI's networks without serial context, under the names of its weights.

Written from the equations: factorized and scale hyperprior (Ballé 2018, arXiv 1802.01436), mean
and scale hyperprior (Minnen 2018, arXiv 1809.02736), generalised divisive normalisation (Ballé
2016, arXiv 1511.06281). Knows no integers and no tables.

    x --g_a--> y --h_a--> z        three channels, M at stride 16, N at stride 64
    x <--g_s-- y <--h_s-- z        h_s as floats gives the means alone
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ARCHITECTURES", "Architecture", "Config", "Gdn", "Network"]


@dataclass(frozen=True)
class Architecture:
    """What tells the networks apart.

    Attributes:
        hyper: z says which table codes each y; without it, a channel's table is always the same.
        means: z predicts the means of y, too, and sees its signs.
    """

    hyper: bool
    means: bool


ARCHITECTURES = {
    "bmshj2018-factorized": Architecture(hyper=False, means=False),
    "bmshj2018-hyperprior": Architecture(hyper=True, means=False),
    "mbt2018-mean": Architecture(hyper=True, means=True),
}


@dataclass(frozen=True)
class Config:
    """Sizes: N channels inside, M of y, which sum up from `groups`: the core, then the others."""

    arch: str
    N: int
    M: int
    groups: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))  # JSON has lists
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"arch: want one of {', '.join(ARCHITECTURES)}, got {self.arch}")
        if not self.groups or sum(self.groups) != self.M or min(self.groups) < 1:
            raise ValueError(f"groups: want sizes that sum to {self.M}, got {self.groups}")

    @property
    def architecture(self) -> Architecture:
        """What the name stands for."""
        return ARCHITECTURES[self.arch]


@final
class Gdn(nn.Module):
    """Divisive normalisation: x / sqrt(beta + gamma x^2), or times that root, on `(N, C, h, w)`."""

    def __init__(self, channels: int, *, inverse: bool) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(0.1 * torch.eye(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over channels, at each position alone."""
        energy = functional.conv2d(x**2, self.gamma[:, :, None, None], self.beta)
        return x * (energy.sqrt() if self.inverse else energy.rsqrt())


@final
class Network(nn.Module):
    """All floats of one codec.

    The order of y's channels is that of g_s and of the means; g_a and h_a have CompressAI's own,
    and `order` `(M,)` says where in it each channel stands. `medians` `(N,)`, or `(M,)` without a
    hyperprior, are what z (or y) is rounded around.
    """

    order: Tensor
    medians: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        N, M, architecture = config.N, config.M, config.architecture
        self.config = config
        self.g_a = nn.Sequential(
            *(_down(3, N), Gdn(N, inverse=False), _down(N, N), Gdn(N, inverse=False)),
            *(_down(N, N), Gdn(N, inverse=False), _down(N, M)),
        )
        self.g_s = nn.Sequential(
            *(_up(M, N), Gdn(N, inverse=True), _up(N, N), Gdn(N, inverse=True)),
            *(_up(N, N), Gdn(N, inverse=True), _up(N, 3)),
        )
        if architecture.hyper:
            activation = nn.LeakyReLU if architecture.means else nn.ReLU
            enter = nn.Conv2d(M, N, 3, padding=1)
            self.h_a = nn.Sequential(enter, activation(), _down(N, N), activation(), _down(N, N))
        if architecture.means:
            inner = M * 3 // 2
            leave = nn.Conv2d(inner, M, 3, padding=1)
            self.h_s = nn.Sequential(
                _up(N, M), nn.LeakyReLU(), _up(M, inner), nn.LeakyReLU(), leave
            )
        self.register_buffer("order", torch.arange(M))
        self.register_buffer("medians", torch.zeros(N if architecture.hyper else M))

    def hyper_latents(self, y: Tensor) -> Tensor:
        """Hyper-latents `(1, N, p, q)` of y `(1, M, 4 p, 4 q)`, in CompressAI's order."""
        return self.h_a(y if self.config.architecture.means else y.abs())  # type: ignore[no-any-return]

    def means(self, z_symbols: Tensor) -> Tensor:
        """Means of y `(1, M, 4 p, 4 q)`, in the codec's order, of z's symbols `(1, N, p, q)`."""
        return self.h_s(z_symbols + self.medians[:, None, None])  # type: ignore[no-any-return]


def _down(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)
